//! A cookie that names an endpoint and says nothing of it: the client that brings it stays there.
//!
//! The name is a keyed hash of backend and endpoint, so that it needs no signature beside it: who
//! has not the key can make none, and gateways with the same key agree. What a client can do is to
//! bring one that it was given, or none; that leads to an endpoint that it could have had anyway.

use std::fmt;

use portcullis_core::{Exchange, Fields, hex};
use portcullis_upstream::EndpointIndex;

use crate::targets::cookie;

/// What the key is for: the same secret elsewhere makes other hashes.
const PURPOSE: &str = "portcullis sticky cookie 1";

/// How a backend's clients are told where they stay.
pub struct Sticky {
    cookie: Box<str>,
    key: [u8; 32],
    /// What the cookie says beside its value.
    attributes: Box<str>,
}

impl fmt::Debug for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sticky").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

/// The names of a set's endpoints, sorted.
pub(crate) type Tags = Box<[(u128, u16)]>;

impl Sticky {
    /// `max_age` in seconds; without it the cookie lasts as long as the browser.
    #[must_use]
    pub fn new(cookie: &str, secret: &[u8], max_age: Option<u64>) -> Self {
        let max_age = max_age.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
        Self {
            cookie: cookie.into(),
            key: blake3::derive_key(PURPOSE, secret),
            attributes: format!("; Path=/; HttpOnly; SameSite=Lax{max_age}").into(),
        }
    }

    pub(crate) fn tags<'a>(&self, backend: &str, urls: impl Iterator<Item = &'a str>) -> Tags {
        let tag = |url: &str| {
            // A backend's name has no zero byte.
            let hash = blake3::keyed_hash(&self.key, format!("{backend}\0{url}").as_bytes());
            hash.as_bytes()[..16].iter().fold(0, |tag, byte| (tag << 8) | u128::from(*byte))
        };
        let mut tags: Vec<_> = urls.zip(0..).map(|(url, index)| (tag(url), index)).collect();
        tags.sort_unstable();
        tags.into()
    }

    /// Where the client stays, if it says so and there is such an endpoint.
    pub(crate) fn home(&self, tags: &Tags, exchange: &Exchange) -> Option<EndpointIndex> {
        let tag = parse(cookie(exchange, self.cookie.as_bytes())?)?;
        let at = tags.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        Some(EndpointIndex(tags[at].1))
    }

    /// Tells the client where it stays from now on.
    pub(crate) fn stay(&self, tags: &Tags, at: EndpointIndex, secure: bool, fields: &mut Fields) {
        let Some((tag, _)) = tags.iter().find(|(_, index)| *index == at.0) else { return };
        let secure = if secure { "; Secure" } else { "" };
        let text = format!("{}={tag:032x}{}{secure}", self.cookie, self.attributes);
        fields.append(b"set-cookie", text.as_bytes());
    }
}

/// Exactly as it was written.
fn parse(value: &[u8]) -> Option<u128> {
    let tag = u128::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok()?;
    (hex::of_128(tag) == value).then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URLS: [&str; 3] = ["http://10.0.0.1:80", "http://10.0.0.2:80", "unix:/run/app.sock"];

    fn asking(cookies: &str) -> Exchange {
        let mut exchange = Exchange::default();
        exchange.request.fields.append(b"cookie", cookies.as_bytes());
        exchange
    }

    fn told(sticky: &Sticky, tags: &Tags, at: u16, secure: bool) -> String {
        let mut fields = Fields::default();
        sticky.stay(tags, EndpointIndex(at), secure, &mut fields);
        String::from_utf8(fields.get(b"set-cookie").unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_cookie_leads_back_to_its_endpoint_wherever_that_stands() {
        let sticky = Sticky::new("s", b"secret", None);
        let tags = sticky.tags("orders", URLS.into_iter());
        let turned = sticky.tags("orders", URLS.into_iter().rev());
        for at in 0..3 {
            let set = told(&sticky, &tags, at, false);
            let exchange = asking(&format!("a=b; {}", set.split(';').next().unwrap()));
            assert_eq!(sticky.home(&tags, &exchange), Some(EndpointIndex(at)));
            assert_eq!(sticky.home(&turned, &exchange), Some(EndpointIndex(2 - at)));
            let fewer = sticky.tags("orders", URLS.into_iter().take(2));
            assert_eq!(sticky.home(&fewer, &exchange).is_some(), at < 2);
        }
    }

    #[test]
    fn a_cookie_of_another_key_backend_or_making_leads_nowhere() {
        let sticky = Sticky::new("s", b"secret", Some(60));
        let tags = sticky.tags("orders", URLS.into_iter());
        let set = told(&sticky, &tags, 0, true);
        let (value, attributes) = set.split_once(';').unwrap();
        assert_eq!(attributes, " Path=/; HttpOnly; SameSite=Lax; Max-Age=60; Secure");
        assert!(URLS.iter().all(|url| !value.contains(url)));
        let found = |tags: &Tags, cookie: &str| sticky.home(tags, &asking(cookie));
        assert!(found(&tags, value).is_some());
        assert_eq!(found(&sticky.tags("users", URLS.into_iter()), value), None);
        let other = Sticky::new("s", b"another", None);
        assert_eq!(found(&other.tags("orders", URLS.into_iter()), value), None);
        for forged in ["s=", "s=0", &value.to_uppercase(), &format!("{value}0"), "s=zz"] {
            assert_eq!(found(&tags, forged), None, "{forged}");
        }
    }
}
