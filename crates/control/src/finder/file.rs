//! A file of endpoints, looked at several times a second.
//!
//! Looking is a `stat`, which sees a rename, a symbolic link that points elsewhere and a network
//! file system alike; a kernel's notification does not.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_config::endpoints;
use portcullis_snapshot::listed;
use tokio::time::{Instant, sleep_until};

use super::source::{Listing, Source, SourceFuture};

const LOOK: Duration = Duration::from_millis(250);
/// 4,096 endpoints with all that may be said of them have less.
const BYTES_MAX: u64 = 4 << 20;

pub(super) struct EndpointFile {
    path: PathBuf,
    /// As it was when it was read last, and when it was looked at last.
    read: Option<Stamp>,
    looked: Option<Stamp>,
    /// When it is to be looked at again, whoever has stopped waiting for that in between.
    look_at: Instant,
}

/// Differs when the file does, as far as can be told from outside; `None`: it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, u64, i64, i64)>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let of =
            |at: std::fs::Metadata| (at.dev(), at.ino(), at.size(), at.mtime(), at.mtime_nsec());
        Self(std::fs::metadata(path).ok().map(of))
    }
}

impl EndpointFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: None, looked: None, look_at: Instant::now() }
    }

    fn read(&mut self) -> Result<Listing, String> {
        // Before it is read: a change during that is one that has not been seen.
        self.read = Some(Stamp::of(&self.path));
        (self.looked, self.look_at) = (self.read, Instant::now() + LOOK);
        let bytes = read(&self.path)
            .map_err(|error| format!("cannot read {}: {error}", self.path.display()))?;
        let version = blake3::hash(&bytes).to_hex()[..12].to_owned();
        let text = String::from_utf8(bytes)
            .map_err(|error| format!("{} is not text: {error}", self.path.display()))?;
        let found = endpoints(&self.path.display().to_string(), &text)?;
        let endpoints = found.iter().map(listed).collect();
        Ok(Listing { endpoints, version, valid: None })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let about = std::fs::metadata(path)?;
    // A pipe may have no end, or nobody at its other one: then nothing else would be found either.
    if !about.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if about.len() > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 4 MiB"));
    }
    std::fs::read(path)
}

impl Source for EndpointFile {
    fn list(&mut self) -> SourceFuture<'_, Result<Listing, String>> {
        Box::pin(std::future::ready(self.read()))
    }

    /// Two looks have to agree: a file that somebody is still writing changes between them.
    fn changed(&mut self) -> SourceFuture<'_, ()> {
        Box::pin(async move {
            loop {
                sleep_until(self.look_at).await;
                self.look_at = Instant::now() + LOOK;
                let now = Some(Stamp::of(&self.path));
                let before = std::mem::replace(&mut self.looked, now);
                if now != self.read && now == before {
                    return;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn urls(listing: &Listing) -> Vec<&str> {
        listing.endpoints.iter().map(|one| &*one.url).collect()
    }

    #[tokio::test]
    async fn a_rename_and_a_link_that_points_elsewhere_are_news() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("one"), "endpoints: [\"http://a\"]").unwrap();
        fs::write(at("two"), r#"{"endpoints": ["http://a", "http://b"]}"#).unwrap();
        std::os::unix::fs::symlink(at("one"), at("link")).unwrap();
        let mut file = EndpointFile::new(at("link"));
        let first = file.list().await.unwrap();
        assert_eq!(urls(&first), ["http://a:80"]);
        std::os::unix::fs::symlink(at("two"), at("next")).unwrap();
        fs::rename(at("next"), at("link")).unwrap();
        file.changed().await;
        let second = file.list().await.unwrap();
        assert_eq!(urls(&second), ["http://a:80", "http://b:80"]);
        assert_ne!(first.version, second.version);
        fs::remove_file(at("link")).unwrap();
        file.changed().await;
        assert!(file.list().await.unwrap_err().starts_with("cannot read "));
        fs::rename(at("two"), at("link")).unwrap();
        file.changed().await;
        assert_eq!(urls(&file.list().await.unwrap()).len(), 2);
    }

    /// Whoever waits for other things too begins anew each time that one of them happens.
    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_also_by_those_who_never_wait_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoints.yaml");
        fs::write(&path, "endpoints: []").unwrap();
        let mut file = EndpointFile::new(path.clone());
        file.list().await.unwrap();
        fs::write(&path, "endpoints: [\"http://a\"]").unwrap();
        let mut waits = 0;
        while tokio::time::timeout(LOOK / 2, file.changed()).await.is_err() {
            waits += 1;
            assert!(waits < 100);
        }
        assert_eq!(urls(&file.list().await.unwrap()), ["http://a:80"]);
    }

    #[tokio::test]
    async fn half_a_file_and_a_large_one_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoints.yaml");
        let mut file = EndpointFile::new(path.clone());
        for text in ["", "endpoints:", "endpoints: [\"http://a\"", "endpoints: [\"ftp://a\"]"] {
            fs::write(&path, text).unwrap();
            assert!(file.list().await.is_err(), "{text}");
        }
        fs::write(&path, b"endpoints: [] # \xff").unwrap();
        assert!(file.list().await.unwrap_err().contains("is not text"));
        fs::File::create(&path).unwrap().set_len(5 << 20).unwrap();
        assert!(file.list().await.unwrap_err().contains("larger than 4 MiB"));
        fs::write(&path, "endpoints: []").unwrap();
        assert!(file.list().await.unwrap().endpoints.is_empty());
        let error = EndpointFile::new("/dev/null".into()).list().await.unwrap_err();
        assert!(error.contains("no regular file"), "{error}");
    }
}
