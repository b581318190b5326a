//! Polls as registered in a store.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    Keep, OptionSlug, Poll, PollDigest, PollSlug, Timestamp,
    poll::{ResultsFrom, Voters},
};

/// A poll as registered in the store.
///
/// Options, `keep`, `voters` and `results` never change, unless the poll is [withdrawn](crate::Store::withdraw_poll)
/// before any vote was cast for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredPoll {
    /// Name of the poll.
    pub slug: PollSlug,
    /// Options of the poll, in the order they had when it was registered.
    pub options: Vec<OptionSlug>,
    /// Rule that picks a voter's effective ballot.
    pub keep: Keep,
    /// How voters are identified.
    pub voters: Voters,
    /// When its results may be published. Another value in a file is not a [difference](Self::difference), since the
    /// count is the same; the results service applies the stricter of the two.
    pub results: ResultsFrom,
    /// Time from which on no votes are accepted, if one is set. Changes only when the poll is
    /// [rescheduled](crate::Store::reschedule_poll), and never once it is closed.
    pub closes_at: Option<Timestamp>,
    /// All changes of the closing time, in order.
    pub reschedules: Vec<Reschedule>,
    /// Time at which it was closed. From then on, workers seal it in every queue. Never undone.
    pub closed_at: Option<Timestamp>,
    /// Time at which its count became final. From then on, no vote is counted for it. Never undone.
    pub final_at: Option<Timestamp>,
    /// The withdrawal, if the poll is withdrawn and may be replaced by another definition.
    pub withdrawal: Option<Withdrawal>,
    /// [Time](Withdrawal::at) of the latest withdrawal of this definition that was
    /// [undone](crate::Store::undo_withdrawal). A queue that dropped the definition for that withdrawal, or for an
    /// earlier one, records it again.
    pub undone_withdrawal: Option<Timestamp>,
    /// Earlier definitions of the same name, in the order of registration.
    pub earlier: Vec<EarlierDefinition>,
}

/// Change of a poll's closing time by an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reschedule {
    /// Time of the change, by the store's clock.
    pub at: Timestamp,
    /// Closing time before the change; `None` if the poll was to be closed by hand.
    pub from: Option<Timestamp>,
    /// Closing time after the change; `None` if the poll is to be closed by hand.
    pub to: Option<Timestamp>,
    /// Reason that the operator gave.
    pub reason: String,
}

impl fmt::Display for Reschedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time =
            |at: Option<Timestamp>| at.map_or_else(|| "closing by hand".to_owned(), |at| at.to_string());
        let Self { at, from, to, reason } = self;
        write!(f, "closing time moved at {at} from {} to {}: {reason}", time(*from), time(*to))
    }
}

impl RegisteredPoll {
    /// Describes how the poll differs from its definition in a file, as far as it affects the count; `None` if it does
    /// not.
    #[must_use]
    pub fn difference(&self, poll: &Poll) -> Option<String> {
        let names =
            |slugs: BTreeSet<OptionSlug>| slugs.iter().map(OptionSlug::as_str).collect::<Vec<_>>().join(", ");
        let ours: BTreeSet<_> = self.options.iter().copied().collect();
        let theirs: BTreeSet<_> = poll.options.iter().map(|o| o.slug).collect();
        if ours != theirs {
            Some(format!("options are {} where the file says {}", names(ours), names(theirs)))
        } else if self.keep != poll.keep {
            Some(format!("keep is {:?} where the file says {:?}", self.keep.as_str(), poll.keep.as_str()))
        } else if self.voters != poll.voters {
            Some(format!(
                "voters is {:?} where the file says {:?}",
                self.voters.as_str(),
                poll.voters.as_str()
            ))
        } else {
            None
        }
    }
}

impl From<&Poll> for RegisteredPoll {
    fn from(poll: &Poll) -> Self {
        Self {
            slug: poll.slug,
            options: poll.options.iter().map(|option| option.slug).collect(),
            keep: poll.keep,
            voters: poll.voters,
            results: poll.results,
            closes_at: poll.closes_at,
            reschedules: Vec::new(),
            closed_at: None,
            final_at: None,
            withdrawal: None,
            undone_withdrawal: None,
            earlier: Vec::new(),
        }
    }
}

/// Withdrawal of a poll by an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// Time of the withdrawal, by the store's clock. It identifies the withdrawal among those of the poll, and is later
    /// than that of each withdrawal of the same definition that was undone, even if the clock was set back.
    pub at: Timestamp,
    /// Reason that the operator gave.
    pub reason: String,
}

/// A definition that was withdrawn and replaced by another one of the same name. It cannot be registered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierDefinition {
    /// Digest of the definition.
    pub digest: PollDigest,
    /// The withdrawal of the definition.
    pub withdrawal: Withdrawal,
}

impl RegisteredPoll {
    /// Returns whether the poll is withdrawn and this definition may replace it.
    pub(crate) fn makes_way_for(&self, poll: &Poll) -> bool {
        self.withdrawal.is_some()
            && self.digest() != poll.digest()
            && self.earlier.iter().all(|earlier| earlier.digest != poll.digest())
    }

    /// Returns the record to keep of this definition once another one has replaced it; `None` if it is not withdrawn.
    pub(crate) fn as_earlier(&self) -> Option<EarlierDefinition> {
        let withdrawal = self.withdrawal.clone()?;
        Some(EarlierDefinition { digest: self.digest(), withdrawal })
    }
}
