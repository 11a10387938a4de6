//! A header of the PROXY protocol is read to its last byte and no further, and what is written is
//! read as the same.

use std::net::{IpAddr, SocketAddr};

use portcullis_core::proxy_protocol::{
    Addresses, Malformed, Parsed, V1_BYTES_MAX, V2_BYTES_MAX, encode_v1, encode_v2, parse,
};

/// The first bytes of a connection; also taken for addresses to be written.
///
/// # Panics
/// Where a reader could take a byte of the client's, or both directions differ.
pub fn proxy_protocol(input: &[u8]) {
    let whole = parse(input);
    let (read, outcome) = read(input);
    let shown = input.escape_ascii();
    match outcome {
        Ok(Parsed::Complete { consumed, addresses }) => {
            assert_eq!(read, consumed, "{shown}");
            assert!(consumed <= V1_BYTES_MAX.max(16 + V2_BYTES_MAX), "{shown}");
            assert_eq!(whole, outcome, "{shown}");
            if let Some(Addresses { source, destination }) = addresses {
                assert_eq!(source.is_ipv4(), destination.is_ipv4(), "{shown}");
                there_and_back(source, destination);
            }
        }
        // What is refused stays refused when more of it comes, and the reverse.
        Ok(Parsed::Partial(_)) => assert_eq!(read, input.len(), "{shown}"),
        Err(Malformed) => assert_eq!(whole, Err(Malformed), "{shown}"),
    }
    if let Some((source, rest)) = take_address(input)
        && let Some((destination, _)) = take_address(rest)
    {
        there_and_back(source, destination);
    }
}

/// Reads as a connection's reader does: no more than is asked for. How much was read, and what it
/// was.
fn read(input: &[u8]) -> (usize, Result<Parsed, Malformed>) {
    let mut at = 0;
    loop {
        match parse(&input[..at]) {
            Ok(Parsed::Partial(more)) if at < input.len() => {
                assert!(more > 0, "{}", input.escape_ascii());
                at += more.min(input.len() - at);
            }
            outcome => return (at, outcome),
        }
    }
}

fn there_and_back(source: SocketAddr, destination: SocketAddr) {
    let mixed = source.is_ipv4() != destination.is_ipv4();
    let in_header = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) if mixed => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        ip => SocketAddr::new(ip, address.port()),
    };
    let (written, after) = (in_header(source), in_header(destination));
    let addresses = Some(Addresses { source: written, destination: after });
    for encode in [encode_v1, encode_v2] {
        let mut out = Vec::new();
        encode(source, destination, &mut out);
        let consumed = out.len();
        out.extend_from_slice(b"\r\nGET / HTTP/1.1\r\n");
        let expected = Ok(Parsed::Complete { consumed, addresses });
        assert_eq!(read(&out), (consumed, expected), "{}", out.escape_ascii());
    }
}

fn take_address(input: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (choice, rest) = input.split_first()?;
    let (port, rest) = rest.split_first_chunk()?;
    let (ip, rest) = if choice & 1 == 0 {
        let (ip, rest) = rest.split_first_chunk::<4>()?;
        (IpAddr::from(*ip), rest)
    } else {
        let (ip, rest) = rest.split_first_chunk::<16>()?;
        (IpAddr::from(*ip), rest)
    };
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}
