//! A request that nobody sent: what would become of it. For `explain`, and for the tests that stand
//! in the configuration.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use portcullis_config::TestRequest;
use portcullis_core::exchange::{ClientCertificate, Connection, TlsFacts};
use portcullis_core::head::{BodyLength, Scheme, Span};
use portcullis_core::path::{self, RulesByHost as _};
use portcullis_core::{Exchange, Identity, Now, Problem, authority, codes};

use crate::decide::{Decision, Verdict};
use crate::explain::{Trace, explain};
use crate::listener::Listener;
use crate::snapshot::Snapshot;

/// From nobody's address (RFC 5737).
const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// A request in thought.
#[derive(Clone, Debug)]
pub struct Question {
    pub request: TestRequest,
    pub headers: Vec<(String, String)>,
    /// `None`: 192.0.2.1.
    pub from: Option<IpAddr>,
    /// Whose credential has been accepted. Must name an `auth` entry that the route takes.
    pub caller: Option<Arc<Identity>>,
    /// The certificate that the client has presented and the listener has accepted.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Decides a weighted choice; 0 takes the first.
    pub random: u64,
}

/// What would become of it.
#[derive(Debug)]
pub struct Answer {
    pub listener: Arc<str>,
    pub decision: Decision,
    pub trace: Trace,
}

impl Question {
    #[must_use]
    pub fn new(request: TestRequest) -> Self {
        Self {
            request,
            headers: Vec::new(),
            from: None,
            caller: None,
            certificate: None,
            random: 0,
        }
    }

    /// Decides it. `None` when no listener speaks the scheme of its URL.
    #[must_use]
    pub fn ask(&self, snapshot: &Snapshot, now: Now) -> Option<Answer> {
        let mut listeners = self.listeners(snapshot);
        let first = listeners.next()?;
        // Several listeners may speak the scheme on other ports: one that has a route answers.
        let mut answer = self.ask_on(snapshot, first, now);
        for other in listeners {
            if answer.decision.route.is_some() {
                break;
            }
            let next = self.ask_on(snapshot, other, now);
            if next.decision.route.is_some() {
                answer = next;
            }
        }
        Some(answer)
    }

    /// Those that speak the scheme; only those on the port of the URL, if there are any.
    fn listeners<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Arc<Listener>> {
        let https = self.request.https;
        let speaks = move |listener: &&Arc<Listener>| listener.tls.is_some() == https;
        let digits = self.request.authority.rsplit(':').next().and_then(|p| p.parse::<u16>().ok());
        let port = digits.unwrap_or(if https { 443 } else { 80 });
        let on_port = move |listener: &Arc<Listener>| {
            listener.bind.tcp().is_some_and(|bind| bind.port() == port)
        };
        let exact = snapshot.listeners.iter().filter(speaks).any(on_port);
        let all = snapshot.listeners.iter().filter(speaks);
        all.filter(move |listener| !exact || on_port(listener))
    }

    fn ask_on(&self, snapshot: &Snapshot, listener: &Listener, now: Now) -> Answer {
        let (decision, trace) = match self.exchange(listener, now) {
            Ok(mut exchange) => explain(snapshot, &mut exchange),
            Err(problem) => {
                let verdict = Verdict::Refuse(problem);
                (Decision { route: None, seen: 0, verdict }, Trace::default())
            }
        };
        Answer { listener: Arc::clone(&listener.name), decision, trace }
    }

    /// The exchange as the data plane would make it, or why it would refuse to.
    ///
    /// # Errors
    /// The problem that such a request is answered with before it is routed.
    pub fn exchange(&self, listener: &Listener, now: Now) -> Result<Exchange, Problem> {
        let scheme = if self.request.https { Scheme::Https } else { Scheme::Http };
        let client_ip = self.from.unwrap_or(NOBODY);
        let mut exchange = Exchange {
            now,
            client_ip,
            random: self.random,
            assumed: self.caller.clone(),
            certificate: self.certificate.clone(),
            ..Exchange::default()
        };
        let head = &mut exchange.request;
        head.method = Method::from_bytes(self.request.method.as_bytes())
            .map_err(|_| Problem::new(codes::MALFORMED_REQUEST))?;
        head.scheme = scheme;
        head.target = head.fields.intern(self.request.target.as_bytes());
        let (authority, host) = canonical_authority(&self.request.authority, scheme)?;
        head.authority = head.fields.intern(authority.as_bytes());
        head.host = Span::new(head.authority.start as usize, head.authority.start as usize + host);
        let rules = listener.paths.path_rules(&authority.as_bytes()[..host]);
        let (path, query) = path::split_query(self.request.target.as_bytes());
        let path = canonical_path(path, &rules)?;
        head.set_path(&path);
        if let Some(query) = query {
            path::check_query(query)
                .map_err(|error| Problem::new(codes::PATH_REFUSED).detail(error))?;
            head.set_query(Some(query));
        }
        for (name, value) in &self.headers {
            if !portcullis_core::head::is_token(name.as_bytes()) {
                return Err(Problem::new(codes::MALFORMED_REQUEST));
            }
            head.fields.append(name.as_bytes(), value.as_bytes());
        }
        let length = head.fields.get(b"content-length").and_then(|v| std::str::from_utf8(v).ok());
        head.body = length.and_then(|v| v.parse().ok()).map_or(BodyLength::Empty, BodyLength::of);
        let server_name =
            authority[..host].parse::<IpAddr>().is_err() && !authority.starts_with('[');
        exchange.connection = Rc::new(Connection {
            listener: listener.index,
            peer: SocketAddr::new(client_ip, 0),
            tls: listener.tls.is_some().then(|| TlsFacts {
                version: "TLSv1.3",
                server_name: server_name.then(|| authority[..host].into()),
                ..TlsFacts::default()
            }),
        });
        Ok(exchange)
    }
}

fn canonical_authority(text: &str, scheme: Scheme) -> Result<(String, usize), Problem> {
    let mut out = Vec::new();
    let canonical = authority::canonicalise(text.as_bytes(), scheme, &mut out)
        .map_err(|error| Problem::new(codes::HOST_REFUSED).detail(error))?;
    Ok(match canonical {
        authority::Canonical::Prefix { authority, host } => (text[..authority].to_owned(), host),
        authority::Canonical::Rewritten { host } => {
            (String::from_utf8_lossy(&out).into_owned(), host)
        }
    })
}

fn canonical_path(written: &[u8], rules: &path::PathRules) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::new();
    match path::canonicalise(written, rules, &mut out) {
        Ok(path::Canonical::Unchanged) => Ok(written.to_vec()),
        Ok(path::Canonical::Rewritten) => Ok(out),
        Err(error) => Err(Problem::new(codes::PATH_REFUSED).detail(error)),
    }
}
