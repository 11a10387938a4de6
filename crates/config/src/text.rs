//! The small things written as one text: addresses, references, reasons, URLs, networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use portcullis_core::calendar::Time;
use portcullis_core::decode::{Fault, Format};
use portcullis_core::written_as_text;

use crate::socket::{BindAddress, SocketMode, socket_path};

/// The grammars of this crate, for the shape check.
pub(crate) const FORMATS: &[Format] = &[
    Format { name: "listen-address", check: |text| text.parse::<ListenAddress>().map(drop) },
    Format { name: "bind-address", check: |text| text.parse::<BindAddress>().map(drop) },
    Format { name: "socket-mode", check: |text| text.parse::<SocketMode>().map(drop) },
    Format { name: "admin-address", check: |text| text.parse::<AdminAddress>().map(drop) },
    Format { name: "reference", check: |text| text.parse::<Reference>().map(drop) },
    Format { name: "reason", check: |text| text.parse::<Reason>().map(drop) },
    Format { name: "name", check: |text| text.parse::<Name>().map(drop) },
    Format { name: "network", check: |text| text.parse::<Network>().map(drop) },
    Format { name: "endpoint-url", check: |text| text.parse::<EndpointUrl>().map(drop) },
    Format { name: "host-name", check: |text| text.parse::<HostName>().map(drop) },
    Format { name: "host-header", check: |text| text.parse::<HostHeader>().map(drop) },
    Format { name: "statuses", check: |text| text.parse::<Statuses>().map(drop) },
    Format { name: "log-destination", check: |text| text.parse::<LogDestination>().map(drop) },
    Format { name: "probes", check: |text| text.parse::<crate::process::Probes>().map(drop) },
    Format { name: "admin", check: |text| text.parse::<crate::process::Admin>().map(drop) },
    Format { name: "hours", check: |text| text.parse::<crate::hours::Hours>().map(drop) },
    Format { name: "days", check: |text| text.parse::<crate::hours::Days>().map(drop) },
    Format { name: "zone", check: |text| text.parse::<crate::hours::Zone>().map(drop) },
    Format {
        name: "gateway-zone",
        check: |text| text.parse::<crate::gateway::GatewayZone>().map(drop),
    },
    Format { name: "time", check: |text| text.parse::<Time>().map(drop) },
    Format {
        name: "deadline-header",
        check: |text| text.parse::<crate::deadline::DeadlineHeader>().map(drop),
    },
    Format { name: "hedge", check: |text| text.parse::<crate::retry::Hedge>().map(drop) },
    Format { name: "health", check: |text| text.parse::<crate::health::Health>().map(drop) },
    Format { name: "hash-key", check: |text| text.parse::<crate::balance::HashKey>().map(drop) },
    Format {
        name: "cookie-name",
        check: |text| text.parse::<crate::balance::CookieName>().map(drop),
    },
    Format {
        name: "name-server",
        check: |text| text.parse::<crate::discover::NameServer>().map(drop),
    },
    Format { name: "path", check: |text| text.parse::<AbsolutePath>().map(drop) },
    Format { name: "match", check: |text| text.parse::<crate::matching::ShortMatch>().map(drop) },
    Format { name: "grpc-call", check: |text| text.parse::<crate::matching::GrpcCall>().map(drop) },
    Format { name: "test", check: |text| text.parse::<crate::inline_test::ShortTest>().map(drop) },
    Format {
        name: "test-request",
        check: |text| text.parse::<crate::inline_test::TestRequest>().map(drop),
    },
];

