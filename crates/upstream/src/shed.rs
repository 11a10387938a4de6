//! Which requests are refused while the gateway itself has more to do than it can.
//!
//! The measure is how long a worker's work waits for its turn. A queue that comes and goes is
//! normal; one that stands (CoDel, RFC 8289) is overload. Once it has stood for half a second, a
//! controller (PIE, RFC 8033) sets the share of requests to refuse so that the queue becomes short:
//! by how long it is, and by whether it grows. A refusal is then quick too, which it would not be
//! behind a queue that is merely tolerated. Nothing is known here of how the delay is measured.

use std::time::Duration;

/// A queue has to stand for so long before anything is refused, and again before what is critical
/// is.
pub const STANDING: Duration = Duration::from_millis(500);
/// The delay aimed at, once refusing has begun: this part of the one that is tolerated.
const GOAL: f64 = 1.0 / 20.0;
/// Per second of delay beyond the goal, and per second that it grew: how much more is refused after
/// each look. The second dampens the first.
const BY_DELAY: f64 = 2.0;
const BY_GROWTH: f64 = 4.0;
/// A longer delay says no more.
const DELAY_MAX: f64 = 0.2;
/// How much less is refused after each look at a worker that has nothing waiting.
const RELIEF: f64 = 0.03;
/// No delay: less than what a timer tells.
const NOTHING: Duration = Duration::from_millis(2);
/// All that is sheddable and by default; and half of what is critical.
const ALL_BUT_CRITICAL: f64 = 2.0;
const PRESSURE_MAX: f64 = 2.5;

/// How much it matters that a request is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Refused last: only once nothing else is served, and then at most half.
    Critical,
    #[default]
    Default,
    /// Refused first.
    Sheddable,
}

impl Priority {
    pub const ALL: [Self; 3] = [Self::Critical, Self::Default, Self::Sheddable];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Default => "default",
            Self::Sheddable => "sheddable",
        }
    }
}

/// How much is refused, in thousandths: of what is sheddable up to 1000, of what is not marked up
/// to 2000, of what is critical beyond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pressure(pub u32);

impl Pressure {
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether this request is to be refused; `random` is uniform.
    #[must_use]
    pub const fn sheds(self, priority: Priority, random: u64) -> bool {
        let before = match priority {
            Priority::Sheddable => 0,
            Priority::Default => 1_000,
            Priority::Critical => 2_000,
        };
        let share = self.0.saturating_sub(before) as u64;
        ((random >> 32) * 1_000) >> 32 < share
    }
}

/// The state of one worker.
#[derive(Clone, Debug, Default)]
pub struct Shedder {
    pressure: f64,
    /// For how long the delay has been beyond what is tolerated.
    standing: Duration,
    /// Seconds, at the last look.
    before: f64,
}

