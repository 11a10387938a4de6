//! What an operator writes about the credential of a backend, and how it compiles.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::Known as KnownField;
use portcullis_core::Policy;
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::head::is_field_byte;
use portcullis_core::node::SourceSpan;
use portcullis_core::registry::{Compile, PolicyConfig, Site};
use portcullis_core::units::PositiveDuration;
use schemars::JsonSchema;
use serde::Deserialize;

use super::asking::Asking;
use super::exchanged::{Exchanged, State};
use super::granted::{Granted, Held};
use super::{Compiled, Source};
use crate::flight::Flights;
use crate::key::Secret;
use crate::oauth::breaker::Breaker;
use crate::oauth::client::{ClientConfig, read_secret};
use crate::oauth::discovery::Which;
use crate::oauth::endpoint::{Endpoint, Written};
use crate::oauth::hidden::Hidden;
use crate::oauth::kept::Kept;
use crate::owned::{OWNED_IN_REQUESTS, check_name};

const TIMEOUT_MAX: Duration = Duration::from_secs(30);

const PURPOSE: u64 = 0x6578_6368_616e_6765;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Attaches to forwarded requests what the backend knows the gateway by: exactly one of `header`
/// (with `value`), `bearer`, `basic`, `client_credentials` and `exchange`.
///
/// It takes the place of whatever the client sent under that name or another spelling of it, and is
/// taken out of answers. While it cannot be had, nothing is sent and the client gets a 503.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credential {
    /// The name of the header that has `value`.
    #[serde(default)]
    header: Option<Spanned<String>>,
    /// The whole value of `header`: `file:PATH` or `env:NAME`, read again when it changes.
    #[serde(default)]
    value: Option<Spanned<String>>,
    /// A token for `Authorization: Bearer`: `file:PATH` or `env:NAME`, read again when it changes.
    #[serde(default)]
    bearer: Option<Spanned<String>>,
    /// A user and a password for `Authorization: Basic`.
    #[serde(default)]
    basic: Option<Spanned<Basic>>,
    /// A token of the gateway's own, from an authorization server (RFC 6749 §4.4).
    #[serde(default)]
    client_credentials: Option<Spanned<ClientCredentials>>,
    /// The caller's access token exchanged for another one (RFC 8693). The route has to take access
    /// tokens only: `jwt` or `introspection`.
    #[serde(default)]
    exchange: Option<Spanned<TokenExchange>>,
    /// Why this may go to a backend in clear text over a network. Without it a route with an
    /// `http://` backend that is not on loopback is an error.
    #[serde(default)]
    clear_text: Option<Spanned<String>>,
}

/// A user and a password (RFC 7617).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CredentialBasic")]
struct Basic {
    user: String,
    /// `file:PATH` or `env:NAME`, read again when it changes.
    password: Spanned<String>,
}

/// What the gateway asks for in its own name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ClientCredentials {
    /// The authorization server, whose token endpoint is found by discovery: an `https://` URL, or
    /// `http://` on loopback.
    #[serde(default)]
    issuer: Option<Spanned<String>>,
    /// The URL of the token endpoint, instead of by discovery.
    #[serde(default)]
    token_endpoint: Option<Spanned<String>>,
    /// Who the gateway is to the authorization server, and how it proves it.
    client: ClientConfig,
    /// What the token is to allow (`scope`). Default: what the server gives.
    #[serde(default)]
    scopes: Vec<String>,
    /// Who the token is to be for, with servers that want it said so (`audience`).
    #[serde(default)]
    audience: Vec<String>,
    /// What the token is to be good for (`resource`, RFC 8707): absolute URIs.
    #[serde(default)]
    resource: Vec<String>,
    /// PEM of the authorities to trust at the server, instead of the system's: `file:PATH`.
    #[serde(default)]
    ca: Option<Spanned<String>>,
    /// How long the server has for its answer, at most `30s`. Default: `5s`.
    #[serde(default = "default_timeout")]
    timeout: PositiveDuration,
}

/// What the caller's token is exchanged for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenExchange {
    /// The authorization server, whose token endpoint is found by discovery: an `https://` URL, or
    /// `http://` on loopback.
    #[serde(default)]
    issuer: Option<Spanned<String>>,
    /// The URL of the token endpoint, instead of by discovery.
    #[serde(default)]
    token_endpoint: Option<Spanned<String>>,
    /// Who the gateway is to the authorization server, and how it proves it.
    client: ClientConfig,
    /// What the new token is to allow (`scope`). Default: what the server gives.
    #[serde(default)]
    scopes: Vec<String>,
    /// Who the new token is to be for (`audience`).
    #[serde(default)]
    audience: Vec<String>,
    /// What the new token is to be good for (`resource`): absolute URIs.
    #[serde(default)]
    resource: Vec<String>,
    /// What kind of token the caller's is. Default:
    /// `urn:ietf:params:oauth:token-type:access_token`.
    #[serde(default)]
    subject_token_type: Option<String>,
    /// What kind of token is wanted. Default: what the server gives.
    #[serde(default)]
    requested_token_type: Option<String>,
    /// PEM of the authorities to trust at the server, instead of the system's: `file:PATH`.
    #[serde(default)]
    ca: Option<Spanned<String>>,
    /// How long the server has for its answer, at most `30s`. Default: `5s`.
    #[serde(default = "default_timeout")]
    timeout: PositiveDuration,
}

