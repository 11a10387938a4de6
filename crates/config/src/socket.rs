//! Unix sockets as written: their paths, where a listener binds, who may connect.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use portcullis_core::decode::Fault;
use portcullis_core::written_as_text;

use crate::text::ListenAddress;

/// Bytes of a path that fit into an address of the kernel, with its closing NUL (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// Where a listener binds: an address and a port, or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BindAddress {
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(String),
}

impl FromStr for BindAddress {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match socket_path(text) {
            Some(path) => path.map(Self::Unix),
            None => text.parse().map(|ListenAddress(address)| Self::Tcp(address)),
        }
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// The path in `unix:PATH`, if the text begins so. It is absolute, since a relative one would
/// depend on the directory the process was started in.
pub(crate) fn socket_path(text: &str) -> Option<Result<String, Fault>> {
    let path = text.strip_prefix("unix:")?;
    let fault = |message: &str| Fault::new(0..text.len(), message);
    const EXAMPLE: &str = "write for example `unix:/run/portcullis/http.sock`";
    Some(if path.starts_with('@') || path.contains('\0') {
        Err(fault("abstract socket names are not supported").help(
            "they have no permissions, so that everybody on this machine could connect; \
             write the path of a file",
        ))
    } else if !path.starts_with('/') || path.ends_with('/') {
        Err(fault("a Unix socket is named by its absolute path").help(EXAMPLE))
    } else if path.len() > PATH_BYTES_MAX {
        let message = format!("the path of a Unix socket has at most {PATH_BYTES_MAX} bytes");
        Err(fault(&message).help(EXAMPLE))
    } else {
        Ok(path.to_owned())
    })
}

/// Who may connect to a Unix socket: permission bits of the file, in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketMode(pub u32);

impl Default for SocketMode {
    fn default() -> Self {
        Self(0o660)
    }
}

impl FromStr for SocketMode {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        match u32::from_str_radix(text, 8) {
            Ok(bits) if octal && bits <= 0o777 => Ok(Self(bits)),
            _ => Err(Fault::new(0..text.len(), format!("`{text}` is not the mode of a file"))
                .help("write for example \"0660\"")),
        }
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

written_as_text! {
    BindAddress: "bind-address", "an address such as `0.0.0.0:8080` or `unix:PATH`", r"^(unix:/.+|.+:[0-9]+)$";
    SocketMode: "socket-mode", "the mode of a file such as \"0660\"", r"^0?[0-7]{3}$";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_listener_binds() {
        let said = |text: &str| match text.parse::<BindAddress>() {
            Ok(bind) => bind.to_string(),
            Err(fault) => fault.message,
        };
        let relative = "a Unix socket is named by its absolute path";
        let unsupported = "abstract socket names are not supported";
        assert_eq!(said("[::]:8080"), "[::]:8080");
        assert_eq!(said("unix:/run/a.sock"), "unix:/run/a.sock");
        for text in ["unix:", "unix:a.sock", "unix:./a", "unix:/run/", "unix://"] {
            assert_eq!(said(text), relative, "{text}");
        }
        assert_eq!(said("unix:@gateway"), unsupported);
        assert_eq!(said("unix:\0gateway"), unsupported);
        assert_eq!(said(&format!("unix:/{}", "a".repeat(106))).len(), 112);
        let long = format!("unix:/{}", "a".repeat(107));
        assert_eq!(said(&long), "the path of a Unix socket has at most 107 bytes");
    }

    #[test]
    fn the_mode_of_a_socket() {
        let mode = |text: &str| text.parse::<SocketMode>().ok().map(|mode| mode.to_string());
        assert_eq!(mode("0660").as_deref(), Some("0660"));
        assert_eq!(mode("600").as_deref(), Some("0600"));
        for text in ["", "66", "0888", "1777", "00660", "+660", "rw-"] {
            assert_eq!(mode(text), None, "{text}");
        }
    }
}
