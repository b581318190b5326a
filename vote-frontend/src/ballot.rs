//! What a voter sends: the option, as a form or as JSON.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use vote_core::{OptionSlug, Poll};
use vote_service::Problem;

/// The most bytes of a body. A vote has about 20.
pub(crate) const MAX_BODY: usize = 1024;

/// How a vote is sent, and so how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Form,
    Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonBallot {
    option: String,
}

impl Format {
    /// By the content type.
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
                "This is not a vote",
                "Send application/x-www-form-urlencoded or application/json.",
            ))
        }
    }

    /// The option chosen, which must be one of the poll.
    pub(crate) fn option(self, poll: &Poll, body: &Bytes) -> Result<OptionSlug, Problem> {
        let malformed = |detail: String| {
            Problem::new(StatusCode::BAD_REQUEST, "malformed-body", "The vote could not be read", detail)
        };
        let chosen = match self {
            Self::Json => {
                let ballot: JsonBallot = serde_json::from_slice(body).map_err(|e| {
                    malformed(format!("Send JSON like {{\"option\": \"{}\"}}: {e}.", first_option(poll)))
                })?;
                ballot.option
            }
            Self::Form => {
                let mut options = form_urlencoded::parse(body).filter(|(name, _)| name == "option");
                match (options.next(), options.next()) {
                    (Some((_, option)), None) => option.into_owned(),
                    (None, _) => return Err(malformed("Choose one of the options.".to_owned())),
                    (Some(_), Some(_)) => return Err(malformed("Choose one option only.".to_owned())),
                }
            }
        };
        poll.option(&chosen).map(|option| option.slug).ok_or_else(|| {
            let options: Vec<&str> = poll.options.iter().map(|option| option.slug.as_str()).collect();
            Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unknown-option",
                "There is no such option",
                format!("This poll has: {}.", options.join(", ")),
            )
        })
    }
}

fn first_option(poll: &Poll) -> &str {
    poll.options.first().map_or("", |option| option.slug.as_str())
}

#[cfg(test)]
mod tests {
    use vote_core::Polls;

    use super::*;

    fn option(format: Format, body: &'static str) -> Result<String, (u16, &'static str)> {
        let polls = Polls::example();
        let read = format.option(polls.get("pets").unwrap(), &Bytes::from_static(body.as_bytes()));
        read.map(String::from).map_err(|problem| (problem.status.as_u16(), problem.code))
    }

    #[test]
    fn both_formats_are_read() {
        assert_eq!(option(Format::Json, r#"{"option": "cats"}"#), Ok("cats".to_owned()));
        assert_eq!(option(Format::Form, "option=dogs"), Ok("dogs".to_owned()));
        assert_eq!(option(Format::Form, "x=1&option=%64ogs"), Ok("dogs".to_owned()));
    }

    #[test]
    fn what_is_no_vote_is_refused() {
        for body in ["", "[]", r#"{"option": 1}"#, r#"{"option": "cats", "x": 1}"#, "option=cats", "{"] {
            assert_eq!(option(Format::Json, body), Err((400, "malformed-body")), "{body}");
        }
        for body in ["", "options=cats", "option=cats&option=dogs"] {
            assert_eq!(option(Format::Form, body), Err((400, "malformed-body")), "{body}");
        }
    }

    #[test]
    fn an_option_that_the_poll_does_not_have_is_refused() {
        assert_eq!(option(Format::Json, r#"{"option": "birds"}"#), Err((422, "unknown-option")));
        assert_eq!(option(Format::Form, "option=Cats"), Err((422, "unknown-option")));
    }

    #[test]
    fn the_content_type_decides() {
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
