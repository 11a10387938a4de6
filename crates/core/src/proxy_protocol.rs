//! The PROXY protocol, versions 1 and 2: who is at the other end of a load balancer's connection.
//!
//! Bytes to addresses and addresses to bytes, as HAProxy's `proxy-protocol.txt` has them. Who may
//! send such a header, and how it is read from a socket, is not decided here. TLVs are skipped and
//! never written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_PREFIX: &[u8] = b"PROXY ";
/// Version 1: `PROXY TCP6`, two addresses and two ports at their longest, and CRLF.
pub const V1_BYTES_MAX: usize = 107;
/// Version 2, after its first 16 bytes: addresses and TLVs. More than any balancer sends.
pub const V2_BYTES_MAX: usize = 2048;

/// The two ends of the connection that a header speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header that is longer by at least so many bytes; never zero.
    Partial(usize),
    /// The first `consumed` bytes are a header. Without addresses the balancer speaks for itself.
    Complete { consumed: usize, addresses: Option<Addresses> },
}

/// Not a header, whatever may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no PROXY protocol header")
    }
}

impl std::error::Error for Malformed {}

/// Reads a header of either version. Whoever reads as many bytes as are asked for, and looks
/// again, never takes a byte that comes after the header.
///
/// # Errors
/// If no header begins like this.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let begins = |with: &[u8]| {
        let seen = bytes.len().min(with.len());
        bytes[..seen] == with[..seen]
    };
    if !begins(SIGNATURE) && !begins(V1_PREFIX) {
        return Err(Malformed);
    }
    if bytes.len() < SIGNATURE.len() {
        // No header of either version is shorter.
        return Ok(Parsed::Partial(SIGNATURE.len() - bytes.len()));
    }
    if begins(SIGNATURE) {
        return parse_v2(bytes);
    }
    let within = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', within) else {
        return if within.len() < V1_BYTES_MAX { Ok(Parsed::Partial(1)) } else { Err(Malformed) };
    };
    let line = within[..end].strip_suffix(b"\r").ok_or(Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    Ok(Parsed::Complete { consumed: end + 1, addresses: parse_v1(line)? })
}

fn parse_v1(line: &str) -> Result<Option<Addresses>, Malformed> {
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let mut word = || words.next().ok_or(Malformed);
    let [source, destination] = [word()?, word()?];
    let [source_port, destination_port] = [word()?, word()?];
    let address = |ip: &str, port: &str| {
        let ip: IpAddr = ip.parse().map_err(|_| Malformed)?;
        match family {
            Some("TCP4") if ip.is_ipv4() => {}
            Some("TCP6") if ip.is_ipv6() => {}
            _ => return Err(Malformed),
        }
        Ok(SocketAddr::new(ip, parse_port(port)?))
    };
    let source = address(source, source_port)?;
    let destination = address(destination, destination_port)?;
    match words.next() {
        None => Ok(Some(Addresses { source, destination })),
        Some(_) => Err(Malformed),
    }
}

/// Digits without a sign or a leading zero.
fn parse_port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return Err(Malformed);
    }
    text.parse().map_err(|_| Malformed)
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some((first, rest)) = bytes.split_first_chunk::<16>() else {
        return Ok(Parsed::Partial(16 - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([first[14], first[15]]));
    let (version, command) = (first[12] >> 4, first[12] & 15);
    let (family, transport) = (first[13] >> 4, first[13] & 15);
    if version != 2 || command > 1 || length > V2_BYTES_MAX {
        return Err(Malformed);
    }
    // What a balancer says of its own connection is not looked at.
    if command == 1 && (family > 3 || transport > 2) {
        return Err(Malformed);
    }
    let Some(block) = rest.get(..length) else {
        return Ok(Parsed::Partial(length - rest.len()));
    };
    let addresses = match (command, family, transport) {
        (1, 1, 1) => Some(read_block::<4>(block).ok_or(Malformed)?),
        (1, 2, 1) => Some(read_block::<16>(block).ok_or(Malformed)?),
        _ => None,
    };
    Ok(Parsed::Complete { consumed: 16 + length, addresses })
}

/// Both addresses of `N` bytes, then both ports.
fn read_block<const N: usize>(block: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let destination_port = rest.first_chunk()?;
    let address = |ip: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port))
    };
    Some(Addresses {
        source: address(source, source_port),
        destination: address(destination, destination_port),
    })
}

/// Both addresses in one family, which is all that a header can say: where they differ, IPv4 is
/// written as IPv6 (`::ffff:192.0.2.7`, RFC 4291 §2.5.5.2).
enum Pair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Pair {
    fn of(source: IpAddr, destination: IpAddr) -> Self {
        let six = |ip| match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self::V4(source, destination),
            (source, destination) => Self::V6(six(source), six(destination)),
        }
    }
}

/// Appends a header of version 1 for a TCP connection.
pub fn encode_v1(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    use std::io::Write;
    let ports = (source.port(), destination.port());
    // Writing to a Vec cannot fail.
    let written = match Pair::of(source.ip(), destination.ip()) {
        Pair::V4(source, destination) => {
            write!(out, "PROXY TCP4 {source} {destination} {} {}\r\n", ports.0, ports.1)
        }
        Pair::V6(source, destination) => {
            write!(out, "PROXY TCP6 {source} {destination} {} {}\r\n", ports.0, ports.1)
        }
    };
    debug_assert!(written.is_ok());
}

/// Appends a header of version 1 that says nothing: for connections that are nobody's, such as
/// health probes, and for clients without an IP address.
pub fn encode_v1_unknown(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PROXY UNKNOWN\r\n");
}

