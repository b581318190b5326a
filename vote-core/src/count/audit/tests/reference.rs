//! What an audit finds, written as plainly as possible: each rule goes through all rows of the accounts.

use std::collections::BTreeSet;

use super::super::*;
use crate::{
    Partition, PollSlug, Position, QueueId,
    count::{Accounts, LedgerRow, QueueRecord, QueueState, RegisteredPoll, SealRecord},
};

pub(super) fn audit(accounts: &Accounts, only: Option<PollSlug>) -> (Vec<Finding>, Vec<Finding>) {
    let (mut problems, mut outstanding) = (Vec::new(), Vec::new());
    for name in names(accounts, only) {
        problems.extend(contradictions(accounts, &name));
        match registered(accounts, &name) {
            Some(poll) if poll.closed_at.is_some() && poll.final_at.is_none() => {
                outstanding.extend(obstacles(accounts, poll.slug));
            }
            _ => outstanding.extend(pending(accounts, &name)),
        }
    }
    for queue in &accounts.queues {
        if queue.state == QueueState::Retired || !may_yield_votes(accounts, queue, only) {
            continue;
        }
        let (id, address) = (queue.id, queue.address.clone());
        let queued = queue.queued.values().sum();
        let is_read = is_read_to_the_end(accounts, queue);
        if queue.state == QueueState::Diverged && queue.original_id.is_none() {
            problems.push(Finding::diverged(queue));
        } else if is_read && queue.original_id.is_some() {
        } else if is_late(accounts, queue) {
            let accepted = queue.votes_accepted();
            let seen_at = queue.seen_at;
            outstanding.push(Finding::NotHeardFrom { queue: id, address, seen_at, accepted, queued });
        } else if let Some(original_id) = queue.original_id {
            outstanding.push(Finding::BeingReread { queue: id, original_id, address });
        } else if !is_read {
            let complete = queue.queued_complete;
            outstanding.push(Finding::Queued { queue: id, address, votes: queued, complete });
        }
    }
    let problems = once(problems);
    let outstanding = once(outstanding).into_iter().filter(|finding| !problems.contains(finding)).collect();
    (problems, outstanding)
}

pub(super) fn obstacles(accounts: &Accounts, poll: PollSlug) -> Vec<Finding> {
    let mut obstacles = of_poll(accounts, poll);
    if accounts.rows.is_some() {
        obstacles.extend(contradictions(accounts, poll.as_str()));
    }
    obstacles.extend(accounts.versions.keys().flat_map(|partition| in_partition(accounts, poll, *partition)));
    once(obstacles)
}

pub(super) fn obstacles_in(accounts: &Accounts, poll: PollSlug, partition: Partition) -> Vec<Finding> {
    let mut obstacles = of_poll(accounts, poll);
    obstacles.extend(in_partition(accounts, poll, partition));
    obstacles
}

pub(super) fn not_heard_from(accounts: &Accounts) -> Vec<QueueId> {
    let is_missed = |queue: &&QueueRecord| {
        queue.state == QueueState::Active
            && is_late(accounts, queue)
            && !(queue.original_id.is_some() && is_read_to_the_end(accounts, queue))
            && may_yield_votes(accounts, queue, None)
    };
    accounts.queues.iter().filter(is_missed).map(|queue| queue.id).collect()
}

pub(super) fn total(accounts: &Accounts, name: &str) -> Figures {
    let mut total = Figures::default();
    for LedgerRow { entry, .. } in rows(accounts, name) {
        let Some(queue) = queue(accounts, entry.queue) else { continue };
        match queue.original_id {
            None => {
                total.accepted += entry.accepted;
                total.new_voters += entry.new_voters;
                total.superseded += entry.superseded;
                total.quarantined += entry.quarantined;
            }
            Some(original) if self::queue(accounts, original).is_some() => {
                total.reread += entry.accepted;
                total.reread_new += entry.new_voters;
                total.reread_quarantined += entry.quarantined;
            }
            Some(_) => {}
        }
    }
    let originals = accounts.queues.iter().filter(|queue| queue.original_id.is_none());
    total.queued = originals.filter_map(|queue| queue.queued.get(name)).sum();
    total
}

fn names(accounts: &Accounts, only: Option<PollSlug>) -> Vec<String> {
    if let Some(only) = only {
        return vec![only.to_string()];
    }
    let mut names: Vec<String> = accounts.polls.iter().map(|poll| poll.slug.to_string()).collect();
    let mut others: BTreeSet<&String> = accounts.ledger.iter().map(|row| &row.entry.poll).collect();
    others.extend(accounts.queues.iter().flat_map(|queue| queue.accepted.keys().chain(queue.queued.keys())));
    others.retain(|name| !names.contains(name));
    names.extend(others.into_iter().cloned());
    names
}

