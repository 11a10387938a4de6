//! The circuit breaker of an endpoint or of a whole backend: when too many requests fail it refuses
//! them at once, and finds out by a few whether things are better.
//!
//! The machine is [`next`]; `LIFECYCLE.md` has the same table, and a test compares them. What is
//! around it counts failures, measures the time that it is open, and numbers its probes. No lock:
//! the state is one word.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::window::{Sum, Window};

/// Probes of one half-open time.
pub const PROBES_MAX: u32 = 63;
/// After so long without a verdict its probes make room for others: one that hangs, with nobody who
/// gives up on it, must not keep a backend closed that is well again.
pub const PROBE_LOST: Duration = Duration::from_secs(30);
/// Times in a row that it opened, of which each doubles how long it stays open.
const DOUBLINGS_MAX: u64 = 15;

/// When a breaker opens, and what it takes to close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Of a hundred requests so many have to fail.
    pub percent: u32,
    /// Fewer requests in the window say nothing.
    pub requests_min: u32,
    pub window: Duration,
    /// How long it is open at first; each time that a probe fails twice as long.
    pub open: Duration,
    pub open_max: Duration,
    /// Requests that are let through while half-open, all of which have to pass; at most
    /// [`PROBES_MAX`].
    pub probes: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            percent: 50,
            requests_min: 20,
            window: Duration::from_secs(5),
            open: Duration::from_secs(5),
            open_max: Duration::from_secs(30),
            probes: 3,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Requests pass and are counted.
    Closed,
    /// None passes.
    Open,
    /// A few pass, to find out.
    HalfOpen,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// As metrics and the log name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// What moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request failed, and with it too many of the window.
    TooManyFailed,
    /// A request came after the open time was over.
    Asked,
    ProbeFailed,
    /// The last probe that was needed passed.
    ProbesPassed,
    /// A reload ended the breaker.
    Removed,
}

impl Event {
    pub const ALL: [Self; 5] =
        [Self::TooManyFailed, Self::Asked, Self::ProbeFailed, Self::ProbesPassed, Self::Removed];
}

/// The whole machine; `None` where an event changes nothing.
#[must_use]
pub const fn next(state: State, event: Event) -> Option<State> {
    match (state, event) {
        (State::Closed, Event::TooManyFailed) | (State::HalfOpen, Event::ProbeFailed) => {
            Some(State::Open)
        }
        (State::Open, Event::Asked) => Some(State::HalfOpen),
        (State::HalfOpen, Event::ProbesPassed)
        | (State::Open | State::HalfOpen, Event::Removed) => Some(State::Closed),
        _ => None,
    }
}

/// Leave to send one request, to be given back with [`Breaker::ended`] or [`Breaker::abandoned`].
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The number of the half-open time that it is a probe of.
    probe: Option<u8>,
}

impl Pass {
    /// That of a breaker that is closed.
    pub const FREE: Self = Self { probe: None };

    /// Whether the breaker waits for what becomes of this request.
    #[must_use]
    pub const fn is_probe(self) -> bool {
        self.probe.is_some()
    }
}

/// A change worth a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Opened {
        /// For how long.
        open: Duration,
        /// Of how many requests how many failed; none when it was a probe.
        ended: u64,
        failed: u64,
    },
    Closed,
}

#[derive(Debug, Default)]
pub struct Breaker {
    word: AtomicU64,
    window: Window,
    opened: AtomicU64,
    refused: AtomicU64,
}

/// What the word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    state: State,
    /// Openings in a row.
    again: u64,
    /// Counts the openings, so that a probe of long ago is not taken for one of now.
    serial: u8,
    /// Probes that may still be sent.
    left: u64,
    /// Probes that have still to pass.
    due: u64,
    /// Open until then, in milliseconds; half-open: when probes are lost.
    until: u64,
}

const UNTIL_MAX: u64 = (1 << 38) - 1;

impl Word {
    const fn read(word: u64) -> Self {
        Self {
            state: match word & 3 {
                0 => State::Closed,
                1 => State::Open,
                _ => State::HalfOpen,
            },
            again: (word >> 2) & 15,
            serial: (word >> 6) as u8,
            left: (word >> 14) & 63,
            due: (word >> 20) & 63,
            until: word >> 26,
        }
    }

    const fn pack(self) -> u64 {
        let state = match self.state {
            State::Closed => 0,
            State::Open => 1,
            State::HalfOpen => 2,
        };
        state
            | self.again << 2
            | (self.serial as u64) << 6
            | self.left << 14
            | self.due << 20
            | self.until << 26
    }

    /// After an event that the machine knows in this state.
    fn after(self, event: Event) -> Option<Self> {
        Some(Self { state: next(self.state, event)?, ..self })
    }
}

impl Breaker {
    #[must_use]
    pub fn state(&self) -> State {
        Word::read(self.word.load(Relaxed)).state
    }

    /// How often it opened.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// How many requests it did not let through.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Whether [`Self::enter`] would give a pass.
    pub(crate) fn is_passable(&self, now: Duration) -> bool {
        let word = Word::read(self.word.load(Relaxed));
        match word.state {
            State::Closed => true,
            State::Open => millis(now) >= word.until,
            State::HalfOpen => word.left > 0 || millis(now) >= word.until,
        }
    }

