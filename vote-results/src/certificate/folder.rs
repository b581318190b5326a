//! A folder that appears complete or not at all.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
};

/// A folder in the making, beside the place where it is to be. Removed unless it is [published](Self::publish).
#[derive(Debug)]
pub(super) struct Draft {
    draft: PathBuf,
    target: PathBuf,
    parent: PathBuf,
    published: bool,
}

impl Draft {
    /// Begins a folder that is to be at `target`, where nothing must be, or an empty folder.
    pub(super) fn new(target: &Path) -> io::Result<Self> {
        let target = match target.canonicalize() {
            Ok(target) => target,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let Some(name) = target.file_name() else { return Err(e) };
                // A name alone is in the current folder.
                let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new(".")).canonicalize();
                parent
                    .map_err(|e| io::Error::new(e.kind(), "the folder that it is to be in is not there"))?
                    .join(name)
            }
            Err(e) => return Err(e),
        };
        if target.exists() && fs::read_dir(&target)?.next().is_some() {
            return Err(not_empty());
        }
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(not_empty());
        };
        let draft = parent.join(format!(".{}.{}.unfinished", name.to_string_lossy(), process::id()));
        fs::create_dir(&draft)?;
        Ok(Self { draft, parent: parent.to_owned(), target, published: false })
    }

    /// A new file in it.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        File::create_new(self.draft.join(name))
    }

    /// A new file in it with these bytes, on disk when this returns.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create(name)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    }

    /// Puts the folder in its place, and on disk. The files must be.
    pub(super) fn publish(mut self) -> io::Result<()> {
        File::open(&self.draft)?.sync_all()?;
        // Takes the place of an empty folder; of one that was filled meanwhile it does not.
        fs::rename(&self.draft, &self.target).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => not_empty(),
            _ => e,
        })?;
        self.published = true;
        File::open(&self.parent)?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // What can't be removed has a name that says what it is.
            let _ = fs::remove_dir_all(&self.draft);
        }
    }
}

fn not_empty() -> io::Error {
    io::Error::new(
        io::ErrorKind::DirectoryNotEmpty,
        "the folder is there and not empty: a certificate is never overwritten, name another one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_folder_appears_when_it_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let draft = Draft::new(&target).unwrap();
        draft.write("a", b"x").unwrap();
        assert!(!target.exists());
        draft.publish().unwrap();
        assert_eq!((names(dir.path()), names(&target)), (vec!["out".to_owned()], vec!["a".to_owned()]));
    }

    #[test]
    fn what_is_not_published_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let draft = Draft::new(&dir.path().join("out")).unwrap();
        draft.write("a", b"x").unwrap();
        drop(draft);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn an_empty_folder_is_filled_and_another_refused() {
        let dir = tempfile::tempdir().unwrap();
        Draft::new(dir.path()).unwrap().publish().unwrap();
        fs::write(dir.path().join("a"), "x").unwrap();
        assert_eq!(Draft::new(dir.path()).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
    }

    #[test]
    fn a_folder_that_is_filled_meanwhile_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let draft = Draft::new(&target).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("a"), "x").unwrap();
        assert_eq!(draft.publish().unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_file_is_no_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Draft::new(file.path()).is_err());
    }
}