fn default_timeout() -> PositiveDuration {
    PositiveDuration::from_secs(5)
}

impl PolicyConfig for Credential {
    const NAME: &'static str = "credential";
    const EXAMPLE: &'static str = r#"{ bearer: "file:orders.token" }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
        let clear_text = self.clear_text(site, with);
        let kinds = [
            self.header.as_ref().map(Kind::Header),
            self.bearer.as_ref().map(Kind::Bearer),
            self.basic.as_ref().map(Kind::Basic),
            self.client_credentials.as_ref().map(Kind::Own),
            self.exchange.as_ref().map(Kind::Exchanged),
        ];
        let kinds: Vec<Kind<'_>> = kinds.into_iter().flatten().collect();
        let ([kind], true) = (kinds.as_slice(), self.header.is_some() || self.value.is_none())
        else {
            let message = "exactly one of `header` with `value`, `bearer`, `basic`, \
                           `client_credentials` and `exchange` is needed";
            with.findings.error("missing-key", site.span, site.resource, message);
            return None;
        };
        let (header, source) = match kind {
            Kind::Header(header) => fixed(header, self.value.as_ref(), site, with)?,
            Kind::Bearer(bearer) => {
                let token = read_secret("bearer", bearer, site, with)?;
                let value = Hidden::new([b"Bearer ", token.bytes()].concat());
                let value = sendable("bearer", bearer, value, site, with)?;
                (AUTHORIZATION.into(), Source::Fixed(value))
            }
            Kind::Basic(basic) => (AUTHORIZATION.into(), basic.compile(site, with)?),
            Kind::Own(own) => (AUTHORIZATION.into(), own.compile(site, own.span, with)?),
            Kind::Exchanged(one) => (AUTHORIZATION.into(), one.compile(site, one.span, with)?),
        };
        Some(Arc::new(Compiled { header, source, clear_text: clear_text? }))
    }
}

const AUTHORIZATION: &str = "Authorization";

