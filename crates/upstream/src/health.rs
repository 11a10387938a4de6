//! Active health checks: when the next one is due, and what a result changes.
//!
//! One machine per endpoint; see `LIFECYCLE.md`. Sending the check is not done here.

use std::time::Duration;

use crate::mix::Mix;

/// How an endpoint is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Between checks of a settled endpoint; each time 15 % more or less, so that checks of many
    /// endpoints by many gateways do not fall together.
    pub interval: Duration,
    /// Between checks while a change of state is under way.
    pub interval_edge: Duration,
    /// Failures in a row that take an endpoint down.
    pub down_after: u32,
    /// Passes in a row that bring it back.
    pub up_after: u32,
    /// Stands for what is asked and what counts as a pass (path, host, statuses). When it changes
    /// over a reload, the old results say nothing about the new check and are forgotten.
    pub probe: u64,
}

impl HealthSettings {
    /// Every 5 s, 0.5 s at an edge, 2 down, 2 up.
    #[must_use]
    pub const fn new(probe: u64) -> Self {
        Self {
            interval: Duration::from_secs(5),
            interval_edge: Duration::from_millis(500),
            down_after: 2,
            up_after: 2,
            probe,
        }
    }
}

/// What one check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Fail,
    /// Another service answers there.
    Foreign,
}

/// What is known of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not checked, or no result yet: used like one that is up.
    #[default]
    Unknown,
    Up,
    Down,
    /// Its address belongs to another service: nothing is sent there, whatever becomes of the
    /// others.
    Foreign,
}

/// A change of state worth a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    WentUp,
    WentDown,
    TurnedForeign,
}

/// The machine behind one endpoint. Settings come with each call, because a reload may change them
/// while the endpoint lives on.
#[derive(Debug)]
pub(crate) struct Check {
    health: Health,
    /// Results in a row against the current state.
    streak: u32,
    /// `None`: nothing is to be checked.
    due: Option<Duration>,
    probe: Option<u64>,
    mix: Mix,
}

impl Check {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { health: Health::Unknown, streak: 0, due: None, probe: None, mix: Mix::new(seed) }
    }

    /// The settings that hold from now on; `None` ends checking and makes the endpoint usable.
    /// Unchanged ones leave everything as it is, also the time of the next check: reloading every
    /// second must not put checks off for ever.
    pub(crate) fn adopt(&mut self, settings: Option<&HealthSettings>, now: Duration) {
        let probe = settings.map(|settings| settings.probe);
        if let Some(settings) = settings {
            if self.due.is_none() || self.probe != probe {
                let spread = nanos(settings.interval_edge);
                self.due = Some(now + Duration::from_nanos(self.mix.below(spread)));
            }
            let latest = now + settings.interval.mul_f64(1.0 + JITTER);
            self.due = self.due.map(|due| due.min(latest));
        } else {
            self.due = None;
        }
        if self.probe != probe {
            self.probe = probe;
            self.health = Health::Unknown;
            self.streak = 0;
        }
    }

    pub(crate) const fn health(&self) -> Health {
        self.health
    }

    /// Whether results under these settings still mean something.
    pub(crate) fn is_for(&self, settings: &HealthSettings) -> bool {
        self.probe == Some(settings.probe)
    }

    pub(crate) const fn due(&self) -> Option<Duration> {
        self.due
    }

    /// A check was sent. Until its result arrives the next one is a whole interval away, so that
    /// a result which never arrives only costs time.
    pub(crate) fn begin(&mut self, settings: &HealthSettings, now: Duration) {
        self.due = Some(now + self.jittered(settings.interval));
    }

    pub(crate) fn record(
        &mut self,
        settings: &HealthSettings,
        outcome: Outcome,
        now: Duration,
    ) -> Option<Transition> {
        let before = self.health;
        let (target, needed) = match outcome {
            Outcome::Pass => (Health::Up, settings.up_after.max(1)),
            // That nobody answers says nothing of who would.
            Outcome::Fail if before == Health::Foreign => (Health::Foreign, 1),
            Outcome::Fail => (Health::Down, settings.down_after.max(1)),
            // Each request more would tell a stranger something.
            Outcome::Foreign => (Health::Foreign, 1),
        };
        if before == target {
            self.streak = 0;
        } else {
            self.streak += 1;
            // Nothing is known of a new endpoint, so there is nothing to outweigh: its first
            // result settles it.
            if before == Health::Unknown || self.streak >= needed {
                self.health = target;
                self.streak = 0;
            }
        }
        let interval = if self.streak > 0 { settings.interval_edge } else { settings.interval };
        self.due = Some(now + self.jittered(interval));
        match (before, self.health) {
            (Health::Down | Health::Foreign, Health::Up) => Some(Transition::WentUp),
            (Health::Unknown | Health::Up | Health::Down, Health::Foreign) => {
                Some(Transition::TurnedForeign)
            }
            (Health::Unknown | Health::Up, Health::Down) => Some(Transition::WentDown),
            _ => None,
        }
    }

    fn jittered(&mut self, interval: Duration) -> Duration {
        let interval = nanos(interval);
        let reach = (interval as f64 * JITTER) as u64;
        Duration::from_nanos(interval - reach + self.mix.below(2 * reach + 1))
    }
}

