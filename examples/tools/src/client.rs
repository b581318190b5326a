//! The client of a voter at one frontend: it posts votes as a browser does, with the voter's cookies.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, COOKIE},
};
use http_body_util::Full;

use crate::{
    cookies::Cookies,
    link::{Answer, Link, NoAnswer},
    outcome::Outcome,
};

/// Answer of a frontend to a vote. Its body is in [`FrontendClient::body`].
#[derive(Debug)]
pub struct VoteAnswer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Whether the answer set a cookie.
    pub sets_cookie: bool,
    /// What the answer tells about the vote.
    pub outcome: Outcome,
}

/// Connection to one frontend over which votes are posted, for one voter at a time.
#[derive(Debug)]
pub struct FrontendClient {
    link: Link,
}

impl FrontendClient {
    /// Creates a client of the frontend to which the link leads.
    #[must_use]
    pub const fn new(link: Link) -> Self {
        Self { link }
    }

    /// Returns the body of the last answer, or the part that was received before the connection broke.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.link.body()
    }

    /// Posts a vote with the cookies of its voter, and keeps the cookies that the answer sets.
    ///
    /// # Errors
    /// Fails if there is no answer; the variant tells whether the frontend can have accepted the vote.
    pub async fn vote(
        &mut self,
        path: &Uri,
        cookies: &mut Cookies,
        body: Bytes,
    ) -> Result<VoteAnswer, NoAnswer> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(cookie) = cookies.header() {
            headers.insert(COOKIE, cookie);
        }
        // The head alone tells whether a vote is stored. If the body is incomplete, only its error code is missing.
        let Answer { status, headers, .. } = self.link.send(request).await?;
        let sets_cookie = cookies.take(&headers);
        let outcome = Outcome::of(status, self.link.body());
        Ok(VoteAnswer { status, headers, sets_cookie, outcome })
    }
}
