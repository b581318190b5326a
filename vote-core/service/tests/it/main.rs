//! The server and what stands in front of an application, from the outside.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod admin;
mod deployment;
mod drain;
mod guard;
mod limits;
mod signals;
mod support;
