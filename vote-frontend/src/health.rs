//! Health of a process: whether its frontends accept votes, and for which polls they do not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use vote_core::{
    Clock, PollSlug, Polls,
    admission::{Admission, AdmissionState, PollAdmission},
    poll::Phase,
    queue::Usage,
};
use vote_service::Readiness;

/// Health of all frontends of a process, for the admin routes. Clones share it.
///
/// The process is ready if all frontends accept votes, even if not for every poll. It remarks on polls for which they do
/// not, and on a clock that differs from the store's by more than 2 s.
#[derive(Debug, Clone)]
pub struct Health {
    expected: usize,
    frontends: Arc<Mutex<Vec<Watched>>>,
    /// Whether the last log message on the clock said that it is wrong.
    warned: Arc<AtomicBool>,
}

/// Difference between this clock and the store's above which a warning is due.
const WARN_AT: Duration = Duration::from_secs(2);

/// One frontend of the process.
#[derive(Debug)]
struct Watched {
    admission: Admission,
    polls: Arc<Polls>,
    clock: Arc<dyn Clock>,
}

impl Health {
    /// Creates the health of a process with this number of frontends, one per thread.
    #[must_use]
    pub fn of(frontends: usize) -> Self {
        Self { expected: frontends, frontends: Arc::default(), warned: Arc::default() }
    }

    pub(crate) fn add(&self, admission: Admission, polls: Arc<Polls>, clock: Arc<dyn Clock>) {
        self.lock().push(Watched { admission, polls, clock });
    }

    /// Returns the codes of the reasons why frontends accept no votes.
    pub(crate) fn closed(&self) -> BTreeSet<&'static str> {
        let code = |frontend: &Watched| match frontend.admission.state() {
            AdmissionState::Open(_) => None,
            AdmissionState::Closed(reason) => Some(reason.code()),
        };
        self.lock().iter().filter_map(code).collect()
    }

    /// Returns for each poll whether a frontend refuses votes for it because the queue does not have it as the file
    /// defines it.
    pub(crate) fn polls(&self) -> BTreeMap<PollSlug, bool> {
        let mut polls = BTreeMap::new();
        for frontend in &*self.lock() {
            let refused = frontend.refused();
            for poll in &*frontend.polls {
                *polls.entry(poll.slug).or_default() |= refused.contains_key(&poll.slug);
            }
        }
        polls
    }

    /// Returns by how many microseconds this process's clock is ahead of the store's, if known.
    pub(crate) fn clock_ahead_by(&self) -> Option<i64> {
        self.lock().iter().find_map(|frontend| frontend.admission.clock_ahead_by(&*frontend.clock))
    }

    /// Logs when the clock becomes wrong, and when it is right again.
    pub(crate) fn warn_of_clock(&self, ahead: i64) {
        let wrong = is_wrong(&ahead);
        match (self.warned.swap(wrong, Ordering::Relaxed), wrong) {
            (false, true) => tracing::warn!("{}", clock_text(ahead)),
            (true, false) => tracing::info!("this frontend's clock agrees with the store's clock again"),
            _ => {}
        }
    }

    /// Returns the memory usage of the queue, which all frontends share.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.lock().iter().find_map(|frontend| frontend.admission.usage())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.frontends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Readiness for Health {
    fn ready(&self) -> Result<(), String> {
        let frontends = self.lock();
        if frontends.len() < self.expected {
            return Err("starting".to_owned());
        }
        for frontend in &*frontends {
            if let AdmissionState::Closed(reason) = frontend.admission.state() {
                return Err(reason.to_string());
            }
        }
        match frontends.iter().find_map(Watched::accepts_none) {
            Some(refused) => Err(format!("no votes are accepted for any open poll: {refused}")),
            None => Ok(()),
        }
    }

    fn remarks(&self) -> Option<String> {
        let refused: BTreeMap<_, _> = self.lock().iter().flat_map(Watched::refused).collect();
        let polls = (!refused.is_empty()).then(|| format!("no votes are accepted for {}", Refused(&refused)));
        let clock = self.clock_ahead_by().filter(is_wrong).map(clock_text);
        let remarks: Vec<_> = polls.into_iter().chain(clock).collect();
        (!remarks.is_empty()).then(|| remarks.join("; "))
    }
}

fn is_wrong(ahead: &i64) -> bool {
    Duration::from_micros(ahead.unsigned_abs()) > WARN_AT
}

fn clock_text(ahead: i64) -> String {
    format!(
        "this frontend's clock differs from the store's by {:.1} s: votes get wrong timestamps, and polls open and \
         close at the wrong time; synchronize the clock of this machine",
        ahead as f64 / 1e6
    )
}

impl Watched {
    /// Returns the polls that are not closed and that the queue does not have as the file defines them.
    fn refused(&self) -> BTreeMap<PollSlug, PollAdmission> {
        let now = self.clock.now();
        let not_closed = self.polls.iter().filter(|poll| self.admission.phase(poll, now) != Phase::Closed);
        let refused = not_closed.filter_map(|poll| {
            let admission = self.admission.poll_admission(poll.slug)?;
            (admission != PollAdmission::Accepted).then_some((poll.slug, admission))
        });
        refused.collect()
    }

    /// Returns the open polls with the reasons, if there are any and votes are accepted for none of them.
    fn accepts_none(&self) -> Option<String> {
        let now = self.clock.now();
        let open = self.polls.iter().filter(|poll| self.admission.phase(poll, now) == Phase::Open);
        let refused = self.refused();
        let mut open = open.peekable();
        open.peek()?;
        open.all(|poll| refused.contains_key(&poll.slug)).then(|| Refused(&refused).to_string())
    }
}

/// Formats polls, each with the reason why votes for it are refused.
struct Refused<'a>(&'a BTreeMap<PollSlug, PollAdmission>);

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (poll, admission)) in self.0.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}poll {poll} ")?;
            match admission {
                PollAdmission::Differs { file, queue } => {
                    write!(
                        f,
                        "(the frontend's file and the queue define it differently: digests {file} and {queue})"
                    )?;
                }
                _ => write!(f, "(no worker has recorded it in the queue yet)")?,
            }
        }
        Ok(())
    }
}
