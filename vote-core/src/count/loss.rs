//! Detection of a queue that lost data.

use crate::queue::Counters;

/// Returns whether a queue counts fewer votes of a poll than before.
///
/// An append-only log cannot do so by itself: it lost data, or was rolled back.
#[must_use]
pub fn count_fell(before: &Counters, now: &Counters) -> bool {
    before.iter().any(|(poll, count)| now.get(poll).copied().unwrap_or_default() < *count)
}
