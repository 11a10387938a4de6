//! Finding the first byte that may not stand where it stands, fast.

use portcullis_core::head::is_token_byte;

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_token_byte(byte as u8);
        byte += 1;
    }
    table
};

/// Where the token that begins at `from` ends.
#[inline]
pub(crate) fn token_end(input: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < input.len() && TOKEN[usize::from(input[at])] {
        at += 1;
    }
    at
}

/// Where the printable ASCII without space that begins at `from` ends.
#[inline]
pub(crate) fn visible_end(input: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = word(input, at) {
        // Below 0x21, above 0x7e: the lowest flagged byte is exact, those above it may not be.
        let low = word.wrapping_sub(ONES * 0x21) & !word & HIGH;
        let flags = low | equal(word, 0x7f) | (word & HIGH);
        if flags != 0 {
            return at + lowest(flags);
        }
        at += 8;
    }
    while at < input.len() && input[at].is_ascii_graphic() {
        at += 1;
    }
    at
}

/// Where the field content that begins at `from` ends: at a control byte other than a tab.
#[inline]
pub(crate) fn value_end(input: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = word(input, at) {
        let low = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let flags = low | equal(word, 0x7f);
        if flags == 0 {
            at += 8;
            continue;
        }
        at += lowest(flags);
        if input[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    while at < input.len() && (input[at] == b'\t' || (input[at] >= 0x20 && input[at] != 0x7f)) {
        at += 1;
    }
    at
}

#[inline]
fn word(input: &[u8], at: usize) -> Option<u64> {
    input.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Flags the bytes of `word` that equal `byte`; flags above the lowest one may be false.
#[inline]
const fn equal(word: u64, byte: u8) -> u64 {
    let difference = word ^ (ONES * byte as u64);
    difference.wrapping_sub(ONES) & !difference & HIGH
}

#[inline]
const fn lowest(flags: u64) -> usize {
    (flags.trailing_zeros() / 8) as usize
}

/// Without the spaces and tabs around it (RFC 9110 §5.6.3).
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(start) = text.iter().position(|byte| !blank(byte)) else { return &[] };
    let end = text.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests {
    use portcullis_core::head::is_field_byte;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_and_bytes_agree(
            text in prop::collection::vec(prop_oneof![9 => 0x20..=0xffu8, 1 => any::<u8>()], 0..64),
            from in 0usize..64,
        ) {
            let from = from.min(text.len());
            let plain = |fits: fn(u8) -> bool| {
                text[from..].iter().position(|byte| !fits(*byte)).map_or(text.len(), |at| from + at)
            };
            prop_assert_eq!(value_end(&text, from), plain(is_field_byte));
            prop_assert_eq!(token_end(&text, from), plain(is_token_byte));
            prop_assert_eq!(visible_end(&text, from), plain(|byte| byte.is_ascii_graphic()));
        }
    }

    #[test]
    fn blanks_are_trimmed_at_both_ends() {
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(trim(b" \t"), b"");
        assert_eq!(trim(b""), b"");
    }
}
