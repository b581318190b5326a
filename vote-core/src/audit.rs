//! Whether every accepted vote is accounted for, and whether a poll's count is complete. Pure: it compares the
//! [books](Books) of one moment, so it says the same under full load as at rest.
//!
//! For every queue and poll, in every snapshot of a store:
//!
//! ```text
//! accepted = new voters + superseded + quarantined
//! Σ new voters, those of remains among them = Σ tally = rows of votes
//! ```
//!
//! Votes that were accepted and not read yet are no part of that. How many they are was counted by workers from the
//! entries that are there, never as a difference: a vote that is lost would hide in a difference for ever.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Partition, PollSlug, Position, QueueId,
    store::{Books, LedgerRow, QuarantineTotal, QueueRecord, QueueState, SealRecord},
};

mod finality;
mod found;
mod residual;

pub use finality::{obstacles, obstacles_in};
pub use found::{Audit, Figures, PollAudit, PollState, QueueAudit, Verdict};
use residual::unaccounted;
pub use residual::{Residual, residuals};

/// A queue that no worker reported for this long is one not heard of. They report every 2 s, so what an audit says of
/// queued votes is as old as that, at least.
pub const NOT_HEARD_OF_AFTER: std::time::Duration = std::time::Duration::from_secs(10);

/// Audits a store, or one poll of it, as of the moment of the books by the store's clock.
#[must_use]
pub fn audit(books: &Books, only: Option<PollSlug>) -> Audit {
    let view = View::new(books);
    let mut problems = Vec::new();
    let mut outstanding = Vec::new();
    let mut polls = Vec::new();
    for name in view.polls(only) {
        let poll = view.poll(&name);
        view.check_poll(&poll, &mut problems);
        match (poll.state, name.parse()) {
            (PollState::Closed, Ok(slug)) => outstanding.extend(obstacles(books, slug)),
            _ => outstanding.extend(view.undecided(&name)),
        }
        polls.push(poll);
    }
    view.check_queues(only, &mut problems, &mut outstanding);
    // A queue is named once, however many polls it is about.
    let mut told = BTreeSet::new();
    problems.retain(|text| told.insert(text.clone()));
    // What keeps a closed poll from being final may be a problem already told.
    outstanding.retain(|text| told.insert(text.clone()));
    let verdict = match (problems.is_empty(), outstanding.is_empty()) {
        (false, _) => Verdict::Broken,
        (true, false) => Verdict::NotDrained,
        (true, true) => Verdict::Holds,
    };
    Audit { taken_at: books.taken_at, verdict, problems, outstanding, polls }
}

/// Whether all that was last reported of a queue, or of remains, is read. One that was never looked at holds nobody
/// knows what.
#[must_use]
pub fn is_read_to_the_end(books: &Books, queue: &QueueRecord) -> bool {
    View::new(books).is_read_to_the_end(queue)
}

/// Queues, and remains, from which something may still come and that no worker reported for [`NOT_HEARD_OF_AFTER`].
#[must_use]
pub fn not_heard_of(books: &Books) -> Vec<QueueId> {
    let view = View::new(books);
    let is_missed = |queue: &&QueueRecord| {
        let is_done = queue.remains_of.is_some() && view.is_read_to_the_end(queue);
        !queue.state.is_over() && view.is_late(queue) && !is_done && view.can_bring(queue, None)
    };
    books.queues.iter().filter(is_missed).map(|queue| queue.id).collect()
}

fn never_reported(queue: QueueId) -> String {
    format!("votes were read from queue {queue}, which was never reported")
}

fn cut(queue: &QueueRecord) -> String {
    format!(
        "queue {} at {} is cut: {}. It last reported {} accepted votes. If what it lost can't be brought back, write it \
         off: `vote-worker queues retire {} --reason TEXT`",
        queue.id,
        queue.address,
        queue.reason,
        queue.votes_accepted(),
        queue.id
    )
}

/// The books, by what is looked for in them.
struct View<'a> {
    books: &'a Books,
    seals: BTreeMap<(QueueId, PollSlug), &'a SealRecord>,
}

