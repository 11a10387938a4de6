//! The one way down: from a request head to what becomes of it.
//!
//! The proxy, `explain`, `check` and the audit all decide here, so what they say is what happens.
//! The way up is the proxy's: each policy that saw the request ([`Decision::seen`]) sees the
//! answer, in reverse order.

use bytes::Bytes;
use http::StatusCode;
use portcullis_core::policy::{BodyUse, Placed, ReplyBody};
use portcullis_core::services::LocalFuture;
use portcullis_core::{BodyLength, Exchange, Problem, Reply, ResponseHead, Services, Step, codes};

use crate::router::RouteIndex;
use crate::snapshot::{Route, Snapshot};
use crate::targets::Picked;

/// What becomes of a request.
#[derive(Debug)]
pub struct Decision {
    pub route: Option<RouteIndex>,
    /// How many of the route's policies have seen the request, the one that ended it included.
    pub seen: usize,
    pub verdict: Verdict,
}

#[derive(Debug)]
pub enum Verdict {
    /// To this one of [`Snapshot::backends`].
    Forward {
        backend: u16,
        /// Which of the route's variants it is, where there are several.
        variant: Option<Picked>,
    },
    Reply(Reply),
    Refuse(Problem),
    /// Only ever said offline: it depends on something that nobody may ask there.
    Unknown {
        needs: String,
    },
}

