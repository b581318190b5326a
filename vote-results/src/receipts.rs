//! `/receipts/{receipt}`: the status of a vote, derived from the effective ballot and the read position of its queue.
//!
//! Neither the choice nor the voter is shown. A person who happens to see a receipt learns nothing, and voters can't
//! prove their choice to a buyer of votes.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::{sync::Semaphore, time::timeout};
use vote_core::{
    Keep, Polls, QueueId, StoreReader, Vote,
    count::{self, Ballot, QuarantineRow, QuarantineState, ReasonCode},
    store::StoreError,
};
use vote_service::{Problem, Receipt, ReceiptKey};

use crate::metrics;

/// Timeout of a lookup. Shorter than that of a request, so that the error is the one for receipts.
const TIMEOUT: Duration = Duration::from_secs(6);
/// Maximum number of concurrent lookups, most of which wait for one of the store's few connections. More lookups would
/// only wait longer, and delay the refresher.
const MAX_LOOKUPS: usize = 256;

/// The status of a vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiptStatus {
    /// Accepted and stored in its queue, but not read yet.
    Waiting,
    /// The effective ballot of its voter.
    Counted,
    /// Read, but another vote is the effective ballot of its voter. (The ledger counts the later of two votes as
    /// superseded, whichever of them is effective.)
    Superseded,
    /// Read, but it could not be counted. Other votes of the same frame may be counted.
    Quarantined {
        /// The kind of problem, in words that disclose nothing about the vote.
        reason: &'static str,
        /// Whether an operator decided that the vote stays uncounted.
        decided: bool,
    },
    /// Read, but its poll is no longer registered: operators may erase the votes of a final poll.
    Erased,
    /// Lost with its queue: neither counted nor quarantined.
    Lost,
    /// Read, but neither counted nor quarantined, which is a bug.
    Unaccounted,
}

impl ReceiptStatus {
    /// The word in the JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Counted => "counted",
            Self::Superseded => "superseded",
            Self::Quarantined { .. } => "quarantined",
            Self::Erased => "erased",
            // The difference does not matter to the voter.
            Self::Lost | Self::Unaccounted => "lost",
        }
    }

    /// The message for the voter.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Waiting => "Your vote was accepted and is stored safely. It is waiting to be counted.".to_owned(),
            Self::Counted => "Your vote has been counted.".to_owned(),
            Self::Superseded => {
                "Another vote of yours counts in this poll. Each voter has one vote, so this one does not count."
                    .to_owned()
            }
            Self::Quarantined { reason, decided: true } => format!(
                "Your vote was received but could not be counted: {reason}. The organisers decided not to count it. It \
                 is kept and accounted for."
            ),
            Self::Quarantined { reason, decided: false } => format!(
                "Your vote was received but could not be counted: {reason}. It is kept in quarantine; the organisers \
                 must decide on it before the result becomes final."
            ),
            Self::Erased => "This poll has ended, and the organisers have erased its votes.".to_owned(),
            Self::Lost => {
                "Your vote has been lost: the server that stored it lost data before the vote was counted. If it is \
                 found in the remaining data, this page will say so."
                    .to_owned()
            }
            Self::Unaccounted => {
                "Your vote has been lost: it was read but is missing from the count. This should never happen; please \
                 tell the organisers."
                    .to_owned()
            }
        }
    }
}

/// The state of the queue of a vote, as far as the status of the vote depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueOutcome {
    /// Whether nothing more is counted under the id of the queue: it diverged or was retired.
    pub is_ended: bool,
    /// The replaced queues whose remaining entries come from this queue, each with an id of its own.
    pub replaced: Vec<QueueId>,
}

/// The receipt lookups of the process: the only way from a public route to the store. They return only a [`ReceiptStatus`],
/// which can't hold a number.
#[derive(Debug)]
pub(crate) struct Lookups {
    store: Arc<dyn StoreReader>,
    polls: Arc<Polls>,
    key: ReceiptKey,
    free: Semaphore,
}

