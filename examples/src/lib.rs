//! Programs to run and to read, each in `examples/`:
//!
//! - `embedded`: the whole pipeline in one process, on SQLite files. `cargo run --release --example embedded`
//! - `local-redis`: the same on a Redis of yours, and on Postgres if you like.
//!   `cargo run --release --example local-redis -- --help`
//! - `load`: casts votes over HTTP, as many as wanted, and checks that the tally is exactly what the acknowledged
//!   ones imply. `cargo run --release --example load -- --help`
//! - `faults`: runs all of it as real processes, breaks it at random while votes are cast, and checks every voter.
//!   `cargo build --release --bins`, then `cargo run --release --example faults -- --seed 1`
//! - `faulty-worker`: a worker that breaks one rule, to show that `faults` notices.
//!
//! This library is what the first two have in common, [`pipeline`]: it shows how to embed the three services.

pub mod pipeline;
pub mod secrets;
