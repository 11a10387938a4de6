//! What is done to every proxy, as data. A letter is what `--only` names; the letters from `j` on
//! are not a table row but a module of their own.

use super::peers::{PLAIN, REAL, TLS};

/// How many routes there are where there are many.
pub(super) const MANY_ROUTES: usize = 5_000;

#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// As many requests as there can be, each on one of the kept connections.
    Requests,
    /// The same, each with the next line of this file as its path.
    Paths(&'static str),
    /// The same with the next line as its token.
    Tokens(&'static str),
    /// A new connection for each request, and nothing resumed.
    Handshakes,
    /// Streams of a few HTTP/2 connections, with the body of this file if there is one.
    Streams(Option<&'static str>),
    /// So many requests for each second asked for, with the body of this file if there is one.
    Bodies { a_second: u32, sent: Option<&'static str> },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub letter: char,
    pub name: &'static str,
    pub port: u16,
    pub path: &'static str,
    pub load: Load,
    /// Left out of the quick run.
    pub long: bool,
}

const fn row(
    letter: char,
    name: &'static str,
    port: u16,
    path: &'static str,
    load: Load,
) -> Scenario {
    Scenario { letter, name, port, path, load, long: false }
}

/// A file of that many bytes, written by the bench.
const MIB: Option<&str> = Some("1m.bin");
const MIB_64: Option<&str> = Some("64m.bin");

pub(super) const SCENARIOS: &[Scenario] = &[
    row('a', "HTTP/1.1, 128 B", PLAIN, "/small", Load::Requests),
    row('b', "HTTP/1.1, 16 KiB", PLAIN, "/16k", Load::Requests),
    row('c', "HTTP/1.1 over TLS 1.3, 128 B", TLS, "/small", Load::Requests),
    row('d', "Full TLS 1.3 handshakes", TLS, "/small", Load::Handshakes),
    row('e', "HTTP/2 over TLS to HTTP/1.1, 128 B", TLS, "/small", Load::Streams(None)),
    row(
        'f',
        "HTTP/2 to HTTP/2, a gRPC call",
        TLS,
        "/bench.Echo/Unary",
        Load::Streams(Some("call.bin")),
    ),
    row('g', "1 MiB to the client", PLAIN, "/1m", Load::Bodies { a_second: 400, sent: None }),
    row('g', "1 MiB to the backend", PLAIN, "/upload", Load::Bodies { a_second: 400, sent: MIB }),
    row('g', "64 MiB to the client", PLAIN, "/64m", Load::Bodies { a_second: 8, sent: None })
        .long(),
    row('g', "64 MiB to the backend", PLAIN, "/upload", Load::Bodies { a_second: 8, sent: MIB_64 })
        .long(),
    row('h', "5,000 routes, HTTP/1.1, 128 B", PLAIN, "/small", Load::Paths("paths")),
    row('i', "The real job, ES256, one token", REAL, "/small", Load::Tokens("es256.token")),
    row('i', "The real job, RS256, one token", REAL, "/small", Load::Tokens("rs256.token")),
    row('i', "The real job, ES256, new tokens", REAL, "/small", Load::Tokens("es256.tokens"))
        .long(),
    row('i', "The real job, RS256, new tokens", REAL, "/small", Load::Tokens("rs256.tokens"))
        .long(),
];

impl Scenario {
    const fn long(self) -> Self {
        Self { long: true, ..self }
    }

    pub(super) fn routes(&self) -> usize {
        if self.letter == 'h' { MANY_ROUTES } else { 0 }
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.port == PLAIN { "http" } else { "https" }
    }

    /// Whether each of its requests has a token that no other has.
    pub(super) fn wants_new_tokens(&self) -> bool {
        matches!(self.load, Load::Tokens(file) if file.ends_with(".tokens"))
    }
}
