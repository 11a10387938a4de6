//! Which endpoints a backend has, as its source names them: what keeps a wrong or late answer from
//! taking a backend away.
//!
//! - What comes is added before what goes is removed: the old ones stay until a connection to
//!   each new one was made, or for [`ADD_FIRST`], however often the listing changes meanwhile.
//! - An empty listing empties nothing before it was confirmed twice.
//!
//! Drawn in `LIFECYCLE.md`. Asking the source is not done here.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::balancer::ENDPOINTS_MAX;
use crate::listed::Listed;

/// How long the old ones stay at most beside new ones that nobody has connected to yet.
pub const ADD_FIRST: Duration = Duration::from_secs(5);
/// Between two empty listings of which the second counts as a confirmation.
pub const CONFIRM_AFTER: Duration = Duration::from_secs(5);
/// Confirmations that an empty listing needs.
pub const CONFIRMATIONS: u32 = 2;

/// What a listing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The same endpoints as before.
    Same,
    Changed {
        added: usize,
        removed: usize,
    },
    /// It is empty and not confirmed: the endpoints stay.
    Held,
}

/// The endpoints of one source.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    allow_empty: bool,
    /// As last listed.
    current: Vec<Listed>,
    /// Gone from the listing, and still used until then at most.
    leaving: Vec<(Duration, Listed)>,
    /// What they wait for, until then at most.
    coming: HashMap<Box<str>, Duration>,
    /// When the last of the empty listings came that counted, and how many did.
    empty: Option<(Duration, u32)>,
}

impl Roster {
    #[must_use]
    pub fn new(allow_empty: bool) -> Self {
        Self { allow_empty, ..Self::default() }
    }

    /// The source has named all of its endpoints.
    pub fn listed(&mut self, listing: Vec<Listed>, now: Duration) -> Update {
        if listing.is_empty() && !self.current.is_empty() && !self.is_confirmed(now) {
            return Update::Held;
        }
        self.empty = None;
        let named: HashSet<&str> = listing.iter().map(|one| &*one.url).collect();
        let known: HashSet<&str> = self.serving().map(|one| &*one.url).collect();
        let added: HashSet<Box<str>> =
            named.difference(&known).map(|url| Box::from(*url)).collect();
        let by = now + ADD_FIRST;
        let gone = self.current.iter().filter(|one| !named.contains(&*one.url));
        let mut gone: Vec<(Duration, Listed)> = gone.map(|one| (by, one.clone())).collect();
        let removed = gone.len();
        let changed = removed > 0
            || listing.len() != self.current.len()
            || listing.iter().zip(&self.current).any(|(new, old)| !new.is_like(old));
        self.leaving.retain(|(by, one)| now < *by && !named.contains(&*one.url));
        // Nobody ever connects to one that takes no requests.
        let takes: HashSet<&str> =
            listing.iter().filter(|one| one.share() > 0).map(|one| &*one.url).collect();
        self.coming.retain(|url, by| now < *by && takes.contains(&**url));
        let added_count = added.len();
        let coming = added.into_iter().filter(|url| takes.contains(&**url));
        self.coming.extend(coming.map(|url| (url, by)));
        if self.coming.is_empty() || listing.is_empty() {
            self.leaving.clear();
        } else {
            self.leaving.append(&mut gone);
            self.leaving.truncate(ENDPOINTS_MAX.saturating_sub(listing.len()));
        }
        self.current = listing;
        match changed {
            true => Update::Changed { added: added_count, removed },
            false => Update::Same,
        }
    }

    /// Lets go of what was removed if everything that came has proved itself by now, and of what
    /// was removed too long ago. Returns
    /// whether [`Roster::serving`] has changed.
    pub fn settle(&mut self, is_proven: impl Fn(&str) -> bool, now: Duration) -> bool {
        self.coming.retain(|url, by| now < *by && !is_proven(url));
        let before = self.leaving.len();
        match self.coming.is_empty() {
            true => self.leaving.clear(),
            false => self.leaving.retain(|(by, _)| now < *by),
        }
        self.leaving.len() != before
    }

    /// Whether [`Roster::settle`] has something to look at from time to time.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// What the backend is to have now.
    pub fn serving(&self) -> impl Iterator<Item = &Listed> {
        self.current.iter().chain(self.leaving.iter().map(|(_, one)| one))
    }

