//! `portcullis explain`: what would become of a request, decided by the code that traffic goes
//! through, offline.

use std::process::ExitCode;
use std::sync::Arc;

use portcullis_config::TestRequest;
use portcullis_core::Identity;
use portcullis_core::finding::did_you_mean;
use portcullis_snapshot::{
    Answer, Listener, PickedBy, Question, Route, RouteRow, Snapshot, TargetRow, TraceStep, Verdict,
    describe,
};
use serde::Serialize;

use crate::load::{self, Compiled};
use crate::{COULD_NOT_RUN, NO, USAGE, cli, output, past};

/// Routes that a request without one is shown.
const NEAREST_MAX: usize = 3;

pub(crate) fn run(arguments: &cli::Explain) -> anyhow::Result<ExitCode> {
    // clap sees to it that there is one of them.
    match (&arguments.request, &arguments.id) {
        (Some(request), _) => in_thought(request, arguments),
        (None, id) => past::run(id.as_deref().unwrap_or_default(), arguments),
    }
}

fn in_thought(request: &TestRequest, arguments: &cli::Explain) -> anyhow::Result<ExitCode> {
    let Some(compiled) = load::compiled(&arguments.config.path)? else {
        return Ok(ExitCode::from(NO));
    };
    if let Some(message) = unknown_auth(arguments, &compiled) {
        output::complain(&message);
        return Ok(ExitCode::from(USAGE));
    }
    let question = question(request, arguments);
    let Some(answer) = question.ask(&compiled.snapshot, compiled.now) else {
        let scheme = if question.request.https { "https" } else { "http" };
        output::complain(&format!("no listener speaks {scheme}"));
        return Ok(ExitCode::from(NO));
    };
    let explained = Explained::new(&question, &answer, &compiled);
    match arguments.json {
        true => output::print_json(&explained)?,
        false => output::print(&explained.text())?,
    }
    Ok(match answer.decision.verdict {
        Verdict::Forward { .. } | Verdict::Reply(_) => ExitCode::SUCCESS,
        Verdict::Refuse(_) => ExitCode::from(NO),
        Verdict::Unknown { .. } => ExitCode::from(COULD_NOT_RUN),
    })
}

fn unknown_auth(arguments: &cli::Explain, compiled: &Compiled) -> Option<String> {
    let name = arguments.auth.as_deref()?;
    let names = || compiled.config.auth.iter().map(|entry| entry.name.as_str());
    if names().any(|known| known == name) {
        return None;
    }
    let hint = did_you_mean(name, names()).map(|near| format!("; did you mean `{near}`?"));
    Some(format!("there is no `auth` entry `{name}`{}", hint.unwrap_or_default()))
}

