//! `ballots.csv`: a header, then one line per effective ballot, sorted by voter, each voter once.
//!
//! ```text
//! voter,option
//! 0a0b0c0d0e0f101112131415161718ff,cats
//! ```
//!
//! Voter keys are 32 hex digits in lower case, so the keys are sorted like the lines in the C locale, and `sha256sum`,
//! `sort` and `uniq` are enough to check the file. Reader and writer hold at most a few hundred kilobytes in memory for
//! any input.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
};

use sha2::{Digest, Sha256};
use vote_core::{OptionSlug, VoterKey, count::Ballot, slug::MAX_SLUG};

/// The first line, with its line feed.
pub const HEADER: &[u8] = b"voter,option\n";

/// Number of hex digits in a voter key.
const KEY: usize = 32;
/// Maximum length of a line in bytes: key, comma, slug, line feed.
const MAX_LINE: usize = KEY + 1 + MAX_SLUG + 1;
/// Number of bytes to write or read at a time.
const CHUNK: usize = 128 << 10;

/// Counts and hash of a file of ballots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Number of ballots.
    pub count: u64,
    /// Number of ballots per option, in the order of the given options.
    pub votes: Vec<u64>,
    /// SHA-256 of the whole file, in lower-case hex.
    pub sha256: String,
}

/// Reason why ballots can't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file can't be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The ballots are not sorted and unique, or one is for an unknown option.
    #[error("{0}")]
    Ballot(String),
}

/// Writes, counts and hashes ballots.
#[derive(Debug)]
pub struct BallotWriter<W> {
    to: W,
    /// The lines that are not written yet.
    buffer: Vec<u8>,
    digest: Sha256,
    numbers: HashMap<OptionSlug, usize>,
    last: Option<VoterKey>,
    counted: Counted,
}

impl<W: Write> BallotWriter<W> {
    /// Starts a file with these options and no ballots.
    pub fn new(to: W, options: &[OptionSlug]) -> Self {
        let mut buffer = Vec::with_capacity(CHUNK + MAX_LINE);
        buffer.extend_from_slice(HEADER);
        Self {
            to,
            buffer,
            digest: Sha256::new(),
            numbers: options.iter().copied().zip(0..).collect(),
            last: None,
            counted: Counted { count: 0, votes: vec![0; options.len()], sha256: String::new() },
        }
    }

