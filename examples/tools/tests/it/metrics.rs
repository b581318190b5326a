//! Tests that the services export the metrics that docs/metrics.md lists and that the alerts and the dashboard use.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use vote_testkit::{Postgres, Redis, http_get};

use crate::world::{Process, World, cookie, eventually, vote};

const SERVICES: [&str; 3] = ["frontend", "worker", "results"];

/// Type and labels of metrics, by name.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

/// Parses the metrics that `/metrics` shows.
fn exported(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            metrics.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((series, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
            let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            let name = of_histogram(series).filter(|name| metrics.contains_key(*name)).unwrap_or(series);
            let (_, all) = metrics.get_mut(name).unwrap_or_else(|| panic!("{line} has no type"));
            all.extend(names.filter(|name| name != "le"));
        }
    }
    metrics
}

/// Returns the name of the histogram to which a series may belong.
fn of_histogram(series: &str) -> Option<&str> {
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| series.strip_suffix(suffix))
}

/// Returns all names of metrics in a text: the words that begin with `vote_`.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.strip_prefix("vote_").is_some_and(|rest| !rest.is_empty())).collect()
}

/// Returns the names of metrics in a text that are not exported.
fn missing<'a>(text: &'a str, exported: &Metrics) -> Vec<&'a str> {
    let is_histogram = |name: &str| exported.get(name).is_some_and(|(kind, _)| kind == "histogram");
    let is_there = |name: &&str| exported.contains_key(*name) || of_histogram(name).is_some_and(is_histogram);
    named(text).into_iter().filter(|name| !is_there(name)).collect()
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Parses the rows of docs/metrics.md for a service.
fn documented(page: &str, service: &str) -> Metrics {
    let rows = page.lines().filter(|line| line.starts_with("| `vote_"));
    let cells = rows.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let mut metrics = Metrics::new();
    for row in cells {
        let [_, name, of, kind, unit, labels, meaning, _] = row[..] else { panic!("{row:?}") };
        assert!(!unit.is_empty() && !meaning.is_empty(), "{row:?}");
        if of != "all" && of.split(", ").all(|of| of != service) {
            continue;
        }
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned);
        metrics.insert(name.trim_matches('`').to_owned(), (kind.to_owned(), labels.collect()));
    }
    metrics
}

fn scrape(process: &Process) -> Metrics {
    exported(&http_get(process.admin, "/metrics").text())
}

#[test]
fn alerts_dashboard_and_documentation_name_what_the_services_export() {
    let world = World::start(1);
    // Any server with the store's positions can be the witness.
    let (queue, store) = (world.redis[0].url(), world.store_url());
    let worker = world.worker_of(&queue, "2", &[("VOTE_STORE_WITNESS", &store)]);
    world.wait_until_ready();
    worker.wait_until_ready();
    let frontend = world.frontends[0].public;
    assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202);
    assert_eq!(vote(frontend, "birds", &cookie(frontend)).status, 422);
    eventually("the vote is counted", Duration::from_secs(10), || world.total() == 1);

    let processes = [&world.frontends[0], &worker, &world.results];
    let page = file("docs/metrics.md");
    let mut all = Metrics::new();
    for (process, service) in processes.into_iter().zip(SERVICES) {
        let documented = documented(&page, service);
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut found = scrape(process);
        // Workers report a queue every two seconds.
        while found != documented && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
            found = scrape(process);
        }
        assert_eq!(found, documented, "exported by vote-{service} (left) and documented (right)");
        all.extend(found);
    }
    for name in ["deploy/prometheus/alerts.yml", "deploy/grafana/dashboard.json", "docs/metrics.md"] {
        let text = file(name);
        assert!(named(&text).len() > 15, "{name} names metrics");
        assert_eq!(missing(&text, &all), [""; 0], "named in {name}, but not exported");
    }
    for (name, (kind, _)) in &all {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        assert!(kind != "summary", "{name} has no buckets");
    }
    assert_eq!(world.frontends[0].metric("vote_frontend_accepted_total"), 1.0);
    assert_eq!(world.frontends[0].metric("vote_frontend_refused_total{reason=\"unknown-option\"}"), 1.0);
    assert_eq!(world.results.metric("vote_results_conservation_residual_votes"), 0.0);
}

#[test]
fn a_metric_that_is_not_exported_is_found() {
    let all = exported(
        "# TYPE vote_taken_total counter\nvote_taken_total 1\n\
         # TYPE vote_flush_seconds histogram\nvote_flush_seconds_bucket{queue=\"a\",le=\"+Inf\"} 0\n",
    );
    assert_eq!(all["vote_flush_seconds"].1, BTreeSet::from(["queue".to_owned()]));
    assert_eq!(missing("rate(vote_taken_total[1m]) / vote_flush_seconds_sum", &all), [""; 0]);
    assert_eq!(missing("rate(vote_taken_totals[1m]) > 0", &all), ["vote_taken_totals"]);
    assert_eq!(missing("vote_taken_total_sum", &all), ["vote_taken_total_sum"], "a counter has no sum");
    assert_eq!(missing("a vote_ and haproxy_up", &all), [""; 0], "these are not names of our metrics");
}

#[test]
fn while_the_store_is_down_workers_export_the_size_and_age_of_the_backlog() {
    let postgres = Postgres::start();
    let world = World::on(vec![Redis::start()], postgres.database());
    let worker = world.worker("1");
    world.wait_until_ready();
    let frontend = world.frontends[0].public;
    assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202);
    eventually("the vote is counted", Duration::from_secs(10), || world.total() == 1);

    // Workers ask the store for the read positions every two seconds, and continue with the last answer.
    std::thread::sleep(Duration::from_secs(3));
    postgres.stop();
    assert_eq!(vote(frontend, "dogs", &cookie(frontend)).status, 202);
    assert_eq!(vote(frontend, "dogs", &cookie(frontend)).status, 202);

    eventually("the backlog is 2", Duration::from_secs(15), || {
        worker.metric("vote_worker_queue_votes") == 2.0
    });
    eventually("its age grows", Duration::from_secs(15), || {
        worker.metric("vote_worker_queue_oldest_seconds") > 3.0
    });
    assert_eq!(worker.metric("vote_ready"), 0.0);
    postgres.restart();
    eventually("the backlog is empty", Duration::from_secs(20), || {
        worker.metric("vote_worker_queue_votes") + worker.metric("vote_worker_queue_oldest_seconds") == 0.0
    });
    assert_eq!(world.total(), 3);
}
