//! Fake site for tests: frontends and a results service in one process, correct or with faults.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, COOKIE, RETRY_AFTER, SET_COOKIE},
};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};
use vote_core::Keep;

const OPTIONS: [&str; 3] = ["cats", "dogs", "none"];

/// Faults of the site. A number n means every n-th vote with a cookie, 0 means never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Acknowledged and not counted.
    pub(crate) lost: u64,
    /// Counted twice.
    pub(crate) twice: u64,
    /// Counted for another option.
    pub(crate) changed: u64,
    /// Not stored, 503 with a cookie.
    pub(crate) busy: u64,
    /// Stored, and 503 with a cookie.
    pub(crate) doubtful: u64,
    /// Stored, and 503 without a cookie.
    pub(crate) bare: u64,
    /// Stored, and the connection is cut before the answer.
    pub(crate) cut: u64,
    /// Not stored, and the connection is cut before the answer.
    pub(crate) cut_before: u64,
    /// One vote is counted a second time, 100 ms after the last vote was cast.
    pub(crate) late: bool,
    /// The tally never stops changing.
    pub(crate) restless: bool,
    /// Every vote is refused.
    pub(crate) closed: bool,
    /// Votes without a cookie are accepted.
    pub(crate) lax: bool,
}

/// State that all servers of the site share.
#[derive(Debug, Default)]
struct Accounts {
    votes: u64,
    last_vote: Option<Instant>,
    voters: u64,
    clock: u64,
    /// Effective ballot by voter: its `cast_at` and its option.
    effective: HashMap<u64, (u64, usize)>,
    /// Votes by option that are counted in addition to the effective ballots.
    extra: [u64; 3],
    /// Frontends that accepted votes, by voter.
    seen: HashMap<u64, Vec<usize>>,
}

/// A running site; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) frontends: Vec<String>,
    pub(crate) results: String,
    accounts: Arc<Mutex<Accounts>>,
    servers: Vec<JoinSet<()>>,
}

#[derive(Debug, Clone)]
struct Service {
    accounts: Arc<Mutex<Accounts>>,
    faults: Faults,
    keep: Keep,
    frontend: usize,
}

impl Site {
    pub(crate) async fn start(frontends: usize, keep: Keep, faults: Faults) -> Self {
        let accounts = Arc::new(Mutex::new(Accounts::default()));
        let mut servers = Vec::new();
        let mut urls = Vec::new();
        for frontend in 0..=frontends {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            urls.push(format!("http://{}", listener.local_addr().unwrap()));
            let service = Service { accounts: Arc::clone(&accounts), faults, keep, frontend };
            let mut server = JoinSet::new();
            server.spawn(listen(listener, service));
            servers.push(server);
        }
        let results = urls.pop().unwrap();
        Self { frontends: urls, results, accounts, servers }
    }

    /// Stops a frontend and closes all its connections at once.
    pub(crate) async fn stop(&mut self, frontend: usize) {
        self.servers[frontend].shutdown().await;
    }

    /// Returns, for each voter, the frontends that accepted votes, in order.
    pub(crate) fn seen(&self) -> Vec<Vec<usize>> {
        lock(&self.accounts).seen.values().cloned().collect()
    }

    /// Returns the voters with a counted vote.
    pub(crate) fn voters(&self) -> BTreeSet<u64> {
        lock(&self.accounts).effective.keys().copied().collect()
    }
}

