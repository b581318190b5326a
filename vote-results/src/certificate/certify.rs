//! Creates a certificate from the store.

use std::{
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use vote_core::{
    PollOption, PollSlug, Polls, StoreReader,
    count::audit::Finding,
    store::{Snapshot, StoreError},
};

use super::{
    BallotFile, Certificate, CertificateStatus, FORMAT, File, MAX_CERTIFICATE, PollDefinition, PrivateKey,
    Software, VoteResult,
    ballots::{BallotWriter, Counted, WriteError},
    files,
    folder::Draft,
    key::KeyError,
    page,
    verdict::{self, Verdict},
};

/// Number of ballots read at a time. A ballot takes about 300 bytes of memory while it is read from Postgres.
const PAGE: usize = 50_000;

/// A request to certify a poll.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The poll to certify.
    pub poll: PollSlug,
    /// Source of titles and labels; slugs are used where it has none.
    pub polls: &'a Polls,
    /// The folder to create, which must not exist or be empty.
    pub out: &'a Path,
    /// Whether to certify a count that is incomplete or has accounting errors. The certificate lists them.
    pub force: bool,
    /// The program that writes the certificate.
    pub build: Build<'a>,
}

/// Build of the program that writes a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build<'a> {
    /// Version of the program.
    pub version: &'a str,
    /// The commit that the program was built from, if it is known.
    pub commit: Option<&'a str>,
}

/// Reason why no certificate was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertifyError {
    /// Votes are outstanding. Try again later, or force the certificate.
    #[error("poll {poll} is not final:{}", list(outstanding))]
    Outstanding {
        /// The poll.
        poll: PollSlug,
        /// Everything outstanding.
        outstanding: Vec<Finding>,
    },
    /// There are accounting errors. Investigate them, or force the certificate.
    #[error("the audit of poll {poll} is BROKEN:{}", list(problems))]
    Broken {
        /// The poll.
        poll: PollSlug,
        /// All accounting errors, then everything outstanding.
        problems: Vec<Finding>,
    },
    /// The ballots differ from the count in the same snapshot, which is a bug in the store. Can't be forced.
    #[error("the store is inconsistent, which is a bug: {0}")]
    Contradiction(String),
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key can't be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The folder can't be written.
    #[error("--out {}: {error}", out.display())]
    Out {
        /// The folder.
        out: PathBuf,
        /// The error of the file system.
        error: io::Error,
    },
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("\n  {finding}")).collect()
}

/// Writes the certificate of a poll from one snapshot of the store. The folder is synced to disk on return. After an
/// error, or if the future is dropped, no folder is left behind.
///
/// # Errors
/// - [`Outstanding`](CertifyError::Outstanding) or [`Broken`](CertifyError::Broken) if the poll is not final or its
///   audit is broken, unless the certificate is [forced](Request::force).
/// - [`Store`](CertifyError::Store) if the store can't be read, or does not have the poll.
/// - [`Contradiction`](CertifyError::Contradiction) if the ballots differ from the count.
/// - [`Key`](CertifyError::Key) or [`Out`](CertifyError::Out) if the public key or the folder can't be written.
pub async fn certify(
    store: &dyn StoreReader,
    request: &Request<'_>,
    key: &PrivateKey,
) -> Result<Certificate, CertifyError> {
    let at_out = |error| CertifyError::Out { out: request.out.to_owned(), error };
    // First, because it fails fast.
    let draft = Draft::new(request.out).map_err(at_out)?;
    let mut snapshot = store.snapshot().await?;
    let accounts = snapshot.accounts(true).await?;
    let poll = request.poll;
    let verdict = verdict::judge(&accounts, poll).ok_or(StoreError::UnknownPoll(poll))?;
    // No longer needed, and possibly large.
    drop(accounts);
    if !request.force {
        refuse(&verdict)?;
    }

    let counted = ballots(&mut *snapshot, &verdict, &draft, at_out).await?;
    drop(snapshot);

    let mut certificate = compose(request, verdict, counted);
    let page = page::page(&certificate, &key.public());
    certificate.page =
        File { file: files::PAGE.to_owned(), sha256: hex::encode(Sha256::digest(page.as_bytes())) };
    let mut json = serde_json::to_vec_pretty(&certificate).map_err(|e| at_out(e.into()))?;
    json.push(b'\n');
    if json.len() > MAX_CERTIFICATE {
        let text = format!("{} would exceed {MAX_CERTIFICATE} bytes", files::CERTIFICATE);
        return Err(at_out(io::Error::other(text)));
    }
    let public_key = key.public().to_pem()?;
    let signature = key.sign(&json);
    for (name, bytes) in [
        (files::PAGE, page.as_bytes()),
        (files::CERTIFICATE, &json),
        (files::SIGNATURE, signature.as_bytes()),
        (files::PUBLIC_KEY, public_key.as_bytes()),
    ] {
        draft.write(name, bytes).map_err(at_out)?;
    }
    draft.publish().map_err(at_out)?;
    Ok(certificate)
}

