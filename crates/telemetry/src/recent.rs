//! What was decided about the requests of the last hour, by their ids: for `portcullis explain`.
//!
//! A bounded record in memory. It holds what the access log holds and which policies were asked, so
//! no query, header, body or credential is in it. Each worker appends to a ring of its own; whoever
//! looks takes a copy of what is being written and shares the rest, so that looking holds nobody
//! up.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digits::push_address;
use crate::timestamp::Stamp;

/// Older decisions are no longer shown, however much room there is.
pub const SHOWN_FOR: Duration = Duration::from_secs(3600);
/// What a ring grows and forgets by.
const PIECE_BYTES: usize = 64 << 10;
/// Longer texts are cut: an entry must not push out hundreds of others.
const TEXT_BYTES_MAX: usize = 255;
/// More policies than any route has. With it no entry is longer than a piece.
const ASKED_MAX: usize = 64;
/// A trusted hop may use one id for many requests.
const FOUND_MAX: usize = 10;

/// One decision, as a worker tells it.
#[derive(Debug)]
pub struct Decided<'a> {
    /// When the head was complete, since 1970-01-01T00:00:00Z.
    pub time: Duration,
    pub request_id: &'a [u8],
    pub client: IpAddr,
    /// `config@N`.
    pub config: &'a str,
    pub listener: &'a str,
    pub protocol: &'static str,
    pub method: &'a str,
    pub host: &'a [u8],
    /// Canonical, as it was matched.
    pub path: &'a [u8],
    pub route: Option<&'a str>,
    pub identity: Option<&'a str>,
    /// The backend it was sent to.
    pub backend: Option<&'a str>,
    /// Which of the route's variants it was, where there are several.
    pub variant: Option<&'a str>,
    /// What decided that: `when`, `sticky` or `weights`.
    pub picked_by: Option<&'static str>,
    /// The override whose weights those were.
    pub overridden_by: Option<u64>,
    /// The URL of the endpoint that answered, or that failed last.
    pub endpoint: Option<&'a str>,
    /// What was done to it on purpose.
    pub fault: Option<&'a str>,
    /// 0: the client was gone before there was one.
    pub status: u16,
    pub problem: Option<&'a str>,
    pub detail: Option<&'a str>,
}

/// The same, read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// RFC 3339.
    pub time: String,
    pub request_id: String,
    pub client: String,
    pub config: String,
    pub listener: String,
    pub protocol: String,
    pub method: String,
    pub host: String,
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picked_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden_by: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The policies that saw it, in order. The last one decided, unless it was sent on.
    pub asked: Vec<Asked>,
}

/// A policy that saw a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub phase: String,
    pub policy: String,
}

/// The record of all workers.
#[derive(Debug)]
pub struct Recent {
    rings: Vec<Mutex<Ring>>,
    pieces_max: usize,
}

#[derive(Debug, Default)]
struct Ring {
    /// Oldest first; none of them is written to again.
    full: VecDeque<Arc<Vec<u8>>>,
    current: Vec<u8>,
    /// The entry that is being written: how long it is shows at its end.
    entry: Vec<u8>,
}

impl Recent {
    /// `bytes_max` is for all workers together; 0 keeps nothing, and less than a piece for each
    /// worker is taken for a piece.
    #[must_use]
    pub fn new(workers: usize, bytes_max: usize) -> Self {
        let workers = if bytes_max == 0 { 0 } else { workers };
        let pieces_max = (bytes_max / PIECE_BYTES / workers.max(1)).max(1);
        Self { rings: (0..workers).map(|_| Mutex::default()).collect(), pieces_max }
    }

    fn ring(&self, worker: usize) -> Option<MutexGuard<'_, Ring>> {
        // An entry cut short by a panic would be passed over, as its length says how far it goes.
        self.rings.get(worker).map(|ring| ring.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a decision and the policies that saw the request, as (phase, name). Allocates only
    /// while the ring still grows.
    pub fn note<'a>(
        &self,
        worker: usize,
        decided: &Decided<'_>,
        asked: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    ) {
        let Some(mut ring) = self.ring(worker) else { return };
        let Ring { entry, .. } = &mut *ring;
        entry.clear();
        decided.write(entry, asked);
        ring.keep_entry(self.pieces_max);
    }

