//! What the public site shows: every public route is rendered from this and nothing else. Pure.

use vote_core::{
    OptionSlug, Poll, Polls, Timestamp,
    store::{Books, RegisteredPoll},
};

use crate::{disclosure::registered_as, pipeline::Pipeline, snapshot::Snapshot};

/// All figures that the public may see, as of one moment.
///
/// [`new`](Self::new) is the only way to one, and it applies [the rule](crate::disclosure::Disclosure) to each poll:
/// where a poll is withheld, its places hold a variant without numbers. So no route can publish a number by mistake,
/// whatever it does with what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicFigures {
    outcomes: Vec<Snapshot>,
    pipeline: Pipeline,
}

impl PublicFigures {
    /// What may be shown of the books of a store, read at `now`, by a service whose file has these polls.
    #[must_use]
    pub fn new(polls: &Polls, books: &Books, now: Timestamp) -> Self {
        let outcome = |poll: &Poll| {
            let registered = registered_as(books, poll.slug.as_str());
            let tally = registered.map(|registered| tally(books, registered)).unwrap_or_default();
            Snapshot::new(poll, registered, &tally, now)
        };
        Self { outcomes: polls.iter().map(outcome).collect(), pipeline: Pipeline::new(polls, books) }
    }

    /// The outcome of each poll of the file, in its order.
    #[must_use]
    pub fn outcomes(&self) -> &[Snapshot] {
        &self.outcomes
    }

    /// Queues and what is accounted for.
    #[must_use]
    pub const fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Both.
    pub(crate) fn into_parts(self) -> (Vec<Snapshot>, Pipeline) {
        (self.outcomes, self.pipeline)
    }
}

/// The standing votes of a poll by option, with zeros, in the order of registration.
fn tally(books: &Books, poll: &RegisteredPoll) -> Vec<(OptionSlug, u64)> {
    let votes = |option| {
        let rows = books.tally.iter().filter(|row| row.poll == poll.slug && row.option == option);
        u64::try_from(rows.map(|row| row.votes).sum::<i64>()).unwrap_or(0)
    };
    poll.options.iter().map(|option| (*option, votes(*option))).collect()
}

#[cfg(test)]
mod tests {
    use vote_core::{
        Partition, QueueId,
        poll::ResultsFrom,
        store::{LedgerEntry, LedgerRow, QuarantineTotal, QueueRecord, QueueState, TallyRow},
    };

    use super::*;

    fn polls(slug: &str, results: ResultsFrom) -> Polls {
        let text = format!(
            "[[poll]]\nslug = \"{slug}\"\ntitle = \"?\"\nresults = \"{}\"\n\
             options = [{{ slug = \"cats\", label = \"Cats\" }}, {{ slug = \"dogs\", label = \"Dogs\" }}]",
            results.as_str()
        );
        Polls::from_toml("polls.toml", &text).unwrap()
    }

    /// Books in which every figure of `pets` is made of sevens.
    fn books(registered: Option<RegisteredPoll>) -> Books {
        let (queue, poll) = (QueueId([1; 16]), "pets".to_owned());
        let entry = LedgerEntry {
            queue,
            poll: poll.clone(),
            accepted: 7777,
            new_voters: 777,
            superseded: 77,
            quarantined: 6923,
        };
        let record = QueueRecord::new(queue, "redis://1".to_owned(), Timestamp::MIN);
        let votes = || [(poll.clone(), 7777)].into();
        let record = QueueRecord {
            accepted: votes(),
            queued: votes(),
            state: QueueState::Cut,
            reason: "it counts 7777 votes".to_owned(),
            ..record
        };
        let tally = registered.iter().map(|poll| TallyRow {
            poll: poll.slug,
            option: poll.options[0],
            partition: Partition(0),
            votes: 777,
        });
        Books {
            tally: tally.collect(),
            polls: registered.into_iter().collect(),
            queues: vec![record],
            ledger: vec![LedgerRow { partition: Partition(0), entry }],
            quarantine: vec![QuarantineTotal {
                queue,
                partition: Partition(0),
                poll,
                votes: 6923,
                pending: 77,
            }],
            ..Books::default()
        }
    }

    fn registered(results: ResultsFrom) -> RegisteredPoll {
        polls("pets", results).get("pets").map(RegisteredPoll::from).unwrap()
    }

    fn text(polls: &Polls, registered: Option<RegisteredPoll>) -> String {
        format!("{:?}", PublicFigures::new(polls, &books(registered), Timestamp::MIN))
    }

    #[test]
    fn nothing_in_it_is_a_number_of_a_withheld_poll() {
        let (live, secret) = (ResultsFrom::Live, ResultsFrom::AfterClose);
        let cases = [
            (polls("pets", secret), Some(registered(secret))),
            (polls("pets", secret), Some(registered(live))),
            (polls("pets", live), Some(registered(secret))),
            (polls("pets", secret), None),
            (polls("pets", live), None),
            (polls("snack", live), Some(registered(secret))),
            (polls("snack", live), Some(registered(live))),
            (polls("snack", live), None),
        ];
        for (polls, registered) in cases {
            let text = text(&polls, registered);
            assert!(!text.contains("77") && !text.contains("6923"), "{text}");
        }
    }

    #[test]
    fn all_numbers_are_in_it_while_results_are_live_and_once_they_are_final() {
        let at = Some(Timestamp::MIN);
        let final_poll =
            RegisteredPoll { closed_at: at, final_at: at, ..registered(ResultsFrom::AfterClose) };
        for (results, registered) in
            [(ResultsFrom::Live, registered(ResultsFrom::Live)), (ResultsFrom::AfterClose, final_poll)]
        {
            let text = text(&polls("pets", results), Some(registered));
            for number in ["total: 777", "accepted: 7777", "quarantined: 6923", "it counts 7777 votes"] {
                assert!(text.contains(number), "{number} in {text}");
            }
        }
    }

    #[test]
    fn a_final_poll_that_the_file_has_no_more_does_not_withhold_the_figures_of_others() {
        let at = Some(Timestamp::MIN);
        let mut books = books(Some(RegisteredPoll {
            closed_at: at,
            final_at: at,
            ..registered(ResultsFrom::AfterClose)
        }));
        let snack = polls("snack", ResultsFrom::Live);
        books.polls.extend(snack.iter().map(RegisteredPoll::from));
        let figures = PublicFigures::new(&snack, &books, Timestamp::MIN);
        assert!(figures.pipeline().queues[0].figures.shown().is_some(), "{figures:?}");
    }
}