impl Lookups {
    pub(crate) fn new(store: Arc<dyn StoreReader>, polls: Arc<Polls>, key: ReceiptKey) -> Self {
        Self { store, polls, key, free: Semaphore::new(MAX_LOOKUPS) }
    }

    /// Decrypts a token. Returns none if it is not a valid receipt.
    pub(crate) fn open(&self, token: &str) -> Option<Receipt> {
        self.key.open(token)
    }

    /// Looks up the status of the vote, see [`status_of`]. Fails with 503 if there are too many lookups or the store does not
    /// reply in time.
    pub(crate) async fn status(
        &self,
        receipt: &Receipt,
        queue: &QueueOutcome,
    ) -> Result<ReceiptStatus, Problem> {
        let Ok(_permit) = self.free.try_acquire() else {
            return Err(unavailable("overloaded", "Too many people are looking up receipts right now."));
        };
        let found = timeout(TIMEOUT, status_of(&*self.store, &self.polls, receipt, queue)).await;
        let error = match found {
            Ok(Ok(status)) => {
                if status == ReceiptStatus::Unaccounted {
                    metrics::unaccounted_receipt();
                    let Receipt { poll, queue, partition, position, .. } = receipt;
                    tracing::error!(
                        %poll, %queue, %partition, %position,
                        "a vote was read but is neither counted nor quarantined: run `vote-results audit`"
                    );
                }
                return Ok(status);
            }
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no reply within {} s", TIMEOUT.as_secs()),
        };
        metrics::store_error();
        tracing::debug!("receipt lookup failed: {error}");
        Err(unavailable("store-unavailable", "The count can't be read right now."))
    }
}

fn unavailable(code: &'static str, why: &str) -> Problem {
    let detail = format!("{why} Your receipt remains valid: please try again in a moment.");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, "Temporarily unavailable", detail).retry_after(5)
}

/// Looks up the status of the vote that a receipt is for.
///
/// # Order of reads
/// The read position and the quarantine are read *before* the effective ballot. A commit changes all of them at once.
/// If one happens in between, the old position says "not read" and the new ballot says "counted", which is true by now.
/// In the opposite order, the old ballot would say "not effective" and the new position "already read", and a vote that
/// was just counted would be reported as lost. The same holds for a quarantined vote that is counted later.
///
/// The ballot is compared before the position. That is safe because an effective ballot is only ever replaced by one
/// that wins against it: an effective vote is counted no matter where it was read (in its queue, or in a replaced queue
/// after a loss of data), and a vote that loses against the effective ballot can never become effective.
///
/// # Errors
/// Fails if the store can't be read.
pub async fn status_of(
    store: &dyn StoreReader,
    polls: &Polls,
    receipt: &Receipt,
    of_queue: &QueueOutcome,
) -> Result<ReceiptStatus, StoreError> {
    let Receipt { poll, queue, partition, position, voter, cast_at, option } = *receipt;
    let read_to = store.position(queue, partition).await?;
    let mut quarantined = None;
    for id in std::iter::once(&queue).chain(&of_queue.replaced) {
        if quarantined.is_none() {
            quarantined = quarantined_in(store, *id, receipt).await?;
        }
    }
    let ours = Ballot { voter, option, cast_at };
    if let Some(effective) = store.ballot(poll, voter).await? {
        if effective == ours {
            return Ok(ReceiptStatus::Counted);
        }
        if count::merge(keep(store, polls, receipt).await?, effective, ours) == effective {
            return Ok(ReceiptStatus::Superseded);
        }
    }
    if let Some(row) = quarantined {
        return Ok(ReceiptStatus::Quarantined {
            reason: public_reason(row.frame.reason.code),
            decided: row.state == QuarantineState::Rejected,
        });
    }
    let was_read = read_to >= position;
    // Nothing more is counted under the id of a diverged or retired queue, so there is nothing to wait for.
    if !was_read && !of_queue.is_ended {
        return Ok(ReceiptStatus::Waiting);
    }
    // A vote that was read is either counted for a registered poll or quarantined. If it is neither and the poll is not
    // registered, the poll was erased.
    let is_registered = store.polls().await?.iter().any(|registered| registered.slug == poll);
    Ok(match (was_read, is_registered) {
        (true, false) => ReceiptStatus::Erased,
        (true, true) if !of_queue.is_ended => ReceiptStatus::Unaccounted,
        _ => ReceiptStatus::Lost,
    })
}

