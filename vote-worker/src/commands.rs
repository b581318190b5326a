//! What an operator decides: polls to close, queues to write off, votes in quarantine. All of it is noted in the store;
//! the workers do the rest.

use std::{process::ExitCode, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, Command};
use vote_core::{
    Partitions, PollSlug, Position, QueueId, Store, Timestamp, audit,
    store::{
        Books, Decision, QuarantineKey, QuarantineRow, QuarantineState, QueueRecord, QueueState, StoreError,
    },
};

use crate::config::StoreConfig;

/// A queue that was seen that long ago is not written off.
const SEEN_LATELY: Duration = Duration::from_secs(30);
/// How many rows of the quarantine are read at a time.
const PAGE: usize = 500;

fn reason(about: &'static str) -> Arg {
    Arg::new("reason").long("reason").value_name("TEXT").required(true).help(about)
}

/// `vote-worker polls …`
#[must_use]
pub fn polls() -> Command {
    Command::new("polls")
        .about("Lists polls, moves the closing time of one, or closes one")
        .subcommand_required(true)
        .subcommand(
            Command::new("list").about("Lists the polls in the store, and what keeps them from being final"),
        )
        .subcommand(
            Command::new("close")
                .about(
                    "Closes a poll for good: it takes no more votes, and becomes final when all are counted",
                )
                .arg(poll()),
        )
        .subcommand(
            Command::new("reschedule")
                .about(
                    "Moves the closing time of a poll that is not closed; audit and certificate show it. A file that says \
                     otherwise changes nothing",
                )
                .arg(poll())
                .arg(
                    Arg::new("closes-at")
                        .long("closes-at")
                        .value_name("TIME")
                        .required(true)
                        .value_parser(closing_time)
                        .help("Such as 2027-02-15T06:00:00Z, or `by-hand` for a poll that is closed by hand"),
                )
                .arg(reason("Why, as audit and certificate show it")),
        )
}

fn poll() -> Arg {
    Arg::new("poll").value_name("SLUG").required(true).value_parser(slug)
}

fn closing_time(text: &str) -> Result<Option<Timestamp>, String> {
    if text == "by-hand" { Ok(None) } else { text.parse().map(Some) }
}

/// `vote-worker queues …`
#[must_use]
pub fn queues() -> Command {
    Command::new("queues")
        .about("Lists queues, or writes one off")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("Lists every queue ever reported"))
        .subcommand(
            Command::new("retire")
                .about("Writes a queue off for good, which stands in audit and certificate: votes in it that were not \
                        counted never will be")
                .arg(Arg::new("queue").value_name("QUEUE").required(true).value_parser(queue_id))
                .arg(reason("Why what it lost, or still holds, is given up")),
        )
}

/// `vote-worker quarantine …`
#[must_use]
pub fn quarantine() -> Command {
    let frames = || {
        Arg::new("frame")
            .value_name("FRAME")
            .num_args(1..)
            .value_parser(|text: &str| text.parse::<QuarantineKey>())
            .help("As listed: QUEUE:PARTITION:POSITION")
    };
    let many = |command: Command| {
        command
            .arg(frames().required_unless_present_any(["of", "all"]))
            .arg(
                Arg::new("of")
                    .long("poll")
                    .value_name("NAME")
                    .conflicts_with_all(["frame", "all"])
                    .help("All frames of a poll with undecided votes"),
            )
            .arg(
                Arg::new("all")
                    .long("all")
                    .action(ArgAction::SetTrue)
                    .help("All frames with undecided votes"),
            )
    };
    Command::new("quarantine")
        .about("Lists, shows, replays or rejects votes that could not be counted, by the frame they came in")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("Lists frames with quarantined votes").arg(
            Arg::new("pending").long("pending").action(ArgAction::SetTrue).help("Only those still undecided"),
        ))
        .subcommand(
            Command::new("show")
                .about("Shows a frame: reason, which of its votes are quarantined, and its bytes")
                .arg(frames().required(true)),
        )
        .subcommand(many(
            Command::new("replay").about("Has the workers try the quarantined votes of frames again"),
        ))
        .subcommand(
            many(
                Command::new("reject")
                    .about("Decides for good that the quarantined votes of frames stay uncounted"),
            )
            .arg(reason("Why, as it stands in the store from then on")),
        )
}

fn slug(text: &str) -> Result<PollSlug, String> {
    text.parse().map_err(|e| format!("{e}"))
}

fn queue_id(text: &str) -> Result<QueueId, String> {
    text.parse().map_err(|e| format!("a queue is 32 hexadecimal digits, as listed: {e}"))
}

/// Whether a command is one of these.
#[must_use]
pub fn is_of(name: &str) -> bool {
    matches!(name, "migrate" | "polls" | "queues" | "quarantine")
}

