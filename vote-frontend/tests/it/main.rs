//! Responses of the frontend to votes, and to requests that are none.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // Test helpers panic, too.

mod binary;
mod polls;
mod refusals;
mod votes;
mod world;
