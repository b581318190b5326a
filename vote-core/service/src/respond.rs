//! Responses: pages, JSON, redirects, and errors explained in the form that the client reads.

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use serde::Serialize;

use crate::body::{self, Body};

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Returns an HTML page. Any text in it that people wrote must already be escaped by [`escape_html`].
#[must_use]
pub fn html(status: StatusCode, page: String) -> Response<Body> {
    response(status, HTML, page.into())
}

/// Returns a value as JSON. A value that can't be serialized is a bug, which is logged and answered with 500.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => response(status, JSON, bytes.into()),
        Err(e) => {
            tracing::error!("a response can't be serialized as JSON: {e}");
            problem(true, Problem::internal())
        }
    }
}

/// Returns plain text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    response(status, TEXT, text.into())
}

/// Redirects with 303: the browser gets `location`, and reloading it does not repeat a POST. A location that is not a
/// valid header value is a bug, which is logged and answered with 500.
#[must_use]
pub fn see_other(location: &str) -> Response<Body> {
    let Ok(location) = HeaderValue::try_from(location) else {
        tracing::error!("invalid location of a redirect: {location:?}");
        return problem(false, Problem::internal());
    };
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, location);
    response
}

/// Adds Retry-After, which asks the client to wait this many seconds before it tries again.
pub fn retry_after<B>(mut response: Response<B>, seconds: u32) -> Response<B> {
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}

fn response(status: StatusCode, content_type: HeaderValue, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Error response, explained to programs and to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Status of the response.
    pub status: StatusCode,
    /// Code for programs, such as `poll-closed`. Part of the interface, so it never changes.
    pub code: &'static str,
    /// A few words for people, such as `This poll is closed`.
    pub title: Cow<'static, str>,
    /// A sentence for people: the reason, and what to do.
    pub detail: Cow<'static, str>,
    /// Seconds to wait before trying again, if that may help.
    pub retry_after: Option<u32>,
}

impl Problem {
    /// Creates a problem without `retry_after`. The arguments are the other fields.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        title: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, title: title.into(), detail: detail.into(), retry_after: None }
    }

    /// Sets the seconds after which trying again may help.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// Returns the problem that stands for a bug in this service. The details belong in the log.
    pub(crate) fn internal() -> Self {
        let (title, detail) =
            ("Something went wrong", "This is not your fault. Please try again in a moment.");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, detail)
    }
}

#[derive(Serialize)]
struct ProblemJson<'a> {
    error: &'a str,
    message: String,
}

/// Renders a problem as JSON, `{"error": code, "message": "title: detail"}`, or as a small page.
#[must_use]
pub fn problem(wants_json: bool, problem: Problem) -> Response<Body> {
    let Problem { status, code, title, detail, retry_after: seconds } = problem;
    let mut response = if wants_json {
        json(status, &ProblemJson { error: code, message: format!("{title}: {detail}") })
    } else {
        html(status, page(&title, &detail))
    };
    // The same request may succeed the next time, so no cache may keep the error.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match seconds {
        Some(seconds) => retry_after(response, seconds),
        None => response,
    }
}

/// Returns an error page that loads no other resources, since they may be unavailable when it is shown.
fn page(title: &str, detail: &str) -> String {
    let (title, detail) = (escape_html(title), escape_html(detail));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>:root{{color-scheme:light dark}}body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;\
         margin:15vh auto;padding:0 1rem}}h1{{font-size:1.6rem}}</style>\n<h1>{title}</h1>\n<p>{detail}</p>\n</html>\n"
    )
}

/// True if a request is better answered with JSON than with a page: its body is JSON, or its `Accept` prefers JSON.
/// Browsers, and clients that accept anything, get a page.
#[must_use]
pub fn wants_json(headers: &HeaderMap) -> bool {
    wants(headers.get(CONTENT_TYPE), headers.get(ACCEPT))
}

/// The headers that [`wants_json`] needs, kept while the application owns the request.
#[derive(Debug, Clone)]
pub(crate) struct Wants {
    accept: Option<HeaderValue>,
    content_type: Option<HeaderValue>,
}

impl Wants {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self { accept: headers.get(ACCEPT).cloned(), content_type: headers.get(CONTENT_TYPE).cloned() }
    }

    pub(crate) fn json(&self) -> bool {
        wants(self.content_type.as_ref(), self.accept.as_ref())
    }
}

