//! Where a backend's endpoints come from when they are not written in the configuration, and the
//! file of endpoints that such a place may be.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use portcullis_core::decode::{Decoder, Fault, Spanned};
use portcullis_core::finding::Findings;
use portcullis_core::units::PositiveDuration;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::text::EndpointUrl;
use crate::{Endpoint, Source, render, yaml};

/// Where endpoints are found: exactly one of `dns`, `srv` and `file`. While the place cannot be
/// asked, or answers nonsense, the endpoints that were found last stay.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Discover {
    /// Every address (A and AAAA) of the name in this URL is an endpoint, with the URL's scheme and
    /// port: `http://orders.internal:8080`. `Host` and TLS go by the name.
    #[serde(default)]
    pub dns: Option<Spanned<EndpointUrl>>,
    /// The SRV records of the name in this URL say hosts, ports and weights:
    /// `http://_http._tcp.orders.internal`. Of several priorities the best is used. With
    /// `https://` the backend's `tls` has to say `server_name`, since whoever answers for a
    /// name server must not choose the name that is verified.
    #[serde(default)]
    pub srv: Option<Spanned<EndpointUrl>>,
    /// A YAML or JSON file, `endpoints: […]` as they stand in the configuration; its path is
    /// relative to the configuration. It is watched: write another one and rename it, or swap a
    /// symbolic link. Where the backend has `tls` all of its endpoints are `https://`, else none.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub file: Option<Spanned<String>>,
    /// For `dns` and `srv`: name servers to ask, an IP address with or without a port. Names are
    /// then taken as complete. Default: as the system is set up (`/etc/resolv.conf`, `/etc/hosts`).
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub resolvers: Vec<NameServer>,
    /// For `dns` and `srv`: an answer holds for at least this long, whatever its TTL says.
    /// Default: `5s`.
    #[serde(default = "ttl_min")]
    pub ttl_min: PositiveDuration,
    /// For `dns` and `srv`: an answer holds for at most this long, 5 minutes at most. Default:
    /// `1m`.
    #[serde(default = "ttl_max")]
    pub ttl_max: PositiveDuration,
    /// Whether an answer without endpoints is believed at once. Otherwise the endpoints stay until
    /// two more looks, five seconds apart, have said the same. Default: `false`.
    #[serde(default)]
    pub allow_empty: bool,
}

fn ttl_min() -> PositiveDuration {
    PositiveDuration::from_secs(5)
}

fn ttl_max() -> PositiveDuration {
    PositiveDuration::from_secs(60)
}

/// An IP address, with a port where it is not 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameServer(pub SocketAddr);

impl FromStr for NameServer {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let bare = text.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| (ip, 53).into());
        let address = text.parse().or(bare).ok().filter(|address: &SocketAddr| address.port() != 0);
        address.map(Self).ok_or_else(|| {
            let message = format!("`{text}` is not the address of a name server");
            Fault::new(0..text.len(), message).help("write for example `10.0.0.2` or `[::1]:5353`")
        })
    }
}

impl std::fmt::Display for NameServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

portcullis_core::written_as_text! {
    NameServer: "name-server", "an IP address, with or without a port", "^[0-9A-Fa-f.:\\[\\]]+$";
}

/// A file of endpoints.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EndpointFile {
    /// As in a backend.
    #[schemars(length(max = 4096))]
    endpoints: Vec<Endpoint>,
}

/// Reads a file of endpoints. An empty list has to be written as one: a file without `endpoints`
/// is one that somebody has not finished writing.
///
/// # Errors
/// What is wrong with it and where, for people.
pub fn endpoints(name: &str, text: &str) -> Result<Vec<Endpoint>, String> {
    let mut findings = Findings::new();
    let file = yaml::read(0, text, &mut findings).and_then(|node| {
        Decoder::default().decode::<EndpointFile>(&node, node.span, "", &mut findings)
    });
    match file.filter(|_| !findings.has_errors()) {
        Some(file) => Ok(file.endpoints),
        None => {
            let sources = [Source { name: name.to_owned(), text: text.to_owned() }];
            Err(render(&findings.sorted(), &sources, false))
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &Expect) {
        let read = endpoints("endpoints.yaml", text).map(|all| {
            let one = |one: &Endpoint| {
                let zone = one.zone.as_deref().unwrap_or("-");
                let state = if one.draining { " draining" } else { "" };
                format!("{} {} {zone} {:?}{state}\n", one.url.value, one.weight, one.labels)
            };
            all.iter().map(one).collect::<String>()
        });
        expected.assert_eq(&read.unwrap_or_else(|error| error));
    }

    #[test]
    fn a_file_of_endpoints_is_read_like_those_of_a_backend() {
        check(
            "endpoints:\n- http://10.0.0.1:80\n- { url: \"https://b\", weight: 3, zone: a, labels: { v: \"2\" }, draining: true }\n",
            &expect![[r#"
                http://10.0.0.1:80 1 - {}
                https://b:443 3 a {"v": "2"} draining
            "#]],
        );
        check(
            r#"{"endpoints": ["http://a"]}"#,
            &expect![[r#"
            http://a:80 1 - {}
        "#]],
        );
        check("endpoints: []", &expect![""]);
    }

    #[test]
    fn half_a_file_is_none() {
        check(
            "",
            &expect![[r#"
            error[missing-key]: the key `endpoints` is missing
             --> endpoints.yaml:1:1
              |
            1 |
              | ^

        "#]],
        );
        check(
            "endpoints:",
            &expect![[r#"
            error[wrong-type]: `endpoints` has no value, expected a list
             --> endpoints.yaml:1:1
              |
            1 | endpoints:
              | ^^^^^^^^^ in endpoints
              |
              = help: give it a value, or remove the key

        "#]],
        );
        check(
            "endpoints:\n- http://10.0.0.1\n- http",
            &expect![[r#"
            error[invalid-value]: `http` is not an `http://`, `https://` or `h2c://` URL
             --> endpoints.yaml:3:3
              |
            3 | - http
              |   ^^^^ in endpoints[1]

        "#]],
        );
        check(
            "endpoints: [\"http://10.0.0.1\"",
            &expect![[r#"
            error[yaml-syntax]: a bracket that is never closed
             --> endpoints.yaml:1:12
              |
            1 | endpoints: ["http://10.0.0.1"
              |            ^
              |
              = help: each `[` needs a `]` and each `{` a `}`

        "#]],
        );
    }

    #[test]
    fn name_servers_have_addresses() {
        let read = |text: &str| text.parse::<NameServer>().map(|one| one.to_string()).ok();
        assert_eq!(read("10.0.0.2").as_deref(), Some("10.0.0.2:53"));
        assert_eq!(read("[::1]:5353").as_deref(), Some("[::1]:5353"));
        assert_eq!(read("::1").as_deref(), Some("[::1]:53"));
        assert_eq!(read("ns.internal"), None);
        assert_eq!(read("10.0.0.2:0"), None);
    }
}
