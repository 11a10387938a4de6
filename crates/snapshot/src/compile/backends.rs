//! Backends: endpoints, their state from before, and how they are reached.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{
    Backend as Written, BackendTls as WrittenTls, Balance, Concurrency, Endpoint, EndpointUrl,
    ExpectHeader, Health, Named,
};
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::head::is_token;
use portcullis_upstream::budget::Terms;
use portcullis_upstream::{HealthSettings, Listed, ListedState};

use super::watching::{self, settings};
use super::{Compiler, discovery, tls};
use crate::backend::{
    Backend, BackendBreaker, BackendTls, ExpectedField, HashKey, HealthProbe, HealthQuestion,
    HostHeader, Protocol, ProxyVersion,
};
use crate::endpoints::{Endpoints, Shape};
use crate::sticky::Sticky;

/// Checks come at least this often while an endpoint's state is changing.
const INTERVAL_EDGE: Duration = Duration::from_millis(500);

impl Compiler<'_, '_> {
    /// Those that compile; the numbers are those of the configuration only if all do.
    pub(super) fn backends(&mut self) -> Vec<Backend> {
        let config = self.config;
        if let Some(beyond) = config.backends.get(usize::from(u16::MAX)) {
            self.push(Finding::error("too-many", beyond.span, "backends", "too many backends"));
        }
        let own_zone = self.own_zone();
        self.subsets = self.all_subsets();
        let all = config.backends.iter().enumerate();
        let compiled =
            all.filter_map(|(index, named)| self.backend(index as u16, named, own_zone.as_deref()));
        compiled.collect()
    }

    fn backend(
        &mut self,
        index: u16,
        named: &Named<Written>,
        own_zone: Option<&str>,
    ) -> Option<Backend> {
        let written = &named.value;
        let resource = format!("backends.{}", named.name);
        let name: Arc<str> = named.name.as_str().into();
        self.check_endpoints(&resource, named);
        let discovery = self.discovery(&resource, named);
        self.check_protocol(&resource, written);
        self.check_health(&resource, named);
        self.check_watching(&resource, named);
        let proxy_protocol = written.proxy_protocol.as_ref().map(|version| match version.value {
            portcullis_config::ProxyVersion::V1 => ProxyVersion::V1,
            portcullis_config::ProxyVersion::V2 => ProxyVersion::V2,
        });
        let protocol = protocol(written);
        let tls = self.backend_tls(&resource, named, protocol);
        let server_name = written.tls.as_ref().and_then(|tls| tls.server_name.as_ref());
        let health = written.health.as_ref().map(probe);
        let shape = Shape {
            backend: Arc::clone(&name),
            settings: settings(
                written,
                self.zone_terms(&resource, named, own_zone),
                self.subsets.get(named.name.as_str()).cloned().unwrap_or_default(),
            ),
            sticky: self.sticky(&resource, &written.balance),
            protocol,
            proxy_protocol,
            server_name: server_name.map(|name| name.0.as_str().into()),
            trust: tls.as_ref().map(|tls| tls.trust),
            https_only: written.discover.is_some() && tls.is_some(),
            health: health.as_ref().map(|probe| probe.settings.clone()),
        };
        let listed = match &discovery {
            None => written.endpoints.iter().map(listed).collect(),
            // What was found under other settings and cannot be had under these is found anew.
            Some(discovery) => {
                Some(discovery.serving()).filter(|all| shape.check(all).is_ok()).unwrap_or_default()
            }
        };
        let terms = Terms {
            percent: written.retry_budget.percent,
            per_second: written.retry_budget.per_second,
        };
        let endpoints = match Endpoints::new(shape, &self.directory, listed) {
            Ok(endpoints) => endpoints,
            Err(unfit) => {
                // What is wrong with one of them has been said already, at its place.
                if unfit.url.is_empty() || !self.with.findings.has_errors() {
                    self.push(Finding::error("endpoints", named.span, resource, unfit.to_string()));
                }
                return None;
            }
        };
        // A request of HTTP/1.1 has a connection of its own: it waits for its turn in one line, not
        // first in that and then for a connection.
        let requests_max = match is_h1_only(written, protocol) {
            true => written.requests_max.min(written.connections_max),
            false => written.requests_max,
        };
        Some(Backend {
            budget: self.directory.budget(&name, terms),
            capacity: self.directory.capacity(&name),
            tail: self.directory.tail(&name),
            breaker: watching::of_backend(written)
                .map(|terms| BackendBreaker { terms, state: self.directory.breaker(&name) }),
            name,
            index,
            endpoints,
            discovery,
            health,
            hash: match &written.balance.value {
                Balance::Hash(key) => Some(hash_key(key)),
                _ => None,
            },
            host: match &written.host {
                portcullis_config::HostHeader::Preserve => HostHeader::Preserve,
                portcullis_config::HostHeader::Backend => HostHeader::Endpoint,
                portcullis_config::HostHeader::Name(name) => HostHeader::Name(name.as_str().into()),
            },
            tls,
            connect_timeout: written.connect_timeout.0,
            idle_timeout: written.idle_timeout.0,
            requests_max,
            adaptive: written.concurrency == Concurrency::Adaptive,
            connections_max: written.connections_max,
            idle_max: written.idle_max,
            pending_max: written.pending_max,
            pending_timeout: written.pending_timeout.0,
            streams_max: written.streams_max,
            proxy_protocol,
            forwarded: written.forwarded,
            forward_certificate: written.forward_certificate,
        })
    }

