//! Group commit: votes that arrive while one flush is written to disk, or shortly after it began, form the next flush.
//!
//! Each vote is answered when its own frame is on disk. An idle writer flushes at once; a busy one begins a flush every
//! [`FLUSH_EVERY`], or later if the disk is slower, and makes larger frames. A [`Writer`] has one flush in flight; a
//! server with a thread per core has a writer for each.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tracing::Instrument;

use crate::{
    Partition, PollSlug, Position, Queue, QueueId, Vote,
    admission::{Admission, AdmissionState, ClosedReason},
    frame::{self, EncodeError},
    queue::{AppendError, Appended, Frame},
};

/// Maximum number of votes in one flush.
const MAX_FLUSH: usize = 8192;
/// Minimum time from the beginning of one flush to the beginning of the next, and so the longest delay that it adds to a
/// vote.
///
/// A flush costs a Redis about 110 µs whatever its size, mostly for writing to disk, and 9 µs for each frame. With 5,000
/// votes per second and 16 partitions, Redis took 32 µs of CPU for a vote without a minimum, 15 µs with 2 ms, 12 µs with
/// 4 ms and 11 µs with 6 ms; the median time to the answer was 0.5, 1.7, 3.0 and 4.1 ms.
pub const FLUSH_EVERY: Duration = Duration::from_millis(6);
/// Number of waiting votes with which a flush does not wait for [`FLUSH_EVERY`]: enough to share its fixed cost. Without
/// it, 64 voters who vote again and again would be limited to 11,000 votes per second, however fast the machine.
pub const ENOUGH: usize = 32;

/// Location of an accepted vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The queue that holds it.
    pub queue: QueueId,
    /// Partition of the voter.
    pub partition: Partition,
    /// Position of its frame, which it shares with the other votes of the frame.
    pub position: Position,
}

/// Why a vote was not acknowledged. The voter should try again later, unless the variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CastError {
    /// The poll is closed, for good. Not stored; trying again does not help.
    #[error("the poll is closed")]
    Sealed,
    /// No worker has recorded the poll in the queue yet. Not stored.
    #[error("the queue does not know the poll yet")]
    UnknownPoll,
    /// The queue has another definition of the poll than the one the vote was cast for. Not stored.
    #[error("the queue has another definition of the poll")]
    DifferentDefinition,
    /// The writer already holds as many waiting votes as it may. Not stored.
    #[error("too many votes are waiting")]
    Overloaded,
    /// The frontend does not accept votes at present, for this reason. Not stored.
    #[error("{0}")]
    Closed(ClosedReason),
    /// The poll is not among the [polls](crate::admission::AdmissionOptions::polls) of this frontend. Not stored;
    /// trying again does not help.
    #[error("poll {0} is not among the polls of this frontend")]
    ForeignPoll(PollSlug),
    /// The vote can't be encoded. Not stored; trying again does not help.
    #[error("the vote can't be encoded: {0}")]
    Unencodable(#[from] EncodeError),
    /// The writer has stopped. Not stored.
    #[error("the writer has stopped")]
    Stopped,
    /// The queue failed, for the reason in this text. Not stored.
    #[error("{0}")]
    NotStored(String),
    /// The vote may or may not be stored. The voter may safely repeat it: a vote stored twice counts once.
    #[error("{0}")]
    Unknown(String),
}

/// Measurements of one flush, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct Flush {
    /// Number of votes.
    pub votes: usize,
    /// Number of frames that hold them.
    pub frames: usize,
    /// Time from sending the frames to the answer.
    pub took: Duration,
    /// Whether the queue answered without an error.
    pub ok: bool,
}

/// Callback that runs after each flush.
pub type OnFlush = Arc<dyn Fn(Flush) + Send + Sync>;

struct Job {
    vote: Vote,
    reply: oneshot::Sender<Result<Stored, CastError>>,
}

/// Handle to a group-commit writer. Clones share the writer.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
    admission: Admission,
    /// Wakes the flusher when [`ENOUGH`] votes wait.
    enough: Arc<Notify>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("free", &self.jobs.capacity()).finish()
    }
}

impl Writer {
    /// Starts a writer in which up to `capacity` votes can wait. Must be called within a tokio runtime.
    ///
    /// The task ends after the last handle was dropped and all waiting votes were flushed.
    #[must_use]
    pub fn start(
        queue: Arc<dyn Queue>,
        admission: Admission,
        capacity: usize,
        on_flush: OnFlush,
    ) -> (Self, JoinHandle<()>) {
        let (jobs, inbox) = mpsc::channel(capacity);
        let enough = Arc::new(Notify::new());
        let flusher = Flusher { queue, admission: admission.clone(), on_flush, enough: Arc::clone(&enough) };
        (Self { jobs, admission, enough }, tokio::spawn(flusher.run(inbox)))
    }

