//! Comparison of an audit with the [reference](super::reference) on random accounts.

use proptest::prelude::*;

use super::{super::*, A, B, REPLACED, at, reference, second};
use crate::{
    Keep, Partition, PollSlug, Position, QueueId,
    count::{
        Accounts, LedgerEntry, LedgerRow, QuarantineTotal, QueueRecord, RegisteredPoll, SealRecord, TallyRow,
        Withdrawal,
    },
    poll::{ResultsFrom, Voters},
    queue::{Counters, Seal},
};

/// Never reported.
const UNKNOWN: QueueId = QueueId([7; 16]);
/// Two polls that may be registered, and a name that no poll can have.
const NAMES: [&str; 3] = ["pets", "cars", "No poll"];
const PARTITIONS: [Partition; 2] = [Partition(0), Partition(1)];

/// Random choices; 0 each once they are used up.
struct Choices(std::vec::IntoIter<u8>);

impl Choices {
    fn below(&mut self, n: u8) -> u64 {
        u64::from(self.0.next().unwrap_or_default() % n)
    }

    /// Returns true once in so many times.
    fn once_in(&mut self, n: u8) -> bool {
        self.below(n) == n as u64 - 1
    }

    /// Returns the number, or rarely another one.
    fn about(&mut self, n: u64) -> u64 {
        if self.once_in(24) { n + 1 } else { n }
    }

    fn position(&mut self) -> Position {
        if self.once_in(8) { at(4) } else { at(5) }
    }

    fn counters(&mut self) -> Counters {
        let some = NAMES.into_iter().filter(|_| self.once_in(3)).map(str::to_owned).collect::<Vec<_>>();
        some.into_iter().map(|name| (name, 1)).collect()
    }

    fn poll(&mut self, name: &str) -> RegisteredPoll {
        let stage = self.below(5);
        RegisteredPoll {
            slug: name.parse().unwrap(),
            options: vec!["cats".parse().unwrap(), "dogs".parse().unwrap()],
            keep: Keep::First,
            voters: Voters::Cookie,
            results: ResultsFrom::Live,
            closes_at: None,
            reschedules: Vec::new(),
            closed_at: (stage < 4).then(|| second(90)),
            final_at: (stage == 0).then(|| second(95)),
            withdrawal: (stage == 4 && self.once_in(2))
                .then(|| Withdrawal { at: second(80), reason: "a typo".to_owned() }),
            undone_withdrawal: None,
            earlier: Vec::new(),
        }
    }

    fn queue(&mut self, id: QueueId) -> QueueRecord {
        let state = match self.below(12) {
            10 => QueueState::Diverged,
            11 => QueueState::Retired,
            _ => QueueState::Active,
        };
        let (partitions, seen_at) = (self.about(2), if self.once_in(6) { 50 } else { 109 });
        let mut record = QueueRecord::new(id, "a".to_owned(), second(seen_at));
        record.original_id = (id == REPLACED).then_some(B);
        record.ends = (0..partitions).map(|_| self.position()).collect();
        (record.accepted, record.queued) = (self.counters(), self.counters());
        (record.state, record.queued_complete) = (state, self.once_in(2));
        if self.once_in(12) {
            record.ends.clear();
        }
        record
    }

    fn row(&mut self, queue: QueueId, partition: Partition, poll: &str) -> LedgerRow {
        let (new_voters, superseded) = (self.below(3), self.below(2));
        let quarantined = if self.once_in(6) { 1 } else { 0 };
        let entry = LedgerEntry {
            queue,
            poll: poll.to_owned(),
            accepted: self.about(new_voters + superseded + quarantined),
            new_voters,
            superseded,
            quarantined: quarantined as i64,
        };
        LedgerRow { partition, entry }
    }

    fn seal(&mut self, queue: QueueId, poll: PollSlug, ledger: &[LedgerRow]) -> SealRecord {
        let of = |partition| {
            let mut rows = ledger.iter().filter(|row| (row.entry.queue, row.partition) == (queue, partition));
            rows.find(|row| row.entry.poll == poll.as_str()).map_or(0, |row| row.entry.accepted)
        };
        let ends = PARTITIONS.map(|_| self.position()).to_vec();
        SealRecord {
            queue,
            poll,
            seal: Seal { ends, accepted: PARTITIONS.map(|p| self.about(of(p))).to_vec() },
        }
    }