/// Fails unless the poll is final and its audit holds.
fn refuse(verdict: &Verdict) -> Result<(), CertifyError> {
    let (poll, outstanding) = (verdict.poll.slug, verdict.outstanding.clone());
    if !verdict.problems.is_empty() {
        return Err(CertifyError::Broken {
            poll,
            problems: [verdict.problems.clone(), outstanding].concat(),
        });
    }
    match verdict.status() {
        CertificateStatus::Final => Ok(()),
        CertificateStatus::Forced => Err(CertifyError::Outstanding { poll, outstanding }),
    }
}

/// Writes the ballots page by page, and compares their number with the count in the same snapshot.
async fn ballots(
    snapshot: &mut dyn Snapshot,
    verdict: &Verdict,
    draft: &Draft,
    at_out: impl Fn(io::Error) -> CertifyError + Send + Sync,
) -> Result<Counted, CertifyError> {
    let failed = |e| match e {
        WriteError::Io(e) => at_out(e),
        WriteError::Ballot(text) => CertifyError::Contradiction(text),
    };
    let file = draft.create(files::BALLOTS).map_err(&at_out)?;
    let mut writer = BallotWriter::new(file, &verdict.poll.options);
    let mut last = None;
    loop {
        let page = snapshot.ballots(verdict.poll.slug, last, PAGE).await?;
        writer.write(&page).map_err(failed)?;
        match page.last() {
            Some(ballot) => last = Some(ballot.voter),
            None => break,
        }
    }
    let (file, counted) = writer.finish().map_err(&at_out)?;
    file.sync_all().map_err(&at_out)?;
    let rows = verdict.audit.polls.first().and_then(|poll| poll.rows);
    if rows != Some(counted.count) {
        return Err(CertifyError::Contradiction(format!(
            "it returned {} ballots but counts {} rows",
            counted.count,
            rows.unwrap_or_default()
        )));
    }
    Ok(counted)
}

/// Creates the certificate without the hash of its page, which is rendered from it.
fn compose(request: &Request<'_>, verdict: Verdict, counted: Counted) -> Certificate {
    let status = verdict.status();
    let Verdict { poll, audit, outstanding, problems } = verdict;
    let of_file = request.polls.get(poll.slug.as_str());
    let options = poll.options.iter().map(|slug| {
        let of_file = of_file.and_then(|poll| poll.option(slug.as_str()));
        of_file.cloned().unwrap_or_else(|| PollOption { slug: *slug, label: slug.to_string() })
    });
    Certificate {
        format: FORMAT,
        software: Software {
            name: "vote-results".to_owned(),
            version: request.build.version.to_owned(),
            commit: request.build.commit.map(str::to_owned),
        },
        created_at: audit.taken_at.to_string(),
        poll: PollDefinition {
            slug: poll.slug,
            title: of_file.map_or_else(|| poll.slug.to_string(), |poll| poll.title.clone()),
            options: options.collect(),
            keep: poll.keep,
            voters: poll.voters,
        },
        closed_at: poll.closed_at.map(|at| at.to_string()),
        final_at: poll.final_at.map(|at| at.to_string()),
        status,
        outstanding,
        problems,
        result: VoteResult::new(&poll.options, &counted.votes),
        ballots: BallotFile { file: files::BALLOTS.to_owned(), count: counted.count, sha256: counted.sha256 },
        page: File::default(),
        audit,
    }
}
