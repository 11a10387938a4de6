//! Blocks that no library would sign, made into signatures with the private key: RSA's two paddings
//! (RFC 8017 §9), and nearly them.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, digest};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};

use super::*;

/// Bytes of the modulus.
const LENGTH: usize = 256;
const SHA256_INFO: &[u8] = &[
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// RSA without padding.
struct Key {
    modulus: BigUint,
    /// RFC 8017 §A.1.2: both primes, `d` modulo each less one, and the inverse of the second one.
    primes: [BigUint; 2],
    exponents: [BigUint; 2],
    coefficient: BigUint,
}

impl Key {
    fn new() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let document: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let modulus = pair.public_key().modulus().big_endian_without_leading_zero().to_vec();
        // Within PKCS #8: version 0, n, e = 65537, d and the rest.
        let e = [2, 3, 1, 0, 1];
        let at = document.as_ref().windows(5).position(|bytes| bytes == e).unwrap() + e.len();
        let mut rest = &document.as_ref()[at..];
        let mut next = || {
            let (length, head) = match rest {
                [2, 0x82, high, low, ..] => (usize::from(*high) << 8 | usize::from(*low), 4),
                [2, 0x81, length, ..] => (usize::from(*length), 3),
                [2, length, ..] => (usize::from(*length), 2),
                _ => panic!("not a number"),
            };
            let number = BigUint::from_bytes_be(&rest[head..head + length]);
            rest = &rest[head + length..];
            number
        };
        let _d = next();
        let [primes, exponents] = [(); 2].map(|()| [next(), next()]);
        let modulus = BigUint::from_bytes_be(&modulus);
        assert_eq!(&primes[0] * &primes[1], modulus);
        Self { modulus, primes, exponents, coefficient: next() }
    }

    fn jwk(&self, algorithm: &str) -> Value {
        let n = encode(self.modulus.to_bytes_be());
        json!({ "kty": "RSA", "n": n, "e": "AQAB", "kid": "k", "alg": algorithm })
    }

    /// `block ^ d mod n`, by way of the primes.
    fn apply(&self, block: &[u8]) -> Vec<u8> {
        let block = BigUint::from_bytes_be(block);
        let [p, q] = &self.primes;
        let [dp, dq] = &self.exponents;
        let (first, second) = (block.modpow(dp, p), block.modpow(dq, q));
        let times = (&self.coefficient * (first + p - &second % p)) % p;
        let signature = (second + times * q).to_bytes_be();
        [vec![0; LENGTH - signature.len()], signature].concat()
    }
}

/// A block of PKCS #1 v1.5 with this for a `DigestInfo`.
fn block_of(info: &[u8]) -> Vec<u8> {
    [&[0, 1], &vec![0xff; LENGTH - 3 - info.len()][..], &[0], info].concat()
}

