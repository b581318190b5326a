//! Group commit: while one flush is on its way to the disk, the next one collects.
//!
//! Each vote is answered when its own frame is on disk. There is no timer: an idle queue answers at once, a busy one
//! gets larger frames. One [`Writer`] has one flush in flight; a server with a thread per core has one for each.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::Instrument;

use crate::{
    Partition, PollSlug, Position, Queue, QueueId, Vote, frame,
    intake::{Intake, IntakeState},
    queue::{AppendError, Appended, Frame},
};

/// The most votes in one flush.
const MAX_FLUSH: usize = 8192;

/// Where an accepted vote is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The box.
    pub queue: QueueId,
    /// The voter's partition.
    pub partition: Partition,
    /// The frame's position, shared with the other votes of the frame.
    pub position: Position,
}

/// Why a vote was not accepted. Except for [`Sealed`](Self::Sealed), the voter should try again later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CastError {
    /// The poll takes no more votes; final.
    #[error("the poll is closed")]
    Sealed,
    /// No worker has recorded the poll in the queue yet. Not stored.
    #[error("the queue does not know the poll yet")]
    UnknownPoll,
    /// The queue has another definition of the poll than the vote was made for. Not stored.
    #[error("the queue has another definition of the poll")]
    OtherPoll,
    /// Too many votes are waiting for the disk. Not stored.
    #[error("too many votes are waiting")]
    Overloaded,
    /// The queue takes no votes now. Not stored.
    #[error("{0}")]
    Shut(String),
    /// The queue refused or failed. Not stored.
    #[error("{0}")]
    NotStored(String),
    /// It may or may not be stored; the voter may safely repeat the vote.
    #[error("{0}")]
    Unknown(String),
}

/// What a flush was like, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct Flush {
    /// Votes in it.
    pub votes: usize,
    /// Frames they were put into.
    pub frames: usize,
    /// From sending to the answer.
    pub took: Duration,
    /// Whether it was answered, and not by an error.
    pub ok: bool,
}

/// Called after each flush.
pub type OnFlush = Arc<dyn Fn(Flush) + Send + Sync>;

struct Job {
    vote: Vote,
    reply: oneshot::Sender<Result<Stored, CastError>>,
}

/// A handle to a group-commit writer; clones share it.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
    intake: Intake,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("free", &self.jobs.capacity()).finish()
    }
}

impl Writer {
    /// Starts a writer that holds up to `capacity` votes waiting. Must be called within a tokio runtime. The task
    /// ends after the last handle is dropped and everything was flushed.
    #[must_use]
    pub fn start(
        queue: Arc<dyn Queue>,
        intake: Intake,
        capacity: usize,
        on_flush: OnFlush,
    ) -> (Self, JoinHandle<()>) {
        let (jobs, inbox) = mpsc::channel(capacity);
        let flusher = Flusher { queue, intake: intake.clone(), on_flush };
        (Self { jobs, intake }, tokio::spawn(flusher.run(inbox)))
    }

    /// What is known of the queue: whether there is any use in [casting](Self::cast) a vote.
    #[must_use]
    pub const fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Stores a vote: `Ok` means that it is on disk.
    ///
    /// Dropping the future neither stores nor takes back: the vote may be stored, as with [`CastError::Unknown`].
    ///
    /// # Errors
    /// See [`CastError`].
    pub async fn cast(&self, vote: Vote) -> Result<Stored, CastError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(Job { vote, reply }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => CastError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => CastError::NotStored("the writer has stopped".to_owned()),
        })?;
        answer.await.unwrap_or_else(|_| Err(CastError::Unknown("the writer stopped".to_owned())))
    }
}

struct Flusher {
    queue: Arc<dyn Queue>,
    intake: Intake,
    on_flush: OnFlush,
}

impl Flusher {
    async fn run(self, mut inbox: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(MAX_FLUSH);
        while inbox.recv_many(&mut jobs, MAX_FLUSH).await > 0 {
            match self.intake.state() {
                IntakeState::Open(id) => self.flush(id, jobs.drain(..)).await,
                IntakeState::Shut(reason) => answer_all(jobs.drain(..), &CastError::Shut(reason)),
            }
        }
    }

