//! Partitions that a worker should own: an equal share among the workers that reach the most queues. Pure.

use std::collections::{BTreeMap, BTreeSet};

use vote_core::{
    Partition, Partitions, QueueId, Timestamp,
    store::{WorkerId, WorkerRecord},
};

/// Time, in microseconds, within which each of up to six groups of workers owns every partition once, if the groups
/// reach different queues and none reaches more than the others.
const ROUND: i64 = 20_000_000;
/// Shortest turn, in microseconds. A partition changes hands in about a second.
const SHORTEST_TURN: i64 = 3_000_000;

/// What a worker should own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// No partition: another worker reaches all queues that this one reaches, and more.
    Nothing,
    /// An equal share of all partitions for each lane.
    Share {
        /// Number of lanes, of all workers, that share them.
        lanes: u32,
    },
    /// An equal share of the partitions whose turn it is, for each lane.
    Turn {
        /// Number of lanes, of all workers, that share them.
        lanes: u32,
        /// Number of groups of workers that take turns.
        groups: i64,
        /// Remainder that the numbers of these partitions leave when divided by `groups`.
        turn: i64,
    },
}

impl Duty {
    /// Returns the duty of a worker among the live workers, which need not include it, at a time of the store's clock.
    pub(crate) fn of(me: &WorkerRecord, workers: &BTreeMap<WorkerId, WorkerRecord>, at: Timestamp) -> Self {
        let others = workers.values().filter(|worker| worker.id != me.id && worker.lanes > 0);
        let all: Vec<&WorkerRecord> = others.chain([me]).collect();
        let sees_more = |than: &WorkerRecord, worker: &WorkerRecord| {
            worker.unreached.len() < than.unreached.len() && worker.unreached.is_subset(&than.unreached)
        };
        let is_best = |worker: &&WorkerRecord| !all.iter().any(|other| sees_more(worker, other));
        let best: Vec<&WorkerRecord> = all.iter().copied().filter(is_best).collect();
        if !best.iter().any(|worker| worker.id == me.id) {
            return Self::Nothing;
        }
        let groups: BTreeSet<&BTreeSet<QueueId>> = best.iter().map(|worker| &worker.unreached).collect();
        let of_group = best.iter().filter(|worker| worker.unreached == me.unreached);
        let lanes = of_group.map(|worker| worker.lanes).sum::<u32>().max(1);
        if groups.len() == 1 {
            return Self::Share { lanes };
        }
        let ours = groups.iter().position(|group| **group == me.unreached).unwrap_or_default() as i64;
        let count = groups.len() as i64;
        let round = at.as_micros() / (ROUND / count).max(SHORTEST_TURN);
        Self::Turn { lanes, groups: count, turn: (ours + round).rem_euclid(count) }
    }

    /// Returns whether a partition may be owned now.
    pub(crate) fn covers(self, partition: Partition) -> bool {
        match self {
            Self::Nothing => false,
            Self::Share { .. } => true,
            Self::Turn { groups, turn, .. } => i64::from(partition.0) % groups == turn,
        }
    }

    /// Returns the number of partitions that a lane may own.
    pub(crate) fn share(self, partitions: Partitions) -> usize {
        let covered = partitions.iter().filter(|partition| self.covers(*partition)).count();
        match self {
            Self::Nothing => 0,
            Self::Share { lanes } | Self::Turn { lanes, .. } => covered.div_ceil(lanes.max(1) as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: QueueId = QueueId([1; 16]);
    const B: QueueId = QueueId([2; 16]);

    fn worker(id: u8, lanes: u32, unreached: &[QueueId]) -> WorkerRecord {
        WorkerRecord { id: WorkerId([id; 16]), lanes, unreached: unreached.iter().copied().collect() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::MIN.saturating_add(seconds * 1_000_000)
    }

    fn duty(me: usize, workers: &[WorkerRecord], seconds: i64) -> Duty {
        let all = workers.iter().map(|worker| (worker.id, worker.clone())).collect();
        Duty::of(&workers[me], &all, at(seconds))
    }

    #[test]
    fn workers_that_reach_the_same_queues_share_all_partitions() {
        let workers = [worker(1, 2, &[]), worker(2, 4, &[])];
        assert_eq!(duty(0, &workers, 0), Duty::Share { lanes: 6 });
        let partitions = Partitions::default();
        assert_eq!(duty(0, &workers, 0).share(partitions), 3);
        let blind = [worker(1, 2, &[A]), worker(2, 4, &[A])];
        assert_eq!(
            duty(1, &blind, 0),
            Duty::Share { lanes: 6 },
            "a queue that none of them reaches makes no difference"
        );
    }

    #[test]
    fn shares_cover_all_partitions() {
        let partitions = Partitions::default();
        for lanes in 1..40 {
            assert!(Duty::Share { lanes }.share(partitions) * lanes as usize >= 16);
        }
    }

    #[test]
    fn a_worker_leaves_its_partitions_to_workers_that_reach_more() {
        let workers = [worker(1, 2, &[B]), worker(2, 2, &[]), worker(3, 2, &[])];
        assert_eq!(duty(0, &workers, 0), Duty::Nothing);
        assert_eq!(duty(1, &workers, 0), Duty::Share { lanes: 4 }, "the lanes of that worker do not count");
    }

    #[test]
    fn a_lone_worker_owns_all_partitions_whatever_it_reaches() {
        assert_eq!(duty(0, &[worker(1, 2, &[A, B])], 0), Duty::Share { lanes: 2 });
        let unlisted = Duty::of(&worker(1, 2, &[]), &BTreeMap::new(), at(0));
        assert_eq!(unlisted, Duty::Share { lanes: 2 }, "also before its first heartbeat is recorded");
    }

    #[test]
    fn a_worker_that_is_about_to_end_does_not_count() {
        let workers = [worker(1, 2, &[]), worker(2, 0, &[])];
        assert_eq!(duty(0, &workers, 0), Duty::Share { lanes: 2 });
        let workers = [worker(1, 2, &[A]), worker(2, 0, &[])];
        assert_eq!(
            duty(0, &workers, 0),
            Duty::Share { lanes: 2 },
            "the queues that it reaches do not count either"
        );
    }

    #[test]
    fn if_workers_reach_different_queues_every_partition_goes_round_all_of_them() {
        let workers = [worker(1, 1, &[A]), worker(2, 1, &[B])];
        for partition in Partitions::default().iter() {
            let mut owners = BTreeSet::new();
            for seconds in 0..20 {
                let covering: Vec<usize> =
                    (0..2).filter(|n| duty(*n, &workers, seconds).covers(partition)).collect();
                assert_eq!(covering.len(), 1, "one owner at a time");
                owners.extend(covering);
            }
            assert_eq!(owners.len(), 2, "both within 20 s");
        }
        assert_eq!(duty(0, &workers, 0).share(Partitions::default()), 8);
    }
}
