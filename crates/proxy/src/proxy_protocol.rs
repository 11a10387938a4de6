//! Reads a header of the PROXY protocol from a connection: who is at a load balancer's other end.
//!
//! Only from peers that may speak for others, which is decided before a byte is read. What a
//! header says beside the source address (destination, TLVs) is not used. Its syntax is
//! [`portcullis_core::proxy_protocol`].

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use portcullis_core::proxy_protocol::{Parsed, V1_BYTES_MAX, parse};
use tokio::io::{AsyncRead, ReadBuf};

use crate::deadline::Deadline;
use crate::socket::Socket;

/// Reads a header and not a byte more: what follows is the client's.
pub(crate) async fn read(
    socket: &mut Socket,
    deadline: &Deadline,
) -> io::Result<Option<SocketAddr>> {
    let mut header = Vec::with_capacity(V1_BYTES_MAX);
    loop {
        let more = match parse(&header) {
            Ok(Parsed::Partial(more)) => more,
            Ok(Parsed::Complete { addresses, .. }) => return Ok(addresses.map(|a| a.source)),
            Err(_) => return Err(io::ErrorKind::InvalidData.into()),
        };
        poll_fn(|cx| match poll_append(cx, socket, &mut header, more) {
            Poll::Pending if deadline.check(cx).is_err() => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            poll => poll,
        })
        .await?;
    }
}

/// Appends one to `more` bytes.
fn poll_append(
    cx: &mut Context<'_>,
    socket: &mut Socket,
    header: &mut Vec<u8>,
    more: usize,
) -> Poll<io::Result<()>> {
    let mut room = [0; V1_BYTES_MAX];
    let mut room = ReadBuf::new(&mut room[..more.min(V1_BYTES_MAX)]);
    ready!(Pin::new(socket).poll_read(cx, &mut room))?;
    if room.filled().is_empty() {
        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    header.extend_from_slice(room.filled());
    Poll::Ready(Ok(()))
}
