//! What the `h2` crate has no setting for: frames that cost a client nothing are counted beneath
//! it, by their headers, as they are read and written.
//!
//! A client over one of its budgets is read no further: [`crate::h2`] says good-bye to it with
//! `ENHANCE_YOUR_CALM`. Payloads are skipped by arithmetic, and nothing is kept but counters.

mod budget;
mod frames;

use std::cell::Cell;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use portcullis_snapshot::H2Frames;
use portcullis_telemetry::metrics::Bound;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::budget::Budget;
use self::frames::{
    CONTINUATION, DATA, FLAG_END_HEADERS, FLAG_FIRST, Frame, GOAWAY, HEADERS, PING, RST_STREAM,
    SETTINGS, Scanner,
};
use crate::h1::PREFACE;
use crate::io::Io;
use crate::wire::Wire;
use crate::worker::Worker;

/// Frames a minute that move nothing, beyond those that go with data: PRIORITY, WINDOW_UPDATE,
/// empty DATA, acknowledgements, types that nobody knows.
const IDLE_PER_MINUTE: u32 = 6_000;
/// So many more of them go with a request or with a piece of a body either way.
const IDLE_EARNED: u32 = 2;
/// A piece that is worth as much.
const PIECE_BYTES: u32 = 256;

/// What a client that is sent away may still say before it has read why.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// What the connection's task learns from the guard beneath it.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    reason: Cell<Option<Reason>>,
    head_since: Cell<Option<Duration>>,
    /// The last stream that came from the `h2` crate.
    accepted: Cell<u32>,
}

impl Alarm {
    /// Tells the guard of a stream, before anything is said on it. They come in order.
    pub(crate) fn accepted(&self, stream: u32) {
        self.accepted.set(stream);
    }

    /// Why the client is read no further.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.reason.get()
    }

    /// When the head began that is still incomplete, by the worker's coarse clock.
    pub(crate) fn head_since(&self) -> Option<Duration> {
        self.head_since.get()
    }
}

/// A client's connection beneath the `h2` crate.
pub(crate) struct Guard {
    /// Read already, to see what the connection speaks.
    prefix: Bytes,
    io: Io,
    worker: Rc<Worker>,
    alarm: Rc<Alarm>,
    /// Of the client's preface, still to come.
    preface: usize,
    read: Scanner,
    written: Scanner,
    received: Received,
    linger: usize,
}

impl Guard {
    pub(crate) fn new(worker: &Rc<Worker>, wire: Wire, limits: &H2Frames) -> Self {
        Self {
            prefix: Bytes::copy_from_slice(wire.inbox.bytes()),
            io: wire.io,
            worker: Rc::clone(worker),
            alarm: Rc::default(),
            preface: PREFACE.len(),
            read: Scanner::default(),
            written: Scanner::default(),
            received: Received::new(limits),
            linger: LINGER_BYTES_MAX,
        }
    }

    pub(crate) fn alarm(&self) -> Rc<Alarm> {
        Rc::clone(&self.alarm)
    }

    /// Looks at what has been read; returns how much of it may be passed on.
    fn look(&mut self, bytes: &[u8]) -> usize {
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        let now = self.worker.coarse_now();
        let received = &mut self.received;
        let mut fault = None;
        let passed = self.read.scan(&bytes[preface..], |frame, _| {
            fault = received.count(frame, now).err();
            match fault {
                None => ControlFlow::Continue(()),
                Some(_) => ControlFlow::Break(()),
            }
        });
        let began = std::mem::take(&mut received.began_head).then_some(now);
        self.alarm.head_since.set(match received.is_in_head || self.read.is_within(HEADERS) {
            true => began.or(self.alarm.head_since.get()),
            false => None,
        });
        if let Some(fault) = fault {
            self.end(fault);
        }
        preface + passed
    }

