//! `vote-results audit`: checks that every accepted vote is accounted for. The checks: [`vote_core::count::audit`].

use std::fmt::Write;

use vote_core::{
    PollSlug, StoreReader,
    count::audit::{self, Audit, PollAudit, PollStage, Verdict},
    store::StoreError,
};

/// Exit code if the store can't be read (`EX_UNAVAILABLE` of sysexits.h): it says nothing about the votes.
pub const EX_UNAVAILABLE: u8 = 69;

/// Audits one snapshot of the store, including a count of all ballots row by row; `only` restricts it to one poll.
///
/// # Errors
/// Fails if the store can't be read or does not have the poll.
pub async fn audit(store: &dyn StoreReader, only: Option<PollSlug>) -> Result<Audit, StoreError> {
    let accounts = store.snapshot().await?.accounts(true).await?;
    if let Some(poll) = only
        && !accounts.polls.iter().any(|known| known.slug == poll)
    {
        return Err(StoreError::UnknownPoll(poll));
    }
    Ok(audit::audit(&accounts, only))
}

/// Formats an audit for people: a table per poll, then all problems and everything outstanding.
#[must_use]
pub fn table(audit: &Audit) -> String {
    let mut text = String::new();
    for poll in &audit.polls {
        // Writing to a String can't fail.
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
    "reread new",
    "reread quarantined",
    "reported",
];

fn write_poll(text: &mut String, poll: &PollAudit) -> std::fmt::Result {
    let state = match poll.state {
        PollStage::Open => "open",
        PollStage::Withdrawn => "withdrawn, to be replaced by another definition",
        PollStage::Closed => "closed, not final yet",
        PollStage::Final => "final",
        PollStage::Unregistered => "not registered: its votes are quarantined until it is",
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
        write!(text, "  {:>18}  {:>12}", f.reread_quarantined, queue.reported)?;
        let complete = if queue.complete { ", sealed and read to the seal" } else { "" };
        let reason = if queue.reason.is_empty() { String::new() } else { format!(": {}", queue.reason) };
        let state = queue.state.as_str();
        writeln!(text, "  {state} at {}, last seen {}{complete}{reason}", queue.address, queue.seen_at)?;
    }
    let f = &poll.total;
    let reported: u64 = poll.queues.iter().map(|queue| queue.reported).sum();
    write!(text, "  {:<32}  {:>12}  {:>12}  {:>12}", "all queues", f.accepted, f.new_voters, f.superseded)?;
    write!(text, "  {:>12}  {:>12}  {:>12}", f.quarantined, f.queued, f.reread)?;
    writeln!(text, "  {:>12}  {:>18}  {reported:>12}", f.reread_new, f.reread_quarantined)?;
    let rows = poll.rows.map_or_else(|| "rows not counted".to_owned(), |rows| format!("{rows} rows"));
    writeln!(text, "  effective ballots: {} in the tally, {rows}\n", poll.tally)
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
            "every accepted vote is accounted for, and no queue had a backlog when it was last seen"
        }
        Verdict::NotDrained => {
            "every vote read so far is accounted for, but votes are outstanding or a queue was not heard from"
        }
        Verdict::Broken => "accounting errors, or lost votes",
    };
    writeln!(
        text,
        "The audit as of {} {}: {meaning}.",
        audit.taken_at,
        match audit.verdict {
            Verdict::Holds => "holds",
            Verdict::NotDrained => "is not complete",
            Verdict::Broken => "is BROKEN",
        }
    )
}
