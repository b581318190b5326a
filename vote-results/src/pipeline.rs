//! The state of the whole pipeline, as workers reported it to the store: all queues, and the accounts of polls. Pure.

use std::collections::{BTreeMap, BTreeSet};

use vote_core::{
    Poll, Polls, QueueId, Timestamp,
    count::{Accounts, LedgerRow, QueueRecord, QueueState, RegisteredPoll},
};

use crate::{
    disclosure::{Disclosure, Figures, registered_as},
    receipts::QueueOutcome,
};

mod json;

/// All queues and all polls, with the figures that may be published.
///
/// While any poll is withheld, the figures of queues are withheld too: with a single poll, the votes that its queues
/// accepted are its turnout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Every queue ever reported, sorted by id.
    pub queues: Vec<QueueLine>,
    /// The polls of the file in its order, then those that only the store has.
    pub polls: Vec<PollLine>,
}

/// The last report of a queue. Serializes as an element of `queues` in `status.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLine {
    /// Identity of the queue.
    pub queue: QueueId,
    /// The id under which the queue accepted its votes, if it is a replaced queue.
    pub original_id: Option<QueueId>,
    /// Address at which a worker last saw the queue.
    pub address: String,
    /// Time of the last report, by the store's clock. Workers report at fixed intervals, whether or not votes come in.
    pub seen_at: Timestamp,
    /// Whether the queue is active, has diverged, or is retired.
    pub state: QueueState,
    /// Everything that depends on votes.
    pub figures: Figures<QueueFigures>,
}

/// The figures of a queue as of its last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFigures {
    /// Votes that the queue has accepted, by its own count.
    pub accepted: u64,
    /// Votes in the queue that were not committed yet, counted from its entries; a lower bound for very long backlogs.
    pub queued: u64,
    /// Why the queue diverged or was retired. The text may contain figures.
    pub reason: String,
}

/// The accounts of a poll over all queues. Serializes as an element of `polls` in `status.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollLine {
    /// Name of the poll as the queue holds it. It may not be a valid slug if a frame was damaged.
    pub poll: String,
    /// Title of the poll (the question), if the file has the poll.
    pub title: Option<String>,
    /// Whether the poll is registered in the store.
    pub registered: bool,
    /// Reason why the poll is not counted or shown as the file defines it.
    pub problem: Option<String>,
    /// Whether every vote that was read is accounted for: the residual is 0. Public even if the poll is withheld.
    pub conserved: bool,
    /// The counts of votes.
    pub figures: Figures<PollFigures>,
}

/// The counts of the votes of a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollFigures {
    /// Votes that queues accepted, up to the positions read.
    pub accepted: u64,
    /// Votes that were the first of their voter to be counted.
    pub new_voters: u64,
    /// Votes of voters who already had one.
    pub superseded: u64,
    /// Votes that could not be counted and are quarantined.
    pub quarantined: i64,
    /// `accepted − (new_voters + superseded + quarantined)`, without what is missing from retired queues. Positive: lost
    /// votes; negative: votes counted twice.
    pub residual: i64,
}

#[derive(Default)]
struct Sums {
    accepted: u64,
    new_voters: u64,
    superseded: u64,
    quarantined: i64,
    residual: i128,
}

impl Pipeline {
    /// Derives what may be shown of the accounts of the store, given the polls of the file.
    #[must_use]
    pub(crate) fn new(polls: &Polls, accounts: &Accounts) -> Self {
        let disclosure = Disclosure::of_sums(polls, accounts);
        let mut queues: Vec<_> =
            accounts.queues.iter().map(|record| QueueLine::new(record, disclosure)).collect();
        queues.sort_by_key(|line| line.queue);

        let sums = sums(accounts);
        let of_file: Vec<&str> = polls.iter().map(|poll| poll.slug.as_str()).collect();
        let of_store: BTreeSet<&str> = accounts
            .polls
            .iter()
            .map(|poll| poll.slug.as_str())
            .chain(sums.keys().copied())
            .filter(|slug| !of_file.contains(slug))
            .collect();
        let lines = of_file
            .into_iter()
            .chain(of_store)
            .map(|slug| PollLine::new(slug, polls.get(slug), registered_as(accounts, slug), sums.get(slug)));
        Self { queues, polls: lines.collect() }
    }

