//! The endpoints of a backend: a cell of their own beside the snapshot, so that they come and go
//! without a reload. Where they come from is not known here.

use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use portcullis_config::EndpointUrl;
use portcullis_core::{Exchange, Fields};
use portcullis_upstream::balancer::ENDPOINTS_MAX;
use portcullis_upstream::{
    Balancer, Directory, Endpoint, EndpointIndex, EndpointsTooMany, HealthSettings, Listed, Member,
    Settings,
};
use rustls::pki_types::ServerName;

use crate::backend::{EndpointAddress, Protocol, ProxyVersion};
use crate::sticky::{Sticky, Tags};

/// The endpoints of one moment. A request sees one set from its first try to its last.
#[derive(Debug)]
pub struct EndpointSet {
    pub balancer: Balancer,
    /// In the order of the balancer's members.
    pub addresses: Vec<EndpointAddress>,
    /// What it was made of, in the same order.
    pub listed: Vec<Listed>,
    /// Whose clients stay by a cookie, and what it calls the endpoints.
    sticky: Option<(Arc<Sticky>, Tags)>,
}

/// One endpoint of a set.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    pub endpoint: &'a Arc<Endpoint>,
    pub address: &'a EndpointAddress,
}

impl EndpointSet {
    #[must_use]
    pub fn at(&self, index: EndpointIndex) -> Chosen<'_> {
        Chosen { endpoint: self.balancer.endpoint(index), address: &self.addresses[index.get()] }
    }

    /// Where the client has been before, by its cookie.
    #[must_use]
    pub fn home(&self, exchange: &Exchange) -> Option<EndpointIndex> {
        let (sticky, tags) = self.sticky.as_ref()?;
        sticky.home(tags, exchange)
    }

    /// Tells the client that it stays at another endpoint than `home` from now on, if it does.
    pub fn stay(
        &self,
        home: Option<EndpointIndex>,
        at: EndpointIndex,
        secure: bool,
        fields: &mut Fields,
    ) {
        if let Some((sticky, tags)) = &self.sticky
            && home != Some(at)
        {
            sticky.stay(tags, at, secure, fields);
        }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Chosen<'_>> {
        let members = self.balancer.members().iter().zip(&self.addresses);
        members.map(|(member, address)| Chosen { endpoint: &member.endpoint, address })
    }
}

/// What the backend says of each of its endpoints, whichever there are.
#[derive(Clone, Debug)]
pub struct Shape {
    pub backend: Arc<str>,
    /// How they are chosen and watched.
    pub settings: Settings,
    pub sticky: Option<Arc<Sticky>>,
    /// What is spoken where the URL leaves it open.
    pub protocol: Protocol,
    pub proxy_protocol: Option<ProxyVersion>,
    /// The name to verify in place of the endpoint's own.
    pub server_name: Option<Arc<str>>,
    /// Fingerprint of whom TLS trusts and what it presents; `None` where there is no TLS to
    /// endpoints.
    pub trust: Option<u64>,
    /// Whether nothing is sent in clear text, whatever is found.
    pub https_only: bool,
    pub health: Option<HealthSettings>,
}

/// An endpoint that the backend cannot have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub url: Box<str>,
    pub reason: String,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.url.is_empty() {
            true => f.write_str(&self.reason),
            false => write!(f, "{}: {}", self.url, self.reason),
        }
    }
}

impl std::error::Error for Unfit {}

impl Shape {
    /// Whether a set could be made of these.
    ///
    /// # Errors
    /// As [`Shape::set`].
    pub fn check(&self, listed: &[Listed]) -> Result<(), Unfit> {
        if listed.len() > ENDPOINTS_MAX {
            return Err(unfit("", EndpointsTooMany(listed.len()).to_string()));
        }
        let mut seen = std::collections::HashSet::new();
        if let Some(twice) = listed.iter().find(|one| !seen.insert(&*one.url)) {
            return Err(unfit(&twice.url, "it is listed twice"));
        }
        listed.iter().try_for_each(|one| self.address(one).map(drop))
    }

