//! A connection's bytes, in clear or through TLS, behind one type.
//!
//! rustls is driven by hand over its buffered interface: an adapter would copy once more and hold
//! a buffer per idle connection.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::socket::Socket;

/// One end of a connection. All polls follow tokio's rules for readiness and wakers.
#[derive(Debug)]
pub(crate) enum Io {
    Plain(Socket),
    Tls(Box<Tls>),
}

#[derive(Debug)]
pub(crate) struct Tls {
    socket: Socket,
    session: rustls::Connection,
}

impl Io {
    pub(crate) fn tls(socket: Socket, session: impl Into<rustls::Connection>) -> Self {
        Self::Tls(Box::new(Tls { socket, session: session.into() }))
    }

    pub(crate) fn session(&self) -> Option<&rustls::Connection> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => Some(&tls.session),
        }
    }

    /// Drives the handshake to its end.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_handshake(cx),
        }
    }

    /// Reads up to `into.len()` bytes; 0 is the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(into);
        ready!(self.poll_read_into(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// [`Self::poll_read`] into memory that need not hold anything yet.
    fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(tls) => tls.poll_read(cx, buffer),
        }
    }

    /// Takes some of `bytes`. With TLS they may be taken and not yet sent: see
    /// [`Self::poll_flush`].
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(tls) => tls.poll_write(cx, bytes),
        }
    }

    /// Ready when everything taken has gone to the kernel.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Says that nothing more comes from this side.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => {
                tls.session.send_close_notify();
                ready!(tls.poll_flush(cx))?;
                Pin::new(&mut tls.socket).poll_shutdown(cx)
            }
        }
    }

    /// Drops an idle connection. Through TLS the peer is told, as far as that goes without waiting.
    pub(crate) fn close(mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _told = self.poll_shutdown(&mut cx);
    }

    /// Drops the connection so that the peer sees a reset rather than an orderly end: what it has
    /// received is not a whole message (RFC 9112 §8).
    pub(crate) fn reset(self) {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.socket,
        };
        let socket = SockRef::from(&socket);
        // Where the option cannot be set, or has no effect since the socket is a Unix socket, the
        // peer sees an end of file in the middle of a message, which every framing but
        // read-to-close recognises too.
        if socket.set_linger(Some(std::time::Duration::ZERO)).is_err() {
            drop(socket.shutdown(Shutdown::Both));
        }
    }

    /// Whether a pooled connection is still quiet: neither ended nor talking out of turn.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut byte = [0];
        self.poll_read(&mut cx, &mut byte).is_pending()
    }
}

impl Tls {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            ready!(self.poll_flush(cx))?;
            if self.session.is_handshaking() {
                ready!(self.poll_receive(cx))?;
            }
        }
        self.poll_flush(cx)
    }

    /// Reads once from the socket and decrypts.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let n = match self.session.read_tls(&mut Sync { socket: &mut self.socket, cx }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            result => result?,
        };
        if n == 0 && self.session.is_handshaking() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Err(error) = self.session.process_new_packets() {
            // The alert says why; whether it still gets through does not matter.
            let _sent = self.poll_flush(cx);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(n))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut reader = self.session.reader();
            match reader.fill_buf() {
                Ok(decrypted) => {
                    let n = decrypted.len().min(buffer.remaining());
                    buffer.put_slice(&decrypted[..n]);
                    reader.consume(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            // Answers to handshake messages such as key updates wait here.
            if self.session.wants_write() {
                let _sent = self.poll_flush(cx)?;
            }
            // At the end of the stream the next read above tells a close_notify from a cut.
            ready!(self.poll_receive(cx))?;
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let n = self.session.writer().write(bytes)?;
        match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Sync { socket: &mut self.socket, cx }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                result => result?,
            };
        }
        Poll::Ready(Ok(()))
    }
}

/// What rustls wants to see: a socket that would block instead of one that is pending.
struct Sync<'a, 'b> {
    socket: &'a mut Socket,
    cx: &'a mut Context<'b>,
}

fn or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Sync<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(into);
        let read = Pin::new(&mut *self.socket).poll_read(self.cx, &mut buffer);
        or_would_block(read.map_ok(|()| buffer.filled().len()))
    }
}

impl Write for Sync<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For the `h2` crate.
impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().poll_read_into(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Self::poll_write(self.get_mut(), cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_shutdown(self.get_mut(), cx)
    }
}
