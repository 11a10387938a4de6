//! The one place where policy tests touch the API: change the API, change only this file.
//!
//! A request is written `[TIMEms] ADDRESS METHOD TARGET [| NAME: VALUE]…`; beside fields there are
//! `:client NAME`, `:token TEXT`, `:tenant NAME`, `:claim NAME=JSON`, `:param NAME=VALUE`, `:host
//! NAME` and `:answer STATUS`, which say what others would have established. What is printed begins
//! with the outcome; then `>` the request if it was changed, `<` what was added to the answer.

mod clock;
pub(crate) mod issuer;
mod services;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use expect_test::Expect;
use http::StatusCode;
use portcullis_core::auth::{Authenticator, Denied, Verified, Verify};
use portcullis_core::carry::Carry;
use portcullis_core::exchange::{Params, RequestId};
use portcullis_core::finding::Findings;
use portcullis_core::node::{Key, Node, SourceSpan, Value};
use portcullis_core::policy::{Reply, ReplyBody};
use portcullis_core::registry::{Compile, Site, Sources};
use portcullis_core::{
    Exchange, Identity, Now, Policy, Problem, RequestHead, ResponseHead, Scheme, Span, Step,
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub(crate) use clock::{Flag, ready};
pub(crate) use services::{Answer, Scripted};

/// Runs one request through one policy and compares what happened.
#[track_caller]
pub(crate) fn check(name: &str, yaml: &str, request: &str, want: &Expect) {
    check_many(name, yaml, &[request], want);
}

/// Runs requests in order.
#[track_caller]
pub(crate) fn check_many(name: &str, yaml: &str, requests: &[&str], want: &Expect) {
    let world = World::default();
    let seen = match world.try_policy(name, yaml) {
        Ok(policy) => {
            requests.iter().map(|line| world.run(&*policy, line)).collect::<Vec<_>>().join("\n")
        }
        Err(errors) => errors,
    };
    want.assert_eq(&seen);
}

/// What a policy is compiled and run in: files, state that is carried on, services.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) files: RefCell<HashMap<String, Vec<u8>>>,
    pub(crate) services: Scripted,
    carry: RefCell<Carry>,
}

