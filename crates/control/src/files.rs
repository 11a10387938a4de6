//! Reading configuration and the files it refers to, and noticing when any of them changes.
//!
//! Change is noticed by content, looked at once a second: that sees atomic renames, symlink swaps
//! and network mounts alike, where notifications of the file system miss some of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_config::Source;
use portcullis_core::registry::Sources;

/// A secret or certificate larger than this is a mistake.
const FILE_BYTES_MAX: u64 = 16 << 20;

type Fingerprint = Option<blake3::Hash>;

/// The files of one configuration, as they were when they were read.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    /// References are relative to this.
    base: PathBuf,
    seen: Mutex<BTreeMap<PathBuf, Fingerprint>>,
}

/// The configuration itself cannot be read.
#[derive(Debug)]
pub struct FilesError {
    pub path: PathBuf,
    pub error: io::Error,
}

impl std::fmt::Display for FilesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot read {}: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for FilesError {}

impl Files {
    /// `path` is a file, or a directory of `.yaml`, `.yml` and `.json` files.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let base = match path.is_dir() {
            true => path.to_owned(),
            false => path.parent().unwrap_or(Path::new("")).to_owned(),
        };
        Self { path: path.to_owned(), base, seen: Mutex::default() }
    }

    /// What relative paths in the configuration are relative to.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The texts of the configuration, in the order of their names.
    ///
    /// # Errors
    /// The file or directory cannot be read, or holds nothing.
    pub fn texts(&self) -> Result<Vec<Source>, FilesError> {
        let paths = self.parts().map_err(|error| self.error(&self.path, error))?;
        if paths.is_empty() {
            let error =
                io::Error::new(io::ErrorKind::NotFound, "no .yaml, .yml or .json file in it");
            return Err(self.error(&self.path, error));
        }
        let mut sources = Vec::with_capacity(paths.len());
        for path in paths {
            let text = self.read_file(&path).map_err(|error| self.error(&path, error))?;
            let text = String::from_utf8(text).map_err(|error| {
                self.error(&path, io::Error::new(io::ErrorKind::InvalidData, error))
            })?;
            sources.push(Source { name: path.display().to_string(), text });
        }
        Ok(sources)
    }

    /// Whether anything that was read is different now.
    #[must_use]
    pub fn changed(&self) -> bool {
        let seen = self.seen().clone();
        let parts = self.parts().unwrap_or_default();
        parts.iter().any(|part| !seen.contains_key(part))
            || seen.iter().any(|(path, before)| *before != fingerprint(path))
    }

    fn parts(&self) -> io::Result<Vec<PathBuf>> {
        if !self.path.is_dir() {
            return Ok(vec![self.path.clone()]);
        }
        let mut parts = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
            if matches!(extension, Some("yaml" | "yml" | "json")) && !hidden && path.is_file() {
                parts.push(path);
            }
        }
        parts.sort();
        Ok(parts)
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let result = read(path);
        let fingerprint = result.as_ref().ok().map(|bytes| blake3::hash(bytes));
        self.seen().insert(path.to_owned(), fingerprint);
        result
    }

    fn error(&self, path: &Path, error: io::Error) -> FilesError {
        FilesError { path: path.to_owned(), error }
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Fingerprint>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 16 MiB"));
    }
    std::fs::read(path)
}

fn fingerprint(path: &Path) -> Fingerprint {
    read(path).ok().map(|bytes| blake3::hash(&bytes))
}

impl Sources for Files {
    fn read(&self, reference: &str) -> Result<Arc<[u8]>, String> {
        if let Some(name) = reference.strip_prefix("env:") {
            return match std::env::var(name) {
                Ok(value) => Ok(value.into_bytes().into()),
                Err(_) => Err(format!("the environment has no {name}")),
            };
        }
        let Some(path) = reference.strip_prefix("file:") else {
            return Err(format!("`{reference}` is neither `file:PATH` nor `env:NAME`"));
        };
        let path = self.base.join(path);
        let bytes = self.read_file(&path);
        bytes.map(Into::into).map_err(|error| format!("cannot read {}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symlink_swap_and_a_new_file_are_changes_and_the_same_bytes_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("one"), "a: 1").unwrap();
        std::fs::write(at("two"), "a: 2").unwrap();
        std::os::unix::fs::symlink(at("one"), at("main.yaml")).unwrap();
        let files = Files::new(dir.path());
        assert_eq!(files.texts().unwrap().len(), 1);
        std::fs::write(at("one"), "a: 1").unwrap();
        assert!(!files.changed());
        std::os::unix::fs::symlink(at("two"), at("next")).unwrap();
        std::fs::rename(at("next"), at("main.yaml")).unwrap();
        assert!(files.changed());
        files.texts().unwrap();
        assert!(!files.changed());
        std::fs::write(at("more.yml"), "b: 1").unwrap();
        assert!(files.changed());
    }

    #[test]
    fn references_are_relative_to_the_configuration_and_watched() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("portcullis.yaml");
        std::fs::write(&config, "").unwrap();
        let files = Files::new(&config);
        files.texts().unwrap();
        assert!(files.read("file:key").unwrap_err().contains("cannot read"));
        std::fs::write(dir.path().join("key"), "secret").unwrap();
        assert!(files.changed());
        assert_eq!(&*files.read("file:key").unwrap(), b"secret");
        assert!(files.read("secret").unwrap_err().contains("neither"));
    }

    #[test]
    fn a_file_that_is_too_large_or_no_text_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("portcullis.yaml");
        let refusal = || Files::new(&config).texts().unwrap_err().to_string();
        std::fs::write(&config, b"a: \x80\xff\0").unwrap();
        assert!(refusal().contains("invalid utf-8"), "{}", refusal());
        std::fs::File::create(&config).unwrap().set_len(100 << 20).unwrap();
        assert!(refusal().contains("larger than 16 MiB"), "{}", refusal());
    }
}
