//! Tokens that an issuer is asked about: an issuer of the audit's own that knows what it has given
//! out (RFC 7662, RFC 9701).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use portcullis_core::node::Node;
use portcullis_core::services::{Fetch, Fetched};
use serde_json::{Value, json};

use super::jwt::set;
use super::keys::{SigningKey, encode};
use super::{Bad, Caller, Credential, Entry, Forged, Workshop};
use crate::needs::{Lacking, Needs, TENANT, plain};
use crate::world::json as page;

const CLIENT: &str = "audit-client";
const HOUR: i64 = 3600;

/// What the issuer knows, by token.
type Known = Mutex<HashMap<String, Value>>;

pub(super) fn forge(
    entry: &Entry<'_>,
    needs: &Needs,
    workshop: &mut Workshop<'_>,
) -> Result<Forged, String> {
    let issuer = Issuer::of(entry, workshop)?;
    let good_answer = issuer.answer(entry, needs, workshop);
    let good = issuer.give(good_answer.clone());
    let present = |token: &str| Credential::field("Authorization", format!("Bearer {token}"));
    let mut bad = Vec::new();
    let mut add = |bad_by: Bad, token: &str| bad.push((bad_by, present(token)));
    let changed = |name: &str, value: Value| {
        let mut answer = good_answer.clone();
        answer[name] = value;
        answer
    };
    add(Bad::of("malformed", "a token that the issuer does not know"), "audit-unknown");
    add(Bad::of("malformed", "empty"), "");
    add(Bad::of("malformed", "a good token and more"), &format!("{good}x"));
    add(Bad::new("revoked"), &issuer.give(json!({ "active": false })));
    let revoked = issuer.give(changed("active", false.into()));
    add(Bad::of("revoked", "with everything else of a good one"), &revoked);
    let time = |seconds| Value::from(workshop.in_seconds(seconds));
    add(Bad::new("expired"), &issuer.give(changed("exp", time(-HOUR))));
    add(Bad::new("not yet valid"), &issuer.give(changed("nbf", time(HOUR))));
    let bound = json!({ "x5t#S256": encode([7; 32]) });
    add(Bad::new("bound to another"), &issuer.give(changed("cnf", bound)));
    if !entry.texts("audience").is_empty() {
        add(Bad::new("wrong audience"), &issuer.give(changed("aud", "audit-nobody".into())));
    }
    if entry.text("issuer").is_some() {
        let other = changed("iss", "https://attacker.invalid/".into());
        add(Bad::new("wrong issuer"), &issuer.give(other));
    }
    for (key, _) in entry.settings.get("require_claims").map(Node::entries).unwrap_or_default() {
        let mut answer = good_answer.clone();
        set(&mut answer, &key.name, "audit-other".into());
        add(Bad::of("claim wrong", key.name.clone()), &issuer.give(answer));
    }
    let has_tenants = claim(entry, "tenant").is_some();
    for Lacking { kind, detail, needs } in needs.lacking() {
        if kind != "other tenant" || has_tenants {
            let answer = issuer.answer(entry, &needs, workshop);
            add(Bad::of(kind, detail), &issuer.give(answer));
        }
    }
    let (once, none) = (present(&good), present("audit"));
    bad.push((Bad::of("two credentials", "a good token and no token"), once.and(&none)));
    bad.push((Bad::of("two credentials", "no token and a good token"), none.and(&once)));
    Ok(Forged {
        good: present(&good).secret(&good),
        caller: Caller {
            client: CLIENT.to_owned(),
            tenant: has_tenants.then(|| tenant(needs)),
            scopes: needs.scopes.clone(),
            claims: good_answer.as_object().cloned().unwrap_or_default(),
        },
        bad,
        logins: Vec::new(),
        used: Vec::new(),
        spoofed: Vec::new(),
    })
}

fn tenant(needs: &Needs) -> String {
    needs.tenant.clone().unwrap_or_else(|| TENANT.to_owned())
}

/// The path of `claims.KEY`.
fn claim<'a>(entry: &Entry<'a>, key: &str) -> Option<&'a str> {
    entry.settings.get("claims")?.get(key)?.as_str()?.strip_prefix("claim:")
}

struct Issuer {
    known: Arc<Known>,
}

