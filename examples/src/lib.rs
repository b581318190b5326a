//! Example programs to run and to read, each in `examples/`:
//!
//! - `embedded`: the whole pipeline in one process, on SQLite files.
//!   `cargo run --release -p vote-examples --example embedded`
//! - `local-redis`: the same on your own Redis and, optionally, Postgres.
//!   `cargo run --release -p vote-examples --features servers --example local-redis -- --help`
//!
//! This library holds the code that both share, [`pipeline`]; it shows how to embed the three services. Tools that test
//! the pipeline are in the package `vote-tools`, in the folder `tools`.

pub mod pipeline;
pub mod secrets;
