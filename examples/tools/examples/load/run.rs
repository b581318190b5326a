//! A run from start to report: read the tally, cast votes, wait, check.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{task::JoinSet, time::interval};
use vote_tools::{Pace, command::rounded};

use crate::{
    address::{Host, Url},
    args::Config,
    cast::{LoadRun, Log, VirtualVoter},
    drain,
    error::LoadError,
    progress::Progress,
    report::Report,
    results::{Results, Tally},
    votes::PlannedVotes,
};

/// Casts all votes and checks the tally.
///
/// # Errors
/// Fails if the tally can't be checked: a service can't be reached, or does something that makes a check impossible.
pub(crate) async fn run(config: Config) -> Result<Report, LoadError> {
    let targets = resolve(&config.targets).await?;
    let results_host = Arc::new(Host::resolve(&config.results).await?);
    for host in &targets {
        let why = match host.link(config.request_timeout).connect().await {
            Ok(()) => continue,
            Err(why) => why,
        };
        return Err(LoadError::Unreachable { url: host.url.clone(), what: "frontend", why });
    }
    let mut results = Results::new(Arc::clone(&results_host), config.poll, config.request_timeout);
    let start = drain::still(&mut results, config.settle, config.timeout).await?;
    eprintln!(
        "load: {} voters, {}% voting twice, poll {:?}, {} target(s), {} connections each, seed {}; \
         {} votes counted before",
        config.voters,
        rounded(config.double * 100.0),
        config.poll.as_str(),
        targets.len(),
        config.connections,
        config.seed,
        start.total(),
    );

    let course = Arc::new(course(&config, targets, &start)?);
    let began = Instant::now();
    let log = cast(&config, &course).await?;
    let ended = log.last_ack.unwrap_or(began);
    eprintln!("load: all votes cast: {}; waiting for the tally", course.progress.counts());

    let drained = drain::drain(&mut results, &start, &log.census, config.settle, config.timeout).await?;
    let counts = course.progress.counts();
    // Up to the last acknowledgement: later attempts that all failed are not part of the time that casting took.
    let seconds = (ended - began).as_secs_f64();
    let names = || start.options.iter().map(|option| option.as_str().to_owned());
    Ok(Report {
        acked: counts.acked,
        unknown: counts.unknown,
        refused: counts.refused,
        unsent: counts.unsent,
        retries: log.retries,
        votes_per_second: rounded(if seconds > 0.0 { counts.acked as f64 / seconds } else { 0.0 }),
        p50_ms: log.latency.value_at_quantile(0.5) as f64 / 1000.0,
        p99_ms: log.latency.value_at_quantile(0.99) as f64 / 1000.0,
        seconds: rounded(seconds),
        drain_seconds: drained.complete.map(|at| rounded(at.saturating_duration_since(ended).as_secs_f64())),
        voters: config.voters,
        double_votes: log.double_votes,
        double_votes_percent: rounded(config.double * 100.0),
        ambiguous: log.census.ambiguous(),
        keep: config.keep.as_str(),
        seed: config.seed,
        expected: names().zip(log.census.expected().iter().copied()).collect(),
        tally: names().zip(drained.tally).collect(),
        exact: drained.exact,
        incomplete: incomplete(&config, &course),
    })
}

async fn resolve(urls: &[Url]) -> Result<Vec<Arc<Host>>, LoadError> {
    let mut hosts = Vec::with_capacity(urls.len());
    for url in urls {
        hosts.push(Arc::new(Host::resolve(url).await?));
    }
    Ok(hosts)
}

fn course(config: &Config, targets: Vec<Arc<Host>>, start: &Tally) -> Result<LoadRun, LoadError> {
    let path = format!("/polls/{}/votes", config.poll.as_str());
    let bodies = start.options.iter().map(|option| {
        // A slug has no characters that need escaping in JSON.
        Bytes::from(format!("{{\"option\":\"{}\"}}", option.as_str()))
    });
    Ok(LoadRun {
        path: path.parse().map_err(|e: http::uri::InvalidUri| LoadError::Usage(format!("{path}: {e}")))?,
        bodies: bodies.collect(),
        votes: PlannedVotes::new(config.seed, start.options.len(), config.voters, config.double),
        voters: config.voters,
        keep: config.keep,
        attempts: config.attempts,
        request_timeout: config.request_timeout,
        pace: Pace::new(config.rate),
        progress: Progress::default(),
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        targets,
    })
}

/// Casts all votes, and prints the progress once a second.
async fn cast(config: &Config, course: &Arc<LoadRun>) -> Result<Log, LoadError> {
    let mut tasks = JoinSet::new();
    for _ in 0..config.connections {
        tasks.spawn(VirtualVoter::new(Arc::clone(course)).run());
    }
    let mut log = Log::new(config.keep, course.bodies.len());
    let mut tick = interval(Duration::from_secs(1));
    tick.tick().await;
    let (mut before, mut moved) = (course.progress.counts(), Instant::now());
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                // On an error the set is dropped, which aborts the other tasks.
                Some(ended) => log.merge(&ended??),
                None => return Ok(log),
            },
            _ = tick.tick() => {
                let counts = course.progress.counts();
                if (counts.acked, counts.refused) != (before.acked, before.refused) {
                    moved = Instant::now();
                } else if moved.elapsed() > config.timeout {
                    course.stop.store(true, Ordering::Relaxed);
                }
                eprintln!("load: {counts}; {} per second", counts.acked - before.acked);
                before = counts;
            }
        }
    }
}

/// Returns why the run proves less than was asked for, if it does.
fn incomplete(config: &Config, course: &LoadRun) -> Option<String> {
    let counts = course.progress.counts();
    let problem = course.progress.problem().unwrap_or("none");
    let stopped = course.stop.load(Ordering::Relaxed);
    let what = if counts.acked == 0 {
        "no vote was acknowledged, so an exact tally proves nothing".to_owned()
    } else if stopped && course.next.load(Ordering::Relaxed) < course.voters {
        let seconds = config.timeout.as_secs();
        format!("given up before all voters had voted: no vote was acknowledged or refused for {seconds} s")
    } else {
        return None;
    };
    Some(format!("{what}; check that the frontends are ready and the poll is open; first problem: {problem}"))
}
