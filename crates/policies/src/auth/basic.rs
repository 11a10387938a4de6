//! Users with passwords (RFC 7617), listed with hashes of them in a file.
//!
//! The way of a password: in proper form? → right not long ago? → argon2id, a few at a time and
//! away from the workers → identity, remembered under the process's secret. A name that
//! nobody has costs as much as one with another password, so that time tells nobody who is listed.

mod password;
#[cfg(test)]
mod tests;
mod turns;
mod users;

use std::sync::Arc;
use std::time::Duration as Time;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::auth::{Authenticator, Presented, Verify};
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::registry::{AuthConfig, Compile, Site};
use portcullis_core::services::{Unavailable, offload};
use portcullis_core::units::PositiveDuration;
use portcullis_core::{Exchange, Known, Problem, RequestHead, Services, Span, codes};
use schemars::JsonSchema;
use serde::Deserialize;

use super::listed::ByName;
use super::remembered::{Found, Proven, Remembered};
use super::{Checked, after_scheme, listed, refuse, told};
use crate::key::Secret;
use password::Hashed;
use turns::Turns;
use users::User;

pub use password::{PasswordError, SALT_BYTES, hash_password};
pub use users::{UserEntry, read_entries};

const SCHEME: &str = "Basic";
const USER_BYTES_MAX: usize = 256;
const PASSWORD_BYTES_MAX: usize = 1024;
/// Of the two with a colon between them, in base64.
const ENCODED_BYTES_MAX: usize = (USER_BYTES_MAX + 1 + PASSWORD_BYTES_MAX).div_ceil(3) * 4;
const REMEMBER_MAX: Time = Time::from_secs(3600);
/// Requests that wait for their verification; more are turned away.
const WAITING_MAX: usize = 256;

const PURPOSE: u64 = 0x0062_6173_6963;

/// Takes names and passwords from `Authorization: Basic` (RFC 7617), for people and old clients.
///
/// The file lists one entry a user, with a hash that `portcullis keys hash-password` has made. It
/// is read again when it changes. Passwords travel with each request: take them over TLS only.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Basic {
    /// The file with the users: `file:PATH`, YAML or JSON.
    users: Spanned<String>,
    /// For how long a password that was right is not verified again, at most `1h`. A change of the
    /// user's entry ends it at once. Default: `5m`.
    #[serde(default = "default_remember")]
    remember: PositiveDuration,
    /// How many passwords are verified at once, at most 64. Each takes a core for some 20 ms and
    /// the memory that its hash says. 256 more wait; above that the answer is 503. Default: 4.
    #[serde(default = "default_verifications")]
    #[schemars(range(min = 1, max = 64))]
    verifications_max: u32,
}

fn default_remember() -> PositiveDuration {
    PositiveDuration::from_secs(300)
}

fn default_verifications() -> u32 {
    4
}

impl AuthConfig for Basic {
    const NAME: &'static str = "basic";
    const EXAMPLE: &'static str = r#"{ users: "file:users.yaml" }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let before = with.findings.errors();
        if self.remember.0 > REMEMBER_MAX {
            let resource = format!("{}.remember", site.resource);
            with.findings.error("out-of-range", site.span, resource, "at most `1h`");
        }
        let listed =
            listed::read(&self.users, ("users", "unusable-users"), site, with, users::read)?;
        for user in listed.iter().filter(|user| user.hashed.is_weak()) {
            let resource = format!("{}.users", site.resource);
            let message =
                format!("{}: the hash of `{}` is too cheap to guess", self.users.value, user.name);
            let finding = Finding::error("weak-password-hash", self.users.span, resource, message);
            with.findings.push(finding.help("make one with `portcullis keys hash-password`"));
        }
        if with.findings.errors() > before {
            return None;
        }
        let secret = Secret::of(with.carry);
        let settings = self.remember.0;
        let remembered = with
            .carry
            .keep("basic-remembered", site.owner, &settings, || Remembered::new(secret.clone()));
        let at_once = self.verifications_max as usize;
        let turns = with
            .carry
            .keep("basic-turns", site.owner, &at_once, || Turns::new(at_once, WAITING_MAX));
        let auth: Arc<str> = site.owner.into();
        let users: Vec<User> = listed.into_iter().map(|user| user.into_user(&auth)).collect();
        let by_name = users.iter().enumerate().map(|(at, user)| (user.name.clone(), at)).collect();
        let realm = site.owner.replace(['"', '\\'], "");
        Some(Arc::new(Compiled {
            users,
            by_name,
            secret,
            remembered,
            remember: self.remember.0,
            turns,
            challenge: format!("{SCHEME} realm=\"{realm}\", charset=\"UTF-8\""),
        }))
    }
}

#[derive(Debug)]
struct Compiled {
    users: Vec<User>,
    by_name: ByName<usize>,
    secret: Secret,
    remembered: Arc<Remembered>,
    remember: Time,
    turns: Arc<Turns>,
    challenge: String,
}

/// A name and a password in proper form.
struct Given {
    text: String,
    colon: usize,
}

