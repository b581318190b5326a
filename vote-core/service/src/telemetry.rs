//! Logs: to stderr, so that stdout stays free for what a command answers.

use std::{
    backtrace::Backtrace,
    fmt,
    io::{self, IsTerminal},
    panic,
    str::FromStr,
};

use serde_json::json;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};
use vote_core::{Clock, SystemClock};

use crate::traces::{self, AnyLayer, Collector, Sending};

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
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

/// A filter that can't be understood, or traces that can't be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TelemetryError(String);

/// Checks a filter, for reading [`LOG`](crate::settings::LOG).
///
/// # Errors
/// When it can't be understood.
pub fn valid_filter(text: &str) -> Result<String, TelemetryError> {
    filter(text).map(|_| text.to_owned())
}

/// Starts logging to stderr. A process that logs already, because another program embeds this one or because it was
/// called before, goes on as it did.
///
/// # Errors
/// When the filter can't be understood.
pub fn init(filter_text: &str, format: LogFormat) -> Result<(), TelemetryError> {
    start(filter_text, format, Vec::new())
}

/// [`init`], and sends traces of `service` to a collector, if there is one, as long as the result lives.
///
/// # Errors
/// When the filter can't be understood, or traces can't be sent from this process.
pub fn init_with_traces(
    filter_text: &str,
    format: LogFormat,
    service: &'static str,
    collector: Option<&Collector>,
) -> Result<Sending, TelemetryError> {
    let Some(collector) = collector else { return init(filter_text, format).map(|()| Sending::default()) };
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
    // Of the log alone: spans for traces are no part of it.
    layers.push(lines.with_filter(filter(filter_text)?).boxed());
    // The only error is that there is a subscriber already.
    let is_ours = tracing_subscriber::registry().with(layers).try_init().is_ok();
    if is_ours && format == LogFormat::Json {
        // Else a bug would be the one thing that a collector can't read.
        panic::set_hook(Box::new(|panic| tracing::error!(backtrace = %Backtrace::capture(), "{panic}")));
    }
    Ok(())
}

/// Says on stderr why a program ends, in the form of the log: after the program's name, or as a JSON object of one line.
///
/// It is no part of the log, whose filter may leave out everything.
pub fn say_why_it_ends(program: &str, format: LogFormat, why: &dyn fmt::Display) {
    match format {
        LogFormat::Text => eprintln!("{program}: {why}"),
        LogFormat::Json => eprintln!("{}", json_line(program, &why.to_string())),
    }
}

/// With the names that lines of the log have.
fn json_line(program: &str, message: &str) -> serde_json::Value {
    let timestamp = SystemClock.now().to_string();
    json!({"timestamp": timestamp, "level": "ERROR", "message": message, "target": program})
}

fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder().parse(text).map_err(|e| {
        TelemetryError(format!(
            "{e}; give error, warn, info, debug or trace, or a list such as info,vote_worker=debug"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn may_be_started_twice() {
        init("off", LogFormat::Text).unwrap();
        init("off", LogFormat::Json).unwrap();
    }

    #[test]
    fn filters_are_checked() {
        assert_eq!(valid_filter("info,vote_worker=debug").unwrap(), "info,vote_worker=debug");
        assert!(valid_filter("vote_worker=loud").is_err());
    }
}
