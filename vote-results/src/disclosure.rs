//! What the public may know of a poll: one rule, from what the file and the store say of it. Pure.
//!
//! A poll's figures are published once its count is final, and before that only if both the file and the store say that
//! its results are live: the stricter of the two holds, and what either does not know is withheld.

use std::collections::BTreeSet;

use vote_core::{
    Poll, Polls,
    poll::ResultsFrom,
    store::{Books, RegisteredPoll},
};

/// How much of a poll's figures the public may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disclosure {
    /// All of them.
    Published,
    /// That nothing is counted yet, and no more: the file says that results are live, and the store does not know the
    /// poll. It has no tally then, and what queues and ledger hold of it may be of a poll that the store will withhold.
    NothingCounted,
    /// None.
    Withheld,
}

impl Disclosure {
    /// The rule: what may be shown of a poll that the file has, or not, and the store has, or not.
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

    /// Of what adds up the votes of several polls, as figures of queues do: all or nothing. One poll that is withheld
    /// withholds them, since whoever knows the sum and the figures of the others knows its figures, too. The polls are
    /// those that the file, the store, or anything in the books names.
    #[must_use]
    pub fn of_sums(polls: &Polls, books: &Books) -> Self {
        let in_file = polls.iter().map(|poll| poll.slug.as_str());
        let registered = books.polls.iter().map(|poll| poll.slug.as_str());
        let in_queues =
            books.queues.iter().flat_map(|queue| queue.accepted.keys().chain(queue.queued.keys()));
        let in_ledger = books.ledger.iter().map(|row| row.entry.poll.as_str());
        let sealed = books.seals.iter().map(|record| record.poll.as_str());
        let set_aside = books.quarantine.iter().map(|total| total.poll.as_str());
        let named: BTreeSet<&str> = in_file
            .chain(registered)
            .chain(in_queues.map(String::as_str))
            .chain(in_ledger)
            .chain(sealed)
            .chain(set_aside)
            .collect();
        let of = |slug: &str| Self::of(polls.get(slug), registered_as(books, slug));
        if named.into_iter().all(|slug| of(slug) == Self::Published) {
            Self::Published
        } else {
            Self::Withheld
        }
    }
}

/// The poll of that name, if the store has it.
pub(crate) fn registered_as<'a>(books: &'a Books, slug: &str) -> Option<&'a RegisteredPoll> {
    books.polls.iter().find(|poll| poll.slug.as_str() == slug)
}

/// Figures that may be published, or the fact that they are withheld, without them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Figures<T> {
    /// The figures.
    Shown(T),
    /// They are withheld until the polls that they are of are final.
    Withheld,
}

impl<T> Figures<T> {
    /// These figures, if that may be known.
    pub(crate) fn disclosed(disclosure: Disclosure, figures: impl FnOnce() -> T) -> Self {
        match disclosure {
            Disclosure::Published => Self::Shown(figures()),
            Disclosure::NothingCounted | Disclosure::Withheld => Self::Withheld,
        }
    }

    /// The figures, unless they are withheld.
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
        queue::Seal,
        store::{LedgerEntry, LedgerRow, QuarantineTotal, QueueRecord, SealRecord},
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
    fn before_a_poll_is_final_the_stricter_of_store_and_file_holds() {
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
    fn a_poll_that_is_final_is_published_whatever_store_and_file_say() {
        for results in BOTH {
            let at = Some(Timestamp::MIN);
            let store = RegisteredPoll { closed_at: at, final_at: at, ..store(results) };
            for file in [None, Some(&file(ResultsFrom::Live)), Some(&file(ResultsFrom::AfterClose))] {
                assert_eq!(Disclosure::of(file, Some(&store)), Disclosure::Published);
            }
        }
    }

    #[test]
    fn what_the_file_or_the_store_does_not_know_is_withheld() {
        for results in BOTH {
            assert_eq!(Disclosure::of(None, Some(&store(results))), Disclosure::Withheld);
        }
        assert_eq!(Disclosure::of(None, None), Disclosure::Withheld);
        assert_eq!(Disclosure::of(Some(&file(ResultsFrom::AfterClose)), None), Disclosure::Withheld);
        assert_eq!(Disclosure::of(Some(&file(ResultsFrom::Live)), None), Disclosure::NothingCounted);
    }

    fn live() -> Books {
        Books { polls: vec![store(ResultsFrom::Live)], ..Books::default() }
    }

    fn of_sums(books: &Books) -> Disclosure {
        Disclosure::of_sums(&Polls::example(), books)
    }

    #[test]
    fn sums_are_published_while_every_poll_is() {
        assert_eq!(of_sums(&live()), Disclosure::Published);
        assert_eq!(
            of_sums(&Books::default()),
            Disclosure::Withheld,
            "the poll of the file is not registered"
        );
        let secret = Books { polls: vec![store(ResultsFrom::AfterClose)], ..Books::default() };
        assert_eq!(of_sums(&secret), Disclosure::Withheld);
    }

    #[test]
    fn a_poll_that_only_the_books_name_withholds_the_sums_wherever_they_name_it() {
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
            Books { polls: vec![store(ResultsFrom::Live), tea], ..live() },
            Books { queues: vec![QueueRecord { accepted: votes(), ..queue.clone() }], ..live() },
            Books { queues: vec![QueueRecord { queued: votes(), ..queue }], ..live() },
            Books { ledger: vec![LedgerRow { partition: Partition(0), entry }], ..live() },
            Books { quarantine: vec![total], ..live() },
            Books { seals: vec![seal], ..live() },
        ];
        for books in cases {
            assert_eq!(of_sums(&books), Disclosure::Withheld, "{books:?}");
        }
    }
}
