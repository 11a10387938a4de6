//! Passive outlier detection: endpoints that fail or dawdle more than the others of their backend
//! get no requests for a while.
//!
//! Nothing is decided while a request waits. Requests leave counts behind ([`crate::Verdict`]);
//! [`judge`] compares them once in [`INTERVAL`]. Everything is measured against the other
//! endpoints: where all of them fail it is the backend, or what is asked of it, and to leave out
//! some would only put their load on the rest. See `LIFECYCLE.md`.

use std::time::Duration;

use crate::mix::Mix;
use crate::verdict::Counts;

/// Between two judgements.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// What of the counts is left after an interval: what is seen goes back about five seconds.
const FADE: f64 = 0.8;
/// An excess by chance alone is this many standard errors once in some millions of times.
const DEVIATIONS: f64 = 5.0;
/// An endpoint this little slower than the others is not worth to be left out.
const SLOWER: Duration = Duration::from_millis(5);
/// Ejections in a row of which each doubles the time.
const DOUBLINGS_MAX: u32 = 16;
/// Share of an ejection by which it varies either way.
const JITTER: f64 = 0.15;

/// What takes an endpoint out, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Errors in a row, seen from here; 0 for never.
    pub in_a_row: u32,
    /// How much more of its requests fail than of the others', as a share of one: for errors seen
    /// from here, and for statuses of 500 and more.
    pub errors: Option<f64>,
    pub statuses: Option<f64>,
    /// How many times as long its answers take as those of the others.
    pub latency: Option<f64>,
    /// Requests (of about the last five seconds) below which no share means anything.
    pub requests_min: u32,
    /// How long the first ejection takes; each further one in a row takes twice as long.
    pub pause: Duration,
    pub pause_max: Duration,
    /// Of a hundred endpoints, no more are out at once.
    pub ejected_max: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            in_a_row: 5,
            errors: Some(0.3),
            statuses: Some(0.3),
            latency: None,
            requests_min: 20,
            pause: Duration::from_secs(10),
            pause_max: Duration::from_secs(300),
            ejected_max: 50,
        }
    }
}

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Errors,
    Statuses,
    Latency,
}

impl Reason {
    pub const ALL: [Self; 3] = [Self::Errors, Self::Statuses, Self::Latency];

    /// As metrics and the log name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Statuses => "statuses",
            Self::Latency => "latency",
        }
    }
}

/// A change worth a log line.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Ejected {
        reason: Reason,
        pause: Duration,
        /// For the log.
        detail: String,
    },
    Returned,
}

/// What is remembered of one endpoint between judgements. It outlives reloads with its endpoint.
#[derive(Debug)]
pub(crate) struct Judged {
    mix: Mix,
    seen: Counts,
    recent: Recent,
    /// Out until then.
    until: Option<Duration>,
    /// Ejections that count towards the length of the next one.
    times: u32,
    /// Since when it has done nothing wrong.
    quiet: Duration,
}

/// Faded counts.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    ended: f64,
    errors: f64,
    statuses: f64,
    timed: f64,
    logarithms: f64,
    in_a_row: u32,
}

/// One endpoint before the judge.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) judged: &'a mut Judged,
    pub(crate) counts: Counts,
    /// Its checks do not say that it is down: what remains must be of some use.
    pub(crate) usable: bool,
}

/// What is held against a case, and how much.
#[derive(Debug)]
struct Charge {
    case: usize,
    reason: Reason,
    excess: f64,
    detail: String,
}

impl Judged {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            mix: Mix::new(seed),
            seen: Counts::default(),
            recent: Recent::default(),
            until: None,
            times: 0,
            quiet: Duration::ZERO,
        }
    }

    /// Nobody is judged any more: forgets everything but what was counted.
    pub(crate) fn acquit(&mut self) {
        (self.recent, self.until, self.times) = (Recent::default(), None, 0);
    }

    fn observe(&mut self, counts: Counts) {
        let seen = std::mem::replace(&mut self.seen, counts);
        let recent = &mut self.recent;
        for (sum, now, before) in [
            (&mut recent.ended, counts.ended, seen.ended),
            (&mut recent.errors, counts.errors, seen.errors),
            (&mut recent.statuses, counts.statuses, seen.statuses),
            (&mut recent.timed, counts.timed, seen.timed),
            (&mut recent.logarithms, counts.logarithms, seen.logarithms),
        ] {
            *sum = *sum * FADE + now.saturating_sub(before) as f64;
        }
        recent.in_a_row = match recent.in_a_row {
            // What stood in a row when it was ejected is paid for.
            paid if counts.in_a_row == seen.in_a_row => paid,
            _ => counts.in_a_row,
        };
    }

    fn eject(&mut self, terms: &Terms, now: Duration) -> Duration {
        let pause = terms.pause.saturating_mul(1 << self.times.min(DOUBLINGS_MAX));
        let pause = pause.min(terms.pause_max).max(INTERVAL);
        let vary = 1.0 - JITTER + 2.0 * JITTER * (self.mix.below(1 << 20) as f64 / 1_048_576.0);
        let pause = pause.mul_f64(vary);
        self.until = Some(now + pause);
        self.times = (self.times + 1).min(DOUBLINGS_MAX);
        self.recent = Recent::default();
        pause
    }

    /// Brings it back when its time has come; otherwise forgives an old ejection for each pause
    /// without a new one.
    fn settle(&mut self, terms: &Terms, now: Duration) -> Option<Event> {
        if let Some(until) = self.until {
            if now < until {
                return None;
            }
            (self.until, self.quiet, self.recent) = (None, now, Recent::default());
            return Some(Event::Returned);
        }
        while self.times > 0 && now.saturating_sub(self.quiet) >= terms.pause.max(INTERVAL) {
            self.times -= 1;
            self.quiet += terms.pause.max(INTERVAL);
        }
        None
    }
}