    /// Appends ballots, which must be sorted by voter in ascending order over all calls, each voter once.
    ///
    /// # Errors
    /// Fails if the ballots are out of order, if one is for an option that the poll does not have, or if the file can't
    /// be written.
    pub fn write(&mut self, ballots: &[Ballot]) -> Result<(), WriteError> {
        for Ballot { voter, option, .. } in ballots {
            if self.last.is_some_and(|last| last >= *voter) {
                return Err(WriteError::Ballot(format!(
                    "the ballot of voter {voter} is out of order or a duplicate"
                )));
            }
            self.last = Some(*voter);
            let number = self.numbers.get(option).and_then(|number| self.counted.votes.get_mut(*number));
            let Some(votes) = number else {
                return Err(WriteError::Ballot(format!(
                    "the ballot of voter {voter} is for {option}, which is not an option of the poll"
                )));
            };
            *votes += 1;
            self.counted.count += 1;
            self.line(voter, option);
            if self.buffer.len() >= CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn line(&mut self, voter: &VoterKey, option: &OptionSlug) {
        let mut key = [0; KEY];
        // Can't fail: 16 bytes have exactly 32 digits.
        let _ = hex::encode_to_slice(voter.as_bytes(), &mut key);
        self.buffer.extend_from_slice(&key);
        self.buffer.push(b',');
        self.buffer.extend_from_slice(option.as_str().as_bytes());
        self.buffer.push(b'\n');
    }

    fn flush(&mut self) -> io::Result<()> {
        self.digest.update(&self.buffer);
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the remaining lines. Returns the underlying writer, and the counts and the hash of the file.
    ///
    /// # Errors
    /// Fails if the file can't be written.
    pub fn finish(mut self) -> io::Result<(W, Counted)> {
        self.flush()?;
        self.to.flush()?;
        let sha256 = hex::encode(self.digest.finalize());
        Ok((self.to, Counted { sha256, ..self.counted }))
    }
}

/// Reason why a file of ballots is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// A line is invalid.
    #[error("line {line} (at byte {byte}): {problem}")]
    Line {
        /// Number of the line, from 1.
        line: u64,
        /// Offset of the line in bytes, from 0.
        byte: u64,
        /// Why the line is invalid.
        problem: String,
    },
}

/// Reads a file of ballots, checks every line, and counts and hashes the ballots.
///
/// # Errors
/// Fails with the first invalid line.
pub fn read(mut from: impl Read, options: &[OptionSlug]) -> Result<Counted, ReadError> {
    let mut lines = Lines {
        numbers: options
            .iter()
            .zip(0..)
            .map(|(option, number)| (option.as_str().as_bytes(), number))
            .collect(),
        last: None,
        line: 1,
        byte: 0,
        counted: Counted { count: 0, votes: vec![0; options.len()], sha256: String::new() },
    };
    let mut digest = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut kept = 0;
    loop {
        let read = match from.read(&mut buffer[kept..]) {
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.into()),
        };
        digest.update(&buffer[kept..kept + read]);
        let filled = kept + read;
        let mut start = 0;
        while let Some(length) = buffer[start..filled].iter().position(|byte| *byte == b'\n') {
            lines.check(&buffer[start..=start + length])?;
            start += length + 1;
        }
        let rest = &buffer[start..filled];
        if read == 0 {
            return match (rest.is_empty(), lines.line) {
                (true, 2..) => Ok(Counted { sha256: hex::encode(digest.finalize()), ..lines.counted }),
                (true, _) => Err(lines.wrong("the file is empty".to_owned())),
                (false, _) => Err(lines.wrong("the file ends within this line".to_owned())),
            };
        }
        // Longer than any valid line: do not read it to its end.
        if rest.len() > MAX_LINE {
            return Err(lines.wrong(format!("longer than {MAX_LINE} bytes")));
        }
        buffer.copy_within(start..filled, 0);
        kept = filled - start;
    }
}

/// State of reading a file of ballots.
struct Lines<'a> {
    numbers: HashMap<&'a [u8], usize>,
    last: Option<[u8; KEY]>,
    /// Number of the next line, from 1.
    line: u64,
    /// Offset of the next line in bytes.
    byte: u64,
    counted: Counted,
}

impl Lines<'_> {
    fn wrong(&self, problem: String) -> ReadError {
        ReadError::Line { line: self.line, byte: self.byte, problem }
    }

    /// Checks a line, given with its line feed, and counts its ballot.
    fn check(&mut self, line: &[u8]) -> Result<(), ReadError> {
        let checked = if self.line == 1 { header(line) } else { self.ballot(line) };
        checked.map_err(|problem| self.wrong(problem))?;
        self.line += 1;
        self.byte += line.len() as u64;
        Ok(())
    }

    fn ballot(&mut self, line: &[u8]) -> Result<(), String> {
        let (key, option) = match line.split_first_chunk::<KEY>() {
            Some((key, [b',', option @ .., b'\n']))
                if key.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
            {
                (key, option)
            }
            _ => {
                return Err(format!(
                    "{} is not a ballot: expected 32 hex digits in lower case, a comma and an option",
                    shown(line)
                ));
            }
        };
        match &self.last {
            Some(last) if last == key => return Err(format!("voter {} is listed twice", shown(key))),
            Some(last) if last > key => {
                return Err(format!(
                    "voter {} is out of order: the previous one is {}",
                    shown(key),
                    shown(last)
                ));
            }
            _ => self.last = Some(*key),
        }
        let number = self.numbers.get(option).and_then(|number| self.counted.votes.get_mut(*number));
        *number.ok_or_else(|| format!("{} is not an option of the poll", shown(option)))? += 1;
        self.counted.count += 1;
        Ok(())
    }
}

fn header(line: &[u8]) -> Result<(), String> {
    if line == HEADER { Ok(()) } else { Err(format!("{} is not the header {}", shown(line), shown(HEADER))) }
}

/// Quotes the start of arbitrary bytes, escaped so that they are safe to print on a terminal.
fn shown(bytes: &[u8]) -> String {
    let start = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let more = if start.len() < bytes.len() { "…" } else { "" };
    format!("\"{}{more}\"", start.strip_suffix(b"\n").unwrap_or(start).escape_ascii())
}

#[cfg(test)]
mod tests;