fn wants(content_type: Option<&HeaderValue>, accept: Option<&HeaderValue>) -> bool {
    fn text(value: Option<&HeaderValue>) -> &str {
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
    let media_type = text(content_type).split(';').next().unwrap_or_default().trim();
    let suffix = media_type.rsplit_once('+').map_or("", |(_, suffix)| suffix);
    if media_type.eq_ignore_ascii_case("application/json") || suffix.eq_ignore_ascii_case("json") {
        return true;
    }
    let accept = text(accept);
    preference(accept, "application", "json") > preference(accept, "text", "html")
}

/// Returns how much an `Accept` header prefers a media type: its quality in thousandths, then the specificity of the
/// range that matches (RFC 9110, section 12.5.1). `application/json, */*` prefers JSON to HTML.
fn preference(accept: &str, kind: &str, subtype: &str) -> (u32, u32) {
    let mut best = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let specificity = match parts.next().unwrap_or_default().split_once('/') {
            Some(("*", "*")) => 1,
            Some((of, "*")) if of.eq_ignore_ascii_case(kind) => 2,
            Some((of, sub)) if of.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => 3,
            _ => continue,
        };
        let quality = |part: &str| {
            let (name, value) = part.split_once('=')?;
            name.eq_ignore_ascii_case("q").then(|| value.parse().ok())?
        };
        let quality = parts.find_map(quality).unwrap_or(1.0);
        // The most specific range decides, not the one with the highest quality.
        if specificity > best.1 {
            best = ((f64::clamp(quality, 0.0, 1.0) * 1000.0) as u32, specificity);
        }
    }
    best
}

/// Escapes the special characters of HTML in `text`, for content and for quoted attributes.
#[must_use]
pub fn escape_html(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn content(response: Response<Body>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    fn wants(header: http::HeaderName, value: &str) -> bool {
        wants_json(&HeaderMap::from_iter([(header, value.try_into().unwrap())]))
    }

    #[test]
    fn clients_that_send_or_prefer_json_get_json() {
        assert!(wants(CONTENT_TYPE, "application/json; charset=utf-8"));
        assert!(wants(CONTENT_TYPE, "application/merge-patch+json"));
        assert!(wants(ACCEPT, "application/json"));
        assert!(wants(ACCEPT, "Application/JSON, text/plain, */*"));
        assert!(wants(ACCEPT, "text/html;q=0.5, application/json"));
    }

    #[test]
    fn browsers_and_clients_without_a_preference_get_a_page() {
        assert!(!wants(ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"));
        assert!(!wants(ACCEPT, "*/*"));
        assert!(!wants(ACCEPT, "application/json;q=0.1, text/html"));
        assert!(!wants(ACCEPT, "application/json;q=oops, text/html;q=9"));
        assert!(!wants(CONTENT_TYPE, "application/x-www-form-urlencoded"));
        assert!(!wants_json(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn a_problem_is_json_or_a_page() {
        let closed = Problem::new(StatusCode::GONE, "poll-closed", "Closed", "<b> & so on").retry_after(3);
        let response = problem(true, closed.clone());
        assert_eq!(
            (response.status(), &response.headers()[RETRY_AFTER]),
            (StatusCode::GONE, &"3".parse().unwrap())
        );
        assert_eq!(content(response).await, r#"{"error":"poll-closed","message":"Closed: <b> & so on"}"#);

        let response = problem(false, closed);
        assert_eq!(response.headers()[CONTENT_TYPE], HTML);
        assert!(content(response).await.contains("<p>&lt;b&gt; &amp; so on</p>"));
    }

    #[test]
    fn a_location_cannot_break_out_of_its_header() {
        assert_eq!(see_other("/receipts/x").headers()[LOCATION], "/receipts/x");
        assert_eq!(see_other("/\r\nset-cookie: a=b").status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn html_is_escaped_in_content_and_attributes() {
        assert_eq!(
            escape_html(r#"<a href="x" id='y'>&"#),
            "&lt;a href=&quot;x&quot; id=&#39;y&#39;&gt;&amp;"
        );
        assert!(matches!(escape_html("Cats or dogs?"), Cow::Borrowed(_)));
    }
}