    /// # Errors
    /// An endpoint is none, is listed twice, or speaks what this backend does not; or there are
    /// too many.
    pub fn set(&self, directory: &Directory, listed: Vec<Listed>) -> Result<EndpointSet, Unfit> {
        self.check(&listed)?;
        let mut addresses = Vec::with_capacity(listed.len());
        let mut members = Vec::with_capacity(listed.len());
        for one in &listed {
            let address = self.address(one)?;
            // A connection made under another certificate, or with other authorities, is not used
            // again.
            let trust = self.trust.filter(|_| address.https).unwrap_or_default();
            let spoken = format!("{:?} {:?} {trust:x}", address.protocol, self.proxy_protocol);
            let endpoint = directory.endpoint(&self.backend, &address.url, &spoken);
            members.push(Member { endpoint, weight: one.share() });
            addresses.push(address);
        }
        let balancer = Balancer::placed(self.settings.clone(), members, &listed)
            .map_err(|error| unfit("", error.to_string()))?;
        let sticky = self.sticky.as_ref().map(|sticky| {
            let urls = addresses.iter().map(|address| &*address.url);
            (Arc::clone(sticky), sticky.tags(&self.backend, urls))
        });
        Ok(EndpointSet { balancer, addresses, listed, sticky })
    }

    fn address(&self, listed: &Listed) -> Result<EndpointAddress, Unfit> {
        let url = EndpointUrl::from_str(&listed.url)
            .map_err(|fault| unfit(&listed.url, fault.message))?;
        if url.https && self.trust.is_none() {
            return Err(unfit(&url, "the backend has no `tls`"));
        }
        if self.https_only && !url.https {
            return Err(unfit(&url, "the backend has `tls`, and this is clear text"));
        }
        if url.h2c && (self.protocol == Protocol::H1 || self.proxy_protocol.is_some()) {
            return Err(unfit(&url, "the backend is spoken to in HTTP/1.1"));
        }
        let host = listed.name.as_deref().unwrap_or(&url.host);
        let bracketed = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let default_port = if url.https { 443 } else { 80 };
        let authority = match url.port == default_port {
            true => bracketed,
            false => format!("{bracketed}:{}", url.port),
        };
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        let server_name = match url.https {
            true => Some(ServerName::try_from(name).map_err(|_| {
                unfit(&url, "TLS cannot ask for this name; say another by `tls: {server_name}`")
            })?),
            false => None,
        };
        Ok(EndpointAddress {
            url: url.to_string().into(),
            https: url.https,
            protocol: if url.h2c { Protocol::H2 } else { self.protocol },
            host: url.host.as_str().into(),
            port: url.port,
            socket: url.socket.as_deref().map(Into::into),
            authority: authority.into(),
            server_name,
        })
    }
}

fn unfit(url: &(impl ToString + ?Sized), reason: impl Into<String>) -> Unfit {
    Unfit { url: url.to_string().into(), reason: reason.into() }
}

/// The cell. What it holds is replaced whole; whoever has the old set finishes with it.
#[derive(Debug)]
pub struct Endpoints {
    current: ArcSwap<EndpointSet>,
    shape: Shape,
    directory: Arc<Directory>,
}

impl Endpoints {
    /// # Errors
    /// As [`Shape::set`].
    pub fn new(
        shape: Shape,
        directory: &Arc<Directory>,
        listed: Vec<Listed>,
    ) -> Result<Self, Unfit> {
        let current = ArcSwap::from_pointee(shape.set(directory, listed)?);
        Ok(Self { current, shape, directory: Arc::clone(directory) })
    }

    /// The set that serves now. For the length of one request or one look.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<EndpointSet>> {
        self.current.load()
    }

    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Other endpoints from now on. Requests under way finish where they are; connections to those
    /// that are gone are closed when they are idle.
    ///
    /// # Errors
    /// As [`Shape::set`]; the old ones serve on.
    pub fn replace(&self, listed: Vec<Listed>, now: Duration) -> Result<(), Unfit> {
        let set = Arc::new(self.shape.set(&self.directory, listed)?);
        // The first ones are all new, so that none of them is.
        let later = !self.load().listed.is_empty();
        self.begin(&set, later, now);
        self.current.store(set);
        self.directory.prune();
        Ok(())
    }

    /// The backend begins to serve; `later`: others served before it.
    pub fn adopt(&self, later: bool, now: Duration) {
        self.begin(&self.load(), later, now);
    }

    fn begin(&self, set: &EndpointSet, later: bool, now: Duration) {
        set.balancer.adopt(later, now);
        for member in set.balancer.members() {
            member.endpoint.adopt_health(self.shape.health.as_ref(), now);
        }
    }
}
