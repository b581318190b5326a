//! Progress while votes are cast: counts for one line per second, and the first problem.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use crate::ballot::ReceiptStatus;

/// Number of votes by outcome so far, and the first problem.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    acked: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    unsent: AtomicU64,
    problem: OnceLock<String>,
}

/// Number of votes by outcome at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) acked: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    pub(crate) unsent: u64,
}

impl Progress {
    pub(crate) fn count(&self, fate: ReceiptStatus) {
        let counter = match fate {
            ReceiptStatus::Acked => &self.acked,
            ReceiptStatus::Unknown => &self.unknown,
            ReceiptStatus::Refused => &self.refused,
            ReceiptStatus::Unsent => &self.unsent,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let [acked, unknown, refused, unsent] =
            [&self.acked, &self.unknown, &self.refused, &self.unsent].map(|n| n.load(Ordering::Relaxed));
        Counts { acked, unknown, refused, unsent }
    }

    /// Records and prints a problem if it is the first.
    pub(crate) fn note(&self, problem: impl FnOnce() -> String) {
        let mut first = false;
        self.problem.get_or_init(|| {
            first = true;
            problem()
        });
        if first && let Some(problem) = self.problem() {
            eprintln!("load: first problem: {problem}");
        }
    }

    /// Returns the first problem, if there was one.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.get().map(String::as_str)
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { acked, unknown, refused, unsent } = self;
        write!(f, "{acked} acknowledged, {unknown} unknown, {refused} refused, {unsent} unsent")
    }
}
