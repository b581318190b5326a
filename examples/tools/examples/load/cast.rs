//! Casting of votes: each connection serves one voter after another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{HeaderMap, StatusCode, Uri, header::RETRY_AFTER};
use rand::RngExt;
use vote_core::Keep;
use vote_tools::{Cookies, FrontendClient, NoAnswer, Outcome, Pace};

use crate::{
    address::Host,
    ballot::{Ballot, ReceiptStatus, Tries, Try},
    census::Census,
    error::LoadError,
    progress::Progress,
    votes::PlannedVotes,
};

/// Longest pause of a voter before another attempt.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// State that all connections of a run share.
#[derive(Debug)]
pub(crate) struct LoadRun {
    pub(crate) targets: Vec<Arc<Host>>,
    /// Path to which votes are posted.
    pub(crate) path: Uri,
    /// Body of a vote, by option.
    pub(crate) bodies: Vec<Bytes>,
    pub(crate) votes: PlannedVotes,
    pub(crate) voters: u64,
    pub(crate) keep: Keep,
    pub(crate) attempts: u32,
    /// Time limit for connecting, and for each answer.
    pub(crate) request_timeout: Duration,
    pub(crate) pace: Pace,
    pub(crate) progress: Progress,
    /// Number of the next voter.
    pub(crate) next: AtomicU64,
    /// Set to serve no more voters.
    pub(crate) stop: AtomicBool,
}

/// Observations of one connection, or of several after [`merge`](Self::merge).
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) census: Census,
    /// Microseconds from sending a vote to its acknowledgement.
    pub(crate) latency: Histogram<u64>,
    pub(crate) last_ack: Option<Instant>,
    pub(crate) retries: u64,
    pub(crate) double_votes: u64,
}

impl Log {
    /// Creates an empty log for a poll with this number of options.
    pub(crate) fn new(keep: Keep, options: usize) -> Self {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap_or_else(|_| {
            unreachable!("a histogram can have a range of 1 µs to 1 minute with 3 significant digits")
        });
        latency.auto(true);
        Self { census: Census::new(keep, options), latency, last_ack: None, retries: 0, double_votes: 0 }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.census.merge(&other.census);
        // Adding can't fail: both histograms resize automatically.
        let _ = self.latency.add(&other.latency);
        self.last_ack = self.last_ack.max(other.last_ack);
        self.retries += other.retries;
        self.double_votes += other.double_votes;
    }
}

/// What one attempt to cast a vote led to.
enum Attempt {
    /// The voter got a cookie, with which to vote.
    Introduced,
    /// The outcome of the vote is known.
    Decided(Try),
    /// The outcome of the vote is not known; `None` if the attempt had no cookie, so that it carried no vote. The target
    /// may ask for a pause.
    Open { outcome: Option<Try>, retry_after: Option<Duration> },
    /// Nothing was sent.
    NotSent,
}

/// A connection to every target, and the cookies of the voter that it currently serves.
#[derive(Debug)]
pub(crate) struct VirtualVoter {
    course: Arc<LoadRun>,
    frontends: Vec<FrontendClient>,
    cookies: Cookies,
    log: Log,
}

impl VirtualVoter {
    pub(crate) fn new(course: Arc<LoadRun>) -> Self {
        let frontends = course.targets.iter().map(|host| host.client(course.request_timeout)).collect();
        let log = Log::new(course.keep, course.bodies.len());
        Self { course, frontends, cookies: Cookies::default(), log }
    }

    /// Serves voters until all have voted or the run is stopped, and returns the observations.
    ///
    /// # Errors
    /// Fails if a frontend accepts a vote without a cookie, which makes a check of the tally impossible.
    pub(crate) async fn run(mut self) -> Result<Log, LoadError> {
        while !self.course.stop.load(Ordering::Relaxed) {
            let number = self.course.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.course.voters {
                break;
            }
            self.vote(number).await?;
        }
        Ok(self.log)
    }

    async fn vote(&mut self, number: u64) -> Result<(), LoadError> {
        let voter = self.course.votes.voter(number);
        self.cookies.clear();
        let home = (number % self.frontends.len() as u64) as usize;
        let (first, at) = self.cast(voter.first, home).await?;
        let mut ballot = Ballot { first: (voter.first, first), second: None };
        if let (ReceiptStatus::Acked, Some(option)) = (first.fate(), voter.second) {
            self.log.double_votes += 1;
            let elsewhere = (at + 1) % self.frontends.len();
            let (second, _) = self.cast(option, elsewhere).await?;
            ballot.second = Some((option, second));
        }
        self.log.census.add(&ballot);
        Ok(())
    }

