//! The files of wire cases, read. What their lines mean is said in `crates/wire/cases/README.md`.

use std::time::Duration;

use crate::check::Check;
use crate::escape::unescape;
use crate::frames;
use crate::verdict::{Must, Verdict};

/// One thing that a client does, or that happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A connection is opened, and what follows happens on it.
    Connect,
    /// The same for HTTP/2: the preface and the exchange of SETTINGS are done.
    ConnectH2,
    Send(Vec<u8>),
    /// Everybody does what they can do with what has been sent.
    Pause,
    /// The client has said its last.
    HalfClose,
    /// Time passes.
    Advance(Duration),
    /// The connection is still open, and nothing has been answered.
    Waits,
    /// The backend goes on that was told to `hold`.
    Release,
    /// So many more connections are opened, and say nothing.
    Crowd(usize),
}

/// What the backend does with a request to `/u/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Send(Vec<u8>),
    /// Nothing, until the client releases it.
    Hold,
    Close,
    /// From now on it only listens.
    Tunnel,
}

/// The backend's part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Empty: it answers like everywhere else.
    pub acts: Vec<Act>,
    /// It does not wait for the request's body.
    pub early: bool,
}

/// What a client does, and what must come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// `SM-01`
    pub id: String,
    pub title: String,
    /// Why it is here: how severe it is, and who fell for it.
    pub origin: String,
    pub critical: bool,
    pub steps: Vec<Step>,
    pub script: Script,
    /// The route allows WebSocket.
    pub upgrades: bool,
    pub must: Must,
    /// A check that fails makes a warning only.
    pub soft: bool,
    pub checks: Vec<Check>,
    /// A verdict that is not the best one, and why it is right for us.
    pub accepted: Option<(Verdict, String)>,
}

impl Case {
    /// What precedes the number in the id: `SM`.
    #[must_use]
    pub fn area(&self) -> &str {
        self.id.split('-').next().unwrap_or_default()
    }
}

/// The cases of a file.
///
/// # Panics
/// With the number of the line that says nothing.
#[must_use]
pub fn cases(name: &str, text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut reading: Option<Reader> = None;
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let outcome = match line.strip_prefix("  ") {
            Some(line) => match &mut reading {
                Some(reader) => reader.line(line),
                None => Err("outside of a case".to_owned()),
            },
            None => {
                cases.extend(reading.take().map(Reader::done));
                Reader::begin(line).map(|reader| reading = Some(reader))
            }
        };
        if let Err(fault) = outcome {
            panic!("{name}:{}: {fault}\n{line}", number + 1);
        }
    }
    cases.extend(reading.map(Reader::done));
    cases
}

struct Reader {
    case: Case,
    /// Bytes of consecutive lines, which are sent at once.
    pending: Vec<u8>,
    /// Lines that are repeated, how often, and after how many times there is a pause.
    repeat: Option<(usize, usize, Vec<String>)>,
    said: bool,
}

impl Reader {
    fn begin(line: &str) -> Result<Self, String> {
        let (id, title) = line.split_once(' ').ok_or("ID TITLE")?;
        if !id.contains('-') {
            return Err(format!("{id} is no id"));
        }
        let case = Case {
            id: id.to_owned(),
            title: title.to_owned(),
            origin: String::new(),
            critical: false,
            steps: Vec::new(),
            script: Script::default(),
            upgrades: false,
            must: Must::Hold,
            soft: false,
            checks: Vec::new(),
            accepted: None,
        };
        Ok(Self { case, pending: Vec::new(), repeat: None, said: false })
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some((times, by, mut lines)) = self.repeat.take() {
            if word == "end" {
                return self.repeated(times, by, &lines);
            }
            lines.push(line.to_owned());
            self.repeat = Some((times, by, lines));
            return Ok(());
        }
        match word {
            ">" => {
                self.connected();
                self.pending.extend_from_slice(&unescape(rest)?);
            }
            "repeat" => {
                let (times, by) = rest.split_once(" by ").unwrap_or((rest, rest));
                self.repeat = Some((number(times)?, number(by)?, Vec::new()));
            }
            _ if word.chars().all(|c| c.is_ascii_uppercase() || c == '_') => {
                frames::encode(line, 0, &mut self.pending)?;
            }
            "from" => {
                self.case.critical = rest.starts_with("critical;");
                rest.clone_into(&mut self.case.origin);
            }
            "backend" => self.backend(rest)?,
            "must" => {
                self.case.must = rest.parse()?;
                self.said = true;
            }
            "and" => self.case.checks.push(rest.parse()?),
            "soft" => self.case.soft = true,
            "upgrades" => self.case.upgrades = true,
            "accepted" => {
                let (verdict, why) = rest.split_once(": ").ok_or("VERDICT: WHY")?;
                self.case.accepted = Some((verdict.parse()?, why.to_owned()));
            }
            _ => {
                let step = step(word, rest)?;
                self.step(step);
            }
        }
        Ok(())
    }

    fn backend(&mut self, rest: &str) -> Result<(), String> {
        let act = match rest.split_once(' ').unwrap_or((rest, "")) {
            ("early", "") => {
                self.case.script.early = true;
                return Ok(());
            }
            ("hold", "") => Act::Hold,
            ("close", "") => Act::Close,
            ("tunnel", "") => Act::Tunnel,
            ("<", bytes) => Act::Send(unescape(bytes)?),
            _ => return Err(format!("a backend does not {rest}")),
        };
        match (&act, self.case.script.acts.last_mut()) {
            (Act::Send(more), Some(Act::Send(bytes))) => bytes.extend_from_slice(more),
            _ => self.case.script.acts.push(act),
        }
        Ok(())
    }

    fn repeated(&mut self, times: usize, by: usize, lines: &[String]) -> Result<(), String> {
        for index in 0..times {
            for line in lines {
                frames::encode(line, index, &mut self.pending)?;
            }
            if (index + 1) % by == 0 && index + 1 < times {
                self.step(Step::Pause);
            }
        }
        Ok(())
    }

    fn step(&mut self, step: Step) {
        if !matches!(step, Step::Connect | Step::ConnectH2) {
            self.connected();
        }
        if !self.pending.is_empty() {
            self.case.steps.push(Step::Send(std::mem::take(&mut self.pending)));
        }
        self.case.steps.push(step);
    }

    /// What is sent first opens a connection.
    fn connected(&mut self) {
        if self.case.steps.is_empty() {
            self.case.steps.push(Step::Connect);
        }
    }

    fn done(mut self) -> Case {
        assert!(self.repeat.is_none(), "{}: repeat without end", self.case.id);
        assert!(self.said, "{}: what must come of it?", self.case.id);
        self.step(Step::Pause);
        self.case
    }
}

fn step(word: &str, rest: &str) -> Result<Step, String> {
    Ok(match (word, rest) {
        ("client", "") => Step::Connect,
        ("h2", "") => Step::ConnectH2,
        ("pause", "") => Step::Pause,
        ("half-close", "") => Step::HalfClose,
        ("release", "") => Step::Release,
        ("waits", "") => Step::Waits,
        ("crowd", count) => Step::Crowd(number(count)?),
        ("advance", time) => {
            let milliseconds = time.strip_suffix("ms").ok_or("advance 500ms")?;
            Step::Advance(Duration::from_millis(number(milliseconds)? as u64))
        }
        _ => return Err(format!("{word} is nothing that happens")),
    })
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}
