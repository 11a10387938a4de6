//! People who have logged in: a provider of the audit's own, sessions that come of logins at the
//! gateway under audit, and logins that must not come to a session (RFC 9700).
//!
//! A session is encrypted by the gateway, so it cannot be forged here; it is got by logging in,
//! once the gateway runs ([`crate::login`]). What the provider will say of a login is in its code.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::StatusCode;
use portcullis_core::node::Node;
use portcullis_core::services::{Fetch, Fetched};
use serde_json::{Map, Value, json};

use super::jwt::set;
use super::keys::{SigningKey, encode, hmac, message};
use super::{Bad, Caller, Credential, Entry, Forged, Login, Session, Twist, Workshop, broken};
use crate::draft::Draft;
use crate::needs::{Lacking, Needs, TENANT};
use crate::world::json as page;

const CLIENT: &str = "audit-client";
const HOUR: i64 = 3600;

/// What the token endpoint makes of a nonce.
type Answer = Box<dyn Fn(&str) -> Result<Value, String> + Send + Sync>;
/// By the number that a code begins with.
type Answers = Mutex<Vec<Answer>>;

pub(super) fn forge(
    entry: &Entry<'_>,
    needs: &Needs,
    workshop: &mut Workshop<'_>,
) -> Result<Forged, String> {
    let provider = Provider::of(entry, workshop)?;
    let claims = provider.claims(entry, needs, workshop);
    let mut logins = Vec::new();
    let mut session = |answer: Answer, logged_out| {
        let session = Session::default();
        logins.push(provider.login(answer, Some(session.clone()), None, logged_out));
        session
    };
    let good = session(provider.good(claims.clone(), needs), false);
    let ended = session(provider.good(claims.clone(), needs), true);
    let jar = Jar::of(entry);
    let mut bad = vec![(Bad::of("revoked", "a session that was ended"), jar.with(&ended, same))];
    for Lacking { kind, detail, needs: lacking } in needs.lacking() {
        let claims = provider.claims(entry, &lacking, workshop);
        let session = session(provider.good(claims, &lacking), false);
        bad.push((Bad::of(kind, detail), jar.with(&session, same)));
    }
    for (detail, change) in MALFORMED {
        bad.push((Bad::of("malformed", *detail), jar.with(&good, *change)));
    }
    let once = jar.with(&good, same);
    let other = jar.with(&good, |_| "audit".to_owned());
    bad.push((Bad::of("two credentials", "a session and another one"), once.and(&other)));
    let open = entry.settings.get("cross_site").and_then(|cross| cross.get("allow")).is_some();
    if !open {
        let mut cross = Bad::of("another site's page", "with a good session");
        cross.methods = Some(&["POST", "PUT", "PATCH", "DELETE"]);
        let foreign = Credential::new(|draft: &mut Draft| {
            draft.fields.retain(|(name, _)| name != "Sec-Fetch-Site");
            draft.add("Sec-Fetch-Site", "cross-site");
            draft.add("Origin", "https://attacker.invalid");
        });
        bad.push((cross, once.and(&foreign)));
    }
    for (bad, answer) in provider.bad(&claims, needs, workshop)? {
        logins.push(provider.login(answer, None, Some(bad), false));
    }
    for (twist, detail) in [
        (Twist::NoState, "no state"),
        (Twist::OtherState, "another state"),
        (Twist::NoCookie, "another browser's"),
        (Twist::Again, "a second time"),
    ] {
        let answer = provider.good(claims.clone(), needs);
        let login = provider.login(answer, None, Some(Bad::of("malformed", detail)), false);
        logins.push(Login { twist, ..login });
    }
    let mut good = once;
    // Only the gateway knows the session, so it is the cookie's name that must not be seen.
    good.secrets = vec![format!("{}=", jar.name)];
    Ok(Forged {
        caller: Caller {
            client: CLIENT.to_owned(),
            tenant: claim(entry, "tenant").map(|_| tenant(needs)),
            scopes: needs.scopes.clone(),
            claims: claims.as_object().cloned().unwrap_or_default(),
        },
        good,
        bad,
        logins,
        used: Vec::new(),
        spoofed: Vec::new(),
    })
}

type Change = fn(&str) -> String;

fn same(session: &str) -> String {
    session.to_owned()
}

/// Sessions that are nearly good ones.
const MALFORMED: &[(&str, Change)] = &[
    ("nothing", |_| String::new()),
    ("not a session", |_| "1audit".to_owned()),
    ("its last character changed", |session| {
        let (start, last) = session.split_at(session.len().saturating_sub(1));
        format!("{start}{}", if last == "A" { "B" } else { "A" })
    }),
    ("its middle changed", |session| {
        let (start, end) = session.split_at(session.len() / 2);
        let first = end.chars().next().unwrap_or('A');
        let other = if first == 'A' { 'B' } else { 'A' };
        format!("{start}{other}{}", end.get(1..).unwrap_or_default())
    }),
    ("cut off", |session| session.get(..session.len() / 2).unwrap_or_default().to_owned()),
    ("of more pieces than there are", |session| {
        format!("2{}", session.get(1..).unwrap_or_default())
    }),
];

