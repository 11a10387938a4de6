//! What became of the probes, held against what had to become of them.

use std::collections::HashMap;

use portcullis_core::path::{Canonical, PathRules, canonicalise, split_query};
use portcullis_core::planted;
use serde::Serialize;

use crate::backend::{Arrival, Arrivals};
use crate::plan::{Expect, Good, Probe, SPOOF};
use crate::send::{Answer, Protocol, UNSAID};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// One of [`CODES`].
    pub code: &'static str,
    pub route: String,
    pub listener: String,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    pub method: String,
    /// The path and query that were sent.
    pub target: String,
    /// Where the route is written.
    pub place: Option<Place>,
    /// What was tried: `expired`, `dot segment`.
    pub probe: String,
    /// What happened, as a sentence without its full stop.
    pub message: String,
    /// A line of shell that sends the request again.
    pub reproduce: String,
}

/// A line of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    pub file: String,
    /// Counted from 1.
    pub line: usize,
}

/// Every kind of finding, and what it means.
pub const CODES: &[(&str, &str)] = &[
    ("reached-backend", "A request without a good credential reached a backend"),
    ("answered", "A route answered a request without a good credential"),
    (
        "not-refused-cleanly",
        "A request without a good credential got an answer that proves nothing",
    ),
    ("good-refused", "A request with a good credential did not get through"),
    ("identity-not-told", "A backend was not told who is calling"),
    ("identity-spoofed", "A backend was told what the client said of itself"),
    ("credential-forwarded", "A backend saw the credential"),
    ("path-not-canonical", "A backend got a path that others may read otherwise"),
    ("logged-in", "A login came to a session that must not have"),
    ("unknown-arrival", "A backend got a request that the audit cannot place"),
];

/// A problem that is no opinion about the credential: whose key it is cannot be looked up again so
/// soon.
const KEYS_UNAVAILABLE: &str = "keys-unavailable";

/// What is wrong with one probe: a code and a message.
pub(crate) type Wrong = (&'static str, String);

/// What came to the backend, by probe.
pub(crate) struct Came {
    by_probe: HashMap<u32, Vec<Arrival>>,
    pub(crate) unknown: Vec<Arrival>,
    pub(crate) forgotten: usize,
}

impl From<Arrivals> for Came {
    fn from(arrivals: Arrivals) -> Self {
        let mut came =
            Self { by_probe: HashMap::new(), unknown: Vec::new(), forgotten: arrivals.forgotten };
        for arrival in arrivals.all {
            match arrival.probe {
                Some(probe) => came.by_probe.entry(probe).or_default().push(arrival),
                None => came.unknown.push(arrival),
            }
        }
        came
    }
}

impl Came {
    pub(crate) fn of(&self, probe: u32) -> &[Arrival] {
        self.by_probe.get(&probe).map(Vec::as_slice).unwrap_or_default()
    }
}

/// What is kept of an expectation until everything has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Through,
    Answered(u16),
    Refused(Option<u16>),
    Unrouted,
    Open,
}

impl From<&Expect> for Due {
    fn from(expect: &Expect) -> Self {
        match expect {
            Expect::Through(_) => Self::Through,
            Expect::Answered(status) => Self::Answered(*status),
            Expect::Refused(own) => Self::Refused(*own),
            Expect::Unrouted => Self::Unrouted,
            Expect::Open => Self::Open,
        }
    }
}

/// Whether anything has to be said about a probe. Cheap, since nearly always nothing has.
pub(crate) fn is_worth_a_look(
    due: Due,
    answer: &Answer,
    arrivals: &[Arrival],
    rules: &PathRules,
) -> bool {
    match due {
        Due::Through | Due::Answered(_) => true,
        Due::Open => arrivals.iter().any(|arrival| !is_canonical(arrival, rules)),
        Due::Refused(own) => !arrivals.is_empty() || !is_refusal(answer, own),
        Due::Unrouted => !arrivals.is_empty() || !is_refusal(answer, None),
    }
}

/// Judges one probe.
pub(crate) fn judge(
    probe: &Probe,
    answer: &Answer,
    arrivals: &[Arrival],
    rules: &PathRules,
) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    if *answer == Answer::NotExpressible {
        return wrong;
    }
    match &probe.expect {
        Expect::Through(good) => through(good, answer, arrivals, &mut wrong),
        Expect::Answered(status) => {
            if !matches!(answer, Answer::Status { status: got, .. } if got == status) {
                let message = format!("it got {}, not the route's own {status}", said(answer));
                wrong.push(("good-refused", message));
            }
        }
        Expect::Refused(_) | Expect::Unrouted => {
            let own = match probe.expect {
                Expect::Refused(own) => own,
                _ => None,
            };
            if let Some(arrival) = arrivals.first() {
                let identity = match arrival.all("portcullis-client").next() {
                    Some(client) => format!("as `{client}`"),
                    None => "without an identity".to_owned(),
                };
                let Arrival { method, target, .. } = arrival;
                let message = format!(
                    "the backend got `{method} {target}` {identity}; the client got {}",
                    said(answer)
                );
                wrong.push(("reached-backend", message));
            } else if !is_refusal(answer, own) {
                let (code, why) = match answer {
                    Answer::Status { status, .. } if own == Some(*status) => {
                        ("answered", ", the route's own answer")
                    }
                    Answer::Status { status: 200..=399, .. } => ("answered", ""),
                    _ => ("not-refused-cleanly", ", which is no refusal"),
                };
                wrong.push((code, format!("it got {}{why}", said(answer))));
            }
        }
        Expect::Open => {}
    }
    if let Some(arrival) = arrivals.iter().find(|arrival| !is_canonical(arrival, rules)) {
        let message = format!("the backend got the path `{}`", arrival.target);
        wrong.push(("path-not-canonical", message));
    }
    wrong
}

