//! The wire encoding: golden bytes, round trips, and everything that is not a frame.

use proptest::prelude::*;
use vote_core::{
    Partition, Partitions, PollSlug, Timestamp, Vote, VoterKey,
    frame::{self, FrameError},
};

fn poll() -> PollSlug {
    "pets".parse().unwrap()
}

fn one() -> Partitions {
    Partitions::new(1).unwrap()
}

fn vote(key: u8, option: &str, micros: i64) -> Vote {
    let cast_at = Timestamp::from_micros(1_770_595_200_000_000 + micros).unwrap();
    Vote { poll: poll(), voter: VoterKey([key; 16]), option: option.parse().unwrap(), cast_at }
}

/// Returns the bytes of a vector: hex, with `#` comments.
fn bytes_of(vector: &str) -> Vec<u8> {
    let hex: String = vector.lines().map(|line| line.split('#').next().unwrap()).collect();
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Vectors are never changed, only added: every frame ever written must stay readable.
#[test]
fn version_1_is_read_and_written_byte_for_byte() {
    let bytes = bytes_of(include_str!("../vectors/frame-v1-one-vote.hex"));
    let votes = [vote(0x11, "cats", 0)];
    assert_eq!(frame::decode(poll(), Partition(0), one(), 1, &bytes).unwrap(), votes);
    assert_eq!(frame::encode(poll(), Partition(0), &votes).unwrap(), bytes);

    let bytes = bytes_of(include_str!("../vectors/frame-v1-three-votes.hex"));
    let votes = [vote(0xf1, "dogs", 0), vote(0xf2, "cats", 1_000_000), vote(0xf3, "dogs", -5)];
    let partitions = Partitions::default();
    assert_eq!(frame::decode(poll(), Partition(15), partitions, 3, &bytes).unwrap(), votes);
    assert_eq!(frame::encode(poll(), Partition(15), &votes).unwrap(), bytes);
}

/// bincode is no longer maintained. If it ever has to be replaced, wincode writes the same bytes.
#[test]
fn wincode_writes_the_same_body() {
    #[derive(wincode::SchemaWrite)]
    struct Body {
        options: Vec<String>,
        base: i64,
        votes: Vec<Row>,
    }
    #[derive(wincode::SchemaWrite)]
    struct Row {
        key: [u8; 16],
        option: u8,
        delta: i64,
    }
    let votes = [vote(0xf1, "dogs", 0), vote(0xf2, "cats", 1_000_000), vote(0xf3, "dogs", -5)];
    let encoded = frame::encode(poll(), Partition(15), &votes).unwrap();
    let row = |key, option, delta| Row { key: [key; 16], option, delta };
    let body = Body {
        options: vec!["dogs".to_owned(), "cats".to_owned()],
        base: votes[0].cast_at.as_micros(),
        votes: vec![row(0xf1, 0, 0), row(0xf2, 1, 1_000_000), row(0xf3, 0, -1_000_005)],
    };
    let config = wincode::config::Configuration::default().with_varint_encoding();
    let written = wincode::config::serialize(&body, config).unwrap();
    assert_eq!(written, encoded[1..encoded.len() - 4]);
}

fn votes(partitions: Partitions) -> impl Strategy<Value = (Partition, Vec<Vote>)> {
    let row = (any::<[u8; 16]>(), "[a-z0-9-]{1,4}", Timestamp::MIN.as_micros()..=Timestamp::MAX.as_micros());
    (any::<[u8; 16]>(), proptest::collection::vec(row, 1..40)).prop_map(move |(first, rows)| {
        let partition = partitions.of(VoterKey(first));
        let range = partitions.range(partition);
        let votes = rows.into_iter().map(|(mut key, option, micros)| {
            // The leading bits of the partition, and arbitrary other bits.
            let (start, mask) = (
                u128::from_be_bytes(range.start().0),
                u128::from_be_bytes(range.end().0) - u128::from_be_bytes(range.start().0),
            );
            key = (start | u128::from_be_bytes(key) & mask).to_be_bytes();
            Vote {
                poll: poll(),
                voter: VoterKey(key),
                option: option.parse().unwrap(),
                cast_at: Timestamp::from_micros(micros).unwrap(),
            }
        });
        (partition, votes.collect())
    })
}

proptest! {
    #[test]
    fn votes_survive_a_round_trip((partition, votes) in votes(Partitions::default())) {
        let bytes = frame::encode(poll(), partition, &votes).unwrap();
        let count = votes.len() as u64;
        prop_assert_eq!(frame::decode(poll(), partition, Partitions::default(), count, &bytes).unwrap(), votes);
    }

    #[test]
    fn every_truncation_and_every_trailing_byte_is_an_error((partition, votes) in votes(Partitions::default()), byte: u8) {
        let bytes = frame::encode(poll(), partition, &votes).unwrap();
        let decode = |bytes: &[u8]| frame::decode(poll(), partition, Partitions::default(), votes.len() as u64, bytes);
        for end in 0..bytes.len() {
            prop_assert!(decode(&bytes[..end]).is_err());
        }
        let mut longer = bytes;
        longer.push(byte);
        prop_assert!(decode(&longer).is_err());
    }

    #[test]
    fn every_changed_bit_is_an_error((partition, votes) in votes(Partitions::default()), at: prop::sample::Index, bit in 0_u32..8) {
        let mut bytes = frame::encode(poll(), partition, &votes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert!(frame::decode(poll(), partition, Partitions::default(), votes.len() as u64, &bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0_u64..50) {
        let _ = frame::decode(poll(), Partition(0), one(), count, &bytes);
    }

    /// The checksum matches, so that the body is decoded.
    #[test]
    fn an_arbitrary_body_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200), count in 0_u64..50) {
        let _ = frame::decode(poll(), Partition(0), one(), count, &sealed(&body));
    }
}

/// Returns a frame of version 1 around any body, with a matching checksum.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend_from_slice(body);
    let mut covered = b"pets\0\0\0".to_vec();
    covered.extend_from_slice(&bytes);
    bytes.extend_from_slice(&crc32fast::hash(&covered).to_le_bytes());
    bytes
}

fn error(bytes: &[u8], count: u64) -> FrameError {
    frame::decode(poll(), Partition(0), one(), count, bytes).unwrap_err()
}

#[test]
fn a_length_prefix_that_requests_all_memory_is_an_error() {
    // 253 announces a 64-bit length.
    let error = error(&sealed(&[253, 255, 255, 255, 255, 255, 255, 255, 127]), 1);
    assert!(matches!(error, FrameError::Malformed(_)), "{error:?}");
}

#[test]
fn bytes_after_the_last_vote_are_an_error_even_if_the_checksum_matches() {
    let bytes = frame::encode(poll(), Partition(0), &[vote(1, "cats", 0)]).unwrap();
    let mut body = bytes[1..bytes.len() - 4].to_vec();
    body.push(0);
    assert_eq!(error(&sealed(&body), 1), FrameError::Trailing(1));
}

#[test]
fn a_frame_belongs_to_its_poll_and_partition() {
    let bytes = frame::encode(poll(), Partition(0), &[vote(1, "cats", 0)]).unwrap();
    let partitions = Partitions::default();
    let other_poll = frame::decode("cars".parse().unwrap(), Partition(0), partitions, 1, &bytes);
    assert_eq!(other_poll.unwrap_err(), FrameError::Checksum);
    assert_eq!(frame::decode(poll(), Partition(1), partitions, 1, &bytes).unwrap_err(), FrameError::Checksum);
}

#[test]
fn a_key_of_another_partition_is_an_error() {
    let foreign = vote(0xff, "cats", 0);
    let bytes = frame::encode(poll(), Partition(0), &[foreign]).unwrap();
    let error = frame::decode(poll(), Partition(0), Partitions::default(), 1, &bytes).unwrap_err();
    assert_eq!(error, FrameError::ForeignKey { voter: foreign.voter, partition: Partition(0) });
}

#[test]
fn a_newer_version_is_reported() {
    let mut bytes = frame::encode(poll(), Partition(0), &[vote(1, "cats", 0)]).unwrap();
    bytes[0] = 2;
    assert_eq!(error(&bytes, 1), FrameError::Version(2));
}

#[test]
fn a_count_that_differs_is_an_error() {
    let bytes = frame::encode(poll(), Partition(0), &[vote(1, "cats", 0)]).unwrap();
    assert_eq!(error(&bytes, 2), FrameError::Count { expected: 2, found: 1 });
}

#[test]
fn a_frame_has_1_to_1024_votes_within_its_limit_of_bytes() {
    let votes = |n: usize| vec![vote(0xff, &"x".repeat(32), 0); n];
    assert!(frame::encode(poll(), Partition(0), &[]).is_err());
    assert!(frame::encode(poll(), Partition(0), &votes(1025)).is_err());
    let mut full = votes(1024);
    for (i, vote) in full.iter_mut().enumerate() {
        vote.option = format!("{:032}", i % 64).parse().unwrap();
        vote.cast_at = if i % 2 == 0 { Timestamp::MIN } else { Timestamp::MAX };
    }
    let bytes = frame::encode(poll(), Partition(0), &full).unwrap();
    assert!(bytes.len() <= frame::MAX_BYTES, "{} bytes", bytes.len());
    assert_eq!(frame::decode(poll(), Partition(0), one(), 1024, &bytes).unwrap(), full);
}
