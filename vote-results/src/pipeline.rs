//! The state of the whole pipeline, as workers reported it to the store: queues, and what is accounted for. Pure.

use std::collections::{BTreeMap, BTreeSet};

use vote_core::{
    Poll, Polls, QueueId, Timestamp,
    store::{Books, LedgerRow, QueueRecord, QueueState, RegisteredPoll},
};

use crate::{
    disclosure::{Disclosure, Figures, registered_as},
    receipts::QueueFate,
};

mod json;

/// All queues and all polls, with the figures that may be published.
///
/// While any poll is withheld, so are the figures of queues: where there is one poll, what its queues accepted is its
/// turnout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Every queue ever reported, by identity.
    pub queues: Vec<QueueLine>,
    /// The polls of the file in its order; then those that only the store has.
    pub polls: Vec<PollLine>,
}

/// What is known of a queue. Serializes as a line of `status.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLine {
    /// Its identity.
    pub queue: QueueId,
    /// Of what is left of a queue, that queue.
    pub remains_of: Option<QueueId>,
    /// Where a worker last saw it.
    pub address: String,
    /// When. Workers report at fixed intervals, whether or not votes come.
    pub seen_at: Timestamp,
    /// Whether it is what it was.
    pub state: QueueState,
    /// What moves with votes.
    pub figures: Figures<QueueFigures>,
}

/// What a queue holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFigures {
    /// Votes it said to have accepted.
    pub accepted: u64,
    /// Votes it held that were not committed then, counted from its entries, "at least" where that are very many.
    pub queued: u64,
    /// Why it is cut or retired: words that may name figures.
    pub reason: String,
}

/// What is accounted for, of all queues together. Serializes as a line of `status.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollLine {
    /// Its slug; as a queue holds the name, damage may have made it into no slug at all.
    pub poll: String,
    /// The question, if the file has the poll.
    pub title: Option<String>,
    /// Whether the store knows it.
    pub registered: bool,
    /// What keeps it from being counted or shown as the file says.
    pub problem: Option<String>,
    /// Whether every vote that was read is accounted for, that is, the residual is 0. A withheld poll says that much.
    pub conserved: bool,
    /// The numbers.
    pub figures: Figures<PollFigures>,
}

/// What became of the votes of a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollFigures {
    /// Votes that queues accepted, up to where they were read.
    pub accepted: u64,
    /// Votes that were a voter's first.
    pub new_voters: u64,
    /// Votes of a voter that had one.
    pub superseded: u64,
    /// Votes that are quarantined, since they could not be counted.
    pub quarantined: i64,
    /// `accepted − (new_voters + superseded + quarantined)`: anything but 0 is a loss or a double count.
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
    /// What may be shown of the books of a store, seen with the polls of the file.
    #[must_use]
    pub(crate) fn new(polls: &Polls, books: &Books) -> Self {
        let disclosure = Disclosure::of_sums(polls, books);
        let mut queues: Vec<_> =
            books.queues.iter().map(|record| QueueLine::new(record, disclosure)).collect();
        queues.sort_by_key(|line| line.queue);

        let sums = sums(&books.ledger);
        let of_file: Vec<&str> = polls.iter().map(|poll| poll.slug.as_str()).collect();
        let of_store: BTreeSet<&str> = books
            .polls
            .iter()
            .map(|poll| poll.slug.as_str())
            .chain(sums.keys().copied())
            .filter(|slug| !of_file.contains(slug))
            .collect();
        let lines = of_file
            .into_iter()
            .chain(of_store)
            .map(|slug| PollLine::new(slug, polls.get(slug), registered_as(books, slug), sums.get(slug)));
        Self { queues, polls: lines.collect() }
    }

    /// What became of a queue, as far as a vote in it is concerned.
    #[must_use]
    pub fn fate(&self, queue: QueueId) -> QueueFate {
        let remains = self.queues.iter().filter(|line| line.remains_of == Some(queue));
        QueueFate {
            is_over: self.queues.iter().any(|line| line.queue == queue && line.state.is_over()),
            remains: remains.map(|line| line.queue).collect(),
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
            remains_of: record.remains_of,
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

    /// Whether the numbers are withheld.
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
                "in the store, its results are {:?} where the file says {:?}: they are withheld until it is final",
                registered.results.as_str(),
                poll.results.as_str()
            )),
            None => None,
        },
        (Some(_), None) => Some("not in the store: no worker has registered it yet".to_owned()),
        (None, Some(_)) => {
            Some("not in the file of polls of this service: its results are not shown".to_owned())
        }
        (None, None) => Some("votes of a poll that nobody registered: they are set aside".to_owned()),
    }
}

fn sums(ledger: &[LedgerRow]) -> BTreeMap<&str, Sums> {
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    for LedgerRow { entry, .. } in ledger {
        let sum = sums.entry(entry.poll.as_str()).or_default();
        // Numbers too large to be true come from damage; they must show in the residual, not end the process.
        sum.accepted = sum.accepted.saturating_add(entry.accepted);
        sum.new_voters = sum.new_voters.saturating_add(entry.new_voters);
        sum.superseded = sum.superseded.saturating_add(entry.superseded);
        sum.quarantined = sum.quarantined.saturating_add(entry.quarantined);
        sum.residual += i128::from(entry.accepted)
            - i128::from(entry.new_voters)
            - i128::from(entry.superseded)
            - i128::from(entry.quarantined);
    }
    sums
}

