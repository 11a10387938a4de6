//! The thread that serves.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, oneshot};

use crate::View;
use crate::answer::answer;

const CONNECTIONS_MAX: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    Address(SocketAddr),
    Socket(PathBuf),
}

/// Who may see what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// `/healthz`, `/ready`, `/metrics`, for everybody.
    Probes,
    /// Everything, for who presents this.
    Token(String),
    /// Everything, for who can open the socket.
    Socket,
}

/// A running server; it stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: Option<SocketAddr>,
    socket: Option<PathBuf>,
    _stop: oneshot::Sender<()>,
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
        if let Some(path) = &self.socket {
            // Gone already is as good.
            drop(std::fs::remove_file(path));
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Listens and serves on a thread of its own.
///
/// # Errors
/// The address or socket cannot be bound.
pub fn start(bind: &Bind, access: Access, view: Arc<dyn View>) -> io::Result<Server> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (listener, address, socket) = {
        let _inside = runtime.enter();
        match bind {
            Bind::Address(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let local = listener.local_addr()?;
                (Listener::Tcp(TcpListener::from_std(listener)?), Some(local), None)
            }
            Bind::Socket(path) => (Listener::Unix(open_socket(path)?), None, Some(path.clone())),
        }
    };
    let (stop, stopped) = oneshot::channel();
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = accept(listener, access, view) => {}
                _ = stopped => {}
            }
        });
    })?;
    Ok(Server { address, socket, _stop: stop })
}

/// A socket that only our own user can open. One that a dead process has left is replaced.
fn open_socket(path: &PathBuf) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_err() && path.exists() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(listener: Listener, access: Access, view: Arc<dyn View>) {
    let access = Arc::new(access);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (access, view) = (Arc::clone(&access), Arc::clone(&view));
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(tcp, _)| {
                tokio::spawn(async move {
                    serve(tcp, access, view).await;
                    drop(permit);
                });
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(unix, _)| {
                tokio::spawn(async move {
                    serve(unix, access, view).await;
                    drop(permit);
                });
            }),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "the admin server cannot accept");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn serve<T>(stream: T, access: Arc<Access>, view: Arc<dyn View>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let response =
            answer(&*view, &access, request.method(), request.uri().path(), request.headers());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away is no news here.
    drop(connection.await);
}
