//! Voters at work: a bounded number of them at a time, each with a connection to every frontend.

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
use http::StatusCode;
use rand::RngExt;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    electorate::{Ballots, Electorate, Visit, Voter, pair},
    journal::{Cast, Journal, Outcome, now},
    link::{Answer, Link, NoAnswer},
};

/// How many voters are at work at a time: those that a visit of half a second a vote needs, pauses included, within
/// what one process can well keep connections for.
const CASTERS_A_RATE: f64 = 0.5;
const CASTERS: RangeInclusive<f64> = 16.0..=1000.0;
/// How long a frontend that did not answer gets few votes, as from behind a load balancer.
const SHUNNED_FOR: i64 = 2_000_000;
/// Requests of a mean visit, tries of the same vote included.
const VOTES_A_VISIT: f64 = 1.7;
/// The most tries of one vote.
const TRIES: u32 = 4;

/// What all casters share.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) electorate: Electorate,
    pub(crate) journal: Journal,
    frontends: Vec<SocketAddr>,
    start: Instant,
    /// Visits a second.
    rate: f64,
    casters: usize,
    visits: AtomicU64,
    voters: AtomicU64,
    stop: AtomicBool,
    /// Until when each frontend is shunned, in microseconds since 1970.
    shunned: Vec<AtomicI64>,
    /// Voters that may come again later.
    gone: Mutex<Vec<Voter>>,
    pub(crate) again: AtomicU64,
    pub(crate) at_once: AtomicU64,
    pub(crate) double: AtomicU64,
}

impl Course {
    pub(crate) fn new(electorate: Electorate, frontends: Vec<SocketAddr>, rate: f64) -> Self {
        Self {
            electorate,
            journal: Journal::default(),
            shunned: frontends.iter().map(|_| AtomicI64::new(0)).collect(),
            frontends,
            start: Instant::now(),
            rate: rate / VOTES_A_VISIT,
            casters: (rate * CASTERS_A_RATE).clamp(*CASTERS.start(), *CASTERS.end()) as usize,
            visits: AtomicU64::new(0),
            voters: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            gone: Mutex::default(),
            again: AtomicU64::new(0),
            at_once: AtomicU64::new(0),
            double: AtomicU64::new(0),
        }
    }

    /// No more visits; those that have begun are finished.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Casts votes until stopped.
    ///
    /// # Errors
    /// When a caster ended by itself, which is a bug.
    pub(crate) async fn run(self: Arc<Self>) -> Result<(), String> {
        let mut casters = JoinSet::new();
        for _ in 0..self.casters {
            let links = self.frontends.iter().map(|address| Link::new(*address)).collect::<Result<_, _>>()?;
            casters.spawn(Caster { course: Arc::clone(&self), links }.run());
        }
        while let Some(ended) = casters.join_next().await {
            ended.map_err(|e| e.to_string())??;
        }
        Ok(())
    }

    /// Waits for the turn of one more visit; false if there is none.
    async fn turn(&self) -> bool {
        let due = self.visits.fetch_add(1, Ordering::Relaxed) as f64 / self.rate;
        let due = self.start + Duration::from_secs_f64(due);
        let now = Instant::now();
        // What could not be cast in time is left out, not made up for by a burst.
        if due + Duration::from_secs(1) < now {
            let late = ((now - due).as_secs_f64() * self.rate) as u64;
            self.visits.fetch_add(late, Ordering::Relaxed);
        }
        while !self.stopped() && Instant::now() < due {
            sleep_until(due.min(Instant::now() + Duration::from_millis(100))).await;
        }
        !self.stopped()
    }

    /// A new voter, or one that was here before.
    fn voter(&self) -> Result<Voter, String> {
        let number = self.voters.fetch_add(1, Ordering::Relaxed);
        let mut voter = self.electorate.voter(number)?;
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

    fn shun(&self, frontend: usize) {
        self.shunned[frontend].store(now() + SHUNNED_FOR, Ordering::Relaxed);
    }
}

/// One voter at a time.
struct Caster {
    course: Arc<Course>,
    links: Vec<Link>,
}

impl Caster {
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
                    // Sometimes within one batch of a worker, sometimes not.
                    let pause = voter.rng.random_range(0..600);
                    sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }

