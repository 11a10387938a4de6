//! An authorizer of the audit's own in the place of the operator's, by HTTP or by Envoy's
//! `ext_authz`: it knows the credentials that it has given out, and refuses everybody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use portcullis_core::node::Node;
use portcullis_core::services::{Fetch, Fetched};
use serde_json::{Map, Value};

use super::keys::encode;
use super::{Bad, Caller, Credential, Entry, Forged, Workshop};
use crate::needs::{Lacking, Needs, TENANT};

const CLIENT: &str = "audit-client";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// What the authorizer says about whom: pairs of where, as in the settings, and what.
type Told = Vec<(String, String)>;
type Known = Mutex<HashMap<String, Told>>;

pub(super) fn forge(
    entry: &Entry<'_>,
    needs: &Needs,
    workshop: &mut Workshop<'_>,
) -> Result<Forged, String> {
    let known = authorizer(entry, workshop)?;
    let shown = shown(entry);
    let give = |told: Told| {
        let token = format!("audit-{}", encode(Workshop::random::<24>()));
        known.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), told);
        token
    };
    let present = |token: &str| match shown.eq_ignore_ascii_case("cookie") {
        true => Credential::field("Cookie", format!("audit={token}")),
        false => Credential::field(&shown, token),
    };
    let good = give(told(entry, needs));
    let mut bad = vec![
        (Bad::of("malformed", "one that the authorizer does not know"), present("audit-unknown")),
        (Bad::of("malformed", "empty"), present("")),
    ];
    for Lacking { kind, detail, needs } in needs.lacking() {
        let says = match kind {
            "insufficient scope" => entry.text("scopes").is_some(),
            "other tenant" => entry.text("tenant").is_some(),
            _ => false,
        };
        if says {
            bad.push((Bad::of(kind, detail), present(&give(told(entry, &needs)))));
        }
    }
    let said = copied(entry);
    let said = said.iter().filter(|name| !is_left_out(entry, name)).cloned();
    let claims = said.map(|name| (name, Value::from("audit-copied")));
    let hidden = entry.settings.get("hide_headers").map(Node::items);
    let hidden = match hidden {
        None => shown.eq_ignore_ascii_case("authorization"),
        Some(names) => {
            names.iter().filter_map(Node::as_str).any(|n| n.eq_ignore_ascii_case(&shown))
        }
    };
    let credential = present(&good);
    Ok(Forged {
        good: if hidden { credential.secret(&good) } else { credential },
        caller: Caller {
            client: match entry.text("client") {
                Some(_) => CLIENT.to_owned(),
                None => "external".to_owned(),
            },
            tenant: entry.text("tenant").map(|_| tenant(needs)),
            scopes: match entry.text("scopes") {
                Some(_) => needs.scopes.clone(),
                None => Vec::new(),
            },
            claims: claims.collect::<Map<_, _>>(),
        },
        bad,
        logins: Vec::new(),
        used: Vec::new(),
        spoofed: copied(entry),
    })
}

fn tenant(needs: &Needs) -> String {
    needs.tenant.clone().unwrap_or_else(|| TENANT.to_owned())
}

fn copied(entry: &Entry<'_>) -> Vec<String> {
    entry.texts("copy_headers").into_iter().map(str::to_ascii_lowercase).collect()
}

/// Of several fields the authorizer says nothing in the last one, and then nobody else must.
fn is_left_out(entry: &Entry<'_>, name: &str) -> bool {
    let copied = copied(entry);
    copied.len() > 1 && copied.last().is_some_and(|last| last == name)
}

/// A field of the client that the authorizer sees.
fn shown(entry: &Entry<'_>) -> String {
    let names = entry.texts("request_headers");
    let cached = entry.settings.get("cache").and_then(|cache| cache.get("key"));
    // Requests with the same key share an answer, whatever else they say.
    let by_key = cached.map(Node::items).and_then(|names| names.first()).and_then(Node::as_str);
    let first = by_key.or_else(|| names.iter().copied().find(|name| *name != "*"));
    first.unwrap_or("authorization").to_owned()
}