/// Returns the row of the vote if it is quarantined, as read from a queue: that of its receipt, or a replaced queue.
async fn quarantined_in(
    store: &dyn StoreReader,
    id: QueueId,
    receipt: &Receipt,
) -> Result<Option<QuarantineRow>, StoreError> {
    let Receipt { poll, partition, position, voter, cast_at, option, .. } = *receipt;
    let Some(row) = store.quarantined(id, partition, position).await? else { return Ok(None) };
    // A store without a layout has never quarantined anything.
    let Some(layout) = store.layout().await? else { return Ok(None) };
    let is_quarantined = row.holds(layout.partitions, &Vote { poll, voter, option, cast_at });
    Ok(is_quarantined.then_some(row))
}

/// Returns the merge rule of the poll: that of the store; that of the file only if the poll is not registered.
async fn keep(store: &dyn StoreReader, polls: &Polls, receipt: &Receipt) -> Result<Keep, StoreError> {
    let registered =
        store.polls().await?.into_iter().find(|poll| poll.slug == receipt.poll).map(|poll| poll.keep);
    Ok(registered.or_else(|| polls.get(receipt.poll.as_str()).map(|poll| poll.keep)).unwrap_or_default())
}

/// Maps the reason for a quarantine to words for the public. The reason itself is for operators only: it may name an
/// option or a voter of the frame, and a receipt must not disclose a choice.
const fn public_reason(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::PollFinal => "it arrived after the count was final",
        ReasonCode::PollNotRegistered => "its poll is not registered",
        ReasonCode::UnknownOption => "the registered poll lacks an option that was voted for",
        ReasonCode::DamagedFrame => "it was damaged in transit or in storage",
        ReasonCode::UnknownFrameVersion => "it was written by a newer version of the software",
        ReasonCode::WrongVoteCount => "the number of votes stored with it is wrong",
        ReasonCode::WrongPartition => "it was stored in the wrong partition",
        ReasonCode::InvalidPollName | ReasonCode::MalformedFrame | ReasonCode::DamagedIndex => {
            "it can't be decoded"
        }
        ReasonCode::Unknown => "the organisers know the reason",
    }
}

#[cfg(test)]
mod tests {
    use vote_core::{
        Partition, VoterKey,
        count::{QuarantineReason, Undecodable},
        frame::FrameError,
    };

    use super::*;

    #[test]
    fn the_public_reason_tells_only_the_kind_of_problem() {
        let frame = |error| QuarantineReason::from(Undecodable::Frame(error));
        let poll = "pets".parse().unwrap();
        let options = vec!["cats".parse().unwrap()];
        let foreign = FrameError::ForeignKey { voter: VoterKey([0xab; 16]), partition: Partition(7) };
        let cases = [
            (frame(FrameError::Checksum), "damaged"),
            (frame(FrameError::Version(9)), "newer version"),
            (frame(FrameError::Count { expected: 2, found: 1 }), "number of votes"),
            (frame(foreign), "wrong partition"),
            (frame(FrameError::Trailing(3)), "can't be decoded"),
            (frame(FrameError::Malformed("cats".to_owned())), "can't be decoded"),
            (QuarantineReason::UnknownOptions { poll, options, has_more: false }, "lacks an option"),
            (QuarantineReason::PollNotRegistered { poll }, "poll is not registered"),
            (QuarantineReason::PollFinal { poll }, "after the count was final"),
        ];
        for (reason, expected) in cases {
            let public = public_reason(reason.code());
            assert!(public.contains(expected), "{reason}: {public}");
            assert!(!public.contains("cats") && !public.contains("abab"), "{public}");
        }
    }
}