impl Shedder {
    /// To be told at regular looks, `since` the last one: how long work waited just now, and what
    /// is tolerated.
    pub fn look(&mut self, delay: Duration, since: Duration, tolerated: Duration) -> Pressure {
        match delay > tolerated {
            true => self.standing = self.standing.saturating_add(since),
            false => self.standing = Duration::ZERO,
        }
        let seconds = delay.as_secs_f64().min(DELAY_MAX);
        let grown = seconds - std::mem::replace(&mut self.before, seconds);
        if self.pressure == 0.0 && self.standing < STANDING {
            return Pressure::default();
        }
        let goal = tolerated.as_secs_f64() * GOAL;
        let change = match delay < NOTHING {
            true => -RELIEF,
            false => BY_DELAY * (seconds - goal) + BY_GROWTH * grown,
        };
        // From here on, until it is calm, `standing` tells whether refusing all the others helps.
        if self.pressure < ALL_BUT_CRITICAL && self.pressure + change >= ALL_BUT_CRITICAL {
            self.standing = Duration::ZERO;
        }
        let helps = self.standing < STANDING && self.pressure <= ALL_BUT_CRITICAL;
        let most = if helps { ALL_BUT_CRITICAL } else { PRESSURE_MAX };
        self.pressure = (self.pressure + change).clamp(0.0, most);
        Pressure((self.pressure * 1_000.0) as u32)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::mix::Mix;

    const LOOK: Duration = Duration::from_millis(100);
    const TOLERATED: Duration = Duration::from_millis(100);

    fn look(shedder: &mut Shedder, delay_ms: u64) -> u32 {
        shedder.look(Duration::from_millis(delay_ms), LOOK, TOLERATED).0
    }

    #[test]
    fn a_queue_that_comes_and_goes_is_no_overload() {
        let mut shedder = Shedder::default();
        for delay in [0, 90, 900, 300, 200, 150, 90, 400, 400, 400, 400, 0].repeat(10) {
            assert_eq!(look(&mut shedder, delay), 0);
        }
    }

    #[test]
    fn a_standing_queue_sheds_in_order_of_priority_and_critical_only_if_that_does_not_help() {
        let mut shedder = Shedder::default();
        let seen: Vec<_> = (0..20).map(|_| look(&mut shedder, 300)).collect();
        expect![[r#"
            [0, 0, 0, 0, 390, 780, 1170, 1560, 1950, 2000, 2000, 2000, 2000, 2000, 2390, 2500, 2500, 2500, 2500, 2500]"#]]
        .assert_eq(&format!("{seen:?}"));
        let until_calm = (1..).find(|_| look(&mut shedder, 0) == 0).unwrap();
        assert!(until_calm < 90, "{until_calm}");
    }

    #[test]
    fn the_shares_are_those_of_the_pressure() {
        let shares = |pressure: u32| {
            let mut mix = Mix::new(1);
            let mut shed = [0; 3];
            for _ in 0..10_000 {
                let random = mix.next();
                for (count, priority) in shed.iter_mut().zip(Priority::ALL) {
                    *count += u32::from(Pressure(pressure).sheds(priority, random));
                }
            }
            // To the nearest twentieth, since it is drawn.
            shed.map(|count| (count + 250) / 500 * 5)
        };
        assert_eq!(shares(0), [0, 0, 0]);
        assert_eq!(shares(400), [0, 0, 40]);
        assert_eq!(shares(1_250), [0, 25, 100]);
        assert_eq!(shares(2_000), [0, 100, 100]);
        assert_eq!(shares(2_500), [50, 100, 100]);
    }

    /// A worker under `load` times what it can do, where a refusal costs `refusal` of a request, for
    /// 20 s; then under half of it. What share of its capacity it served after the first 5 s, the
    /// delay's 90th percentile in ms, and after how long nothing was refused that is not sheddable.
    fn simulate(seed: u64, load: f64, refusal: f64) -> (f64, u64, f64) {
        let mut mix = Mix::new(seed);
        let mut shedder = Shedder::default();
        let (mut backlog, mut served, mut delays) = (0.0_f64, 0.0, Vec::new());
        let (mut share, mut recovered) = (0.0, None);
        for step in 0..280 {
            let noise = 0.9 + mix.below(1_000) as f64 / 5_000.0;
            let offered = 0.1 * noise * if step < 200 { load } else { 0.5 };
            backlog += offered * (1.0 - share) + offered * share * refusal;
            backlog = (backlog - 0.1).max(0.0);
            if (50..200).contains(&step) {
                served += offered * (1.0 - share);
                delays.push((backlog * 1e3) as u64);
            }
            let delay = Duration::from_secs_f64(backlog);
            let pressure = shedder.look(delay, LOOK, TOLERATED);
            share = f64::from(pressure.0.saturating_sub(1_000).min(1_000)) / 1_000.0;
            if step >= 200 && share == 0.0 && recovered.is_none() {
                recovered = Some((step - 200) as f64 / 10.0);
            }
        }
        delays.sort_unstable();
        (served / 15.0, delays[delays.len() * 9 / 10], recovered.unwrap_or(f64::INFINITY))
    }

    #[test]
    fn what_can_be_served_is_served_and_the_queue_stays_short() {
        for seed in 0..32 {
            for (load, refusal) in [(1.5, 0.1), (3.0, 0.1), (1.5, 0.2), (3.0, 0.2)] {
                // All that is left when as many are refused as have to be.
                let ideal = (1.0 - load * refusal) / (1.0 - refusal);
                let (served, delay_ms, recovered) = simulate(seed, load, refusal);
                let say =
                    format!("seed {seed}, {load} × {refusal}: {served} {delay_ms} {recovered}");
                assert!(served > 0.8 * ideal && served <= 1.01, "{say} of {ideal}");
                assert!(delay_ms < 25 && recovered < 5.0, "{say}");
            }
        }
    }
}
