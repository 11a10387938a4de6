//! What an operator writes about an issuer, and how it compiles.

use std::sync::Arc;
use std::time::Duration as Time;

use portcullis_core::auth::Authenticator;
use portcullis_core::decode::{OneOrMany, Spanned};
use portcullis_core::finding::Finding;
use portcullis_core::registry::{AuthConfig, Compile, Site};
use portcullis_core::units::{Duration, DurationOrOff, PositiveDuration, Size};
use schemars::JsonSchema;

use super::forms::{Binding, Claim, Names, RequiredClaims, Signature, TokenPlace};
use super::keys::KeySet;
use super::revoked::Revoked;
use super::source::{Keys, Location};
use super::token::{IssuerHint, Rules};
use super::{Challenges, Compiled, TOKEN_BYTES_MAX};
use crate::auth::cross_site::CrossSite;
use crate::auth::place::Places;
use crate::auth::remembered::Remembered;
use crate::key::Secret;
use crate::oauth::discovery::is_trustworthy;

const CLOCK_SKEW_MAX: Time = Time::from_secs(60);
/// Longer than clocks that are kept in step ever differ.
const CLOCK_SKEW_SHORT: std::time::Duration = std::time::Duration::from_secs(30);
const REFRESH_MIN: Time = Time::from_secs(60);
/// Shorter, and a restart of the issuer would be an outage of the gateway.
const KEYS_MAX_AGE_MIN: Time = Time::from_secs(3600);
/// A head may be 64 KiB.
const TOKEN_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=64 << 10;

/// Takes signed tokens (JWT, RFC 7519) of one issuer.
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
    /// Where tokens are: `header` (`Authorization: Bearer`), `header:NAME`, `cookie:NAME` or
    /// `query:NAME`, or a list of these. A token in the query stands in histories and in other
    /// people's logs; in ours it does not, and no backend gets it. Default: `header`.
    #[serde(default)]
    token: OneOrMany<TokenPlace>,
    /// For tokens in a cookie: which other sites' pages may make requests that change something.
    #[serde(default)]
    cross_site: CrossSite,
    /// Algorithms that tokens may be signed with. Default: all of RS256, RS384, RS512, PS256,
    /// PS384, PS512, ES256, ES384 and EdDSA, as far as the issuer's keys are for them; an RSA key
    /// that does not name its algorithm (`alg`) is then for RS256.
    #[serde(default)]
    #[schemars(length(min = 1))]
    algorithms: Option<Vec<Signature>>,
    /// The kind of token (`typ` of its header), exactly: `at+jwt` for access tokens of RFC 9068.
    /// Default: `JWT`, `at+jwt` or none.
    #[serde(default)]
    typ: Option<Spanned<String>>,
    /// Longer tokens are refused unread; from `1KiB` to `64KiB`. Default: `16KiB`.
    #[serde(default = "default_token_max")]
    token_max: Size,
    /// Claims that a token must have beside `exp`, `iss` and `aud`: names, or names with the values
    /// that will do: `[jti, { acr: [gold, silver] }]`. A claim that is a list needs one such item.
    /// Default: none.
    #[serde(default)]
    #[schemars(length(min = 1))]
    require_claims: Option<Vec<RequiredClaims>>,
    /// `required`: only tokens that are bound to the client's certificate (`cnf` with `x5t#S256`,
    /// RFC 8705). A token that is bound is in any case good only with that certificate. Default:
    /// tokens need not be bound.
    #[serde(default)]
    bound: Option<Binding>,
    /// Tokens that are refused before they expire: `file:PATH`, YAML or JSON with lists `jti`,
    /// `sub` and `token_sha256`. It is read again when it changes, and holds at once. Default:
    /// none.
    #[serde(default)]
    revoked: Option<Spanned<String>>,
    /// By how much the clocks of the issuer and of the gateway may differ, at most `60s`. Default:
    /// `30s`.
    #[serde(default = "default_clock_skew")]
    clock_skew: Duration,
    /// How often the keys are fetched in the background, at least `1m`. A token with an unknown key
    /// id makes the gateway fetch them at once, at most once a minute. Default: `10m`.
    #[serde(default = "default_refresh")]
    refresh: PositiveDuration,
    /// For how long keys are used that the issuer does not give again, because it does not answer;
    /// at least `1h`. After that, tokens get 503 until it does. Default: `off`, for any time.
    #[serde(default = "default_keys_max_age")]
    keys_max_age: DurationOrOff,
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