impl Given {
    /// RFC 7617 §2: base64 of `user:password`, both without control characters; UTF-8, as the
    /// challenge says (§2.1).
    fn read(encoded: &[u8]) -> Result<Self, &'static str> {
        if encoded.len() > ENCODED_BYTES_MAX {
            return Err("the credential is too long");
        }
        let bytes = STANDARD.decode(encoded).map_err(|_| "the credential is not base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "the credential is not UTF-8")?;
        if text.chars().any(char::is_control) {
            return Err("a control character in the credential");
        }
        let colon = text.find(':').ok_or("no colon in the credential")?;
        let given = Self { text, colon };
        if given.user().len() > USER_BYTES_MAX || given.password().len() > PASSWORD_BYTES_MAX {
            return Err("the credential is too long");
        }
        Ok(given)
    }

    fn user(&self) -> &str {
        &self.text[..self.colon]
    }

    fn password(&self) -> &str {
        &self.text[self.colon + 1..]
    }
}

fn credentials(request: &RequestHead) -> impl Iterator<Item = Span> {
    let fields = request.fields.live().filter(|field| field.known == Known::Authorization);
    fields.filter_map(|field| {
        let at = after_scheme(field.value.of(request.fields.bytes()), SCHEME)?;
        let start = field.value.start as usize;
        Some(Span::new(start + at.start, start + at.end))
    })
}

impl Compiled {
    fn invalid(&self, detail: &str) -> Problem {
        refuse(codes::CREDENTIALS_INVALID, &self.challenge, detail)
    }

    fn user(&self, name: &str) -> Option<&User> {
        self.by_name.get(name).map(|at| &self.users[*at])
    }

    fn remembered(&self, user: &User, hash: u128, wall: Time) -> Option<Checked> {
        match self.remembered.find(hash, user.version, wall) {
            Found::Good(identity, _) => Some(Ok(identity)),
            Found::Expired | Found::Nothing => None,
        }
    }

    /// Somebody's hash for a name that nobody has: always the same one for the same name, so that
    /// its cost, where costs differ, is that of some user.
    fn stand_in(&self, name: &str, services: &dyn Services) -> Option<&User> {
        let mut hasher = self.secret.hasher(services, PURPOSE);
        hasher.text(name.as_bytes());
        let among = u128::try_from(self.users.len()).ok().filter(|users| *users > 0)?;
        self.users.get((hasher.finish() % among) as usize)
    }

    async fn verify_new(&self, given: Given, hash: u128, services: &dyn Services) -> Checked {
        let unavailable = |detail: &str| {
            Problem::new(codes::AUTHORIZER_UNAVAILABLE)
                .detail(detail)
                .retry_after(Time::from_secs(1))
        };
        let user = self.user(given.user());
        let Some(tried) = user.or_else(|| self.stand_in(given.user(), services)) else {
            return Err(self.invalid("no user is listed"));
        };
        let waiting =
            self.turns.join().ok_or_else(|| unavailable("too many passwords to verify"))?;
        let turn = waiting.await;
        // A browser sends the same password with many requests at once.
        if let Some(verified) =
            user.and_then(|user| self.remembered(user, hash, services.now().wall))
        {
            return verified;
        }
        let (hashed, length): (Arc<Hashed>, _) = (Arc::clone(&tried.hashed), given.text.len());
        let verified = offload(services, move || {
            // Held for as long as the core and the memory are, even if the client goes away.
            let _turn = turn;
            hashed.is_of(given.password())
        });
        let is_right = verified.await.map_err(|Unavailable(reason)| unavailable(&reason))?;
        match user {
            None => Err(self.invalid("no such user")),
            Some(_) if !is_right && !is_planted(Fault::PasswordNotChecked) => {
                Err(self.invalid("another password"))
            }
            Some(user) => {
                let (until, identity) = (services.now().wall + self.remember, &user.identity);
                let proven = Proven::unbound(Arc::clone(identity), until);
                self.remembered.insert(hash, length, user.version, &proven);
                Ok(Arc::clone(identity))
            }
        }
    }
}

impl Authenticator for Compiled {
    fn presented(&self, exchange: &Exchange) -> Presented {
        credentials(&exchange.request).next().map_or(Presented::Nothing, Presented::Mine)
    }

    fn challenge(&self) -> &str {
        &self.challenge
    }

    fn verify<'a>(&'a self, exchange: &'a Exchange, services: &'a dyn Services) -> Verify<'a> {
        let mut found = credentials(&exchange.request);
        let Some(span) = found.next() else {
            let problem = refuse(codes::CREDENTIALS_MISSING, &self.challenge, "no password");
            return Verify::Done(Err(problem.into()));
        };
        if found.next().is_some() {
            let problem = Problem::new(codes::CREDENTIALS_AMBIGUOUS).detail("two passwords");
            return Verify::Done(Err(problem.into()));
        }
        drop(found);
        let given = match Given::read(span.of(exchange.request.fields.bytes())) {
            Ok(given) => given,
            Err(detail) => return Verify::Done(Err(self.invalid(detail).into())),
        };
        let hash = self.remembered.hash(given.text.as_bytes(), services);
        let known = self.user(given.user());
        if let Some(verified) =
            known.and_then(|user| self.remembered(user, hash, exchange.now.wall))
        {
            return Verify::Done(told(verified));
        }
        let verified = self.verify_new(given, hash, services);
        Verify::Wait(Box::pin(async { told(verified.await) }))
    }

    fn conceal(&self, request: &mut RequestHead) {
        request.fields.remove_if(|known, _, value| {
            known == Known::Authorization && after_scheme(value, SCHEME).is_some()
        });
    }
}
