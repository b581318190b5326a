//! Queues and stores with a fault each, to show that the suites detect it.
//!
//! Each is the implementation in memory with a single fault. They are also useful to test a checker of your own.
#![allow(clippy::missing_panics_doc)]

mod queue;
mod store;

pub use queue::{BrokenQueue, BrokenQueues, QueueFault};
pub use store::{BrokenStore, BrokenStores, StoreFault};
