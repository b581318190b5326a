//! Tests of the whole pipeline as real processes, as an operator runs it, on a real Redis and a real Postgres.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // The helpers of tests fail by panics as well.

mod cache;
mod checker;
mod clocks;
mod closing;
mod deployment;
mod discovery;
mod diverged;
mod embedded;
mod failover;
mod faults;
mod files;
mod lanes;
mod load_balancer;
mod logs;
mod metrics;
mod operations;
mod partitions;
mod pipeline;
mod polls;
mod promotion;
mod quarantine;
mod queues;
mod restore;
mod scale;
mod sight;
mod streams;
#[cfg(feature = "otel")]
mod traces;
mod withdrawal;
mod world;
