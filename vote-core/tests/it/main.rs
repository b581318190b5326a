//! What the crate promises, tested from outside.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // Helpers of tests fail by panics, too.

mod broken;
mod frame;
mod machine;
mod memory;
mod merge;
#[cfg(feature = "postgres")]
mod postgres;
mod quarantine;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;
mod writer;
