//! Keys that the operator hands out, one or two a client, listed by their hashes in a file.
//!
//! A key is `pk_ID_SECRET`; the secret has 256 random bits, so a fast hash protects it. The hash
//! of the whole finds the entry. So a right id with a wrong secret, however much of it is right,
//! is as far from an entry as any other text, and takes as long: `timing` of the bench measures it.
//! What time tells is at most about the hash, from which no key can be found.

mod file;
mod secret;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::auth::{Authenticator, Presented, Verify};
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::head::is_token;
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::registry::{AuthConfig, Compile, Site};
use portcullis_core::{Exchange, Identity, Known, Problem, RequestHead, Services, codes};
use schemars::JsonSchema;
use serde::Deserialize;

use super::listed::{self, Period};
use super::place::{Place, Places};
use super::{refuse, told};

pub use file::{KeyEntry, read_entries};
pub use secret::{IdError, NewKey, generate};

/// Takes API keys that `portcullis keys` has made.
///
/// The file lists one entry a key, with a hash and never the key itself. It is read again when it
/// changes. A client may have several keys, so that one can take over from another. A request has
/// its key in one of the places that are named here; without any, in `X-Api-Key`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiKeys {
    /// The file with the keys: `file:PATH`, YAML or JSON.
    keys: Spanned<String>,
    /// The header that carries the key. Default: `X-Api-Key`, where no other place is named.
    #[serde(default)]
    header: Option<Spanned<String>>,
    /// The scheme of the `Authorization` header that carries the key: with `ApiKey` it is
    /// `Authorization: ApiKey pk_…`. Default: none.
    #[serde(default)]
    authorization_scheme: Option<Spanned<String>>,
    /// The parameter of the query that carries the key: with `api_key` it is
    /// `/orders?api_key=pk_…`. For clients that can send no header; whoever sees the URL has the
    /// key. Default: none.
    #[serde(default)]
    query: Option<Spanned<String>>,
}

impl AuthConfig for ApiKeys {
    const NAME: &'static str = "api_keys";
    const EXAMPLE: &'static str = r#"{ keys: "file:partners.yaml" }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let places = self.places(site, with);
        let entries = listed::read(&self.keys, ("keys", "unusable-keys"), site, with, file::read)?;
        let places = places?;
        self.tell_of_query(site, with);
        self.tell_of_endless(&entries, site, with);
        let auth: Arc<str> = site.owner.into();
        let keys = entries.into_iter().map(|entry| Key::new(entry, &auth)).collect();
        let scheme = places.iter().find_map(|place| match place {
            Place::Authorization(scheme) => Some(&**scheme),
            _ => None,
        });
        let realm = site.owner.replace(['"', '\\'], "");
        let challenge = format!("{} realm=\"{realm}\"", scheme.unwrap_or("ApiKey"));
        Some(Arc::new(Compiled { keys, places: Places::new(places), challenge }))
    }
}

