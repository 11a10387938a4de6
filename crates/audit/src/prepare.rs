//! What every audit begins with: the configuration read, credentials made, an oracle, and a plan.
//! Nothing is sent from here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use portcullis_config::{Config, Loaded, Source, load};
use portcullis_core::carry::Carry;
use portcullis_core::finding::Findings;
use portcullis_core::node::{Node, Value};
use portcullis_core::registry::{Registry, Sources};
use portcullis_core::{Now, planted};
use portcullis_proxy::Clock;
use portcullis_snapshot::router::RoutePattern;
use portcullis_snapshot::{CompileContext, Snapshot, compile_with_patterns};
use rustls::RootCertStore;

use crate::certificates::{self, ClientIdentity};
use crate::forge::{Credential, Entry, Forged, Workshop, clients, forger};
use crate::needs::{self, Needs};
use crate::oracle::Oracle;
use crate::plan::{Kit, ListenerFacts, Planner, Tools};
use crate::report::Places;
use crate::world::{Files, Pages};
use crate::{AuditError, Subject};

/// Addresses that are nobody's (RFC 5737), for clients.
const NOBODIES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(203, 0, 113, 1)];
/// Addresses of clients that are tried for each route.
const PEERS_MAX: usize = 64;

pub(crate) fn could_not(error: impl std::fmt::Display) -> AuditError {
    AuditError::CouldNotRun(error.to_string())
}

/// Everything that does not depend on where requests go.
pub(crate) struct Prepared<'a> {
    pub(crate) config: Config,
    pub(crate) sources: Vec<Source>,
    pub(crate) places: Places,
    pub(crate) planner: Planner,
    pub(crate) files: Files<'a>,
    pub(crate) pages: Pages,
    pub(crate) identities: Vec<ClientIdentity>,
    registry: Registry,
    roots: Arc<RootCertStore>,
    now: Now,
}

/// Reads and plans, as of the time that `moment` chooses.
///
/// # Errors
/// The configuration does not compile, or the machine lacks something.
pub(crate) fn prepare<'a>(
    subject: Subject<'a>,
    quick: bool,
    moment: impl FnOnce(&Config) -> Clock,
) -> Result<Prepared<'a>, AuditError> {
    let Subject { texts, files, registry, makers } = subject;
    let Loaded { config, sources, findings } = load(texts, &registry);
    let Some(config) = config else {
        return Err(AuditError::DoesNotCompile { findings, texts: sources });
    };
    let clock = moment(&config);
    let now = clock.now();
    let mut workshop = Workshop::new(clock, &makers);
    let kits = kits(&config, &mut workshop);
    let demanded = clients::demanded(&config, &mut workshop).map_err(could_not)?;
    certificates::of_listeners(&config, files, &mut workshop.files).map_err(could_not)?;
    certificates::of_backends(&config, &mut workshop.files).map_err(could_not)?;
    for (reference, list) in std::mem::take(&mut workshop.lists) {
        let text = serde_json::Value::Array(list).to_string();
        workshop.files.insert(reference, text.into_bytes().into());
    }
    let Workshop { files: made, pages: at, beneath, identities, .. } = workshop;
    let files = Files { made, written: files };
    let roots = certificates::roots().map_err(could_not)?;
    let compiled =
        planted::honestly(|| compiled(&config, &registry, &files, Arc::clone(&roots), now));
    let (snapshot, patterns) = match compiled {
        Ok(compiled) => compiled,
        Err(findings) => return Err(AuditError::DoesNotCompile { findings, texts: sources }),
    };
    let mut oracle = Oracle::new(snapshot, &patterns, now);
    oracle.certificates = clients::facts(&identities, now.wall);
    let mut planner = Planner {
        listeners: listeners(&config, &demanded),
        peers: peers(&config),
        open: HashMap::new(),
        gaps: HashMap::new(),
        quick,
        in_use: false,
        oracle,
        kits,
        turns: Vec::new(),
    };
    planner.take_turns();
    planner.name_tenants(&config);
    planner.find_open();
    let places = Places::new(&config, &sources);
    let pages = Pages { at, beneath };
    Ok(Prepared {
        config,
        sources,
        places,
        planner,
        files,
        pages,
        identities,
        registry,
        roots,
        now,
    })
}

impl Prepared<'_> {
    /// The configuration with changes, compiled for a gateway.
    ///
    /// # Errors
    /// It does not compile so.
    pub(crate) fn compile(&self, config: &Config) -> Result<Snapshot, AuditError> {
        let roots = Arc::clone(&self.roots);
        let compiled = compiled(config, &self.registry, &self.files, roots, self.now);
        let texts = || self.sources.clone();
        compiled
            .map(|(snapshot, _)| snapshot)
            .map_err(|findings| AuditError::DoesNotCompile { findings, texts: texts() })
    }
}

fn compiled(
    config: &Config,
    registry: &Registry,
    sources: &dyn Sources,
    roots: Arc<RootCertStore>,
    now: Now,
) -> Result<(Snapshot, Vec<RoutePattern>), Findings> {
    let mut findings = Findings::new();
    let mut with = CompileContext {
        findings: &mut findings,
        carry: &mut Carry::default(),
        sources,
        now,
        roots,
        seed: 1,
    };
    let compiled = compile_with_patterns(config, registry, &mut with);
    let (mut snapshot, patterns) = compiled.ok_or(findings)?;
    // What fails on purpose proves nothing. So far the routes are nobody else's.
    for route in snapshot.routes.iter_mut().filter_map(Arc::get_mut) {
        route.policies.retain(|placed| placed.policy.faults().is_none());
    }
    Ok((snapshot, patterns))
}