/// One judgement over the endpoints of a backend that are in service: what has changed, by their
/// positions.
pub(crate) fn judge(terms: &Terms, now: Duration, cases: &mut [Case<'_>]) -> Vec<(usize, Event)> {
    let mut events = Vec::new();
    for (at, case) in cases.iter_mut().enumerate() {
        case.judged.observe(case.counts);
        events.extend(case.judged.settle(terms, now).map(|event| (at, event)));
    }
    let mut charges: Vec<Charge> = (0..cases.len())
        .filter(|at| cases[*at].judged.until.is_none())
        .filter_map(|at| charge(terms, cases, at))
        .collect();
    // The worst goes first, since not all may go.
    charges.sort_by(|a, b| b.excess.total_cmp(&a.excess).then(a.case.cmp(&b.case)));
    let most = cases.len() * terms.ejected_max.min(100) as usize / 100;
    let out = cases.iter().filter(|case| case.judged.until.is_some()).count();
    charges.truncate(most.saturating_sub(out));
    for Charge { case: at, reason, detail, .. } in charges {
        let stays = |case: &(usize, &Case<'_>)| {
            case.0 != at && case.1.usable && case.1.judged.until.is_none()
        };
        if !cases.iter().enumerate().any(|case| stays(&case)) {
            continue;
        }
        let pause = cases[at].judged.eject(terms, now);
        events.push((at, Event::Ejected { reason, pause, detail }));
    }
    events
}

/// What is held against one of the cases, the worst first.
fn charge(terms: &Terms, cases: &[Case<'_>], at: usize) -> Option<Charge> {
    let own = &cases[at].judged.recent;
    if terms.in_a_row > 0 && own.in_a_row >= terms.in_a_row {
        let detail = format!("{} errors in a row", own.in_a_row);
        // Nothing it has answered since speaks for it, so it comes before any share.
        let excess = 1.0 + f64::from(own.in_a_row);
        return Some(Charge { case: at, reason: Reason::Errors, excess, detail });
    }
    let failing = |limit: Option<f64>, reason, of: fn(&Recent) -> f64| {
        let (excess, detail) = more_fail(terms, limit?, cases, at, of)?;
        Some(Charge { case: at, reason, excess, detail })
    };
    failing(terms.errors, Reason::Errors, |recent| recent.errors)
        .or_else(|| failing(terms.statuses, Reason::Statuses, |recent| recent.statuses))
        .or_else(|| {
            let (excess, detail) = slower(terms, terms.latency?, cases, at)?;
            Some(Charge { case: at, reason: Reason::Latency, excess, detail })
        })
}

/// The others that are judged and not out.
fn others<'a>(cases: &'a [Case<'_>], at: usize) -> impl Iterator<Item = &'a Recent> {
    let others = cases.iter().enumerate().filter(move |(other, _)| *other != at);
    others.filter(|(_, case)| case.judged.until.is_none()).map(|(_, case)| &case.judged.recent)
}

/// Whether more of its requests fail than of the others', by `limit` and by more than chance.
fn more_fail(
    terms: &Terms,
    limit: f64,
    cases: &[Case<'_>],
    at: usize,
    failed: fn(&Recent) -> f64,
) -> Option<(f64, String)> {
    // A failure may be counted long after its request began, when others have faded.
    let sums = |recent: &Recent| (failed(recent), recent.ended.max(failed(recent)));
    let (bad, all) = sums(&cases[at].judged.recent);
    let (others_bad, others_all) =
        others(cases, at).map(sums).fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let least = f64::from(terms.requests_min.max(1));
    if all < least || others_all < least {
        return None;
    }
    let excess = bad / all - others_bad / others_all;
    let pooled = (bad + others_bad) / (all + others_all);
    let error = (pooled * (1.0 - pooled) * (1.0 / all + 1.0 / others_all)).sqrt();
    let share = |bad: f64, all: f64| (bad / all * 100.0).round();
    (excess >= limit && excess >= DEVIATIONS * error).then(|| {
        let (own, theirs) = (share(bad, all), share(others_bad, others_all));
        (excess, format!("{own} % of its requests failed, {theirs} % of the others'"))
    })
}

/// Whether its answers take `factor` times as long as those of the endpoint in the middle of the
/// others.
fn slower(terms: &Terms, factor: f64, cases: &[Case<'_>], at: usize) -> Option<(f64, String)> {
    let least = f64::from(terms.requests_min.max(1));
    // Microseconds: the geometric mean.
    let typical = |recent: &Recent| {
        (recent.timed >= least).then(|| (recent.logarithms / recent.timed / 1_024.0).exp2())
    };
    let own = typical(&cases[at].judged.recent)?;
    let mut theirs: Vec<f64> = others(cases, at).filter_map(typical).collect();
    theirs.sort_by(f64::total_cmp);
    let middle = *theirs.get(theirs.len().checked_sub(1)? / 2)?;
    let slower = own >= middle * factor && own >= middle + SLOWER.as_micros() as f64;
    slower.then(|| {
        let (own_ms, middle_ms) = (own / 1e3, middle / 1e3);
        let detail = format!("answers take {own_ms:.0} ms, those of the others {middle_ms:.0} ms");
        // Below any share of failures: what answers slowly answers.
        (-middle / own, detail)
    })
}

#[cfg(test)]
mod tests;
