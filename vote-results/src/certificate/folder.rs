//! Atomic creation of a folder: it appears complete or not at all.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
};

/// An unfinished folder beside its target. Dropping it removes it, unless it was [published](Self::publish).
#[derive(Debug)]
pub(super) struct Draft {
    draft: PathBuf,
    target: PathBuf,
    parent: PathBuf,
    published: bool,
}

impl Draft {
    /// Creates an unfinished folder that is to replace `target`, which must not exist or be an empty folder.
    pub(super) fn new(target: &Path) -> io::Result<Self> {
        let target = match target.canonicalize() {
            Ok(target) => target,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let Some(name) = target.file_name() else { return Err(e) };
                // A bare name refers to the current folder.
                let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new(".")).canonicalize();
                parent
                    .map_err(|e| {
                        io::Error::new(e.kind(), "the parent folder does not exist: create it first")
                    })?
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

    /// Creates a file in the folder.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        File::create_new(self.draft.join(name))
    }

    /// Creates a file in the folder with these bytes and syncs it to disk.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create(name)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    }

    /// Moves the folder to its target and syncs the move to disk. The files must already be synced.
    pub(super) fn publish(mut self) -> io::Result<()> {
        File::open(&self.draft)?.sync_all()?;
        // Replaces an empty folder, but fails if files were added to it meanwhile.
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
            // If this fails, the name of the folder still says that it is unfinished.
            let _ = fs::remove_dir_all(&self.draft);
        }
    }
}

fn not_empty() -> io::Error {
    io::Error::new(
        io::ErrorKind::DirectoryNotEmpty,
        "the folder exists and is not empty; a certificate is never overwritten: choose another folder",
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
    fn an_unpublished_folder_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let draft = Draft::new(&dir.path().join("out")).unwrap();
        draft.write("a", b"x").unwrap();
        drop(draft);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn an_empty_target_is_accepted_and_a_filled_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        Draft::new(dir.path()).unwrap().publish().unwrap();
        fs::write(dir.path().join("a"), "x").unwrap();
        assert_eq!(Draft::new(dir.path()).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
    }

    #[test]
    fn a_target_that_is_filled_meanwhile_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let draft = Draft::new(&target).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("a"), "x").unwrap();
        assert_eq!(draft.publish().unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_target_that_is_a_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Draft::new(file.path()).is_err());
    }
}
