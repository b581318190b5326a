//! Waiting for the tally: before the run until it stops changing, after the run until all votes are counted.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    census::Census,
    error::LoadError,
    results::{Results, Tally},
};

/// Interval at which the results are read.
const INTERVAL: Duration = Duration::from_millis(50);

/// The tally after all votes were cast.
#[derive(Debug)]
pub(crate) struct Drained {
    /// Votes counted since the start, by option.
    pub(crate) tally: Vec<i64>,
    /// Whether the votes that were cast explain the tally.
    pub(crate) exact: bool,
    /// Time at which the tally was complete, if it was.
    pub(crate) complete: Option<Instant>,
}

/// Returns the tally from which the run counts: the first that did not change for `settle`.
///
/// # Errors
/// Fails if the tally keeps changing for longer than `timeout`, or if the results can't be read.
pub(crate) async fn still(
    results: &mut Results,
    settle: Duration,
    timeout: Duration,
) -> Result<Tally, LoadError> {
    let start = Instant::now();
    let mut tally = results.read().await?;
    let mut since = Instant::now();
    while since.elapsed() < settle {
        if start.elapsed() > timeout {
            return Err(LoadError::NotStill { url: results.host().url.clone(), seconds: timeout.as_secs() });
        }
        sleep(INTERVAL).await;
        let now = results.read().await?;
        if now != tally {
            (tally, since) = (now, Instant::now());
        }
    }
    Ok(tally)
}

/// Waits until the census explains the tally and the tally has not changed for `settle`, so that a vote that is counted
/// a second time a little later is not missed.
///
/// A tally that the census does not explain is returned once it has not changed for `timeout`. One with more votes than
/// possible can't become right, and is returned once it has not changed for `settle`.
///
/// # Errors
/// Fails if the results can't be read for `timeout`.
pub(crate) async fn drain(
    results: &mut Results,
    start: &Tally,
    census: &Census,
    settle: Duration,
    timeout: Duration,
) -> Result<Drained, LoadError> {
    let most = i128::from(census.most());
    let (mut last, mut complete): (Option<Vec<i64>>, Option<Instant>) = (None, None);
    let mut moved = Instant::now();
    loop {
        match results.read().await {
            Ok(now) => {
                let tally = now.since(start).map_err(|why| results.error(why))?;
                if last.as_ref() != Some(&tally) {
                    moved = Instant::now();
                    complete = census.explains(&tally).then(|| complete.unwrap_or(moved));
                    last = Some(tally.clone());
                }
                let too_many = tally.iter().map(|n| i128::from(*n)).sum::<i128>() > most;
                let wait = if complete.is_some() || too_many { settle } else { timeout };
                if moved.elapsed() >= wait {
                    return Ok(Drained { tally, exact: complete.is_some(), complete });
                }
            }
            Err(e) if moved.elapsed() > timeout => return Err(e),
            // The results service may be restarting.
            Err(_) => {}
        }
        sleep(INTERVAL).await;
    }
}
