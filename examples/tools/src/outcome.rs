//! What an answer tells about a vote.

use http::StatusCode;

/// Outcome of one request that carried a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 202: the vote is stored.
    Acknowledged,
    /// 4xx: the vote is not stored, and would not be if it were sent again.
    Refused,
    /// 5xx, with an error code that says that the vote is not stored.
    NotStored,
    /// There was no answer, or one that does not tell whether the vote is stored.
    Unknown,
}

impl Outcome {
    /// Returns the outcome that an answer with this status and body implies.
    #[must_use]
    pub fn of(status: StatusCode, body: &[u8]) -> Self {
        if status == StatusCode::ACCEPTED {
            return Self::Acknowledged;
        }
        if status.is_client_error() {
            return Self::Refused;
        }
        match error_code(body).as_str() {
            "not-stored" | "overloaded" | "no-random-numbers" | "poll-differs" | "poll-not-ready" => {
                Self::NotStored
            }
            _ => Self::Unknown,
        }
    }

    /// Returns whether the vote is stored for all that is known, or may be.
    #[must_use]
    pub const fn may_be_stored(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Unknown)
    }
}

/// Returns the error code in the body of an answer, or an empty text if there is none.
#[must_use]
pub fn error_code(body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let code = problem.as_ref().and_then(|problem| problem["error"].as_str());
    code.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome_of(status: u16, body: &str) -> Outcome {
        Outcome::of(StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn a_vote_counts_as_refused_only_if_the_answer_says_that_it_is_not_stored() {
        assert_eq!(outcome_of(202, "{}"), Outcome::Acknowledged);
        assert_eq!(outcome_of(503, r#"{"error": "not-stored"}"#), Outcome::NotStored);
        assert_eq!(outcome_of(503, r#"{"error": "overloaded"}"#), Outcome::NotStored);
        assert_eq!(outcome_of(403, r#"{"error": "poll-closed"}"#), Outcome::Refused);
        assert_eq!(outcome_of(503, r#"{"error": "poll-differs"}"#), Outcome::NotStored);
        assert_eq!(outcome_of(503, r#"{"error": "poll-not-ready"}"#), Outcome::NotStored);
        assert_eq!(outcome_of(503, r#"{"error": "unknown-outcome"}"#), Outcome::Unknown);
        assert_eq!(outcome_of(503, r#"{"error": "timeout"}"#), Outcome::Unknown);
        assert_eq!(outcome_of(503, ""), Outcome::Unknown);
        assert_eq!(outcome_of(500, "oops"), Outcome::Unknown);
        for stored in [Outcome::Acknowledged, Outcome::Unknown] {
            assert!(stored.may_be_stored() && !Outcome::Refused.may_be_stored());
        }
        assert!(!Outcome::NotStored.may_be_stored());
    }
}
