use proptest::prelude::*;
use vote_core::Timestamp;

use super::*;

const KEY_1: &str = "00000000000000000000000000000001";
const KEY_2: &str = "0000000000000000000000000000000a";
const KEY_3: &str = "f0000000000000000000000000000000";

fn options() -> Vec<OptionSlug> {
    ["cats", "dogs"].map(|slug| slug.parse().unwrap()).to_vec()
}

fn ballot(voter: u128, option: usize) -> Ballot {
    Ballot { voter: VoterKey(voter.to_be_bytes()), option: options()[option], cast_at: Timestamp::MIN }
}

fn written(ballots: &[Ballot]) -> (Vec<u8>, Counted) {
    let mut writer = BallotWriter::new(Vec::new(), &options());
    for page in ballots.chunks(3) {
        writer.write(page).unwrap();
    }
    writer.finish().unwrap()
}

fn wrong(text: &[u8]) -> String {
    read(text, &options()).unwrap_err().to_string()
}

/// A reader that returns a few bytes at a time, so that lines are split.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.1.min(into.len()).min(self.0.len());
        into[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

#[test]
fn a_file_has_a_header_and_one_line_per_ballot() {
    let (bytes, counted) = written(&[ballot(1, 0), ballot(10, 1), ballot(0xf << 124, 0)]);
    let expected = format!("voter,option\n{KEY_1},cats\n{KEY_2},dogs\n{KEY_3},cats\n");
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    assert_eq!((counted.count, counted.votes), (3, vec![2, 1]));
}

#[test]
fn the_hash_is_that_printed_by_sha256sum() {
    let (_, counted) = written(&[]);
    // printf 'voter,option\n' | sha256sum
    assert_eq!(counted.sha256, "e4a211cabdfa75a1bdc2f641cb322f1a1163258d5154badbc9696dcdb138c90e");
}

#[test]
fn a_writer_refuses_keys_that_are_not_ascending() {
    for pair in [[ballot(2, 0), ballot(1, 0)], [ballot(2, 0), ballot(2, 1)]] {
        let result = BallotWriter::new(Vec::new(), &options()).write(&pair);
        assert!(matches!(result, Err(WriteError::Ballot(_))), "{result:?}");
    }
}

#[test]
fn a_writer_refuses_an_option_that_the_poll_does_not_have() {
    let birds = Ballot { option: "birds".parse().unwrap(), ..ballot(1, 0) };
    let e = BallotWriter::new(Vec::new(), &options()).write(&[birds]).unwrap_err().to_string();
    assert!(e.contains("birds, which is not an option"), "{e}");
}

#[test]
fn the_first_invalid_line_is_reported_with_its_number_and_offset() {
    let cases = [
        ("", "line 1 (at byte 0): the file is empty"),
        ("voter,option", "line 1 (at byte 0): the file ends within this line"),
        ("voter;option\n", "line 1 (at byte 0): \"voter;option\" is not the header"),
        ("voter,option\r\n", "line 1 (at byte 0): \"voter,option\\r\""),
        ("voter,option\n\n", "line 2 (at byte 13): \"\" is not a ballot"),
        (&format!("voter,option\n{KEY_1},cats"), "line 2 (at byte 13): the file ends within"),
        (&format!("voter,option\n{KEY_1},cats\n{KEY_2};cats\n"), "line 3 (at byte 51): \"0000"),
        (&format!("voter,option\n{KEY_1},cat\n"), "line 2 (at byte 13): \"cat\" is not an option"),
        (&format!("voter,option\n{KEY_1},cats,1\n"), "\"cats,1\" is not an option"),
        (&format!("voter,option\n{KEY_1},cats\r\n"), "\"cats\\r\" is not an option"),
        (
            &format!("voter,option\n{KEY_1},cats\n{KEY_1},cats\n"),
            "line 3 (at byte 51): voter \"00000000000000000000000000000001\" is listed twice",
        ),
        (
            &format!("voter,option\n{KEY_2},cats\n{KEY_1},cats\n"),
            "line 3 (at byte 51): voter \"00000000000000000000000000000001\" is out of order",
        ),
        (
            &format!("voter,option\n{},cats\n", KEY_2.to_uppercase()),
            "is not a ballot: expected 32 hex digits in lower case",
        ),
    ];
    for (text, expected) in cases {
        assert!(
            wrong(text.as_bytes()).contains(expected),
            "{expected} for {text:?}: {}",
            wrong(text.as_bytes())
        );
    }
}

#[test]
fn an_endless_line_is_not_read_to_its_end() {
    struct Endless(u64);
    impl Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0 += into.len() as u64;
            assert!(self.0 < 1 << 20, "read more than 1 MiB of one line");
            into.fill(b'a');
            Ok(into.len())
        }
    }
    let e = read(Endless(0), &options()).unwrap_err().to_string();
    assert_eq!(e, "line 1 (at byte 0): longer than 66 bytes");
}

#[test]
fn an_error_quotes_a_hostile_line_shortened_and_escaped() {
    let line = [b"voter,option\n".as_slice(), &[0x1b; 100_000], b"\n"].concat();
    let e = wrong(&line);
    assert!(e.len() < 400 && !e.contains('\x1b'), "{e}");
}

fn votes() -> impl Strategy<Value = Vec<Ballot>> {
    proptest::collection::btree_map(any::<u128>(), 0_usize..2, 1..200)
        .prop_map(|votes| votes.into_iter().map(|(voter, option)| ballot(voter, option)).collect())
}

proptest! {
    #[test]
    fn written_ballots_are_read_in_pieces_of_any_size(ballots in votes(), piece in 1_usize..5000) {
        let (bytes, counted) = written(&ballots);
        prop_assert_eq!(counted.count, ballots.len() as u64);
        prop_assert_eq!(read(Trickle(&bytes, piece), &options()).unwrap(), counted);
    }

    #[test]
    fn any_changed_byte_is_detected(ballots in votes(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let (mut bytes, counted) = written(&ballots);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(read(bytes.as_slice(), &options()).map_or(true, |read| read.sha256 != counted.sha256));
    }

    #[test]
    fn any_removed_duplicated_or_moved_line_is_detected(ballots in votes(), at in any::<prop::sample::Index>(), change in 0..3) {
        let (bytes, counted) = written(&ballots);
        let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let at = at.index(lines.len() - 1) + 1;
        match change {
            0 => { lines.remove(at); }
            1 => lines.insert(at, lines[at]),
            _ => { let line = lines.remove(at); lines.insert(1, line); }
        }
        prop_assume!(lines.concat() != bytes);
        let read = read(lines.concat().as_slice(), &options());
        prop_assert!(read.map_or(true, |read| read.sha256 != counted.sha256 && read.count != counted.count));
    }
}
