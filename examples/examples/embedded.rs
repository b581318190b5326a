//! The whole pipeline in one process, on SQLite files, with nothing to install.
//!
//! `cargo run --release -p vote-examples --example embedded`, then vote at <http://127.0.0.1:8080> and see the results at
//! <http://127.0.0.1:8081>. Every acknowledged vote survives `kill -9` and a power failure.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use vote_core::Polls;
use vote_examples::pipeline::Pipeline;
use vote_service::{BoxError, LogFormat, shutdown, telemetry};

/// Run the whole voting pipeline in one process: nothing to install, every acknowledged vote on disk.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// File of polls, in the format of docs/polls.toml [default: one poll, cats or dogs]
    #[arg(long, value_name = "FILE")]
    polls: Option<PathBuf>,
    /// Folder for data and secrets
    #[arg(long, value_name = "FOLDER", default_value = "vote-data")]
    data: PathBuf,
    /// Address on which votes are accepted
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address on which results are shown
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    results_listen: SocketAddr,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("embedded: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), BoxError> {
    telemetry::init("info", LogFormat::Text)?;
    let polls = match &args.polls {
        None => Polls::example(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            Polls::from_toml(&path.display().to_string(), &text)?
        }
    };
    let file = |name: &str| format!("sqlite:{}", args.data.join(name).display());
    let pipeline = Pipeline {
        queue: file("queue.db").parse()?,
        store: file("store.db").parse()?,
        data: args.data.clone(),
        polls,
        vote_at: args.listen,
        results_at: args.results_listen,
        allow_volatile: false,
    };
    let shutdown = shutdown::on_signals()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(pipeline.run(shutdown))
}