fn once(findings: Vec<Finding>) -> Vec<Finding> {
    let mut once = Vec::new();
    for finding in findings {
        if !once.contains(&finding) {
            once.push(finding);
        }
    }
    once
}

fn registered<'a>(accounts: &'a Accounts, name: &str) -> Option<&'a RegisteredPoll> {
    accounts.polls.iter().find(|poll| poll.slug.as_str() == name)
}

fn queue(accounts: &Accounts, id: QueueId) -> Option<&QueueRecord> {
    accounts.queues.iter().find(|queue| queue.id == id)
}

fn rows<'a>(accounts: &'a Accounts, name: &str) -> impl Iterator<Item = &'a LedgerRow> {
    accounts.ledger.iter().filter(move |row| row.entry.poll == name)
}

fn seal(accounts: &Accounts, queue: QueueId, poll: PollSlug) -> Option<&SealRecord> {
    accounts.seals.iter().find(|seal| (seal.queue, seal.poll) == (queue, poll))
}

fn read(accounts: &Accounts, queue: QueueId, partition: usize) -> Position {
    let partition = Partition(partition as u16);
    accounts.positions.get(&(queue, partition)).copied().unwrap_or(Position::START)
}

fn accepted(accounts: &Accounts, queue: QueueId, partition: usize, poll: PollSlug) -> u64 {
    let here = |row: &&LedgerRow| (row.entry.queue, usize::from(row.partition.0)) == (queue, partition);
    rows(accounts, poll.as_str()).find(here).map_or(0, |row| row.entry.accepted)
}

fn is_read_to(accounts: &Accounts, queue: QueueId, ends: &[Position]) -> bool {
    ends.iter().enumerate().all(|(partition, end)| read(accounts, queue, partition) >= *end)
}

fn is_read_to_the_end(accounts: &Accounts, queue: &QueueRecord) -> bool {
    !queue.ends.is_empty() && is_read_to(accounts, queue.id, &queue.ends)
}

fn is_late(accounts: &Accounts, queue: &QueueRecord) -> bool {
    accounts.taken_at.as_micros() - queue.seen_at.as_micros() > 10_000_000
}

fn may_yield_votes(accounts: &Accounts, queue: &QueueRecord, only: Option<PollSlug>) -> bool {
    let asked = |poll: &&RegisteredPoll| only.is_none_or(|only| only == poll.slug);
    let is_sealed_and_read = |poll: PollSlug| {
        seal(accounts, queue.id, poll).is_some_and(|seal| is_read_to(accounts, queue.id, &seal.seal.ends))
    };
    let mut polls = accounts.polls.iter().filter(asked);
    polls.any(|poll| poll.final_at.is_none() && !is_sealed_and_read(poll.slug))
        || (only.is_none() && queue.accepted.keys().any(|name| registered(accounts, name).is_none()))
        || accounts.polls.is_empty()
}

fn pending(accounts: &Accounts, name: &str) -> Option<Finding> {
    let totals = accounts.quarantine.iter().filter(|total| total.poll == name);
    let frames = totals.map(|total| total.pending).sum();
    (frames > 0).then(|| Finding::QuarantinePending { poll: name.to_owned(), frames })
}

/// What is wrong with a row of the ledger by itself.
fn in_row(accounts: &Accounts, LedgerRow { partition, entry }: &LedgerRow) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (queue, partition, poll) = (entry.queue, *partition, entry.poll.clone());
    let is_retired =
        accounts.queues.iter().any(|record| record.id == queue && record.state == QueueState::Retired);
    if entry.unaccounted(is_retired) != 0 {
        findings.push(Finding::Unaccounted {
            queue,
            partition,
            poll: poll.clone(),
            accepted: entry.accepted,
            new_voters: entry.new_voters,
            superseded: entry.superseded,
            quarantined: entry.quarantined,
        });
    }
    let here =
        accounts.quarantine.iter().filter(|total| (total.queue, total.partition) == (queue, partition));
    let found: u64 = here.filter(|total| total.poll == poll).map(|total| total.votes).sum();
    if i128::from(entry.quarantined) != i128::from(found) {
        findings.push(Finding::QuarantineDiffers {
            queue,
            partition,
            poll,
            ledger: entry.quarantined,
            found,
        });
    }
    findings
}

