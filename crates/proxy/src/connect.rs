//! New connections to endpoints: names, addresses, TLS.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_snapshot::EndpointAddress;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};

use crate::clock::Clock;
use crate::io::Io;
use crate::socket::{Socket, exhaustion};

/// Names are looked up again after this; the system's resolver has caches of its own.
const LOOKUP_TTL: Duration = Duration::from_secs(5);

/// Between two attempts at a Unix socket whose backlog is full; the kernel does not say when it has
/// room again (unix(7)).
const BACKLOG_WAIT: Duration = Duration::from_millis(10);

/// When a name was looked up, and what was found.
type Looked = (Duration, Vec<SocketAddr>);

/// Makes the connections of one worker.
#[derive(Debug)]
pub(crate) struct Connector {
    clock: Clock,
    names: RefCell<HashMap<(String, u16), Looked>>,
}

impl Connector {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, names: RefCell::default() }
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
                None => Err(exhaustion().unwrap_or(error)),
            },
        }
    }

    /// Connects to the first address that answers. `preamble` is sent before anything else, in
    /// clear.
    pub(crate) async fn connect(
        &self,
        to: &EndpointAddress,
        preamble: &[u8],
        tls: Option<(&Arc<rustls::ClientConfig>, &ServerName<'static>)>,
        now: Duration,
    ) -> io::Result<Io> {
        if let Some(path) = &to.socket {
            return begin(Socket::Unix(self.unix(path).await?), preamble, tls).await;
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.lookup(&to.host, to.port, now).await? {
            match TcpStream::connect(address).await {
                Ok(tcp) => {
                    tcp.set_nodelay(true)?;
                    return begin(Socket::Tcp(tcp), preamble, tls).await;
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn unix(&self, path: &str) -> io::Result<UnixStream> {
        loop {
            match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.clock.sleep(BACKLOG_WAIT).await;
                }
                result => return result,
            }
        }
    }
}

/// A connection as far as the first byte of HTTP.
async fn begin(
    mut socket: Socket,
    preamble: &[u8],
    tls: Option<(&Arc<rustls::ClientConfig>, &ServerName<'static>)>,
) -> io::Result<Io> {
    socket.write_all(preamble).await?;
    let Some((config, name)) = tls else { return Ok(Io::Plain(socket)) };
    let session = rustls::ClientConnection::new(Arc::clone(config), name.clone())
        .map_err(io::Error::other)?;
    let mut io = Io::tls(socket, session);
    std::future::poll_fn(|cx| io.poll_handshake(cx)).await?;
    Ok(io)
}
