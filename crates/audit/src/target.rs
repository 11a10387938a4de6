//! An audit of a gateway that is running: what must be refused is sent to it, and nothing else.
//!
//! There is no stub backend behind it, so what reached a backend is read from the gateway's own
//! record of its decisions, by request id; or, without that, from the answers alone. Nobody signs
//! the credentials, so a gateway is not shown to tell an expired token of its issuer from a good
//! one: that is for the audit of its configuration.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{BindAddress, Config};
use portcullis_proxy::Clock;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

use crate::judge::{Due, Wrong};
use crate::plan::{Planned, Planner};
use crate::prepare::{Prepared, could_not, prepare};
use crate::report::{Report, Writer};
use crate::run::{Sent, describe, send_all};
use crate::send::{Answer, Lane, Protocol, Roads, Sender, connect};
use crate::{AuditError, Options, Subject};

/// Where a listener of the running gateway is.
#[derive(Clone, Debug)]
pub struct Target {
    pub https: bool,
    /// What stands in the URL: requests of routes that take any host name this one.
    pub host: String,
    pub address: SocketAddr,
}

/// What the gateway says it did with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// To a backend.
    pub forwarded: bool,
    pub identity: Option<String>,
}

/// The running gateway's record of its decisions.
pub trait Decisions {
    /// `None`: it does not know the request any more.
    fn find(&self, request_id: &str) -> Option<Decided>;
}

/// Audits a running gateway with this configuration. `roots` are whom its certificates are verified
/// by. Has to run in a [`tokio::task::LocalSet`].
///
/// # Errors
/// The configuration does not compile, has no listener at one of the targets, or the machine lacks
/// something.
pub async fn audit_target(
    subject: Subject<'_>,
    options: Options,
    targets: &[Target],
    decisions: Option<&dyn Decisions>,
    roots: Arc<RootCertStore>,
    wall: Duration,
) -> Result<Report, AuditError> {
    let clock = Clock::real();
    let started = clock.mono();
    let at = |_: &Config| Clock::beginning(wall);
    let Prepared { config, places, mut planner, .. } = prepare(subject, options.quick, at)?;
    let roads = Outside::new(targets, &config, &roots)?;
    planner.in_use = true;
    planner.keep_listeners(|listener| roads.targets[usize::from(listener)].is_some());
    name_hosts(&mut planner, &config, &roads);
    for (facts, target) in planner.listeners.iter_mut().zip(&roads.targets) {
        if let Some(target) = target {
            facts.connect = target.address.to_string();
        }
    }
    find_all(&roads).await?;
    let sent = send_all(&planner, Sender::new(Rc::new(roads))).await;
    let mut report = Writer::new(&planner.oracle, &config, places, options.quick);
    report.of_target();
    judge_all(&planner, &sent, decisions, &mut report);
    Ok(report.finish(sent.dues.len(), clock.mono().saturating_sub(started)))
}

/// Ways to listeners that somebody else has opened, by their number in the configuration.
struct Outside {
    targets: Vec<Option<Target>>,
    clients: [Arc<ClientConfig>; 2],
}

impl Outside {
    fn new(
        targets: &[Target],
        config: &Config,
        roots: &Arc<RootCertStore>,
    ) -> Result<Self, AuditError> {
        let mut found: Vec<Option<Target>> = vec![None; config.listeners.len()];
        for target in targets {
            let at = listener(target, config).ok_or_else(|| {
                let scheme = if target.https { "https" } else { "http" };
                could_not(format!("no listener is meant by {scheme}://{}", target.address))
            })?;
            found[at] = Some(target.clone());
        }
        let client = |http2: bool| -> Result<Arc<ClientConfig>, AuditError> {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let builder = ClientConfig::builder_with_provider(provider);
            let builder = builder.with_safe_default_protocol_versions().map_err(could_not)?;
            let builder = builder.with_root_certificates(Arc::clone(roots));
            let mut client = builder.with_no_client_auth();
            let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
            client.alpn_protocols = vec![protocol.to_vec()];
            Ok(Arc::new(client))
        };
        Ok(Self { targets: found, clients: [client(false)?, client(true)?] })
    }
}

