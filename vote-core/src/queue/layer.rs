//! Queues that change or observe some calls to another queue, and forwarding of all other calls.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{
    AppendError, Appended, Backlog, Frame, Layout, Look, PollRecord, Position, Queue, QueueError, QueueId,
    QueueStatus, Read, Seal, Usage,
};
use crate::{DurabilityProblem, Partition, PollDigest, PollSlug, Timestamp};

/// Declares [`QueueLayer`] with a forwarding default for each method, and implements [`Queue`] for layers and for
/// pointers, from one list of the methods. A method that the list lacks is a compile error in each implementation.
macro_rules! layer {
    ($(async fn $method:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        /// A queue that changes or observes some calls to an inner queue; it forwards the others.
        ///
        /// Implement this trait instead of [`Queue`], which every layer implements by it: each method has a default
        /// that calls the inner queue, so that the implementation consists of what differs. Layers can be stacked in
        /// any order, since the inner queue may be a layer itself.
        ///
        /// A layer must keep the contract of [`Queue`] as far as it is to be used like any other queue. The
        /// conformance suite, `conformance::queue`, tests it.
        ///
        /// Both traits have methods of the same names. Where both are imported, name the one that is meant to call a
        /// method of the layer itself: `Queue::append(&layer, …)`.
        ///
        /// # Examples
        ///
        /// A queue that measures how long appending takes:
        ///
        /// ```
        /// use std::{sync::{Arc, Mutex}, time::{Duration, Instant}};
        /// use async_trait::async_trait;
        /// use vote_core::{
        ///     Queue, QueueId,
        ///     queue::{AppendError, Appended, Frame, MemoryQueue, QueueLayer},
        /// };
        ///
        /// #[derive(Debug)]
        /// struct Timed {
        ///     inner: Arc<dyn Queue>,
        ///     longest: Mutex<Duration>,
        /// }
        ///
        /// #[async_trait]
        /// impl QueueLayer for Timed {
        ///     fn inner(&self) -> &dyn Queue {
        ///         &self.inner
        ///     }
        ///
        ///     async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        ///         let start = Instant::now();
        ///         let appended = self.inner.append(id, frames).await;
        ///         let mut longest = self.longest.lock().unwrap();
        ///         *longest = start.elapsed().max(*longest);
        ///         appended
        ///     }
        /// }
        ///
        /// let timed = Timed { inner: Arc::new(MemoryQueue::new()), longest: Mutex::default() };
        /// let queue: Arc<dyn Queue> = Arc::new(timed);
        /// ```
        #[async_trait]
        pub trait QueueLayer: Send + Sync + fmt::Debug {
            /// Returns the queue to which calls are forwarded.
            fn inner(&self) -> &dyn Queue;

            /// Observes that a method is about to be called, given its name. By default does nothing.
            ///
            /// It covers all methods but `address`, those that a later version adds, too.
            fn on_call(&self, method: &'static str) {
                let _ = method;
            }

            /// As [`Queue::address`]. By default forwarded to the inner queue.
            fn address(&self) -> String {
                self.inner().address()
            }
            $(
                #[doc = concat!("As [`Queue::", stringify!($method), "`]. By default forwarded to the inner queue.")]
                async fn $method(&self, $($argument: $type),*) -> $answer {
                    self.inner().$method($($argument),*).await
                }
            )+
        }

        #[async_trait]
        impl<L: QueueLayer> Queue for L {
            fn address(&self) -> String {
                QueueLayer::address(self)
            }
            $(async fn $method(&self, $($argument: $type),*) -> $answer {
                self.on_call(stringify!($method));
                QueueLayer::$method(self, $($argument),*).await
            })+
        }

        layer!(@pointer [impl<Q: Queue + ?Sized> Queue for Arc<Q>] $($method($($argument: $type),*) -> $answer;)+);
        layer!(@pointer [impl Queue for Box<dyn Queue>] $($method($($argument: $type),*) -> $answer;)+);
    };
    (@pointer [$($head:tt)+] $($method:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        #[async_trait]
        $($head)+ {
            fn address(&self) -> String {
                (**self).address()
            }
            $(async fn $method(&self, $($argument: $type),*) -> $answer {
                (**self).$method($($argument),*).await
            })+
        }
    };
}

layer! {
    async fn create(layout: Layout, replacing: Option<QueueId>) -> Result<QueueId, QueueError>;
    async fn look(partitions: &[Partition]) -> Result<Option<Look>, QueueError>;
    async fn status() -> Result<Option<QueueStatus>, QueueError>;
    async fn activate(id: QueueId) -> Result<(), QueueError>;
    async fn record_polls(id: QueueId, polls: &[PollRecord]) -> Result<Vec<PollSlug>, QueueError>;
    async fn drop_poll(id: QueueId, poll: PollSlug, digest: PollDigest, withdrawn_at: Timestamp) -> Result<bool, QueueError>;
    async fn record_clock(id: QueueId, ahead: i64) -> Result<(), QueueError>;
    async fn append(id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError>;
    async fn read(id: QueueId, partition: Partition, after: Position, limit: usize) -> Result<Read, QueueError>;
    async fn trim(id: QueueId, partition: Partition, upto: Position) -> Result<(), QueueError>;
    async fn seal(id: QueueId, poll: PollSlug) -> Result<Seal, QueueError>;
    async fn backlog(id: QueueId, after: &[Position], limit: usize) -> Result<Vec<Backlog>, QueueError>;
    async fn durability_problems() -> Result<Vec<DurabilityProblem>, QueueError>;
    async fn usage() -> Result<Option<Usage>, QueueError>;
}
