//! One audit from the first byte read to the last judgement: the table of contents of this crate.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::Config;
use portcullis_control::Upkeep;
use portcullis_core::services::Services;
use portcullis_proxy::{Clock, Gateway, Options as Running, World};
use portcullis_telemetry::metrics::Registry as Metrics;
use rustls::ClientConfig;

use crate::backend::StubBackend;
use crate::certificates;
use crate::forge::Forged;
use crate::judge::{Came, Due, Site, Wrong, finding, is_worth_a_look, judge};
use crate::plan::{Planned, Planner, Probe};
use crate::prepare::{Prepared, could_not, prepare};
use crate::report::{Report, Writer};
use crate::send::{Answer, Lane, Parcel, Presented, Protocol, Roads, Sender};
use crate::world::Unlimited;
use crate::{AuditError, Options, Subject, login, moment, stage};

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
    let (mut began, mut clock) = (wall, Clock::real());
    let mut prepared = prepare(subject, options.quick, |config| {
        began = moment::choose(config, wall);
        clock = Clock::beginning(began);
        clock.clone()
    })?;
    let started = clock.mono();
    let backend = StubBackend::start().map_err(could_not)?;
    let mut staged = prepared.config.clone();
    stage::set(&mut staged, backend.address);
    let served = prepared.compile(&staged)?;
    let pages = Arc::new(std::mem::take(&mut prepared.pages));
    let world = World::new(clock.clone(), pages, Arc::new(Unlimited));
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

    let Prepared { config, places, mut planner, identities, .. } = prepared;
    let roads: Rc<dyn Roads> = Rc::new(Inside::new(&gateway, &config, &identities)?);
    let logged_in = get_ready(&mut planner, &roads).await;
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
    if began != wall {
        report.took_place(began);
    }
    Ok(report.finish(sent.dues.len(), clock.mono().saturating_sub(started)))
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
pub(crate) struct Sent {
    pub(crate) dues: Vec<Due>,
    pub(crate) answers: Vec<Answer>,
}

/// What has to happen before any probe is sent. Gives logins that had to fail and did not, by the
/// index of a route.
async fn get_ready(planner: &mut Planner, roads: &Rc<dyn Roads>) -> Vec<(usize, String)> {
    let mut done: HashMap<*const Result<Forged, String>, Option<String>> = HashMap::new();
    let mut wrong = Vec::new();
    for index in 0..planner.kits.len() {
        let tools: Vec<_> = planner.kits[index].all().flatten().cloned().collect();
        for (name, forged) in tools {
            let Ok(made) = &*forged else { continue };
            let gap = match done.get(&Arc::as_ptr(&forged)) {
                Some(gap) => gap.clone(),
                None => {
                    let gap = log_in(made, index, planner, roads, &mut wrong).await;
                    let gap = gap.map(|reason| format!("`{name}`: {reason}"));
                    done.insert(Arc::as_ptr(&forged), gap.clone());
                    gap
                }
            };
            planner.gaps.entry(index).or_default().extend(gap);
        }
    }
    wrong
}

/// Goes through the logins of what one entry is tried with, and uses up what is good once. Gives
/// why that cannot be done.
async fn log_in(
    made: &Forged,
    index: usize,
    planner: &Planner,
    roads: &Rc<dyn Roads>,
    wrong: &mut Vec<(usize, String)>,
) -> Option<String> {
    let mut gap = None;
    for login in &made.logins {
        match login::run(login, index, planner, roads).await {
            Some(login::Outcome::NoSession(reason)) => {
                gap.get_or_insert(format!("no login: {reason}"));
            }
            Some(login::Outcome::Session(kind)) => wrong.push((index, kind)),
            None => {}
        }
    }
    for credential in &made.used {
        if let Some(reason) = login::spend(credential, index, planner, roads).await {
            gap.get_or_insert(reason);
        }
    }
    gap
}

pub(crate) async fn send_all(planner: &Planner, mut sender: Sender) -> Sent {
    let mut dues = Vec::new();
    for index in 0..planner.oracle.snapshot.routes.len() {
        for probe in planner.plan(index).probes {
            let number = dues.len() as u32;
            dues.push(Due::from(&probe.expect));
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
            let (due, answer) = (sent.dues[at], &sent.answers[at]);
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

pub(crate) fn describe(
    planner: &Planner,
    index: usize,
    probe: &Probe,
    wrong: Vec<Wrong>,
    report: &mut Writer<'_>,
) {
    let snapshot = &planner.oracle.snapshot;
    let listener = usize::from(probe.lane.listener);
    let site = Site {
        route: &snapshot.routes[index].name,
        listener: &snapshot.listeners[listener].name,
        connect: &planner.listeners[listener].connect,
        place: report.place(index),
    };
    for one in wrong {
        report.finding(index, finding(one, probe, &site));
    }
}
