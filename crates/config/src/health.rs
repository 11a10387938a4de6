//! Active health checks, as written.

use std::str::FromStr;

use portcullis_core::decode::Fault;
use portcullis_core::units::PositiveDuration;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::forms::OneOrMany;
use crate::text::{AbsolutePath, HostName, Statuses};

/// An active health check of each endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked; exactly one is right.
    pub path: Option<AbsolutePath>,
    pub grpc: Option<String>,
    pub connect: bool,
    /// What the beginning of the answer has to contain.
    pub contains: Option<String>,
    /// What every answer has to have.
    pub expect_header: Option<ExpectHeader>,
    pub interval: PositiveDuration,
    pub timeout: PositiveDuration,
    pub statuses: Vec<Statuses>,
    pub host: Option<HostName>,
    pub down_after: u32,
    pub up_after: u32,
}

/// A field by which a service says who it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectHeader {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Its whole value, letter by letter.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// An active health check of each endpoint: a path for `GET`, `grpc`, `connect`, or a map that says
/// one of them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongHealth {
    /// Asks `GET PATH`.
    #[serde(default)]
    path: Option<AbsolutePath>,
    /// Asks by gRPC's health protocol (`grpc.health.v1.Health/Check`) for a service by its full
    /// name, or for the whole server by `""`. The endpoint has to speak HTTP/2.
    #[serde(default)]
    grpc: Option<String>,
    /// Only makes a connection: TCP, and TLS to an `https://` endpoint. Default: `false`.
    #[serde(default)]
    connect: bool,
    /// With `path`: a text that the first 64 KiB of the answer's body have to contain. Default: the
    /// body is not read.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1024))]
    contains: Option<String>,
    /// With `path` or `grpc`: a header field that every answer to a check must have, by which the
    /// service says who it is, such as `{ name: X-Service, value: orders }`. Whoever answers
    /// without it is another service that has come by the address: it gets nothing at once, not
    /// even when all others are down, before `up_after` answers with it. Default: none.
    #[serde(default)]
    expect_header: Option<ExpectHeader>,
    /// Time between checks of an endpoint, each 15 % more or less. While its state is changing it
    /// is asked every half second, or at this interval where that is shorter. Default: `5s`.
    #[serde(default = "health_interval")]
    interval: PositiveDuration,
    /// Longest wait for an answer; a failure after that. Default: `2s`.
    #[serde(default = "health_timeout")]
    timeout: PositiveDuration,
    /// Statuses that mean well: one, a range, or a list of these. Default: `"200-299"`.
    #[serde(default = "health_status")]
    status: OneOrMany<Statuses>,
    /// The `Host` to send. Default: what the backend's `host` says, and that of the endpoint's URL
    /// where that is `preserve`.
    #[serde(default)]
    host: Option<HostName>,
    /// Failures in a row after which an endpoint gets no more requests. Default: 2.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 100))]
    down_after: u32,
    /// Successes in a row after which it gets them again. Default: 2.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 100))]
    up_after: u32,
}

fn health_interval() -> PositiveDuration {
    PositiveDuration::from_secs(5)
}

fn health_timeout() -> PositiveDuration {
    PositiveDuration::from_secs(2)
}

fn health_status() -> OneOrMany<Statuses> {
    OneOrMany(vec![Statuses { first: 200, last: 299 }])
}

fn two() -> u32 {
    2
}

impl From<LongHealth> for Health {
    fn from(long: LongHealth) -> Self {
        Self {
            path: long.path,
            grpc: long.grpc,
            connect: long.connect,
            contains: long.contains,
            expect_header: long.expect_header,
            interval: long.interval,
            timeout: long.timeout,
            statuses: long.status.0,
            host: long.host,
            down_after: long.down_after,
            up_after: long.up_after,
        }
    }
}

impl FromStr for Health {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        Ok(Self {
            path: match text {
                "grpc" | "connect" => None,
                path => Some(path.parse()?),
            },
            grpc: (text == "grpc").then(String::new),
            connect: text == "connect",
            contains: None,
            expect_header: None,
            interval: health_interval(),
            timeout: health_timeout(),
            statuses: health_status().0,
            host: None,
            down_after: two(),
            up_after: two(),
        })
    }
}

portcullis_core::written_short_or_long! {
    Health = LongHealth: "health", "a path such as `/healthz`, `grpc` or `connect`",
        r"^(grpc|connect|/[^ #]*)$";
}
