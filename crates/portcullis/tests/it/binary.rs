//! Runs the binary in a place of its own.

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use expect_test::Expect;

/// No verb takes this long; one that does hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with files, in which the binary runs.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// With `portcullis.yaml`, which every verb takes unless told otherwise.
    pub(crate) fn with(config: &str) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        place.write("portcullis.yaml", config);
        place
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // As a careful operator does it: the file is old or new, never half written.
        let next = path.with_extension("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(&next, &path).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        run(self.directory.path(), arguments)
    }

    /// With this on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let input = std::fs::File::open(self.write("standard-input", input)).unwrap();
        ran(command(self.directory.path(), arguments).stdin(input))
    }

    pub(crate) fn check(&self, arguments: &[&str], expected: &Expect) {
        expected.assert_eq(&self.run(arguments).shown());
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.directory.path(), arguments)
    }
}

/// Where the examples are.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: i32,
}

impl Ran {
    pub(crate) fn shown(&self) -> String {
        let mut out = self.stdout.clone();
        if !self.stderr.is_empty() {
            out += &format!("--- stderr\n{}", self.stderr);
        }
        out + &format!("--- status {}\n", self.status)
    }

    /// What it printed, if it said yes.
    #[track_caller]
    pub(crate) fn yes(self) -> String {
        assert_eq!(self.status, 0, "{}", self.shown());
        self.stdout
    }
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    // What the person at this terminal likes does not change what is tested.
    for name in ["COLUMNS", "NO_COLOR", "CLICOLOR_FORCE", "PORTCULLIS_LOG"] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Ran {
    ran(&mut command(directory, arguments))
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        status: output.status.code().unwrap(),
    }
}

/// A binary that goes on until it is told to stop.
pub(crate) struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut command = command(directory, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).env("STATE_DIRECTORY", directory);
        let mut child = command.spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Waits for a line of standard output that has this text.
    #[track_caller]
    pub(crate) fn printed(&self, text: &str) -> String {
        wait_for(&self.stdout, text)
    }

    /// Waits for a line of standard error that has this text.
    #[track_caller]
    pub(crate) fn logged(&self, text: &str) -> String {
        wait_for(&self.stderr, text)
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for its end, which closes what it wrote to.
    #[track_caller]
    pub(crate) fn ended(self) -> ExitStatus {
        self.ended_saying().0
    }

    /// [`Self::ended`], with what it still said on standard error.
    #[track_caller]
    pub(crate) fn ended_saying(mut self) -> (ExitStatus, Vec<String>) {
        let mut last = Vec::new();
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) => last.push(line),
                Err(RecvTimeoutError::Disconnected) => return (self.child.wait().unwrap(), last),
                Err(RecvTimeoutError::Timeout) => panic!("it goes on:\n{}", last.join("\n")),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(10_000);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

#[track_caller]
fn wait_for(lines: &Receiver<String>, text: &str) -> String {
    let mut before = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line.contains(text) => return line,
            Ok(line) => before.push(line),
            Err(error) => panic!("no line with `{text}` ({error}) among:\n{}", before.join("\n")),
        }
    }
}
