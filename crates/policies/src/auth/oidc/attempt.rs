//! One login on its way: what is sent to the provider, and what has to come back.
//!
//! Everything that the answer is held against is in a cookie of the browser that began (RFC 9700
//! §2.1, §4.7): the state, the nonce, the verifier of PKCE (RFC 7636), the redirect URI, and where
//! to go back to. Nobody else can end what it began, and nothing of it can be changed.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_core::Services;
use portcullis_core::planted::{Fault, is_planted};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::jar::{LOGIN_ID_BYTES, LOGINS_MAX, is_login_id};
use super::query::Query;

/// Long enough to find a password and a second factor.
pub(super) const LASTS: Duration = Duration::from_secs(600);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    state: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
    pub(super) redirect_uri: String,
    pub(super) return_to: String,
    /// Seconds since 1970.
    until: u64,
}

impl Attempt {
    pub(super) fn new(
        redirect_uri: String,
        return_to: String,
        now: Duration,
        services: &dyn Services,
    ) -> Self {
        let random = || {
            let mut bytes = [0; 32];
            services.random(&mut bytes);
            URL_SAFE_NO_PAD.encode(bytes)
        };
        Self {
            state: random(),
            nonce: random(),
            verifier: random(),
            redirect_uri,
            return_to,
            until: (now + LASTS).as_secs(),
        }
    }

    pub(super) fn state(&self) -> &str {
        &self.state
    }

    /// Names its cookie.
    pub(super) fn id(&self) -> &str {
        id_of(&self.state).unwrap_or_default()
    }

    /// RFC 7636 §4.2, S256.
    pub(super) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()))
    }

    pub(super) fn has_ended(&self, now: Duration) -> bool {
        self.until <= now.as_secs()
    }

    /// Whether the answer is to this login, which came to `redirect_uri`.
    ///
    /// # Errors
    /// For the log.
    pub(super) fn admits(
        &self,
        answer: &Answer,
        redirect_uri: &str,
        now: Duration,
    ) -> Result<(), &'static str> {
        let same = bool::from(self.state.as_bytes().ct_eq(answer.state.as_bytes()));
        if !same && !is_planted(Fault::LoginStateNotChecked) {
            return Err("the state is not that of the login");
        }
        if self.has_ended(now) {
            return Err("the login took too long");
        }
        if self.redirect_uri != redirect_uri {
            return Err("the answer came to another address than the login began at");
        }
        Ok(())
    }
}

/// The part of a state that its cookie is named by.
fn id_of(state: &str) -> Option<&str> {
    state.get(..LOGIN_ID_BYTES).filter(|id| is_login_id(id))
}

/// Which of the logins a browser has begun are to go, so that another one has room: those that have
/// ended or cannot be read, then the oldest.
pub(super) fn to_forget(logins: Vec<(String, Option<Attempt>)>, now: Duration) -> Vec<String> {
    let (mut live, mut gone) = (Vec::new(), Vec::new());
    for (id, attempt) in logins {
        match attempt.filter(|attempt| !attempt.has_ended(now)) {
            Some(attempt) => live.push((attempt.until, id)),
            None => gone.push(id),
        }
    }
    live.sort();
    let excess = (live.len() + 1).saturating_sub(LOGINS_MAX);
    gone.extend(live.into_iter().take(excess).map(|(_, id)| id));
    gone
}

/// What the provider has the browser bring to the callback (RFC 6749 §4.1.2, RFC 9207).
pub(super) struct Answer {
    pub(super) state: String,
    pub(super) issuer: Option<String>,
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    Code(String),
    /// The provider's word for it, for the log.
    Error(String),
}

