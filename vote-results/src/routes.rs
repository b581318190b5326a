//! The table of all public addresses. The router serves no others.

/// A public route.
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

/// Each route with its path template. A segment in braces matches any non-empty text; a template has at most one.
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

/// Returns the path template of every public route, such as `/polls/{poll}`, so that tests can cover all of them.
pub fn templates() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(template, _)| *template)
}

impl Route {
    /// Returns the route of a path and the text of its segment in braces, which is empty if the template has none.
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
    fn near_misses_have_no_route() {
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
