//! Queues and stores that break one clause each, to show that the suites notice.
//!
//! Each is the one in memory with a single fault. They are also of use for testing a checker of your own.
#![allow(clippy::missing_panics_doc)]

mod queue;
mod store;

pub use queue::{BrokenQueue, BrokenQueues, QueueFault};
pub use store::{BrokenStore, BrokenStores, StoreFault};
