//! Casting of votes: a bounded number of voters at a time, each with a connection to every frontend.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::HeaderValue;
use rand::RngExt;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use vote_tools::{FrontendClient, Link, NoAnswer, Outcome, Pace, outcome::error_code};

use crate::{
    electorate::{Ballots, CLOSING, Electorate, Visit, Voter},
    journal::{Cast, Journal, now},
};

/// Number of concurrent voters per vote per second: a visit takes about half a second per vote, pauses included.
const CASTERS_A_RATE: f64 = 0.5;
/// Limits of the number of concurrent voters. One process can keep connections open for the upper one.
const CASTERS: RangeInclusive<f64> = 16.0..=1000.0;
/// How long a frontend that did not answer gets few votes, as behind a load balancer. In microseconds.
const SHUNNED_FOR: i64 = 2_000_000;
/// Mean number of requests of a visit, including repeated attempts of the same vote.
const VOTES_A_VISIT: f64 = 1.7;
/// Maximum number of attempts of one vote.
const TRIES: u32 = 4;
/// How long a voter waits for a connection, and for an answer. A flush may take 2 s and waits for the previous one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// State that all casters share.
#[derive(Debug)]
pub(crate) struct LoadRun {
    pub(crate) electorate: Electorate,
    pub(crate) journal: Journal,
    frontends: Vec<SocketAddr>,
    /// When the next visit begins.
    pace: Pace,
    casters: usize,
    voters: AtomicU64,
    stop: AtomicBool,
    /// Whether the poll that is to be closed during the run is closed.
    closed: AtomicBool,
    /// Time until which each frontend is avoided, in microseconds since 1970.
    shunned: Vec<AtomicI64>,
    /// Voters that may visit again later.
    gone: Mutex<Vec<Voter>>,
    /// Number of repeated visits.
    pub(crate) again: AtomicU64,
    /// Number of pairs of votes cast at the same time.
    pub(crate) at_once: AtomicU64,
    /// Number of votes that followed another one in the same visit.
    pub(crate) double: AtomicU64,
}

impl LoadRun {
    /// Creates the state for a number of votes per second, `rate`.
    pub(crate) fn new(electorate: Electorate, frontends: Vec<SocketAddr>, rate: f64) -> Self {
        Self {
            electorate,
            journal: Journal::default(),
            shunned: frontends.iter().map(|_| AtomicI64::new(0)).collect(),
            frontends,
            pace: Pace::new(Some(rate / VOTES_A_VISIT)),
            casters: (rate * CASTERS_A_RATE).clamp(*CASTERS.start(), *CASTERS.end()) as usize,
            voters: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            gone: Mutex::default(),
            again: AtomicU64::new(0),
            at_once: AtomicU64::new(0),
            double: AtomicU64::new(0),
        }
    }

    /// Stops casting: visits that have begun are finished, and no others begin.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Records that the poll is closed: from now on few voters visit it.
    pub(crate) fn note_closed(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Casts votes until stopped.
    ///
    /// # Errors
    /// Fails if a caster ended by itself, which is a bug.
    pub(crate) async fn run(self: Arc<Self>) -> Result<(), String> {
        let mut casters = JoinSet::new();
        for _ in 0..self.casters {
            let frontends =
                self.frontends.iter().map(|address| client(*address)).collect::<Result<_, _>>()?;
            casters.spawn(VirtualVoter { course: Arc::clone(&self), frontends }.run());
        }
        while let Some(ended) = casters.join_next().await {
            ended.map_err(|e| e.to_string())??;
        }
        Ok(())
    }

    /// Waits until one more visit is due, and returns false if casting was stopped.
    async fn turn(&self) -> bool {
        let due = self.pace.due();
        // Visits that are overdue are skipped rather than caught up with in a burst.
        if due + Duration::from_secs(1) < Instant::now() {
            self.pace.skip_overdue(due);
        }
        while !self.stopped() && Instant::now() < due {
            sleep_until(due.min(Instant::now() + Duration::from_millis(100))).await;
        }
        !self.stopped()
    }

    /// Returns a new voter, or one that has voted before.
    fn voter(&self) -> Result<Voter, String> {
        let mut voter = self.newcomer()?;
        while self.closed.load(Ordering::Relaxed)
            && self.electorate.polls[voter.poll].poll.as_str() == CLOSING
            && voter.rng.random_ratio(9, 10)
        {
            voter = self.newcomer()?;
        }
        if voter.rng.random_ratio(1, 6) {
            let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
            if !gone.is_empty() {
                let at = voter.rng.random_range(0..gone.len());
                self.again.fetch_add(1, Ordering::Relaxed);
                return Ok(gone.swap_remove(at));
            }
        }
        Ok(voter)
    }

    fn newcomer(&self) -> Result<Voter, String> {
        self.electorate.voter(self.voters.fetch_add(1, Ordering::Relaxed))
    }

    fn shun(&self, frontend: usize) {
        self.shunned[frontend].store(now() + SHUNNED_FOR, Ordering::Relaxed);
    }
}

/// Task that casts the votes of one voter at a time.
struct VirtualVoter {
    course: Arc<LoadRun>,
    frontends: Vec<FrontendClient>,
}

impl VirtualVoter {
    async fn run(mut self) -> Result<(), String> {
        while self.course.turn().await {
            let mut voter = self.course.voter()?;
            self.visit(&mut voter).await;
            if voter.rng.random_ratio(1, 3) {
                self.course.gone.lock().unwrap_or_else(PoisonError::into_inner).push(voter);
            }
        }
        Ok(())
    }

