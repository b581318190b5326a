//! What the crate promises, tested from outside.

mod broken;
mod memory;
