//! The PROXY protocol, versions 1 and 2: who is at the other end of a load balancer's connection.
//!
//! Only from peers that may speak for others, which is decided before a byte is read. What a
//! header says beside the source address (destination, TLVs) is not used.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::deadline::Deadline;

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_PREFIX: &[u8] = b"PROXY ";
/// Version 1: `PROXY TCP6`, two addresses and two ports at their longest, and CRLF.
const V1_BYTES_MAX: usize = 107;
/// Version 2, after its first 16 bytes: addresses and TLVs. More than any balancer sends.
const V2_BYTES_MAX: usize = 2048;

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// The beginning of a header that is longer by at least so many bytes.
    More(usize),
    /// A header. Without an address the balancer speaks for itself.
    Whole(Option<SocketAddr>),
    Malformed,
}

/// Reads a header and not a byte more: what follows is the client's.
pub(crate) async fn read(
    tcp: &mut TcpStream,
    deadline: &Deadline,
) -> io::Result<Option<SocketAddr>> {
    let mut header = Vec::with_capacity(V1_BYTES_MAX);
    loop {
        let more = match look(&header) {
            Look::More(more) => more,
            Look::Whole(source) => return Ok(source),
            Look::Malformed => return Err(io::ErrorKind::InvalidData.into()),
        };
        poll_fn(|cx| match poll_append(cx, tcp, &mut header, more) {
            Poll::Pending if deadline.check(cx).is_err() => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            poll => poll,
        })
        .await?;
    }
}

/// Appends one to `more` bytes.
fn poll_append(
    cx: &mut Context<'_>,
    tcp: &mut TcpStream,
    header: &mut Vec<u8>,
    more: usize,
) -> Poll<io::Result<()>> {
    let mut room = [0; V1_BYTES_MAX];
    let mut room = ReadBuf::new(&mut room[..more.min(V1_BYTES_MAX)]);
    ready!(Pin::new(tcp).poll_read(cx, &mut room))?;
    if room.filled().is_empty() {
        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    header.extend_from_slice(room.filled());
    Poll::Ready(Ok(()))
}

fn look(bytes: &[u8]) -> Look {
    let begins = |with: &[u8]| {
        let seen = bytes.len().min(with.len());
        bytes[..seen] == with[..seen]
    };
    if !begins(SIGNATURE) && !begins(V1_PREFIX) {
        return Look::Malformed;
    }
    if bytes.len() < SIGNATURE.len() {
        // No header of either version is shorter.
        return Look::More(SIGNATURE.len() - bytes.len());
    }
    if begins(SIGNATURE) {
        return look_v2(bytes);
    }
    match bytes.strip_suffix(b"\r\n") {
        Some(line) => std::str::from_utf8(line).map_or(Look::Malformed, parse_v1),
        None if bytes.len() >= V1_BYTES_MAX => Look::Malformed,
        None => Look::More(1),
    }
}

fn parse_v1(line: &str) -> Look {
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Look::Whole(None);
    }
    let (Some(source), Some(destination)) = (words.next(), words.next()) else {
        return Look::Malformed;
    };
    let (Some(source_port), Some(destination_port), None) =
        (words.next(), words.next(), words.next())
    else {
        return Look::Malformed;
    };
    let (Ok(source), Ok(destination)) = (source.parse::<IpAddr>(), destination.parse::<IpAddr>())
    else {
        return Look::Malformed;
    };
    let fits = match family {
        Some("TCP4") => source.is_ipv4() && destination.is_ipv4(),
        Some("TCP6") => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    match (source_port.parse(), destination_port.parse::<u16>()) {
        (Ok(port), Ok(_)) if fits => Look::Whole(Some(SocketAddr::new(source, port))),
        _ => Look::Malformed,
    }
}

fn look_v2(bytes: &[u8]) -> Look {
    let Some((first, rest)) = bytes.split_first_chunk::<16>() else {
        return Look::More(16 - bytes.len());
    };
    let length = usize::from(u16::from_be_bytes([first[14], first[15]]));
    let (version, command) = (first[12] >> 4, first[12] & 15);
    if version != 2 || command > 1 || length > V2_BYTES_MAX {
        return Look::Malformed;
    }
    if rest.len() < length {
        return Look::More(length - rest.len());
    }
    let family = first[13] >> 4;
    if command == 0 || !matches!(family, 1 | 2) {
        return Look::Whole(None);
    }
    // Both addresses, then both ports.
    let source = match family {
        1 => rest.first_chunk().map(|ip: &[u8; 4]| (IpAddr::V4(Ipv4Addr::from(*ip)), 8)),
        _ => rest.first_chunk().map(|ip: &[u8; 16]| (IpAddr::V6(Ipv6Addr::from(*ip)), 32)),
    };
    let address = source.and_then(|(ip, at)| {
        let port = rest.get(at..at + 4)?.first_chunk()?;
        Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
    });
    address.map_or(Look::Malformed, |address| Look::Whole(Some(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(address: &str) -> Look {
        Look::Whole(Some(address.parse().unwrap()))
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family << 4 | 1], &length, rest].concat()
    }

    #[test]
    fn both_versions_say_who_is_there() {
        let v1 = [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", whole("192.0.2.7:56324")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n", whole("[2001:db8::7]:1")),
            ("PROXY UNKNOWN\r\n", Look::Whole(None)),
            ("PROXY UNKNOWN ffff:f... whatever 1\r\n", Look::Whole(None)),
        ];
        for (text, expected) in v1 {
            assert_eq!(look(text.as_bytes()), expected, "{text:?}");
        }
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 187];
        assert_eq!(look(&v2(1, 1, &four)), whole("192.0.2.7:56324"));
        assert_eq!(look(&v2(1, 1, &[&four[..], &[3, 0, 1, 9]].concat())), whole("192.0.2.7:56324"));
        assert_eq!(look(&v2(0, 1, &four)), Look::Whole(None));
        assert_eq!(look(&v2(1, 3, &[0; 216])), Look::Whole(None));
        let mut six = [0; 36];
        (six[0], six[15], six[33]) = (0x20, 7, 80);
        assert_eq!(look(&v2(1, 2, &six)), whole("[2000::7]:80"));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
        ] {
            assert_eq!(look(text.as_bytes()), Look::Malformed, "{text:?}");
        }
        assert_eq!(look(&[b"PROXY ", &[b'x'; 101][..]].concat()), Look::Malformed);
        assert_eq!(look(&v2(2, 1, &[0; 12])), Look::Malformed);
        assert_eq!(look(&v2(1, 1, &[0; 11])), Look::Malformed);
        assert_eq!(look(&v2(1, 1, &[0; V2_BYTES_MAX + 1])), Look::Malformed);
    }

    /// Whatever follows is not asked for: a beginning never wants more than the header has.
    #[test]
    fn a_beginning_asks_for_no_more_than_the_header() {
        let headers = [
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            v2(1, 1, &[7; 12]),
            v2(0, 0, &[]),
        ];
        for header in headers {
            for at in 0..header.len() {
                let Look::More(more) = look(&header[..at]) else { panic!("{at} of {header:?}") };
                assert!((1..=header.len() - at).contains(&more), "{at} of {header:?}: {more}");
            }
        }
    }
}
