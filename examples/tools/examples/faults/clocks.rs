//! Clocks that are stepped during the run, and the history of what they showed.

use vote_testkit::SkewedClock;

use crate::journal::now;

const MICROS: i64 = 1_000_000;
/// Uncertainty of the time of a step: a process reads the system's clock first and then adds the step, and may be
/// delayed between the two.
const BLUR: i64 = MICROS;

/// Clock of one process, with its history.
#[derive(Debug)]
pub(crate) struct Clock {
    skewed: SkewedClock,
    history: History,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { skewed: SkewedClock::new(0), history: History::default() }
    }

    /// Steps the clock so that it is ahead of the right time by this many seconds from now on.
    pub(crate) fn step(&mut self, seconds: i64) {
        let before = now();
        self.skewed.step(seconds);
        self.history.step(before, now(), seconds);
    }

    pub(crate) const fn skewed(&self) -> &SkewedClock {
        &self.skewed
    }

    pub(crate) const fn history(&self) -> &History {
        &self.history
    }
}

/// History of how far a clock was ahead. All times are in microseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct History(Vec<Stretch>);

/// Range of right time in which a clock may have been ahead by `ahead`.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: i64,
    until: Option<i64>,
    ahead: i64,
}

impl Default for History {
    /// Returns the history of a clock that is always right.
    fn default() -> Self {
        Self(vec![Stretch { from: i64::MIN, until: None, ahead: 0 }])
    }
}

impl History {
    /// Records that the clock was stepped to `seconds` ahead at some moment from `before` to `after`.
    pub(crate) fn step(&mut self, before: i64, after: i64, seconds: i64) {
        if let Some(last) = self.0.last_mut() {
            last.until = Some(after.saturating_add(BLUR));
        }
        self.0.push(Stretch { from: before.saturating_sub(BLUR), until: None, ahead: seconds * MICROS });
    }

    /// Returns the times that the clock may have shown from `from` to `until`, or to the end of time, as inclusive
    /// ranges.
    pub(crate) fn shown(&self, from: i64, until: Option<i64>) -> impl Iterator<Item = (i64, i64)> {
        let until = until.unwrap_or(i64::MAX);
        self.0.iter().filter_map(move |stretch| {
            let (first, last) = (from.max(stretch.from), until.min(stretch.until.unwrap_or(i64::MAX)));
            (first <= last).then(|| {
                let end = if last == i64::MAX { last } else { last.saturating_add(stretch.ahead) };
                (first.saturating_add(stretch.ahead), end)
            })
        })
    }

    /// Returns the latest time that the clock may have shown until `now`, except while it was off by more than `limit`.
    pub(crate) fn latest_within(&self, limit: i64, now: i64) -> i64 {
        let trusted = self.0.iter().filter(|stretch| stretch.from <= now && stretch.ahead.abs() <= limit);
        let shown =
            trusted.map(|stretch| now.min(stretch.until.unwrap_or(now)).saturating_add(stretch.ahead));
        shown.max().unwrap_or(i64::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = MICROS;

    /// Ahead by 60 s from 100 s to 200 s.
    fn stepped() -> History {
        let mut history = History::default();
        history.step(100 * SECOND, 100 * SECOND, 60);
        history.step(200 * SECOND, 200 * SECOND, 0);
        history
    }

    fn shown(history: &History, from: i64, until: i64) -> Vec<(i64, i64)> {
        let seconds = |(first, last): (i64, i64)| (first / SECOND, last / SECOND);
        history.shown(from * SECOND, Some(until * SECOND)).map(seconds).collect()
    }

    #[test]
    fn a_clock_that_is_never_stepped_is_right() {
        let right = History::default();
        assert_eq!(shown(&right, 10, 20), [(10, 20)]);
        assert_eq!(right.shown(10, None).collect::<Vec<_>>(), [(10, i64::MAX)]);
    }

    #[test]
    fn away_from_steps_only_one_time_is_possible() {
        assert_eq!(shown(&stepped(), 150, 151), [(210, 211)]);
        assert_eq!(shown(&stepped(), 50, 51), [(50, 51)]);
        assert_eq!(shown(&stepped(), 250, 251), [(250, 251)]);
    }

    #[test]
    fn near_a_step_both_times_are_possible() {
        let history = stepped();
        assert_eq!(shown(&history, 100, 100), [(100, 100), (160, 160)]);
        assert_eq!(shown(&history, 200, 200), [(260, 260), (200, 200)]);
        assert_eq!(shown(&history, 90, 110), [(90, 101), (159, 170)]);
        assert_eq!((shown(&history, 98, 98), shown(&history, 102, 102)), (vec![(98, 98)], vec![(162, 162)]));
    }

    #[test]
    fn times_of_a_clock_that_is_off_by_more_than_the_limit_are_ignored() {
        let latest = |limit: i64, now: i64| stepped().latest_within(limit * SECOND, now * SECOND) / SECOND;
        assert_eq!((latest(60, 90), latest(60, 150), latest(60, 300)), (90, 210, 300));
        assert_eq!((latest(30, 90), latest(30, 150), latest(30, 300)), (90, 101, 300));
        assert_eq!(latest(60, 220), 261, "the time that it showed while it was ahead");
    }
}
