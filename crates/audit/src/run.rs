//! One audit from the first byte read to the last judgement: the table of contents of this crate.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{Config, Loaded, load};
use portcullis_control::Upkeep;
use portcullis_core::carry::Carry;
use portcullis_core::finding::Findings;
use portcullis_core::node::{Node, Value};
use portcullis_core::registry::Sources;
use portcullis_core::services::Services;
use portcullis_core::{Now, planted};
use portcullis_proxy::{Clock, Gateway, Options as Running, World};
use portcullis_snapshot::router::RoutePattern;
use portcullis_snapshot::{CompileContext, Snapshot, compile_with_patterns};
use portcullis_telemetry::metrics::Registry as Metrics;
use rustls::{ClientConfig, RootCertStore};

use crate::backend::StubBackend;
use crate::certificates;
use crate::forge::{Credential, Entry, Forged, Workshop, clients, forger};
use crate::judge::{Came, Due, Site, finding, is_worth_a_look, judge};
use crate::needs::{self, Needs};
use crate::oracle::Oracle;
use crate::plan::{Kit, ListenerFacts, Planned, Planner, Probe, Tools};
use crate::report::{Places, Report, Writer};
use crate::send::{Answer, Lane, Parcel, Presented, Protocol, Roads, Sender};
use crate::world::{Files, Pages, Unlimited};
use crate::{AuditError, Options, Subject, login, moment, stage};

/// Addresses that are nobody's (RFC 5737), for clients.
const NOBODIES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(203, 0, 113, 1)];
/// Less is no other time.
const STAYS: Duration = Duration::from_secs(60);
/// Addresses of clients that are tried for each route.
const PEERS_MAX: usize = 64;

fn could_not(error: impl std::fmt::Display) -> AuditError {
    AuditError::CouldNotRun(error.to_string())
}

/// Audits the configuration. `wall` is now, since 1970; where routes are closed at this time the
/// audit takes place at another. Has to run in a [`tokio::task::LocalSet`].
///
/// # Errors
/// The configuration does not compile, or the machine lacks something.
pub async fn audit(
    subject: Subject<'_>,
    options: Options,
    wall: Duration,
) -> Result<Report, AuditError> {
    let Subject { texts, files, registry, makers } = subject;
    let Loaded { config, sources, findings } = load(texts, &registry);
    let Some(config) = config else {
        return Err(AuditError::DoesNotCompile { findings, texts: sources });
    };
    let places = Places::new(&config, &sources);
    let clock = Clock::beginning(moment::choose(&config, wall));
    let (started, now) = (clock.mono(), clock.now());

    let mut workshop = Workshop::new(now.wall, &makers);
    let kits = kits(&config, &mut workshop);
    let demanded = clients::demanded(&config, &mut workshop).map_err(could_not)?;
    certificates::of_listeners(&config, files, &mut workshop.files).map_err(could_not)?;
    certificates::of_backends(&config, &mut workshop.files).map_err(could_not)?;
    for (reference, list) in std::mem::take(&mut workshop.lists) {
        let text = serde_json::Value::Array(list).to_string();
        workshop.files.insert(reference, text.into_bytes().into());
    }
    let Workshop { files: made, pages, beneath, identities, .. } = workshop;
    let files = Files { made, written: files };

    let roots = certificates::roots().map_err(could_not)?;
    let compiled = |config: &Config| compiled(config, &registry, &files, &roots, now);
    let does_not = |findings| AuditError::DoesNotCompile { findings, texts: sources.clone() };
    let (snapshot, patterns) = planted::honestly(|| compiled(&config)).map_err(does_not)?;
    let mut oracle = Oracle::new(snapshot, &patterns, now);
    oracle.certificates = clients::facts(&identities, now.wall);

    let backend = StubBackend::start().map_err(could_not)?;
    let mut staged = config.clone();
    stage::set(&mut staged, backend.address);
    let (served, _) = compiled(&staged).map_err(does_not)?;
    let world =
        World::new(clock.clone(), Arc::new(Pages { at: pages, beneath }), Arc::new(Unlimited));
    let running = Running {
        workers: options.workers,
        world,
        registry: Arc::new(Metrics::new(options.workers)),
        log: None,
        recent_bytes_max: 0,
    };
    let gateway = Gateway::start(running, served).map_err(could_not)?;
    let services: Rc<dyn Services> = Rc::new(gateway.world().clone());
    let upkeep = Upkeep::start(&gateway.snapshot(), &services);

    let mut planner = Planner {
        listeners: listeners(&config, &demanded),
        peers: peers(&config),
        open: HashMap::new(),
        login_gaps: HashMap::new(),
        quick: options.quick,
        negative_only: false,
        oracle,
        kits,
    };
    planner.find_open();
    planner.name_tenants(&config);
    let roads: Rc<dyn Roads> = Rc::new(Inside::new(&gateway, &config, &identities)?);
    let logged_in = log_in(&mut planner, &roads).await;
    let sent = send_all(&planner, Sender::new(roads)).await;

    drop((upkeep, services));
    // With its threads its connections end, so that what was on its way to the backend is there.
    gateway.stop();
    let came = Came::from(backend.finish());
    let mut report = Writer::new(&planner.oracle, &config, places, options.quick);
    for (index, kind) in logged_in {
        report.logged_in(index, &kind);
    }
    judge_all(&planner, &sent, &came, &mut report);
    if now.wall.abs_diff(wall) > STAYS {
        report.took_place(now.wall);
    }
    Ok(report.finish(sent.dues.len(), clock.mono().saturating_sub(started)))
}