    /// When it is worth to ask again.
    pub(crate) fn opens_in(&self, now: Duration) -> Duration {
        let word = Word::read(self.word.load(Relaxed));
        match word.state {
            State::Open => Duration::from_millis(word.until.saturating_sub(millis(now))),
            _ => Duration::ZERO,
        }
    }

    /// Leave to send a request.
    ///
    /// # Errors
    /// It is open, or has as many probes under way as it may: come back after this time.
    pub fn enter(&self, now: Duration) -> Result<Pass, Duration> {
        let lost = millis(now.saturating_add(PROBE_LOST));
        let entered = self.word.fetch_update(Relaxed, Relaxed, |packed| {
            let word = Word::read(packed);
            let word = match word.state {
                State::Closed => return None,
                State::Open if millis(now) < word.until => return None,
                // How many there are was written down when it opened.
                State::Open => Word { due: word.left, until: lost, ..word.after(Event::Asked)? },
                // Those that are lost still count, should they ever end.
                State::HalfOpen if word.left == 0 && millis(now) >= word.until => {
                    Word { left: word.due, until: lost, ..word }
                }
                State::HalfOpen => word,
            };
            Some(Word { left: word.left.checked_sub(1)?, ..word }.pack())
        });
        let packed = match entered {
            Ok(packed) | Err(packed) => packed,
        };
        let word = Word::read(packed);
        if entered.is_ok() {
            return Ok(Pass { probe: Some(word.serial) });
        }
        if word.state == State::Closed {
            return Ok(Pass::FREE);
        }
        self.refused.fetch_add(1, Relaxed);
        Err(self.opens_in(now))
    }

    /// A request came to an end of which one can tell whether it was a failure.
    pub fn ended(&self, terms: &Terms, pass: Pass, failed: bool, now: Duration) -> Option<Change> {
        let Some(serial) = pass.probe else {
            self.window.count(terms.window, failed, now);
            if !failed {
                // Only a failure can make the share too large.
                return None;
            }
            let sum = self.window.sum(terms.window, now);
            let few = sum.ended < u64::from(terms.requests_min.max(1));
            if few || sum.failed * 100 < sum.ended * u64::from(terms.percent.max(1)) {
                return None;
            }
            return self.open(terms, Event::TooManyFailed, None, sum, now);
        };
        if failed {
            return self.open(terms, Event::ProbeFailed, Some(serial), Sum::default(), now);
        }
        let passed = self.word.fetch_update(Relaxed, Relaxed, |packed| {
            let word = Word::read(packed);
            if word.state != State::HalfOpen || word.serial != serial {
                return None;
            }
            match word.due.saturating_sub(1) {
                0 => word.after(Event::ProbesPassed).map(|word| Word { again: 0, ..word }.pack()),
                due => Some(Word { due, ..word }.pack()),
            }
        });
        let closed = Word::read(passed.ok()?).due <= 1;
        if closed {
            // Otherwise what opened it would open it at the next failure.
            self.window.clear();
        }
        closed.then_some(Change::Closed)
    }

    /// A request ended without a verdict. If it was a probe, another one may be sent.
    pub fn abandoned(&self, pass: Pass) {
        let Some(serial) = pass.probe else { return };
        _ = self.word.fetch_update(Relaxed, Relaxed, |packed| {
            let word = Word::read(packed);
            let is_its = word.state == State::HalfOpen && word.serial == serial;
            (is_its && word.left < word.due).then(|| Word { left: word.left + 1, ..word }.pack())
        });
    }

    /// A reload says that there is no breaker here any more.
    pub fn remove(&self) {
        let removed = self.word.fetch_update(Relaxed, Relaxed, |packed| {
            let word = Word::read(packed).after(Event::Removed)?;
            Some(Word { again: 0, ..word }.pack())
        });
        if removed.is_ok() {
            self.window.clear();
        }
    }

    fn open(
        &self,
        terms: &Terms,
        event: Event,
        serial: Option<u8>,
        sum: Sum,
        now: Duration,
    ) -> Option<Change> {
        let pause = |again: u64| {
            terms.open.saturating_mul(1 << again.min(DOUBLINGS_MAX)).min(terms.open_max)
        };
        let opened = self.word.fetch_update(Relaxed, Relaxed, |packed| {
            let word = Word::read(packed);
            if serial.is_some_and(|serial| serial != word.serial) {
                return None;
            }
            let open = word.after(event)?;
            let until = millis(now.saturating_add(pause(word.again)));
            Some(
                Word {
                    again: (word.again + 1).min(DOUBLINGS_MAX),
                    serial: word.serial.wrapping_add(1),
                    left: u64::from(terms.probes.clamp(1, PROBES_MAX)),
                    due: 0,
                    until,
                    ..open
                }
                .pack(),
            )
        });
        let before = Word::read(opened.ok()?);
        self.opened.fetch_add(1, Relaxed);
        let Sum { ended, failed } = sum;
        Some(Change::Opened { open: pause(before.again), ended, failed })
    }
}

fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX).min(UNTIL_MAX)
}

#[cfg(test)]
mod tests;
