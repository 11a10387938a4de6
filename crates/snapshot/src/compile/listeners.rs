//! Listeners: where they bind, what they serve, and whether credentials are safe on them.

use std::sync::Arc;

use portcullis_config::{BindAddress, Listener as Written, Named};
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::node::SourceSpan;

use super::Compiler;
use super::routes::BuiltRoute;
use crate::listener::{
    Bind, H2Frames, Listener, ListenerLimits, ListenerTimeouts, Network, PathsByHost, Redirect,
};
use crate::router::LISTENERS_MAX;
use crate::snapshot::Access;

/// A listener, and what only the compiler needs to know of it.
pub(super) struct BuiltListener {
    pub(super) listener: Listener,
    pub(super) resource: String,
    pub(super) span: SourceSpan,
}

impl Compiler<'_, '_> {
    pub(super) fn listeners(&mut self) -> Vec<BuiltListener> {
        let config = self.config;
        if config.listeners.is_empty() {
            let message = "there is no listener, so nobody can send a request";
            let finding = Finding::error("no-listener", None, "listeners", message);
            self.push(finding.help("add `listeners: { http: { bind: \"127.0.0.1:8080\" } }`"));
        }
        if let Some(beyond) = config.listeners.get(usize::from(LISTENERS_MAX)) {
            let message = format!("more than {LISTENERS_MAX} listeners");
            self.push(Finding::error("too-many", beyond.span, "listeners", message));
        }
        let mut built = Vec::new();
        for (index, named) in config.listeners.iter().enumerate() {
            self.same_address(index, named);
            built.push(self.listener(index as u16, named));
        }
        built
    }

    fn same_address(&mut self, index: usize, named: &Named<Written>) {
        let bind = &named.value.bind;
        let before = &self.config.listeners[..index];
        let any_port = matches!(&bind.value, BindAddress::Tcp(address) if address.port() == 0);
        let same = before.iter().find(|other| other.value.bind.value == bind.value && !any_port);
        if let Some(other) = same {
            let resource = format!("listeners.{}.bind", named.name);
            let message = format!("`{}` is taken by the listener `{}`", bind.value, other.name);
            let finding = Finding::error("address-taken", bind.span, resource, message);
            self.push(finding.related(other.value.bind.span, "here"));
        }
    }

    fn listener(&mut self, index: u16, named: &Named<Written>) -> BuiltListener {
        let written = &named.value;
        let resource = format!("listeners.{}", named.name);
        let tls = written.tls.as_ref().and_then(|tls| {
            let resource = format!("{resource}.tls");
            self.listener_tls(&named.name, &resource, tls, written.http2)
        });
        let redirect = written.redirect.as_ref().and_then(|to| self.redirect(&resource, named, to));
        let bind = self.bind(&resource, written);
        if written.proxy_protocol && written.trusted_proxies.is_empty() {
            let message = "`proxy_protocol` needs `trusted_proxies`: nobody could connect";
            self.push(Finding::error("nobody-trusted", named.span, resource.clone(), message));
        }
        let certificate_header = written.certificate_header.as_ref().and_then(|header| {
            let resource = format!("{resource}.certificate_header");
            if written.trusted_proxies.is_empty() {
                let message = "`certificate_header` needs `trusted_proxies`: nobody is believed";
                self.push(Finding::error("nobody-trusted", header.span, &*resource, message));
            }
            self.client_certificates(&resource, &(&header.value).into())
        });
        let network = |network: &portcullis_config::Network| Network {
            address: network.address,
            prefix: network.prefix,
        };
        let hosts = written.hosts.iter().map(|(host, options)| {
            (host.name.to_ascii_lowercase().into_bytes().into(), options.paths.rules())
        });
        let frames = written.http2_frames;
        let listener = Listener {
            name: named.name.as_str().into(),
            index,
            bind,
            tls,
            redirect,
            http2: written.http2,
            paths: PathsByHost { default: written.paths.rules(), hosts: hosts.collect() },
            trusted_proxies: written.trusted_proxies.iter().map(network).collect(),
            proxy_protocol: written.proxy_protocol,
            certificate_header,
            timeouts: ListenerTimeouts {
                handshake: written.handshake_timeout.0,
                head: written.head_timeout.0,
                body: written.body_timeout.0,
                keep_alive: written.keep_alive.0,
            },
            limits: ListenerLimits {
                connections_max: written.connections_max,
                head_bytes_max: u32::try_from(written.head_max.0).unwrap_or(u32::MAX),
                fields_max: written.fields_max,
                target_bytes_max: u32::try_from(written.target_max.0).unwrap_or(u32::MAX),
                streams_max: written.streams_max,
                connections_per_address_max: written.connections_per_address_max,
                frames: H2Frames {
                    resets_per_minute: frames.resets_per_minute,
                    pings_per_minute: frames.pings_per_minute,
                    settings_per_minute: frames.settings_per_minute,
                    continuations_max: frames.continuations_max,
                },
            },
            shed: written.shed.0,
            clear_text: written.clear_text.as_ref().map(|reason| reason.0.clone()),
        };
        BuiltListener { listener, resource, span: named.span }
    }