/// PKCS #1 v1.5 leaves no choice, and yet verifiers were found that read around what they expect:
/// each of these blocks is made into a signature with the private key.
#[test]
fn the_padding_is_exactly_that_of_pkcs1() {
    let raw = Key::new();
    let verifier = Verifier::new(&[raw.jwk("RS256")]);
    let text = message(&json!({ "alg": "RS256", "kid": "k" }));
    let hash = digest(&SHA256, text.as_bytes());
    let block = |mark: &[u8], fill: &dyn Fn(usize) -> u8, end: &[u8], info: &[u8], rest: &[u8]| {
        let tail = [end, info, hash.as_ref(), rest].concat();
        let filled = 256 - mark.len() - tail.len();
        let fill: Vec<u8> = (0..filled).map(fill).collect();
        [mark, &fill, &tail].concat()
    };
    let ff: &dyn Fn(usize) -> u8 = &|_| 0xff;
    let good = block(&[0, 1], ff, &[0], SHA256_INFO, &[]);
    let token = |block: &[u8]| format!("{text}.{}", encode(raw.apply(block)));
    assert_eq!(verifier.verify(&token(&good)), "idp/alice", "the private key is applied rightly");

    let without_null: Vec<u8> = [&[0x30, 0x2f, 0x30, 0x0b], &SHA256_INFO[4..15], &[4, 32]].concat();
    let long_form: Vec<u8> = [&[0x30, 0x81, 0x31], &SHA256_INFO[2..]].concat();
    let mut sha384_name = SHA256_INFO.to_vec();
    sha384_name[14] = 2;
    let mut other_hash = good.clone();
    other_hash[255] ^= 1;
    let short: &[&[u8]] = &[&[0xff; 7], &[0xff; 8]];
    let mut forged = vec![
        block(&[0, 2], ff, &[0], SHA256_INFO, &[]),
        block(&[1, 1], ff, &[0], SHA256_INFO, &[]),
        block(&[0, 0], ff, &[0], SHA256_INFO, &[]),
        block(&[0, 1], &|_| 0, &[0], SHA256_INFO, &[]),
        block(&[0, 1], &|at| if at == 9 { 0xfe } else { 0xff }, &[0], SHA256_INFO, &[]),
        block(&[0, 1], &|at| if at == 9 { 0 } else { 0xff }, &[0], SHA256_INFO, &[]),
        block(&[0, 1], ff, &[1], SHA256_INFO, &[]),
        block(&[0, 1], ff, &[], SHA256_INFO, &[]),
        block(&[0, 1], ff, &[0], &without_null, &[]),
        block(&[0, 1], ff, &[0], &long_form, &[]),
        block(&[0, 1], ff, &[0], &sha384_name, &[]),
        block(&[0, 1], ff, &[0], &[], &[]),
        other_hash,
    ];
    // Bleichenbacher's of 2006: what follows the hash is not looked at.
    for fill in short {
        let begun = [&[0, 1], *fill, &[0], SHA256_INFO, hash.as_ref()].concat();
        forged.push([begun.clone(), vec![0; 256 - begun.len()]].concat());
        forged.push([begun.clone(), vec![0x5a; 256 - begun.len()]].concat());
    }
    for rest in [&[0_u8][..], &[5, 0], &[0xff; 20]] {
        forged.push(block(&[0, 1], ff, &[0], SHA256_INFO, rest));
    }
    for block in forged {
        assert_eq!(verifier.verify(&token(&block)), NOT_GOOD, "{block:02x?}");
    }
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, content.len() as u8], content].concat()
}

/// The `DigestInfo` of a hash, with one of its five elements written in another way.
fn info(hash: &[u8], changed: usize, change: &Write) -> Vec<u8> {
    let element = |number: usize, tag: u8, content: &[u8]| match number == changed {
        true => change(tag, content),
        false => der(tag, content),
    };
    let name = element(2, 6, &SHA256_INFO[6..15]);
    let null = element(3, 5, &[]);
    let algorithm = element(1, 0x30, &[name, null].concat());
    let octets = element(4, 4, hash);
    element(0, 0x30, &[algorithm, octets].concat())
}

/// Writes an element of this tag and content.
type Write = dyn Fn(u8, &[u8]) -> Vec<u8>;

