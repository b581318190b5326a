//! What a voter, and whoever is none, gets from the frontend.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // Helpers of tests fail by panics, too.

mod binary;
mod polls;
mod refusals;
mod votes;
mod world;
