//! A file of keys on disk: read, changed and replaced as a whole, by one program at a time.
//!
//! The new text is written beside the old and renamed over it, so that a gateway, or a crash, sees
//! one or the other.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portcullis_policies::auth::api_keys::{KeyEntry, read_entries};
use tempfile::NamedTempFile;

use super::edit::{Change, edited};

/// Hashes only, but nobody else's business.
const MODE: u32 = 0o600;

#[derive(Debug)]
pub(super) struct KeysFile {
    /// With symbolic links resolved, so that a rename replaces the file and no link.
    path: PathBuf,
    text: String,
    entries: Vec<KeyEntry>,
    /// Locked until this is dropped.
    file: File,
}

/// Or what is wrong with the file, as sentences for the operator.
type Opened = Result<KeysFile, Vec<String>>;

impl KeysFile {
    /// # Errors
    /// There is no such file, or it cannot be read.
    pub(super) fn open(path: &Path) -> anyhow::Result<Opened> {
        let opened = Self::locked(path).with_context(|| format!("cannot read {}", path.display()));
        let (path, file, text) = opened?;
        Ok(read_entries(text.as_bytes()).map(|entries| Self { path, text, entries, file }))
    }

    /// # Errors
    /// As [`Self::open`]; a file that does not exist is made, without keys.
    pub(super) fn open_or_new(path: &Path) -> anyhow::Result<Opened> {
        match File::create_new(path) {
            Ok(file) => file.set_permissions(Permissions::from_mode(MODE))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot make {}", path.display()));
            }
        }
        Self::open(path)
    }

    /// Waits for whoever is changing it. They replace it, so it is opened again after the wait.
    fn locked(path: &Path) -> io::Result<(PathBuf, File, String)> {
        let path = fs::canonicalize(path)?;
        loop {
            let mut file = File::open(&path)?;
            file.lock()?;
            let (ours, current) = (file.metadata()?, fs::metadata(&path)?);
            if (ours.dev(), ours.ino()) == (current.dev(), current.ino()) {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                return Ok((path, file, text));
            }
        }
    }

    pub(super) fn entries(&self) -> &[KeyEntry] {
        &self.entries
    }

    pub(super) fn position(&self, id: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.id == id)
    }

    pub(super) fn change(&mut self, change: Change<'_>) {
        change.apply(&mut self.entries);
        self.text = edited(&self.text, change, &self.entries);
    }

    /// # Errors
    /// The file is as it was.
    pub(super) fn save(self) -> anyhow::Result<()> {
        let replaced = self.replace();
        replaced.with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn replace(&self) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let mut new = NamedTempFile::new_in(directory)?;
        new.write_all(self.text.as_bytes())?;
        let (old, made) = (self.file.metadata()?, new.as_file().metadata()?);
        // Whoever could read it must still be able to: a gateway of another user.
        if (old.uid(), old.gid()) != (made.uid(), made.gid()) {
            std::os::unix::fs::fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        new.as_file().set_permissions(old.permissions())?;
        new.as_file().sync_all()?;
        new.persist(&self.path).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use portcullis_policies::auth::api_keys::generate;

    use super::*;

    #[test]
    fn a_file_keeps_its_mode_and_its_link() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&real, "# Comment\n").unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let mut file = KeysFile::open_or_new(&link).unwrap().unwrap();
        file.change(Change::Append(&generate([1; 32], "a", "acme").unwrap().entry));
        file.save().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o640);
        let text = fs::read_to_string(&real).unwrap();
        assert!(text.starts_with("# Comment\n- id: \"a\"\n"), "{text}");
        let names = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(names, 2, "something was left beside it");
    }

    #[test]
    fn changes_at_the_same_time_are_all_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.yaml");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    let mut file = KeysFile::open_or_new(path).unwrap().unwrap();
                    let key = generate([n; 32], &format!("k{n}"), "acme").unwrap();
                    file.change(Change::Append(&key.entry));
                    file.save().unwrap();
                });
            }
        });
        assert_eq!(KeysFile::open(&path).unwrap().unwrap().entries().len(), 8);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
    }
}
