//! Load: how often a pipeline of some size does what, and the CPU time that takes. Pure.

use serde::Serialize;
use vote_core::writer::{ENOUGH, FLUSH_EVERY};

use super::{Costs, costs::Unit};
use crate::{
    grouped, monitor,
    schedule::{BATCH_VOTES, COMMIT_EVERY, FILL_TIME},
    trim::TRIM_EVERY,
};

/// Requests of a frontend for the status of its queue per second.
const FRONTEND_STATUSES: f64 = 0.5;
/// Reports of a queue per second by its reporter, each with a status and a count of the backlog.
pub(super) const REPORTS: f64 = 0.5;
/// Reads of the catalog of one worker per second.
pub(super) const CATALOGS: f64 = 1.0;
/// Mean time by which tokio's timer, which counts milliseconds, is late.
const TIMER_SECONDS: f64 = 0.0005;
/// Reads of a partition of a queue per second that only verify.
const VERIFICATIONS: f64 = 0.2;

/// Size and load of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shape {
    /// Number of frontends, each with a queue.
    pub queues: f64,
    /// Number of workers.
    pub workers: f64,
    /// Number of lanes of all workers.
    pub lanes: f64,
    /// Number of partitions.
    pub partitions: f64,
    /// Number of polls that take votes.
    pub polls: f64,
    /// Votes per second over all frontends.
    pub rate: f64,
}

/// What all processes of a pipeline do per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    /// Flushes of frontends.
    pub flushes: f64,
    /// Frames in them, which are the entries of queues.
    pub entries: f64,
    /// Looks of workers at queues.
    pub looks: f64,
    /// Requests for the status of queues.
    pub statuses: f64,
    /// Reads from queues.
    pub reads: f64,
    /// Commits.
    pub commits: f64,
    /// Queues and polls in them.
    pub commit_queues: f64,
    /// Trims: one for each queue in a commit, at most one a second for each queue and partition.
    pub trims: f64,
    /// Reports of queues to the store.
    pub reports: f64,
    /// Calls to the store that make them.
    pub report_calls: f64,
    /// Reads of the catalog.
    pub catalogs: f64,
}

/// Returns the seconds from the answer to a look of a worker at a queue until the next.
pub(super) fn look_every(queues: f64, workers: f64) -> f64 {
    monitor::look_every(queues as usize, workers as usize).as_secs_f64()
}

/// Share of happenings at a mean rate that see at least one within a time: those of a Poisson process.
fn at_least_one(mean: f64) -> f64 {
    -(-mean).exp_m1()
}

impl Rates {
    /// Computes the rates of a pipeline in a steady state.
    #[must_use]
    pub fn of(shape: &Shape, costs: &Costs) -> Self {
        let Shape { queues, workers, lanes, partitions, polls, rate } = *shape;
        let flushes = queues * flushes(rate / queues, costs.flush_seconds);
        // Votes of a flush for the same partition and poll share a frame.
        let frames = partitions * polls;
        let votes_of_flush = if flushes > 0.0 { rate / flushes } else { 0.0 };
        let entries = flushes * frames * -((votes_of_flush * (-1.0 / frames).ln_1p()).exp_m1());
        let pairs = queues * partitions;
        let of_pair = entries / pairs;
        // A look begins some time after the answer to the one before. A read follows if it shows something new.
        let looks = 1.0 / (look_every(queues, workers) + costs.look_seconds);
        let verified = VERIFICATIONS * (-of_pair / VERIFICATIONS).exp();
        let reads = pairs * (looks * at_least_one(of_pair / looks) + verified);
        // A look shows the first vote of a batch.
        let fill = FILL_TIME.as_secs_f64() + look_every(queues, workers) / 2.0;
        // A commit follows a second after the last one, or later if no vote comes in time.
        let (every, gap) = (COMMIT_EVERY.as_secs_f64(), partitions / entries.max(f64::MIN_POSITIVE));
        let later = gap * (-(every - fill).max(0.0) / gap).exp();
        let interval = every.max(fill) + later + costs.commit_seconds;
        // A lane does one commit at a time. If all are busy, batches grow.
        let commits =
            (partitions / interval).min(lanes / costs.commit_seconds).max(rate / BATCH_VOTES as f64);
        let between = partitions / commits.max(f64::MIN_POSITIVE);
        Self {
            flushes,
            entries,
            looks: queues * workers * looks,
            statuses: queues * (REPORTS + FRONTEND_STATUSES),
            reads,
            commits,
            commit_queues: commits * queues * polls * at_least_one(of_pair / polls * between),
            trims: (commits * queues * at_least_one(of_pair * between)).min(pairs / TRIM_EVERY.as_secs_f64()),
            reports: queues * REPORTS,
            report_calls: report_calls(queues, workers),
            catalogs: workers * CATALOGS,
        }
    }
}

/// Returns the calls of all workers per second that report queues. Those at about the same time share one.
pub(super) fn report_calls(queues: f64, workers: f64) -> f64 {
    let longest = grouped::interval(queues as usize).as_secs_f64();
    (queues * REPORTS).min(workers / longest.max(f64::MIN_POSITIVE))
}

