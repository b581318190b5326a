//! The worker's binary, and the worker on parts in memory. What it does on real servers is tested with the whole
//! pipeline, in the package of the examples.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // Helpers of tests fail by panics, too.

mod binary;
mod memory;
mod polls;
