//! Layout of queues and of the store: what frontends, queues, workers and the store must agree on.

use super::QueueStatus;
use crate::{Partitions, PepperFingerprint};

/// Version of the layout that the implementations in this crate write.
pub const LAYOUT_VERSION: u16 = 2;

/// Number of partitions and pepper, on which frontends and the store must agree: if they did not, two votes of one
/// voter could be counted as votes of two voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Number of partitions.
    pub partitions: Partitions,
    /// Fingerprint of the pepper that voter keys are made with.
    pub fingerprint: PepperFingerprint,
}

impl Layout {
    /// Returns the first difference from the layout that the caller expects; `None` if they are equal.
    #[must_use]
    pub fn mismatch(self, expected: Self) -> Option<LayoutMismatch> {
        if self.partitions != expected.partitions {
            return Some(LayoutMismatch::Partitions {
                found: self.partitions,
                expected: expected.partitions,
            });
        }
        (self.fingerprint != expected.fingerprint)
            .then_some(LayoutMismatch::Pepper { found: self.fingerprint, expected: expected.fingerprint })
    }
}

impl QueueStatus {
    /// Returns why a caller that expects a layout can neither append to the queue nor read it; `None` if it can.
    #[must_use]
    pub fn mismatch(&self, expected: Layout) -> Option<LayoutMismatch> {
        if self.version != LAYOUT_VERSION {
            return Some(LayoutMismatch::Version { found: self.version });
        }
        self.layout.mismatch(expected)
    }
}

/// Difference between the layout of a queue or a store and the expected one. [`Display`](std::fmt::Display) states the
/// difference as the predicate of a sentence about the queue or the store; what to do about it depends on who meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutMismatch {
    /// A queue was created by a build that writes another version of the layout.
    #[error("has layout version {found}, and this build uses version {LAYOUT_VERSION}")]
    Version {
        /// Version of the queue.
        found: u16,
    },
    /// The numbers of partitions differ.
    #[error("has {found} partitions instead of {expected}")]
    Partitions {
        /// Number of partitions of the queue or store.
        found: Partitions,
        /// Number that the caller expects.
        expected: Partitions,
    },
    /// Voter keys are made with different peppers.
    #[error("was created with another pepper (fingerprint {found} instead of {expected})")]
    Pepper {
        /// Fingerprint on record in the queue or store.
        found: PepperFingerprint,
        /// Fingerprint of the caller's pepper.
        expected: PepperFingerprint,
    },
}

impl LayoutMismatch {
    /// Returns a stable word for the kind of difference.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Version { .. } => "layout-version",
            Self::Partitions { .. } => "partitions",
            Self::Pepper { .. } => "pepper",
        }
    }
}
