//! Reasons why a queue is not read now.

use std::fmt;

use vote_core::{queue::QueueError, store::StoreError};

use super::decision::Obstacle;

/// Reason why a queue is not read now.
pub(super) enum Unreadable {
    Queue(QueueError),
    Store(StoreError),
    Because(Obstacle),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(e) => e.fmt(f),
            Self::Store(e) => e.fmt(f),
            Self::Because(obstacle) => obstacle.fmt(f),
        }
    }
}

impl From<QueueError> for Unreadable {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

impl From<StoreError> for Unreadable {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Obstacle> for Unreadable {
    fn from(obstacle: Obstacle) -> Self {
        Self::Because(obstacle)
    }
}
