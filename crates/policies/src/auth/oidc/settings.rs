//! What an operator writes about logins, and how it compiles.

use std::sync::Arc;

use portcullis_core::auth::Authenticator;
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::head::is_token;
use portcullis_core::registry::{AuthConfig, Compile, Site};
use portcullis_core::units::PositiveDuration;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Compiled;
use super::jar::Jar;
use super::place::is_local;
use super::provider::Provider;
use super::sealing::{KEY_BYTES_MIN, KEYS_MAX, Keyring};
use super::session::Lasting;
use crate::auth::cross_site::CrossSite;
use crate::auth::jwt::{Claim, IdTokens, Taken};
use crate::auth::remembered::Remembered;
use crate::key::Secret;
use crate::oauth::client::ClientConfig;
use crate::oauth::discovery::{Discovery, is_trustworthy};
use crate::oauth::endpoint::check_url;
use crate::origin;

/// Logs people in at an OpenID provider, by their browser, and keeps them logged in.
///
/// Who opens a page without a session is sent to the provider and comes back with one: an encrypted
/// cookie. The gateway keeps nothing. A request that is no page's gets a 401 instead. It is the
/// authorization code flow with PKCE; there is no other.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Oidc {
    /// The provider's issuer, exactly as its tokens name it in `iss`; an `https://` URL, or
    /// `http://` on loopback. Its endpoints and keys are found by discovery, at
    /// `ISSUER/.well-known/openid-configuration`.
    issuer: Spanned<String>,
    /// Who the gateway is to the provider.
    client: ClientConfig,
    /// What cookies are encrypted with: `file:PATH` or `env:NAME` of at least 32 random bytes each,
    /// at most 4. The first encrypts, all of them decrypt: put a new one before the old one, and
    /// take the old one away when the sessions made with it are over.
    #[schemars(length(min = 1))]
    cookie_key: Vec<Spanned<String>>,
    /// What the provider is asked for. It has `openid`; with many providers a session can be
    /// refreshed only with `offline_access`. Default: `[openid]`.
    #[serde(default = "default_scopes")]
    scopes: Vec<Spanned<String>>,
    /// The path that the provider sends browsers back to. With the host of the route it is the
    /// redirect URI to register at the provider; it has to be within the routes that use this
    /// entry. Default: `/oauth2/callback`.
    #[serde(default = "default_callback")]
    callback: Spanned<String>,
    /// The path that ends the session, here and at the provider. It has to be within the routes
    /// that use this entry. Default: `/oauth2/logout`.
    #[serde(default = "default_logout")]
    logout: Spanned<String>,
    /// The path to go to after a logout; with the host it has to be registered at the provider as a
    /// post-logout redirect URI. Default: `/`.
    #[serde(default = "default_after_logout")]
    after_logout: Spanned<String>,
    /// The origin that browsers know the gateway by, where something before it ends TLS:
    /// `https://shop.example`. Default: scheme and host of the request.
    #[serde(default)]
    origin: Option<Spanned<String>>,
    /// How long a session lasts at most; then its user logs in again. Default: `8h`.
    #[serde(default = "default_session")]
    session: PositiveDuration,
    /// How long a session lasts without a request. Default: as long as `session`.
    #[serde(default)]
    idle: Option<PositiveDuration>,
    /// What of the ID token names whom.
    #[serde(default)]
    claims: ClaimNames,
    /// What the cookies are called, and where they go.
    #[serde(default)]
    cookie: Cookie,
    /// Which pages may make requests that change something, or open a WebSocket, with a session.
    /// Default: those of the gateway's own origin.
    #[serde(default)]
    cross_site: CrossSite,
    /// PEM of the authorities to trust at the provider, instead of the system's: `file:PATH`.
    #[serde(default)]
    ca: Option<Spanned<String>>,
    /// Who access tokens are to be for, with providers that want it said so (`audience`). Default:
    /// it is not said.
    #[serde(default)]
    audience: Option<String>,
    /// What access tokens are to be good for (RFC 8707). Default: it is not said.
    #[serde(default)]
    resource: Vec<String>,
    /// What the provider asks its user although there is a session there already: `login`,
    /// `consent` or `select_account`. Default: nothing.
    #[serde(default)]
    prompt: Option<Prompt>,
}

fn default_scopes() -> Vec<Spanned<String>> {
    vec![unplaced("openid")]
}

fn default_callback() -> Spanned<String> {
    unplaced("/oauth2/callback")
}

fn default_logout() -> Spanned<String> {
    unplaced("/oauth2/logout")
}

fn default_after_logout() -> Spanned<String> {
    unplaced("/")
}

