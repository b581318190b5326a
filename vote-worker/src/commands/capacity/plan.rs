//! The plan: what an event of some size needs. Pure.

use serde::Serialize;

use super::{
    Cores, Costs, Rates, Shape,
    limits::{self, Limit},
};

/// Cores of a node.
pub(super) const NODE_CORES: f64 = 4.0;
/// Highest share of its cores that a process is planned to use: the rest is for peaks and for a node that fails.
pub(super) const UTILIZATION: f64 = 0.6;
/// Lanes of a worker.
pub(super) const LANES: f64 = 2.0;
/// Requests of a voter besides the vote itself: for the form and for the receipt.
pub(super) const PAGES: f64 = 2.0;
/// Bytes of a TLS handshake with a certificate chain of 3 kB, both directions.
const HANDSHAKE_BYTES: f64 = 5000.0;
/// Bytes of the head of a browser's request, with its cookie.
const REQUEST_BYTES: f64 = 700.0;
/// Seconds for which HAProxy keeps a connection without requests, in `haproxy.cfg`. Browsers keep it as long.
pub const KEEP_ALIVE_SECONDS: f64 = 30.0;
/// Connections that a load balancer takes, in `stack.yml`.
pub const BALANCER_CONNECTIONS: f64 = 50_000.0;
/// Memory of a Redis (`maxmemory` in `redis.conf`).
pub(super) const REDIS_MEMORY: f64 = 2_147_483_648.0;
/// Seconds after the end within which the last vote is to be counted.
const DRAIN_SECONDS: f64 = 60.0;

/// Ballots in a table from which on the costs of a vote are those of a large table, as in `docs/performance.md`.
const LARGE_TABLE: f64 = 30e6;
/// CPU time of Postgres that a vote takes in a large table beyond that in an empty one, in microseconds, with batches of
/// 20,000: 4.3 there, as the mean of that between checkpoints and just after one, and 2.1 here (`docs/performance.md`).
const LARGE_TABLE_MICROS: f64 = 4.3 - 2.1;
/// Bytes of WAL for a vote in a large table (`docs/performance.md`).
const LARGE_TABLE_WAL: f64 = 345.0;

/// What is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Demand {
    /// Number of voters, each of whom votes once in each poll.
    pub voters: u64,
    /// Minutes in which they vote.
    pub minutes: f64,
    /// Peak rate, as a multiple of the mean.
    pub peak: f64,
    /// Number of polls that take votes at the same time.
    pub polls: u32,
    /// Number of partitions.
    pub partitions: u16,
}

/// What a vote needs. Bytes are bytes, rates are per second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// What is planned for.
    pub demand: Demand,
    /// Votes.
    pub votes: f64,
    /// Votes per second on average.
    pub mean_rate: f64,
    /// Votes per second at the peak.
    pub peak_rate: f64,
    /// Votes per second that workers have to count, so that all are counted a minute after the end.
    pub count_rate: f64,
    /// Nodes with a frontend and a Redis, one of them spare.
    pub frontend_nodes: f64,
    /// Cores of a frontend at the peak, without the spare node.
    pub frontend_cores: f64,
    /// Share of the one core that a Redis can use, at the peak.
    pub redis_cores: f64,
    /// Bytes in each Redis if workers read nothing until the end.
    pub redis_unread_bytes: f64,
    /// Minutes for which each Redis can take votes at the mean rate if workers read nothing.
    pub redis_minutes: f64,
    /// Bytes that each Redis writes to its log.
    pub redis_log_bytes: f64,
    /// Connections of voters that are open at the same time at the peak.
    pub open_connections: f64,
    /// Load balancers at the peak, with keys on the curve P-256.
    pub balancers_ecdsa: f64,
    /// Load balancers at the peak, with RSA keys of 2,048 bits.
    pub balancers_rsa: f64,
    /// Bytes per second of the public network at the peak.
    pub public_bytes: f64,
    /// Workers.
    pub workers: f64,
    /// Lanes of all workers.
    pub lanes: f64,
    /// Cores of all workers.
    pub worker_cores: f64,
    /// Cores of Postgres.
    pub postgres_cores: f64,
    /// Connections to Postgres.
    pub postgres_connections: f64,
    /// Bytes of the table of votes.
    pub table_bytes: f64,
    /// Bytes of WAL.
    pub wal_bytes: f64,
    /// Bytes of WAL per second.
    pub wal_rate: f64,
    /// Limits, those that are met first before the others.
    pub limits: Vec<Limit>,
}

