//! Bodies in many small pieces, as gRPC streams send them, while the other side is slow.

use portcullis_testkit::raw_h2::{flag, frame, get, kind, post};
use portcullis_testkit::{RawH2, Setup, TestGateway, event};
use tokio::net::TcpListener;

const PIECES: usize = 5_000;
const PIECE: &[u8] = b"ten bytes.";

/// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 §6.5.2): nothing may be sent before it is asked for.
const NO_WINDOW: &[u8] = b"\0\x04\0\0\0\0";

async fn gateway() -> (TcpListener, TestGateway) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Setup::new(&format!(
        r#"
routes: {{ all: {{ match: /**, public: "a test", to: backend }} }}
backends: {{ backend: "h2c://{}" }}
"#,
        listener.local_addr().unwrap()
    ))
    .start();
    (listener, gateway)
}

/// The backend's side of the connection, once the request on stream 1 has come.
async fn accept(listener: &TcpListener, settings: &[u8]) -> RawH2 {
    let (tcp, _) = event("the gateway connects", listener.accept()).await.unwrap();
    let mut backend = RawH2::accepted(tcp, settings).await;
    let asked = |backend: &RawH2| backend.frames().iter().any(|frame| frame.kind == kind::HEADERS);
    assert!(backend.until(asked).await);
    backend
}

/// `:status` 200 (RFC 7541 §6.1).
fn answer(flags: u8) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flags, 1, &[0x88])
}

/// A body.
fn pieces(stream: u32) -> Vec<u8> {
    let mut frames = frame(kind::DATA, 0, stream, PIECE).repeat(PIECES);
    frames.extend(frame(kind::DATA, flag::END_STREAM, stream, &[]));
    frames
}

/// Opens the window, and takes the whole body.
async fn take(receiver: &mut RawH2, stream: u32) {
    assert!(receiver.frames().iter().all(|frame| frame.kind != kind::DATA));
    let more = (1_u32 << 20).to_be_bytes();
    receiver.send(frame(kind::WINDOW_UPDATE, 0, stream, &more)).await;
    let over = |receiver: &RawH2| {
        let said = receiver.said();
        said.ended.contains(&stream) || said.goaway.is_some() || !said.resets.is_empty()
    };
    receiver.until(over).await;
    assert!(receiver.said().ended.contains(&stream), "{:?}", receiver.said());
    let frames = receiver.frames().into_iter().filter(|frame| frame.kind == kind::DATA);
    let received: Vec<u8> = frames.flat_map(|frame| frame.payload).collect();
    assert_eq!(received, PIECE.repeat(PIECES));
}

#[tokio::test]
async fn an_answer_in_small_pieces_waits_for_a_slow_client() {
    let (listener, gateway) = gateway().await;
    let mut client = RawH2::connect(gateway.address("plain")).await;
    client.send([frame(kind::SETTINGS, 0, 0, NO_WINDOW), get(1)].concat()).await;
    let mut backend = accept(&listener, b"").await;
    backend.send([answer(0), pieces(1)].concat()).await;
    gateway.settle().await;
    take(&mut client, 1).await;
}

#[tokio::test]
async fn a_body_in_small_pieces_waits_for_a_slow_backend() {
    let (listener, gateway) = gateway().await;
    let mut client = RawH2::connect(gateway.address("plain")).await;
    // The backend's settings hold from the second stream on.
    client.send(get(1)).await;
    let mut backend = accept(&listener, NO_WINDOW).await;
    backend.send(answer(flag::END_STREAM)).await;
    assert!(client.until(|client| client.said().ended.contains(&1)).await);
    client.send([post(3), pieces(3)].concat()).await;
    gateway.settle().await;
    take(&mut backend, 3).await;
}
