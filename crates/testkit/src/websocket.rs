//! Both ends of a WebSocket (RFC 6455), over HTTP/1.1 and over a stream of HTTP/2 (RFC 8441).
//!
//! They send whatever they are told and judge nothing but masks, so that a test can send what is
//! wrong. The handshake's key and its answer are those of RFC 6455 §1.3, by the letter.

mod frame;

use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use h2::ext::Protocol as Connect;
use h2::{RecvStream, SendStream};

pub use frame::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, TEXT};

use crate::backend::{Conversation, Received};
use crate::client::{Answer, Client, Cut, Protocol, Request};
use crate::gateway::TestGateway;
use crate::h1::{H1Client, encode};
use crate::h2::{H2Client, cut, fields};
use crate::h2_backend::Stream;
use crate::wire::{Fields, Wire, field};
use crate::{event, until};

/// A key, and the answer that belongs to it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const MASK: [u8; 4] = [0x5a, 0x01, 0xff, 0x80];

/// The request that opens a WebSocket over HTTP/1.1.
#[must_use]
pub fn opening(path: &str) -> Request {
    Request::get(path)
        .field("Connection", "Upgrade")
        .field("Upgrade", "websocket")
        .field("Sec-WebSocket-Version", "13")
        .field("Sec-WebSocket-Key", KEY)
}

/// One end of a WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    pipe: Pipe,
    is_client: bool,
    /// The status that opened it: 101 or 200.
    pub status: u16,
    /// The fields of the answer that opened it, or of the request.
    pub fields: Vec<(String, String)>,
}

#[derive(Debug)]
enum Pipe {
    H1(Wire),
    H2 {
        send: SendStream<Bytes>,
        body: RecvStream,
        buffer: Vec<u8>,
        /// The client's, if it has this one stream only; ends with it.
        connection: Option<H2Client>,
    },
}

impl WebSocket {
    /// Opens one through a gateway.
    ///
    /// # Errors
    /// With the answer, where that is another one.
    ///
    /// # Panics
    /// Where there is no answer, or one that opens and has a wrong form.
    pub async fn open(
        gateway: &TestGateway,
        protocol: Protocol,
        path: &str,
    ) -> Result<Self, Answer> {
        match Client::connect(gateway, protocol).await {
            Client::H1(client) => Self::open_h1(client, &opening(path)).await,
            Client::H2(client) => {
                let mut opened = Self::open_h2(&client, &Request::get(path)).await?;
                if let Pipe::H2 { connection, .. } = &mut opened.pipe {
                    *connection = Some(client);
                }
                Ok(opened)
            }
        }
    }

    /// Opens one by a request that is complete.
    ///
    /// # Errors
    /// With the answer, where that is another one.
    ///
    /// # Panics
    /// Where there is no answer, or one that opens and has a wrong form.
    pub async fn open_h1(mut client: H1Client, request: &Request) -> Result<Self, Answer> {
        client.send(encode(request)).await;
        let (line, fields) = client.head().await.expect("an answer");
        if !line.starts_with("HTTP/1.1 101 ") {
            let status = line[9..12].parse().unwrap();
            let (body, trailers) = client.wire.body(&fields, true).await.expect("an answer");
            return Err(Answer { status, fields, body, trailers, interim: Vec::new() });
        }
        assert_eq!(field(&fields, "connection"), Some("upgrade"), "{fields:?}");
        assert_eq!(field(&fields, "upgrade"), Some("websocket"), "{fields:?}");
        assert_eq!(field(&fields, "sec-websocket-accept"), Some(ACCEPT), "{fields:?}");
        assert_eq!(field(&fields, "content-length"), None, "{fields:?}");
        assert_eq!(field(&fields, "transfer-encoding"), None, "{fields:?}");
        Ok(Self { pipe: Pipe::H1(client.wire), is_client: true, status: 101, fields })
    }

    /// Opens one by extended CONNECT, with this path and these fields besides, on a connection that
    /// must outlive it.
    ///
    /// # Errors
    /// With the answer, where that is another one.
    ///
    /// # Panics
    /// Where there is no answer, or the gateway does not offer the protocol.
    pub async fn open_h2(client: &H2Client, request: &Request) -> Result<Self, Answer> {
        let request = request.clone().field("sec-websocket-version", "13");
        Self::connect(client, "websocket", &request).await
    }

