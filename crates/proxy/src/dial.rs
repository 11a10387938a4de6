//! From an endpoint to a leg: one from the pool, a stream of a connection that has room, or a new
//! connection, as far as the backend's limits allow.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use portcullis_core::proxy_protocol;
use portcullis_snapshot::{Backend, Chosen, Protocol, ProxyVersion};
use portcullis_telemetry::metrics::Bound;
use portcullis_upstream::Permit;

use crate::backend::Leg;
use crate::backend_h1::Connection;
use crate::backend_h2::Shared;
use crate::deadline::{Deadline, Expired, Wait};
use crate::pool::Line;
use crate::socket::is_exhausted;
use crate::worker::Worker;

/// What an exchange asks of its leg.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// It is to become a WebSocket.
    pub(crate) upgrade: bool,
    /// Whom a PROXY protocol header would name: the client, and where it has connected to.
    pub(crate) client: SocketAddr,
    pub(crate) bind: Option<SocketAddr>,
    /// Until when there has to be an answer, if that is known already.
    pub(crate) by: Option<Duration>,
    /// The end of the whole exchange; [`Duration::MAX`] if there is none.
    pub(crate) ceiling: Duration,
}

pub(crate) enum NoConnection {
    /// There is no room for it, which is nobody's fault but ours; why, for the log.
    Busy(&'static str),
    /// The time of the whole exchange is over, for which no endpoint is to blame.
    Late,
    Failed(io::Error),
}

/// A leg to one endpoint of a backend.
pub(crate) async fn acquire(
    worker: &Rc<Worker>,
    deadline: &Rc<Deadline>,
    backend: &Backend,
    to: Chosen<'_>,
    wish: Wish,
) -> Result<Leg, NoConnection> {
    let want = Want::new(backend, to, wish);
    if let Some(leg) = at_hand(worker, backend, to, &want) {
        return Ok(leg);
    }
    let at = worker.coarse_now() + backend.connect_timeout;
    match wish.by {
        Some(by) if by < at => deadline.set(Wait::ResponseHead, by),
        _ => deadline.set(Wait::Connect, at),
    }
    let joins = want.h2 && worker.pool.is_connecting(to.endpoint);
    let permit = match joins {
        true => None,
        false => backend.capacity.connections.try_acquire(backend.connections_max),
    };
    let permit = match permit {
        Some(permit) => permit,
        None => match queue(worker, deadline, backend, to, &want).await? {
            Room::Leg(leg) => return Ok(leg),
            Room::New(permit) => permit,
        },
    };
    let mut connect = std::pin::pin!(connect(worker, backend, to, &want, Some(permit)));
    let made = poll_fn(|cx| match deadline.check(cx) {
        Ok(()) => connect.as_mut().poll(cx).map_err(|error| failed(worker, error)),
        Err(Expired(wait)) => Poll::Ready(Err(match wait {
            Wait::Connect => NoConnection::Failed(io::ErrorKind::TimedOut.into()),
            _ => NoConnection::Late,
        })),
    });
    made.await
}

fn failed(worker: &Worker, error: io::Error) -> NoConnection {
    if !is_exhausted(&error) {
        return NoConnection::Failed(error);
    }
    // It is the gateway that has none left: this endpoint is not to blame for it, and another
    // would fare no better.
    worker.metrics.bound(Bound::Descriptors);
    NoConnection::Busy("no file descriptor is left")
}

/// A leg of its own, for a health check.
pub(crate) async fn fresh(worker: &Worker, backend: &Backend, to: Chosen<'_>) -> io::Result<Leg> {
    let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
    let wish =
        Wish { upgrade: false, client: nobody, bind: None, by: None, ceiling: Duration::MAX };
    let want = Want { local: true, shares: false, ..Want::new(backend, to, wish) };
    connect(worker, backend, to, &want, None).await
}

/// Which protocols will do, and what a new connection begins with.
struct Want {
    h1: bool,
    h2: bool,
    /// Others may use the connection too, if it speaks HTTP/2.
    shares: bool,
    /// The gateway itself is the client.
    local: bool,
    proxy: Option<(ProxyVersion, SocketAddr, Option<SocketAddr>)>,
}

impl Want {
    fn new(backend: &Backend, to: Chosen<'_>, wish: Wish) -> Self {
        let address = to.address;
        let proxy = backend.proxy_protocol.map(|version| (version, wish.client, wish.bind));
        let h2 = match address.protocol {
            Protocol::H1 => false,
            Protocol::H2 => proxy.is_none(),
            Protocol::Auto => address.https && !wish.upgrade && proxy.is_none(),
        };
        let h1 = address.protocol != Protocol::H2;
        Self { h1, h2, shares: true, local: false, proxy }
    }

