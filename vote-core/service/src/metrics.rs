//! Metrics: each service defines its own in one table of [`Metric`]s, and [`Exported`] renders all of them for
//! `/metrics`.
//!
//! Names follow the conventions of Prometheus: seconds for durations, `_total` for counters. They are stable. A test
//! compares the list in docs/metrics.md with what the services export.

use std::{sync::OnceLock, time::Duration};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_util::MetricKindMask;

/// Buckets for durations in seconds, from 0.1 ms (a flush to a local disk) to 10 s (a request that times out).
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets for numbers of votes and frames, from a frame of one vote to the largest batch from a deep backlog.
const NUMBERS: [f64; 15] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0,
    200_000.0,
];

/// Label of gauges that describe one queue.
///
/// Queues come and go, and the address of a queue that no longer exists must not be exported forever. So gauges with
/// this label are dropped when they have not been set for [`FORGET_AFTER`]. This can't apply to all gauges: one that is
/// incremented and decremented would restart at 0 after a quiet time and then become negative.
pub const QUEUE: &str = "queue";
/// How long a gauge with the label [`QUEUE`] is exported after it was last set; long enough to tolerate some missed
/// reports.
pub const FORGET_AFTER: Duration = Duration::from_secs(30);

/// Definition of one metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Name, including the unit.
    pub name: &'static str,
    /// What the metric means: the help text in `/metrics`.
    pub help: &'static str,
    kind: Kind,
    /// For a counter: the name of its label, and the label values that are exported from the start.
    label: Option<(&'static str, &'static [&'static str])>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Metric {
    /// Defines a counter: a number that only rises while the process runs.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter, label: None }
    }

    /// Defines a gauge: a current value, which may rise and fall.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge, label: None }
    }

    /// Defines a histogram: a distribution of sizes or durations.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Histogram, label: None }
    }

    /// Adds a label to a counter; these values of the label are exported from the start.
    #[must_use]
    pub const fn by(self, label: &'static str, values: &'static [&'static str]) -> Self {
        Self { label: Some((label, values)), ..self }
    }

    /// Registers the help text and exports a counter or histogram from the start: an alert on the first error needs to
    /// see the number rise from 0. A gauge is exported once it is set, since an initial 0 would look like a
    /// measurement.
    fn describe(&self) {
        let Self { name, help, kind, label } = *self;
        match (kind, label) {
            (Kind::Counter, label) => {
                metrics::describe_counter!(name, help);
                match label {
                    None => metrics::counter!(name).increment(0),
                    Some((label, values)) => {
                        values.iter().for_each(|value| metrics::counter!(name, label => *value).increment(0));
                    }
                }
            }
            (Kind::Gauge, _) => metrics::describe_gauge!(name, help),
            (Kind::Histogram, _) => {
                metrics::describe_histogram!(name, help);
                drop(metrics::histogram!(name));
            }
        }
    }
}

/// Registers the help texts of a table of metrics, and starts its counters and histograms at 0. Call it after
/// [`exported`]. Idempotent.
pub fn describe(table: &[Metric]) {
    table.iter().for_each(Metric::describe);
}

pub(crate) const READY: Metric =
    Metric::gauge("vote_ready", "Whether the service is ready, as reported by /readyz: 1 or 0");
pub(crate) const BUILD_INFO: Metric =
    Metric::gauge("vote_build_info", "Always 1; the labels give the program's version and commit");
pub(crate) const CONNECTIONS: Metric =
    Metric::gauge("vote_http_connections", "Open connections to the public HTTP server");
pub(crate) const SHED: Metric =
    Metric::counter("vote_http_shed_total", "Requests refused because too many were in flight");
pub(crate) const TIMEOUTS: Metric =
    Metric::counter("vote_http_timeouts_total", "Requests that took too long to answer");
pub(crate) const PANICS: Metric =
    Metric::counter("vote_http_panics_total", "Requests whose handler panicked, which is a bug");
pub(crate) const CROSS_SITE: Metric = Metric::counter(
    "vote_http_cross_site_total",
    "POST requests refused because they came from another site",
);

/// Metrics of every service.
const PROCESS: &[Metric] = &[READY, BUILD_INFO];
/// Metrics of a service with a public HTTP server.
const HTTP: &[Metric] = &[CONNECTIONS, SHED, TIMEOUTS, PANICS, CROSS_SITE];

/// Registers and starts the metrics of a public HTTP server.
pub(crate) fn describe_http() {
    describe(HTTP);
    metrics::gauge!(CONNECTIONS.name).increment(0.0);
}

