//! HTTP/1.1 read the plainest way, by code that shares nothing with the gateway's.

use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::client::Cut;
use crate::event;

pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One side of a connection, with what has been received and not yet read.
pub(crate) struct Wire {
    io: Box<dyn Io>,
    pub(crate) buffer: Vec<u8>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire({})", self.buffer.escape_ascii())
    }
}

/// Lower-case names and values in order.
pub(crate) type Fields = Vec<(String, String)>;

impl Wire {
    pub(crate) fn new(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), buffer: Vec::new() }
    }

    /// A peer that is gone takes nothing; that it is gone is found out by reading.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let sent = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        drop(event("the peer takes bytes", sent).await);
    }

    pub(crate) async fn shutdown(&mut self) {
        // A peer that is gone is shut down already.
        drop(self.io.shutdown().await);
    }

    /// Reads once more; `false` at the end.
    pub(crate) async fn fill(&mut self) -> Result<bool, Cut> {
        let read = event("bytes from the peer", self.io.read_buf(&mut self.buffer)).await;
        read.map(|n| n > 0).map_err(|error| cut(error.kind()))
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        self.buffer.drain(..n).collect()
    }

    async fn exactly(&mut self, n: usize) -> Result<Vec<u8>, Cut> {
        while self.buffer.len() < n {
            if !self.fill().await? {
                return Err(Cut::Short);
            }
        }
        Ok(self.take(n))
    }

    async fn line(&mut self) -> Result<String, Cut> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = self.take(end + 2);
                return Ok(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if !self.fill().await? {
                return Err(if self.buffer.is_empty() { Cut::Closed } else { Cut::Short });
            }
        }
    }

    /// A first line and fields.
    pub(crate) async fn head(&mut self) -> Result<(String, Fields), Cut> {
        let first = self.line().await?;
        Ok((first, self.fields().await?))
    }

    async fn fields(&mut self) -> Result<Fields, Cut> {
        let mut fields = Vec::new();
        loop {
            let line = match self.line().await {
                Err(Cut::Closed) => return Err(Cut::Short),
                line => line?,
            };
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("a field: {line}"));
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The body that follows such a head, and its trailers. `until_close` says whether a body
    /// without a length goes on to the end of the connection.
    pub(crate) async fn body(
        &mut self,
        fields: &Fields,
        until_close: bool,
    ) -> Result<(Vec<u8>, Fields), Cut> {
        if field(fields, "transfer-encoding") == Some("chunked") {
            return self.chunked().await;
        }
        if let Some(length) = field(fields, "content-length") {
            return Ok((self.exactly(length.parse().unwrap()).await?, Vec::new()));
        }
        if until_close {
            while self.fill().await? {}
            let n = self.buffer.len();
            return Ok((self.take(n), Vec::new()));
        }
        Ok((Vec::new(), Vec::new()))
    }

    async fn chunked(&mut self) -> Result<(Vec<u8>, Fields), Cut> {
        let mut body = Vec::new();
        loop {
            let size = match self.line().await {
                Err(Cut::Closed) => return Err(Cut::Short),
                line => line?,
            };
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            if size == 0 {
                return Ok((body, self.fields().await?));
            }
            body.extend(self.exactly(size).await?);
            assert_eq!(self.exactly(2).await?, b"\r\n", "the end of a chunk");
        }
    }
}

/// The value of the first field of that name.
pub(crate) fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n == name).map(|(_, value)| &**value)
}

fn cut(kind: ErrorKind) -> Cut {
    match kind {
        ErrorKind::UnexpectedEof => Cut::Short,
        _ => Cut::Reset,
    }
}
