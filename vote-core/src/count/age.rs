//! Age of a record, by a clock that may have been set back since it was made.

use std::time::Duration;

use crate::Timestamp;

/// Tolerance for records ahead of the store's clock, since reading the store takes time. A record further ahead was
/// made before that clock was set back.
pub(crate) const FUTURE: Duration = Duration::from_secs(2);
/// Age assumed for a record that was made before the store's clock was set back, since its true age is unknown.
pub(crate) const UNKNOWN_AGE: Duration = Duration::from_secs(60);

/// Returns whether something was recorded within `time` before `now`, both by the store's clock.
///
/// False for a record in the future: the clock was set back since, so its age is unknown. Otherwise a worker that died
/// before would count as alive until the clock reaches that time again.
pub(crate) fn was_within(recorded_at: Timestamp, now: Timestamp, time: Duration) -> bool {
    let age = now.as_micros().saturating_sub(recorded_at.as_micros());
    age <= time.as_micros() as i64 && age >= -(FUTURE.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_from_before_the_clock_was_set_back_is_not_recent() {
        let at = |millis: i64| Timestamp::MIN.saturating_add(1_000_000_000 + millis * 1_000);
        let within = |recorded_at| was_within(at(recorded_at), at(0), Duration::from_secs(6));
        for recent in [0, -6_000, 2_000] {
            assert!(within(recent), "{recent} ms");
        }
        for other in [-6_001, 2_001, 5_000, 10_000_000] {
            assert!(!within(other), "{other} ms");
        }
    }
}
