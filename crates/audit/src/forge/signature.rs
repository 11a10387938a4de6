//! Signed requests (RFC 9421): a file of signers of the audit's own, and signatures that are made
//! for each request anew, of what they must cover or of something else.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis_core::node::Node;
use portcullis_proxy::Clock;
use serde_json::{Map, json};

use super::keys::{SigningKey, encode, hmac_of};
use super::{Bad, Caller, Credential, Entry, Forged, Workshop};
use crate::draft::Draft;
use crate::needs::{Lacking, Needs, TENANT};

const CLIENT: &str = "audit-client";
const HOUR: i64 = 3600;
const DEFAULT: [&str; 4] = ["@method", "@authority", "@path", "@query"];
/// Covered where there is a body, and probes have none.
const OF_BODIES: &str = "content-digest";

pub(super) fn forge(
    entry: &Entry<'_>,
    needs: &Needs,
    workshop: &mut Workshop<'_>,
) -> Result<Forged, String> {
    let file = entry.text("keys").ok_or("`keys` is not a text")?.to_owned();
    let key = workshop.keep(&file, |_| SigningKey::new("audit", "EdDSA"))?;
    let stranger = workshop.keep("stranger", |_| SigningKey::new("stranger", "EdDSA"))?;
    let tenant = needs.tenant.clone().unwrap_or_else(|| TENANT.to_owned());
    let mut signers = Signers { file, key: Arc::clone(&key), workshop };
    let id = signers.add(&needs.scopes, &tenant, &[]);
    let past = signers.workshop.time(-2 * 24 * HOUR);
    let expired = signers.add(&needs.scopes, &tenant, &[("expires", past)]);
    let future = signers.workshop.time(2 * 24 * HOUR);
    let early = signers.add(&needs.scopes, &tenant, &[("not_before", future)]);
    let pen = Pen::new(entry, key, id.clone(), signers.workshop.clock.clone());
    let replayed = Pen { moment: Some(Arc::default()), ..pen.clone() };
    let mut bad = Vec::new();
    let mut add = |bad_by: Bad, pen: Pen| bad.push((bad_by, pen.credential()));
    add(Bad::of("expired", "its key"), Pen { id: expired, ..pen.clone() });
    add(Bad::of("expired", "made an hour ago"), Pen { shift: -HOUR, ..pen.clone() });
    add(Bad::of("not yet valid", "made in an hour"), Pen { shift: HOUR, ..pen.clone() });
    add(Bad::of("expired", "says so itself"), Pen { ends: Some(-1), ..pen.clone() });
    add(Bad::of("not yet valid", "its key"), Pen { id: early, ..pen.clone() });
    add(Bad::of("replayed", "a nonce that was used"), replayed.clone());
    add(Bad::of("wrong key", "by another key"), Pen { key: stranger, ..pen.clone() });
    add(Bad::of("unknown kid", ""), Pen { id: "audit-unknown".to_owned(), ..pen.clone() });
    add(
        Bad::of("key confusion", "HMAC with the public key"),
        Pen { trick: Trick::Hmac, ..pen.clone() },
    );
    add(Bad::of("malformed", "not a signature"), Pen { trick: Trick::Garbage, ..pen.clone() });
    add(Bad::of("malformed", "no signature"), Pen { trick: Trick::Unsigned, ..pen.clone() });
    for (what, change) in OTHERS {
        if pen.covers(what) {
            let detail = format!("signed for another {what}");
            add(Bad::of("malformed", detail), Pen { trick: Trick::Other(*change), ..pen.clone() });
        }
    }
    for at in 0..pen.components.len() {
        let mut fewer = pen.clone();
        let left_out = Arc::make_mut(&mut fewer.components).remove(at);
        add(Bad::of("malformed", format!("without {left_out}")), fewer);
    }
    if entry.text("nonce") != Some("optional") {
        add(Bad::of("malformed", "without a nonce"), Pen { nonce: false, ..pen.clone() });
    }
    for Lacking { kind, detail, needs: lacking } in needs.lacking() {
        // A signer has no claims.
        if kind != "claim not as required" {
            let tenant = lacking.tenant.as_deref().unwrap_or(&tenant);
            let id = signers.add(&lacking.scopes, tenant, &[]);
            add(Bad::of(kind, detail), Pen { id, ..pen.clone() });
        }
    }
    let mut claims = Map::new();
    claims.insert("key_id".to_owned(), id.into());
    Ok(Forged {
        good: pen.credential(),
        caller: Caller {
            client: CLIENT.to_owned(),
            tenant: Some(tenant),
            scopes: needs.scopes.clone(),
            claims,
        },
        bad,
        logins: Vec::new(),
        used: vec![replayed.credential()],
        spoofed: Vec::new(),
    })
}

