//! Where a browser may be sent: to places of the origin it came to, and nowhere else.

use http::Method;
use portcullis_core::{Exchange, RequestHead, Scheme};

use crate::auth::cross_site;

/// Longer targets are forgotten over a login; a cookie has to hold them.
const RETURN_BYTES_MAX: usize = 1024;

/// The origin under which the browser knows the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// `https://shop.example`.
    pub(super) text: String,
    pub(super) secure: bool,
}

/// Whether the browser's connection is. `None` where cookies would go over the network in clear
/// text. `configured` is the origin that browsers know the gateway by.
pub(super) fn is_secure(exchange: &Exchange, configured: Option<&str>) -> Option<bool> {
    let secure = match configured {
        Some(origin) => origin.starts_with("https://"),
        None => exchange.request.scheme == Scheme::Https,
    };
    let here = || exchange.connection.peer.ip().to_canonical().is_loopback();
    (secure || configured.is_some() || here()).then_some(secure)
}

impl Origin {
    /// The configured one, else that of the request. `None` as with [`is_secure`].
    pub(super) fn of(exchange: &Exchange, configured: Option<&str>) -> Option<Self> {
        let secure = is_secure(exchange, configured)?;
        if let Some(text) = configured {
            return Some(Self { text: text.to_owned(), secure });
        }
        let request = &exchange.request;
        // Canonical, so it is ASCII.
        let authority = std::str::from_utf8(request.authority()).ok()?;
        (!authority.is_empty())
            .then(|| Self { text: format!("{}://{authority}", request.scheme.as_str()), secure })
    }
}

/// Whether somebody looks at a page, rather than a script at data: only who does can log in.
pub(super) fn is_navigation(request: &RequestHead) -> bool {
    let only_get = matches!(request.method, Method::GET | Method::HEAD);
    only_get
        && !cross_site::upgrades(request)
        && request.fields.get(b"sec-fetch-mode").is_none_or(|mode| mode == b"navigate")
        && accepts_html(request)
}

fn accepts_html(request: &RequestHead) -> bool {
    let values = request.fields.get_all(b"accept");
    let mut ranges = values.flat_map(|value| value.split(|byte| *byte == b','));
    ranges.any(|range| {
        let kind = range.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/html")
    })
}

/// Where to go back to after a login: the path and query asked for, or `/` where those could lead
/// to another origin.
pub(super) fn to_return_to(request: &RequestHead) -> String {
    let mut target = request.path().to_vec();
    if let Some(query) = request.query() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let text = String::from_utf8(target).ok();
    text.filter(|text| is_local(text)).unwrap_or_else(|| "/".to_owned())
}

/// Whether a browser takes it for a path of its own origin, as URLs are read (WHATWG): `//host` and
/// `/\host` name another host, and some controls are dropped before they are looked at.
pub(super) fn is_local(target: &str) -> bool {
    let plain = |byte: u8| (0x21..0x7f).contains(&byte) && byte != b'\\' && byte != b'#';
    target.len() <= RETURN_BYTES_MAX
        && target.starts_with('/')
        && !target.starts_with("//")
        && target.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn only_a_path_of_the_same_origin_is_gone_back_to() {
        for (target, expected) in [
            ("/", "/"),
            ("/orders?page=2&back=//evil.example", "/orders?page=2&back=//evil.example"),
            ("/a//b", "/a//b"),
            ("/%2F/evil.example", "/%2F/evil.example"),
            ("//evil.example", "/"),
            ("//evil.example/%2e%2e", "/"),
            ("/\\evil.example", "/"),
            ("\\\\evil.example", "/"),
            ("/\t/evil.example", "/"),
            ("/\n/evil.example", "/"),
            ("https://evil.example/", "/"),
            ("javascript:alert(1)", "/"),
            ("evil.example", "/"),
            ("", "/"),
            ("*", "/"),
            ("/a b", "/"),
            ("/ü", "/"),
        ] {
            let mut request = RequestHead::default();
            request.path = request.fields.intern(target.as_bytes());
            assert_eq!(to_return_to(&request), expected, "{target}");
        }
        let mut request = RequestHead::default();
        request.path = request.fields.intern(&[&b"/"[..], &[b'a'; RETURN_BYTES_MAX]].concat());
        assert_eq!(to_return_to(&request), "/");
    }

    #[test]
    fn who_can_log_in() {
        for (line, expected) in [
            ("GET / | Accept: text/html", true),
            ("HEAD / | Accept: text/html", true),
            (
                "GET / | Accept: application/xhtml+xml, Text/HTML;q=0.9 | Sec-Fetch-Mode: navigate",
                true,
            ),
            ("GET / | Accept: text/html | Sec-Fetch-Mode: cors", false),
            ("GET / | Accept: text/html | Sec-Fetch-Mode: no-cors", false),
            ("GET / | Accept: text/html | Upgrade: websocket", false),
            ("POST / | Accept: text/html | Sec-Fetch-Mode: navigate", false),
            ("GET / | Accept: */*", false),
            ("GET / | Accept: application/json", false),
            ("GET /", false),
        ] {
            let exchange = World::default().exchange(&format!("192.0.2.7 {line}"));
            assert_eq!(is_navigation(&exchange.request), expected, "{line}");
        }
    }

    #[test]
    fn the_origin_is_secure_or_here() {
        let mut exchange = World::default().exchange("192.0.2.7 GET /");
        let https = Origin { text: "https://api.example.com".to_owned(), secure: true };
        assert_eq!(Origin::of(&exchange, None), Some(https));
        exchange.request.scheme = Scheme::Http;
        assert_eq!(Origin::of(&exchange, None), None);
        let told = Origin { text: "https://shop.example".to_owned(), secure: true };
        assert_eq!(Origin::of(&exchange, Some("https://shop.example")), Some(told));
        let here = portcullis_core::exchange::Connection {
            peer: ([127, 0, 0, 1], 4000).into(),
            ..Default::default()
        };
        exchange.connection = std::rc::Rc::new(here);
        let plain = Origin { text: "http://api.example.com".to_owned(), secure: false };
        assert_eq!(Origin::of(&exchange, None), Some(plain));
    }
}
