//! What keeps the worker from being ready, and since it is shared by all its tasks, in one place.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// What the store's problems are noted under.
pub(crate) const STORE: &str = "store";
/// What a clock that differs from the store's is noted under.
pub(crate) const CLOCK: &str = "clock";
/// What queues are noted under that others reach and this worker does not.
pub(crate) const QUEUES: &str = "queues";

/// Problems by what has them; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Health {
    problems: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Health {
    /// Notes how something is now. Says whether that is news.
    pub fn set(&self, what: &str, state: Result<(), String>) -> bool {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            Ok(()) => problems.remove(what).is_some(),
            Err(problem) => problems.insert(what.to_owned(), problem.clone()).as_ref() != Some(&problem),
        }
    }

    /// Whether something has no problem.
    pub(crate) fn is_well(&self, what: &str) -> bool {
        !self.problems.lock().unwrap_or_else(PoisonError::into_inner).contains_key(what)
    }

    /// `Ok` when nothing has a problem.
    ///
    /// # Errors
    /// All problems in one line.
    pub fn ready(&self) -> Result<(), String> {
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
