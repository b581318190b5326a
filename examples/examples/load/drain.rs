//! Waiting: before the start until nothing moves, after the end until everything is counted.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    census::Census,
    error::LoadError,
    results::{Results, Tally},
};

/// How often the results are read.
const INTERVAL: Duration = Duration::from_millis(50);

/// How the counting ended.
#[derive(Debug)]
pub(crate) struct Drained {
    /// What was counted since the start, by option.
    pub(crate) tally: Vec<i64>,
    pub(crate) exact: bool,
    /// When the tally was complete, if it ever was.
    pub(crate) complete: Option<Instant>,
}

/// The tally from which this run counts: one that has stood still for `settle`.
///
/// # Errors
/// When there is none within `timeout`, or the results can't be read.
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

/// Waits until the tally is explained by the census and has stood still for `settle`, so that a vote that is counted
/// twice later on is not missed. A tally that can't be explained is waited for until it hasn't moved for `timeout`; one that
/// has more votes than there can be will not become right, and is not waited for.
///
/// # Errors
/// When the results can't be read for `timeout`.
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
            // It may be restarting.
            Err(_) => {}
        }
        sleep(INTERVAL).await;
    }
}
