//! The plan as text.

use std::fmt::Write as _;

use super::plan::{BALANCER_CONNECTIONS, KEEP_ALIVE_SECONDS, NODE_CORES, Plan, UTILIZATION};

/// Formats a plan for a terminal.
pub(super) fn text(plan: &Plan) -> String {
    let demand = &plan.demand;
    let mut text = format!(
        "{} voters in {} minutes, polls: {}, partitions: {}\n{} votes/s on average, {} at the peak\n\n",
        grouped(demand.voters as f64),
        demand.minutes,
        demand.polls,
        demand.partitions,
        grouped(plan.mean_rate),
        grouped(plan.peak_rate),
    );
    for (what, needed, note) in rows(plan) {
        let _ = writeln!(text, "{what:<22} {needed:>14}  {note}");
    }
    let _ =
        writeln!(text, "\n{:<30} {:>10} {:>10} {:>6}  grows with", "limit", "needed", "binds at", "share");
    for limit in &plan.limits {
        let _ = writeln!(
            text,
            "{:<30} {:>10} {:>10} {:>5.0}%  {}",
            limit.what,
            grouped(limit.needed.ceil()),
            grouped(limit.binds_at),
            limit.share() * 100.0,
            limit.of,
        );
    }
    if let Some(first) = plan.limits.first() {
        let first_of_all = format!("{}, at {} {}", first.what, grouped(first.binds_at), first.of);
        let _ = match first.share() > 1.0 {
            true => writeln!(text, "\nexceeded: {first_of_all}"),
            false => writeln!(text, "\nthe limit that binds first: {first_of_all}"),
        };
    }
    text
}

/// Returns what is needed: its name, its number, and what the number means.
fn rows(plan: &Plan) -> Vec<(&'static str, String, String)> {
    let cores = |cores: f64| format!("{cores:.1}");
    vec![
        (
            "frontend nodes",
            grouped(plan.frontend_nodes),
            format!(
                "of {NODE_CORES} cores, one of them spare; each uses {:.1} for its frontend, {:.1} for its Redis",
                plan.frontend_cores, plan.redis_cores
            ),
        ),
        (
            "memory of a Redis",
            bytes(plan.redis_unread_bytes),
            format!(
                "if nothing is read until the end; 2 GB last {} minutes at the mean rate",
                grouped(plan.redis_minutes.floor())
            ),
        ),
        ("disk of a Redis", bytes(plan.redis_log_bytes), "its log, before it is rewritten".to_owned()),
        (
            "load balancers",
            grouped(plan.balancers_ecdsa),
            format!("of {NODE_CORES} cores, with a P-256 key; {} with RSA-2048", grouped(plan.balancers_rsa)),
        ),
        (
            "open connections",
            grouped(plan.open_connections),
            format!(
                "of voters at the peak, since browsers keep each for {KEEP_ALIVE_SECONDS} s; a load balancer takes {}",
                grouped(BALANCER_CONNECTIONS)
            ),
        ),
        (
            "public network",
            bytes(plan.public_bytes),
            "per second at the peak, both directions together".to_owned(),
        ),
        (
            "workers",
            grouped(plan.workers),
            format!("with {} lanes in all, {:.2} cores", grouped(plan.lanes), plan.worker_cores),
        ),
        (
            "Postgres, cores",
            cores(plan.postgres_cores),
            format!("busy; give it {:.0} or more", (plan.postgres_cores / UTILIZATION).ceil()),
        ),
        (
            "Postgres, connections",
            grouped(plan.postgres_connections),
            "with those of results services and people".to_owned(),
        ),
        ("Postgres, table", bytes(plan.table_bytes), "the votes with their index".to_owned()),
        ("Postgres, WAL", bytes(plan.wal_bytes), format!("{} per second", bytes(plan.wal_rate))),
        ("counted", "1 minute".to_owned(), format!("after the end, at {} votes/s", grouped(plan.count_rate))),
    ]
}

/// Formats a number of bytes with the largest unit that leaves one digit before the point.
fn bytes(bytes: f64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let (unit, size) = units.into_iter().find(|(_, size)| bytes >= *size).unwrap_or(("B", 1.0));
    let number = bytes / size;
    if number < 10.0 { format!("{number:.1} {unit}") } else { format!("{} {unit}", grouped(number)) }
}

/// Formats a number, rounded, with commas between groups of three digits.
fn grouped(number: f64) -> String {
    if !number.is_finite() {
        return "no".to_owned();
    }
    let digits = format!("{:.0}", number);
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_bytes_have_units() {
        assert_eq!([0.4, 999.0, 1_234_567.2].map(grouped), ["0", "999", "1,234,567"]);
        assert_eq!([12.0, 1500.0, 15e6, 2.25e12].map(bytes), ["12 B", "1.5 kB", "15 MB", "2,250 GB"]);
    }
}
