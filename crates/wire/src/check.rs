//! What may be asked of what reached the backend and of what the client got.

use std::str::FromStr;

use crate::answers::{Answer, find};
use crate::escape::unescape;
use crate::lenient_paths::read_as_admin;
use crate::verdict::{Forwarded, Seen};

/// One question. A request means one that reached the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// There is one request.
    OneRequest,
    /// The targets of all requests, in order.
    Targets(Vec<Vec<u8>>),
    /// The first request has one of these targets.
    Target(Vec<Vec<u8>>),
    /// The first request's target has no such text in it.
    TargetWithout(Vec<u8>),
    /// No request has this target.
    NoTarget(Vec<u8>),
    /// The first request's body.
    Body(Vec<u8>),
    /// Every request has this body.
    Bodies(Vec<u8>),
    /// The first request has one `Host`, and this one.
    Host(Vec<u8>),
    /// Every request has one such field, with this value.
    Field(Vec<u8>, Vec<u8>),
    /// No request has such a field.
    NoField(Vec<u8>),
    /// Such fields have no other value than this one.
    FieldOnly(Vec<u8>, Vec<u8>),
    /// The last element of `X-Forwarded-For` is the peer.
    PeerComesLast,
    /// No request has a path that some backend takes for `/admin`.
    NoAdmin,
    /// No request is whole.
    NoWholeRequest,
    /// How often this target occurs in whatever reached the backend.
    Reached(usize, usize, Vec<u8>),
    /// These bytes are in nothing that reached the backend, in capitals or not.
    BackendWithout(Vec<u8>),
    /// These bytes went through a tunnel, behind the one head that reached the backend.
    Tunnel(Vec<u8>),
    /// The statuses of all answers, in order.
    Statuses(Vec<u16>),
    NoStatus(u16),
    /// No answer is a whole 200.
    NoWholeOk,
    /// An answer that is whole is a 5xx.
    WholeOnlyIfRefused,
    /// The first answer has one framing.
    OneFraming,
    /// No client got these bytes.
    ClientWithout(Vec<u8>),
    /// No client got a CR without LF.
    NoBareReturn,
    /// The last connection was closed or answered.
    Ended,
    /// The last connection was closed.
    Closed,
    /// The stream of the last connection was reset.
    Reset(u16),
    /// The last connection, of HTTP/2, was told to go away.
    GoneAway,
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fixed = [
            ("one request", Self::OneRequest),
            ("no answer", Self::Statuses(Vec::new())),
            ("no body", Self::Bodies(Vec::new())),
            ("the peer comes last in X-Forwarded-For", Self::PeerComesLast),
            ("no path that anybody reads as /admin", Self::NoAdmin),
            ("no request that looks whole", Self::NoWholeRequest),
            ("no answer that is a whole 200", Self::NoWholeOk),
            ("a whole answer only of 5xx", Self::WholeOnlyIfRefused),
            ("one framing of the answer", Self::OneFraming),
            ("no bare CR to the client", Self::NoBareReturn),
            ("closed or answered", Self::Ended),
            ("closed", Self::Closed),
            ("GOAWAY", Self::GoneAway),
        ];
        if let Some((_, check)) = fixed.into_iter().find(|(words, _)| *words == text) {
            return Ok(check);
        }
        let (what, rest) = text.split_once(": ").ok_or(format!("nobody can tell: {text}"))?;
        let words = || rest.split(' ').map(unescape).collect::<Result<Vec<_>, _>>();
        let pair = || {
            let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
            Ok::<_, String>((unescape(name)?, unescape(value)?))
        };
        let numbers = || {
            let numbers = rest.split(' ').map(|word| word.parse().map_err(|_| word.to_owned()));
            numbers.collect::<Result<Vec<u16>, _>>()
        };
        Ok(match what {
            "targets" => Self::Targets(words()?),
            "target" => Self::Target(words()?),
            "no target with" => Self::TargetWithout(unescape(rest)?),
            "no request to" => Self::NoTarget(unescape(rest)?),
            "body" => Self::Body(unescape(rest)?),
            "host" => Self::Host(unescape(rest)?),
            "field" => pair().map(|(name, value)| Self::Field(name, value))?,
            "no field" => Self::NoField(unescape(rest)?),
            "no field but" => pair().map(|(name, value)| Self::FieldOnly(name, value))?,
            "reached" => {
                let usage = "LEAST..MOST TARGET";
                let (range, target) = rest.split_once(' ').ok_or(usage)?;
                let (least, most) = range.split_once("..").ok_or(usage)?;
                let number = |text: &str| text.parse().map_err(|_| usage.to_owned());
                Self::Reached(number(least)?, number(most)?, unescape(target)?)
            }
            "nothing to the backend of" => Self::BackendWithout(unescape(rest)?),
            "reset" => numbers().map(|all| Self::Reset(all[0]))?,
            "tunnel" => Self::Tunnel(unescape(rest)?),
            "statuses" => Self::Statuses(numbers()?),
            "no status" => numbers().map(|all| Self::NoStatus(all[0]))?,
            "nothing to the client of" => Self::ClientWithout(unescape(rest)?),
            _ => return Err(format!("nobody can tell: {what}")),
        })
    }
}

