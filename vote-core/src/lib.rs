//! Collect votes at a spike and count each exactly once.
//!
//! `vote-core` is the library under the services `vote-frontend`, `vote-worker` and `vote-results`. It defines the
//! [`Vote`] and its wire encoding, the traits for queues and stores together with their implementations, and the rules
//! of counting. It has no HTTP server, and a database client only if a feature asks for one. Other programs can embed
//! the whole pipeline, implement a queue or a store of their own, or use single modules.
//!
//! # The flow of a vote
//!
//! ```text
//! Vote → Writer → frame → Queue → Batch → CommitPlan → Store → tally, Accounts
//! └─────── frontend ──────────┘ └──────── worker ────────┘ └──── results ────┘
//! ```
//!
//! 1. A frontend derives the [`VoterKey`] from the poll and the voter's id with its secret [`Pepper`], and hands the
//!    [`Vote`] to a [`Writer`](writer::Writer).
//! 2. The writer encodes the votes that arrive during a flush as [frames](frame), one or more for each poll and
//!    [`Partition`], and appends them to the [`Queue`]. A vote is acknowledged when its frame is on disk.
//!    [`Admission`](admission::Admission) watches the queue and decides whether votes are accepted.
//! 3. A worker [acquires](Session::acquire) a partition, reads its entries from all queues, and decodes them into a
//!    [`Batch`](count::Batch). Votes that cannot be counted are quarantined, with the reason.
//! 4. [`Batch::plan`](count::Batch::plan) compares the batch with the ballots in the store.
//!    [`merge`](fn@count::merge) picks the effective ballot of each voter.
//! 5. The [`Store`] applies the [`CommitPlan`](count::CommitPlan) in one transaction: ballots, tally, ledger and read
//!    positions of the partition. After that, the entries are trimmed from the queue.
//! 6. [`audit`](count::audit::audit) checks a snapshot of the accounts at any time, also under full load.
//!
//! Read the modules in the order of that flow: [`vote`], [`voter`], [`partition`], [`frame`], [`queue`], [`writer`],
//! [`admission`], [`count`], [`store`].
//!
//! # Guarantees
//!
//! - An acknowledged vote is on disk, if the queue reports no durability problems.
//! - The result is a pure function of the set of accepted votes. The merge is commutative, associative and idempotent,
//!   so order, duplicates and redelivery do not change it.
//! - Conservation invariant: for each queue, partition and poll, `accepted = new voters + superseded + quarantined` in
//!   every snapshot of the store.
//! - A queue that lost data or was rolled back is detected and reported; it is never counted as if it were complete.
//!
//! # Features
//!
//! Queues and stores in memory are always available, for tests and examples. No feature is on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `redis` | `queue::RedisQueue`: a queue on Redis or Valkey |
//! | `postgres` | `store::PostgresStore`: a store on Postgres |
//! | `sqlite` | `queue::SqliteQueue` and `store::SqliteStore`: both in files, for one process with nothing installed |
//! | `conformance` | the test suites that every queue and store has to pass, for implementations of your own, too |
//!
//! # Getting started
//!
//! The whole pipeline in memory, from a vote to the tally. For durable votes, open the queue and the store by
//! [`QueueAddress`] and [`StoreAddress`] instead; the rest stays the same.
//!
//! ```
//! use std::{collections::BTreeMap, sync::Arc, time::Duration};
//! use vote_core::{
//!     Clock, Partitions, Pepper, Polls, Queue, Store, StoreReader, SystemClock, Vote,
//!     admission::{Admission, AdmissionOptions},
//!     count::{Batch, Delivery, QueueRecord},
//!     queue::{Layout, MemoryQueue, PollRecord},
//!     store::{Lookup, MemoryStore},
//!     writer::Writer,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let polls = Polls::example(); // one poll, "pets": cats or dogs
//! let pepper = Pepper::new(vec![7; 32])?;
//! let layout = Layout { partitions: Partitions::default(), fingerprint: pepper.fingerprint() };
//! let queue = Arc::new(MemoryQueue::new());
//! let store = MemoryStore::new();
//!
//! // Worker: register the poll, record the queue in the store, and only then let the queue accept votes.
//! store.prepare(layout).await?;
//! let poll = store.register_poll(polls.get("pets").ok_or("no such poll")?).await?;
//! let id = queue.create(layout, None).await?;
//! store.report(&[QueueRecord::new(id, queue.address(), SystemClock.now())]).await?;
//! queue.record_polls(id, &[PollRecord::from(&poll)]).await?;
//! queue.activate(id).await?;
//!
//! // Frontend: cast a vote. It is acknowledged when the queue has stored it.
//! let options = AdmissionOptions {
//!     layout,
//!     polls: Arc::new(polls),
//!     allow_volatile: true, // A queue in memory does not survive a power failure.
//!     interval: Duration::from_secs(2),
//! };
//! let mut admission = Admission::start(queue.clone(), options);
//! admission.opened().await.ok_or("the queue accepts no votes")?;
//! let (writer, _task) = Writer::start(queue.clone(), admission, 1000, Arc::new(|_| ()));
//! let vote = Vote {
//!     poll: poll.slug,
//!     voter: pepper.voter_key(poll.slug, b"some voter"),
//!     option: "cats".parse()?,
//!     cast_at: SystemClock.now(),
//! };
//! let stored = writer.cast(vote).await?;
//!
//! // Worker: read the partition, plan, commit, and only then trim.
//! let partition = stored.partition;
//! let mut session = store.open_session().await?;
//! let acquired = session.acquire(partition).await?.ok_or("another session owns the partition")?;
//! let from = acquired.checkpoints.get(&id).cloned().unwrap_or_default();
//! let delivery = Delivery::new(id, &from, queue.read(id, partition, from.position, 1000).await?);
//! let upto = delivery.checkpoint.position;
//! let batch = Batch::decode(partition, layout.partitions, &store.polls().await?, vec![delivery], Vec::new());
//! let mut ballots = BTreeMap::new();
//! for (poll, voters) in batch.voters() {
//!     ballots.insert(poll, session.lookup(partition, poll, &voters, Lookup::Filtered).await?);
//! }
//! session.commit(&batch.plan(acquired.version, &ballots)).await?;
//! queue.trim(id, partition, upto).await?;
//!
//! let accounts = store.snapshot().await?.accounts(false).await?;
//! assert_eq!(accounts.tally_of(poll.slug), [("cats".parse()?, 1), ("dogs".parse()?, 0)]);
//! # Ok(())
//! # }
//! ```
//!
//! Single modules work on their own, such as the wire encoding:
//!
//! ```
//! use vote_core::{Partitions, Pepper, PollSlug, Timestamp, Vote, frame};
//!
//! let pepper = Pepper::new(vec![7; 32])?;
//! let poll: PollSlug = "pets".parse()?;
//! let vote = Vote {
//!     poll,
//!     voter: pepper.voter_key(poll, b"some voter"),
//!     option: "cats".parse()?,
//!     cast_at: Timestamp::from_micros(1_770_595_200_000_000)?,
//! };
//! let partition = Partitions::default().of(vote.voter);
//! let bytes = frame::encode(poll, partition, &[vote])?;
//! assert_eq!(frame::decode(poll, partition, Partitions::default(), 1, &bytes)?, vec![vote]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// Target of the tracing spans that time the steps of a vote.
///
/// These spans have the lowest level. Their numeric fields are signed, since OpenTelemetry has no unsigned integers.
pub const TRACES: &str = "vote_trace";

pub mod address;
pub mod admission;
mod backends;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod count;
pub mod durability;
pub mod frame;
pub mod partition;
pub mod poll;
pub mod queue;
pub mod secret;
pub mod slug;
#[cfg(feature = "sqlite")]
mod sqlite;
pub mod store;
pub mod vote;
pub mod voter;
mod worker;
pub mod writer;

pub use address::{QueueAddress, StoreAddress};
pub use clock::{Clock, SystemClock, Timestamp};
pub use durability::DurabilityProblem;
pub use partition::{Partition, Partitions};
pub use poll::{Keep, Poll, PollDigest, PollOption, Polls};
pub use queue::{Position, Queue, QueueId};
pub use secret::Secret;
pub use slug::{OptionSlug, PollSlug};
pub use store::{Session, Store, StoreReader};
pub use vote::Vote;
pub use voter::{Pepper, PepperFingerprint, VoterKey};
pub use worker::WorkerId;