fn compiled(
    config: &Config,
    registry: &portcullis_core::registry::Registry,
    sources: &dyn Sources,
    roots: &Arc<RootCertStore>,
    now: Now,
) -> Result<(Snapshot, Vec<RoutePattern>), Findings> {
    let mut findings = Findings::new();
    let mut with = CompileContext {
        findings: &mut findings,
        carry: &mut Carry::default(),
        sources,
        now,
        roots: Arc::clone(roots),
        seed: 1,
    };
    compile_with_patterns(config, registry, &mut with).ok_or(findings)
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

/// Ways to the listeners of a gateway in this process.
struct Inside {
    addresses: Vec<Option<SocketAddr>>,
    https: Vec<bool>,
    /// By certificate (none first) and protocol.
    clients: Vec<[Arc<ClientConfig>; 2]>,
}

impl Inside {
    fn new(
        gateway: &Gateway,
        config: &Config,
        identities: &[certificates::ClientIdentity],
    ) -> Result<Self, AuditError> {
        let mut clients = Vec::new();
        for identity in std::iter::once(None).chain(identities.iter().map(Some)) {
            let client = |http2| certificates::client(identity, http2).map_err(could_not);
            clients.push([client(false)?, client(true)?]);
        }
        let listeners = &config.listeners;
        Ok(Self {
            addresses: listeners.iter().map(|one| gateway.address(&one.name)).collect(),
            https: listeners.iter().map(|one| one.value.tls.is_some()).collect(),
            clients,
        })
    }
}

impl Roads for Inside {
    fn address(&self, listener: u16) -> SocketAddr {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        self.addresses.get(usize::from(listener)).copied().flatten().unwrap_or(nowhere)
    }

    fn tls(&self, lane: &Lane) -> Option<Arc<ClientConfig>> {
        let https = self.https.get(usize::from(lane.listener)).copied().unwrap_or_default();
        let number = |presented: Presented| presented.map_or(0, |number| number + 1);
        let pair = self.clients.get(number(lane.certificate))?;
        https.then(|| Arc::clone(&pair[usize::from(lane.protocol == Protocol::H2)]))
    }

    fn introduces(&self) -> bool {
        true
    }
}

/// What was sent, by the number of the probe.
struct Sent {
    /// The route it belongs to, and its place in the plan of that route.
    dues: Vec<(u32, u32, Due)>,
    answers: Vec<Answer>,
}

/// Goes through all logins. Gives those that had to fail and did not, by the index of a route.
async fn log_in(planner: &mut Planner, roads: &Rc<dyn Roads>) -> Vec<(usize, String)> {
    let mut done: HashMap<*const Result<Forged, String>, Option<String>> = HashMap::new();
    let mut wrong = Vec::new();
    for index in 0..planner.kits.len() {
        let tools: Vec<_> = planner.kits[index].all().flatten().cloned().collect();
        for (name, forged) in tools {
            let Ok(made) = &*forged else { continue };
            if made.logins.is_empty() {
                continue;
            }
            let gap = match done.get(&Arc::as_ptr(&forged)) {
                Some(gap) => gap.clone(),
                None => {
                    let mut gap = None;
                    for login in &made.logins {
                        match login::run(login, index, planner, roads).await {
                            Some(login::Outcome::NoSession(reason)) => {
                                gap.get_or_insert(format!("`{name}`: no login: {reason}"));
                            }
                            Some(login::Outcome::Session(kind)) => wrong.push((index, kind)),
                            None => {}
                        }
                    }
                    done.insert(Arc::as_ptr(&forged), gap.clone());
                    gap
                }
            };
            planner.login_gaps.entry(index).or_default().extend(gap);
        }
    }
    wrong
}

async fn send_all(planner: &Planner, mut sender: Sender) -> Sent {
    let mut dues = Vec::new();
    for index in 0..planner.oracle.snapshot.routes.len() {
        for (at, probe) in planner.plan(index).probes.into_iter().enumerate() {
            let number = dues.len() as u32;
            dues.push((index as u32, at as u32, Due::from(&probe.expect)));
            sender.send(&probe.lane, Parcel { probe: number, draft: probe.draft }).await;
        }
    }
    let mut answers = sender.finish().await;
    answers.resize(dues.len(), Answer::Nothing);
    Sent { dues, answers }
}

fn judge_all(planner: &Planner, sent: &Sent, came: &Came, report: &mut Writer<'_>) {
    let mut at = 0;
    for index in 0..planner.oracle.snapshot.routes.len() {
        let Planned { probes, gaps, shut } = planner.plan(index);
        report.route(index, &gaps, shut);
        for probe in &probes {
            let (due, answer) = (sent.dues[at].2, &sent.answers[at]);
            let arrivals = came.of(at as u32);
            let rules = planner.oracle.path_rules(&probe.lane, &probe.draft.authority);
            report.count(probe.kind);
            if is_worth_a_look(due, answer, arrivals, &rules) {
                let wrong = judge(probe, answer, arrivals, &rules);
                describe(planner, index, probe, wrong, report);
            }
            at += 1;
        }
    }
    report.unplaced(&came.unknown, came.forgotten);
}

fn describe(
    planner: &Planner,
    index: usize,
    probe: &Probe,
    wrong: Vec<crate::judge::Wrong>,
    report: &mut Writer<'_>,
) {
    let snapshot = &planner.oracle.snapshot;
    let listener = &snapshot.listeners[usize::from(probe.lane.listener)];
    let connect = listener.bind.to_string();
    let site = Site {
        route: &snapshot.routes[index].name,
        listener: &listener.name,
        connect: &connect,
        place: report.place(index),
    };
    for one in wrong {
        report.finding(index, finding(one, probe, &site));
    }
}
