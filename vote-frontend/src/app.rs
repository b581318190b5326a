//! The routes, as a tower service that can be mounted in any server.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll as Ready},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde::Serialize;
use tower::Service;
use tracing::Instrument;
use vote_core::{
    Clock, Pepper, Poll, Polls, Timestamp, Vote,
    intake::{IntakeState, PollAdmission},
    poll::Phase,
    writer::{CastError, Stored, Writer},
};
use vote_service::{
    Body, BoxError, Problem, Receipt, ReceiptKey,
    body::read_body,
    respond::{self, wants_json},
};

use crate::{
    ballot::{Format, MAX_BODY},
    cookie::CookieKeys,
    identity::Identity,
    metrics,
    pages::{self, Pages},
};

/// What a voter is asked to wait before trying again, in seconds.
const RETRY_AFTER: u32 = 1;
/// The same where the queue has to learn of a poll first, which takes a worker some seconds.
const POLL_RETRY_AFTER: u32 = 5;

/// What the frontend works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The polls that are asked.
    pub polls: Arc<Polls>,
    /// Turns voters into keys.
    pub pepper: Pepper,
    /// Signs voters' cookies.
    pub cookie_keys: CookieKeys,
    /// Seals receipts.
    pub receipt_key: ReceiptKey,
    /// Where the results are, for links; without a slash at the end.
    pub results_url: Option<String>,
    /// What the time is.
    pub clock: Arc<dyn Clock>,
}

/// The frontend as a tower service: routes, without the [guard layers](vote_service::layers) that
/// [`run`](crate::run) puts around it.
#[derive(Debug, Clone)]
pub struct Frontend {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    pages: Pages,
    writer: Writer,
}

/// Why a request is not answered with what it asked for.
struct Refusal {
    problem: Problem,
    /// Set it all the same: it holds the time of the vote that may be stored.
    voter: Option<Identity>,
    json: bool,
}

#[derive(Serialize)]
struct Accepted<'a> {
    poll: &'a str,
    receipt: &'a str,
}

impl Frontend {
    /// A frontend that hands its votes to `writer`, the intake of which was started with the same polls.
    #[must_use]
    pub fn new(parts: Parts, writer: Writer) -> Self {
        let pages = Pages::new(&parts.polls);
        Self { inner: Arc::new(Inner { parts, pages, writer }) }
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

/// What an address is.
enum Route<'a> {
    Home,
    Poll(&'a str),
    Votes(&'a str),
    Receipt(&'a str),
}

impl Route<'_> {
    /// What it is called in traces, where neither polls nor receipts belong.
    const fn pattern(&self) -> &'static str {
        match self {
            Self::Home => "/",
            Self::Poll(_) => "/polls/{poll}",
            Self::Votes(_) => "/polls/{poll}/votes",
            Self::Receipt(_) => "/receipts/{receipt}",
        }
    }
}

fn route(path: &str) -> Option<Route<'_>> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let route = match (parts.next()?, parts.next(), parts.next()) {
        ("", None, None) => Route::Home,
        ("polls", Some(poll), None) => Route::Poll(poll),
        ("polls", Some(poll), Some("votes")) => Route::Votes(poll),
        ("receipts", Some(receipt), None) => Route::Receipt(receipt),
        _ => return None,
    };
    parts.next().is_none().then_some(route)
}

