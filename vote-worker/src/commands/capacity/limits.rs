//! Limits: how far the deployment can grow before a setting or a server has to change. Pure.

use serde::Serialize;

use super::{
    Costs,
    load::{CATALOGS, REPORTS, look_every, report_calls},
    plan::{LANES, Plan, UTILIZATION},
};

/// Places for frontends in `haproxy.cfg`.
pub const PLACES: f64 = 2300.0;
/// Bytes of an answer of Docker's DNS that HAProxy accepts, in `haproxy.cfg`.
pub const DNS_BYTES: f64 = 65507.0;
/// Bytes of such an answer for each task, beyond its head of about 40.
const DNS_TASK_BYTES: f64 = 28.0;
/// Connections that Postgres allows, in `postgresql.conf`.
pub const CONNECTIONS: f64 = 200.0;
/// Connections of a worker besides those of its lanes, by the handbook.
const OTHER_CONNECTIONS: f64 = 3.0;
/// Connections of other services, of superusers and of people, by the handbook.
const RESERVED_CONNECTIONS: f64 = 16.0;
/// Addresses of an overlay network with the pool of the handbook; a frontend takes two, its task and its node.
const ADDRESSES: f64 = 4094.0;
/// Highest share of its one core that a Redis is to spend on the looks of workers.
const LOOKS_SHARE: f64 = 0.2;
/// Cores of Postgres that reports and reads of the catalog may take.
const REPORT_CORES: f64 = 1.0;
/// Cores of a large database server.
const POSTGRES_CORES: f64 = 32.0;
/// Returns the connections to Postgres of some workers and of all others.
pub(super) fn connections(workers: f64, lanes: f64) -> f64 {
    workers * (lanes + OTHER_CONNECTIONS) + RESERVED_CONNECTIONS
}

/// A limit, and how much of it a plan uses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    /// What is limited.
    pub what: &'static str,
    /// What counts against it: `frontends`, `workers`, `polls`, `lanes` or `cores`.
    pub of: &'static str,
    /// The number in the plan.
    pub needed: f64,
    /// The number at which it binds.
    pub binds_at: f64,
}

impl Limit {
    /// Returns the share of the limit that is used; above 1 if the plan exceeds it.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.needed / self.binds_at
    }
}

/// Returns all limits of a plan, those that are met first before the others.
pub(super) fn of(plan: &Plan, costs: &Costs) -> Vec<Limit> {
    let (partitions, polls) = (f64::from(plan.demand.partitions), f64::from(plan.demand.polls));
    let (queues, workers) = (plan.frontend_nodes, plan.workers);
    // CPU time of a Redis for the looks of a worker, and for the partitions, each of which one worker asks for.
    let look = costs.look.server;
    let of_partitions = partitions * costs.look_partition.server;
    let of_poll = partitions * costs.look_count.server;
    let looks = |workers| LOOKS_SHARE * 1e6 * look_every(queues, workers);
    let report = costs.report.plus(costs.report_partition, partitions).server;
    let reports = REPORTS * report + workers * CATALOGS * costs.catalog_queue.server;
    // With many queues, the number of calls does not grow with them.
    let calls = report_calls(f64::INFINITY, workers) * costs.report_call.server;
    let limit = |what, of, needed, binds_at| Limit { what, of, needed, binds_at };
    let mut limits = vec![
        limit("places in haproxy.cfg", "frontends", queues, PLACES),
        limit("answer of Docker's DNS", "frontends", queues, ((DNS_BYTES - 40.0) / DNS_TASK_BYTES).floor()),
        limit("addresses of a network", "frontends", queues, ADDRESSES / 2.0),
        limit(
            "reports to Postgres, 1 core",
            "frontends",
            queues,
            ((REPORT_CORES * 1e6 - calls - workers * CATALOGS * costs.catalog.server) / reports).floor(),
        ),
        limit(
            "connections of Postgres",
            "workers",
            workers,
            ((CONNECTIONS - RESERVED_CONNECTIONS) / (LANES + OTHER_CONNECTIONS)).floor(),
        ),
        limit("partitions", "lanes", plan.lanes, partitions),
        limit(
            "looks at a Redis, 20 % of it",
            "workers",
            workers,
            ((looks(f64::INFINITY) - of_partitions - polls * of_poll) / look).floor().max(0.0),
        ),
        limit(
            "looks at a Redis, 20 % of it",
            "polls",
            polls,
            ((looks(workers) - workers * look - of_partitions) / of_poll).floor().max(0.0),
        ),
        limit("Postgres, 32 cores", "cores", plan.postgres_cores, UTILIZATION * POSTGRES_CORES),
    ];
    limits.sort_by(|a, b| b.share().total_cmp(&a.share()));
    limits
}