impl<'a> View<'a> {
    fn new(books: &'a Books) -> Self {
        let seals = books.seals.iter().map(|seal| ((seal.queue, seal.poll), seal)).collect();
        Self { books, seals }
    }

    /// The polls of the audit: those registered, and those that only queues know.
    fn polls(&self, only: Option<PollSlug>) -> Vec<String> {
        if let Some(poll) = only {
            return vec![poll.to_string()];
        }
        let registered: Vec<String> = self.books.polls.iter().map(|poll| poll.slug.to_string()).collect();
        let mut others = BTreeSet::new();
        for queue in &self.books.queues {
            others.extend(queue.accepted.keys().chain(queue.queued.keys()));
        }
        others.extend(self.books.ledger.iter().map(|row| &row.entry.poll));
        let unknown = others.into_iter().filter(|name| !registered.contains(name)).cloned();
        registered.iter().cloned().chain(unknown).collect()
    }

    fn state(&self, poll: &str) -> PollState {
        match self.books.polls.iter().find(|known| known.slug.as_str() == poll) {
            None => PollState::Unregistered,
            Some(known) if known.final_at.is_some() => PollState::Final,
            Some(known) if known.closed_at.is_some() => PollState::Closed,
            Some(_) => PollState::Open,
        }
    }

    fn is_read_to(&self, queue: QueueId, ends: &[Position]) -> bool {
        (0..).zip(ends).all(|(partition, end)| {
            let read = self.books.positions.get(&(queue, Partition(partition)));
            read.copied().unwrap_or_default() >= *end
        })
    }

    fn is_read_to_the_end(&self, queue: &QueueRecord) -> bool {
        !queue.ends.is_empty() && self.is_read_to(queue.id, &queue.ends)
    }

    /// Whether nothing of the poll can come from the queue any more.
    fn is_complete(&self, queue: &QueueRecord, poll: PollSlug) -> bool {
        self.seals.get(&(queue.id, poll)).is_some_and(|seal| self.is_read_to(queue.id, &seal.seal.ends))
    }

    fn poll(&self, name: &str) -> PollAudit {
        let mut queues: BTreeMap<QueueId, QueueAudit> = BTreeMap::new();
        let slug: Option<PollSlug> = name.parse().ok();
        let count = |counters: &crate::queue::Counters| counters.get(name).copied().unwrap_or_default();
        for record in self.books.queues.iter().filter(|record| record.remains_of.is_none()) {
            queues.insert(
                record.id,
                QueueAudit {
                    queue: record.id.to_string(),
                    address: record.address.clone(),
                    seen_at: record.seen_at,
                    state: record.state.as_str().to_owned(),
                    reason: record.reason.clone(),
                    reported: count(&record.accepted),
                    queued_complete: record.queued_complete,
                    complete: slug.is_some_and(|slug| self.is_complete(record, slug)),
                    figures: Figures { queued: count(&record.queued), ..Figures::default() },
                },
            );
        }
        let remains: BTreeMap<QueueId, QueueId> =
            self.books.queues.iter().filter_map(|record| Some((record.id, record.remains_of?))).collect();
        for LedgerRow { entry, .. } in self.books.ledger.iter().filter(|row| row.entry.poll == name) {
            let of = remains.get(&entry.queue);
            let Some(queue) = queues.get_mut(of.unwrap_or(&entry.queue)) else { continue };
            queue.figures.add(&if of.is_some() {
                Figures {
                    reread: entry.accepted,
                    reread_new: entry.new_voters,
                    reread_quarantined: entry.quarantined,
                    ..Figures::default()
                }
            } else {
                Figures {
                    accepted: entry.accepted,
                    new_voters: entry.new_voters,
                    superseded: entry.superseded,
                    quarantined: entry.quarantined,
                    ..Figures::default()
                }
            });
        }
        let mut total = Figures::default();
        queues.values().for_each(|queue| total.add(&queue.figures));
        let of_poll = self.books.tally.iter().filter(|row| row.poll.as_str() == name);
        let registered = self.books.polls.iter().find(|known| known.slug.as_str() == name);
        let rows = self.books.rows.as_ref().map(|rows| {
            rows.iter().filter(|((poll, _), _)| poll.as_str() == name).map(|(_, votes)| votes).sum()
        });
        PollAudit {
            poll: name.to_owned(),
            state: self.state(name),
            reschedules: registered.map(|poll| poll.reschedules.clone()).unwrap_or_default(),
            tally: of_poll.map(|row| row.votes).sum(),
            rows,
            total,
            queues: queues.into_values().collect(),
        }
    }