fn tenant(needs: &Needs) -> String {
    needs.tenant.clone().unwrap_or_else(|| TENANT.to_owned())
}

/// The path of `claims.KEY`.
fn claim<'a>(entry: &Entry<'a>, key: &str) -> Option<&'a str> {
    entry.settings.get("claims")?.get(key)?.as_str()?.strip_prefix("claim:")
}

/// What the cookie is called.
struct Jar {
    name: String,
    shared: bool,
    /// Whether browsers know the gateway by https, whatever the listener speaks.
    secure: bool,
}

impl Jar {
    fn of(entry: &Entry<'_>) -> Self {
        let cookie = |key: &str| entry.settings.get("cookie")?.get(key)?.as_str();
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let own = || format!("portcullis-{}", entry.name.chars().map(plain).collect::<String>());
        Self {
            name: cookie("name").map_or_else(own, str::to_owned),
            shared: cookie("domain").is_some(),
            secure: entry.text("origin").is_some_and(|origin| origin.starts_with("https:")),
        }
    }

    fn with(&self, session: &Session, change: Change) -> Credential {
        let prefix = if self.shared { "__Secure-" } else { "__Host-" };
        let (secure, plain) = (format!("{prefix}{}", self.name), self.name.clone());
        let (always, session) = (self.secure, session.clone());
        let apply = move |draft: &mut Draft| {
            let name = if draft.https || always { &secure } else { &plain };
            let session = session.0.lock().unwrap_or_else(PoisonError::into_inner);
            draft.add("Cookie", format!("{name}={}", change(&session)));
            draft.add("Sec-Fetch-Site", "same-origin");
        };
        Credential { near: !self.secure, ..Credential::new(apply) }
    }
}

/// In the place of the operator's.
struct Provider {
    issuer: String,
    client: String,
    callback: String,
    logout: String,
    near: bool,
    key: Arc<SigningKey>,
    answers: Arc<Answers>,
    entry: String,
}

impl Provider {
    fn of(entry: &Entry<'_>, workshop: &mut Workshop<'_>) -> Result<Self, String> {
        let issuer = entry.text("issuer").ok_or("`issuer` is not a text")?.to_owned();
        let base = issuer.trim_end_matches('/').to_owned();
        let client = entry.settings.get("client").ok_or("it has no `client`")?;
        workshop.client_of(client)?;
        if let Some(ca) = entry.text("ca") {
            workshop.authority(ca)?;
        }
        for reference in entry.texts("cookie_key") {
            let key = Workshop::random::<48>();
            workshop.files.entry(reference.to_owned()).or_insert_with(|| key.as_slice().into());
        }
        let key = workshop.keep(&base, |_| SigningKey::new("audit-provider", "ES256"))?;
        let answers = workshop.keep(&base, |_| Ok(Answers::default()))?;
        let at = |what: &str| format!("{base}/audit-{what}");
        workshop.discovery(&issuer, |metadata| {
            for name in ["authorization", "token", "end_session"] {
                metadata[format!("{name}_endpoint")] = at(name).into();
            }
            if metadata.get("jwks_uri").is_none() {
                metadata["jwks_uri"] = at("keys").into();
            }
        });
        let set = json!({ "keys": [key.jwk()] }).to_string();
        workshop.pages.insert(at("keys"), page(set));
        let asked = Arc::clone(&answers);
        let tokens = move |fetch: &Fetch| tokens(&asked, &fetch.body);
        workshop.pages.insert(at("token"), Arc::new(tokens));
        let path = |name: &str, default: &str| entry.text(name).unwrap_or(default).to_owned();
        Ok(Self {
            client: client.get("id").and_then(Node::as_str).unwrap_or_default().to_owned(),
            callback: path("callback", "/oauth2/callback"),
            logout: path("logout", "/oauth2/logout"),
            near: Jar::of(entry).secure,
            entry: entry.name.to_owned(),
            issuer,
            key,
            answers,
        })
    }

    fn login(
        &self,
        answer: Answer,
        session: Option<Session>,
        bad: Option<Bad>,
        logged_out: bool,
    ) -> Login {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push(answer);
        Login {
            entry: self.entry.clone(),
            code: format!("audit{}", answers.len() - 1),
            callback: self.callback.clone(),
            logout: logged_out.then(|| self.logout.clone()),
            near: !self.near,
            twist: Twist::None,
            session,
            bad,
        }
    }

    /// Of an ID token, but for the nonce.
    fn claims(&self, entry: &Entry<'_>, needs: &Needs, workshop: &Workshop<'_>) -> Value {
        let mut claims = json!({
            "iss": self.issuer, "aud": self.client, "sub": CLIENT,
            "iat": workshop.in_seconds(-10), "exp": workshop.in_seconds(HOUR),
        });
        if let Some(path) = claim(entry, "client") {
            set(&mut claims, path, CLIENT.into());
        }
        if let Some(path) = claim(entry, "tenant") {
            set(&mut claims, path, tenant(needs).into());
        }
        if let Some(path) = claim(entry, "scopes") {
            set(&mut claims, path, json!(needs.scopes));
        }
        for (path, value) in needs.all_claims() {
            set(&mut claims, path, value.clone());
        }
        claims
    }