impl Inner {
    async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let json = wants_json(request.headers());
        let path = request.uri().path().to_owned();
        let read = request.method() == Method::GET || request.method() == Method::HEAD;
        let result = match route(&path) {
            Some(Route::Home) if read => self.home(&request),
            Some(Route::Poll(poll)) if read => self.poll(poll, &request),
            Some(Route::Receipt(receipt)) if read => self.receipt(receipt),
            Some(Route::Votes(poll)) if request.method() == Method::POST => {
                match self.vote(poll, request).await {
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

    fn home<B>(&self, request: &Request<B>) -> Result<Response<Body>, Problem> {
        let mut polls = self.parts.polls.iter();
        match (polls.next(), polls.next()) {
            (Some(only), None) => self.poll(only.slug.as_str(), request),
            _ => Ok(respond::html(StatusCode::OK, self.pages.list())),
        }
    }

    /// What can be done with a poll: its time decides, unless it was closed before.
    fn phase(&self, poll: &Poll, now: Timestamp) -> Phase {
        self.writer.intake().phase(poll, now)
    }

    /// Votes for an open poll are refused where the queue does not have it as it is defined here. Where the queue takes
    /// no votes at all, that comes first.
    fn admit(&self, poll: &Poll) -> Result<(), Problem> {
        let intake = self.writer.intake();
        match intake.admission(poll.slug) {
            _ if matches!(intake.state(), IntakeState::Shut(_)) => Ok(()),
            Some(PollAdmission::Unknown) => Err(not_ready()),
            Some(PollAdmission::Differs { .. }) => Err(differs()),
            _ => Ok(()),
        }
    }

    fn poll<B>(&self, slug: &str, request: &Request<B>) -> Result<Response<Body>, Problem> {
        let poll = self.find(slug)?;
        let now = self.parts.clock.now();
        let phase = self.phase(poll, now);
        if phase == Phase::Open {
            self.admit(poll)?;
        }
        let closes_at = self.writer.intake().closes_at(poll);
        let response = respond::html(StatusCode::OK, self.pages.poll(poll, phase, closes_at, now));
        if self.parts.cookie_keys.read(request.headers()).is_some() || phase == Phase::Closed {
            return Ok(response);
        }
        let voter = Identity::random().map_err(|e| {
            tracing::error!("no random numbers: {e}");
            unavailable("no-random-numbers", "Please try again.")
        })?;
        Ok(self.with_cookie(response, Some(&voter)))
    }

    fn receipt(&self, token: &str) -> Result<Response<Body>, Problem> {
        let opened = self.parts.receipt_key.open(token);
        let poll =
            opened.and_then(|receipt| self.parts.polls.get(receipt.poll.as_str())).ok_or_else(|| {
                Problem::new(
                    StatusCode::NOT_FOUND,
                    "unknown-receipt",
                    "This is not a receipt",
                    "No vote accepted here has it. Was its address copied as a whole?",
                )
            })?;
        Ok(respond::html(StatusCode::OK, pages::receipt(poll, token, self.parts.results_url.as_deref())))
    }

    async fn vote<B>(&self, slug: &str, request: Request<B>) -> Result<Response<Body>, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let json = wants_json(&head.headers);
        let refuse = |problem| Refusal { problem, voter: None, json };
        let poll = self.find(slug).map_err(refuse)?;
        let format = Format::of(&head.headers).map_err(refuse)?;
        let body = read_body(body, MAX_BODY).await.map_err(|e| refuse(e.into()))?;
        let option = format.option(poll, &body).map_err(refuse)?;
        let now = self.parts.clock.now();
        let phase = self.phase(poll, now);
        if phase != Phase::Open {
            return Err(refuse(self.shut(poll, phase, now)));
        }
        self.admit(poll).map_err(refuse)?;
        let Some(mut voter) = self.parts.cookie_keys.read(&head.headers) else {
            return self.ask_again(poll, format, json);
        };
        let cast_at = voter.cast(now);
        let vote = Vote { poll: poll.slug, voter: voter.key(&self.parts.pepper, poll.slug), option, cast_at };
        match self.writer.cast(vote).await {
            Ok(stored) => {
                metrics::accepted();
                let receipt = self.parts.receipt_key.seal(&receipt_of(&vote, stored));
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

    /// A vote without a valid cookie counts nothing. The answer sets one.
    fn ask_again(&self, poll: &Poll, format: Format, json: bool) -> Result<Response<Body>, Refusal> {
        let problem = Problem::new(
            StatusCode::UNAUTHORIZED,
            "no-cookie",
            "The vote was not counted",
            "The request had no valid voter cookie. This answer sets one: send the vote again with it.",
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
        self.parts.polls.get(slug).ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "unknown-poll",
                "There is no such poll",
                "Was its address copied as a whole?",
            )
        })
    }

    fn with_cookie(&self, mut response: Response<Body>, voter: Option<&Identity>) -> Response<Body> {
        if let Some(cookie) = voter.and_then(|voter| self.parts.cookie_keys.set(voter)) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
            // A cookie is for one voter: no cache may hand it to another.
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        response
    }

    /// What the voter is told, which is not how things are wired: the reason goes to the log.
    fn not_accepted(&self, poll: &Poll, error: &CastError, now: Timestamp) -> Problem {
        match error {
            CastError::Sealed => self.shut(poll, Phase::Closed, now),
            CastError::UnknownPoll => not_ready(),
            CastError::OtherPoll => differs(),
            CastError::Overloaded => {
                unavailable("overloaded", "Very many people are voting. Please try again.")
            }
            CastError::Unknown(_) => unavailable(
                "unknown-outcome",
                "Your vote may or may not have been stored. Please vote again: it counts once.",
            ),
            CastError::Shut(reason) | CastError::NotStored(reason) => {
                tracing::debug!("a vote was not stored: {reason}");
                unavailable("not-stored", "Your vote was not stored. Please try again.")
            }
            _ => unavailable("not-stored", "Please try again."),
        }
    }

    fn shut(&self, poll: &Poll, phase: Phase, now: Timestamp) -> Problem {
        let code = if phase == Phase::NotYetOpen { "poll-not-open" } else { "poll-closed" };
        let detail = pages::shut(poll, phase, self.writer.intake().closes_at(poll), now);
        Problem::new(StatusCode::FORBIDDEN, code, "No votes are taken", detail)
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

/// Why there are no votes for a poll that the queue does not know yet.
fn not_ready() -> Problem {
    unavailable("poll-not-ready", "This poll takes no votes yet. Please try again in a moment.")
        .retry_after(POLL_RETRY_AFTER)
}

/// Why there are no votes for a poll of which the queue has another definition.
fn differs() -> Problem {
    unavailable("poll-differs", "This poll takes no votes here at the moment. Please try again later.")
        .retry_after(POLL_RETRY_AFTER)
}

fn unavailable(code: &'static str, detail: &'static str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, "Not now", detail).retry_after(RETRY_AFTER)
}

fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not-found",
        "There is nothing here",
        "Was the address copied as a whole?",
    )
}

fn not_allowed(json: bool, allow: &'static str) -> Response<Body> {
    let detail = format!("This address takes {allow}.");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Not like this", detail);
    let mut response = respond::problem(json, problem);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}