    /// Asks for a protocol by extended CONNECT (RFC 8441 §4), with exactly these fields.
    ///
    /// # Errors
    /// With the answer, where it grants nothing.
    ///
    /// # Panics
    /// Where there is no answer, or the gateway does not offer extended CONNECT.
    pub async fn connect(
        client: &H2Client,
        protocol: &str,
        request: &Request,
    ) -> Result<Self, Answer> {
        let stream = client.stream();
        // Its SETTINGS come with the first bytes of the connection.
        until("extended CONNECT", || stream.send.is_extended_connect_protocol_enabled()).await;
        let mut send = stream.send.clone().ready().await.unwrap();
        let uri = format!("{}://localhost{}", stream.scheme, request.path);
        let mut head =
            http::Request::builder().method("CONNECT").uri(uri).extension(Connect::from(protocol));
        for (name, value) in &request.fields {
            head = head.header(name, value);
        }
        let (answer, send) = send.send_request(head.body(()).unwrap(), false).unwrap();
        let answer = event("an answer over HTTP/2", answer).await.expect("an answer");
        let (head, mut body) = answer.into_parts();
        let (status, fields) = (head.status.as_u16(), fields(&head.headers));
        if status != 200 || field(&fields, "content-length").is_some() {
            let mut whole = Vec::new();
            while let Some(data) = event("a body", body.data()).await {
                whole.extend_from_slice(&data.unwrap());
            }
            return Err(Answer { status, fields, body: whole, ..Answer::default() });
        }
        assert_eq!(field(&fields, "sec-websocket-accept"), None, "{fields:?}");
        let pipe = Pipe::H2 { send, body, buffer: Vec::new(), connection: None };
        Ok(Self { pipe, is_client: true, status, fields })
    }

    /// Sends a frame, masked as its role has it.
    pub async fn send(&mut self, frame: &Frame) {
        let bytes = frame.encode(self.is_client.then_some(MASK));
        self.send_bytes(&bytes).await;
    }

    /// Sends exactly these bytes, unless the peer is gone.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        match &mut self.pipe {
            Pipe::H1(wire) => wire.send(bytes).await,
            Pipe::H2 { send, .. } => event("the peer takes bytes", send_data(send, bytes)).await,
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// How it ended instead.
    ///
    /// # Panics
    /// Over a frame whose mask is not that of its sender's role.
    pub async fn frame(&mut self) -> Result<Frame, Cut> {
        loop {
            if let Some((frame, used, masked)) = Frame::decode(self.buffer()) {
                assert_ne!(masked, self.is_client, "a mask on frames to servers only: {frame:?}");
                self.buffer().drain(..used);
                return Ok(frame);
            }
            if !self.fill().await? {
                let whole = self.buffer().is_empty();
                return Err(if whole { Cut::Closed } else { Cut::Short });
            }
        }
    }

    /// The next frame, which must be this one.
    ///
    /// # Panics
    /// If it is not.
    pub async fn expect(&mut self, frame: &Frame) {
        assert_eq!(self.frame().await.as_ref(), Ok(frame));
    }

    /// Sends a frame and waits for the same one from an echo.
    ///
    /// # Panics
    /// If another one comes.
    pub async fn echoes(&mut self, frame: &Frame) {
        self.send(frame).await;
        self.expect(frame).await;
    }

    /// So many bytes as they come.
    ///
    /// # Errors
    /// How it ended instead.
    pub async fn bytes(&mut self, n: usize) -> Result<Vec<u8>, Cut> {
        while self.buffer().len() < n {
            if !self.fill().await? {
                return Err(Cut::Short);
            }
        }
        Ok(self.buffer().drain(..n).collect())
    }

    /// Reads to the end: what came, and how it ended.
    pub async fn rest(&mut self) -> (Vec<u8>, Cut) {
        let end = loop {
            match self.fill().await {
                Ok(true) => {}
                Ok(false) => break Cut::Closed,
                Err(cut) => break cut,
            }
        };
        (std::mem::take(self.buffer()), end)
    }

