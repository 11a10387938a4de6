//! How a backend's endpoints are chosen, as written.

use std::str::FromStr;

use portcullis_core::decode::Fault;
use portcullis_core::head::is_token;
use portcullis_core::units::DurationOrOff;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::Reference;

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// Of two drawn by weight, the one with fewer requests in flight.
    #[default]
    LeastRequests,
    /// Of two drawn by weight, the one whose requests in flight, times how long they have taken
    /// lately, come to less: an endpoint that turns slow is left at once.
    Ewma,
    /// The same endpoint for the same key, as far as it has room: consistent hashing (Maglev) with
    /// bounded loads. Requests without the key are given as with `least_requests`.
    Hash(HashKey),
    /// The endpoint that the client was given first, by a cookie. Others, and who comes without
    /// one, are given as with `least_requests`.
    Sticky(Sticky),
}

/// A cookie that keeps a client at its endpoint. Its value is a keyed hash, which tells nobody
/// where that is and which nobody else can make.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// The cookie's name. A route with several backends needs one for each. Default:
    /// `portcullis-endpoint`.
    #[serde(default)]
    pub cookie: CookieName,
    /// What the cookie is made with, 32 bytes or more. Gateways with the same key agree; with
    /// another key clients are given anew.
    pub key: Reference,
    /// How long a browser keeps it; `off`: until it is closed. Default: `off`.
    #[serde(default = "off")]
    pub max_age: DurationOrOff,
}

fn off() -> DurationOrOff {
    DurationOrOff(None)
}

/// The name of a cookie (RFC 6265 §4.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieName(pub String);

impl Default for CookieName {
    fn default() -> Self {
        Self("portcullis-endpoint".to_owned())
    }
}

impl FromStr for CookieName {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match is_token(text.as_bytes()) {
            true => Ok(Self(text.to_owned())),
            false => Err(Fault::new(0..text.len(), "this is not the name of a cookie")
                .help("it has letters, digits, `-`, `_` and `.`")),
        }
    }
}

impl std::fmt::Display for CookieName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

portcullis_core::written_as_text! {
    CookieName: "cookie-name", "the name of a cookie", "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";
}

/// What a backend's endpoints are hashed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    Ip,
    Client,
    Tenant,
    /// By its lower-case name.
    Header(String),
    Cookie(String),
    /// What a path template captured.
    Param(String),
}

impl FromStr for HashKey {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let named = |prefix: &str| text.strip_prefix(prefix).filter(|name| !name.is_empty());
        let token = |name: &&str| is_token(name.as_bytes());
        Ok(match text {
            "ip" => Self::Ip,
            "client" => Self::Client,
            "tenant" => Self::Tenant,
            _ if let Some(name) = named("header:").filter(token) => {
                Self::Header(name.to_ascii_lowercase())
            }
            _ if let Some(name) = named("cookie:").filter(token) => Self::Cookie(name.to_owned()),
            _ if let Some(name) = named("param:") => Self::Param(name.to_owned()),
            _ => {
                let message = format!("`{text}` is not a key to hash by");
                return Err(Fault::new(0..text.len(), message).help(
                    "`client`, `tenant`, `ip`, `header:NAME`, `cookie:NAME` or `param:NAME`",
                ));
            }
        })
    }
}

impl std::fmt::Display for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip => f.write_str("ip"),
            Self::Client => f.write_str("client"),
            Self::Tenant => f.write_str("tenant"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Param(name) => write!(f, "param:{name}"),
        }
    }
}

portcullis_core::written_as_text! {
    HashKey: "hash-key", "`client`, `tenant`, `ip`, `header:NAME`, `cookie:NAME` or `param:NAME`",
        "^(client|tenant|ip|header:.+|cookie:.+|param:.+)$";
}
