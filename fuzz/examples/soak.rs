//! A fuzzer for where there is no libFuzzer: blind mutations of a target's corpus, on stable.
//!
//! `soak TARGET RUNS [SEED]`. The same seed does the same work; a failure shows its input.

use std::path::Path;
use std::process::ExitCode;

use portcullis_fuzz::TARGETS;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u64>().ok());
    let wanted = arguments.get(1).map_or("", String::as_str);
    let Some((name, target)) = TARGETS.iter().find(|(name, _)| *name == wanted) else {
        eprintln!("soak TARGET RUNS [SEED]");
        return ExitCode::FAILURE;
    };
    let runs = number(2).unwrap_or(1_000_000);
    let mut random = Random(number(3).unwrap_or(1).max(1));
    let seeds = seeds(name);
    let mut input = Vec::new();
    for run in 0..runs {
        mutate(&seeds, &mut input, &mut random);
        if std::panic::catch_unwind(|| target(&input)).is_err() {
            eprintln!("run {run}: {}", input.escape_ascii());
            return ExitCode::FAILURE;
        }
    }
    println!("{runs} runs, nothing found");
    ExitCode::SUCCESS
}

/// The target's corpus, in the order of its file names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![vec![]] };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().flat_map(std::fs::read).collect()
}

struct Random(u64);

impl Random {
    /// xorshift64 (Marsaglia).
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

/// What the syntax turns on.
const TELLING: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"%",
    b"%2e",
    b"%2f",
    b"..",
    b"/",
    b"//",
    b"\\",
    b"?",
    b"#",
    b"0\r\n\r\n",
    b"chunked",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: ",
    b"Host: b\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"=\"",
    b"\xef\xbc\x8f",
    b"_",
    b".",
];

fn mutate(seeds: &[Vec<u8>], input: &mut Vec<u8>, random: &mut Random) {
    input.clear();
    input.extend_from_slice(&seeds[random.below(seeds.len())]);
    if random.below(3) == 0 {
        input.extend_from_slice(&seeds[random.below(seeds.len())]);
    }
    // Few and small changes: nearly all inputs shall still be well formed up to the trick.
    for _ in 0..random.below(4) {
        let at = random.below(input.len() + 1);
        let end = at + random.below((input.len() - at).min(4) + 1);
        let telling = TELLING[random.below(TELLING.len())].iter().copied();
        match random.below(8) {
            0..=2 => drop(input.splice(at..at, telling)),
            3 => drop(input.splice(at..end, telling)),
            4 => drop(input.drain(at..end)),
            5 => {
                let part = input[at..end].to_vec();
                drop(input.splice(at..at, part));
            }
            6 if at < input.len() => input[at] = random.below(256) as u8,
            _ => {
                let line = one_line(&seeds[random.below(seeds.len())], random);
                let at = input[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                drop(input.splice(at..at, line));
            }
        }
    }
}

/// One line of a seed.
fn one_line(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let lines: Vec<&[u8]> = seed.split_inclusive(|byte| *byte == b'\n').collect();
    if lines.is_empty() { Vec::new() } else { lines[random.below(lines.len())].to_vec() }
}
