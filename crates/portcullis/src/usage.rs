//! Which routes are asked for: what the running gateway has seen since it began, and
//! `portcullis routes --unused`, which asks it.
//!
//! Requests are counted for the metrics anyway. That a count has grown is looked at from time to
//! time, so that no request pays for knowing when the last one was.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use portcullis_snapshot::Snapshot;
use portcullis_telemetry::metrics::Registry;
use portcullis_telemetry::timestamp::Stamp;
use serde::{Deserialize, Serialize};

use crate::admin_api::{self, Answer};
use crate::{cli, load, output};

/// Between two looks.
pub(crate) const LOOK: Duration = Duration::from_secs(10);

/// When each route was asked for last, as far as this process knows.
#[derive(Debug)]
pub(crate) struct Usage {
    /// When the process began, since 1970.
    since: Duration,
    /// By name: how many requests, and when there was one more than at the look before.
    seen: Mutex<HashMap<String, (u64, Option<Duration>)>>,
}

impl Usage {
    pub(crate) fn new(since: Duration) -> Self {
        Self { since, seen: Mutex::default() }
    }

    /// Notes which counts have grown since the last look.
    pub(crate) fn look(&self, metrics: &Registry, now: Duration) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.each_route(|name, requests| match seen.get_mut(name) {
            Some((before, last)) => {
                if *before != requests {
                    (*before, *last) = (requests, Some(now));
                }
            }
            None => {
                let last = (requests > 0).then_some(now);
                seen.insert(name.to_owned(), (requests, last));
            }
        });
    }

    pub(crate) fn report(&self, snapshot: &Snapshot, now: Duration) -> Report {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |name: &str| {
            let known = seen.get(name);
            RouteUsage {
                route: name.to_owned(),
                requests: known.map(|(requests, _)| *requests),
                last: known.and_then(|(_, last)| *last).map(|last| last.as_secs()),
            }
        };
        Report {
            since: self.since.as_secs(),
            now: now.as_secs(),
            routes: snapshot.routes.iter().map(|route| row(&route.name)).collect(),
        }
    }
}

/// What the admin API says at `/usage`. Times are seconds since 1970.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) since: u64,
    pub(crate) now: u64,
    pub(crate) routes: Vec<RouteUsage>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct RouteUsage {
    route: String,
    /// `None`: there are so many routes that this one is not counted by itself.
    requests: Option<u64>,
    /// At most a few seconds late; `None`: never since the process began.
    last: Option<u64>,
}

impl Report {
    /// Routes that were not asked for in this time, or since the process began.
    fn unused(&self, within: Duration) -> Vec<&RouteUsage> {
        let from = self.now.saturating_sub(within.as_secs());
        let used = |one: &&RouteUsage| one.last.is_some_and(|last| last >= from);
        self.routes.iter().filter(|one| !used(one)).collect()
    }

    fn told(&self, within: Duration) -> String {
        let time = |seconds: u64| {
            let mut stamp = Stamp::default();
            String::from_utf8_lossy(stamp.text(Duration::from_secs(seconds))).into_owned()
        };
        let unused = self.unused(within);
        let width = unused.iter().map(|one| one.route.len()).max().unwrap_or(0).max(5);
        let mut out = format!("{:width$}  LAST REQUEST\n", "ROUTE");
        for one in &unused {
            let last = match (one.requests, one.last) {
                (None, _) => "not known: it is not counted by itself".to_owned(),
                (_, None) => "none".to_owned(),
                (_, Some(last)) => time(last),
            };
            out += &format!("{:width$}  {last}\n", one.route);
        }
        let known = self.now.saturating_sub(self.since);
        out += &format!(
            "\n{} of {} routes; this gateway has counted since {}",
            unused.len(),
            self.routes.len(),
            time(self.since)
        );
        if known < within.as_secs() {
            out += ", which is less than was asked for:\nwhat came before that, or to another \
                    gateway, is not known";
        }
        out.push('\n');
        out
    }
}

pub(crate) fn run(within: Duration, arguments: &cli::Routes) -> anyhow::Result<ExitCode> {
    let (attempt, _) = load::attempt(&arguments.config.path)?;
    let config = attempt.config.as_ref().context("the configuration cannot be read: `check` it")?;
    let answer = admin_api::ask(config, &attempt.files, "GET", "/usage", "")?;
    let Answer::Found(body) = answer else {
        bail!("the gateway that runs does not tell which routes are used");
    };
    let report: Report = serde_json::from_str(&body).context("the admin API's answer")?;
    match arguments.json {
        true => {
            let routes = report.unused(within);
            let (since, now) = (report.since, report.now);
            output::print_json(&serde_json::json!({
                "since": since, "now": now, "unused": routes,
            }))?;
        }
        false => output::print(&report.told(within))?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn what_is_not_known_is_said() {
        let route =
            |route: &str, requests, last| RouteUsage { route: route.to_owned(), requests, last };
        let report = Report {
            since: 1_782_000_000 - 7 * DAY,
            now: 1_782_000_000,
            routes: vec![
                route("orders", Some(9), Some(1_782_000_000 - 5)),
                route("legacy/export", Some(1), Some(1_782_000_000 - 3 * DAY)),
                route("never", Some(0), None),
                route("other", None, None),
            ],
        };
        let days = |days| Duration::from_secs(days * DAY);
        expect![[r#"
            ROUTE          LAST REQUEST
            legacy/export  2026-06-18T00:00:00.000Z
            never          none
            other          not known: it is not counted by itself

            3 of 4 routes; this gateway has counted since 2026-06-14T00:00:00.000Z

            ROUTE  LAST REQUEST
            never  none
            other  not known: it is not counted by itself

            2 of 4 routes; this gateway has counted since 2026-06-14T00:00:00.000Z, which is less than was asked for:
            what came before that, or to another gateway, is not known
        "#]].assert_eq(&[report.told(days(2)), report.told(days(30))].join("\n"));
    }

    #[test]
    fn a_count_that_grows_is_a_request() {
        let metrics = Registry::new(1);
        let worker = metrics.worker().unwrap();
        let series = metrics.route("orders");
        let usage = Usage::new(Duration::from_secs(1));
        let last = |at| {
            usage.look(&metrics, Duration::from_secs(at));
            usage.seen.lock().unwrap()["orders"].1.map(|last| last.as_secs())
        };
        assert_eq!((last(10), last(20)), (None, None));
        worker.request(
            &series,
            &portcullis_telemetry::metrics::Observation {
                method: portcullis_telemetry::metrics::MethodLabel::Get,
                status: 200,
                duration: Duration::ZERO,
                backend: None,
                gateway_added: Duration::ZERO,
                bytes_in: 0,
                bytes_out: 0,
            },
        );
        assert_eq!((last(30), last(40)), (Some(30), Some(30)));
    }
}
