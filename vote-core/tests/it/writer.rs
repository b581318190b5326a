//! Group commit and intake, over a queue in memory that can be made to fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore};
use vote_core::{
    Partition, Poll, PollDigest, PollSlug, Polls, Position, Queue, QueueId, Timestamp, Vote,
    conformance::{activate, digest, layout, poll, record, vote},
    intake::{Intake, IntakeOptions, IntakeState, PollAdmission},
    poll::Phase,
    queue::{
        AppendError, Appended, Frame, Layout, MemoryQueue, PollRecord, QueueError, QueueStatus, Read, Room,
        Seal, Unread,
    },
    writer::{CastError, Writer},
};

/// A queue in memory whose appends wait for a permit each, and fail when told.
#[derive(Debug)]
struct Slow {
    inner: MemoryQueue,
    permits: Semaphore,
    appends: AtomicUsize,
    replies_get_lost: AtomicBool,
    /// Whether an append that was executed is answered only after somebody has looked at the queue.
    replies_are_late: AtomicBool,
    looked: Notify,
    /// So many votes less than it accepted it counts.
    forgotten: AtomicU64,
}

#[async_trait]
impl Queue for Slow {
    fn address(&self) -> String {
        self.inner.address()
    }
    async fn create(&self, layout: Layout, replacing: Option<QueueId>) -> Result<QueueId, QueueError> {
        self.inner.create(layout, replacing).await
    }
    async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
        let mut status = self.inner.status().await?;
        let counts =
            status.iter_mut().flat_map(|status| status.accepted.values_mut().flat_map(|c| c.values_mut()));
        for count in counts {
            *count -= self.forgotten.load(Ordering::Relaxed);
        }
        // Whoever waits has executed before, so its votes are counted in this status.
        self.looked.notify_waiters();
        Ok(status)
    }
    async fn register(&self, id: QueueId) -> Result<(), QueueError> {
        self.inner.register(id).await
    }
    async fn record_polls(&self, id: QueueId, polls: &[PollRecord]) -> Result<Vec<PollSlug>, QueueError> {
        self.inner.record_polls(id, polls).await
    }
    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        self.permits.acquire().await.unwrap().forget();
        self.appends.fetch_add(1, Ordering::Relaxed);
        let appended = self.inner.append(id, frames).await;
        if self.replies_are_late.load(Ordering::Relaxed) {
            self.looked.notified().await;
        }
        if self.replies_get_lost.load(Ordering::Relaxed) {
            return Err(AppendError::Unknown("the reply got lost".to_owned()));
        }
        appended
    }
    async fn read(
        &self,
        id: QueueId,
        p: Partition,
        after: Position,
        limit: usize,
    ) -> Result<Read, QueueError> {
        self.inner.read(id, p, after, limit).await
    }
    async fn trim(&self, id: QueueId, p: Partition, upto: Position) -> Result<(), QueueError> {
        self.inner.trim(id, p, upto).await
    }
    async fn seal(&self, id: QueueId, poll: PollSlug) -> Result<Seal, QueueError> {
        self.inner.seal(id, poll).await
    }
    async fn unread(&self, id: QueueId, after: &[Position], limit: usize) -> Result<Vec<Unread>, QueueError> {
        self.inner.unread(id, after, limit).await
    }
    async fn check(&self) -> Result<Vec<String>, QueueError> {
        self.inner.check().await
    }
    async fn room(&self) -> Result<Option<Room>, QueueError> {
        self.inner.room().await
    }
}

fn slow() -> Arc<Slow> {
    Arc::new(Slow {
        inner: MemoryQueue::new(),
        permits: Semaphore::new(0),
        appends: AtomicUsize::new(0),
        replies_get_lost: AtomicBool::new(false),
        replies_are_late: AtomicBool::new(false),
        looked: Notify::new(),
        forgotten: AtomicU64::new(0),
    })
}

fn cars() -> PollSlug {
    "cars".parse().unwrap()
}

/// Two polls that differ by their names alone.
fn polls() -> Polls {
    let poll = |slug| {
        format!(
            "[[poll]]\nslug = \"{slug}\"\ntitle = \"?\"\n\
             options = [{{ slug = \"cats\", label = \"Cats\" }}, {{ slug = \"dogs\", label = \"Dogs\" }}]\n"
        )
    };
    Polls::from_toml("polls.toml", &(poll("pets") + &poll("cars"))).unwrap()
}

fn options(allow_volatile: bool) -> IntakeOptions {
    let interval = Duration::from_millis(50);
    IntakeOptions { layout: layout(), polls: Arc::new(polls()), allow_volatile, interval }
}

/// A writer to a registered queue.
async fn open(queue: &Arc<Slow>, capacity: usize) -> Writer {
    let id = queue.create(layout(), None).await.unwrap();
    activate(&**queue, id, &[poll(), cars()]).await.unwrap();
    let mut intake = Intake::start(queue.clone(), options(true));
    intake.opened().await.unwrap();
    Writer::start(queue.clone(), intake, capacity, Arc::new(|_| ())).0
}

