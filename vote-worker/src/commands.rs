//! Commands for operators: they list, close, reschedule and withdraw polls, list and retire queues, and decide on
//! quarantined votes. Each decision is recorded in the store; the workers carry it out.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use vote_core::{
    Partitions, PollSlug, Position, QueueId, Store, Timestamp,
    count::{
        Decision, EarlierDefinition, QuarantineKey, QuarantineRow, QuarantineState, QueueRecord, QueueState,
        RegisteredPoll, Withdrawal, audit, retirement_obstacle,
    },
    store::{Catalog, StoreError},
};
use vote_service::{ConfigError, Settings};

use crate::config::StoreConfig;

/// Number of quarantined frames that are read at a time.
const PAGE: usize = 500;

fn reason(about: &'static str) -> Arg {
    Arg::new("reason").long("reason").value_name("TEXT").required(true).help(about)
}

/// Returns the definition of `vote-worker polls …`.
#[must_use]
pub fn polls() -> Command {
    Command::new("polls")
        .about("Lists polls; reschedules, closes or withdraws a poll")
        .subcommand_required(true)
        .subcommand(
            Command::new("list").about("Lists the polls in the store, and what keeps closed ones from being final"),
        )
        .subcommand(
            Command::new("close")
                .about(
                    "Closes a poll for good: it accepts no more votes, and becomes final when all are counted",
                )
                .arg(poll()),
        )
        .subcommand(
            Command::new("reschedule")
                .about(
                    "Moves the closing time of a poll that is not closed; audit and certificate show the move. A file \
                     of polls with another time has no effect",
                )
                .arg(poll())
                .arg(
                    Arg::new("closes-at")
                        .long("closes-at")
                        .value_name("TIME")
                        .required(true)
                        .value_parser(closing_time)
                        .help("The new time, such as 2027-02-15T06:00:00Z, or `by-hand` to close it by hand"),
                )
                .arg(reason("Why the poll is rescheduled; shown in audit and certificate")),
        )
        .subcommand(
            Command::new("withdraw")
                .about(
                    "Withdraws a poll without votes, so that its slug can get another definition: put that into the \
                     files of the workers first, and then of the frontends",
                )
                .arg(poll())
                .arg(reason("Why the poll is withdrawn; shown by `polls list`")),
        )
}

fn poll() -> Arg {
    Arg::new("poll")
        .value_name("SLUG")
        .required(true)
        .value_parser(slug)
        .help("Slug of the poll, as shown by `polls list`")
}

fn closing_time(text: &str) -> Result<Option<Timestamp>, String> {
    if text == "by-hand" { Ok(None) } else { text.parse().map(Some) }
}

/// Returns the definition of `vote-worker queues …`.
#[must_use]
pub fn queues() -> Command {
    Command::new("queues")
        .about("Lists queues, or retires one")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("Lists all queues that were ever reported"))
        .subcommand(
            Command::new("retire")
                .about(
                    "Retires a queue for good: votes in it that are not counted yet never will be. Audit and \
                     certificate show it",
                )
                .arg(Arg::new("queue")
                .value_name("QUEUE")
                .required(true)
                .value_parser(queue_id)
                .help("Id of the queue, as `queues list` shows it"))
                .arg(reason(
                    "Why the votes that it lost or still holds are accepted as lost; shown in audit and certificate",
                )),
        )
}

/// Returns the definition of `vote-worker quarantine …`.
#[must_use]
pub fn quarantine() -> Command {
    let frames = || {
        Arg::new("frame")
            .value_name("FRAME")
            .num_args(1..)
            .value_parser(|text: &str| text.parse::<QuarantineKey>())
            .help("Frame as shown by `quarantine list`: QUEUE:PARTITION:POSITION")
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
        .about("Lists, shows, replays or rejects votes that could not be counted, by the frame in which they came")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("Lists frames with quarantined votes").arg(
            Arg::new("pending").long("pending").action(ArgAction::SetTrue).help("Only frames that are still undecided"),
        ))
        .subcommand(
            Command::new("show")
                .about("Shows a frame: the reason, which of its votes are quarantined, and its bytes")
                .arg(frames().required(true)),
        )
        .subcommand(many(
            Command::new("replay").about("Makes the workers try again to count the quarantined votes of frames"),
        ))
        .subcommand(
            many(
                Command::new("reject")
                    .about("Decides for good that the quarantined votes of frames are never counted"),
            )
            .arg(reason("Why the votes are rejected; stored with them")),
        )
}