    /// Returns what the fate of a vote in a queue depends on.
    #[must_use]
    pub fn fate(&self, queue: QueueId) -> QueueOutcome {
        let replaced = self.queues.iter().filter(|line| line.original_id == Some(queue));
        QueueOutcome {
            is_ended: self.queues.iter().any(|line| line.queue == queue && line.state.is_ended()),
            replaced: replaced.map(|line| line.queue).collect(),
        }
    }
}

impl QueueLine {
    fn new(record: &QueueRecord, disclosure: Disclosure) -> Self {
        let figures = Figures::disclosed(disclosure, || QueueFigures {
            accepted: record.votes_accepted(),
            queued: record.queued.values().sum(),
            reason: record.reason.clone(),
        });
        Self {
            queue: record.id,
            original_id: record.original_id,
            address: record.address.clone(),
            seen_at: record.seen_at,
            state: record.state,
            figures,
        }
    }
}

impl PollLine {
    fn new(
        slug: &str,
        poll: Option<&Poll>,
        registered: Option<&RegisteredPoll>,
        sums: Option<&Sums>,
    ) -> Self {
        let none = Sums::default();
        let sums = sums.unwrap_or(&none);
        let out_of_range = if sums.residual < 0 { i64::MIN } else { i64::MAX };
        let figures = Figures::disclosed(Disclosure::of(poll, registered), || PollFigures {
            accepted: sums.accepted,
            new_voters: sums.new_voters,
            superseded: sums.superseded,
            quarantined: sums.quarantined,
            residual: i64::try_from(sums.residual).unwrap_or(out_of_range),
        });
        Self {
            poll: slug.to_owned(),
            title: poll.map(|poll| poll.title.clone()),
            registered: registered.is_some(),
            problem: problem(poll, registered),
            conserved: sums.residual == 0,
            figures,
        }
    }

    /// Whether the figures are withheld.
    #[must_use]
    pub const fn is_withheld(&self) -> bool {
        matches!(self.figures, Figures::Withheld)
    }
}

fn problem(poll: Option<&Poll>, registered: Option<&RegisteredPoll>) -> Option<String> {
    match (poll, registered) {
        (Some(poll), Some(registered)) => match registered.difference(poll) {
            Some(difference) => Some(format!("in the store, its {difference}")),
            None if registered.results != poll.results && registered.final_at.is_none() => Some(format!(
                "in the store, its results are {:?} where the file says {:?}: they are withheld until they are final",
                registered.results.as_str(),
                poll.results.as_str()
            )),
            None => None,
        },
        (Some(_), None) => Some("not in the store: no worker has registered it yet".to_owned()),
        (None, Some(_)) => Some("not in this service's file of polls: its results are not shown".to_owned()),
        (None, None) => Some("not registered: its votes are quarantined".to_owned()),
    }
}

fn sums(accounts: &Accounts) -> BTreeMap<&str, Sums> {
    let is_retired = |queue: &&QueueRecord| queue.state == QueueState::Retired;
    let retired: BTreeSet<QueueId> =
        accounts.queues.iter().filter(is_retired).map(|queue| queue.id).collect();
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    for LedgerRow { entry, .. } in &accounts.ledger {
        let sum = sums.entry(entry.poll.as_str()).or_default();
        // Impossibly large numbers come from damaged data. They must show up in the residual, not crash the process.
        sum.accepted = sum.accepted.saturating_add(entry.accepted);
        sum.new_voters = sum.new_voters.saturating_add(entry.new_voters);
        sum.superseded = sum.superseded.saturating_add(entry.superseded);
        sum.quarantined = sum.quarantined.saturating_add(entry.quarantined);
        sum.residual += entry.unaccounted(retired.contains(&entry.queue));
    }
    sums
}

#[cfg(test)]
mod tests {
    use vote_core::{
        Partition, Poll,
        count::{LedgerEntry, QueueRecord},
    };

    use super::*;

