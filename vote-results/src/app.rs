//! The public routes, as a tower service that any server can mount.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH},
};
use http_body::Body as _;
use tower::Service;
use vote_core::{Clock, Poll as Definition, Polls};
use vote_service::{Body, Problem, body, respond};

use crate::{
    Latest, Parts,
    caching::{self, Cached},
    events::{self, Streams},
    pages::{
        self,
        receipt::Answer,
        status::{StatusJson, status},
    },
    receipts::Lookups,
    routes::Route,
    state::{Stale, State, View},
};

/// The public routes of the results service. Clones share their state and their limits.
#[derive(Debug, Clone)]
pub struct Results {
    shared: Arc<Shared>,
    streams: Arc<Streams>,
}

/// State shared by all requests. Routes show what is in `latest`, which is made of
/// [`PublicFigures`](crate::PublicFigures); they reach the store only to look up a receipt.
#[derive(Debug)]
struct Shared {
    polls: Arc<Polls>,
    frontend_url: Option<String>,
    clock: Arc<dyn Clock>,
    latest: Latest,
    lookups: Lookups,
    live_js: Cached,
}

/// Whether errors are sent as JSON: if the path names that format or the headers ask for it.
fn wants_json(route: Route, headers: &HeaderMap) -> bool {
    matches!(route, Route::StatusJson | Route::PollJson) || respond::wants_json(headers)
}

impl Results {
    /// Creates the routes, which show the latest state that a refresher published.
    #[must_use]
    pub fn new(parts: Parts, latest: Latest) -> Self {
        let live_js = Cached::new(pages::LIVE_JS);
        let Parts { store, polls, receipt_key, clock, frontend_url, health: _ } = parts;
        let lookups = Lookups::new(store, Arc::clone(&polls), receipt_key);
        let shared = Shared { polls, frontend_url, clock, latest, lookups, live_js };
        Self { shared: Arc::new(shared), streams: Arc::new(Streams::new(events::MAX_STREAMS)) }
    }

    /// Sets the maximum number of concurrent [event streams](crate::events), shared by all clones made from now on; the
    /// default is [`MAX_STREAMS`](events::MAX_STREAMS). Each stream holds a connection, so choose a lower number than
    /// that of connections.
    #[must_use]
    pub fn max_event_streams(self, max: usize) -> Self {
        Self { streams: Arc::new(Streams::new(max)), ..self }
    }
}

/// The future of [`Results`].
pub type ResultsFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<B> Service<Request<B>> for Results {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResultsFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResultsFuture {
        let results = self.clone();
        // No route reads a body.
        let head = request.into_parts().0;
        Box::pin(async move {
            let is_head = head.method == Method::HEAD;
            let mut response = results.answer(&head.method, head.uri.path(), &head.headers).await;
            if is_head {
                without_body(&mut response);
            }
            Ok(response)
        })
    }
}

/// Removes the body for HEAD, and keeps the headers that GET would send, including the length.
fn without_body(response: &mut Response<Body>) {
    let length = response.body().size_hint().exact();
    if let Some(length) = length.filter(|_| response.status() != StatusCode::NOT_MODIFIED) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    *response.body_mut() = body::empty();
}

impl Results {
    fn polls(&self) -> &Polls {
        &self.shared.polls
    }

    fn latest(&self) -> &Latest {
        &self.shared.latest
    }

    async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Body> {
        let Some((route, parameter)) = Route::of(path) else {
            return respond::problem(
                respond::wants_json(headers),
                not_found("There is no page at this address."),
            );
        };
        let answer = match (route, method) {
            (_, method) if !matches!(*method, Method::GET | Method::HEAD) => Err(wrong_method()),
            (Route::Home, _) => Ok(self.home()),
            (Route::LiveJs, _) => Ok(self.live_js(headers)),
            (Route::Status, _) => Ok(self.status()),
            (Route::StatusJson, _) => Ok(self.status_json()),
            (Route::Receipt, _) => self.receipt(parameter, headers).await,
            (Route::PollPage, _) => self.poll_page(parameter),
            (Route::PollJson, _) => self.poll(parameter, |_, view, _| {
                Ok(view.json.respond(headers, "application/json", caching::RESULTS))
            }),
            (Route::PollCsv, _) => self.poll(parameter, |_, view, _| csv(view, headers)),
            // HEAD must not take a stream permit: the stream would never be read.
            (Route::PollEvents, &Method::HEAD) => self.poll(parameter, |_, _, _| Ok(events::head())),
            (Route::PollEvents, _) => self.poll(parameter, |poll, _, _| self.events(poll)),
        };
        let mut response =
            answer.unwrap_or_else(|problem| respond::problem(wants_json(route, headers), problem));
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }

