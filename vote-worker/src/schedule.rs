//! Choice of the partition to commit next. Pure.

use std::time::Duration;

use tokio::time::Instant;
use vote_core::Partition;

/// Number of votes at which a batch is committed: a larger batch is hardly faster (see `docs/performance.md`), and an
/// error would undo more work.
pub const BATCH_VOTES: u64 = 20_000;
/// Time after which a batch is committed, from the reading of its first vote, however small the batch is.
pub const FILL_TIME: Duration = Duration::from_millis(250);
/// Minimum time from the beginning of one commit of a lane to the next, except for batches that are full or have waited
/// too long. A commit costs Postgres about a millisecond of CPU however small it is (see `docs/capacity.md`), so a lane with
/// several partitions fills their batches for longer than [`FILL_TIME`].
pub const COMMIT_EVERY: Duration = Duration::from_millis(250);
/// Time after which a batch takes precedence over larger ones, and over [`COMMIT_EVERY`].
pub const MAX_WAIT: Duration = Duration::from_secs(1);

/// Votes of a partition that were read and wait to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The partition.
    pub partition: Partition,
    /// Number of votes.
    pub votes: u64,
    /// When the first of them was read.
    pub since: Instant,
}

/// What a lane is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Commit this partition.
    Commit(Partition),
    /// Nothing is ready before this time.
    WaitUntil(Instant),
    /// Nothing waits to be committed.
    Idle,
}

/// Returns the ready partition with the most votes, or the one that has waited longest if that is too long.
/// `last_commit` is when the lane's last commit began.
#[must_use]
pub fn next(waiting: impl Iterator<Item = Waiting> + Clone, now: Instant, last_commit: Instant) -> Next {
    let ready_at = |w: Waiting| match w.votes {
        BATCH_VOTES.. => w.since,
        _ => (w.since + FILL_TIME).max(last_commit + COMMIT_EVERY).min(w.since + MAX_WAIT),
    };
    let overdue = waiting.clone().filter(|w| now >= w.since + MAX_WAIT).min_by_key(|w| w.since);
    let ready = || waiting.clone().filter(|w| now >= ready_at(*w)).max_by_key(|w| w.votes);
    if let Some(chosen) = overdue.or_else(ready) {
        return Next::Commit(chosen.partition);
    }
    waiting.map(ready_at).min().map_or(Next::Idle, Next::WaitUntil)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(partition: u16, votes: u64, age_ms: u64, now: Instant) -> Waiting {
        Waiting { partition: Partition(partition), votes, since: now - Duration::from_millis(age_ms) }
    }

    /// The choice of a lane that has not committed for a while.
    fn chosen(now: Instant, all: &[Waiting]) -> Next {
        next(all.iter().copied(), now, now - COMMIT_EVERY)
    }

    #[test]
    fn the_ready_partition_with_the_most_votes_goes_first() {
        let now = Instant::now();
        let all = [waiting(0, 10, 300, now), waiting(1, 30_000, 1, now), waiting(2, 500, 300, now)];
        assert_eq!(chosen(now, &all), Next::Commit(Partition(1)));
    }

    #[test]
    fn no_partition_waits_longer_than_a_second_for_larger_ones() {
        let now = Instant::now();
        let all = [waiting(0, 1, 1001, now), waiting(1, 30_000, 900, now), waiting(2, 1, 1500, now)];
        assert_eq!(chosen(now, &all), Next::Commit(Partition(2)));
    }

    #[test]
    fn a_small_young_batch_gets_time_to_fill() {
        let now = Instant::now();
        let all = [waiting(0, 10, 100, now), waiting(1, 10, 50, now)];
        assert_eq!(chosen(now, &all), Next::WaitUntil(now + Duration::from_millis(150)));
        assert_eq!(chosen(now, &[]), Next::Idle);
    }

    #[test]
    fn small_batches_are_committed_at_intervals_but_none_waits_for_a_second() {
        let (now, ms) = (Instant::now(), Duration::from_millis);
        let after = |all: &[Waiting]| next(all.iter().copied(), now, now - ms(190));
        assert_eq!(after(&[waiting(0, 10, 300, now)]), Next::WaitUntil(now + ms(60)));
        assert_eq!(after(&[waiting(0, 10, 980, now)]), Next::WaitUntil(now + ms(20)));
        assert_eq!(after(&[waiting(0, 10, 1000, now)]), Next::Commit(Partition(0)));
        let full = waiting(1, BATCH_VOTES, 1, now);
        assert_eq!(after(&[waiting(0, 10, 300, now), full]), Next::Commit(Partition(1)));
    }
}
