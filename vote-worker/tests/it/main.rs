//! Tests of the worker's binary, and of the worker with queues and a store in memory. Tests with real servers, of the
//! whole pipeline, are in the package of the examples.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // Test helpers panic, too.

mod binary;
mod capacity;
mod memory;
mod polls;
