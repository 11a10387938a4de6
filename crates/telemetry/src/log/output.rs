//! The writer's end: whole lines into something that may fail at any byte, and recover.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

/// A target, and where in a line it stands.
pub(crate) struct Output {
    writer: Box<dyn Write + Send>,
    path: Option<PathBuf>,
    at_line_start: bool,
    had_error: bool,
}

/// What became of one batch.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Lines that are not in the target whole.
    pub(crate) dropped: u64,
    pub(crate) error: Option<io::Error>,
}

impl Output {
    pub(crate) fn new(writer: Box<dyn Write + Send>, path: Option<PathBuf>) -> Self {
        Self { writer, path, at_line_start: true, had_error: false }
    }

    /// Whether an earlier batch failed; asked after one that did not, and forgotten then.
    pub(crate) fn had_error(&mut self) -> bool {
        std::mem::take(&mut self.had_error)
    }

    /// Opens the file by its name again; keeps the old one when that fails.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.writer = Box::new(super::open_file(path)?);
            self.at_line_start = true;
        }
        Ok(())
    }

    /// Writes lines until the target refuses. A line that was cut off is ended before the next
    /// one, so that a full disk spoils one line and not two.
    pub(crate) fn write_lines(&mut self, lines: &[u8]) -> Outcome {
        let mut rest = lines;
        let error = self.write_all(&mut rest).err();
        let dropped = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.had_error |= error.is_some();
        Outcome { dropped, error }
    }

    /// Moves `rest` behind what has been written.
    fn write_all(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        if !self.at_line_start {
            self.writer.write_all(b"\n")?;
            self.at_line_start = true;
        }
        while !rest.is_empty() {
            match self.writer.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.at_line_start = rest[written - 1] == b'\n';
                    *rest = &rest[written..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.writer.flush()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("path", &self.path).finish_non_exhaustive()
    }
}