    /// Casts one vote, with up to `attempts` attempts until its outcome is known. Returns the attempts and the index of
    /// the last target.
    ///
    /// A target that can't be connected to is skipped, as a load balancer would: nothing was sent there.
    async fn cast(&mut self, option: usize, start: usize) -> Result<(Tries, usize), LoadError> {
        self.course.pace.turn().await;
        let (mut tries, mut at) = (Tries::default(), start);
        let (mut tried, mut passed) = (0, 0);
        loop {
            let retry_after = match self.attempt(option, at).await? {
                Attempt::Introduced => continue,
                Attempt::Decided(outcome) => {
                    tries.add(outcome);
                    break;
                }
                Attempt::Open { outcome, retry_after } => {
                    outcome.into_iter().for_each(|outcome| tries.add(outcome));
                    retry_after
                }
                Attempt::NotSent => {
                    passed += 1;
                    at = (at + 1) % self.frontends.len();
                    if passed % self.frontends.len() != 0 {
                        continue;
                    }
                    None
                }
            };
            tried += 1;
            if tried == self.course.attempts {
                break;
            }
            self.log.retries += 1;
            tokio::time::sleep(pause(tried, retry_after)).await;
        }
        self.course.progress.count(tries.fate());
        Ok((tries, at))
    }

    /// Makes one attempt at one target.
    async fn attempt(&mut self, option: usize, at: usize) -> Result<Attempt, LoadError> {
        // A vote without a cookie is never counted: it only requests a cookie.
        let introduced = !self.cookies.is_empty();
        let sent = Instant::now();
        let body = self.course.bodies[option].clone();
        let answer = match self.frontends[at].vote(&self.course.path, &mut self.cookies, body).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(why)) => {
                self.note(at, None, &why);
                return Ok(Attempt::NotSent);
            }
            Err(NoAnswer::Lost(why)) => {
                self.note(at, None, &why);
                return Ok(Attempt::Open { outcome: introduced.then_some(Try::Stray), retry_after: None });
            }
        };
        match (answer.outcome, introduced) {
            (Outcome::Acknowledged, true) => {
                let now = Instant::now();
                self.log.latency.saturating_record((now - sent).as_micros() as u64);
                self.log.last_ack = Some(now);
                Ok(Attempt::Decided(Try::Acked))
            }
            (Outcome::Acknowledged, false) => {
                Err(LoadError::NoCookieNeeded { url: self.course.targets[at].url.clone() })
            }
            _ if answer.status == StatusCode::UNAUTHORIZED && !introduced && answer.sets_cookie => {
                Ok(Attempt::Introduced)
            }
            (Outcome::Refused, _) => {
                self.note(at, Some(answer.status), "");
                Ok(Attempt::Decided(Try::Refused))
            }
            (Outcome::NotStored | Outcome::Unknown, _) => {
                self.note(at, Some(answer.status), "");
                let outcome = if answer.sets_cookie { Try::Unknown } else { Try::Stray };
                let retry_after = seconds(&answer.headers);
                Ok(Attempt::Open { outcome: introduced.then_some(outcome), retry_after })
            }
        }
    }

    /// Reports a problem with a target. Only the first of a run is shown; more would be noise.
    fn note(&self, at: usize, status: Option<StatusCode>, why: &str) {
        let (url, frontend) = (&self.course.targets[at].url, &self.frontends[at]);
        self.course.progress.note(|| match status {
            Some(status) => format!("{url} answered {status}: {}", excerpt(frontend.body())),
            None => format!("{url}: {why}"),
        });
    }
}

/// Returns the start of a body as one line, for a message.
pub(crate) fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() { "(no body)".to_owned() } else { line.chars().take(200).collect() }
}

fn seconds(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Returns the pause after this number of attempts: at least what the server asks for, with jitter, so that voters who
/// failed at the same time do not retry at the same time.
fn pause(tried: u32, retry_after: Option<Duration>) -> Duration {
    let growing = Duration::from_millis(100) * 2_u32.pow(tried.min(6) - 1);
    let wanted = growing.max(retry_after.unwrap_or_default()).min(MAX_PAUSE);
    wanted.mul_f64(rand::rng().random_range(1.0..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_respect_retry_after() {
        let within = |pause: Duration, low| (low..low * 5 / 4 + 1).contains(&(pause.as_millis() as u64));
        assert!(within(pause(1, None), 100) && within(pause(2, None), 200) && within(pause(50, None), 3200));
        assert!(within(pause(1, Some(Duration::from_secs(1))), 1000));
        assert!(within(pause(1, Some(Duration::from_secs(600))), 5000));
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt(b" the poll\n is closed "), "the poll is closed");
        assert_eq!(excerpt(b""), "(no body)");
        assert_eq!(excerpt(&[b'x'; 1000]).len(), 200);
    }
}
