//! The whole pipeline, of real processes: what an operator runs, on a real Redis and a real Postgres.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // Helpers of tests fail by panics, too.

mod checker;
mod clocks;
mod closing;
mod cut;
mod embedded;
mod failover;
mod faults;
mod files;
mod lanes;
mod logs;
mod metrics;
mod operations;
mod partitions;
mod pipeline;
mod polls;
mod quarantine;
mod queues;
mod restore;
mod sight;
#[cfg(feature = "otel")]
mod traces;
mod world;
