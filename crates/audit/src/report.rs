//! What an audit has found, and the forms in which it is read: by people, by programs, by the
//! machines that run checks.

mod human;
mod junit;
mod sarif;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use portcullis_config::{Config, Source};
use portcullis_core::calendar::Time;
use portcullis_snapshot::Access;
use serde::Serialize;

use crate::backend::Arrival;
use crate::judge::{Finding, Place};
use crate::oracle::Oracle;

/// Findings that are told. More say nothing new, and their number is told.
const FINDINGS_MAX: usize = 1000;
/// Of one route. One open door lets hundreds of probes through.
const FINDINGS_OF_ROUTE_MAX: usize = 25;

/// How many routes there are of which kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Routes {
    pub all: usize,
    /// Those that ask everybody for a credential.
    pub authenticated: usize,
    /// Those of them of which everything was proved.
    pub covered: usize,
    pub optional: usize,
    pub public: usize,
}

/// A route, and a reason: why nobody has to authenticate for it, or why nobody gets through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    pub route: String,
    pub reason: String,
}

/// A route of which not everything was proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub route: String,
    pub place: Option<Place>,
    pub reasons: Vec<String>,
}

/// The outcome of an audit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// `full` or `quick`.
    pub mode: &'static str,
    pub routes: Routes,
    /// In hundredths of the routes that ask for a credential.
    pub coverage: f64,
    /// How many requests were sent.
    pub probes: usize,
    /// By kind.
    pub kinds: BTreeMap<&'static str, usize>,
    pub seconds: f64,
    /// Of a running gateway: how many verdicts are its own record's, and how many only by status.
    pub by_record: Option<usize>,
    pub by_status: Option<usize>,
    /// Of a running gateway: answers that prove nothing.
    pub inconclusive: Option<usize>,
    /// When it took place, where routes are closed to everybody at the time it was asked for.
    pub moment: Option<String>,
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more_findings: usize,
    pub not_covered: Vec<Gap>,
    pub open: Vec<Remark>,
    /// Entries of `auth` whose callers can never have what the route requires.
    pub shut: Vec<Remark>,
    /// Every authenticated route and whether it is covered, for reports with one line a route.
    #[serde(skip)]
    proved: Vec<(String, bool)>,
}

impl Report {
    /// Whether everything that had to be proved was.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.findings.is_empty() && self.routes.covered == self.routes.authenticated
    }

    /// For people. `name` is what was audited.
    #[must_use]
    pub fn human(&self, name: &str) -> String {
        human::write(self, name)
    }

    /// SARIF 2.1.0, for code scanning.
    #[must_use]
    pub fn sarif(&self) -> String {
        sarif::write(self)
    }

    /// `JUnit`'s XML, for whatever shows tests.
    #[must_use]
    pub fn junit(&self, name: &str) -> String {
        junit::write(self, name)
    }
}

/// Where each route is written.
pub(crate) struct Places(Vec<Option<Place>>);

impl Places {
    pub(crate) fn new(config: &Config, sources: &[Source]) -> Self {
        let place = |route: &portcullis_config::Route| {
            let source = sources.get(usize::from(route.span.file))?;
            let before = source.text.get(..route.span.start as usize)?;
            Some(Place { file: source.name.clone(), line: before.matches('\n').count() + 1 })
        };
        Self(config.routes.iter().map(place).collect())
    }
}

