//! The rule that decides which figures of a poll are public, given its definitions in the file and the store. Pure.
//!
//! A poll's figures are published once its count is final. Before that they are published only if its results are live
//! in both the file and the store: the stricter of the two applies, and a poll that either does not know is withheld.

use std::collections::BTreeSet;

use vote_core::{
    Poll, Polls,
    count::{Balances, RegisteredPoll, Summary},
    poll::ResultsFrom,
};

/// How much of a poll's figures is public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disclosure {
    /// All figures are public.
    Published,
    /// Zeros are shown: the results are live in the file, but the poll is not registered in the store. There is no
    /// tally then, and queues and ledger may hold votes of a poll that the store will withhold.
    NothingCounted,
    /// No figures are public.
    Withheld,
}

impl Disclosure {
    /// Applies the rule to the definitions of a poll in the file and in the store, either of which may be missing.
    #[must_use]
    pub fn of(file: Option<&Poll>, store: Option<&RegisteredPoll>) -> Self {
        let file_is_live = file.is_some_and(|poll| poll.results == ResultsFrom::Live);
        match store {
            Some(store) if store.final_at.is_some() => Self::Published,
            Some(store) if file_is_live && store.results == ResultsFrom::Live => Self::Published,
            None if file_is_live => Self::NothingCounted,
            _ => Self::Withheld,
        }
    }

    /// Applies the rule to sums over several polls, such as the figures of queues: all or nothing. One withheld poll
    /// withholds the sums, since its figures follow from the sum and the figures of the other polls. The polls are all
    /// those named in the file, or anywhere in the store.
    #[must_use]
    pub fn of_sums(polls: &Polls, summary: &Summary, balances: &Balances) -> Self {
        let in_file = polls.iter().map(|poll| poll.slug.as_str());
        let registered = summary.polls.iter().map(|known| known.poll.slug.as_str());
        let elsewhere = summary.reported.iter().chain(&balances.named).map(String::as_str);
        let named: BTreeSet<&str> = in_file.chain(registered).chain(elsewhere).collect();
        let of = |slug: &str| Self::of(polls.get(slug), registered_as(summary, slug));
        if named.into_iter().all(|slug| of(slug) == Self::Published) {
            Self::Published
        } else {
            Self::Withheld
        }
    }
}

/// Returns the registration of a poll in the store, if there is one.
pub(crate) fn registered_as<'a>(summary: &'a Summary, slug: &str) -> Option<&'a RegisteredPoll> {
    summary.poll(slug).map(|known| &known.poll)
}

/// Figures that are either public or withheld. The withheld variant does not hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Figures<T> {
    /// The figures are public.
    Shown(T),
    /// The figures are withheld until their polls are final.
    Withheld,
}

impl<T> Figures<T> {
    /// Computes the figures if they may be published.
    pub(crate) fn disclosed(disclosure: Disclosure, figures: impl FnOnce() -> T) -> Self {
        match disclosure {
            Disclosure::Published => Self::Shown(figures()),
            Disclosure::NothingCounted | Disclosure::Withheld => Self::Withheld,
        }
    }

