//! `surge --phases 2000x5,7500x10 URL`: requests at one rate after another, from clients that do
//! not wait for ever, and what became of them.
//!
//! An open loop: each request is due at its time, whatever became of those before, on a connection
//! of its own as long as there are some. A client that has waited for its patience closes the
//! connection, and its request has failed. Latencies count from when a request was due.

#[path = "../load/connection.rs"]
mod connection;
mod phases;
#[path = "../load/timer.rs"]
mod timer;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, timeout_at};

use crate::connection::{Connection, Target};
use crate::phases::{Due, Phases};
use crate::timer::Timer;

/// Every connection comes to its first wait in this time.
const LEAD: Duration = Duration::from_millis(200);
const LATENCY_US_MAX: u64 = 600_000_000;
const DIGITS: u8 = 3;
/// The end of the last phase is looked at in pieces of this.
const PIECE: Duration = Duration::from_millis(100);

#[derive(Debug, Parser)]
struct Arguments {
    /// Requests a second and seconds of each phase: `2000x5,7500x10`.
    #[arg(long)]
    phases: Phases,
    /// At most so many requests are under way.
    #[arg(long, default_value_t = 4096)]
    connections: u32,
    /// How long a client waits for its answer.
    #[arg(long, default_value_t = 1000)]
    patience_ms: u64,
    /// `Name: value`, any number of times. `Host` takes the place of the URL's.
    #[arg(long = "header")]
    headers: Vec<String>,
    url: http::Uri,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(arguments))
}

#[expect(clippy::print_stdout, reason = "the result is for whoever asked")]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let target = Rc::new(Target::new(&arguments.url, &arguments.headers)?);
    let mut connections = Vec::new();
    for _ in 0..arguments.connections {
        connections.push(target.connect().await.context("cannot connect")?);
    }
    let surge = Rc::new(Surge {
        start: Instant::now() + LEAD,
        patience: Duration::from_millis(arguments.patience_ms),
        next: Cell::new(0),
        seen: arguments.phases.0.iter().map(|_| RefCell::default()).collect(),
        last_failure: Cell::default(),
        phases: arguments.phases,
    });
    let mut tasks = JoinSet::new();
    for connection in connections {
        tasks.spawn_local(client(Rc::clone(&surge), Rc::clone(&target), connection));
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    println!("{}", surge.report());
    Ok(())
}

struct Surge {
    start: Instant,
    patience: Duration,
    phases: Phases,
    next: Cell<u64>,
    seen: Vec<RefCell<Seen>>,
    /// From the start of the last phase to when the last of its failures was due.
    last_failure: Cell<Option<Duration>>,
}

/// What became of the requests of one phase.
struct Seen {
    /// In microseconds.
    good: Histogram<u64>,
    refused: Histogram<u64>,
    other: u64,
    late: u64,
}

impl Default for Seen {
    fn default() -> Self {
        let histogram = || Histogram::new_with_max(LATENCY_US_MAX, DIGITS);
        // The bounds are constants that fit.
        let (Ok(good), Ok(refused)) = (histogram(), histogram()) else {
            unreachable!("the bounds of a histogram")
        };
        Self { good, refused, other: 0, late: 0 }
    }
}

/// How a request ended.
enum End {
    Status(u16),
    /// The client had no more patience.
    Late,
    Broken,
}

impl Surge {
    fn take(&self) -> Option<Due> {
        let number = self.next.get();
        self.next.set(number + 1);
        self.phases.due(number)
    }

    fn ended(&self, due: &Due, end: &End) {
        let took = Instant::now().duration_since(self.start + due.at).as_micros();
        let took = u64::try_from(took).unwrap_or(u64::MAX).max(1);
        let mut seen = self.seen[due.phase].borrow_mut();
        match end {
            End::Status(200) => seen.good.saturating_record(took),
            End::Status(503) => seen.refused.saturating_record(took),
            End::Status(_) | End::Broken => seen.other += 1,
            End::Late => seen.late += 1,
        }
        let failed = !matches!(end, End::Status(200));
        if failed && due.phase + 1 == self.phases.0.len() {
            self.last_failure.set(self.last_failure.get().max(Some(due.within)));
        }
    }

    fn report(&self) -> Value {
        let phases = self.phases.0.iter().zip(&self.seen).map(|(phase, seen)| {
            let seen = seen.borrow();
            let at = |histogram: &Histogram<u64>, quantile| match histogram.is_empty() {
                true => Value::Null,
                false => json!(histogram.value_at_quantile(quantile)),
            };
            json!({
                "rate": phase.rate,
                "seconds": phase.seconds,
                "good": seen.good.len(),
                "refused": seen.refused.len(),
                "late": seen.late,
                "other": seen.other,
                "good_p50_us": at(&seen.good, 0.5),
                "good_p99_us": at(&seen.good, 0.99),
                "refused_p50_us": at(&seen.refused, 0.5),
                "refused_p99_us": at(&seen.refused, 0.99),
            })
        });
        let recovered = self.last_failure.get().map_or(Duration::ZERO, |last| last + PIECE);
        json!({
            "phases": phases.collect::<Vec<_>>(),
            "recovered_seconds": recovered.as_secs_f64(),
        })
    }
}

/// One connection's share.
async fn client(surge: Rc<Surge>, target: Rc<Target>, first: Connection) -> anyhow::Result<()> {
    let mut timer = Timer::new()?;
    let mut current = Some(first);
    while let Some(due) = surge.take() {
        let at = surge.start + due.at;
        timer.until(at).await?;
        let exchange = async {
            let mut connection = match current.take() {
                Some(connection) => connection,
                None => target.connect().await?,
            };
            let answer = connection.exchange(&target).await?;
            anyhow::Ok((answer.status, answer.keep_alive.then_some(connection)))
        };
        let end = match timeout_at(at + surge.patience, exchange).await {
            Ok(Ok((status, connection))) => {
                current = connection;
                End::Status(status)
            }
            Ok(Err(_)) => End::Broken,
            Err(_) => End::Late,
        };
        surge.ended(&due, &end);
    }
    Ok(())
}