/// The listener that a URL means: the one on its port, or the only one that speaks so.
fn listener(target: &Target, config: &Config) -> Option<usize> {
    let speaks = |index: &usize| {
        let listener = &config.listeners[*index].value;
        listener.tls.is_some() == target.https && listener.redirect.is_none()
    };
    let all: Vec<usize> = (0..config.listeners.len()).filter(speaks).collect();
    let on_port = all.iter().copied().find(|index| {
        let bind = &config.listeners[*index].value.bind.value;
        matches!(bind, BindAddress::Tcp(address) if address.port() == target.address.port())
    });
    match (on_port, all.as_slice()) {
        (Some(index), _) => Some(index),
        (None, [only]) => Some(*only),
        (None, _) => None,
    }
}

impl Roads for Outside {
    fn address(&self, listener: u16) -> SocketAddr {
        let target = self.targets.get(usize::from(listener)).and_then(Option::as_ref);
        target.map_or(SocketAddr::from(([127, 0, 0, 1], 0)), |target| target.address)
    }

    fn tls(&self, lane: &Lane) -> Option<Arc<ClientConfig>> {
        let target = self.targets.get(usize::from(lane.listener)).and_then(Option::as_ref);
        let https = target.is_some_and(|target| target.https);
        https.then(|| Arc::clone(&self.clients[usize::from(lane.protocol == Protocol::H2)]))
    }

    fn introduces(&self) -> bool {
        false
    }
}

/// Whether there is somebody at all the targets: where nobody is, nobody is let in.
async fn find_all(roads: &Outside) -> Result<(), AuditError> {
    for (listener, target) in roads.targets.iter().enumerate() {
        let Some(target) = target else { continue };
        let lane = Lane {
            listener: listener as u16,
            protocol: Protocol::H1,
            peer: target.address.ip(),
            server_name: target.https.then(|| target.host.clone()),
            certificate: None,
        };
        connect(roads, &lane).await.map_err(|reason| {
            let scheme = if target.https { "https" } else { "http" };
            let Target { host, address, .. } = target;
            could_not(format!("no connection to {scheme}://{host} at {address}: {reason}"))
        })?;
    }
    Ok(())
}

/// Routes that take any host are asked for by the one in the URL.
fn name_hosts(planner: &mut Planner, config: &Config, roads: &Outside) {
    let written = config.routes.iter().flat_map(|route| &route.matches);
    let hosts: HashSet<String> =
        written.flat_map(|one| &one.hosts).map(|host| host.value.to_ascii_lowercase()).collect();
    let is_written = |host: &str| {
        let mut suffixes = host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..]));
        hosts.contains(host) || suffixes.any(|suffix| hosts.contains(&suffix))
    };
    for example in planner.oracle.examples.iter_mut().flatten() {
        let target = roads.targets.get(usize::from(example.listener)).and_then(Option::as_ref);
        if let Some(target) = target.filter(|_| !is_written(&example.host)) {
            example.host.clone_from(&target.host);
        }
    }
}