/// An IP address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let fault = Fault::new(0..text.len(), format!("`{text}` is not an address with a port"));
        let port = text.rsplit(':').next().filter(|port| port.parse::<u16>().is_ok());
        Err(match (port, text.rsplit_once(':')) {
            (Some(port), Some(("" | "*", _))) => {
                fault.help(format!("for all addresses write `0.0.0.0:{port}` or `[::]:{port}`"))
            }
            (Some(port), Some(("localhost", _))) => {
                fault.help(format!("names are not resolved here, write `127.0.0.1:{port}`"))
            }
            _ => fault.help("write for example `0.0.0.0:8080` or `[::]:8080`"),
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the admin API listens: a Unix socket or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// Path of the socket.
    Unix(String),
    Tcp(SocketAddr),
}

impl FromStr for AdminAddress {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text.strip_prefix("unix:") {
            Some("") => Err(Fault::new(0..text.len(), "`unix:` needs the path of a socket")),
            Some(path) => Ok(Self::Unix(path.to_owned())),
            None => text.parse().map(|ListenAddress(address)| Self::Tcp(address)).map_err(
                |fault: Fault| {
                    fault.help("write for example `unix:admin.sock` or `127.0.0.1:9902`")
                },
            ),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// Where bytes that are not part of the configuration come from: `file:PATH`, relative to the
/// configuration's own directory, or `env:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference(pub String);

impl FromStr for Reference {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text.split_once(':') {
            Some(("file" | "env", rest)) if !rest.is_empty() => Ok(Self(text.to_owned())),
            _ => Err(Fault::new(0..text.len(), "this is not a reference")
                .help("secrets and keys stand outside: write `file:PATH` or `env:NAME`")),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why something is looser than it would be. Shown by `routes`, `audit` and `plan`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reason(pub String);

impl FromStr for Reason {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text.trim().chars().count() {
            0..3 => Err(Fault::new(0..text.len(), "a reason has at least three letters")
                .help("say in a few words why, for whoever reads the audit")),
            _ => Ok(Self(text.trim().to_owned())),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a listener, route, backend, group or `auth` entry: letters, digits, `-`, `_`, `.`;
/// at most 64.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub String);

impl FromStr for Name {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if let Some((at, c)) = text.char_indices().find(|(_, c)| !fits(*c)) {
            let message = format!("a name cannot have {c:?} in it");
            return Err(Fault::new(at..at + c.len_utf8(), message)
                .help("names have letters, digits, `-`, `_` and `.`"));
        }
        match text.len() {
            0 => Err(Fault::new(0..0, "a name cannot be empty")),
            1..=64 => Ok(Self(text.to_owned())),
            _ => Err(Fault::new(0..text.len(), "a name has at most 64 characters")),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A network, `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    pub address: IpAddr,
    /// Leading bits that count.
    pub prefix: u8,
}

impl FromStr for Network {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let fault = |message: String| {
            Fault::new(0..text.len(), message).help("write for example `10.0.0.0/8` or `::1`")
        };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(fault(format!("`{text}` is not a network")));
        };
        let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(bits), |prefix| prefix.parse().ok());
        let Some(prefix) = prefix.filter(|prefix| *prefix <= bits) else {
            return Err(fault(format!("`{text}` has a prefix that is not from 0 to {bits}")));
        };
        let masked = mask(address, prefix);
        if masked != address {
            return Err(Fault::new(0..text.len(), format!("`{text}` has bits beyond its prefix"))
                .help(format!(
                    "write `{masked}/{prefix}`, or `{address}` for that address alone"
                )));
        }
        Ok(Self { address, prefix })
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// `http://HOST[:PORT]`, `https://HOST[:PORT]` or `h2c://HOST[:PORT]`, without a path, or
/// `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointUrl {
    pub https: bool,
    /// HTTP/2 in clear text, without asking.
    pub h2c: bool,
    /// A name in lower case, or an address; an IPv6 address without its brackets.
    pub host: String,
    /// Default: 80 or 443.
    pub port: u16,
    /// The absolute path of a Unix socket, with the host `localhost` and the port 80.
    pub socket: Option<String>,
}

impl FromStr for EndpointUrl {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        const EXAMPLE: &str =
            "write for example `http://10.0.0.1:8080` or `https://orders.internal`";
        if let Some(path) = socket_path(text) {
            let host = "localhost".to_owned();
            return Ok(Self { https: false, h2c: false, host, port: 80, socket: Some(path?) });
        }
        let h2c = text.starts_with("h2c://");
        let (https, start) = if text.starts_with("http://") {
            (false, "http://".len())
        } else if h2c {
            (false, "h2c://".len())
        } else if text.starts_with("https://") {
            (true, "https://".len())
        } else {
            let message = format!("`{text}` is not an `http://`, `https://` or `h2c://` URL");
            return Err(Fault::new(0..text.len(), message).help(EXAMPLE));
        };
        let rest = &text[start..];
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        if !matches!(&rest[end..], "" | "/") {
            let message = "the URL of an endpoint has no path";
            return Err(Fault::new(start + end..text.len(), message)
                .help("use `rewrite` on the route to change the path"));
        }
        let authority = &rest[..end];
        if let Some(at) = authority.rfind('@') {
            let message = "the URL of an endpoint has no user or password";
            return Err(Fault::new(start..start + at + 1, message).help(EXAMPLE));
        }
        let bad_host = |at: std::ops::Range<usize>| {
            let message = format!("`{}` is not a host", &text[at.clone()]);
            Fault::new(at, message).help(EXAMPLE)
        };
        let (host, port) = if let Some(inner) = authority.strip_prefix('[') {
            let Some((inner, port)) = inner.split_once(']') else {
                return Err(bad_host(start..start + end));
            };
            let Ok(address) = inner.parse::<Ipv6Addr>() else {
                return Err(bad_host(start..start + end));
            };
            (address.to_string(), port)
        } else {
            let colon = authority.find(':').unwrap_or(authority.len());
            let host: HostName = authority[..colon]
                .parse()
                .map_err(|fault: Fault| fault.shifted(start).help(EXAMPLE))?;
            (host.0, &authority[colon..])
        };
        let port_at = start + end - port.len()..start + end;
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => Some(if https { 443 } else { 80 }),
            None => None,
            Some(digits) => digits.parse().ok().filter(|port| *port != 0),
        };
        let Some(port) = port else {
            return Err(Fault::new(port_at, "not a port from 1 to 65535").help(EXAMPLE));
        };
        Ok(Self { https, h2c, host, port, socket: None })
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.socket {
            return write!(f, "unix:{path}");
        }
        let scheme = match (self.https, self.h2c) {
            (true, _) => "https",
            (false, true) => "h2c",
            (false, false) => "http",
        };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// A host name or an IPv4 address, without a port; kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName(pub String);

impl FromStr for HostName {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(fits);
        if text.len() > 253 || !text.split('.').all(label) {
            return Err(Fault::new(0..text.len(), format!("`{text}` is not a host name")));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `Host` that a backend sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostHeader {
    /// The one the client sent.
    #[default]
    Preserve,
    /// That of the endpoint's URL.
    Backend,
    /// This one.
    Name(String),
}

impl FromStr for HostHeader {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text {
            "preserve" => Ok(Self::Preserve),
            "backend" => Ok(Self::Backend),
            _ => {
                let (name, port) = text.split_once(':').map_or((text, None), |(n, p)| (n, Some(p)));
                name.parse::<HostName>()?;
                if port.is_some_and(|port| port.parse::<u16>().is_err()) {
                    return Err(Fault::new(name.len()..text.len(), "not a port"));
                }
                Ok(Self::Name(text.to_ascii_lowercase()))
            }
        }
    }
}

impl fmt::Display for HostHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preserve => "preserve",
            Self::Backend => "backend",
            Self::Name(name) => name,
        })
    }
}

/// One status or a range of them: `200`, `"200-299"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Statuses {
    pub first: u16,
    pub last: u16,
}

impl FromStr for Statuses {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.parse().ok().filter(|s| (100..=599).contains(s));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(Fault::new(0..text.len(), format!("`{text}` is not a range of statuses"))
                .help("write for example `200` or `\"200-299\"`")),
        }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogDestination {
    #[default]
    Stdout,
    /// Path of a file that is appended to and reopened on SIGHUP.
    File(String),
    Off,
}

impl FromStr for LogDestination {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match (text, text.split_once(':')) {
            ("stdout", _) => Ok(Self::Stdout),
            ("off", _) => Ok(Self::Off),
            (_, Some(("file", path))) if !path.is_empty() => Ok(Self::File(path.to_owned())),
            _ => Err(Fault::new(0..text.len(), format!("`{text}` is not a place for a log"))
                .help("write `stdout`, `off` or `file:PATH`")),
        }
    }
}

impl fmt::Display for LogDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Off => f.write_str("off"),
            Self::File(path) => write!(f, "file:{path}"),
        }
    }
}

