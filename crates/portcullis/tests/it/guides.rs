//! The guides' sessions at a shell: each command is run, and does what the page says it does.
//!
//! `UPDATE_EXPECT=1` writes what the commands have said into the page.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::audit::backend;
use crate::binary::{Place, Running, root};
use crate::run::address;

/// Where the pages' gateway and its backend are.
const GATEWAY: &str = "127.0.0.1:8080";
const BACKEND: &str = "http://127.0.0.1:9000";

#[test]
fn proving_auth() {
    check("docs/guides/proving-auth.md");
}

fn check(page: &str) {
    let path = root().join(page);
    let written = std::fs::read_to_string(&path).unwrap();
    let told = Session::new().follow(&written);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return std::fs::write(&path, &told).unwrap();
    }
    let (written, told) = (steady(&written), steady(&told));
    let differs = written.lines().zip(told.lines()).find(|(written, told)| written != told);
    assert!(
        written == told,
        "{page} says other than its commands do, first at {differs:?}; UPDATE_EXPECT=1 puts it right"
    );
}

/// A page as it is read: files, commands and their outputs.
struct Session {
    place: Place,
    backend: String,
    running: Option<(Running, String)>,
}

impl Session {
    fn new() -> Self {
        Self { place: Place::with(""), backend: backend(), running: None }
    }

    /// The page with what its commands say now.
    fn follow(&mut self, page: &str) -> String {
        let mut told = String::new();
        let mut lines = page.lines().peekable();
        while let Some(line) = lines.next() {
            told += &format!("{line}\n");
            let mut block = Vec::new();
            if line.starts_with("```") {
                while let Some(line) = lines.next_if(|line| !line.starts_with("```")) {
                    block.push(line);
                }
                told += &lines.next().map_or(String::new(), |end| match line {
                    "```console" => format!("{}{end}\n", self.converse(&block)),
                    _ => format!("{}\n{end}\n", block.join("\n")),
                });
            }
            if let ("```yaml", Some(name)) = (line, block.first().and_then(|line| name(line))) {
                self.place.write(name, &self.here(&(block.join("\n") + "\n")));
            }
        }
        told
    }

    /// Commands begin with `$`, their further lines with `>`; everything else is what they say.
    fn converse(&mut self, block: &[&str]) -> String {
        let mut told = String::new();
        let mut lines = block.iter().peekable();
        while let Some(line) = lines.next() {
            let Some(command) = line.strip_prefix("$ ") else { continue };
            told += &format!("{line}\n");
            let mut command = command.to_owned();
            while let Some(line) = lines.next_if(|line| line.starts_with("> ")) {
                told += &format!("{line}\n");
                command += &format!("\n{}", &line[2..]);
            }
            told += &self.run(&command);
        }
        told
    }

    fn run(&mut self, command: &str) -> String {
        if let Some(command) =
            command.strip_prefix("portcullis ").and_then(|c| c.strip_suffix(" &"))
        {
            let command = command.split(" >").next().unwrap_or(command);
            let running = self.place.start(&command.split(' ').collect::<Vec<_>>());
            let address = address(&running.logged("listening"));
            self.running = Some((running, address));
            return String::new();
        }
        if command == "kill %1" {
            self.running = None;
            return String::new();
        }
        self.there(&shell(self.place.path(), &self.here(command)))
    }

    /// The page's addresses are those of this test.
    fn here(&self, text: &str) -> String {
        let text = text.replace(BACKEND, &self.backend);
        let bind = "bind: \"127.0.0.1:0\"";
        let text = text.replace(&format!("bind: \"{GATEWAY}\""), bind);
        match &self.running {
            Some((_, address)) => text.replace(GATEWAY, address),
            None => text,
        }
    }

    fn there(&self, text: &str) -> String {
        let text = text.replace(&self.backend, BACKEND);
        match &self.running {
            Some((_, address)) => text.replace(address, GATEWAY),
            None => text,
        }
    }
}

/// `# NAME: …`, the first line of what is a file.
fn name(line: &str) -> Option<&str> {
    line.strip_prefix("# ")?.split_once(": ").map(|(name, _)| name)
}

/// What a command says, on both of its ways.
fn shell(directory: &Path, command: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_portcullis")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{command}")])
        .current_dir(directory)
        .env("PATH", path)
        .env_remove("CLICOLOR_FORCE")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains(": not found"), "apt-get install openssl curl: {said}");
    match said.is_empty() || said.ends_with('\n') {
        true => said,
        false => said + "\n",
    }
}

/// The text without what is another one each time.
fn steady(text: &str) -> String {
    let mut steady = String::new();
    for line in text.lines() {
        let cut = [" probes in ", "  time  ", "config@1-", "pk_acme-1_", "time=\""];
        let at = cut.iter().find_map(|what| line.find(what).map(|at| at + what.len()));
        steady += &line[..at.unwrap_or(line.len())];
        steady.push('\n');
    }
    steady
}