impl World {
    pub(crate) fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        self.files.borrow_mut().insert(format!("file:{name}"), text.as_ref().to_vec());
        self
    }

    pub(crate) fn policy(&self, name: &str, yaml: &str) -> Arc<dyn Policy> {
        self.try_policy(name, yaml).unwrap()
    }

    /// The policy, or its findings as text.
    pub(crate) fn try_policy(&self, name: &str, yaml: &str) -> Result<Arc<dyn Policy>, String> {
        let entry = crate::ALL.iter().find(|entry| entry.name == name);
        let entry = entry.unwrap_or(crate::LIMIT);
        assert_eq!(entry.name, name);
        let site = Site { owner: "orders", resource: name, span: SourceSpan::default() };
        self.compile(|with| (entry.compile)(&read(yaml), &site, with))
    }

    pub(crate) fn auth(&self, name: &str, yaml: &str) -> Arc<dyn Authenticator> {
        self.try_auth(name, yaml).unwrap()
    }

    pub(crate) fn try_auth(
        &self,
        name: &str,
        yaml: &str,
    ) -> Result<Arc<dyn Authenticator>, String> {
        let entry = crate::AUTH.iter().find(|entry| entry.name == name).unwrap();
        let site = Site { owner: "idp", resource: name, span: SourceSpan::default() };
        self.compile(|with| (entry.compile)(&read(yaml), &site, with))
    }

    /// Settings that are part of others' settings.
    pub(crate) fn try_compile<C: DeserializeOwned + JsonSchema, T>(
        &self,
        yaml: &str,
        compile: impl FnOnce(C, &Site<'_>, &mut Compile<'_>) -> Option<T>,
    ) -> Result<T, String> {
        let site = Site { owner: "idp", resource: "idp", span: SourceSpan::default() };
        self.compile(|with| {
            let config = read(yaml).decode::<C>(site.resource, with.findings)?;
            compile(config, &site, with)
        })
    }

    /// What is said about settings, whether or not they compile.
    pub(crate) fn auth_findings(&self, name: &str, yaml: &str) -> String {
        let entry = crate::AUTH.iter().find(|entry| entry.name == name).unwrap();
        let site = Site { owner: "idp", resource: name, span: SourceSpan::default() };
        let mut findings = Findings::new();
        let (mut carry, sources) = (self.carry.borrow_mut(), Files(&self.files));
        let mut with = Compile { findings: &mut findings, carry: &mut carry, sources: &sources };
        drop((entry.compile)(&read(yaml), &site, &mut with));
        print_findings(&findings)
    }

    fn compile<T>(&self, compile: impl FnOnce(&mut Compile<'_>) -> Option<T>) -> Result<T, String> {
        let mut findings = Findings::new();
        let mut carry = self.carry.borrow_mut();
        let sources = Files(&self.files);
        let mut with = Compile { findings: &mut findings, carry: &mut carry, sources: &sources };
        let compiled = compile(&mut with);
        assert_eq!(compiled.is_none(), findings.has_errors(), "{findings:?}");
        compiled.ok_or_else(|| print_findings(&findings))
    }

    /// Verifies the credential of a request that need not wait; printed.
    pub(crate) fn verify(&self, auth: &dyn Authenticator, line: &str) -> String {
        self.verify_exchange(auth, &self.exchange(line))
    }

    /// The same, of a request that more is known of than a line says.
    pub(crate) fn verify_exchange(&self, auth: &dyn Authenticator, exchange: &Exchange) -> String {
        let verified = match auth.verify(exchange, &self.services) {
            Verify::Done(verified) => verified,
            Verify::Wait(future) => ready(future).expect("a verification that does not wait"),
        };
        print_verified(verified)
    }

    /// The snapshot that was compiled last begins to serve.
    pub(crate) fn next_generation(&self) {
        let carry = self.carry.take();
        self.carry.replace(carry.next_generation());
    }

    /// A request in flight; moves the clock to its time.
    pub(crate) fn exchange(&self, line: &str) -> Exchange {
        let mut parts = line.split(" | ");
        let mut words = parts.next().unwrap().split(' ').peekable();
        if let Some(time) = words.next_if(|word| word.ends_with("ms")) {
            let time: u64 = time.trim_end_matches("ms").parse().unwrap();
            self.services.now.set(START.after(Duration::from_millis(time)));
        }
        let mut exchange = Exchange {
            now: self.services.now.get(),
            client_ip: words.next().unwrap().parse().unwrap(),
            request_id: RequestId::new(0xc0ffee),
            ..Exchange::default()
        };
        fill(&mut exchange.request, words.next().unwrap(), words.next().unwrap());
        for part in parts {
            match part.strip_prefix(':') {
                Some(known) => establish(&mut exchange, known),
                None => {
                    let (name, value) = part.split_once(": ").unwrap();
                    exchange.request.fields.append(name.as_bytes(), value.as_bytes());
                }
            }
        }
        exchange
    }

    /// The way down and up through one policy, printed.
    pub(crate) fn run(&self, policy: &dyn Policy, line: &str) -> String {
        let mut exchange = self.exchange(line);
        let before = print_request(&exchange.request);
        let mut out = Vec::new();
        let step = {
            let mut step = policy.on_request(&mut exchange, &self.services);
            while let Step::Wait(future) = step {
                step = ready(future).expect("a policy that does not wait for ever");
            }
            match step {
                Step::Continue => None,
                Step::Refuse(problem) => Some(Err(problem)),
                Step::Reply(reply) => Some(Ok(reply)),
                Step::Wait(_) => unreachable!(),
            }
        };
        let mut head = match step {
            None => {
                out.push("continue".to_owned());
                answer(line)
            }
            Some(Ok(reply)) => {
                out.push(print_reply(&reply));
                reply.head
            }
            Some(Err(problem)) => {
                out.push(print_problem(&problem));
                problem_head(problem)
            }
        };
        let after = print_request(&exchange.request);
        if after != before {
            out.extend(after.lines().map(|line| format!("> {line}")));
        }
        drop(policy.on_response(&mut exchange, &mut head, &self.services));
        for (name, value) in head.fields.iter() {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            out.push(format!("< {}: {}", text(name), text(value)));
        }
        out.join("\n")
    }
}

/// Some day in 2026, some time after the start.
pub(crate) const START: Now =
    Now { mono: Duration::from_secs(100), wall: Duration::from_secs(1_795_500_000) };

pub(crate) fn print_problem(problem: &Problem) -> String {
    let detail = match problem.detail.as_str() {
        "" => String::new(),
        detail => format!(" | {detail}"),
    };
    format!("{} {}{detail}", problem.code.status, problem.code.name)
}

pub(crate) fn print_verified(verified: Verified) -> String {
    let identity = match verified {
        Ok(accepted) => accepted.identity,
        Err(Denied::Reply(reply)) => return format!("{reply:?}"),
        Err(Denied::Problem(problem)) => {
            let fields = problem.fields.iter().map(|(name, value)| format!("\n< {name}: {value}"));
            return print_problem(&problem) + &fields.collect::<String>();
        }
    };
    let tenant = identity.tenant.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
    let scopes = match identity.scopes.join(" ") {
        scopes if scopes.is_empty() => scopes,
        scopes => format!(" for {scopes}"),
    };
    format!("{}{tenant}{scopes}", identity.key)
}