/// What each route is tried with. Callers with the same needs are made once.
fn kits(config: &Config, workshop: &mut Workshop<'_>) -> Vec<Kit> {
    let mut made: HashMap<(String, String), Arc<Result<Forged, String>>> = HashMap::new();
    let mut tools = |names: &[&str], needs: &Needs| -> Tools {
        let entries =
            names.iter().filter_map(|name| config.auth.iter().find(|entry| entry.name == *name));
        let forged = entries.map(|entry| {
            let key = (entry.name.clone(), format!("{needs:?}"));
            let forged = made.entry(key).or_insert_with(|| {
                let written = Entry { name: &entry.name, settings: &entry.value.settings, config };
                let forge = forger(&entry.value.kind);
                let forged = forge.and_then(|forge| forge(&written, needs, workshop));
                Arc::new(
                    forged.and_then(|forged| with_certificate(forged, needs, config, workshop)),
                )
            });
            (entry.name.clone(), Arc::clone(forged))
        });
        forged.collect()
    };
    let kit = |route| {
        let names = takes(config, route);
        let by_method = needs::methods(config, route).into_iter().map(|method| {
            let tools = tools(&names, &Needs::of(config, route, &method));
            (method, tools)
        });
        let by_method = by_method.collect();
        Kit { by_method, otherwise: tools(&names, &Needs::of(config, route, "")) }
    };
    config.routes.iter().map(kit).collect()
}

/// Callers whose certificate has to say something have one that does.
fn with_certificate(
    mut forged: Forged,
    needs: &Needs,
    config: &Config,
    workshop: &mut Workshop<'_>,
) -> Result<Forged, String> {
    if !needs.certificate.is_empty() && forged.good.by_listener.is_empty() {
        forged.good.by_listener = clients::good(config, &needs.certificate, workshop)?;
        let on = &forged.good.by_listener;
        forged.bad.iter_mut().for_each(|(_, bad)| bad.by_listener = on.clone());
        for (bad, by_listener) in clients::lacking(config, &needs.certificate, workshop)? {
            let credential = Credential { by_listener, ..forged.good.clone() };
            forged.bad.push((bad, credential));
        }
    }
    Ok(forged)
}

/// The entries of `auth` whose credentials a route takes.
fn takes<'a>(config: &'a Config, route: &'a portcullis_config::Route) -> Vec<&'a str> {
    if route.public.is_some() {
        return Vec::new();
    }
    let group = route.group.and_then(|at| config.groups.get(at)).map(|group| &group.layer);
    let layers = [Some(&route.layer), group, Some(&config.defaults)];
    let auth = layers.into_iter().flatten().find_map(|layer| layer.settings.auth.as_ref());
    let names = auth.map(|auth| auth.value.names()).unwrap_or_default();
    names.iter().map(|name| name.0.as_str()).collect()
}

fn listeners(config: &Config, demanded: &HashMap<u16, usize>) -> Vec<ListenerFacts> {
    let listeners = config.listeners.iter().enumerate();
    let facts = listeners.map(|(index, named)| ListenerFacts {
        connect: named.value.bind.value.to_string(),
        https: named.value.tls.is_some(),
        http2: named.value.http2,
        certificate: demanded.get(&(index as u16)).copied(),
    });
    facts.collect()
}

/// Addresses that clients may have: nobody's, this machine's, and those that policies name.
fn peers(config: &Config) -> Vec<IpAddr> {
    let mut peers: Vec<IpAddr> = NOBODIES.into_iter().map(IpAddr::V4).collect();
    peers.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let groups = config.groups.iter().map(|group| &group.layer);
    let routes = config.routes.iter().map(|route| &route.layer);
    let layers = std::iter::once(&config.defaults).chain(groups).chain(routes);
    for (_, settings) in layers.flat_map(|layer| &layer.policies) {
        addresses(settings, &mut peers);
    }
    peers.truncate(PEERS_MAX);
    peers
}

/// The addresses, and those just within the networks, that stand in some settings.
fn addresses(settings: &Node, peers: &mut Vec<IpAddr>) {
    let mut add = |address: IpAddr| {
        if !peers.contains(&address) {
            peers.push(address);
        }
    };
    match &settings.value {
        Value::Str(text) => match text.split_once('/') {
            None => drop(text.parse().map(&mut add)),
            Some((network, _)) => match network.parse() {
                Ok(IpAddr::V4(address)) => {
                    add(Ipv4Addr::from_bits(address.to_bits() | 1).into());
                    add(address.into());
                }
                Ok(address @ IpAddr::V6(_)) => add(address),
                Err(_) => {}
            },
        },
        Value::Seq(items) => items.iter().for_each(|item| addresses(item, peers)),
        Value::Map(entries) => entries.iter().for_each(|(_, node)| addresses(node, peers)),
        _ => {}
    }
}