/// The file that lists who signs.
struct Signers<'a, 'b> {
    file: String,
    key: Arc<SigningKey>,
    workshop: &'a mut Workshop<'b>,
}

impl Signers<'_, '_> {
    fn add(&mut self, scopes: &[String], tenant: &str, more: &[(&str, String)]) -> String {
        let id = format!("audit-{}", self.workshop.number());
        let mut entry = json!({
            "id": id, "algorithm": "ed25519", "key": self.key.public_pem(),
            "client": CLIENT, "tenant": tenant, "scopes": scopes,
        });
        for (name, value) in more {
            entry[*name] = value.as_str().into();
        }
        self.workshop.lists.entry(self.file.clone()).or_default().push(entry);
        id
    }
}

type Change = fn(&mut Draft);

/// What a signature can be of instead.
const OTHERS: &[(&str, Change)] = &[
    ("@method", |draft| draft.method = "AUDIT-OTHER".to_owned()),
    ("@authority", |draft| draft.authority = "audit.invalid".to_owned()),
    ("@path", |draft| draft.target.insert_str(0, "/audit")),
    ("@query", |draft| draft.add_query("audit=1")),
];

#[derive(Clone, Copy)]
enum Trick {
    None,
    Hmac,
    Garbage,
    Unsigned,
    Other(Change),
}

/// Signs requests.
#[derive(Clone)]
struct Pen {
    key: Arc<SigningKey>,
    id: String,
    /// Identifiers as they stand in a signature: `"@method"`.
    components: Arc<Vec<String>>,
    label: String,
    tag: Option<String>,
    clock: Clock,
    /// Seconds between now and when it is said to have been made.
    shift: i64,
    nonce: bool,
    /// When it ends, in seconds from now.
    ends: Option<i64>,
    /// The time and the nonce of its first signature, for all others too.
    moment: Option<Arc<OnceLock<(i64, String)>>>,
    trick: Trick,
}

impl Pen {
    fn new(entry: &Entry<'_>, key: Arc<SigningKey>, id: String, clock: Clock) -> Self {
        let written = entry.settings.get("components").map(Node::items);
        let written: Vec<&str> = match written {
            Some(items) => items.iter().filter_map(Node::as_str).collect(),
            None => DEFAULT.to_vec(),
        };
        let written = written.into_iter().filter(|name| *name != OF_BODIES);
        let identifier = |name: &str| match name.starts_with('"') {
            true => name.to_owned(),
            false => format!("\"{name}\""),
        };
        Self {
            key,
            id,
            components: Arc::new(written.map(identifier).collect()),
            label: entry.text("label").unwrap_or("sig1").to_owned(),
            tag: entry.text("tag").map(str::to_owned),
            clock,
            shift: 0,
            nonce: true,
            ends: None,
            moment: None,
            trick: Trick::None,
        }
    }

    fn covers(&self, component: &str) -> bool {
        self.components.iter().any(|one| one.trim_matches('"') == component)
    }

    fn credential(self) -> Credential {
        Credential::new(move |draft| self.sign(draft))
    }