    fn sticky(&mut self, resource: &str, balance: &Spanned<Balance>) -> Option<Arc<Sticky>> {
        const SECRET_BYTES_MIN: usize = 32;
        let Balance::Sticky(written) = &balance.value else { return None };
        let resource = format!("{resource}.balance");
        let key = Spanned { value: written.key.clone(), span: balance.span };
        let secret = self.read(&resource, &key)?;
        let secret = secret.trim_ascii();
        if secret.len() < SECRET_BYTES_MIN {
            let message = "the key has fewer than 32 bytes";
            let finding = Finding::error("weak-key", key.span, resource, message);
            self.push(finding.help("make one with `head -c 32 /dev/urandom | base64`"));
            return None;
        }
        let max_age = written.max_age.0.map(|age| age.as_secs());
        Some(Arc::new(Sticky::new(&written.cookie.0, secret, max_age)))
    }

    fn check_endpoints(&mut self, resource: &str, named: &Named<Written>) {
        let endpoints = &named.value.endpoints;
        for (at, endpoint) in endpoints.iter().enumerate() {
            let url = &endpoint.url;
            if let Some(first) = endpoints[..at].iter().find(|other| other.url == *url) {
                let message = format!("`{}` is listed twice", url.value);
                let finding = Finding::error("duplicate-endpoint", url.span, resource, message);
                self.push(finding.related(first.url.span, "first here").help("use `weight`"));
            }
        }
        let none = |endpoint: &Endpoint| endpoint.weight == 0 || endpoint.draining;
        if !endpoints.is_empty() && endpoints.iter().all(none) {
            let message = "every endpoint has the weight 0 or is draining: none gets a request";
            self.push(Finding::warning("no-weight", named.span, resource, message));
        }
    }

    /// A check asks one thing, in a protocol that the endpoints speak.
    fn check_health(&mut self, resource: &str, named: &Named<Written>) {
        let Some(health) = &named.value.health else { return };
        let resource = format!("{resource}.health");
        let mut error = |message: &str, help: &str| {
            let finding = Finding::error("health", named.span, &*resource, message);
            self.push(finding.help(help));
        };
        if let Some(ExpectHeader { name, value }) = &health.expect_header {
            let fits = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
            if !is_token(name.as_bytes()) || value.trim() != value || !value.bytes().all(fits) {
                let help = "`name` is that of a header field, `value` printable ASCII";
                error("no answer could have this `expect_header`", help);
            }
            if health.connect {
                let help = "write `path` or `grpc`, or remove `expect_header`";
                error("a connection alone has no header", help);
            }
        }
        let asked = [health.path.is_some(), health.grpc.is_some(), health.connect];
        if asked.iter().filter(|asked| **asked).count() != 1 {
            error("a check asks one thing", "write `path`, `grpc` or `connect: true`");
        }
        if health.contains.is_some() && health.path.is_none() {
            error("only the answer to a `path` is searched", "remove `contains`");
        }
        let found = named.value.discover.as_ref().and_then(|one| discovery::url(&one.value));
        let mut urls = named.value.endpoints.iter().map(|one| &one.url).chain(found);
        let protocol = protocol(&named.value);
        if health.grpc.is_some() && urls.any(|url| speaks_h1(url, protocol)) {
            error("gRPC needs HTTP/2", "write `protocol: h2`, or `h2c://` endpoints");
        }
    }