    fn home(&self) -> Response<Body> {
        let mut polls = self.polls().iter();
        match (polls.next(), polls.next()) {
            (Some(only), None) => respond::see_other(&format!("/polls/{}", only.slug)),
            _ => respond::html(StatusCode::OK, pages::home(self.polls().iter())),
        }
    }

    fn live_js(&self, headers: &HeaderMap) -> Response<Body> {
        // A short lifetime, since the file name carries no version.
        let cache = HeaderValue::from_static("public, max-age=60");
        self.shared.live_js.respond(headers, "text/javascript; charset=utf-8", cache)
    }

    fn poll_page(&self, slug: &str) -> Result<Response<Body>, Problem> {
        self.poll(slug, |poll, view, stale| {
            let page = pages::poll(poll, view, stale, self.shared.frontend_url.as_deref());
            Ok(cached_for(respond::html(StatusCode::OK, page), caching::RESULTS))
        })
    }

    /// Answers with the view of a poll, if the file has the poll and the store has been read.
    fn poll(
        &self,
        slug: &str,
        answer: impl FnOnce(&Definition, &View, Option<&Stale>) -> Result<Response<Body>, Problem>,
    ) -> Result<Response<Body>, Problem> {
        let poll = self.polls().get(slug).ok_or_else(|| not_found("There is no such poll on this site."))?;
        let state = self.latest().state();
        let view = state.view(slug).ok_or_else(|| not_read_yet(&state))?;
        answer(poll, view, state.stale.as_ref())
    }

    fn events(&self, poll: &Definition) -> Result<Response<Body>, Problem> {
        let views = self.latest().views(poll.slug).ok_or_else(|| not_read_yet(&self.latest().state()))?;
        self.streams.open(views)
    }

    fn status(&self) -> Response<Body> {
        let page = status(&self.latest().state(), self.latest().read_at(), self.shared.clock.now());
        cached_for(respond::html(StatusCode::OK, page), caching::NEVER)
    }

    fn status_json(&self) -> Response<Body> {
        let state = self.latest().state();
        cached_for(
            respond::json(StatusCode::OK, &StatusJson::new(&state, self.latest().read_at())),
            caching::NEVER,
        )
    }

    async fn receipt(&self, token: &str, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
        let (status, answer) = match self.shared.lookups.open(token) {
            None => (StatusCode::NOT_FOUND, Answer::unknown()),
            Some(receipt) => {
                let reading = self.latest().state().reading.clone();
                let queue = reading
                    .map(|reading| reading.pipeline().queue_outcome(receipt.queue))
                    .unwrap_or_default();
                let status = self.shared.lookups.status(&receipt, &queue).await?;
                (StatusCode::OK, Answer::of(&status, receipt.poll))
            }
        };
        let response = if respond::wants_json(headers) {
            respond::json(status, &answer)
        } else {
            let title = answer
                .poll
                .as_deref()
                .and_then(|slug| self.polls().get(slug))
                .map(|poll| poll.title.as_str());
            respond::html(status, answer.page(title))
        };
        Ok(cached_for(response, caching::NEVER))
    }
}

fn csv(view: &View, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
    let Some(csv) = &view.csv else {
        let detail =
            "The results of this poll will be published once it has closed and every vote has been counted.";
        return Err(Problem::new(StatusCode::FORBIDDEN, "withheld", "Not published yet", detail));
    };
    let mut response = csv.respond(headers, "text/csv; charset=utf-8; header=present", caching::RESULTS);
    if let Ok(name) = HeaderValue::try_from(format!("attachment; filename=\"{}.csv\"", view.snapshot.poll)) {
        response.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

fn cached_for(mut response: Response<Body>, cache_control: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(CACHE_CONTROL, cache_control);
    response
}

fn not_found(detail: &'static str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
}

fn wrong_method() -> Problem {
    let detail = "Results are read-only: use GET or HEAD. Votes are cast on the voting site.";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
}

fn not_read_yet(state: &State) -> Problem {
    let reason = match &state.stale {
        Some(stale) => stale.reason.clone(),
        None => "The service has just started and has not read the store yet.".to_owned(),
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "No results yet", reason).retry_after(2)
}
