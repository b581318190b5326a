//! Reasons for which votes are quarantined.

use std::fmt;

use super::Undecodable;
use crate::{OptionSlug, PollSlug, frame::FrameError};

/// Why votes of a frame are quarantined. [`Display`](fmt::Display) is the sentence for operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuarantineReason {
    /// The frame cannot be read.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// The poll of the frame is not registered. The frame is replayed once it is.
    #[error("poll {poll} is not registered")]
    PollNotRegistered {
        /// The poll.
        poll: PollSlug,
    },
    /// The frame was read after the count of its poll was final.
    #[error("the frame was read after the count of poll {poll} was final")]
    PollFinal {
        /// The poll.
        poll: PollSlug,
    },
    /// The votes are for options that the poll does not have.
    #[error("poll {poll} has no option {}{}", names(.options), if *.has_more { ", …" } else { "" })]
    UnknownOptions {
        /// The poll.
        poll: PollSlug,
        /// The options, sorted: up to [`MAX_NAMED`](Self::MAX_NAMED) of them.
        options: Vec<OptionSlug>,
        /// Whether there are more such options.
        has_more: bool,
    },
    /// The quarantine selects a vote that the frame does not have.
    #[error("the quarantine names vote {index}, counted from 0, of a frame with {votes} votes")]
    DamagedIndex {
        /// The last selected index.
        index: u32,
        /// Number of votes in the frame.
        votes: usize,
    },
}

impl QuarantineReason {
    /// Maximum number of unknown options that a reason names: a damaged frame may have hundreds.
    pub const MAX_NAMED: usize = 8;

    /// Returns the kind of reason.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        match self {
            Self::Undecodable(Undecodable::Poll(_)) => ReasonCode::InvalidPollName,
            Self::Undecodable(Undecodable::Frame(error)) => match error {
                FrameError::Checksum => ReasonCode::DamagedFrame,
                FrameError::Version(_) => ReasonCode::UnknownFrameVersion,
                FrameError::Count { .. } => ReasonCode::WrongVoteCount,
                FrameError::ForeignKey { .. } => ReasonCode::WrongPartition,
                FrameError::Size(_) | FrameError::Malformed(_) | FrameError::Trailing(_) => {
                    ReasonCode::MalformedFrame
                }
            },
            Self::PollNotRegistered { .. } => ReasonCode::PollNotRegistered,
            Self::PollFinal { .. } => ReasonCode::PollFinal,
            Self::UnknownOptions { .. } => ReasonCode::UnknownOption,
            Self::DamagedIndex { .. } => ReasonCode::DamagedIndex,
        }
    }
}

fn names(options: &[OptionSlug]) -> String {
    options.iter().map(OptionSlug::as_str).collect::<Vec<_>>().join(", ")
}

/// Kind of [`QuarantineReason`]. Unlike the sentence, the word of a kind never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReasonCode {
    /// The queue holds the frame under a name that no poll can have.
    InvalidPollName,
    /// The checksum of the frame differs.
    DamagedFrame,
    /// The frame is of a version of the format that this build does not read.
    UnknownFrameVersion,
    /// The frame has another number of votes than the queue accounted for.
    WrongVoteCount,
    /// The frame has a voter of another partition.
    WrongPartition,
    /// The bytes are not in the format of a frame, although their checksum, if there is one, matches.
    MalformedFrame,
    /// See [`QuarantineReason::PollNotRegistered`].
    PollNotRegistered,
    /// See [`QuarantineReason::PollFinal`].
    PollFinal,
    /// See [`QuarantineReason::UnknownOptions`].
    UnknownOption,
    /// See [`QuarantineReason::DamagedIndex`].
    DamagedIndex,
    /// Stored by a version without codes, or with a code that this version does not have: only the text tells.
    Unknown,
}

impl ReasonCode {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::InvalidPollName,
        Self::DamagedFrame,
        Self::UnknownFrameVersion,
        Self::WrongVoteCount,
        Self::WrongPartition,
        Self::MalformedFrame,
        Self::PollNotRegistered,
        Self::PollFinal,
        Self::UnknownOption,
        Self::DamagedIndex,
        Self::Unknown,
    ];

    /// Returns the word by which the kind is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidPollName => "invalid-poll-name",
            Self::DamagedFrame => "damaged-frame",
            Self::UnknownFrameVersion => "unknown-frame-version",
            Self::WrongVoteCount => "wrong-vote-count",
            Self::WrongPartition => "wrong-partition",
            Self::MalformedFrame => "malformed-frame",
            Self::PollNotRegistered => "poll-not-registered",
            Self::PollFinal => "poll-final",
            Self::UnknownOption => "unknown-option",
            Self::DamagedIndex => "damaged-index",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the kind with this word; [`Unknown`](Self::Unknown) if there is none.
    #[must_use]
    pub fn from_stored(word: &str) -> Self {
        Self::ALL.into_iter().find(|code| code.as_str() == word).unwrap_or(Self::Unknown)
    }
}

/// A [`QuarantineReason`] in the form in which stores keep it: its kind and its sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReason {
    /// The kind.
    pub code: ReasonCode,
    /// The sentence, in the words of the version that stored it. Only for people: nothing may depend on it.
    pub text: String,
}

impl StoredReason {
    /// Returns whether the only obstacle is that the poll of the votes is not registered. They are replayed once it is.
    #[must_use]
    pub fn awaits_poll(&self) -> bool {
        self.code == ReasonCode::PollNotRegistered
    }
}

impl From<QuarantineReason> for StoredReason {
    fn from(reason: QuarantineReason) -> Self {
        Self { code: reason.code(), text: reason.to_string() }
    }
}

impl fmt::Display for StoredReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
