//! From a store to a folder with a certificate.

use std::{
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use vote_core::{
    PollOption, PollSlug, Polls, StoreReader,
    store::{Snapshot, StoreError},
};

use super::{
    BallotFile, Certificate, FORMAT, File, MAX_CERTIFICATE, PollDefinition, PrivateKey, Software, Status,
    VoteResult,
    ballots::{Counted, WriteError, Writer},
    files,
    folder::Draft,
    key::KeyError,
    page,
    verdict::{self, Verdict},
};

/// How many ballots are read at a time. One takes some 300 bytes on its way from Postgres.
const PAGE: usize = 50_000;

/// What is to be certified, and where.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The poll.
    pub poll: PollSlug,
    /// Titles and labels; what is not among them goes by its slug.
    pub polls: &'a Polls,
    /// The folder, which must be empty or not there.
    pub out: &'a Path,
    /// Also when the count is not complete or the books don't add up. The certificate says so.
    pub force: bool,
    /// Of the program.
    pub build: Build<'a>,
}

/// What the certificate says of the program that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build<'a> {
    /// Its version.
    pub version: &'a str,
    /// The commit it was built from, if that is known.
    pub commit: Option<&'a str>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertifyError {
    /// Votes are outstanding, each in a sentence. To be tried again later, or forced.
    #[error("poll {poll} is not final:{}", list(outstanding))]
    Outstanding {
        /// The poll.
        poll: PollSlug,
        /// What is outstanding.
        outstanding: Vec<String>,
    },
    /// The books don't add up. To be looked into, or forced.
    #[error("the audit of poll {poll} is BROKEN:{}", list(problems))]
    Broken {
        /// The poll.
        poll: PollSlug,
        /// What contradicts what, then what is outstanding.
        problems: Vec<String>,
    },
    /// The ballots are not those that were counted in the same moment: a bug of the store. Can't be forced.
    #[error("the store contradicts itself: {0}")]
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
        /// Where.
        out: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn list(texts: &[String]) -> String {
    texts.iter().map(|text| format!("\n  {text}")).collect()
}

/// Writes the certificate of a poll, as of one moment of the store. On disk when it returns; after an error, or when
/// dropped before, there is nothing.
///
/// # Errors
/// When the poll is not final or its audit is broken, unless that is to be [forced](Request::force); when the store
/// can't be read or the folder not be written.
pub async fn certify(
    store: &dyn StoreReader,
    request: &Request<'_>,
    key: &PrivateKey,
) -> Result<Certificate, CertifyError> {
    let at_out = |error| CertifyError::Out { out: request.out.to_owned(), error };
    // First, since it is soon known.
    let draft = Draft::new(request.out).map_err(at_out)?;
    let mut snapshot = store.snapshot().await?;
    let books = snapshot.books(true).await?;
    let poll = request.poll;
    let verdict = verdict::judge(&books, poll)
        .ok_or_else(|| StoreError::NotPrepared(format!("there is no poll {poll} in the store")))?;
    // They are not needed any more, and there may be many.
    drop(books);
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
        let text = format!("{} would be longer than {MAX_CERTIFICATE} bytes", files::CERTIFICATE);
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

/// Unless all is well.
fn refuse(verdict: &Verdict) -> Result<(), CertifyError> {
    let (poll, outstanding) = (verdict.poll.slug, verdict.outstanding.clone());
    if !verdict.problems.is_empty() {
        return Err(CertifyError::Broken {
            poll,
            problems: [verdict.problems.clone(), outstanding].concat(),
        });
    }
    match verdict.status() {
        Status::Final => Ok(()),
        Status::Forced => Err(CertifyError::Outstanding { poll, outstanding }),
    }
}

/// Writes the ballots, a page at a time, and compares them with what was counted in the same moment.
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
    let mut writer = Writer::new(file, &verdict.poll.options);
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
            "it lists {} ballots and counts {} rows",
            counted.count,
            rows.unwrap_or_default()
        )));
    }
    Ok(counted)
}

/// The certificate, its page still to come.
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