fn slug(text: &str) -> Result<PollSlug, String> {
    text.parse().map_err(|e| format!("{e}"))
}

fn queue_id(text: &str) -> Result<QueueId, String> {
    text.parse().map_err(|e| format!("expected 32 hexadecimal digits, as shown by `queues list`: {e}"))
}

/// Runs a command. Returns exit code 0, or 1 if it failed.
///
/// # Errors
/// Fails if the settings that name the store are missing or invalid.
pub fn run(name: &str, matches: &ArgMatches, settings: Settings) -> Result<ExitCode, ConfigError> {
    let config = StoreConfig::from_settings(settings)?;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Ok(failed(&e)),
    };
    let done = runtime.block_on(execute(name, matches, &config));
    Ok(done.map_or_else(|e| failed(&*e), |()| ExitCode::SUCCESS))
}

async fn execute(name: &str, matches: &ArgMatches, config: &StoreConfig) -> Done {
    // `migrate` is the only one without a subcommand.
    let Some((what, matches)) = matches.subcommand() else {
        return Ok(config.store.migrate(&config.store_schema).await?);
    };
    let store = config.store.open(&config.store_schema).await?;
    match (name, what) {
        ("polls", "list") => list_polls(&*store).await,
        ("polls", "withdraw") => withdraw(&*store, matches).await,
        ("polls", "reschedule") => reschedule(&*store, matches).await,
        ("polls", _) => close_poll(&*store, matches).await,
        ("queues", "list") => list_queues(&*store).await,
        ("queues", _) => retire(&*store, matches).await,
        (_, "list") => list_quarantine(&*store, matches.get_flag("pending")).await,
        (_, "show") => show_frames(&*store, matches).await,
        (_, "replay") => decide(&*store, matches, &Decision::Replay).await,
        _ => decide(&*store, matches, &Decision::Reject(text(matches, "reason"))).await,
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("vote-worker: {error}");
    ExitCode::FAILURE
}

/// Outcome of a command.
type Done = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn text(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().unwrap_or_default()
}

async fn list_polls(store: &dyn Store) -> Done {
    let accounts = store.snapshot().await?.accounts(false).await?;
    let catalog = store.catalog().await?;
    for poll in &accounts.polls {
        let votes: i64 = accounts.tally.iter().filter(|row| row.poll == poll.slug).map(|row| row.votes).sum();
        let state = match (poll.closed_at, poll.final_at, poll.closes_at) {
            _ if poll.withdrawal.is_some() => withdrawn(poll, &catalog),
            (_, Some(at), _) => format!("final since {at}"),
            (Some(at), None, _) => format!("closed since {at}"),
            (None, None, Some(at)) => format!("closes at {at}"),
            (None, None, None) => "open until it is closed by hand".to_owned(),
        };
        println!("{}  {state}, {votes} votes counted", poll.slug);
        for EarlierDefinition { digest, withdrawal: Withdrawal { at, reason } } in &poll.earlier {
            println!("    earlier definition (digest {digest}) withdrawn at {at}: {reason}");
        }
        if poll.closed_at.is_some() && poll.final_at.is_none() {
            for obstacle in audit::obstacles(&accounts, poll.slug) {
                println!("    not final: {obstacle}");
            }
        }
    }
    Ok(())
}

/// Describes the state of a withdrawn poll: which queues have not given it up yet.
fn withdrawn(poll: &RegisteredPoll, catalog: &Catalog) -> String {
    let Some(Withdrawal { at, reason }) = &poll.withdrawal else { return String::new() };
    let waits = |queue: &&QueueRecord| {
        let gave_up = catalog.given_up.contains(&(queue.id, poll.slug));
        queue.state != QueueState::Retired && queue.original_id.is_none() && !gave_up
    };
    let name = |queue: &QueueRecord| {
        let what_to_do = if queue.state == QueueState::Diverged { " (diverged: retire it)" } else { "" };
        format!("{} at {}{what_to_do}", queue.id, queue.address)
    };
    let waiting: Vec<_> = catalog.queues.values().filter(waits).map(name).collect();
    let rest = match waiting.as_slice() {
        [] => "every queue has given it up, so another definition can be registered".to_owned(),
        queues => format!("waiting for queue {}", queues.join(", queue ")),
    };
    format!("withdrawn since {at} ({reason}), {rest}")
}

async fn withdraw(store: &dyn Store, matches: &ArgMatches) -> Done {
    let Some(poll) = matches.get_one::<PollSlug>("poll") else { return Ok(()) };
    let found = store.withdraw_poll(*poll, &text(matches, "reason")).await?;
    let at =
        found.ok_or_else(|| not_registered(*poll))?.withdrawal.map(|withdrawal| withdrawal.at.to_string());
    println!(
        "poll {poll} is withdrawn since {}. Now put its new definition into the files of all workers; once \
         `polls list` shows that it is registered, put it into the files of the frontends",
        at.unwrap_or_default()
    );
    Ok(())
}

async fn close_poll(store: &dyn Store, matches: &ArgMatches) -> Done {
    let Some(poll) = matches.get_one::<PollSlug>("poll") else { return Ok(()) };
    let closed = store.close_poll(*poll).await?.ok_or_else(|| not_registered(*poll))?;
    if closed.withdrawal.is_some() {
        return Err(format!("poll {poll} is withdrawn, so there is nothing to close").into());
    }
    let at = closed.closed_at.map(|at| at.to_string()).unwrap_or_default();
    println!("poll {poll} is closed since {at}; workers seal the queues and count the remaining votes");
    Ok(())
}

fn not_registered(poll: PollSlug) -> String {
    format!("poll {poll} is not registered; `vote-worker polls list` shows those that are")
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
        let reason = if queue.reason.is_empty() { String::new() } else { format!(": {}", queue.reason) };
        let at_least = if queue.queued_complete { "" } else { "at least " };
        let what = match queue.original_id {
            // Its votes are counted as accepted under the id of the original queue.
            Some(of) => format!("remaining entries of {of}"),
            None => format!(
                "{} accepted votes, {at_least}{} of them queued",
                queue.votes_accepted(),
                queue.queued.values().sum::<u64>()
            ),
        };
        println!(
            "{}  {}  {}{reason}; seen at {}, {what}",
            queue.id,
            queue.address,
            queue.state.as_str(),
            queue.seen_at
        );
    }
    Ok(())
}

