//! What a browser keeps of a login, and how it stands at a time. The states are in `LIFECYCLE.md`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Before the tokens end, so that a request seldom finds them ended.
const REFRESH_BEFORE: Duration = Duration::from_secs(60);
/// Of the idle time: how often the browser is given a session that says when it was last used.
const SEEN_PARTS: u32 = 4;

/// A login, as the cookie holds it. It has secrets in it and is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// Random; the same through all renewals.
    pub(super) id: String,
    /// The last ID token. It was verified when it came; only who seals can have put it here.
    pub(super) id_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<String>,
    /// What the provider granted.
    pub(super) scope: String,
    /// Seconds since 1970, as all times here: the login.
    pub(super) began: u64,
    /// When a request last said that somebody is there, give or take a part of the idle time.
    pub(super) seen: u64,
    /// From when on the tokens are to be refreshed.
    pub(super) due: u64,
    /// When they end.
    pub(super) until: u64,
}

/// How long sessions last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lasting {
    pub(super) session: Duration,
    pub(super) idle: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Good without a further look until then.
    Good {
        until: Duration,
    },
    /// Good, and to be given to the browser again, since it was last told long ago.
    Renew,
    /// To be refreshed; while that fails it is good until then.
    Due {
        until: Duration,
    },
    Ended,
}

impl Session {
    /// Times of tokens that came now and live for so long.
    pub(super) fn tokens_for(&mut self, now: Duration, lifetime: Duration) {
        let lifetime = lifetime.min(Duration::from_secs(u64::from(u32::MAX)));
        let early = REFRESH_BEFORE.min(lifetime / 2);
        self.until = (now + lifetime).as_secs();
        self.due = (now + lifetime - early).as_secs();
    }

    pub(super) fn standing(&self, now: Duration, lasting: &Lasting) -> Standing {
        let at = Duration::from_secs;
        let (seen, due) = (at(self.seen), at(self.due));
        let end = self.end(lasting);
        if end <= now {
            return Standing::Ended;
        }
        if self.refresh_token.is_some() && due <= now {
            return Standing::Due { until: at(self.until).min(end) };
        }
        let tell_again = lasting.idle.map(|idle| seen + idle / SEEN_PARTS);
        if tell_again.is_some_and(|when| when <= now) {
            return Standing::Renew;
        }
        let refresh = self.refresh_token.is_some().then_some(due);
        let until = [refresh, tell_again].into_iter().flatten().fold(end, Duration::min);
        Standing::Good { until }
    }

    /// When it is over, whatever the provider says.
    fn end(&self, lasting: &Lasting) -> Duration {
        let end = Duration::from_secs(self.began) + lasting.session;
        match lasting.idle {
            Some(idle) => end.min(Duration::from_secs(self.seen) + idle),
            None => end,
        }
    }

    /// How long the browser is to keep it.
    pub(super) fn max_age(&self, now: Duration, lasting: &Lasting) -> Duration {
        (Duration::from_secs(self.began) + lasting.session).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn session(refresh: bool) -> Session {
        let mut session = Session {
            id: "s".to_owned(),
            id_token: String::new(),
            refresh_token: refresh.then(|| "r".to_owned()),
            scope: String::new(),
            began: 1000,
            seen: 1000,
            due: 0,
            until: 0,
        };
        session.tokens_for(Duration::from_secs(1000), Duration::from_secs(300));
        session
    }

    /// Where the standing changes, second by second.
    fn changes(session: &Session, lasting: &Lasting) -> String {
        let mut seen = Vec::new();
        let mut last = None;
        for now in 1000..=4700 {
            let standing = session.standing(Duration::from_secs(now), lasting);
            if last != Some(standing) {
                seen.push(format!("{now} {standing:?}"));
                last = Some(standing);
            }
        }
        seen.join("\n")
    }

    #[test]
    fn a_session_with_a_refresh_token_asks_again_before_its_tokens_end() {
        let lasting = Lasting { session: Duration::from_secs(3600), idle: None };
        expect![[r#"
            1000 Good { until: 1240s }
            1240 Due { until: 1300s }
            4600 Ended"#]]
        .assert_eq(&changes(&session(true), &lasting));
    }

    #[test]
    fn a_session_without_one_lasts_for_its_time() {
        let lasting = Lasting { session: Duration::from_secs(3600), idle: None };
        expect![[r#"
            1000 Good { until: 4600s }
            4600 Ended"#]]
        .assert_eq(&changes(&session(false), &lasting));
    }

    #[test]
    fn a_session_that_nobody_uses_ends() {
        let idle = Some(Duration::from_secs(120));
        let lasting = Lasting { session: Duration::from_secs(3600), idle };
        expect![[r#"
            1000 Good { until: 1030s }
            1030 Renew
            1120 Ended"#]]
        .assert_eq(&changes(&session(true), &lasting));
    }

    #[test]
    fn tokens_of_a_short_life_are_refreshed_half_way() {
        let mut session = session(true);
        for (lifetime, due, until) in [(20, 1010, 1020), (120, 1060, 1120), (3600, 4540, 4600)] {
            session.tokens_for(Duration::from_secs(1000), Duration::from_secs(lifetime));
            assert_eq!((session.due, session.until), (due, until), "{lifetime}");
        }
        session.tokens_for(Duration::from_secs(1000), Duration::MAX);
        assert!(session.until > 1 << 32);
    }
}
