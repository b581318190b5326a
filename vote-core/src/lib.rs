//! Collect votes at a spike and count each exactly once.
//!
//! A [`Vote`] is encoded into a [frame], appended to a [`Queue`] (a ballot box: a partitioned log with an
//! identity), read from there, [merged](dedup) and committed to a [`Store`]. Read the modules in the order of that
//! flow: [`vote`], [`voter`], [`partition`], [`frame`], [`queue`], [`writer`], [`intake`], [`dedup`], [`store`].
//!
//! The crate has no HTTP server, and by default no database client: the implementations for Redis, Postgres and
//! SQLite are behind the features `redis`, `postgres` and `sqlite`; those in memory are always there. Feature
//! `conformance` brings the suites that every implementation, yours too, has to pass.
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

/// The target of the spans that say how long the steps of a vote take, for traces. They are of the lowest level,
/// and their numbers signed: OpenTelemetry has no others.
pub const TRACES: &str = "vote_trace";

pub mod address;
pub mod audit;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod dedup;
pub mod frame;
pub mod intake;
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
pub mod writer;

pub use address::{QueueAddress, StoreAddress};
pub use clock::{Clock, SystemClock, Timestamp};
pub use partition::{Partition, Partitions};
pub use poll::{Keep, Poll, PollDigest, PollOption, Polls};
pub use queue::{Position, Queue, QueueId};
pub use secret::Secret;
pub use slug::{OptionSlug, PollSlug};
pub use store::{Lane, Store, StoreReader};
pub use vote::Vote;
pub use voter::{Pepper, PepperFingerprint, VoterKey};
