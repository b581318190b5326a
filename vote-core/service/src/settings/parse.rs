//! Parsers of values, for [`Settings::get`](super::Settings::get).

use std::time::Duration;

use vote_core::Partitions;

/// Parses a duration in seconds; fractions are allowed.
///
/// # Errors
/// Fails if `text` is not a number, is negative, or is too large for a [`Duration`].
pub fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "expected a number of seconds, such as 10 or 0.5".to_owned())
}

/// Parses a count of one or more.
///
/// # Errors
/// Fails if `text` is not a whole number, or is zero.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "expected a whole number, 1 or more".to_owned())
}

/// Parses a number of partitions.
///
/// # Errors
/// Fails if `text` is not a power of two from 1 to 1024.
pub fn partitions(text: &str) -> Result<Partitions, String> {
    let count = text.parse::<u16>().map_err(|_| "expected a power of two from 1 to 1024".to_owned())?;
    Partitions::new(count).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err() && seconds("soon").is_err() && seconds("1e400").is_err());
    }
}
