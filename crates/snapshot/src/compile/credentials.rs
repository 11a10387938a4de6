//! What a policy attaches for a backend: where it would be read on the way, and where there is
//! nothing to make it from.

use std::net::IpAddr;

use portcullis_config::{Backend, EndpointUrl};
use portcullis_core::finding::Finding;
use portcullis_core::node::SourceSpan;
use portcullis_core::policy::Attached;

use super::Compiler;
use super::routes::BuiltRoute;
use crate::snapshot::Access;

impl Compiler<'_, '_> {
    pub(super) fn check_credentials(&mut self, routes: &[BuiltRoute]) {
        for built in routes {
            let policies = built.route.policies.iter();
            let attaching: Vec<(&str, Attached)> = policies
                .filter_map(|placed| Some((placed.name, placed.policy.attaches()?)))
                .collect();
            for (policy, attached) in attaching {
                if !attached.clear_text {
                    self.check_way(built, policy);
                }
                if attached.from_access_token {
                    self.check_access_token(built, policy);
                }
            }
        }
    }

    /// What a backend knows the gateway by opens it to whoever reads it on the way.
    fn check_way(&mut self, built: &BuiltRoute, policy: &str) {
        let config = self.config;
        let variants = built.route.to.iter().flat_map(|to| &to.variants);
        let mirror = built.route.mirror.iter().map(|mirror| mirror.backend);
        for backend in variants.map(|variant| variant.backend).chain(mirror) {
            let backend = &config.backends[usize::from(backend)];
            let Some((open, span)) = open_way(&backend.value) else { continue };
            let message = format!(
                "the `{policy}` of `{}` would cross the network to `{open}` in clear text",
                built.route.name
            );
            let resource = format!("{}.{policy}", built.resource);
            let finding = Finding::error("clear-text", built.span, resource, message)
                .related(span, "this endpoint")
                .help("use `https://`, or say why this is safe: `clear_text: \"<reason>\"`");
            self.push(finding);
        }
    }

    fn check_access_token(&mut self, built: &BuiltRoute, policy: &str) {
        let without = match &built.route.access {
            // A route that denies everybody, or with an error of its own.
            Access::Authenticated { auth, .. } => auth.iter().find_map(|name| {
                let entry = self.auth.get(&**name)?.as_ref()?;
                let has = entry.authenticator.is_access_token();
                (!has).then(|| format!("who comes by `{name}`"))
            }),
            Access::Optional { .. } => Some("who shows no credential".to_owned()),
            Access::Public { .. } => Some("who calls a public route".to_owned()),
        };
        let Some(without) = without.filter(|_| built.route.to.is_some()) else { return };
        let message = format!(
            "the `{policy}` of `{}` is made from the caller's access token, and {without} has none",
            built.route.name
        );
        let resource = format!("{}.{policy}", built.resource);
        let finding = Finding::error("no-access-token", built.span, resource, message);
        self.push(finding.help("let the route take `jwt` or `introspection` only"));
    }
}

/// An endpoint of the backend that is, or may turn out to be, somewhere in the open.
fn open_way(backend: &Backend) -> Option<(String, SourceSpan)> {
    let Some(discover) = &backend.discover else {
        let mut urls = backend.endpoints.iter().map(|endpoint| &endpoint.url);
        let open = urls.find(|url| crosses_open_network(url))?;
        return Some((open.value.to_string(), open.span));
    };
    // What is found can be anywhere, and is clear text unless that is ruled out.
    let (text, https) = match super::discovery::url(&discover.value) {
        Some(url) => (url.value.to_string(), url.https),
        None => ("what the file names".to_owned(), backend.tls.is_some()),
    };
    (!https).then_some((text, discover.span))
}

fn crosses_open_network(url: &EndpointUrl) -> bool {
    let host = url.host.as_str();
    let local = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    !url.https && url.socket.is_none() && !local
}
