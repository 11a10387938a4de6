//! `portcullis demo`: what it prints is true.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::binary::{Place, Running};

struct Demo {
    running: Running,
    port: u16,
    directory: PathBuf,
    tls: Arc<ClientConfig>,
}

impl Demo {
    fn start() -> Self {
        let running = Place::with("").start(&["demo", "--port", "0"]);
        let line = running.printed("Portcullis listens on https://localhost:");
        let port = line.rsplit(':').next().unwrap().trim().parse().unwrap();
        let line = running.printed("--cacert ");
        let after = line.split("--cacert ").nth(1).unwrap();
        let authority = PathBuf::from(after.split_whitespace().next().unwrap());
        running.printed("Ctrl-C");
        let directory = authority.parent().unwrap().to_owned();
        Self { running, port, directory, tls: trusting(&authority) }
    }

    fn token(&self) -> String {
        let token = std::fs::read_to_string(self.directory.join("token")).unwrap();
        format!("Authorization: Bearer {}\r\n", token.trim())
    }

    fn get(&self, path: &str, fields: &str) -> String {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.tls), name).unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut stream = StreamOwned::new(connection, tcp);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n{fields}\r\n",
            self.port
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn status(&self, path: &str, fields: &str) -> u16 {
        let answer = self.get(path, fields);
        answer.split(' ').nth(1).unwrap_or_else(|| panic!("{answer}")).parse().unwrap()
    }
}

fn trusting(authority: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

#[test]
fn each_line_gives_the_status_that_it_says() {
    let demo = Demo::start();
    let token = demo.token();
    let answer = demo.get("/orders/1", &token);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains(r#""client":"demo""#), "{answer}");
    assert_eq!(demo.status("/orders/1", ""), 401);
    assert_eq!(demo.status("/orders/1", "Authorization: Bearer x.y.z\r\n"), 401);
    assert_eq!(demo.status("/reports/1", &token), 403);
    assert_eq!(demo.status("/status", ""), 200);
    let scarce: Vec<u16> = (0..4).map(|_| demo.status("/scarce", &token)).collect();
    assert_eq!(scarce, [200, 200, 200, 429]);
    demo.running.signal("INT");
    assert_eq!(demo.running.ended().code(), Some(0));
    assert!(!demo.directory.exists(), "nothing is left behind");
}

#[test]
fn one_in_ten_goes_to_the_canary() {
    let demo = Demo::start();
    let token = demo.token();
    let canary = (0..200).filter(|_| demo.get("/orders/1", &token).contains("orders-v2")).count();
    // By chance outside of this less than once in a billion runs.
    assert!((1..=60).contains(&canary), "{canary}");
}