    /// What contradicts what in the books of a poll.
    fn check_poll(&self, poll: &PollAudit, problems: &mut Vec<String>) {
        let name = &poll.poll;
        let mut new_voters = 0_u64;
        let known: BTreeSet<QueueId> = self.books.queues.iter().map(|record| record.id).collect();
        for row in self.books.ledger.iter().filter(|row| row.entry.poll == *name) {
            new_voters += row.entry.new_voters;
            self.check_row(row, problems);
            if !known.contains(&row.entry.queue) {
                problems.push(never_reported(row.entry.queue));
            }
        }
        for record in self.books.seals.iter().filter(|record| record.poll.as_str() == name) {
            self.check_seal(record, problems);
        }
        if i128::from(new_voters) != i128::from(poll.tally) {
            problems.push(format!(
                "poll {name}: {new_voters} votes added a voter, the tally holds {}",
                poll.tally
            ));
        }
        let mut tally: BTreeMap<&str, i64> = BTreeMap::new();
        for row in self.books.tally.iter().filter(|row| row.poll.as_str() == name) {
            *tally.entry(row.option.as_str()).or_default() += row.votes;
            if row.votes < 0 {
                problems.push(format!(
                    "poll {name}: the tally of option {} in partition {} is {}",
                    row.option, row.partition, row.votes
                ));
            }
        }
        if let Some(rows) = &self.books.rows {
            let mut counted: BTreeMap<&str, i64> = tally.keys().map(|option| (*option, 0)).collect();
            for ((poll, option), votes) in rows.iter().filter(|((poll, _), _)| poll.as_str() == name) {
                debug_assert_eq!(poll.as_str(), name);
                counted.insert(option.as_str(), i64::try_from(*votes).unwrap_or(i64::MAX));
            }
            for (option, votes) in counted {
                let tally = tally.get(option).copied().unwrap_or_default();
                if tally != votes {
                    problems.push(format!(
                        "poll {name}: option {option} has {votes} rows, the tally says {tally}"
                    ));
                }
            }
        }
    }

    fn check_row(&self, row: &LedgerRow, problems: &mut Vec<String>) {
        let LedgerRow { partition, entry } = row;
        let place = format!("queue {}, partition {partition}, poll {}", entry.queue, entry.poll);
        if unaccounted(entry, self.is_retired(entry.queue)) != 0 {
            problems.push(format!(
                "{place}: {} votes were accepted, but {} new voters, {} superseded and {} quarantined were read",
                entry.accepted, entry.new_voters, entry.superseded, entry.quarantined
            ));
        }
        let missing = self.not_set_aside(row);
        if missing != 0 {
            problems.push(format!(
                "{place}: {} votes are quarantined by the ledger, {} are in quarantine",
                entry.quarantined,
                i128::from(entry.quarantined) - missing
            ));
        }
    }

    /// Votes that are quarantined by the ledger and not in quarantine; below 0, those that are there and not in it.
    fn not_set_aside(&self, row: &LedgerRow) -> i128 {
        let of_row = |total: &&QuarantineTotal| {
            (total.queue, total.partition, &total.poll) == (row.entry.queue, row.partition, &row.entry.poll)
        };
        let set_aside: u64 = self.books.quarantine.iter().filter(of_row).map(|total| total.votes).sum();
        i128::from(row.entry.quarantined) - i128::from(set_aside)
    }

