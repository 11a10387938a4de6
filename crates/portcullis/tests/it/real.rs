//! `examples/quickstart.yaml` between real servers: Debian's nginx behind it, and tokens of the npm
//! package `oidc-provider` by discovery. Both are started here, on free ports; `cargo xtask test`
//! installs what is missing. And OpenSSL, which nodejs brings, as a client.

mod chromium;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use portcullis_testkit::{Issuer, OidcProvider};

use crate::binary::root;

/// Ends a server that this test started.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Reads lines until one has the mark.
fn await_line(reader: &mut impl BufRead, mark: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "no `{mark}` in:\n{seen}");
        if line.contains(mark) {
            return line;
        }
        seen.push_str(&line);
    }
}

/// One exchange on a connection of its own; the answer as text.
fn ask(port: u16, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> String {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n");
    for (name, value) in fields {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n{body}", body.len());
    tcp.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// nginx as a backend that tells who asks.
fn nginx(dir: &Path) -> (Server, u16) {
    let says = "default_type text/plain;
                return 200 \"nginx saw $http_portcullis_client at $uri\\n\";";
    nginx_saying(dir, says)
}

/// nginx as a backend, with what a location of it has; it serves when it accepts.
fn nginx_saying(dir: &Path, says: &str) -> (Server, u16) {
    let port = free_port();
    let at = |name: &str| dir.join(name).display().to_string();
    let config = format!(
        "daemon off; master_process off; pid {}; error_log stderr crit;
         events {{}}
         http {{
           access_log off; client_body_temp_path {b}; proxy_temp_path {b}; fastcgi_temp_path {b};
           uwsgi_temp_path {b}; scgi_temp_path {b};
           server {{ listen 127.0.0.1:{port}; location / {{ {says} }} }}
         }}",
        at("nginx.pid"),
        b = at("temp"),
    );
    std::fs::write(dir.join("nginx.conf"), config).unwrap();
    let child = Command::new("nginx")
        .args(["-c", &at("nginx.conf"), "-p", &at("")])
        .spawn()
        .expect("Debian's package nginx; `cargo xtask test` installs it");
    let server = Server(child);
    wait_for(port);
    (server, port)
}

/// Waits until somebody accepts; bounded by the number of attempts, each of which yields.
fn wait_for(port: u16) {
    for _ in 0..100_000 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("nobody listens on port {port}");
}

/// The gateway with `portcullis.yaml` in this folder, and the port of its first listener.
fn gateway(dir: &Path) -> (Server, u16) {
    let (gateway, ports) = gateway_of(dir, 1);
    (gateway, ports[0])
}

/// The same, with the ports of so many listeners.
fn gateway_of(dir: &Path, listeners: usize) -> (Server, Vec<u16>) {
    let child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .arg("run")
        .current_dir(dir)
        .env("XDG_STATE_HOME", dir)
        .env("NO_COLOR", "1")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut gateway = Server(child);
    let mut output = BufReader::new(gateway.0.stderr.take().unwrap());
    let port = |_| {
        let line = await_line(&mut output, "listening");
        let digits = line.split("127.0.0.1:").nth(1).unwrap();
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap();
        digits[..end].parse().unwrap()
    };
    let ports = (0..listeners).map(port).collect();
    (gateway, ports)
}

/// A certificate for `localhost` and its key, in files of this folder.
fn self_signed(dir: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = leaf.self_signed(&key).unwrap();
    std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn the_quick_start_between_nginx_and_a_real_issuer() {
    let dir = tempfile::tempdir().unwrap();
    let (_nginx, nginx_port) = nginx(dir.path());
    let issuer = OidcProvider::start(&Issuer::default());
    let issuer_port = issuer.port();

    let text = std::fs::read_to_string(root().join("examples/quickstart.yaml")).unwrap();
    let text = text
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("http://127.0.0.1:3000", &format!("http://127.0.0.1:{issuer_port}"))
        .replace("http://127.0.0.1:9000", &format!("http://127.0.0.1:{nginx_port}"));
    let config = dir.path().join("portcullis.yaml");
    std::fs::write(&config, format!("{text}\nprobes: off\naccess_log: off\n")).unwrap();
    let (_gateway, port) = gateway(dir.path());

    let none = ask(port, "GET", "/orders/1", &[], "");
    assert!(none.starts_with("HTTP/1.1 401 "), "{none}");
    let bearer = format!("Bearer {}", issuer.token("shop", "a-secret-of-the-test", "orders:read"));
    let good = ask(port, "GET", "/orders/1", &[("authorization", &bearer)], "");
    assert!(good.starts_with("HTTP/1.1 200 "), "{good}");
    assert!(good.ends_with("nginx saw shop at /orders/1\n"), "{good}");
    // Within the signature; at its end some bits say nothing.
    let middle = bearer.len() - 40;
    let other = if &bearer[middle..=middle] == "A" { "B" } else { "A" };
    let forged = format!("{}{other}{}", &bearer[..middle], &bearer[middle + 1..]);
    let bad = ask(port, "GET", "/orders/1", &[("authorization", &forged)], "");
    assert!(bad.starts_with("HTTP/1.1 401 "), "{bad}");
    let open = ask(port, "GET", "/status", &[], "");
    assert!(open.ends_with("ok"), "{open}");
}

const RENEGOTIATES: &str = r#"
const socket = require('tls').connect({ host: '127.0.0.1', port: Number(process.argv[1]),
  servername: 'localhost', rejectUnauthorized: false, maxVersion: 'TLSv1.2' });
socket.on('error', (error) => console.log('error', error.code));
socket.on('secureConnect', () => {
  console.log('connected', socket.getProtocol());
  socket.renegotiate({}, (error) => console.log(error ? 'refused' : 'renegotiated'));
});
socket.on('close', () => console.log('closed'));
"#;

#[test]
fn a_client_cannot_renegotiate() {
    let dir = tempfile::tempdir().unwrap();
    self_signed(dir.path());
    let text = r#"
listeners:
  tls:
    bind: "127.0.0.1:0"
    tls: { certificates: [{ cert: "file:cert.pem", key: "file:key.pem" }] }
routes: { all: { match: /**, public: "a test", respond: { status: 204 } } }
probes: off
access_log: off
"#;
    std::fs::write(dir.path().join("portcullis.yaml"), text).unwrap();
    let (_gateway, port) = gateway(dir.path());
    let output = Command::new("node")
        .args(["-e", RENEGOTIATES, &port.to_string()])
        .output()
        .expect("Debian's package nodejs; `cargo xtask test` installs it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("connected TLSv1.2\n"), "{said}");
    assert!(!said.contains("renegotiated") && said.contains("closed"), "{said}");
}