/// Runs a command. Exits with 0, or 1 if it could not be done.
#[must_use]
pub fn run(name: &str, matches: &ArgMatches, config: &StoreConfig) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&e),
    };
    let done = runtime.block_on(async {
        // Only `migrate` has none.
        let Some((what, matches)) = matches.subcommand() else {
            return Ok(config.store.migrate(&config.store_schema).await?);
        };
        let store = config.store.open(&config.store_schema).await?;
        match (name, what) {
            ("polls", "list") => list_polls(&*store).await,
            ("polls", "reschedule") => reschedule(&*store, matches).await,
            ("polls", _) => close_poll(&*store, matches).await,
            ("queues", "list") => list_queues(&*store).await,
            ("queues", _) => retire(&*store, matches).await,
            (_, "list") => list_quarantine(&*store, matches.get_flag("pending")).await,
            (_, "show") => show_frames(&*store, matches).await,
            (_, "replay") => decide(&*store, matches, &Decision::Replay).await,
            _ => decide(&*store, matches, &Decision::Reject(text(matches, "reason"))).await,
        }
    });
    done.map_or_else(|e| failed(&*e), |()| ExitCode::SUCCESS)
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("vote-worker: {error}");
    ExitCode::FAILURE
}

type Done = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn text(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().unwrap_or_default()
}

async fn list_polls(store: &dyn Store) -> Done {
    let books = store.snapshot().await?.books(false).await?;
    for poll in &books.polls {
        let votes: i64 = books.tally.iter().filter(|row| row.poll == poll.slug).map(|row| row.votes).sum();
        let state = match (poll.closed_at, poll.final_at, poll.closes_at) {
            (_, Some(at), _) => format!("final since {at}"),
            (Some(at), None, _) => format!("closed since {at}"),
            (None, None, Some(at)) => format!("closes at {at}"),
            (None, None, None) => "open until it is closed by hand".to_owned(),
        };
        println!("{}  {state}, {votes} votes stand", poll.slug);
        if poll.closed_at.is_some() && poll.final_at.is_none() {
            for obstacle in audit::obstacles(&books, poll.slug) {
                println!("    not final: {obstacle}");
            }
        }
    }
    Ok(())
}

async fn close_poll(store: &dyn Store, matches: &ArgMatches) -> Done {
    let Some(poll) = matches.get_one::<PollSlug>("poll") else { return Ok(()) };
    let closed = store.close_poll(*poll).await?.ok_or_else(|| not_registered(*poll))?;
    let at = closed.closed_at.map(|at| at.to_string()).unwrap_or_default();
    println!("poll {poll} is closed since {at}; workers seal its queues and count what is in them");
    Ok(())
}

fn not_registered(poll: PollSlug) -> String {
    format!("poll {poll} is not registered; `vote-worker polls list` names those that are")
}

async fn reschedule(store: &dyn Store, matches: &ArgMatches) -> Done {
    let (poll, at) = (matches.get_one::<PollSlug>("poll"), matches.get_one::<Option<Timestamp>>("closes-at"));
    let (Some(poll), Some(at)) = (poll, at) else { return Ok(()) };
    let moved = store.reschedule_poll(*poll, *at, &text(matches, "reason")).await?;
    let moved = moved.ok_or_else(|| not_registered(*poll))?;
    match moved.closes_at {
        Some(at) => println!("poll {poll} closes at {at}"),
        None => println!("poll {poll} is open until it is closed by hand"),
    }
    Ok(())
}

async fn list_queues(store: &dyn Store) -> Done {
    for queue in store.queues().await? {
        let of = queue.remains_of.map(|of| format!(", what is left of {of}")).unwrap_or_default();
        let reason = if queue.reason.is_empty() { String::new() } else { format!(": {}", queue.reason) };
        println!(
            "{}  {}  {}{of}{reason}; seen at {} with {} accepted votes, {} of them queued",
            queue.id,
            queue.address,
            queue.state.as_str(),
            queue.seen_at,
            queue.votes_accepted(),
            queue.queued.values().sum::<u64>()
        );
    }
    Ok(())
}

async fn retire(store: &dyn Store, matches: &ArgMatches) -> Done {
    let Some(id) = matches.get_one::<QueueId>("queue") else { return Ok(()) };
    let unknown = || format!("there is no queue {id}; `vote-worker queues list` names them");
    let queues = store.queues().await?;
    let queue = queues.iter().find(|queue| queue.id == *id).ok_or_else(unknown)?;
    let books = store.snapshot().await?.books(false).await?;
    if let Some(reason) = not_yet(queue, &books) {
        return Err(format!("queue {id} at {}: {reason}", queue.address).into());
    }
    store.retire(*id, &text(matches, "reason")).await?;
    println!("queue {id} is written off");
    Ok(())
}

