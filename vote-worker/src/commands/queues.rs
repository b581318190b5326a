//! Queues: which were ever reported, and their retirement.

use clap::{Arg, ArgMatches, Command};
use vote_core::{QueueId, Store, count::retirement_obstacle};

use super::{Done, reason, text};

/// Returns the definition of `vote-worker queues …`.
pub(super) fn definition() -> Command {
    Command::new(super::QUEUES)
        .about("List queues, or retire one")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("List all queues that were ever reported"))
        .subcommand(
            Command::new("retire")
                .about(
                    "Retire a queue for good: no poll waits for votes in it any longer. Audit and certificate \
                     show it",
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

fn queue_id(text: &str) -> Result<QueueId, String> {
    text.parse().map_err(|e| format!("expected 32 hexadecimal digits, as shown by `queues list`: {e}"))
}

/// Executes `vote-worker queues …`.
pub(super) async fn execute(what: &str, store: &dyn Store, matches: &ArgMatches) -> Done {
    match what {
        "list" => list(store).await,
        _ => retire(store, matches).await,
    }
}

async fn list(store: &dyn Store) -> Done {
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
