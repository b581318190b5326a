//! The figures of the public site: every public route is rendered only from them. Pure.

use vote_core::{
    Polls,
    count::{Balances, Summary},
};

use crate::{pipeline::Pipeline, snapshot::Snapshot};

/// All figures that the public may see, from one snapshot of the store.
///
/// [`new`](Self::new) is the only constructor, and it applies [the rule](crate::disclosure::Disclosure) to each poll. A
/// withheld poll is represented by variants without numbers, so no route can publish one by mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicFigures {
    outcomes: Vec<Snapshot>,
    pipeline: Pipeline,
}

impl PublicFigures {
    /// Derives the public figures from a summary of the store, its balances, and the polls of the file.
    #[must_use]
    pub fn new(polls: &Polls, summary: &Summary, balances: &Balances) -> Self {
        let outcomes = polls.iter().map(|poll| Snapshot::new(poll, summary.poll(poll.slug.as_str())));
        Self { outcomes: outcomes.collect(), pipeline: Pipeline::new(polls, summary, balances) }
    }

    /// The outcome of each poll of the file, in the order of the file.
    #[must_use]
    pub fn outcomes(&self) -> &[Snapshot] {
        &self.outcomes
    }

    /// The state of all queues, and the accounts of all polls.
    #[must_use]
    pub const fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Splits the figures into outcomes and pipeline.
    pub(crate) fn into_parts(self) -> (Vec<Snapshot>, Pipeline) {
        (self.outcomes, self.pipeline)
    }
}

#[cfg(test)]
mod tests {
    use vote_core::{
        Partition, QueueId, Timestamp,
        count::{
            Accounts, LedgerEntry, LedgerRow, QuarantineTotal, QueueRecord, QueueState, RegisteredPoll,
            TallyRow,
        },
        poll::ResultsFrom,
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

    /// Accounts in which every figure of `pets` can be recognized: sevens, or 6923.
    fn accounts(registered: Option<RegisteredPoll>) -> Accounts {
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
            state: QueueState::Diverged,
            reason: "it counts 7777 votes".to_owned(),
            ..record
        };
        let tally = registered.iter().map(|poll| TallyRow {
            poll: poll.slug,
            option: poll.options[0],
            partition: Partition(0),
            votes: 777,
        });
        Accounts {
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
            ..Accounts::default()
        }
    }

    fn registered(results: ResultsFrom) -> RegisteredPoll {
        polls("pets", results).get("pets").map(RegisteredPoll::from).unwrap()
    }

    fn figures(polls: &Polls, accounts: &Accounts) -> PublicFigures {
        PublicFigures::new(polls, &Summary::of(accounts), &Balances::of(accounts))
    }

    fn text(polls: &Polls, registered: Option<RegisteredPoll>) -> String {
        format!("{:?}", figures(polls, &accounts(registered)))
    }

    #[test]
    fn public_figures_contain_no_number_of_a_withheld_poll() {
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
    fn public_figures_contain_all_numbers_of_live_and_of_final_polls() {
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
    fn a_final_poll_that_was_removed_from_the_file_does_not_withhold_the_figures_of_others() {
        let at = Some(Timestamp::MIN);
        let mut accounts = accounts(Some(RegisteredPoll {
            closed_at: at,
            final_at: at,
            ..registered(ResultsFrom::AfterClose)
        }));
        let snack = polls("snack", ResultsFrom::Live);
        accounts.polls.extend(snack.iter().map(RegisteredPoll::from));
        let figures = figures(&snack, &accounts);
        assert!(figures.pipeline().queues[0].figures.shown().is_some(), "{figures:?}");
    }
}
