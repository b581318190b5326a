//! What happens while votes are cast: counts for a line a second, and the first trouble.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use crate::ballot::Fate;

/// Votes by outcome, so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    acked: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    unsent: AtomicU64,
    trouble: OnceLock<String>,
}

/// The counts at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) acked: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    pub(crate) unsent: u64,
}

impl Progress {
    pub(crate) fn count(&self, fate: Fate) {
        let counter = match fate {
            Fate::Acked => &self.acked,
            Fate::Unknown => &self.unknown,
            Fate::Refused => &self.refused,
            Fate::Unsent => &self.unsent,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let [acked, unknown, refused, unsent] =
            [&self.acked, &self.unknown, &self.refused, &self.unsent].map(|n| n.load(Ordering::Relaxed));
        Counts { acked, unknown, refused, unsent }
    }

    /// Keeps what `trouble` says if it is the first, and shows it.
    pub(crate) fn note(&self, trouble: impl FnOnce() -> String) {
        let mut first = false;
        self.trouble.get_or_init(|| {
            first = true;
            trouble()
        });
        if first && let Some(trouble) = self.trouble() {
            eprintln!("load: the first trouble: {trouble}");
        }
    }

    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.get().map(String::as_str)
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { acked, unknown, refused, unsent } = self;
        write!(f, "{acked} acknowledged, {unknown} unknown, {refused} refused, {unsent} unsent")
    }
}
