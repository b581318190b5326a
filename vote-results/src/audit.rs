//! `vote-results audit`: whether every accepted vote is accounted for. What it compares is in [`vote_core::audit`].

use std::fmt::Write;

use vote_core::{
    PollSlug, StoreReader,
    audit::{self, Audit, PollAudit, PollState, Verdict},
    store::StoreError,
};

/// What the program exits with when the store can't be read (`EX_UNAVAILABLE` of sysexits.h): neither good nor bad news.
pub const EX_UNAVAILABLE: u8 = 69;

/// Audits the store as of one moment of its own clock, its votes counted row by row.
///
/// # Errors
/// When the store can't be read, or has no such poll.
pub async fn audit(store: &dyn StoreReader, only: Option<PollSlug>) -> Result<Audit, StoreError> {
    let books = store.snapshot().await?.books(true).await?;
    if let Some(poll) = only
        && !books.polls.iter().any(|known| known.slug == poll)
    {
        return Err(StoreError::NotPrepared(format!("there is no poll {poll} in the store")));
    }
    Ok(audit::audit(&books, only))
}

/// For people: a table for each poll, then what is wrong and what is still to come.
#[must_use]
pub fn table(audit: &Audit) -> String {
    let mut text = String::new();
    for poll in &audit.polls {
        // Writing to a string does not fail.
        let _ = write_poll(&mut text, poll);
    }
    let _ = verdict(&mut text, audit);
    text
}

const COLUMNS: [&str; 9] = [
    "accepted",
    "new voters",
    "superseded",
    "quarantined",
    "queued",
    "reread",
    "of them new",
    "set aside",
    "reported",
];

fn write_poll(text: &mut String, poll: &PollAudit) -> std::fmt::Result {
    let state = match poll.state {
        PollState::Open => "open",
        PollState::Closed => "closed, not final yet",
        PollState::Final => "final",
        PollState::Unregistered => "not registered: its votes are set aside until it is",
    };
    writeln!(text, "Poll {} ({state})", poll.poll.escape_debug())?;
    for moved in &poll.reschedules {
        writeln!(text, "  {moved}")?;
    }
    write!(text, "  {:<32}", "queue")?;
    for column in COLUMNS {
        write!(text, "  {column:>12}")?;
    }
    writeln!(text, "  state")?;
    for queue in &poll.queues {
        let f = &queue.figures;
        let queued =
            if queue.queued_complete { f.queued.to_string() } else { format!("at least {}", f.queued) };
        write!(text, "  {:<32}", queue.queue)?;
        for cell in [f.accepted, f.new_voters, f.superseded] {
            write!(text, "  {cell:>12}")?;
        }
        write!(text, "  {:>12}  {queued:>12}", f.quarantined)?;
        write!(text, "  {:>12}  {:>12}", f.reread, f.reread_new)?;
        write!(text, "  {:>12}  {:>12}", f.reread_quarantined, queue.reported)?;
        let complete = if queue.complete { ", sealed and read to the seal" } else { "" };
        let reason = if queue.reason.is_empty() { String::new() } else { format!(": {}", queue.reason) };
        writeln!(text, "  {} at {}, seen {}{complete}{reason}", queue.state, queue.address, queue.seen_at)?;
    }
    let f = &poll.total;
    let reported: u64 = poll.queues.iter().map(|queue| queue.reported).sum();
    write!(text, "  {:<32}  {:>12}  {:>12}  {:>12}", "together", f.accepted, f.new_voters, f.superseded)?;
    write!(text, "  {:>12}  {:>12}  {:>12}", f.quarantined, f.queued, f.reread)?;
    writeln!(text, "  {:>12}  {:>12}  {reported:>12}", f.reread_new, f.reread_quarantined)?;
    let rows = poll.rows.map_or_else(|| "not counted".to_owned(), |rows| rows.to_string());
    writeln!(text, "  standing votes: {rows} rows, {} by the tally\n", poll.tally)
}

fn verdict(text: &mut String, audit: &Audit) -> std::fmt::Result {
    for problem in &audit.problems {
        writeln!(text, "BROKEN       {problem}")?;
    }
    for outstanding in &audit.outstanding {
        writeln!(text, "OUTSTANDING  {outstanding}")?;
    }
    let meaning = match audit.verdict {
        Verdict::Holds => {
            "every accepted vote is accounted for, and none waited when its queue was last seen"
        }
        Verdict::NotDrained => {
            "every vote that was read is accounted for; not all are read, or not all is known"
        }
        Verdict::Broken => "the books do not add up, or votes were lost",
    };
    writeln!(
        text,
        "The audit of {} {}: {meaning}.",
        audit.taken_at,
        match audit.verdict {
            Verdict::Holds => "holds",
            Verdict::NotDrained => "is not complete",
            Verdict::Broken => "is BROKEN",
        }
    )
}