/// Why a queue is not to be written off now.
fn not_yet(queue: &QueueRecord, books: &Books) -> Option<String> {
    let age = books.taken_at.as_micros() - queue.seen_at.as_micros();
    let seen_lately = age < SEEN_LATELY.as_micros() as i64;
    let mut remains = books.queues.iter().filter(|record| record.remains_of == Some(queue.id)).peekable();
    match queue.state {
        QueueState::Retired => None,
        QueueState::Active => seen_lately.then(|| {
            format!(
                "it is alive: it was seen at {}. Stop its frontend and its server first, or votes would be acknowledged \
                 that are never counted",
                queue.seen_at
            )
        }),
        QueueState::Cut if remains.peek().is_none() => seen_lately.then(|| {
            "it was cut just now. Wait for what is left of it to be read; where nothing is, half a minute".to_owned()
        }),
        QueueState::Cut => remains
            .any(|record| !audit::is_read_to_the_end(books, record))
            .then(|| "what is left of it is still being read: wait until it is counted".to_owned()),
    }
}

/// Calls `with` for every frame with votes that are or were quarantined.
async fn each_frame(store: &dyn Store, mut with: impl FnMut(&QuarantineRow)) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let rows = store.quarantine(after, PAGE).await?;
        rows.iter().for_each(&mut with);
        match rows.last() {
            Some(last) => after = Some(last.key()),
            None => return Ok(()),
        }
    }
}

async fn list_quarantine(store: &dyn Store, pending: bool) -> Done {
    each_frame(store, |row| {
        if !pending || row.state.is_pending() {
            println!(
                "{}  {}  poll {}, {} of {} votes, quarantined at {}: {}",
                row.key(),
                row.state.as_str(),
                row.frame.poll.escape_debug(),
                row.frame.votes(),
                row.frame.accounted,
                row.set_aside_at,
                row.frame.reason
            );
        }
    })
    .await?;
    Ok(())
}

async fn show_frames(store: &dyn Store, matches: &ArgMatches) -> Done {
    let layout = store.layout().await?.ok_or("the store is empty")?;
    for key in matches.get_many::<QuarantineKey>("frame").into_iter().flatten() {
        show_frame(layout.partitions, &find(store, *key).await?);
    }
    Ok(())
}

fn show_frame(partitions: Partitions, row: &QuarantineRow) {
    let (frame, bytes) = (&row.frame, &row.frame.frame);
    println!("frame     {}", row.key());
    println!("state     {}", row.state.as_str());
    println!("reason    {}", frame.reason);
    println!("since     {}", row.set_aside_at);
    println!("poll      {}", frame.poll.escape_debug());
    let verb = if row.state == QuarantineState::Counted { "were" } else { "are" };
    println!("votes     {} of {} {verb} quarantined", frame.votes(), frame.accounted);
    match frame.decode(row.partition, partitions) {
        Err(e) => println!("decodes   no: {e}"),
        Ok(votes) => {
            println!("decodes   yes");
            let mut options = std::collections::BTreeMap::new();
            votes.iter().for_each(|vote| *options.entry(vote.option).or_insert(0) += 1);
            for (option, n) in options {
                println!("          {n} × {option}");
            }
            println!("          those, by index in the frame:");
            let quarantined = (0..).zip(&votes).filter(|(index, _)| frame.quarantined.contains(*index));
            for (index, vote) in quarantined {
                println!("  {index:>6}  {}  cast at {}", vote.option, vote.cast_at);
            }
        }
    }
    println!("bytes     {}", bytes.len());
    for (i, line) in bytes.chunks(32).enumerate() {
        println!("  {:06x}  {}", i * 32, hex::encode(line));
    }
}

/// The row of that name: the first after the place just before it.
async fn find(
    store: &dyn Store,
    key: QuarantineKey,
) -> Result<QuarantineRow, Box<dyn std::error::Error + Send + Sync>> {
    let before = QuarantineKey { position: Position::START, ..key };
    let mut after = Some(before);
    loop {
        let rows = store.quarantine(after, PAGE).await?;
        let next = rows.last().map(QuarantineRow::key);
        if let Some(row) = rows.into_iter().find(|row| row.key() == key) {
            return Ok(row);
        }
        if next.is_none_or(|next| next > key) {
            return Err(format!(
                "no frame {key} has quarantined votes; `vote-worker quarantine list` names those that have"
            )
            .into());
        }
        after = next;
    }
}

async fn decide(store: &dyn Store, matches: &ArgMatches, decision: &Decision) -> Done {
    let of = matches.get_one::<String>("of");
    let mut frames: Vec<QuarantineKey> = matches.get_many("frame").into_iter().flatten().copied().collect();
    if frames.is_empty() {
        each_frame(store, |row| {
            if row.state.is_pending() && of.is_none_or(|poll| *poll == row.frame.poll) {
                frames.push(row.key());
            }
        })
        .await?;
    }
    let mut decided = 0;
    for some in frames.chunks(PAGE) {
        decided += store.decide(some, decision).await?;
    }
    let what = match decision {
        Decision::Replay => "are tried again by the workers within seconds",
        Decision::Reject(_) => "stay uncounted for good",
    };
    println!("the quarantined votes of {decided} frames {what}");
    if decided < frames.len() as u64 {
        return Err(format!(
            "{} frames were decided before, or are not there",
            frames.len() as u64 - decided
        )
        .into());
    }
    Ok(())
}
