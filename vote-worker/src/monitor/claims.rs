//! Which monitor reads a box: one that is reached by two addresses must be read by one of them only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;
use vote_core::QueueId;

/// Boxes, and by whom they are read. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims(Arc<Mutex<BTreeMap<QueueId, Held>>>);

#[derive(Debug)]
struct Held {
    monitor: u64,
    address: String,
    server: String,
    /// When the monitor last asked its server, which then still had the box.
    asked: Instant,
}

/// Who claims a box.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) monitor: u64,
    pub(super) address: &'a str,
    pub(super) server: &'a str,
}

/// Why a box can't be claimed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is read by this address already: the same server.
    Here(String),
    /// Another server at this address had it. It may have been started again at the new address.
    Unclear(String),
    /// The server at this address still has it: one is a copy of the other.
    Copy(String),
}

impl Claims {
    /// Claims a box whose server was asked at a moment. `conflict` is when the server first said that it has it, while
    /// another one had it: if that one was asked later than this, and still had it, there are two.
    pub(super) fn claim(
        &self,
        id: QueueId,
        by: Claim<'_>,
        asked: Instant,
        conflict: Option<Instant>,
    ) -> Result<(), Taken> {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = claims.entry(id).or_insert_with(|| Held {
            monitor: by.monitor,
            address: by.address.to_owned(),
            server: by.server.to_owned(),
            asked,
        });
        if held.monitor == by.monitor {
            // It may have been started again.
            by.server.clone_into(&mut held.server);
            held.asked = asked;
            Ok(())
        } else if held.server == by.server {
            Err(Taken::Here(held.address.clone()))
        } else if conflict.is_some_and(|conflict| held.asked > conflict) {
            Err(Taken::Copy(held.address.clone()))
        } else {
            Err(Taken::Unclear(held.address.clone()))
        }
    }

    pub(super) fn give_up(&self, monitor: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, held| held.monitor != monitor);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BOX: QueueId = QueueId([1; 16]);

    fn by(monitor: u64, address: &'static str, server: &'static str) -> Claim<'static> {
        Claim { monitor, address, server }
    }

    #[test]
    fn one_server_with_two_addresses_is_read_by_one_of_them() {
        let (claims, now) = (Claims::default(), Instant::now());
        assert_eq!(claims.claim(BOX, by(1, "a", "server"), now, None), Ok(()));
        assert_eq!(claims.claim(BOX, by(2, "b", "server"), now, None), Err(Taken::Here("a".to_owned())));
        claims.give_up(1);
        assert_eq!(claims.claim(BOX, by(2, "b", "server"), now, None), Ok(()));
    }

    #[test]
    fn a_second_server_is_a_copy_when_the_first_still_has_the_box_after_it() {
        let (claims, start) = (Claims::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(claims.claim(BOX, by(1, "a", "one"), at(0), None), Ok(()));
        assert_eq!(claims.claim(BOX, by(2, "b", "two"), at(1), None), Err(Taken::Unclear("a".to_owned())));
        let answered = Some(at(2));
        assert_eq!(
            claims.claim(BOX, by(2, "b", "two"), at(3), answered),
            Err(Taken::Unclear("a".to_owned()))
        );
        assert_eq!(claims.claim(BOX, by(1, "a", "one"), at(4), None), Ok(()), "the first one is asked again");
        assert_eq!(claims.claim(BOX, by(2, "b", "two"), at(5), answered), Err(Taken::Copy("a".to_owned())));
    }

    #[test]
    fn a_server_that_was_started_again_elsewhere_is_no_copy() {
        let (claims, now) = (Claims::default(), Instant::now());
        assert_eq!(claims.claim(BOX, by(1, "a", "one"), now, None), Ok(()));
        assert_eq!(claims.claim(BOX, by(1, "a", "one, again"), now, None), Ok(()), "nor at the same place");
        assert_eq!(claims.claim(BOX, by(2, "b", "two"), now, None), Err(Taken::Unclear("a".to_owned())));
        // The first address no longer answers.
        claims.give_up(1);
        assert_eq!(claims.claim(BOX, by(2, "b", "two"), now, Some(now)), Ok(()));
    }
}