    fn accounts(&mut self) -> Accounts {
        let mut accounts = Accounts {
            taken_at: second(110),
            versions: PARTITIONS.map(|partition| (partition, 0)).into(),
            ..Accounts::default()
        };
        for name in &NAMES[..2] {
            if !self.once_in(8) {
                accounts.polls.push(self.poll(name));
            }
        }
        for id in [A, B, REPLACED] {
            if !self.once_in(10) {
                accounts.queues.push(self.queue(id));
            }
        }
        for queue in [A, B, REPLACED, UNKNOWN] {
            let is_there =
                |choices: &mut Self| if queue == UNKNOWN { choices.once_in(24) } else { !choices.once_in(8) };
            for partition in PARTITIONS {
                if is_there(self) {
                    accounts.positions.insert((queue, partition), self.position());
                }
                for name in NAMES {
                    if is_there(self) {
                        accounts.ledger.push(self.row(queue, partition, name));
                    }
                }
            }
        }
        self.add_seals_and_totals(&mut accounts);
        accounts
    }

    fn add_seals_and_totals(&mut self, accounts: &mut Accounts) {
        for (queue, name) in [A, B, UNKNOWN].into_iter().flat_map(|queue| [(queue, "pets"), (queue, "cars")])
        {
            if !self.once_in(if queue == UNKNOWN { 2 } else { 12 }) {
                accounts.seals.push(self.seal(queue, name.parse().unwrap(), &accounts.ledger));
            }
        }
        for LedgerRow { partition, entry } in &accounts.ledger {
            let votes = self.about(entry.quarantined as u64);
            if votes > 0 {
                let pending = u64::from(self.once_in(3));
                let (queue, partition, poll) = (entry.queue, *partition, entry.poll.clone());
                accounts.quarantine.push(QuarantineTotal { queue, partition, poll, votes, pending });
            }
        }
        let mut rows = std::collections::BTreeMap::new();
        for (name, partition) in ["pets", "cars"].into_iter().flat_map(|name| PARTITIONS.map(|p| (name, p))) {
            let here =
                accounts.ledger.iter().filter(|row| row.partition == partition && row.entry.poll == name);
            let mut left = self.about(here.map(|row| row.entry.new_voters).sum()) as i64;
            for option in ["cats", "dogs"] {
                let votes =
                    if option == "dogs" { left } else { left.min(2) - 3 * i64::from(self.once_in(16)) };
                left -= votes;
                let (poll, option) = (name.parse().unwrap(), option.parse().unwrap());
                if votes != 0 {
                    accounts.tally.push(TallyRow { poll, option, partition, votes });
                }
                *rows.entry((poll, option)).or_default() += self.about(votes.unsigned_abs());
            }
        }
        rows.retain(|_, votes| *votes != 0);
        accounts.rows = self.once_in(2).then_some(rows);
    }
}

fn accounts() -> impl Strategy<Value = Accounts> {
    proptest::collection::vec(any::<u8>(), 0..250).prop_map(|choices| Choices(choices.into_iter()).accounts())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn an_audit_finds_what_the_reference_finds(accounts in accounts()) {
        for only in [None, Some("pets".parse().unwrap())] {
            let audit = audit(&accounts, only);
            let (problems, outstanding) = reference::audit(&accounts, only);
            prop_assert_eq!(&audit.problems, &problems);
            prop_assert_eq!(&audit.outstanding, &outstanding);
            for poll in &audit.polls {
                prop_assert_eq!(poll.total, reference::total(&accounts, &poll.poll));
            }
        }
        prop_assert_eq!(not_heard_from(&accounts), reference::not_heard_from(&accounts));
    }

    #[test]
    fn obstacles_are_what_the_reference_finds(accounts in accounts()) {
        for name in ["pets", "cars", "never-registered"] {
            let poll = name.parse().unwrap();
            prop_assert_eq!(obstacles(&accounts, poll), reference::obstacles(&accounts, poll));
            for partition in PARTITIONS {
                prop_assert_eq!(
                    obstacles_in(&accounts, poll, partition),
                    reference::obstacles_in(&accounts, poll, partition)
                );
            }
        }
    }
}
