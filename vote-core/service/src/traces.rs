//! Traces: the duration of each step that a vote passes through, sent to a collector by OTLP over HTTP.
//!
//! The steps are spans of `tracing` with the target [`vote_core::TRACES`]: `request` and `flush` of a frontend, `batch`
//! and `commit` of a worker, `read` of the results service. Without the feature `otel` nothing collects them, and each
//! costs one comparison.
//!
//! The `traceparent` of a request is ignored: with it, a client could have all of its requests recorded.

use std::{fmt, str::FromStr};

#[cfg(feature = "otel")]
mod otlp;

/// Where traces are sent, and what share of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Collector {
    endpoint: Endpoint,
    ratio: Ratio,
}

impl Collector {
    /// Creates a collector that gets the share `ratio` of all traces at `endpoint`.
    #[must_use]
    pub fn new(endpoint: Endpoint, ratio: Ratio) -> Self {
        Self { endpoint, ratio }
    }
}

/// Address of a collector, without a path. Parsing one always fails in a build without the feature `otel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(http::Uri);

impl FromStr for Endpoint {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if cfg!(feature = "otel") { endpoint(text) } else { Err(NOT_BUILT_IN) }
    }
}

const NOT_BUILT_IN: &str =
    "this program was built without traces; build it with --features otel, or remove the setting";

fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    const EXPECTED: &str = "expected http://HOST:PORT, without a path, where a collector accepts OTLP over HTTP; to \
                            reach a remote one, run a collector nearby that forwards traces with encryption";
    let uri: http::Uri = text.parse().map_err(|_| EXPECTED)?;
    let is_base = uri.scheme_str() == Some("http")
        && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none();
    if is_base { Ok(Endpoint(uri)) } else { Err(EXPECTED) }
}

/// Share of traces to send, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio(f64);

impl FromStr for Ratio {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(Self).ok_or("expected a number from 0 to 1")
    }
}

/// Guard that keeps traces being sent. Dropping it sends the remaining ones, for at most 1 s.
#[must_use]
#[derive(Default)]
pub struct TracingGuard {
    #[cfg(feature = "otel")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl fmt::Debug for TracingGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracingGuard").finish_non_exhaustive()
    }
}

#[cfg(feature = "otel")]
impl Drop for TracingGuard {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider {
            // The exporter has already logged that the collector is unavailable.
            let _ = provider.shutdown_with_timeout(std::time::Duration::from_secs(1));
        }
    }
}

pub(crate) type AnyLayer = Box<dyn tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync>;

/// Returns the layer that collects spans, with the guard that keeps them being sent.
#[cfg(feature = "otel")]
pub(crate) fn layer(
    service: &'static str,
    collector: &Collector,
) -> std::io::Result<(AnyLayer, TracingGuard)> {
    use opentelemetry::trace::TracerProvider;
    use tracing_subscriber::{Layer, filter::LevelFilter, filter::Targets};

    let provider = otlp::provider(service, &collector.endpoint.0, collector.ratio.0)?;
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("vote"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target(vote_core::TRACES, LevelFilter::TRACE));
    Ok((layer.boxed(), TracingGuard { provider: Some(provider) }))
}

/// Fails always. It is never called, since no [`Collector`] can be created in this build.
#[cfg(not(feature = "otel"))]
pub(crate) fn layer(_: &'static str, _: &Collector) -> std::io::Result<(AnyLayer, TracingGuard)> {
    Err(std::io::Error::other(NOT_BUILT_IN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_scheme_host_and_port() {
        for good in ["http://collector:4318", "http://127.0.0.1:4318/", "http://[::1]:4318"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in
            ["collector:4318", "https://collector:4318", "http://collector/v1/traces", "http://u:p@host", ""]
        {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_is_rejected_in_a_build_without_traces() {
        assert_eq!("http://collector:4318".parse::<Endpoint>().is_ok(), cfg!(feature = "otel"));
    }

    #[test]
    fn a_ratio_is_from_0_to_1() {
        assert_eq!("0.25".parse(), Ok(Ratio(0.25)));
        for bad in ["-0.1", "1.1", "NaN", "all"] {
            assert!(bad.parse::<Ratio>().is_err(), "{bad}");
        }
    }
}