    fn row(
        partition: u16,
        poll: &str,
        [accepted, new_voters, superseded, quarantined]: [u64; 4],
    ) -> LedgerRow {
        let quarantined = quarantined as i64;
        let entry = LedgerEntry {
            queue: QueueId([1; 16]),
            poll: poll.to_owned(),
            accepted,
            new_voters,
            superseded,
            quarantined,
        };
        LedgerRow { partition: Partition(partition), entry }
    }

    fn queue(number: u8, queued: u64, state: QueueState) -> QueueRecord {
        let record = QueueRecord::new(QueueId([number; 16]), format!("redis://{number}"), Timestamp::MIN);
        QueueRecord {
            accepted: [("pets".to_owned(), 40)].into(),
            queued: [("pets".to_owned(), queued)].into(),
            state,
            ..record
        }
    }

    fn pipeline(
        polls: &Polls,
        registered: &[RegisteredPoll],
        queues: &[QueueRecord],
        ledger: &[LedgerRow],
    ) -> Pipeline {
        let (polls_of_store, queues, ledger) = (registered.to_vec(), queues.to_vec(), ledger.to_vec());
        Pipeline::new(polls, &Accounts { polls: polls_of_store, queues, ledger, ..Accounts::default() })
    }

    fn registered() -> RegisteredPoll {
        Polls::example().get("pets").unwrap().into()
    }

    fn withholding() -> Polls {
        Polls::from_toml(
            "polls.toml",
            r#"
            [[poll]]
            slug = "pets"
            title = "Cats or dogs?"
            options = [{ slug = "cats", label = "Cats" }, { slug = "dogs", label = "Dogs" }]
            results = "after-close"
            "#,
        )
        .unwrap()
    }

    #[test]
    fn the_figures_of_a_poll_are_summed_over_partitions_and_queues() {
        let ledger = [row(0, "pets", [10, 7, 2, 1]), row(1, "pets", [5, 5, 0, 0])];
        let pipeline = pipeline(&Polls::example(), &[registered()], &[], &ledger);
        let [line] = &pipeline.polls[..] else { panic!("{pipeline:?}") };
        let expected =
            PollFigures { accepted: 15, new_voters: 12, superseded: 2, quarantined: 1, residual: 0 };
        assert_eq!((&line.figures, line.conserved), (&Figures::Shown(expected), true));
        assert_eq!(line.problem, None);
    }

    #[test]
    fn lost_votes_and_votes_counted_twice_show_in_the_residual() {
        for (votes, residual) in [([10, 7, 2, 0], 1), ([10, 11, 0, 0], -1)] {
            let pipeline = pipeline(&Polls::example(), &[registered()], &[], &[row(0, "pets", votes)]);
            let line = &pipeline.polls[0];
            assert_eq!((line.figures.shown().unwrap().residual, line.conserved), (residual, false));
        }
    }

    #[test]
    fn votes_missing_from_a_queue_raise_an_alarm_until_it_is_retired() {
        let ledger = [row(0, "pets", [10, 7, 2, 0])];
        for (state, residual) in
            [(QueueState::Active, 1), (QueueState::Diverged, 1), (QueueState::Retired, 0)]
        {
            let pipeline = pipeline(&Polls::example(), &[registered()], &[queue(1, 0, state)], &ledger);
            let line = &pipeline.polls[0];
            let shown = (line.figures.shown().unwrap().residual, line.conserved);
            assert_eq!(shown, (residual, residual == 0), "{state:?}");
        }
    }

    #[test]
    fn a_poll_that_only_the_store_has_is_shown_with_a_problem() {
        let polls = Polls::example();
        let mut old = registered();
        old.slug = "old".parse().unwrap();
        let pipeline = pipeline(&polls, &[registered(), old], &[], &[row(0, "<b>", [3, 0, 0, 3])]);
        let names: Vec<_> =
            pipeline.polls.iter().map(|line| (line.poll.as_str(), line.problem.is_some())).collect();
        assert_eq!(names, [("pets", false), ("<b>", true), ("old", true)]);
    }

    #[test]
    fn a_registration_that_differs_from_the_file_is_a_problem() {
        let mut registered = registered();
        registered.options.pop();
        let pipeline = pipeline(&Polls::example(), &[registered], &[], &[]);
        let problem = pipeline.polls[0].problem.as_deref().unwrap();
        assert!(problem.contains("options are cats where the file says cats, dogs"), "{problem}");
    }