    fn behalf(&self) -> Option<SocketAddr> {
        self.proxy.map(|(_, client, _)| client)
    }

    /// The PROXY protocol header, if one is to be sent.
    fn preamble(&self) -> Vec<u8> {
        let mut header = Vec::new();
        let Some((version, client, bind)) = self.proxy else { return header };
        let unspecified = match client {
            SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
        };
        let destination = bind.filter(|bind| bind.is_ipv4() == client.is_ipv4());
        let destination = destination.unwrap_or(unspecified);
        match (version, self.local) {
            (ProxyVersion::V1, false) => {
                proxy_protocol::encode_v1(client, destination, &mut header);
            }
            (ProxyVersion::V1, true) => proxy_protocol::encode_v1_unknown(&mut header),
            (ProxyVersion::V2, false) => {
                proxy_protocol::encode_v2(client, destination, &mut header);
            }
            (ProxyVersion::V2, true) => proxy_protocol::encode_v2_local(&mut header),
        }
        header
    }
}

fn at_hand(worker: &Worker, backend: &Backend, to: Chosen<'_>, want: &Want) -> Option<Leg> {
    let endpoint = to.endpoint;
    if want.h2 {
        let now = worker.coarse_now();
        if let Some(stream) = worker.pool.stream(endpoint, backend.streams_max, now) {
            return Some(Leg::H2(stream));
        }
    }
    if !want.h1 {
        return None;
    }
    worker.pool.take(endpoint, want.behalf()).map(Leg::H1)
}

enum Room {
    Leg(Leg),
    New(Permit),
}

/// Waits until there is a leg, or room for a connection.
async fn queue(
    worker: &Rc<Worker>,
    deadline: &Deadline,
    backend: &Backend,
    to: Chosen<'_>,
    want: &Want,
) -> Result<Room, NoConnection> {
    let capacity = &backend.capacity;
    let pending = capacity.pending.try_acquire(backend.pending_max);
    let _pending = pending.ok_or(NoConnection::Busy(
        "connections_max are open and pending_max requests wait for one",
    ))?;
    let endpoint = to.endpoint;
    poll_fn(|cx| {
        if let Some(leg) = at_hand(worker, backend, to, want) {
            return Poll::Ready(Ok(Room::Leg(leg)));
        }
        let joins = want.h2 && worker.pool.is_connecting(endpoint);
        // Looked at first, since each refusal is counted as a request that met the limit.
        if !joins
            && capacity.connections.used() < backend.connections_max
            && let Some(permit) = capacity.connections.try_acquire(backend.connections_max)
        {
            return Poll::Ready(Ok(Room::New(permit)));
        }
        if let Err(Expired(wait)) = deadline.check(cx) {
            return Poll::Ready(Err(match wait {
                Wait::Connect => NoConnection::Busy(
                    "connections_max are open, and none was free within connect_timeout",
                ),
                _ => NoConnection::Late,
            }));
        }
        worker.pool.queue(Line::of(backend), cx.waker());
        Poll::Pending
    })
    .await
}

async fn connect(
    worker: &Worker,
    backend: &Backend,
    to: Chosen<'_>,
    want: &Want,
    permit: Option<Permit>,
) -> io::Result<Leg> {
    let endpoint = to.endpoint;
    let address = to.address;
    let connecting = (want.h2 && want.shares).then(|| worker.pool.connecting(endpoint));
    let tls = match (&backend.tls, &address.server_name) {
        (Some(tls), Some(name)) if address.https => match want.h2 {
            true => Some((&tls.config, name)),
            false => Some((&tls.config_h1, name)),
        },
        _ => None,
    };
    let now = worker.coarse_now();
    let io = worker.connector.connect(address, &want.preamble(), tls, now).await?;
    endpoint.connected();
    let is_h2 = match io.session() {
        Some(session) => session.alpn_protocol() == Some(b"h2"),
        None => want.h2,
    };
    if !is_h2 && !want.h1 {
        return Err(io::Error::other("the endpoint does not speak HTTP/2"));
    }
    if !is_h2 {
        let mut connection = Connection::new(io, Arc::clone(endpoint), permit);
        connection.behalf = want.behalf();
        return Ok(Leg::H1(Box::new(connection)));
    }
    let shared = Shared::open(io, Arc::clone(endpoint), permit).await.map_err(io::Error::other)?;
    let stream = shared.stream(backend.streams_max, now);
    if let Some(connecting) = connecting {
        connecting.share(&shared);
    }
    stream.map(Leg::H2).ok_or_else(|| io::Error::other("the connection takes no stream"))
}
