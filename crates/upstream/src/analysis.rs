//! A canary on its way up: how much it gets, and when it gets more, or nothing any more.
//!
//! Given what both sides have done so far and the time, it says what share the canary is to have.
//! Counting requests and changing weights is the caller's business. The states are drawn in
//! `LIFECYCLE.md`.

#[cfg(test)]
mod simulated;

use std::time::Duration;

use crate::eprocess::{Counts, EProcess};

/// How likely it is at most that a canary which is no worse is ever rolled back.
pub const ALPHA: f64 = 0.001;
/// Half of it for errors and half for slow answers, so for each so much evidence, to one.
pub const EVIDENCE_MAX: f64 = 2.0 / ALPHA;
/// With so much evidence against it, to one, a canary does not get more.
const DOUBT: f64 = 10.0;
/// More is not remembered of a side to guess its proportions by: what it does may change.
const LEARNT_MAX: u64 = 20_000;
/// A canary that has answered nothing else than errors so often needs no statistics.
const BROKEN_AFTER: u64 = 20;
/// Before the baseline has so many answers, nobody knows what slow is.
const BASELINE_MIN: u64 = 100;
/// What is slow for the baseline: all but one in a hundred of its answers are faster.
const SLOW_SHARE: f64 = 0.01;
/// Events that are remembered.
pub const EVENTS_MAX: usize = 20;

/// How a canary is brought up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnalysisSettings {
    /// Its shares in percent, each more than the one before; at least one.
    pub steps: Vec<u8>,
    /// How long a step takes at least.
    pub every: Duration,
    /// Answers without an error that both sides have given in a step before the next one.
    pub requests_min: u64,
}

/// All that one side has done since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub requests: u64,
    pub errors: u64,
    /// Answers by how long they took, in buckets that both sides share; the last has no end.
    pub durations: Vec<u64>,
}

impl Seen {
    fn since(&self, before: &Self) -> Self {
        let less = |now: u64, before: u64| now.saturating_sub(before);
        let durations = self
            .durations
            .iter()
            .enumerate()
            .map(|(at, now)| less(*now, before.durations.get(at).copied().unwrap_or(0)));
        Self {
            requests: less(self.requests, before.requests),
            errors: less(self.errors, before.errors),
            durations: durations.collect(),
        }
    }

    fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.errors += more.errors;
        self.durations.resize(self.durations.len().max(more.durations.len()), 0);
        for (sum, more) in self.durations.iter_mut().zip(&more.durations) {
            *sum += more;
        }
    }

    fn halve(&mut self) {
        let all = [&mut self.requests, &mut self.errors].into_iter().chain(&mut self.durations);
        all.for_each(|count| *count /= 2);
    }

    fn good(&self) -> u64 {
        self.requests.saturating_sub(self.errors)
    }

    fn failed(&self) -> Counts {
        Counts { trials: self.requests, hits: self.errors.min(self.requests) }
    }

    /// Those of the buckets from `from` on.
    fn slower(&self, from: usize) -> Counts {
        let trials = self.durations.iter().sum();
        Counts { trials, hits: self.durations.iter().skip(from).sum() }
    }

    /// The first bucket that, with all beyond, has no more than [`SLOW_SHARE`] of the answers.
    fn slow_from(&self) -> Option<usize> {
        let all: u64 = self.durations.iter().sum();
        if all < BASELINE_MIN {
            return None;
        }
        let most = all as f64 * SLOW_SHARE;
        (1..self.durations.len()).find(|from| self.slower(*from).hits as f64 <= most)
    }
}

/// Why a canary was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// More errors than the baseline.
    Errors,
    /// More answers that the baseline would call slow.
    Slow,
    /// Nothing but errors.
    Broken,
}

impl Cause {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Slow => "slow",
            Self::Broken => "broken",
        }
    }
}

/// How far a canary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// On this step, from 0.
    Step(usize),
    /// The last step was good. Where that is not all of the traffic, it is still watched.
    Promoted,
    /// It gets nothing any more.
    RolledBack(Cause),
}

/// How far a canary is, or has just come to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    pub stage: Stage,
    /// Its share of the requests.
    pub percent: u8,
    /// For "more errors" and for "slower", so many to one.
    pub evidence: (f64, f64),
}

impl Event {
    /// `step`, `promoted` or `rolled_back`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.stage {
            Stage::Step(_) => "step",
            Stage::Promoted => "promoted",
            Stage::RolledBack(_) => "rolled_back",
        }
    }
}

/// One canary under analysis.
#[derive(Clone, Debug)]
pub struct Analysis {
    settings: AnalysisSettings,
    stage: Stage,
    /// When the step began.
    since: Duration,
    /// What had been counted at the last look.
    last: Option<(Seen, Seen)>,
    /// What both sides did lately.
    learnt: (Seen, Seen),
    /// And in this step.
    in_step: (Seen, Seen),
    errors: EProcess,
    slow: EProcess,
}

