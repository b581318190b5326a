//! The routes, as a tower service that can be mounted in any server.

mod problems;
mod route;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll as Ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde::Serialize;
use tower::Service;
use tracing::Instrument;
use vote_core::{
    Clock, Pepper, Poll, Polls, Timestamp, Vote,
    admission::{AdmissionState, PollAdmission},
    poll::Phase,
    writer::{CastError, Stored, Writer},
};
use vote_service::{
    Body, BoxError, Problem, Receipt, ReceiptKey,
    body::read_body,
    respond::{self, wants_json},
};

use crate::{
    ballot::{self, Format, MAX_BODY},
    cookie::CookieKeys,
    identity::Identity,
    metrics,
    pages::{self, Pages},
};
use problems::{differs, not_allowed, not_found, not_ready, not_stored, unavailable};
use route::{Route, route};

/// What the routes need besides the queue: polls, keys, links and a clock.
#[derive(Debug, Clone)]
pub struct Site {
    /// The polls to serve.
    pub polls: Arc<Polls>,
    /// Secret that turns voter ids into voter keys.
    pub pepper: Pepper,
    /// Keys that sign and verify voters' cookies.
    pub cookie_keys: CookieKeys,
    /// Key that encrypts receipts.
    pub receipt_key: ReceiptKey,
    /// Base URL of the results site, for links; without a trailing slash.
    pub results_url: Option<String>,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
}

/// The frontend as a tower service: the routes, without the [guard layers](vote_service::layers) that
/// [`run`](crate::run) adds.
#[derive(Debug, Clone)]
pub struct Frontend {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    site: Site,
    pages: Pages,
    writer: Writer,
}

/// Error response to a vote request.
struct Refusal {
    problem: Problem,
    /// Voter whose cookie is set despite the error: it holds the time of a vote that may have been stored.
    voter: Option<Identity>,
    json: bool,
}

#[derive(Serialize)]
struct Accepted<'a> {
    poll: &'a str,
    receipt: &'a str,
}

impl Frontend {
    /// Creates a frontend that passes votes to `writer`, whose [`Admission`](vote_core::admission::Admission) must have
    /// been started with the same polls.
    #[must_use]
    pub fn new(site: Site, writer: Writer) -> Self {
        let pages = Pages::new(&site.polls);
        Self { inner: Arc::new(Inner { site, pages, writer }) }
    }
}

impl<B> Service<Request<B>> for Frontend
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Ready<Result<(), Infallible>> {
        Ready::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        let span = tracing::trace_span!(
            target: vote_core::TRACES,
            "request",
            method = request.method().as_str(),
            route = route(request.uri().path()).map_or("none", |route| route.pattern()),
            status = tracing::field::Empty,
        );
        Box::pin(async move {
            let response = inner.answer(request).instrument(span.clone()).await;
            span.record("status", i64::from(response.status().as_u16()));
            Ok(response)
        })
    }
}