/// Gathers a report.
pub(crate) struct Writer<'a> {
    oracle: &'a Oracle,
    places: Places,
    report: Report,
    gaps: BTreeMap<usize, BTreeSet<String>>,
    of_route: BTreeMap<usize, usize>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(oracle: &'a Oracle, config: &Config, places: Places, quick: bool) -> Self {
        let mut report = Report { mode: if quick { "quick" } else { "full" }, ..Report::default() };
        report.routes.all = config.routes.len();
        for route in &oracle.snapshot.routes {
            match &route.access {
                Access::Authenticated { .. } => report.routes.authenticated += 1,
                Access::Optional { reason, .. } => {
                    report.routes.optional += 1;
                    let reason = format!("{reason} (a credential may be left out)");
                    report.open.push(Remark { route: route.name.to_string(), reason });
                }
                Access::Public { reason } => {
                    report.routes.public += 1;
                    let reason = reason.clone();
                    report.open.push(Remark { route: route.name.to_string(), reason });
                }
            }
        }
        Self { oracle, places, report, gaps: BTreeMap::new(), of_route: BTreeMap::new() }
    }

    pub(crate) fn place(&self, route: usize) -> Option<Place> {
        self.places.0.get(route).cloned().flatten()
    }

    pub(crate) fn route(&mut self, index: usize, gaps: &[String], shut: Vec<String>) {
        let route = &self.oracle.route(index).name;
        let shut = shut.into_iter().map(|reason| Remark { route: route.to_string(), reason });
        self.report.shut.extend(shut);
        if !gaps.is_empty() {
            self.gaps.entry(index).or_default().extend(gaps.iter().cloned());
        }
    }

    pub(crate) fn of_target(&mut self) {
        self.report.by_record = Some(0);
        self.report.by_status = Some(0);
        self.report.inconclusive = Some(0);
    }

    pub(crate) fn decided_by(&mut self, record: bool) {
        let Report { by_record, by_status, .. } = &mut self.report;
        let count = if record { by_record } else { by_status };
        *count = count.map(|count| count + 1);
    }

    pub(crate) fn inconclusive(&mut self) {
        let count = &mut self.report.inconclusive;
        *count = count.map(|count| count + 1);
    }

    pub(crate) fn took_place(&mut self, wall: Duration) {
        self.report.moment = Some(Time(wall).to_string());
    }

    pub(crate) fn count(&mut self, kind: &'static str) {
        *self.report.kinds.entry(kind).or_default() += 1;
    }

    pub(crate) fn finding(&mut self, index: usize, finding: Finding) {
        // Without these nothing is proved, whatever else was refused.
        if matches!(finding.code, "good-refused" | "not-refused-cleanly") {
            let reason = format!("{}: {}", finding.probe, finding.message);
            self.gaps.entry(index).or_default().insert(reason);
        }
        let of_route = self.of_route.entry(index).or_default();
        *of_route += 1;
        if *of_route <= FINDINGS_OF_ROUTE_MAX && self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        } else {
            self.report.more_findings += 1;
        }
    }

    /// A login that came to a session and must not have.
    pub(crate) fn logged_in(&mut self, index: usize, kind: &str) {
        let finding = Finding {
            code: "logged-in",
            route: self.oracle.route(index).name.to_string(),
            listener: String::new(),
            protocol: "HTTP/1.1",
            method: "GET".to_owned(),
            target: String::new(),
            place: self.place(index),
            probe: format!("login, {kind}"),
            message: "the login came to a session".to_owned(),
            reproduce: String::new(),
        };
        self.finding(index, finding);
    }

    /// Requests at the backend that are no probe's.
    pub(crate) fn unplaced(&mut self, arrivals: &[Arrival], forgotten: usize) {
        self.report.more_findings += forgotten;
        if let Some(first) = arrivals.first() {
            let Arrival { method, target, .. } = first;
            let count = arrivals.len();
            self.report.findings.push(Finding {
                code: "unknown-arrival",
                route: String::new(),
                listener: String::new(),
                protocol: "",
                method: method.clone(),
                target: target.clone(),
                place: None,
                probe: String::new(),
                message: format!("{count} requests without the audit's own field"),
                reproduce: String::new(),
            });
        }
    }

    pub(crate) fn finish(self, probes: usize, took: Duration) -> Report {
        let Self { oracle, places, mut report, gaps, .. } = self;
        report.probes = probes;
        report.seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
        for (index, route) in oracle.snapshot.routes.iter().enumerate() {
            if route.access.public_reason().is_some() {
                continue;
            }
            let covered = !gaps.contains_key(&index);
            report.routes.covered += usize::from(covered);
            report.proved.push((route.name.to_string(), covered));
        }
        report.coverage = match report.routes {
            Routes { authenticated: 0, .. } => 100.0,
            Routes { authenticated, covered, .. } => {
                // Never rounded up to what it is not.
                (covered as f64 / authenticated as f64 * 10_000.0).floor() / 100.0
            }
        };
        for (index, reasons) in gaps {
            report.not_covered.push(Gap {
                route: oracle.route(index).name.to_string(),
                place: places.0.get(index).cloned().flatten(),
                reasons: reasons.into_iter().take(FINDINGS_OF_ROUTE_MAX).collect(),
            });
        }
        report
    }
}
