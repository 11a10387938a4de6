//! WebSocket from every client to every backend: how it opens, passes and ends.

mod ends;
mod opening;
mod passing;

use portcullis_testkit::h2_backend::Manner;
use portcullis_testkit::{
    Backend, Frame, H2Backend, Protocol, Setup, TestGateway, WebSocket, event,
};
use tokio::sync::mpsc;

/// A backend that grants every upgrade and hands its end to the test.
struct Far {
    sockets: mpsc::Receiver<WebSocket>,
    url: String,
    protocol: &'static str,
    _backend: (Option<Backend>, Option<H2Backend>),
}

impl Far {
    async fn h1() -> Self {
        let (hand, sockets) = mpsc::channel(16);
        let backend = Backend::start(move |mut conversation| {
            let hand = hand.clone();
            async move {
                let Some(request) = conversation.request().await else { return };
                drop(hand.send(conversation.websocket(&request, "").await).await);
            }
        })
        .await;
        Self { sockets, url: backend.url(), protocol: "h1", _backend: (Some(backend), None) }
    }

    async fn h2() -> Self {
        let (hand, sockets) = mpsc::channel(16);
        let manner = Manner { connect: true, ..Manner::default() };
        let backend = H2Backend::start(manner, move |stream| {
            let hand = hand.clone();
            async move { drop(hand.send(stream.websocket(&[])).await) }
        })
        .await;
        Self { sockets, url: backend.url(), protocol: "h2", _backend: (None, Some(backend)) }
    }

    /// One of each kind.
    async fn all() -> [Self; 2] {
        [Self::h1().await, Self::h2().await]
    }

    /// A gateway before it, with more settings of the route.
    fn gateway(&self, settings: &str) -> TestGateway {
        let Self { url, protocol, .. } = self;
        upgrading(url, protocol, settings).start()
    }

    /// Both ends of one through the gateway.
    async fn open(&mut self, gateway: &TestGateway, protocol: Protocol) -> (WebSocket, WebSocket) {
        let near = WebSocket::open(gateway, protocol, "/live").await.unwrap();
        let far = event("an opening at the backend", self.sockets.recv()).await.unwrap();
        (near, far)
    }
}

fn upgrading(url: &str, protocol: &str, settings: &str) -> Setup {
    Setup::new(&upgrading_text(url, protocol, settings))
}

fn upgrading_text(url: &str, protocol: &str, settings: &str) -> String {
    format!(
        r#"
routes:
  live: {{ match: /**, public: "a test", upgrade: [websocket], {settings} to: backend }}
backends:
  backend: {{ endpoints: ["{url}"], protocol: {protocol} }}
"#
    )
}

/// To a backend over HTTP/1.1 that plays a script of its own.
fn to(backend: &Backend) -> TestGateway {
    upgrading(&backend.url(), "h1", "").start()
}

fn going_away() -> Frame {
    Frame { first: 0x88, payload: vec![0x03, 0xe9] }
}
