//! The steps of a run.

use std::{
    thread,
    time::{Duration, Instant},
};

use vote_core::{Clock, SystemClock, store::PostgresStore};
use vote_testkit::Postgres;

use crate::{
    args::Args,
    error::StreamsError,
    report::Report,
    services::{Services, Usage},
    votes,
    watchers::Watchers,
};

/// Time in which all streams must be open.
const OPEN_WITHIN: Duration = Duration::from_secs(300);
/// Time in which an event must reach all streams.
const RECEIVED_WITHIN: Duration = Duration::from_secs(60);
/// Pause before each vote. It is no multiple of the interval at which results are read, so votes come at any time of it.
const PAUSE: Duration = Duration::from_millis(1_370);

/// Measures, as the command line asks for.
pub(crate) async fn run(args: &Args) -> Result<Report, StreamsError> {
    let postgres = Postgres::start();
    let url = postgres.database();
    let store = PostgresStore::connect(&url, "vote")?;
    votes::prepare(&store).await?;
    let streams = shares(args.streams, args.per_service);
    let services = Services::start(&url, &streams);
    let empty = services.usage()?;

    eprintln!("streams: opening {} streams at {} services", args.streams, streams.len());
    let started = Instant::now();
    let watched: Vec<_> = services.addresses().zip(streams.iter().copied()).collect();
    let watchers = Watchers::start(&watched)?;
    watchers.wait_for(0, "the results", OPEN_WITHIN)?;
    let open_seconds = started.elapsed().as_secs_f64();
    eprintln!("streams: all are open after {open_seconds:.1} s");

    let (idle, full) = idle(&services, args.idle_seconds)?;
    let mut received_ms = Vec::new();
    for total in 1..=u64::from(args.votes) {
        thread::sleep(PAUSE);
        votes::commit(&store, total).await?;
        let committed = SystemClock.now().as_micros();
        let received = watchers.wait_for(total, "the event", RECEIVED_WITHIN)?;
        received_ms.push((received - committed) as f64 / 1e3);
        eprintln!(
            "streams: vote {total} was received by all after {:.0} ms",
            (received - committed) as f64 / 1e3
        );
    }
    let after = services.usage()?;
    let waited = PAUSE.as_secs_f64() * f64::from(args.votes) + received_ms.iter().sum::<f64>() / 1e3;
    Ok(Report {
        streams: args.streams,
        services: streams.len(),
        open_seconds,
        received_ms,
        event_cpu: (after.cpu - full.cpu).saturating_sub(idle.mul_f64(waited)),
        idle_cpu: idle,
        memory: full.memory - empty.memory,
    })
}

/// Returns the CPU time of all services in one second without votes, and what they have used since their start.
fn idle(services: &Services, seconds: u32) -> Result<(Duration, Usage), StreamsError> {
    let before = services.usage()?;
    thread::sleep(Duration::from_secs(seconds.into()));
    let after = services.usage()?;
    Ok(((after.cpu - before.cpu) / seconds, after))
}

/// Distributes streams evenly over as few services as possible.
fn shares(streams: u32, per_service: u32) -> Vec<u32> {
    let services = streams.div_ceil(per_service);
    (0..services).map(|n| streams / services + u32::from(n < streams % services)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_shared_evenly() {
        assert_eq!(shares(10, 10), [10]);
        assert_eq!(shares(11, 10), [6, 5]);
        assert_eq!(shares(100_000, 15_000).len(), 7);
        assert_eq!(shares(100_000, 15_000).iter().sum::<u32>(), 100_000);
    }
}
