//! The clients: requests at a steady rate, whatever becomes of those before ("open loop"), since
//! real clients do not wait for each other either.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::endpoint::NAME;

/// Nobody waits for longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a body, for reading which problem it is.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer of an endpoint.
    Endpoint(u16, u32),
    /// An answer that the gateway made: its status, and the code of the problem.
    Gateway(u16, String),
    /// The connection ended before the answer did, or the answer made no sense.
    Cut,
    TimedOut,
}

/// One request, as its client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// When it was sent, from the beginning of the drill.
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    pub(crate) outcome: Outcome,
}

type Sender = SendRequest<Empty<Bytes>>;

/// Connections that wait for a request.
#[derive(Debug)]
struct Pool {
    socket: PathBuf,
    idle: Mutex<Vec<Sender>>,
}

impl Pool {
    async fn sender(&self) -> Option<Sender> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut sender) = idle else { break };
            // One that the gateway has closed meanwhile is never ready.
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
        let stream = UnixStream::connect(&self.socket).await.ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(async move {
            // How it ended shows in the request that was on it.
            drop(connection.await);
        });
        Some(sender)
    }

    async fn ask(&self, method: &Method, path: &str) -> Option<Outcome> {
        let mut sender = self.sender().await?;
        let request = Request::builder().method(method).uri(path);
        let request = request.header("host", "drill.example").body(Empty::new()).ok()?;
        let answer = sender.send_request(request).await.ok()?;
        let (head, body) = answer.into_parts();
        let body = http_body_util::Limited::new(body, BODY_BYTES_MAX).collect().await.ok()?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        let status = head.status.as_u16();
        let name = head.headers.get(NAME).and_then(|name| name.to_str().ok()?.parse().ok());
        Some(match name {
            Some(name) => Outcome::Endpoint(status, name),
            None => Outcome::Gateway(status, code(&body.to_bytes())),
        })
    }
}

/// The code of a problem.
fn code(body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let code = problem.as_ref().and_then(|problem| problem.get("code")?.as_str());
    code.unwrap_or("unknown").to_owned()
}

/// Sends `rate` such requests a second until `end` from `began`, and waits for the last.
pub(crate) async fn load(
    socket: &Path,
    (method, path): (Method, String),
    rate: u32,
    began: Instant,
    end: Duration,
) -> Vec<Seen> {
    let pool = Arc::new(Pool { socket: socket.to_owned(), idle: Mutex::default() });
    let mut requests = JoinSet::new();
    let mut all = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            due = ticks.tick() => {
                let at = due.saturating_duration_since(began);
                if at >= end {
                    break;
                }
                let (pool, method, path) = (Arc::clone(&pool), method.clone(), path.clone());
                requests.spawn(async move {
                    let asked = tokio::time::timeout(PATIENCE, pool.ask(&method, &path)).await;
                    let outcome = match asked {
                        Ok(outcome) => outcome.unwrap_or(Outcome::Cut),
                        Err(_) => Outcome::TimedOut,
                    };
                    // From when it was due, so that a client that was late hides nothing.
                    Seen { at, took: due.elapsed(), outcome }
                });
            }
            Some(Ok(seen)) = requests.join_next() => all.push(seen),
        }
    }
    while let Some(seen) = requests.join_next().await {
        all.extend(seen);
    }
    all
}

/// Whether the gateway answers.
pub(crate) async fn answers(socket: &Path, path: &str) -> bool {
    let pool = Pool { socket: socket.to_owned(), idle: Mutex::default() };
    let asked = tokio::time::timeout(PATIENCE, pool.ask(&Method::GET, path)).await;
    matches!(asked, Ok(Some(Outcome::Endpoint(200, _) | Outcome::Gateway(200, _))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_known_by_its_code() {
        assert_eq!(code(br#"{"code":"backend-timeout","status":504}"#), "backend-timeout");
        assert_eq!(code(b"<html>"), "unknown");
        assert_eq!(code(b"{}"), "unknown");
    }
}
