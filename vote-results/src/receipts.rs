//! `/receipts/{receipt}`: what became of a vote, found from what stands and how far its queue was read.
//!
//! Neither the choice nor the voter is shown: whoever sees a receipt over somebody's shoulder learns nothing, and a
//! voter can't prove to a buyer of votes what the choice was.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::{sync::Semaphore, time::timeout};
use vote_core::{
    Keep, Polls, QueueId, StoreReader, Vote, dedup,
    store::{Ballot, QuarantinedFrame, StoreError},
};
use vote_service::{Problem, Receipt, ReceiptKey};

use crate::metrics;

/// How long a look-up may take; less than a request as a whole, so that the answer is the one for receipts.
const TIMEOUT: Duration = Duration::from_secs(6);
/// How many look-ups there may be at a time, most of them waiting for one of the store's few connections. More would
/// only wait longer, and keep the poller waiting, too.
const MAX_LOOKUPS: usize = 256;

/// What became of a vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Accepted and safe in its queue, but not read yet.
    Waiting,
    /// It stands.
    Counted,
    /// Another vote of the same voter stands, by the rule of the poll.
    Superseded,
    /// It could not be counted. Other votes of the same frame may be.
    Quarantined {
        /// Why, so far as it may be shown.
        reason: &'static str,
        /// Somebody decided that it stays uncounted.
        decided: bool,
    },
    /// It was read, and the count knows its poll no more: the votes of a poll can be erased when it is over.
    Erased,
    /// Its queue lost data before the vote was read.
    Lost,
    /// It was read, yet is neither counted nor quarantined: a bug.
    Unaccounted,
}

impl Fate {
    /// As in the JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Counted => "counted",
            Self::Superseded => "superseded",
            Self::Quarantined { .. } => "quarantined",
            Self::Erased => "erased",
            // To the voter it is the same.
            Self::Lost | Self::Unaccounted => "lost",
        }
    }

    /// For the voter.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Waiting => "Your vote was accepted and is stored safely. It is waiting to be counted.".to_owned(),
            Self::Counted => "Your vote is counted.".to_owned(),
            Self::Superseded => {
                "Another vote of yours counts in this poll. Each voter has one vote, so this one does not count as well."
                    .to_owned()
            }
            Self::Quarantined { reason, decided: true } => format!(
                "Your vote arrived, but could not be counted: {reason}. It was set aside, and the organisers decided that \
                 it stays so; it is kept and accounted for."
            ),
            Self::Quarantined { reason, decided: false } => format!(
                "Your vote arrived, but could not be counted: {reason}. It was set aside and is kept; the organisers \
                 have to decide about it before the result is final."
            ),
            Self::Erased => "This poll is over, and the organisers have erased its votes.".to_owned(),
            Self::Lost => {
                "Your vote is lost: the server that held it lost data before your vote was counted. If what is left \
                 there is read again and your vote is found, this page will say so."
                    .to_owned()
            }
            Self::Unaccounted => {
                "Your vote is lost: it was read, but it is not in the count. This should never happen; please tell the \
                 organisers."
                    .to_owned()
            }
        }
    }
}

/// What became of the queue of a vote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueFate {
    /// Nothing more is counted from it: it lost data, or was written off.
    pub is_over: bool,
    /// What was left of it, which is read under names of its own.
    pub remains: Vec<QueueId>,
}

/// Look-ups of a process: the one way from a public route to the store. All that comes back is a [`Fate`], which has no
/// place for a number.
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

    /// The receipt in a token, if it is one.
    pub(crate) fn open(&self, token: &str) -> Option<Receipt> {
        self.key.open(token)
    }

    /// What became of the vote. See [`fate`].
    pub(crate) async fn fate(&self, receipt: &Receipt, queue: &QueueFate) -> Result<Fate, Problem> {
        let Ok(_place) = self.free.try_acquire() else {
            return Err(later("overloaded", "Very many people look at their receipts right now."));
        };
        let found = timeout(TIMEOUT, fate(&*self.store, &self.polls, receipt, queue)).await;
        let error = match found {
            Ok(Ok(fate)) => {
                if fate == Fate::Unaccounted {
                    metrics::unaccounted_receipt();
                    let Receipt { poll, queue, partition, position, .. } = receipt;
                    tracing::error!(%poll, %queue, %partition, %position, "a vote was read, but is not accounted for");
                }
                return Ok(fate);
            }
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
        };
        metrics::store_error();
        tracing::debug!("a receipt can't be looked up: {error}");
        Err(later("store-unavailable", "The results can't be read right now."))
    }
}

fn later(code: &'static str, why: &str) -> Problem {
    let detail = format!("{why} Your receipt stays valid: please look again in a moment.");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, "We can't look now", detail).retry_after(5)
}

