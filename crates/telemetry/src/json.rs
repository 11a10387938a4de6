//! JSON strings from bytes that strangers chose.
//!
//! Whatever goes in, one JSON string on one line comes out. Bytes that are not UTF-8 become U+FFFD.
//! Characters that could act on the terminal of whoever reads the log (controls, line separators,
//! direction marks) are escaped like quotes are.

use crate::digits::HEX;

/// A longer text is cut and ends in `…`, so that no client decides how large the log grows.
pub const TEXT_BYTES_MAX: usize = 2_048;

/// Appends `text` as a JSON string, with its quotes.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    if is_plain(text) {
        out.extend_from_slice(&text[..text.len().min(TEXT_BYTES_MAX)]);
        if text.len() > TEXT_BYTES_MAX {
            out.extend_from_slice("…".as_bytes());
        }
    } else if text.len() <= TEXT_BYTES_MAX {
        push_escaped(out, text);
    } else {
        push_escaped(out, &text[..char_start(text, TEXT_BYTES_MAX)]);
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}

/// The start of the character that stands at `at`, so that none is cut in two.
fn char_start(text: &[u8], at: usize) -> usize {
    let continues = |at: &usize| text[*at] & 0xc0 == 0x80;
    (at.saturating_sub(3)..=at).rev().find(|at| !continues(at)).unwrap_or(at)
}

fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let plain = plain_prefix(rest);
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        let Some(first) = rest.first() else { return };
        let taken = match first {
            b'"' | b'\\' => {
                out.extend_from_slice(&[b'\\', *first]);
                1
            }
            b'\n' => push_short(out, b'n'),
            b'\r' => push_short(out, b'r'),
            b'\t' => push_short(out, b't'),
            0..=0x7f => {
                push_unicode(out, u32::from(*first));
                1
            }
            _ => push_char(out, rest),
        };
        rest = &rest[taken..];
    }
}

fn push_short(out: &mut Vec<u8>, letter: u8) -> usize {
    out.extend_from_slice(&[b'\\', letter]);
    1
}

fn push_unicode(out: &mut Vec<u8>, code: u32) {
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(HEX[(code >> shift) as usize & 15]);
    }
}

/// Appends the character that a text begins with, which is not ASCII; says how many bytes it took.
fn push_char(out: &mut Vec<u8>, text: &[u8]) -> usize {
    let len = match text[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let bytes = text.get(..len);
    let decoded = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let Some(character) = decoded.and_then(|text| text.chars().next()) else {
        out.extend_from_slice(b"\\ufffd");
        return 1;
    };
    if acts_on_terminals(character) {
        push_unicode(out, u32::from(character));
    } else {
        out.extend_from_slice(&text[..len]);
    }
    len
}

/// C1 controls, line and paragraph separators, and what changes the direction of writing. All of
/// them lie in the basic plane, so one `\u` escape is enough.
const fn acts_on_terminals(character: char) -> bool {
    matches!(character,
        '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// How many bytes from the start need no escaping; eight are looked at at once.
fn plain_prefix(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return i * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8 + rest.iter().take_while(|byte| is_plain_byte(**byte)).count()
}

const fn is_plain_byte(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\')
}

/// Whether nothing needs escaping, as in nearly every text.
fn is_plain(text: &[u8]) -> bool {
    // What is left over is looked at together with what came before it.
    let Some(last) = text.last_chunk() else { return text.iter().all(|b| is_plain_byte(*b)) };
    let (words, _) = text.as_chunks();
    let is_plain = |word: &[u8; 8]| special_bytes(u64::from_le_bytes(*word)) == 0;
    words.iter().all(is_plain) && is_plain(last)
}

/// The high bit of each byte that is a control, a quote, a backslash, DEL or not ASCII. Bytes above
/// the lowest such one may be marked wrongly; the lowest one is right.
const fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES * 0x80;
    const fn below(word: u64, bound: u64) -> u64 {
        word.wrapping_sub(ONES * bound) & !word
    }
    const fn equal(word: u64, byte: u64) -> u64 {
        below(word ^ (ONES * byte), 1)
    }
    let special =
        word | below(word, 0x20) | equal(word, 0x22) | equal(word, 0x5c) | equal(word, 0x7f);
    special & HIGH
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn string(text: &[u8]) -> String {
        let mut out = Vec::new();
        push_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[track_caller]
    fn check(text: &[u8], expected: &Expect) {
        expected.assert_eq(&string(text));
    }

    #[test]
    fn quotes_and_controls_are_escaped() {
        check(
            b"a\"b\\c\r\n\t\0\x1b[31m\x7f",
            &expect![[r#""a\"b\\c\r\n\t\u0000\u001b[31m\u007f""#]],
        );
        check(
            "é\u{9b}31m\u{202e}\u{2028}😀".as_bytes(),
            &expect![[r#""é\u009b31m\u202e\u2028😀""#]],
        );
    }

    #[test]
    fn what_is_not_utf_8_is_marked_byte_by_byte() {
        check(
            b"\xff\xc3\xa9\xc3(\xed\xa0\x80\xf0\x9f",
            &expect![[r#""\ufffdé\ufffd(\ufffd\ufffd\ufffd\ufffd\ufffd""#]],
        );
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = "é".repeat(TEXT_BYTES_MAX);
        let text: String = serde_json::from_str(&string(long.as_bytes())).unwrap();
        assert_eq!(text, "é".repeat(TEXT_BYTES_MAX / 2) + "…");
        let plain = "a".repeat(TEXT_BYTES_MAX);
        assert_eq!(string(plain.as_bytes()), format!("\"{plain}\""));
        assert_eq!(string(format!("{plain}b").as_bytes()), format!("\"{plain}…\""));
        let odd = format!("x{long}");
        let text: String = serde_json::from_str(&string(odd.as_bytes())).unwrap();
        assert_eq!(text, format!("x{}…", "é".repeat(TEXT_BYTES_MAX / 2 - 1)));
    }

    proptest! {
        #[test]
        fn any_bytes_make_one_string_on_one_line(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let json = string(&text);
            prop_assert!(!json.contains(|c: char| c.is_control()), "{json:?}");
            let read: String = serde_json::from_str(&json).unwrap();
            // Both mark what is not UTF-8, though not always with the same number of marks.
            let wanted = String::from_utf8_lossy(&text);
            let plain = |text: &str| text.replace('\u{fffd}', "");
            prop_assert_eq!(plain(&read), plain(&wanted));
        }

        #[test]
        fn any_text_is_read_back_as_it_was(text: String) {
            prop_assume!(text.len() <= TEXT_BYTES_MAX);
            prop_assert_eq!(serde_json::from_str::<String>(&string(text.as_bytes())).unwrap(), text);
        }

        #[test]
        fn eight_at_once_find_the_same_byte_as_one_by_one(word in prop::array::uniform8(prop::sample::select(vec![0_u8, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x5b, 0x5c, 0x5d, 0x7e, 0x7f, 0x80, 0xff]))) {
            let plain = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\');
            let wanted = word.iter().take_while(|byte| plain(byte)).count();
            prop_assert_eq!(plain_prefix(&word), wanted);
            prop_assert_eq!(is_plain(&[b"a", &word[..]].concat()), wanted == 8);
        }
    }
}
