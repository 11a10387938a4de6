//! `load --rate R --connections N --seconds S URL`: requests at a fixed rate, whatever the answers
//! do, and how long each took.
//!
//! Request `i` is due `i/R` seconds after the start. Its latency counts from then on: a request
//! that finds every connection busy waits for one, and that it waited is what a client would have
//! felt. A generator that sends late and counts from there leaves out just the requests that
//! suffered (coordinated omission). It is no tool to find out how much a server can take.

mod connection;
mod timer;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, timeout_at};

use crate::connection::{Connection, Target};
use crate::timer::Timer;

/// Every connection comes to its first wait in this time.
const LEAD: Duration = Duration::from_millis(20);
const LATENCY_NS_MAX: u64 = 600_000_000_000;
const DIGITS: u8 = 3;

#[derive(Debug, Parser)]
struct Arguments {
    /// Requests a second.
    #[arg(long)]
    rate: f64,
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// For so long requests become due. What is not answered after twice that is an error.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// `Name: value`, any number of times. `Host` takes the place of the URL's, in TLS too.
    #[arg(long = "header")]
    headers: Vec<String>,
    url: http::Uri,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(&arguments))
}

#[expect(clippy::print_stdout, reason = "the result is for whoever asked")]
async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let total = (arguments.rate * arguments.seconds) as u64;
    if total == 0 || arguments.connections == 0 {
        bail!("there is nothing to send");
    }
    let target = Rc::new(Target::new(&arguments.url, &arguments.headers)?);
    let mut connections = Vec::new();
    for _ in 0..arguments.connections {
        connections.push(target.connect().await.context("cannot connect")?);
    }
    let start = Instant::now() + LEAD;
    let end = start + Duration::from_secs_f64(2.0 * arguments.seconds);
    let plan = Rc::new(Plan { start, rate: arguments.rate, total, next: Cell::new(0) });
    let latency = RefCell::new(Histogram::new_with_max(LATENCY_NS_MAX, DIGITS)?);
    let seen = Rc::new(Seen { latency, last: Cell::new(start) });
    let mut tasks = JoinSet::new();
    for connection in connections {
        let (plan, target, seen) = (Rc::clone(&plan), Rc::clone(&target), Rc::clone(&seen));
        tasks.spawn_local(timeout_at(end, send(plan, target, connection, seen)));
    }
    while let Some(ended) = tasks.join_next().await {
        // One that ran out of time leaves its requests unanswered, and the report says so.
        if let Ok(done) = ended? {
            done?;
        }
    }
    println!("{}", seen.report(&plan));
    Ok(())
}

/// What is due when. The requests queue for the connections: each that is free takes the next one.
struct Plan {
    start: Instant,
    rate: f64,
    total: u64,
    next: Cell<u64>,
}

impl Plan {
    fn take(&self) -> Option<Instant> {
        let number = self.next.get();
        self.next.set(number + 1);
        let due = Duration::from_secs_f64(number as f64 / self.rate);
        (number < self.total).then(|| self.start + due)
    }
}

/// Only what was answered with success is counted.
struct Seen {
    latency: RefCell<Histogram<u64>>,
    last: Cell<Instant>,
}

impl Seen {
    fn answered(&self, due: Instant) {
        let now = Instant::now();
        let latency = u64::try_from(now.duration_since(due).as_nanos()).unwrap_or(u64::MAX);
        self.latency.borrow_mut().saturating_record(latency.max(1));
        self.last.set(now);
    }

    fn report(&self, plan: &Plan) -> Value {
        let latency = self.latency.borrow();
        let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
        json!({
            "requests": latency.len(),
            "errors": plan.total - latency.len(),
            "seconds": self.last.get().duration_since(plan.start).as_secs_f64(),
            "p50_us": at(0.5),
            "p90_us": at(0.9),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "max_us": at(1.0),
        })
    }
}

/// One connection's share. A request that fails costs the connection, and the next one waits for
/// the new one.
async fn send(
    plan: Rc<Plan>,
    target: Rc<Target>,
    connection: Connection,
    seen: Rc<Seen>,
) -> anyhow::Result<()> {
    let mut timer = Timer::new()?;
    let mut current = Some(connection);
    while let Some(due) = plan.take() {
        timer.until(due).await?;
        let mut connection = match current.take() {
            Some(connection) => connection,
            None => match target.connect().await {
                Ok(connection) => connection,
                Err(_) => continue,
            },
        };
        if let Ok(answer) = connection.exchange(&target).await {
            if (200..300).contains(&answer.status) {
                seen.answered(due);
            }
            current = answer.keep_alive.then_some(connection);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_the_rate_and_end() {
        let start = Instant::now();
        let plan = Plan { start, rate: 1000.0, total: 3, next: Cell::new(0) };
        let due: Vec<_> = std::iter::from_fn(|| plan.take()).map(|due| due - start).collect();
        assert_eq!(due, [0, 1, 2].map(Duration::from_millis));
    }
}