    fn is_confirmed(&mut self, now: Duration) -> bool {
        if self.allow_empty {
            return true;
        }
        let (at, times) = match self.empty {
            None => (now, 0),
            // Asked again too soon, it would only repeat itself.
            Some((at, times)) if now.saturating_sub(at) < CONFIRM_AFTER => (at, times),
            Some((_, times)) => (now, times + 1),
        };
        self.empty = Some((at, times));
        times >= CONFIRMATIONS
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Plays steps, one a line: `AT a b c` is a listing, `AT ok a` a connection to `a`, `AT` only
    /// time. After each: what came of it, and who serves.
    #[track_caller]
    fn check(allow_empty: bool, steps: &str, expected: &Expect) {
        let mut roster = Roster::new(allow_empty);
        let mut proven: HashSet<String> = HashSet::new();
        let mut seen = String::new();
        for step in steps.lines().map(str::trim).filter(|step| !step.is_empty()) {
            let (at, rest) = step.split_once(' ').unwrap_or((step, "."));
            let now = SECOND * at.parse::<u32>().unwrap();
            let outcome = if let Some(name) = rest.strip_prefix("ok ") {
                proven.insert(name.to_owned());
                format!("{}", roster.settle(|url| proven.contains(url), now))
            } else if rest == "." {
                format!("{}", roster.settle(|url| proven.contains(url), now))
            } else {
                let names = rest.split(' ').filter(|name| *name != "-");
                format!("{:?}", roster.listed(names.map(Listed::new).collect(), now))
            };
            let serving: Vec<&str> = roster.serving().map(|one| &*one.url).collect();
            seen += &format!("{step} => {outcome} [{}]\n", serving.join(" "));
        }
        expected.assert_eq(&seen);
    }

    #[test]
    fn what_comes_is_added_before_what_goes_is_removed() {
        check(
            false,
            "1 a b
             2 ok a
             3 ok b
             4 b c d
             5 ok c
             6 ok d
             10 e
             14
             15",
            &expect![[r#"
                1 a b => Changed { added: 2, removed: 0 } [a b]
                2 ok a => false [a b]
                3 ok b => false [a b]
                4 b c d => Changed { added: 2, removed: 1 } [b c d a]
                5 ok c => false [b c d a]
                6 ok d => true [b c d]
                10 e => Changed { added: 1, removed: 3 } [e b c d]
                14 => false [e b c d]
                15 => true [e]
            "#]],
        );
    }

    /// Each second another one comes that nobody connects to.
    #[test]
    fn nobody_stays_longer_since_others_come_and_go() {
        check(
            false,
            "1 a
             2 ok a
             3 b
             4 c
             5 d
             6 e
             7 f
             8 g
             9 h
             10",
            &expect![[r#"
                1 a => Changed { added: 1, removed: 0 } [a]
                2 ok a => false [a]
                3 b => Changed { added: 1, removed: 1 } [b a]
                4 c => Changed { added: 1, removed: 1 } [c a b]
                5 d => Changed { added: 1, removed: 1 } [d a b c]
                6 e => Changed { added: 1, removed: 1 } [e a b c d]
                7 f => Changed { added: 1, removed: 1 } [f a b c d e]
                8 g => Changed { added: 1, removed: 1 } [g b c d e f]
                9 h => Changed { added: 1, removed: 1 } [h c d e f g]
                10 => true [h d e f g]
            "#]],
        );
    }

    #[test]
    fn what_only_goes_goes_at_once_and_what_returns_never_left() {
        check(
            false,
            "1 a b c
             2 ok a
             2 ok b
             2 ok c
             3 a b
             4 a d
             5 a b
             6 ok d
             12
             13 a b",
            &expect![[r#"
                1 a b c => Changed { added: 3, removed: 0 } [a b c]
                2 ok a => false [a b c]
                2 ok b => false [a b c]
                2 ok c => false [a b c]
                3 a b => Changed { added: 0, removed: 1 } [a b]
                4 a d => Changed { added: 1, removed: 1 } [a d b]
                5 a b => Changed { added: 0, removed: 1 } [a b]
                6 ok d => false [a b]
                12 => false [a b]
                13 a b => Same [a b]
            "#]],
        );
    }

    #[test]
    fn nothing_has_to_be_said_three_times() {
        check(
            false,
            "1 a
             10 -
             12 -
             15 -
             16 a
             20 -
             25 -
             29 -
             30 -
             31 -",
            &expect![[r#"
                1 a => Changed { added: 1, removed: 0 } [a]
                10 - => Held [a]
                12 - => Held [a]
                15 - => Held [a]
                16 a => Same [a]
                20 - => Held [a]
                25 - => Held [a]
                29 - => Held [a]
                30 - => Changed { added: 0, removed: 1 } []
                31 - => Same []
            "#]],
        );
    }

    #[test]
    fn nothing_is_believed_where_it_may_be() {
        check(
            true,
            "1 a
             2 -
             3 a",
            &expect![[r#"
                1 a => Changed { added: 1, removed: 0 } [a]
                2 - => Changed { added: 0, removed: 1 } []
                3 a => Changed { added: 1, removed: 0 } [a]
            "#]],
        );
    }

    #[test]
    fn another_weight_is_a_change_and_another_time_is_none() {
        let mut roster = Roster::new(false);
        let one = |weight, at| Listed { weight, seen_at: SECOND * at, ..Listed::new("a") };
        roster.listed(vec![one(1, 1)], SECOND);
        assert_eq!(roster.listed(vec![one(1, 2)], SECOND * 2), Update::Same);
        assert_eq!(roster.serving().next().map(|one| one.seen_at), Some(SECOND * 2));
        let changed = Update::Changed { added: 0, removed: 0 };
        assert_eq!(roster.listed(vec![one(2, 3)], SECOND * 3), changed);
    }

    #[test]
    fn nobody_waits_for_a_connection_to_one_that_takes_no_requests() {
        let mut roster = Roster::new(false);
        roster.listed(vec![Listed::new("a"), Listed::new("b")], SECOND);
        let none = Listed { weight: 0, ..Listed::new("c") };
        roster.listed(vec![Listed::new("b"), none], SECOND * 20);
        let serving: Vec<&str> = roster.serving().map(|one| &*one.url).collect();
        assert_eq!(serving, ["b", "c"]);
    }

    #[test]
    fn never_more_than_there_may_be() {
        let mut roster = Roster::new(false);
        let all = |name: &str| {
            (0..ENDPOINTS_MAX).map(|i| Listed::new(&format!("{name}{i}"))).collect::<Vec<_>>()
        };
        roster.listed(all("a"), SECOND);
        roster.listed(all("b"), SECOND * 2);
        assert_eq!(roster.serving().count(), ENDPOINTS_MAX);
    }
}
