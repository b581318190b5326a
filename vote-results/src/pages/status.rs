//! The status page of the pipeline, and `status.json` with the same content.

use std::fmt::Write;

use serde::Serialize;
use vote_core::{Timestamp, count::QueueState};
use vote_service::respond::escape_html as escape;

use super::{page, time};
use crate::{
    disclosure::Figures,
    pipeline::{PollLine, QueueLine},
    state::{Stale, State},
    thousands::grouped,
};

/// The content of `status.json`.
#[derive(Debug, Serialize)]
pub struct StatusJson<'a> {
    /// The current outage of the store, if there is one.
    pub stale: Option<&'a Stale>,
    /// Time of the last successful read of the store.
    pub read_at: Option<String>,
    /// The queues as of the last read; none if the store has never been read.
    pub queues: Option<&'a [QueueLine]>,
    /// The polls as of the last read; none if the store has never been read.
    pub polls: Option<&'a [PollLine]>,
}

impl<'a> StatusJson<'a> {
    /// Collects the content from the latest state.
    #[must_use]
    pub fn new(state: &'a State, read_at: Option<Timestamp>) -> Self {
        let pipeline = state.reading.as_ref().map(|reading| reading.pipeline());
        Self {
            stale: state.stale.as_ref(),
            read_at: read_at.map(|at| at.to_string()),
            queues: pipeline.map(|pipeline| &pipeline.queues[..]),
            polls: pipeline.map(|pipeline| &pipeline.polls[..]),
        }
    }
}

/// Renders `/status`.
#[must_use]
pub fn status(state: &State, read_at: Option<Timestamp>, now: Timestamp) -> String {
    let mut content = String::from("<h1>Counting status</h1>\n");
    if let Some(stale) = &state.stale {
        let _ = writeln!(
            content,
            "<p class=\"note\" role=\"status\">These figures could not be updated since {}: {}</p>",
            time(stale.since, ""),
            escape(&stale.reason)
        );
    }
    match read_at {
        Some(at) => {
            let _ = writeln!(content, "<p class=\"soft\">The store was last read {}.</p>", time(at, ""));
        }
        None => content.push_str("<p>The store has not been read yet.</p>\n"),
    }
    if let Some(reading) = &state.reading {
        polls(&mut content, &reading.pipeline().polls);
        queues(&mut content, &reading.pipeline().queues, now);
    }
    content.push_str("<p class=\"links\"><a href=\"/status.json\">JSON</a></p>\n");
    page("Counting status", "<meta http-equiv=\"refresh\" content=\"5\">\n", &content)
}

fn polls(content: &mut String, polls: &[PollLine]) {
    content.push_str(
        "<h2>Polls</h2>\n<table class=\"status\">\n<caption>Every accepted vote is accounted for: accepted = new voters + \
         superseded + quarantined, so the residual is 0. Votes that retired queues lost are not in it.</caption>\n\
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
        let figures = match &line.figures {
            Figures::Shown(figures) => [
                number(Some(figures.accepted)),
                number(Some(figures.new_voters)),
                number(Some(figures.superseded)),
                alarm(&figures.quarantined.to_string(), figures.quarantined != 0),
                alarm(&figures.residual.to_string(), figures.residual != 0),
            ],
            Figures::Withheld => {
                let residual = if line.conserved { number(None) } else { alarm("not 0", true) };
                [number(None), number(None), number(None), number(None), residual]
            }
        };
        let (problem, figures) = (problem.unwrap_or_default(), figures.concat());
        let _ = writeln!(content, "<tr><th scope=\"row\">{name}{problem}</th>{figures}</tr>");
    }
    content.push_str("</tbody>\n</table>\n");
    if polls.iter().any(PollLine::is_withheld) {
        content.push_str(
            "<p class=\"soft\">– marks a number that is withheld until the poll is final. The figures of queues are \
             withheld as long as those of any poll are.</p>\n",
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
        "<table class=\"status\">\n<caption>As last reported by workers</caption>\n\
         <thead><tr><th scope=\"col\">Queue</th><th scope=\"col\">Last seen</th>\
         <th scope=\"col\" class=\"number\">Accepted</th><th scope=\"col\" class=\"number\">Queued</th>\
         <th scope=\"col\">State</th></tr></thead>\n<tbody>\n",
    );
    for line in queues {
        let figures = line.figures.shown();
        let reason = figures.map(|figures| escape(&figures.reason)).unwrap_or_default();
        let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let state = match line.state {
            QueueState::Active => "<td><span class=\"badge good\">active</span></td>".to_owned(),
            QueueState::Diverged => format!(
                "<td><span class=\"badge bad\">diverged</span><br><small class=\"bad-text\">its content contradicts \
                 what was read before; what is left of it is read again under a new id{because}</small></td>"
            ),
            QueueState::Retired => {
                format!("<td><span class=\"badge\">retired</span><br><small>{reason}</small></td>")
            }
        };
        let of = match line.original_id {
            Some(of) => format!("<br><small>replaced queue, formerly <code>{of}</code></small>"),
            None => String::new(),
        };
        let _ = writeln!(
            content,
            "<tr><th scope=\"row\">{}<br><code>{}</code>{of}</th><td>{}<br><small class=\"soft\">{}</small></td>\
             {}{}{state}</tr>",
            escape(&line.address),
            line.queue,
            time(line.seen_at, ""),
            age(line.seen_at, now),
            number(figures.map(|figures| figures.accepted)),
            number(figures.map(|figures| figures.queued)),
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
    fn ages_are_shown_in_a_suitable_unit() {
        let ages = [0, 5, 119, 150, 7_200]
            .map(|s| age(Timestamp::MIN, Timestamp::MIN.saturating_add(s * 1_000_000)));
        assert_eq!(ages, ["now", "5 s ago", "119 s ago", "2 min ago", "2 h ago"]);
    }
}
