//! The HTML pages. They work without JavaScript and load nothing from other sites. Pure.

use std::fmt::Write;

use vote_core::{Poll, Timestamp};
use vote_service::respond::escape_html as escape;

use crate::{
    snapshot::{OptionName, OptionVotes, Outcome, Status},
    state::{Stale, View},
    thousands::grouped,
};

pub mod receipt;
pub mod status;

/// The script that keeps the page of a poll up to date.
pub(crate) const LIVE_JS: &str = include_str!("pages/live.js");
const STYLE: &str = include_str!("pages/style.css");

/// Interval in seconds at which pages reload where they do not update by JavaScript.
const REFRESH: u32 = 5;

/// Wraps content in a complete page. `head` and `content` must already be HTML.
fn page(title: &str, head: &str, content: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>{STYLE}</style>\n{head}</head>\n<body>\n\
         <header><a href=\"/\">Results</a> <a href=\"/status\">Status</a></header>\n\
         <main>\n{content}</main>\n\
         <footer>Each voter has one vote per poll.</footer>\n</body>\n</html>\n"
    )
}

/// Renders `/`, the list of polls.
#[must_use]
pub fn home<'a>(polls: impl IntoIterator<Item = &'a Poll>) -> String {
    let mut content = String::from("<h1>Results</h1>\n<ul class=\"polls\">\n");
    for poll in polls {
        let _ = writeln!(content, "<li><a href=\"/polls/{}\">{}</a></li>", poll.slug, escape(&poll.title));
    }
    content.push_str("</ul>\n");
    page("Results", "", &content)
}

/// Renders `/polls/{poll}`.
#[must_use]
pub fn poll(poll: &Poll, view: &View, stale: Option<&Stale>, frontend_url: Option<&str>) -> String {
    let snapshot = &view.snapshot;
    let slug = snapshot.poll;
    let status = snapshot.status.as_str();
    let mut content = format!(
        "<div data-poll=\"{slug}\" data-status=\"{status}\" data-withheld=\"{withheld}\">\n<h1>{title}</h1>\n\
         <p><span class=\"badge {status}\">{status}</span> \
         <span class=\"badge live\" data-live hidden>live</span></p>\n",
        withheld = snapshot.is_withheld(),
        title = escape(&snapshot.title),
    );
    if let Some(stale) = stale {
        let _ = writeln!(
            content,
            "<p class=\"note\" role=\"status\">These numbers may be out of date: they could not be updated since {}. \
             Votes are not affected. <a href=\"/status\">More</a></p>",
            time(stale.since, "")
        );
    }
    match &snapshot.outcome {
        Outcome::Shown { total, options } => shown(&mut content, *total, options),
        Outcome::Withheld { options } => withheld(&mut content, options),
    }
    let changed = snapshot.updated_at.map_or_else(
        || "<time data-updated>none yet</time>".to_owned(),
        |updated_at| time(updated_at, " data-updated"),
    );
    let _ = writeln!(content, "<p class=\"soft\">Last change: {changed}");
    if let (Some(closes_at), Status::Provisional) = (poll.closes_at, snapshot.status) {
        let _ = writeln!(content, "· voting ends at {}", time(closes_at, ""));
    }
    content.push_str("</p>\n<p class=\"links\">");
    if let Some(url) = frontend_url {
        let _ = write!(content, "<a class=\"main\" href=\"{}/polls/{slug}\">Vote</a> ", escape(url));
    }
    let _ = write!(content, "<a href=\"/polls/{slug}/results.json\">JSON</a> ");
    if !snapshot.is_withheld() {
        let _ = write!(content, "<a href=\"/polls/{slug}/results.csv\">CSV</a> ");
    }
    content.push_str("<a href=\"/status\">Counting status</a></p>\n</div>\n");
    // Reload only without JavaScript: with it, the script updates the numbers.
    let head = format!(
        "<script src=\"/live.js\" defer></script>\n\
         <noscript><meta http-equiv=\"refresh\" content=\"{REFRESH}\"></noscript>\n"
    );
    page(&snapshot.title, &head, &content)
}