/// Appends a header of version 2 for a TCP connection, without TLVs.
pub fn encode_v2(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    match Pair::of(source.ip(), destination.ip()) {
        Pair::V4(source, destination) => {
            write_first(out, 1, 0x11, 12);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        Pair::V6(source, destination) => {
            write_first(out, 1, 0x21, 36);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

/// Appends a header of version 2 with the command LOCAL: the gateway itself speaks, as it does
/// for health probes.
pub fn encode_v2_local(out: &mut Vec<u8>) {
    write_first(out, 0, 0, 0);
}

/// Appends a header of version 2 for a client without an IP address (PROXY, UNSPEC).
pub fn encode_v2_unspecified(out: &mut Vec<u8>) {
    write_first(out, 1, 0, 0);
}

/// The first 16 bytes; `length` is what follows them.
fn write_first(out: &mut Vec<u8>, command: u8, family: u8, length: u8) {
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[0x20 | command, family, 0, length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// The addresses of a header that is all of `bytes`.
    fn whole(bytes: &[u8]) -> Option<String> {
        let Ok(Parsed::Complete { consumed, addresses }) = parse(bytes) else {
            panic!("{}: {:?}", bytes.escape_ascii(), parse(bytes))
        };
        assert_eq!(consumed, bytes.len());
        addresses.map(|a| format!("{} {}", a.source, a.destination))
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, rest].concat()
    }

    #[test]
    fn both_versions_say_who_is_there() {
        let four = Some("192.0.2.7:56324 198.51.100.1:443".to_owned());
        let six = Some("[2001:db8::7]:1 [2001:db8::1]:2".to_owned());
        assert_eq!(whole(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"), four);
        assert_eq!(whole(b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n"), six);
        assert_eq!(whole(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(whole(b"PROXY UNKNOWN ffff:f... whatever 1\r\n"), None);

        let block = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 187];
        assert_eq!(whole(&v2(1, 0x11, &block)), four);
        assert_eq!(whole(&v2(1, 0x11, &[&block[..], &[3, 0, 1, 9]].concat())), four);
        let mut block6 = [0; 36];
        block6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        block6[16..20].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        (block6[15], block6[31], block6[33], block6[35]) = (7, 1, 1, 2);
        assert_eq!(whole(&v2(1, 0x21, &block6)), six);
        // LOCAL; datagrams; Unix sockets; nothing said.
        assert_eq!(whole(&v2(0, 0x11, &block)), None);
        assert_eq!(whole(&v2(0, 0xff, &[])), None);
        assert_eq!(whole(&v2(1, 0x12, &block)), None);
        assert_eq!(whole(&v2(1, 0x31, &[0; 216])), None);
        assert_eq!(whole(&v2(1, 0, &[])), None);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 2001:db8::1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 01 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY UNKNOWN\nx\r\n",
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Malformed), "{text:?}");
        }
        assert_eq!(parse(&[b"PROXY ", &[b'x'; 101][..]].concat()), Err(Malformed));
        assert_eq!(parse(&v2(2, 0x11, &[0; 12])), Err(Malformed));
        assert_eq!(parse(&v2(1, 0x11, &[0; 11])), Err(Malformed));
        assert_eq!(parse(&v2(1, 0x41, &[0; 12])), Err(Malformed));
        assert_eq!(parse(&v2(1, 0x13, &[0; 12])), Err(Malformed));
        assert_eq!(parse(&v2(1, 0x11, &[0; V2_BYTES_MAX + 1])), Err(Malformed));
    }

    /// Whatever follows is not asked for: a beginning never wants more than the header has.
    #[test]
    fn a_beginning_asks_for_no_more_than_the_header() {
        let headers = [
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            v2(1, 0x11, &[7; 12]),
            v2(0, 0, &[]),
        ];
        for header in headers {
            for at in 0..header.len() {
                let Ok(Parsed::Partial(more)) = parse(&header[..at]) else {
                    panic!("{at} of {header:?}")
                };
                assert!((1..=header.len() - at).contains(&more), "{at} of {header:?}: {more}");
            }
            let longer = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(parse(&longer), parse(&header), "{header:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let pairs = [
            ("192.0.2.7:56324", "198.51.100.1:443"),
            ("0.0.0.0:0", "255.255.255.255:65535"),
            ("[2001:db8::7]:1", "[::1]:443"),
            ("[::ffff:192.0.2.7]:1", "[::]:0"),
            (
                "[fe80:1111:2222:3333:4444:5555:6666:7777]:65535",
                "[fe80:1111:2222:3333:4444:5555:6666:8888]:65535",
            ),
        ];
        for (source, destination) in pairs {
            let expected = Some(format!("{source} {destination}"));
            for encode in [encode_v1, encode_v2] {
                let mut out = Vec::new();
                encode(address(source), address(destination), &mut out);
                assert_eq!(whole(&out), expected);
            }
        }
        for encode in [encode_v1_unknown, encode_v2_local, encode_v2_unspecified] {
            let mut out = Vec::new();
            encode(&mut out);
            assert_eq!(whole(&out), None);
        }
    }

    #[test]
    fn addresses_of_two_families_are_written_in_the_larger() {
        let (four, six) = (address("192.0.2.7:1"), address("[2001:db8::1]:2"));
        let mut out = b"before ".to_vec();
        encode_v1(four, six, &mut out);
        assert_eq!(out, b"before PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n");
        out.clear();
        encode_v2(six, four, &mut out);
        assert_eq!(whole(&out).as_deref(), Some("[2001:db8::1]:2 [::ffff:192.0.2.7]:1"));
    }

    #[test]
    fn no_line_of_version_1_is_longer_than_one_can_be() {
        let longest = address("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
        let mut out = Vec::new();
        encode_v1(longest, longest, &mut out);
        assert!(out.len() <= V1_BYTES_MAX, "{}", out.len());
    }
}
