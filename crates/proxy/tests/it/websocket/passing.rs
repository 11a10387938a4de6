//! What passes through an open WebSocket: every byte, as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use portcullis_testkit::backend::response;
use portcullis_testkit::websocket::{BINARY, CONTINUATION, PING, PONG, TEXT};
use portcullis_testkit::{Backend, Client, Frame, Protocol, Request, TestGateway, WebSocket};

use super::{Far, to};

/// Good frames and bad ones: reserved bits, unknown opcodes, broken UTF-8, fragments out of turn.
fn all_sorts() -> Vec<Frame> {
    vec![
        Frame::text(""),
        Frame::text("text"),
        Frame::new(BINARY, [0, 255, 128]),
        Frame::fragment(TEXT, "one "),
        Frame::new(PING, "in between"),
        Frame::fragment(CONTINUATION, "two "),
        Frame::new(CONTINUATION, "three"),
        Frame::new(PONG, "unasked"),
        Frame::new(TEXT, [0xff, 0xc0, 0x80]),
        Frame::new(CONTINUATION, "of nothing"),
        Frame::fragment(PING, "a ping in pieces"),
        Frame::new(PING, [b'x'; 1000]),
        Frame::new(3, "reserved"),
        Frame::new(15, "reserved"),
        Frame { first: 0xff, payload: b"all bits".to_vec() },
        Frame::new(BINARY, [7; 125]),
        Frame::new(BINARY, [7; 126]),
        Frame::new(BINARY, [7; 65_535]),
        Frame::new(BINARY, [7; 65_536]),
    ]
}

#[tokio::test]
async fn frames_of_all_sorts_pass_both_ways() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        for protocol in Protocol::ALL {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            for frame in all_sorts() {
                near.send(&frame).await;
                other.expect(&frame).await;
                other.send(&frame).await;
                near.expect(&frame).await;
            }
        }
    }
}

#[tokio::test]
async fn frames_in_single_bytes_pass() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        for protocol in Protocol::ALL {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            for frame in all_sorts().iter().filter(|frame| frame.payload.len() < 130) {
                let up = async {
                    for byte in frame.encode(Some([9, 8, 7, 6])) {
                        near.send_bytes(&[byte]).await;
                    }
                };
                // Read meanwhile: `h2` has a limit of small DATA frames that nobody reads.
                tokio::join!(up, other.expect(frame));
                let down = async {
                    for byte in frame.encode(None) {
                        other.send_bytes(&[byte]).await;
                    }
                };
                tokio::join!(down, near.expect(frame));
            }
        }
    }
}

/// Larger than any body may be: `body_max` is about requests.
#[tokio::test]
async fn a_large_message_passes() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        for protocol in [Protocol::H1Tls, Protocol::H2] {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            let bytes: Vec<u8> = (0..11 << 20_u32).map(|i: u32| (i % 251) as u8).collect();
            let frame = Frame::new(BINARY, bytes);
            let (arrived, ()) = tokio::join!(other.frame(), near.send(&frame));
            assert!(arrived.as_ref() == Ok(&frame), "to {}", far.protocol);
            let (arrived, ()) = tokio::join!(near.frame(), other.send(&frame));
            assert!(arrived.as_ref() == Ok(&frame), "from {}", far.protocol);
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_frames_pass_too() {
    let mut far = Far::h1().await;
    let gateway = far.gateway("");
    let (mut near, mut other) = far.open(&gateway, Protocol::H1).await;
    let noise = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff GET / HTTP/1.1\r\n\r\n".repeat(100);
    near.send_bytes(&noise).await;
    assert_eq!(other.bytes(noise.len()).await.unwrap(), noise);
    other.send_bytes(&noise).await;
    assert_eq!(near.bytes(noise.len()).await.unwrap(), noise);
}

#[tokio::test]
async fn policies_that_read_bodies_do_not_touch_frames() {
    for mut far in Far::all().await {
        let gateway = far.gateway("test_shout: 1000, test_filter: end,");
        for protocol in Protocol::ALL {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            near.send(&Frame::text("quiet")).await;
            other.expect(&Frame::text("quiet")).await;
            other.send(&Frame::text("quiet")).await;
            near.expect(&Frame::text("quiet")).await;
        }
    }
}

#[tokio::test]
async fn many_websockets_and_requests_share_an_http2_connection() {
    let backend = Backend::start(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            if request.field("upgrade").is_some() {
                return conversation.websocket(&request, "").await.echo().await;
            }
            conversation.send(response(200, "plain")).await;
        }
    })
    .await;
    let gateway = to(&backend);
    let Client::H2(client) = Client::connect(&gateway, Protocol::H2).await else { unreachable!() };
    let request = Request::get("/live");
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(WebSocket::open_h2(&client, &request).await.unwrap());
    }
    for (i, near) in open.iter_mut().enumerate() {
        near.echoes(&Frame::text(&format!("{i}"))).await;
    }
    assert_eq!(client.stream().exchange(&request).await.unwrap().text(), "plain");
    open.truncate(5);
    for (i, near) in open.iter_mut().enumerate() {
        near.echoes(&Frame::text(&format!("{i} again"))).await;
    }
    gateway.connections(1).await;
}

/// A flood at a client that does not read: the gateway must stop reading, not remember.
#[tokio::test]
async fn memory_stays_flat_before_a_client_that_does_not_read() {
    const FLOOD: usize = 32 << 20;
    const PIECE: usize = 64 << 10;
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        for protocol in [Protocol::H1, Protocol::H2] {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            let sent = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&sent);
            let flood = tokio::spawn(async move {
                while count.load(SeqCst) < FLOOD {
                    other.send_bytes(&[0x55; PIECE]).await;
                    count.fetch_add(PIECE, SeqCst);
                }
                other.shutdown().await;
                // Keeps its end until the flood is over.
                other.rest().await;
            });
            let stalled = stalls(&gateway, &sent).await;
            // What the kernel's socket buffers hold on loopback is some of it.
            assert!(stalled < FLOOD - (4 << 20), "{protocol:?} {}: {stalled} bytes", far.protocol);
            let mut left = FLOOD;
            while left > 0 {
                let piece = near.bytes(PIECE.min(left)).await.unwrap();
                assert!(piece.iter().all(|byte| *byte == 0x55));
                left -= piece.len();
            }
            near.shutdown().await;
            assert_eq!(near.rest().await.0, b"");
            flood.await.unwrap();
        }
    }
}

/// How much was sent when nothing more moves, however often everybody has had a turn.
async fn stalls(gateway: &TestGateway, sent: &AtomicUsize) -> usize {
    let mut still = 0;
    let mut before = sent.load(SeqCst);
    while still < 20 {
        gateway.settle().await;
        let now = sent.load(SeqCst);
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
    before
}
