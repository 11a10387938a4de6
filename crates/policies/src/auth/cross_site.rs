//! What a browser does for the page of another site, with a credential that it sends by itself.
//!
//! A cookie goes along with every request, whoever's page began it. So where the credential came
//! in one, a request that may change something, or that opens a WebSocket (which no preflight
//! precedes), has to come from a page of its own origin. The browser says so in `Origin` and
//! `Sec-Fetch-Site`, which no page can write. Credentials that a page has to put into a field
//! itself need none of this.

use http::Method;
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::registry::{Compile, Site};
use portcullis_core::{Exchange, Known, Problem, RequestHead, codes};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::origin;

/// Which pages may make requests that change something, or open a WebSocket, with the credential in
/// the browser's cookie. Default: those of the request's own origin.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CrossSite {
    /// Other origins whose pages may: `https://shop.example`, with a port where it is not the
    /// scheme's own.
    #[serde(default)]
    origins: Vec<Spanned<String>>,
    /// The reason why any page of any site may. Default: none, and no other page may.
    #[serde(default)]
    allow: Option<Spanned<String>>,
}

impl CrossSite {
    /// `own` is the origin that browsers know the gateway by, where it is not that of the request.
    pub(crate) fn compile(
        &self,
        own: Option<&str>,
        site: &Site<'_>,
        with: &mut Compile<'_>,
    ) -> Guard {
        let mut error = |key: String, item: &Spanned<String>, message: String| {
            let resource = format!("{}.cross_site.{key}", site.resource);
            with.findings.push(Finding::error("invalid-value", item.span, resource, message));
        };
        for (index, item) in self.origins.iter().enumerate() {
            if let Err(message) = origin::check(item) {
                error(format!("origins[{index}]"), item, message);
            }
        }
        if let Some(reason) = self.allow.as_ref().filter(|reason| reason.trim().is_empty()) {
            error("allow".to_owned(), reason, "write the reason".to_owned());
        }
        Guard {
            own: own.map(Box::from),
            listed: self.origins.iter().map(|item| item.value.as_str().into()).collect(),
            open: self.allow.is_some(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Guard {
    own: Option<Box<str>>,
    listed: Vec<Box<str>>,
    open: bool,
}

impl Guard {
    /// Whether a request may be made with a credential that came in a cookie.
    ///
    /// # Errors
    /// `origin-not-allowed`, for a request of another site's page.
    pub(crate) fn check(&self, exchange: &Exchange) -> Result<(), Problem> {
        let request = &exchange.request;
        if is_planted(Fault::CrossSiteAccepted) {
            return Ok(());
        }
        if self.open || (is_safe(&request.method) && !upgrades(request)) {
            return Ok(());
        }
        self.same_origin(request)
    }

    /// Whether the request says that a page of its own origin, or a listed one, made it.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) fn same_origin(&self, request: &RequestHead) -> Result<(), Problem> {
        let refused = |detail: &str| {
            Err(Problem::new(codes::ORIGIN_NOT_ALLOWED)
                .detail(format!("{detail}, with a credential in a cookie; see `cross_site`")))
        };
        // Right also where a proxy before us ended TLS, or where the page hides its origin.
        if fetch_site(request) == Some(b"same-origin") {
            return Ok(());
        }
        let mut origins = request.fields.known_all(Known::Origin);
        match (origins.next(), origins.next()) {
            (Some(_), Some(_)) => refused("two origins"),
            (Some(origin), None) if self.admits(origin, request) => Ok(()),
            (Some(_), None) => refused("a request of another site's page"),
            // The address bar.
            (None, _) if fetch_site(request) == Some(b"none") => Ok(()),
            (None, _) => refused("a request that does not say which page made it"),
        }
    }

    fn admits(&self, origin: &[u8], request: &RequestHead) -> bool {
        let own = match &self.own {
            Some(own) => origin == own.as_bytes(),
            None => {
                let rest = origin.strip_prefix(request.scheme.as_str().as_bytes());
                let authority = rest.and_then(|rest| rest.strip_prefix(b"://"));
                authority.is_some_and(|found| found == request.authority())
            }
        };
        own || self.listed.iter().any(|listed| listed.as_bytes() == origin)
    }
}

/// `Sec-Fetch-Site` (Fetch Metadata), where it stands once.
pub(crate) fn fetch_site(request: &RequestHead) -> Option<&[u8]> {
    let mut values = request.fields.get_all(b"sec-fetch-site");
    values.next().filter(|_| values.next().is_none())
}

/// RFC 9110 §9.2.1.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether it may become something else than an exchange: HTTP/1.1 says so in `Upgrade`; a
/// WebSocket of HTTP/2 is a GET here, and known by its version.
pub(crate) fn upgrades(request: &RequestHead) -> bool {
    request.fields.known(Known::Upgrade).is_some()
        || request.fields.get(b"sec-websocket-version").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn guard(own: Option<&str>) -> Guard {
        let listed = vec!["https://shop.example".into()];
        Guard { own: own.map(Box::from), listed, open: false }
    }

    fn admitted(guard: &Guard, line: &str) -> bool {
        let exchange = World::default().exchange(&format!("192.0.2.7 {line}"));
        match guard.check(&exchange) {
            Ok(()) => true,
            Err(problem) => {
                assert_eq!(problem.code.name, "origin-not-allowed");
                false
            }
        }
    }

    #[test]
    fn who_may_change_something() {
        for (line, expected) in [
            ("POST / | Origin: https://api.example.com", true),
            ("POST / | Origin: https://shop.example", true),
            ("DELETE / | Sec-Fetch-Site: same-origin", true),
            ("POST / | Origin: null | Sec-Fetch-Site: same-origin", true),
            ("POST / | Sec-Fetch-Site: none", true),
            ("POST /", false),
            ("BREW /", false),
            ("POST / | Origin: null", false),
            ("POST / | Origin: http://api.example.com", false),
            ("POST / | Origin: https://api.example.com:8443", false),
            ("POST / | Origin: https://api.example.com.evil.example", false),
            ("POST / | Origin: https://evil.example | Sec-Fetch-Site: cross-site", false),
            ("POST / | Origin: https://other.example.com | Sec-Fetch-Site: same-site", false),
            ("POST / | Origin: https://shop.example | Sec-Fetch-Site: cross-site", true),
            ("POST / | Origin: https://evil.example | Sec-Fetch-Site: none", false),
            ("POST / | Sec-Fetch-Site: same-site", false),
            ("POST / | Sec-Fetch-Site: same-origin | Sec-Fetch-Site: same-origin", false),
            ("POST / | Origin: https://api.example.com | Origin: https://evil.example", false),
        ] {
            assert_eq!(admitted(&guard(None), line), expected, "{line}");
        }
    }

    #[test]
    fn reading_is_anybodys() {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let line = format!("{method} / | Origin: https://evil.example");
            assert!(admitted(&guard(None), &line), "{line}");
        }
    }

    #[test]
    fn a_websocket_is_no_reading() {
        for opens in ["Upgrade: websocket | Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"]
        {
            for (origin, expected) in [
                (" | Origin: https://api.example.com", true),
                (" | Origin: https://shop.example", true),
                (" | Origin: https://evil.example", false),
                (" | Origin: null", false),
                ("", false),
            ] {
                let line = format!("GET / | {opens}{origin}");
                assert_eq!(admitted(&guard(None), &line), expected, "{line}");
            }
        }
    }

    #[test]
    fn the_origin_may_be_that_of_a_proxy_before_us() {
        let guard = guard(Some("https://app.example"));
        assert!(admitted(&guard, "POST / | Origin: https://app.example"));
        assert!(!admitted(&guard, "POST / | Origin: https://api.example.com"));
    }

    #[test]
    fn a_reason_opens_it() {
        let guard = Guard { open: true, ..Guard::default() };
        assert!(admitted(&guard, "POST / | Origin: https://evil.example"));
        assert!(admitted(&guard, "GET / | Sec-WebSocket-Version: 13"));
    }
}
