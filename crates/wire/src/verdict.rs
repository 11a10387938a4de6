//! The verdict on a gateway: from the exact bytes that reached the backend and what clients got.

use std::fmt;
use std::str::FromStr;

use crate::answers::{Answer, answers, find, methods};
use crate::case::Case;
use crate::check::Check;
use crate::frames::{Said, said};
use crate::models;

/// From best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Pass,
    /// Right, but weak: another class of status, or no answer at all.
    Warn,
    /// Something was passed on that should have been refused, and it has one reading.
    Lax,
    /// Dangerous, or a legal request was refused.
    Fail,
}

impl FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Pass, Self::Warn, Self::Lax, Self::Fail];
        all.into_iter().find(|one| one.to_string() == text).ok_or(format!("{text} is no verdict"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Lax => "LAX",
            Self::Fail => "FAIL",
        })
    }
}

/// What must come of a case, beside its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// 4xx, 501, 505 or the end of the connection, and nothing whole reaches the backend.
    BeRefused,
    /// Refused, or passed on with one reading.
    BeSafe,
    /// The request is right, and answered 2xx or 3xx.
    BePassedOn,
    /// Only what the checks say.
    Hold,
}

impl FromStr for Must {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "be refused" => Self::BeRefused,
            "be safe" => Self::BeSafe,
            "be passed on" => Self::BePassedOn,
            "hold" => Self::Hold,
            _ => return Err(format!("{text} is no must")),
        })
    }
}

/// One connection from the client's side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    pub h2: bool,
    pub sent: Vec<u8>,
    pub received: Vec<u8>,
    /// The gateway has closed or reset it.
    pub closed: bool,
}

impl Client {
    /// On a connection of HTTP/1.1.
    #[must_use]
    pub fn answers(&self) -> Vec<Answer> {
        if self.h2 { Vec::new() } else { answers(&self.received, &methods(&self.sent)) }
    }

    /// On a connection of HTTP/2.
    #[must_use]
    pub fn said(&self) -> Said {
        if self.h2 { said(&self.received) } else { Said::default() }
    }
}

/// All that a case brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What reached the backend: a stream for each connection that brought any bytes.
    pub streams: Vec<Vec<u8>>,
    /// In the order of their connections.
    pub clients: Vec<Client>,
}

impl Seen {
    pub(crate) fn answers(&self) -> Vec<Answer> {
        self.clients.iter().flat_map(Client::answers).collect()
    }

    pub(crate) fn statuses(&self) -> Vec<u16> {
        let of = |client: &Client| match client.h2 {
            true => client.said().statuses.into_values().collect(),
            false => client.answers().iter().map(|answer| answer.status).collect::<Vec<_>>(),
        };
        self.clients.iter().flat_map(of).collect()
    }

    /// Whether the last connection, or a stream of it, was ended by the gateway.
    fn ended(&self) -> bool {
        self.clients.last().is_some_and(|client| {
            let said = client.said();
            client.closed || !said.resets.is_empty() || said.goaway.is_some_and(|code| code != 0)
        })
    }
}

/// A request that reached the backend, as all readers see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forwarded {
    pub target: Vec<u8>,
    pub body: Vec<u8>,
    pub partial: bool,
    fields: models::FieldLines,
}

impl Forwarded {
    /// The values of all fields of that name.
    pub(crate) fn values(&self, name: &[u8]) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &value[..]).collect()
    }
}

fn forwarded(streams: &[Vec<u8>]) -> Result<Vec<Forwarded>, String> {
    let mut all = Vec::new();
    for stream in streams {
        let requests = models::one_reading(stream)?;
        for (request, fields) in requests.into_iter().zip(models::fields(stream)) {
            let models::Request { target, body, partial, .. } = request;
            all.push(Forwarded { target, body, partial, fields });
        }
    }
    Ok(all)
}

