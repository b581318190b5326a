//! The wire encoding. A frame carries votes of one poll and one partition.
//!
//! ```text
//! byte 0      version, 1
//! body        bincode 2, variable-length integers, little-endian:
//!               options   the option slugs used, each as a length and its characters
//!               base      cast_at of the first vote, microseconds since 1970 (zigzag)
//!               votes     a length, then for each vote:
//!                           key      16 bytes
//!                           option   index into options
//!                           delta    cast_at minus the cast_at of the vote before (zigzag)
//! last 4      CRC-32 (IEEE), little-endian, over: poll slug, 0, partition as u16 LE, version byte, body
//! ```
//!
//! Options are encoded by name, so that reordering them in `polls.toml` cannot change a vote. The checksum covers poll
//! and partition, so that a frame cannot be read as one of another poll or partition. The worker quarantines a frame
//! that does not decode completely, and never drops it.

use bincode::{
    Decode, Encode,
    config::{Configuration, Limit, LittleEndian, Varint},
    error::DecodeError,
};

use crate::{OptionSlug, Partition, Partitions, PollSlug, Timestamp, Vote, VoterKey};

/// Version of the format that this build reads and writes, the only one so far.
pub const VERSION: u8 = 1;
/// Maximum number of votes in one frame.
pub const MAX_VOTES: usize = 1024;
/// Maximum size of one frame in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

const CHECKSUM: usize = 4;

/// Why votes cannot be encoded as a frame: a mistake of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// No votes, or more than [`MAX_VOTES`].
    #[error("invalid vote count {0}: a frame holds 1 to {MAX_VOTES} votes")]
    Count(usize),
    /// A vote of another poll.
    #[error("a vote of poll {0} in a frame of another poll")]
    Poll(PollSlug),
    /// More options than a poll may have.
    #[error("more than {} options in a frame", crate::poll::OPTIONS.end())]
    Options,
    /// An error of bincode, which valid votes never cause.
    #[error("the votes could not be encoded")]
    Codec,
}

/// Why bytes are not a valid frame. The worker quarantines the frame for this reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Too few or too many bytes.
    #[error("invalid size of {0} bytes: a frame has 6 to {MAX_BYTES}")]
    Size(usize),
    /// Written in a newer version of the format.
    #[error(
        "frame version {0} is not known to this build, which reads version {VERSION}; update the workers"
    )]
    Version(u8),
    /// Damaged, or a frame of another poll or partition.
    #[error("checksum differs: the frame is damaged, or of another poll or partition")]
    Checksum,
    /// Not in the format of its version, although the checksum matches.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Bytes after the last vote.
    #[error("{0} bytes after the last vote")]
    Trailing(usize),
    /// Another number of votes than the queue accounted for.
    #[error("{found} votes in the frame, but {expected} were accounted for")]
    Count {
        /// Number of votes that the queue accounted for.
        expected: u64,
        /// Number of votes in the frame.
        found: usize,
    },
    /// A voter key of another partition.
    #[error("voter {voter} does not belong to partition {partition}")]
    ForeignKey {
        /// The voter key.
        voter: VoterKey,
        /// Partition in which the frame was found.
        partition: Partition,
    },
}

#[derive(Encode, Decode)]
struct Body {
    options: Vec<String>,
    base: i64,
    votes: Vec<Row>,
}

#[derive(Encode, Decode)]
struct Row {
    key: [u8; 16],
    option: u8,
    delta: i64,
}

/// The limit makes decoding safe: without it, a length prefix alone could request all memory.
const CODEC: Configuration<LittleEndian, Varint, Limit<MAX_BYTES>> =
    bincode::config::standard().with_limit::<MAX_BYTES>();

