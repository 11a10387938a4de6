//! Live connections to endpoints, kept by the worker that made them.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use portcullis_snapshot::Backend;
use portcullis_upstream::{Bulkhead, Endpoint};

use crate::backend_h1::Connection;
use crate::backend_h2::{Shared, Stream};

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Duration,
}

/// Idle connections of one worker, by endpoint; the one used last is used next.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<Key, Vec<Idle>>>,
    shared: RefCell<HashMap<Key, Group>>,
    /// Requests that wait for a connection, first come first served. Each backend has a line of its
    /// own, so that nobody waits behind those whose backend gives nothing back.
    waiting: RefCell<HashMap<Line, VecDeque<Waker>>>,
}

/// Those who wait for a connection to one backend. What backends hold lives as long as they wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Line(usize);

impl Line {
    pub(crate) fn of(backend: &Backend) -> Self {
        Self::at(&backend.capacity.requests)
    }

    /// Each backend has a bulkhead of its own, by which its line is known.
    pub(crate) fn at(bulkhead: &Arc<Bulkhead>) -> Self {
        Self(Arc::as_ptr(bulkhead).addr())
    }
}

/// The HTTP/2 connections of one worker to an endpoint.
#[derive(Debug, Default)]
struct Group {
    connections: Vec<Rc<Shared>>,
    /// Connections that are being made, and may come to carry many streams.
    connecting: u32,
    /// The last attempt gave none, so it is not worth waiting for another's.
    alone: bool,
}

/// A connection is being made, until this is dropped.
pub(crate) struct Connecting<'a> {
    pool: &'a Pool,
    key: Key,
    outcome: Option<Rc<Shared>>,
}

impl Connecting<'_> {
    /// It speaks HTTP/2: whoever waits may use it.
    pub(crate) fn share(mut self, shared: &Rc<Shared>) {
        self.outcome = Some(Rc::clone(shared));
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        let mut groups = self.pool.shared.borrow_mut();
        let group = groups.entry(self.key).or_default();
        group.connecting = group.connecting.saturating_sub(1);
        group.alone = self.outcome.is_none();
        group.connections.extend(self.outcome.take());
        drop(groups);
        self.pool.wake_all();
    }
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
    /// A connection that was idle, is still quiet, and is this client's own where it has to be.
    pub(crate) fn take(
        &self,
        endpoint: &Arc<Endpoint>,
        behalf: Option<SocketAddr>,
    ) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&Key::of(endpoint))?;
        while let Some(at) = list.iter().rposition(|idle| idle.connection.behalf == behalf) {
            let Idle { mut connection, .. } = list.remove(at);
            if connection.wire.io.is_quiet() {
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for later, at most `idle_max` for each endpoint and worker.
    pub(crate) fn give(&self, connection: Box<Connection>, idle_max: usize, now: Duration) {
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(Key::of(&connection.endpoint)).or_default();
        if list.len() < idle_max {
            list.push(Idle { connection, since: now });
        }
    }

    /// A stream of a connection that has room for one.
    pub(crate) fn stream(
        &self,
        endpoint: &Arc<Endpoint>,
        streams_max: u32,
        now: Duration,
    ) -> Option<Box<Stream>> {
        let mut groups = self.shared.borrow_mut();
        let connections = &mut groups.get_mut(&Key::of(endpoint))?.connections;
        let mut at = 0;
        while let Some(shared) = connections.get(at) {
            let Some(stream) = shared.stream(streams_max, now) else {
                at += 1;
                continue;
            };
            if shared.is_open() {
                return Some(stream);
            }
            // What is under way on it holds it until it is done.
            connections.remove(at);
        }
        None
    }

    /// Says that a connection is being made that may carry many streams.
    pub(crate) fn connecting(&self, endpoint: &Arc<Endpoint>) -> Connecting<'_> {
        let key = Key::of(endpoint);
        self.shared.borrow_mut().entry(key).or_default().connecting += 1;
        Connecting { pool: self, key, outcome: None }
    }

    /// Whether it is worth waiting for a connection that somebody else is making.
    pub(crate) fn is_connecting(&self, endpoint: &Arc<Endpoint>) -> bool {
        let groups = self.shared.borrow();
        groups.get(&Key::of(endpoint)).is_some_and(|group| group.connecting > 0 && !group.alone)
    }

    /// Whoever waits is woken once, to look again, when a connection of this worker is done.
    pub(crate) fn queue(&self, line: Line, waker: &Waker) {
        self.waiting.borrow_mut().entry(line).or_default().push_back(waker.clone());
    }

    /// A connection was given back or dropped: the first in the queue may look.
    pub(crate) fn wake_one(&self, line: Line) {
        let mut waiting = self.waiting.borrow_mut();
        // As good as always.
        if waiting.is_empty() {
            return;
        }
        if let Some(waker) = waiting.get_mut(&line).and_then(VecDeque::pop_front) {
            waker.wake();
        }
    }

    /// Lets everybody in the queue look: other workers free connections without a word, and a
    /// request that was woken may have ended meanwhile.
    pub(crate) fn wake_all(&self) {
        for waker in self.waiting.take().into_values().flatten() {
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
        drop(idle);
        // Where one is closed the endpoint may be forgotten: so must be what was learnt of it.
        self.shared.borrow_mut().retain(|_, group| {
            group.connections.retain(|shared| {
                let timeout = keep(&shared.endpoint);
                let since = timeout.and_then(|timeout| now.checked_sub(timeout));
                let expired = timeout.is_none() || since.is_some_and(|at| shared.is_idle_since(at));
                shared.is_open() && !(expired && shared.is_idle())
            });
            group.connecting > 0 || !group.connections.is_empty()
        });
    }

    /// How many connections to the endpoint are idle here.
    pub(crate) fn idle(&self, endpoint: &Arc<Endpoint>) -> usize {
        let key = Key::of(endpoint);
        let shared = self.shared.borrow();
        let unused = |group: &Group| group.connections.iter().filter(|c| c.is_idle()).count();
        self.idle.borrow().get(&key).map_or(0, Vec::len) + shared.get(&key).map_or(0, unused)
    }
}