impl Analysis {
    /// Begins with the first step.
    #[must_use]
    pub fn new(settings: AnalysisSettings, now: Duration) -> Self {
        Self {
            settings,
            stage: Stage::Step(0),
            since: now,
            last: None,
            learnt: Default::default(),
            in_step: Default::default(),
            errors: EProcess::default(),
            slow: EProcess::default(),
        }
    }

    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The share that the canary is to have now.
    #[must_use]
    pub fn percent(&self) -> u8 {
        let step = match self.stage {
            Stage::Step(step) => self.settings.steps.get(step),
            Stage::Promoted => self.settings.steps.last(),
            Stage::RolledBack(_) => None,
        };
        step.copied().unwrap_or(0)
    }

    /// How much speaks for "more errors" and for "slower", so many to one.
    #[must_use]
    pub fn evidence(&self) -> (f64, f64) {
        (self.errors.evidence(), self.slow.evidence())
    }

    /// Answers of the canary and of the baseline without an error, in this step.
    #[must_use]
    pub fn good(&self) -> (u64, u64) {
        (self.in_step.0.good(), self.in_step.1.good())
    }

    /// How far it is.
    #[must_use]
    pub fn state(&self) -> Event {
        Event { stage: self.stage, percent: self.percent(), evidence: self.evidence() }
    }

    /// Passes over what was counted while somebody else decided about the weights.
    pub fn skip(&mut self, now: Duration, canary: &Seen, baseline: &Seen) {
        self.last = Some((canary.clone(), baseline.clone()));
        self.since = now;
    }

    /// Looks at all that was counted so far; about once a second. Says what has changed.
    pub fn look(&mut self, now: Duration, canary: &Seen, baseline: &Seen) -> Option<Event> {
        let last = self.last.replace((canary.clone(), baseline.clone()));
        // What was there before the canary began is not about it.
        let (before_a, before_b) = last?;
        if matches!(self.stage, Stage::RolledBack(_)) {
            return None;
        }
        let new = (canary.since(&before_a), baseline.since(&before_b));
        self.take_in(&new);
        if let Some(cause) = self.cause() {
            self.stage = Stage::RolledBack(cause);
            return Some(self.state());
        }
        let Stage::Step(step) = self.stage else { return None };
        if now.saturating_sub(self.since) < self.settings.every || !self.is_good_enough() {
            return None;
        }
        // With everything there is no other side left to compare with.
        let next = self.settings.steps.get(step + 1).filter(|percent| **percent < 100);
        self.stage = match next {
            Some(_) => Stage::Step(step + 1),
            None => Stage::Promoted,
        };
        self.in_step = Default::default();
        self.since = now;
        Some(self.state())
    }

    /// Whether the canary may have more. Errors show nothing of how good it is: while both sides
    /// fail, it stays where it is.
    fn is_good_enough(&self) -> bool {
        let (canary, baseline) = self.good();
        let (errors, slow) = self.evidence();
        canary.min(baseline) >= self.settings.requests_min && errors.max(slow) < DOUBT
    }

    fn take_in(&mut self, (canary, baseline): &(Seen, Seen)) {
        let (known, base) = &self.learnt;
        let learnt = (known.failed(), base.failed());
        self.errors.look(canary.failed(), baseline.failed(), learnt);
        if let Some(from) = base.slow_from() {
            let learnt = (known.slower(from), base.slower(from));
            self.slow.look(canary.slower(from), baseline.slower(from), learnt);
        }
        for (sum, more) in [
            (&mut self.learnt.0, canary),
            (&mut self.learnt.1, baseline),
            (&mut self.in_step.0, canary),
            (&mut self.in_step.1, baseline),
        ] {
            sum.add(more);
        }
        let (known, base) = &mut self.learnt;
        if known.requests.max(base.requests) > LEARNT_MAX {
            known.halve();
            base.halve();
        }
    }

