//! External authorization: somebody else decides about a request, by HTTP or by Envoy's protocol.
//!
//! The authorizer is told what the request is and shown the fields that the operator names. It
//! allows, and may name the caller; or its answer is the client's. What it cannot say is never a
//! yes: without an answer nobody passes, unless the operator has written down why they should.
//! What the two protocols have in common is here; neither connections nor limits on them are.

mod cached;
mod circuit;
mod grpc;
mod messages;
mod over_http;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::auth::{Accepted, Authenticator, Denied, Presented, Verified, Verify};
use portcullis_core::known::is_alias;
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::policy::{BodyUse, Reply};
use portcullis_core::services::{Fetch, Fetched};
use portcullis_core::{Exchange, Identity, Known, Problem, RequestHead, Services, codes};
use serde_json::{Map, Value};

use cached::Cached;
use circuit::{Away, Circuit};

pub(crate) use settings::Forward;

/// The client of requests that an authorizer allowed without naming anybody.
const UNNAMED: &str = "external";
/// The client of requests that passed because the authorizer could not be asked.
const UNCHECKED: &str = "unchecked";
/// Of what is told instead of the status when a failing authorizer is asked again.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Compiled {
    plan: Plan,
    circuit: Arc<Circuit>,
    cache: Option<Arc<Cached>>,
}

/// What was written, checked. Everything that a decision depends on is in here.
#[derive(Debug, Hash)]
struct Plan {
    auth: Arc<str>,
    way: Way,
    shown: Shown,
    /// Fields of the authorizer's answer that the backend gets, and nobody else may set.
    copied: Box<[Box<str>]>,
    /// Fields of the client that the backend does not get.
    hidden: Box<[Box<str>]>,
    client: Option<Source>,
    tenant: Option<Source>,
    scopes: Option<Source>,
    timeout: Duration,
    ca: Option<Arc<[u8]>>,
    body_bytes_max: Option<usize>,
    fails_open: bool,
}

#[derive(Debug, Hash)]
enum Way {
    Http(over_http::Way),
    Grpc(grpc::Way),
}

/// Which fields of the client the authorizer sees; names in lower case.
#[derive(Debug, Hash)]
enum Shown {
    All,
    Named(Box<[Box<str>]>),
}

/// Where in an answer the name of a client, a tenant or scopes stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    /// In lower case.
    Header(Box<str>),
    /// A path into the dynamic metadata.
    Metadata(Box<str>),
}

/// What an authorizer decided.
#[derive(Debug)]
enum Verdict {
    Allow(Allowed),
    Deny(Reply),
}

#[derive(Debug, Default)]
struct Allowed {
    /// Names in lower case.
    fields: Vec<(Box<str>, Box<[u8]>)>,
    /// Fields of the client that the backend is not to see.
    withheld: Vec<Box<str>>,
    cookies: Vec<String>,
    metadata: Map<String, Value>,
    /// Whether the same answer may serve another request.
    storable: bool,
}

/// Why there is no verdict.
#[derive(Debug)]
struct Failure {
    /// For the log.
    reason: String,
    /// It is not there or has too much to do, so that asking again at once makes things worse.
    is_away: bool,
}

impl Failure {
    fn odd(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_away: false }
    }
}

impl Way {
    /// Why it cannot be put is for the log, and the client's doing.
    fn question(&self, plan: &Plan, exchange: &Exchange) -> Result<Fetch, String> {
        let fetch = match self {
            Self::Http(way) => way.question(plan, exchange)?,
            Self::Grpc(way) => way.question(plan, exchange)?,
        };
        let body_bytes_max = ANSWER_BYTES_MAX;
        Ok(Fetch { timeout: plan.timeout, ca: plan.ca.clone(), body_bytes_max, ..fetch })
    }

    fn verdict(&self, fetched: Fetched) -> Result<Verdict, Failure> {
        match self {
            Self::Http(_) => over_http::verdict(fetched),
            Self::Grpc(_) => grpc::verdict(&fetched),
        }
    }
}

/// What an authorizer may say.
const ANSWER_BYTES_MAX: usize = 64 << 10;

