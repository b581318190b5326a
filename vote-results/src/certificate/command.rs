//! The commands `certify` and `verify`: their output and their exit codes.

use std::{io::Write, path::PathBuf};

use clap::ArgMatches;
use vote_core::{PollSlug, Polls, StoreAddress, StoreReader};
use vote_service::{BUILD_COMMIT, ConfigError, Settings, settings::EX_CONFIG};

use super::{
    Build, Certificate, CertificateStatus, CertifyError, PrivateKey, PublicKey, Request, certify, files, key,
    verify,
};
use crate::{
    audit::EX_UNAVAILABLE,
    config::{schema, store},
    thousands::grouped,
};

/// The configuration of `certify`.
#[derive(Debug, Clone)]
pub struct CertifyConfig {
    /// Address of the store.
    pub store: StoreAddress,
    /// Schema that holds the tables of the store, on Postgres.
    pub store_schema: String,
    /// Source of the titles and labels to print.
    pub polls: Polls,
    /// The poll to certify.
    pub poll: PollSlug,
    /// The folder to create.
    pub out: PathBuf,
    /// The file with the private key that signs the certificate.
    pub key: PathBuf,
    /// Whether to write a certificate even if votes are outstanding or the audit is broken.
    pub force: bool,
}

/// The configuration of `verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyConfig {
    /// The folder with the certificate.
    pub dir: PathBuf,
    /// The file with the public key to check the signature with.
    pub public_key: PathBuf,
}

impl CertifyConfig {
    /// Builds the configuration from the settings and the arguments.
    ///
    /// # Errors
    /// Reports a missing key, and every invalid or missing setting by name.
    pub fn new(mut settings: Settings, matches: &ArgMatches) -> Result<Self, ConfigError> {
        let poll = matches.get_one::<PollSlug>("poll").copied();
        let out = matches.get_one::<PathBuf>("out").cloned();
        let key = matches.get_one::<PathBuf>("key").cloned();
        let force = matches.get_flag("force");
        if key.is_none() {
            let how = key::HOW_TO_MAKE;
            let text =
                format!("is required (private key that signs the certificate); create one with: {how}");
            settings.problem_with_argument("--key", text);
        }
        let (store, store_schema) = (store(&mut settings), schema(&mut settings));
        let polls = settings.polls();
        let config = || {
            Some(Self {
                store: store?,
                store_schema: store_schema?,
                polls: polls?,
                poll: poll?,
                out: out?,
                key: key?,
                force,
            })
        };
        settings.finish_with(config())
    }
}

impl VerifyConfig {
    /// Builds the configuration from the arguments.
    #[must_use]
    pub fn new(matches: &ArgMatches) -> Self {
        // Both arguments are required, so clap has already reported a missing one.
        let path = |name| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
        Self { dir: path("dir"), public_key: path("public-key") }
    }
}

/// Exit code if votes are outstanding.
pub const OUTSTANDING: u8 = 2;
/// Exit code if there are accounting errors or a certificate is invalid.
pub const BROKEN: u8 = 1;
/// Exit code if the folder can't be written (`EX_CANTCREAT` of sysexits.h).
pub const EX_CANTCREAT: u8 = 73;

impl CertifyError {
    /// Returns the exit code of the program for the error.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Outstanding { .. } => OUTSTANDING,
            Self::Broken { .. } | Self::Contradiction(_) => BROKEN,
            Self::Store(e) if e.is_wrong_setting() => EX_CONFIG,
            Self::Store(_) => EX_UNAVAILABLE,
            Self::Key(_) => EX_CONFIG,
            Self::Out { .. } => EX_CANTCREAT,
        }
    }
}

/// Runs `vote-results certify`. Writes a summary to `out` and problems to `err`. Returns the exit code: 0, or that of
/// the [error](CertifyError::exit_code).
pub async fn run_certify(
    config: &CertifyConfig,
    store: &dyn StoreReader,
    out: &mut (dyn Write + Send),
    err: &mut (dyn Write + Send),
) -> u8 {
    // Failures to print are ignored: the exit code carries the outcome.
    match sign(config, store).await {
        Ok((certificate, key)) => {
            let _ = done(config, &certificate, &key, out, err);
            0
        }
        Err(e) => {
            let _ = writeln!(err, "vote-results: {e}");
            if let CertifyError::Outstanding { .. } | CertifyError::Broken { .. } = e {
                let _ = writeln!(
                    err,
                    "Nothing was written. --force writes a PROVISIONAL certificate that lists all of the above."
                );
            }
            e.exit_code()
        }
    }
}

async fn sign(
    config: &CertifyConfig,
    store: &dyn StoreReader,
) -> Result<(Certificate, PublicKey), CertifyError> {
    let key = PrivateKey::read(&config.key)?;
    let request = Request {
        poll: config.poll,
        polls: &config.polls,
        out: &config.out,
        force: config.force,
        build: Build { version: env!("CARGO_PKG_VERSION"), commit: BUILD_COMMIT },
    };
    Ok((certify(store, &request, &key).await?, key.public()))
}

fn done(
    config: &CertifyConfig,
    certificate: &Certificate,
    key: &PublicKey,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> std::io::Result<()> {
    let (count, sha256) = (grouped(certificate.ballots.count), &certificate.ballots.sha256);
    writeln!(out, "certificate of poll {} written to {}", config.poll, config.out.display())?;
    writeln!(out, "{count} ballots; SHA-256 of {}: {sha256}", files::BALLOTS)?;
    writeln!(out, "signed with the key with fingerprint {}", key.fingerprint())?;
    if certificate.status == CertificateStatus::Forced {
        writeln!(err, "vote-results: the certificate is PROVISIONAL because it was forced despite:")?;
        for finding in certificate.problems.iter().chain(&certificate.outstanding) {
            writeln!(err, "  {finding}")?;
        }
    }
    Ok(())
}

/// Runs `vote-results verify`. Writes the checks that passed to `out` and the one that failed to `err`. Returns the
/// exit code: 0 if the certificate is valid and final, [`OUTSTANDING`] if it is valid but votes were outstanding,
/// [`BROKEN`] if it is invalid, 78 if the key can't be used.
pub fn run_verify(config: &VerifyConfig, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let key = match PublicKey::read(&config.public_key) {
        Ok(key) => key,
        Err(e) => {
            let _ = writeln!(err, "vote-results: {e}");
            return EX_CONFIG;
        }
    };
    match verify(&config.dir, &key, out) {
        Ok(certificate) if certificate.status == CertificateStatus::Final => 0,
        Ok(certificate) => {
            let _ = writeln!(out, "\nThe certificate is valid but was forced. Outstanding:");
            for finding in &certificate.outstanding {
                let _ = writeln!(out, "  {}", finding.to_string().escape_debug());
            }
            OUTSTANDING
        }
        Err(e) => {
            let _ = writeln!(err, "FAILED  {e}");
            BROKEN
        }
    }
}
