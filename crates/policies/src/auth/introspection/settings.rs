//! What an operator writes about introspection, and how it compiles.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration as Time;

use portcullis_core::auth::Authenticator;
use portcullis_core::decode::{Entries, Spanned};
use portcullis_core::registry::{AuthConfig, Compile, Site};
use portcullis_core::units::{DurationOrOff, PositiveDuration};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::Value;

use super::saying::Rules;
use super::{Compiled, State};
use crate::auth::jwt::{Challenges, Claim, Names, Naming, SignedAnswers};
use crate::flight::Flights;
use crate::key::Secret;
use crate::oauth::breaker::Breaker;
use crate::oauth::client::{Client, ClientConfig};
use crate::oauth::discovery::Which;
use crate::oauth::endpoint::{Endpoint, Written};
use crate::oauth::kept::Kept;

const CACHE_MAX: Time = Time::from_secs(3600);
const LAST_KNOWN_MAX: Time = Time::from_secs(86_400);
const TIMEOUT_MAX: Time = Time::from_secs(30);

const PURPOSE: u64 = 0x6173_6b65_6474_6f6b;

/// Takes tokens from `Authorization: Bearer` about which their issuer is asked (OAuth 2.0 Token
/// Introspection, RFC 7662).
///
/// Good for opaque tokens, and for tokens that have to stop working soon after they are revoked.
/// An answer is remembered for as long as `cache` says, never beyond the token's own end. Without
/// an answer nobody passes.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Introspection {
    /// The issuer. Without `endpoint` its endpoint is found by discovery, at
    /// `ISSUER/.well-known/openid-configuration` or where RFC 8414 has it; it is an `https://` URL,
    /// or `http://` on loopback. Where an answer names an issuer (`iss`) it has to be this one.
    #[serde(default)]
    issuer: Option<Spanned<String>>,
    /// The URL of the introspection endpoint, instead of by discovery.
    #[serde(default)]
    endpoint: Option<Spanned<String>>,
    /// Who the gateway is to the issuer, and how it proves it.
    client: ClientConfig,
    /// PEM of the authorities to trust at the issuer, instead of the system's: `file:PATH`.
    #[serde(default)]
    ca: Option<Spanned<String>>,
    /// Who the token must be for (`aud`): a name or a list of names, any of which will do. Default:
    /// whoever the issuer tells of it.
    #[serde(default)]
    audience: Option<Names>,
    /// Claims that an answer must have, each with the value or the list of values of which any will
    /// do. A claim that is a list needs to have one of them. A dotted path leads into a claim.
    #[serde(default)]
    require_claims: Entries<Values>,
    /// What of an answer names whom.
    #[serde(default)]
    claims: ClaimNames,
    /// Asks for answers that the issuer has signed (RFC 9701), and takes no others. The issuer's
    /// keys are found by discovery, so `issuer` is needed. Default: `false`.
    #[serde(default)]
    signed: bool,
    /// How long an answer is taken for true: within this time a revoked token may still pass. A bad
    /// one is remembered for at most `5s`. `off`: each request is asked about. At most `1h`.
    /// Default: `30s`.
    #[serde(default = "default_cache")]
    cache: DurationOrOff,
    /// How long the issuer has for its answer, at most `30s`. Default: `2s`.
    #[serde(default = "default_timeout")]
    timeout: PositiveDuration,
    /// What happens to a token while the issuer does not answer. Default: it is refused with 503.
    #[serde(default)]
    on_failure: OnFailure,
}

fn default_cache() -> DurationOrOff {
    DurationOrOff::from_secs(30)
}

fn default_timeout() -> PositiveDuration {
    PositiveDuration::from_secs(2)
}

/// Which claims of an answer say who somebody is.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "IntrospectionClaims")]
struct ClaimNames {
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

/// What happens while the issuer does not answer.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OnFailure {
    /// A token that the issuer has called good within this time, and that has not expired, passes
    /// on. Not shorter than `cache`, at most `24h`. Default: none does.
    #[serde(default)]
    last_known: Option<PositiveDuration>,
}

/// One value, or a list of at least one.
#[derive(Clone, Debug)]
struct Values(Vec<Value>);

impl JsonSchema for Values {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Values".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let value = json_schema!({ "type": ["string", "boolean", "integer"] });
        json_schema!({ "anyOf": [value, { "type": "array", "items": value, "minItems": 1 }] })
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Forms;

