//! SipHash-2-4 with 128 bits of output: a keyed hash that strangers cannot steer.
//!
//! Counters and remembered tokens are found by it. Whoever does not know the key can neither make
//! two inputs meet nor learn anything from what is found. Not for passwords or API keys, which
//! outlive the key.

/// A hash in progress.
#[derive(Clone, Debug)]
pub(crate) struct Sip {
    v: [u64; 4],
    /// Bytes not yet absorbed, the first in the lowest position.
    tail: u64,
    tail_bytes: u32,
    length: u8,
}

impl Sip {
    pub(crate) fn new([k0, k1]: [u64; 2]) -> Self {
        let v = [
            k0 ^ 0x736f_6d65_7073_6575,
            // 0xee marks the 128-bit variant.
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Self { v, tail: 0, tail_bytes: 0, length: 0 }
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) {
        // Only the length modulo 256 enters the hash.
        self.length = self.length.wrapping_add(bytes.len() as u8);
        while self.tail_bytes != 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            self.push(byte);
        }
        let (words, rest) = bytes.as_chunks::<8>();
        // Apart from `self`, so that it stays in registers: long texts are nearly all of the work.
        let mut v = self.v;
        for word in words {
            v = absorbed(v, u64::from_le_bytes(*word));
        }
        self.v = v;
        for &byte in rest {
            self.push(byte);
        }
    }

    /// Absorbs the text and its length, so that `ab`, `c` and `a`, `bc` differ.
    pub(crate) fn write_text(&mut self, text: &[u8]) {
        self.write(&(text.len() as u64).to_le_bytes());
        self.write(text);
    }

    pub(crate) fn finish(mut self) -> u128 {
        let last = u64::from(self.length) << 56 | self.tail;
        self.absorb(last);
        self.v[2] ^= 0xee;
        let low = self.squeeze();
        self.v[1] ^= 0xdd;
        let high = self.squeeze();
        u128::from(high) << 64 | u128::from(low)
    }

    fn push(&mut self, byte: u8) {
        self.tail |= u64::from(byte) << (8 * self.tail_bytes);
        self.tail_bytes += 1;
        if self.tail_bytes == 8 {
            let word = self.tail;
            (self.tail, self.tail_bytes) = (0, 0);
            self.absorb(word);
        }
    }

    fn absorb(&mut self, word: u64) {
        self.v = absorbed(self.v, word);
    }

    fn squeeze(&mut self) -> u64 {
        for _ in 0..4 {
            self.v = round(self.v);
        }
        let [a, b, c, d] = self.v;
        a ^ b ^ c ^ d
    }
}

#[inline]
fn absorbed(mut v: [u64; 4], word: u64) -> [u64; 4] {
    v[3] ^= word;
    v = round(round(v));
    v[0] ^= word;
    v
}

#[inline]
fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    fn hash(parts: &[&[u8]]) -> String {
        let mut sip = Sip::new(KEY);
        parts.iter().for_each(|part| sip.write(part));
        sip.finish().to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From the reference implementation: the key is 00 … 0f, the input 00, 01, ….
    #[test]
    fn known_answers() {
        assert_eq!(hash(&[]), "a3817f04ba25a8e66df67214c7550293");
        assert_eq!(hash(&[&[0]]), "da87c1d86b99af44347659119b22fc45");
        assert_eq!(hash(&[&[0, 1]]), "8177228da4a45dc7fca38bdef60affe4");
    }

    #[test]
    fn pieces_do_not_matter() {
        let text: Vec<u8> = (0..61).collect();
        let whole = hash(&[&text]);
        for cut in 0..text.len() {
            assert_eq!(hash(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
    }
}
