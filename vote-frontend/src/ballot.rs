//! Body of a vote request: the chosen option, as a form or as JSON.

use std::borrow::Cow;

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use vote_core::{OptionSlug, Poll};
use vote_service::Problem;

/// Maximum size of a body in bytes. A vote has about 20.
pub(crate) const MAX_BODY: usize = 1024;

/// Format of a vote request, which also decides the format of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Form,
    Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonBallot<'a> {
    #[serde(borrow)]
    option: Cow<'a, str>,
}

impl Format {
    /// Returns the format that the content type names.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let value =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = value.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Ok(Self::Json)
        } else if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Ok(Self::Form)
        } else {
            Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-content-type",
                "Unsupported content type",
                "Send application/x-www-form-urlencoded or application/json.",
            ))
        }
    }

    /// Returns the name of the chosen option, which the poll may not have.
    pub(crate) fn chosen<'a>(self, poll: &Poll, body: &'a [u8]) -> Result<Cow<'a, str>, Problem> {
        let malformed = |detail: String| {
            Problem::new(StatusCode::BAD_REQUEST, "malformed-body", "The vote could not be read", detail)
        };
        match self {
            Self::Json => {
                let ballot: JsonBallot<'_> = serde_json::from_slice(body).map_err(|e| {
                    malformed(format!("Send JSON like {{\"option\": \"{}\"}}: {e}.", first_option(poll)))
                })?;
                Ok(ballot.option)
            }
            Self::Form => {
                let mut options = form_urlencoded::parse(body).filter(|(name, _)| name == "option");
                match (options.next(), options.next()) {
                    (Some((_, option)), None) => Ok(option),
                    (None, _) => Err(malformed("Choose one of the options.".to_owned())),
                    (Some(_), Some(_)) => Err(malformed("Choose one option only.".to_owned())),
                }
            }
        }
    }
}

/// Returns the poll's option with this name.
pub(crate) fn option(poll: &Poll, chosen: &str) -> Result<OptionSlug, Problem> {
    poll.option(chosen).map(|option| option.slug).ok_or_else(|| {
        let options: Vec<&str> = poll.options.iter().map(|option| option.slug.as_str()).collect();
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown-option",
            "Unknown option",
            format!("The options of this poll are: {}.", options.join(", ")),
        )
    })
}

fn first_option(poll: &Poll) -> &str {
    poll.options.first().map_or("", |option| option.slug.as_str())
}

#[cfg(test)]
mod tests {
    use vote_core::Polls;

    use super::*;

    fn read(format: Format, body: &'static str) -> Result<String, (u16, &'static str)> {
        let polls = Polls::example();
        let poll = polls.get("pets").unwrap();
        let chosen = format.chosen(poll, body.as_bytes());
        let read = chosen.and_then(|chosen| option(poll, &chosen));
        read.map(String::from).map_err(|problem| (problem.status.as_u16(), problem.code))
    }

    #[test]
    fn both_formats_are_read() {
        assert_eq!(read(Format::Json, r#"{"option": "cats"}"#), Ok("cats".to_owned()));
        assert_eq!(read(Format::Form, "option=dogs"), Ok("dogs".to_owned()));
        assert_eq!(read(Format::Form, "x=1&option=%64ogs"), Ok("dogs".to_owned()));
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for body in ["", "[]", r#"{"option": 1}"#, r#"{"option": "cats", "x": 1}"#, "option=cats", "{"] {
            assert_eq!(read(Format::Json, body), Err((400, "malformed-body")), "{body}");
        }
        for body in ["", "options=cats", "option=cats&option=dogs"] {
            assert_eq!(read(Format::Form, body), Err((400, "malformed-body")), "{body}");
        }
    }

    #[test]
    fn unknown_options_are_refused() {
        assert_eq!(read(Format::Json, r#"{"option": "birds"}"#), Err((422, "unknown-option")));
        assert_eq!(read(Format::Form, "option=Cats"), Err((422, "unknown-option")));
    }

    #[test]
    fn the_content_type_selects_the_format() {
        let format = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            Format::of(&headers).map_err(|problem| problem.status.as_u16())
        };
        assert_eq!(format("application/json; charset=utf-8"), Ok(Format::Json));
        assert_eq!(format("Application/X-WWW-Form-Urlencoded"), Ok(Format::Form));
        assert_eq!(format("text/plain"), Err(415));
        assert_eq!(format("multipart/form-data; boundary=x"), Err(415));
        assert_eq!(Format::of(&HeaderMap::new()).map_err(|p| p.status.as_u16()), Err(415));
    }
}
