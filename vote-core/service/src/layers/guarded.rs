//! The guards as one service.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tower::Service;

use super::{Guards, add_security_headers, overloaded, panicked, too_slow};
use crate::{
    Body, Problem,
    respond::{self, Wants},
};

/// Sheds load, limits time, catches panics, renders errors in the form that the client reads, and adds the security
/// headers. Problems come out of the application as [extensions](Response::extensions) of its responses, too.
#[derive(Debug, Clone)]
pub(super) struct Guard<S> {
    app: S,
    app_is_ready: bool,
    in_flight: Arc<Semaphore>,
    timeout: Duration,
}

impl<S> Guard<S> {
    pub(super) fn new(app: S, guards: &Guards) -> Self {
        let in_flight = Arc::new(Semaphore::new(guards.in_flight));
        Self { app, app_is_ready: false, in_flight, timeout: guards.request_timeout }
    }
}

impl<S, B> Service<Request<B>> for Guard<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Guarded<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A request that would wait for the application is refused instead.
        self.app_is_ready = self.app.poll_ready(cx).is_ready();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let wants = Wants::of(request.headers());
        let permit = match Arc::clone(&self.in_flight).try_acquire_owned() {
            Ok(permit) if self.app_is_ready => permit,
            _ => return Guarded::refused(wants, overloaded()),
        };
        match catch_unwind(AssertUnwindSafe(|| self.app.call(request))) {
            Ok(answer) => {
                let deadline = sleep(self.timeout);
                Guarded { wants, state: State::Running { answer, deadline, _permit: permit } }
            }
            Err(panic) => Guarded::refused(wants, panicked(&*panic)),
        }
    }
}

pin_project! {
    /// Future of a guarded service.
    pub(super) struct Guarded<F> {
        wants: Wants,
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Refused { problem: Option<Problem> },
        Running {
            #[pin]
            answer: F,
            #[pin]
            deadline: Sleep,
            _permit: OwnedSemaphorePermit,
        },
    }
}

impl<F> Guarded<F> {
    fn refused(wants: Wants, problem: Problem) -> Self {
        Self { wants, state: State::Refused { problem: Some(problem) } }
    }
}

impl<F> Future for Guarded<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = match this.state.project() {
            StateProjection::Refused { problem } => Err(problem.take().unwrap_or_else(Problem::internal)),
            StateProjection::Running { answer, deadline, .. } => {
                match catch_unwind(AssertUnwindSafe(|| answer.poll(cx))) {
                    Ok(Poll::Ready(Ok(mut response))) => match response.extensions_mut().remove() {
                        Some(problem) => Err(problem),
                        None => Ok(response),
                    },
                    Ok(Poll::Pending) => {
                        ready!(deadline.poll(cx));
                        Err(too_slow())
                    }
                    Err(panic) => Err(panicked(&*panic)),
                }
            }
        };
        let mut response = answer.unwrap_or_else(|problem| respond::problem(this.wants.json(), problem));
        add_security_headers(&mut response);
        Poll::Ready(Ok(response))
    }
}