/// Returns the flushes per second of a frontend. Votes that arrive during a flush, or until [`FLUSH_EVERY`] has passed
/// since it began or [`ENOUGH`] wait, form the next one; if there are none, the next vote begins one.
fn flushes(rate: f64, flush_seconds: f64) -> f64 {
    if rate <= 0.0 {
        return 0.0;
    }
    let every = flush_seconds.max((FLUSH_EVERY.as_secs_f64() + TIMER_SECONDS).min(ENOUGH as f64 / rate));
    let pause = (-rate * every).exp() / rate;
    1.0 / (every + pause)
}

/// CPU time per second, in cores, of all processes of a kind together.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Cores {
    /// Frontends.
    pub frontends: f64,
    /// Redis servers.
    pub redis: f64,
    /// Workers.
    pub workers: f64,
    /// Postgres.
    pub postgres: f64,
}

impl Cores {
    /// Computes the CPU time of a pipeline. `pages` is the number of requests of a voter besides the vote itself.
    #[must_use]
    pub fn of(shape: &Shape, pages: f64, costs: &Costs) -> Self {
        let rates = Rates::of(shape, costs);
        let Shape { queues, workers, partitions, polls, rate, .. } = *shape;
        let appended = [(costs.flush, rates.flushes), (costs.frame, rates.entries), (costs.frame_vote, rate)];
        // A look asks for the partitions that the worker owns.
        let owned = partitions / workers;
        let look = costs.look.plus(costs.look_partition, owned).plus(costs.look_count, owned * polls);
        let status = costs
            .status
            .plus(costs.status_partition, partitions)
            .plus(costs.status_count, partitions * polls);
        let asked = [
            (look, rates.looks),
            (status, rates.reports),
            (costs.read, rates.reads),
            (costs.read_entry, rates.entries),
            (costs.trim, rates.trims),
            (costs.backlog.plus(costs.backlog_partition, partitions), rates.reports),
        ];
        let stored = [
            (costs.commit, rates.commits),
            (costs.vote, rate),
            (costs.entry, rates.entries),
            (costs.commit_queue, rates.commit_queues),
            (costs.report_call, rates.report_calls),
            (costs.report.plus(costs.report_partition, partitions), rates.reports),
            (costs.catalog.plus(costs.catalog_queue, queues), rates.catalogs),
        ];
        let client = |of: &[(Unit, f64)]| of.iter().map(|(unit, n)| unit.client * n).sum::<f64>() / 1e6;
        let server = |of: &[(Unit, f64)]| of.iter().map(|(unit, n)| unit.server * n).sum::<f64>() / 1e6;
        let watched = [(status, queues * FRONTEND_STATUSES)];
        let requests = [(costs.request, rate), (costs.page, rate * pages)];
        let redis = server(&appended) + server(&asked) + server(&watched);
        // A call that finds its Redis idle has to wake it. In the cost of a flush, that is included.
        let calls = rates.looks + rates.statuses + rates.reads + rates.trims + rates.reports;
        let idle = (1.0 - redis / queues).max(0.0);
        Self {
            frontends: client(&requests) + client(&appended) + client(&watched),
            redis: redis + calls * idle * costs.wake.server / 1e6,
            workers: client(&asked) + client(&stored),
            postgres: server(&stored),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { queues: 10.0, workers: 2.0, lanes: 4.0, partitions: 16.0, polls: 1.0, rate: 5000.0 };

    #[test]
    fn a_flush_holds_the_votes_that_arrive_during_the_one_before() {
        let costs = Costs { flush_seconds: 0.01, ..Costs::MEASURED };
        let rates = Rates::of(&SHAPE, &costs);
        // 500 votes/s for each frontend: on average 5 during a flush, so hardly any pause.
        assert!((rates.flushes - 1000.0).abs() < 20.0, "{rates:?}");
        assert!(rates.entries > rates.flushes && rates.entries < SHAPE.rate, "{rates:?}");
    }

    #[test]
    fn without_votes_nothing_is_flushed_or_committed() {
        let rates = Rates::of(&Shape { rate: 0.0, ..SHAPE }, &Costs::MEASURED);
        assert_eq!((rates.flushes, rates.entries), (0.0, 0.0));
        assert!(rates.commits < 1e-9, "{rates:?}");
        assert!(rates.looks > 0.0 && rates.reads > 0.0 && rates.reports > 0.0, "{rates:?}");
    }

    #[test]
    fn busy_lanes_make_larger_batches() {
        let costs = Costs { commit_seconds: 0.5, ..Costs::MEASURED };
        assert_eq!(Rates::of(&SHAPE, &costs).commits, SHAPE.lanes / 0.5);
    }

    #[test]
    fn no_more_queues_are_in_a_commit_than_there_are() {
        let rates = Rates::of(&Shape { rate: 1e6, ..SHAPE }, &Costs::MEASURED);
        assert!(rates.commit_queues <= rates.commits * SHAPE.queues * SHAPE.polls + 1e-6, "{rates:?}");
        assert!(rates.commits * BATCH_VOTES as f64 >= 1e6 - 1.0, "{rates:?}");
    }

    #[test]
    fn more_votes_take_more_of_everything() {
        let [less, more] =
            [1000.0, 50_000.0].map(|rate| Cores::of(&Shape { rate, ..SHAPE }, 2.0, &Costs::MEASURED));
        assert!(more.frontends > less.frontends && more.redis > less.redis, "{less:?} {more:?}");
        assert!(more.workers > less.workers && more.postgres > less.postgres, "{less:?} {more:?}");
    }
}
