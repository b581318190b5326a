//! Tools that test the pipeline as a whole, each an example target of this package:
//!
//! - `load`: casts any number of votes over HTTP and checks that the tally is exactly what the acknowledged ones imply.
//!   `cargo run --release --example load -- --help`
//! - `faults`: runs the pipeline as real processes, injects random faults while votes are cast, and checks every voter.
//!   `cargo build --release --bins`, then `cargo run --release --example faults -- --seed 1`
//! - `faulty-worker`: a worker that breaks one rule, to show that `faults` detects it.
//! - `scale`: counts what workers ask of queues and store, by the numbers of queues, workers, partitions and polls.
//!   `deploy/scale --help`
//! - `speed`: measures CPU time per vote against yardsticks in the same run. `deploy/speed --help`
//! - `simulation`: runs the pipeline in a deterministic simulation with faults. `deploy/simulate --help`
//!
//! Its tests, in `tests/it`, run the binaries and examples of the whole workspace. The tools are a package of their own
//! so that the examples to read depend on no client and no test tool.
//!
//! This library is what the tools have in common: the [`VoterPopulation`], and the [`FrontendClient`] over which the
//! votes of its voters are sent, with the [`Outcome`] of each. `load` casts as many votes as the frontends can take and
//! knows only the tally, so it checks whether the outcomes explain it. `faults` also sees every row of the store, so it
//! checks the vote of each voter; its voters send votes that a browser would not send, such as two at once.

pub mod client;
pub mod command;
pub mod cookies;
pub mod cpu;
pub mod link;
pub mod outcome;
pub mod pace;
pub mod population;

pub use client::{FrontendClient, VoteAnswer};
pub use cookies::Cookies;
pub use link::{Link, NoAnswer};
pub use outcome::Outcome;
pub use pace::Pace;
pub use population::VoterPopulation;
