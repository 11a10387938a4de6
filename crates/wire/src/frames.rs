//! HTTP/2 frames written exactly as a case says, right or wrong, and read as far as a verdict
//! needs them. Shares nothing with the library that the gateway uses.

use std::collections::{BTreeMap, BTreeSet};

use crate::escape::unescape_at;

/// What a client sends first (RFC 9113 §3.4), with SETTINGS that change nothing.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The acknowledgement of the gateway's SETTINGS.
pub const SETTINGS_ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";

const TYPES: [&str; 10] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
];

const FLAGS: [(&str, u8); 5] =
    [("-", 0), ("END_STREAM", 1), ("ACK", 1), ("END_HEADERS", 4), ("PADDED", 8)];

/// Appends the frame that a line says: `TYPE STREAM FLAGS PAYLOAD`.
///
/// FLAGS are joined by `+`, or `-`. A payload is text with escapes, but fields where a frame has
/// fields: `NAME=VALUE` is a literal that is not indexed, `&NAME=VALUE` one that is, `[62]*4000`
/// so many references to that entry. Before the fields of PUSH_PROMISE stands the stream that it
/// promises. A STREAM `odd` is 1 the first time, 3 the second time and so on; `next` begins at 3.
///
/// # Errors
/// What is wrong with the line.
pub fn encode(line: &str, index: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let mut parts = line.splitn(4, ' ');
    let mut part = |what: &str| parts.next().ok_or(format!("a frame's {what}"));
    let (name, stream, flags) = (part("type")?, part("stream")?, part("flags")?);
    let rest = part("payload").unwrap_or_default();
    let kind = TYPES.iter().position(|known| *known == name);
    let kind = kind.ok_or(format!("{name} is no type of frame"))? as u8;
    let mut bits = 0;
    for flag in flags.split('+') {
        let known = FLAGS.iter().find(|(name, _)| *name == flag);
        bits |= known.ok_or(format!("{flag} is no flag"))?.1;
    }
    let stream = match stream {
        "odd" => 2 * index as u32 + 1,
        "next" => 2 * index as u32 + 3,
        number => number.parse().map_err(|error| format!("{number}: {error}"))?,
    };
    let payload = match name {
        "HEADERS" | "CONTINUATION" => fields(rest, index)?,
        "PUSH_PROMISE" => {
            let (promised, rest) = rest.split_once(' ').ok_or("the promised stream")?;
            let promised: u32 = promised.parse().map_err(|error| format!("{error}"))?;
            [&promised.to_be_bytes()[..], &fields(rest, index)?].concat()
        }
        _ => unescape_at(rest, index)?,
    };
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, bits]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&payload);
    Ok(())
}

/// A block of fields (RFC 7541 §6), without Huffman codes.
fn fields(text: &str, index: usize) -> Result<Vec<u8>, String> {
    let mut block = Vec::new();
    for token in text.split(' ').filter(|token| !token.is_empty()) {
        if let Some(reference) = token.strip_prefix('[') {
            let (entry, times) = reference.split_once("]*").ok_or("[ENTRY]*TIMES")?;
            let entry: u8 = entry.parse().map_err(|error| format!("{entry}: {error}"))?;
            let times: usize = times.parse().map_err(|error| format!("{times}: {error}"))?;
            block.extend(std::iter::repeat_n(0x80 | entry, times));
            continue;
        }
        let (first, token) = match token.strip_prefix('&') {
            Some(token) => (0x40, token),
            None => (0, token),
        };
        let (name, value) = token.split_once('=').ok_or(format!("{token}: NAME=VALUE"))?;
        block.push(first);
        for text in [name, value] {
            let bytes = unescape_at(text, index)?;
            integer(bytes.len(), &mut block);
            block.extend_from_slice(&bytes);
        }
    }
    Ok(block)
}