    /// Whether what was read agrees with what a queue counted when the poll was sealed in it.
    fn check_seal(&self, record: &SealRecord, problems: &mut Vec<String>) {
        let SealRecord { queue, poll, seal } = record;
        for ((end, accepted), partition) in seal.ends.iter().zip(&seal.accepted).zip(0..) {
            let partition = Partition(partition);
            let of_place = |row: &&LedgerRow| {
                (row.entry.queue, row.partition) == (*queue, partition) && row.entry.poll == poll.as_str()
            };
            let booked = self.books.ledger.iter().find(of_place).map_or(0, |row| row.entry.accepted);
            let read = self.books.positions.get(&(*queue, partition)).copied().unwrap_or_default();
            let contradicts = booked > *accepted || (read >= *end && booked < *accepted);
            // A queue that lost data is named as such, and one that somebody retired is known to have lost some.
            if contradicts && !self.is_over(*queue) {
                problems.push(format!(
                    "queue {queue}, partition {partition}, poll {poll}: {accepted} votes were accepted when the poll \
                     was sealed, {booked} were read"
                ));
            }
        }
    }

    fn is_over(&self, queue: QueueId) -> bool {
        self.books.queues.iter().any(|record| record.id == queue && record.state.is_over())
    }

    fn is_retired(&self, queue: QueueId) -> bool {
        self.books.queues.iter().any(|record| record.id == queue && record.state == QueueState::Retired)
    }

    /// Frames of a poll with quarantined votes about which nobody has decided.
    fn undecided(&self, poll: &str) -> Option<String> {
        let of_poll = self.books.quarantine.iter().filter(|total| total.poll == poll);
        let pending: u64 = of_poll.map(|total| total.pending).sum();
        (pending > 0).then(|| {
            format!(
                "{pending} frames of poll {} are in quarantine undecided: see `vote-worker quarantine list`, then replay \
                 or reject them",
                poll.escape_debug()
            )
        })
    }

    fn is_late(&self, queue: &QueueRecord) -> bool {
        // Also one from the future, which was seen before the store's clock was set back: nobody knows how long ago.
        let age = self.books.taken_at.as_micros().abs_diff(queue.seen_at.as_micros());
        age > NOT_HEARD_OF_AFTER.as_micros() as u64
    }

    /// Whether something of the polls that are asked for can still come from a queue.
    fn can_bring(&self, queue: &QueueRecord, only: Option<PollSlug>) -> bool {
        let registered = &self.books.polls;
        let mut asked = registered.iter().filter(|poll| only.is_none_or(|only| only == poll.slug));
        let some = asked.any(|poll| poll.final_at.is_none() && !self.is_complete(queue, poll.slug));
        let is_known = |name: &String| registered.iter().any(|poll| poll.slug.as_str() == name);
        let of_no_poll = only.is_none() && !queue.accepted.keys().all(is_known);
        some || of_no_poll || registered.is_empty()
    }

    /// What may still come from queues; what can't come any more because it was lost is a problem.
    fn check_queues(
        &self,
        only: Option<PollSlug>,
        problems: &mut Vec<String>,
        outstanding: &mut Vec<String>,
    ) {
        for queue in &self.books.queues {
            if queue.state == QueueState::Retired || !self.can_bring(queue, only) {
                continue;
            }
            let (id, at) = (queue.id, &queue.address);
            let late = self.is_late(queue);
            let drained = self.is_read_to_the_end(queue);
            match queue.remains_of {
                None if queue.state == QueueState::Cut => problems.push(cut(queue)),
                Some(_) if drained => {}
                _ if late => outstanding.push(format!(
                    "queue {id} at {at} was not heard of since {}; it last reported {} accepted votes and {} queued",
                    queue.seen_at,
                    queue.votes_accepted(),
                    queue.queued.values().sum::<u64>()
                )),
                Some(of) => {
                    outstanding.push(format!("what is left of queue {of} at {at} is being read ({id})"));
                }
                None if !drained => {
                    let at_least = if queue.queued_complete { "" } else { "at least " };
                    outstanding.push(format!(
                        "queue {id} at {at} has {at_least}{} votes queued",
                        queue.queued.values().sum::<u64>()
                    ));
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
