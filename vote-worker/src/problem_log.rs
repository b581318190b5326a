//! Log messages about work that is repeated until it succeeds.

use std::{collections::BTreeMap, fmt::Display};

/// What failed when it was last tried. Work that is repeated several times a second is logged when it begins to fail,
/// when it fails for another reason, and when it succeeds again.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProblemLog {
    problems: BTreeMap<&'static str, String>,
}

/// Change of the outcome of some work.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It fails now, or for another reason than before.
    Failed,
    /// It succeeds again.
    Succeeded,
}

impl ProblemLog {
    /// Records the outcome of some work, and returns how it differs from the last one; `None` if it does not.
    pub(crate) fn record<E: Display>(
        &mut self,
        work: &'static str,
        outcome: Result<(), E>,
    ) -> Option<Change> {
        match outcome {
            Ok(()) => self.problems.remove(work).map(|_| Change::Succeeded),
            Err(e) => {
                let problem = e.to_string();
                let is_known = self.problems.get(work) == Some(&problem);
                self.problems.insert(work, problem);
                (!is_known).then_some(Change::Failed)
            }
        }
    }

    /// Records the outcome of some work, and logs it if it has changed. `about` names what the work is done on.
    pub(crate) fn log<E: Display>(&mut self, about: &str, work: &'static str, outcome: Result<(), E>) {
        let text = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        match self.record(work, outcome) {
            Some(Change::Failed) => tracing::warn!(about, "can't {work}, trying again: {text}"),
            Some(Change::Succeeded) => tracing::info!(about, "can {work} again"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_an_outcome_are_reported() {
        let mut log = ProblemLog::default();
        let (down, denied) = (|| Err("it is down"), || Err("not allowed"));
        assert_eq!(log.record::<&str>("seal", Ok(())), None, "it never failed");
        assert_eq!(log.record("seal", down()), Some(Change::Failed));
        assert_eq!(log.record("seal", down()), None, "as before");
        assert_eq!(log.record("record", down()), Some(Change::Failed), "other work");
        assert_eq!(log.record("seal", denied()), Some(Change::Failed), "another reason");
        assert_eq!(log.record::<&str>("seal", Ok(())), Some(Change::Succeeded));
        assert_eq!(log.record::<&str>("seal", Ok(())), None);
    }
}