#[cfg(test)]
mod tests {
    use vote_core::{
        Partition, Poll,
        store::{LedgerEntry, QueueRecord},
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
        Pipeline::new(polls, &Books { polls: polls_of_store, queues, ledger, ..Books::default() })
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
    fn a_poll_is_summed_over_partitions_and_queues() {
        let ledger = [row(0, "pets", [10, 7, 2, 1]), row(1, "pets", [5, 5, 0, 0])];
        let pipeline = pipeline(&Polls::example(), &[registered()], &[], &ledger);
        let [line] = &pipeline.polls[..] else { panic!("{pipeline:?}") };
        let expected =
            PollFigures { accepted: 15, new_voters: 12, superseded: 2, quarantined: 1, residual: 0 };
        assert_eq!((&line.figures, line.conserved), (&Figures::Shown(expected), true));
        assert_eq!(line.problem, None);
    }

    #[test]
    fn a_lost_vote_shows_in_the_residual_and_one_counted_twice_too() {
        for (votes, residual) in [([10, 7, 2, 0], 1), ([10, 11, 0, 0], -1)] {
            let pipeline = pipeline(&Polls::example(), &[registered()], &[], &[row(0, "pets", votes)]);
            let line = &pipeline.polls[0];
            assert_eq!((line.figures.shown().unwrap().residual, line.conserved), (residual, false));
        }
    }

    #[test]
    fn a_poll_that_only_the_store_has_is_shown_with_the_reason() {
        let polls = Polls::example();
        let mut old = registered();
        old.slug = "old".parse().unwrap();
        let pipeline = pipeline(&polls, &[registered(), old], &[], &[row(0, "<b>", [3, 0, 0, 3])]);
        let names: Vec<_> =
            pipeline.polls.iter().map(|line| (line.poll.as_str(), line.problem.is_some())).collect();
        assert_eq!(names, [("pets", false), ("<b>", true), ("old", true)]);
    }

    #[test]
    fn a_poll_registered_otherwise_is_a_problem() {
        let mut registered = registered();
        registered.options.pop();
        let pipeline = pipeline(&Polls::example(), &[registered], &[], &[]);
        let problem = pipeline.polls[0].problem.as_deref().unwrap();
        assert!(problem.contains("options are cats where the file says cats, dogs"), "{problem}");
    }

    #[test]
    fn where_a_poll_withholds_its_numbers_no_count_of_votes_is_left() {
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
    fn a_cut_queue_is_known() {
        let left = QueueRecord { remains_of: Some(QueueId([2; 16])), ..queue(9, 0, QueueState::Active) };
        let queues = [queue(1, 0, QueueState::Active), queue(2, 0, QueueState::Cut), left];
        let pipeline = pipeline(&Polls::example(), &[], &queues, &[]);
        let cut = QueueFate { is_over: true, remains: vec![QueueId([9; 16])] };
        assert_eq!(pipeline.fate(QueueId([2; 16])), cut);
        assert_eq!(pipeline.fate(QueueId([1; 16])), QueueFate::default());
        assert_eq!(pipeline.fate(QueueId([3; 16])), QueueFate::default());
    }

    #[test]
    fn the_json_has_text_for_identities_and_times() {
        let pipeline = pipeline(&Polls::example(), &[registered()], &[queue(1, 0, QueueState::Cut)], &[]);
        assert_eq!(
            serde_json::to_value(&pipeline.queues[0]).unwrap(),
            serde_json::json!({
                "queue": "01".repeat(16), "address": "redis://1", "seen_at": "2020-01-01T00:00:00Z",
                "accepted": 40, "queued": 0, "drained": true, "state": "cut",
            })
        );
    }

    #[test]
    fn where_a_poll_withholds_its_numbers_a_loss_is_still_told() {
        let pipeline = pipeline(&withholding(), &[registered()], &[], &[row(0, "pets", [37, 30, 6, 0])]);
        let json = serde_json::to_value(&pipeline.polls[0]).unwrap();
        assert_eq!(
            (&json["residual"], &json["conserved"]),
            (&serde_json::json!(null), &serde_json::json!(false))
        );
    }

    #[test]
    fn a_queue_withholds_its_reason_with_its_numbers() {
        let reason = "it counts 37 votes where 46 were seen".to_owned();
        let queues = [QueueRecord { reason: reason.clone(), ..queue(1, 0, QueueState::Cut) }];
        let reason_of = |polls: &Polls| {
            let pipeline = pipeline(polls, &[registered()], &queues, &[]);
            pipeline.queues[0].figures.shown().map(|figures| figures.reason.clone())
        };
        assert_eq!(reason_of(&Polls::example()), Some(reason));
        assert_eq!(reason_of(&withholding()), None);
    }

    #[test]
    fn another_setting_of_results_in_the_store_is_a_problem_until_the_poll_is_final() {
        let polls = withholding();
        let problem = |registered| pipeline(&polls, &[registered], &[], &[]).polls[0].problem.clone();
        let text = problem(registered()).unwrap();
        assert!(text.contains("results are \"live\" where the file says \"after-close\""), "{text}");
        let at = Some(Timestamp::MIN);
        assert_eq!(problem(RegisteredPoll { closed_at: at, final_at: at, ..registered() }), None);
    }

    #[test]
    fn an_unregistered_poll_is_said_to_be_so() {
        let poll: &Poll = &Polls::example().get("pets").unwrap().clone();
        let pipeline = pipeline(&Polls::example(), &[], &[], &[]);
        assert_eq!(pipeline.polls[0].poll, poll.slug.as_str());
        assert!(!pipeline.polls[0].registered && pipeline.polls[0].problem.is_some());
    }
}