    /// Looks at what has been written.
    fn look_back(&mut self, bytes: &[u8]) {
        let now = self.worker.coarse_now();
        let (worker, received) = (&self.worker, &mut self.received);
        let mut exceeded = None;
        let all = self.written.scan(bytes, |frame, payload| {
            match frame.kind {
                // `h2` answers a head above its limit by itself, in the turn that brought it.
                HEADERS if frame.stream > self.alarm.accepted.get() => {
                    worker.metrics.bound(Bound::HeadBytesMax);
                }
                DATA | HEADERS => received.answered(frame),
                RST_STREAM => match code(payload) {
                    Some(Reason::REFUSED_STREAM) => worker.metrics.bound(Bound::StreamsMax),
                    // To provoke resets costs a client as little as to send them (CVE-2025-8671).
                    Some(reason) if is_of_the_client(reason) && !received.resets.spend(now) => {
                        exceeded = Some(Bound::ResetsPerMinute);
                    }
                    _ => {}
                },
                GOAWAY => {
                    if let Some((last, text)) = payload.split_first_chunk::<8>()
                        && code(&last[4..]) == Some(Reason::ENHANCE_YOUR_CALM)
                        && !text.is_empty()
                    {
                        exceeded = Some(bound_of(text));
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        debug_assert_eq!(all, bytes.len());
        if let Some(bound) = exceeded {
            self.end(Fault::Exceeds(bound));
        }
    }

    fn end(&self, fault: Fault) {
        let reason = match fault {
            Fault::Exceeds(_) => Reason::ENHANCE_YOUR_CALM,
            Fault::Wrong(reason) => reason,
        };
        if self.alarm.reason.replace(Some(reason)).is_some() {
            return;
        }
        if let Fault::Exceeds(bound) = fault {
            self.worker.metrics.bound(bound);
        }
    }
}

fn code(payload: &[u8]) -> Option<Reason> {
    payload.first_chunk::<4>().map(|code| u32::from_be_bytes(*code).into())
}

/// Whether a stream is reset for this reason over what the client did (RFC 9113 §7).
fn is_of_the_client(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PROTOCOL_ERROR
            | Reason::FLOW_CONTROL_ERROR
            | Reason::STREAM_CLOSED
            | Reason::FRAME_SIZE_ERROR
    )
}

/// Over what the `h2` crate has lost its calm; the beginning of the text of its good-bye says it.
fn bound_of(text: &[u8]) -> Bound {
    let bounds: [(&[u8], Bound); 4] = [
        (b"too_many_resets", Bound::ResetsPerMinute),
        (b"too_many_internal_resets", Bound::ResetsPerMinute),
        (b"too_many_continuations", Bound::ContinuationsMax),
        (b"header_list_way_too_large", Bound::HeadBytesMax),
    ];
    let known = bounds.into_iter().find(|(whole, _)| whole.starts_with(text));
    known.map_or(Bound::FramesMax, |(_, bound)| bound)
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        // The task that polls looks at the alarm right after: nobody has to be woken.
        if this.alarm.reason().is_some() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.prefix.is_empty() {
            ready!(AsyncRead::poll_read(Pin::new(&mut this.io), cx, buffer))?;
        } else {
            let n = this.prefix.len().min(buffer.remaining());
            buffer.put_slice(&this.prefix.split_to(n));
        }
        let passed = this.look(&buffer.filled()[before..]);
        if passed == 0 && this.alarm.reason().is_some() {
            buffer.set_filled(before);
            return Poll::Pending;
        }
        buffer.set_filled(before + passed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let n = ready!(self.io.poll_write(cx, bytes))?;
        self.look_back(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.io.poll_flush(cx)
    }

    /// Closes so that a client which is sent away in the middle of its talk can still read why: a
    /// close with unread input would reset the connection. One that is over a budget is waited for.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        ready!(this.io.poll_shutdown(cx))?;
        let mut discarded = [0; 4096];
        while this.linger > 0 {
            match this.io.poll_read(cx, &mut discarded) {
                Poll::Ready(Ok(n)) if n > 0 => this.linger = this.linger.saturating_sub(n),
                Poll::Pending if this.alarm.reason().is_some() => return Poll::Pending,
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Why a client is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Exceeds(Bound),
    Wrong(Reason),
}

/// What one connection has received, against what it may.
#[derive(Debug)]
struct Received {
    /// No frame so far.
    is_fresh: bool,
    resets: Budget,
    pings: Budget,
    settings: Budget,
    idle: Budget,
    continuations_max: u32,
    continuations: u32,
    began_head: bool,
    /// HEADERS without its end.
    is_in_head: bool,
}

impl Received {
    fn new(limits: &H2Frames) -> Self {
        Self {
            is_fresh: true,
            resets: Budget::per_minute(limits.resets_per_minute),
            pings: Budget::per_minute(limits.pings_per_minute),
            settings: Budget::per_minute(limits.settings_per_minute),
            idle: Budget::per_minute(IDLE_PER_MINUTE),
            continuations_max: limits.continuations_max,
            continuations: 0,
            began_head: false,
            is_in_head: false,
        }
    }

    /// A piece of an answer has been sent.
    fn answered(&mut self, frame: Frame) {
        // gRPC clients measure the round trip with a PING while they receive.
        self.pings.earn(1);
        if frame.length >= PIECE_BYTES {
            self.idle.earn(IDLE_EARNED);
        }
    }

    fn count(&mut self, frame: Frame, now: Duration) -> Result<(), Fault> {
        // These two the `h2` crate lets pass, or gives another name.
        if std::mem::take(&mut self.is_fresh)
            && (frame.kind, frame.flags & FLAG_FIRST) != (SETTINGS, 0)
        {
            return Err(Fault::Wrong(Reason::PROTOCOL_ERROR));
        }
        if !frame.has_right_size() {
            return Err(Fault::Wrong(Reason::FRAME_SIZE_ERROR));
        }
        let within = |room: bool, bound| if room { Ok(()) } else { Err(Fault::Exceeds(bound)) };
        let is_first = frame.flags & FLAG_FIRST != 0;
        match frame.kind {
            HEADERS => {
                self.continuations = 0;
                self.began_head = true;
                self.is_in_head = frame.flags & FLAG_END_HEADERS == 0;
                self.idle.earn(IDLE_EARNED);
                Ok(())
            }
            CONTINUATION => {
                self.continuations += 1;
                self.is_in_head = frame.flags & FLAG_END_HEADERS == 0;
                within(self.continuations <= self.continuations_max, Bound::ContinuationsMax)
            }
            DATA if frame.length > 0 || is_first => {
                if frame.length >= PIECE_BYTES {
                    self.idle.earn(IDLE_EARNED);
                }
                Ok(())
            }
            RST_STREAM => within(self.resets.spend(now), Bound::ResetsPerMinute),
            SETTINGS if !is_first => within(self.settings.spend(now), Bound::SettingsPerMinute),
            PING if !is_first => within(self.pings.spend(now), Bound::PingsPerMinute),
            _ => within(self.idle.spend(now), Bound::FramesMax),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::frames::{PRIORITY, WINDOW_UPDATE};
    use super::*;

    const LIMITS: H2Frames = H2Frames {
        resets_per_minute: 3,
        pings_per_minute: 2,
        settings_per_minute: 0,
        continuations_max: 1,
    };

    #[test]
    fn each_kind_has_its_own_bound() {
        let now = Duration::from_secs(5);
        let after = |kind: u8, flags: u8, length: u32| {
            let mut received = Received { is_fresh: false, ..Received::new(&LIMITS) };
            let frame = Frame { kind, flags, stream: 1, length };
            let mut count = 0;
            while count < 10_000 {
                if let Err(Fault::Exceeds(bound)) = received.count(frame, now) {
                    return Some((count, bound));
                }
                count += 1;
            }
            None
        };
        assert_eq!(after(RST_STREAM, 0, 4), Some((3, Bound::ResetsPerMinute)));
        assert_eq!(after(PING, 0, 8), Some((2, Bound::PingsPerMinute)));
        assert_eq!(after(SETTINGS, 0, 0), Some((0, Bound::SettingsPerMinute)));
        assert_eq!(after(CONTINUATION, 0, 100), Some((1, Bound::ContinuationsMax)));
        // Acknowledgements, PRIORITY, WINDOW_UPDATE, GOAWAY, unknown types, empty DATA.
        for (kind, flags, length) in [
            (PING, 1, 8),
            (SETTINGS, 1, 0),
            (PRIORITY, 0, 5),
            (WINDOW_UPDATE, 0, 4),
            (GOAWAY, 0, 8),
            (0x77, 0, 9),
            (DATA, 0, 0),
        ] {
            assert_eq!(after(kind, flags, length), Some((6_000, Bound::FramesMax)), "{kind}");
        }
        assert_eq!(after(HEADERS, 5, 20), None);
        assert_eq!(after(DATA, 0, 1), None);
        assert_eq!(after(DATA, 1, 0), None);
    }

    #[test]
    fn the_first_bytes_of_a_good_bye_say_what_it_is_about() {
        // As much of the texts of h2 0.4 as is kept.
        for (text, bound) in [
            (&b"too_many_resets"[..], Bound::ResetsPerMinute),
            (b"too_many_intern", Bound::ResetsPerMinute),
            (b"too_many_contin", Bound::ContinuationsMax),
            (b"header_list_way", Bound::HeadBytesMax),
            (b"too_many_data_f", Bound::FramesMax),
        ] {
            assert_eq!(bound_of(text), bound);
        }
    }

    #[test]
    fn windows_may_be_opened_for_what_is_sent() {
        let now = Duration::from_secs(5);
        let mut received = Received { is_fresh: false, ..Received::new(&LIMITS) };
        let update = Frame { kind: 8, flags: 0, stream: 1, length: 4 };
        for _ in 0..10_000 {
            // One piece down, both windows up.
            received.answered(Frame { kind: DATA, flags: 0, stream: 1, length: 1_000 });
            assert_eq!(received.count(update, now), Ok(()));
            assert_eq!(received.count(update, now), Ok(()));
        }
    }
}