/// Costs of a vote in a table of this many ballots.
fn grown(costs: &Costs, ballots: f64) -> Costs {
    let share = (ballots / LARGE_TABLE).min(1.0);
    let mut costs = *costs;
    costs.vote.server += share * LARGE_TABLE_MICROS;
    costs.wal_vote_bytes += share * (LARGE_TABLE_WAL - costs.wal_vote_bytes).max(0.0);
    costs
}

/// Sizes of the parts that depend on each other.
struct Sizes {
    queues: f64,
    workers: f64,
    lanes: f64,
    /// At the rate at which votes are counted.
    counting: Cores,
    /// At the peak.
    peak: Cores,
}

impl Sizes {
    fn of(demand: &Demand, peak_rate: f64, count_rate: f64, costs: &Costs) -> Self {
        let shape = |queues: f64, workers: f64, rate: f64| Shape {
            queues,
            workers,
            lanes: workers * LANES,
            partitions: f64::from(demand.partitions),
            polls: f64::from(demand.polls),
            rate,
        };
        let cores = |queues, workers, rate| Cores::of(&shape(queues, workers, rate), PAGES, costs);
        let mut sizes = Self {
            queues: 2.0,
            workers: 2.0,
            lanes: 0.0,
            counting: Cores::default(),
            peak: Cores::default(),
        };
        // More queues mean more work for workers, and more workers more looks at queues: a few rounds settle it.
        for _ in 0..4 {
            sizes.queues = (2_u32..100_000)
                .map(f64::from)
                .find(|queues| {
                    let cores = cores(*queues, sizes.workers, peak_rate);
                    let (frontend, redis) = (cores.frontends / queues, cores.redis / queues);
                    frontend + redis <= UTILIZATION * NODE_CORES && redis <= UTILIZATION
                })
                .unwrap_or(f64::INFINITY);
            sizes.counting = cores(sizes.queues, sizes.workers, count_rate);
            // A lane does one thing at a time: its own work, or waiting for that of Postgres.
            sizes.lanes = ((sizes.counting.workers + sizes.counting.postgres) / UTILIZATION).ceil();
            sizes.workers = (sizes.lanes / LANES).ceil().max(2.0);
        }
        sizes.lanes = sizes.workers * LANES;
        sizes.peak = cores(sizes.queues, sizes.workers, peak_rate);
        sizes
    }
}

