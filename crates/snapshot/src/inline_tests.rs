//! Runs the `tests:` of a configuration, offline, through the same decision as traffic.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{Caller, Config, InlineTest, TestCertificate};
use portcullis_core::exchange::ClientCertificate;
use portcullis_core::finding::{Finding, Findings};
use portcullis_core::node::{Node, SourceSpan, Value};
use portcullis_core::{Identity, Now, Phase};

use crate::decide::Verdict;
use crate::question::{Answer, Question};
use crate::snapshot::{Route, Snapshot};

/// How many held, and how many did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestReport {
    pub passed: usize,
    pub failed: usize,
}

/// Runs all tests; each that does not hold is an error finding at its place.
pub fn run_tests(
    config: &Config,
    snapshot: &Snapshot,
    now: Now,
    findings: &mut Findings,
) -> TestReport {
    let mut report = TestReport::default();
    for (index, test) in config.tests.iter().enumerate() {
        match run(config, snapshot, test, now) {
            Ok(()) => report.passed += 1,
            Err(failure) => {
                report.failed += 1;
                let resource = format!("tests[{index}]");
                let mut finding =
                    Finding::error("test-failed", failure.span, resource, failure.message);
                finding.help = failure.help;
                findings.push(finding);
            }
        }
    }
    report
}

struct Failure {
    span: SourceSpan,
    message: String,
    help: Option<String>,
}

impl Failure {
    fn new(span: SourceSpan, message: String) -> Self {
        Self { span, message, help: None }
    }

    fn suggest<'a>(self, word: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let finding = Finding::error("", None, "", "").suggest(word, names);
        Self { help: finding.help, ..self }
    }
}

fn run(config: &Config, snapshot: &Snapshot, test: &InlineTest, now: Now) -> Result<(), Failure> {
    check_names(config, snapshot, test)?;
    let question = Question {
        request: test.request.clone(),
        headers: test.headers.clone(),
        from: test.from,
        caller: test.caller.as_ref().map(identity),
        certificate: test
            .caller
            .as_ref()
            .and_then(|caller| caller.certificate.as_ref())
            .map(certificate),
        random: 0,
    };
    let now = test.at.map_or(now, |at| Now { wall: at.0, ..now });
    let Some(answer) = question.ask(snapshot, now) else {
        let scheme = if test.request.https { "https" } else { "http" };
        let message = format!("no listener speaks {scheme}");
        return Err(Failure::new(test.span, message));
    };
    let route = answer.decision.route.map(|index| &*snapshot.routes[index.0 as usize]);
    if let Verdict::Unknown { needs } = &answer.decision.verdict {
        let message = format!("unknown: this needs {needs}, which is not asked offline");
        let help = "say `as NAME` to state whose credential has been accepted";
        let failure = Failure::new(test.span, message);
        return Err(Failure { help: Some(help.to_owned()), ..failure });
    }
    compare(test, snapshot, route, &answer)
}

/// Names in a test that nothing is called by are slips, not failures of the configuration.
fn check_names(config: &Config, snapshot: &Snapshot, test: &InlineTest) -> Result<(), Failure> {
    let unknown =
        |kind: &str, name: &str, span| Failure::new(span, format!("there is no {kind} `{name}`"));
    if let Some(caller) = &test.caller {
        let name = &caller.auth.value.0;
        let mut names = config.auth.iter().map(|entry| entry.name.as_str());
        if !names.clone().any(|known| known == name) {
            let failure = unknown("`auth` entry", name, caller.auth.span);
            return Err(failure.suggest(name, names.by_ref()));
        }
    }
    if let Some(route) = test.expect.route.as_ref().filter(|name| snapshot.route(name).is_none()) {
        let names = snapshot.routes.iter().map(|route| &*route.name);
        return Err(unknown("route", route, route.span).suggest(route, names));
    }
    match test.expect.backend.as_ref().filter(|name| snapshot.backend(name).is_none()) {
        Some(backend) => {
            let names = snapshot.backends.iter().map(|backend| &*backend.name);
            Err(unknown("backend", backend, backend.span).suggest(backend, names))
        }
        None => Ok(()),
    }
}

