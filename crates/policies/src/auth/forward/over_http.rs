//! The question as an HTTP request, and the verdict as its answer's status.
//!
//! What is told has the names that services for Traefik's ForwardAuth and nginx's `auth_request`
//! look for. 2xx allows; 3xx and 4xx are answers for the client; anything else is none.

use bytes::Bytes;
use http::Method;
use portcullis_core::policy::{Reply, ReplyBody};
use portcullis_core::services::{Fetch, Fetched};
use portcullis_core::{Exchange, Known, ResponseHead};

use super::{Allowed, Failure, Plan, Verdict, target, text};

#[derive(Debug, Hash)]
pub(super) struct Way {
    /// With a `prefix`, without a path.
    pub(super) url: String,
    /// Asked at this and the request's own path.
    pub(super) prefix: Option<String>,
    /// `None` for the request's own.
    pub(super) method: Option<Method>,
}

/// What of a refusal the client gets.
const ANSWERED: [&str; 8] = [
    "cache-control",
    "content-encoding",
    "content-language",
    "content-type",
    "location",
    "retry-after",
    "set-cookie",
    "www-authenticate",
];

impl Way {
    pub(super) fn question(&self, plan: &Plan, exchange: &Exchange) -> Result<Fetch, String> {
        let request = &exchange.request;
        let target = target(request)?;
        let mut fields = plan.shown.lines(request)?;
        let mut tell = |name: &str, value: String| fields.push((name.to_owned(), value));
        tell("x-forwarded-method", request.method.to_string());
        tell("x-forwarded-proto", request.scheme.as_str().to_owned());
        tell("x-forwarded-host", text(request.authority())?.to_owned());
        tell("x-forwarded-for", exchange.client_ip.to_string());
        tell("x-request-id", exchange.request_id.as_str().to_owned());
        let body = match plan.body_bytes_max {
            Some(_) => exchange.request_body.clone(),
            None => Bytes::new(),
        };
        let is_shown =
            |name: &str, fields: &[(String, String)]| fields.iter().any(|(shown, _)| shown == name);
        if !body.is_empty()
            && !is_shown("content-type", &fields)
            && let Some(kind) = request.fields.known(Known::ContentType)
        {
            fields.push(("content-type".to_owned(), text(kind)?.to_owned()));
        }
        if !is_shown("accept", &fields) {
            fields.push(("accept".to_owned(), "*/*".to_owned()));
        }
        let url = match &self.prefix {
            Some(prefix) => format!("{}{prefix}{}", self.url, encoded(&target)),
            None => self.url.clone(),
        };
        fields.push(("x-forwarded-uri".to_owned(), target));
        let method = self.method.clone().unwrap_or_else(|| request.method.clone());
        Ok(Fetch { method, fields, body, ..Fetch::get(url) })
    }
}

/// What may stand in the target of a request; a client's query may have more.
fn encoded(target: &str) -> String {
    let mut out = String::with_capacity(target.len());
    for byte in target.bytes() {
        match byte {
            b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                out.push_str(&format!("%{byte:02X}"));
            }
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

pub(super) fn verdict(fetched: Fetched) -> Result<Verdict, Failure> {
    let Fetched { status, fields, body, .. } = fetched;
    if status.is_success() {
        let values = |name: &'static str| {
            let named = fields.iter().filter(move |(has, _)| **has == *name);
            named.filter_map(|(_, value)| std::str::from_utf8(value).ok())
        };
        let cookies = values("set-cookie").map(str::to_owned).collect();
        let storable = !values("cache-control").any(|said| {
            let said = said.to_ascii_lowercase();
            ["no-store", "no-cache"].iter().any(|word| said.contains(word))
        });
        return Ok(Verdict::Allow(Allowed { fields, cookies, storable, ..Allowed::default() }));
    }
    if !status.is_redirection() && !status.is_client_error() {
        let reason = format!("the authorizer answered with status {}", status.as_u16());
        return Err(Failure { reason, is_away: status.as_u16() == 503 });
    }
    let mut head = ResponseHead::new(status);
    for (name, value) in &fields {
        if ANSWERED.contains(&&**name) {
            head.fields.append(name.as_bytes(), value);
        }
    }
    Ok(Verdict::Deny(reply(head, body)))
}

/// A refusal is for this request only, unless the authorizer says something else.
pub(super) fn reply(mut head: ResponseHead, body: Bytes) -> Reply {
    if head.fields.known(Known::CacheControl).is_none() {
        head.fields.append_known(Known::CacheControl, b"no-store");
    }
    Reply { head, body: ReplyBody::Bytes(body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_made_fit_for_a_url() {
        for (target, expected) in [
            ("/a/b?c=d&e=%2f", "/a/b?c=d&e=%2f"),
            ("/a?q={<\"x y\">}#", "/a?q=%7B%3C%22x%20y%22%3E%7D%23"),
            ("/a?é", "/a?%C3%A9"),
        ] {
            let encoded = encoded(target);
            assert_eq!(encoded, expected);
            assert!(format!("http://a{encoded}").parse::<http::Uri>().is_ok(), "{target}");
        }
    }
}