    /// The decisions about requests of this id in the last hour, the latest first.
    #[must_use]
    pub fn find(&self, request_id: &[u8], now: Duration) -> Vec<Found> {
        let mut found: Vec<(Duration, Found)> = Vec::new();
        for worker in 0..self.rings.len() {
            let Some(ring) = self.ring(worker) else { continue };
            let (full, current) = (ring.full.clone(), ring.current.clone());
            drop(ring);
            for piece in full.iter().map(|piece| piece.as_slice()).chain([current.as_slice()]) {
                found.extend(entries(piece).filter_map(|entry| read(entry, request_id, now)));
            }
        }
        found.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        found.into_iter().map(|(_, found)| found).take(FOUND_MAX).collect()
    }
}

impl Ring {
    /// Appends the entry, to a new piece where the current one cannot hold it.
    fn keep_entry(&mut self, pieces_max: usize) {
        if self.current.capacity() == 0 || self.current.len() + self.entry.len() > PIECE_BYTES {
            self.begin_piece(pieces_max);
        }
        self.current.extend_from_slice(&self.entry);
    }

    fn begin_piece(&mut self, pieces_max: usize) {
        let mut next = None;
        if self.full.len() + 1 >= pieces_max
            && let Some(oldest) = self.full.pop_front()
        {
            // Unless somebody reads it at this moment.
            next = Arc::into_inner(oldest);
        }
        let mut next = next.unwrap_or_else(|| Vec::with_capacity(PIECE_BYTES));
        next.clear();
        let full = std::mem::replace(&mut self.current, next);
        if !full.is_empty() && pieces_max > 1 {
            self.full.push_back(Arc::new(full));
        }
    }
}

impl Decided<'_> {
    /// Length of the rest in four bytes; id; time and status; texts, each after its length.
    fn write<'a>(
        &self,
        out: &mut Vec<u8>,
        asked: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    ) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        text(out, self.request_id);
        out.extend_from_slice(&(self.time.as_millis() as u64).to_le_bytes());
        out.extend_from_slice(&self.status.to_le_bytes());
        let client = out.len();
        out.push(0);
        push_address(out, self.client);
        out[client] = (out.len() - client - 1) as u8;
        for plain in [self.config, self.listener, self.protocol, self.method] {
            text(out, plain.as_bytes());
        }
        text(out, self.host);
        text(out, self.path);
        let sent = [self.route, self.identity, self.backend, self.endpoint];
        for maybe in sent.into_iter().chain([self.problem, self.detail]) {
            text(out, maybe.unwrap_or_default().as_bytes());
        }
        self.write_shift(out);
        out.push(asked.len().min(ASKED_MAX) as u8);
        for (phase, policy) in asked.take(ASKED_MAX) {
            text(out, phase.as_bytes());
            text(out, policy.as_bytes());
        }
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// What most requests have nothing of, after a byte that says so.
    fn write_shift(&self, out: &mut Vec<u8>) {
        let shifted = self.variant.is_some() || self.fault.is_some();
        out.push(u8::from(shifted));
        if shifted {
            for maybe in [self.variant, self.picked_by, self.fault] {
                text(out, maybe.unwrap_or_default().as_bytes());
            }
            // Revisions begin at 1.
            out.extend_from_slice(&self.overridden_by.unwrap_or_default().to_le_bytes());
        }
    }
}

/// A text after its length, cut where it is too long.
fn text(out: &mut Vec<u8>, text: &[u8]) {
    let kept = &text[..text.len().min(TEXT_BYTES_MAX)];
    out.push(kept.len() as u8);
    out.extend_from_slice(kept);
}

fn entries(mut piece: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = piece.split_first_chunk::<4>()?;
        let (entry, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        piece = rest;
        Some(entry)
    })
}

