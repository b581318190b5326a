//! Measures what the pipeline costs, as ratios: CPU time per unit of work, against a yardstick in the same run.
//!
//! Each comparison alternates its sides and reports the median of the pairs, since the speed of a shared machine changes
//! from one quarter of an hour to the next. CPU time is that of the measured processes, user and system; the load
//! generator is this process.
//!
//! ```text
//! deploy/speed            # all comparisons
//! deploy/speed front      # one of them
//! ```
//!
//! [`args`] lists the comparisons. [`compare`] prints tables of costs and ratios, [`requests`] sends requests, [`bare`] is
//! the yardstick of an HTTP server, and [`lane`] commits votes as a worker does.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A tool for developers may panic.
#![allow(clippy::future_not_send)] // One thread sends all requests.

mod args;
mod bare;
mod commit;
mod compare;
mod front;
mod frontend;
mod grown;
mod idle;
mod lane;
mod pipeline;
mod queue;
mod requests;
mod yardsticks;

use std::process::ExitCode;

use vote_tools::command;

use crate::args::{Args, Mode};

/// That of the services, so that the bare server has it, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Args = match command::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = match &args.mode {
        Mode::Bare(bare) => return bare::serve(&runtime, bare),
        Mode::Commit(args) => runtime.block_on(commit::run(args)),
        Mode::Front(args) => runtime.block_on(front::run(args)),
        Mode::Grown(args) => runtime.block_on(grown::run(args)),
        Mode::Idle(args) => runtime.block_on(idle::run(args)),
        Mode::Hold(args) => return runtime.block_on(idle::hold(args)),
        Mode::Pipeline(args) => pipeline::run(args),
        Mode::Queue(args) => runtime.block_on(queue::run(args)),
    };
    command::print_report("speed", &report, report["met"] == true)
}
