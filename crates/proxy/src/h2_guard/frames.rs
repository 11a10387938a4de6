//! The headers of frames, found in a stream of bytes (RFC 9113 §4.1).

use std::ops::ControlFlow;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// END_STREAM of DATA, ACK of SETTINGS and PING.
pub(super) const FLAG_FIRST: u8 = 1;
pub(super) const FLAG_END_HEADERS: u8 = 4;

/// A frame's header (RFC 9113 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) length: u32,
}

impl Frame {
    /// Of a frame whose size is fixed (RFC 9113 §6).
    pub(super) const fn has_right_size(self) -> bool {
        match self.kind {
            RST_STREAM | WINDOW_UPDATE => self.length == 4,
            PING => self.length == 8,
            PRIORITY => self.length == 5,
            SETTINGS if self.flags & FLAG_FIRST != 0 => self.length == 0,
            SETTINGS => self.length.is_multiple_of(6),
            _ => true,
        }
    }
}

const HEADER: usize = 9;

/// Finds the headers in bytes that come in any pieces.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The last header, and the first bytes of the payload where they matter.
    head: [u8; HEADER + 23],
    have: usize,
    /// Of the last frame's payload, still to come.
    left: u32,
}

impl Scanner {
    /// Shows each frame once its header is whole. Returns how many bytes lie before the frame that
    /// broke off, or all.
    pub(super) fn scan(
        &mut self,
        bytes: &[u8],
        mut show: impl FnMut(Frame, &[u8]) -> ControlFlow<()>,
    ) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let n = (bytes.len() - at).min(self.left as usize);
                self.left -= n as u32;
                at += n;
                continue;
            }
            let n = (self.wanted() - self.have).min(bytes.len() - at);
            self.head[self.have..self.have + n].copy_from_slice(&bytes[at..at + n]);
            self.have += n;
            at += n;
            if self.have < self.wanted() {
                continue;
            }
            let frame = self.frame();
            let payload = &self.head[HEADER..self.have];
            self.left = frame.length - payload.len() as u32;
            if show(frame, payload).is_break() {
                return at.saturating_sub(self.have);
            }
            self.have = 0;
        }
        bytes.len()
    }

    /// Whether the payload of such a frame is still coming.
    pub(super) fn is_within(&self, kind: u8) -> bool {
        self.left > 0 && self.frame().kind == kind
    }

    fn frame(&self) -> Frame {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3, ..] = self.head;
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        // The first bit is reserved.
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        Frame { kind, flags, stream, length }
    }

    /// How many bytes are kept: RST_STREAM with its code, GOAWAY with the beginning of its text.
    fn wanted(&self) -> usize {
        if self.have < HEADER {
            return HEADER;
        }
        let frame = self.frame();
        let kept = match frame.kind {
            RST_STREAM => 4,
            GOAWAY => self.head.len() - HEADER,
            _ => 0,
        };
        HEADER + kept.min(frame.length as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn frames_are_found_in_any_pieces() {
        let stream = [
            bytes(HEADERS, 4, b"some fields"),
            bytes(RST_STREAM, 0, &7_u32.to_be_bytes()),
            bytes(DATA, 0, &[3; 300]),
            bytes(RST_STREAM, 0, b"no"),
            bytes(GOAWAY, 0, &[5; 30]),
            bytes(0x77, 9, b""),
            bytes(PING, 1, &[6; 8]),
        ]
        .concat();
        let frame = |kind, flags, length, payload: &[u8]| {
            (Frame { kind, flags, stream: 1, length }, payload.to_vec())
        };
        let expected = [
            frame(HEADERS, 4, 11, b""),
            frame(RST_STREAM, 0, 4, b"\0\0\0\x07"),
            frame(DATA, 0, 300, b""),
            frame(RST_STREAM, 0, 2, b"no"),
            frame(GOAWAY, 0, 30, &[5; 23]),
            frame(0x77, 9, 0, b""),
            frame(PING, 1, 8, b""),
        ];
        for size in 1..=stream.len() {
            let (mut scanner, mut seen) = (Scanner::default(), Vec::new());
            for piece in stream.chunks(size) {
                let all = scanner.scan(piece, |frame, payload| {
                    seen.push((frame, payload.to_vec()));
                    ControlFlow::Continue(())
                });
                assert_eq!(all, piece.len());
            }
            assert_eq!(seen, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_precedes_the_frame_that_is_too_much_is_passed_on() {
        let ping = bytes(PING, 0, &[0; 8]);
        let stream = [bytes(DATA, 0, b"abc"), ping.clone(), ping].concat();
        let mut pings = 0;
        let passed = Scanner::default().scan(&stream, |frame, _| {
            pings += u32::from(frame.kind == PING);
            if pings > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(passed, 12 + 17);
    }
}
