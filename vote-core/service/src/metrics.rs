//! What a service measures: each keeps its metrics in one table of [`Metric`]s, and [`Exported`] is what `/metrics` shows
//! of them all.
//!
//! Names follow Prometheus: seconds for times, `_total` for what only rises. They are stable, and docs/metrics.md lists
//! them; a test holds that page to what the services export.

use std::{sync::OnceLock, time::Duration};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_util::MetricKindMask;

/// Buckets for what is measured in seconds, 0.1 ms to 10 s: a flush to a local disk is at one end, a request that
/// times out at the other.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets for numbers of votes and frames, from a frame of one to the largest batch from a deep backlog.
const NUMBERS: [f64; 14] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 100_000.0];

/// The label of gauges that say something of one queue.
///
/// Queues come and go, and the address of one that is gone must not be shown for ever. So gauges with this label are
/// forgotten when nobody set them for [`FORGET_AFTER`]. That is no rule for all gauges: one that counts up and down would
/// start again at 0 after a quiet time, and go below.
pub const QUEUE: &str = "queue";
/// How long a gauge of a [`QUEUE`] is shown after it was set last: some missed reports are no reason to drop it.
pub const FORGET_AFTER: Duration = Duration::from_secs(30);

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with the unit.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    kind: Kind,
    /// Of a counter: the name of its label, and the values shown from the start.
    label: Option<(&'static str, &'static [&'static str])>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Metric {
    /// A number that only rises while the process runs.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter, label: None }
    }

    /// A number that is as it is now.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge, label: None }
    }

    /// How often something had which size or took how long.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Histogram, label: None }
    }

    /// The same counter, told apart by a label, of which these values are shown from the start.
    #[must_use]
    pub const fn by(self, label: &'static str, values: &'static [&'static str]) -> Self {
        Self { label: Some((label, values)), ..self }
    }

    /// Explains it, and shows it from the start if it is a counter or a histogram: an alert on the first error needs to
    /// see the number rise from 0. A gauge is shown when it was set, since 0 would say something.
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

/// Explains the metrics of a table, and starts those that count at 0. Call it after [`exported`]; a second time changes
/// nothing.
pub fn describe(table: &[Metric]) {
    table.iter().for_each(Metric::describe);
}

pub(crate) const READY: Metric =
    Metric::gauge("vote_ready", "Whether the service can do its work now: what /readyz says, 1 or 0");
pub(crate) const BUILD_INFO: Metric =
    Metric::gauge("vote_build_info", "Always 1; the labels say which version runs, of which commit");
pub(crate) const CONNECTIONS: Metric =
    Metric::gauge("vote_http_connections", "Open connections of the public");
pub(crate) const SHED: Metric =
    Metric::counter("vote_http_shed_total", "Requests refused because too many were in flight");
pub(crate) const TIMEOUTS: Metric =
    Metric::counter("vote_http_timeouts_total", "Requests that took too long to answer");
pub(crate) const PANICS: Metric = Metric::counter("vote_http_panics_total", "Requests that met a bug");
pub(crate) const CROSS_SITE: Metric =
    Metric::counter("vote_http_cross_site_total", "Posts refused because another site sent them");

/// What every service has.
const PROCESS: &[Metric] = &[READY, BUILD_INFO];
/// What a service has that serves the public.
const HTTP: &[Metric] = &[CONNECTIONS, SHED, TIMEOUTS, PANICS, CROSS_SITE];

/// Explains and starts what a server of the public measures.
pub(crate) fn describe_http() {
    describe(HTTP);
    metrics::gauge!(CONNECTIONS.name).increment(0.0);
}

/// The metrics of this process, as `/metrics` shows them. Clones are the same.
#[derive(Debug, Clone)]
pub struct Exported {
    lasting: PrometheusHandle,
    passing: PrometheusHandle,
}

impl Exported {
    /// In the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.lasting.render() + &self.passing.render()
    }

    /// Tidies histograms; without it, they grow while nobody scrapes.
    pub fn run_upkeep(&self) {
        self.lasting.run_upkeep();
    }
}

/// The metrics of this process. The first call installs the recorder, so make it before the first metric is used. A
/// process that embeds a service and has a recorder already keeps it; what is rendered here is empty then.
///
/// Histograms named `*_seconds` get buckets from 0.1 ms to 10 s, those named `*_votes` and `*_frames` from 1 to 100,000.
pub fn exported() -> Exported {
    static EXPORTED: OnceLock<Exported> = OnceLock::new();
    EXPORTED.get_or_init(install).clone()
}

fn install() -> Exported {
    let recorders = Recorders::new(FORGET_AFTER);
    let exported = recorders.exported();
    if metrics::set_global_recorder(recorders).is_err() {
        tracing::warn!("this process has a metrics recorder already: /metrics stays empty");
    }
    describe(PROCESS);
    let commit = crate::BUILD_COMMIT.unwrap_or_default();
    metrics::gauge!(BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION"), "commit" => commit).set(1.0);
    exported
}

/// Two recorders, since one of them either forgets all gauges after a while or none.
struct Recorders {
    lasting: PrometheusRecorder,
    passing: PrometheusRecorder,
}

impl Recorders {
    fn new(forget_after: Duration) -> Self {
        let buckets = |builder: PrometheusBuilder, suffix: &str, buckets: &[f64]| {
            builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), buckets)
        };
        let with_buckets = buckets(PrometheusBuilder::new(), "_seconds", &SECONDS)
            .and_then(|builder| buckets(builder, "_votes", &NUMBERS))
            .and_then(|builder| buckets(builder, "_frames", &NUMBERS));
        let passing = PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(forget_after));
        Self {
            // Refused are only empty lists of buckets, and these are not empty.
            lasting: with_buckets.unwrap_or_else(|_| PrometheusBuilder::new()).build_recorder(),
            passing: passing.build_recorder(),
        }
    }

    fn exported(&self) -> Exported {
        Exported { lasting: self.lasting.handle(), passing: self.passing.handle() }
    }
}

impl Recorder for Recorders {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.lasting.describe_counter(name, unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.lasting.describe_gauge(name.clone(), unit, help.clone());
        self.passing.describe_gauge(name, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.lasting.describe_histogram(name, unit, help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.lasting.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let of_a_queue = key.labels().any(|label| label.key() == QUEUE);
        if of_a_queue { &self.passing } else { &self.lasting }.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.lasting.register_histogram(key, metadata)
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn gauges_of_a_queue_are_forgotten_when_nobody_sets_them_and_others_are_not() {
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
    fn what_counts_is_shown_from_the_start() {
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
