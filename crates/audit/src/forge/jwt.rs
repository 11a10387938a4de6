//! Signed tokens: an issuer of the audit's own in the place of the operator's, and what an attacker
//! makes of its tokens (RFC 8725).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis_core::node::Node;
use serde_json::{Map, Value, json};

use super::keys::{ALGORITHMS, SigningKey, encode, hmac, message};
use super::{Bad, Caller, Credential, Entry, Forged, Workshop};
use crate::needs::{Lacking, Needs, TENANT, plain};
use crate::world::json as page;

const CLIENT: &str = "audit-client";
const HOUR: i64 = 3600;
/// Where an attacker's keys are, for whoever asks there.
const ATTACKER: &str = "https://attacker.invalid";
const REVOKED: &str = "audit-revoked";
/// For whoever looks for keys in files.
const NO_FILE: &str = "../../../../../../dev/null";

/// The keys of an issuer, and one that is none of its.
struct Ring {
    keys: Vec<SigningKey>,
    stranger: SigningKey,
}

pub(super) fn forge(
    entry: &Entry<'_>,
    needs: &Needs,
    workshop: &mut Workshop<'_>,
) -> Result<Forged, String> {
    let issuer = entry.text("issuer").ok_or("`issuer` is not a text")?;
    let ring = ring(entry, issuer, workshop)?;
    let key = ring.keys.first().ok_or("none of its `algorithms` is known")?;
    let token = Token { entry, issuer, key, places: Place::all(entry), typ: entry.text("typ") };
    let claims = token.claims(needs, workshop)?;
    let good = token.sign(&claims)?;
    let mut bad = Vec::new();
    token.with_other_claims(&claims, needs, workshop, &mut bad)?;
    token.with_other_keys(&claims, &ring, &mut bad)?;
    token.malformed(&good, &claims, &mut bad);
    token.with_odd_signatures(&good, &mut bad);
    token.elsewhere(&good, &mut bad);
    token.twice(&good, &mut bad);
    Ok(Forged {
        good: token.present(&good).secret(&good),
        caller: Caller {
            client: CLIENT.to_owned(),
            tenant: entry.text("tenant").map(|_| token.tenant(needs)),
            scopes: needs.scopes.clone(),
            claims: claims.as_object().cloned().unwrap_or_default(),
        },
        bad,
        logins: Vec::new(),
        used: Vec::new(),
        spoofed: Vec::new(),
    })
}

/// The keys for where the entry has them from, put there.
fn ring(entry: &Entry<'_>, issuer: &str, workshop: &mut Workshop<'_>) -> Result<Arc<Ring>, String> {
    let written = entry.texts("algorithms");
    let allowed = |name: &&&str| written.is_empty() || written.contains(name);
    let algorithms: Vec<&'static str> = ALGORITHMS.iter().filter(allowed).copied().collect();
    // One key that signs quickly, and one of RSA, which tokens are most often confused with.
    let quick = algorithms.first().copied();
    let rsa = algorithms.iter().copied().find(|name| name.starts_with(['R', 'P']));
    let place = entry.text("jwks").unwrap_or(issuer);
    // Entries that have their keys from one place share them, whatever each of them allows.
    let ring = workshop.keep(&format!("{place} {algorithms:?}"), |workshop| {
        let mut keys = Vec::new();
        for algorithm in quick.into_iter().chain(rsa.filter(|rsa| quick != Some(rsa))) {
            let kid = format!("audit-{}", workshop.number());
            keys.push(SigningKey::new(&kid, algorithm)?);
        }
        let stranger = SigningKey::new("stranger", quick.unwrap_or("ES256"))?;
        Ok(Ring { keys, stranger })
    })?;
    let sets = workshop.keep(place, |_| Ok(std::sync::Mutex::new(Vec::new())))?;
    let set = {
        let mut all = sets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for key in &ring.keys {
            if all.iter().all(|other: &Value| other["kid"] != key.kid.as_str()) {
                all.push(key.jwk());
            }
        }
        json!({ "keys": *all }).to_string()
    };
    match entry.text("jwks") {
        Some(file) if file.starts_with("file:") => {
            workshop.files.insert(file.to_owned(), set.into_bytes().into());
        }
        Some(url) => drop(workshop.pages.insert(url.to_owned(), page(set))),
        None => {
            let base = issuer.trim_end_matches('/');
            let keys = format!("{base}/audit-keys");
            workshop.discovery(issuer, |metadata| metadata["jwks_uri"] = keys.as_str().into());
            workshop.pages.insert(keys, page(set));
        }
    }
    if let Some(ca) = entry.text("ca") {
        workshop.authority(ca)?;
    }
    if let Some(revoked) = entry.text("revoked") {
        let list = json!({ "jti": [REVOKED] }).to_string();
        workshop.files.insert(revoked.to_owned(), list.into_bytes().into());
    }
    // For whoever follows what an attacker writes into a header.
    let stranger = json!({ "keys": [ring.stranger.jwk()] }).to_string();
    workshop.pages.insert(format!("{ATTACKER}/keys"), page(stranger));
    Ok(ring)
}

