//! Finding programs, and reporting missing or failing ones with a remedy.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Returns the search path that every process gets, with a default if the tests run without one.
pub(crate) fn search_path() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}

/// Returns the path of the first of the `names` that is on the search path.
pub(crate) fn find(names: &[&str]) -> Option<PathBuf> {
    let path = search_path();
    names
        .iter()
        .find_map(|name| env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()))
}

/// Returns the path of the first of the `names` that is on the search path. Panics with the `remedy` if none is.
pub(crate) fn require(names: &[&str], remedy: &str) -> PathBuf {
    find(names).unwrap_or_else(|| panic!("{} is not installed: {remedy}", names.join(" or ")))
}

/// True if `dir` contains files of all the `names`.
pub(crate) fn holds(dir: &Path, names: &[&str]) -> bool {
    names.iter().all(|name| dir.join(name).is_file())
}

/// Returns what a client program printed, without the last line's end. Panics with all of its output if it failed.
pub(crate) fn answer(what: &str, output: io::Result<Output>) -> String {
    let output = match output {
        Ok(output) => output,
        Err(error) => panic!("can't run {what}: {error}"),
    };
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        panic!("{what} failed ({}): {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_that_exists_is_found() {
        assert!(find(&["no-such-program", "sh"]).unwrap().ends_with("sh"));
    }

    #[test]
    #[should_panic(expected = "no-such-program is not installed: apt-get install it")]
    fn a_missing_program_is_a_panic_with_the_remedy() {
        require(&["no-such-program"], "apt-get install it");
    }
}
