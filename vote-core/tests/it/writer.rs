//! Group commit and admission, on a queue in memory that can be made to fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use vote_core::{
    Poll, PollDigest, PollSlug, Polls, Position, Queue, QueueId, Timestamp, Vote,
    admission::{Admission, AdmissionOptions, AdmissionState, ClosedReason, PollAdmission},
    conformance::{activate, digest, layout, poll, record, vote},
    poll::Phase,
    queue::{AppendError, Appended, Frame, MemoryQueue, PollRecord, QueueError, QueueLayer, QueueStatus},
    writer::{CastError, ENOUGH, FLUSH_EVERY, Writer},
};

/// A queue in memory in which each append waits for a permit, and fails on request.
#[derive(Debug)]
struct Slow {
    inner: MemoryQueue,
    permits: Semaphore,
    appends: AtomicUsize,
    replies_get_lost: AtomicBool,
    /// Whether an executed append is answered only after the next status request.
    replies_are_late: AtomicBool,
    inspected: Notify,
    /// Number of accepted votes that each count in the status leaves out.
    forgotten: AtomicU64,
}

#[async_trait]
impl QueueLayer for Slow {
    fn inner(&self) -> &dyn Queue {
        &self.inner
    }
    async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
        let mut status = self.inner.status().await?;
        if let Some(status) = &mut status {
            let forgotten = self.forgotten.load(Ordering::Relaxed);
            let counts =
                status.accepted.iter().map(|(partition, poll, votes)| (partition, poll, votes - forgotten));
            status.accepted = counts.collect();
        }
        // An append that waits was executed before, so this status counts its votes.
        self.inspected.notify_waiters();
        Ok(status)
    }
    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        self.permits.acquire().await.unwrap().forget();
        self.appends.fetch_add(1, Ordering::Relaxed);
        let appended = self.inner.append(id, frames).await;
        if self.replies_are_late.load(Ordering::Relaxed) {
            self.inspected.notified().await;
        }
        if self.replies_get_lost.load(Ordering::Relaxed) {
            return Err(AppendError::Unknown("the reply got lost".to_owned()));
        }
        appended
    }
}

fn slow() -> Arc<Slow> {
    Arc::new(Slow {
        inner: MemoryQueue::new(),
        permits: Semaphore::new(0),
        appends: AtomicUsize::new(0),
        replies_get_lost: AtomicBool::new(false),
        replies_are_late: AtomicBool::new(false),
        inspected: Notify::new(),
        forgotten: AtomicU64::new(0),
    })
}

fn cars() -> PollSlug {
    "cars".parse().unwrap()
}

/// Two polls that differ only by their names.
fn polls() -> Polls {
    let poll = |slug| {
        format!(
            "[[poll]]\nslug = \"{slug}\"\ntitle = \"?\"\n\
             options = [{{ slug = \"cats\", label = \"Cats\" }}, {{ slug = \"dogs\", label = \"Dogs\" }}]\n"
        )
    };
    Polls::from_toml("polls.toml", &(poll("pets") + &poll("cars"))).unwrap()
}

fn options(allow_volatile: bool) -> AdmissionOptions {
    let interval = Duration::from_millis(50);
    AdmissionOptions { layout: layout(), polls: Arc::new(polls()), allow_volatile, interval }
}

/// Starts a writer on an active queue.
async fn open(queue: &Arc<Slow>, capacity: usize) -> Writer {
    let id = queue.create(layout(), None).await.unwrap();
    activate(&**queue, id, &[poll(), cars()]).await.unwrap();
    let mut admission = Admission::start(queue.clone(), options(true));
    admission.opened().await.unwrap();
    Writer::start(queue.clone(), admission, capacity, Arc::new(|_| ())).0
}

fn cast(
    writer: &Writer,
    vote: Vote,
) -> tokio::task::JoinHandle<Result<vote_core::writer::Stored, CastError>> {
    let writer = writer.clone();
    tokio::spawn(async move { writer.cast(vote).await })
}