    /// A frontend at random, but rarely one that did not answer a moment ago.
    fn choose(&self, voter: &mut Voter) -> usize {
        let frontend = voter.rng.random_range(0..self.links.len());
        let shunned = self.course.shunned[frontend].load(Ordering::Relaxed) > now();
        if shunned && voter.rng.random_ratio(9, 10) { 1 - frontend } else { frontend }
    }

    /// Casts one vote, and often again while its outcome is not known or it was refused, and sometimes again although
    /// it was acknowledged.
    async fn cast(&mut self, voter: &mut Voter, ballots: &Ballots, option: usize, mut frontend: usize) {
        for attempt in 1..=TRIES {
            let outcome =
                send(&self.course, &mut self.links[frontend], frontend, voter, ballots, option).await;
            let again = match outcome {
                Some(Outcome::Acknowledged) => voter.rng.random_ratio(1, 20),
                Some(Outcome::Unknown | Outcome::Refused) => voter.rng.random_ratio(3, 4),
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

    /// Casts two votes with the same cookie, one through each frontend: the order in which they are read is open.
    async fn at_once(&mut self, voter: &mut Voter, ballots: &Ballots, options: [usize; 2]) {
        self.course.at_once.fetch_add(1, Ordering::Relaxed);
        let (mut one, mut two) = (voter.clone(), voter.clone());
        let [first, second] = &mut self.links[..] else { return };
        let course = &self.course;
        tokio::join!(
            send(course, first, 0, &mut one, ballots, options[0]),
            send(course, second, 1, &mut two, ballots, options[1]),
        );
        voter.cookie = two.cookie;
    }
}

/// Sends a vote and notes what came of it; none if it was not sent.
async fn send(
    course: &Course,
    link: &mut Link,
    frontend: usize,
    voter: &mut Voter,
    ballots: &Ballots,
    option: usize,
) -> Option<Outcome> {
    let path = format!("/polls/{}/votes", ballots.poll);
    let body = Bytes::from(format!(r#"{{"option": "{}"}}"#, ballots.options[option]));
    let from = now();
    let (outcome, until, answer) = match link.vote(&path, &voter.cookie, body).await {
        Ok(answer) => {
            let until = now();
            if let Some(cookie) = answer.cookie.as_ref().and_then(|set| pair(set).ok()) {
                voter.cookie = cookie;
            }
            let (outcome, code) = outcome(&answer);
            (outcome, Some(until), format!("{} {code}", answer.status.as_u16()))
        }
        Err(NoAnswer::Lost(why)) => {
            course.shun(frontend);
            (Outcome::Unknown, None, why)
        }
        Err(NoAnswer::NotSent) => {
            course.shun(frontend);
            return None;
        }
    };
    let cast = Cast { option: ballots.options[option], from, until, outcome, frontend, answer };
    course.journal.note((ballots.poll, voter.key), cast);
    Some(outcome)
}

/// What an answer says of the vote, and its error code. A frontend says by the code whether a vote that it did not
/// acknowledge may be stored.
fn outcome(answer: &Answer) -> (Outcome, String) {
    if answer.status == StatusCode::ACCEPTED {
        return (Outcome::Acknowledged, String::new());
    }
    let problem: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let code = problem.as_ref().and_then(|problem| problem["error"].as_str()).unwrap_or_default();
    let outcome = match (answer.status.is_client_error(), code) {
        (true, _) | (_, "not-stored" | "overloaded" | "no-random-numbers") => Outcome::Refused,
        _ => Outcome::Unknown,
    };
    (outcome, code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, body: &str) -> Outcome {
        let status = StatusCode::from_u16(status).unwrap();
        outcome(&Answer { status, cookie: None, body: body.to_owned().into() }).0
    }

    #[test]
    fn only_an_answer_that_says_so_means_that_a_vote_is_not_stored() {
        assert_eq!(told(202, "{}"), Outcome::Acknowledged);
        assert_eq!(told(503, r#"{"error": "not-stored"}"#), Outcome::Refused);
        assert_eq!(told(503, r#"{"error": "overloaded"}"#), Outcome::Refused);
        assert_eq!(told(403, r#"{"error": "poll-closed"}"#), Outcome::Refused);
        assert_eq!(told(503, r#"{"error": "unknown-outcome"}"#), Outcome::Unknown);
        assert_eq!(told(503, r#"{"error": "timeout"}"#), Outcome::Unknown);
        assert_eq!(told(503, ""), Outcome::Unknown);
        assert_eq!(told(500, "oops"), Outcome::Unknown);
    }
}
