//! The Postgres programs on this machine, and the user that runs the server.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program;

const PROGRAMS: [&str; 5] = ["initdb", "postgres", "psql", "pg_isready", "pg_basebackup"];

/// Environment variable that names the folder of the Postgres programs, if they are not in one of the usual places.
const BIN_VARIABLE: &str = "VOTE_TEST_PG_BIN";

/// Parent and name prefix of the folders, one per version, in which distributions install Postgres: Debian and Ubuntu;
/// Red Hat (PGDG).
const VERSIONED: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];

const REMEDY: &str = "apt-get install postgresql on Debian and Ubuntu; elsewhere install Postgres 14 or \
                      newer with its server programs, on PATH or with VOTE_TEST_PG_BIN set to their folder";

/// An installed Postgres, and the user that its server runs as.
#[derive(Debug)]
pub(super) struct Install {
    bin: PathBuf,
    /// `None` for the current user.
    run_as: Option<RunAs>,
}

/// The user `postgres`, for tests that run as root.
#[derive(Debug)]
struct RunAs {
    setpriv: PathBuf,
    uid: u32,
    gid: u32,
}

impl Install {
    /// Finds Postgres, or panics with the remedy.
    pub(super) fn find() -> Self {
        // The programs first: the package that contains them also creates the user.
        let bin = find_bin();
        let run_as = (id(&["-u"]) == Some(0)).then(RunAs::find);
        Self { bin, run_as }
    }

    /// Returns the user and the group that must own the server's files; `None` for the current user.
    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        self.run_as.as_ref().map(|user| (user.uid, user.gid))
    }

    /// Returns a command that runs a server program as a user that it accepts.
    pub(super) fn server_command(&self, name: &str) -> Command {
        let program = self.bin.join(name);
        let Some(user) = &self.run_as else { return Command::new(program) };
        let mut command = Command::new(&user.setpriv);
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    }

    /// Returns a command that runs a client program, unaffected by the environment (PGHOST, PGOPTIONS) and the
    /// `~/.psqlrc` of the user who runs the tests.
    pub(super) fn client_command(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.env_clear().env("PATH", program::search_path()).env("LC_ALL", "C");
        command
    }
}

impl RunAs {
    fn find() -> Self {
        let setpriv =
            program::require(&["setpriv"], "apt-get install util-linux, or don't run the tests as root");
        match (id(&["-u", "postgres"]), id(&["-g", "postgres"])) {
            (Some(uid), Some(gid)) => Self { setpriv, uid, gid },
            _ => panic!("Postgres refuses to run as root, and there is no user postgres: useradd postgres"),
        }
    }
}

fn find_bin() -> PathBuf {
    if let Some(bin) = env::var_os(BIN_VARIABLE).map(PathBuf::from) {
        if !program::holds(&bin, &PROGRAMS) {
            panic!("{BIN_VARIABLE} is {}, which lacks some of {PROGRAMS:?}: {REMEDY}", bin.display());
        }
        return bin;
    }
    let on_path = program::find(&["postgres"]).and_then(|file| file.parent().map(Path::to_path_buf));
    on_path
        .filter(|bin| program::holds(bin, &PROGRAMS))
        .or_else(newest_version)
        .unwrap_or_else(|| panic!("Postgres ({}) is not installed: {REMEDY}", PROGRAMS.join(", ")))
}

fn newest_version() -> Option<PathBuf> {
    let mut found = Vec::new();
    for (parent, prefix) in VERSIONED {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse::<u32>().ok());
            let bin = entry.path().join("bin");
            if let Some(version) = version
                && program::holds(&bin, &PROGRAMS)
            {
                found.push((version, bin));
            }
        }
    }
    found.into_iter().max().map(|(_, bin)| bin)
}

/// Returns the number that the program `id` prints; the standard library has no function for it.
fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
