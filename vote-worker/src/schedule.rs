//! Choice of the partition to commit next. Pure.

use std::time::Duration;

use tokio::time::Instant;
use vote_core::Partition;

/// Number of votes at which a batch is committed: enough that what a commit costs besides its votes is less than a
/// twentieth. With a backlog it is larger, since a partition is read further while the lane commits others.
pub const BATCH_VOTES: u64 = 20_000;
/// Number of votes in the largest batches.
pub const MAX_BATCH_VOTES: u64 = 8 * BATCH_VOTES;
/// Time that a commit should not exceed. A lane that is silent for 5 s no longer counts as live, and after 10 s another
/// one ends its session.
pub const MAX_COMMIT: Duration = Duration::from_secs(2);
/// Time after which a batch is committed, from the reading of its first vote, however small the batch is.
pub const FILL_TIME: Duration = Duration::from_millis(250);
/// Minimum time between two commits of a partition whose batches are small: with votes all the time, they come once a
/// second, and after a quiet second [`FILL_TIME`] alone delays a vote. At 5,000 votes per second, in 16 partitions, this
/// saves a sixth of the CPU time of workers and Postgres.
pub const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Time after which a batch takes precedence over larger ones.
pub const MAX_WAIT: Duration = Duration::from_secs(2);

/// Votes of a partition that were read and wait to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The partition.
    pub partition: Partition,
    /// Number of votes.
    pub votes: u64,
    /// When the first of them was read.
    pub since: Instant,
    /// When votes of the partition were committed last.
    pub committed: Option<Instant>,
}

impl Waiting {
    /// Returns when the votes are to be committed even if no more are read.
    fn ready_at(&self) -> Instant {
        let filled = self.since + FILL_TIME;
        self.committed.map_or(filled, |committed| filled.max(committed + COMMIT_EVERY))
    }
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
#[must_use]
pub fn next(waiting: impl Iterator<Item = Waiting> + Clone, now: Instant) -> Next {
    let age = |w: &Waiting| now.saturating_duration_since(w.since);
    let overdue = waiting.clone().filter(|w| age(w) >= MAX_WAIT).min_by_key(|w| w.since);
    let ready =
        || waiting.clone().filter(|w| w.votes >= BATCH_VOTES || w.ready_at() <= now).max_by_key(|w| w.votes);
    if let Some(chosen) = overdue.or_else(ready) {
        return Next::Commit(chosen.partition);
    }
    waiting.map(|w| w.ready_at()).min().map_or(Next::Idle, Next::WaitUntil)
}

/// Returns up to how many votes the next batches may have, after a commit of this number of votes: twice as many as before
/// if those would take no longer than [`MAX_COMMIT`], half if this one took longer. A session begins with [`BATCH_VOTES`],
/// so a lane whose commits fail makes small ones.
#[must_use]
pub fn next_limit(limit: u64, votes: u64, took: Duration) -> u64 {
    if took > MAX_COMMIT {
        (limit / 2).max(BATCH_VOTES)
    } else if votes > limit / 2 && took.mul_f64((limit * 2) as f64 / votes as f64) <= MAX_COMMIT {
        (limit * 2).min(MAX_BATCH_VOTES)
    } else {
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(partition: u16, votes: u64, age_ms: u64, now: Instant) -> Waiting {
        let since = now - Duration::from_millis(age_ms);
        Waiting { partition: Partition(partition), votes, since, committed: None }
    }

    fn chosen(now: Instant, all: &[Waiting]) -> Next {
        next(all.iter().copied(), now)
    }

    #[test]
    fn the_ready_partition_with_the_most_votes_goes_first() {
        let now = Instant::now();
        let all = [waiting(0, 10, 300, now), waiting(1, 30_000, 1, now), waiting(2, 500, 300, now)];
        assert_eq!(chosen(now, &all), Next::Commit(Partition(1)));
    }

    #[test]
    fn no_partition_waits_longer_than_two_seconds_for_larger_ones() {
        let now = Instant::now();
        let all = [waiting(0, 1, 2001, now), waiting(1, 30_000, 1900, now), waiting(2, 1, 2500, now)];
        assert_eq!(chosen(now, &all), Next::Commit(Partition(2)));
    }

    #[test]
    fn batches_grow_as_long_as_commits_are_fast() {
        let after = |limit, votes, ms| next_limit(limit, votes, Duration::from_millis(ms));
        assert_eq!(after(20_000, 20_000, 100), 40_000);
        assert_eq!(after(160_000, 160_000, 100), 160_000);
        assert_eq!(after(20_000, 5_000, 100), 20_000, "a small batch does not show how fast a large one is");
        assert_eq!(after(80_000, 80_000, 1_500), 80_000);
        assert_eq!(after(80_000, 45_000, 900), 80_000, "160,000 would take 3.2 s");
        assert_eq!(after(80_000, 80_000, 2_500), 40_000);
        assert_eq!(after(20_000, 100, 9_000), 20_000);
    }

    #[test]
    fn a_small_batch_of_a_partition_is_committed_once_a_second() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let of = |votes, since| {
            [Waiting { partition: Partition(1), votes, since: at(since), committed: Some(start) }]
        };
        assert_eq!(chosen(at(500), &of(10, 100)), Next::WaitUntil(at(1_000)));
        assert_eq!(chosen(at(1_000), &of(10, 100)), Next::Commit(Partition(1)));
        assert_eq!(chosen(at(500), &of(BATCH_VOTES, 100)), Next::Commit(Partition(1)), "a full batch");
        assert_eq!(chosen(at(5_000), &of(10, 5_000)), Next::WaitUntil(at(5_250)), "after a quiet time");
    }

    #[test]
    fn a_small_young_batch_gets_time_to_fill() {
        let now = Instant::now();
        let all = [waiting(0, 10, 100, now), waiting(1, 10, 50, now)];
        assert_eq!(chosen(now, &all), Next::WaitUntil(now + Duration::from_millis(150)));
        assert_eq!(chosen(now, &[]), Next::Idle);
    }
}