/// Handle to the metrics of this process, as `/metrics` exports them. Clones refer to the same metrics.
#[derive(Debug, Clone)]
pub struct Exported {
    permanent: PrometheusHandle,
    expiring: PrometheusHandle,
}

impl Exported {
    /// Renders all metrics in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.permanent.render() + &self.expiring.render()
    }

    /// Compacts histograms, which otherwise grow as long as nothing scrapes them. Call it every few seconds.
    pub fn run_upkeep(&self) {
        self.permanent.run_upkeep();
    }
}

/// Returns the metrics of this process. The first call installs the recorder, so call it before the first metric is
/// used. A process that embeds a service and already has a recorder keeps that one; the metrics returned here stay
/// empty then.
///
/// Histograms named `*_seconds` get buckets from 0.1 ms to 10 s, those named `*_votes` and `*_frames` from 1 to
/// 100,000.
pub fn exported() -> Exported {
    static EXPORTED: OnceLock<Exported> = OnceLock::new();
    EXPORTED.get_or_init(install).clone()
}

fn install() -> Exported {
    let recorders = Recorders::new(FORGET_AFTER);
    let exported = recorders.exported();
    if metrics::set_global_recorder(recorders).is_err() {
        tracing::warn!("this process already has a metrics recorder: /metrics stays empty");
    }
    describe(PROCESS);
    let commit = crate::BUILD_COMMIT.unwrap_or_default();
    metrics::gauge!(BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION"), "commit" => commit).set(1.0);
    exported
}

/// Two recorders, since the idle timeout of a recorder applies either to all of its gauges or to none.
struct Recorders {
    permanent: PrometheusRecorder,
    expiring: PrometheusRecorder,
}

impl Recorders {
    fn new(forget_after: Duration) -> Self {
        let buckets = |builder: PrometheusBuilder, suffix: &str, buckets: &[f64]| {
            builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), buckets)
        };
        let with_buckets = buckets(PrometheusBuilder::new(), "_seconds", &SECONDS)
            .and_then(|builder| buckets(builder, "_votes", &NUMBERS))
            .and_then(|builder| buckets(builder, "_frames", &NUMBERS));
        let expiring = PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(forget_after));
        Self {
            // Only empty lists of buckets are rejected, and these are not empty.
            permanent: with_buckets.unwrap_or_else(|_| PrometheusBuilder::new()).build_recorder(),
            expiring: expiring.build_recorder(),
        }
    }

    fn exported(&self) -> Exported {
        Exported { permanent: self.permanent.handle(), expiring: self.expiring.handle() }
    }
}

impl Recorder for Recorders {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.permanent.describe_counter(name, unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.permanent.describe_gauge(name.clone(), unit, help.clone());
        self.expiring.describe_gauge(name, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.permanent.describe_histogram(name, unit, help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.permanent.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let is_of_a_queue = key.labels().any(|label| label.key() == QUEUE);
        if is_of_a_queue { &self.expiring } else { &self.permanent }.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.permanent.register_histogram(key, metadata)
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn gauges_of_a_queue_expire_when_they_are_not_set_and_others_do_not() {
        let recorders = Recorders::new(Duration::from_millis(100));
        let exported = recorders.exported();
        let set = |address: &'static str| metrics::gauge!("depth", QUEUE => address).set(1.0);
        metrics::with_local_recorder(&recorders, || {
            metrics::gauge!("connections").increment(1.0);
            set("a");
            set("b");
            let text = exported.render();
            assert!(text.contains("depth{queue=\"a\"} 1") && text.contains("depth{queue=\"b\"} 1"), "{text}");
            sleep(Duration::from_millis(150));
            set("b");
            let text = exported.render();
            assert!(!text.contains("\"a\"") && text.contains("depth{queue=\"b\"} 1"), "{text}");
            assert!(text.contains("connections 1"), "{text}");
        });
    }

    #[test]
    fn counters_and_histograms_are_exported_from_the_start() {
        const TABLE: &[Metric] = &[
            Metric::counter("errors_total", "Errors"),
            Metric::counter("refused_total", "Refused").by("reason", &["late", "early"]),
            Metric::histogram("wait_seconds", "Time waited"),
            Metric::gauge("depth", "Depth"),
        ];
        let recorders = Recorders::new(FORGET_AFTER);
        metrics::with_local_recorder(&recorders, || describe(TABLE));
        let text = recorders.exported().render();
        for line in ["errors_total 0", "refused_total{reason=\"late\"} 0", "wait_seconds_count 0"] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("# HELP errors_total Errors") && !text.contains("depth"), "{text}");
    }
}
