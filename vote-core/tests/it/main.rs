//! Tests of the crate's public interface.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // Test helpers fail by panicking, too.

mod broken;
mod frame;
mod layer;
mod ledger;
mod machine;
mod memory;
mod merge;
#[cfg(feature = "postgres")]
mod postgres;
mod quarantine;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod reasons;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;
mod writer;