/// What is wrong with the rows of a poll.
fn contradictions(accounts: &Accounts, name: &str) -> Vec<Finding> {
    let (mut findings, poll) = (Vec::new(), || name.to_owned());
    for row in rows(accounts, name) {
        findings.extend(in_row(accounts, row));
        if queue(accounts, row.entry.queue).is_none() {
            findings.push(Finding::NeverReported { queue: row.entry.queue });
        }
    }
    for SealRecord { queue, poll, seal } in accounts.seals.iter().filter(|seal| seal.poll.as_str() == name) {
        let is_ended = self::queue(accounts, *queue).is_some_and(|queue| queue.state != QueueState::Active);
        for (place, sealed) in seal.accepted.iter().enumerate().filter(|_| !is_ended) {
            let counted = accepted(accounts, *queue, place, *poll);
            let is_read = read(accounts, *queue, place) >= seal.ends[place];
            if counted > *sealed || (is_read && counted < *sealed) {
                let (queue, partition, poll) = (*queue, Partition(place as u16), *poll);
                findings.push(Finding::SealDiffers {
                    queue,
                    partition,
                    poll,
                    sealed: *sealed,
                    read: counted,
                });
            }
        }
    }
    let new_voters: u64 = rows(accounts, name).map(|row| row.entry.new_voters).sum();
    let tallied = || accounts.tally.iter().filter(|row| row.poll.as_str() == name);
    let tally: i64 = tallied().map(|row| row.votes).sum();
    if new_voters as i64 != tally {
        findings.push(Finding::TallyDiffers { poll: poll(), new_voters, tally });
    }
    for row in tallied().filter(|row| row.votes < 0) {
        let (option, partition, tally) = (row.option, row.partition, row.votes);
        findings.push(Finding::TallyNegative { poll: poll(), option, partition, tally });
    }
    let counted = || accounts.rows.iter().flatten().filter(|((poll, _), _)| poll.as_str() == name);
    let mut options: BTreeSet<_> = tallied().map(|row| row.option).collect();
    options.extend(counted().map(|((_, option), _)| *option));
    for option in options.into_iter().filter(|_| accounts.rows.is_some()) {
        let of_option = counted().filter(|((_, of), _)| *of == option);
        let rows = of_option.map(|(_, votes)| *votes as i64).sum();
        let tally = tallied().filter(|row| row.option == option).map(|row| row.votes).sum();
        if rows != tally {
            findings.push(Finding::RowsDiffer { poll: poll(), option: option.to_string(), rows, tally });
        }
    }
    findings
}

/// What keeps a poll from being final, whatever the partition.
fn of_poll(accounts: &Accounts, poll: PollSlug) -> Vec<Finding> {
    let mut findings = match registered(accounts, poll.as_str()) {
        None => vec![Finding::PollNotRegistered { poll }],
        Some(registered) if registered.closed_at.is_none() => vec![Finding::PollNotClosed { poll }],
        Some(_) => Vec::new(),
    };
    let diverged = accounts.queues.iter().filter(|queue| queue.state == QueueState::Diverged);
    findings.extend(diverged.map(Finding::diverged));
    findings
}

fn in_partition(accounts: &Accounts, poll: PollSlug, partition: Partition) -> Vec<Finding> {
    let (mut findings, place) = (Vec::new(), usize::from(partition.0));
    for queue in accounts.queues.iter().filter(|queue| queue.state == QueueState::Active) {
        let (id, address, read) = (queue.id, queue.address.clone(), read(accounts, queue.id, place));
        if let Some(original_id) = queue.original_id {
            if queue.ends.get(place).is_none_or(|end| read < *end) {
                findings.push(Finding::NotReread { queue: id, original_id, address });
            }
        } else if let Some(record) = seal(accounts, id, poll) {
            let (sealed, read_votes) = (record.seal.accepted[place], accepted(accounts, id, place, poll));
            if read < record.seal.ends[place] {
                findings.push(Finding::NotReadToSeal { queue: id, address, poll });
            } else if read_votes != sealed {
                findings.push(Finding::SealDiffers { queue: id, partition, poll, sealed, read: read_votes });
            }
        } else {
            findings.push(Finding::NotSealed { queue: id, address, poll });
        }
    }
    let here = || rows(accounts, poll.as_str()).filter(|row| row.partition == partition);
    for row in here() {
        match queue(accounts, row.entry.queue).map(|queue| queue.state) {
            None => findings.push(Finding::NeverReported { queue: row.entry.queue }),
            Some(QueueState::Retired) => {}
            Some(_) => findings.extend(in_row(accounts, row)),
        }
    }
    let new_voters: u64 = here().map(|row| row.entry.new_voters).sum();
    let tallied = accounts.tally.iter().filter(|row| (row.poll, row.partition) == (poll, partition));
    let tally: i64 = tallied.map(|row| row.votes).sum();
    if new_voters as i64 != tally {
        findings.push(Finding::PartitionTallyDiffers { poll, partition, new_voters, tally });
    }
    let mut totals = accounts.quarantine.iter().filter(|total| total.partition == partition);
    if totals.any(|total| total.poll == poll.as_str() && total.pending > 0) {
        findings.extend(pending(accounts, poll.as_str()));
    }
    findings
}