fn default_session() -> PositiveDuration {
    PositiveDuration::from_secs(8 * 3600)
}

fn unplaced(text: &str) -> Spanned<String> {
    Spanned { value: text.to_owned(), ..Spanned::default() }
}

/// Which claims of the ID token say who somebody is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OidcClaims")]
struct ClaimNames {
    /// The claim with the client's name: `claim:NAME`, or a dotted path to it. Default: `sub`.
    #[serde(default)]
    client: Option<Claim>,
    /// The claim with the tenant's name. Default: there are no tenants.
    #[serde(default)]
    tenant: Option<Claim>,
    /// The claim with the scopes: one text with spaces between them, or a list. Default: what the
    /// provider has granted.
    #[serde(default)]
    scopes: Option<Claim>,
}

/// The cookies of sessions and logins.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OidcCookie")]
struct Cookie {
    /// Their name, after `__Host-`. Default: `portcullis-` and the name of the entry.
    #[serde(default)]
    name: Option<Spanned<String>>,
    /// The domain whose hosts share a session: `example.com`. Each of these hosts can then read and
    /// replace it. Default: the host itself, and no other.
    #[serde(default)]
    domain: Option<Spanned<String>>,
}

/// `prompt` of OpenID Connect Core 1.0 §3.1.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OidcPrompt")]
enum Prompt {
    Login,
    Consent,
    SelectAccount,
}

impl Prompt {
    const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Consent => "consent",
            Self::SelectAccount => "select_account",
        }
    }
}

impl AuthConfig for Oidc {
    const NAME: &'static str = "oidc";
    const EXAMPLE: &'static str = r#"{ issuer: "https://idp.example.com/", client: { id: shop, secret: "file:shop.secret" }, cookie_key: ["file:cookie.key"] }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let before = with.findings.errors();
        check_url("issuer", &self.issuer, site, with);
        self.check_scopes(site, with);
        self.check_paths(site, with);
        self.check_origin(site, with);
        let client = self.client.compile("client", site, with);
        let secrets = self.cookie_keys(site, with);
        let jar = self.jar(site, with);
        let own = self.origin.as_ref().map(|origin| origin.value.as_str());
        let guard = self.cross_site.compile(own, site, with);
        let ca = match &self.ca {
            Some(reference) => Some(with.read(site, reference.span, reference)?),
            None => None,
        };
        if with.findings.errors() > before {
            return None;
        }
        let client = client?;
        let secret = Secret::of(with.carry);
        let lasting = Lasting { session: self.session.0, idle: self.idle.map(|idle| idle.0) };
        let ClaimNames { client: client_claim, tenant, scopes } = &self.claims;
        let taken = Taken {
            auth: site.owner,
            issuer: &self.issuer,
            client_id: &client.id,
            ca: ca.clone(),
            client: client_claim.as_ref(),
            tenant: tenant.as_ref(),
            scopes: scopes.as_ref(),
        };
        let id_tokens = IdTokens::new(&taken, with.carry);
        let of = (&self.issuer.value, ca.as_ref());
        let discovery = with.carry.keep("oauth-discovery", &self.issuer, &of, || {
            Discovery::new(self.issuer.value.clone(), ca.clone())
        });
        // Whatever makes a session one of ours, and an identity of it.
        let whose = (&self.issuer.value, &client.id);
        let what = (whose, &secrets, lasting, (client_claim, tenant, scopes));
        let remembered = with
            .carry
            .keep("oidc-remembered", site.owner, &what, || Remembered::new(secret.clone()));
        let renewals = with.carry.keep("oidc-renewals", site.owner, &whose, Default::default);
        let breaker = with.carry.keep("oidc-breaker", site.owner, &of, Default::default);
        let context = |purpose: &str| {
            let parts = [purpose, site.owner, &self.issuer, &client.id];
            parts.join("\0").into_bytes().into()
        };
        Some(Arc::new(Compiled {
            session_context: context("session"),
            login_context: context("login"),
            request: self.request(&client.id),
            scope: self.scope(),
            own_paths: [self.callback.value.into(), self.logout.value.into()],
            after_logout: self.after_logout.value.into(),
            origin: self.origin.map(|origin| origin.value.into()),
            lasting,
            keyring: Keyring::new(&secrets),
            jar: jar?,
            guard,
            id_tokens,
            provider: Provider { issuer: self.issuer.value.into(), client, ca, discovery, breaker },
            secret,
            remembered,
            renewals,
        }))
    }
}

impl Oidc {
    fn error(&self, key: &str, item: &Spanned<String>, message: &str, site: &Site<'_>) -> Finding {
        let span = if item.span == Default::default() { site.span } else { item.span };
        Finding::error("invalid-value", span, format!("{}.{key}", site.resource), message)
    }