/// Encodes votes as a frame.
///
/// The caller ensures that the voters belong to `partition`; it is not checked here, but by [`decode`].
///
/// # Errors
/// Fails if there are no votes or more than [`MAX_VOTES`], or if one of them is of another poll than `poll`; see
/// [`EncodeError`].
pub fn encode(poll: PollSlug, partition: Partition, votes: &[Vote]) -> Result<Vec<u8>, EncodeError> {
    let Some(first) = votes.first().filter(|_| votes.len() <= MAX_VOTES) else {
        return Err(EncodeError::Count(votes.len()));
    };
    let mut options: Vec<OptionSlug> = Vec::new();
    let mut rows = Vec::with_capacity(votes.len());
    let mut last = first.cast_at.as_micros();
    for vote in votes {
        if vote.poll != poll {
            return Err(EncodeError::Poll(vote.poll));
        }
        let option = options.iter().position(|slug| *slug == vote.option).unwrap_or_else(|| {
            options.push(vote.option);
            options.len() - 1
        });
        if options.len() > *crate::poll::OPTIONS.end() {
            return Err(EncodeError::Options);
        }
        let cast_at = vote.cast_at.as_micros();
        rows.push(Row { key: vote.voter.0, option: option as u8, delta: cast_at - last });
        last = cast_at;
    }
    let body = Body {
        options: options.into_iter().map(String::from).collect(),
        base: first.cast_at.as_micros(),
        votes: rows,
    };
    let mut bytes = Vec::with_capacity(32 + votes.len() * 24);
    bytes.push(VERSION);
    bincode::encode_into_std_write(body, &mut bytes, CODEC).map_err(|_| EncodeError::Codec)?;
    let checksum = checksum(poll, partition, &bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

/// Decodes a frame that was found in `partition` of a queue, which accounted for it as `count` votes of `poll`.
///
/// Never panics, whatever the bytes are.
///
/// # Errors
/// Fails if the bytes are not exactly such a frame; see [`FrameError`].
pub fn decode(
    poll: PollSlug,
    partition: Partition,
    partitions: Partitions,
    count: u64,
    bytes: &[u8],
) -> Result<Vec<Vote>, FrameError> {
    let Decoded { options, votes } = decode_numbered(poll, partition, partitions, count, bytes)?;
    let vote = |Numbered { voter, option, cast_at }| {
        let option = options[usize::from(option)];
        Vote { poll, voter, option, cast_at }
    };
    Ok(votes.into_iter().map(vote).collect())
}

/// The votes of a frame, in a third of the memory that they take as [`Vote`]s.
pub(crate) struct Decoded {
    pub(crate) options: Vec<OptionSlug>,
    pub(crate) votes: Vec<Numbered>,
}

/// A vote of a frame.
pub(crate) struct Numbered {
    pub(crate) voter: VoterKey,
    /// Index of the option in those of the frame, which has it.
    pub(crate) option: u8,
    pub(crate) cast_at: Timestamp,
}

/// Decodes a frame, as [`decode`] does.
pub(crate) fn decode_numbered(
    poll: PollSlug,
    partition: Partition,
    partitions: Partitions,
    count: u64,
    bytes: &[u8],
) -> Result<Decoded, FrameError> {
    if bytes.len() > MAX_BYTES || bytes.len() <= 1 + CHECKSUM {
        return Err(FrameError::Size(bytes.len()));
    }
    if bytes[0] != VERSION {
        return Err(FrameError::Version(bytes[0]));
    }
    let (covered, sum) = bytes.split_at(bytes.len() - CHECKSUM);
    if sum != checksum(poll, partition, covered).to_le_bytes() {
        return Err(FrameError::Checksum);
    }
    let (body, read): (Body, usize) = bincode::decode_from_slice(&covered[1..], CODEC).map_err(malformed)?;
    let trailing = covered.len() - 1 - read;
    if trailing > 0 {
        return Err(FrameError::Trailing(trailing));
    }
    if body.votes.len() as u64 != count || body.votes.is_empty() || body.votes.len() > MAX_VOTES {
        return Err(FrameError::Count { expected: count, found: body.votes.len() });
    }
    numbered(partition, partitions, body)
}

fn numbered(partition: Partition, partitions: Partitions, body: Body) -> Result<Decoded, FrameError> {
    let options: Vec<OptionSlug> = body
        .options
        .iter()
        .map(|slug| slug.parse())
        .collect::<Result<_, _>>()
        .map_err(|e: crate::slug::SlugError| FrameError::Malformed(e.to_string()))?;
    let mut last = body.base;
    let vote = |Row { key, option, delta }| {
        let voter = VoterKey(key);
        if partitions.of(voter) != partition {
            return Err(FrameError::ForeignKey { voter, partition });
        }
        if usize::from(option) >= options.len() {
            return Err(FrameError::Malformed(format!("no option number {option}")));
        }
        last =
            last.checked_add(delta).ok_or_else(|| FrameError::Malformed("time out of range".to_owned()))?;
        let cast_at = Timestamp::from_micros(last).map_err(|e| FrameError::Malformed(e.to_string()))?;
        Ok(Numbered { voter, option, cast_at })
    };
    let votes = body.votes.into_iter().map(vote).collect::<Result<_, _>>()?;
    Ok(Decoded { options, votes })
}

fn checksum(poll: PollSlug, partition: Partition, covered: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(poll.as_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(&partition.0.to_le_bytes());
    hasher.update(covered);
    hasher.finalize()
}

fn malformed(error: DecodeError) -> FrameError {
    FrameError::Malformed(error.to_string())
}