#[tokio::test]
async fn votes_that_arrive_during_a_flush_share_the_next_one() {
    let queue = slow();
    let writer = open(&queue, 1000).await;
    let casts: Vec<_> = (0..100).map(|n| cast(&writer, vote(n, 0, 1))).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(casts.iter().all(|cast| !cast.is_finished()), "no vote is acknowledged before it is on disk");
    queue.permits.add_permits(100);
    for cast in casts {
        cast.await.unwrap().unwrap();
    }
    assert!(queue.appends.load(Ordering::Relaxed) <= 2, "{} flushes", queue.appends.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn an_idle_writer_flushes_at_once_and_a_busy_one_at_intervals() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let writer = open(&queue, 1000).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    cast(&writer, vote(0, 0, 0)).await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);

    let votes: Vec<_> = (1..101)
        .map(|voter| {
            let writer = writer.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(voter)).await;
                writer.cast(vote(voter, 0, 0)).await
            })
        })
        .collect();
    for vote in votes {
        vote.await.unwrap().unwrap();
    }
    // The first flush, and then one at each interval, to which the timer may add a millisecond.
    let flushes = queue.appends.load(Ordering::Relaxed);
    let [most, least] = [0, 1].map(|late| 100 / (FLUSH_EVERY.as_millis() as usize + late));
    assert!((least..=1 + most + 1).contains(&flushes), "{flushes}");
    let last = start.elapsed();
    assert!(last <= Duration::from_millis(100 + 1) + FLUSH_EVERY, "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_flush_with_enough_votes_does_not_wait() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let writer = open(&queue, 1000).await;
    let (start, enough) = (Instant::now(), ENOUGH as u64);
    for flush in 0..10 {
        let votes: Vec<_> = (0..enough).map(|n| cast(&writer, vote(flush * enough + n, 0, 0))).collect();
        for vote in votes {
            vote.await.unwrap().unwrap();
        }
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(queue.appends.load(Ordering::Relaxed), 10);
}

#[tokio::test]
async fn a_vote_is_at_the_location_in_its_answer() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let writer = open(&queue, 1000).await;
    for n in 0..20 {
        let vote = vote(n, (n % 2) as u8, 1);
        let stored = writer.cast(vote).await.unwrap();
        assert_eq!(stored.partition, layout().partitions.of(vote.voter));
        let read = queue.read(stored.queue, stored.partition, Position::START, 100).await.unwrap();
        let entry = read.entries.into_iter().find(|entry| entry.position == stored.position).unwrap();
        let votes = vote_core::frame::decode(
            poll(),
            stored.partition,
            layout().partitions,
            entry.votes,
            &entry.frame,
        )
        .unwrap();
        assert!(votes.contains(&vote));
    }
}

#[tokio::test]
async fn votes_beyond_the_capacity_are_refused_at_once() {
    let queue = slow();
    let writer = open(&queue, 10).await;
    let casts: Vec<_> = (0..100).map(|n| cast(&writer, vote(n, 0, 1))).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    queue.permits.add_permits(1000);
    let mut overloaded = 0;
    for cast in casts {
        match cast.await.unwrap() {
            Ok(_) => {}
            Err(CastError::Overloaded) => overloaded += 1,
            Err(e) => panic!("{e:?}"),
        }
    }
    assert!((80..=90).contains(&overloaded), "{overloaded} of 100");
}

#[tokio::test]
async fn a_lost_reply_is_not_an_acknowledgement() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let writer = open(&queue, 10).await;
    queue.replies_get_lost.store(true, Ordering::Relaxed);
    assert!(matches!(writer.cast(vote(1, 0, 1)).await, Err(CastError::Unknown(_))));
}

#[tokio::test]
async fn a_sealed_poll_refuses_only_its_own_votes() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let writer = open(&queue, 10).await;
    let id = queue.status().await.unwrap().unwrap().id;
    queue.seal(id, poll()).await.unwrap();
    let cars = Vote { poll: cars(), ..vote(1, 0, 1) };
    let (pets, cars) = (cast(&writer, vote(1, 0, 1)), cast(&writer, cars));
    assert_eq!(pets.await.unwrap(), Err(CastError::Sealed));
    cars.await.unwrap().unwrap();
}

