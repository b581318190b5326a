//! What the commands `certify` and `verify` do, say, and exit with.

use std::io::Write;

use vote_core::StoreReader;
use vote_service::{BUILD_COMMIT, settings::EX_CONFIG};

use super::{
    Build, Certificate, CertifyError, PrivateKey, PublicKey, Request, Status, certify, files, grouped, verify,
};
use crate::{
    audit::EX_UNAVAILABLE,
    config::{CertifyConfig, VerifyConfig},
};

/// The exit code when votes are outstanding.
pub const OUTSTANDING: u8 = 2;
/// The exit code when something is wrong: books that do not add up, a certificate that is not valid.
pub const BROKEN: u8 = 1;
/// The exit code when the folder can't be written (`EX_CANTCREAT` of sysexits.h).
pub const EX_CANTCREAT: u8 = 73;

impl CertifyError {
    /// As what the program exits with.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Outstanding { .. } => OUTSTANDING,
            Self::Broken { .. } | Self::Contradiction(_) => BROKEN,
            Self::Store(_) => EX_UNAVAILABLE,
            Self::Key(_) => EX_CONFIG,
            Self::Out { .. } => EX_CANTCREAT,
        }
    }
}

/// `vote-results certify`. Says what was done in `out` and what is wrong in `err`; returns the exit code: 0, or that of
/// the [error](CertifyError::exit_code).
pub async fn run_certify(
    config: &CertifyConfig,
    store: &dyn StoreReader,
    out: &mut (dyn Write + Send),
    err: &mut (dyn Write + Send),
) -> u8 {
    // What can't be printed is also said by the exit code.
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
                    "Nothing was written. --force writes a certificate that says all this and is PROVISIONAL."
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
    writeln!(out, "certificate of poll {} in {}", config.poll, config.out.display())?;
    writeln!(out, "{count} ballots; SHA-256 of {}: {sha256}", files::BALLOTS)?;
    writeln!(out, "signed with the key of fingerprint {}", key.fingerprint())?;
    if certificate.status == Status::Forced {
        writeln!(err, "vote-results: the certificate is PROVISIONAL, since it was forced:")?;
        for text in certificate.problems.iter().chain(&certificate.outstanding) {
            writeln!(err, "  {text}")?;
        }
    }
    Ok(())
}

/// `vote-results verify`. Says what holds in `out` and what is wrong in `err`; returns the exit code: 0 if all holds and
/// the result is final, [`OUTSTANDING`] if all holds but votes were outstanding, [`BROKEN`] if anything is wrong, 78 if
/// the key can't be used.
pub fn run_verify(config: &VerifyConfig, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let key = match PublicKey::read(&config.public_key) {
        Ok(key) => key,
        Err(e) => {
            let _ = writeln!(err, "vote-results: {e}");
            return EX_CONFIG;
        }
    };
    match verify(&config.dir, &key, out) {
        Ok(certificate) if certificate.status == Status::Final => 0,
        Ok(certificate) => {
            let _ = writeln!(out, "\nThe certificate is valid, but was forced. Outstanding:");
            for text in &certificate.outstanding {
                let _ = writeln!(out, "  {}", text.escape_debug());
            }
            OUTSTANDING
        }
        Err(e) => {
            let _ = writeln!(err, "WRONG  {e}");
            BROKEN
        }
    }
}
