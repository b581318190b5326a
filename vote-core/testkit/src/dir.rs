//! Directories of servers.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Maximum length of the parent's path: the path of a Unix socket has at most 103 bytes (macOS; 107 on Linux), and ours
/// adds some 40 to that of the parent.
const LONGEST_PARENT: usize = 60;

/// Creates an empty directory that only its owner can enter; the watchdog of a process removes it.
pub(crate) fn new_dir(name: &str) -> PathBuf {
    let parent = open_parent();
    let made = tempfile::Builder::new().prefix(&format!("vote-{name}-")).tempdir_in(&parent);
    match made {
        Ok(dir) => dir.keep(),
        Err(error) => panic!("can't create a directory in {}: {error}", parent.display()),
    }
}

/// Returns the directory for temporary files, or `/tmp` if its path is too long or other users can't enter it.
pub(crate) fn open_parent() -> PathBuf {
    let chosen = env::temp_dir();
    if fits(&chosen) { chosen } else { PathBuf::from("/tmp") }
}

/// True if the paths of sockets below `parent` are short enough, and another user, `postgres`, can enter `parent`.
fn fits(parent: &Path) -> bool {
    let Ok(parent) = parent.canonicalize() else { return false };
    let open = |dir: &Path| fs::metadata(dir).is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
    parent.as_os_str().len() <= LONGEST_PARENT && parent.ancestors().all(open)
}
