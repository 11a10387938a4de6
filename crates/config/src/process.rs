//! Settings of the process as a whole: log, probes, admin, shutdown.

use std::str::FromStr;

use portcullis_core::decode::{Fault, Spanned};
use portcullis_core::units::{Duration, PositiveDuration, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gateway::Gateway;
use crate::text::{AdminAddress, ListenAddress, LogDestination, Reference};

/// The keys of the outermost level that are not maps of named things.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Where this gateway stands among others.
    #[serde(default)]
    pub gateway: Gateway,
    /// Threads that serve requests. Default: one for each core that the process may use.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<u16>,
    /// Where one line of JSON for each request goes: `stdout`, `off`, `file:PATH`, or a map.
    /// Default: `stdout`.
    #[serde(default)]
    pub access_log: AccessLog,
    /// Where `/healthz`, `/ready` and `/metrics` are answered: an address, or `off`. Read-only, and
    /// without authentication. Default: `127.0.0.1:9901`.
    #[serde(default)]
    pub probes: Probes,
    /// The admin API: `off`, `unix:PATH`, an address, or a map. It shows the configuration without
    /// secrets and takes overrides. Default: `off`.
    #[serde(default)]
    pub admin: Admin,
    /// Memory for what was decided about the requests of the last hour, which `portcullis explain
    /// --id` asks the admin API for: about 4,000 requests a mebibyte. `0B` remembers none. Default:
    /// `4MiB`.
    #[serde(default)]
    pub recent_max: Option<Size>,
    /// What SIGTERM does.
    #[serde(default)]
    pub shutdown: Shutdown,
}

impl Process {
    /// Of [`Self::recent_max`].
    #[must_use]
    pub fn recent_bytes_max(&self) -> usize {
        let bytes = self.recent_max.map_or(4 << 20, |size| size.0);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    pub to: LogDestination,
    pub queue_max: u32,
}

/// The access log: where it goes, or a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongAccessLog {
    /// `stdout`, `off` or `file:PATH`. A file is appended to, and reopened on SIGHUP.
    to: LogDestination,
    /// Lines of each worker that may wait to be written. What is beyond is dropped and counted in
    /// a metric, so that a slow disk never slows requests. Default: 8192.
    #[serde(default = "queue_max")]
    #[schemars(range(min = 1, max = 1_000_000))]
    queue_max: u32,
}

fn queue_max() -> u32 {
    8192
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { to: LogDestination::Stdout, queue_max: queue_max() }
    }
}

impl From<LongAccessLog> for AccessLog {
    fn from(long: LongAccessLog) -> Self {
        Self { to: long.to, queue_max: long.queue_max }
    }
}

impl FromStr for AccessLog {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        Ok(Self { to: text.parse()?, queue_max: queue_max() })
    }
}

/// Where the probes listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probes {
    /// `None`: nowhere.
    pub bind: Option<ListenAddress>,
}

impl Default for Probes {
    fn default() -> Self {
        Self { bind: Some(ListenAddress(([127, 0, 0, 1], 9901).into())) }
    }
}

impl FromStr for Probes {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text {
            "off" => Ok(Self { bind: None }),
            _ => text.parse().map(|bind| Self { bind: Some(bind) }),
        }
    }
}

impl std::fmt::Display for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.bind {
            Some(bind) => bind.fmt(f),
            None => f.write_str("off"),
        }
    }
}

portcullis_core::written_as_text! {
    Probes: "probes", "an address such as `127.0.0.1:9901`, or `off`", r"^(off|.+:[0-9]+)$";
}

/// The admin API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    /// `None`: off.
    pub bind: Option<AdminAddress>,
    pub token: Option<Spanned<Reference>>,
}

/// The admin API: `off`, `unix:PATH`, or a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongAdmin {
    /// `unix:PATH`, a socket that only the gateway's own user can open, or an address.
    bind: AdminAddress,
    /// The bearer token that every request must present. Needed on an address, even on loopback,
    /// where any page in a browser could reach it.
    #[serde(default)]
    token: Option<Spanned<Reference>>,
}

impl From<LongAdmin> for Admin {
    fn from(long: LongAdmin) -> Self {
        Self { bind: Some(long.bind), token: long.token }
    }
}

impl FromStr for Admin {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let bind = match text {
            "off" => None,
            _ => Some(text.parse()?),
        };
        if let Some(AdminAddress::Tcp(address)) = bind {
            return Err(Fault::new(0..text.len(), "the admin API needs a token on an address")
                .help(format!(
                    "write `{{bind: \"{address}\", token: \"file:PATH\"}}`, or `unix:PATH`"
                )));
        }
        Ok(Self { bind, token: None })
    }
}

portcullis_core::written_short_or_long! {
    AccessLog = LongAccessLog: "log-destination", "`stdout`, `off` or `file:PATH`",
        r"^(stdout|off|file:.+)$";
    Admin = LongAdmin: "admin", "`off` or `unix:PATH`", r"^(off|unix:.+)$";
}

/// How the gateway stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long it goes on as before while `/ready` answers 503, so that load balancers turn away
    /// before connections close. Default: `5s`; SIGINT skips it.
    pub drain_delay: Duration,
    /// How long requests then have to finish. Default: `30s`.
    pub drain_timeout: PositiveDuration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain_delay: Duration::from_secs(5), drain_timeout: PositiveDuration::from_secs(30) }
    }
}
