//! Exporter of spans by OTLP over HTTP, in the JSON encoding, which every collector accepts as well as the binary one.
//!
//! The exporter is our own because `opentelemetry-otlp` 0.33 adds the headers in `OTEL_EXPORTER_OTLP_HEADERS` to its
//! requests even where all else is configured, and no service reads the environment outside its `config.rs`. It would
//! also need a client of ours that works without a runtime, so for seven more packages it would save only the encoding
//! of spans. The SDK reads the environment, too, but what it reads there is overridden here or not used.

use std::{
    fmt, io,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry::{KeyValue, SpanId, Value, trace::Status};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
        SpanLimits,
    },
};
use serde_json::{Value as Json, json};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

/// Time limit of one request. Meanwhile spans accumulate, and are dropped if there are too many: the services never
/// wait for the collector.
const TIMEOUT: Duration = Duration::from_secs(2);
const SEND_EVERY: Duration = Duration::from_secs(1);
const MAX_WAITING: usize = 8192;
const MAX_BATCH: usize = 1024;

pub(super) fn provider(service: &'static str, endpoint: &Uri, ratio: f64) -> io::Result<SdkTracerProvider> {
    let resource = Resource::builder_empty()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let exporter = Exporter::new(endpoint, &resource)?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_WAITING)
        .with_max_export_batch_size(MAX_BATCH)
        .with_scheduled_delay(SEND_EVERY)
        .build();
    Ok(SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
        .with_span_limits(SpanLimits::default())
        .with_resource(resource)
        .with_span_processor(BatchSpanProcessor::new(exporter, batches))
        .build())
}

/// Sends batches of spans one after another, on the thread of the batch processor.
struct Exporter {
    url: Uri,
    resource: Json,
    runtime: Runtime,
    client: Client<HttpConnector, Full<Bytes>>,
    /// Whether the last batch failed, so that a failure is logged once instead of for each batch.
    is_failing: AtomicBool,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Exporter {
    fn new(endpoint: &Uri, resource: &Resource) -> io::Result<Self> {
        let mut parts = endpoint.clone().into_parts();
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/v1/traces"));
        let attributes = resource.iter().map(|(key, value)| attribute(key.as_str(), value));
        Ok(Self {
            url: Uri::from_parts(parts).map_err(io::Error::other)?,
            resource: json!({"attributes": attributes.collect::<Vec<_>>()}),
            runtime: Builder::new_current_thread().enable_all().build()?,
            client: Client::builder(TokioExecutor::new()).build_http(),
            is_failing: AtomicBool::new(false),
        })
    }

    fn send(&self, spans: &[SpanData]) -> Result<(), String> {
        let spans: Vec<Json> = spans.iter().map(span).collect();
        let body = json!({"resourceSpans": [{
            "resource": self.resource,
            "scopeSpans": [{"scope": {"name": "vote"}, "spans": spans}],
        }]});
        let request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|e| e.to_string())?;
        let answer = self.runtime.block_on(async { timeout(TIMEOUT, self.client.request(request)).await });
        match answer {
            Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
            Ok(Err(e)) => Err(e.to_string()),
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => Err(format!("the collector answered {}", answer.status())),
        }
    }
}

impl SpanExporter for Exporter {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let result = self.send(&batch);
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(e) if !was_failing => {
                tracing::warn!("traces can't be sent to {} and are dropped: {e}", self.url)
            }
            Ok(()) if was_failing => tracing::info!("traces can be sent again"),
            _ => {}
        }
        std::future::ready(result.map_err(OTelSdkError::InternalFailure))
    }
}

fn span(span: &SpanData) -> Json {
    let attributes: Vec<Json> =
        span.attributes.iter().map(|pair| attribute(pair.key.as_str(), &pair.value)).collect();
    let mut json = json!({
        "traceId": span.span_context.trace_id().to_string(),
        "spanId": span.span_context.span_id().to_string(),
        "name": span.name,
        // SPAN_KIND_INTERNAL: no span continues a trace of another program.
        "kind": 1,
        "startTimeUnixNano": nanos(span.start_time),
        "endTimeUnixNano": nanos(span.end_time),
        "attributes": attributes,
    });
    if span.parent_span_id != SpanId::INVALID {
        json["parentSpanId"] = span.parent_span_id.to_string().into();
    }
    if let Status::Error { description } = &span.status {
        json["status"] = json!({"code": 2, "message": description});
    }
    json
}

/// Returns nanoseconds since 1970 as a string: 64-bit integers don't fit into a JSON number, so OTLP uses strings.
fn nanos(at: SystemTime) -> String {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

fn attribute(key: &str, value: &Value) -> Json {
    let value = match value {
        Value::Bool(value) => json!({"boolValue": value}),
        Value::I64(value) => json!({"intValue": value.to_string()}),
        Value::F64(value) => json!({"doubleValue": value}),
        other => json!({"stringValue": other.as_str()}),
    };
    json!({"key": key, "value": value})
}
