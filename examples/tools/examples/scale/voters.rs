//! Votes, and their way into the queues without a frontend.

use std::{collections::BTreeMap, fmt::Write as _};

use bytes::Bytes;
use vote_core::{
    Clock, OptionSlug, Partition, Partitions, PollDigest, PollSlug, Polls, Queue, QueueId, SystemClock, Vote,
    VoterKey, frame,
    queue::{Appended, Frame},
};

/// Options of each poll.
const OPTIONS: [&str; 2] = ["cats", "dogs"];

/// Returns this number of polls.
pub(crate) fn polls(count: u32) -> Polls {
    let mut text = String::new();
    for n in 0..count {
        let _ = write!(
            text,
            "[[poll]]\nslug = \"poll-{n}\"\ntitle = \"Cats or dogs?\"\n\
             options = [{{ slug = \"cats\", label = \"Cats\" }}, {{ slug = \"dogs\", label = \"Dogs\" }}]\n"
        );
    }
    Polls::from_toml("polls.toml", &text).unwrap()
}

/// Who votes for what: voters are numbers.
#[derive(Debug, Clone)]
pub(crate) struct Electorate {
    pub(crate) polls: Vec<(PollSlug, PollDigest)>,
    pub(crate) partitions: Partitions,
    options: [OptionSlug; 2],
}

impl Electorate {
    pub(crate) fn new(polls: &Polls, partitions: Partitions) -> Self {
        Self {
            polls: polls.iter().map(|poll| (poll.slug, poll.digest())).collect(),
            partitions,
            options: OPTIONS.map(|slug| slug.parse().unwrap()),
        }
    }

    /// Returns the vote of a voter in a poll, cast now.
    pub(crate) fn vote(&self, poll: usize, voter: u64, option: usize) -> Vote {
        // A key of its own for each voter, since no two numbers have the same mixture, and as random as a hash.
        let key = u128::from(mixed(voter)) << 64 | u128::from(mixed(!voter));
        Vote {
            poll: self.polls[poll].0,
            voter: VoterKey(key.to_be_bytes()),
            option: self.options[option],
            cast_at: SystemClock.now(),
        }
    }

    /// Returns the vote of a voter of a partition in a poll, cast now.
    pub(crate) fn vote_in(&self, poll: usize, partition: Partition, voter: u64) -> Vote {
        let start = u128::from_be_bytes(self.partitions.range(partition).start().0);
        let mut vote = self.vote(poll, voter, 0);
        vote.voter = VoterKey((start | u128::from_be_bytes(vote.voter.0) >> 10).to_be_bytes());
        vote
    }

    /// Encodes the votes of one flush: a frame for each poll and partition.
    pub(crate) fn frames(&self, votes: &[Vote]) -> Vec<Frame> {
        let mut groups: BTreeMap<(PollSlug, Partition), Vec<Vote>> = BTreeMap::new();
        for vote in votes {
            groups.entry((vote.poll, self.partitions.of(vote.voter))).or_default().push(*vote);
        }
        let digest = |poll| self.polls.iter().find(|(slug, _)| *slug == poll).map(|(_, digest)| *digest);
        let frame = |((poll, partition), votes): ((PollSlug, Partition), Vec<Vote>)| Frame {
            poll,
            partition,
            digest: digest(poll).unwrap(),
            votes: votes.len() as u32,
            bytes: Bytes::from(frame::encode(poll, partition, &votes).unwrap()),
        };
        groups.into_iter().map(frame).collect()
    }
}

/// Mixes the bits of a number, as the generator SplitMix64 does.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Appends frames, all of which must be stored.
pub(crate) async fn append(queue: &dyn Queue, id: QueueId, frames: &[Frame]) {
    let appended = queue.append(id, frames).await.unwrap_or_else(|e| panic!("{}: {e}", queue.address()));
    for outcome in appended {
        assert!(matches!(outcome, Appended::Stored(_)), "{}: {outcome:?}", queue.address());
    }
}
