//! The commands `certify` and `verify`: their output and their exit codes.

use std::io::Write;

use vote_core::StoreReader;
use vote_service::{BUILD_COMMIT, settings::EX_CONFIG};

use super::{
    Build, Certificate, CertificateStatus, CertifyError, PrivateKey, PublicKey, Request, certify, files,
    verify,
};
use crate::{
    audit::EX_UNAVAILABLE,
    commands::{CertifyConfig, VerifyConfig},
    thousands::grouped,
};

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
