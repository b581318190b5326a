//! Stores, and sessions, that change or observe some calls to another one, and forwarding of all other calls.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{Acquired, Catalog, Lookup, Session, Snapshot, Store, StoreError, StoreReader, WorkerRecord};
use crate::{
    DurabilityProblem, Partition, Poll, PollSlug, Position, QueueId, Timestamp, VoterKey,
    count::{
        Ballot, CommitPlan, Decision, QuarantineKey, QuarantineRow, QuarantinedFrame, QueueRecord,
        RegisteredPoll, SealRecord, audit::Finding,
    },
    queue::Layout,
};

/// Declares [`StoreReaderLayer`] with a forwarding default for each method, and implements [`StoreReader`] for layers
/// and for `Arc`, from one list of the methods. A method that the list lacks is a compile error in both.
macro_rules! reader_layer {
    ($(async fn $method:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        /// A store that changes or observes some of the reads from an inner store; it forwards the others.
        ///
        /// Implement this trait instead of [`StoreReader`], which every layer implements by it. To change writes, too,
        /// implement [`StoreLayer`] beside it, which has an example.
        #[async_trait]
        pub trait StoreReaderLayer: Send + Sync + fmt::Debug {
            /// The inner store. `dyn Store` allows any.
            type Inner: StoreReader + ?Sized;

            /// Returns the store to which calls are forwarded, which may be chosen or opened by the call.
            ///
            /// # Errors
            /// Those with which every call fails that would be forwarded.
            async fn inner(&self) -> Result<&Self::Inner, StoreError>;

            /// Observes that a method of [`StoreReader`] or [`Store`] is about to be called, given its name. By default
            /// does nothing.
            ///
            /// It covers all methods, those that a later version adds, too.
            fn on_call(&self, method: &'static str) {
                let _ = method;
            }
            $(
                #[doc = concat!("As [`StoreReader::", stringify!($method), "`]. By default forwarded to the inner store.")]
                async fn $method(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                    self.inner().await?.$method($($argument),*).await
                }
            )+
        }

        #[async_trait]
        impl<L: StoreReaderLayer> StoreReader for L {
            $(async fn $method(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                self.on_call(stringify!($method));
                StoreReaderLayer::$method(self, $($argument),*).await
            })+
        }

        #[async_trait]
        impl<S: StoreReader + ?Sized> StoreReader for Arc<S> {
            $(async fn $method(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                (**self).$method($($argument),*).await
            })+
        }
    };
}

reader_layer! {
    async fn layout() -> Option<Layout>;
    async fn polls() -> Vec<RegisteredPoll>;
    async fn ballot(poll: PollSlug, voter: VoterKey) -> Option<Ballot>;
    async fn position(queue: QueueId, partition: Partition) -> Position;
    async fn quarantined(queue: QueueId, partition: Partition, position: Position) -> Option<QuarantineRow>;
    async fn positions(queues: &[QueueId]) -> BTreeMap<(QueueId, Partition), Position>;
    async fn positions_in(partitions: &[Partition]) -> BTreeMap<(QueueId, Partition), Position>;
    async fn queue(queue: QueueId) -> Option<QueueRecord>;
    async fn queues() -> Vec<QueueRecord>;
    async fn quarantine(after: Option<QuarantineKey>, limit: usize) -> Vec<QuarantineRow>;
    async fn snapshot() -> Box<dyn Snapshot>;
}

/// As `reader_layer`, for [`StoreLayer`] and [`Store`].
macro_rules! store_layer {
    ($(async fn $method:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        /// A store that changes or observes some calls to an inner store; it forwards the others.
        ///
        /// Implement this trait and [`StoreReaderLayer`] instead of [`Store`] and [`StoreReader`], which every layer
        /// implements by them: each method has a default that calls the inner store, so that the implementations
        /// consist of what differs. Layers can be stacked in any order, since the inner store may be a layer itself.
        ///
        /// A layer must keep the contract of [`Store`] as far as it is to be used like any other store. The
        /// conformance suite, `conformance::store`, tests it.
        ///
        /// A layer and a store have methods of the same names. Where traits of both are imported, name the one that is
        /// meant to call a method of the layer itself: `StoreReader::polls(&layer)`.
        ///
        /// # Examples
        ///
        /// A store that never closes a poll by time:
        ///
        /// ```
        /// use std::{sync::Arc, time::Duration};
        /// use async_trait::async_trait;
        /// use vote_core::{
        ///     PollSlug, Store, Timestamp,
        ///     store::{MemoryStore, StoreError, StoreLayer, StoreReaderLayer},
        /// };
        ///
        /// #[derive(Debug)]
        /// struct ClosedByHand(Arc<dyn Store>);
        ///
        /// #[async_trait]
        /// impl StoreReaderLayer for ClosedByHand {
        ///     type Inner = dyn Store;
        ///
        ///     async fn inner(&self) -> Result<&Self::Inner, StoreError> {
        ///         Ok(&self.0)
        ///     }
        /// }
        ///
        /// #[async_trait]
        /// impl StoreLayer for ClosedByHand {
        ///     async fn close_due_polls(&self, _: Duration, _: Timestamp) -> Result<Vec<PollSlug>, StoreError> {
        ///         Ok(Vec::new())
        ///     }
        /// }
        ///
        /// let store: Arc<dyn Store> = Arc::new(ClosedByHand(Arc::new(MemoryStore::new())));
        /// ```
        #[async_trait]
        pub trait StoreLayer: StoreReaderLayer<Inner: Store> {
            $(
                #[doc = concat!("As [`Store::", stringify!($method), "`]. By default forwarded to the inner store.")]
                async fn $method(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                    self.inner().await?.$method($($argument),*).await
                }
            )+
        }

        #[async_trait]
        impl<L: StoreLayer> Store for L {
            $(async fn $method(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                self.on_call(stringify!($method));
                StoreLayer::$method(self, $($argument),*).await
            })+
        }

        #[async_trait]
        impl<S: Store + ?Sized> Store for Arc<S> {
            $(async fn $method(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                (**self).$method($($argument),*).await
            })+
        }
    };
}

store_layer! {
    async fn prepare(layout: Layout) -> ();
    async fn catalog(known: Option<&Catalog>) -> Catalog;
    async fn register_poll(poll: &Poll) -> RegisteredPoll;
    async fn close_poll(poll: PollSlug) -> Option<RegisteredPoll>;
    async fn close_due_polls(grace: Duration, now: Timestamp) -> Vec<PollSlug>;
    async fn reschedule_poll(poll: PollSlug, closes_at: Option<Timestamp>, reason: &str) -> Option<RegisteredPoll>;
    async fn withdraw_poll(poll: PollSlug, reason: &str) -> Option<RegisteredPoll>;
    async fn undo_withdrawal(poll: PollSlug, withdrawn_at: Timestamp) -> ();
    async fn record_dropped(queue: QueueId, poll: PollSlug, withdrawn_at: Timestamp) -> ();
    async fn record_seal(seal: &SealRecord) -> SealRecord;
    async fn finalize_poll(poll: PollSlug) -> bool;
    async fn report(queues: &[QueueRecord]) -> ();
    async fn heartbeat(worker: &WorkerRecord) -> ();
    async fn retire(queue: QueueId, reason: &str) -> bool;
    async fn decide(frames: &[QuarantineKey], decision: &Decision) -> u64;
    async fn durability_problems() -> Vec<DurabilityProblem>;
    async fn open_session() -> Box<dyn Session>;
}

/// As `reader_layer`, for [`SessionLayer`] and [`Session`].
macro_rules! session_layer {
    ($(async fn $method:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        /// A session that changes or observes some calls to an inner session; it forwards the others.
        ///
        /// Implement this trait instead of [`Session`], which every layer implements by it. A [`StoreLayer`] returns
        /// such sessions from [`open_session`](StoreLayer::open_session).
        #[async_trait]
        pub trait SessionLayer: Send + fmt::Debug {
            /// Returns the session to which calls are forwarded.
            fn inner(&mut self) -> &mut dyn Session;

            /// As [`StoreReaderLayer::on_call`], for the methods of [`Session`].
            fn on_call(&self, method: &'static str) {
                let _ = method;
            }
            $(
                #[doc = concat!("As [`Session::", stringify!($method), "`]. By default forwarded to the inner session.")]
                async fn $method(&mut self, $($argument: $type),*) -> Result<$answer, StoreError> {
                    self.inner().$method($($argument),*).await
                }
            )+
        }

        #[async_trait]
        impl<L: SessionLayer> Session for L {
            $(async fn $method(&mut self, $($argument: $type),*) -> Result<$answer, StoreError> {
                self.on_call(stringify!($method));
                SessionLayer::$method(self, $($argument),*).await
            })+
        }
    };
}

session_layer! {
    async fn unowned() -> Vec<Partition>;
    async fn acquire(partition: Partition) -> Option<Acquired>;
    async fn release(partition: Partition) -> ();
    async fn lookup(partition: Partition, poll: PollSlug, voters: &[VoterKey], lookup: Lookup) -> Vec<Ballot>;
    async fn replays(partition: Partition, limit: usize) -> Vec<QuarantinedFrame>;
    async fn commit(plan: &CommitPlan) -> ();
    async fn complete(partition: Partition, version: u64, poll: PollSlug) -> Vec<Finding>;
}
