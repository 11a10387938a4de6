//! A connection to an endpoint as an HTTP/2 client, by the `h2` crate, and one stream of it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, RecvStream};
use http::{HeaderValue, Method, Request, StatusCode, Uri, header, response};
use portcullis_core::known::Known;
use portcullis_core::{BodyLength, Fields, RequestHead, ResponseHead, Version};
use portcullis_http1::{Framing, HeadLimits};
use portcullis_upstream::{Endpoint, Permit};

use crate::backend::{Begin, HeadFailure, HeadKind};
use crate::h2_head;
use crate::io::Io;
use crate::outbox::Outbox;
use crate::wire::{Progress, ReadError};

const WINDOW_STREAM: u32 = 64 * 1024;
const WINDOW_CONNECTION: u32 = 1024 * 1024;
const SEND_BUFFER: usize = 64 * 1024;
/// As in [`crate::h2`], but more: the streams of many clients share the connection, and would end
/// with it over the slow ones among them.
const SMALL_FRAMES: usize = 8 * WINDOW_CONNECTION as usize;
const HEAD_BYTES_MAX: u32 = 64 * 1024;

/// A connection that carries many exchanges of one worker at once.
#[derive(Debug)]
pub(crate) struct Shared {
    send: SendRequest<Bytes>,
    pub(crate) endpoint: Arc<Endpoint>,
    /// Counts against the backend's `connections_max`.
    _permit: Option<Permit>,
    streams: Cell<u32>,
    /// Through TLS.
    https: bool,
    /// It has carried an exchange.
    used: Cell<bool>,
    /// When it was last given a stream; between streams, since when it is idle.
    touched: Cell<Duration>,
}

impl Shared {
    /// Says hello, waits for the peer's settings, and leaves the connection's own work to a task,
    /// which ends with the connection.
    pub(crate) async fn open(
        io: Io,
        endpoint: Arc<Endpoint>,
        permit: Option<Permit>,
    ) -> Result<Rc<Self>, h2::Error> {
        let https = io.session().is_some();
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(WINDOW_STREAM)
            .initial_connection_window_size(WINDOW_CONNECTION)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_send_buffer_size(SEND_BUFFER)
            .data_frame_budget(SMALL_FRAMES)
            // How many streams the peer takes is in its settings. Before, each one more than that
            // would be refused.
            .initial_max_send_streams(0);
        let (send, mut connection) = builder.handshake::<_, Bytes>(io).await?;
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Pending if send.current_max_send_streams() == 0 => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
            over @ Poll::Ready(_) => over,
        })
        .await?;
        // Each stream learns of the end by itself.
        tokio::task::spawn_local(async { drop(connection.await) });
        Ok(Rc::new(Self {
            send,
            endpoint,
            _permit: permit,
            https,
            streams: Cell::new(0),
            used: Cell::new(false),
            touched: Cell::default(),
        }))
    }

    /// Neither ended nor told to go away: it takes new streams.
    pub(crate) fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.send.clone().poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    /// Another stream, if fewer than `streams_max` and than the peer allows are under way.
    pub(crate) fn stream(self: &Rc<Self>, streams_max: u32, now: Duration) -> Option<Box<Stream>> {
        let streams = self.streams.get();
        let allowed = self.send.current_max_send_streams();
        if streams >= streams_max || streams as usize >= allowed {
            return None;
        }
        self.streams.set(streams + 1);
        self.touched.set(now);
        Some(Box::new(Stream {
            reused: self.used.replace(true),
            shared: Rc::clone(self),
            failure: None,
            response: None,
            out: Outbox::default(),
            body: None,
            trailers: None,
            connect: false,
            granted: false,
        }))
    }

    /// Whether it has had no stream since `since`.
    pub(crate) fn is_idle_since(&self, since: Duration) -> bool {
        self.streams.get() == 0 && self.touched.get() <= since
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }
}

/// One exchange. Dropped before its end it is reset.
#[derive(Debug)]
pub(crate) struct Stream {
    shared: Rc<Shared>,
    pub(crate) reused: bool,
    /// The request could not be begun.
    failure: Option<HeadFailure>,
    response: Option<ResponseFuture>,
    pub(crate) out: Outbox,
    body: Option<RecvStream>,
    pub(crate) trailers: Option<Fields>,
    /// Extended CONNECT (RFC 8441).
    connect: bool,
    /// The backend has said yes to it.
    granted: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.streams.set(self.shared.streams.get() - 1);
    }
}

