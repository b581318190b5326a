//! Check of the polls during a run: none is closed before its time, a closed one stays closed, and a final tally does
//! not change. Pure: no I/O, no clock.

use std::collections::BTreeMap;

use vote_core::store::MAX_CLOCK_DIFFERENCE;

use crate::clocks::History;

/// State of a poll in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PollState {
    pub(crate) poll: String,
    pub(crate) is_closed: bool,
    pub(crate) is_final: bool,
    /// The tally as text, since it is only checked for changes.
    pub(crate) tally: String,
}

/// Time at which a poll may be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// From this time on, in microseconds since 1970.
    At(i64),
    /// After the operator has run the command that closes it.
    ByHand,
}

/// Watch over the states of all polls.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    due: BTreeMap<String, Due>,
    closed: BTreeMap<String, PollState>,
    /// First final tally of each poll.
    finals: BTreeMap<String, String>,
    /// Violations found so far.
    pub(crate) failures: Vec<String>,
}

impl Watch {
    /// Creates a watch over these polls, with the times at which they may be closed. Other polls must not be closed.
    pub(crate) fn new(due: impl IntoIterator<Item = (String, Due)>) -> Self {
        Self { due: due.into_iter().collect(), ..Self::default() }
    }

    /// Records that the store was rolled back: closed polls may be open again, but final ones must become final again
    /// with the same tally.
    pub(crate) fn store_was_set_back(&mut self) {
        self.closed.clear();
    }

    pub(crate) fn is_closed(&self, poll: &str) -> bool {
        self.closed.contains_key(poll)
    }

    pub(crate) fn is_final(&self, poll: &str) -> bool {
        self.closed.get(poll).is_some_and(|state| state.is_final)
    }

    /// Checks the states of the polls in the store. `now` is the right time after they were read, `clock` the history
    /// of the store's clock, and `ordered` tells whether the command to close a poll by hand was started.
    pub(crate) fn look(&mut self, polls: &[PollState], now: i64, clock: &History, ordered: bool) {
        // Workers deliberately tolerate this difference to the store's clock.
        let tolerated = i64::try_from(MAX_CLOCK_DIFFERENCE.as_micros()).unwrap_or(i64::MAX);
        let by_the_store = clock.latest_within(tolerated, now);
        for state in polls {
            let poll = &state.poll;
            let before = self.closed.get(poll);
            if before.is_some_and(|before| !state.is_closed || before.is_final && !state.is_final) {
                self.failures.push(format!("poll {poll} was closed or final and no longer is"));
            }
            if !state.is_closed {
                continue;
            }
            let may_be = match self.due.get(poll) {
                Some(Due::At(due)) => by_the_store >= *due,
                Some(Due::ByHand) => ordered,
                None => false,
            };
            if before.is_none() && !may_be {
                self.failures
                    .push(format!("poll {poll} was closed before its time: {:?}", self.due.get(poll)));
            }
            if state.is_final {
                let first = self.finals.entry(poll.clone()).or_insert_with(|| state.tally.clone());
                if *first != state.tally {
                    let (first, tally) = (&first, &state.tally);
                    self.failures
                        .push(format!("the final tally of poll {poll} changed from {first:?} to {tally:?}"));
                }
            }
            self.closed.insert(poll.clone(), state.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn state(poll: &str, closed: bool, is_final: bool, tally: &str) -> PollState {
        PollState { poll: poll.to_owned(), is_closed: closed, is_final, tally: tally.to_owned() }
    }

    fn watch(due: Due) -> Watch {
        Watch::new([("pets".to_owned(), due)])
    }

    /// Returns the number of violations after this state is read at this second.
    fn failures(watch: &mut Watch, second: i64, ordered: bool, state: PollState) -> usize {
        watch.look(&[state], second * SECOND, &History::default(), ordered);
        watch.failures.len()
    }

    #[test]
    fn a_poll_closed_before_its_time_is_a_violation() {
        let closed = || state("pets", true, false, "");
        let due = Due::At(100 * SECOND);
        assert_eq!(failures(&mut watch(due), 99, false, closed()), 1);
        assert_eq!(failures(&mut watch(due), 100, false, closed()), 0);
        assert_eq!(failures(&mut watch(due), 99, false, state("pets", false, false, "")), 0);
        assert_eq!(failures(&mut watch(Due::ByHand), 99, false, closed()), 1);
        assert_eq!(failures(&mut watch(Due::ByHand), 99, true, closed()), 0);
        assert_eq!(failures(&mut watch(due), 999, true, state("snack", true, false, "")), 1, "unknown poll");
    }

    #[test]
    fn a_poll_may_be_closed_early_only_if_the_clock_of_the_store_is_within_tolerance() {
        let ahead = |seconds: i64| {
            let mut clock = History::default();
            clock.step(0, 0, seconds);
            clock.step(80 * SECOND, 80 * SECOND, 0);
            let mut watch = watch(Due::At(100 * SECOND));
            watch.look(&[state("pets", true, false, "")], 85 * SECOND, &clock, false);
            watch.failures.len()
        };
        assert_eq!((ahead(25), ahead(10), ahead(600)), (0, 1, 1));
    }

    #[test]
    fn a_closed_or_final_poll_stays_so_unless_the_store_is_rolled_back() {
        let steps = |rolled_back: bool, first: PollState, then: PollState| {
            let mut watch = watch(Due::ByHand);
            failures(&mut watch, 1, true, first);
            if rolled_back {
                watch.store_was_set_back();
            }
            failures(&mut watch, 2, true, then)
        };
        let (open, closed) = (state("pets", false, false, "a=1"), state("pets", true, false, "a=1"));
        let last = state("pets", true, true, "a=1");
        assert_eq!(steps(false, closed.clone(), open.clone()), 1);
        assert_eq!(steps(false, last.clone(), closed.clone()), 1);
        assert_eq!(steps(true, last.clone(), open), 0);
        assert_eq!(steps(false, closed, last), 0);
    }

    #[test]
    fn a_changed_final_tally_is_a_violation_even_after_a_rollback_of_the_store() {
        for rolled_back in [false, true] {
            let mut watch = watch(Due::ByHand);
            assert_eq!(failures(&mut watch, 1, true, state("pets", true, true, "a=1")), 0);
            assert!(watch.is_final("pets"));
            if rolled_back {
                watch.store_was_set_back();
            }
            assert_eq!(failures(&mut watch, 2, true, state("pets", true, true, "a=2")), 1);
        }
    }
}