fn judge_all(
    planner: &Planner,
    sent: &Sent,
    decisions: Option<&dyn Decisions>,
    report: &mut Writer<'_>,
) {
    let mut at = 0;
    for index in 0..planner.oracle.snapshot.routes.len() {
        let Planned { probes, gaps, .. } = planner.plan(index);
        report.route(index, &gaps, Vec::new());
        // By listener and version: whether somebody said no, and not only hung up.
        let mut said: HashMap<(u16, &str), bool> = HashMap::new();
        for probe in &probes {
            let (due, answer) = (sent.dues[at], &sent.answers[at]);
            at += 1;
            report.count(probe.kind);
            if matches!(due, Due::Open) {
                continue;
            }
            if probe.kind == "no credential" {
                let way = (probe.lane.listener, probe.lane.protocol.name());
                *said.entry(way).or_default() |= matches!(answer, Answer::Status { .. });
            }
            let decided = decisions.zip(request_id(answer)).and_then(|(all, id)| all.find(id));
            report.decided_by(decided.is_some());
            match judge(answer, decided.as_ref()) {
                Verdict::Refused => {}
                Verdict::Wrong(wrong) => describe(planner, index, probe, vec![wrong], report),
                // Of one bad credential the others say enough; of none there is no other.
                Verdict::NotSaid(why) if probe.kind == "no credential" => {
                    describe(planner, index, probe, vec![("not-refused-cleanly", why)], report);
                }
                Verdict::NotSaid(_) => report.inconclusive(),
            }
        }
        for ((listener, protocol), _) in said.into_iter().filter(|(_, said)| !said) {
            let name = &planner.oracle.snapshot.listeners[usize::from(listener)].name;
            let gap = format!("no request over {protocol} on `{name}` gets an answer");
            report.route(index, &[gap], Vec::new());
        }
    }
}

enum Verdict {
    Refused,
    Wrong(Wrong),
    /// It proves nothing: what came instead.
    NotSaid(String),
}

fn request_id(answer: &Answer) -> Option<&str> {
    match answer {
        Answer::Status { request_id, .. } => request_id.as_deref(),
        _ => None,
    }
}

fn judge(answer: &Answer, decided: Option<&Decided>) -> Verdict {
    let (status, problem) = match answer {
        Answer::Status { status, problem, .. } => (*status, problem.as_deref()),
        Answer::Closed | Answer::NotExpressible => return Verdict::Refused,
        Answer::Nothing => return Verdict::NotSaid("it got no answer".to_owned()),
    };
    if let Some(Decided { forwarded: true, identity }) = decided {
        let who = identity.as_deref().unwrap_or("nobody");
        let message = format!("the gateway sent it to a backend, as {who}; it got {status}");
        return Verdict::Wrong(("reached-backend", message));
    }
    match (status, problem, decided) {
        (429, _, _) => Verdict::NotSaid("it got 429: it was put off".to_owned()),
        // The gateway says so itself, in its record or in the form of its problems.
        (400..=499, _, Some(_)) | (400..=499, Some(_), _) => Verdict::Refused,
        (503, Some("keys-unavailable"), _) | (302 | 303, _, Some(_)) => Verdict::Refused,
        (200..=299, _, _) => Verdict::Wrong(("answered", format!("it got {status}"))),
        // By its status alone a backend may have given it.
        _ => Verdict::NotSaid(format!("it got {status}, perhaps from a backend")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, problem: Option<&str>, decided: Option<bool>) -> &'static str {
        let problem = problem.map(Box::from);
        let answer = Answer::Status { status, problem, request_id: None };
        let decided = decided.map(|forwarded| Decided { forwarded, identity: None });
        match judge(&answer, decided.as_ref()) {
            Verdict::Refused => "refused",
            Verdict::Wrong((code, _)) => code,
            Verdict::NotSaid(_) => "not said",
        }
    }

    #[test]
    fn the_gateways_own_word_counts_before_the_answer() {
        for (status, problem, decided, expected) in [
            (401, Some("credentials-missing"), None, "refused"),
            (401, Some("credentials-missing"), Some(false), "refused"),
            (401, None, Some(true), "reached-backend"),
            (404, None, None, "not said"),
            (404, None, Some(false), "refused"),
            (404, Some("no-route"), None, "refused"),
            (429, Some("authentication-slowed"), Some(false), "not said"),
            (503, Some("keys-unavailable"), None, "refused"),
            (502, None, None, "not said"),
            (200, None, None, "answered"),
            (302, None, None, "not said"),
        ] {
            assert_eq!(verdict(status, problem, decided), expected, "{status} {problem:?}");
        }
    }
}