fn default_token_max() -> Size {
    Size(TOKEN_BYTES_MAX as u64)
}

fn default_keys_max_age() -> DurationOrOff {
    DurationOrOff::OFF
}

fn default_refresh() -> PositiveDuration {
    PositiveDuration::from_secs(600)
}

impl AuthConfig for Jwt {
    const NAME: &'static str = "jwt";
    const EXAMPLE: &'static str = r#"{ issuer: "https://idp.example.com/", audience: [orders] }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let before = with.findings.errors();
        self.check_bounds(site, with);
        let revoked = self.revoked(site, with);
        let pages = self.cross_site.compile(None, site, with);
        let ca = match &self.ca {
            Some(reference) => Some(with.read(site, reference.span, reference)?),
            None => None,
        };
        let source = self.source(site, with)?;
        if with.findings.errors() > before {
            return None;
        }
        let algorithms: Option<Vec<_>> = self
            .algorithms
            .as_ref()
            .map(|written| written.iter().map(|signature| signature.algorithm()).collect());
        let mut rules =
            Rules::new(site.owner, &self.issuer, &self.audience.0, algorithms.as_deref());
        rules.clock_skew = self.clock_skew.0;
        rules.client = self.client.clone().map(|claim| claim.0);
        rules.tenant = self.tenant.clone().map(|claim| claim.0);
        rules.scopes = self.scopes.clone().map(|claim| claim.0);
        rules.typ = self.typ.as_ref().map(|typ| typ.value.clone());
        rules.required =
            self.require_claims.iter().flatten().flat_map(|claims| claims.0.clone()).collect();
        rules.bound = self.bound;
        rules.revoked = revoked.unwrap_or_default();
        let secret = Secret::of(with.carry);
        // Whatever decides which key verifies, and what a verified token is taken for.
        let of_keys = (&self.issuer.value, &source, &ca, self.refresh.0, self.keys_max_age);
        let settings = (
            of_keys,
            &self.audience,
            &self.algorithms,
            self.clock_skew.0,
            (&self.client, &self.tenant, &self.scopes),
            (&rules.typ, &self.require_claims, self.bound),
        );
        let remembered =
            with.carry.keep("jwt-tokens", site.owner, &settings, || Remembered::new(secret));
        let keys = match &source {
            Source::File(text) => {
                let set =
                    KeySet::parse_own(text).map_err(|reason| self.unusable(&reason, site, with));
                Arc::new(Keys::fixed(set.ok()?))
            }
            Source::Remote(location) => with.carry.keep("jwt-keys", site.owner, &of_keys, || {
                let keys = Keys::remote(location.clone(), ca.clone(), self.refresh.0);
                keys.with_age_max(self.keys_max_age.0)
            }),
        };
        Some(Arc::new(Compiled {
            rules,
            hint: IssuerHint::new(&self.issuer),
            keys,
            remembered,
            challenge: Challenges::new(site.owner),
            places: self.places(),
            pages,
            token_bytes_max: self.token_max.0 as usize,
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
    fn check_bounds(&self, site: &Site<'_>, with: &mut Compile<'_>) {
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
        if !TOKEN_BYTES.contains(&self.token_max.0) {
            error("token_max", "from `1KiB` to `64KiB`");
        }
        if self.typ.as_ref().is_some_and(|typ| typ.is_empty()) {
            error("typ", "must not be empty");
        }
        if self.keys_max_age.0.is_some_and(|age| age < KEYS_MAX_AGE_MIN) {
            error("keys_max_age", "at least `1h`, or `off`");
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

    fn places(&self) -> Places {
        match self.token.is_empty() {
            true => Places::new(vec![TokenPlace::default().0]),
            false => Places::new(self.token.iter().map(|place| place.0.clone()).collect()),
        }
    }

    fn revoked(&self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Revoked> {
        let reference = self.revoked.as_ref()?;
        let resource = format!("{}.revoked", site.resource);
        if !reference.starts_with("file:") {
            let message = format!("`{}` is not `file:PATH`", reference.value);
            with.findings.error("invalid-value", reference.span, &resource, message);
            return None;
        }
        let text = with.read(site, reference.span, reference)?;
        let read = Revoked::read(&text).map_err(|reason| {
            let message = format!("{}: {reason}", reference.value);
            with.findings.error("unusable-list", reference.span, &resource, message);
        });
        read.ok()
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