fn question(request: &TestRequest, arguments: &cli::Explain) -> Question {
    let caller = arguments.auth.as_deref().map(|auth| {
        let identity = Identity::new(auth.into(), arguments.client.clone());
        let (tenant, scopes) = (arguments.tenant.clone(), arguments.scopes.clone());
        let mut claims: serde_json::Map<_, _> = arguments.claims.iter().cloned().collect();
        if !arguments.roles.is_empty() {
            claims.insert("roles".to_owned(), arguments.roles.clone().into());
        }
        Arc::new(Identity { tenant, scopes, claims, ..identity })
    });
    Question {
        headers: arguments.headers.clone(),
        from: arguments.from,
        caller,
        ..Question::new(request.clone())
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Explained {
    request: String,
    listener: String,
    /// As every route and policy sees it; missing if the request is refused before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<RouteRow>,
    /// Without a route: those whose paths come closest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nearest: Vec<RouteRow>,
    steps: Vec<TraceStep>,
    /// Policies that are not asked, since an earlier one has decided.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_reached: Vec<Skipped>,
    verdict: Said,
}

#[derive(Serialize)]
struct Skipped {
    phase: &'static str,
    policy: &'static str,
}

#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
enum Said {
    Forwarded {
        /// By their weights against each other.
        to: Vec<TargetRow>,
    },
    Answered {
        status: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        location: Option<String>,
    },
    Refused {
        status: u16,
        code: &'static str,
        #[serde(skip_serializing_if = "String::is_empty")]
        detail: String,
    },
    Unknown {
        needs: String,
    },
}

impl Explained {
    fn new(question: &Question, answer: &Answer, compiled: &Compiled) -> Self {
        let snapshot = &compiled.snapshot;
        let rows = describe(snapshot);
        let number = answer.decision.route.map(|index| index.0 as usize);
        let route = number.map(|number| &*snapshot.routes[number]);
        let path = listener(snapshot, &answer.listener)
            .and_then(|listener| question.exchange(listener, compiled.now).ok())
            .map(|exchange| String::from_utf8_lossy(exchange.request.path()).into_owned());
        let nearest = match (&path, number) {
            (Some(path), None) => nearest(&rows, path),
            _ => Vec::new(),
        };
        let row = number.map(|number| rows[number].clone());
        Self {
            request: question.request.to_string(),
            listener: answer.listener.to_string(),
            path,
            nearest,
            steps: answer.trace.steps.clone(),
            not_reached: route.map(|route| not_reached(route, answer)).unwrap_or_default(),
            verdict: said(&answer.decision.verdict, row.as_ref()),
            route: row,
        }
    }

    fn text(&self) -> String {
        let mut out = format!("{}\n\n", self.request);
        let mut line = |name: &str, value: &str| {
            out += format!("  {name:13} {value}").trim_end();
            out.push('\n');
        };
        line("listener", &self.listener);
        if let Some(path) = &self.path {
            line("path", path);
        }
        match &self.route {
            Some(row) => line("route", &format!("{}   {}", row.route, row.matches.join(", "))),
            None => line("route", "none"),
        }
        for row in self.route.iter().filter(|row| !row.upgrade.is_empty()) {
            line("upgrade", &row.upgrade.join(", "));
        }
        for faults in self.route.iter().filter_map(|row| row.faults.as_ref()) {
            line("faults", faults);
        }
        for mirror in self.route.iter().filter_map(|row| row.mirror.as_ref()) {
            line("mirror", &mirror.to_string());
        }
        for rule in self.route.iter().flat_map(|row| &row.require) {
            line("requires", rule);
        }
        for row in &self.nearest {
            line("", &format!("near: {}   {}", row.route, row.matches.join(", ")));
        }
        let policies = self.steps.iter().map(|step| step.policy);
        let policies = policies.chain(self.not_reached.iter().map(|skipped| skipped.policy));
        let width = policies.map(str::len).max().unwrap_or(0);
        for TraceStep { phase, policy, outcome, detail, .. } in &self.steps {
            let between = if detail.is_empty() { "" } else { ": " };
            line(phase, &format!("{policy:width$}  {outcome}{between}{detail}"));
        }
        for Skipped { phase, policy } in &self.not_reached {
            line(phase, &format!("{policy:width$}  not reached"));
        }
        out + &format!("\n  {}\n", self.verdict.sentence())
    }
}

impl Said {
    fn sentence(&self) -> String {
        match self {
            Self::Forwarded { to } => {
                let total: u64 = to.iter().map(|to| to.weight).sum();
                let share = |to: &TargetRow| {
                    let name = match &to.variant {
                        Some(variant) => format!("{} as {variant}", to.backend),
                        None => to.backend.clone(),
                    };
                    let zone = to.zone.as_ref().map(|zone| format!(", in the zone {zone} first"));
                    let subset = to.subset.as_ref().map(|subset| format!(" with {subset}"));
                    let share = match to.weight == total {
                        true => String::new(),
                        false => format!(" ({} of {total})", to.weight),
                    };
                    name + &share + &subset.unwrap_or_default() + &zone.unwrap_or_default()
                };
                let to: Vec<String> = to.iter().map(share).collect();
                format!("forwarded to {}", to.join(" or "))
            }
            Self::Answered { status, location } => {
                let location = location.as_ref().map(|to| format!(", to {to}"));
                format!("answered by the gateway: {status}{}", location.unwrap_or_default())
            }
            Self::Refused { status, code, detail } => {
                let detail = if detail.is_empty() { "" } else { &format!(" ({detail})") };
                format!("refused: {status} {code}{detail}")
            }
            Self::Unknown { needs } => format!(
                "unknown: it depends on {needs}, which is not asked offline; \
                 `--as NAME` takes a credential for accepted"
            ),
        }
    }
}

fn listener<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Listener> {
    snapshot.listeners.iter().map(|listener| &**listener).find(|found| *found.name == *name)
}

fn not_reached(route: &Route, answer: &Answer) -> Vec<Skipped> {
    let placed = route.policies.iter().skip(answer.decision.seen);
    placed.map(|placed| Skipped { phase: placed.phase.name(), policy: placed.name }).collect()
}

fn said(verdict: &Verdict, row: Option<&RouteRow>) -> Said {
    match verdict {
        Verdict::Forward { variant, .. } => {
            let known = variant.filter(|picked| picked.by != PickedBy::Weights);
            let to = row.into_iter().flat_map(|row| row.to.iter().enumerate());
            let to = to.filter(|(at, to)| match known {
                Some(picked) => usize::from(picked.at) == *at,
                // Which of several it is depends on chance, so all that may get it are told.
                None => to.weight > 0,
            });
            Said::Forwarded { to: to.map(|(_, to)| to.clone()).collect() }
        }
        Verdict::Reply(reply) => {
            let location = reply.head.fields.get(b"location");
            Said::Answered {
                status: reply.head.status.as_u16(),
                location: location.map(|value| String::from_utf8_lossy(value).into_owned()),
            }
        }
        Verdict::Refuse(problem) => Said::Refused {
            status: problem.status().as_u16(),
            code: problem.code.name,
            detail: problem.detail.clone(),
        },
        Verdict::Unknown { needs } => Said::Unknown { needs: needs.clone() },
    }
}

/// The routes that share the longest beginning of their path with this one, longest first.
fn nearest(rows: &[RouteRow], path: &str) -> Vec<RouteRow> {
    let shared = |text: &str| {
        // What is matched reads `GET *.example.com/orders/**`: the path begins at the slash.
        let written = text.find('/').map_or("", |slash| &text[slash..]);
        written.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count()
    };
    let mut scored: Vec<(usize, &RouteRow)> = rows
        .iter()
        .map(|row| (row.matches.iter().map(|text| shared(text)).max().unwrap_or(0), row))
        // Every path begins with a slash.
        .filter(|(score, _)| *score > 1)
        .collect();
    scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    scored.into_iter().take(NEAREST_MAX).map(|(_, row)| row.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(route: &str, matches: &str) -> RouteRow {
        RouteRow {
            route: route.to_owned(),
            matches: vec![matches.to_owned()],
            listeners: Vec::new(),
            access: "public",
            auth: Vec::new(),
            scopes: Vec::new(),
            require: Vec::new(),
            reason: None,
            policies: Vec::new(),
            faults: None,
            upgrade: Vec::new(),
            to: Vec::new(),
            mirror: None,
        }
    }

    #[test]
    fn the_nearest_routes_share_the_longest_beginning() {
        let rows =
            [row("a", "*/orders"), row("b", "GET a.com/orders/new"), row("c", "*/users/{id}")];
        let names = |path: &str| -> Vec<String> {
            nearest(&rows, path).into_iter().map(|row| row.route).collect()
        };
        assert_eq!(names("/orders/next"), ["b", "a"]);
        assert_eq!(names("/user"), ["c"]);
        assert!(names("/").is_empty());
    }
}