/// Share of an interval by which it varies either way.
const JITTER: f64 = 0.15;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    /// Plays results (`+` pass, `-` fail, `?` somebody else), each as soon as its check is due. For each: the state
    /// after it, and whether the next check comes at the edge's pace.
    #[track_caller]
    fn check(results: &str, expected: &Expect) {
        let settings = HealthSettings::new(1);
        let mut check = Check::new(42);
        check.adopt(Some(&settings), Duration::ZERO);
        let mut seen = String::new();
        for result in results.chars() {
            let now = check.due().unwrap();
            check.begin(&settings, now);
            let outcome = match result {
                '+' => Outcome::Pass,
                '-' => Outcome::Fail,
                _ => Outcome::Foreign,
            };
            let transition = check.record(&settings, outcome, now);
            let soon = check.due().unwrap() - now < Duration::from_secs(1);
            let pace = if soon { " edge" } else { "" };
            let transition = transition.map(|t| format!(" {t:?}")).unwrap_or_default();
            seen += &format!("{result} {:?}{pace}{transition}\n", check.health());
        }
        expected.assert_eq(&seen);
    }

    #[test]
    fn two_failures_take_it_down_and_two_passes_bring_it_back() {
        check(
            "+-+--+-++",
            &expect![[r#"
                + Up
                - Up edge
                + Up
                - Up edge
                - Down WentDown
                + Down edge
                - Down
                + Down edge
                + Up WentUp
            "#]],
        );
    }

    #[test]
    fn the_first_result_settles_a_new_endpoint() {
        check(
            "-++",
            &expect![[r#"
                - Down WentDown
                + Down edge
                + Up WentUp
            "#]],
        );
    }

    #[test]
    fn somebody_else_is_left_at_once_and_proved_wrong_by_passes_alone() {
        check(
            "+?-+-++-?++",
            &expect![[r#"
                + Up
                ? Foreign TurnedForeign
                - Foreign
                + Foreign edge
                - Foreign
                + Foreign edge
                + Up WentUp
                - Up edge
                ? Foreign TurnedForeign
                + Foreign edge
                + Up WentUp
            "#]],
        );
        check(
            "?--+",
            &expect![[r#"
                ? Foreign TurnedForeign
                - Foreign
                - Foreign
                + Foreign edge
            "#]],
        );
        check(
            "-?",
            &expect![[r#"
                - Down WentDown
                ? Foreign TurnedForeign
            "#]],
        );
    }

    #[test]
    fn the_first_check_of_a_new_endpoint_is_soon() {
        let mut check = Check::new(3);
        check.adopt(Some(&HealthSettings::new(1)), Duration::from_secs(9));
        let wait = check.due().unwrap() - Duration::from_secs(9);
        assert!(wait < Duration::from_millis(500), "{wait:?}");
    }

    #[test]
    fn an_unchanged_check_keeps_its_state_and_its_next_time_over_reloads() {
        let settings = HealthSettings::new(1);
        let mut check = Check::new(3);
        check.adopt(Some(&settings), Duration::ZERO);
        check.record(&settings, Outcome::Fail, Duration::ZERO);
        let due = check.due();
        for second in 1..4 {
            check.adopt(Some(&settings), Duration::from_secs(second));
        }
        assert_eq!((check.health(), check.due()), (Health::Down, due));
    }

    #[test]
    fn another_check_or_none_forgets_the_old_results() {
        let mut check = Check::new(3);
        check.adopt(Some(&HealthSettings::new(1)), Duration::ZERO);
        check.record(&HealthSettings::new(1), Outcome::Fail, Duration::ZERO);
        check.adopt(Some(&HealthSettings::new(2)), Duration::from_secs(1));
        assert_eq!(check.health(), Health::Unknown);
        assert!(check.due().unwrap() < Duration::from_millis(1500));
        check.record(&HealthSettings::new(2), Outcome::Fail, Duration::from_secs(2));
        check.adopt(None, Duration::from_secs(3));
        assert_eq!((check.health(), check.due()), (Health::Unknown, None));
    }

    #[test]
    fn a_shorter_interval_holds_from_the_reload_on() {
        let mut check = Check::new(3);
        let slow = HealthSettings { interval: Duration::from_secs(600), ..HealthSettings::new(1) };
        check.adopt(Some(&slow), Duration::ZERO);
        check.record(&slow, Outcome::Pass, Duration::ZERO);
        check.adopt(Some(&HealthSettings::new(1)), Duration::from_secs(1));
        assert!(check.due().unwrap() < Duration::from_secs(7));
        assert_eq!(check.health(), Health::Up);
    }

    proptest! {
        #[test]
        fn intervals_stay_within_15_percent(seed: u64, results in prop::collection::vec(any::<bool>(), 1..60)) {
            let settings = HealthSettings::new(1);
            let mut check = Check::new(seed);
            check.adopt(Some(&settings), Duration::ZERO);
            for pass in results {
                let now = check.due().unwrap();
                let before = check.health();
                let outcome = if pass { Outcome::Pass } else { Outcome::Fail };
                check.record(&settings, outcome, now);
                let target = if pass { Health::Up } else { Health::Down };
                let edge = before != Health::Unknown && check.health() != target;
                let interval = if edge { 0.5 } else { 5.0 };
                let wait = (check.due().unwrap() - now).as_secs_f64();
                prop_assert!(wait >= interval * 0.849 && wait <= interval * 1.151, "seed {seed}: {wait}");
            }
        }
    }
}