/// The verdict, and what it is for.
#[must_use]
pub fn judge(case: &Case, seen: &Seen) -> (Verdict, String) {
    let heads = match without_tunnel(case, &seen.streams) {
        Ok(heads) => heads,
        Err(fault) => return (Verdict::Fail, fault),
    };
    let requests = match forwarded(&heads) {
        Ok(requests) => requests,
        Err(fault) => return (Verdict::Fail, format!("ambiguous: {fault}")),
    };
    let (verdict, note) = match case.must {
        Must::BeRefused => refused(case, seen, &requests),
        Must::BeSafe => safe(seen),
        Must::BePassedOn => passed_on(seen),
        Must::Hold => (Verdict::Pass, "held".to_owned()),
    };
    let asked = verdict == Verdict::Pass
        && (case.must == Must::Hold || case.must != Must::BeRefused && !seen.streams.is_empty());
    let fault = case.checks.iter().filter(|_| asked).find_map(|c| c.fault(&requests, seen));
    match fault {
        Some(fault) => (if case.soft { Verdict::Warn } else { Verdict::Fail }, fault),
        None => (verdict, note),
    }
}

/// The streams, without what has to be in a tunnel: those bytes are not for HTTP.
fn without_tunnel(case: &Case, streams: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
    let tunnel = case.checks.iter().find_map(|check| match check {
        Check::Tunnel(bytes) => Some(bytes),
        _ => None,
    });
    let Some(tunnel) = tunnel else { return Ok(streams.to_vec()) };
    let [stream] = streams else { return Err(format!("{} connections", streams.len())) };
    let end = find(stream, b"\r\n\r\n").map_or(stream.len(), |end| end + 4);
    let (head, found) = stream.split_at(end);
    if found != tunnel {
        return Err(format!("in the tunnel: {}", found.escape_ascii()));
    }
    Ok(vec![head.to_vec()])
}

fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) || matches!(status, 501 | 505)
}

fn refused(case: &Case, seen: &Seen, requests: &[Forwarded]) -> (Verdict, String) {
    let status = seen.statuses().first().copied();
    let said = status.map_or("no answer".to_owned(), |status| status.to_string());
    if !seen.streams.is_empty() {
        let cut = !requests.is_empty() && requests.iter().all(|request| request.partial);
        if cut && (seen.ended() || status.is_some()) {
            let right = status.is_none_or(is_refusal);
            let verdict = if right { Verdict::Pass } else { Verdict::Warn };
            return (verdict, format!("a head was passed on, then cut off: {said}"));
        }
        let verdict = match (case.soft, case.critical) {
            (true, _) => Verdict::Warn,
            (_, true) => Verdict::Fail,
            _ => Verdict::Lax,
        };
        return (verdict, "accepted and passed on".to_owned());
    }
    let verdict = match status {
        Some(status) if is_refusal(status) => Verdict::Pass,
        Some(500..) => Verdict::Warn,
        Some(_) => Verdict::Fail,
        None if seen.ended() => Verdict::Pass,
        None => Verdict::Warn,
    };
    (verdict, format!("nothing passed on: {said}"))
}

fn safe(seen: &Seen) -> (Verdict, String) {
    if !seen.streams.is_empty() {
        return (Verdict::Pass, "passed on with one reading".to_owned());
    }
    let status = seen.statuses().first().copied();
    let verdict = match status {
        Some(status) if status >= 500 && !is_refusal(status) => Verdict::Warn,
        Some(200..300) => Verdict::Fail,
        None if !seen.ended() => Verdict::Warn,
        _ => Verdict::Pass,
    };
    (verdict, format!("nothing passed on: {status:?}"))
}

fn passed_on(seen: &Seen) -> (Verdict, String) {
    let status = seen.statuses().first().copied();
    let right = !seen.streams.is_empty() && matches!(status, Some(200..400));
    let verdict = if right { Verdict::Pass } else { Verdict::Fail };
    (verdict, format!("{} streams, answered {status:?}", seen.streams.len()))
}
