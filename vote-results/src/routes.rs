//! The public addresses, in one table: the router knows no others.

/// What an address shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Home,
    LiveJs,
    Status,
    StatusJson,
    Receipt,
    PollPage,
    PollJson,
    PollCsv,
    PollEvents,
}

/// Each route with its address. A segment in braces stands for any text that is not empty; there is at most one.
const TABLE: &[(&str, Route)] = &[
    ("/", Route::Home),
    ("/live.js", Route::LiveJs),
    ("/status", Route::Status),
    ("/status.json", Route::StatusJson),
    ("/receipts/{receipt}", Route::Receipt),
    ("/polls/{poll}", Route::PollPage),
    ("/polls/{poll}/results.json", Route::PollJson),
    ("/polls/{poll}/results.csv", Route::PollCsv),
    ("/polls/{poll}/events", Route::PollEvents),
];

/// Every public address, as in `/polls/{poll}`: whatever has to hold for all of them can be tried on all of them.
pub fn templates() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(template, _)| *template)
}

impl Route {
    /// The route of a path, and the text that stands for the segment in braces; empty where there is none.
    pub(crate) fn of(path: &str) -> Option<(Self, &str)> {
        TABLE.iter().find_map(|(template, route)| Some((*route, parameter(template, path)?)))
    }
}

fn parameter<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    let mut found = "";
    let (mut template, mut path) = (template.split('/'), path.split('/'));
    loop {
        match (template.next(), path.next()) {
            (None, None) => return Some(found),
            (Some(expected), Some(segment)) if expected.starts_with('{') && !segment.is_empty() => {
                found = segment
            }
            (Some(expected), Some(segment)) if expected == segment => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_one_route() {
        let cases = [
            ("/", (Route::Home, "")),
            ("/polls/pets", (Route::PollPage, "pets")),
            ("/polls/pets/results.json", (Route::PollJson, "pets")),
            ("/polls/pets/results.csv", (Route::PollCsv, "pets")),
            ("/polls/pets/events", (Route::PollEvents, "pets")),
            ("/receipts/abc", (Route::Receipt, "abc")),
            ("/status", (Route::Status, "")),
            ("/status.json", (Route::StatusJson, "")),
            ("/live.js", (Route::LiveJs, "")),
        ];
        assert_eq!(cases.len(), templates().count());
        for (path, expected) in cases {
            assert_eq!(Route::of(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_is_nearly_a_path_is_none() {
        for path in [
            "",
            "*",
            "//",
            "/polls",
            "/polls/",
            "/polls/pets/",
            "/polls/pets/x",
            "/polls/pets/events/x",
            "/receipts",
            "/receipts/",
            "/receipts/a/b",
            "/status/",
        ] {
            assert_eq!(Route::of(path), None, "{path:?}");
        }
    }
}