    fn cause(&self) -> Option<Cause> {
        let (canary, baseline) = &self.in_step;
        let broken = canary.requests >= BROKEN_AFTER && canary.errors == canary.requests;
        if broken && baseline.errors * 2 < baseline.requests.max(1) {
            return Some(Cause::Broken);
        }
        if self.errors.exceeds(1.0 / EVIDENCE_MAX) {
            return Some(Cause::Errors);
        }
        self.slow.exceeds(1.0 / EVIDENCE_MAX).then_some(Cause::Slow)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn settings(steps: &[u8]) -> AnalysisSettings {
        AnalysisSettings { steps: steps.to_vec(), every: Duration::from_secs(10), requests_min: 50 }
    }

    /// What happens to a canary with these (requests, errors, slow ones) a second, beside a
    /// baseline with as many.
    #[track_caller]
    fn check(
        steps: &[u8],
        canary: impl Fn(u64) -> (u64, u64, u64),
        baseline: (u64, u64, u64),
        expected: &Expect,
    ) {
        let mut analysis = Analysis::new(settings(steps), Duration::ZERO);
        let (mut a, mut b) = (Seen::default(), Seen::default());
        let mut out = format!("0 s: {} %\n", analysis.percent());
        let add = |seen: &mut Seen, (requests, errors, slow): (u64, u64, u64)| {
            seen.add(&Seen { requests, errors, durations: vec![requests - slow, slow] });
        };
        for second in 0..60 {
            let now = Duration::from_secs(second);
            if let Some(event) = analysis.look(now, &a, &b) {
                let (errors, slow) = event.evidence;
                out += &format!("{second} s: {} % {:?}", event.percent, event.stage);
                out += &format!(", {errors:.1e} {slow:.1e}\n");
            }
            add(&mut a, canary(second));
            add(&mut b, baseline);
        }
        expected.assert_eq(&out);
    }

    #[test]
    fn a_good_canary_goes_up_step_by_step() {
        check(
            &[5, 50, 100],
            |_| (20, 0, 0),
            (200, 1, 1),
            &expect![[r#"
                0 s: 5 %
                10 s: 50 % Step(1), 5.2e-1 5.6e-1
                20 s: 100 % Promoted, 2.5e-1 2.7e-1
            "#]],
        );
    }

    /// Both sides have to have shown themselves, however long it takes.
    #[test]
    fn a_step_waits_for_requests() {
        check(
            &[5, 100],
            |_| (2, 0, 0),
            (200, 0, 0),
            &expect![[r#"
            0 s: 5 %
            25 s: 100 % Promoted, 1.0e0 1.0e0
        "#]],
        );
        check(
            &[5, 100],
            |_| (20, 0, 0),
            (0, 0, 0),
            &expect![[r#"
            0 s: 5 %
        "#]],
        );
    }

    #[test]
    fn a_bad_one_gets_nothing_any_more() {
        check(
            &[5, 100],
            |_| (20, 2, 0),
            (200, 1, 1),
            &expect![[r#"
                0 s: 5 %
                4 s: 0 % RolledBack(Errors), 1.6e4 8.5e-1
            "#]],
        );
        check(
            &[5, 100],
            |_| (20, 0, 4),
            (200, 1, 1),
            &expect![[r#"
                0 s: 5 %
                3 s: 0 % RolledBack(Slow), 8.5e-1 1.6e6
            "#]],
        );
        check(
            &[5, 100],
            |_| (20, 20, 0),
            (200, 1, 1),
            &expect![[r#"
                0 s: 5 %
                1 s: 0 % RolledBack(Broken), 9.2e4 1.0e0
            "#]],
        );
        // One that turns bad after it was promoted to half of the traffic.
        let turns = |second| (100, if second < 30 { 0 } else { 10 }, 0);
        check(
            &[5, 50],
            turns,
            (100, 0, 0),
            &expect![[r#"
                0 s: 5 %
                10 s: 50 % Step(1), 9.9e-1 1.0e0
                20 s: 50 % Promoted, 9.9e-1 9.9e-1
                32 s: 0 % RolledBack(Errors), 5.7e5 9.8e-1
            "#]],
        );
    }

    /// Where everything fails, the canary is not to blame, and shows nothing.
    #[test]
    fn what_both_suffer_from_is_not_held_against_it_and_not_for_it() {
        check(
            &[5, 100],
            |_| (20, 20, 20),
            (200, 200, 200),
            &expect![[r#"
            0 s: 5 %
        "#]],
        );
        check(
            &[5, 100],
            |_| (20, 10, 0),
            (200, 100, 0),
            &expect![[r#"
                0 s: 5 %
                10 s: 100 % Promoted, 9.2e-2 1.0e0
            "#]],
        );
    }

    #[test]
    fn what_was_there_before_is_not_about_it() {
        let mut analysis = Analysis::new(settings(&[5, 100]), Duration::ZERO);
        let old = Seen { requests: 1000, errors: 1000, durations: vec![1000] };
        assert_eq!(analysis.look(Duration::ZERO, &old, &Seen::default()), None);
        assert_eq!(analysis.look(Duration::from_secs(1), &old, &Seen::default()), None);
        assert_eq!(analysis.good(), (0, 0));
        // Nor is what happened while somebody else decided.
        let more = Seen { requests: 2000, errors: 2000, durations: vec![2000] };
        analysis.skip(Duration::from_secs(2), &more, &Seen::default());
        assert_eq!(analysis.look(Duration::from_secs(3), &more, &Seen::default()), None);
        assert_eq!(analysis.stage(), Stage::Step(0));
    }
}
