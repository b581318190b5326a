//! Logging, to stderr, so that stdout stays free for the output of commands.

use std::{
    backtrace::Backtrace,
    fmt,
    io::{self, IsTerminal},
    panic,
    str::FromStr,
};

use serde_json::json;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};
use vote_core::{Clock, SystemClock};

use crate::traces::{self, AnyLayer, Collector, TracingGuard};

/// Format of the lines of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Plain text, for people.
    #[default]
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json".to_owned()),
        }
    }
}

/// Why logging could not be started: the filter is invalid, or traces can't be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TelemetryError(String);

/// Validates a filter; the parser for the setting [`LOG`](crate::settings::LOG).
///
/// # Errors
/// Fails if the filter is invalid.
pub fn valid_filter(text: &str) -> Result<String, TelemetryError> {
    filter(text).map(|_| text.to_owned())
}

/// Starts logging to stderr. A process that already logs, because a program with its own logger embeds this service or
/// because `init` was called before, keeps its logger.
///
/// # Errors
/// Fails if the filter is invalid.
pub fn init(filter_text: &str, format: LogFormat) -> Result<(), TelemetryError> {
    start(filter_text, format, Vec::new())
}

/// Starts logging like [`init`] and, if there is a collector, sends it the traces of `service` until the returned guard
/// is dropped.
///
/// # Errors
/// Fails if the filter is invalid, or if this process can't send traces.
pub fn init_with_traces(
    filter_text: &str,
    format: LogFormat,
    service: &'static str,
    collector: Option<&Collector>,
) -> Result<TracingGuard, TelemetryError> {
    let Some(collector) = collector else {
        return init(filter_text, format).map(|()| TracingGuard::default());
    };
    let (layer, sending) = traces::layer(service, collector).map_err(|e| TelemetryError(e.to_string()))?;
    start(filter_text, format, vec![layer])?;
    Ok(sending)
}

fn start(filter_text: &str, format: LogFormat, mut layers: Vec<AnyLayer>) -> Result<(), TelemetryError> {
    let lines =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // The filter applies to the log only, not to the layer that collects spans for traces.
    layers.push(lines.with_filter(filter(filter_text)?).boxed());
    // Fails only if a subscriber is already installed.
    let is_ours = tracing_subscriber::registry().with(layers).try_init().is_ok();
    if is_ours && format == LogFormat::Json {
        // Otherwise a panic would be the only message that a log collector can't parse.
        panic::set_hook(Box::new(|panic| tracing::error!(backtrace = %Backtrace::capture(), "{panic}")));
    }
    Ok(())
}

/// Writes to stderr why a program exits, in the format of the log: as text after the program's name, or as a JSON
/// object on one line.
///
/// The message bypasses the log, whose filter could suppress it.
pub fn log_fatal(program: &str, format: LogFormat, why: &dyn fmt::Display) {
    match format {
        LogFormat::Text => eprintln!("{program}: {why}"),
        LogFormat::Json => eprintln!("{}", json_line(program, &why.to_string())),
    }
}

/// Returns the message with the field names of a log line.
fn json_line(program: &str, message: &str) -> serde_json::Value {
    let timestamp = SystemClock.now().to_string();
    json!({"timestamp": timestamp, "level": "ERROR", "message": message, "target": program})
}

fn filter(text: &str) -> Result<Targets, TelemetryError> {
    text.parse().map_err(|e: tracing_subscriber::filter::ParseError| {
        TelemetryError(format!(
            "{e}; expected error, warn, info, debug or trace, or a list such as info,vote_worker=debug"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logging_may_be_started_twice() {
        init("off", LogFormat::Text).unwrap();
        init("off", LogFormat::Json).unwrap();
    }

    #[test]
    fn filters_are_validated() {
        assert_eq!(valid_filter("info,vote_worker=debug").unwrap(), "info,vote_worker=debug");
        assert!(valid_filter("vote_worker=loud").is_err());
    }
}