/// A path with an optional query, as it is sent: `/healthz?deep=1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AbsolutePath(pub String);

impl FromStr for AbsolutePath {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let visible = |b: u8| b.is_ascii_graphic() && b != b'#';
        if text.starts_with('/') && text.bytes().all(visible) {
            return Ok(Self(text.to_owned()));
        }
        Err(Fault::new(0..text.len(), format!("`{text}` is not a path"))
            .help("a path begins with `/` and has no spaces and no `#`"))
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

written_as_text! {
    ListenAddress: "listen-address", "an address such as `0.0.0.0:8080`", r"^.+:[0-9]+$";
    AdminAddress: "admin-address", "`unix:PATH` or an address", r"^(unix:.+|.+:[0-9]+)$";
    Reference: "reference", "`file:PATH` or `env:NAME`", r"^(file|env):.+$";
    Reason: "reason", "a reason in words", r"...";
    Name: "name", "a name", r"^[A-Za-z0-9._-]{1,64}$";
    Network: "network", "a network such as `10.0.0.0/8`", r"^[0-9a-fA-F:.]+(/[0-9]+)?$";
    EndpointUrl: "endpoint-url", "a URL such as `http://10.0.0.1:8080`", r"^((https?|h2c)://[^/?#]+/?|unix:/.+)$";
    HostName: "host-name", "a host name", r"^[A-Za-z0-9_.-]+$";
    HostHeader: "host-header", "`preserve`, `backend` or a host", r"^[A-Za-z0-9_.-]+(:[0-9]+)?$";
    LogDestination: "log-destination", "`stdout`, `off` or `file:PATH`", r"^(stdout|off|file:.+)$";
    AbsolutePath: "path", "a path such as `/healthz`", r"^/[^ #]*$";
}
