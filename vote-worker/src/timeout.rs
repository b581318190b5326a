//! Calls to the store that other work waits for.

use std::{future::Future, time::Duration};

use tokio::time;
use vote_core::store::StoreError;

/// How long such a call may take. Without this limit, a call whose request or response got lost blocks its caller until
/// the store ends it after 20 s, although the next call would be answered at once. The limit is shorter than the
/// time for which a heartbeat is valid, so that one lost call does not make the other workers regard this one as dead.
const LIMIT: Duration = Duration::from_secs(3);

/// Returns the result of a call, or [`StoreError::Unavailable`] if it takes too long. Only for calls that may be
/// repeated.
pub(crate) async fn with_timeout<T>(
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no answer within {LIMIT:?}").into());
    time::timeout(LIMIT, call).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_gets_no_answer_ends() {
        assert_eq!(with_timeout(async { Ok(1) }).await.unwrap(), 1);
        let error = with_timeout(std::future::pending::<Result<(), StoreError>>()).await.unwrap_err();
        assert!(error.to_string().contains("no answer within 3s"), "{error}");
    }
}
