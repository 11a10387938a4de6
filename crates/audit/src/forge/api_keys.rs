//! API keys: a file of keys of the audit's own in the place of the operator's.

use serde_json::{Map, json};

use super::{Bad, Caller, Credential, Entry, Forged, Workshop, broken};
use crate::needs::{Lacking, Needs, TENANT};

const DAY: i64 = 86_400;

pub(super) fn forge(
    entry: &Entry<'_>,
    needs: &Needs,
    workshop: &mut Workshop<'_>,
) -> Result<Forged, String> {
    let reference = entry.text("keys").ok_or("`keys` is not a text")?.to_owned();
    let place = Place::of(entry);
    let mut keys = Keys { reference, workshop };
    let tenant = needs.tenant.clone().unwrap_or_else(|| TENANT.to_owned());
    let good = keys.add(Key { tenant: &tenant, ..Key::good(&needs.scopes) })?;
    let mut bad = Vec::new();
    let mut try_with = |kind, detail: &str, text: &str| {
        bad.push((Bad::of(kind, detail), place.with(text)));
    };
    let past = keys.workshop.time(-2 * DAY);
    let future = keys.workshop.time(2 * DAY);
    let expired = keys.add(Key { expires: Some(past.clone()), ..Key::good(&needs.scopes) })?;
    try_with("expired", "", &expired);
    let early = keys.add(Key { not_before: Some(future), ..Key::good(&needs.scopes) })?;
    try_with("not yet valid", "", &early);
    // Revoking a key is to take it out of the file.
    let (revoked, _) = keys.make()?;
    try_with("revoked", "", &revoked);
    for Lacking { kind, detail, needs } in needs.lacking() {
        // A key has no claims.
        if kind != "claim not as required" {
            let tenant = needs.tenant.as_deref().unwrap_or(&tenant);
            let text = keys.add(Key { tenant, ..Key::good(&needs.scopes) })?;
            try_with(kind, &detail, &text);
        }
    }
    for (detail, text) in malformed(&good) {
        try_with("malformed", detail, &text);
    }
    let elsewhere = match place {
        Place::Query(_) => Place::Header("X-Audit-Key"),
        _ => Place::Query("api_key"),
    };
    bad.push((Bad::new("in another place"), elsewhere.with(&good)));
    let twice = place.with(&good);
    bad.push((Bad::of("two credentials", "the same key twice"), twice.and(&twice)));
    bad.push((
        Bad::of("two credentials", "a good and a bad key"),
        twice.and(&place.with(&expired)),
    ));
    Ok(Forged {
        caller: Caller {
            client: "audit-client".to_owned(),
            tenant: Some(tenant),
            scopes: needs.scopes.clone(),
            claims: Map::new(),
        },
        good: place.with(&good).secret(&good),
        bad,
        logins: Vec::new(),
        used: Vec::new(),
        spoofed: Vec::new(),
    })
}

/// Keys that are nearly the good one.
fn malformed(good: &str) -> Vec<(&'static str, String)> {
    let last = good.chars().last().unwrap_or('0');
    let other = if last == '0' { '1' } else { '0' };
    let (id, _) = good.rsplit_once('_').unwrap_or((good, ""));
    vec![
        ("no key at all", "audit".to_owned()),
        (
            "its last character is another",
            format!("{}{other}", &good[..good.len() - last.len_utf8()]),
        ),
        ("one character too few", good[..good.len() - last.len_utf8()].to_owned()),
        ("one character too many", format!("{good}0")),
        ("only its id", id.to_owned()),
        ("empty", String::new()),
    ]
}

/// Where a request has its key.
enum Place<'a> {
    Header(&'a str),
    Authorization(&'a str),
    Query(&'a str),
}

impl<'a> Place<'a> {
    fn of(entry: &Entry<'a>) -> Self {
        if let Some(name) = entry.text("query") {
            return Self::Query(name);
        }
        match entry.text("authorization_scheme") {
            Some(scheme) => Self::Authorization(scheme),
            None => Self::Header(entry.text("header").unwrap_or("X-Api-Key")),
        }
    }

    fn with(&self, text: &str) -> Credential {
        match self {
            Self::Header(name) => Credential::field(name, text),
            Self::Authorization(scheme) => {
                Credential::field("Authorization", format!("{scheme} {text}"))
            }
            Self::Query(name) => {
                let pair = format!("{name}={text}");
                Credential::new(move |draft| draft.add_query(&pair))
            }
        }
    }
}

struct Key<'a> {
    tenant: &'a str,
    scopes: &'a [String],
    expires: Option<String>,
    not_before: Option<String>,
}

impl<'a> Key<'a> {
    fn good(scopes: &'a [String]) -> Self {
        Self { tenant: TENANT, scopes, expires: None, not_before: None }
    }
}

/// The file that an entry refers to.
struct Keys<'a, 'b> {
    reference: String,
    workshop: &'a mut Workshop<'b>,
}

impl Keys<'_, '_> {
    /// Makes a key and its id, and lists it nowhere.
    fn make(&mut self) -> Result<(String, (String, String)), String> {
        let id = format!("audit{}", self.workshop.number());
        let made = (self.workshop.makers.api_key)(Workshop::random(), &id);
        let (text, hash) = made.ok_or_else(|| broken("a key"))?;
        Ok((text, (id, hash)))
    }

    fn add(&mut self, key: Key<'_>) -> Result<String, String> {
        let (text, (id, hash)) = self.make()?;
        let Key { tenant, scopes, expires, not_before } = key;
        let mut entry = json!({
            "id": id, "hash": hash, "client": "audit-client", "tenant": tenant, "scopes": scopes,
        });
        for (name, time) in [("expires", expires), ("not_before", not_before)] {
            if let Some(time) = time {
                entry[name] = time.into();
            }
        }
        self.workshop.lists.entry(self.reference.clone()).or_default().push(entry);
        Ok(text)
    }
}
