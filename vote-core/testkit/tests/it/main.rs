//! What a test may rely on: servers that keep what they should, and that leave nothing behind.
#![allow(clippy::unwrap_used, reason = "a helper of a test may fail like the test")]

mod clock;
mod postgres;
mod process;
mod proxy;
mod redis;
mod service;
