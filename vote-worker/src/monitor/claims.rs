//! Which monitor reads a box: one that is reached by two addresses must be read by one of them only.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use vote_core::QueueId;

/// Boxes, and by whom they are read. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims(Arc<Mutex<HashMap<QueueId, Claim>>>);

#[derive(Debug)]
struct Claim {
    monitor: u64,
    address: String,
    server: String,
}

/// Why a box can't be claimed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is read by this address already: the same server.
    Here(String),
    /// The server at this address has a box of the same identity: one is a copy of the other.
    Copy(String),
}

impl Claims {
    pub(super) fn claim(&self, id: QueueId, monitor: u64, address: &str, server: &str) -> Result<(), Taken> {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let claim = claims.entry(id).or_insert_with(|| Claim {
            monitor,
            address: address.to_owned(),
            server: server.to_owned(),
        });
        if claim.monitor == monitor {
            // It may have been started again.
            server.clone_into(&mut claim.server);
            Ok(())
        } else if claim.server == server {
            Err(Taken::Here(claim.address.clone()))
        } else {
            Err(Taken::Copy(claim.address.clone()))
        }
    }

    /// Whether the box is read by another monitor.
    pub(super) fn is_elsewhere(&self, id: QueueId, monitor: u64) -> bool {
        let claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        claims.get(&id).is_some_and(|claim| claim.monitor != monitor)
    }

    pub(super) fn give_up(&self, monitor: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, claim| claim.monitor != monitor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: QueueId = QueueId([1; 16]);

    #[test]
    fn one_server_with_two_addresses_is_read_by_one_of_them() {
        let claims = Claims::default();
        assert_eq!(claims.claim(BOX, 1, "a", "server"), Ok(()));
        assert_eq!(claims.claim(BOX, 2, "b", "server"), Err(Taken::Here("a".to_owned())));
        assert!(claims.is_elsewhere(BOX, 2) && !claims.is_elsewhere(BOX, 1));
        claims.give_up(1);
        assert_eq!(claims.claim(BOX, 2, "b", "server"), Ok(()));
    }

    #[test]
    fn two_servers_with_one_box_are_copies_and_a_restarted_server_is_not() {
        let claims = Claims::default();
        assert_eq!(claims.claim(BOX, 1, "a", "server"), Ok(()));
        assert_eq!(claims.claim(BOX, 1, "a", "server, restarted"), Ok(()));
        assert_eq!(claims.claim(BOX, 2, "b", "server"), Err(Taken::Copy("a".to_owned())));
    }
}