impl Issuer {
    /// At the place of the operator's.
    fn of(entry: &Entry<'_>, workshop: &mut Workshop<'_>) -> Result<Self, String> {
        let issuer = entry.text("issuer");
        let written = entry.text("endpoint").map(str::to_owned);
        let base = issuer.unwrap_or_default().trim_end_matches('/').to_owned();
        let endpoint = written.unwrap_or_else(|| format!("{base}/audit-introspection"));
        let known = workshop.keep(&endpoint, |_| Ok(Known::default()))?;
        let signing = workshop.keep(&endpoint, |_| SigningKey::new("audit-issuer", "ES256"))?;
        if let Some(issuer) = issuer {
            let keys = format!("{base}/audit-keys");
            workshop.discovery(issuer, |metadata| {
                metadata["introspection_endpoint"] = endpoint.as_str().into();
                if metadata.get("jwks_uri").is_none() {
                    metadata["jwks_uri"] = keys.as_str().into();
                }
            });
            let set = json!({ "keys": [signing.jwk()] }).to_string();
            workshop.pages.entry(keys).or_insert_with(|| page(set));
        }
        if let Some(client) = entry.settings.get("client") {
            workshop.client_of(client)?;
        }
        if let Some(ca) = entry.text("ca") {
            workshop.authority(ca)?;
        }
        let signed = entry.settings.get("signed").and_then(Node::as_bool).unwrap_or_default();
        let client = entry.settings.get("client").and_then(|client| client.get("id"));
        let client = client.and_then(Node::as_str).unwrap_or_default().to_owned();
        let (issuer, now) = (issuer.unwrap_or_default().to_owned(), workshop.in_seconds(0));
        let asked = Arc::clone(&known);
        let answers = move |fetch: &Fetch| {
            let said = said(&asked, &fetch.body);
            match signed {
                false => answered("application/json", said.to_string()),
                true => {
                    let header = json!({ "alg": "ES256", "kid": signing.kid,
                        "typ": "token-introspection+jwt" });
                    let claims = json!({ "iss": issuer, "aud": client, "iat": now,
                        "token_introspection": said });
                    let token = signing.sign(&header, &claims).unwrap_or_default();
                    answered("application/token-introspection+jwt", token)
                }
            }
        };
        workshop.pages.insert(endpoint, Arc::new(answers));
        Ok(Self { known })
    }

    /// A token about which the issuer will answer this.
    fn give(&self, answer: Value) -> String {
        let token = format!("audit-{}", encode(Workshop::random::<24>()));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(token.clone(), answer);
        token
    }

    /// That of a good token.
    fn answer(&self, entry: &Entry<'_>, needs: &Needs, workshop: &Workshop<'_>) -> Value {
        let mut answer = json!({
            "active": true, "sub": CLIENT, "client_id": CLIENT, "token_type": "Bearer",
            "iat": workshop.in_seconds(-10), "exp": workshop.in_seconds(HOUR),
        });
        if let Some(issuer) = entry.text("issuer") {
            answer["iss"] = issuer.into();
        }
        if let Some(audience) = entry.texts("audience").first() {
            answer["aud"] = (*audience).into();
        }
        let required = entry.settings.get("require_claims").map(Node::entries);
        for (key, values) in required.unwrap_or_default() {
            set(&mut answer, &key.name, plain(values.items().first().unwrap_or(values)));
        }
        if let Some(path) = claim(entry, "client") {
            set(&mut answer, path, CLIENT.into());
        }
        if let Some(path) = claim(entry, "tenant") {
            set(&mut answer, path, tenant(needs).into());
        }
        match claim(entry, "scopes") {
            Some(path) => set(&mut answer, path, json!(needs.scopes)),
            None => answer["scope"] = needs.scopes.join(" ").into(),
        }
        for (path, value) in needs.all_claims() {
            set(&mut answer, path, value.clone());
        }
        answer
    }
}

/// What is known of the token in a form.
fn said(known: &Known, form: &[u8]) -> Value {
    let form = String::from_utf8_lossy(form);
    let token = form.split('&').find_map(|pair| pair.strip_prefix("token="));
    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = token.and_then(|token| known.get(token));
    answer.cloned().unwrap_or_else(|| json!({ "active": false }))
}

fn answered(content_type: &str, body: String) -> Fetched {
    Fetched {
        status: StatusCode::OK,
        content_type: Some(content_type.to_owned()),
        fields: vec![("content-type".into(), content_type.as_bytes().into())],
        body: Bytes::from(body),
        stale: false,
    }
}
