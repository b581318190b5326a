//! Response bodies with an entity tag (`ETag`), so that a client can revalidate its copy instead of fetching it again.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
};
use sha2::{Digest, Sha256};
use vote_service::{Body, body};

/// `Cache-Control` of results. The store is read once a second, so a cache in front adds at most one more.
pub(crate) const RESULTS: HeaderValue = HeaderValue::from_static("public, max-age=1");
/// `Cache-Control` of responses for one person only, and of responses that may change at any moment.
pub(crate) const NEVER: HeaderValue = HeaderValue::from_static("no-store");

/// Bytes and their strong entity tag. The tag is derived from the bytes, so all processes agree on it.
#[derive(Debug, Clone)]
pub struct Cached {
    bytes: Bytes,
    etag: HeaderValue,
}

impl Cached {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let hash = Sha256::digest(&bytes);
        let mut tag = String::with_capacity(34);
        tag.push('"');
        for byte in &hash[..16] {
            // Writing to a String can't fail.
            let _ = std::fmt::Write::write_fmt(&mut tag, format_args!("{byte:02x}"));
        }
        tag.push('"');
        let etag = HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""));
        Self { bytes, etag }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Responds with the bytes, or with 304 (Not Modified) if the client already has them.
    pub(crate) fn respond(
        &self,
        request: &HeaderMap,
        content_type: &'static str,
        cache_control: HeaderValue,
    ) -> Response<Body> {
        let mut response = if self.is_known(request) {
            let mut response = Response::new(body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            let mut response = Response::new(body::full(self.bytes.clone()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            response
        };
        response.headers_mut().insert(CACHE_CONTROL, cache_control);
        response.headers_mut().insert(ETAG, self.etag.clone());
        response
    }

    /// Whether `If-None-Match` names the tag. RFC 9110, section 13.1.2: tags are compared weakly, and `*` matches any.
    fn is_known(&self, request: &HeaderMap) -> bool {
        request.get_all(IF_NONE_MATCH).iter().any(|value| {
            value
                .as_bytes()
                .split(|b| *b == b',')
                .map(<[u8]>::trim_ascii)
                .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == self.etag.as_bytes())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(cached: &Cached, if_none_match: &[&str]) -> StatusCode {
        let request = if_none_match.iter().map(|value| (IF_NONE_MATCH, value.parse().unwrap())).collect();
        cached.respond(&request, "text/plain", RESULTS).status()
    }

    #[test]
    fn a_matching_tag_is_answered_with_not_modified() {
        let cached = Cached::new("cats");
        let tag = cached.etag.to_str().unwrap().to_owned();
        for known in
            [&[tag.as_str()][..], &["*"], &[&format!("W/{tag}")], &["\"x\"", &format!("\"y\", {tag}")]]
        {
            assert_eq!(status(&cached, known), StatusCode::NOT_MODIFIED, "{known:?}");
        }
    }

    #[test]
    fn any_other_tag_is_answered_with_the_bytes() {
        let cached = Cached::new("cats");
        let other = Cached::new("dogs").etag.to_str().unwrap().to_owned();
        for unknown in [&[][..], &[other.as_str()], &["\"\""]] {
            assert_eq!(status(&cached, unknown), StatusCode::OK, "{unknown:?}");
        }
    }
}
