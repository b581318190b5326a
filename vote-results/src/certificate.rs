//! `vote-results certify` and `verify`: the result of a poll as a folder that can be verified without a database.
//!
//! | file | content |
//! |---|---|
//! | [`ballots.csv`](files::BALLOTS) | all effective ballots, sorted by voter key |
//! | [`certificate.html`](files::PAGE) | the content of `certificate.json` for people, to be printed |
//! | [`certificate.json`](files::CERTIFICATE) | the [`Certificate`]: poll, result, audit, SHA-256 of both files above |
//! | [`certificate.sig`](files::SIGNATURE) | the Ed25519 signature of `certificate.json`, which thus covers all three |
//! | [`public-key.pem`](files::PUBLIC_KEY) | a copy of the public key, to be compared with one from a trusted source |
//!
//! [`certify`](certify()) reads one snapshot of the store and writes the folder; [`verify`](verify()) recounts the
//! ballots and checks every sum. The building blocks are pure: [`ballots`], over any reader and writer, [`verdict`],
//! [`check`] and [`page`]. How to use and check a certificate: `docs/certificate.md`.

use serde::{Deserialize, Serialize};
use vote_core::{
    Keep, OptionSlug, PollOption, PollSlug,
    count::audit::{Audit, Finding},
    poll::Voters,
};

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
pub use verify::{VerifyError, verify};

/// Version of the format that this version of the program writes and reads. Any field that is added to or removed from
/// [`Certificate`] or its parts requires a new version, and so does any new code of a [`Finding`].
pub const FORMAT: u32 = 3;

/// Maximum size of `certificate.json` in bytes: enough for ten thousand queues.
pub const MAX_CERTIFICATE: usize = 8 << 20;

/// Names of the files.
pub mod files {
    /// The list of ballots.
    pub const BALLOTS: &str = "ballots.csv";
    /// The certificate for programs.
    pub const CERTIFICATE: &str = "certificate.json";
    /// The certificate for people.
    pub const PAGE: &str = "certificate.html";
    /// The signature of the certificate for programs.
    pub const SIGNATURE: &str = "certificate.sig";
    /// The public key that verifies the signature.
    pub const PUBLIC_KEY: &str = "public-key.pem";
}

/// The content of `certificate.json`. Times are RFC 3339 in UTC; in the audit they are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Version of the format, [`FORMAT`].
    pub format: u32,
    /// The program that wrote the certificate.
    pub software: Software,
    /// Time of the snapshot that ballots and figures were read from.
    pub created_at: String,
    /// The question and the rules of the count.
    pub poll: PollDefinition,
    /// Time at which the poll closed.
    pub closed_at: Option<String>,
    /// Time at which the count became final.
    pub final_at: Option<String>,
    /// Whether the count is complete.
    pub status: CertificateStatus,
    /// Everything outstanding, if the certificate was forced.
    pub outstanding: Vec<Finding>,
    /// All accounting errors, if the certificate was forced.
    pub problems: Vec<Finding>,
    /// The result, counted from the ballots while they were written.
    pub result: VoteResult,
    /// Name, length and hash of the list of ballots.
    pub ballots: BallotFile,
    /// Name and hash of the page for people.
    pub page: File,
    /// The audit of the poll: the accounts of all accepted votes.
    pub audit: Audit,
}

/// Whether the certified count is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateStatus {
    /// The poll was final and its audit held.
    Final,
    /// The certificate was forced although votes were outstanding or there were accounting errors.
    Forced,
}

/// The program that wrote a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Software {
    /// Name of the program.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// The commit that the program was built from, if it was specified at build time.
    pub commit: Option<String>,
}

/// The definition of a poll: the question and the rules of the count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PollDefinition {
    /// Slug of the poll: its name in addresses and files.
    pub slug: PollSlug,
    /// Title of the poll: the question.
    pub title: String,
    /// The options, in the order of registration.
    pub options: Vec<PollOption>,
    /// Rule that picks the effective ballot of a voter.
    pub keep: Keep,
    /// How voters were identified.
    pub voters: Voters,
}

/// The result of a poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoteResult {
    /// Number of effective ballots, one per voter.
    pub total: u64,
    /// Number of effective ballots per option.
    pub options: Vec<CertifiedVotes>,
}

/// The votes for an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifiedVotes {
    /// Slug of the option.
    pub option: OptionSlug,
    /// Number of effective ballots for the option.
    pub votes: u64,
}

/// Name, length and hash of the list of ballots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BallotFile {
    /// Name of the file.
    pub file: String,
    /// Number of ballots in the file.
    pub count: u64,
    /// SHA-256 of the file, in lower-case hex.
    pub sha256: String,
}

/// Name and hash of a file that the signature covers indirectly.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Name of the file.
    pub file: String,
    /// SHA-256 of the file, in lower-case hex.
    pub sha256: String,
}

impl VoteResult {
    /// Creates the result from options and the number of effective ballots for each of them.
    #[must_use]
    pub fn new(options: &[OptionSlug], votes: &[u64]) -> Self {
        let options: Vec<CertifiedVotes> = options
            .iter()
            .zip(votes)
            .map(|(option, votes)| CertifiedVotes { option: *option, votes: *votes })
            .collect();
        Self { total: options.iter().map(|option| option.votes).sum(), options }
    }
}

impl Certificate {
    /// Returns the label and the votes of each option.
    pub(crate) fn outcome(&self) -> impl Iterator<Item = (&str, u64)> {
        let labels = self.poll.options.iter().map(|option| option.label.as_str());
        labels.zip(self.result.options.iter().map(|option| option.votes))
    }
}