/// What became of the vote.
///
/// # Order
/// How far the queue was read, and whether the vote is quarantined, is asked *first*, what stands *after* it. A commit
/// moves all at once. If it falls between the questions, the old position says "not read" and the new ballot says
/// "counted": what is true now. The other way round, the old ballot would say "does not stand" and the new position
/// "but was read", and a vote just counted would be called lost. The same goes for a quarantined vote that is counted later.
///
/// What stands is looked at before the position is compared. That is safe, since what stands only ever gives way to
/// what beats it: a vote that stands is counted however it was read (also from the remains of a queue that lost data),
/// and one that what stands beats can never stand.
///
/// # Errors
/// When the store does not answer.
pub async fn fate(
    store: &dyn StoreReader,
    polls: &Polls,
    receipt: &Receipt,
    of_queue: &QueueFate,
) -> Result<Fate, StoreError> {
    let Receipt { poll, queue, partition, position, voter, cast_at, option } = *receipt;
    let read_to = store.position(queue, partition).await?;
    let mut quarantined = None;
    for log in std::iter::once(&queue).chain(&of_queue.remains) {
        if quarantined.is_none() {
            quarantined = quarantined_in(store, *log, receipt).await?;
        }
    }
    let ours = Ballot { voter, option, cast_at };
    if let Some(standing) = store.ballot(poll, voter).await? {
        if standing == ours {
            return Ok(Fate::Counted);
        }
        if dedup::stands(keep(store, polls, receipt).await?, standing, ours) == standing {
            return Ok(Fate::Superseded);
        }
    }
    if let Some(reason) = quarantined {
        return Ok(Fate::Quarantined {
            reason: public_reason(&reason),
            decided: reason.contains(QuarantinedFrame::REJECTED),
        });
    }
    let was_read = read_to >= position;
    // Nothing more of such a queue is counted under this identity, so there is nothing to wait for.
    if !was_read && !of_queue.is_over {
        return Ok(Fate::Waiting);
    }
    // A vote is counted for a poll that is registered, or quarantined; so if it was read and is neither, both are gone.
    let is_registered = store.polls().await?.iter().any(|registered| registered.slug == poll);
    Ok(match (was_read, is_registered) {
        (true, false) => Fate::Erased,
        (true, true) if !of_queue.is_over => Fate::Unaccounted,
        _ => Fate::Lost,
    })
}

/// Why the vote is quarantined, if it is, as it was read from a log: the queue of its receipt, or what was left of it.
async fn quarantined_in(
    store: &dyn StoreReader,
    log: QueueId,
    receipt: &Receipt,
) -> Result<Option<String>, StoreError> {
    let Receipt { poll, partition, position, voter, cast_at, option, .. } = *receipt;
    let Some(row) = store.quarantined(log, partition, position).await? else { return Ok(None) };
    // Without a layout nothing was ever quarantined.
    let Some(layout) = store.layout().await? else { return Ok(None) };
    let is_held = row.holds(layout.partitions, &Vote { poll, voter, option, cast_at });
    Ok(is_held.then_some(row.frame.reason))
}

/// By which rule the poll is counted: what the store has, whatever the file says now.
async fn keep(store: &dyn StoreReader, polls: &Polls, receipt: &Receipt) -> Result<Keep, StoreError> {
    let registered =
        store.polls().await?.into_iter().find(|poll| poll.slug == receipt.poll).map(|poll| poll.keep);
    Ok(registered.or_else(|| polls.get(receipt.poll.as_str()).map(|poll| poll.keep)).unwrap_or_default())
}

/// Why a vote is quarantined, in words for the public. The reason itself may name an option or a voter of the frame,
/// and a receipt tells nobody what was chosen; it is kept with the frame, for the operators.
fn public_reason(reason: &str) -> &'static str {
    const KNOWN: [(&str, &str); 7] = [
        ("was final", "it came after the count was final"),
        ("is not registered", "its poll is not known to the count"),
        ("has no option", "the poll as it is counted lacks an option that was voted for"),
        ("checksum differs", "it was damaged on the way"),
        ("is not known to this build", "it was written by a newer version of the software"),
        ("accounted for", "the number of votes it came with is wrong"),
        ("does not belong to partition", "it was filed in the wrong place"),
    ];
    let known = KNOWN.iter().find(|(part, _)| reason.contains(part));
    known.map_or("it can't be read", |(_, public)| public)
}

#[cfg(test)]
mod tests {
    use vote_core::{Partition, VoterKey, frame::FrameError};

    use super::*;

    #[test]
    fn the_public_learns_the_kind_of_a_fault_and_no_more() {
        let foreign = FrameError::ForeignKey { voter: VoterKey([0xab; 16]), partition: Partition(7) };
        let cases = [
            (FrameError::Checksum.to_string(), "damaged"),
            (FrameError::Version(9).to_string(), "newer version"),
            (FrameError::Count { expected: 2, found: 1 }.to_string(), "number of votes"),
            (foreign.to_string(), "wrong place"),
            (FrameError::Trailing(3).to_string(), "can't be read"),
            (FrameError::Malformed("cats".to_owned()).to_string(), "can't be read"),
            ("poll pets has no option cats".to_owned(), "lacks an option"),
            ("poll pets is not registered".to_owned(), "not known to the count"),
            ("it came after the count of poll pets was final".to_owned(), "after the count was final"),
        ];
        for (reason, expected) in cases {
            let public = public_reason(&format!("frame: {reason}"));
            assert!(public.contains(expected), "{reason}: {public}");
            assert!(!public.contains("cats") && !public.contains("abab"), "{public}");
        }
    }
}