    /// HTTP/2 where it is excluded.
    fn check_protocol(&mut self, resource: &str, written: &Written) {
        let found = written.discover.as_ref().and_then(|one| discovery::url(&one.value));
        let mut urls = written.endpoints.iter().map(|one| &one.url).chain(found);
        let h2c = urls.find(|url| url.h2c);
        let contradiction =
            |span, message: String| Finding::error("protocol", span, resource, message);
        if let (portcullis_config::Protocol::H1, Some(url)) = (written.protocol.value, h2c) {
            let message = format!("`{}` is HTTP/2, and `protocol` says h1", url.value);
            let finding = contradiction(url.span, message);
            self.push(finding.related(written.protocol.span, "here"));
        }
        let Some(proxy) = &written.proxy_protocol else { return };
        let message = "`proxy_protocol` needs HTTP/1.1".to_owned();
        let why = "a connection that begins with one client's address cannot be shared";
        if written.protocol.value == portcullis_config::Protocol::H2 {
            let finding = contradiction(proxy.span, message);
            self.push(finding.related(written.protocol.span, "here it is HTTP/2").help(why));
        } else if let Some(url) = h2c {
            let finding = contradiction(proxy.span, message);
            self.push(finding.related(url.span, "here it is HTTP/2").help(why));
        }
    }

    /// Sessions are kept over reloads while what decides about trust is unchanged.
    fn backend_tls(
        &mut self,
        resource: &str,
        named: &Named<Written>,
        protocol: Protocol,
    ) -> Option<BackendTls> {
        let written = named.value.tls.as_ref();
        let https = discovery::may_be_https(&named.value);
        if let Some(tls) = written.filter(|_| !https) {
            let message = "`tls` has no effect: no endpoint begins with `https://`";
            self.push(Finding::warning("no-effect", tls.span, format!("{resource}.tls"), message));
        }
        if !https {
            return None;
        }
        let resource = format!("{resource}.tls");
        let default = WrittenTls::default();
        let settings = written.map_or(&default, |tls| &tls.value);
        let roots = match &settings.ca {
            Some(ca) => self.authorities(&resource, ca)?,
            None => Arc::clone(&self.with.roots),
        };
        let own = match (&settings.cert, &settings.key) {
            (Some(cert), Some(key)) => {
                Some(self.pair(&named.name, &resource, cert, key).map(|(key, _)| key)?)
            }
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                let message = "`cert` and `key` stand together";
                self.push(Finding::error("certificate", one.span, resource, message));
                return None;
            }
        };
        let unverified = settings.unverified.as_ref();
        if let Some(reason) = unverified {
            let message = format!("`{}` is not verified: {}", named.name, reason.value);
            self.push(Finding::warning("unverified", reason.span, &*resource, message));
        } else if roots.is_empty() {
            let message = "there is no authority to verify the backend with";
            let finding = Finding::error("no-authority", named.span, resource, message);
            self.push(finding.help("name one with `tls: {ca: \"file:PATH\"}`"));
            return None;
        }
        let trusted: Vec<_> =
            roots.roots.iter().map(|root| root.subject_public_key_info.as_ref().to_vec()).collect();
        let chain: Option<Vec<_>> =
            own.as_ref().map(|key| key.cert.iter().map(|c| c.as_ref().to_vec()).collect());
        let said: Vec<String> = settings
            .identity
            .iter()
            .flat_map(|all| all.iter())
            .map(|one| one.value.clone())
            .collect();
        let names = self.identity(&resource, settings)?;
        let trust = match unverified {
            Some(_) => tls::Trust::Anybody,
            None => tls::Trust::Named(names),
        };
        let key = (trusted, chain, unverified.is_some(), said);
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let config = self
            .with
            .carry
            .keep("backend-tls", &named.name, &key, || tls::client(roots, trust, own));
        let Some(config) = &*config else {
            self.push(Finding::error("tls", named.span, resource, "TLS cannot be set up here"));
            return None;
        };
        // A `ClientConfig` is a handful of `Arc`s: the session store is shared. What it offers is
        // set here, so that a change of `protocol` keeps the sessions.
        let offering = |protocol| {
            let mut config = config.clone();
            config.alpn_protocols = tls::alpn(protocol);
            Arc::new(config)
        };
        Some(BackendTls {
            config: offering(protocol),
            config_h1: offering(Protocol::H1),
            trust: hasher.finish(),
            unverified: unverified.map(|reason| reason.0.clone()),
        })
    }
}