enum Kind<'a> {
    Header(&'a Spanned<String>),
    Bearer(&'a Spanned<String>),
    Basic(&'a Spanned<Basic>),
    Own(&'a Spanned<ClientCredentials>),
    Exchanged(&'a Spanned<TokenExchange>),
}

impl Credential {
    /// Whether somebody has said why; `None` after an error.
    fn clear_text(&self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<bool> {
        let Some(reason) = &self.clear_text else { return Some(false) };
        if reason.trim().chars().count() >= 3 {
            return Some(true);
        }
        let resource = format!("{}.clear_text", site.resource);
        let message = "a reason has at least three letters";
        with.findings.error("invalid-value", reason.span, resource, message);
        None
    }
}

fn fixed(
    header: &Spanned<String>,
    value: Option<&Spanned<String>>,
    site: &Site<'_>,
    with: &mut Compile<'_>,
) -> Option<(Box<str>, Source)> {
    let known = KnownField::of(header.as_bytes());
    let named = match check_name(header, OWNED_IN_REQUESTS) {
        Ok(()) if matches!(known, KnownField::Other | KnownField::Authorization) => Ok(()),
        Ok(()) => Err(format!("`{}` has a meaning of its own", header.value)),
        Err(reason) => Err(reason),
    };
    if let Err(message) = named {
        let resource = format!("{}.header", site.resource);
        with.findings.error("invalid-value", header.span, resource, message);
        return None;
    }
    let Some(reference) = value else {
        let message = "`value` is missing";
        with.findings.error("missing-key", header.span, site.resource, message);
        return None;
    };
    let secret = read_secret("value", reference, site, with)?;
    let secret = sendable("value", reference, secret, site, with)?;
    Some((header.value.as_str().into(), Source::Fixed(secret)))
}

/// A value that a field can have; a finding otherwise.
fn sendable(
    key: &str,
    reference: &Spanned<String>,
    value: Hidden,
    site: &Site<'_>,
    with: &mut Compile<'_>,
) -> Option<Hidden> {
    if value.bytes().iter().all(|byte| is_field_byte(*byte)) {
        return Some(value);
    }
    let resource = format!("{}.{key}", site.resource);
    let message = format!("`{}` has more than one line", reference.value);
    with.findings.push(
        Finding::error("invalid-value", reference.span, resource, message)
            .help("a header has no control characters"),
    );
    None
}

impl Basic {
    fn compile(&self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Source> {
        let resource = format!("{}.basic", site.resource);
        let site = Site { resource: &resource, ..*site };
        let password = read_secret("password", &self.password, &site, with)?;
        if self.user.contains(':') || self.user.chars().any(char::is_control) {
            let message = "a user has no colon and no control characters (RFC 7617 §2)";
            with.findings.error("invalid-value", self.password.span, resource, message);
            return None;
        }
        let pair = [self.user.as_bytes(), b":", password.bytes()].concat();
        Some(Source::Fixed(Hidden::from(format!("Basic {}", STANDARD.encode(pair)).as_str())))
    }
}

/// What both kinds of tokens are asked for with.
struct Server<'a> {
    issuer: Option<&'a Spanned<String>>,
    token_endpoint: Option<&'a Spanned<String>>,
    client: &'a ClientConfig,
    ca: Option<&'a Spanned<String>>,
    timeout: PositiveDuration,
}

impl Server<'_> {
    fn asking(
        &self,
        parameters: Vec<(&'static str, String)>,
        site: &Site<'_>,
        with: &mut Compile<'_>,
    ) -> Option<Asking> {
        let ca = match self.ca {
            Some(reference) => Some(with.read(site, reference.span, reference)?),
            None => None,
        };
        let written = Written {
            issuer: self.issuer,
            key: "token_endpoint",
            url: self.token_endpoint,
            which: Which::Token,
            ca: ca.as_ref(),
        };
        let endpoint = Endpoint::compile(&written, site, with);
        let client = self.client.compile("client", site, with);
        if self.timeout.0 > TIMEOUT_MAX {
            let resource = format!("{}.timeout", site.resource);
            with.findings.error("out-of-range", site.span, resource, "at most `30s`");
            return None;
        }
        let (endpoint, client) = (endpoint?, client?);
        Some(Asking { endpoint, client, ca, timeout: self.timeout.0, parameters })
    }
}

/// The parameters that say what a token is to be for.
fn wanted(
    scopes: &[String],
    audience: &[String],
    resource: &[String],
) -> Vec<(&'static str, String)> {
    let mut parameters = Vec::new();
    if !scopes.is_empty() {
        parameters.push(("scope", scopes.join(" ")));
    }
    parameters.extend(audience.iter().map(|name| ("audience", name.clone())));
    parameters.extend(resource.iter().map(|uri| ("resource", uri.clone())));
    parameters
}

impl ClientCredentials {
    fn compile(&self, site: &Site<'_>, span: SourceSpan, with: &mut Compile<'_>) -> Option<Source> {
        let resource = format!("{}.client_credentials", site.resource);
        let site = Site { resource: &resource, span, ..*site };
        let server = Server {
            issuer: self.issuer.as_ref(),
            token_endpoint: self.token_endpoint.as_ref(),
            client: &self.client,
            ca: self.ca.as_ref(),
            timeout: self.timeout,
        };
        let mut parameters = vec![("grant_type", "client_credentials".to_owned())];
        parameters.extend(wanted(&self.scopes, &self.audience, &self.resource));
        let asking = server.asking(parameters, &site, with)?;
        // Whoever asks for the same in the same name shares the token. Another secret is no reason
        // for another token.
        let settings = (asking.endpoint.settings(), &asking.client, &asking.parameters);
        let held = with.carry.keep("credential-token", "", &settings, Held::default);
        Some(Source::Granted(Granted { asking, held }))
    }
}

impl TokenExchange {
    fn compile(&self, site: &Site<'_>, span: SourceSpan, with: &mut Compile<'_>) -> Option<Source> {
        let resource = format!("{}.exchange", site.resource);
        let site = Site { resource: &resource, span, ..*site };
        let server = Server {
            issuer: self.issuer.as_ref(),
            token_endpoint: self.token_endpoint.as_ref(),
            client: &self.client,
            ca: self.ca.as_ref(),
            timeout: self.timeout,
        };
        let kind = self.subject_token_type.as_deref().unwrap_or(ACCESS_TOKEN).to_owned();
        let mut parameters =
            vec![("grant_type", TOKEN_EXCHANGE.to_owned()), ("subject_token_type", kind)];
        let requested = self.requested_token_type.iter();
        parameters.extend(requested.map(|kind| ("requested_token_type", kind.clone())));
        parameters.extend(wanted(&self.scopes, &self.audience, &self.resource));
        let asking = server.asking(parameters, &site, with)?;
        let secret = Secret::of(with.carry);
        let settings = (asking.endpoint.settings(), &asking.client, &asking.parameters);
        let state = with.carry.keep("credential-exchange", "", &settings, || State {
            known: Kept::new(secret, PURPOSE),
            asking: Flights::default(),
            breaker: Breaker::default(),
        });
        Some(Source::Exchanged(Exchanged { asking, state }))
    }
}