fn compare(
    test: &InlineTest,
    snapshot: &Snapshot,
    route: Option<&Route>,
    answer: &Answer,
) -> Result<(), Failure> {
    let got = outcome(snapshot, route, answer);
    let fail = |span, wanted: String| Err(Failure::new(span, format!("expected {wanted}, {got}")));
    let (status, problem) = match &answer.decision.verdict {
        Verdict::Reply(reply) => (Some(reply.head.status.as_u16()), None),
        Verdict::Refuse(problem) => (Some(problem.status().as_u16()), Some(problem.code.name)),
        Verdict::Forward { .. } | Verdict::Unknown { .. } => (None, None),
    };
    let expect = &test.expect;
    if let Some(wanted) = expect.status.as_ref().filter(|wanted| status != Some(wanted.value)) {
        return fail(wanted.span, format!("status {}", wanted.value));
    }
    if let Some(wanted) = expect.problem.as_ref().filter(|want| problem != Some(&*want.value)) {
        return fail(wanted.span, format!("the problem `{}`", wanted.value));
    }
    let passed = passed(route, answer);
    let has = |wanted: &str| passed.is_some_and(|route| *route.name == *wanted);
    if let Some(wanted) = expect.route.as_ref().filter(|wanted| !has(&wanted.value)) {
        return fail(wanted.span, format!("route `{}`", wanted.value));
    }
    let may_go_to = |wanted: &str| {
        let targets = passed.and_then(|route| route.to.as_ref());
        targets.into_iter().flat_map(|targets| &targets.variants).any(|variant| {
            let receives = variant.weight > 0 || !variant.when.is_empty();
            receives && *snapshot.backends[usize::from(variant.backend)].name == *wanted
        })
    };
    match expect.backend.as_ref().filter(|wanted| !may_go_to(&wanted.value)) {
        Some(wanted) => fail(wanted.span, format!("backend `{}`", wanted.value)),
        None => Ok(()),
    }
}

/// The route, if the request passed everything that could have refused it.
fn passed<'a>(route: Option<&'a Route>, answer: &Answer) -> Option<&'a Route> {
    let route = route?;
    let last = answer.decision.seen.checked_sub(1).and_then(|last| route.policies.get(last));
    match answer.decision.verdict {
        Verdict::Forward { .. } => Some(route),
        // Its own action answered.
        Verdict::Reply(_) if last.is_some_and(|last| last.phase == Phase::Forward) => Some(route),
        _ => None,
    }
}

fn outcome(snapshot: &Snapshot, route: Option<&Route>, answer: &Answer) -> String {
    let at = match route {
        Some(route) => format!(" from route `{}`", route.name),
        None => " before any route".to_owned(),
    };
    let reason = |detail: &str| match detail {
        "" => String::new(),
        detail => format!(" ({detail})"),
    };
    match &answer.decision.verdict {
        Verdict::Forward { backend, .. } => {
            let backend = &snapshot.backends[usize::from(*backend)].name;
            let route = route.map_or("", |route| &route.name);
            format!("got route `{route}`, which sends it to `{backend}`")
        }
        Verdict::Reply(reply) => format!("got {}{at}", reply.head.status.as_u16()),
        Verdict::Refuse(problem) => {
            let (status, code) = (problem.status().as_u16(), problem.code.name);
            format!("got {status} {code}{at}{}", reason(&problem.detail))
        }
        Verdict::Unknown { needs } => format!("got an unknown outcome, which needs {needs}"),
    }
}

fn identity(caller: &Caller) -> Arc<Identity> {
    let client = caller.client.clone().unwrap_or_else(|| "test".to_owned());
    let mut claims: serde_json::Map<_, _> =
        caller.claims.iter().map(|(key, value)| (key.name.clone(), json(value))).collect();
    if !caller.roles.is_empty() {
        claims.insert("roles".to_owned(), caller.roles.clone().into());
    }
    Arc::new(Identity {
        tenant: caller.tenant.clone(),
        scopes: caller.scopes.clone(),
        claims,
        ..Identity::new(caller.auth.value.0.as_str().into(), client)
    })
}

fn certificate(written: &TestCertificate) -> Arc<ClientCertificate> {
    Arc::new(ClientCertificate {
        dns: written.dns.iter().map(|name| name.to_ascii_lowercase()).collect(),
        uris: written.uri.clone(),
        subject: written.subject.clone(),
        not_after: Duration::MAX,
        ..ClientCertificate::default()
    })
}

fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Str(value) => value.as_str().into(),
        Value::Seq(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            entries.iter().map(|(key, value)| (key.name.clone(), json(value))).collect()
        }
    }
}
