use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net;

use serde_json::{Value, json};

use super::*;

struct Scripted;

impl View for Scripted {
    fn ready(&self) -> (bool, Value) {
        (true, json!({ "ready": true }))
    }

    fn metrics(&self, out: &mut String) {
        out.push_str("# EOF\n");
    }

    fn config(&self) -> Value {
        json!({ "config": "config@1" })
    }

    fn usage(&self) -> Value {
        json!({})
    }

    fn backends(&self) -> Value {
        json!([])
    }

    fn routes(&self) -> Value {
        panic!("a view must not take the server down")
    }

    fn request(&self, id: &str) -> Value {
        if id == "known" { json!([{ "request_id": id }]) } else { json!([]) }
    }

    fn analysis(&self) -> Value {
        json!([])
    }

    fn overrides(&self) -> Value {
        json!([])
    }

    fn set_override(&self, written: &[u8]) -> Result<Value, String> {
        Ok(json!({ "bytes": written.len() }))
    }

    fn clear_overrides(&self, _: Option<u64>) -> usize {
        0
    }

    fn version(&self) -> Value {
        json!({})
    }
}

fn view() -> Arc<dyn View> {
    Arc::new(Scripted)
}

/// The whole answer to one GET.
fn get(mut stream: impl Read + Write, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    // A connection that is cut off has answered nothing.
    stream.read_to_string(&mut answer).unwrap_or_default();
    answer
}

#[test]
fn probes_are_answered_at_an_address() {
    let bind = Bind::Address(SocketAddr::from(([127, 0, 0, 1], 0)));
    let server = start(&bind, Access::Probes, view()).unwrap();
    let address = server.address().unwrap();
    let answer = get(TcpStream::connect(address).unwrap(), "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("# EOF\n"), "{answer}");
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0;"));
    assert!(get(TcpStream::connect(address).unwrap(), "/config").starts_with("HTTP/1.1 404 "));
}

#[test]
fn the_socket_is_for_our_own_user_and_gone_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let server = start(&Bind::Socket(path.clone()), Access::Socket, view()).unwrap();
    let mode = std::fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let answer = get(UnixStream::connect(&path).unwrap(), "/config");
    assert!(answer.contains("config@1"), "{answer}");
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_panic_costs_one_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let _server = start(&Bind::Socket(path.clone()), Access::Socket, view()).unwrap();
    assert_eq!(get(UnixStream::connect(&path).unwrap(), "/routes"), "");
    let answer = get(UnixStream::connect(&path).unwrap(), "/healthz");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_dead_socket_is_replaced_and_anything_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join("dead.sock");
    drop(net::UnixListener::bind(&dead).unwrap());
    assert!(start(&Bind::Socket(dead), Access::Socket, view()).is_ok());

    let live = folder.path().join("live.sock");
    let _listener = net::UnixListener::bind(&live).unwrap();
    let error = start(&Bind::Socket(live), Access::Socket, view()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);

    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "precious").unwrap();
    assert!(start(&Bind::Socket(file.clone()), Access::Socket, view()).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_successors_socket_is_not_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let server = start(&Bind::Socket(path.clone()), Access::Socket, view()).unwrap();
    std::fs::rename(&path, folder.path().join("moved")).unwrap();
    let _successor = start(&Bind::Socket(path.clone()), Access::Socket, view()).unwrap();
    drop(server);
    assert!(get(UnixStream::connect(&path).unwrap(), "/healthz").starts_with("HTTP/1.1 200 "));
}