/// Where a request has its token.
#[derive(Clone)]
enum Place {
    Field(String, &'static str),
    Cookie(String),
    Query(String),
}

impl Place {
    fn all(entry: &Entry<'_>) -> Vec<Self> {
        let bearer = || Self::Field("Authorization".to_owned(), "Bearer ");
        let read = |text: &str| match text.split_once(':') {
            Some(("header", name)) => Self::Field(name.to_owned(), ""),
            Some(("cookie", name)) => Self::Cookie(name.to_owned()),
            Some(("query", name)) => Self::Query(name.to_owned()),
            _ => bearer(),
        };
        let places: Vec<Self> = entry.texts("token").into_iter().map(read).collect();
        if places.is_empty() { vec![bearer()] } else { places }
    }

    fn with(&self, token: &str) -> Credential {
        match self {
            Self::Field(name, scheme) => Credential::field(name, format!("{scheme}{token}")),
            // As a browser sends it for a page of the same origin.
            Self::Cookie(name) => {
                let cookie = format!("{name}={token}");
                Credential::new(move |draft| {
                    draft.add("Cookie", cookie.clone());
                    draft.add("Sec-Fetch-Site", "same-origin");
                })
            }
            Self::Query(name) => {
                let pair = format!("{name}={token}");
                Credential::new(move |draft| draft.add_query(&pair))
            }
        }
    }
}

type Bads = Vec<(Bad, Credential)>;

struct Token<'a> {
    entry: &'a Entry<'a>,
    issuer: &'a str,
    key: &'a SigningKey,
    places: Vec<Place>,
    typ: Option<&'a str>,
}

