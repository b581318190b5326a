//! Claims of monitors on queues: a queue that is reached at two addresses must be read at one of them only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use vote_core::QueueId;

/// The claimed queues, and the monitor that reads each. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims(Arc<Mutex<BTreeMap<QueueId, Holder>>>);

/// A claim that a monitor holds.
#[derive(Debug)]
struct Holder {
    monitor: u64,
    address: String,
    server: String,
    /// When the monitor last asked its server, which still had the queue.
    asked: Instant,
}

/// A monitor that claims a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) monitor: u64,
    pub(super) address: &'a str,
    pub(super) server: &'a str,
}

/// Reason why a queue can't be claimed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClaimError {
    /// It is already read at this address, which leads to the same server.
    Here(String),
    /// Another server, at this address, had it. That server may have been restarted at the new address.
    Unclear(String),
    /// The server at this address still has it, so one of the two is a copy.
    Copy(String),
}

impl Claims {
    /// Claims a queue whose server was asked at `asked`. `conflict` is when that server first answered that it has the
    /// queue while another server had it: if the other one was asked later than that and still had it, there are two.
    pub(super) fn claim(
        &self,
        id: QueueId,
        by: Claim<'_>,
        asked: Instant,
        conflict: Option<Instant>,
    ) -> Result<(), ClaimError> {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = claims.entry(id).or_insert_with(|| Holder {
            monitor: by.monitor,
            address: by.address.to_owned(),
            server: by.server.to_owned(),
            asked,
        });
        if held.monitor == by.monitor {
            // Its server may have been restarted.
            by.server.clone_into(&mut held.server);
            held.asked = asked;
            Ok(())
        } else if held.server == by.server {
            Err(ClaimError::Here(held.address.clone()))
        } else if conflict.is_some_and(|conflict| held.asked > conflict) {
            Err(ClaimError::Copy(held.address.clone()))
        } else {
            Err(ClaimError::Unclear(held.address.clone()))
        }
    }

    /// Releases all claims of a monitor.
    pub(super) fn release(&self, monitor: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, held| held.monitor != monitor);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const QUEUE: QueueId = QueueId([1; 16]);

    fn by(monitor: u64, address: &'static str, server: &'static str) -> Claim<'static> {
        Claim { monitor, address, server }
    }

    #[test]
    fn one_server_with_two_addresses_is_read_at_one_of_them() {
        let (claims, now) = (Claims::default(), Instant::now());
        assert_eq!(claims.claim(QUEUE, by(1, "a", "server"), now, None), Ok(()));
        assert_eq!(
            claims.claim(QUEUE, by(2, "b", "server"), now, None),
            Err(ClaimError::Here("a".to_owned()))
        );
        claims.release(1);
        assert_eq!(claims.claim(QUEUE, by(2, "b", "server"), now, None), Ok(()));
    }

    #[test]
    fn a_second_server_is_a_copy_if_the_first_still_has_the_queue_later() {
        let (claims, start) = (Claims::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(claims.claim(QUEUE, by(1, "a", "one"), at(0), None), Ok(()));
        assert_eq!(
            claims.claim(QUEUE, by(2, "b", "two"), at(1), None),
            Err(ClaimError::Unclear("a".to_owned()))
        );
        let answered = Some(at(2));
        assert_eq!(
            claims.claim(QUEUE, by(2, "b", "two"), at(3), answered),
            Err(ClaimError::Unclear("a".to_owned()))
        );
        assert_eq!(
            claims.claim(QUEUE, by(1, "a", "one"), at(4), None),
            Ok(()),
            "the first server is asked again"
        );
        assert_eq!(
            claims.claim(QUEUE, by(2, "b", "two"), at(5), answered),
            Err(ClaimError::Copy("a".to_owned()))
        );
    }

    #[test]
    fn a_server_that_restarts_at_another_address_is_not_a_copy() {
        let (claims, now) = (Claims::default(), Instant::now());
        assert_eq!(claims.claim(QUEUE, by(1, "a", "one"), now, None), Ok(()));
        let again = claims.claim(QUEUE, by(1, "a", "one, again"), now, None);
        assert_eq!(again, Ok(()), "nor is one that restarts at the same address");
        assert_eq!(
            claims.claim(QUEUE, by(2, "b", "two"), now, None),
            Err(ClaimError::Unclear("a".to_owned()))
        );
        // The first address no longer answers.
        claims.release(1);
        assert_eq!(claims.claim(QUEUE, by(2, "b", "two"), now, Some(now)), Ok(()));
    }
}
