//! `vote-results certify` and `verify`: the outcome of a poll as a folder that proves itself, without a database.
//!
//! | file | what |
//! |---|---|
//! | [`ballots.csv`](files::BALLOTS) | every standing ballot, sorted by voter key |
//! | [`certificate.html`](files::PAGE) | the same as the next for people, to be printed |
//! | [`certificate.json`](files::CERTIFICATE) | the [`Certificate`]: poll, result, audit, and the SHA-256 of the two above |
//! | [`certificate.sig`](files::SIGNATURE) | the Ed25519 signature of that file, which thus covers all three |
//! | [`public-key.pem`](files::PUBLIC_KEY) | a copy of the key to check it with, which nobody should trust unseen |
//!
//! [`certify`](certify()) reads the store as of one moment and writes the folder; [`verify`](verify()) counts the
//! ballots again and compares every sum. What both are made of is pure: [`ballots`] over any reader and writer,
//! [`verdict`], [`check`], [`page`]. How to use and check a certificate: `docs/certificate.md`.

use serde::{Deserialize, Serialize};
use vote_core::{Keep, OptionSlug, PollOption, PollSlug, audit::Audit, poll::Voters};

pub mod ballots;
pub mod certify;
pub mod check;
pub mod command;
mod folder;
pub mod key;
pub mod page;
#[cfg(test)]
mod sample;
pub mod verdict;
pub mod verify;

pub use certify::{Build, CertifyError, Request, certify};
pub use key::{KeyError, PrivateKey, PublicKey};
pub use verify::{Wrong, verify};

/// The version of the format that this version of the program writes and reads. Whatever is added to, or taken from,
/// [`Certificate`] or what it holds is a new version.
pub const FORMAT: u32 = 2;

/// The most bytes a `certificate.json` may have: room for ten thousand queues.
pub const MAX_CERTIFICATE: usize = 8 << 20;

/// The names of the files.
pub mod files {
    /// The ballots.
    pub const BALLOTS: &str = "ballots.csv";
    /// The certificate for programs.
    pub const CERTIFICATE: &str = "certificate.json";
    /// The certificate for people.
    pub const PAGE: &str = "certificate.html";
    /// The signature.
    pub const SIGNATURE: &str = "certificate.sig";
    /// The key to check it with.
    pub const PUBLIC_KEY: &str = "public-key.pem";
}

/// `certificate.json`. Times are RFC 3339 in UTC; within the audit they are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// [`FORMAT`].
    pub format: u32,
    /// What wrote it.
    pub software: Software,
    /// When its ballots and figures were read.
    pub created_at: String,
    /// What was asked.
    pub poll: PollDefinition,
    /// When the poll stopped taking votes.
    pub closed_at: Option<String>,
    /// When its count became final.
    pub final_at: Option<String>,
    /// Whether the count is complete.
    pub status: Status,
    /// What was still to come when it was forced.
    pub outstanding: Vec<String>,
    /// What contradicted what when it was forced.
    pub problems: Vec<String>,
    /// The outcome, counted from the ballots as they were written.
    pub result: VoteResult,
    /// The file of ballots.
    pub ballots: BallotFile,
    /// The page.
    pub page: File,
    /// What became of every vote that was accepted.
    pub audit: Audit,
}

/// Whether a certificate is of a complete count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The poll was final and its audit held.
    Final,
    /// It was written though votes were outstanding, or the books did not add up.
    Forced,
}

/// The program that wrote a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Software {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from, if that was said at its build.
    pub commit: Option<String>,
}

/// What was asked, and how it was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PollDefinition {
    /// Its name.
    pub slug: PollSlug,
    /// The question.
    pub title: String,
    /// What could be chosen, in the order of registration.
    pub options: Vec<PollOption>,
    /// Which of a voter's votes stands.
    pub keep: Keep,
    /// How voters were told apart.
    pub voters: Voters,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoteResult {
    /// Voters whose vote stands.
    pub total: u64,
    /// Of these, those for each option.
    pub options: Vec<OptionVotes>,
}

/// The votes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionVotes {
    /// Its name.
    pub option: OptionSlug,
    /// Voters whose standing vote is for it.
    pub votes: u64,
}

/// The file of ballots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BallotFile {
    /// Its name.
    pub file: String,
    /// How many ballots it lists.
    pub count: u64,
    /// Of its bytes, in lower-case hex.
    pub sha256: String,
}

/// A file that the signature covers, too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name.
    pub file: String,
    /// Of its bytes, in lower-case hex.
    pub sha256: String,
}

impl VoteResult {
    /// Of these votes by option.
    #[must_use]
    pub fn new(options: &[OptionSlug], votes: &[u64]) -> Self {
        let options: Vec<OptionVotes> = options
            .iter()
            .zip(votes)
            .map(|(option, votes)| OptionVotes { option: *option, votes: *votes })
            .collect();
        Self { total: options.iter().map(|option| option.votes).sum(), options }
    }
}

impl Certificate {
    /// The options with their names for people and their votes.
    pub(crate) fn outcome(&self) -> impl Iterator<Item = (&str, u64)> {
        let labels = self.poll.options.iter().map(|option| option.label.as_str());
        labels.zip(self.result.options.iter().map(|option| option.votes))
    }
}

/// A number with a comma every three digits.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
