//! Whether the frontends of a process take votes, and for which polls they do not.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vote_core::{
    Clock, PollSlug, Polls,
    intake::{Intake, IntakeState, PollAdmission},
    poll::Phase,
    queue::Room,
};

/// Whether all of a process' frontends take votes, for the admin routes. Clones are the same.
#[derive(Debug, Clone)]
pub struct Readiness {
    expected: usize,
    frontends: Arc<Mutex<Vec<Watched>>>,
}

/// One frontend.
#[derive(Debug)]
struct Watched {
    intake: Intake,
    polls: Arc<Polls>,
    clock: Arc<dyn Clock>,
}

impl Readiness {
    /// Of so many frontends, which are one a thread.
    #[must_use]
    pub fn of(frontends: usize) -> Self {
        Self { expected: frontends, frontends: Arc::default() }
    }

    pub(crate) fn add(&self, intake: Intake, polls: Arc<Polls>, clock: Arc<dyn Clock>) {
        self.lock().push(Watched { intake, polls, clock });
    }

    /// `Ok` when all take votes, be it not for every poll: see [`remarks`](Self::remarks).
    ///
    /// # Errors
    /// Why one does not, or that it takes votes for none of the polls that are open now.
    pub fn ready(&self) -> Result<(), String> {
        let frontends = self.lock();
        if frontends.len() < self.expected {
            return Err("starting".to_owned());
        }
        for frontend in &*frontends {
            if let IntakeState::Shut(reason) = frontend.intake.state() {
                return Err(reason);
            }
        }
        match frontends.iter().find_map(Watched::takes_none) {
            Some(refused) => Err(format!("votes are taken for none of the open polls: {refused}")),
            None => Ok(()),
        }
    }

    /// For which polls no votes are taken, and why; none if there are no such polls.
    #[must_use]
    pub fn remarks(&self) -> Option<String> {
        let refused: BTreeMap<_, _> = self.lock().iter().flat_map(Watched::refused).collect();
        (!refused.is_empty()).then(|| format!("no votes are taken for {}", Refused(&refused)))
    }

    /// Each poll, and whether one of the frontends refuses votes for it since its queue does not have it as the file
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

    /// How full the queue is, which is the same one for all.
    pub(crate) fn room(&self) -> Option<Room> {
        self.lock().iter().find_map(|frontend| frontend.intake.room())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.frontends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// The polls that are not closed and that the queue does not have as the file defines them.
    fn refused(&self) -> BTreeMap<PollSlug, PollAdmission> {
        let now = self.clock.now();
        let not_closed = self.polls.iter().filter(|poll| self.intake.phase(poll, now) != Phase::Closed);
        let refused = not_closed.filter_map(|poll| {
            let admission = self.intake.admission(poll.slug)?;
            (admission != PollAdmission::Taken).then_some((poll.slug, admission))
        });
        refused.collect()
    }

    /// The open polls, if there are some and votes are taken for none of them.
    fn takes_none(&self) -> Option<String> {
        let now = self.clock.now();
        let open = self.polls.iter().filter(|poll| self.intake.phase(poll, now) == Phase::Open);
        let refused = self.refused();
        let mut open = open.peekable();
        open.peek()?;
        open.all(|poll| refused.contains_key(&poll.slug)).then(|| Refused(&refused).to_string())
    }
}

/// Polls, each with why votes for it are refused.
struct Refused<'a>(&'a BTreeMap<PollSlug, PollAdmission>);

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (poll, admission)) in self.0.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}poll {poll} ")?;
            match admission {
                PollAdmission::Differs { file, queue } => {
                    write!(f, "(the file defines it otherwise, digest {file}, than the queue, {queue})")?;
                }
                _ => write!(f, "(no worker has recorded it in the queue yet)")?,
            }
        }
        Ok(())
    }
}