impl Answer {
    /// # Errors
    /// For the log.
    pub(super) fn read(query: &[u8]) -> Result<Self, &'static str> {
        let query = Query::read(query)?;
        let state = query.one("state")?.ok_or("there is no state")?;
        let issuer = query.one("iss")?;
        let outcome = match (query.one("code")?, query.one("error")?) {
            (Some(code), None) if !code.is_empty() => Outcome::Code(code),
            (None, Some(error)) => Outcome::Error(error),
            (Some(_), Some(_)) => return Err("both a code and an error"),
            _ => return Err("neither a code nor an error"),
        };
        Ok(Self { state, issuer, outcome })
    }

    pub(super) fn id(&self) -> Option<&str> {
        id_of(&self.state)
    }

    /// RFC 9207 §2.4: an answer of another provider is not for this one to redeem.
    ///
    /// # Errors
    /// For the log.
    pub(super) fn is_of(&self, issuer: &str, always_says_so: bool) -> Result<(), &'static str> {
        match &self.issuer {
            Some(found) if found == issuer => Ok(()),
            Some(_) => Err("the answer is of another issuer"),
            None if always_says_so => Err("the answer does not say which issuer it is of"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{START, Scripted};

    const BACK: &str = "https://api.example.com/oauth2/callback";

    fn attempt(services: &Scripted) -> Attempt {
        Attempt::new(BACK.to_owned(), "/orders".to_owned(), START.wall, services)
    }

    /// RFC 7636 appendix B.
    #[test]
    fn the_challenge_is_the_hash_of_the_verifier() {
        let attempt = Attempt {
            verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned(),
            ..attempt(&Scripted::default())
        };
        assert_eq!(attempt.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn nothing_random_is_used_twice() {
        let services = Scripted::default();
        let (one, two) = (attempt(&services), attempt(&services));
        let all = [&one.state, &one.nonce, &one.verifier, &two.state, &two.nonce, &two.verifier];
        for (at, text) in all.iter().enumerate() {
            assert!((43..=128).contains(&text.len()), "{text}");
            assert!(!all[..at].contains(text), "{text}");
        }
    }

    #[test]
    fn the_answer_belongs_to_the_login() {
        let attempt = attempt(&Scripted::default());
        let answer = |state: &str| Answer {
            state: state.to_owned(),
            issuer: None,
            outcome: Outcome::Code("c".to_owned()),
        };
        let good = answer(&attempt.state);
        assert_eq!(attempt.admits(&good, BACK, START.wall), Ok(()));
        let mut other = attempt.state.clone();
        other.replace_range(42.., "!");
        for (answer, at, now, expected) in [
            (answer(&other), BACK, START.wall, "the state is not that of the login"),
            (answer(&attempt.state[..42]), BACK, START.wall, "the state is not that of the login"),
            (answer(&attempt.state), BACK, START.wall + LASTS, "the login took too long"),
            (
                answer(&attempt.state),
                "https://evil.example/oauth2/callback",
                START.wall,
                "the answer came to another address than the login began at",
            ),
        ] {
            assert_eq!(attempt.admits(&answer, at, now), Err(expected));
        }
    }

    #[test]
    fn answers_that_cannot_be_read() {
        let read = |query: &str| match Answer::read(query.as_bytes()) {
            Ok(Answer { state, issuer, outcome: Outcome::Code(code) }) => {
                format!("{state} {issuer:?} {code}")
            }
            Ok(Answer { outcome: Outcome::Error(error), .. }) => format!("error {error}"),
            Err(detail) => detail.to_owned(),
        };
        for (query, expected) in [
            ("code=a%2Bb+c&state=s&iss=https%3A%2F%2Fidp", "s Some(\"https://idp\") a+b c"),
            ("state=s&error=access_denied&error_description=no", "error access_denied"),
            ("code=c", "there is no state"),
            ("", "there is no state"),
            ("state=s", "neither a code nor an error"),
            ("state=s&code=", "neither a code nor an error"),
            ("state=s&code=c&error=e", "both a code and an error"),
            ("state=s&state=t&code=c", "a parameter is there twice"),
            ("state=s&code=c&code=d", "a parameter is there twice"),
            ("state=s&code=c&iss=a&i%73s=b", "a parameter is there twice"),
            ("state=s&code=%ff", "a parameter cannot be read"),
            ("state=s&code=%4", "a parameter cannot be read"),
        ] {
            assert_eq!(read(query), expected, "{query}");
        }
    }

    #[test]
    fn the_answer_belongs_to_the_issuer() {
        let answer = |issuer: Option<&str>| Answer {
            state: String::new(),
            issuer: issuer.map(str::to_owned),
            outcome: Outcome::Code(String::new()),
        };
        let idp = "https://idp.example";
        for (issuer, says_so, good) in [
            (Some(idp), true, true),
            (Some(idp), false, true),
            (None, false, true),
            (None, true, false),
            (Some("https://evil.example"), true, false),
            (Some("https://evil.example"), false, false),
            (Some("https://idp.example/"), false, false),
        ] {
            assert_eq!(answer(issuer).is_of(idp, says_so).is_ok(), good, "{issuer:?} {says_so}");
        }
    }

    #[test]
    fn a_browser_keeps_few_logins() {
        let services = Scripted::default();
        let mut logins = vec![("unreadable".to_owned(), None)];
        for age in 0..LOGINS_MAX as u64 + 1 {
            let mut attempt = attempt(&services);
            attempt.until -= age;
            logins.push((format!("{age} s old"), Some(attempt)));
        }
        let gone = to_forget(logins.clone(), START.wall);
        assert_eq!(gone, ["unreadable", "5 s old", "4 s old"]);
        assert_eq!(to_forget(logins[..4].to_vec(), START.wall), ["unreadable"]);
        assert_eq!(to_forget(logins, START.wall + LASTS).len(), LOGINS_MAX + 2);
    }
}