impl Token<'_> {
    fn present(&self, token: &str) -> Credential {
        self.places[0].with(token)
    }

    fn header(&self) -> Value {
        let mut header = self.key.header();
        if let Some(typ) = self.typ {
            header["typ"] = typ.into();
        }
        header
    }

    fn sign(&self, claims: &Value) -> Result<String, String> {
        self.key.sign(&self.header(), claims)
    }

    fn tenant(&self, needs: &Needs) -> String {
        needs.tenant.clone().unwrap_or_else(|| TENANT.to_owned())
    }

    /// Where scopes stand, and as what.
    fn set_scopes(&self, claims: &mut Value, scopes: &[String]) {
        match self.entry.text("scopes").and_then(|text| text.strip_prefix("claim:")) {
            Some(path) => set(claims, path, json!(scopes)),
            None => claims["scope"] = scopes.join(" ").into(),
        }
    }

    /// Those of a good token.
    fn claims(&self, needs: &Needs, workshop: &Workshop<'_>) -> Result<Value, String> {
        let audience = self.entry.texts("audience");
        let audience = audience.first().ok_or("it has no `audience`")?;
        let mut claims = json!({
            "iss": self.issuer, "aud": audience, "sub": CLIENT, "client_id": CLIENT,
            "jti": format!("audit-{}", encode(Workshop::random::<12>())),
            "iat": workshop.in_seconds(-10), "exp": workshop.in_seconds(HOUR),
        });
        for (name, value) in required(self.entry.settings.get("require_claims")) {
            if claims.get(&name).is_none() {
                set(&mut claims, &name, value);
            }
        }
        let named = |key| self.entry.text(key).and_then(|text| text.strip_prefix("claim:"));
        if let Some(path) = named("client") {
            set(&mut claims, path, CLIENT.into());
        }
        if let Some(path) = named("tenant") {
            set(&mut claims, path, self.tenant(needs).into());
        }
        self.set_scopes(&mut claims, &needs.scopes);
        for (path, value) in needs.all_claims() {
            set(&mut claims, path, value.clone());
        }
        Ok(claims)
    }

    /// Signed by the issuer, and for somebody or some time else.
    fn with_other_claims(
        &self,
        claims: &Value,
        needs: &Needs,
        workshop: &Workshop<'_>,
        bad: &mut Bads,
    ) -> Result<(), String> {
        let mut add = |bad_by: Bad, claims: &Value| -> Result<(), String> {
            bad.push((bad_by, self.present(&self.sign(claims)?)));
            Ok(())
        };
        let changed = |name: &str, value: Value| {
            let mut claims = claims.clone();
            claims[name] = value;
            claims
        };
        let without = |name: &str| {
            let mut claims = claims.clone();
            claims.as_object_mut().map(|claims| claims.shift_remove(name));
            claims
        };
        let time = |seconds| Value::from(workshop.in_seconds(seconds));
        add(Bad::new("expired"), &changed("exp", time(-HOUR)))?;
        add(Bad::of("expired", "before 1970"), &changed("exp", (-1).into()))?;
        add(Bad::of("expired", "a text"), &changed("exp", "9999999999".into()))?;
        add(Bad::new("not yet valid"), &changed("nbf", time(HOUR)))?;
        add(Bad::of("not yet valid", "a text"), &changed("nbf", "0".into()))?;
        add(Bad::of("not yet valid", "issued in the future"), &changed("iat", time(HOUR)))?;
        add(Bad::new("wrong audience"), &changed("aud", "audit-nobody".into()))?;
        let nearly = format!("{} ", claims["aud"].as_str().unwrap_or_default());
        for (detail, audience) in [
            ("a list of others", json!(["audit-nobody"])),
            ("an empty list", json!([])),
            ("no text", json!({})),
            ("a space more", nearly.into()),
        ] {
            add(Bad::of("wrong audience", detail), &changed("aud", audience))?;
        }
        // Nobody has a certificate of this hash (RFC 8705).
        let bound = json!({ "x5t#S256": encode([7; 32]) });
        add(Bad::new("bound to another"), &changed("cnf", bound))?;
        add(Bad::new("wrong issuer"), &changed("iss", format!("{ATTACKER}/").into()))?;
        for name in ["exp", "aud", "iss"] {
            add(Bad::of("claim missing", name), &without(name))?;
        }
        for (name, value) in required(self.entry.settings.get("require_claims")) {
            add(Bad::of("claim missing", name.clone()), &without(&name))?;
            if value != "audit" {
                add(Bad::of("claim wrong", name.clone()), &changed(&name, "audit-other".into()))?;
            }
        }
        if self.entry.text("revoked").is_some() {
            add(Bad::new("revoked"), &changed("jti", REVOKED.into()))?;
        }
        for Lacking { kind, detail, needs } in needs.lacking() {
            let says_tenants = self.entry.text("tenant").is_some();
            if kind != "other tenant" || says_tenants {
                add(Bad::of(kind, detail), &self.claims(&needs, workshop)?)?;
            }
        }
        Ok(())
    }

    /// Good claims, under a signature that is not the issuer's.
    fn with_other_keys(&self, claims: &Value, ring: &Ring, bad: &mut Bads) -> Result<(), String> {
        let mut add = |bad_by: Bad, token: &str| bad.push((bad_by, self.present(token)));
        let header = |changes: Value| {
            let mut header = self.header();
            for (name, value) in changes.as_object().into_iter().flatten() {
                header[name] = value.clone();
            }
            if let Some(header) = header.as_object_mut() {
                header.retain(|_, value| !value.is_null());
            }
            header
        };
        for name in ["none", "None", "NONE", "nOnE"] {
            let text = message(&header(json!({ "alg": name })), claims);
            add(Bad::of("alg none", name), &format!("{text}."));
            add(Bad::of("alg none", format!("{name}, without its second dot")), &text);
        }
        for key in &ring.keys {
            for (form, secret) in key.as_secrets() {
                let header = header(json!({ "alg": "HS256", "kid": key.kid }));
                let detail = format!("HMAC with the public {} key, {form}", key.algorithm);
                add(Bad::of("key confusion", detail), &hmac(&secret, &header, claims)?);
            }
        }
        add(
            Bad::of("key confusion", "HMAC with an empty key"),
            &hmac(b"", &header(json!({ "alg": "HS256" })), claims)?,
        );
        // By the issuer's own key, but under a name that nobody knows.
        let unknown = header(json!({ "kid": "audit-unknown" }));
        add(Bad::new("unknown kid"), &self.key.sign(&unknown, claims)?);
        for (detail, kid) in [
            ("a path", NO_FILE.to_owned()),
            ("SQL", "' OR 1=1 --".to_owned()),
            ("a URL", format!("{ATTACKER}/keys")),
            ("4,000 characters", "k".repeat(4000)),
        ] {
            let unknown = header(json!({ "kid": kid }));
            add(Bad::of("unknown kid", detail), &self.key.sign(&unknown, claims)?);
        }
        add(
            Bad::of("key confusion", "HMAC with the key of an empty file"),
            &hmac(b"", &header(json!({ "alg": "HS256", "kid": NO_FILE })), claims)?,
        );
        let stranger = &ring.stranger;
        let mut by_stranger = |bad_by, changes| -> Result<(), String> {
            add(bad_by, &stranger.sign(&header(changes), claims)?);
            Ok(())
        };
        by_stranger(Bad::new("wrong key"), json!({}))?;
        by_stranger(Bad::of("wrong key", "no key id"), json!({ "kid": null }))?;
        let jwk = stranger.jwk();
        let (keys, chain) = (format!("{ATTACKER}/keys"), format!("{ATTACKER}/chain.pem"));
        by_stranger(Bad::new("embedded jwk"), json!({ "jwk": jwk }))?;
        by_stranger(Bad::of("embedded jwk", "no key id"), json!({ "jwk": jwk, "kid": null }))?;
        by_stranger(Bad::new("embedded jku"), json!({ "jku": keys }))?;
        by_stranger(
            Bad::of("embedded jku", "its own key id"),
            json!({ "jku": keys, "kid": stranger.kid }),
        )?;
        by_stranger(Bad::new("embedded x5u"), json!({ "x5u": chain }))?;
        let x5c = STANDARD.encode(&stranger.der);
        by_stranger(Bad::of("embedded x5u", "x5c"), json!({ "x5c": [x5c] }))?;
        let critical = header(json!({ "crit": ["audit"], "audit": true }));
        add(
            Bad::of("malformed", "a critical header that nobody knows"),
            &self.key.sign(&critical, claims)?,
        );
        let other = header(json!({ "typ": "logout+jwt" }));
        add(Bad::of("malformed", "a token for another purpose"), &self.key.sign(&other, claims)?);
        Ok(())
    }

    /// What is no token, or a token that somebody has changed.
    fn malformed(&self, good: &str, claims: &Value, bad: &mut Bads) {
        let mut parts = good.split('.');
        let [header, _, signature] = [(); 3].map(|()| parts.next().unwrap_or_default());
        let mut other = claims.clone();
        other["sub"] = "audit-admin".into();
        other["client_id"] = "audit-admin".into();
        let tampered = format!("{header}.{}.{signature}", encode(other.to_string()));
        for (detail, token) in [
            ("no token at all", "audit".to_owned()),
            ("its claims changed", tampered),
            ("its signature left out", good.trim_end_matches(signature).to_owned()),
            ("two dots", "..".to_owned()),
            ("5,000 parts", vec!["a"; 5000].join(".")),
            ("a part too many", format!("{good}.{signature}")),
            ("empty", String::new()),
        ] {
            bad.push((Bad::of("malformed", detail), self.present(&token)));
        }
    }

    /// Signatures that have been good for everything (CVE-2022-21449), and another form of a good
    /// one (RFC 7518 §3.4).
    fn with_odd_signatures(&self, good: &str, bad: &mut Bads) {
        let Some((message, signature)) = good.rsplit_once('.') else { return };
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        let half = bytes.len() / 2;
        let mut odd = vec![("zeroes", vec![0; bytes.len()]), ("ones", vec![0xff; bytes.len()])];
        if self.key.algorithm.starts_with("ES") {
            let zero = vec![0; half];
            odd.push(("r = 0", [&zero, &bytes[half..]].concat()));
            odd.push(("s = 0", [&bytes[..half], &zero].concat()));
            odd.push(("in DER", der(&bytes)));
        }
        for (detail, signature) in odd {
            let token = format!("{message}.{}", encode(signature));
            bad.push((Bad::of("odd signature", detail), self.present(&token)));
        }
    }

    /// A good token where nobody has asked for one.
    fn elsewhere(&self, good: &str, bad: &mut Bads) {
        let has = |test: fn(&Place) -> bool| self.places.iter().any(test);
        let mut add = |detail: &str, place: Place| {
            bad.push((Bad::of("in another place", detail), place.with(good)));
        };
        if !has(|place| matches!(place, Place::Query(_))) {
            add("the query", Place::Query("access_token".to_owned()));
        }
        if !has(|place| matches!(place, Place::Cookie(_))) {
            add("a cookie", Place::Cookie("access_token".to_owned()));
        }
    }

    /// More than one credential: whoever reads which of them.
    fn twice(&self, good: &str, bad: &mut Bads) {
        for place in &self.places[1..] {
            let both = self.present(good).and(&place.with(good));
            bad.push((Bad::of("two credentials", "the same token in two places"), both));
        }
        if matches!(self.places[0], Place::Field(_, "Bearer ")) {
            let both = Credential::field("Authorization", format!("Bearer {good}, Bearer {good}"));
            bad.push((Bad::of("two credentials", "two tokens in one field"), both));
        }
        let (good, none) = (self.present(good), self.present("audit"));
        for (detail, first, second) in [
            ("a good token and no token", &good, &none),
            ("no token and a good token", &none, &good),
            ("the same token twice", &good, &good),
        ] {
            bad.push((Bad::of("two credentials", detail), first.and(second)));
        }
        let scheme = Credential::field("Authorization", "Basic YXVkaXQ6YXVkaXQ=");
        if matches!(self.places[0], Place::Field(ref name, _) if name == "Authorization") {
            bad.push((Bad::of("two credentials", "another scheme first"), scheme.and(&good)));
            bad.push((Bad::of("two credentials", "another scheme second"), good.and(&scheme)));
        }
    }
}

