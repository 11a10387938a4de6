//! Runs cases against a gateway in this process, and says what they brought about.

use std::net::SocketAddr;
use std::time::Duration;

use portcullis_testkit::{Client, Protocol, Request, Setup, TestGateway};
use portcullis_wire::case::{Case, Step};
use portcullis_wire::frames::{PREFACE, SETTINGS_ACK};
use portcullis_wire::verdict::{Seen, Verdict, judge};

use crate::client::RawClient;
use crate::recorder::Recorder;
use crate::relay::Relay;

/// The gateway as the documentation shows it, with the addresses of this run.
const CONFIGURATION: &str = include_str!("../../../../examples/wire.yaml");
const LISTENER: &str = "127.0.0.1:18080";
const BACKEND: &str = "127.0.0.1:18081";
const ROUTE: &str = "    to: recorder\n";

/// What the cases are run against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Portcullis,
    /// Reads the first line and relays bytes.
    Relay,
}

enum Target {
    Portcullis(Box<TestGateway>),
    Relay(Relay),
}

impl Target {
    async fn start(kind: Kind, backend: SocketAddr, upgrades: bool) -> Self {
        match kind {
            Kind::Portcullis => {
                let parts = [LISTENER, BACKEND, ROUTE];
                assert!(parts.iter().all(|part| CONFIGURATION.contains(part)));
                let upgrade = if upgrades { "    upgrade: [websocket]\n" } else { "" };
                let text = CONFIGURATION
                    .replace(LISTENER, "127.0.0.1:0")
                    .replace(BACKEND, &backend.to_string())
                    .replace(ROUTE, &[upgrade, ROUTE].concat());
                Self::Portcullis(Box::new(Setup::new(&text).start()))
            }
            Kind::Relay => Self::Relay(Relay::start(backend).await),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Portcullis(gateway) => gateway.address("plain"),
            Self::Relay(relay) => relay.address,
        }
    }

    /// Returns when whatever had reached the gateway has been handled.
    async fn settle(&self) {
        match self {
            Self::Portcullis(gateway) => gateway.settle().await,
            Self::Relay(relay) => relay.settle().await,
        }
    }

    fn advance(&self, by: Duration) {
        if let Self::Portcullis(gateway) = self {
            gateway.clock.advance(by);
        }
    }
}

struct Run {
    target: Target,
    recorder: Recorder,
    clients: Vec<RawClient>,
    crowd: Vec<RawClient>,
}

/// How often nothing may change before it is taken for granted that nothing will.
const CALM_ROUNDS: usize = 2;

impl Run {
    /// Lets everybody do what they can do, until nothing happens any more.
    async fn calm(&self) {
        let progress = || {
            let received: usize = self.clients.iter().map(RawClient::progress).sum();
            received + self.streams().iter().map(Vec::len).sum::<usize>()
        };
        let (mut calm, mut before) = (0, progress());
        while calm < CALM_ROUNDS {
            self.target.settle().await;
            let now = progress();
            calm = if now == before { calm + 1 } else { 0 };
            before = now;
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Connect => {
                self.calm().await;
                self.clients.push(RawClient::connect(self.target.address(), false).await);
            }
            Step::ConnectH2 => {
                let mut client = RawClient::connect(self.target.address(), true).await;
                client.send(PREFACE).await;
                self.clients.push(client);
                self.calm().await;
                self.last().send(SETTINGS_ACK).await;
            }
            Step::Send(bytes) => self.last().send(bytes).await,
            Step::Pause => self.calm().await,
            Step::HalfClose => self.last().half_close().await,
            Step::Advance(by) => {
                self.target.advance(*by);
                self.calm().await;
            }
            Step::Waits => {
                let seen = self.last().seen();
                if seen.closed || !seen.received.is_empty() {
                    return Err("the gateway did not wait".to_owned());
                }
            }
            Step::Release => self.recorder.release(),
            Step::Crowd(count) => {
                for _ in 0..*count {
                    let client = RawClient::connect(self.target.address(), false).await;
                    self.crowd.push(client);
                }
            }
        }
        Ok(())
    }

    /// What reached the backend, without what only asks how far the relay has got.
    fn streams(&self) -> Vec<Vec<u8>> {
        let mut streams = self.recorder.streams();
        streams.retain(|stream| !stream.starts_with(Relay::PING));
        streams
    }

    fn last(&mut self) -> &mut RawClient {
        self.clients.last_mut().expect("a case begins with a connection")
    }

    /// Whether the gateway serves others as if nothing had been.
    async fn serves_others(&self) -> bool {
        let Target::Portcullis(gateway) = &self.target else { return true };
        let mut client = Client::connect(gateway, Protocol::H1).await;
        let answer = client.send(Request::get("/probe")).await;
        answer.is_ok_and(|answer| answer.status == 200 && answer.text() == "to /probe\n")
    }
}

/// Runs one case against a fresh gateway and a fresh backend.
pub(crate) async fn run(case: &Case, kind: Kind) -> (Verdict, String) {
    let recorder = Recorder::start(&case.script).await;
    let target = Target::start(kind, recorder.address, case.upgrades).await;
    let mut run = Run { target, recorder, clients: Vec::new(), crowd: Vec::new() };
    for step in &case.steps {
        if let Err(fault) = run.step(step).await {
            return (Verdict::Fail, fault);
        }
    }
    let seen =
        Seen { streams: run.streams(), clients: run.clients.iter().map(RawClient::seen).collect() };
    let (verdict, note) = judge(case, &seen);
    let verdict = if run.serves_others().await { verdict } else { Verdict::Fail };
    let forwarded: Vec<_> = seen.streams.iter().map(|stream| shown(stream)).collect();
    let received: Vec<_> = seen.clients.iter().map(|client| shown(&client.received)).collect();
    (verdict, format!("{note}\n  forwarded {forwarded:?}\n  received {received:?}"))
}

/// As much of it as helps.
fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(300)].escape_ascii().to_string()
}

/// Runs all cases of a file, and panics over each whose verdict is not the one expected.
pub(crate) async fn all(cases: &[Case]) {
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in cases {
        let (verdict, note) = run(case, Kind::Portcullis).await;
        let wanted = case.accepted.as_ref().map_or(Verdict::Pass, |(verdict, _)| *verdict);
        if verdict != wanted {
            wrong.push(format!("{verdict} {} {}: {note}", case.id, case.title));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
