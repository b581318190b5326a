//! The status page of the pipeline, and `status.json` with the same content.

use std::fmt::Write;

use serde::Serialize;
use vote_core::{Timestamp, store::QueueState};
use vote_service::respond::escape_html as escape;

use super::{grouped, page, time};
use crate::{
    pipeline::{PollLine, QueueLine},
    state::{Stale, State},
};

/// `status.json`.
#[derive(Debug, Serialize)]
pub struct StatusJson<'a> {
    /// Why the store can't be read, if so.
    pub stale: Option<&'a Stale>,
    /// When it was last read.
    pub read_at: Option<String>,
    /// As of then; none if it was never read.
    pub queues: Option<&'a [QueueLine]>,
    /// As of then; none if it was never read.
    pub polls: Option<&'a [PollLine]>,
}

impl<'a> StatusJson<'a> {
    /// What is known.
    #[must_use]
    pub fn new(state: &'a State, read_at: Option<Timestamp>) -> Self {
        let pipeline = state.reading.as_ref().map(|reading| &reading.pipeline);
        Self {
            stale: state.stale.as_ref(),
            read_at: read_at.map(|at| at.to_string()),
            queues: pipeline.map(|pipeline| &pipeline.queues[..]),
            polls: pipeline.map(|pipeline| &pipeline.polls[..]),
        }
    }
}

/// `/status`.
#[must_use]
pub fn status(state: &State, read_at: Option<Timestamp>, now: Timestamp) -> String {
    let mut content = String::from("<h1>Status of the count</h1>\n");
    if let Some(stale) = &state.stale {
        let _ = writeln!(
            content,
            "<p class=\"note\" role=\"status\">The store can't be read since {}: {}</p>",
            time(stale.since, ""),
            escape(&stale.reason)
        );
    }
    match read_at {
        Some(at) => {
            let _ = writeln!(content, "<p class=\"soft\">The store was last read {}.</p>", time(at, ""));
        }
        None => content.push_str("<p>The store was not read yet.</p>\n"),
    }
    if let Some(reading) = &state.reading {
        polls(&mut content, &reading.pipeline.polls);
        queues(&mut content, &reading.pipeline.queues, now);
    }
    content.push_str("<p class=\"links\"><a href=\"/status.json\">JSON</a></p>\n");
    page("Status of the count", "<meta http-equiv=\"refresh\" content=\"5\">\n", &content)
}

fn polls(content: &mut String, polls: &[PollLine]) {
    content.push_str(
        "<h2>Polls</h2>\n<table class=\"status\">\n<caption>Every accepted vote is accounted for: accepted = new voters + \
         superseded + quarantined, so the residual is 0.</caption>\n\
         <thead><tr><th scope=\"col\">Poll</th><th scope=\"col\" class=\"number\">Accepted</th>\
         <th scope=\"col\" class=\"number\">New voters</th><th scope=\"col\" class=\"number\">Superseded</th>\
         <th scope=\"col\" class=\"number\">Quarantined</th><th scope=\"col\" class=\"number\">Residual</th></tr></thead>\n\
         <tbody>\n",
    );
    for line in polls {
        let name = escape(&line.poll);
        let name = match &line.title {
            Some(title) => format!("<a href=\"/polls/{name}\">{}</a>", escape(title)),
            None => name.into_owned(),
        };
        let problem = line
            .problem
            .as_ref()
            .map(|problem| format!("<br><small class=\"bad-text\">{}</small>", escape(problem)));
        let _ = writeln!(
            content,
            "<tr><th scope=\"row\">{name}{}</th>{}{}{}{}{}</tr>",
            problem.unwrap_or_default(),
            number(line.accepted),
            number(line.new_voters),
            number(line.superseded),
            alarm(&line.quarantined.to_string(), line.quarantined != 0),
            alarm(&line.residual.to_string(), line.residual != 0),
        );
    }
    content.push_str("</tbody>\n</table>\n");
    if polls.iter().any(|line| line.withheld) {
        content.push_str(
            "<p class=\"soft\">– stands for a number that is withheld until the poll is final.</p>\n",
        );
    }
}

fn queues(content: &mut String, queues: &[QueueLine], now: Timestamp) {
    content.push_str("<h2>Queues</h2>\n");
    if queues.is_empty() {
        content.push_str("<p>No worker has reported a queue yet.</p>\n");
        return;
    }
    content.push_str(
        "<table class=\"status\">\n<caption>As workers last saw them</caption>\n\
         <thead><tr><th scope=\"col\">Queue</th><th scope=\"col\">Last seen</th>\
         <th scope=\"col\" class=\"number\">Accepted</th><th scope=\"col\" class=\"number\">Queued</th>\
         <th scope=\"col\">State</th></tr></thead>\n<tbody>\n",
    );
    for line in queues {
        let queued = match line.queued {
            Some(n) => grouped(n),
            None if line.drained => "none".to_owned(),
            None => "some".to_owned(),
        };
        let state = match line.state {
            QueueState::Active => "<td><span class=\"badge good\">active</span></td>".to_owned(),
            QueueState::Cut => format!(
                "<td><span class=\"badge bad\">cut</span><br><small class=\"bad-text\">lost or rolled back data; \
                 nothing more is counted from it: {}</small></td>",
                escape(&line.reason)
            ),
            QueueState::Retired => format!(
                "<td><span class=\"badge\">written off</span><br><small>{}</small></td>",
                escape(&line.reason)
            ),
        };
        let of = match line.remains_of {
            Some(of) => format!("<br><small>what is left of <code>{of}</code></small>"),
            None => String::new(),
        };
        let _ = writeln!(
            content,
            "<tr><th scope=\"row\">{}<br><code>{}</code>{of}</th><td>{}<br><small class=\"soft\">{}</small></td>{}\
             <td class=\"number\">{queued}</td>{state}</tr>",
            escape(&line.address),
            line.queue,
            time(line.seen_at, ""),
            age(line.seen_at, now),
            number(line.accepted),
        );
    }
    content.push_str("</tbody>\n</table>\n");
}

fn number(n: Option<u64>) -> String {
    format!("<td class=\"number\">{}</td>", n.map_or_else(|| "–".to_owned(), grouped))
}

fn alarm(text: &str, alarming: bool) -> String {
    let class = if alarming { "number bad-text" } else { "number" };
    format!("<td class=\"{class}\">{text}</td>")
}

fn age(at: Timestamp, now: Timestamp) -> String {
    match (now.as_micros() - at.as_micros()) / 1_000_000 {
        ..=0 => "now".to_owned(),
        seconds @ 1..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_given_in_the_unit_that_suits_it() {
        let ages = [0, 5, 119, 150, 7_200]
            .map(|s| age(Timestamp::MIN, Timestamp::MIN.saturating_add(s * 1_000_000)));
        assert_eq!(ages, ["now", "5 s ago", "119 s ago", "2 min ago", "2 h ago"]);
    }
}