impl Shown {
    /// The client's fields, names in lower case.
    ///
    /// A value that is no text cannot be shown as it is, and must not be shown as anything else:
    /// the backend would then see what was never judged.
    fn lines(&self, request: &RequestHead) -> Result<Vec<(String, String)>, String> {
        let mut lines = Vec::new();
        for (name, value) in request.fields.iter() {
            let is_shown = match self {
                Self::All => !is_told_by_us(name),
                Self::Named(names) => {
                    names.iter().any(|shown| name.eq_ignore_ascii_case(shown.as_bytes()))
                }
            };
            if is_shown {
                let name = text(name)?.to_ascii_lowercase();
                let value = text(value).map_err(|_| format!("the value of `{name}` is no text"))?;
                lines.push((name, value.to_owned()));
            }
        }
        Ok(lines)
    }
}

/// What concerns one connection, or what the gateway says in its own words; under any spelling.
fn is_told_by_us(name: &[u8]) -> bool {
    const OURS: [&[u8]; 2] = [b"x-forwarded-", b"x-original-"];
    let known = match Known::of(name) {
        Known::Other => Known::aliased_by(name).unwrap_or_default(),
        known => known,
    };
    let begins = |with: &&[u8]| name.get(..with.len()).is_some_and(|name| is_alias(name, with));
    known.is_hop_by_hop()
        || OURS.iter().any(begins)
        || matches!(
            known,
            Known::AcceptEncoding
                | Known::Age
                | Known::ContentLength
                | Known::Date
                | Known::Expect
                | Known::Forwarded
                | Known::Host
                | Known::Via
                | Known::XForwardedFor
                | Known::XForwardedHost
                | Known::XForwardedProto
                | Known::XRequestId
        )
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| format!("`{}` is no text", bytes.escape_ascii()))
}

/// The path and the query, as the backend is to get them.
fn target(request: &RequestHead) -> Result<String, String> {
    let path = text(request.path())?;
    Ok(match request.query() {
        Some(query) => format!("{path}?{}", text(query)?),
        None => path.to_owned(),
    })
}

impl Allowed {
    /// The one value there is.
    fn value(&self, source: &Source) -> Option<String> {
        match source {
            Source::Header(name) => {
                let mut values = self.fields.iter().filter(|(has, _)| has == name);
                let (_, value) = values.next()?;
                let value = std::str::from_utf8(value).ok()?.trim();
                (!value.is_empty() && values.next().is_none()).then(|| value.to_owned())
            }
            Source::Metadata(path) => match claim(&self.metadata, path)? {
                Value::String(text) if !text.is_empty() => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            },
        }
    }

    fn scopes(&self, source: &Source) -> Vec<String> {
        let words = |text: &str| {
            let words = text.split([' ', ',']).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        if let Source::Metadata(path) = source
            && let Some(Value::Array(items)) = claim(&self.metadata, path)
        {
            return items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect();
        }
        self.value(source).map(|text| words(&text)).unwrap_or_default()
    }
}

fn claim<'a>(metadata: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    metadata.get(path).or_else(|| {
        let (first, rest) = path.split_once('.')?;
        rest.split('.').try_fold(metadata.get(first)?, |value, name| value.get(name))
    })
}

impl Plan {
    /// Who calls, by what the authorizer said. `None` where it was to name somebody and did not.
    fn identity(&self, allowed: &mut Allowed) -> Option<Identity> {
        let client = match &self.client {
            Some(source) => allowed.value(source)?,
            None => UNNAMED.to_owned(),
        };
        let mut identity = Identity::new(Arc::clone(&self.auth), client);
        if let Some(source) = &self.tenant {
            identity.tenant = Some(allowed.value(source)?);
        }
        if let Some(source) = &self.scopes {
            identity.scopes = allowed.scopes(source);
        }
        let is_copied = |name: &str| self.copied.iter().any(|copied| **copied == *name);
        let fields = std::mem::take(&mut allowed.fields);
        identity.fields = fields.into_iter().filter(|(name, _)| is_copied(name)).collect();
        for (name, value) in &identity.fields {
            let value = String::from_utf8_lossy(value);
            match identity.claims.get_mut(&**name) {
                Some(Value::String(text)) => *text = format!("{text}, {value}"),
                _ => drop(identity.claims.insert(name.to_string(), value.into())),
            }
        }
        identity.claims.extend(std::mem::take(&mut allowed.metadata));
        Some(identity)
    }
}

