//! Polls: which the store has, and their closing, rescheduling and withdrawal.

use clap::{Arg, ArgMatches, Command};
use vote_core::{
    PollSlug, QueueId, Store, Timestamp,
    count::{EarlierDefinition, QueueState, RegisteredPoll, Withdrawal, audit},
    store::{Catalog, CatalogQueue},
};

use super::{Done, reason, text};

/// Returns the definition of `vote-worker polls …`.
pub(super) fn definition() -> Command {
    Command::new(super::POLLS)
        .about("List polls; reschedule, close or withdraw a poll")
        .subcommand_required(true)
        .subcommand(
            Command::new("list").about("List the polls in the store, and what keeps closed ones from being final"),
        )
        .subcommand(
            Command::new("close")
                .about(
                    "Close a poll for good: it accepts no more votes, and becomes final when all are counted",
                )
                .arg(poll()),
        )
        .subcommand(
            Command::new("reschedule")
                .about(
                    "Move the closing time of a poll that is not closed; audit and certificate show the move. A file \
                     of polls with another time has no effect",
                )
                .arg(poll())
                .arg(
                    Arg::new("closes-at")
                        .long("closes-at")
                        .value_name("TIME")
                        .required(true)
                        .value_parser(closing_time)
                        .help("New time, such as 2027-02-15T06:00:00Z, or `by-hand` to close it by hand"),
                )
                .arg(reason("Why the poll is rescheduled; shown in audit and certificate")),
        )
        .subcommand(
            Command::new("withdraw")
                .about(
                    "Withdraw a poll without votes, so that its slug can get another definition: put that into the \
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

fn slug(text: &str) -> Result<PollSlug, String> {
    text.parse().map_err(|e| format!("{e}"))
}

fn closing_time(text: &str) -> Result<Option<Timestamp>, String> {
    if text == "by-hand" { Ok(None) } else { text.parse().map(Some) }
}

/// Executes `vote-worker polls …`.
pub(super) async fn execute(what: &str, store: &dyn Store, matches: &ArgMatches) -> Done {
    match what {
        "list" => list(store).await,
        "withdraw" => withdraw(store, matches).await,
        "reschedule" => reschedule(store, matches).await,
        _ => close(store, matches).await,
    }
}

async fn list(store: &dyn Store) -> Done {
    let accounts = store.snapshot().await?.accounts(false).await?;
    let catalog = store.catalog(None).await?;
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

/// Describes the state of a withdrawn poll: which queues have not dropped it yet.
fn withdrawn(poll: &RegisteredPoll, catalog: &Catalog) -> String {
    let Some(Withdrawal { at, reason }) = &poll.withdrawal else { return String::new() };
    let waits = |(id, queue): &(&QueueId, &CatalogQueue)| {
        let dropped_it = catalog.dropped.contains(&(**id, poll.slug));
        queue.state != QueueState::Retired && queue.original_id.is_none() && !dropped_it
    };
    let name = |(id, queue): (&QueueId, &CatalogQueue)| {
        let what_to_do = if queue.state == QueueState::Diverged { " (diverged: retire it)" } else { "" };
        format!("{id} at {}{what_to_do}", queue.address)
    };
    let waiting: Vec<_> = catalog.queues.iter().filter(waits).map(name).collect();
    let rest = match waiting.as_slice() {
        [] => "every queue has dropped it, so another definition can be registered".to_owned(),
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
        "poll {poll} was withdrawn at {}. Now put its new definition into the files of all workers; once \
         `polls list` shows that it is registered, put it into the files of the frontends",
        at.unwrap_or_default()
    );
    Ok(())
}

async fn close(store: &dyn Store, matches: &ArgMatches) -> Done {
    let Some(poll) = matches.get_one::<PollSlug>("poll") else { return Ok(()) };
    let closed = store.close_poll(*poll).await?.ok_or_else(|| not_registered(*poll))?;
    if closed.withdrawal.is_some() {
        return Err(format!("poll {poll} is withdrawn, so there is nothing to close").into());
    }
    let at = closed.closed_at.map(|at| at.to_string()).unwrap_or_default();
    println!("poll {poll} was closed at {at}; workers seal the queues and count the remaining votes");
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
