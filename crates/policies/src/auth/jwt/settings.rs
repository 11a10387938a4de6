//! What an operator writes about an issuer, and how it compiles.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration as Time;

use jsonwebtoken::Algorithm;
use portcullis_core::auth::Authenticator;
use portcullis_core::decode::{Fault, Spanned};
use portcullis_core::finding::Finding;
use portcullis_core::registry::{AuthConfig, Compile, Site};
use portcullis_core::units::{Duration, PositiveDuration};
use portcullis_core::written_as_text;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

use super::keys::KeySet;
use super::source::{Keys, Location};
use super::token::{ClaimPath, IssuerHint, Rules};
use super::{Challenges, Compiled};
use crate::auth::remembered::Remembered;
use crate::key::Secret;
use crate::oauth::discovery::is_trustworthy;

const CLOCK_SKEW_MAX: Time = Time::from_secs(60);
/// Longer than clocks that are kept in step ever differ.
const CLOCK_SKEW_SHORT: std::time::Duration = std::time::Duration::from_secs(30);
const REFRESH_MIN: Time = Time::from_secs(60);

/// Takes signed tokens (JWT, RFC 7519) of one issuer from `Authorization: Bearer`.
///
/// `exp`, `iss` and `aud` are required. The algorithm and the key come from here and from the
/// issuer's key set, never from the token; symmetric algorithms and `none` are never accepted.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Jwt {
    /// The issuer, exactly as tokens name it in `iss`. Without `jwks` its keys are found by
    /// discovery, at `ISSUER/.well-known/openid-configuration`; it is then an `https://` URL, or
    /// `http://` on loopback.
    issuer: Spanned<String>,
    /// Who the token must be for (`aud`): a name or a list of names, any of which will do.
    audience: Names,
    /// Where the keys are, instead of by discovery: the `https://` URL of a JSON Web Key Set
    /// (RFC 7517), or `file:PATH`, which is read again when it changes.
    #[serde(default)]
    jwks: Option<Spanned<String>>,
    /// PEM of the authorities to trust when keys are fetched, instead of the system's: `file:PATH`.
    #[serde(default)]
    ca: Option<Spanned<String>>,
    /// Algorithms that tokens may be signed with. Default: all of RS256, RS384, RS512, PS256,
    /// PS384, PS512, ES256, ES384 and EdDSA, as far as the issuer's keys are for them.
    #[serde(default)]
    #[schemars(length(min = 1))]
    algorithms: Option<Vec<Signature>>,
    /// By how much the clocks of the issuer and of the gateway may differ, at most `60s`. Default:
    /// `30s`.
    #[serde(default = "default_clock_skew")]
    clock_skew: Duration,
    /// How often the keys are fetched in the background, at least `1m`. A token with an unknown key
    /// id makes the gateway fetch them at once, at most once a minute. Default: `10m`.
    #[serde(default = "default_refresh")]
    refresh: PositiveDuration,
    /// The claim with the client's name: `claim:NAME`, or a dotted path to it. Default:
    /// `client_id`, else `azp`, else `sub`.
    #[serde(default)]
    client: Option<Claim>,
    /// The claim with the tenant's name. Default: there are no tenants.
    #[serde(default)]
    tenant: Option<Claim>,
    /// The claim with the scopes: one text with spaces between them, or a list. Default: `scope`,
    /// else `scp`.
    #[serde(default)]
    scopes: Option<Claim>,
}

fn default_clock_skew() -> Duration {
    Duration::from_secs(30)
}

fn default_refresh() -> PositiveDuration {
    PositiveDuration::from_secs(600)
}

/// An algorithm of RFC 7518 or RFC 8037 that needs no shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Signature {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Signature {
    pub(super) const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    pub(super) const fn algorithm(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Rs384 => Algorithm::RS384,
            Self::Rs512 => Algorithm::RS512,
            Self::Ps256 => Algorithm::PS256,
            Self::Ps384 => Algorithm::PS384,
            Self::Ps512 => Algorithm::PS512,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// `claim:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::auth) struct Claim(pub(super) ClaimPath);

impl FromStr for Claim {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text.strip_prefix("claim:") {
            Some(name) if !name.is_empty() => Ok(Self(name.into())),
            _ => Err(Fault::new(0..text.len(), format!("`{text}` is not `claim:NAME`"))),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "claim:{}", self.0)
    }
}

written_as_text! {
    Claim: "claim", "`claim:NAME`", "^claim:.+$";
}

/// One name, or a list of at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::auth) struct Names(pub(in crate::auth) Vec<String>);

