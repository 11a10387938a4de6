//! Keys that the operator hands out, one or two a client, listed by their hashes in a file.
//!
//! A key is `pk_ID_SECRET`; the secret has 256 random bits, so a fast hash protects it. Its id
//! finds the entry, its hash is compared without saying by time how much of it was right, and an id
//! that does not exist costs as much as a wrong secret.

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
use portcullis_core::known::is_alias;
use portcullis_core::registry::{AuthConfig, Compile, Site};
use portcullis_core::{Exchange, Identity, Known, Problem, RequestHead, Services, Span, codes};
use schemars::JsonSchema;
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::{after_scheme, refuse, told};

pub use file::KeyEntry;
pub use secret::{IdError, NewKey, generate};

/// Takes API keys that `portcullis keys` has made.
///
/// The file lists one entry a key, with a hash and never the key itself. It is read again when it
/// changes. A client may have several keys, so that one can take over from another.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiKeys {
    /// The file with the keys: `file:PATH`, YAML or JSON.
    keys: Spanned<String>,
    /// The header that carries the key. Default: `X-Api-Key`.
    #[serde(default)]
    header: Option<Spanned<String>>,
    /// The scheme of the `Authorization` header that carries the key, instead of a header of its
    /// own: with `ApiKey` it is `Authorization: ApiKey pk_…`. Default: none.
    #[serde(default)]
    authorization_scheme: Option<Spanned<String>>,
}

impl AuthConfig for ApiKeys {
    const NAME: &'static str = "api_keys";
    const EXAMPLE: &'static str = r#"{ keys: "file:partners.yaml" }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let place = self.place(site, with);
        let text = with.read(site, self.keys.span, &self.keys)?;
        let entries = match file::read(&text) {
            Ok(entries) => entries,
            Err(reasons) => {
                let resource = format!("{}.keys", site.resource);
                for reason in reasons {
                    let message = format!("{}: {reason}", self.keys.value);
                    with.findings.error("unusable-keys", self.keys.span, &resource, message);
                }
                return None;
            }
        };
        let place = place?;
        let auth: Arc<str> = site.owner.into();
        let keys = entries.into_iter().map(|entry| Key::new(entry, &auth)).collect();
        let scheme = match &place {
            Place::Authorization(scheme) => scheme,
            Place::Header(_) => "ApiKey",
        };
        let challenge = format!("{scheme} realm=\"{}\"", site.owner.replace(['"', '\\'], ""));
        Some(Arc::new(Compiled { keys, place, challenge }))
    }
}

impl ApiKeys {
    fn place(&self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Place> {
        let mut error = |key: &str, text: &Spanned<String>, message: &str| {
            let resource = format!("{}.{key}", site.resource);
            with.findings.push(Finding::error("invalid-value", text.span, resource, message));
        };
        match (&self.header, &self.authorization_scheme) {
            (Some(header), Some(_)) => {
                error(
                    "header",
                    header,
                    "a key is in a `header` or under an `authorization_scheme`",
                );
                None
            }
            (None, Some(scheme)) if !is_token(scheme.as_bytes()) => {
                error("authorization_scheme", scheme, "not the name of a scheme");
                None
            }
            (None, Some(scheme)) => Some(Place::Authorization(scheme.value.as_str().into())),
            (Some(header), None) if !is_token(header.as_bytes()) => {
                error("header", header, "not a field name");
                None
            }
            (Some(header), None) if Known::of(header.as_bytes()) != Known::Other => {
                error("header", header, "this field has a meaning of its own");
                None
            }
            (Some(header), None) => Some(Place::Header(header.value.as_str().into())),
            (None, None) => Some(Place::Header("X-Api-Key".into())),
        }
    }
}

/// Where a request has its key.
#[derive(Debug)]
enum Place {
    Header(Box<str>),
    Authorization(Box<str>),
}

impl Place {
    fn keys<'a>(&'a self, request: &'a RequestHead) -> impl Iterator<Item = Span> {
        let bytes = request.fields.bytes();
        request.fields.live().filter_map(move |field| match self {
            Self::Header(name) => {
                field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()).then_some(field.value)
            }
            Self::Authorization(scheme) => {
                if field.known != Known::Authorization {
                    return None;
                }
                let at = after_scheme(field.value.of(bytes), scheme)?;
                let start = field.value.start as usize;
                Some(Span::new(start + at.start, start + at.end))
            }
        })
    }
}

