//! A wall clock that is wrong, for one program.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

const SOURCE: &str = include_str!("clock.c");

const REMEDY: &str = "apt-get install gcc libc6-dev on Debian and Ubuntu; elsewhere install a C compiler, so that cc \
                      is on PATH";

/// A wall clock that differs from the system's by some seconds, for the programs that get its
/// [environment](Self::environment). Their monotonic clock is the system's. Linux only, and only for programs
/// that are linked to the C library dynamically.
#[derive(Debug)]
pub struct SkewedClock {
    library: &'static str,
    file: File,
    path: String,
    // Dropped last: the file is in it. Programs that still run keep their mapping of it.
    _folder: TempDir,
}

impl SkewedClock {
    /// A clock that is ahead by so many seconds, or behind where they are negative.
    pub fn new(seconds: i64) -> Self {
        let made = || {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("offset");
            let file = File::create(&path)?;
            Ok::<_, std::io::Error>((folder, path, file))
        };
        let (folder, path, file) = match made() {
            Ok(made) => made,
            Err(error) => panic!("can't make the file of a clock: {error}"),
        };
        let clock = Self { library: library(), file, path: text(&path), _folder: folder };
        clock.step(seconds);
        clock
    }

    /// Steps the clock while programs run: from now on it is ahead by so many seconds.
    pub fn step(&self, seconds: i64) {
        // In one write of one word, of which no reader sees a part.
        if let Err(error) = self.file.write_all_at(&seconds.to_ne_bytes(), 0) {
            panic!("can't write {}: {error}", self.path);
        }
    }

    /// The variables that give a program this clock.
    pub fn environment(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", self.library), ("CLOCK_OFFSET_FILE", &self.path)]
    }
}

/// The library, compiled once: it stays beside the test's executable, as all that is built does.
fn library() -> &'static str {
    static LIBRARY: OnceLock<String> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        SOURCE.hash(&mut hasher);
        let test = match std::env::current_exe() {
            Ok(test) => test,
            Err(error) => panic!("can't tell where this test is: {error}"),
        };
        let library = test.with_file_name(format!("testkit-clock-{:016x}.so", hasher.finish()));
        if !library.is_file() {
            compile(&library);
        }
        text(&library)
    })
}

fn compile(library: &Path) {
    // Other test processes compile it at the same time: each for itself, and the last rename holds.
    let own = library.with_extension(std::process::id().to_string());
    let source = own.with_extension("c");
    if let Err(error) = fs::write(&source, SOURCE) {
        panic!("can't write {}: {error}", source.display());
    }
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-o"]).arg(&own).arg(&source);
    match compiler.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("cc: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("can't run cc: {error}: {REMEDY}"),
    }
    let moved = fs::rename(&own, library).and_then(|()| fs::remove_file(&source));
    if let Err(error) = moved {
        panic!("can't make {}: {error}", library.display());
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