impl JsonSchema for Names {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Names".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let name = json_schema!({ "type": "string", "minLength": 1 });
        json_schema!({
            "anyOf": [
                name,
                { "type": "array", "items": name, "minItems": 1, "uniqueItems": true },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Forms;

        impl<'de> Visitor<'de> for Forms {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Names, E> {
                Ok(Names(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }

        from.deserialize_any(Forms)
    }
}

impl AuthConfig for Jwt {
    const NAME: &'static str = "jwt";
    const EXAMPLE: &'static str = r#"{ issuer: "https://idp.example.com/", audience: [orders] }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let before = with.findings.errors();
        self.check_times(site, with);
        let algorithms = self.algorithms();
        let ca = match &self.ca {
            Some(reference) => Some(with.read(site, reference.span, reference)?),
            None => None,
        };
        let source = self.source(site, with)?;
        if with.findings.errors() > before {
            return None;
        }
        let mut rules = Rules::new(site.owner, &self.issuer, &self.audience.0, &algorithms);
        rules.clock_skew = self.clock_skew.0;
        rules.client = self.client.clone().map(|claim| claim.0);
        rules.tenant = self.tenant.clone().map(|claim| claim.0);
        rules.scopes = self.scopes.clone().map(|claim| claim.0);
        let secret = Secret::of(with.carry);
        // Whatever decides which key verifies, and what a verified token is taken for.
        let of_keys = (&self.issuer.value, &source, &ca, self.refresh.0);
        let settings = (
            of_keys,
            &self.audience,
            &self.algorithms,
            self.clock_skew.0,
            (&self.client, &self.tenant, &self.scopes),
        );
        let remembered =
            with.carry.keep("jwt-tokens", site.owner, &settings, || Remembered::new(secret));
        let keys = match &source {
            Source::File(text) => {
                let set =
                    KeySet::parse(text, 1).map_err(|reason| self.unusable(&reason, site, with));
                Arc::new(Keys::fixed(set.ok()?))
            }
            Source::Remote(location) => with.carry.keep("jwt-keys", site.owner, &of_keys, || {
                Keys::remote(location.clone(), ca.clone(), self.refresh.0)
            }),
        };
        Some(Arc::new(Compiled {
            rules,
            hint: IssuerHint::new(&self.issuer),
            keys,
            remembered,
            challenge: Challenges::new(site.owner),
        }))
    }
}

/// Where the keys come from, with what was read.
#[derive(Debug, Hash)]
enum Source {
    File(Arc<[u8]>),
    Remote(Location),
}

impl Jwt {
    fn check_times(&self, site: &Site<'_>, with: &mut Compile<'_>) {
        let mut error = |key: &str, message: &str| {
            let resource = format!("{}.{key}", site.resource);
            with.findings.push(Finding::error("out-of-range", site.span, resource, message));
        };
        if self.clock_skew.0 > CLOCK_SKEW_MAX {
            error("clock_skew", "at most `60s`: repair the clocks instead");
        }
        if self.refresh.0 < REFRESH_MIN {
            error("refresh", "at least `1m`");
        }
        if self.issuer.is_empty() {
            error("issuer", "must not be empty");
        }
        if self.clock_skew.0 > CLOCK_SKEW_SHORT && self.clock_skew.0 <= CLOCK_SKEW_MAX {
            let message = "tokens count for longer than their issuer says, by more than 30s";
            let resource = format!("{}.clock_skew", site.resource);
            let finding = Finding::warning("long-clock-skew", site.span, resource, message);
            with.findings.push(finding.help("keep the clocks in step, and this at `30s` or less"));
        }
    }

    fn algorithms(&self) -> Vec<Algorithm> {
        let written = self.algorithms.as_deref().unwrap_or(&Signature::ALL);
        written.iter().map(|signature| signature.algorithm()).collect()
    }

    fn source(&self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Source> {
        let (url, key, location) = match &self.jwks {
            Some(file) if file.starts_with("file:") => {
                return with.read(site, file.span, file).map(Source::File);
            }
            Some(url) => (url, "jwks", Location::Url(url.value.clone())),
            None => {
                let issuer = self.issuer.value.clone();
                (&self.issuer, "issuer", Location::Discovery { issuer })
            }
        };
        if is_trustworthy(url) && !url.contains(['?', '#', ' ']) {
            return Some(Source::Remote(location));
        }
        let resource = format!("{}.{key}", site.resource);
        let message = format!("keys cannot be fetched from `{}`", url.value);
        with.findings.push(
            Finding::error("invalid-value", url.span, resource, message)
                .help("an `https://` URL, `http://` on loopback, or `jwks: \"file:PATH\"`"),
        );
        None
    }

    fn unusable(&self, reason: &str, site: &Site<'_>, with: &mut Compile<'_>) {
        let span = self.jwks.as_ref().map_or(site.span, |jwks| jwks.span);
        let resource = format!("{}.jwks", site.resource);
        with.findings.error("unusable-keys", span, resource, reason);
    }
}
