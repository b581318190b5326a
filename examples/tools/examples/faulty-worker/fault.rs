//! The rule that the worker breaks.

/// Rule that the worker breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Trims entries as soon as they are read. If the commit then fails, or the worker ends before it, the votes are
    /// lost.
    TrimFirst,
    /// Leaves the read positions out of the transaction. The next owner of the partition counts the same entries again.
    ForgetPosition,
    /// Acquires partitions that other sessions own, as behind a connection pooler that shares one database session
    /// between clients, so that session locks have no effect. Slow but harmless: of two commits from the same state,
    /// the version rejects one.
    SharePartitions,
    /// The same, and commits whatever the version is: entries that two sessions have read are counted twice.
    IgnoreVersion,
}

impl Fault {
    const VARIABLE: &str = "FAULTY_WORKER";

    /// Reads the fault from the environment variable `FAULTY_WORKER`.
    ///
    /// # Errors
    /// Fails if the variable does not name a fault.
    pub(crate) fn from_env() -> Result<Self, String> {
        match std::env::var(Self::VARIABLE).as_deref() {
            Ok("trim-first") => Ok(Self::TrimFirst),
            Ok("forget-position") => Ok(Self::ForgetPosition),
            Ok("share-partitions") => Ok(Self::SharePartitions),
            Ok("ignore-version") => Ok(Self::IgnoreVersion),
            other => Err(format!(
                "{}={other:?}: expected trim-first, forget-position, share-partitions or ignore-version",
                Self::VARIABLE
            )),
        }
    }

    /// Returns whether partitions are acquired that other sessions own.
    pub(crate) const fn shares(self) -> bool {
        matches!(self, Self::SharePartitions | Self::IgnoreVersion)
    }
}
