//! Verifies a certificate without a database.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
};

use sha2::{Digest, Sha256};

use super::{Certificate, CertificateStatus, MAX_CERTIFICATE, PublicKey, ballots, check, files};
use crate::{snapshot::Percent, thousands::grouped};

/// Maximum size of the page in bytes. It has the content of the certificate, and escaping turns a character into up to
/// six.
const MAX_PAGE: usize = 8 * MAX_CERTIFICATE;
/// Maximum size of a signature and of a key in bytes.
const MAX_SMALL: usize = 1 << 10;

/// The first check that a certificate failed, as a message that names the file or the figure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VerifyError(pub String);

/// Verifies the certificate in a folder with a public key from a trusted source. Writes a line to `to` for each check
/// that passed, then the result. A valid certificate may still be [forced](CertificateStatus::Forced): votes were outstanding.
///
/// # Errors
/// Fails with the first check that does not pass.
pub fn verify(dir: &Path, key: &PublicKey, to: &mut dyn Write) -> Result<Certificate, VerifyError> {
    let mut ok = |text: &str| {
        // A closed pipe is no failure: the return value carries the outcome.
        let _ = writeln!(to, "ok  {text}");
    };
    let json = small(dir, files::CERTIFICATE, MAX_CERTIFICATE)?;
    if !key.verifies(&json, &small(dir, files::SIGNATURE, MAX_SMALL)?) {
        return Err(VerifyError(format!(
            "{}: not a valid signature of {} by the key with fingerprint {}",
            files::SIGNATURE,
            files::CERTIFICATE,
            key.fingerprint()
        )));
    }
    ok(&format!("{} is signed with the key with fingerprint {}", files::CERTIFICATE, key.fingerprint()));
    let certificate = check::parse(&json).map_err(VerifyError)?;
    check::definition(&certificate).map_err(VerifyError)?;

    if small(dir, files::PUBLIC_KEY, MAX_SMALL)?
        != key.to_pem().map_err(|e| VerifyError(e.to_string()))?.as_bytes()
    {
        return Err(VerifyError(format!("{}: differs from the given key", files::PUBLIC_KEY)));
    }
    if hex::encode(Sha256::digest(small(dir, files::PAGE, MAX_PAGE)?)) != certificate.page.sha256 {
        return Err(VerifyError(format!("{}: differs from the certified page", files::PAGE)));
    }
    ok(&format!("{} is the certified page, {} the given key", files::PAGE, files::PUBLIC_KEY));

    let options: Vec<_> = certificate.poll.options.iter().map(|option| option.slug).collect();
    let counted = ballots::read(open(dir, files::BALLOTS)?, &options)
        .map_err(|e| VerifyError(format!("{}: {e}", files::BALLOTS)))?;
    check::result(&certificate, &counted).map_err(VerifyError)?.iter().for_each(|text| ok(text));
    // First, so that known accounting errors are reported as such and not by the first sum that is wrong.
    let status = check::status(&certificate).map_err(VerifyError)?;
    check::audit(&certificate).map_err(VerifyError)?.iter().for_each(|text| ok(text));
    status.iter().for_each(|text| ok(text));
    let _ = summary(&certificate, to);
    Ok(certificate)
}

/// Writes the result for people.
fn summary(certificate: &Certificate, to: &mut dyn Write) -> io::Result<()> {
    let status = match certificate.status {
        CertificateStatus::Final => "FINAL",
        CertificateStatus::Forced => "PROVISIONAL",
    };
    writeln!(
        to,
        "\n{status} result of {}: {}",
        certificate.poll.slug,
        certificate.poll.title.escape_debug()
    )?;
    let total = certificate.result.total;
    for (label, votes) in certificate.outcome() {
        let (label, percent) = (label.escape_debug().to_string(), Percent::of(votes, total).to_string());
        writeln!(to, "  {label:<32}  {:>16}  {percent:>5}%", grouped(votes))?;
    }
    writeln!(to, "  {:<32}  {:>16}", "total", grouped(total))
}

fn open(dir: &Path, name: &str) -> Result<fs::File, VerifyError> {
    let path = dir.join(name);
    let open = || match fs::metadata(&path)?.is_file() {
        true => fs::File::open(&path),
        // Reading a device or a pipe might never end.
        false => Err(io::Error::other("not a regular file")),
    };
    open().map_err(|e| VerifyError(format!("{name}: can't be read: {e}")))
}

/// Reads a file of at most `max` bytes.
fn small(dir: &Path, name: &str, max: usize) -> Result<Vec<u8>, VerifyError> {
    let mut bytes = Vec::new();
    let read = open(dir, name)?.take(max as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| VerifyError(format!("{name}: can't be read: {e}")))?;
    if bytes.len() > max {
        return Err(VerifyError(format!("{name}: is longer than {max} bytes")));
    }
    Ok(bytes)
}