/// A number with a prefix of seven bits (RFC 7541 §5.1).
fn integer(mut number: usize, out: &mut Vec<u8>) {
    if number < 0x7f {
        out.push(number as u8);
        return;
    }
    out.push(0x7f);
    number -= 0x7f;
    while number >= 0x80 {
        out.push(number as u8 & 0x7f | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// What a gateway has said on a connection of HTTP/2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The last status of each stream; 0 where it is written in a way not understood here.
    pub statuses: BTreeMap<u32, u16>,
    /// Streams whose answer is whole.
    pub ended: BTreeSet<u32>,
    /// Why streams were reset.
    pub resets: BTreeMap<u32, u32>,
    /// Why the connection ends.
    pub goaway: Option<u32>,
}

/// Reads whatever frames are whole.
#[must_use]
pub fn said(mut bytes: &[u8]) -> Said {
    let mut said = Said::default();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        bytes = rest;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let number = |at: usize| {
            let four = payload.get(at..at + 4).and_then(|four| four.try_into().ok());
            four.map_or(0, u32::from_be_bytes)
        };
        match head[3] {
            1 => {
                let block = payload.get(if head[4] & 0x20 == 0 { 0 } else { 5 }..);
                let last = said.statuses.entry(stream).or_default();
                if *last < 200 {
                    *last = status(block.unwrap_or_default());
                }
            }
            3 => drop(said.resets.insert(stream, number(0))),
            7 => said.goaway = Some(number(4)),
            _ => {}
        }
        if matches!(head[3], 0 | 1) && head[4] & 1 != 0 {
            said.ended.insert(stream);
        }
    }
    said
}

/// `:status`, which comes first.
fn status(block: &[u8]) -> u16 {
    let mut rest = block;
    // Updates of the table's size come before it.
    while let [0x20..0x3f, tail @ ..] = rest {
        rest = tail;
    }
    let text = match rest {
        [first, ..] if first & 0x80 != 0 => {
            return match first & 0x7f {
                8 => 200,
                9 => 204,
                10 => 206,
                11 => 304,
                12 => 400,
                13 => 404,
                14 => 500,
                _ => 0,
            };
        }
        [first, tail @ ..] if first & if first & 0x40 == 0 { 0x0f } else { 0x3f } != 0 => tail,
        [_, length, tail @ ..] => tail.get(usize::from(length & 0x7f)..).unwrap_or_default(),
        _ => return 0,
    };
    let [length, tail @ ..] = text else { return 0 };
    let text = tail.get(..usize::from(length & 0x7f)).unwrap_or_default();
    let digits = if length & 0x80 == 0 { text.to_vec() } else { huffman_digits(text) };
    std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The first three digits (RFC 7541, appendix B): `0` to `2` have five bits, the others six.
fn huffman_digits(text: &[u8]) -> Vec<u8> {
    let bits = |at: usize, count: usize| {
        (at..at + count).try_fold(0u8, |number, at| {
            let byte = text.get(at / 8)?;
            Some(number << 1 | byte >> (7 - at % 8) & 1)
        })
    };
    let (mut digits, mut at) = (Vec::new(), 0);
    while digits.len() < 3 {
        match (bits(at, 5), bits(at, 6)) {
            (Some(short @ 0..=2), _) => {
                digits.push(b'0' + short);
                at += 5;
            }
            (_, Some(long @ 0x19..=0x1f)) => {
                digits.push(b'3' + long - 0x19);
                at += 6;
            }
            _ => break,
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_frame() {
        let frame = |line: &str| {
            let mut out = Vec::new();
            encode(line, 3, &mut out).unwrap();
            out
        };
        assert_eq!(frame("DATA 1 END_STREAM a b"), b"\0\0\x03\0\x01\0\0\0\x01a b");
        assert_eq!(frame("RST_STREAM odd - \\0\\0\\0\\x08"), b"\0\0\x04\x03\0\0\0\0\x07\0\0\0\x08");
        let headers = frame("HEADERS 1 END_STREAM+END_HEADERS :path=/ &a=b [62]*2");
        assert_eq!(headers[..9], *b"\0\0\x10\x01\x05\0\0\0\x01");
        assert_eq!(headers[9..], *b"\0\x05:path\x01/\x40\x01a\x01b\xbe\xbe");
        assert_eq!(frame("PUSH_PROMISE 1 - 2 a=")[9..], *b"\0\0\0\x02\0\x01a\0");
        let mut out = Vec::new();
        integer(300, &mut out);
        assert_eq!(out, [0x7f, 0xad, 0x01]);
    }

    #[test]
    fn what_was_said_is_understood() {
        let mut bytes = SETTINGS_ACK.to_vec();
        bytes.extend_from_slice(b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x01\0\x01\0\0\0\x01x");
        // A literal with an indexed name, its value in Huffman codes: 403.
        bytes.extend_from_slice(b"\0\0\x05\x01\x05\0\0\0\x03\x48\x03403");
        bytes.extend_from_slice(b"\0\0\x05\x01\x05\0\0\0\x05\x08\x83\x68\x0c\xff");
        bytes.extend_from_slice(b"\0\0\x04\x03\0\0\0\0\x07\0\0\0\x07");
        bytes.extend_from_slice(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\x0b\0\0");
        let said = said(&bytes);
        assert_eq!(said.statuses.into_iter().collect::<Vec<_>>(), [(1, 200), (3, 403), (5, 403)]);
        assert_eq!(said.ended.into_iter().collect::<Vec<_>>(), [1, 3, 5]);
        assert_eq!((said.resets[&7], said.goaway), (7, Some(11)));
    }
}