impl Compiled {
    async fn ask(
        &self,
        exchange: &Exchange,
        key: Option<u128>,
        services: &dyn Services,
    ) -> Verified {
        let question = self.plan.way.question(&self.plan, exchange);
        let question = question.map_err(|detail| {
            let detail = format!("the authorizer cannot be shown the request: {detail}");
            Denied::from(Problem::new(codes::MALFORMED_REQUEST).detail(detail))
        })?;
        let turn = match self.circuit.enter(services.now().mono) {
            Ok(turn) => turn,
            Err(away) => return self.failed(&away),
        };
        let answer = match services.fetch(question).await {
            Ok(fetched) => self.plan.way.verdict(fetched),
            Err(unavailable) => Err(Failure { reason: unavailable.0, is_away: true }),
        };
        let now = services.now().mono;
        turn.end(answer.as_ref().is_err_and(|failure| failure.is_away), now);
        match answer {
            Ok(Verdict::Allow(allowed)) => self.accept(allowed, key, now),
            Ok(Verdict::Deny(_)) if is_planted(Fault::AuthorizerIgnored) => {
                self.accept(Allowed::default(), None, now)
            }
            Ok(Verdict::Deny(reply)) => Err(Denied::Reply(reply)),
            Err(Failure { reason, .. }) => self.failed(&Away { reason, retry_after: AGAIN }),
        }
    }

    fn accept(&self, mut allowed: Allowed, key: Option<u128>, now: Duration) -> Verified {
        let Some(identity) = self.plan.identity(&mut allowed) else {
            // Who is not named is nobody, and nobody is not served, whatever `on_failure` says.
            let detail = "the authorizer allowed the request and did not name who calls";
            return Err(unavailable(detail, AGAIN).into());
        };
        let Allowed { withheld, cookies, storable, .. } = allowed;
        let identity = Arc::new(identity);
        if let (Some(cache), Some(key), true) = (&self.cache, key, storable && cookies.is_empty()) {
            cache.insert(key, now, Arc::clone(&identity), withheld.clone());
        }
        Ok(Accepted { identity, cookies, withheld })
    }

    fn failed(&self, away: &Away) -> Verified {
        if self.plan.fails_open {
            let auth = Arc::clone(&self.plan.auth);
            return Ok(Arc::new(Identity::new(auth, UNCHECKED.to_owned())).into());
        }
        Err(unavailable(&away.reason, away.retry_after).into())
    }
}

fn unavailable(detail: &str, retry_after: Duration) -> Problem {
    Problem::new(codes::AUTHORIZER_UNAVAILABLE).detail(detail).retry_after(retry_after)
}

impl Authenticator for Compiled {
    fn presented(&self, _: &Exchange) -> Presented {
        Presented::Ambient
    }

    fn challenge(&self) -> &str {
        ""
    }

    fn verify<'a>(&'a self, exchange: &'a Exchange, services: &'a dyn Services) -> Verify<'a> {
        let key = self.cache.as_ref().map(|cache| cache.key(&self.plan, exchange, services));
        if let (Some(cache), Some(key)) = (&self.cache, key)
            && let Some(accepted) = cache.find(key, exchange.now.mono)
        {
            return Verify::Done(Ok(accepted));
        }
        Verify::Wait(Box::pin(self.ask(exchange, key, services)))
    }

    fn conceal(&self, request: &mut RequestHead) {
        request.fields.remove_if(|_, name, _| {
            self.plan.hidden.iter().any(|hidden| is_alias(name, hidden.as_bytes()))
        });
    }

    fn owned_fields(&self) -> &[Box<str>] {
        &self.plan.copied
    }

    fn request_body(&self) -> BodyUse {
        match self.plan.body_bytes_max {
            Some(bytes_max) => BodyUse::Buffered { bytes_max },
            None => BodyUse::Untouched,
        }
    }
}
