//! From bytes to a head and back.

use std::hint::black_box;

use http::Method;
use portcullis_core::path::{PathRules, canonicalise};
use portcullis_core::{RequestHead, ResponseHead, Scheme};
use portcullis_http1::{
    HeadLimits, RequestContext, RequestWire, encode_request, parse_request, parse_response,
    request_framing,
};

const REQUEST: &[u8] = b"GET /v1/service-2500/orders/17?page=2 HTTP/1.1\r\n\
    Host: api.example.com\r\nUser-Agent: micro/1.0 (bench)\r\nAccept: application/json\r\n\
    Accept-Language: en-GB,en;q=0.8\r\nAccept-Encoding: gzip, br\r\n\
    Authorization: Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJiZW5jaCJ9.c2lnbmF0dXJl\r\n\
    Content-Type: application/json\r\nX-Correlation-Id: 4f1c2b7a\r\n\
    Cookie: session=0123456789abcdef\r\nOrigin: https://shop.example.com\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: backend\r\n\
    Date: Tue, 24 Nov 2026 08:00:00 GMT\r\nContent-Type: application/json\r\n\
    Cache-Control: no-cache\r\nContent-Length: 128\r\nETag: \"17-2\"\r\n\r\n";

const PATH: &[u8] = b"/a/./b/../%7Euser//orders/17";

pub(crate) fn parsed() -> RequestHead {
    let mut head = RequestHead::default();
    let paths = PathRules::default();
    let context = RequestContext { scheme: Scheme::Https, paths: &paths };
    let parsed = parse_request(REQUEST, &HeadLimits::default(), &mut head, &context);
    assert!(parsed.is_ok(), "the request of the bench is refused");
    head
}

pub(crate) fn parse(times: u64) {
    let mut head = RequestHead::default();
    let paths = PathRules::default();
    let context = RequestContext { scheme: Scheme::Https, paths: &paths };
    let limits = HeadLimits::default();
    for _ in 0..times {
        black_box(parse_request(black_box(REQUEST), &limits, &mut head, &context).is_ok());
    }
}

pub(crate) fn rewrite_path(times: u64) {
    let rules = PathRules::default();
    let mut out = Vec::with_capacity(128);
    for _ in 0..times {
        out.clear();
        black_box(canonicalise(black_box(PATH), &rules, &mut out).is_ok());
    }
}

pub(crate) fn encode(times: u64) {
    let head = parsed();
    let wire = RequestWire::new(request_framing(&head));
    let mut out = Vec::with_capacity(1024);
    for _ in 0..times {
        out.clear();
        encode_request(black_box(&head), &wire, &mut out);
    }
    black_box(out);
}

pub(crate) fn response(times: u64) {
    let mut head = ResponseHead::default();
    let limits = HeadLimits::default();
    for _ in 0..times {
        let parsed = parse_response(black_box(RESPONSE), &limits, &Method::GET, &mut head);
        black_box(parsed.is_ok());
    }
}
