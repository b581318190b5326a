//! What errors of Redis mean for the caller.

use fred::error::{Error, ErrorKind};

use crate::{
    Partition,
    queue::{AppendError, QueueError},
};

/// Translates an error of a call other than an append.
pub(super) fn queue_error(error: &Error) -> QueueError {
    let details = error.details();
    if details.starts_with("VOTEREPLACED") {
        QueueError::Replaced
    } else if details.starts_with("VOTEREPLICA") {
        QueueError::Replica
    } else if let Some(partition) =
        details.strip_prefix("VOTENOPARTITION ").and_then(|n| n.trim().parse().ok())
    {
        QueueError::NoPartition(Partition(partition))
    } else if matches!(error.kind(), ErrorKind::Parse | ErrorKind::Protocol)
        || details.starts_with("WRONGTYPE")
    {
        QueueError::Incompatible(details.to_owned())
    } else {
        QueueError::Unavailable(details.to_owned())
    }
}

/// Errors that Redis returns before a script has written anything: before the script runs, or (`OOM`, `MISCONF` and
/// `READONLY`) also at its first write, but at no later one.
///
/// `NOPERM` is not among them: Redis checks each command of a script against the user's rights when the command runs,
/// so that an entry may be stored before the command that counts it is refused.
const NOT_EXECUTED: [&str; 8] =
    ["OOM", "LOADING", "MISCONF", "READONLY", "NOAUTH", "WRONGPASS", "BUSY", "NOSCRIPT"];

/// Translates an error of an append.
pub(super) fn append_error(error: &Error) -> AppendError {
    let details = error.details();
    let code = details.split_whitespace().next().unwrap_or_default();
    match code {
        "VOTEREPLACED" => AppendError::Replaced,
        "VOTENOTACTIVE" => AppendError::NotActivated,
        "VOTENOPARTITION" => AppendError::NotStored(details.to_owned()),
        code if NOT_EXECUTED.contains(&code) => AppendError::NotStored(details.to_owned()),
        "NOPERM" => AppendError::Unknown(details.to_owned()),
        _ => match error.kind() {
            ErrorKind::Config | ErrorKind::Auth | ErrorKind::Backpressure => {
                AppendError::NotStored(details.to_owned())
            }
            _ => AppendError::Unknown(details.to_owned()),
        },
    }
}
