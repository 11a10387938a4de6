//! What connections and listeners are made of: TCP or a Unix socket, behind one type.

use std::fs::Permissions;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use portcullis_snapshot::Bind;
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Connections the kernel may hold for us while we are busy.
const BACKLOG: i32 = 4096;

/// The peer of a Unix socket has no address, and is on this machine.
const UNIX_PEER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Whether the process, or the machine, has no descriptors or no memory left for another socket.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

/// Why there is no descriptor to be had, if there is none: for failures that do not say so
/// themselves, like those of the system's resolver.
pub(crate) fn exhaustion() -> Option<io::Error> {
    std::fs::File::open("/dev/null").err().filter(is_exhausted)
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection on its way to another worker.
#[derive(Debug)]
pub(crate) enum Detached {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Socket {
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// A socket that cannot be told works all the same, only later.
    pub(crate) fn set_nodelay(&self) {
        if let Self::Tcp(tcp) = self {
            drop(tcp.set_nodelay(true));
        }
    }

    pub(crate) fn detach(self) -> io::Result<Detached> {
        Ok(match self {
            Self::Tcp(tcp) => Detached::Tcp(tcp.into_std()?),
            Self::Unix(unix) => Detached::Unix(unix.into_std()?),
        })
    }
}

impl Detached {
    /// On the worker that this runs on.
    pub(crate) fn attach(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(tcp) => Socket::Tcp(TcpStream::from_std(tcp)?),
            Self::Unix(unix) => Socket::Unix(UnixStream::from_std(unix)?),
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bytes),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}

/// An open listener, which all workers share.
#[derive(Debug)]
pub(crate) enum Listening {
    Tcp(std::net::TcpListener),
    /// `None` once it is shut: an end that is only shut down stays readable without ever having
    /// anything to accept, which no poll gets out of.
    Unix(Mutex<Option<std::os::unix::net::UnixListener>>, SocketFile),
}

/// One worker's view of it.
pub(crate) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    /// # Errors
    /// The address is taken or is not one of this machine; for a Unix socket also that somebody
    /// answers there, or that the file is not a socket.
    pub(crate) fn open(bind: &Bind) -> io::Result<Self> {
        match bind {
            Bind::Tcp(address) => {
                let domain = Domain::for_address(*address);
                let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                socket.set_nonblocking(true)?;
                socket.bind(&(*address).into())?;
                socket.listen(BACKLOG)?;
                Ok(Self::Tcp(socket.into()))
            }
            Bind::Unix { path, mode } => {
                make_room(Path::new(&**path))?;
                let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                socket.bind(&SockAddr::unix(&**path)?)?;
                let file = SocketFile::new(Path::new(&**path))?;
                // Before it listens, so that there is no moment in which others could connect.
                file.set_mode(*mode)?;
                socket.listen(BACKLOG)?;
                Ok(Self::Unix(Mutex::new(Some(socket.into())), file))
            }
        }
    }

    /// Whether this is what a listener with `bind` needs.
    pub(crate) fn fits(&self, bind: &Bind) -> bool {
        match (self, bind) {
            (Self::Tcp(_), Bind::Tcp(wanted)) => self.local_addr().is_some_and(|local| {
                local.ip() == wanted.ip() && (wanted.port() == 0 || local.port() == wanted.port())
            }),
            (Self::Unix(_, file), Bind::Unix { path, .. }) => file.path == Path::new(&**path),
            _ => false,
        }
    }

    /// Lets whoever `bind` says connect from now on.
    pub(crate) fn adopt(&self, bind: &Bind) -> io::Result<()> {
        match (self, bind) {
            (Self::Unix(_, file), Bind::Unix { mode, .. }) => file.set_mode(*mode),
            _ => Ok(()),
        }
    }

    /// `None` for a Unix socket.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    pub(crate) fn acceptor(&self) -> io::Result<Acceptor> {
        Ok(match self {
            Self::Tcp(tcp) => Acceptor::Tcp(TcpListener::from_std(tcp.try_clone()?)?),
            Self::Unix(unix, _) => {
                let open = unix.lock().unwrap_or_else(PoisonError::into_inner);
                let open = open.as_ref().ok_or(io::ErrorKind::NotConnected)?;
                Acceptor::Unix(UnixListener::from_std(open.try_clone()?)?)
            }
        })
    }

    /// Refuses whoever connects from now on, at once; those who have not been accepted by the time
    /// the last worker stops accepting, too.
    pub(crate) fn shut(&self) -> io::Result<()> {
        self.remove();
        match self {
            Self::Tcp(tcp) => SockRef::from(tcp).shutdown(Shutdown::Both),
            Self::Unix(unix, _) => {
                drop(unix.lock().unwrap_or_else(PoisonError::into_inner).take());
                Ok(())
            }
        }
    }

    /// Removes what it has left in the file system.
    pub(crate) fn remove(&self) {
        if let Self::Unix(_, file) = self {
            file.remove();
        }
    }
}