    /// Ends its own direction in good order, without a Close frame.
    pub async fn shutdown(&mut self) {
        match &mut self.pipe {
            Pipe::H1(wire) => wire.shutdown().await,
            // A stream that is over is shut down already.
            Pipe::H2 { send, .. } => drop(send.send_data(Bytes::new(), true)),
        }
    }

    /// Sends frames back until one closes it or it ends; answers Ping and Close as one should.
    pub async fn echo(&mut self) {
        while let Ok(frame) = self.frame().await {
            match frame.opcode() {
                PING => self.send(&Frame::new(PONG, frame.payload)).await,
                PONG => {}
                CLOSE => {
                    self.send(&frame).await;
                    self.shutdown().await;
                    // The client ends the connection (RFC 6455 §7.1.1 lets a server do so, too).
                    self.rest().await;
                    return;
                }
                _ => self.send(&frame).await,
            }
        }
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        match &mut self.pipe {
            Pipe::H1(wire) => &mut wire.buffer,
            Pipe::H2 { buffer, .. } => buffer,
        }
    }

    /// Reads once more; `false` at the end.
    async fn fill(&mut self) -> Result<bool, Cut> {
        let (body, buffer) = match &mut self.pipe {
            Pipe::H1(wire) => return wire.fill().await,
            Pipe::H2 { body, buffer, .. } => (body, buffer),
        };
        match event("bytes from the peer", body.data()).await {
            None => Ok(false),
            Some(Err(error)) => Err(cut(&error)),
            Some(Ok(data)) => {
                buffer.extend_from_slice(&data);
                drop(body.flow_control().release_capacity(data.len()));
                Ok(true)
            }
        }
    }
}

/// Sends as the window allows; a peer that is gone takes nothing.
async fn send_data(send: &mut SendStream<Bytes>, bytes: &[u8]) {
    let mut left = Bytes::copy_from_slice(bytes);
    while !left.is_empty() {
        send.reserve_capacity(left.len());
        let mut room = pin!(poll_fn(|cx| send.poll_capacity(cx)));
        let Some(Ok(room)) = room.as_mut().await else { return };
        if send.send_data(left.split_to(room.min(left.len())), false).is_err() {
            return;
        }
    }
}

impl Conversation {
    /// Grants the upgrade that a request asks for, with more fields (each with its CRLF).
    pub async fn websocket(mut self, request: &Received, more: &str) -> WebSocket {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n{more}\r\n",
            accept(&request.fields)
        );
        self.send(head).await;
        self.into_websocket(request)
    }

    /// What comes from here on is frames.
    #[must_use]
    pub fn into_websocket(self, request: &Received) -> WebSocket {
        let fields = request.fields.clone();
        WebSocket { pipe: Pipe::H1(self.wire), is_client: false, status: 101, fields }
    }

    /// Plays a server that grants every upgrade and sends back what it gets.
    pub async fn echo_websocket(mut self) {
        let Some(request) = self.request().await else { return };
        self.websocket(&request, "").await.echo().await;
    }
}

impl Stream {
    /// Grants an extended CONNECT.
    ///
    /// # Panics
    /// If the stream is gone.
    #[must_use]
    pub fn websocket(mut self, more: &[(&str, &str)]) -> WebSocket {
        let send = self.head(200, more);
        let fields = fields(self.request.headers());
        let pipe = Pipe::H2 { send, body: self.body, buffer: Vec::new(), connection: None };
        WebSocket { pipe, is_client: false, status: 200, fields }
    }
}

/// The answer to the key of a request.
#[must_use]
pub fn accept(fields: &Fields) -> String {
    let key = field(fields, "sec-websocket-key").expect("a key");
    String::from_utf8(portcullis_core::websocket::accept_key(key.as_bytes()).into()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::Frame;

    #[test]
    fn frames_of_every_length_come_back() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let frame = Frame::new(2, vec![7; length]);
                let mut bytes = frame.encode(mask);
                let whole = bytes.len();
                assert_eq!(Frame::decode(&bytes[..whole - 1]), None, "{frame:?}");
                bytes.extend([9; 20]);
                let (read, used, masked) = Frame::decode(&bytes).unwrap();
                assert_eq!((read, used, masked), (frame, whole, mask.is_some()));
            }
        }
    }
}
