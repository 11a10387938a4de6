//! Generated streams, hostile more often than not, held against the oracles.

use portcullis_wire::oracles;
use proptest::prelude::*;

/// Pieces of requests, among them each trick that fooled somebody.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => Just("GET /c HTTP/1.1\r\nHost: a.test\r\n"),
        6 => Just("POST /c HTTP/1.1\r\nHost: a.test\r\n"),
        1 => Just("POST http://B.test:80/a/../%61?q HTTP/1.1\r\nHost: a.test\r\n"),
        1 => Just("POST /c HTTP/1.0\r\nConnection: keep-alive\r\n"),
        1 => Just("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n"),
    ];
    let field = prop_oneof![
        3 => Just("Content-Length: 3\r\n"), 3 => Just("Transfer-Encoding: chunked\r\n"),
        1 => Just("Content-Length: 41\r\n"), 1 => Just("Content-Length: 0\r\n"),
        1 => Just("Content_Length: 3\r\n"), 1 => Just("transfer.encoding: chunked\r\n"),
        1 => Just("Transfer-Encoding : chunked\r\n"), 1 => Just("Transfer-Encoding:\r\n chunked\r\n"),
        1 => Just("X-A: b\nContent-Length: 3\r\n"), 1 => Just("X-A: b\rX-B: c\r\n"),
        2 => Just("X-A:  b \t\r\n"), 1 => Just("Connection: X-A, Content-Length\r\n"),
        1 => Just("Connection: close\r\n"), 1 => Just("Expect: 100-continue\r\n"),
        1 => Just("TE: trailers\r\n"), 1 => Just("X-Empty:\r\n"), 1 => Just("X: caf\u{e9}\r\n"),
    ];
    let body = prop_oneof![
        4 => Just(""), 3 => Just("abc"), 3 => Just("3\r\nabc\r\n0\r\n\r\n"),
        2 => Just("0\r\n\r\n"), 1 => Just("GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        1 => Just("2;a=\"\r\n0\r\n\r\n"), 1 => Just("3;a=\"b\"\r\nabc\r\n0\r\nX-T: 1\r\nHost: x\r\n\r\n"),
        1 => Just("3\nabc\r\n0\r\n\r\n"), 1 => Just("2;a\r\rXX\r\n0\r\n\r\n"), 1 => Just("3\r\nab"),
    ];
    let request = (line, prop::collection::vec(field, 0..4), body)
        .prop_map(|(line, fields, body)| format!("{line}{}\r\n{body}", fields.concat()));
    prop::collection::vec(request, 1..4).prop_map(|requests| requests.concat().into_bytes())
}

/// Any stream with a few bytes of it changed, taken out or doubled.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let damage = (any::<prop::sample::Index>(), any::<u8>(), 0..3u8);
    (stream(), prop::collection::vec(damage, 0..4)).prop_map(|(mut text, damages)| {
        for (at, byte, kind) in damages {
            let at = at.index(text.len());
            match kind {
                0 => text[at] = byte,
                1 => text.insert(at, [b'\r', b'\n', 0, b' ', b';', b':'][usize::from(byte % 6)]),
                _ => drop(text.remove(at)),
            }
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn forwarded_requests_have_one_reading(input in stream()) {
        oracles::http1_request(&input);
    }

    #[test]
    fn forwarded_requests_have_one_reading_though_damaged(input in damaged()) {
        oracles::http1_request(&input);
    }

    #[test]
    fn forwarded_responses_have_one_framing(
        choice: u8,
        status in prop_oneof![Just("200 OK"), Just("204 x"), Just("304 x"), Just("103 x"), Just("101")],
        version in prop_oneof![4 => Just("1.1"), 1 => Just("1.0")],
        fields in prop::collection::vec(
            prop_oneof![
                Just("Content-Length: 3"), Just("Content-Length: 0"), Just("Transfer-Encoding: chunked"),
                Just("Connection: X-A, close"), Just("X-A: b"), Just("X-A: b\rc"), Just("Connection: keep-alive"),
                Just("Content_Length: 4"), Just("Set-Cookie: a=b"), Just("Upgrade: x"), Just("X-B:\t c "),
            ],
            0..5,
        ),
    ) {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let mut input = vec![choice];
        input.extend_from_slice(format!("HTTP/{version} {status}\r\n{fields}\r\nabc").as_bytes());
        oracles::http1_response(&input);
    }

    #[test]
    fn any_bytes_do(input: Vec<u8>) {
        oracles::http1_request(&input);
        oracles::http1_response(&input);
        oracles::chunked(&input);
        oracles::path(&input);
    }
}
