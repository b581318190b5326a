//! The directory of one server.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A Unix socket's path has at most 103 bytes (macOS; 107 on Linux), and ours adds some 40 to this.
const LONGEST_PARENT: usize = 60;

/// Makes an empty directory that only its owner can enter; the watchdog of a process removes it.
pub(crate) fn new_dir(name: &str) -> PathBuf {
    let chosen = env::temp_dir();
    let parent = if fits(&chosen) { chosen } else { PathBuf::from("/tmp") };
    let made = tempfile::Builder::new().prefix(&format!("vote-{name}-")).tempdir_in(&parent);
    match made {
        Ok(dir) => dir.keep(),
        Err(error) => panic!("can't make a directory in {}: {error}", parent.display()),
    }
}

/// Whether sockets fit below `parent` and another user, `postgres`, can get there.
fn fits(parent: &Path) -> bool {
    let Ok(parent) = parent.canonicalize() else { return false };
    let open = |dir: &Path| fs::metadata(dir).is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
    parent.as_os_str().len() <= LONGEST_PARENT && parent.ancestors().all(open)
}
