//! The state of the whole pipeline, as workers reported it to the store: queues, and what is accounted for. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer};
use vote_core::{
    Polls, QueueId, Timestamp,
    poll::ResultsFrom,
    store::{Books, LedgerRow, QueueState, RegisteredPoll},
};

use crate::receipts::QueueFate;

/// All queues and all polls. Serializes as the lists of `status.json`.
///
/// While any poll withholds its numbers, so do the queues: where there is one poll, what its queues accepted is its
/// turnout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pipeline {
    /// Every queue ever reported, by identity.
    pub queues: Vec<QueueLine>,
    /// The polls of the file in its order; then those that only the store has.
    pub polls: Vec<PollLine>,
}

/// What is known of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueLine {
    /// Its identity.
    #[serde(serialize_with = "as_text")]
    pub queue: QueueId,
    /// Of what is left of a queue, that queue.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text_if_any")]
    pub remains_of: Option<QueueId>,
    /// Where a worker last saw it.
    pub address: String,
    /// When.
    #[serde(serialize_with = "as_text")]
    pub seen_at: Timestamp,
    /// Votes it said to have accepted; none if withheld.
    pub accepted: Option<u64>,
    /// Votes it held that were not committed then, counted from its entries, "at least" where that are very many; none
    /// if withheld.
    pub queued: Option<u64>,
    /// Whether there were no such votes.
    pub drained: bool,
    /// Whether it is what it was.
    #[serde(serialize_with = "state")]
    pub state: QueueState,
    /// Why it is cut or retired.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What is accounted for, of all queues together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PollLine {
    /// Its slug; as a queue holds the name, damage may have made it into no slug at all.
    pub poll: String,
    /// The question, if the file has the poll.
    pub title: Option<String>,
    /// Whether the store knows it.
    pub registered: bool,
    /// What keeps it from being counted or shown as the file says.
    pub problem: Option<String>,
    /// Whether numbers of votes are withheld.
    pub withheld: bool,
    /// Votes that queues accepted, up to where they were read.
    pub accepted: Option<u64>,
    /// Votes that were a voter's first.
    pub new_voters: Option<u64>,
    /// Votes of a voter that had one.
    pub superseded: Option<u64>,
    /// Votes that are set aside, since they could not be counted.
    pub quarantined: i64,
    /// `accepted − (new_voters + superseded + quarantined)`: anything but 0 is a loss or a double count.
    pub residual: i64,
}

fn as_text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn state<S: Serializer>(state: &QueueState, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}

fn as_text_if_any<S: Serializer>(value: &Option<impl ToString>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => as_text(value, serializer),
        None => serializer.serialize_none(),
    }
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
    /// What the store holds, seen with the polls of the file.
    #[must_use]
    pub fn new(polls: &Polls, books: &Books) -> Self {
        let registered = &books.polls;
        let is_final = |slug| registered.iter().any(|poll| poll.slug == slug && poll.final_at.is_some());
        let withheld =
            polls.iter().any(|poll| poll.results == ResultsFrom::AfterClose && !is_final(poll.slug));
        let number = |n| (!withheld).then_some(n);
        let mut queues: Vec<_> = books
            .queues
            .iter()
            .map(|record| QueueLine {
                queue: record.id,
                remains_of: record.remains_of,
                address: record.address.clone(),
                seen_at: record.seen_at,
                accepted: number(record.votes_accepted()),
                queued: number(record.queued.values().sum()),
                drained: record.queued.values().all(|votes| *votes == 0),
                state: record.state,
                // It may name figures.
                reason: if withheld { String::new() } else { record.reason.clone() },
            })
            .collect();
        queues.sort_by_key(|line| line.queue);

        let sums = sums(&books.ledger);
        let of_file: Vec<&str> = polls.iter().map(|poll| poll.slug.as_str()).collect();
        let of_store: BTreeSet<&str> = registered
            .iter()
            .map(|poll| poll.slug.as_str())
            .chain(sums.keys().copied())
            .filter(|slug| !of_file.contains(slug))
            .collect();
        let lines = of_file.into_iter().chain(of_store).map(|slug| {
            PollLine::new(
                slug,
                polls,
                registered.iter().find(|poll| poll.slug.as_str() == slug),
                sums.get(slug),
            )
        });
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

impl PollLine {
    fn new(slug: &str, polls: &Polls, registered: Option<&RegisteredPoll>, sums: Option<&Sums>) -> Self {
        let poll = polls.get(slug);
        let problem = match (poll, registered) {
            (Some(poll), Some(registered)) => {
                registered.difference(poll).map(|difference| format!("in the store, its {difference}"))
            }
            (Some(_), None) => Some("not in the store: no worker has registered it yet".to_owned()),
            (None, Some(_)) => {
                Some("not in the file of polls of this service: its results are not shown".to_owned())
            }
            (None, None) => Some("votes of a poll that nobody registered: they are set aside".to_owned()),
        };
        // Of a poll that the file does not have, it can't be known whether it would withhold its numbers.
        let is_final = registered.is_some_and(|registered| registered.final_at.is_some());
        let withheld = poll.is_none_or(|poll| poll.results == ResultsFrom::AfterClose && !is_final);
        let none = Sums::default();
        let sums = sums.unwrap_or(&none);
        let number = |n| (!withheld).then_some(n);
        Self {
            poll: slug.to_owned(),
            title: poll.map(|poll| poll.title.clone()),
            registered: registered.is_some(),
            problem,
            withheld,
            accepted: number(sums.accepted),
            new_voters: number(sums.new_voters),
            superseded: number(sums.superseded),
            quarantined: sums.quarantined,
            residual: i64::try_from(sums.residual).unwrap_or(if sums.residual < 0 {
                i64::MIN
            } else {
                i64::MAX
            }),
        }
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
        assert_eq!((line.accepted, line.new_voters, line.superseded), (Some(15), Some(12), Some(2)));
        assert_eq!((line.quarantined, line.residual, line.problem.as_deref()), (1, 0, None));
    }

    #[test]
    fn a_lost_vote_shows_in_the_residual_and_one_counted_twice_too() {
        let residual = |row| pipeline(&Polls::example(), &[registered()], &[], &[row]).polls[0].residual;
        assert_eq!(residual(row(0, "pets", [10, 7, 2, 0])), 1);
        assert_eq!(residual(row(0, "pets", [10, 11, 0, 0])), -1);
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
        assert_eq!((line.accepted, line.new_voters, line.superseded, line.residual), (None, None, None, 0));
        let queues: Vec<_> = pipeline.queues.iter().map(|q| (q.accepted, q.queued, q.drained)).collect();
        assert_eq!(queues, [(None, None, false), (None, None, true)]);
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
        let json = serde_json::to_value(&pipeline).unwrap();
        assert_eq!(
            json["queues"][0],
            serde_json::json!({
                "queue": "01".repeat(16), "address": "redis://1", "seen_at": "2020-01-01T00:00:00Z",
                "accepted": 40, "queued": 0, "drained": true, "state": "cut",
            })
        );
    }

    #[test]
    fn an_unregistered_poll_is_said_to_be_so() {
        let poll: &Poll = &Polls::example().get("pets").unwrap().clone();
        let pipeline = pipeline(&Polls::example(), &[], &[], &[]);
        assert_eq!(pipeline.polls[0].poll, poll.slug.as_str());
        assert!(!pipeline.polls[0].registered && pipeline.polls[0].problem.is_some());
    }
}
