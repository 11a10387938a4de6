//! `allocations [--requests N] [--warm-up N] [--trace]`: what the gateway takes from the heap for a
//! request, once it is warm, and where.
//!
//! The gateway does its real job in this process. Everything that is allocated here meanwhile
//! counts, by whichever thread.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use portcullis_bench::outside;
use portcullis_bench::real_job::RealJob;
use portcullis_proxy::Clock;
use serde::Deserialize;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CLIENTS: u64 = 8;
const FRAMES_MAX: usize = 100;

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value_t = 20_000)]
    requests: u64,
    /// So many before that; with 0 the connections and the first verification count too.
    #[arg(long, default_value_t = 20_000)]
    warm_up: u64,
    /// Prints the whole stack of each place.
    #[arg(long)]
    trace: bool,
    /// Where the profile is left, for DHAT's viewer too.
    #[arg(long, default_value = "target/bench/allocations.json")]
    profile: PathBuf,
}

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(outside::ARGUMENT) {
        return outside::run();
    }
    let arguments = Arguments::parse();
    if let Some(folder) = arguments.profile.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut job = RealJob::start(Clock::real(), CLIENTS, arguments.warm_up)?;
    let profiler = dhat::Profiler::builder()
        .file_name(&arguments.profile)
        .trim_backtraces(Some(FRAMES_MAX))
        .build();
    job.exchange(arguments.requests)?;
    drop(profiler);
    let profile = std::fs::read(&arguments.profile)?;
    let profile: Profile = serde_json::from_slice(&profile).context("the profile")?;
    report(&profile, &arguments);
    Ok(())
}

/// The parts that matter of DHAT's format.
#[derive(Debug, Deserialize)]
struct Profile {
    #[serde(rename = "pps")]
    points: Vec<Point>,
    #[serde(rename = "ftbl")]
    frames: Vec<String>,
}

/// A place in the program, with the way to it.
#[derive(Debug, Deserialize)]
struct Point {
    #[serde(rename = "tbk")]
    blocks: u64,
    #[serde(rename = "tb")]
    bytes: u64,
    /// Indices of frames, the innermost first.
    #[serde(rename = "fs")]
    stack: Vec<usize>,
}

#[expect(clippy::print_stdout, reason = "the result")]
fn report(profile: &Profile, arguments: &Arguments) {
    let requests = arguments.requests as f64;
    let mut places: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut all = (0, 0);
    for point in &profile.points {
        let place = profile.place(point, arguments.trace);
        for sum in [places.entry(place).or_default(), &mut all] {
            sum.0 += point.blocks;
            sum.1 += point.bytes;
        }
    }
    let mut places: Vec<_> = places.into_iter().collect();
    places.sort_by_key(|(_, (blocks, _))| std::cmp::Reverse(*blocks));
    println!("{} requests after {} others", arguments.requests, arguments.warm_up);
    println!("| allocations a request | bytes | where |\n|---|---|---|");
    for (place, (blocks, bytes)) in [("all".to_owned(), all)].into_iter().chain(places) {
        let (blocks, bytes) = (blocks as f64 / requests, bytes as f64 / requests);
        println!("| {blocks:.4} | {bytes:.1} | {place} |");
    }
}

impl Profile {
    /// The innermost of our own functions and who called it, or all of the stack.
    fn place(&self, point: &Point, whole: bool) -> String {
        let frames = point.stack.iter().filter_map(|index| self.frames.get(*index));
        // `0x55d0c0ffee: name (path:line:column)`
        let frames = frames.map(|frame| frame.split_once(": ").map_or(&**frame, |(_, rest)| rest));
        if whole {
            return frames.map(|frame| format!("\n    {frame}")).collect();
        }
        let ours: Vec<_> = frames.clone().filter(|frame| frame.contains("portcullis")).collect();
        match &ours[..] {
            [] => frames.take(3).collect::<Vec<_>>().join(" < "),
            ours => ours[..ours.len().min(3)].join(" < "),
        }
    }
}