impl Inner {
    async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let json = wants_json(&head.headers);
        let read = head.method == Method::GET || head.method == Method::HEAD;
        let result = match route(head.uri.path()) {
            Some(Route::Home) if read => self.home(&head.headers),
            Some(Route::Poll(poll)) if read => self.poll(poll, &head.headers),
            Some(Route::Receipt(receipt)) if read => self.receipt(receipt),
            Some(Route::Votes(poll)) if head.method == Method::POST => {
                match self.vote(poll, &head.headers, body, json).await {
                    Ok(response) => Ok(response),
                    Err(refusal) => {
                        metrics::refused(refusal.problem.code);
                        let response = respond::problem(refusal.json, refusal.problem);
                        return self.with_cookie(response, refusal.voter.as_ref());
                    }
                }
            }
            Some(Route::Votes(_)) => return not_allowed(json, "POST"),
            Some(_) => return not_allowed(json, "GET, HEAD"),
            None => Err(not_found()),
        };
        result.unwrap_or_else(|problem| respond::problem(json, problem))
    }

    fn home(&self, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
        let mut polls = self.site.polls.iter();
        match (polls.next(), polls.next()) {
            (Some(only), None) => self.poll(only.slug.as_str(), headers),
            _ => Ok(respond::html(StatusCode::OK, self.pages.list())),
        }
    }

    /// Returns the phase of a poll, by its times; a poll that its queue has sealed is closed.
    fn phase(&self, poll: &Poll, now: Timestamp) -> Phase {
        self.writer.admission().phase(poll, now)
    }

    /// Fails if the queue does not have the poll as it is defined here. Succeeds if the queue accepts no votes at
    /// all: the writer reports that, and it takes precedence.
    fn admit(&self, poll: &Poll) -> Result<(), Problem> {
        let admission = self.writer.admission();
        match admission.poll_admission(poll.slug) {
            _ if matches!(admission.state(), AdmissionState::Closed(_)) => Ok(()),
            Some(PollAdmission::NotRecorded) => Err(not_ready()),
            Some(PollAdmission::Differs { .. }) => Err(differs()),
            _ => Ok(()),
        }
    }

    fn poll(&self, slug: &str, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
        let poll = self.find(slug)?;
        let now = self.site.clock.now();
        let phase = self.phase(poll, now);
        if phase == Phase::Open {
            self.admit(poll)?;
        }
        let closes_at = self.writer.admission().closes_at(poll);
        let response = respond::html(StatusCode::OK, self.pages.poll(poll, phase, closes_at, now));
        if self.site.cookie_keys.read(headers).is_some() || phase == Phase::Closed {
            return Ok(response);
        }
        let voter = Identity::random().map_err(|e| {
            tracing::error!(
                "no voter id can be created, the operating system provides no random numbers: {e}"
            );
            unavailable("no-random-numbers", "Please try again.")
        })?;
        Ok(self.with_cookie(response, Some(&voter)))
    }

    fn receipt(&self, token: &str) -> Result<Response<Body>, Problem> {
        let opened = self.site.receipt_key.open(token);
        let poll =
            opened.and_then(|receipt| self.site.polls.get(receipt.poll.as_str())).ok_or_else(|| {
                Problem::new(
                    StatusCode::NOT_FOUND,
                    "unknown-receipt",
                    "This is not a receipt",
                    "No vote was accepted here with this receipt. Please check that you copied the whole address.",
                )
            })?;
        Ok(respond::html(StatusCode::OK, pages::receipt(poll, token, self.site.results_url.as_deref())))
    }

    async fn vote<B>(
        &self,
        slug: &str,
        headers: &HeaderMap,
        body: B,
        json: bool,
    ) -> Result<Response<Body>, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let refuse = |problem| Refusal { problem, voter: None, json };
        let poll = self.find(slug).map_err(refuse)?;
        let format = Format::of(headers).map_err(refuse)?;
        let body = read_body(body, MAX_BODY).await.map_err(|e| refuse(e.into()))?;
        let chosen = format.chosen(poll, &body).map_err(refuse)?;
        let now = self.site.clock.now();
        let phase = self.phase(poll, now);
        if phase != Phase::Open {
            return Err(refuse(self.not_open(poll, phase, now)));
        }
        self.admit(poll).map_err(refuse)?;
        // Only now: while the queue may define the poll differently, the options of the file are not authoritative.
        let option =
            ballot::option(poll, &chosen).map_err(|unknown| match self.writer.admission().state() {
                // The definition was not compared with a queue now, so the option may exist.
                AdmissionState::Closed(_) => refuse(not_stored()),
                _ => refuse(unknown),
            })?;
        let Some(mut voter) = self.site.cookie_keys.read(headers) else {
            return self.request_again(poll, format, json);
        };
        let cast_at = voter.cast(now);
        let vote = Vote { poll: poll.slug, voter: voter.key(&self.site.pepper, poll.slug), option, cast_at };
        match self.writer.cast(vote).await {
            Ok(stored) => {
                metrics::accepted();
                let receipt = self.site.receipt_key.seal(&receipt_of(&vote, stored));
                let response = match format {
                    Format::Form => respond::see_other(&format!("/receipts/{receipt}")),
                    Format::Json => {
                        let accepted = Accepted { poll: poll.slug.as_str(), receipt: &receipt };
                        respond::json(StatusCode::ACCEPTED, &accepted)
                    }
                };
                Ok(self.with_cookie(response, Some(&voter)))
            }
            Err(e) => Err(Refusal { problem: self.not_accepted(poll, &e, now), voter: Some(voter), json }),
        }
    }

    /// Answers a vote that came without a valid cookie: it is not counted, and the response sets a cookie.
    fn request_again(&self, poll: &Poll, format: Format, json: bool) -> Result<Response<Body>, Refusal> {
        let problem = Problem::new(
            StatusCode::UNAUTHORIZED,
            "no-cookie",
            "The vote was not counted",
            "The request had no valid voter cookie. This response sets one: send the vote again with it.",
        );
        let voter = Identity::random().map_err(|_| Refusal {
            problem: unavailable("no-random-numbers", "Please try again."),
            voter: None,
            json,
        })?;
        if format == Format::Json {
            return Err(Refusal { problem, voter: Some(voter), json: true });
        }
        metrics::refused(problem.code);
        let response = respond::html(StatusCode::UNAUTHORIZED, pages::vote_again(poll));
        Ok(self.with_cookie(response, Some(&voter)))
    }

    fn find(&self, slug: &str) -> Result<&Poll, Problem> {
        self.site.polls.get(slug).ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "unknown-poll",
                "Poll not found",
                "Please check that you copied the whole address.",
            )
        })
    }

    fn with_cookie(&self, mut response: Response<Body>, voter: Option<&Identity>) -> Response<Body> {
        if let Some(cookie) = voter.and_then(|voter| self.site.cookie_keys.set(voter)) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
            // The cookie belongs to one voter, so no cache may serve it to another.
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        response
    }

    /// Returns the error for the voter. The internal reason goes to the log only.
    fn not_accepted(&self, poll: &Poll, error: &CastError, now: Timestamp) -> Problem {
        match error {
            CastError::Sealed => self.not_open(poll, Phase::Closed, now),
            CastError::UnknownPoll => not_ready(),
            CastError::DifferentDefinition => differs(),
            CastError::Overloaded => {
                unavailable("overloaded", "Too many people are voting right now. Please try again.")
            }
            CastError::Unknown(_) => unavailable(
                "unknown-outcome",
                "Your vote may or may not have been stored. Please vote again: it will be counted only once.",
            ),
            error => {
                tracing::debug!("vote not stored: {error}");
                not_stored()
            }
        }
    }

    /// Returns the error for a vote for a poll that is not open.
    fn not_open(&self, poll: &Poll, phase: Phase, now: Timestamp) -> Problem {
        let code = if phase == Phase::NotYetOpen { "poll-not-open" } else { "poll-closed" };
        let detail = pages::shut(poll, phase, self.writer.admission().closes_at(poll), now);
        Problem::new(StatusCode::FORBIDDEN, code, "This poll is not open", detail)
    }
}

fn receipt_of(vote: &Vote, stored: Stored) -> Receipt {
    Receipt {
        poll: vote.poll,
        queue: stored.queue,
        partition: stored.partition,
        position: stored.position,
        voter: vote.voter,
        cast_at: vote.cast_at,
        option: vote.option,
    }
}
