//! A client, or a server, that speaks HTTP/2 in exactly the frames it is told, right or wrong.

use std::net::SocketAddr;

use portcullis_wire::frames::{PREFACE, SETTINGS_ACK, Said, said};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::Cut;
use crate::pki::{Pki, SERVER_NAME};
use crate::wire::Wire;

/// Types of frames (RFC 9113 §6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub mod flag {
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// A frame as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block of fields, none of them indexed (RFC 7541 §6.2.2).
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(text.len(), &mut block);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// With a prefix of seven bits (RFC 7541 §5.1).
fn integer(mut number: usize, out: &mut Vec<u8>) {
    if number < 0x7f {
        return out.push(number as u8);
    }
    out.push(0x7f);
    number -= 0x7f;
    while number >= 0x80 {
        out.push(number as u8 & 0x7f | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The fields of a request for `/`, and more.
#[must_use]
pub fn request_block(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = block(&[
        (":method", method),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/"),
    ]);
    block.extend(self::block(more));
    block
}

/// A whole GET of `/`.
#[must_use]
pub fn get(stream: u32) -> Vec<u8> {
    let flags = flag::END_STREAM | flag::END_HEADERS;
    frame(kind::HEADERS, flags, stream, &request_block("GET", &[]))
}

/// The head of a POST to `/` whose body follows.
#[must_use]
pub fn post(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, &request_block("POST", &[]))
}

#[derive(Debug)]
pub struct RawH2 {
    wire: Wire,
    end: Option<Cut>,
}

impl RawH2 {
    /// Connects and sends nothing.
    ///
    /// # Panics
    /// If nobody listens there.
    pub async fn bare(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self { wire: Wire::new(tcp), end: None }
    }

    /// By prior knowledge, with SETTINGS exchanged.
    ///
    /// # Panics
    /// If nobody listens there.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::bare(address).await.greeted().await
    }

    /// By ALPN, with SETTINGS exchanged.
    ///
    /// # Panics
    /// If nobody listens there or HTTP/2 is not agreed on.
    pub async fn connect_tls(address: SocketAddr, pki: &Pki) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let tls = TlsConnector::from(pki.client(&["h2"])).connect(name, tcp).await.unwrap();
        Self { wire: Wire::new(tls), end: None }.greeted().await
    }

    /// The other side of a connection: a server, with `settings` as it says hello.
    ///
    /// # Panics
    /// If the client begins with anything but a preface.
    pub async fn accepted(tcp: TcpStream, settings: &[u8]) -> Self {
        let magic = &PREFACE[..24];
        let mut server = Self { wire: Wire::new(tcp), end: None };
        server.until(|server| server.wire.buffer.len() >= magic.len()).await;
        assert!(server.wire.buffer.starts_with(magic));
        server.wire.buffer.drain(..magic.len());
        server.send([&frame(kind::SETTINGS, 0, 0, settings), SETTINGS_ACK].concat()).await;
        server
    }

    async fn greeted(mut self) -> Self {
        self.send(PREFACE).await;
        let is_settings = |frame: &RawFrame| frame.kind == kind::SETTINGS && frame.flags == 0;
        self.until(|client| client.frames().iter().any(is_settings)).await;
        self.send(SETTINGS_ACK).await;
        self
    }

    /// Sends bytes; a gateway that has closed already is found out by reading.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes.as_ref()).await;
    }

    /// Reads until `enough` of what has come, or the end. Says whether it was enough.
    pub async fn until(&mut self, enough: impl Fn(&Self) -> bool) -> bool {
        while !enough(self) {
            if self.end.is_some() {
                return false;
            }
            match self.wire.fill().await {
                Ok(true) => {}
                Ok(false) => self.end = Some(Cut::Closed),
                Err(cut) => self.end = Some(cut),
            }
        }
        true
    }

    /// Reads to the end and says what has come, ever, and how it ended.
    pub async fn to_end(&mut self) -> (Said, Option<Cut>) {
        self.until(|_| false).await;
        (self.said(), self.end)
    }

    /// What has come so far.
    #[must_use]
    pub fn said(&self) -> Said {
        said(&self.wire.buffer)
    }

    /// The frames that have come whole so far.
    #[must_use]
    pub fn frames(&self) -> Vec<RawFrame> {
        let (mut bytes, mut frames) = (&*self.wire.buffer, Vec::new());
        while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, rest)) = rest.split_at_checked(length) else { break };
            bytes = rest;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let payload = payload.to_vec();
            frames.push(RawFrame { kind: head[3], flags: head[4], stream, payload });
        }
        frames
    }
}
