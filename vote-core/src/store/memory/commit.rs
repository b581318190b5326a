//! How a store in memory applies a plan.

use super::{Data, Rows};
use crate::{
    PollSlug, Timestamp,
    count::{
        CommitPlan, LedgerEntry, PollPlan, QuarantineRow, QuarantineState, RegisteredPoll, ReplayOutcome,
    },
    store::{StoreError, no_option, not_registered},
};

impl Data {
    /// Applies a plan as a whole, or fails and changes nothing.
    pub(super) fn commit(&mut self, plan: &CommitPlan, now: Timestamp) -> Result<(), StoreError> {
        let counted: Vec<PollSlug> = plan.polls.iter().map(|poll| poll.poll).collect();
        if self.polls.iter().any(|poll| poll.final_at.is_some() && counted.contains(&poll.slug)) {
            return Err(StoreError::StaleVersion(plan.partition));
        }
        if self.partition(plan.partition)?.rows.version != plan.version {
            return Err(StoreError::StaleVersion(plan.partition));
        }
        plan.polls.iter().try_for_each(|poll| check_names(&self.polls, poll))?;
        let rows = &mut self.partition(plan.partition)?.rows;
        rows.check(plan)?;
        rows.apply(plan, now);
        Ok(())
    }
}

/// Fails if a poll of a plan is not registered, or lacks an option.
fn check_names(polls: &[RegisteredPoll], plan: &PollPlan) -> Result<(), StoreError> {
    let poll = polls.iter().find(|poll| poll.slug == plan.poll);
    let poll = poll.ok_or_else(|| not_registered(plan.poll))?;
    let replaced = plan.replacements.iter().flat_map(|(old, new)| [old, new]);
    let ballots = plan.inserts.iter().chain(replaced).map(|ballot| ballot.option);
    let unknown = ballots.chain(plan.tally.keys().copied()).find(|option| !poll.options.contains(option));
    unknown.map_or(Ok(()), |option| Err(no_option(option)))
}

impl Rows {
    /// Finds everything that could be wrong, before [`apply`](Self::apply) changes anything.
    fn check(&self, plan: &CommitPlan) -> Result<(), StoreError> {
        for poll in &plan.polls {
            let mut last = None;
            for ballot in &poll.inserts {
                if self.votes.contains_key(&(poll.poll, ballot.voter)) || last == Some(ballot.voter) {
                    return Err(StoreError::Conflict(format!(
                        "{} has an effective ballot in {} already",
                        ballot.voter, poll.poll
                    )));
                }
                last = Some(ballot.voter);
            }
            for (old, _) in &poll.replacements {
                if self.votes.get(&(poll.poll, old.voter)) != Some(old) {
                    return Err(StoreError::Conflict(format!(
                        "{} has another effective ballot in {}",
                        old.voter, poll.poll
                    )));
                }
            }
        }
        for frame in &plan.quarantine {
            if self.quarantine.contains_key(&(frame.queue, frame.position)) {
                return Err(StoreError::Conflict(format!(
                    "votes of the frame at {} are quarantined already",
                    frame.position
                )));
            }
        }
        for replayed in &plan.replayed {
            let row = self.quarantine.get(&(replayed.queue, replayed.position));
            let as_planned =
                |row: &QuarantineRow| row.state.is_pending() && row.frame.quarantined == replayed.tried;
            if !row.is_some_and(as_planned) {
                return Err(StoreError::Conflict(format!(
                    "the quarantined votes of the frame at {} are not those that were replayed",
                    replayed.position
                )));
            }
        }
        Ok(())
    }

    fn apply(&mut self, plan: &CommitPlan, now: Timestamp) {
        self.version += 1;
        for poll in &plan.polls {
            let effective = poll.inserts.iter().chain(poll.replacements.iter().map(|(_, new)| new));
            self.votes.extend(effective.map(|ballot| ((poll.poll, ballot.voter), *ballot)));
            for (option, n) in &poll.tally {
                *self.tally.entry((poll.poll, *option)).or_default() += n;
            }
            if !poll.tally.is_empty() {
                // The clock may have been set back.
                let changed_at = self.tally_changed_at.entry(poll.poll).or_insert(now);
                *changed_at = now.max(*changed_at);
            }
        }
        self.positions.extend(plan.positions.iter().copied());
        for entry in &plan.ledger {
            let row = self.ledger.entry((entry.queue, entry.poll.clone())).or_insert_with(|| LedgerEntry {
                new_voters: 0,
                superseded: 0,
                quarantined: 0,
                ..entry.clone()
            });
            row.accepted = entry.accepted;
            row.new_voters += entry.new_voters;
            row.superseded += entry.superseded;
            row.quarantined += entry.quarantined;
        }
        self.apply_to_quarantine(plan, now);
    }

    fn apply_to_quarantine(&mut self, plan: &CommitPlan, now: Timestamp) {
        for frame in &plan.quarantine {
            let row = QuarantineRow {
                partition: plan.partition,
                frame: frame.clone(),
                state: QuarantineState::Quarantined,
                rejection: None,
                quarantined_at: now,
            };
            self.quarantine.insert((frame.queue, frame.position), row);
        }
        for replayed in &plan.replayed {
            let Some(row) = self.quarantine.get_mut(&(replayed.queue, replayed.position)) else { continue };
            row.state = match &replayed.outcome {
                ReplayOutcome::Counted => QuarantineState::Counted,
                ReplayOutcome::Quarantined { votes, reason } => {
                    row.frame.quarantined.clone_from(votes);
                    row.frame.reason.clone_from(reason);
                    QuarantineState::Quarantined
                }
            };
        }
    }
}