impl ApiKeys {
    /// Every place that is named; `None` after an error.
    fn places(&self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Vec<Place>> {
        let before = with.findings.errors();
        let mut places = Vec::new();
        let mut error = |key: &str, text: &Spanned<String>, message: &str| {
            let resource = format!("{}.{key}", site.resource);
            with.findings.push(Finding::error("invalid-value", text.span, resource, message));
        };
        if let Some(header) = &self.header {
            if !is_token(header.as_bytes()) {
                error("header", header, "not a field name");
            } else if Known::of(header.as_bytes()) != Known::Other {
                error("header", header, "this field has a meaning of its own");
            }
            places.push(Place::Header(header.value.as_str().into()));
        }
        if let Some(scheme) = &self.authorization_scheme {
            if !is_token(scheme.as_bytes()) {
                error("authorization_scheme", scheme, "not the name of a scheme");
            }
            places.push(Place::Authorization(scheme.value.as_str().into()));
        }
        if let Some(name) = &self.query {
            if !is_token(name.as_bytes()) || name.contains(['%', '+', '&']) {
                error("query", name, "not the name of a parameter: letters, digits, `-` and `_`");
            }
            places.push(Place::Query(name.value.as_str().into()));
        }
        if places.is_empty() {
            places.push(Place::Header("X-Api-Key".into()));
        }
        (with.findings.errors() == before).then_some(places)
    }

    /// Addresses are kept where credentials are not.
    fn tell_of_query(&self, site: &Site<'_>, with: &mut Compile<'_>) {
        let Some(name) = &self.query else { return };
        let message = "keys in addresses are kept in histories, bookmarks and other people's logs";
        let resource = format!("{}.query", site.resource);
        let finding = Finding::warning("credential-in-query", name.span, resource, message);
        with.findings.push(finding.help("take them in a `header`, from clients that can"));
    }

    /// Keys that nobody has to think of again are found when it is too late.
    fn tell_of_endless(&self, entries: &[file::Checked], site: &Site<'_>, with: &mut Compile<'_>) {
        const NAMED_MAX: usize = 5;
        let endless: Vec<&str> = entries
            .iter()
            .filter(|entry| entry.period.expires == Duration::MAX)
            .map(|entry| entry.id.as_str())
            .collect();
        if endless.is_empty() {
            return;
        }
        let more = match endless.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = endless[..endless.len().min(NAMED_MAX)].join(", ");
        let message = format!("{}: keys that never expire: {named}{more}", self.keys.value);
        let resource = format!("{}.keys", site.resource);
        let finding = Finding::warning("keys-without-expiry", self.keys.span, resource, message);
        with.findings.push(finding.help("`portcullis keys rotate ID --expires TIME`"));
    }
}

/// Of the whole key.
type Hash = [u8; 32];

#[derive(Debug)]
struct Key {
    hash: Hash,
    period: Period,
    identity: Arc<Identity>,
}

impl Key {
    fn new(entry: file::Checked, auth: &Arc<str>) -> Self {
        let mut identity = Identity::new(Arc::clone(auth), entry.client);
        identity.tenant = entry.tenant;
        identity.scopes = entry.scopes;
        // For the log and for limits by key: which of a client's keys it was.
        identity.claims.insert("key_id".to_owned(), entry.id.clone().into());
        Self { hash: entry.hash, period: entry.period, identity: Arc::new(identity) }
    }
}

#[derive(Debug)]
struct Compiled {
    keys: Keys,
    places: Places,
    challenge: String,
}

#[derive(Debug)]
struct Keys(HashMap<Hash, Key, BuildHasherDefault<DefaultHasher>>);

struct Refusal {
    expired: bool,
    /// For the log.
    detail: &'static str,
}

impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.hash, key)).collect())
    }
}

impl Compiled {
    fn find(&self, text: &[u8], wall: Duration) -> Result<Arc<Identity>, Refusal> {
        let refused = |detail| Refusal { expired: false, detail };
        let (id, secret) = secret::split(text).ok_or(refused("not an API key"))?;
        let key = self.keys.0.get(&secret::hash(id, secret));
        let is_live = |key: &&Key| key.period.not_before <= wall && wall < key.period.expires;
        let any = || self.keys.0.values().find(is_live);
        let planted = || is_planted(Fault::RevokedKeyAccepted).then(any).flatten();
        let Some(key) = key.or_else(planted) else {
            return Err(refused("no such key"));
        };
        // Only who knows the secret learns this.
        if key.period.expires <= wall && !is_planted(Fault::ExpiredKeyAccepted) {
            return Err(Refusal { expired: true, detail: "the key has expired" });
        }
        if wall < key.period.not_before {
            return Err(refused("the key is not valid yet"));
        }
        Ok(Arc::clone(&key.identity))
    }
}

impl Authenticator for Compiled {
    fn presented(&self, exchange: &Exchange) -> Presented {
        self.places.glance(&exchange.request)
    }

    fn challenge(&self) -> &str {
        &self.challenge
    }

    fn verify<'a>(&'a self, exchange: &'a Exchange, _: &'a dyn Services) -> Verify<'a> {
        let span = match self.places.look(&exchange.request) {
            Presented::Mine(span) => span,
            Presented::Several => {
                let problem = Problem::new(codes::CREDENTIALS_AMBIGUOUS).detail("two API keys");
                return Verify::Done(Err(problem.into()));
            }
            _ => {
                let problem = refuse(codes::CREDENTIALS_MISSING, &self.challenge, "no API key");
                return Verify::Done(Err(problem.into()));
            }
        };
        let text = span.of(exchange.request.fields.bytes());
        Verify::Done(told(self.find(text, exchange.now.wall).map_err(|refusal| {
            let Refusal { expired, detail } = refusal;
            let bad = if expired { codes::CREDENTIALS_EXPIRED } else { codes::CREDENTIALS_INVALID };
            refuse(bad, &self.challenge, detail)
        })))
    }

    fn conceal(&self, request: &mut RequestHead) {
        self.places.conceal(request);
    }

    fn secret_parameters(&self) -> &[Box<str>] {
        self.places.parameters()
    }
}
