//! One frame (RFC 6455 §5.2), good or bad.

use std::fmt;

/// Opcodes.
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A frame, without its mask.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// FIN, the three reserved bits and the opcode.
    pub first: u8,
    pub payload: Vec<u8>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.payload[..self.payload.len().min(40)];
        let (first, length) = (self.first, self.payload.len());
        write!(f, "Frame({first:#04x}, {length} bytes: {})", shown.escape_ascii())
    }
}

impl Frame {
    /// The last frame, or the only one, of a message.
    #[must_use]
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { first: 0x80 | opcode, payload: payload.into() }
    }

    /// A frame after which the message goes on.
    #[must_use]
    pub fn fragment(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { first: opcode, payload: payload.into() }
    }

    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::new(TEXT, text)
    }

    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    #[must_use]
    pub const fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// The code of a Close frame that has one.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk().filter(|_| self.opcode() == CLOSE)?;
        Some(u16::from_be_bytes(*code))
    }

    /// Its bytes, with a mask or without.
    #[must_use]
    pub fn encode(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let bit = u8::from(mask.is_some()) << 7;
        let mut bytes = vec![self.first];
        match self.payload.len() {
            length @ 0..126 => bytes.push(bit | length as u8),
            length @ 126..0x1_0000 => {
                bytes.push(bit | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(bit | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.unwrap_or_default().iter().take(if mask.is_some() { 4 } else { 0 }));
        let start = bytes.len();
        bytes.extend(&self.payload);
        apply(mask.unwrap_or_default(), &mut bytes[start..]);
        bytes
    }

    /// The frame at the beginning of `bytes`, how long it is and whether it has a mask; `None`
    /// where that is only a part of it.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<(Self, usize, bool)> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let (length, rest) = match second & 0x7f {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*length), rest)
            }
            length => (u64::from(length), rest),
        };
        let masked = second & 0x80 != 0;
        let (mask, rest) = match masked {
            true => rest.split_first_chunk()?,
            false => (&[0; 4], rest),
        };
        let payload = rest.get(..usize::try_from(length).ok()?)?;
        let used = bytes.len() - rest.len() + payload.len();
        let mut payload = payload.to_vec();
        apply(*mask, &mut payload);
        Some((Self { first, payload }, used, masked))
    }
}

fn apply(mask: [u8; 4], payload: &mut [u8]) {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
