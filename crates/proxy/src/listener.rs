//! Accepting connections: how many, by which worker, in clear or through TLS.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use portcullis_core::exchange::{Connection, TlsFacts};
use portcullis_snapshot::{ClientCertificates, Listener};
use portcullis_telemetry::metrics::{Bound, ListenerSeries};
use portcullis_upstream::{Pressure, Shedder};
use tokio::task::AbortHandle;

use crate::addresses::Seat;
use crate::deadline::Wait;
use crate::io::Io;
use crate::socket::{Acceptor, Listening, Socket, is_exhausted};
use crate::wire::Wire;
use crate::worker::{Handed, Worker};
use crate::{certificate, h1, h2, proxy_protocol};

/// How long accepting rests when the process has no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines about clients that a listener and worker turned away over their certificates.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// A listener as one worker sees it; it stays while reloads change what is behind it.
#[derive(Debug)]
pub(crate) struct Place {
    current: RefCell<Rc<Arc<Listener>>>,
    series: Arc<ListenerSeries>,
    closed: Cell<bool>,
    refused: Refused,
    shedder: RefCell<Shedder>,
    pressure: Cell<Pressure>,
}

impl Place {
    pub(crate) fn new(listener: &Arc<Listener>, series: Arc<ListenerSeries>) -> Self {
        let current = RefCell::new(Rc::new(Arc::clone(listener)));
        Self {
            current,
            series,
            closed: Cell::new(false),
            refused: Refused::default(),
            shedder: RefCell::default(),
            pressure: Cell::default(),
        }
    }

    pub(crate) fn listener(&self) -> Rc<Arc<Listener>> {
        Rc::clone(&self.current.borrow())
    }

    pub(crate) fn index(&self) -> u16 {
        self.current.borrow().index
    }

    pub(crate) fn is_at(&self, listener: &Listener) -> bool {
        self.current.borrow().bind.is_same_place(&listener.bind)
    }

    pub(crate) fn update(&self, listener: &Arc<Listener>) {
        *self.current.borrow_mut() = Rc::new(Arc::clone(listener));
    }

    /// How much of what comes by this listener is to be refused.
    pub(crate) fn pressure(&self) -> Pressure {
        self.pressure.get()
    }

    /// Sees how far behind the worker is, `since` the last time.
    pub(crate) fn look(&self, delay: Duration, since: Duration) -> Pressure {
        let pressure = match self.current.borrow().shed {
            Some(tolerated) => self.shedder.borrow_mut().look(delay, since, tolerated),
            None => Pressure::default(),
        };
        self.pressure.set(pressure);
        pressure
    }

    /// The configuration has no such listener any more: its connections end with their exchange.
    pub(crate) fn close(&self) {
        self.closed.set(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }
}

/// Begins to accept on this worker. All workers share one socket, so none can be missed by the
/// kernel's choice; whoever accepts gives the connection to the worker that has the fewest.
pub(crate) fn accept(
    worker: &Rc<Worker>,
    place: &Rc<Place>,
    socket: &Listening,
) -> io::Result<AbortHandle> {
    let task = accept_each(Rc::clone(worker), Rc::clone(place), socket.acceptor()?);
    Ok(tokio::task::spawn_local(task).abort_handle())
}

async fn accept_each(worker: Rc<Worker>, place: Rc<Place>, socket: Acceptor) {
    loop {
        match socket.accept().await {
            Ok((socket, peer)) => admit(&worker, &place, socket, peer),
            // The socket was shut, for a drain.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) if is_of_the_client(&error) => {}
            // No descriptors or no memory: the socket stays ready, so that to look again at once
            // would be all that this worker does.
            Err(error) => {
                if is_exhausted(&error) {
                    worker.metrics.bound(Bound::Descriptors);
                }
                place.series.accept_paused(worker.metrics.id());
                worker.shared.world.clock().sleep(PAUSE).await;
            }
        }
    }
}

/// Whether the client was gone before it was accepted, or could not be reached (accept(2)).
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable, PermissionDenied,
    };
    // EPROTO, ENOPROTOOPT, EOPNOTSUPP, EHOSTDOWN, ENONET have no kind of their own.
    matches!(error.raw_os_error(), Some(71 | 92 | 95 | 112 | 64))
        || matches!(
            error.kind(),
            ConnectionAborted
                | ConnectionReset
                | HostUnreachable
                | Interrupted
                | NetworkDown
                | NetworkUnreachable
                | PermissionDenied
        )
}