fn lock(accounts: &Mutex<Accounts>) -> MutexGuard<'_, Accounts> {
    accounts.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(listener: TcpListener, service: Service) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = service.clone();
        connections.spawn(async move {
            let answer = service_fn(move |request| {
                let service = service.clone();
                async move { service.answer(request).await }
            });
            // An error only means that the client has closed the connection.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> io::Result<Answer> {
        let cookie = request.headers().get(COOKIE).and_then(|value| {
            let (voter, cast_at) = value.to_str().ok()?.strip_prefix("voter=")?.split_once('.')?;
            Some((voter.parse().ok()?, cast_at.parse().ok()?))
        });
        let json = request.headers().get(CONTENT_TYPE).is_some_and(|value| value == "application/json");
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let option = |body: &[u8]| {
            let vote: serde_json::Value = serde_json::from_slice(body).ok()?;
            OPTIONS.iter().position(|option| vote["option"] == *option)
        };
        match (method, path.as_str()) {
            (Method::GET, "/polls/pets/results.json") => Ok(self.results()),
            (Method::POST, "/polls/pets/votes") if json => match option(&body) {
                Some(option) => self.vote(cookie, option),
                None => Ok(plain(StatusCode::UNPROCESSABLE_ENTITY, "no such option")),
            },
            _ => Ok(plain(StatusCode::NOT_FOUND, "nothing here")),
        }
    }

    fn vote(&self, cookie: Option<(u64, u64)>, option: usize) -> io::Result<Answer> {
        let mut accounts = lock(&self.accounts);
        let Some((voter, cast_before)) = cookie.or(self.faults.lax.then_some((0, 0))) else {
            accounts.voters += 1;
            let voter = accounts.voters;
            return Ok(set_cookie(plain(StatusCode::UNAUTHORIZED, "take a cookie"), voter, 0));
        };
        if self.faults.closed {
            return Ok(plain(StatusCode::FORBIDDEN, "the poll is closed"));
        }
        accounts.votes += 1;
        accounts.last_vote = Some(Instant::now());
        // The clocks of the frontends differ, so only the cookie keeps the votes of a voter in order.
        accounts.clock += 1;
        let skew = if self.frontend == 0 { 1_000_000 } else { 0 };
        let cast_at = (accounts.clock + skew).max(cast_before + 1);
        let number = accounts.votes;
        let nth = |n: u64| n > 0 && number.is_multiple_of(n);
        let faults = self.faults;
        if !(nth(faults.busy) || nth(faults.lost) || nth(faults.cut_before)) {
            let option = if nth(faults.changed) { (option + 1) % OPTIONS.len() } else { option };
            let new = (cast_at, option);
            let effective = accounts.effective.entry(voter).or_insert(new);
            *effective = match self.keep {
                Keep::First => (*effective).min(new),
                Keep::Last => (*effective).max(new),
            };
            accounts.extra[option] += u64::from(nth(faults.twice));
        }
        if nth(faults.cut) || nth(faults.cut_before) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if nth(faults.bare) {
            return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "try again"));
        }
        if nth(faults.busy) || nth(faults.doubtful) {
            let mut busy = plain(StatusCode::SERVICE_UNAVAILABLE, "try again");
            busy.headers_mut().insert(RETRY_AFTER, 0.into());
            return Ok(set_cookie(busy, voter, cast_at));
        }
        accounts.seen.entry(voter).or_default().push(self.frontend);
        Ok(set_cookie(plain(StatusCode::ACCEPTED, r#"{"receipt": "r"}"#), voter, cast_at))
    }

    fn results(&self) -> Answer {
        let mut accounts = lock(&self.accounts);
        accounts.extra[0] += u64::from(self.faults.restless);
        let mut votes = accounts.extra;
        let is_late = accounts.last_vote.is_some_and(|at| at.elapsed() > Duration::from_millis(100));
        votes[0] += u64::from(self.faults.late && is_late);
        accounts.effective.values().for_each(|(_, option)| votes[*option] += 1);
        let rows: Vec<_> = OPTIONS
            .iter()
            .zip(votes)
            .map(|(option, votes)| serde_json::json!({ "option": option, "label": "", "votes": votes }))
            .collect();
        let total: u64 = votes.iter().sum();
        plain(
            StatusCode::OK,
            serde_json::json!({ "poll": "pets", "total": total, "options": rows }).to_string(),
        )
    }
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}

fn set_cookie(mut answer: Answer, voter: u64, cast_at: u64) -> Answer {
    let cookie = format!("voter={voter}.{cast_at}; Path=/; HttpOnly");
    answer.headers_mut().insert(SET_COOKIE, cookie.parse().unwrap());
    answer
}