        impl<'de> Visitor<'de> for Forms {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Values, E> {
                Ok(Values(vec![text.into()]))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Values, E> {
                Ok(Values(vec![value.into()]))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Values, E> {
                Ok(Values(vec![value.into()]))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Values, E> {
                Ok(Values(vec![value.into()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(Values(more)) = seq.next_element()? {
                    values.extend(more);
                }
                Ok(Values(values))
            }
        }

        from.deserialize_any(Forms)
    }
}

impl AuthConfig for Introspection {
    const NAME: &'static str = "introspection";
    const EXAMPLE: &'static str = r#"{ issuer: "https://idp.example.com", client: { id: gateway, secret: "file:gateway.secret" } }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let before = with.findings.errors();
        self.check_times(site, with);
        let ca = match &self.ca {
            Some(reference) => Some(with.read(site, reference.span, reference)?),
            None => None,
        };
        let written = Written {
            issuer: self.issuer.as_ref(),
            key: "endpoint",
            url: self.endpoint.as_ref(),
            which: Which::Introspection,
            ca: ca.as_ref(),
        };
        let endpoint = Endpoint::compile(&written, site, with);
        let client = self.client.compile("client", site, with);
        if self.signed && self.issuer.is_none() {
            let message = "`signed` needs `issuer`: its keys are found by discovery";
            with.findings.error("missing-key", site.span, site.resource, message);
        }
        let (endpoint, client) = (endpoint?, client?);
        if with.findings.errors() > before {
            return None;
        }
        let signed = match (&self.issuer, self.signed) {
            (Some(issuer), true) => {
                Some(SignedAnswers::new(site.owner, issuer, &client.id, ca.as_ref(), with.carry))
            }
            _ => None,
        };
        Some(Arc::new(Compiled {
            state: self.state(&endpoint, &client, site, with),
            endpoint,
            client,
            ca,
            timeout: self.timeout.0,
            naming: Naming::new(
                site.owner,
                self.claims.client.as_ref(),
                self.claims.tenant.as_ref(),
                self.claims.scopes.as_ref(),
            ),
            signed,
            cache: self.cache.0,
            last_known: self.on_failure.last_known.map_or(Time::ZERO, |known| known.0),
            challenge: Challenges::new(site.owner),
            rules: self.rules(),
        }))
    }
}

impl Introspection {
    fn check_times(&self, site: &Site<'_>, with: &mut Compile<'_>) {
        let mut error = |key: &str, message: &str| {
            let resource = format!("{}.{key}", site.resource);
            with.findings.error("out-of-range", site.span, resource, message);
        };
        let cache = self.cache.0.unwrap_or_default();
        if cache > CACHE_MAX {
            error("cache", "at most `1h`");
        }
        if self.timeout.0 > TIMEOUT_MAX {
            error("timeout", "at most `30s`");
        }
        match self.on_failure.last_known {
            Some(known) if known.0 > LAST_KNOWN_MAX => {
                error("on_failure.last_known", "at most `24h`");
            }
            Some(known) if known.0 < cache => {
                error("on_failure.last_known", "not shorter than `cache`");
            }
            _ => {}
        }
    }

    /// Whatever decides what an answer is taken for is in the key.
    fn state(
        &self,
        endpoint: &Endpoint,
        client: &Client,
        site: &Site<'_>,
        with: &mut Compile<'_>,
    ) -> Arc<State> {
        let secret = Secret::of(with.carry);
        let required: Vec<_> =
            self.require_claims.iter().map(|(key, values)| (&key.name, &values.0)).collect();
        let claims = (&self.claims.client, &self.claims.tenant, &self.claims.scopes);
        let settings = (
            endpoint.settings(),
            client,
            &self.audience,
            format!("{required:?}"),
            claims,
            (self.signed, self.cache.0),
        );
        with.carry.keep("introspection", site.owner, &settings, || State {
            known: Kept::new(secret, PURPOSE),
            asking: Flights::default(),
            breaker: Breaker::default(),
        })
    }

    fn rules(self) -> Rules {
        let claims = self.require_claims.0.into_iter();
        Rules {
            issuer: self.issuer.map(|issuer| issuer.value.into()),
            audience: self.audience.map(|names| names.0).unwrap_or_default(),
            claims: claims.map(|(key, values)| (key.name.into(), values.0)).collect(),
        }
    }
}
