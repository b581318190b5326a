//! Quarantined votes: the frames in which they came, and the decisions on them.

use clap::{Arg, ArgAction, ArgMatches, Command};
use vote_core::{
    Partitions, Position, Store,
    count::{Decision, QuarantineKey, QuarantineRow, QuarantineState},
    store::StoreError,
};
use vote_service::BoxError;

use super::{Done, reason, text};

/// Number of quarantined frames that are read at a time.
const PAGE: usize = 500;

/// Returns the definition of `vote-worker quarantine …`.
pub(super) fn definition() -> Command {
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
                    .help("Poll of which to take all frames with undecided votes"),
            )
            .arg(
                Arg::new("all")
                    .long("all")
                    .action(ArgAction::SetTrue)
                    .help("Take all frames with undecided votes"),
            )
    };
    Command::new("quarantine")
        .about(
            "List, show, replay or reject votes that could not be counted, by the frame in which they came",
        )
        .subcommand_required(true)
        .subcommand(
            Command::new("list").about("List frames with quarantined votes").arg(
                Arg::new("pending")
                    .long("pending")
                    .action(ArgAction::SetTrue)
                    .help("List only frames that are still undecided"),
            ),
        )
        .subcommand(
            Command::new("show")
                .about("Show a frame: the reason, which of its votes are quarantined, and its bytes")
                .arg(frames().required(true)),
        )
        .subcommand(many(
            Command::new("replay")
                .about("Make the workers try again to count the quarantined votes of frames"),
        ))
        .subcommand(
            many(
                Command::new("reject")
                    .about("Decide for good that the quarantined votes of frames are never counted"),
            )
            .arg(reason("Why the votes are rejected; stored with them")),
        )
}

/// Executes `vote-worker quarantine …`.
pub(super) async fn execute(what: &str, store: &dyn Store, matches: &ArgMatches) -> Done {
    match what {
        "list" => list(store, matches.get_flag("pending")).await,
        "show" => show(store, matches).await,
        "replay" => decide(store, matches, &Decision::Replay).await,
        _ => decide(store, matches, &Decision::Reject(text(matches, "reason"))).await,
    }
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

async fn list(store: &dyn Store, pending: bool) -> Done {
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

async fn show(store: &dyn Store, matches: &ArgMatches) -> Done {
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
async fn find(store: &dyn Store, key: QuarantineKey) -> Result<QuarantineRow, BoxError> {
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