    async fn visit(&mut self, voter: &mut Voter) {
        let course = Arc::clone(&self.course);
        let ballots = &course.electorate.polls[voter.poll];
        match voter.visit(ballots.options.len()) {
            Visit::AtOnce(options) => self.at_once(voter, ballots, options).await,
            Visit::InTurn(options) => {
                let mut frontend = self.choose(voter);
                for (n, option) in options.into_iter().enumerate() {
                    if n > 0 {
                        self.course.double.fetch_add(1, Ordering::Relaxed);
                        frontend = 1 - frontend;
                    }
                    self.cast(voter, ballots, option, frontend).await;
                    if course.stopped() {
                        return;
                    }
                    // The pause puts the votes of a visit sometimes into one batch of a worker, sometimes not.
                    let pause = voter.rng.random_range(0..600);
                    sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }

    /// Picks a frontend at random, but rarely one that did not answer a moment ago.
    fn choose(&self, voter: &mut Voter) -> usize {
        let frontend = voter.rng.random_range(0..self.frontends.len());
        let shunned = self.course.shunned[frontend].load(Ordering::Relaxed) > now();
        if shunned && voter.rng.random_ratio(9, 10) { 1 - frontend } else { frontend }
    }

    /// Casts one vote. Repeats it often while its outcome is unknown or it is refused, and sometimes although it was
    /// acknowledged.
    async fn cast(&mut self, voter: &mut Voter, ballots: &Ballots, option: usize, mut frontend: usize) {
        for attempt in 1..=TRIES {
            let outcome =
                send(&self.course, &mut self.frontends[frontend], frontend, voter, ballots, option).await;
            let again = match outcome {
                Some(Outcome::Acknowledged) => voter.rng.random_ratio(1, 20),
                Some(_) => voter.rng.random_ratio(3, 4),
                None => true,
            };
            if !again || self.course.stopped() {
                return;
            }
            let pause = u64::from(attempt) * voter.rng.random_range(50..400);
            sleep(Duration::from_millis(pause)).await;
            frontend = self.choose(voter);
        }
    }

    /// Casts two votes with the same cookie at the same time, one through each frontend: workers may read them in any
    /// order.
    async fn at_once(&mut self, voter: &mut Voter, ballots: &Ballots, options: [usize; 2]) {
        self.course.at_once.fetch_add(1, Ordering::Relaxed);
        let (mut one, mut two) = (voter.clone(), voter.clone());
        let [first, second] = &mut self.frontends[..] else { return };
        let course = &self.course;
        tokio::join!(
            send(course, first, 0, &mut one, ballots, options[0]),
            send(course, second, 1, &mut two, ballots, options[1]),
        );
        voter.cookies = two.cookies;
    }
}

/// Returns a client of the frontend at this address.
///
/// # Errors
/// Fails if the address is not a valid header value, which can't happen.
fn client(address: SocketAddr) -> Result<FrontendClient, String> {
    let host = HeaderValue::from_str(&address.to_string()).map_err(|e| e.to_string())?;
    Ok(FrontendClient::new(Link::new(host, vec![address], ANSWER_TIMEOUT)))
}

/// Sends a vote and records its outcome; returns `None` if it was not sent.
async fn send(
    course: &LoadRun,
    client: &mut FrontendClient,
    frontend: usize,
    voter: &mut Voter,
    ballots: &Ballots,
    option: usize,
) -> Option<Outcome> {
    let path = format!("/polls/{}/votes", ballots.poll).parse().ok()?;
    let body = Bytes::from(format!(r#"{{"option": "{}"}}"#, ballots.options[option]));
    let after = course.electorate.latest(&voter.cookies);
    let from = now();
    let (outcome, until, answer) = match client.vote(&path, &mut voter.cookies, body).await {
        Ok(answer) => {
            let (status, outcome) = (answer.status.as_u16(), answer.outcome);
            let code =
                if outcome == Outcome::Acknowledged { String::new() } else { error_code(client.body()) };
            (outcome, Some(now()), format!("{status} {code}"))
        }
        Err(NoAnswer::Lost(why)) => {
            course.shun(frontend);
            (Outcome::Unknown, None, why)
        }
        Err(NoAnswer::NotSent(_)) => {
            course.shun(frontend);
            return None;
        }
    };
    let cast = Cast { option: ballots.options[option], from, until, after, outcome, frontend, answer };
    course.journal.note((ballots.poll, voter.key), cast);
    Some(outcome)
}
