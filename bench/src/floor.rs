//! `floor --listen ADDRESS --backend ADDRESS`: what the kernel alone costs a proxy.
//!
//! A relay on bare epoll that parses nothing: one connection to the backend for each client's, and
//! whatever one side sends is sent to the other. No gateway can need less. It is no gateway: it
//! has no deadlines, and the two halves of a connection end together.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use clap::Parser;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const EVENTS_MAX: usize = 1024;
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    backend: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    let Arguments { listen, backend } = Arguments::parse();
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut pairs: Slab<Pair> = Slab::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&poll, &listener, backend, &mut pairs)?;
                continue;
            }
            // An event may be left of a pair that has ended in this round.
            let (key, side) = (event.token().0 / 2, event.token().0 % 2);
            let Some(pair) = pairs.get_mut(key) else { continue };
            let writable = event.is_writable() && pair.sides[side].is_behind();
            let goes_on = (!event.is_readable()
                || pair.relay(side, event.is_read_closed(), &mut buffer))
                && (!writable || pair.relay(1 - side, true, &mut buffer));
            if !goes_on {
                pairs.remove(key);
            }
        }
    }
}

/// Takes all who wait. Edges are told once, so whoever is left would wait for ever.
fn accept(
    poll: &Poll,
    listener: &TcpListener,
    backend: SocketAddr,
    pairs: &mut Slab<Pair>,
) -> io::Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let entry = pairs.vacant_entry();
        let mut sides = [Side::new(client), Side::new(TcpStream::connect(backend)?)];
        for (number, side) in sides.iter_mut().enumerate() {
            side.tcp.set_nodelay(true)?;
            let token = Token(2 * entry.key() + number);
            poll.registry().register(
                &mut side.tcp,
                token,
                Interest::READABLE | Interest::WRITABLE,
            )?;
        }
        entry.insert(Pair { sides });
    }
}

/// The client and the backend.
struct Pair {
    sides: [Side; 2],
}

struct Side {
    tcp: TcpStream,
    /// What came from the other side and could not be sent yet. Until it is, nothing more is read
    /// there: the sender has to wait.
    pending: Vec<u8>,
}

impl Side {
    const fn new(tcp: TcpStream) -> Self {
        Self { tcp, pending: Vec::new() }
    }

    const fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Sends what it can and keeps the rest.
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.tcp.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }
}

impl Pair {
    /// From this side to the other, until there is no more or the other takes no more; `false`
    /// when the pair has ended. After a short read the socket is empty and whatever comes is a new
    /// edge, unless the edge of an end may have come before (`to_the_end`).
    fn relay(&mut self, from: usize, to_the_end: bool, buffer: &mut [u8]) -> bool {
        self.try_relay(from, to_the_end, buffer).unwrap_or(false)
    }

    fn try_relay(&mut self, from: usize, to_the_end: bool, buffer: &mut [u8]) -> io::Result<bool> {
        let [client, backend] = &mut self.sides;
        let (from, to) = if from == 0 { (client, backend) } else { (backend, client) };
        if to.is_behind() {
            let pending = std::mem::take(&mut to.pending);
            to.send(&pending)?;
        }
        while !to.is_behind() {
            match from.tcp.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    to.send(&buffer[..read])?;
                    if read < buffer.len() && !to_the_end {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
