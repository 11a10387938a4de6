//! When an audit takes place: a time at which callers may pass everywhere, as far as routes say
//! when they may.

use std::time::Duration;

use portcullis_config::Config;
use portcullis_snapshot::require::TimeRule;

use crate::needs;

/// Between two times that are tried.
const STEP: Duration = Duration::from_secs(15 * 60);
/// Days that are looked at: a week has all hours of all days.
const DAYS: u32 = 8;
const STEPS: u32 = DAYS * 24 * 4;

/// Now, if all routes are open now; else the next time at which most are. Since 1970.
pub(crate) fn choose(config: &Config, now: Duration) -> Duration {
    let rules: Vec<Vec<TimeRule>> =
        config.routes.iter().map(|route| needs::times(config, route)).collect();
    let rules: Vec<Vec<TimeRule>> = rules.into_iter().filter(|rules| !rules.is_empty()).collect();
    let open = |wall: Duration| {
        rules.iter().filter(|rules| rules.iter().all(|rule| rule.holds(wall))).count()
    };
    if open(now) == rules.len() {
        return now;
    }
    let begins = rules.iter().flatten().filter_map(|rule| rule.not_before);
    let from = std::iter::once(now).chain(begins.map(|time| time.0));
    let times = from.flat_map(|from| (0..STEPS).map(move |step| from + STEP * step));
    // The first of the best.
    let best = times.fold((open(now), now), |(most, best), wall| match open(wall) {
        count if count > most => (count, wall),
        _ => (most, best),
    });
    best.1
}

#[cfg(test)]
mod tests {
    use portcullis_config::{Source, load};

    use super::*;

    fn chosen(require: &str, now: u64) -> u64 {
        let text = format!(
            "listeners: {{ http: {{ bind: \"127.0.0.1:0\" }} }}\n\
             auth: {{ it: {{ api_keys: {{ keys: \"file:k\" }} }} }}\n\
             routes: {{ a: {{ match: /a, auth: it, require: {require}, deny: \"never\" }} }}\n"
        );
        let source = Source { name: "a".to_owned(), text };
        let loaded = load(vec![source], &portcullis_policies::registry());
        let config = loaded.config.unwrap_or_else(|| panic!("{:?}", loaded.findings));
        choose(&config, Duration::from_secs(now)).as_secs()
    }

    #[test]
    fn an_audit_waits_for_nobody() {
        const HOUR: u64 = 3600;
        // 1970 began on a Thursday.
        assert_eq!(chosen("{ scopes: [x] }", 5), 5);
        assert_eq!(chosen("{ time: { between: \"00:00-01:00\" } }", 5), 5);
        assert_eq!(chosen("{ time: { between: \"08:00-18:00\" } }", 0), 8 * HOUR);
        assert_eq!(chosen("{ time: { days: [sat] } }", HOUR), 48 * HOUR);
        let later =
            "{ time: { not_before: 1990-01-01, between: \"08:00-09:00\", zone: \"+02:00\" } }";
        assert_eq!(chosen(later, 0), 631_152_000 + 6 * HOUR);
    }
}