async fn retire(store: &dyn Store, matches: &ArgMatches) -> Done {
    let Some(id) = matches.get_one::<QueueId>("queue") else { return Ok(()) };
    let unknown = || format!("there is no queue {id}; `vote-worker queues list` shows all queues");
    let queues = store.queues().await?;
    let queue = queues.iter().find(|queue| queue.id == *id).ok_or_else(unknown)?;
    let accounts = store.snapshot().await?.accounts(false).await?;
    if let Some(obstacle) = retirement_obstacle(&accounts, queue) {
        return Err(format!("queue {id} at {}: {obstacle}", queue.address).into());
    }
    store.retire(*id, &text(matches, "reason")).await?;
    println!("queue {id} is retired");
    Ok(())
}

/// Calls `with` for every frame that has or had quarantined votes.
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
                row.quarantined_at,
                reasons(row)
            );
        }
    })
    .await?;
    Ok(())
}

/// Returns why the votes are quarantined, and why an operator rejected them.
fn reasons(row: &QuarantineRow) -> String {
    let reason = &row.frame.reason;
    row.rejection.as_ref().map_or_else(|| reason.to_string(), |why| format!("{reason}; rejected: {why}"))
}

async fn show_frames(store: &dyn Store, matches: &ArgMatches) -> Done {
    let layout = store.layout().await?.ok_or("the store is empty: no worker has prepared it yet")?;
    for key in matches.get_many::<QuarantineKey>("frame").into_iter().flatten() {
        show_frame(layout.partitions, &find(store, *key).await?);
    }
    Ok(())
}

fn show_frame(partitions: Partitions, row: &QuarantineRow) {
    let (frame, bytes) = (&row.frame, &row.frame.frame);
    println!("frame     {}", row.key());
    println!("state     {}", row.state.as_str());
    println!("reason    {}", reasons(row));
    println!("since     {}", row.quarantined_at);
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
            println!("          quarantined votes, by index in the frame:");
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

/// Returns the frame with this key. Reads page by page from the start of its partition.
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
                "there is no frame {key} with quarantined votes; `vote-worker quarantine list` shows all"
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
        Decision::Replay => "will be tried again by the workers within seconds",
        Decision::Reject(_) => "will never be counted",
    };
    println!("the quarantined votes of {decided} frames {what}");
    if decided < frames.len() as u64 {
        return Err(
            format!("{} frames were decided before or do not exist", frames.len() as u64 - decided).into()
        );
    }
    Ok(())
}
