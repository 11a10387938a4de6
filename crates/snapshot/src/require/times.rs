//! Hours, days and times at which callers pass. There are no names of zones: a distance from UTC is
//! what a reader of the configuration can check.

use std::fmt;
use std::time::Duration;

use portcullis_config::{Days, Hours, OneOrMany, Times, Zone};
use portcullis_core::calendar::Time;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// When requests pass. Every part must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRule {
    pub between: Option<Hours>,
    pub days: Option<Days>,
    pub zone: Zone,
    pub not_before: Option<Time>,
    pub not_after: Option<Time>,
}

impl From<&Times> for TimeRule {
    fn from(written: &Times) -> Self {
        let Times { between, days, zone, not_before, not_after } = written;
        let all = |days: &OneOrMany<Days>| Days(days.iter().fold(0, |all, days| all | days.0));
        Self {
            between: *between,
            days: days.as_ref().map(all),
            zone: zone.unwrap_or_default(),
            not_before: *not_before,
            not_after: *not_after,
        }
    }
}

impl TimeRule {
    /// Whether callers pass at this time, since 1970.
    #[must_use]
    pub fn holds(&self, wall: Duration) -> bool {
        let begun = self.not_before.is_none_or(|time| wall >= time.0);
        let ended = self.not_after.is_some_and(|time| wall >= time.0);
        let local = i64::try_from(wall.as_secs()).unwrap_or(i64::MAX / 2);
        let local = local.saturating_add(i64::from(self.zone.0) * 60);
        let day = local.div_euclid(DAY_SECONDS);
        let minute = local.rem_euclid(DAY_SECONDS) / 60;
        // 1970 began on a Thursday.
        let on =
            |day: i64| self.days.is_none_or(|days| days.0 & (1 << (day + 3).rem_euclid(7)) != 0);
        let in_hours = match self.between {
            None => on(day),
            Some(Hours { from, to }) if from < to => {
                on(day) && (i64::from(from)..i64::from(to)).contains(&minute)
            }
            // The hours after midnight belong to the day before.
            Some(Hours { from, to }) => {
                on(day) && minute >= i64::from(from) || on(day - 1) && minute < i64::from(to)
            }
        };
        begun && !ended && in_hours
    }
}

impl fmt::Display for TimeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.between.map(|hours| hours.to_string()));
        parts.extend(self.days.map(|days| days.to_string()));
        if !parts.is_empty() {
            parts.push(self.zone.to_string());
        }
        parts.extend(self.not_before.map(|time| format!("from {time}")));
        parts.extend(self.not_after.map(|time| format!("until {time}")));
        write!(f, "time {}", parts.join(" "))
    }
}
