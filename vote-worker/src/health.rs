//! Problems that keep the worker from being ready, in one place for all its tasks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use vote_service::Readiness;

/// Key of the store's problems.
pub(crate) const STORE: &str = "store";
/// Key of a clock that differs from the store's.
pub(crate) const CLOCK: &str = "clock";
/// Key of queues that other workers reach and this one does not.
pub(crate) const QUEUES: &str = "queues";

/// The current problems by key. The worker is ready if there are none. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Health {
    problems: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Health {
    /// Records the state of `what`, and returns whether it has changed.
    pub fn set(&self, what: &str, state: Result<(), String>) -> bool {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            Ok(()) => problems.remove(what).is_some(),
            Err(problem) => problems.insert(what.to_owned(), problem.clone()).as_ref() != Some(&problem),
        }
    }

    /// Returns whether `what` has no problem.
    pub(crate) fn is_well(&self, what: &str) -> bool {
        !self.problems.lock().unwrap_or_else(PoisonError::into_inner).contains_key(what)
    }
}

impl Readiness for Health {
    fn ready(&self) -> Result<(), String> {
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.is_empty() {
            return Ok(());
        }
        Err(problems
            .iter()
            .map(|(what, problem)| format!("{what}: {problem}"))
            .collect::<Vec<_>>()
            .join("; "))
    }
}