/// Waits until the admission of a poll is as expected.
async fn sees(admission: &Admission, poll: PollSlug, expected: PollAdmission) {
    for _ in 0..100 {
        if admission.poll_admission(poll) == Some(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(admission.poll_admission(poll), Some(expected));
}

#[tokio::test]
async fn votes_for_an_unknown_poll_are_accepted_once_it_is_recorded() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let id = queue.create(layout(), None).await.unwrap();
    activate(&*queue, id, &[poll()]).await.unwrap();
    let mut admission = Admission::start(queue.clone(), options(true));
    assert_eq!(admission.poll_admission(cars()), None, "the queue has not been inspected yet");
    admission.opened().await.unwrap();
    let writer = Writer::start(queue.clone(), admission, 10, Arc::new(|_| ())).0;
    sees(writer.admission(), cars(), PollAdmission::NotRecorded).await;
    let on_cars = Vote { poll: cars(), ..vote(1, 0, 1) };
    let (pets, refused) = (cast(&writer, vote(1, 0, 1)), cast(&writer, on_cars));
    pets.await.unwrap().unwrap();
    assert_eq!(refused.await.unwrap(), Err(CastError::UnknownPoll));
    queue.record_polls(id, &[record(cars())]).await.unwrap();
    writer.cast(on_cars).await.unwrap();
    sees(writer.admission(), cars(), PollAdmission::Accepted).await;
    let tea = Vote { poll: "tea".parse().unwrap(), ..on_cars };
    assert!(
        matches!(writer.cast(tea).await, Err(CastError::ForeignPoll(poll)) if poll == tea.poll),
        "the polls file does not have this poll"
    );
}

#[tokio::test]
async fn a_poll_with_another_definition_is_refused_and_both_definitions_are_reported() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let id = queue.create(layout(), None).await.unwrap();
    let different = PollRecord { digest: PollDigest([9; 16]), ..record(cars()) };
    queue.record_polls(id, &[record(poll()), different]).await.unwrap();
    queue.activate(id).await.unwrap();
    let mut admission = Admission::start(queue.clone(), options(true));
    admission.opened().await.unwrap();
    let writer = Writer::start(queue.clone(), admission, 10, Arc::new(|_| ())).0;
    let differs = PollAdmission::Differs { file: digest(cars()), queue: different.digest };
    sees(writer.admission(), cars(), differs).await;
    let (pets, refused) =
        (cast(&writer, vote(1, 0, 1)), cast(&writer, Vote { poll: cars(), ..vote(1, 0, 1) }));
    pets.await.unwrap().unwrap();
    assert_eq!(refused.await.unwrap(), Err(CastError::DifferentDefinition));
}

#[tokio::test]
async fn a_poll_closes_at_the_time_recorded_in_the_queue() {
    let queue = slow();
    let id = queue.create(layout(), None).await.unwrap();
    let at = |seconds: i64| Timestamp::MIN.saturating_add(seconds * 1_000_000);
    let pets = Poll { closes_at: Some(at(10)), ..polls().get("pets").unwrap().clone() };
    let admission = Admission::start(queue.clone(), options(true));
    assert_eq!(admission.closes_at(&pets), Some(at(10)), "the time in the file, before a record was seen");
    queue.record_polls(id, &[PollRecord { closes_at: Some(at(20)), ..record(poll()) }]).await.unwrap();
    sees(&admission, poll(), PollAdmission::Accepted).await;
    assert_eq!(admission.phase(&pets, at(15)), Phase::Open);
    assert_eq!(admission.phase(&pets, at(20)), Phase::Closed);
    queue.create(layout(), Some(id)).await.unwrap();
    sees(&admission, poll(), PollAdmission::NotRecorded).await;
    assert_eq!(
        admission.phase(&pets, at(15)),
        Phase::Open,
        "the time last seen, since the new queue has no record yet"
    );
    let new = queue.status().await.unwrap().unwrap().id;
    queue.seal(new, poll()).await.unwrap();
    sees(&admission, poll(), PollAdmission::Sealed).await;
    assert_eq!(admission.phase(&pets, at(1)), Phase::Closed);
}

