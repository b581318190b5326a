//! Which rule is broken.

/// What the worker does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Trims what was read at once. If the commit then fails, or the worker ends before it, the votes are gone.
    TrimFirst,
    /// Leaves the read positions out of the transaction. Whoever takes the partition next reads again what was booked.
    ForgetPosition,
    /// Takes partitions that others have, as behind a pooler that lends one session to many: locks of sessions then
    /// mean nothing. Slow, and harmless: of two commits from one state the version lets one through.
    SharePartitions,
    /// The same, and commits whatever the version is: what two have read is booked twice.
    IgnoreVersion,
}

impl Fault {
    const VARIABLE: &str = "FAULTY_WORKER";

    /// # Errors
    /// When the variable names no fault.
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

    /// Whether partitions are taken that others have.
    pub(crate) const fn shares(self) -> bool {
        matches!(self, Self::SharePartitions | Self::IgnoreVersion)
    }
}
