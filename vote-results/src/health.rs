//! Health of the service: whether its results are current.

use std::sync::{Arc, OnceLock};

use vote_service::Readiness;

use crate::Latest;

/// Why the service is not ready at first.
pub(crate) const NOT_READ: &str = "the store has not been read yet";

/// Health of the service, for the admin routes: that of its [`Latest`] state. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<OnceLock<Latest>>);

impl Health {
    /// Reports on this state from now on. It can be set once: a service has one refresher.
    pub(crate) fn watch(&self, latest: Latest) {
        let _ = self.0.set(latest);
    }
}

impl Readiness for Health {
    fn ready(&self) -> Result<(), String> {
        self.0.get().map_or_else(|| Err(NOT_READ.to_owned()), Readiness::ready)
    }
}
