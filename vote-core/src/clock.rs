//! Time: microseconds since the Unix epoch, read from a clock that tests can replace.

use std::{fmt, str::FromStr, time::SystemTime};

use serde::{Deserialize, Serialize};

/// Time in microseconds since 1970-01-01 UTC, within the years 2020 to 2199.
///
/// The range is part of the wire format: a frame with a time outside of it does not decode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "i64", try_from = "i64")]
pub struct Timestamp(i64);

/// A time outside the years 2020 to 2199.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} µs since 1970 is outside the years 2020 to 2199; is a clock wrong?")]
pub struct TimestampError(i64);

impl Timestamp {
    /// 2020-01-01T00:00:00Z.
    pub const MIN: Self = Self(1_577_836_800_000_000);
    /// The last microsecond of the year 2199.
    pub const MAX: Self = Self(7_258_118_399_999_999);

    /// Creates a timestamp from microseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// Fails if `micros` is outside of [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    pub fn from_micros(micros: i64) -> Result<Self, TimestampError> {
        if (Self::MIN.0..=Self::MAX.0).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(TimestampError(micros))
        }
    }

    /// Returns the microseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the time `micros` later, clamped to the range.
    #[must_use]
    pub fn saturating_add(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros).clamp(Self::MIN.0, Self::MAX.0))
    }
}

impl From<Timestamp> for i64 {
    fn from(at: Timestamp) -> Self {
        at.0
    }
}

impl TryFrom<i64> for Timestamp {
    type Error = TimestampError;
    fn try_from(micros: i64) -> Result<Self, TimestampError> {
        Self::from_micros(micros)
    }
}

impl FromStr for Timestamp {
    type Err = String;
    /// Parses a time in the format of RFC 3339, such as `2027-02-15T06:00:00Z`.
    fn from_str(text: &str) -> Result<Self, String> {
        let at: jiff::Timestamp =
            text.parse().map_err(|e| format!("{text:?} is not a time like 2027-02-15T06:00:00Z: {e}"))?;
        Self::from_micros(at.as_microsecond()).map_err(|e| e.to_string())
    }
}

impl fmt::Display for Timestamp {
    /// Writes the time in the format of RFC 3339, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => fmt::Display::fmt(&at, f),
            Err(_) => write!(f, "{} µs", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Source of the current time. Services take it as a parameter, so that tests can set the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the current time, clamped to the range of [`Timestamp`].
    fn now(&self) -> Timestamp;
}

/// Clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::MIN.saturating_add(
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX).saturating_sub(Timestamp::MIN.as_micros()),
        )
    }
}
