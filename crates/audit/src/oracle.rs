//! Whose a request is: what the configuration says, asked of a snapshot of its own that no request
//! goes through.
//!
//! It is compiled from the configuration as it is written, and it reads requests by themselves. The
//! gateway under audit may have been led to another opinion, and then that is the finding.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_config::TestRequest;
use portcullis_core::exchange::{ClientCertificate, Params};
use portcullis_core::path::{PathRules, RulesByHost as _};
use portcullis_core::planted;
use portcullis_core::{Exchange, Identity, Now};
use portcullis_snapshot::router::{Example, RoutePattern};
use portcullis_snapshot::{Question, Route, Snapshot, Verdict, explain};

use crate::draft::Draft;
use crate::send::{Lane, Presented};

/// Whose a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// By the index of the route.
    Route(usize),
    /// It has none, or is refused before it has one.
    Nobody,
}

pub(crate) struct Oracle {
    pub(crate) snapshot: Snapshot,
    /// Requests that reach each route, by the index of the route.
    pub(crate) examples: Vec<Vec<Example>>,
    /// What the certificates of clients say, by their numbers.
    pub(crate) certificates: Vec<Option<Arc<ClientCertificate>>>,
    now: Now,
}

/// Who is calling, and with which certificate.
pub(crate) type Who = (Identity, Presented);

/// What becomes of a request whose caller is accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Forwarded,
    /// The gateway answers by itself.
    Answered(u16),
    /// Why nobody gets through: the policy and what it says.
    Refused(String),
}

impl Oracle {
    pub(crate) fn new(snapshot: Snapshot, patterns: &[RoutePattern], now: Now) -> Self {
        planted::honestly(|| {
            let listeners = u16::try_from(snapshot.listeners.len()).unwrap_or(u16::MAX);
            let mut examples = vec![Vec::new(); snapshot.routes.len()];
            let all = snapshot.router.examples(patterns, listeners);
            for (pattern, found) in patterns.iter().zip(all) {
                examples[pattern.route.0 as usize].extend(found);
            }
            Self { snapshot, examples, certificates: Vec::new(), now }
        })
    }

    pub(crate) fn route(&self, index: usize) -> &Arc<Route> {
        &self.snapshot.routes[index]
    }

    /// Whether anybody may use the route without a credential.
    pub(crate) fn is_open(&self, index: usize) -> bool {
        self.route(index).access.public_reason().is_some()
    }

    /// How paths are read where the request came in.
    pub(crate) fn path_rules(&self, lane: &Lane, host: &str) -> PathRules {
        let listener = self.snapshot.listeners.get(usize::from(lane.listener));
        let host = host.to_ascii_lowercase();
        listener.map(|listener| listener.paths.path_rules(host.as_bytes())).unwrap_or_default()
    }

    pub(crate) fn owner(&self, draft: &Draft, lane: &Lane) -> Owner {
        planted::honestly(|| {
            let Some(exchange) = self.exchange(draft, lane, None) else { return Owner::Nobody };
            let mut params = Params::default();
            let found = self.snapshot.router.find(lane.listener, &exchange.request, &mut params);
            found.map_or(Owner::Nobody, |route| Owner::Route(route.0 as usize))
        })
    }

    /// What becomes of the request once `caller` is taken for accepted.
    pub(crate) fn fate(&self, draft: &Draft, lane: &Lane, (caller, certificate): Who) -> Fate {
        planted::honestly(|| {
            let Some(mut exchange) = self.exchange(draft, lane, Some(Arc::new(caller))) else {
                return Fate::Refused("the request is refused before it is routed".to_owned());
            };
            let certificate = certificate.and_then(|number| self.certificates.get(number));
            exchange.certificate = certificate.cloned().flatten();
            let (decision, trace) = explain(&self.snapshot, &mut exchange);
            match decision.verdict {
                Verdict::Forward { .. } => Fate::Forwarded,
                Verdict::Reply(reply) => Fate::Answered(reply.head.status.as_u16()),
                Verdict::Unknown { needs } => Fate::Refused(format!("it depends on {needs}")),
                Verdict::Refuse(problem) => {
                    let by = trace.steps.last().map_or("the gateway", |step| step.policy);
                    Fate::Refused(format!("`{by}` says {}: {}", problem.code.name, problem.detail))
                }
            }
        })
    }

    /// `None` where a request like it is refused before it is routed.
    fn exchange(
        &self,
        draft: &Draft,
        lane: &Lane,
        caller: Option<Arc<Identity>>,
    ) -> Option<Exchange> {
        let listener = self.snapshot.listeners.get(usize::from(lane.listener))?;
        let request = TestRequest {
            method: draft.method.clone(),
            https: draft.https,
            authority: draft.authority.clone(),
            target: draft.target.clone(),
        };
        let headers = draft.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host"));
        let question = Question {
            headers: headers.cloned().collect(),
            from: Some(lane.peer),
            caller,
            ..Question::new(request)
        };
        question.exchange(listener, self.now).ok()
    }

    /// The first of the addresses from which the request is let through, as far as addresses go.
    pub(crate) fn peer(&self, draft: &Draft, lane: &Lane, from: &[IpAddr]) -> Option<IpAddr> {
        let caller = || {
            let Owner::Route(index) = self.owner(draft, lane) else { return Identity::default() };
            let auth = match &self.route(index).access {
                portcullis_snapshot::Access::Authenticated { auth, .. }
                | portcullis_snapshot::Access::Optional { auth, .. } => auth.first().cloned(),
                portcullis_snapshot::Access::Public { .. } => None,
            };
            Identity::new(auth.unwrap_or_default(), "audit".to_owned())
        };
        from.iter().copied().find(|peer| {
            let lane = Lane { peer: *peer, ..lane.clone() };
            match self.fate(draft, &lane, (caller(), None)) {
                Fate::Refused(reason) => !reason.contains("address-not-allowed"),
                _ => true,
            }
        })
    }
}