/// The two numbers of an ECDSA signature as ASN.1 has them (RFC 3279 §2.2.3).
fn der(raw: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
        let sign = bytes.get(start).is_none_or(|first| *first >= 0x80);
        let digits = &bytes[start..];
        let length = (digits.len() + usize::from(sign)) as u8;
        [&[2, length][..], if sign { &[0][..] } else { &[] }, digits].concat()
    };
    let (first, second) = raw.split_at(raw.len() / 2);
    let numbers = [number(first), number(second)].concat();
    [&[0x30, numbers.len() as u8][..], &numbers].concat()
}

/// Sets a claim at a dotted path.
pub(super) fn set(claims: &mut Value, path: &str, value: Value) {
    let mut at = claims;
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            at[name] = value;
            return;
        }
        if !at[name].is_object() {
            at[name] = Value::Object(Map::new());
        }
        at = &mut at[name];
    }
}

/// Claims that every token must have, with a value that will do.
fn required(written: Option<&Node>) -> Vec<(String, Value)> {
    let mut claims = Vec::new();
    for item in written.map(Node::items).unwrap_or_default() {
        if let Some(name) = item.as_str() {
            claims.push((name.to_owned(), "audit".into()));
        }
        for (key, values) in item.entries() {
            let first = values.items().first().unwrap_or(values);
            claims.push((key.name.clone(), plain(first)));
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_set_where_its_path_leads() {
        let mut claims = json!({ "a": 1, "realm": { "x": 2 } });
        set(&mut claims, "realm.roles", json!(["r"]));
        set(&mut claims, "a.b", json!(3));
        assert_eq!(claims, json!({ "a": { "b": 3 }, "realm": { "x": 2, "roles": ["r"] } }));
    }
}
