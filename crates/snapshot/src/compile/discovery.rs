//! Where a backend's endpoints come from: that it is one place, and that what may be found there
//! can be spoken to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{Backend as Written, Discover, EndpointUrl, Named};
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;

use super::Compiler;
use crate::discovery::{Discovery, Origin, Place, Scheme};

/// The longest that an answer may hold: everything is looked at again after this.
pub const RECONCILE: Duration = Duration::from_secs(300);

impl Compiler<'_, '_> {
    /// `None` where the endpoints are written, and after an error.
    pub(super) fn discovery(
        &mut self,
        resource: &str,
        named: &Named<Written>,
    ) -> Option<Arc<Discovery>> {
        let written = &named.value;
        let Some(Spanned { value: discover, span }) = &written.discover else {
            if written.endpoints.is_empty() {
                let message = format!("`{}` has no endpoints", named.name);
                let finding = Finding::error("endpoints", named.span, resource, message);
                self.push(finding.help("write `endpoints`, or say by `discover` where they are"));
            }
            return None;
        };
        let resource = format!("{resource}.discover");
        let errors = self.with.findings.errors();
        let mut error = |span, message: &str, help: &str| {
            let finding = Finding::error("discover", span, &*resource, message);
            self.push(finding.help(help));
        };
        if !written.endpoints.is_empty() {
            error(*span, "endpoints are written or found, not both", "remove one of the two");
        }
        if discover.ttl_min.0 > discover.ttl_max.0 || discover.ttl_max.0 > RECONCILE {
            let help = "`ttl_min` is at most `ttl_max`, and that is at most 5m";
            error(*span, "no answer could hold for so long", help);
        }
        let tls = written.tls.as_ref().map(|tls| &tls.value);
        let verified = tls.filter(|tls| tls.server_name.is_some() || tls.identity.is_some());
        let place = match (&discover.dns, &discover.srv, &discover.file) {
            (Some(url), None, None) => {
                if !is_name(&url.value) {
                    error(url.span, "this is not a name to look up", "write it in `endpoints`");
                }
                let (scheme, url) = (scheme(url), &url.value);
                Some(Place::Dns { scheme, name: url.host.clone(), port: url.port })
            }
            (None, Some(url), None) => {
                if !is_name(&url.value) {
                    error(url.span, "this is not a name to look up", "write it in `endpoints`");
                }
                if url.https && verified.is_none() {
                    error(
                        url.span,
                        "who answers for a name server would say which certificate is right",
                        "say `tls: { server_name: NAME }`, or `identity`",
                    );
                }
                Some(Place::Srv { scheme: scheme(url), name: url.host.clone() })
            }
            (None, None, Some(path)) => Some(Place::File { path: path.value.clone() }),
            _ => {
                error(*span, "endpoints are found in one place", "write `dns`, `srv` or `file`");
                None
            }
        };
        if !discover.resolvers.is_empty() && discover.file.is_some() {
            let message = "`resolvers` has no effect on a file";
            self.push(Finding::warning("no-effect", *span, resource, message));
        }
        if self.with.findings.errors() > errors {
            return None;
        }
        let origin = Origin {
            place: place?,
            resolvers: discover.resolvers.iter().map(|server| server.0).collect(),
            ttl_min: discover.ttl_min.0,
            ttl_max: discover.ttl_max.0,
            allow_empty: discover.allow_empty,
        };
        let now = self.with.now.mono;
        let new = || Discovery::new(origin.clone(), now);
        Some(self.with.carry.keep("discovery", &named.name, &origin, new))
    }
}

/// The URL that endpoints are found by, where there is one.
pub(super) fn url(discover: &Discover) -> Option<&Spanned<EndpointUrl>> {
    discover.dns.as_ref().or(discover.srv.as_ref())
}

/// Whether there may be `https://` endpoints.
pub(super) fn may_be_https(written: &Written) -> bool {
    let Some(discover) = &written.discover else {
        return written.endpoints.iter().any(|endpoint| endpoint.url.https);
    };
    match url(&discover.value) {
        Some(url) => url.https,
        None => written.tls.is_some(),
    }
}

fn is_name(url: &EndpointUrl) -> bool {
    url.socket.is_none() && url.host.parse::<IpAddr>().is_err()
}

fn scheme(url: &EndpointUrl) -> Scheme {
    match (url.https, url.h2c) {
        (true, _) => Scheme::Https,
        (false, true) => Scheme::H2c,
        (false, false) => Scheme::Http,
    }
}
