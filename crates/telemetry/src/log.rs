//! How lines get from the workers to a file or to standard output.
//!
//! A worker fills a buffer of its own and hands it over whole, through a bounded queue, to one
//! writer thread, which sends the empty buffer back. The worker never waits: what does not fit into
//! the queue, because the disk is slow or the reader of a pipe has stopped, is dropped and counted.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::record::Record;
use crate::timestamp::Stamp;

mod output;

use output::Output;

/// A buffer is handed over when it holds this much.
pub const BATCH_BYTES: usize = 32 * 1024;
/// Or when its first line is this old.
pub const BATCH_AGE: Duration = Duration::from_millis(100);
/// Buffers that may wait for the writer: 4 MiB of lines.
const QUEUE_BATCHES_MAX: usize = 128;
/// Empty buffers that a worker gets back.
const SPARE_MAX: usize = 4;

/// Where lines go.
pub enum Target {
    Stdout,
    /// Appended to; made when it does not exist, readable by owner and group.
    File(PathBuf),
    /// For tests and for embedding; reopening does nothing.
    Writer(Box<dyn Write + Send>),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("Stdout"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Writer(_) => f.write_str("Writer"),
        }
    }
}

/// What became of the lines so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub written: u64,
    pub dropped: u64,
    /// Why the last line that could not be written could not, and since then none could.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    written: AtomicU64,
    dropped: AtomicU64,
    reopen: AtomicBool,
    error: Mutex<Option<String>>,
}

impl Shared {
    fn set_error(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

enum Message {
    Batch(Batch),
    /// Look at the flags.
    Wake,
}

struct Batch {
    bytes: Vec<u8>,
    lines: u64,
    /// Takes the empty buffer back to its worker.
    home: SyncSender<Vec<u8>>,
}

/// The access log of the process: makes the workers' ends and owns the writer thread.
#[derive(Debug)]
pub struct Log {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    ended: Receiver<()>,
}

impl Log {
    /// # Errors
    /// When the file cannot be opened, or the thread cannot be started.
    pub fn start(target: Target) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (queue, batches) = sync_channel(QUEUE_BATCHES_MAX);
        let (end, ended) = sync_channel(1);
        let mut writer = Writer { output: open(target)?, shared: Arc::clone(&shared) };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            writer.run(&batches);
            // Nobody may be waiting for the end.
            end.try_send(()).unwrap_or_default();
        })?;
        Ok(Self { queue, shared, ended })
    }

    /// The end that one worker writes to.
    #[must_use]
    pub fn worker(&self) -> WorkerLog {
        let (home, spare) = sync_channel(SPARE_MAX);
        WorkerLog {
            buffer: Vec::with_capacity(BATCH_BYTES + 4096),
            lines: 0,
            since: Duration::ZERO,
            stamp: Stamp::default(),
            queue: self.queue.clone(),
            shared: Arc::clone(&self.shared),
            home,
            spare,
        }
    }

    /// Opens the file anew by its name, after it was moved away (SIGHUP). The lines that are in the
    /// queue go to the new file. When it cannot be opened, the old one stays in use.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Relaxed);
        // A full queue wakes the writer anyway.
        self.queue.try_send(Message::Wake).unwrap_or_default();
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            written: self.shared.written.load(Relaxed),
            dropped: self.shared.dropped.load(Relaxed),
            error: self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Writes what is in the queue and ends the writer. Drop every [`WorkerLog`] first. `false`:
    /// the target took longer than `wait`, and lines may be lost.
    #[must_use]
    pub fn close(self, wait: Duration) -> bool {
        let Self { queue, ended, .. } = self;
        drop(queue);
        ended.recv_timeout(wait).is_ok()
    }
}

/// One worker's end of the log. Dropping it hands over what it holds.
#[derive(Debug)]
pub struct WorkerLog {
    buffer: Vec<u8>,
    lines: u64,
    /// When the first line of `buffer` came; by the caller's monotonic clock.
    since: Duration,
    stamp: Stamp,
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    home: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
}

impl WorkerLog {
    /// Adds one line. `now` is the monotonic clock.
    pub fn write(&mut self, now: Duration, record: &Record<'_>) {
        if self.lines == 0 {
            self.since = now;
        }
        record.write(&mut self.stamp, &mut self.buffer);
        self.lines += 1;
        if self.buffer.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Hands over lines that have waited for [`BATCH_AGE`]. To be called about as often as that.
    pub fn tick(&mut self, now: Duration) {
        if self.lines > 0 && now.saturating_sub(self.since) >= BATCH_AGE {
            self.flush();
        }
    }

    /// Hands over all lines.
    pub fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        let empty =
            self.spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH_BYTES + 4096));
        let bytes = std::mem::replace(&mut self.buffer, empty);
        let lines = std::mem::take(&mut self.lines);
        let batch = Batch { bytes, lines, home: self.home.clone() };
        if let Err(refused) = self.queue.try_send(Message::Batch(batch)) {
            self.shared.dropped.fetch_add(lines, Relaxed);
            let (TrySendError::Full(message) | TrySendError::Disconnected(message)) = refused;
            if let Message::Batch(mut batch) = message {
                batch.bytes.clear();
                self.buffer = batch.bytes;
            }
        }
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.flush();
    }
}

struct Writer {
    output: Output,
    shared: Arc<Shared>,
}

impl Writer {
    /// Until every sender is gone.
    fn run(&mut self, batches: &Receiver<Message>) {
        for message in batches {
            if self.shared.reopen.swap(false, Relaxed) {
                self.shared.set_error(self.output.reopen().err().map(|error| error.to_string()));
            }
            if let Message::Batch(batch) = message {
                self.write(batch);
            }
        }
    }

    fn write(&mut self, batch: Batch) {
        let Batch { mut bytes, lines, home } = batch;
        let outcome = self.output.write_lines(&bytes);
        self.shared.written.fetch_add(lines - outcome.dropped.min(lines), Relaxed);
        self.shared.dropped.fetch_add(outcome.dropped, Relaxed);
        match outcome.error {
            Some(error) => self.shared.set_error(Some(error.to_string())),
            None if self.output.had_error() => self.shared.set_error(None),
            None => {}
        }
        bytes.clear();
        // A worker that is gone or has spares enough does not want it.
        home.try_send(bytes).unwrap_or_default();
    }
}

fn open(target: Target) -> io::Result<Output> {
    match target {
        // A handle of its own: the standard library's would copy each line through its buffer.
        Target::Stdout => {
            let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            Ok(Output::new(Box::new(stdout), None))
        }
        Target::File(path) => Ok(Output::new(Box::new(open_file(&path)?), Some(path))),
        Target::Writer(writer) => Ok(Output::new(writer, None)),
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o640);
    options
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests;
