//! Black-box tests of the server and of the layers in front of an application.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod admin;
mod deployment;
mod drain;
mod guard;
mod limits;
mod program;
mod signals;
mod support;