fn print_reply(reply: &Reply) -> String {
    let ReplyBody::Bytes(body) = &reply.body else { panic!("{reply:?}") };
    let body = String::from_utf8_lossy(body);
    let space = if body.is_empty() { "" } else { " " };
    format!("reply {}{space}{body}", reply.head.status.as_u16())
}

fn print_findings(findings: &Findings) -> String {
    let print = |finding: &portcullis_core::finding::Finding| {
        let help = finding.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        let severity = format!("{:?}", finding.severity).to_lowercase();
        format!("{severity} {} at {}: {}{help}", finding.code, finding.resource, finding.message)
    };
    findings.iter().map(print).collect::<Vec<_>>().join("\n")
}

fn print_request(head: &RequestHead) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let query = head.query().map(|query| format!("?{}", text(query))).unwrap_or_default();
    let mut lines = vec![format!("{} {}{query}", head.method, text(head.path()))];
    lines.extend(head.fields.iter().map(|(n, v)| format!("{}: {}", text(n), text(v))));
    lines.join("\n")
}

/// A problem's head without what every problem has.
fn problem_head(problem: Problem) -> ResponseHead {
    let mut head = problem.into_reply("c0ffee").head;
    head.fields.remove(b"content-type");
    head.fields.remove(b"cache-control");
    head
}

/// What the backend answers: `:answer 200 name=value name=value`.
fn answer(line: &str) -> ResponseHead {
    let mut head = ResponseHead::default();
    let Some(answer) = line.split(" | ").find_map(|part| part.strip_prefix(":answer ")) else {
        return head;
    };
    let mut words = answer.split(' ');
    head.status = StatusCode::from_bytes(words.next().unwrap().as_bytes()).unwrap();
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        head.fields.append(name.as_bytes(), value.as_bytes());
    }
    head
}

fn fill(head: &mut RequestHead, method: &str, target: &str) {
    head.method = method.parse().unwrap();
    head.scheme = Scheme::Https;
    head.target = head.fields.intern(target.as_bytes());
    head.authority = head.fields.intern(b"api.example.com");
    head.host = head.authority;
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    head.path = Span::new(0, path.len());
    head.query = query.map(|_| Span::new(path.len() + 1, target.len()));
}

fn establish(exchange: &mut Exchange, known: &str) {
    let (what, value) = known.split_once(' ').unwrap();
    let mut identity = exchange.identity.as_deref().cloned().unwrap_or_default();
    match what {
        "client" => identity = Identity::new("idp".into(), value.to_owned()),
        "tenant" => identity.tenant = Some(value.to_owned()),
        "claim" => {
            let (name, json) = value.split_once('=').unwrap();
            identity.claims.insert(name.to_owned(), serde_json::from_str(json).unwrap());
        }
        "param" => {
            let (name, value) = value.split_once('=').unwrap();
            let mut names: Vec<Box<str>> =
                exchange.params.names.iter().flat_map(|names| names.to_vec()).collect();
            let span = exchange.request.fields.intern(value.as_bytes());
            exchange.params.values[names.len()] = span;
            names.push(name.into());
            exchange.params = Params { names: Some(names.into()), ..exchange.params };
            return;
        }
        "answer" => return,
        "token" => {
            exchange.access_token = Some(exchange.request.fields.intern(value.as_bytes()));
            return;
        }
        _ => panic!("`:{what}` means nothing"),
    }
    exchange.identity = Some(Arc::new(identity));
}

struct Files<'a>(&'a RefCell<HashMap<String, Vec<u8>>>);

impl Sources for Files<'_> {
    fn read(&self, reference: &str) -> Result<Arc<[u8]>, String> {
        let files = self.0.borrow();
        let found = files.get(reference).map(|bytes| bytes.as_slice().into());
        found.ok_or_else(|| format!("cannot read {reference}: no such file"))
    }
}

/// YAML as a tree without places.
pub(crate) fn read(yaml: &str) -> Node {
    node(serde_saphyr::from_str(yaml).unwrap())
}

fn node(json: serde_json::Value) -> Node {
    use serde_json::Value as Json;
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Value::Int(value),
            None => Value::Float(number.as_f64().unwrap()),
        },
        Json::String(text) => Value::Str(text),
        Json::Array(items) => Value::Seq(items.into_iter().map(node).collect()),
        Json::Object(map) => {
            let key = |name| Key::new(name, SourceSpan::default());
            Value::Map(map.into_iter().map(|(name, json)| (key(name), node(json))).collect())
        }
    };
    Node::new(SourceSpan::default(), value)
}