fn cast(
    writer: &Writer,
    vote: Vote,
) -> tokio::task::JoinHandle<Result<vote_core::writer::Stored, CastError>> {
    let writer = writer.clone();
    tokio::spawn(async move { writer.cast(vote).await })
}

#[tokio::test]
async fn votes_that_come_during_a_flush_share_the_next_one() {
    let queue = slow();
    let writer = open(&queue, 1000).await;
    let casts: Vec<_> = (0..100).map(|n| cast(&writer, vote(n, 0, 1))).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(casts.iter().all(|cast| !cast.is_finished()), "none is acknowledged before it is on disk");
    queue.permits.add_permits(100);
    for cast in casts {
        cast.await.unwrap().unwrap();
    }
    assert!(queue.appends.load(Ordering::Relaxed) <= 2, "{} flushes", queue.appends.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_vote_is_found_where_its_answer_says() {
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
async fn more_votes_than_may_wait_are_refused_at_once() {
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

/// Waits until the intake has seen this.
async fn sees(intake: &Intake, poll: PollSlug, expected: PollAdmission) {
    for _ in 0..100 {
        if intake.admission(poll) == Some(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(intake.admission(poll), Some(expected));
}

#[tokio::test]
async fn a_poll_that_the_queue_does_not_know_is_taken_once_it_is_recorded() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let id = queue.create(layout(), None).await.unwrap();
    activate(&*queue, id, &[poll()]).await.unwrap();
    let mut intake = Intake::start(queue.clone(), options(true));
    assert_eq!(intake.admission(cars()), None, "it was not looked at yet");
    intake.opened().await.unwrap();
    let writer = Writer::start(queue.clone(), intake, 10, Arc::new(|_| ())).0;
    sees(writer.intake(), cars(), PollAdmission::Unknown).await;
    let on_cars = Vote { poll: cars(), ..vote(1, 0, 1) };
    let (pets, refused) = (cast(&writer, vote(1, 0, 1)), cast(&writer, on_cars));
    pets.await.unwrap().unwrap();
    assert_eq!(refused.await.unwrap(), Err(CastError::UnknownPoll));
    queue.record_polls(id, &[record(cars())]).await.unwrap();
    writer.cast(on_cars).await.unwrap();
    sees(writer.intake(), cars(), PollAdmission::Taken).await;
    let tea = Vote { poll: "tea".parse().unwrap(), ..on_cars };
    assert!(
        matches!(writer.cast(tea).await, Err(CastError::NotStored(_))),
        "a poll that the file does not have"
    );
}

#[tokio::test]
async fn a_poll_that_is_defined_otherwise_is_refused_and_both_definitions_are_named() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let id = queue.create(layout(), None).await.unwrap();
    let other = PollRecord { digest: PollDigest([9; 16]), ..record(cars()) };
    queue.record_polls(id, &[record(poll()), other]).await.unwrap();
    queue.register(id).await.unwrap();
    let mut intake = Intake::start(queue.clone(), options(true));
    intake.opened().await.unwrap();
    let writer = Writer::start(queue.clone(), intake, 10, Arc::new(|_| ())).0;
    let differs = PollAdmission::Differs { file: digest(cars()), queue: other.digest };
    sees(writer.intake(), cars(), differs).await;
    let (pets, refused) =
        (cast(&writer, vote(1, 0, 1)), cast(&writer, Vote { poll: cars(), ..vote(1, 0, 1) }));
    pets.await.unwrap().unwrap();
    assert_eq!(refused.await.unwrap(), Err(CastError::OtherPoll));
}

#[tokio::test]
async fn a_poll_closes_when_the_queue_says() {
    let queue = slow();
    let id = queue.create(layout(), None).await.unwrap();
    let at = |seconds: i64| Timestamp::MIN.saturating_add(seconds * 1_000_000);
    let pets = Poll { closes_at: Some(at(10)), ..polls().get("pets").unwrap().clone() };
    let intake = Intake::start(queue.clone(), options(true));
    assert_eq!(intake.closes_at(&pets), Some(at(10)), "what the file says, before a record was seen");
    queue.record_polls(id, &[PollRecord { closes_at: Some(at(20)), ..record(poll()) }]).await.unwrap();
    sees(&intake, poll(), PollAdmission::Taken).await;
    assert_eq!(intake.phase(&pets, at(15)), Phase::Open);
    assert_eq!(intake.phase(&pets, at(20)), Phase::Closed);
    queue.create(layout(), Some(id)).await.unwrap();
    sees(&intake, poll(), PollAdmission::Unknown).await;
    assert_eq!(
        intake.phase(&pets, at(15)),
        Phase::Open,
        "what was seen last, since the new box has none yet"
    );
    let new = queue.status().await.unwrap().unwrap().id;
    queue.seal(new, poll()).await.unwrap();
    sees(&intake, poll(), PollAdmission::Sealed).await;
    assert_eq!(intake.phase(&pets, at(1)), Phase::Closed);
}

#[tokio::test]
async fn a_box_that_was_replaced_takes_votes_again_once_it_is_registered() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let writer = open(&queue, 10).await;
    let old = queue.status().await.unwrap().unwrap().id;
    let new = queue.create(layout(), Some(old)).await.unwrap();
    assert!(matches!(writer.cast(vote(1, 0, 1)).await, Err(CastError::Shut(_))));
    activate(&*queue, new, &[poll()]).await.unwrap();
    for _ in 0..100 {
        match writer.cast(vote(1, 0, 1)).await {
            Ok(stored) => return assert_eq!(stored.queue, new),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("the new box takes no votes");
}

#[tokio::test]
async fn a_queue_that_lost_what_it_acknowledged_gets_a_new_box_even_if_it_took_votes_since() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let writer = open(&queue, 10).await;
    let old = queue.status().await.unwrap().unwrap().id;
    for n in 0..3 {
        // The same voter, so that all are in one partition.
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
    panic!("the box stays, though it counts two votes less than were acknowledged");
}

/// The queue has executed an append, a look at the queue counts its votes, and only then the append is answered.
#[tokio::test]
async fn votes_that_a_look_counted_before_they_were_acknowledged_are_not_missed() {
    let queue = slow();
    queue.permits.add_permits(1000);
    let writer = open(&queue, 10).await;
    let queue_id = queue.status().await.unwrap().unwrap().id;
    queue.replies_are_late.store(true, Ordering::Relaxed);
    for n in 0..3 {
        writer.cast(vote(n, 0, 1)).await.unwrap();
    }
    queue.replies_are_late.store(false, Ordering::Relaxed);
    // Some looks more, of which each compares what the queue counts with what is known of it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(queue.inner.status().await.unwrap().unwrap().id, queue_id, "a queue that lost nothing stays");
    assert_eq!(writer.cast(vote(4, 0, 1)).await.unwrap().queue, queue_id);
}

#[tokio::test]
async fn what_waits_is_flushed_before_the_writer_ends() {
    let queue = slow();
    let id = queue.create(layout(), None).await.unwrap();
    activate(&*queue, id, &[poll(), cars()]).await.unwrap();
    let mut intake = Intake::start(queue.clone(), options(true));
    intake.opened().await.unwrap();
    let (writer, flusher) = Writer::start(queue.clone(), intake, 10, Arc::new(|_| ()));
    let casts: Vec<_> = (0..5).map(|n| cast(&writer, vote(n, 0, 1))).collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(writer);
    queue.permits.add_permits(1000);
    flusher.await.unwrap();
    for cast in casts {
        cast.await.unwrap().unwrap();
    }
}

async fn reason(queue: Arc<dyn Queue>, options: IntakeOptions) -> String {
    let intake = Intake::start(queue, options);
    tokio::time::sleep(Duration::from_millis(30)).await;
    match intake.state() {
        IntakeState::Open(_) => panic!("the queue takes votes"),
        IntakeState::Shut(reason) => reason,
    }
}

#[tokio::test]
async fn a_queue_that_must_not_take_votes_says_why() {
    let unregistered = reason(Arc::new(MemoryQueue::new()), options(true)).await;
    assert!(unregistered.contains("no worker has registered"), "{unregistered}");
    let volatile = reason(Arc::new(MemoryQueue::new()), options(false)).await;
    assert!(volatile.contains("may lose votes"), "{volatile}");

    let queue = Arc::new(MemoryQueue::new());
    let id = queue.create(layout(), None).await.unwrap();
    activate(&*queue, id, &[poll(), cars()]).await.unwrap();
    let mut other = options(true);
    other.layout.partitions = 32.try_into().unwrap();
    assert!(reason(queue.clone(), other).await.contains("16 partitions, VOTE_PARTITIONS says 32"));
    let mut other = options(true);
    other.layout.fingerprint.0 = [0; 8];
    assert!(reason(queue, other).await.contains("another pepper"));
}

#[tokio::test]
async fn a_frontend_whose_queue_nobody_watches_any_more_takes_no_votes_and_says_why() {
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::with_ids(Box::new(|| panic!("a bug of the queue"))));
    let options = IntakeOptions {
        layout: layout(),
        polls: Arc::new(Polls::example()),
        allow_volatile: true,
        interval: Duration::from_secs(2),
    };
    let intake = Intake::start(Arc::clone(&queue), options);
    tokio::time::timeout(Duration::from_secs(5), intake.ended()).await.expect("the task ends by the panic");
    assert!(matches!(intake.state(), IntakeState::Shut(why) if why.contains("ended by itself")));
    let (writer, _flusher) = Writer::start(queue, intake, 10, Arc::new(|_| ()));
    let refused = writer.cast(vote(1, 0, 1)).await;
    assert!(matches!(refused, Err(CastError::Shut(_))), "{refused:?}");
}
