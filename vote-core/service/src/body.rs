//! Bodies of requests and responses.

use std::{error::Error, time::Duration};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::{BodyExt, Either, Full, combinators::UnsyncBoxBody};

use crate::Problem;

/// Boxed error of any type.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Body type of every response: bytes, or a stream of them.
pub type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, BoxError>>;

/// Time limit for reading a request's body. Half of the default time limit of a request, so that a slow sender is told
/// so (408) and is not mistaken for a slow service (503).
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns a body with these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(bytes.into()))
}

/// Returns an empty body.
#[must_use]
pub fn empty() -> Body {
    Either::Left(Full::default())
}

/// Returns a body of which parts come later.
pub fn stream(body: impl http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static) -> Body {
    Either::Right(body.boxed_unsync())
}

/// Why a request's body could not be read. Converts into a [`Problem`] to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The body has more bytes than allowed; answer 413.
    #[error("the body is too large")]
    TooLarge,
    /// The body was not complete after [`BODY_TIMEOUT`]; answer 408.
    #[error("the body took too long to arrive")]
    TooSlow,
    /// The connection broke, or the body is not valid HTTP; answer 400, in case the client still reads.
    #[error("the body could not be read")]
    Unreadable,
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let (status, code, detail) = match error {
            BodyError::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Its body is larger than allowed.")
            }
            BodyError::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "body-too-slow",
                "Its body did not arrive in time. Please try again.",
            ),
            BodyError::Unreadable => {
                (StatusCode::BAD_REQUEST, "body-unreadable", "Its body was cut short or is not valid HTTP.")
            }
        };
        Self::new(status, code, "The request could not be read", detail)
    }
}

/// Reads the complete body of a request.
///
/// # Errors
/// Fails if the body has more than `limit` bytes, takes longer than [`BODY_TIMEOUT`], or is cut short.
pub async fn read_body<B>(body: B, limit: usize) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes>,
{
    // A body whose announced length exceeds the limit is refused without reading it.
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let complete = tokio::time::timeout(BODY_TIMEOUT, collect(body, limit)).await;
    complete.unwrap_or(Err(BodyError::TooSlow))
}

async fn collect<B>(body: B, limit: usize) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes>,
{
    let (mut body, mut bytes) = (std::pin::pin!(body), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Unreadable)?.into_data() else { continue };
        if data.len() > limit - bytes.len() {
            return Err(BodyError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read() {
        assert_eq!(read_body(full("12345"), 5).await, Ok(Bytes::from("12345")));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        assert_eq!(read_body(full("123456"), 5).await, Err(BodyError::TooLarge));
    }
}
