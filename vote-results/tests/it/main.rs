//! Tests of the service on stores filled from a real queue.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod binary;
mod certificate;
mod events;
mod outage;
mod receipts;
mod replicas;
mod results;
mod routes;
mod secrecy;
mod standby;
mod withheld;
mod world;