/// Whether it never speaks HTTP/2, where `protocol` leaves that to the URL.
fn speaks_h1(url: &EndpointUrl, protocol: Protocol) -> bool {
    match protocol {
        Protocol::H1 => true,
        Protocol::Auto => !url.https && !url.h2c,
        Protocol::H2 => false,
    }
}

/// Whether none of its endpoints ever speaks HTTP/2. What a file lists is not known.
fn is_h1_only(written: &Written, protocol: Protocol) -> bool {
    let found = written.discover.as_ref().map(|one| discovery::url(&one.value));
    let known = found.as_ref().is_none_or(Option::is_some);
    let mut urls = written.endpoints.iter().map(|one| &one.url).chain(found.flatten());
    protocol == Protocol::H1 || (known && urls.all(|url| speaks_h1(url, protocol)))
}

/// What is spoken to endpoints whose URL leaves it open. A connection that begins with a client's
/// address carries only that client's requests, so that HTTP/2 has no use there.
fn protocol(written: &Written) -> Protocol {
    match (written.protocol.value, &written.proxy_protocol) {
        (portcullis_config::Protocol::H2, _) => Protocol::H2,
        (portcullis_config::Protocol::H1, _) | (_, Some(_)) => Protocol::H1,
        (portcullis_config::Protocol::Auto, None) => Protocol::Auto,
    }
}

/// An endpoint as it was written, in a configuration or in a file of endpoints.
#[must_use]
pub fn listed(endpoint: &Endpoint) -> Listed {
    let boxed = |(name, value): (&String, &String)| (name.as_str().into(), value.as_str().into());
    Listed {
        weight: endpoint.weight,
        priority: endpoint.priority,
        zone: endpoint.zone.as_deref().map(Into::into),
        labels: endpoint.labels.iter().map(boxed).collect(),
        state: match endpoint.draining {
            true => ListedState::Draining,
            false => ListedState::Active,
        },
        ..Listed::new(&endpoint.url.value.to_string())
    }
}

pub(super) fn hash_key(written: &portcullis_config::HashKey) -> HashKey {
    match written {
        portcullis_config::HashKey::Ip => HashKey::Ip,
        portcullis_config::HashKey::Client => HashKey::Client,
        portcullis_config::HashKey::Tenant => HashKey::Tenant,
        portcullis_config::HashKey::Header(name) => HashKey::Header(name.as_str().into()),
        portcullis_config::HashKey::Cookie(name) => HashKey::Cookie(name.as_str().into()),
        portcullis_config::HashKey::Param(name) => HashKey::Param(name.as_str().into()),
    }
}

fn probe(written: &Health) -> HealthProbe {
    let question = match (&written.path, &written.grpc) {
        (Some(path), _) => HealthQuestion::Http {
            path: path.0.as_str().into(),
            host: written.host.as_ref().map(|host| host.0.as_str().into()),
            statuses: written.statuses.iter().map(|range| (range.first, range.last)).collect(),
            contains: written.contains.as_ref().map(|text| text.as_bytes().into()),
        },
        (None, Some(service)) => HealthQuestion::Grpc { service: service.as_str().into() },
        (None, None) => HealthQuestion::Connect,
    };
    // Old results say nothing about a new question.
    let mut hasher = DefaultHasher::new();
    let expect = written.expect_header.as_ref();
    let header = expect.map(|one| ExpectedField {
        name: one.name.as_bytes().into(),
        value: one.value.as_bytes().into(),
    });
    (&question, &header).hash(&mut hasher);
    HealthProbe {
        question,
        header,
        timeout: written.timeout.0,
        settings: HealthSettings {
            interval: written.interval.0,
            interval_edge: INTERVAL_EDGE.min(written.interval.0),
            down_after: written.down_after,
            up_after: written.up_after,
            probe: hasher.finish(),
        },
    }
}