    fn sign(&self, draft: &mut Draft) {
        // Whatever is to be covered has to be there.
        for component in &*self.components {
            if let Some(name) = parameter(component) {
                draft.add_query(&format!("{name}=audit"));
            } else if !component.starts_with("\"@") && field(draft, component).is_none() {
                draft.add(component.trim_matches('"'), "audit");
            }
        }
        let now = i64::try_from(self.clock.now().wall.as_secs()).unwrap_or(i64::MAX);
        let fresh = || (now + self.shift, encode(Workshop::random::<16>()));
        let first = self.moment.as_ref().map(|moment| moment.get_or_init(fresh).clone());
        let (created, nonce) = first.unwrap_or_else(fresh);
        let mut parameters = format!("({})", self.components.join(" "));
        parameters += &format!(";created={created};keyid=\"{}\"", self.id);
        if self.nonce {
            parameters += &format!(";nonce=\"{nonce}\"");
        }
        if let Some(ends) = self.ends {
            parameters += &format!(";expires={}", now + ends);
        }
        if let Some(tag) = &self.tag {
            parameters += &format!(";tag=\"{tag}\"");
        }
        if matches!(self.trick, Trick::Hmac) {
            parameters += ";alg=\"hmac-sha256\"";
        }
        let mut signed = draft.clone();
        if let Trick::Other(change) = self.trick {
            change(&mut signed);
        }
        let base = self.base(&signed, &parameters);
        let signature = match self.trick {
            Trick::Hmac => hmac_of(self.key.public_pem().as_bytes(), base.as_bytes()),
            Trick::Garbage => Ok(encode([7; 64])),
            _ => self.key.sign_bytes(base.as_bytes()),
        };
        let signature = signature.ok().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let signature = STANDARD.encode(signature.unwrap_or_default());
        draft.add("Signature-Input", format!("{}={parameters}", self.label));
        if !matches!(self.trick, Trick::Unsigned) {
            draft.add("Signature", format!("{}=:{signature}:", self.label));
        }
    }

    /// RFC 9421 §2.5.
    fn base(&self, draft: &Draft, parameters: &str) -> String {
        let mut base = String::new();
        for component in &*self.components {
            base += &format!("{component}: {}\n", value(draft, component));
        }
        base + &format!("\"@signature-params\": {parameters}")
    }
}

/// The name of `"@query-param";name="…"`.
fn parameter(component: &str) -> Option<&str> {
    component.strip_prefix("\"@query-param\";name=\"")?.strip_suffix('"')
}

fn field<'a>(draft: &'a Draft, component: &str) -> Option<&'a str> {
    let name = component.trim_matches('"');
    let found = draft.fields.iter().find(|(has, _)| has.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// RFC 9421 §2.2.
fn value(draft: &Draft, component: &str) -> String {
    let (path, query) = draft.target.split_once('?').unwrap_or((&draft.target, ""));
    let authority = draft.authority.to_ascii_lowercase();
    match component {
        "\"@method\"" => draft.method.clone(),
        "\"@authority\"" => authority,
        "\"@scheme\"" => draft.scheme().to_owned(),
        "\"@path\"" => path.to_owned(),
        "\"@query\"" => format!("?{query}"),
        "\"@request-target\"" => draft.target.clone(),
        "\"@target-uri\"" => format!("{}://{authority}{}", draft.scheme(), draft.target),
        other if parameter(other).is_some() => "audit".to_owned(),
        other => field(draft, other).unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_what_is_sent() {
        let draft = Draft {
            method: "POST".to_owned(),
            authority: "API.example".to_owned(),
            target: "/a/b?c=d".to_owned(),
            https: true,
            fields: vec![("X-One".to_owned(), "1".to_owned())],
            ..Draft::default()
        };
        for (component, expected) in [
            ("\"@method\"", "POST"),
            ("\"@authority\"", "api.example"),
            ("\"@path\"", "/a/b"),
            ("\"@query\"", "?c=d"),
            ("\"@target-uri\"", "https://api.example/a/b?c=d"),
            ("\"x-one\"", "1"),
            ("\"@query-param\";name=\"c\"", "audit"),
        ] {
            assert_eq!(value(&draft, component), expected);
        }
    }
}
