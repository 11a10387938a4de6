//! The thread that serves.

use std::convert::Infallible;
use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::View;
use crate::answer::{Entrance, answer};

const CONNECTIONS_MAX: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// What somebody wants changed fits into it.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Nobody holds one of the few connections for longer, not even by reading slowly.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    Address(SocketAddr),
    Socket(PathBuf),
}

/// Who may see what.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    /// `/healthz`, `/ready`, `/metrics`, for everybody.
    Probes,
    /// Everything, for who presents this.
    Token(String),
    /// Everything, for who can open the socket.
    Socket,
}

impl fmt::Debug for Access {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probes => "Probes",
            Self::Token(_) => "Token",
            Self::Socket => "Socket",
        })
    }
}

/// A running server; it stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: Option<SocketAddr>,
    /// Its path, and what was made there.
    socket: Option<(PathBuf, FileId)>,
    /// Dropped, it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Where it really listens, if at an address.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A successor may have put its own socket there meanwhile.
        if let Some((path, made)) = &self.socket
            && file_id(path) == Some(*made)
        {
            // Gone already is as good.
            drop(std::fs::remove_file(path));
        }
        // What it shows is held by nobody afterwards.
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the admin server ended in a panic");
        }
    }
}

/// Device and inode.
type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A listener that no runtime watches yet.
enum Opened {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Opened {
    fn register(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            Self::Unix(listener) => Listener::Unix(UnixListener::from_std(listener)?),
        })
    }
}

/// Listens and serves on a thread of its own.
///
/// # Errors
/// The address or socket cannot be bound.
pub fn start(bind: &Bind, access: Access, view: Arc<dyn View>) -> io::Result<Server> {
    let (listener, address, socket) = match bind {
        Bind::Address(address) => {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let local = listener.local_addr()?;
            (Opened::Tcp(listener), Some(local), None)
        }
        Bind::Socket(path) => {
            let listener = open_socket(path)?;
            let made = file_id(path).map(|made| (path.clone(), made));
            (Opened::Unix(listener), None, made)
        }
    };
    let local_only = address.is_none_or(|address| address.ip().is_loopback());
    let entrance = Entrance { access, local_only, near: true };
    let (stop, stopped) = oneshot::channel();
    // The runtime is made on its thread, since one must not be dropped within another.
    let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let served = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = served.and_then(|runtime| {
            runtime.block_on(async {
                let listener = listener.register()?;
                tokio::select! {
                    () = accept(listener, &entrance, view) => {}
                    _ = stopped => {}
                }
                Ok(())
            })
        });
        if let Err(error) = served {
            tracing::error!(%error, "the admin server could not start");
        }
    })?;
    Ok(Server { address, socket, stop: Some(stop), thread: Some(thread) })
}

/// A socket that only our own user can open. One that a dead process has left is replaced; one that
/// somebody listens on, or anything that is not a socket, is an error.
fn open_socket(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let is_socket = |path: &Path| {
        std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
    };
    if is_socket(path) && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before it listens, so that there is no moment in which another user could connect.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(CONNECTIONS_MAX as i32)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

async fn accept(listener: Listener, entrance: &Entrance, view: Arc<dyn View>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (mut entrance, view) = (entrance.clone(), Arc::clone(&view));
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(tcp, peer)| {
                entrance.near = peer.ip().to_canonical().is_loopback();
                tokio::spawn(serve(tcp, entrance, view, permit));
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(unix, _)| {
                tokio::spawn(serve(unix, entrance, view, permit));
            }),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "the admin server cannot accept");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn serve<T>(stream: T, entrance: Entrance, view: Arc<dyn View>, _permit: OwnedSemaphorePermit)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        let (view, entrance) = (&view, &entrance);
        async move {
            let (method, path) = (&head.method, head.uri.path());
            // Who may do nothing here is refused for that, whatever the body is.
            let body = match method.is_safe() {
                true => Bytes::new(),
                false => match Limited::new(body, BODY_BYTES_MAX).collect().await {
                    Ok(body) => body.to_bytes(),
                    Err(_) => Bytes::from_static(b"too long"),
                },
            };
            Ok::<_, Infallible>(answer(&**view, entrance, method, path, &head.headers, &body))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away is no news here.
    drop(tokio::time::timeout(CONNECTION_TIMEOUT, connection).await);
}

#[cfg(test)]
mod tests;
