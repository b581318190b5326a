//! What tests rely on: servers that keep their data, and that leave nothing behind.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test")]

mod clock;
mod postgres;
mod process;
mod proxy;
mod redis;
mod service;