#[tokio::test]
async fn a_replacing_queue_accepts_votes_once_it_is_active() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let writer = open(&queue, 10).await;
    let old = queue.status().await.unwrap().unwrap().id;
    let new = queue.create(layout(), Some(old)).await.unwrap();
    assert_eq!(writer.cast(vote(1, 0, 1)).await, Err(CastError::Closed(ClosedReason::Replaced)));
    activate(&*queue, new, &[poll()]).await.unwrap();
    for _ in 0..100 {
        match writer.cast(vote(1, 0, 1)).await {
            Ok(stored) => return assert_eq!(stored.queue, new),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("the new queue accepts no votes");
}

#[tokio::test]
async fn a_queue_that_lost_acknowledged_votes_is_replaced_even_if_it_accepted_votes_since() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let writer = open(&queue, 10).await;
    let old = queue.status().await.unwrap().unwrap().id;
    for n in 0..3 {
        // The same voter, so that all votes are in one partition.
        writer.cast(vote(1, 0, n)).await.unwrap();
    }
    queue.forgotten.store(2, Ordering::Relaxed);
    writer.cast(vote(1, 0, 3)).await.unwrap();
    for _ in 0..100 {
        if queue.inner.status().await.unwrap().unwrap().id != old {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the queue was not replaced, although it counts two votes less than it acknowledged");
}

/// The queue executes an append, a status counts its votes, and only then is the append answered.
#[tokio::test]
async fn votes_that_a_status_counted_before_they_were_acknowledged_are_no_loss() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let writer = open(&queue, 10).await;
    let queue_id = queue.status().await.unwrap().unwrap().id;
    queue.replies_are_late.store(true, Ordering::Relaxed);
    for n in 0..3 {
        writer.cast(vote(n, 0, 1)).await.unwrap();
    }
    queue.replies_are_late.store(false, Ordering::Relaxed);
    // Time for more inspections, each of which compares the queue's counts with the evidence.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        queue.inner.status().await.unwrap().unwrap().id,
        queue_id,
        "a queue that lost nothing is not replaced"
    );
    assert_eq!(writer.cast(vote(4, 0, 1)).await.unwrap().queue, queue_id);
}

#[tokio::test]
async fn waiting_votes_are_flushed_before_the_writer_ends() {
    let queue = slow();
    let id = queue.create(layout(), None).await.unwrap();
    activate(&*queue, id, &[poll(), cars()]).await.unwrap();
    let mut admission = Admission::start(queue.clone(), options(true));
    admission.opened().await.unwrap();
    let (writer, flusher) = Writer::start(queue.clone(), admission, 10, Arc::new(|_| ()));
    let casts: Vec<_> = (0..5).map(|n| cast(&writer, vote(n, 0, 1))).collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(writer);
    queue.permits.add_permits(1000);
    flusher.await.unwrap();
    for cast in casts {
        cast.await.unwrap().unwrap();
    }
}

async fn reason(queue: Arc<dyn Queue>, options: AdmissionOptions) -> String {
    let admission = Admission::start(queue, options);
    tokio::time::sleep(Duration::from_millis(30)).await;
    match admission.state() {
        AdmissionState::Open(_) => panic!("the queue accepts votes"),
        AdmissionState::Closed(reason) => reason.to_string(),
    }
}

#[tokio::test]
async fn a_closed_admission_gives_the_reason() {
    let inactive = reason(Arc::new(MemoryQueue::new()), options(true)).await;
    assert!(inactive.contains("no worker has activated"), "{inactive}");
    let volatile = reason(Arc::new(MemoryQueue::new()), options(false)).await;
    assert!(volatile.contains("may lose votes"), "{volatile}");

    let queue = Arc::new(MemoryQueue::new());
    let id = queue.create(layout(), None).await.unwrap();
    activate(&*queue, id, &[poll(), cars()]).await.unwrap();
    let mut other = options(true);
    other.layout.partitions = 32.try_into().unwrap();
    assert!(reason(queue.clone(), other).await.contains("16 partitions instead of 32: set VOTE_PARTITIONS"));
    let mut other = options(true);
    other.layout.fingerprint.0 = [0; 8];
    assert!(reason(queue, other).await.contains("another pepper"));
}

#[tokio::test]
async fn admission_is_closed_once_the_task_that_watches_the_queue_has_ended() {
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::with_ids(Box::new(|| panic!("a bug of the queue"))));
    let options = AdmissionOptions {
        layout: layout(),
        polls: Arc::new(Polls::example()),
        allow_volatile: true,
        interval: Duration::from_secs(2),
    };
    let admission = Admission::start(Arc::clone(&queue), options);
    tokio::time::timeout(Duration::from_secs(5), admission.ended()).await.expect("the panic ends the task");
    assert!(matches!(admission.state(), AdmissionState::Closed(ClosedReason::WatcherEnded)));
    let (writer, _flusher) = Writer::start(queue, admission, 10, Arc::new(|_| ()));
    let refused = writer.cast(vote(1, 0, 1)).await;
    assert!(matches!(refused, Err(CastError::Closed(_))), "{refused:?}");
}