    /// Returns the figures, unless they are withheld.
    #[must_use]
    pub const fn shown(&self) -> Option<&T> {
        match self {
            Self::Shown(figures) => Some(figures),
            Self::Withheld => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use vote_core::{
        Partition, QueueId, Timestamp,
        count::{Accounts, LedgerEntry, LedgerRow, QuarantineTotal, QueueRecord, SealRecord},
        queue::Seal,
    };

    use super::*;

    const BOTH: [ResultsFrom; 2] = [ResultsFrom::Live, ResultsFrom::AfterClose];

    fn file(results: ResultsFrom) -> Poll {
        Poll { results, ..Polls::example().get("pets").unwrap().clone() }
    }

    fn store(results: ResultsFrom) -> RegisteredPoll {
        RegisteredPoll::from(&file(results))
    }

    #[test]
    fn before_a_poll_is_final_the_stricter_of_store_and_file_applies() {
        for of_file in BOTH {
            for of_store in BOTH {
                let both_live = of_file == ResultsFrom::Live && of_store == ResultsFrom::Live;
                let expected = if both_live { Disclosure::Published } else { Disclosure::Withheld };
                let closed_at = Some(Timestamp::MIN);
                let closed = RegisteredPoll { closed_at, ..store(of_store) };
                for store in [store(of_store), closed] {
                    assert_eq!(Disclosure::of(Some(&file(of_file)), Some(&store)), expected, "{store:?}");
                }
            }
        }
    }

    #[test]
    fn a_final_poll_is_published_regardless_of_store_and_file() {
        for results in BOTH {
            let at = Some(Timestamp::MIN);
            let store = RegisteredPoll { closed_at: at, final_at: at, ..store(results) };
            for file in [None, Some(&file(ResultsFrom::Live)), Some(&file(ResultsFrom::AfterClose))] {
                assert_eq!(Disclosure::of(file, Some(&store)), Disclosure::Published);
            }
        }
    }

    #[test]
    fn a_poll_that_the_file_or_the_store_does_not_know_is_withheld() {
        for results in BOTH {
            assert_eq!(Disclosure::of(None, Some(&store(results))), Disclosure::Withheld);
        }
        assert_eq!(Disclosure::of(None, None), Disclosure::Withheld);
        assert_eq!(Disclosure::of(Some(&file(ResultsFrom::AfterClose)), None), Disclosure::Withheld);
        assert_eq!(Disclosure::of(Some(&file(ResultsFrom::Live)), None), Disclosure::NothingCounted);
    }

    fn live() -> Accounts {
        Accounts { polls: vec![store(ResultsFrom::Live)], ..Accounts::default() }
    }

    fn of_sums(accounts: &Accounts) -> Disclosure {
        Disclosure::of_sums(&Polls::example(), &Summary::of(accounts), &Balances::of(accounts))
    }

    #[test]
    fn sums_are_published_only_if_every_poll_is() {
        assert_eq!(of_sums(&live()), Disclosure::Published);
        assert_eq!(
            of_sums(&Accounts::default()),
            Disclosure::Withheld,
            "the poll of the file is not registered"
        );
        let secret = Accounts { polls: vec![store(ResultsFrom::AfterClose)], ..Accounts::default() };
        assert_eq!(of_sums(&secret), Disclosure::Withheld);
    }

    #[test]
    fn an_unregistered_poll_anywhere_in_the_store_withholds_the_sums() {
        let queue = QueueRecord::new(QueueId([1; 16]), "redis://1".to_owned(), Timestamp::MIN);
        let votes = || [("tea".to_owned(), 37)].into();
        let entry = LedgerEntry {
            queue: queue.id,
            poll: "tea".to_owned(),
            accepted: 37,
            new_voters: 0,
            superseded: 0,
            quarantined: 37,
        };
        let total = QuarantineTotal {
            queue: queue.id,
            partition: Partition(0),
            poll: "tea".to_owned(),
            votes: 37,
            pending: 1,
        };
        let seal = Seal { ends: Vec::new(), accepted: Vec::new() };
        let tea = RegisteredPoll { slug: "tea".parse().unwrap(), ..store(ResultsFrom::Live) };
        let seal = SealRecord { queue: queue.id, poll: tea.slug, seal };
        let cases = [
            Accounts { polls: vec![store(ResultsFrom::Live), tea], ..live() },
            Accounts { queues: vec![QueueRecord { accepted: votes(), ..queue.clone() }], ..live() },
            Accounts { queues: vec![QueueRecord { queued: votes(), ..queue }], ..live() },
            Accounts { ledger: vec![LedgerRow { partition: Partition(0), entry }], ..live() },
            Accounts { quarantine: vec![total], ..live() },
            Accounts { seals: vec![seal], ..live() },
        ];
        for accounts in cases {
            assert_eq!(of_sums(&accounts), Disclosure::Withheld, "{accounts:?}");
        }
    }
}