/// Other ways to write an element, most of which some reader of BER has taken for the same.
fn changes() -> Vec<Box<Write>> {
    let mut changes: Vec<Box<Write>> = Vec::new();
    // Lengths: how they begin, and that they go on with the real one.
    let lengths: &[(&[u8], bool)] = &[
        (&[0x81], true),
        (&[0x82, 0], true),
        (&[0x84, 0, 0, 0], true),
        (&[0x85, 1, 0, 0, 0], true),
        (&[0x89, 1, 0, 0, 0, 0, 0, 0, 0], true),
        (&[0x82], true),
        (&[0x84, 0x7f, 0xff, 0xff, 0xff], false),
        (&[0x84, 0x80, 0, 0, 0], false),
        (&[0x84, 0xff, 0xff, 0xff, 0xff], false),
        (&[0x85, 0xff, 0xff, 0xff, 0xff, 0xff], false),
        (&[0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], false),
        (&[0x80], false),
        (&[0xff], false),
    ];
    for (begin, goes_on) in lengths {
        changes.push(Box::new(move |tag, content| {
            let length = if *goes_on { vec![content.len() as u8] } else { Vec::new() };
            [&[tag], *begin, &length, content].concat()
        }));
    }
    for by in [1_u8, 0xff] {
        changes.push(Box::new(move |tag, content| {
            [&[tag, (content.len() as u8).wrapping_add(by)], content].concat()
        }));
    }
    // Of no length, with an end, without, and with something in it.
    for end in [&[0, 0][..], &[0], &[5, 0, 0, 0], &[0, 0, 0, 0], &[1, 0], &[2, 1, 0, 0, 0]] {
        changes.push(Box::new(move |tag, content| [&[tag, 0x80], content, end].concat()));
        changes.push(Box::new(move |tag, content| {
            [&[tag | 0x20, 0x80], &der(tag, content)[..], end].concat()
        }));
    }
    for flip in [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80] {
        changes.push(Box::new(move |tag, content| der(tag ^ flip, content)));
    }
    for more in [&[0][..], &[5, 0], &[0x30, 0], &[0x9f, 0xff, 0x7f, 0], &[0x25, 0x80, 0, 0]] {
        changes.push(Box::new(move |tag, content| der(tag, &[content, more].concat())));
        changes.push(Box::new(move |tag, content| der(tag, &[more, content].concat())));
        changes.push(Box::new(move |tag, content| [&der(tag, content), more].concat()));
        changes.push(Box::new(move |tag, content| [more, &der(tag, content)].concat()));
    }
    changes.push(Box::new(|_, _| Vec::new()));
    changes.push(Box::new(|_, _| vec![5, 0]));
    changes.push(Box::new(|tag, _| vec![tag]));
    changes.push(Box::new(|tag, _| vec![tag, 0]));
    changes.push(Box::new(|tag, content| [der(tag, content), der(tag, content)].concat()));
    changes.push(Box::new(|tag, content| der(0x30, &der(tag, content))));
    changes.push(Box::new(|tag, content| der(tag | 0x20, &der(tag, content))));
    for at in [0, usize::MAX] {
        changes.push(Box::new(move |tag, content| {
            let mut content = content.to_vec();
            let last = content.len().saturating_sub(1);
            content.get_mut(at.min(last)).into_iter().for_each(|byte| *byte ^= 1);
            der(tag, &content)
        }));
        changes.push(Box::new(move |tag, content| {
            let mut content = content.to_vec();
            if let Some(last) = content.len().checked_sub(1) {
                content.remove(at.min(last));
            }
            der(tag, &content)
        }));
    }
    changes
}

#[test]
fn a_digest_info_has_one_form() {
    let key = Key::new();
    let verifier = Verifier::new(&[key.jwk("RS256")]);
    let text = message(&json!({ "alg": "RS256", "kid": "k" }));
    let hash = digest(&SHA256, text.as_bytes());
    let good = info(hash.as_ref(), usize::MAX, &der);
    assert_eq!(good, [SHA256_INFO, hash.as_ref()].concat());
    let mut tried = std::collections::HashSet::from([good.clone()]);
    let token = |info: &[u8]| format!("{text}.{}", encode(key.apply(&block_of(info))));
    assert_eq!(verifier.verify(&token(&good)), "idp/alice");
    for changed in 0..5 {
        for change in changes() {
            let forged = info(hash.as_ref(), changed, &change);
            if tried.insert(forged.clone()) {
                assert_eq!(verifier.verify(&token(&forged)), NOT_GOOD, "{forged:02x?}");
            }
        }
    }
    assert!(tried.len() > 250, "{}", tried.len());
}

/// What a block of RSASSA-PSS (RFC 8017 §9.1.1) is made of; [`Pss::GOOD`] but for the changes.
#[derive(Clone, Copy)]
struct Pss<'a> {
    salt: &'a [u8],
    /// Before the hash of the message, where it is hashed again.
    zeros: [u8; 8],
    /// Before the salt, and between the two.
    padding: fn(usize) -> u8,
    mark: u8,
    mask: &'static Algorithm,
    /// What is changed of the block when all else is done: where, and which bits.
    flip: (usize, u8),
    trailer: u8,
}

