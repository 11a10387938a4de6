//! Messages are put together here by hand, from the protocol's field numbers, so that what is
//! written and what is read are not judged by themselves.

use std::sync::Arc;

use expect_test::expect;
use portcullis_core::exchange::{Connection, TlsFacts};

use super::super::tests::{Authorizer, OPA};
use super::*;
use crate::testing::START;

/// Protobuf by hand: numbers, and texts or messages.
fn number(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3], varint(value)].concat()
}

fn bytes(field: u8, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [vec![field << 3 | 2], varint(value.len() as u64), value.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn map(field: u8, entries: &[(&str, &str)]) -> Vec<u8> {
    let entry =
        |(key, value): &(&str, &str)| bytes(field, [bytes(1, key), bytes(2, value)].concat());
    entries.iter().flat_map(entry).collect()
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

const OK: [(&str, &str); 1] = [("grpc-status", "0")];

#[test]
fn the_question_by_grpc_is_a_check_request() {
    let authorizer = Authorizer::new();
    let auth = authorizer.auth(
        r#"{ grpc: "http://127.0.0.1:9191/", body: { max: 1KiB }, timeout: 250ms,
             context: { policy: orders }, request_headers: ["*"] }"#,
    );
    let mut exchange = authorizer.world.exchange(
        "192.0.2.7 PUT /orders?a=b | X-Role: user | x-role: admin | cookie: a=1 | Cookie: b=2 \
         | X-Forwarded-For: 10.0.0.1 | x_forwarded_proto: http | te: trailers",
    );
    let tls = TlsFacts { server_name: Some("api.example.com".into()), ..TlsFacts::default() };
    exchange.connection = std::rc::Rc::new(Connection {
        peer: "192.0.2.7:50000".parse().unwrap(),
        tls: Some(tls),
        ..Connection::default()
    });
    exchange.certificate = Some(Arc::new(ClientCertificate {
        subject: "CN=shop".to_owned(),
        dns: vec!["shop.example".to_owned()],
        uris: vec!["spiffe://example/shop".to_owned()],
        ..ClientCertificate::default()
    }));
    exchange.request.body = BodyLength::Known(300);
    exchange.request_body = Bytes::from("x".repeat(300));
    authorizer.says(200, &OK, frame(&bytes(1, "")));
    assert_eq!(authorizer.verify_exchange(&*auth, &exchange), "idp/external");

    let id = "00000000000000000000000000c0ffee";
    let headers = map(
        3,
        &[
            (":authority", "api.example.com"),
            (":method", "PUT"),
            (":path", "/orders?a=b"),
            (":scheme", "https"),
            ("cookie", "a=1; b=2"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", id),
            ("x-role", "user,admin"),
        ],
    );
    let http = [
        bytes(1, id),
        bytes(2, "PUT"),
        headers,
        bytes(4, "/orders?a=b"),
        bytes(5, "api.example.com"),
        bytes(6, "https"),
        number(9, 300),
        bytes(10, "HTTP/1.1"),
        bytes(11, "x".repeat(300)),
    ]
    .concat();
    let socket = [bytes(2, "192.0.2.7"), number(3, 50_000)].concat();
    let source = [bytes(1, bytes(1, socket)), bytes(4, "spiffe://example/shop")].concat();
    let time = number(1, START.wall.as_secs());
    let request = [bytes(1, time), bytes(2, http)].concat();
    let attributes = [
        bytes(1, source),
        bytes(4, request),
        map(10, &[("policy", "orders")]),
        bytes(12, bytes(1, "api.example.com")),
    ]
    .concat();
    let asked = authorizer.asked.borrow();
    let fetch = asked.last().unwrap();
    let expected = frame(&bytes(1, attributes));
    assert_eq!(fetch.body.escape_ascii().to_string(), expected.escape_ascii().to_string());
    assert!(fetch.http2);
    let fields: Vec<String> =
        fetch.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    expect![[r#"
        POST http://127.0.0.1:9191/envoy.service.auth.v3.Authorization/Check
        content-type: application/grpc
        accept: application/grpc
        te: trailers
        grpc-timeout: 250m
        x-request-id: 00000000000000000000000000c0ffee"#]]
    .assert_eq(&format!("{} {}\n{}", fetch.method, fetch.url, fields.join("\n")));
}

#[test]
fn a_body_that_is_no_text_is_raw() {
    let authorizer = Authorizer::new();
    let auth = authorizer.auth(r#"{ grpc: "https://a.example", body: { max: 1KiB } }"#);
    let mut exchange = authorizer.world.exchange("192.0.2.7 PUT /");
    exchange.request_body = Bytes::from_static(b"\xff\x00");
    authorizer.says(200, &OK, frame(&bytes(1, "")));
    authorizer.verify_exchange(&*auth, &exchange);
    let body = authorizer.asked.borrow().last().unwrap().body.clone();
    let raw = bytes(12, b"\xff\x00");
    assert!(body.windows(raw.len()).any(|part| part == raw));
}

/// `HeaderValueOption`.
fn header(field: u8, name: &str, value: &str, more: Vec<u8>) -> Vec<u8> {
    let header = [bytes(1, name), bytes(2, value)].concat();
    bytes(field, [bytes(1, header), more].concat())
}

#[test]
fn an_ok_response_tells_the_backend_what_is_copied_and_nothing_else() {
    let authorizer = Authorizer::new();
    let auth = authorizer.auth(
        r#"{ grpc: "http://127.0.0.1:9191", copy_headers: [x-user-id, x-roles],
             client: "metadata:sub.id", tenant: "metadata:org", scopes: "metadata:scopes" }"#,
    );
    let text = |text: &str| bytes(3, text);
    let entry = |name: &str, value: Vec<u8>| bytes(1, [bytes(1, name), bytes(2, value)].concat());
    let list = |items: &[&str]| {
        let items = items.iter().flat_map(|item| bytes(1, text(item))).collect::<Vec<_>>();
        bytes(6, items)
    };
    let double = |value: f64| [vec![2 << 3 | 1], value.to_le_bytes().to_vec()].concat();
    let metadata = [
        entry("sub", bytes(5, entry("id", text("alice")))),
        entry("org", double(7.0)),
        entry("scopes", list(&["a", "b"])),
        entry("half", double(0.5)),
        entry("nothing", number(1, 0)),
        entry("yes", number(4, 1)),
    ]
    .concat();
    let append = bytes(2, number(1, 1));
    let ok = [
        header(2, "X-User-Id", "mallory", vec![]),
        header(2, "x-user-id", "alice", vec![]),
        header(2, "x-roles", "buyer", append.clone()),
        header(2, "x-roles", "seller", append),
        header(2, "x-roles", "ignored", number(3, 1)),
        header(2, "x-other", "dropped", vec![]),
        header(2, "not a name", "dropped", vec![]),
        bytes(5, "Cookie"),
        bytes(5, "Host"),
        bytes(5, ":path"),
        header(6, "Set-Cookie", "s=1", vec![]),
        header(6, "x-other", "dropped", vec![]),
        // Numbers that are not known are skipped.
        bytes(7, [bytes(1, "q"), bytes(2, "1")].concat()),
    ]
    .concat();
    let message = [bytes(1, ""), bytes(3, ok), bytes(4, metadata)].concat();
    authorizer.says(200, &OK, frame(&message));
    expect![[r#"
        idp/alice of 7 for ["a", "b"]
          x-user-id: alice
          x-roles: buyer
          x-roles: seller
          claims {"x-user-id":"alice","x-roles":"buyer, seller","half":0.5,"nothing":null,"org":7,"scopes":["a","b"],"sub":{"id":"alice"},"yes":true}
          sets s=1
          withholds cookie"#]]
    .assert_eq(&authorizer.verify(&*auth, "192.0.2.7 GET /"));
}

#[test]
fn a_denied_response_is_the_clients_answer() {
    let authorizer = Authorizer::new();
    let auth = authorizer.auth(OPA);
    let check = |message: Vec<u8>, expected: &str| {
        authorizer.says(200, &OK, frame(&message));
        assert_eq!(authorizer.verify(&*auth, "192.0.2.7 GET /"), expected);
    };
    let denied = [
        bytes(1, number(1, 401)),
        header(2, "X-Why", "because", vec![]),
        header(2, "Content-Length", "1000", vec![]),
        header(2, "Transfer-Encoding", "chunked", vec![]),
        bytes(3, "no"),
    ]
    .concat();
    let status = |code: u64| bytes(1, number(1, code));
    let reply = "reply 401 no\n  x-why: because\n  cache-control: no-store";
    check([status(16), bytes(2, &denied)].concat(), reply);
    // A refusal in any part of the answer is one.
    check(bytes(2, &denied), reply);
    check([status(0), bytes(2, &denied)].concat(), reply);
    let plain = "reply 403 \n  cache-control: no-store";
    check(status(7), plain);
    check([status(7), bytes(3, "")].concat(), plain);
    for odd in [0, 99, 100, 600, 100_000] {
        check([status(7), bytes(2, bytes(1, number(1, odd)))].concat(), plain);
    }
}

#[test]
fn what_is_not_a_whole_answer_is_none() {
    let authorizer = Authorizer::new();
    let auth = authorizer.auth(OPA);
    let allow = frame(&bytes(1, ""));
    let check = |status: u16, fields: &[(&str, &str)], body: &[u8], expected: &str| {
        authorizer.says(status, fields, body.to_vec());
        let seen = authorizer.verify(&*auth, "192.0.2.7 GET /");
        assert_eq!(seen, format!("503 authorizer-unavailable | the authorizer{expected}"));
        // So that nobody is left alone yet.
        authorizer.says(200, &OK, allow.clone());
        assert_eq!(authorizer.verify(&*auth, "192.0.2.7 GET /"), "idp/external");
    };
    check(404, &OK, &allow, " answered with status 404, which is not gRPC");
    check(200, &[], &allow, "'s answer has no gRPC status");
    let late = [("grpc-status", "0"), ("grpc-status", "13"), ("grpc-message", "oh")];
    check(200, &late, &allow, " answered with gRPC status 13: oh");
    check(200, &[("grpc-status", "14")], b"", " answered with gRPC status 14: ");
    let not_one = "'s answer is not one message";
    check(200, &OK, b"", not_one);
    check(200, &OK, &allow[..allow.len() - 1], not_one);
    check(200, &OK, &[&allow[..], &allow].concat(), not_one);
    check(200, &OK, &[&[1][..], &allow[1..]].concat(), not_one);
    check(200, &OK, &frame(b""), "'s answer is empty");
    let garbage = "'s answer cannot be read: ";
    for message in [&b"\x0a"[..], b"\x0a\x05a", b"\xff\xff\xff"] {
        authorizer.says(200, &OK, frame(message));
        let seen = authorizer.verify(&*auth, "192.0.2.7 GET /");
        assert!(seen.contains(garbage), "{seen}");
    }
    // Deeper than anybody means it: `Value` in `ListValue` in `Value`…
    let deep = (0..200).fold(Vec::new(), |inner, _| bytes(6, bytes(1, inner)));
    let entry = bytes(1, [bytes(1, "a"), bytes(2, deep)].concat());
    authorizer.says(200, &OK, frame(&[bytes(1, ""), bytes(4, entry)].concat()));
    let seen = authorizer.verify(&*auth, "192.0.2.7 GET /");
    assert!(seen.contains(garbage), "{seen}");
}