impl Acceptor {
    /// The next connection, and who is at its other end.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Self::Tcp(tcp) => tcp.accept().await.map(|(tcp, peer)| (Socket::Tcp(tcp), peer)),
            Self::Unix(unix) => {
                let (unix, _) = unix.accept().await?;
                Ok((Socket::Unix(unix), UNIX_PEER.into()))
            }
        }
    }
}

/// The file of a Unix socket, removed with the socket unless it is another's by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
    mode: AtomicU32,
    removed: AtomicBool,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let metadata = path.symlink_metadata()?;
        Ok(Self {
            path: path.to_owned(),
            id: (metadata.dev(), metadata.ino()),
            mode: AtomicU32::new(u32::MAX),
            removed: AtomicBool::new(false),
        })
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        // What an administrator has changed by hand stays, until the configuration changes.
        if self.mode.load(Relaxed) != mode {
            std::fs::set_permissions(&self.path, Permissions::from_mode(mode))?;
            self.mode.store(mode, Relaxed);
        }
        Ok(())
    }

    fn remove(&self) {
        let is_ours = || {
            let metadata = self.path.symlink_metadata();
            metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.id)
        };
        if !self.removed.swap(true, Relaxed)
            && is_ours()
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a socket's file stays");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes the socket that a dead process has left.
fn make_room(path: &Path) -> io::Result<()> {
    let found = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is not a socket"));
    }
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Whoever has a full backlog is alive: no need to wait for it.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn unix(path: &Path, mode: u32) -> Bind {
        Bind::Unix { path: path.to_str().unwrap().into(), mode }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    fn refused(path: &Path) -> String {
        Listening::open(&unix(path, 0o660)).unwrap_err().to_string()
    }

    #[test]
    fn what_a_dead_process_has_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        UnixStream::connect(&path).unwrap_err();
        let listening = Listening::open(&unix(&path, 0o600)).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(listening);
        assert!(!path.exists());
    }

    #[test]
    fn what_lives_or_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let live = UnixListener::bind(&path).unwrap();
        assert_eq!(refused(&path), "another process listens there");
        drop(live);
        let other = folder.path().join("file");
        std::fs::write(&other, "precious").unwrap();
        assert_eq!(refused(&other), "the file is not a socket");
        // A link to a dead socket is not one of ours.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(refused(&link), "the file is not a socket");
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "precious");
        assert!(path.exists());
    }

    #[test]
    fn a_full_backlog_is_a_sign_of_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let live = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        live.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        live.listen(0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert_eq!(refused(&path), "another process listens there");
    }

    #[test]
    fn only_its_own_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listening = Listening::open(&unix(&path, 0o660)).unwrap();
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        let successor = Listening::open(&unix(&path, 0o660)).unwrap();
        drop(listening);
        UnixStream::connect(&path).unwrap();
        drop(successor);
        assert!(!path.exists());
    }

    #[test]
    fn a_mode_set_by_hand_stays_until_the_configuration_says_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listening = Listening::open(&unix(&path, 0o660)).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        listening.adopt(&unix(&path, 0o660)).unwrap();
        assert_eq!(mode(&path), 0o666);
        listening.adopt(&unix(&path, 0o600)).unwrap();
        assert_eq!(mode(&path), 0o600);
    }
}
