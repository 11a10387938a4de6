//! The configuration under audit, put on a stage: the same routes, policies and listeners, bound
//! to loopback, with the stub backend behind all of them.
//!
//! What stands on a route is not touched. What is changed is where connections come from and go
//! to, and that the audit may say which address a client has, which it does by the PROXY protocol.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use portcullis_config::{Backend, BindAddress, Config, Endpoint, EndpointUrl, Network, Protocol};
use portcullis_core::decode::Spanned;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Puts `config` on the stage, before a stub backend at `backend`.
pub(crate) fn set(config: &mut Config, backend: SocketAddr) {
    for named in &mut config.listeners {
        let listener = &mut named.value;
        listener.bind.value = BindAddress::Tcp(SocketAddr::new(LOOPBACK, 0));
        listener.socket_mode = None;
        listener.proxy_protocol = true;
        // Whoever is named by the header is trusted only where the configuration says so.
        listener.trusted_proxies.push(Network { address: LOOPBACK, prefix: 32 });
        listener.connections_max = u32::MAX;
        listener.connections_per_address_max = u32::MAX;
    }
    for named in &mut config.backends {
        redirect(&mut named.value, backend);
    }
}

/// One endpoint in clear text in the place of all, in the version of HTTP that is written.
fn redirect(written: &mut Backend, to: SocketAddr) {
    if let Some(discover) = written.discover.take() {
        // Wherever they are found: they are not asked for here.
        let (zone, labels) = (None, std::collections::BTreeMap::new());
        let url = Spanned { value: stub(to), span: discover.span };
        written.endpoints =
            vec![Endpoint { url, weight: 1, priority: 0, zone, labels, draining: false }];
    }
    written.endpoints.truncate(1);
    let h2 = written.protocol.value == Protocol::H2;
    for endpoint in &mut written.endpoints {
        let h2c = h2 || endpoint.url.value.h2c;
        endpoint.url.value = EndpointUrl { h2c, ..stub(to) };
        endpoint.weight = 1;
        endpoint.draining = false;
    }
    written.tls = None;
    written.health = None;
    written.proxy_protocol = None;
}

fn stub(to: SocketAddr) -> EndpointUrl {
    let host = to.ip().to_string();
    EndpointUrl { https: false, h2c: false, host, port: to.port(), socket: None }
}