    fn good(&self, claims: Value, needs: &Needs) -> Answer {
        let (key, scope) = (Arc::clone(&self.key), needs.scopes.join(" "));
        Box::new(move |nonce| {
            let token = key.sign(&key.header(), &with_nonce(&claims, nonce))?;
            Ok(granted(&scope, Some(token)))
        })
    }

    /// What the token endpoint must not be believed.
    fn bad(
        &self,
        claims: &Value,
        needs: &Needs,
        workshop: &mut Workshop<'_>,
    ) -> Result<Vec<(Bad, Answer)>, String> {
        let stranger = workshop.keep("stranger", |_| SigningKey::new("stranger", "ES256"))?;
        let changed = |name: &str, value: Value| {
            let mut claims = claims.clone();
            claims[name] = value;
            claims
        };
        let mut all: Vec<(Bad, Answer)> = Vec::new();
        for (kind, claims) in [
            ("expired", changed("exp", workshop.in_seconds(-HOUR).into())),
            ("wrong audience", changed("aud", "audit-nobody".into())),
            ("wrong issuer", changed("iss", "https://attacker.invalid/".into())),
        ] {
            all.push((Bad::of(kind, "an ID token"), self.good(claims, needs)));
        }
        let scope = needs.scopes.join(" ");
        let mut add = |bad: Bad, make: fn(&Forgery<'_>) -> Result<String, String>| {
            let (key, stranger) = (Arc::clone(&self.key), Arc::clone(&stranger));
            let (claims, scope) = (claims.clone(), scope.clone());
            let answer = move |nonce: &str| {
                let claims = with_nonce(&claims, nonce);
                let forgery = Forgery { key: &key, stranger: &stranger, claims: &claims };
                Ok(granted(&scope, Some(make(&forgery)?)))
            };
            all.push((bad, Box::new(answer)));
        };
        add(Bad::of("malformed", "another login's nonce"), |forgery| {
            forgery.key.sign(&forgery.key.header(), &with_nonce(forgery.claims, "audit"))
        });
        add(Bad::of("alg none", "an ID token"), |forgery| {
            let header = json!({ "alg": "none", "kid": forgery.key.kid });
            Ok(format!("{}.", message(&header, forgery.claims)))
        });
        add(Bad::of("wrong key", "an ID token"), |forgery| {
            forgery.stranger.sign(&forgery.key.header(), forgery.claims)
        });
        add(Bad::of("embedded jwk", "an ID token"), |forgery| {
            let mut header = forgery.key.header();
            header["jwk"] = forgery.stranger.jwk();
            forgery.stranger.sign(&header, forgery.claims)
        });
        add(Bad::of("key confusion", "an ID token"), |forgery| {
            let header = json!({ "alg": "HS256", "kid": forgery.key.kid });
            hmac(&forgery.key.der, &header, forgery.claims)
        });
        let none = scope.clone();
        let without: Answer = Box::new(move |_| Ok(granted(&none, None)));
        all.push((Bad::of("malformed", "no ID token"), without));
        Ok(all)
    }
}

struct Forgery<'a> {
    key: &'a SigningKey,
    stranger: &'a SigningKey,
    claims: &'a Value,
}

fn with_nonce(claims: &Value, nonce: &str) -> Value {
    let mut claims = claims.clone();
    claims["nonce"] = nonce.into();
    claims
}

fn granted(scope: &str, id_token: Option<String>) -> Value {
    let mut answer = Map::new();
    let access_token = format!("audit-{}", encode(Workshop::random::<16>()));
    answer.insert("access_token".to_owned(), access_token.into());
    answer.insert("token_type".to_owned(), "Bearer".into());
    answer.insert("expires_in".to_owned(), HOUR.into());
    answer.insert("scope".to_owned(), scope.into());
    if let Some(token) = id_token {
        answer.insert("id_token".to_owned(), token.into());
    }
    answer.into()
}

/// What comes of a code: `auditNUMBER.NONCE.CHALLENGE`, with the verifier of the challenge
/// (RFC 7636 §4.6).
fn tokens(answers: &Answers, form: &[u8]) -> Fetched {
    let form = String::from_utf8_lossy(form);
    let of = |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name));
    let verifier = of("code_verifier=").unwrap_or_default();
    let verifier = encode(digest(&SHA256, verifier.as_bytes()));
    let code = of("code=audit").and_then(|code| code.strip_suffix(&verifier)?.strip_suffix('.'));
    let answer = code.and_then(|code| code.split_once('.')).and_then(|(number, nonce)| {
        let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.get(number.parse::<usize>().ok()?)?;
        answer(nonce).map_err(broken).ok()
    });
    let (status, body) = match answer {
        Some(answer) => (StatusCode::OK, answer),
        None => (StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" })),
    };
    Fetched {
        status,
        content_type: Some("application/json".to_owned()),
        fields: vec![("content-type".into(), b"application/json".as_slice().into())],
        body: Bytes::from(body.to_string()),
        stale: false,
    }
}
