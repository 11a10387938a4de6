//! Whether the time of a refusal tells how much of an API key was right.
//!
//! Three kinds of wrong key, of one length, in random order, made of any of the keys that there
//! are: another first byte of the secret, another last byte, and an id that nobody has. For each
//! pair Welch's t over
//! the times of a verification; below 4.5 in magnitude nothing can be told apart (the bound of
//! Goodwill and others, 2011, and of dudect). Of the slowest hundredth, which is what else the
//! machine does, nothing is counted. Not a test: it needs a machine that does nothing else.

#![expect(clippy::disallowed_types, reason = "it measures time")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use portcullis_core::auth::{Authenticator, Verify};
use portcullis_core::carry::Carry;
use portcullis_core::finding::Findings;
use portcullis_core::node::{Key, Node, SourceSpan, Value};
use portcullis_core::registry::{Compile, Site, Sources};
use portcullis_core::services::Offline;
use portcullis_core::{Exchange, Now};
use portcullis_policies::AUTH;
use portcullis_policies::auth::api_keys::{NewKey, generate};

const SAMPLES: usize = 100_000;
const WARM_UP: usize = 10_000;
/// Keys that are made at once.
const BLOCK: usize = 1_000;
const KEYS: usize = 1_000;
/// What ids and secrets are made of here, so that the kinds differ in nothing else.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID_CHARS: usize = 12;
const KINDS: [&str; 3] = ["wrong first byte", "wrong last byte", "unknown id"];
/// Of all samples, how many count.
const COUNTED: f64 = 0.99;
const BOUND: f64 = 4.5;

#[expect(clippy::print_stdout, reason = "what was measured is for whoever asked")]
fn main() -> anyhow::Result<()> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut keys: Vec<NewKey> = Vec::with_capacity(KEYS);
    for _ in 0..KEYS {
        let secret = std::array::from_fn(|_| random.below(256) as u8);
        let id = String::from_iter((0..ID_CHARS).map(|_| random.digit()));
        keys.push(generate(secret, &id, "acme")?);
    }
    let auth = authenticator(&keys)?;
    let mut samples = measure(&*auth, &keys)?;
    let mut all: Vec<f64> = samples.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let limit = all[(all.len() as f64 * COUNTED) as usize];
    for (kind, samples) in KINDS.iter().zip(&mut samples) {
        samples.retain(|sample| *sample < limit);
        let (mean, variance) = moments(samples);
        let deviation = variance.sqrt();
        println!("{kind:16}  {} samples, {mean:.1} ns, deviation {deviation:.1} ns", samples.len());
    }
    let mut worst: f64 = 0.0;
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let t = welch(&samples[one], &samples[other]);
        println!("{} against {}: t = {t:.2}", KINDS[one], KINDS[other]);
        worst = worst.max(t.abs());
    }
    println!("largest |t| = {worst:.2}; below {BOUND} they cannot be told apart");
    Ok(())
}

/// The times of so many refusals of each kind, in nanoseconds.
fn measure(auth: &dyn Authenticator, rights: &[NewKey]) -> anyhow::Result<[Vec<f64>; 3]> {
    let mut samples = [const { Vec::new() }; 3];
    let mut exchange = Exchange::default();
    let world = Offline { now: Now::default(), ..Offline::default() };
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for block in 0..(WARM_UP + SAMPLES * KINDS.len()) / BLOCK {
        // Made before any of them is used: what has just been written can be slower to read, and
        // each kind is written elsewhere.
        let mut keys = Vec::with_capacity(BLOCK);
        for _ in 0..BLOCK {
            let kind = random.below(KINDS.len());
            let right = &rights[random.below(rights.len())].text;
            keys.push((kind, wrong(right, kind, &mut random)));
        }
        for (kind, key) in keys {
            // The same memory each time, whatever the kind.
            exchange.request.fields.clear();
            exchange.request.fields.append(b"x-api-key", key.as_bytes());
            let begin = Instant::now();
            let verified = black_box(auth.verify(black_box(&exchange), &world));
            let time = begin.elapsed();
            ensure!(matches!(verified, Verify::Done(Err(_))), "{}: not refused", KINDS[kind]);
            if block >= WARM_UP / BLOCK {
                samples[kind].push(time.as_nanos() as f64);
            }
        }
    }
    Ok(samples)
}

/// A wrong key of a kind; each time another one.
fn wrong(right: &str, kind: usize, random: &mut Random) -> String {
    let secret = right.rfind('_').map_or(0, |at| at + 1);
    let others = match kind {
        0 => secret..secret + 1,
        1 => right.len() - 1..right.len(),
        // So many that no other key can have the id.
        _ => secret - 1 - ID_CHARS..secret - 1,
    };
    let other = |(at, char): (usize, char)| match others.contains(&at) {
        true => random.other_than(char),
        false => char,
    };
    right.chars().enumerate().map(other).collect()
}

fn moments(samples: &[f64]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count;
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    (mean, squares / (count - 1.0))
}

fn welch(one: &[f64], other: &[f64]) -> f64 {
    let ((mean, variance), (other_mean, other_variance)) = (moments(one), moments(other));
    let error = variance / one.len() as f64 + other_variance / other.len() as f64;
    (mean - other_mean) / error.sqrt()
}

/// Xorshift: the same order in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound
    }

    fn digit(&mut self) -> char {
        char::from(DIGITS[self.below(DIGITS.len())])
    }

    fn other_than(&mut self, char: char) -> char {
        loop {
            let digit = self.digit();
            if digit != char {
                return digit;
            }
        }
    }
}

fn authenticator(keys: &[NewKey]) -> anyhow::Result<Arc<dyn Authenticator>> {
    struct File(Vec<u8>);
    impl Sources for File {
        fn read(&self, _: &str) -> Result<Arc<[u8]>, String> {
            Ok(self.0.as_slice().into())
        }
    }
    let entries: Vec<_> = keys.iter().map(|key| &key.entry).collect();
    let sources = File(serde_json::to_vec(&entries)?);
    let entry = AUTH.iter().find(|entry| entry.name == "api_keys").context("no API keys")?;
    let span = SourceSpan::default();
    let file = Node::new(span, Value::Str("file:keys".to_owned()));
    let settings = Node::new(span, Value::Map(vec![(Key::new("keys", span), file)]));
    let mut findings = Findings::new();
    let mut with =
        Compile { findings: &mut findings, carry: &mut Carry::default(), sources: &sources };
    let site = Site { owner: "keys", resource: "auth.keys", span };
    (entry.compile)(&settings, &site, &mut with).with_context(|| format!("{findings:?}"))
}