/// Places a new connection, or closes it where there are too many.
fn admit(worker: &Rc<Worker>, place: &Rc<Place>, socket: Socket, peer: SocketAddr) {
    let listener = place.listener();
    if place.series.open() >= u64::from(listener.limits.connections_max) {
        return refuse(worker, place, Bound::ConnectionsMax);
    }
    // Where a PROXY protocol header names the client its connections are counted after that.
    let seat = match socket.is_unix() || listener.proxy_protocol {
        true => None,
        false => match seat(worker, place, peer.ip()) {
            Ok(seat) => seat,
            Err(Full) => return,
        },
    };
    let loads = &worker.shared.loads;
    let mine = loads[worker.index].load(Relaxed);
    let least = loads.iter().enumerate().map(|(i, load)| (load.load(Relaxed), i)).min();
    match least {
        Some((load, other)) if load < mine => {
            let Ok(socket) = socket.detach() else { return };
            loads[other].fetch_add(1, Relaxed);
            let handed = Handed { socket, peer, listener: Arc::clone(&listener.name), seat };
            // A worker that is that far behind gets no more: the connection closes.
            if worker.shared.inboxes[other].try_send(handed).is_err() {
                loads[other].fetch_sub(1, Relaxed);
                place.series.refused(worker.metrics.id());
            }
        }
        _ => {
            loads[worker.index].fetch_add(1, Relaxed);
            start(worker, place, socket, peer, seat);
        }
    }
}

fn refuse(worker: &Worker, place: &Place, bound: Bound) {
    place.series.refused(worker.metrics.id());
    worker.metrics.bound(bound);
}

/// The address has as many connections as it may have.
struct Full;

/// Counts a connection of an address. Not those of a trusted proxy: many clients share it.
fn seat(worker: &Worker, place: &Place, address: IpAddr) -> Result<Option<Seat>, Full> {
    let listener = place.listener();
    if listener.trusts(address.to_canonical()) {
        return Ok(None);
    }
    let max = listener.limits.connections_per_address_max;
    let seat = worker.shared.addresses.seat(address, max);
    if seat.is_none() {
        refuse(worker, place, Bound::ConnectionsPerAddressMax);
    }
    seat.map(Some).ok_or(Full)
}

/// Counts a connection for as long as it lives.
struct Counted {
    worker: Rc<Worker>,
    place: Rc<Place>,
    seat: Option<Seat>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.worker.shared.loads[self.worker.index].fetch_sub(1, Relaxed);
        self.place.series.closed(self.worker.metrics.id());
    }
}

/// Serves a connection that is already counted in the worker's load.
pub(crate) fn start(
    worker: &Rc<Worker>,
    place: &Rc<Place>,
    socket: Socket,
    peer: SocketAddr,
    seat: Option<Seat>,
) {
    place.series.accepted(worker.metrics.id());
    let counted = Counted { worker: Rc::clone(worker), place: Rc::clone(place), seat };
    socket.set_nodelay();
    let facts = Connection { listener: place.index(), peer, tls: None };
    tokio::task::spawn_local(serve(counted, socket, facts, place.listener()));
}

/// One connection from its first byte to its last.
async fn serve(
    mut counted: Counted,
    mut socket: Socket,
    mut facts: Connection,
    listener: Rc<Arc<Listener>>,
) {
    let worker = Rc::clone(&counted.worker);
    let place = Rc::clone(&counted.place);
    if listener.proxy_protocol {
        let Ok(named) = introduced(&worker, &place, &mut socket, facts.peer).await else { return };
        if let Some(peer) = named {
            facts.peer = peer;
            let Ok(seat) = seat(&worker, &place, peer.ip()) else { return };
            counted.seat = seat;
        }
    }
    if listener.tls.is_none() {
        drop(listener);
        return h1::connection(worker, Io::Plain(socket), place, Rc::new(facts)).await;
    }
    // Boxed, so that an idle connection does not carry the size of its handshake.
    let secured = Box::pin(secure(&worker, &place, socket, facts, listener)).await;
    let Some((io, facts, is_h2)) = secured else {
        return place.series.handshake_failed(worker.metrics.id());
    };
    if is_h2 {
        // Boxed, so that an idle HTTP/1.1 connection does not carry the other's size.
        Box::pin(h2::connection(worker, Wire::new(io), place, facts)).await;
    } else {
        h1::connection(worker, io, place, facts).await;
    }
}