    #[test]
    fn a_withheld_poll_shows_no_counts_of_votes() {
        let polls = withholding();
        let queues = [queue(1, 3, QueueState::Active), queue(2, 0, QueueState::Active)];
        let pipeline = pipeline(&polls, &[registered()], &queues, &[row(0, "pets", [37, 30, 7, 0])]);
        let line = &pipeline.polls[0];
        assert_eq!((&line.figures, line.conserved), (&Figures::Withheld, true));
        assert!(pipeline.queues.iter().all(|queue| queue.figures == Figures::Withheld), "{pipeline:?}");
        let json = serde_json::to_value(&pipeline.queues[0]).unwrap();
        for field in ["accepted", "queued", "drained"] {
            assert_eq!(json[field], serde_json::json!(null), "{field}");
        }
    }

    #[test]
    fn the_fate_of_a_diverged_queue_names_its_replaced_queue() {
        let replaced = QueueRecord { original_id: Some(QueueId([2; 16])), ..queue(9, 0, QueueState::Active) };
        let queues = [queue(1, 0, QueueState::Active), queue(2, 0, QueueState::Diverged), replaced];
        let pipeline = pipeline(&Polls::example(), &[], &queues, &[]);
        let diverged = QueueOutcome { is_ended: true, replaced: vec![QueueId([9; 16])] };
        assert_eq!(pipeline.fate(QueueId([2; 16])), diverged);
        assert_eq!(pipeline.fate(QueueId([1; 16])), QueueOutcome::default());
        assert_eq!(pipeline.fate(QueueId([3; 16])), QueueOutcome::default());
    }

    #[test]
    fn ids_and_times_are_strings_in_the_json() {
        let pipeline =
            pipeline(&Polls::example(), &[registered()], &[queue(1, 0, QueueState::Diverged)], &[]);
        assert_eq!(
            serde_json::to_value(&pipeline.queues[0]).unwrap(),
            serde_json::json!({
                "queue": "01".repeat(16), "address": "redis://1", "seen_at": "2020-01-01T00:00:00Z",
                "accepted": 40, "queued": 0, "drained": true, "state": "diverged",
            })
        );
    }

    #[test]
    fn a_withheld_poll_still_shows_that_votes_are_unaccounted_for() {
        let pipeline = pipeline(&withholding(), &[registered()], &[], &[row(0, "pets", [37, 30, 6, 0])]);
        let json = serde_json::to_value(&pipeline.polls[0]).unwrap();
        assert_eq!(
            (&json["residual"], &json["conserved"]),
            (&serde_json::json!(null), &serde_json::json!(false))
        );
    }

    #[test]
    fn the_reason_of_a_queue_is_withheld_with_its_figures() {
        let reason = "it counts 37 votes where 46 were seen".to_owned();
        let queues = [QueueRecord { reason: reason.clone(), ..queue(1, 0, QueueState::Diverged) }];
        let reason_of = |polls: &Polls| {
            let pipeline = pipeline(polls, &[registered()], &queues, &[]);
            pipeline.queues[0].figures.shown().map(|figures| figures.reason.clone())
        };
        assert_eq!(reason_of(&Polls::example()), Some(reason));
        assert_eq!(reason_of(&withholding()), None);
    }

    #[test]
    fn a_results_setting_that_differs_in_the_store_is_a_problem_until_the_poll_is_final() {
        let polls = withholding();
        let problem = |registered| pipeline(&polls, &[registered], &[], &[]).polls[0].problem.clone();
        let text = problem(registered()).unwrap();
        assert!(text.contains("results are \"live\" where the file says \"after-close\""), "{text}");
        let at = Some(Timestamp::MIN);
        assert_eq!(problem(RegisteredPoll { closed_at: at, final_at: at, ..registered() }), None);
    }

    #[test]
    fn an_unregistered_poll_has_a_problem() {
        let poll: &Poll = &Polls::example().get("pets").unwrap().clone();
        let pipeline = pipeline(&Polls::example(), &[], &[], &[]);
        assert_eq!(pipeline.polls[0].poll, poll.slug.as_str());
        assert!(!pipeline.polls[0].registered && pipeline.polls[0].problem.is_some());
    }
}
