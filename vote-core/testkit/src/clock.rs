//! A wall clock that is wrong, for selected programs.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::dir;

const SOURCE: &str = include_str!("clock.c");

const REMEDY: &str = "apt-get install gcc libc6-dev on Debian and Ubuntu; elsewhere install a C compiler, so that cc \
                      is on PATH";

/// A wall clock that differs from the system's by some seconds, for programs started with its
/// [environment](Self::environment). Their monotonic clock is the system's. Works on Linux only, and only for
/// programs that are dynamically linked to the C library.
#[derive(Debug)]
pub struct SkewedClock {
    library: String,
    file: File,
    path: String,
    // Dropped last, since it contains the file. Programs that are still running keep their mapping of the file.
    _folder: TempDir,
}

impl SkewedClock {
    /// Creates a clock that is ahead of the system's by `seconds`, or behind if `seconds` is negative.
    pub fn new(seconds: i64) -> Self {
        // World-readable, since a Postgres may run as another user than the test and reads both files.
        let made = || {
            let folder = tempfile::Builder::new().prefix("vote-clock-").tempdir_in(dir::open_parent())?;
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
            let (path, own) = (folder.path().join("offset"), folder.path().join("clock.so"));
            let file = File::create(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
            fs::copy(library(), &own)?;
            Ok::<_, std::io::Error>((folder, path, own, file))
        };
        let (folder, path, own, file) = match made() {
            Ok(made) => made,
            Err(error) => panic!("can't create the files of a clock: {error}"),
        };
        let clock = Self { library: text(&own), file, path: text(&path), _folder: folder };
        clock.step(seconds);
        clock
    }

    /// Steps the clock of running programs: from now on it is ahead of the system's by `seconds`.
    pub fn step(&self, seconds: i64) {
        // A single write of one word, so that no reader sees a partial value.
        if let Err(error) = self.file.write_all_at(&seconds.to_ne_bytes(), 0) {
            panic!("can't write {}: {error}", self.path);
        }
    }

    /// Returns the environment variables that give a program this clock.
    pub fn environment(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", &self.library), ("CLOCK_OFFSET_FILE", &self.path)]
    }
}

/// Returns the path of the library, compiled on first use. It stays beside the test's executable, like other build
/// output.
fn library() -> &'static str {
    static LIBRARY: OnceLock<String> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        SOURCE.hash(&mut hasher);
        let test = match std::env::current_exe() {
            Ok(test) => test,
            Err(error) => panic!("can't determine the path of this test: {error}"),
        };
        let library = test.with_file_name(format!("testkit-clock-{:016x}.so", hasher.finish()));
        if !library.is_file() {
            compile(&library);
        }
        text(&library)
    })
}

fn compile(library: &Path) {
    // Other test processes may compile it at the same time: each writes its own file, and the last rename wins.
    let process = std::process::id();
    let (own, source) =
        (library.with_extension(format!("{process}.so")), library.with_extension(format!("{process}.c")));
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
        panic!("can't create {}: {error}", library.display());
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