impl Plan {
    /// Makes a plan from unit costs.
    #[must_use]
    pub fn of(demand: Demand, costs: &Costs) -> Self {
        let ballots = demand.voters as f64 * f64::from(demand.polls);
        let costs = grown(costs, ballots);
        let seconds = demand.minutes * 60.0;
        let mean_rate = ballots / seconds;
        let peak_rate = mean_rate * demand.peak;
        let count_rate = ballots / (seconds + DRAIN_SECONDS);
        let sizes = Sizes::of(&demand, peak_rate, count_rate, &costs);
        let Sizes { queues, workers, lanes, counting, peak } = sizes;
        let shape = |rate| Shape {
            queues,
            workers,
            lanes,
            partitions: f64::from(demand.partitions),
            polls: f64::from(demand.polls),
            rate,
        };
        let (at_mean, at_count) =
            (Rates::of(&shape(mean_rate), &costs), Rates::of(&shape(count_rate), &costs));
        let entries = at_mean.entries / mean_rate;
        let vote_bytes = entries * costs.entry_bytes + costs.entry_vote_bytes;
        let log_bytes = entries * costs.log_entry_bytes + costs.log_vote_bytes;
        // One connection for each poll that a voter votes in.
        let open_connections = peak_rate * KEEP_ALIVE_SECONDS;
        let balancers = |handshake: f64| {
            let cores = peak_rate * (handshake + (1.0 + PAGES) * costs.proxied.server) / 1e6;
            let of_cores = (cores / (UTILIZATION * NODE_CORES)).ceil();
            of_cores.max((open_connections / BALANCER_CONNECTIONS).ceil()).max(2.0)
        };
        let wal_rate = count_rate * costs.wal_vote_bytes + at_count.commit_queues * costs.wal_queue_bytes;
        let mut plan = Self {
            demand,
            votes: ballots,
            mean_rate,
            peak_rate,
            count_rate,
            frontend_nodes: queues + 1.0,
            frontend_cores: peak.frontends / queues,
            redis_cores: peak.redis / queues,
            redis_unread_bytes: ballots / queues * vote_bytes,
            redis_minutes: REDIS_MEMORY / (mean_rate / queues * vote_bytes) / 60.0,
            redis_log_bytes: ballots / queues * log_bytes,
            open_connections,
            balancers_ecdsa: balancers(costs.handshake_ecdsa.server),
            balancers_rsa: balancers(costs.handshake_rsa.server),
            public_bytes: peak_rate
                * (HANDSHAKE_BYTES + (1.0 + PAGES) * REQUEST_BYTES + (1.0 + PAGES) * costs.page_bytes),
            workers,
            lanes,
            worker_cores: counting.workers,
            postgres_cores: counting.postgres,
            postgres_connections: limits::connections(workers, LANES),
            table_bytes: ballots * costs.ballot_bytes,
            wal_bytes: wal_rate * (seconds + DRAIN_SECONDS),
            wal_rate,
            limits: Vec::new(),
        };
        plan.limits = limits::of(&plan, &costs);
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand { voters: 10_000_000, minutes: 3.0, peak: 4.0, polls: 1, partitions: 16 };

    fn plan(demand: Demand) -> Plan {
        Plan::of(demand, &Costs::MEASURED)
    }

    #[test]
    fn rates_follow_from_voters_and_minutes() {
        let plan = plan(DEMAND);
        assert!((plan.mean_rate - 55_555.6).abs() < 0.1 && (plan.peak_rate - 222_222.2).abs() < 0.1);
        assert!(plan.count_rate < plan.mean_rate);
    }

    #[test]
    fn more_voters_need_no_less_of_anything() {
        let [less, more] = [DEMAND, Demand { voters: 40_000_000, ..DEMAND }].map(plan);
        assert!(more.frontend_nodes > 2.0 * less.frontend_nodes, "{more:?}");
        assert!(more.workers >= less.workers && more.balancers_rsa > less.balancers_rsa);
        assert!(more.postgres_cores > less.postgres_cores && more.table_bytes > less.table_bytes);
    }

    #[test]
    fn a_small_vote_still_gets_two_of_what_can_fail() {
        let plan = plan(Demand { voters: 1000, minutes: 60.0, ..DEMAND });
        assert_eq!((plan.frontend_nodes, plan.workers, plan.balancers_ecdsa), (3.0, 2.0, 2.0));
    }

    #[test]
    fn every_process_stays_below_the_planned_share() {
        let plan = plan(DEMAND);
        assert!(plan.frontend_cores + plan.redis_cores <= UTILIZATION * NODE_CORES, "{plan:?}");
        assert!(plan.redis_cores <= UTILIZATION, "{plan:?}");
    }

    #[test]
    fn the_limit_that_is_met_first_is_the_first() {
        let plan = plan(DEMAND);
        let shares: Vec<f64> = plan.limits.iter().map(Limit::share).collect();
        assert!(shares.is_sorted_by(|a, b| a >= b), "{shares:?}");
    }
}