impl Pss<'_> {
    const GOOD: Self = Self {
        salt: &[7; 32],
        zeros: [0; 8],
        padding: |_| 0,
        mark: 1,
        mask: &SHA256,
        flip: (0, 0),
        trailer: 0xbc,
    };

    fn block(&self, hash: &[u8]) -> Vec<u8> {
        let again = digest(&SHA256, &[&self.zeros, hash, self.salt].concat());
        let filled = LENGTH - 34 - self.salt.len();
        let mut block: Vec<u8> = (0..filled).map(self.padding).collect();
        block.extend([&[self.mark], self.salt].concat());
        let blocks = (0_u32..).flat_map(|count| {
            let seed = [again.as_ref(), &count.to_be_bytes()].concat();
            digest(self.mask, &seed).as_ref().to_vec()
        });
        block.iter_mut().zip(blocks).for_each(|(byte, mask)| *byte ^= mask);
        block[0] &= 0x7f;
        block.extend([again.as_ref(), &[self.trailer]].concat());
        let (at, bits) = self.flip;
        block[at] ^= bits;
        block
    }
}

/// RFC 7518 §3.5: the salt is as long as the hash, and the mask is made with the same hash.
#[test]
fn the_padding_is_exactly_that_of_pss() {
    let key = Key::new();
    let verifier = Verifier::new(&[key.jwk("PS256")]);
    let text = message(&json!({ "alg": "PS256", "kid": "k" }));
    let hash = digest(&SHA256, text.as_bytes());
    let seen = |pss: Pss<'_>, hash: &[u8]| {
        let signature = key.apply(&pss.block(hash));
        verifier.verify(&format!("{text}.{}", encode(signature)))
    };
    for salt in [[7; 32], [0; 32], [0xff; 32]] {
        assert_eq!(seen(Pss { salt: &salt, ..Pss::GOOD }, hash.as_ref()), "idp/alice");
    }
    let mut forged = Vec::new();
    let long = [7; 222];
    for length in [0, 1, 8, 20, 28, 31, 33, 48, 64, 222] {
        forged.push(Pss { salt: &long[..length], ..Pss::GOOD });
    }
    for at in [0, 7] {
        let mut zeros = [0; 8];
        zeros[at] = 1;
        forged.push(Pss { zeros, ..Pss::GOOD });
    }
    let paddings: [fn(usize) -> u8; 4] =
        [|at| u8::from(at == 1), |at| u8::from(at == 189), |_| 1, |at| (at > 100).into()];
    forged.extend(paddings.map(|padding| Pss { padding, ..Pss::GOOD }));
    forged.extend([0, 2, 0x81, 0xff].map(|mark| Pss { mark, ..Pss::GOOD }));
    forged.extend([0, 0xbb, 0xbd, 0xcc, 0x3c].map(|trailer| Pss { trailer, ..Pss::GOOD }));
    let masks = [&SHA1_FOR_LEGACY_USE_ONLY, &SHA384];
    forged.extend(masks.map(|mask| Pss { mask, ..Pss::GOOD }));
    // Of the masked part, of the salt in it, and of the hash.
    for at in [1, 100, 189, 190, 191, 222, 223, 230, 254] {
        forged.extend([1, 0x80].map(|bits| Pss { flip: (at, bits), ..Pss::GOOD }));
    }
    for (number, pss) in forged.into_iter().enumerate() {
        assert_eq!(seen(pss, hash.as_ref()), NOT_GOOD, "{number}");
    }
    for at in 0..32 {
        let mut other = hash.as_ref().to_vec();
        other[at] ^= 0x10;
        assert_eq!(seen(Pss::GOOD, &other), NOT_GOOD, "{at}");
    }
    assert_eq!(seen(Pss::GOOD, digest(&SHA384, text.as_bytes()).as_ref()), NOT_GOOD);
    assert_eq!(seen(Pss::GOOD, &[0; 32]), NOT_GOOD);
    assert_eq!(seen(Pss::GOOD, text.as_bytes()), NOT_GOOD);
}