/// What is told of somebody, in the order of the settings.
fn told(entry: &Entry<'_>, needs: &Needs) -> Told {
    let mut told = Told::new();
    let values = [
        ("client", CLIENT.to_owned()),
        ("tenant", tenant(needs)),
        ("scopes", needs.scopes.join(" ")),
    ];
    for (key, value) in values {
        if let Some(place) = entry.text(key).filter(|_| !value.is_empty()) {
            told.push((place.to_owned(), value));
        }
    }
    for name in copied(entry) {
        let place = format!("header:{name}");
        let is_told = told.iter().any(|(has, _)| has.eq_ignore_ascii_case(&place));
        if !is_told && !is_left_out(entry, &name) {
            told.push((place, "audit-copied".to_owned()));
        }
    }
    told
}

/// Puts an authorizer where the entry asks.
fn authorizer(entry: &Entry<'_>, workshop: &mut Workshop<'_>) -> Result<Arc<Known>, String> {
    let (url, grpc) = match (entry.text("url"), entry.text("grpc")) {
        (Some(url), _) => (url.to_owned(), false),
        (None, Some(url)) => (format!("{}{CHECK}", url.trim_end_matches('/')), true),
        (None, None) => return Err("it says neither `url` nor `grpc`".to_owned()),
    };
    let known = workshop.keep(&url, |_| Ok(Known::default()))?;
    let asked = Arc::clone(&known);
    let page = move |fetch: &Fetch| {
        let known = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match grpc {
            // Whatever field it is in: it is in the message as it is.
            true => known.iter().find(|(token, _)| contains(&fetch.body, token.as_bytes())),
            false => known.iter().find(|(token, _)| {
                fetch.fields.iter().any(|(_, value)| value.contains(token.as_str()))
            }),
        };
        match (grpc, found) {
            (false, Some((_, told))) => over_http(StatusCode::OK, told),
            (false, None) => over_http(StatusCode::FORBIDDEN, &Told::new()),
            (true, found) => over_grpc(found.map(|(_, told)| told)),
        }
    };
    let page: crate::world::Page = Arc::new(page);
    match entry.text("path_prefix") {
        Some(prefix) => {
            let origin: String = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
            workshop.beneath.push((format!("{origin}{prefix}"), page));
        }
        None => drop(workshop.pages.insert(url, page)),
    }
    if let Some(ca) = entry.text("ca") {
        workshop.authority(ca)?;
    }
    Ok(known)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn over_http(status: StatusCode, told: &Told) -> Fetched {
    let fields = told.iter().filter_map(|(place, value)| {
        let name = place.strip_prefix("header:")?.to_ascii_lowercase();
        Some((name.into(), value.as_bytes().into()))
    });
    Fetched {
        status,
        content_type: None,
        fields: fields.collect(),
        body: Bytes::new(),
        stale: false,
    }
}

/// A `CheckResponse` (envoy/service/auth/v3/external_auth.proto), and the end of a call.
fn over_grpc(told: Option<&Told>) -> Fetched {
    let message = match told {
        // PERMISSION_DENIED.
        None => bytes(1, &[1 << 3, 7]),
        Some(told) => {
            let mut ok = Vec::new();
            let mut metadata = Vec::new();
            for (place, value) in told {
                match place.split_once(':') {
                    Some(("header", name)) => {
                        let header = [bytes(1, name.as_bytes()), bytes(2, value.as_bytes())];
                        ok.extend(bytes(2, &bytes(1, &header.concat())));
                    }
                    Some(("metadata", path)) => metadata.extend(structure(path, value)),
                    _ => {}
                }
            }
            [bytes(1, &[]), bytes(3, &ok), bytes(4, &metadata)].concat()
        }
    };
    let length = (message.len() as u32).to_be_bytes();
    Fetched {
        status: StatusCode::OK,
        content_type: Some("application/grpc".to_owned()),
        fields: vec![
            ("content-type".into(), b"application/grpc".as_slice().into()),
            ("grpc-status".into(), b"0".as_slice().into()),
        ],
        body: [&[0][..], &length, &message].concat().into(),
        stale: false,
    }
}

/// A field of protobuf with a length.
fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    let mut length = value.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(value);
    out
}

/// An entry of `google.protobuf.Struct` at a dotted path.
fn structure(path: &str, text: &str) -> Vec<u8> {
    let (name, value) = match path.split_once('.') {
        None => (path, bytes(3, text.as_bytes())),
        Some((name, rest)) => (name, bytes(5, &structure(rest, text))),
    };
    bytes(1, &[bytes(1, name.as_bytes()), bytes(2, &value)].concat())
}
