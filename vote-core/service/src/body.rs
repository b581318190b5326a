//! Bodies of requests and responses.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited, combinators::UnsyncBoxBody};

use crate::Problem;

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The body of every response.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// How long a request's body may take. Half of what a request may take as a whole, so that a slow sender is told so
/// (408) and is not taken for a slow service (503).
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body of no bytes.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Why a request's body could not be read. Becomes a [`Problem`] to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// More bytes than allowed; answer 413.
    #[error("the body is too large")]
    TooLarge,
    /// Not complete after [`BODY_TIMEOUT`]; answer 408.
    #[error("the body took too long to arrive")]
    TooSlow,
    /// The connection broke, or the body is not valid HTTP; answer 400, if anybody still listens.
    #[error("the body could not be read")]
    Unreadable,
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let (status, code, detail) = match error {
            BodyError::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "It is larger than this address takes.")
            }
            BodyError::TooSlow => {
                (StatusCode::REQUEST_TIMEOUT, "body-too-slow", "It did not arrive in time. Please try again.")
            }
            BodyError::Unreadable => {
                (StatusCode::BAD_REQUEST, "body-unreadable", "The request broke off, or is not valid HTTP.")
            }
        };
        Self::new(status, code, "The request could not be read", detail)
    }
}

/// Reads a request's body whole.
///
/// # Errors
/// When it has more than `limit` bytes, takes more than [`BODY_TIMEOUT`], or breaks off.
pub async fn read_body<B>(body: B, limit: usize) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    // A length that is announced need not be read to be refused.
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Err(_) => Err(BodyError::TooSlow),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(_)) => Err(BodyError::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read() {
        assert_eq!(read_body(full("12345"), 5).await, Ok(Bytes::from("12345")));
    }

    #[tokio::test]
    async fn a_larger_one_is_refused() {
        assert_eq!(read_body(full("123456"), 5).await, Err(BodyError::TooLarge));
    }
}
