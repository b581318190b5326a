//! From a folder with a certificate to a yes or no, without a database.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
};

use sha2::{Digest, Sha256};

use super::{Certificate, MAX_CERTIFICATE, PublicKey, Status, ballots, check, files, grouped};
use crate::snapshot::Percent;

/// The most bytes of the page: it says what the certificate does, and an escaped character takes up to six.
const MAX_PAGE: usize = 8 * MAX_CERTIFICATE;
/// The most bytes of a signature and of a key.
const MAX_SMALL: usize = 1 << 10;

/// The first thing that is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub String);

/// Checks the certificate in a folder against a key that came from elsewhere; says in `to`, line by line, what holds,
/// and at last the result. A valid certificate may still be [forced](Status::Forced): votes were outstanding.
///
/// # Errors
/// With the first that is wrong.
pub fn verify(dir: &Path, key: &PublicKey, to: &mut dyn Write) -> Result<Certificate, Wrong> {
    let mut ok = |text: &str| {
        // Whoever closed the pipe doesn't want the rest; what is returned says it, too.
        let _ = writeln!(to, "ok  {text}");
    };
    let json = small(dir, files::CERTIFICATE, MAX_CERTIFICATE)?;
    if !key.verifies(&json, &small(dir, files::SIGNATURE, MAX_SMALL)?) {
        return Err(Wrong(format!(
            "{}: is not the signature of {} by the key with fingerprint {}",
            files::SIGNATURE,
            files::CERTIFICATE,
            key.fingerprint()
        )));
    }
    ok(&format!("{} is signed with the key of fingerprint {}", files::CERTIFICATE, key.fingerprint()));
    let certificate = check::parse(&json).map_err(Wrong)?;
    check::definition(&certificate).map_err(Wrong)?;

    if small(dir, files::PUBLIC_KEY, MAX_SMALL)? != key.to_pem().map_err(|e| Wrong(e.to_string()))?.as_bytes()
    {
        return Err(Wrong(format!("{}: is not the key that was given", files::PUBLIC_KEY)));
    }
    if hex::encode(Sha256::digest(small(dir, files::PAGE, MAX_PAGE)?)) != certificate.page.sha256 {
        return Err(Wrong(format!("{}: is not the page that was certified", files::PAGE)));
    }
    ok(&format!("{} and {} are the certified ones", files::PAGE, files::PUBLIC_KEY));

    let options: Vec<_> = certificate.poll.options.iter().map(|option| option.slug).collect();
    let counted = ballots::read(open(dir, files::BALLOTS)?, &options)
        .map_err(|e| Wrong(format!("{}: {e}", files::BALLOTS)))?;
    check::result(&certificate, &counted).map_err(Wrong)?.iter().for_each(|text| ok(text));
    // Books that did not add up are told as such, rather than by the first sum that shows it.
    let status = check::status(&certificate).map_err(Wrong)?;
    check::audit(&certificate).map_err(Wrong)?.iter().for_each(|text| ok(text));
    status.iter().for_each(|text| ok(text));
    let _ = summary(&certificate, to);
    Ok(certificate)
}

/// The result for people.
fn summary(certificate: &Certificate, to: &mut dyn Write) -> io::Result<()> {
    let status = match certificate.status {
        Status::Final => "FINAL",
        Status::Forced => "PROVISIONAL",
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

fn open(dir: &Path, name: &str) -> Result<fs::File, Wrong> {
    let path = dir.join(name);
    let open = || match fs::metadata(&path)?.is_file() {
        true => fs::File::open(&path),
        // Reading might never end.
        false => Err(io::Error::other("is no file")),
    };
    open().map_err(|e| Wrong(format!("{name}: can't be read: {e}")))
}

/// All of a file that has no more than so many bytes.
fn small(dir: &Path, name: &str, max: usize) -> Result<Vec<u8>, Wrong> {
    let mut bytes = Vec::new();
    let read = open(dir, name)?.take(max as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| Wrong(format!("{name}: can't be read: {e}")))?;
    if bytes.len() > max {
        return Err(Wrong(format!("{name}: is longer than {max} bytes")));
    }
    Ok(bytes)
}
