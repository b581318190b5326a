//! HTML pages for voters. They work without scripts.

use std::{collections::HashMap, fmt::Write};

use vote_core::{Poll, PollSlug, Polls, Timestamp, poll::Phase};
use vote_service::respond::escape_html;

const STYLE: &str = include_str!("style.css");

/// Pages rendered once, since most requests are for them.
#[derive(Debug)]
pub(crate) struct Pages {
    polls: HashMap<PollSlug, String>,
    list: String,
}

impl Pages {
    pub(crate) fn new(polls: &Polls) -> Self {
        let mut list = String::from("<h1>Polls</h1><ul>");
        for poll in polls {
            let (slug, title) = (poll.slug, escape_html(&poll.title));
            // Writing to a string can't fail.
            let _ = write!(list, "<li><a href=\"/polls/{slug}\">{title}</a></li>");
        }
        list.push_str("</ul>");
        Self {
            polls: polls.iter().map(|poll| (poll.slug, page(&poll.title, &form(poll, "")))).collect(),
            list: page("Polls", &list),
        }
    }

    pub(crate) fn list(&self) -> String {
        self.list.clone()
    }

    /// Returns the voting form of a poll, or the reason why the poll is not open.
    pub(crate) fn poll(
        &self,
        poll: &Poll,
        phase: Phase,
        closes_at: Option<Timestamp>,
        now: Timestamp,
    ) -> String {
        match (phase, self.polls.get(&poll.slug)) {
            (Phase::Open, Some(page)) => page.clone(),
            _ => page(
                &poll.title,
                &format!("<h1>{}</h1><p>{}</p>", escape_html(&poll.title), shut(poll, phase, closes_at, now)),
            ),
        }
    }
}

/// Returns the voting form for a browser that sent a vote without a cookie, and gets one with this page.
pub(crate) fn vote_again(poll: &Poll) -> String {
    let note = "<p class=note role=alert>Your vote was <strong>not counted</strong>: your browser did not send the \
                cookie that tells voters apart. It has one now, so please vote again. If you see this message again, \
                allow cookies for this site.</p>";
    page(&poll.title, &form(poll, note))
}

/// Returns the sentence that tells a voter why a poll is not open.
pub(crate) fn shut(poll: &Poll, phase: Phase, closes_at: Option<Timestamp>, now: Timestamp) -> String {
    match (phase, poll.opens_at, closes_at) {
        (Phase::NotYetOpen, Some(at), _) => format!("This poll opens at {at}."),
        (Phase::Closed, _, Some(at)) if at <= now => {
            format!("This poll closed at {at}. Thank you for your interest.")
        }
        (Phase::Closed, ..) => "This poll is closed. Thank you for your interest.".to_owned(),
        _ => "This poll does not accept votes at the moment.".to_owned(),
    }
}

/// Returns the receipt page of an accepted vote.
pub(crate) fn receipt(poll: &Poll, receipt: &str, results_url: Option<&str>) -> String {
    let title = escape_html(&poll.title);
    let mut body = format!(
        "<h1>Your vote is in</h1><p class=note>{title}<br>It was written to disk before this page was sent.</p>"
    );
    if let Some(url) = results_url {
        let (url, slug) = (escape_html(url), poll.slug);
        let _ = write!(
            body,
            "<p><a href=\"{url}/receipts/{receipt}\">Check whether it has been counted</a><br>\
             <a href=\"{url}/polls/{slug}\">See the results</a></p>"
        );
    }
    let _ = write!(
        body,
        "<p class=small>Keep the address of this page: it is your receipt. It reveals neither who you are nor what you \
         chose.</p>"
    );
    page("Your vote is in", &body)
}

fn form(poll: &Poll, note: &str) -> String {
    let (slug, title) = (poll.slug, escape_html(&poll.title));
    let mut options = String::new();
    for option in &poll.options {
        let (slug, label) = (option.slug, escape_html(&option.label));
        let _ = write!(
            options,
            "<label><input type=radio name=option value=\"{slug}\" required> {label}</label>"
        );
    }
    format!(
        "<h1>{title}</h1>{note}<form method=post action=\"/polls/{slug}/votes\">\
         <fieldset><legend>Choose one</legend>{options}</fieldset><button>Vote</button></form>"
    )
}

fn page(title: &str, body: &str) -> String {
    let title = escape_html(title);
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <link rel=icon href=\"data:,\"><style>{STYLE}</style></head><body><main>{body}</main></body></html>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_the_file_of_polls_is_escaped() {
        let file = r#"
            [[poll]]
            slug = "p"
            title = "<script>&\"'"
            options = [{ slug = "a", label = "<b>A" }, { slug = "b", label = "B" }]
        "#;
        let polls = Polls::from_toml("polls.toml", file).unwrap();
        let poll = polls.get("p").unwrap();
        let pages = Pages::new(&polls);
        for page in [
            pages.list(),
            pages.poll(poll, Phase::Open, None, Timestamp::MIN),
            vote_again(poll),
            receipt(poll, "r", Some("http://x")),
        ] {
            assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
        }
    }

    #[test]
    fn a_closed_poll_has_no_form() {
        let polls = Polls::example();
        let page = Pages::new(&polls).poll(polls.get("pets").unwrap(), Phase::Closed, None, Timestamp::MAX);
        assert!(page.contains("Cats or dogs?") && !page.contains("<form"), "{page}");
    }
}
