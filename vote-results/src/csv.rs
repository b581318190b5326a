//! `results.csv`: the outcome of a poll for spreadsheets (RFC 4180). Pure.

use std::{borrow::Cow, fmt::Write};

use crate::snapshot::{Outcome, Snapshot};

/// Characters at the start of a cell that make spreadsheets evaluate it as a formula; see OWASP, "CSV Injection". The
/// last four are full-width forms that some spreadsheets treat like the first four.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// Returns the columns `option,label,votes,percent`, or none if the figures are withheld.
///
/// A label that a spreadsheet could evaluate as a formula is prefixed with an apostrophe, which marks the cell as text.
/// Slugs are not changed: programs look up rows by them, and letters, digits and hyphens can't call a function.
#[must_use]
pub fn csv(snapshot: &Snapshot) -> Option<String> {
    let Outcome::Shown { options, .. } = &snapshot.outcome else { return None };
    let mut csv = String::from("option,label,votes,percent\r\n");
    for option in options {
        let label = harmless(&option.label);
        // Writing to a String can't fail.
        let _ = write!(csv, "{},{},{},{}\r\n", option.option, quoted(&label), option.votes, option.percent);
    }
    Some(csv)
}

fn harmless(label: &str) -> Cow<'_, str> {
    // Some spreadsheets strip leading spaces first.
    if label.trim_start_matches(' ').starts_with(FORMULA) {
        Cow::Owned(format!("'{label}"))
    } else {
        Cow::Borrowed(label)
    }
}

fn quoted(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\r', '\n']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use vote_core::{
        Poll, Polls,
        count::{PollSummary, RegisteredPoll},
        poll::ResultsFrom,
    };

    use super::*;

    fn labelled(label: &str, results: ResultsFrom) -> Option<String> {
        let mut poll = Poll { results, ..Polls::example().get("pets").unwrap().clone() };
        label.clone_into(&mut poll.options[0].label);
        let tally = vec![("cats".parse().unwrap(), 2), ("dogs".parse().unwrap(), 1)];
        let counted = PollSummary { poll: RegisteredPoll::from(&poll), tally, tally_changed_at: None };
        csv(&Snapshot::new(&poll, Some(&counted)))
    }

    fn first_row(label: &str) -> String {
        let csv = labelled(label, ResultsFrom::Live).unwrap();
        csv.strip_prefix("option,label,votes,percent\r\n")
            .and_then(|rows| rows.strip_suffix("dogs,Dogs,1,33.3\r\n"))
            .unwrap()
            .to_owned()
    }

    #[test]
    fn a_row_has_option_label_votes_and_percent() {
        assert_eq!(first_row("Cats"), "cats,Cats,2,66.7\r\n");
    }

    #[test]
    fn labels_that_would_break_a_row_are_quoted() {
        assert_eq!(first_row("Cats, big"), "cats,\"Cats, big\",2,66.7\r\n");
        assert_eq!(first_row("The \"cat\""), "cats,\"The \"\"cat\"\"\",2,66.7\r\n");
        assert_eq!(first_row("Two\nlines"), "cats,\"Two\nlines\",2,66.7\r\n");
    }

    #[test]
    fn a_label_that_looks_like_a_formula_is_marked_as_text() {
        for label in ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "＝1"] {
            assert_eq!(first_row(label), format!("cats,'{label},2,66.7\r\n"), "{label:?}");
        }
        assert_eq!(
            first_row("=HYPERLINK(\"https://x\",\"y\")"),
            "cats,\"'=HYPERLINK(\"\"https://x\"\",\"\"y\"\")\",2,66.7\r\n"
        );
    }

    #[test]
    fn a_harmless_label_is_not_changed() {
        assert_eq!(first_row("Cats = best"), "cats,Cats = best,2,66.7\r\n");
    }

    #[test]
    fn a_withheld_poll_has_no_csv() {
        assert_eq!(labelled("Cats", ResultsFrom::AfterClose), None);
    }
}
