//! The gateway's own certificate toward a backend that asks for one.

use portcullis_testkit::backend::response;
use portcullis_testkit::{Pki, Protocol};

use super::*;

fn presenting(name: &str, backend: &Backend) -> String {
    format!(
        r#"
routes: {{ all: {{ match: /**, public: "a test", to: backend }} }}
backends:
  backend:
    endpoints: ["https://{}"]
    tls: {{ ca: "file:ca.pem", cert: "file:{name}.pem", key: "file:{name}.key", server_name: localhost }}
"#,
        backend.address
    )
}

/// RE-27
#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_old_ones_are_left() {
    let (pki, ours) = (Pki::new(), Authority::new("ours"));
    let backend =
        Backend::start_tls_with(pki.server_for(Some(&ours)), |mut conversation| async move {
            while conversation.request().await.is_some() {
                conversation.send(response(200, "")).await;
            }
        })
        .await;
    let mut setup = Setup::new(&presenting("first", &backend)).pki(&pki);
    let stranger = Authority::new("another").client(3, |_| {});
    for (name, identity) in
        [("first", ours.client(1, |_| {})), ("second", ours.client(2, |_| {})), ("bad", stranger)]
    {
        setup = setup.file(&format!("{name}.pem"), &identity.chain.concat());
        setup = setup.file(&format!("{name}.key"), &identity.key);
    }
    let gateway = setup.start();
    let ask = async || {
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        let status = client.send(Request::get("/")).await.unwrap().status;
        (status, backend.requests().last().map(|request| request.connection))
    };
    assert_eq!(ask().await, (200, Some(0)));
    assert_eq!(ask().await, (200, Some(0)));
    gateway.swap(&presenting("second", &backend));
    gateway.settle().await;
    assert_eq!(ask().await, (200, Some(1)));
    // That it is the new one which is presented shows where the backend does not take it.
    gateway.swap(&presenting("bad", &backend));
    gateway.settle().await;
    assert_eq!(ask().await.0, 502);
    gateway.swap(&presenting("second", &backend));
    gateway.settle().await;
    assert_eq!(ask().await.0, 200);
}