fn shown(content: &mut String, total: u64, options: &[OptionVotes]) {
    content.push_str(
        "<table class=\"results\">\n<caption>Votes and share of each option</caption>\n\
         <thead><tr><th scope=\"col\">Option</th><th scope=\"col\" class=\"number\">Votes</th>\
         <th scope=\"col\" colspan=\"2\" class=\"number\">Share</th></tr></thead>\n<tbody>\n",
    );
    for OptionVotes { option, label, votes, percent } in options {
        let label = escape(label);
        let _ = writeln!(
            content,
            "<tr data-option=\"{option}\"><th scope=\"row\">{label}</th>\
             <td class=\"number\" data-votes>{votes}</td>\
             <td class=\"bar\"><div class=\"track\" role=\"meter\" aria-label=\"Share of {label}\" aria-valuemin=\"0\" \
             aria-valuemax=\"100\" aria-valuenow=\"{percent}\" aria-valuetext=\"{percent}%\">\
             <div style=\"width:{percent}%\"></div></div></td>\
             <td class=\"number\" data-percent>{percent}%</td></tr>",
            votes = grouped(*votes),
        );
    }
    let _ = writeln!(
        content,
        "</tbody>\n<tfoot><tr><th scope=\"row\">Total</th><td class=\"number\" data-total>{}</td>\
         <td colspan=\"2\"></td></tr></tfoot>\n</table>",
        grouped(total)
    );
}

fn withheld(content: &mut String, options: &[OptionName]) {
    content.push_str(
        "<p class=\"note\">The results of this poll will be published once it has closed and every vote has been \
         counted.</p>\n<h2>Options</h2>\n<ul>\n",
    );
    for OptionName { option, label } in options {
        let _ = writeln!(content, "<li data-option=\"{option}\">{}</li>", escape(label));
    }
    content.push_str("</ul>\n");
}

/// Formats a time for people, to the second. `attributes` must be HTML attributes for the tag, or empty.
fn time(at: Timestamp, attributes: &str) -> String {
    let exact = at.to_string();
    let shown = exact.get(..19).unwrap_or(&exact).replace('T', " ");
    format!("<time datetime=\"{exact}\"{attributes}>{shown} UTC</time>")
}

#[cfg(test)]
mod tests {
    use vote_core::{
        Polls,
        count::{PollSummary, RegisteredPoll},
        poll::ResultsFrom,
    };

    use super::*;
    use crate::snapshot::Snapshot;

    fn rendered(change: impl FnOnce(&mut Poll)) -> String {
        let mut pets = Polls::example().get("pets").unwrap().clone();
        change(&mut pets);
        let tally = vec![("cats".parse().unwrap(), 4321), ("dogs".parse().unwrap(), 1234)];
        let poll_of_store = RegisteredPoll::from(&pets);
        let counted = PollSummary { poll: poll_of_store, tally, tally_changed_at: Some(Timestamp::MIN) };
        let view = View::new(Snapshot::new(&pets, Some(&counted)));
        poll(&pets, &view, None, Some("https://vote.example"))
    }

    #[test]
    fn a_page_shows_each_option_with_votes_share_and_bar() {
        let page = rendered(|_| ());
        for part in
            ["Cats or dogs?", ">Cats</th>", ">4,321<", ">77.8%<", "width:77.8%", ">5,555<", "provisional"]
        {
            assert!(page.contains(part), "{part} in {page}");
        }
    }

    #[test]
    fn a_page_links_to_the_voting_site_the_files_and_the_status() {
        let page = rendered(|_| ());
        for link in [
            "https://vote.example/polls/pets",
            "/polls/pets/results.json",
            "/polls/pets/results.csv",
            "/status",
        ] {
            assert!(page.contains(&format!("href=\"{link}\"")), "{link}");
        }
    }

    #[test]
    fn titles_and_labels_are_escaped() {
        let evil = "<script>alert('x')</script>\" onload=\"y";
        let page = rendered(|poll| {
            evil.clone_into(&mut poll.title);
            evil.clone_into(&mut poll.options[0].label);
        });
        assert!(!page.contains("<script>alert") && !page.contains("onload=\"y"), "{page}");
        assert!(page.contains("&lt;script&gt;alert"), "{page}");
    }

    #[test]
    fn the_page_of_a_withheld_poll_lists_the_options_without_numbers() {
        let page = rendered(|poll| poll.results = ResultsFrom::AfterClose);
        assert!(page.contains("Cats") && page.contains("published once it has closed"), "{page}");
        for number in ["4,321", "4321", "1,234", "1234", "5,555", "5555", "77.8", "results.csv"] {
            assert!(!page.contains(number), "{number} in {page}");
        }
    }

    #[test]
    fn a_page_reloads_only_without_javascript() {
        let page = rendered(|_| ());
        assert_eq!(page.matches("http-equiv=\"refresh\"").count(), 1);
        assert!(page.contains("<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>"));
    }
}
