//! HTTP/1.1 from the client's side, pipelined. It reads answers of a gateway that writes them
//! well; one that does not is a connection that ended.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};

use super::{Answer, Parcel, Stream, UNSAID, problem};

const HEAD_BYTES_MAX: usize = 64 << 10;
const ROOM: usize = 16 << 10;

pub(super) struct Connection {
    read: ReadHalf<Box<dyn Stream>>,
    write: WriteHalf<Box<dyn Stream>>,
    buffer: Vec<u8>,
    over: bool,
}

/// The head of an answer, as far as anybody needs it.
struct Head {
    status: u16,
    length: Length,
    closes: bool,
    request_id: Option<Box<str>>,
}

#[derive(Clone, Copy)]
enum Length {
    Known(usize),
    Chunked,
    UntilClosed,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        let (read, write) = split(stream);
        Self { read, write, buffer: Vec::new(), over: false }
    }

    pub(super) async fn exchange(&mut self, parcels: &[(usize, Parcel)]) -> Vec<Answer> {
        if self.over {
            return Vec::new();
        }
        // What has ended a connection once is sent alone, so that nothing else falls with it.
        let alone = parcels.first().is_some_and(|(tries, _)| *tries > 0);
        let parcels = if alone { &parcels[..1] } else { parcels };
        let mut out = Vec::new();
        for (_, parcel) in parcels {
            parcel.draft.write_h1(parcel.probe, &mut out);
        }
        let Self { read, write, buffer, over } = self;
        let answers = read_all(read, buffer, over, parcels);
        let (written, answers) = tokio::join!(write.write_all(&out), answers);
        *over |= written.is_err();
        answers
    }
}

async fn read_all(
    read: &mut ReadHalf<Box<dyn Stream>>,
    buffer: &mut Vec<u8>,
    over: &mut bool,
    parcels: &[(usize, Parcel)],
) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(parcels.len());
    for (_, parcel) in parcels {
        match one(read, buffer, &parcel.draft.method).await {
            Some((answer, closes)) => {
                answers.push(answer);
                *over |= closes;
            }
            None => *over = true,
        }
        if *over {
            break;
        }
    }
    answers
}

/// One answer, and whether the connection ends with it.
async fn one(
    read: &mut ReadHalf<Box<dyn Stream>>,
    buffer: &mut Vec<u8>,
    method: &str,
) -> Option<(Answer, bool)> {
    let head = loop {
        let end = loop {
            if let Some(end) = find(buffer, b"\r\n\r\n") {
                break end;
            }
            if buffer.len() > HEAD_BYTES_MAX || !more(read, buffer).await {
                return None;
            }
        };
        let head = parse(&buffer[..end])?;
        buffer.drain(..end + 4);
        if head.status >= 200 {
            break head;
        }
    };
    let Head { status, length, closes, request_id } = head;
    let body = match length {
        _ if method == "HEAD" || status == 204 || status == 304 => Vec::new(),
        Length::Known(length) => {
            while buffer.len() < length {
                if !more(read, buffer).await {
                    return None;
                }
            }
            buffer.drain(..length).collect()
        }
        Length::Chunked => chunked(read, buffer).await?,
        Length::UntilClosed => {
            while more(read, buffer).await {}
            std::mem::take(buffer)
        }
    };
    let closes = closes || matches!(length, Length::UntilClosed);
    let problem = match status {
        400.. if method == "HEAD" => Some(UNSAID.into()),
        400.. => problem(&body),
        _ => None,
    };
    Some((Answer::Status { status, problem, request_id }, closes))
}

fn parse(head: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut parsed = Head { status, length: Length::UntilClosed, closes: false, request_id: None };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            parsed.length = Length::Known(value.parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            parsed.length = Length::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            parsed.closes = value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("x-request-id") {
            parsed.request_id = Some(value.into());
        }
    }
    Some(parsed)
}

async fn chunked(read: &mut ReadHalf<Box<dyn Stream>>, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = line(read, buffer).await?;
        let size = std::str::from_utf8(&buffer[..end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        buffer.drain(..end + 2);
        if size == 0 {
            // Trailers, to the empty line.
            loop {
                let end = line(read, buffer).await?;
                buffer.drain(..end + 2);
                if end == 0 {
                    return Some(body);
                }
            }
        }
        while buffer.len() < size + 2 {
            if !more(read, buffer).await {
                return None;
            }
        }
        body.extend(buffer.drain(..size));
        buffer.drain(..2);
    }
}

/// Where the next line ends.
async fn line(read: &mut ReadHalf<Box<dyn Stream>>, buffer: &mut Vec<u8>) -> Option<usize> {
    loop {
        if let Some(end) = find(buffer, b"\r\n") {
            return Some(end);
        }
        if !more(read, buffer).await {
            return None;
        }
    }
}

fn find(buffer: &[u8], what: &[u8]) -> Option<usize> {
    buffer.windows(what.len()).position(|window| window == what)
}

/// Whether something more has come.
async fn more(read: &mut ReadHalf<Box<dyn Stream>>, buffer: &mut Vec<u8>) -> bool {
    let before = buffer.len();
    buffer.resize(before + ROOM, 0);
    let read = read.read(&mut buffer[before..]).await.unwrap_or(0);
    buffer.truncate(before + read);
    read > 0
}
