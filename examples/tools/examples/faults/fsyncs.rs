//! Truncation of a Redis' append-only files to the bytes that are known to be on disk. See `fsyncs.c`.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = include_str!("fsyncs.c");

/// Compiles the library that records syncs into `folder`, and returns its path.
///
/// # Errors
/// Fails if the compiler is missing or reports an error; the text says what to install, or what the compiler reported.
pub(crate) fn compile(folder: &Path) -> Result<PathBuf, String> {
    let (source, library) = (folder.join("fsyncs.c"), folder.join("fsyncs.so"));
    fs::write(&source, SOURCE).map_err(|e| format!("{}: {e}", source.display()))?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-o"]).arg(&library).arg(&source).arg("-ldl");
    match compiler.output() {
        Ok(output) if output.status.success() => Ok(library),
        Ok(output) => Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr))),
        Err(e) => Err(format!(
            "can't run cc, the C compiler: {e}; on Debian and Ubuntu: apt-get install gcc libc6-dev"
        )),
    }
}

/// Lengths of the truncated files together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Bytes before.
    pub(crate) from: u64,
    /// Bytes afterwards: those that were synced.
    pub(crate) to: u64,
}

/// Truncates the append-only files in `files` to the lengths recorded in `records`. A file without a record was never
/// synced and may lose all its bytes.
///
/// # Errors
/// Fails if a file can't be read or changed.
pub(crate) fn cut_back(files: &Path, records: &Path) -> io::Result<Cut> {
    let mut cut = Cut { from: 0, to: 0 };
    for entry in fs::read_dir(files)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().ends_with(b".incr.aof") {
            continue;
        }
        let length = entry.metadata()?.len();
        let synced = synced(&records.join(&name))?.min(length);
        OpenOptions::new().write(true).open(entry.path())?.set_len(synced)?;
        cut = Cut { from: cut.from + length, to: cut.to + synced };
    }
    Ok(cut)
}

fn synced(record: &Path) -> io::Result<u64> {
    match fs::read_to_string(record) {
        Ok(text) => text.trim().parse().map_err(io::Error::other),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

/// Returns the length of the append-only files together.
pub(crate) fn length(files: &Path) -> io::Result<u64> {
    let mut length = 0;
    for entry in fs::read_dir(files)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().ends_with(b".incr.aof") {
            length += entry.metadata()?.len();
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that writes 10 bytes, syncs, and writes 5 more.
    const WRITER: &str = r#"
        #include <fcntl.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            int fd = open(argv[argc - 1], O_WRONLY | O_CREAT, 0600);
            return write(fd, "0123456789", 10) != 10 || fdatasync(fd) || write(fd, "lost!", 5) != 5;
        }"#;

    #[test]
    fn bytes_written_after_the_last_sync_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let library = compile(folder.path()).unwrap();
        let (files, records) = (folder.path().join("files"), folder.path().join("records"));
        fs::create_dir(&files).unwrap();
        fs::create_dir(&records).unwrap();
        let (source, writer) = (folder.path().join("writer.c"), folder.path().join("writer"));
        fs::write(&source, WRITER).unwrap();
        assert!(Command::new("cc").arg("-o").arg(&writer).arg(&source).status().unwrap().success());
        let file = files.join("a.1.incr.aof");
        let status = Command::new(&writer)
            .arg(&file)
            .env("LD_PRELOAD", &library)
            .env("FSYNC_RECORDS", &records)
            .status()
            .unwrap();
        assert!(status.success());
        fs::write(files.join("a.2.incr.aof"), "never synced").unwrap();
        fs::write(files.join("a.manifest"), "not ours").unwrap();

        assert_eq!(length(&files).unwrap(), 27);
        assert_eq!(cut_back(&files, &records).unwrap(), Cut { from: 27, to: 10 });
        assert_eq!(fs::read(&file).unwrap(), b"0123456789");
        assert_eq!(length(&files).unwrap(), 10);
        assert_eq!(fs::read(files.join("a.manifest")).unwrap(), b"not ours");
    }
}
