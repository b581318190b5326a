//! Secrets for local use: generated once, and kept in files that only their owner can read.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use vote_core::Secret;

/// Reads a secret from a file, which is first created with 32 random bytes if it does not exist.
///
/// # Errors
/// Fails if the file can't be read or created, or does not hold a secret. The error names the file.
pub fn load_or_make(path: &Path) -> io::Result<Secret> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => make(path).map_err(named)?,
        Err(e) => return Err(named(e)),
    };
    Secret::from_hex(&text).map_err(|e| named(io::Error::new(io::ErrorKind::InvalidData, e)))
}

fn make(path: &Path) -> io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let text = hex::encode(bytes);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{text}")?;
    // After a power failure the pepper must be the same, or every voter could vote again.
    file.sync_all()?;
    Ok(text)
}