    async fn flush(&self, id: QueueId, jobs: impl Iterator<Item = Job>) {
        let groups = self.frames(jobs);
        let frames: Vec<Frame> = groups.iter().map(|(frame, _)| frame.clone()).collect();
        let votes: usize = groups.iter().map(|(_, jobs)| jobs.len()).sum();
        if frames.is_empty() {
            return;
        }
        let started = Instant::now();
        let span = tracing::trace_span!(target: crate::TRACES, "flush", votes = votes as i64);
        let result = self.queue.append(id, &frames).instrument(span).await;
        (self.on_flush)(Flush { votes, frames: frames.len(), took: started.elapsed(), ok: result.is_ok() });
        let result = match result {
            // Only a reply that speaks of each frame acknowledges them.
            Ok(appended) if appended.len() != frames.len() => Err(CastError::Unknown(format!(
                "the queue answered for {} frames of {}",
                appended.len(),
                frames.len()
            ))),
            Ok(appended) => Ok(appended),
            Err(e) => Err(self.refused(e)),
        };
        match result {
            Ok(appended) => {
                for ((frame, jobs), appended) in groups.into_iter().zip(appended) {
                    let answer = self.answer(id, &frame, appended);
                    for job in jobs {
                        // A voter that went away is not an error: the vote is stored all the same.
                        drop(job.reply.send(answer.clone()));
                    }
                }
            }
            Err(e) => answer_all(groups.into_iter().flat_map(|(_, jobs)| jobs), &e),
        }
    }

    /// What the voters of a frame are told, which is also what is known of its poll from then on.
    fn answer(&self, id: QueueId, frame: &Frame, appended: Appended) -> Result<Stored, CastError> {
        let error = match appended {
            Appended::Stored(position) => {
                self.intake.acknowledged(id, frame);
                return Ok(Stored { queue: id, partition: frame.partition, position });
            }
            Appended::Sealed => CastError::Sealed,
            Appended::UnknownPoll => CastError::UnknownPoll,
            Appended::OtherPoll => CastError::OtherPoll,
        };
        self.intake.refused(frame.poll, appended);
        Err(error)
    }

    fn refused(&self, error: AppendError) -> CastError {
        // Whatever it was, the server may be another one than before, or set otherwise.
        self.intake.look_again();
        match error {
            AppendError::AnotherBox | AppendError::NotRegistered => CastError::Shut(error.to_string()),
            AppendError::NotStored(reason) => CastError::NotStored(reason),
            AppendError::Unknown(reason) => {
                tracing::warn!(queue = %self.queue.address(), "a flush has no known outcome: {reason}");
                CastError::Unknown(reason)
            }
        }
    }

    /// The votes as frames, each with the jobs it answers.
    fn frames(&self, jobs: impl Iterator<Item = Job>) -> Vec<(Frame, Vec<Job>)> {
        let partitions = self.intake.layout().partitions;
        let mut groups: BTreeMap<(PollSlug, Partition), Vec<Job>> = BTreeMap::new();
        for job in jobs {
            groups.entry((job.vote.poll, partitions.of(job.vote.voter))).or_default().push(job);
        }
        let mut frames = Vec::with_capacity(groups.len());
        for ((poll, partition), mut jobs) in groups {
            let Some(digest) = self.intake.digest(poll) else {
                let error = format!("poll {poll} is none of those that votes are taken for here");
                answer_all(jobs.into_iter(), &CastError::NotStored(error));
                continue;
            };
            while !jobs.is_empty() {
                let rest = jobs.split_off(jobs.len().min(frame::MAX_VOTES));
                let votes: Vec<Vote> = jobs.iter().map(|job| job.vote).collect();
                match frame::encode(poll, partition, &votes) {
                    Ok(bytes) => {
                        let (votes, bytes) = (votes.len() as u32, Bytes::from(bytes));
                        frames.push((Frame { poll, partition, digest, votes, bytes }, jobs));
                    }
                    Err(e) => answer_all(jobs.into_iter(), &CastError::NotStored(e.to_string())),
                }
                jobs = rest;
            }
        }
        frames
    }
}

fn answer_all(jobs: impl Iterator<Item = Job>, error: &CastError) {
    for job in jobs {
        drop(job.reply.send(Err(error.clone())));
    }
}
