//! Parser that finds the confirmations of COMMIT in the data that a Postgres server sends.
//!
//! A message is a letter, its length without the letter in 4 bytes, and the body (PostgreSQL documentation, "Message
//! Formats"); CommandComplete is `C` with the command's name and a zero. The stream must be parsed from its start, and
//! the client must not ask for TLS, which is answered by a single letter.

/// Body of a CommandComplete message of COMMIT.
const COMMIT: &[u8] = b"COMMIT\0";
/// Length of a message's head: a letter and a length.
const HEAD: usize = 5;

/// Parser of one stream.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    head: Vec<u8>,
    /// Start of the body of the current message.
    tag: Vec<u8>,
    /// Bytes of the current message that are still to come.
    left: usize,
}

impl Commits {
    /// Parses the next bytes of the stream. Returns the offset in `bytes` at which the first confirmation of a COMMIT
    /// begins, or 0 if it began earlier; `None` if no confirmation ends in `bytes`.
    pub(crate) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut found, mut began) = (None, 0);
        for (at, byte) in bytes.iter().enumerate() {
            if self.head.len() < HEAD {
                if self.head.is_empty() {
                    began = at;
                }
                self.head.push(*byte);
                if self.head.len() == HEAD {
                    let length =
                        self.head[1..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
                    self.left = length.saturating_sub(4);
                    self.tag.clear();
                }
            } else {
                if self.tag.len() <= COMMIT.len() {
                    self.tag.push(*byte);
                }
                self.left -= 1;
            }
            if self.head.len() == HEAD && self.left == 0 {
                if self.head[0] == b'C' && self.tag == COMMIT {
                    found = found.or(Some(began));
                }
                self.head.clear();
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(letter: u8, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(rest.len() + 4).unwrap().to_be_bytes();
        [&[letter][..], &length, rest].concat()
    }

    fn stream() -> (Vec<u8>, usize) {
        let before = [
            message(b'R', &[0, 0, 0, 0]),
            message(b'C', b"BEGIN\0"),
            message(b'C', b"COMMITS\0"),
            message(b'D', b"C\0\0\0\x0bCOMMIT\0"),
            message(b'n', b""),
        ]
        .concat();
        let at = before.len();
        ([before, message(b'C', b"COMMIT\0"), message(b'Z', b"I")].concat(), at)
    }

    #[test]
    fn only_the_confirmation_of_a_commit_is_found() {
        let (stream, at) = stream();
        assert_eq!(Commits::default().find(&stream), Some(at));
        assert_eq!(Commits::default().find(&stream[..at]), None);
    }

    #[test]
    fn the_confirmation_is_found_however_the_stream_is_split() {
        let (stream, at) = stream();
        for split in 0..stream.len() {
            let mut commits = Commits::default();
            let (first, second) = (commits.find(&stream[..split]), commits.find(&stream[split..]));
            let end = at + HEAD + COMMIT.len();
            let expected =
                if split >= end { (Some(at), None) } else { (None, Some(at.saturating_sub(split))) };
            assert_eq!((first, second), expected, "split at {split}");
        }
    }
}