impl Stream {
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.shared.endpoint
    }

    /// Whether the backend has said that it takes WebSocket on its connections.
    pub(crate) fn takes_connect(&self) -> bool {
        self.shared.send.is_extended_connect_protocol_enabled()
    }

    pub(crate) fn begin(&mut self, head: &RequestHead, begin: &Begin<'_>) {
        self.connect = begin.accept.is_some();
        let request = match request(head, begin, self.shared.https) {
            Ok(request) => request,
            Err(error) => {
                self.failure = Some(HeadFailure::Malformed(format!("the target: {error}")));
                return;
            }
        };
        let ended = head.body == BodyLength::Empty && !self.connect;
        match self.shared.send.clone().send_request(request, ended) {
            Ok((response, send)) => {
                self.response = Some(response);
                self.out.open(send, ended);
            }
            Err(error) => self.failure = Some(HeadFailure::Refused(io::Error::other(error))),
        }
    }

    pub(crate) fn finish(&mut self, trailers: Option<&Fields>) {
        // What opens a tunnel has no body that could end; the tunnel does.
        if !self.connect || self.granted {
            self.out.end(trailers);
        }
    }

    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: &HeadLimits,
        method: &Method,
        head: &mut ResponseHead,
    ) -> Poll<Result<HeadKind, HeadFailure>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        let Some(response) = &mut self.response else { return Poll::Pending };
        if let Some(interim) = ready!(response.poll_informational(cx)) {
            let (parts, ()) = interim.map_err(failure)?.into_parts();
            return Poll::Ready(fill(head, &parts, limits).map(|()| HeadKind::Interim));
        }
        let (parts, body) = ready!(Pin::new(response).poll(cx)).map_err(failure)?.into_parts();
        fill(head, &parts, limits)?;
        if self.connect && parts.status.is_success() {
            self.granted = true;
            self.body = Some(body);
            return Poll::Ready(Ok(HeadKind::Tunnel));
        }
        let declared = h2_head::length(&parts.headers)
            .map_err(|_| HeadFailure::Malformed("content-length".to_owned()))?;
        let status = parts.status;
        let bodiless = *method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        head.body = match declared {
            _ if bodiless || body.is_end_stream() => BodyLength::Empty,
            Some(length) => BodyLength::of(length),
            None => BodyLength::Unknown,
        };
        self.body = Some(body);
        let declared = declared.filter(|_| status != StatusCode::NO_CONTENT);
        Poll::Ready(Ok(HeadKind::Final { declared }))
    }

    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        read: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<Progress, ReadError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(Progress::End)) };
        match body.poll_data(cx) {
            Poll::Pending if read => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(Progress::More)),
            Poll::Ready(Some(Ok(data))) => {
                sink(&data);
                // What has been taken may be sent anew; it fails only for a stream that is over.
                drop(body.flow_control().release_capacity(data.len()));
                Poll::Ready(Ok(Progress::More))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(broken(error))),
            Poll::Ready(None) => match body.poll_trailers(cx) {
                Poll::Pending if read => Poll::Pending,
                Poll::Pending => Poll::Ready(Ok(Progress::More)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(broken(error))),
                Poll::Ready(Ok(trailers)) => {
                    self.trailers = trailers.map(|map| h2_head::trailers(&map));
                    self.body = None;
                    Poll::Ready(Ok(Progress::End))
                }
            },
        }
    }
}

fn broken(error: h2::Error) -> ReadError {
    ReadError::Io(io::Error::other(error))
}

/// What an error says about the fate of a request that has had no answer.
fn failure(error: h2::Error) -> HeadFailure {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    // `h2` reports a GOAWAY only to streams beyond the last one that it names.
    if error.is_remote() && (refused || error.is_go_away()) {
        return HeadFailure::Refused(io::Error::other(error));
    }
    if error.is_io() {
        return HeadFailure::Silent(io::Error::other(error));
    }
    match error.is_library() {
        true => HeadFailure::Malformed(error.to_string()),
        false => HeadFailure::Cut(io::Error::other(error)),
    }
}

fn request(head: &RequestHead, begin: &Begin<'_>, https: bool) -> Result<Request<()>, http::Error> {
    let mut target = Vec::with_capacity(head.path().len() + 64);
    target.extend_from_slice(head.path());
    if let Some(query) = head.query() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let uri = Uri::builder()
        .scheme(if https { "https" } else { "http" })
        .authority(head.authority())
        .path_and_query(target)
        .build()?;
    let mut request = Request::new(());
    *request.version_mut() = http::Version::HTTP_2;
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    let mut map = h2_head::headers(&head.fields);
    if let Framing::Length(length) = begin.wire.framing {
        map.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if begin.wire.accepts_trailers {
        map.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if begin.wire.expect_continue {
        map.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    }
    if begin.accept.is_some() {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        map.remove(header::SEC_WEBSOCKET_KEY);
    }
    *request.headers_mut() = map;
    Ok(request)
}

/// Takes a head over; the caller sets the length of its body.
fn fill(
    head: &mut ResponseHead,
    parts: &response::Parts,
    limits: &HeadLimits,
) -> Result<(), HeadFailure> {
    let malformed = |reason: &str| Err(HeadFailure::Malformed(reason.to_owned()));
    head.clear();
    head.status = parts.status;
    head.version = Version::Http2;
    head.body = BodyLength::Empty;
    if parts.headers.len() > limits.fields_max {
        return malformed("too many fields");
    }
    for (name, value) in &parts.headers {
        let known = Known::of(name.as_str().as_bytes());
        if known.is_hop_by_hop() && known != Known::Trailer {
            return malformed("a field of HTTP/1.1 connections");
        }
        if value.as_bytes().iter().any(|byte| !portcullis_core::head::is_field_byte(*byte)) {
            return malformed("a control byte in a field");
        }
        if !known.is_hop_by_hop() && known != Known::ContentLength {
            head.fields.append(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    Ok(())
}
