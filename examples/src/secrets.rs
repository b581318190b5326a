//! Secrets for a laptop: made once, kept in files that only their owner can read.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use vote_core::Secret;

/// The secret in a file; if there is no such file, it is made with 32 random bytes.
///
/// # Errors
/// When the file can't be read, or made, or holds no secret; the text names it.
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
    // The pepper must be what it was after a power failure, or everybody could vote again.
    file.sync_all()?;
    Ok(text)
}