/// The handshake, and what it has established; whether HTTP/2 was agreed on.
async fn secure(
    worker: &Rc<Worker>,
    place: &Place,
    socket: Socket,
    mut facts: Connection,
    listener: Rc<Arc<Listener>>,
) -> Option<(Io, Rc<Connection>, bool)> {
    let tls = listener.tls.as_ref()?;
    let session = rustls::ServerConnection::new(Arc::clone(&tls.config)).ok()?;
    let mut io = Io::tls(socket, session);
    let ended = handshake(worker, place, &mut io).await.map_err(|error| refusal(&error));
    let wall = worker.shared.world.clock().now().wall;
    let client = tls.client.as_deref();
    match ended.and_then(|()| established(&io, &mut facts, client, wall).map_err(Some)) {
        Ok(is_h2) => Some((io, Rc::new(facts), is_h2)),
        Err(reason) => {
            if let Some(reason) = reason {
                place.refused.tell(&listener.name, facts.peer, &reason, worker.coarse_now());
            }
            None
        }
    }
}

/// Who a trusted balancer says is there, unless it speaks for itself.
async fn introduced(
    worker: &Rc<Worker>,
    place: &Place,
    socket: &mut Socket,
    peer: SocketAddr,
) -> io::Result<Option<SocketAddr>> {
    let listener = place.listener();
    if !listener.trusts(peer.ip().to_canonical()) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let deadline = worker.deadlines.add();
    deadline.set(Wait::Handshake, worker.coarse_now() + listener.timeouts.handshake);
    proxy_protocol::read(socket, &deadline).await
}

async fn handshake(worker: &Rc<Worker>, place: &Place, io: &mut Io) -> io::Result<()> {
    let deadline = worker.deadlines.add();
    let timeout = place.listener().timeouts.handshake;
    deadline.set(Wait::Handshake, worker.coarse_now() + timeout);
    poll_fn(|cx| match deadline.check(cx) {
        Ok(()) => io.poll_handshake(cx),
        Err(_) => std::task::Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
    })
    .await
}

/// Why a client was turned away over its certificate, if that was it.
fn refusal(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
    matches!(error, InvalidCertificate(_) | NoCertificatesPresented).then(|| error.to_string())
}

/// Notes what the handshake has established. Returns whether HTTP/2 was agreed on, or why the
/// client's certificate does not do.
fn established(
    io: &Io,
    facts: &mut Connection,
    client: Option<&ClientCertificates>,
    wall: Duration,
) -> Result<bool, String> {
    let Some(session) = io.session() else { return Ok(false) };
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let server_name = match session {
        rustls::Connection::Server(server) => server.server_name(),
        rustls::Connection::Client(_) => None,
    };
    let server_name = server_name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    let mut tls =
        TlsFacts { version, server_name: server_name.map(Into::into), ..TlsFacts::default() };
    if let Some(client) = client {
        tls.certificate = certificate::established(session, client, wall)?;
    }
    facts.tls = Some(tls);
    Ok(session.alpn_protocol() == Some(b"h2"))
}

/// Tells the operator why clients are turned away over their certificates, without letting
/// strangers fill the disk.
#[derive(Debug, Default)]
struct Refused {
    /// When the next one may be told.
    due: Cell<Duration>,
    untold: Cell<u64>,
}

impl Refused {
    fn tell(&self, listener: &str, peer: SocketAddr, reason: &str, now: Duration) {
        if now < self.due.get() {
            return self.untold.set(self.untold.get() + 1);
        }
        self.due.set(now + TOLD_EVERY);
        let untold = self.untold.take();
        tracing::warn!(listener, %peer, reason, untold, "a client certificate was refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what such a function returns, without calling it.
    fn size_of_result<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        let (task, state) = (size_of_result(serve), size_of::<h1::H1>());
        assert!(task + state <= 1024, "a task of {task} bytes, a state of {state}");
    }
}