/// Whether the answer says no, for good. `own` is what the route answers by itself, to whom it lets
/// in.
fn is_refusal(answer: &Answer, own: Option<u16>) -> bool {
    match answer {
        Answer::Status { status, .. } if own == Some(*status) => false,
        Answer::Closed | Answer::NotExpressible => true,
        Answer::Nothing => false,
        Answer::Status { status: 429, .. } => false,
        Answer::Status { status: 400..=499, .. } => true,
        Answer::Status { status: 503, problem, .. } => {
            matches!(problem.as_deref(), Some(KEYS_UNAVAILABLE | UNSAID))
        }
        // The way to a login.
        Answer::Status { status: 302 | 303, .. } => true,
        Answer::Status { .. } => false,
    }
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Status { status, problem: Some(code), .. } if **code == *UNSAID => {
            status.to_string()
        }
        Answer::Nothing => "no answer".to_owned(),
        Answer::NotExpressible => "not sent".to_owned(),
        Answer::Closed => "a closed connection".to_owned(),
        Answer::Status { status, problem: Some(code), .. } => format!("{status} {code}"),
        Answer::Status { status, .. } => status.to_string(),
    }
}

fn through(good: &Good, answer: &Answer, arrivals: &[Arrival], wrong: &mut Vec<Wrong>) {
    let Some(arrival) = arrivals.first() else {
        wrong.push((
            "good-refused",
            format!("nothing reached the backend; it got {}", said(answer)),
        ));
        return;
    };
    let caller = &good.caller;
    let scopes = caller.scopes.join(" ");
    let told = [
        ("portcullis-auth", Some(&*good.auth)),
        ("portcullis-client", Some(&*caller.client)),
        ("portcullis-tenant", caller.tenant.as_deref()),
        ("portcullis-scopes", Some(&*scopes).filter(|scopes| !scopes.is_empty())),
    ];
    for (name, expected) in told {
        let has: Vec<&str> = arrival.all(name).collect();
        if has != expected.as_slice() {
            let expected = expected.map_or("nothing".to_owned(), |value| format!("`{value}`"));
            let message = format!("the backend was told {name} {has:?}, not {expected}");
            wrong.push(("identity-not-told", message));
        }
    }
    // Those after the first are copies for a mirror, which gets to see no more than the backend.
    for (name, value) in arrivals.iter().flat_map(|arrival| &arrival.fields) {
        if value.contains(SPOOF) {
            wrong.push(("identity-spoofed", format!("the backend got `{name}: {value}`")));
        }
        let leaked = good.secrets.iter().any(|secret| value.contains(secret.as_str()));
        if leaked && !good.forwarded {
            wrong.push(("credential-forwarded", format!("the backend got it in `{name}`")));
        }
    }
    let in_target = good.secrets.iter().any(|secret| arrival.target.contains(secret.as_str()));
    if in_target && !good.forwarded {
        wrong.push(("credential-forwarded", "the backend got it in the target".to_owned()));
    }
}

/// Whether everybody reads the path of what came in the same way. `rules` are those of its host.
fn is_canonical(arrival: &Arrival, rules: &PathRules) -> bool {
    let (path, _) = split_query(arrival.target.as_bytes());
    let canonical = planted::honestly(|| canonicalise(path, rules, &mut Vec::new()));
    canonical == Ok(Canonical::Unchanged)
}

/// Where a probe was sent.
pub(crate) struct Site<'a> {
    pub(crate) route: &'a str,
    pub(crate) listener: &'a str,
    /// The listener's address: that of the configuration, or of the gateway that runs.
    pub(crate) connect: &'a str,
    pub(crate) place: Option<Place>,
}

/// The finding as reports have it.
pub(crate) fn finding(wrong: Wrong, probe: &Probe, site: &Site<'_>) -> Finding {
    let (code, message) = wrong;
    let detail = match &*probe.detail {
        "" => String::new(),
        detail => format!(": {detail}"),
    };
    Finding {
        code,
        route: site.route.to_owned(),
        listener: site.listener.to_owned(),
        protocol: probe.lane.protocol.name(),
        method: probe.draft.method.clone(),
        target: probe.draft.target.clone(),
        place: site.place.clone(),
        probe: format!("{}{detail}", probe.kind),
        message,
        reproduce: probe.draft.curl(probe.lane.protocol == Protocol::H2, site.connect),
    }
}
