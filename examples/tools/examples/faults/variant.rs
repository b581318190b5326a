//! Differences between runs as a whole: how the third poll is closed, and whether the store may be rolled back.

use std::time::Duration;

use clap::ValueEnum;
use vote_core::Timestamp;

use crate::{
    electorate::{CLOSING, Times},
    fault::Kind,
    operator::Order,
};

/// Seconds for which queues keep committed entries in a run in which the store is rolled back. Longer than the age of
/// the state to which it is rolled back, and longer than it may be unavailable.
pub(crate) const TRIM_DELAY: &str = "120";
/// Time from the start of the processes until votes are cast.
const START: Duration = Duration::from_secs(8);
/// Time from the end of the run until the closing time of the poll that stays open. A clock that is ten minutes ahead
/// passes it.
const AFTERWARDS: Duration = Duration::from_secs(120);

/// Properties of a whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) closing: Closing,
    /// Whether Postgres is rolled back to older states, and queues keep committed entries.
    pub(crate) rolls_back: bool,
}

/// How the third poll is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// By `vote-worker polls close`.
    ByHand,
    /// By its `closes_at`.
    ByTime,
    /// By a time that `vote-worker polls reschedule` set.
    Rescheduled,
}

impl Closing {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ByHand => "by-hand",
            Self::ByTime => "by-time",
            Self::Rescheduled => "rescheduled",
        }
    }
}

/// Closing times of the polls in a run, and the operator's commands.
#[derive(Debug, Clone)]
pub(crate) struct Calendar {
    pub(crate) times: Times,
    pub(crate) orders: Vec<Order>,
    /// Time from which the third poll may be closed; `None` if it is closed by hand.
    pub(crate) due: Option<Timestamp>,
}

impl Variant {
    /// Returns the variant of a seed. If kinds of faults are given, they determine whether the store is rolled back.
    pub(crate) fn of(seed: u64, only: &[Kind]) -> Self {
        let closing = match seed % 3 {
            0 => Closing::ByTime,
            1 => Closing::ByHand,
            _ => Closing::Rescheduled,
        };
        let rolls_back =
            if only.is_empty() { seed.is_multiple_of(2) } else { only.contains(&Kind::RollBackPostgres) };
        Self { closing, rolls_back }
    }

    /// Returns the kinds of faults of the run.
    pub(crate) fn kinds(self, only: &[Kind]) -> Vec<Kind> {
        let all = if only.is_empty() { Kind::value_variants() } else { only };
        all.iter().copied().filter(|kind| self.rolls_back || *kind != Kind::RollBackPostgres).collect()
    }

    /// Returns the calendar of a run whose processes are started at `now`.
    pub(crate) fn calendar(self, now: Timestamp, duration: Duration, drain: Duration) -> Calendar {
        let after = |span: Duration| {
            now.saturating_add(i64::try_from((START + span).as_micros()).unwrap_or(i64::MAX))
        };
        let open = after(duration + drain + AFTERWARDS);
        let half = after(duration / 2);
        let order = |at: Duration, arguments: &[&str]| Order {
            at,
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        };
        let (closing, orders, due) = match self.closing {
            Closing::ByTime => (half, vec![], Some(half)),
            Closing::ByHand => (open, vec![order(duration / 2, &["polls", "close", CLOSING])], None),
            Closing::Rescheduled => {
                let to = half.to_string();
                let arguments = [
                    "polls",
                    "reschedule",
                    CLOSING,
                    "--closes-at",
                    &to,
                    "--reason",
                    "the broadcast is short",
                ];
                (open, vec![order(duration / 4, &arguments)], Some(half))
            }
        };
        Calendar { times: Times { open, closing }, orders, due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_rolled_back_only_if_queues_keep_committed_entries() {
        for seed in 0..10 {
            let variant = Variant::of(seed, &[]);
            assert_eq!(variant.kinds(&[]).contains(&Kind::RollBackPostgres), variant.rolls_back);
        }
        assert!(Variant::of(1, &[Kind::RollBackPostgres]).rolls_back);
        assert!(!Variant::of(2, &[Kind::KillWorker]).rolls_back);
    }

    #[test]
    fn every_way_to_close_a_poll_comes_with_and_without_rollbacks_of_the_store() {
        let variants: Vec<_> = (0..6).map(|seed| Variant::of(seed, &[])).collect();
        for (n, variant) in variants.iter().enumerate() {
            assert!(!variants[..n].contains(variant));
        }
    }

    #[test]
    fn one_poll_closes_halfway_and_the_other_after_the_run() {
        let (now, minute) = (Timestamp::MIN, Duration::from_secs(60));
        for seed in 0..3 {
            let Calendar { times, orders, due } = Variant::of(seed, &[]).calendar(now, minute, minute);
            assert_eq!(times.open, now.saturating_add(248_000_000));
            assert!(orders.iter().all(|order| order.at <= minute / 2));
            let half = now.saturating_add(38_000_000);
            assert!(due.is_none_or(|due| due == half) && (due.is_some() || !orders.is_empty()));
        }
    }
}