/// Takes an entry apart, from the front.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (number, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*number)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.byte()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    fn text(&mut self) -> Option<String> {
        self.bytes().map(|text| String::from_utf8_lossy(text).into_owned())
    }

    fn maybe(&mut self) -> Option<Option<String>> {
        self.text().map(|text| Some(text).filter(|text| !text.is_empty()))
    }
}

/// The entry, if it is about that id and not too old.
fn read(entry: &[u8], request_id: &[u8], now: Duration) -> Option<(Duration, Found)> {
    let mut parts = Parts(entry);
    let id = parts.bytes().filter(|id| *id == request_id)?;
    let time = Duration::from_millis(u64::from_le_bytes(parts.number()?));
    if now.saturating_sub(time) > SHOWN_FOR {
        return None;
    }
    let status = u16::from_le_bytes(parts.number()?);
    let mut found = Found {
        time: String::from_utf8_lossy(Stamp::default().text(time)).into_owned(),
        request_id: String::from_utf8_lossy(id).into_owned(),
        status,
        client: parts.text()?,
        config: parts.text()?,
        listener: parts.text()?,
        protocol: parts.text()?,
        method: parts.text()?,
        host: parts.text()?,
        path: parts.text()?,
        route: parts.maybe()?,
        identity: parts.maybe()?,
        backend: parts.maybe()?,
        endpoint: parts.maybe()?,
        problem: parts.maybe()?,
        detail: parts.maybe()?,
        variant: None,
        picked_by: None,
        overridden_by: None,
        fault: None,
        asked: Vec::new(),
    };
    if parts.byte()? != 0 {
        found.variant = parts.maybe()?;
        found.picked_by = parts.maybe()?;
        found.fault = parts.maybe()?;
        let revision = u64::from_le_bytes(parts.number()?);
        found.overridden_by = Some(revision).filter(|revision| *revision != 0);
    }
    for _ in 0..parts.byte()? {
        found.asked.push(Asked { phase: parts.text()?, policy: parts.text()? });
    }
    Some((time, found))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_795_512_600);

    fn decided(id: &[u8]) -> Decided<'_> {
        Decided {
            time: NOW,
            request_id: id,
            client: IpAddr::from([192, 0, 2, 7]),
            config: "config@7",
            listener: "https",
            protocol: "HTTP/1.1",
            method: "GET",
            host: b"api.example.com",
            path: b"/orders/1",
            route: Some("orders"),
            identity: Some("idp/shop"),
            backend: None,
            variant: None,
            picked_by: None,
            overridden_by: None,
            endpoint: None,
            fault: None,
            status: 403,
            problem: Some("insufficient-scope"),
            detail: Some("idp/shop lacks the scope `orders:read`"),
        }
    }

    const ASKED: [(&str, &str); 2] = [("authenticate", "auth"), ("authorise", "require")];

    #[test]
    fn a_decision_is_found_by_its_id() {
        let recent = Recent::new(2, 1 << 20);
        recent.note(0, &decided(b"a"), ASKED.into_iter());
        recent.note(1, &Decided { status: 200, ..decided(b"b") }, ASKED[..1].iter().copied());
        let found = recent.find(b"a", NOW);
        expect![[r#"
            [
              {
                "time": "2026-11-24T09:30:00.000Z",
                "request_id": "a",
                "client": "192.0.2.7",
                "config": "config@7",
                "listener": "https",
                "protocol": "HTTP/1.1",
                "method": "GET",
                "host": "api.example.com",
                "path": "/orders/1",
                "route": "orders",
                "identity": "idp/shop",
                "status": 403,
                "problem": "insufficient-scope",
                "detail": "idp/shop lacks the scope `orders:read`",
                "asked": [
                  {
                    "phase": "authenticate",
                    "policy": "auth"
                  },
                  {
                    "phase": "authorise",
                    "policy": "require"
                  }
                ]
              }
            ]"#]]
        .assert_eq(&serde_json::to_string_pretty(&found).unwrap());
        assert_eq!(recent.find(b"b", NOW)[0].asked.len(), 1);
        assert!(recent.find(b"c", NOW).is_empty());
        assert!(recent.find(b"", NOW).is_empty());
    }

    #[test]
    fn where_a_request_went_is_found_too() {
        let recent = Recent::new(1, 1 << 20);
        let forwarded = Decided {
            backend: Some("orders-v2"),
            variant: Some("canary"),
            picked_by: Some("sticky"),
            overridden_by: Some(300),
            endpoint: Some("http://10.0.0.2:8080"),
            fault: Some("delay"),
            status: 200,
            problem: None,
            detail: None,
            ..decided(b"a")
        };
        recent.note(0, &forwarded, ASKED.into_iter());
        let [found] = &recent.find(b"a", NOW)[..] else { panic!("one") };
        let said = (&found.variant, &found.picked_by, found.overridden_by, &found.endpoint);
        let text = |text: &str| Some(text.to_owned());
        let (variant, by, endpoint) =
            (text("canary"), text("sticky"), text("http://10.0.0.2:8080"));
        assert_eq!(said, (&variant, &by, Some(300), &endpoint));
        assert_eq!((&found.backend, &found.fault), (&text("orders-v2"), &text("delay")));
        assert_eq!((&found.problem, &found.detail, found.asked.len()), (&None, &None, 2));
    }

    #[test]
    fn it_is_forgotten_after_an_hour() {
        let recent = Recent::new(1, 1 << 20);
        recent.note(0, &decided(b"a"), ASKED.into_iter());
        assert_eq!(recent.find(b"a", NOW + SHOWN_FOR).len(), 1);
        assert_eq!(recent.find(b"a", NOW + SHOWN_FOR + Duration::from_millis(1)), []);
    }

    /// An id that a trusted hop chose may be that of many requests.
    #[test]
    fn the_latest_of_one_id_come_first() {
        let recent = Recent::new(1, 1 << 20);
        for second in 0..30 {
            let time = NOW + Duration::from_secs(second);
            recent.note(0, &Decided { time, ..decided(b"a") }, ASKED.into_iter());
        }
        let found = recent.find(b"a", NOW + Duration::from_secs(40));
        assert_eq!(found.len(), FOUND_MAX);
        assert_eq!(found[0].time, "2026-11-24T09:30:29.000Z");
    }

    /// What the manual of `recent_max` says.
    #[test]
    fn a_mebibyte_holds_four_thousand_decisions() {
        let recent = Recent::new(1, 1 << 20);
        for number in 0..50_000_u32 {
            let id = format!("{number:032x}");
            recent.note(0, &decided(id.as_bytes()), ASKED.into_iter());
        }
        let oldest = 50_000 - 4_000_u32;
        assert_eq!(recent.find(format!("{oldest:032x}").as_bytes(), NOW).len(), 1);
        let ring = recent.ring(0).unwrap();
        let full: usize = ring.full.iter().map(|piece| entries(piece).count()).sum();
        assert!(full < 5_000, "{full}");
    }

    /// The oldest go first, and the ring never holds more than it may.
    #[test]
    fn memory_is_bounded() {
        let pieces = 4;
        let recent = Recent::new(1, pieces * PIECE_BYTES);
        let long = "x".repeat(9 * TEXT_BYTES_MAX);
        let mut last = 0;
        for number in 0..20_000_u32 {
            let id = number.to_string();
            let decided = Decided { detail: Some(&long), ..decided(id.as_bytes()) };
            recent.note(0, &decided, ASKED.into_iter());
            last = number;
        }
        let ring = recent.ring(0).unwrap();
        let held: usize = ring.full.iter().map(|piece| piece.capacity()).sum();
        assert_eq!(held + ring.current.capacity(), pieces * PIECE_BYTES);
        drop(ring);
        assert!(recent.find(b"0", NOW).is_empty());
        let found = recent.find(last.to_string().as_bytes(), NOW);
        assert_eq!(found[0].detail.as_ref().map(String::len), Some(TEXT_BYTES_MAX));
    }

    #[test]
    fn it_can_be_off() {
        let recent = Recent::new(4, 0);
        recent.note(0, &decided(b"a"), ASKED.into_iter());
        assert!(recent.find(b"a", NOW).is_empty());
    }
}
