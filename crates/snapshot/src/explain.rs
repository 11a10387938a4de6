//! A decision with its reasons, made offline: nothing is fetched, counted or waited for.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use portcullis_core::limit::{LimitKey, LimitSpec};
use portcullis_core::policy::Placed;
use portcullis_core::services::{
    Fetch, Fetched, Lease, LocalFuture, Offline, Services, Unavailable,
};
use portcullis_core::{Exchange, Now};
use serde::Serialize;

use crate::decide::{Decision, NoBody, Observer, Outcome, Verdict, decide};
use crate::snapshot::{Route, Snapshot};

/// What was asked of each policy, and what it said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Trace {
    pub route: Option<String>,
    pub steps: Vec<TraceStep>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TraceStep {
    pub phase: &'static str,
    pub policy: &'static str,
    /// `continue`, the status of a reply, the status and code of a problem, or `unknown`.
    pub outcome: String,
    /// For the operator only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// It asked somebody else and waited for the answer.
    pub waited: bool,
}

/// Records the trace of a decision.
#[derive(Debug, Default)]
pub struct Explain {
    pub trace: Trace,
    asked: Rc<RefCell<Option<String>>>,
}

impl Observer for Explain {
    fn routed(&mut self, route: Option<&Route>) {
        self.trace.route = route.map(|route| route.name.to_string());
    }

    fn after(&mut self, placed: &Placed, outcome: Outcome<'_>, waited: bool) {
        let (outcome, detail) = match outcome {
            Outcome::Continue => ("continue".to_owned(), String::new()),
            Outcome::Reply(reply) => (reply.head.status.as_u16().to_string(), String::new()),
            Outcome::Unknown(needs) => ("unknown".to_owned(), format!("needs {needs}")),
            Outcome::Refuse(problem) => (
                format!("{} {}", problem.status().as_u16(), problem.code.name),
                problem.detail.clone(),
            ),
        };
        let (phase, policy) = (placed.phase.name(), placed.name);
        self.trace.steps.push(TraceStep { phase, policy, outcome, detail, waited });
    }

    fn needs(&mut self) -> Option<String> {
        self.asked.borrow_mut().take()
    }
}

/// Offline services that remember what they could not give.
struct Asked {
    offline: Offline,
    asked: Rc<RefCell<Option<String>>>,
}

impl Services for Asked {
    fn now(&self) -> Now {
        self.offline.now()
    }

    fn is_offline(&self) -> bool {
        self.offline.is_offline()
    }

    fn random(&self, into: &mut [u8]) {
        self.offline.random(into);
    }

    fn fetch(&self, fetch: Fetch) -> LocalFuture<'_, Result<Fetched, Unavailable>> {
        self.asked.borrow_mut().get_or_insert_with(|| fetch.url.clone());
        self.offline.fetch(fetch)
    }

    fn lease<'a>(&'a self, key: LimitKey, spec: &'a LimitSpec, want: u32) -> Lease<'a> {
        self.offline.lease(key, spec, want)
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> LocalFuture<'_, Result<(), Unavailable>> {
        self.offline.offload(job)
    }
}

/// Decides without the world. What cannot be known that way is [`Verdict::Unknown`].
///
/// The exchange says who is calling ([`Exchange::assumed`]) or carries a credential.
pub fn explain(snapshot: &Snapshot, exchange: &mut Exchange) -> (Decision, Trace) {
    let mut observer = Explain::default();
    let services = Asked {
        offline: Offline { now: exchange.now, ..Offline::default() },
        asked: Rc::clone(&observer.asked),
    };
    let decided = {
        let mut body = NoBody;
        let future = pin!(decide(snapshot, exchange, &mut body, &services, &mut observer));
        // Offline everything is answered at once; what is not waits for something that never comes.
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(decision) => Some(decision),
            Poll::Pending => None,
        }
    };
    let decision = decided.unwrap_or_else(|| Decision {
        route: None,
        seen: observer.trace.steps.len() + 1,
        verdict: Verdict::Unknown {
            needs: observer.needs().unwrap_or_else(|| "an answer from elsewhere".to_owned()),
        },
    });
    (decision, observer.trace)
}