    /// Returns the admission of the queue, which tells whether a vote can be [cast](Self::cast) at present.
    #[must_use]
    pub const fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Stores a vote. `Ok` means that it is on disk.
    ///
    /// - Cancellation: dropping the future does not take the vote back. It may be stored, as with
    ///   [`CastError::Unknown`].
    /// - Idempotence: a vote that is cast again, at any frontend, counts once.
    ///
    /// # Errors
    /// Each variant of [`CastError`] says whether the vote is stored, and whether another attempt later helps.
    /// [`Overloaded`](CastError::Overloaded) is returned at once, without waiting.
    pub async fn cast(&self, vote: Vote) -> Result<Stored, CastError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(Job { vote, reply }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => CastError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => CastError::Stopped,
        })?;
        // The flusher holds one of them already. It tolerates being woken too early.
        if self.jobs.max_capacity() - self.jobs.capacity() == ENOUGH - 1 {
            self.enough.notify_one();
        }
        answer.await.unwrap_or_else(|_| Err(CastError::Unknown("the writer stopped".to_owned())))
    }
}

struct Flusher {
    queue: Arc<dyn Queue>,
    admission: Admission,
    on_flush: OnFlush,
    enough: Arc<Notify>,
}

impl Flusher {
    async fn run(self, mut inbox: mpsc::Receiver<Job>) {
        let (mut jobs, mut next_flush) = (Vec::with_capacity(MAX_FLUSH), Instant::now());
        while let Some(first) = inbox.recv().await {
            jobs.push(first);
            while jobs.len() + inbox.len() < ENOUGH && Instant::now() < next_flush {
                // A wake-up may be left from votes that the last flush took.
                tokio::select! {
                    biased;
                    () = sleep_until(next_flush) => {}
                    () = self.enough.notified() => {}
                }
            }
            while jobs.len() < MAX_FLUSH
                && let Ok(job) = inbox.try_recv()
            {
                jobs.push(job);
            }
            match self.admission.state() {
                AdmissionState::Open(id) => {
                    next_flush = Instant::now() + FLUSH_EVERY;
                    self.flush(id, jobs.drain(..)).await;
                }
                AdmissionState::Closed(reason) => answer_all(jobs.drain(..), &CastError::Closed(reason)),
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
            // Only a reply with one result per frame acknowledges them.
            Ok(appended) if appended.len() != frames.len() => Err(CastError::Unknown(format!(
                "the queue answered for {} of {} frames",
                appended.len(),
                frames.len()
            ))),
            Ok(appended) => Ok(appended),
            Err(e) => Err(self.append_failed(id, e)),
        };
        match result {
            Ok(appended) => {
                for ((frame, jobs), appended) in groups.into_iter().zip(appended) {
                    let answer = self.answer(id, &frame, appended);
                    for job in jobs {
                        // A voter who has disconnected is not an error: the vote is stored all the same.
                        drop(job.reply.send(answer.clone()));
                    }
                }
            }
            Err(e) => answer_all(groups.into_iter().flat_map(|(_, jobs)| jobs), &e),
        }
    }

    /// Returns the answer to the voters of a frame, and tells the admission what it shows about the poll.
    fn answer(&self, id: QueueId, frame: &Frame, appended: Appended) -> Result<Stored, CastError> {
        let error = match appended {
            Appended::Stored(position) => {
                self.admission.acknowledged(id, frame);
                return Ok(Stored { queue: id, partition: frame.partition, position });
            }
            Appended::Sealed => CastError::Sealed,
            Appended::UnknownPoll => CastError::UnknownPoll,
            Appended::DifferentDefinition => CastError::DifferentDefinition,
        };
        self.admission.refused(frame.poll, appended);
        Err(error)
    }

    fn append_failed(&self, queue: QueueId, error: AppendError) -> CastError {
        // Whatever failed, the server may have been replaced or reconfigured.
        self.admission.check_now();
        match error {
            AppendError::Replaced => CastError::Closed(ClosedReason::Replaced),
            AppendError::NotActivated => CastError::Closed(ClosedReason::NotActivated { queue }),
            AppendError::NotStored(reason) => CastError::NotStored(reason),
            AppendError::Unknown(reason) => {
                tracing::warn!(queue = %self.queue.address(), "the outcome of a flush is unknown: {reason}");
                CastError::Unknown(reason)
            }
        }
    }

    /// Encodes the votes as frames, each with the jobs it answers. Answers those that cannot be encoded.
    fn frames(&self, jobs: impl Iterator<Item = Job>) -> Vec<(Frame, Vec<Job>)> {
        let partitions = self.admission.layout().partitions;
        let mut groups: BTreeMap<(PollSlug, Partition), Vec<Job>> = BTreeMap::new();
        for job in jobs {
            groups.entry((job.vote.poll, partitions.of(job.vote.voter))).or_default().push(job);
        }
        let mut frames = Vec::with_capacity(groups.len());
        for ((poll, partition), mut jobs) in groups {
            let Some(digest) = self.admission.digest(poll) else {
                answer_all(jobs.into_iter(), &CastError::ForeignPoll(poll));
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
                    Err(e) => answer_all(jobs.into_iter(), &e.into()),
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