/// What one policy made of a request.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    Continue,
    Reply(&'a Reply),
    Refuse(&'a Problem),
    /// As [`Verdict::Unknown`].
    Unknown(&'a str),
}

/// Watches a decision being made. `()` watches nothing and costs nothing.
pub trait Observer {
    fn routed(&mut self, _route: Option<&Route>) {}

    /// Why the request is refused before anything else is done about it, if so.
    fn refuses(&mut self, _route: &Route, _exchange: &Exchange) -> Option<Problem> {
        None
    }

    fn before(&mut self, _placed: &Placed) {}

    fn after(&mut self, _placed: &Placed, _outcome: Outcome<'_>, _waited: bool) {}

    /// Asked after each policy that waited: what it would have needed, if it was not to be had.
    fn needs(&mut self) -> Option<String> {
        None
    }
}

impl Observer for () {}

/// The body of the request being decided, for policies that want the whole of it first.
pub trait RequestBody {
    /// Reads to the end, at most `bytes_max`.
    fn collect(&mut self, bytes_max: usize) -> LocalFuture<'_, Result<Bytes, Problem>>;
}

/// No body, or one that nobody will read.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBody;

impl RequestBody for NoBody {
    fn collect(&mut self, _: usize) -> LocalFuture<'_, Result<Bytes, Problem>> {
        Box::pin(async { Ok(Bytes::new()) })
    }
}

/// Routes the request and runs the route's policies in order.
///
/// Reads the clock only after a wait; allocates nothing unless a policy does.
pub async fn decide<O: Observer>(
    snapshot: &Snapshot,
    exchange: &mut Exchange,
    body: &mut dyn RequestBody,
    services: &dyn Services,
    observer: &mut O,
) -> Decision {
    let index = match find_route(snapshot, exchange) {
        Ok(index) => index,
        Err(verdict) => {
            observer.routed(None);
            return Decision { route: None, seen: 0, verdict };
        }
    };
    let route = &*snapshot.routes[index.0 as usize];
    observer.routed(Some(route));
    let mut seen = 0;
    let verdict = 'verdict: {
        if let Some(problem) = observer.refuses(route, exchange) {
            break 'verdict Verdict::Refuse(problem);
        }
        let mut collected = None;
        for placed in &route.policies {
            if let BodyUse::Buffered { bytes_max } = placed.policy.request_body()
                && let Err(problem) =
                    buffer(route, bytes_max, exchange, body, services, &mut collected).await
            {
                break 'verdict Verdict::Refuse(problem);
            }
            seen += 1;
            if let Some(verdict) = run(placed, exchange, services, observer).await {
                break 'verdict verdict;
            }
        }
        forward(snapshot, route, exchange)
    };
    Decision { route: Some(index), seen, verdict }
}

/// One policy; `Some` ends the way down.
async fn run<O: Observer>(
    placed: &Placed,
    exchange: &mut Exchange,
    services: &dyn Services,
    observer: &mut O,
) -> Option<Verdict> {
    observer.before(placed);
    let mut waited = false;
    let verdict = {
        let mut step = placed.policy.on_request(exchange, services);
        loop {
            match step {
                Step::Continue => break None,
                Step::Refuse(problem) => break Some(Verdict::Refuse(problem)),
                Step::Reply(reply) => break Some(Verdict::Reply(reply)),
                Step::Wait(future) => {
                    waited = true;
                    step = future.await;
                }
            }
        }
    };
    if waited {
        exchange.now = services.now();
        if let Some(needs) = observer.needs() {
            observer.after(placed, Outcome::Unknown(&needs), true);
            return Some(Verdict::Unknown { needs });
        }
    }
    let outcome = match &verdict {
        Some(Verdict::Refuse(problem)) => Outcome::Refuse(problem),
        Some(Verdict::Reply(reply)) => Outcome::Reply(reply),
        _ => Outcome::Continue,
    };
    observer.after(placed, outcome, waited);
    verdict
}

/// Puts the whole body into the exchange, once, before the first policy that wants it.
async fn buffer(
    route: &Route,
    bytes_max: usize,
    exchange: &mut Exchange,
    body: &mut dyn RequestBody,
    services: &dyn Services,
    collected: &mut Option<usize>,
) -> Result<(), Problem> {
    let bytes_max = bytes_max.min(usize::try_from(route.body_bytes_max).unwrap_or(usize::MAX));
    check_length(exchange, bytes_max as u64)?;
    let length = match *collected {
        Some(length) => length,
        None if exchange.request.body == BodyLength::Empty => 0,
        None => {
            exchange.request_body = body.collect(bytes_max).await?;
            exchange.now = services.now();
            exchange.request_body.len()
        }
    };
    *collected = Some(length);
    if length > bytes_max {
        return Err(Problem::new(codes::BODY_TOO_LARGE));
    }
    Ok(())
}

fn check_length(exchange: &Exchange, bytes_max: u64) -> Result<(), Problem> {
    match exchange.request.body {
        BodyLength::Known(length) if length > bytes_max => Err(Problem::new(codes::BODY_TOO_LARGE)
            .detail(format!("{length} bytes, at most {bytes_max}"))),
        _ => Ok(()),
    }
}

fn forward(snapshot: &Snapshot, route: &Route, exchange: &Exchange) -> Verdict {
    let Some(targets) = &route.to else {
        // Compile has seen to it that a route without backends has a policy that answers.
        return Verdict::Refuse(Problem::new(codes::INTERNAL).detail("no policy answered"));
    };
    if let Err(problem) = check_length(exchange, route.body_bytes_max) {
        return Verdict::Refuse(problem);
    }
    if let Some(backend) = targets.only() {
        return Verdict::Forward { backend, variant: None };
    }
    match targets.choose(exchange, snapshot.split(route, targets)) {
        Some(picked) => {
            let backend = targets.variants[usize::from(picked.at)].backend;
            Verdict::Forward { backend, variant: Some(picked) }
        }
        None => Verdict::Refuse(Problem::new(codes::INTERNAL).detail("every weight is 0")),
    }
}

/// The route, or why there is none.
fn find_route(snapshot: &Snapshot, exchange: &mut Exchange) -> Result<RouteIndex, Verdict> {
    let number = exchange.connection.listener;
    let request = &exchange.request;
    let listener = snapshot.listeners.get(usize::from(number));
    if let Some(tls) = listener.and_then(|listener| listener.tls.as_ref())
        && let Some(facts) = &exchange.connection.tls
        && tls.is_misdirected(facts.server_name.as_deref(), request.host())
    {
        return Err(Verdict::Refuse(Problem::new(codes::MISDIRECTED_REQUEST)));
    }
    if let Some(redirect) = listener.and_then(|listener| listener.redirect.as_ref()) {
        return Err(redirect_to_https(exchange, redirect.port));
    }
    let found = snapshot.router.find(number, request, &mut exchange.params);
    found.ok_or_else(|| {
        Verdict::Refuse(match snapshot.router.allowed(number, request) {
            None => Problem::new(codes::NO_ROUTE),
            Some(methods) => {
                let allow: Vec<&str> = methods.names().collect();
                Problem::new(codes::METHOD_NOT_ALLOWED).field("allow", allow.join(", "))
            }
        })
    })
}

/// 308 keeps method and body (RFC 9110 §15.4.9).
fn redirect_to_https(exchange: &Exchange, port: u16) -> Verdict {
    let request = &exchange.request;
    if request.host().is_empty() || !request.path().starts_with(b"/") {
        return Verdict::Refuse(Problem::new(codes::HOST_REFUSED));
    }
    let mut location = b"https://".to_vec();
    location.extend_from_slice(request.host());
    if port != 443 && port != 0 {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    location.extend_from_slice(request.path());
    if let Some(query) = request.query() {
        location.push(b'?');
        location.extend_from_slice(query);
    }
    let mut head = ResponseHead::new(StatusCode::PERMANENT_REDIRECT);
    head.fields.append(b"location", &location);
    Verdict::Reply(Reply { head, body: ReplyBody::Bytes(Bytes::new()) })
}

#[cfg(test)]
mod tests;
