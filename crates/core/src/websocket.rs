//! What the gateway has to know of WebSocket (RFC 6455): the handshake's key, and where frames end.
//! What is in a frame is not looked at.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How long a `Sec-WebSocket-Key` is: 16 bytes in base64.
const KEY_BYTES: usize = 24;

/// What a server appends to the key (RFC 6455 §1.3).
const GUID: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The opcode of a Close frame (RFC 6455 §5.2).
const CLOSE: u8 = 8;

/// Whether it is a `Sec-WebSocket-Key`: 16 bytes in base64 (RFC 6455 §4.1). Bits that encode
/// nothing may be set, as in that section's own example.
#[must_use]
pub fn is_key(key: &[u8]) -> bool {
    let Some(digits) = key.strip_suffix(b"==") else { return false };
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == KEY_BYTES && digits.iter().all(digit)
}

/// The `Sec-WebSocket-Accept` that belongs to a key (RFC 6455 §4.2.2), which [`is_key`] has seen;
/// what is longer than a key is cut.
#[must_use]
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let mut text = [0; KEY_BYTES + GUID.len()];
    let end = key.len().min(KEY_BYTES);
    text[..end].copy_from_slice(&key[..end]);
    text[end..end + GUID.len()].copy_from_slice(GUID);
    let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, &text[..end + GUID.len()]);
    let mut accept = [0; 28];
    let written = STANDARD.encode_slice(sum, &mut accept);
    debug_assert_eq!(written, Ok(28), "20 bytes are 28 digits");
    accept
}

/// A Close frame with a code (RFC 6455 §7.4.1) and no reason, and its length. A frame to a server
/// has a mask, a frame to a client has none.
#[must_use]
pub const fn close_frame(code: u16, mask: Option<[u8; 4]>) -> ([u8; 8], usize) {
    let [high, low] = code.to_be_bytes();
    match mask {
        None => ([0x80 | CLOSE, 2, high, low, 0, 0, 0, 0], 4),
        Some([a, b, c, d]) => ([0x80 | CLOSE, 0x80 | 2, a, b, c, d, high ^ a, low ^ b], 8),
    }
}

/// Follows the bytes of one direction, and knows where one frame ends and the next one begins.
///
/// It reads lengths and opcodes and judges nothing: whatever comes is counted as frames, and
/// whether they are good ones is between the two ends.
#[derive(Clone, Debug, Default)]
pub struct FrameTracker {
    /// Bytes read of the frame's head, which has 2 to 14; 0 between frames and in a payload.
    head: u8,
    /// How many the head has, once its second byte is there.
    head_end: u8,
    opcode: u8,
    /// Bytes of the payload still to come; while the head is read, what is known of its length.
    payload: u64,
    closed: bool,
}

impl FrameTracker {
    /// Follows the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[self.advance(rest)..];
        }
    }

    /// Whether a whole number of frames has passed.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        self.head == 0 && self.payload == 0
    }

    /// How many of the next bytes to pass for [`at_boundary`](Self::at_boundary) to hold: 0 where
    /// it does already, `None` where it does not after all of them. The tracker stays where it is.
    #[must_use]
    pub fn boundary_in(&self, bytes: &[u8]) -> Option<usize> {
        if self.at_boundary() {
            return Some(0);
        }
        let mut ahead = self.clone();
        let end = ahead.advance(bytes);
        ahead.at_boundary().then_some(end)
    }

    /// Whether a Close frame has passed, after which its sender sends nothing more (RFC 6455
    /// §5.5.1).
    #[must_use]
    pub const fn saw_close(&self) -> bool {
        self.closed
    }

    /// Follows up to the end of a frame, and says how many bytes that were.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        if self.payload == 0 || self.head > 0 {
            loop {
                let Some(&byte) = bytes.get(at) else { return at };
                at += 1;
                if self.head_byte(byte) {
                    break;
                }
            }
        }
        // What does not fit into a `usize` is longer than any slice.
        let left = usize::try_from(self.payload).unwrap_or(usize::MAX);
        let passed = left.min(bytes.len() - at);
        self.payload -= passed as u64;
        self.closed |= self.payload == 0 && self.opcode == CLOSE;
        at + passed
    }

    /// Reads one byte of a frame's head (RFC 6455 §5.2); true for the last one.
    fn head_byte(&mut self, byte: u8) -> bool {
        match self.head {
            0 => self.opcode = byte & 0x0f,
            1 => {
                let (length, more) = match byte & 0x7f {
                    126 => (0, 2),
                    127 => (0, 8),
                    length => (length, 0),
                };
                self.payload = u64::from(length);
                self.head_end = 2 + more + if byte & 0x80 == 0 { 0 } else { 4 };
            }
            // The length before the mask, both to be left out where the second byte said so.
            n if n < self.length_end() => self.payload = self.payload << 8 | u64::from(byte),
            _ => {}
        }
        self.head += 1;
        let last = self.head > 1 && self.head == self.head_end;
        if last {
            self.head = 0;
        }
        last
    }

    /// Where the head's length ends.
    const fn length_end(&self) -> u8 {
        match self.head_end {
            // 2 and 8 more bytes of length, with and without a mask; 6 is a mask alone.
            end @ (4 | 10) => end,
            end @ (8 | 14) => end - 4,
            _ => 2,
        }
    }
}

#[cfg(test)]
mod tests;
