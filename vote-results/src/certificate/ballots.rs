//! `ballots.csv`: a header, then a line for each standing ballot, sorted by voter, each voter once.
//!
//! ```text
//! voter,option
//! 0a0b0c0d0e0f101112131415161718ff,cats
//! ```
//!
//! Voter keys are 32 hex digits in lower case, so the order of the keys is that of the lines in the C locale, and
//! `sha256sum`, `sort` and `uniq` check all there is to check. Neither direction holds more than a few hundred
//! kilobytes, whatever it is given.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
};

use sha2::{Digest, Sha256};
use vote_core::{OptionSlug, VoterKey, slug::MAX_SLUG, store::Ballot};

/// The first line, with its end.
pub const HEADER: &[u8] = b"voter,option\n";

/// Hex digits of a voter key.
const KEY: usize = 32;
/// The most bytes of a line: key, comma, slug, end.
const MAX_LINE: usize = KEY + 1 + MAX_SLUG + 1;
/// How much is written, or read, at a time.
const CHUNK: usize = 128 << 10;

/// What is in a file of ballots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// How many ballots.
    pub count: u64,
    /// How many for each option, in the order in which the options were given.
    pub votes: Vec<u64>,
    /// SHA-256 of the whole file, in lower-case hex.
    pub sha256: String,
}

/// Why ballots can't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file can't be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is to be written is no proper list of ballots.
    #[error("{0}")]
    Ballot(String),
}

/// Writes ballots, counts and hashes them.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    /// What is not written yet.
    buffer: Vec<u8>,
    digest: Sha256,
    numbers: HashMap<OptionSlug, usize>,
    last: Option<VoterKey>,
    counted: Counted,
}

impl<W: Write> Writer<W> {
    /// A file with a header and no ballots yet.
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

    /// Adds ballots, the keys of which must rise.
    ///
    /// # Errors
    /// When they don't, a ballot is for an option that the poll does not have, or the file can't be written.
    pub fn write(&mut self, ballots: &[Ballot]) -> Result<(), WriteError> {
        for Ballot { voter, option, .. } in ballots {
            if self.last.is_some_and(|last| last >= *voter) {
                return Err(WriteError::Ballot(format!(
                    "the ballot of voter {voter} is not in order, or there twice"
                )));
            }
            self.last = Some(*voter);
            let number = self.numbers.get(option).and_then(|number| self.counted.votes.get_mut(*number));
            let Some(votes) = number else {
                return Err(WriteError::Ballot(format!(
                    "the ballot of voter {voter} is for {option}, which is no option of the poll"
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
        // Cannot fail: two digits for each of 16 bytes.
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

    /// Writes what is left; gives back where to, and what is in the file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(mut self) -> io::Result<(W, Counted)> {
        self.flush()?;
        self.to.flush()?;
        let sha256 = hex::encode(self.digest.finalize());
        Ok((self.to, Counted { sha256, ..self.counted }))
    }
}

/// What is wrong with a file of ballots.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It can't be read.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// A line of it is not what it should be.
    #[error("line {line} (from byte {byte}): {problem}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// Where it begins, from 0.
        byte: u64,
        /// What is wrong.
        problem: String,
    },
}

/// Reads a file of ballots, checks every line, counts and hashes.
///
/// # Errors
/// With the first line that is wrong.
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
    let mut held = 0;
    loop {
        let read = match from.read(&mut buffer[held..]) {
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.into()),
        };
        digest.update(&buffer[held..held + read]);
        let filled = held + read;
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
        // Longer than any line: it need not be read to its end.
        if rest.len() > MAX_LINE {
            return Err(lines.wrong(format!("is longer than {MAX_LINE} bytes")));
        }
        buffer.copy_within(start..filled, 0);
        held = filled - start;
    }
}

/// What was read so far.
struct Lines<'a> {
    numbers: HashMap<&'a [u8], usize>,
    last: Option<[u8; KEY]>,
    /// The number of the next line.
    line: u64,
    /// Where it begins.
    byte: u64,
    counted: Counted,
}

impl Lines<'_> {
    fn wrong(&self, problem: String) -> ReadError {
        ReadError::Line { line: self.line, byte: self.byte, problem }
    }

    /// A line with its end.
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
                    "{} is no ballot: 32 hex digits in lower case, a comma, an option",
                    shown(line)
                ));
            }
        };
        match &self.last {
            Some(last) if last == key => return Err(format!("voter {} is there twice", shown(key))),
            Some(last) if last > key => {
                return Err(format!(
                    "voter {} is out of order: the one before is {}",
                    shown(key),
                    shown(last)
                ));
            }
            _ => self.last = Some(*key),
        }
        let number = self.numbers.get(option).and_then(|number| self.counted.votes.get_mut(*number));
        *number.ok_or_else(|| format!("{} is no option of the poll", shown(option)))? += 1;
        self.counted.count += 1;
        Ok(())
    }
}

fn header(line: &[u8]) -> Result<(), String> {
    if line == HEADER {
        Ok(())
    } else {
        Err(format!("is {}, expected the header {}", shown(line), shown(HEADER)))
    }
}

/// The beginning of what may be anything, such that a terminal takes no harm.
fn shown(bytes: &[u8]) -> String {
    let start = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let more = if start.len() < bytes.len() { "…" } else { "" };
    format!("\"{}{more}\"", start.strip_suffix(b"\n").unwrap_or(start).escape_ascii())
}

#[cfg(test)]
mod tests;