    fn bind(&mut self, resource: &str, written: &Written) -> Bind {
        let mode = written.socket_mode.as_ref();
        match &written.bind.value {
            BindAddress::Unix(path) => {
                let mode = mode.map(|mode| mode.value).unwrap_or_default();
                Bind::Unix { path: path.as_str().into(), mode: mode.0 }
            }
            BindAddress::Tcp(address) => {
                if let Some(mode) = mode {
                    let message = "`socket_mode` has no effect: `bind` is not a Unix socket";
                    let resource = format!("{resource}.socket_mode");
                    self.push(Finding::warning("no-effect", mode.span, resource, message));
                }
                Bind::Tcp(*address)
            }
        }
    }

    fn redirect(
        &mut self,
        resource: &str,
        from: &Named<Written>,
        written: &Spanned<portcullis_config::Redirect>,
    ) -> Option<Redirect> {
        let config = self.config;
        let resource = format!("{resource}.redirect");
        let at = (written.span, resource.as_str());
        let at = self.resolve("listener", &config.listeners, &written.to.0, at)?;
        let target = &config.listeners[at];
        if target.value.tls.is_none() || target.value.redirect.is_some() {
            let message = format!("`{}` does not serve https", target.name);
            let finding = Finding::error("redirect", written.span, resource, message);
            self.push(finding.related(target.span, "it needs `tls`, and no `redirect`"));
            return None;
        }
        if let BindAddress::Unix(_) = from.value.bind.value {
            let message = "a listener on a Unix socket cannot redirect";
            let finding = Finding::error("redirect", written.span, resource, message);
            self.push(
                finding.related(from.value.bind.span, "whoever connects here is on this machine"),
            );
            return None;
        }
        let port = match (written.port, &target.value.bind.value) {
            (Some(port), _) => port,
            (None, BindAddress::Tcp(address)) => address.port(),
            (None, BindAddress::Unix(_)) => {
                let message = format!("`{}` is a Unix socket and has no port", target.name);
                let finding = Finding::error("redirect", written.span, resource, message);
                let finding = finding.related(target.value.bind.span, "here");
                self.push(finding.help(format!(
                    "say which port clients see: `redirect: {{to: {}, port: 443}}`",
                    target.name
                )));
                return None;
            }
        };
        Some(Redirect { listener: target.name.as_str().into(), port })
    }

    /// Credentials may cross an open network in clear text only where somebody says why.
    pub(super) fn check_clear_text(&mut self, listeners: &[BuiltListener], routes: &[BuiltRoute]) {
        for (index, built) in listeners.iter().enumerate() {
            let listener = &built.listener;
            // The written one: TLS that did not compile is still TLS.
            let open = self.config.listeners[index].value.tls.is_none()
                && !listener.bind.is_local()
                && listener.clear_text.is_none();
            let index = index as u16;
            let mut exposed = routes.iter().filter(|built| {
                let route = &built.route;
                let public = matches!(route.access, Access::Public { .. });
                open && !public && route.listeners.contains(&index)
            });
            let Some(first) = exposed.next() else { continue };
            let name: &Arc<str> = &listener.name;
            let others = match exposed.count() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let message = format!(
                "credentials would cross `{name}` in clear text: route `{}`{others}",
                first.route.name
            );
            let finding = Finding::error("clear-text", built.span, built.resource.clone(), message)
                .related(first.span, "this route takes credentials")
                .help(
                    "give the listener `tls`, bind it to a loopback address, or say why this \
                         is safe with `clear_text: \"<reason>\"`",
                );
            self.push(finding);
        }
    }
}
