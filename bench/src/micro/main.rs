//! `micro PART TIMES`: one hot part of a request, again and again, for an instruction counter.
//!
//! `cargo xtask bench micro` runs it under valgrind twice and takes the difference, so that
//! start-up does not count.

mod codec;
mod policies;
mod steps;

use std::time::Duration;

use portcullis_bench::outside;
use portcullis_bench::real_job::RealJob;
use portcullis_proxy::Clock;

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A name, and what does it so many times.
type Part = (&'static str, fn(u64));

const PARTS: &[Part] = &[
    ("parse-request", codec::parse),
    ("canonicalise-path", codec::rewrite_path),
    ("route-5000", steps::route),
    ("limit-window", steps::limit),
    ("encode-request", codec::encode),
    ("parse-response", codec::response),
    ("log-line", steps::log_line),
];

/// A request and its answer through a gateway that does its real job, on sockets.
const EXCHANGE: &str = "exchange";
const WARM_UP: u64 = 100;
/// When it is by every clock here: in 2026, while the token is good.
const WALL: Duration = Duration::from_secs(1_795_500_000);

#[expect(clippy::print_stdout, reason = "the list of parts is for xtask")]
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => {
            let parts = PARTS.iter().map(|(name, _)| (*name).to_owned());
            for name in parts.chain(policies::names()).chain([EXCHANGE.to_owned()]) {
                println!("{name}");
            }
            Ok(())
        }
        [outside::ARGUMENT] => outside::run(),
        [EXCHANGE, times] => exchange(times.parse()?),
        [part, times] => match PARTS.iter().find(|(name, _)| *name == part) {
            Some((_, run)) => {
                run(times.parse()?);
                Ok(())
            }
            None => policies::run(part, times.parse()?),
        },
        _ => Err(anyhow::anyhow!("micro PART TIMES")),
    }
}

/// By a clock that stands still, so that nothing happens but for the requests.
fn exchange(times: u64) -> anyhow::Result<()> {
    let clock = Clock::manual(WALL);
    RealJob::start(clock, 1, WARM_UP)?.exchange(times)
}
