//! Live connections to endpoints, kept by the worker that made them.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use portcullis_upstream::Endpoint;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::backend::BackendConnection;
use crate::io::Io;

/// Names are looked up again after this; the system's resolver has caches of its own.
const LOOKUP_TTL: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Idle {
    connection: Box<BackendConnection>,
    since: Duration,
}

/// When a name was looked up, and what was found.
type Looked = (Duration, Vec<SocketAddr>);

/// Idle connections of one worker, by endpoint; the one used last is used next.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<Key, Vec<Idle>>>,
    names: RefCell<HashMap<(String, u16), Looked>>,
    /// Requests that wait for a connection, first come first served.
    waiting: RefCell<VecDeque<Waker>>,
}

/// The address of the shared state: endpoints live as long as connections to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key(usize);

impl Key {
    fn of(endpoint: &Arc<Endpoint>) -> Self {
        Self(Arc::as_ptr(endpoint).addr())
    }
}

impl Pool {
    /// A connection that was idle and is still quiet.
    pub(crate) fn take(&self, endpoint: &Arc<Endpoint>) -> Option<Box<BackendConnection>> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&Key::of(endpoint))?;
        while let Some(Idle { mut connection, .. }) = list.pop() {
            if connection.wire.io.is_quiet() {
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for later, at most `idle_max` for each endpoint and worker.
    pub(crate) fn give(&self, connection: Box<BackendConnection>, idle_max: usize, now: Duration) {
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(Key::of(&connection.endpoint)).or_default();
        if list.len() < idle_max {
            list.push(Idle { connection, since: now });
        }
    }

    /// Whoever waits is woken once, to look again, when a connection of this worker is done.
    pub(crate) fn queue(&self, waker: &Waker) {
        self.waiting.borrow_mut().push_back(waker.clone());
    }

    /// A connection was given back or dropped: the first in the queue may look.
    pub(crate) fn wake_one(&self) {
        if let Some(waker) = self.waiting.borrow_mut().pop_front() {
            waker.wake();
        }
    }

    /// Lets everybody in the queue look: other workers free connections without a word, and a
    /// request that was woken may have ended meanwhile.
    pub(crate) fn wake_all(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Closes what has been idle too long, has been closed by the backend, or belongs to an
    /// endpoint out of use.
    pub(crate) fn sweep(&self, now: Duration, keep: impl Fn(&Endpoint) -> Option<Duration>) {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|_, list| {
            list.retain_mut(|idle| {
                let timeout = keep(&idle.connection.endpoint);
                timeout.is_some_and(|timeout| now.saturating_sub(idle.since) < timeout)
                    && idle.connection.wire.io.is_quiet()
            });
            !list.is_empty()
        });
    }

    /// How many connections to the endpoint are idle here.
    pub(crate) fn idle(&self, endpoint: &Arc<Endpoint>) -> usize {
        self.idle.borrow().get(&Key::of(endpoint)).map_or(0, Vec::len)
    }

    /// The addresses of a name, from the system's resolver; an IP address is its own.
    async fn lookup(&self, host: &str, port: u16, now: Duration) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let key = (host.to_owned(), port);
        if let Some((at, found)) = self.names.borrow().get(&key)
            && now.saturating_sub(*at) < LOOKUP_TTL
        {
            return Ok(found.clone());
        }
        match tokio::net::lookup_host((host, port)).await {
            Ok(found) => {
                let found: Vec<_> = found.collect();
                self.names.borrow_mut().insert(key, (now, found.clone()));
                Ok(found)
            }
            // A resolver that is down must not take a backend down whose address is known.
            Err(error) => match self.names.borrow().get(&key) {
                Some((_, stale)) => Ok(stale.clone()),
                None => Err(error),
            },
        }
    }

    /// Connects to the first address that answers.
    pub(crate) async fn connect(
        &self,
        host: &str,
        port: u16,
        tls: Option<(&Arc<rustls::ClientConfig>, &ServerName<'static>)>,
        now: Duration,
    ) -> io::Result<Io> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.lookup(host, port, now).await? {
            match TcpStream::connect(address).await {
                Ok(tcp) => {
                    tcp.set_nodelay(true)?;
                    return secure(tcp, tls).await;
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn secure(
    tcp: TcpStream,
    tls: Option<(&Arc<rustls::ClientConfig>, &ServerName<'static>)>,
) -> io::Result<Io> {
    let Some((config, name)) = tls else { return Ok(Io::Plain(tcp)) };
    let session = rustls::ClientConnection::new(Arc::clone(config), name.clone())
        .map_err(io::Error::other)?;
    let mut io = Io::tls(tcp, session);
    std::future::poll_fn(|cx| io.poll_handshake(cx)).await?;
    Ok(io)
}
