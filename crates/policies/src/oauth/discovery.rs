//! Where an issuer's endpoints are: OpenID Connect Discovery 1.0 §4, RFC 8414.
//!
//! Asked for when it is first needed and refreshed in the background. What was found stays in use
//! while the issuer does not answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use portcullis_core::Services;
use portcullis_core::services::Fetch;
use serde::Deserialize;

use crate::flight::{Flight, Grounded};

/// For each of the two places where a document may be, of which nearly always one is asked. Where
/// a request waits for it, it has less.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT_OF_REQUEST: Duration = Duration::from_secs(2);
/// Endpoints move seldom.
const REFRESH_EVERY: Duration = Duration::from_secs(3600);
/// How often upkeep looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After a failure; doubles with each.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What is read of a discovery document.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) issuer: String,
    jwks_uri: Option<String>,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    introspection_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    /// RFC 9207: its answers to authorization requests name it.
    #[serde(default)]
    pub(crate) authorization_response_iss_parameter_supported: bool,
}

/// One of an issuer's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Which {
    Authorization,
    Token,
    Introspection,
    EndSession,
    Revocation,
}

impl Metadata {
    /// Each by the name that the document has for it.
    fn all(&self) -> [(&'static str, Option<&str>); 6] {
        [
            ("jwks_uri", self.jwks_uri.as_deref()),
            ("authorization_endpoint", self.authorization_endpoint.as_deref()),
            ("token_endpoint", self.token_endpoint.as_deref()),
            ("introspection_endpoint", self.introspection_endpoint.as_deref()),
            ("end_session_endpoint", self.end_session_endpoint.as_deref()),
            ("revocation_endpoint", self.revocation_endpoint.as_deref()),
        ]
    }

    fn named(&self, at: usize) -> Result<&str, String> {
        let (name, url) = self.all()[at];
        let url = url.ok_or_else(|| format!("`{}` names no `{name}`", self.issuer))?;
        // An issuer on loopback may say `http`; nobody else may send us there.
        match is_trustworthy(url) {
            true => Ok(url),
            false => Err(format!("the `{name}` of `{}` is not https", self.issuer)),
        }
    }

    /// # Errors
    /// For the operator, as with [`Self::endpoint`].
    pub(crate) fn jwks_uri(&self) -> Result<&str, String> {
        self.named(0)
    }

    /// # Errors
    /// For the operator: it has none, or one that cannot be trusted.
    pub(crate) fn endpoint(&self, which: Which) -> Result<&str, String> {
        self.named(which as usize + 1)
    }
}

/// What a discovery came to.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) metadata: Metadata,
    /// From the disk, since the issuer did not answer.
    pub(crate) stale: bool,
}

/// Asks an issuer for its document, once.
///
/// # Errors
/// For the operator: nobody answers, or not with a document of this issuer.
pub(crate) async fn ask(
    issuer: &str,
    ca: Option<&Arc<[u8]>>,
    timeout: Duration,
    services: &dyn Services,
) -> Result<Found, String> {
    let [first, second] = locations(issuer);
    match ask_at(&first, issuer, ca, timeout, services).await {
        Ok(found) => Ok(found),
        // Only who has no such page may have the other.
        Err(Miss::NotThere) => match ask_at(&second, issuer, ca, timeout, services).await {
            Ok(found) => Ok(found),
            Err(Miss::NotThere) => Err(format!("neither {first} nor {second} is there")),
            Err(Miss::Failed(reason)) => Err(reason),
        },
        Err(Miss::Failed(reason)) => Err(reason),
    }
}

enum Miss {
    NotThere,
    Failed(String),
}

async fn ask_at(
    url: &str,
    issuer: &str,
    ca: Option<&Arc<[u8]>>,
    timeout: Duration,
    services: &dyn Services,
) -> Result<Found, Miss> {
    let fetch = Fetch {
        fields: vec![("accept".to_owned(), "application/json".to_owned())],
        ca: ca.cloned(),
        timeout,
        keep_last_good: Some(|text| serde_json::from_slice::<Metadata>(text).is_ok()),
        ..Fetch::get(url)
    };
    let failed = |reason: String| Miss::Failed(reason);
    let answer = services.fetch(fetch).await.map_err(|error| failed(error.to_string()))?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(Miss::NotThere),
        status => return Err(failed(format!("{url} answers {}", status.as_u16()))),
    }
    let metadata: Metadata = serde_json::from_slice(&answer.body)
        .map_err(|error| failed(format!("{url}: not a discovery document: {error}")))?;
    if metadata.issuer != issuer {
        return Err(failed(format!("{url}: is of the issuer `{}`", metadata.issuer)));
    }
    Ok(Found { metadata, stale: answer.stale })
}