impl Check {
    /// What is wrong, or nothing.
    pub(crate) fn fault(&self, requests: &[Forwarded], seen: &Seen) -> Option<String> {
        let first = requests.first();
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let is_wrong = |wrong: bool, what: &str| wrong.then(|| what.to_owned());
        match self {
            Self::OneRequest => {
                (requests.len() != 1).then(|| format!("{} requests forwarded", requests.len()))
            }
            Self::Targets(targets) => {
                let found: Vec<_> = requests.iter().map(|request| request.target.clone()).collect();
                let shown: Vec<_> = found.iter().map(|target| show(target)).collect();
                (found != *targets).then(|| format!("targets {shown:?}"))
            }
            Self::Target(targets) => {
                let found = first.map(|request| &request.target[..]).unwrap_or_default();
                let fits = targets.iter().any(|target| target == found);
                (!fits).then(|| format!("target {}", show(found)))
            }
            Self::TargetWithout(text) => {
                let found = first.map(|request| &request.target[..]).unwrap_or_default();
                find(found, text).map(|_| format!("target {}", show(found)))
            }
            Self::NoTarget(target) => is_wrong(
                requests.iter().any(|request| request.target == *target),
                "part of a body became a request",
            ),
            Self::Body(body) => {
                let found = first.map(|request| &request.body[..]).unwrap_or_default();
                (first.is_none() || found != body).then(|| format!("body {}", show(found)))
            }
            Self::Bodies(body) => {
                let other = requests.iter().find(|request| request.body != *body)?;
                Some(format!("body {}", show(&other.body)))
            }
            Self::Host(host) => {
                let found = first.map(|request| request.values(b"host")).unwrap_or_default();
                let fits = matches!(&found[..], [one] if one.eq_ignore_ascii_case(host));
                (!fits).then(|| format!("{} hosts, {}", found.len(), show(&found.concat())))
            }
            Self::Field(name, value) => {
                let fits = |request: &Forwarded| request.values(name) == [&value[..]];
                let wrong = requests.is_empty() || !requests.iter().all(fits);
                wrong.then(|| format!("{} is not {}", show(name), show(value)))
            }
            Self::NoField(name) => {
                let has = requests.iter().any(|request| !request.values(name).is_empty());
                has.then(|| format!("{} forwarded", show(name)))
            }
            Self::FieldOnly(name, value) => {
                let values = requests.iter().flat_map(|request| request.values(name));
                let other = values.into_iter().find(|found| found != value)?;
                Some(format!("{}: {} forwarded", show(name), show(other)))
            }
            Self::PeerComesLast => requests.iter().find_map(|request| {
                let all = request.values(b"x-forwarded-for").join(&b','.to_owned());
                let last = all.rsplit(|byte| *byte == b',').next().unwrap_or_default();
                let last = last.trim_ascii();
                (last != b"127.0.0.1").then(|| format!("X-Forwarded-For ends in {}", show(last)))
            }),
            Self::NoAdmin => requests.iter().find_map(|request| {
                let read = read_as_admin(&request.target)?;
                Some(format!("{}, which somebody reads as {read}", show(&request.target)))
            }),
            Self::NoWholeRequest => is_wrong(
                requests.iter().any(|request| !request.partial),
                "a request that was cut off looks whole",
            ),
            Self::Reached(least, most, target) => {
                let line = [b" ", &target[..], b" HTTP/1.1"].concat();
                let occurs = |stream: &Vec<u8>| {
                    stream.windows(line.len()).filter(|part| *part == line).count()
                };
                let times = seen.streams.iter().map(occurs).sum();
                (!(*least..=*most).contains(&times))
                    .then(|| format!("{times} requests reached the backend"))
            }
            Self::Tunnel(_) => None,
            Self::BackendWithout(text) => {
                let text = text.to_ascii_lowercase();
                let has = |stream: &Vec<u8>| find(&stream.to_ascii_lowercase(), &text).is_some();
                is_wrong(seen.streams.iter().any(has), "the backend got what it must not see")
            }
            Self::Statuses(statuses) => {
                let found = seen.statuses();
                (found != *statuses).then(|| format!("statuses {found:?}"))
            }
            Self::NoStatus(status) => {
                is_wrong(seen.statuses().contains(status), "a status that nobody asked for")
            }
            Self::NoWholeOk => is_wrong(
                seen.answers().iter().any(|answer| answer.status == 200 && answer.whole),
                "an answer that was cut off looks whole",
            ),
            Self::WholeOnlyIfRefused => {
                let answers = seen.answers();
                let taken = |answer: &&Answer| answer.whole || answer.until_close;
                let wrong = answers.iter().filter(taken).find(|answer| answer.status < 500)?;
                Some(format!("passed on: {} {}", wrong.status, show(&wrong.body)))
            }
            Self::OneFraming => {
                let answers = seen.answers();
                let answer = answers.first().filter(|answer| answer.status < 500)?;
                let both = answer.field("content-length").is_some()
                    && answer.field("transfer-encoding").is_some();
                (both || answer.body != b"abc").then(|| show(&answer.head))
            }
            Self::ClientWithout(text) => is_wrong(
                seen.clients.iter().any(|client| find(&client.received, text).is_some()),
                "a client got what it must not see",
            ),
            Self::NoBareReturn => {
                let bare =
                    |bytes: &[u8]| bytes.windows(2).any(|two| two[0] == b'\r' && two[1] != b'\n');
                is_wrong(seen.clients.iter().any(|client| bare(&client.received)), "a bare CR")
            }
            Self::Ended => {
                let last = seen.clients.last()?;
                is_wrong(!last.closed && seen.statuses().is_empty(), "still open")
            }
            Self::Closed => is_wrong(!seen.clients.last()?.closed, "still open"),
            Self::Reset(stream) => {
                let said = seen.clients.last()?.said();
                is_wrong(!said.resets.contains_key(&u32::from(*stream)), "the stream is not reset")
            }
            Self::GoneAway => {
                let said = seen.clients.last()?.said();
                is_wrong(said.goaway.is_none(), "no GOAWAY")
            }
        }
    }
}