    fn check_scopes(&self, site: &Site<'_>, with: &mut Compile<'_>) {
        for (index, scope) in self.scopes.iter().enumerate() {
            // RFC 6749 §3.3.
            let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
            if scope.is_empty() || !scope.bytes().all(plain) {
                let key = format!("scopes[{index}]");
                with.findings.push(self.error(&key, scope, "not the name of a scope", site));
            }
        }
        if !self.scopes.iter().any(|scope| **scope == "openid") {
            let resource = format!("{}.scopes", site.resource);
            let message = "without `openid` nobody says who has logged in";
            with.findings.error("invalid-value", site.span, resource, message);
        }
    }

    fn check_paths(&self, site: &Site<'_>, with: &mut Compile<'_>) {
        let paths = [
            ("callback", &self.callback),
            ("logout", &self.logout),
            ("after_logout", &self.after_logout),
        ];
        for (key, path) in paths {
            if !is_local(path) || path.contains(['?', '%', ';']) {
                let message = "not a path: it begins with one `/` and has no query";
                with.findings.push(self.error(key, path, message, site));
            }
        }
        if self.callback.value == self.logout.value {
            let message = "the callback and the logout have the same path";
            with.findings.push(self.error("logout", &self.logout, message, site));
        }
    }

    fn check_origin(&self, site: &Site<'_>, with: &mut Compile<'_>) {
        let Some(written) = &self.origin else { return };
        let wrong = match origin::check(written) {
            Ok(()) if is_trustworthy(written) => return,
            Ok(()) => "cookies would go over the network in clear text: write `https://…`".into(),
            Err(message) => message,
        };
        with.findings.push(self.error("origin", written, &wrong, site));
    }

    fn cookie_keys(&self, site: &Site<'_>, with: &mut Compile<'_>) -> Vec<Arc<[u8]>> {
        if self.cookie_key.len() > KEYS_MAX {
            let resource = format!("{}.cookie_key", site.resource);
            let message = format!("at most {KEYS_MAX} keys: each is tried with every cookie");
            with.findings.error("out-of-range", site.span, resource, message);
        }
        let mut secrets = Vec::new();
        for (index, reference) in self.cookie_key.iter().enumerate() {
            let key = format!("cookie_key[{index}]");
            if !reference.starts_with("file:") && !reference.starts_with("env:") {
                let message = "a key does not stand in the configuration";
                let finding = self.error(&key, reference, message, site);
                with.findings.push(finding.help("write `file:PATH` or `env:NAME`"));
                continue;
            }
            let Some(secret) = with.read(site, reference.span, reference) else { continue };
            if secret.len() < KEY_BYTES_MIN {
                let message =
                    format!("{} bytes, at least {KEY_BYTES_MIN} are needed", secret.len());
                let finding = self.error(&key, reference, &message, site);
                with.findings
                    .push(finding.help("`head -c 32 /dev/urandom > cookie.key` makes one"));
                continue;
            }
            secrets.push(secret);
        }
        secrets
    }

    fn jar(&self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Jar> {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name = match &self.cookie.name {
            Some(name) if !is_token(name.as_bytes()) || name.starts_with("__") => {
                let message = "not the name of a cookie, without a prefix";
                with.findings.push(self.error("cookie.name", name, message, site));
                return None;
            }
            Some(name) => name.value.clone(),
            None => format!("portcullis-{}", site.owner.chars().map(plain).collect::<String>()),
        };
        if let Some(domain) = &self.cookie.domain {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            if !domain.bytes().all(plain) || domain.starts_with('.') || !domain.contains('.') {
                let message = "not a domain: write `example.com`";
                with.findings.push(self.error("cookie.domain", domain, message, site));
                return None;
            }
        }
        Some(Jar::new(&name, self.cookie.domain.as_ref().map(|domain| domain.value.as_str())))
    }

    fn scope(&self) -> String {
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| scope.value.as_str()).collect();
        scopes.join(" ")
    }

    /// The parameters of an authorization request that are the same for all logins.
    fn request(&self, client_id: &str) -> Vec<(&'static str, String)> {
        let mut parameters = vec![
            ("response_type", "code".to_owned()),
            ("client_id", client_id.to_owned()),
            ("scope", self.scope()),
            ("code_challenge_method", "S256".to_owned()),
        ];
        parameters.extend(self.audience.clone().map(|audience| ("audience", audience)));
        parameters.extend(self.resource.iter().map(|resource| ("resource", resource.clone())));
        parameters.extend(self.prompt.map(|prompt| ("prompt", prompt.name().to_owned())));
        parameters
    }
}