type ById = HashMap<Box<str>, Key, BuildHasherDefault<DefaultHasher>>;

#[derive(Debug)]
struct Key {
    id: Box<str>,
    hash: [u8; 32],
    not_before: Duration,
    expires: Duration,
    identity: Arc<Identity>,
}

impl Key {
    fn new(entry: file::Checked, auth: &Arc<str>) -> Self {
        let mut identity = Identity::new(Arc::clone(auth), entry.client);
        identity.tenant = entry.tenant;
        identity.scopes = entry.scopes;
        // For the log and for limits by key: which of a client's keys it was.
        identity.claims.insert("key_id".to_owned(), entry.id.clone().into());
        Self {
            id: entry.id.into(),
            hash: entry.hash,
            not_before: entry.not_before.unwrap_or(Duration::ZERO),
            expires: entry.expires.unwrap_or(Duration::MAX),
            identity: Arc::new(identity),
        }
    }
}

#[derive(Debug)]
struct Compiled {
    keys: Keys,
    place: Place,
    challenge: String,
}

#[derive(Debug)]
struct Keys(ById);

struct Refusal {
    expired: bool,
    /// For the log.
    detail: &'static str,
}

impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.id.clone(), key)).collect())
    }
}

impl Compiled {
    fn find(&self, text: &[u8], wall: Duration) -> Result<Arc<Identity>, Refusal> {
        let refused = |detail| Refusal { expired: false, detail };
        let (id, secret) = secret::split(text).ok_or(refused("not an API key"))?;
        let key = self.keys.0.get(id);
        // Hashed and compared whether or not the id exists.
        let hash = secret::hash(id, secret);
        let expected = key.map_or(&[0; 32], |key| &key.hash);
        let equal = bool::from(hash.ct_eq(expected));
        let Some(key) = key.filter(|_| equal) else {
            return Err(refused("no such key"));
        };
        // Only who knows the secret learns this.
        if key.expires <= wall {
            return Err(Refusal { expired: true, detail: "the key has expired" });
        }
        if wall < key.not_before {
            return Err(refused("the key is not valid yet"));
        }
        Ok(Arc::clone(&key.identity))
    }
}

impl Authenticator for Compiled {
    fn presented(&self, exchange: &Exchange) -> Presented {
        self.place.keys(&exchange.request).next().map_or(Presented::Nothing, Presented::Mine)
    }

    fn challenge(&self) -> &str {
        &self.challenge
    }

    fn verify<'a>(&'a self, exchange: &'a Exchange, _: &'a dyn Services) -> Verify<'a> {
        let mut keys = self.place.keys(&exchange.request);
        let Some(span) = keys.next() else {
            let problem = refuse(codes::CREDENTIALS_MISSING, &self.challenge, "no API key");
            return Verify::Done(Err(problem.into()));
        };
        if keys.next().is_some() {
            let problem = Problem::new(codes::CREDENTIALS_AMBIGUOUS).detail("two API keys");
            return Verify::Done(Err(problem.into()));
        }
        drop(keys);
        let text = span.of(exchange.request.fields.bytes());
        Verify::Done(told(self.find(text, exchange.now.wall).map_err(|refusal| {
            let Refusal { expired, detail } = refusal;
            let bad = if expired { codes::CREDENTIALS_EXPIRED } else { codes::CREDENTIALS_INVALID };
            refuse(bad, &self.challenge, detail)
        })))
    }

    fn conceal(&self, request: &mut RequestHead) {
        match &self.place {
            Place::Header(name) => {
                request.fields.remove_if(|_, found, _| is_alias(found, name.as_bytes()));
            }
            Place::Authorization(scheme) => request.fields.remove_if(|known, _, value| {
                known == Known::Authorization && after_scheme(value, scheme).is_some()
            }),
        }
    }
}