/// OpenID Connect Discovery 1.0 §4 appends to the issuer, RFC 8414 §3 puts between host and path.
fn locations(issuer: &str) -> [String; 2] {
    let issuer = issuer.trim_end_matches('/');
    let host = issuer.find("://").map_or(0, |at| at + 3);
    let path = issuer[host..].find('/').map_or(issuer.len(), |at| host + at);
    let (origin, path) = issuer.split_at(path);
    [
        format!("{issuer}/.well-known/openid-configuration"),
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
    ]
}

/// Whether keys and tokens may come from there, and secrets go there: nobody on the way can have
/// changed or read them.
pub(crate) fn is_trustworthy(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return url.starts_with("https://") };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let loopback = |address: std::net::IpAddr| address.is_loopback();
    !authority.contains('@') && (host == "localhost" || host.parse().is_ok_and(loopback))
}

/// The document of one issuer, shared by everybody who needs it.
#[derive(Debug)]
pub(crate) struct Discovery {
    issuer: String,
    ca: Option<Arc<[u8]>>,
    /// Its lock is taken before that of the state, never within.
    flight: Flight<Result<Arc<Metadata>, String>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Arc<Metadata>>,
    /// Attempts that failed in a row, and how the last one did.
    failures: u32,
    reason: String,
    /// When it is asked for again.
    due: Duration,
}

impl Discovery {
    pub(crate) fn new(issuer: String, ca: Option<Arc<[u8]>>) -> Self {
        Self { issuer, ca, flight: Flight::default(), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, else what a request to the issuer brings. Many wait for one request, and
    /// after a failure there is none for a while.
    ///
    /// # Errors
    /// For the operator.
    pub(crate) async fn metadata(&self, services: &dyn Services) -> Result<Arc<Metadata>, String> {
        if let Some(known) = &self.lock().known {
            return Ok(Arc::clone(known));
        }
        let now = services.now().mono;
        let asked = self
            .flight
            .run(|| self.may_ask(now), async || self.ask(TIMEOUT_OF_REQUEST, services).await);
        match asked.await {
            Ok(outcome) => outcome,
            Err(Grounded::Refused(reason)) => Err(reason),
            Err(Grounded::Crowded) => Err("too many requests wait for discovery".to_owned()),
            Err(Grounded::BrokenOff) => Err("the discovery was broken off".to_owned()),
        }
    }

    fn may_ask(&self, now: Duration) -> Result<(), String> {
        let state = self.lock();
        match now < state.due {
            true => Err(state.reason.clone()),
            false => Ok(()),
        }
    }

    async fn ask(
        &self,
        timeout: Duration,
        services: &dyn Services,
    ) -> Result<Arc<Metadata>, String> {
        let asked = ask(&self.issuer, self.ca.as_ref(), timeout, services).await;
        let now = services.now().mono;
        let mut state = self.lock();
        match asked {
            // What the disk gave is asked for again soon, and never replaces what is known.
            Ok(found) if !found.stale => {
                state.failures = 0;
                state.due = now + REFRESH_EVERY;
                state.known = Some(Arc::new(found.metadata));
            }
            other => {
                let wait = RETRY_FIRST * 2_u32.saturating_pow(state.failures.min(16));
                state.failures = state.failures.saturating_add(1);
                state.due = now + wait.min(RETRY_MAX);
                match other {
                    Ok(found) => drop(state.known.get_or_insert(Arc::new(found.metadata))),
                    Err(reason) => state.reason = reason,
                }
            }
        }
        state.known.clone().ok_or_else(|| state.reason.clone())
    }

    /// Work in the background; returns when to look again.
    pub(crate) async fn upkeep(&self, services: &dyn Services) -> Duration {
        let now = services.now().mono;
        let due = self.lock().due;
        if now >= due
            && let Some(lead) = self.flight.begin()
        {
            lead.end(self.ask(TIMEOUT, services).await);
        }
        LOOK_EVERY
    }
}

#[cfg(test)]
mod tests;
