//! The whole pipeline in one process, on your own Redis, with Postgres or SQLite as the store.
//!
//! `cargo run --release -p vote-examples --features servers --example local-redis -- --redis redis://127.0.0.1:6379`

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use vote_core::{Polls, QueueAddress, StoreAddress};
use vote_examples::pipeline::Pipeline;
use vote_service::{BoxError, LogFormat, shutdown, telemetry};

/// Run the whole voting pipeline in one process, on your own Redis.
///
/// The Redis must write each vote to disk before it answers: `redis-cli CONFIG SET appendonly yes`, and
/// `redis-cli CONFIG SET appendfsync always`. Until it does, no votes are accepted, and the log says why.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Address of the Redis; its keys get the prefix `vote`
    #[arg(long, value_name = "URL", default_value = "redis://127.0.0.1:6379")]
    redis: QueueAddress,
    /// Store: `postgres://USER@HOST/DATABASE` (tables are created in its schema `vote`) [default: a SQLite file]
    #[arg(long, value_name = "URL")]
    store: Option<StoreAddress>,
    /// Accept votes even if the Redis may lose them when power fails
    #[arg(long)]
    allow_volatile_queue: bool,
    /// Folder for secrets and the SQLite file
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
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("local-redis: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), BoxError> {
    telemetry::init("info", LogFormat::Text)?;
    let store = match args.store {
        Some(store) => store,
        None => format!("sqlite:{}", args.data.join("redis-store.db").display()).parse()?,
    };
    let pipeline = Pipeline {
        queue: args.redis,
        store,
        data: args.data,
        polls: Polls::example(),
        vote_at: args.listen,
        results_at: args.results_listen,
        allow_volatile: args.allow_volatile_queue,
    };
    let shutdown = shutdown::on_signals()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(pipeline.run(shutdown))
}
