//! Where a gateway stands among others, and what its backends make of it, as written.

use std::str::FromStr;

use portcullis_core::decode::{Fault, Spanned};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::text::Reference;

/// Where this gateway stands among others.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Its zone, as `zone` of endpoints calls it: a name, or where it is read from, `env:NAME` or
    /// `file:PATH`, so that gateways of several zones can have the same configuration. Default:
    /// unknown, and no backend can prefer it.
    #[serde(default)]
    pub zone: Option<Spanned<GatewayZone>>,
    /// Of a hundred requests to all gateways, how many come to those of this zone. It says how much
    /// the endpoints of the zone have to bear. Default: an equal part for each zone in which a
    /// backend has endpoints.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    pub load: Option<u32>,
}

/// The name of a zone, or where it is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayZone {
    Name(String),
    At(Reference),
}

/// Of the name of a zone.
pub const ZONE_BYTES_MAX: usize = 64;

impl FromStr for GatewayZone {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if text.starts_with("env:") || text.starts_with("file:") {
            return text.parse().map(Self::At);
        }
        match text.len() {
            1..=ZONE_BYTES_MAX => Ok(Self::Name(text.to_owned())),
            _ => Err(Fault::new(0..text.len(), "the name of a zone has 1 to 64 bytes")
                .help("write a name, `env:NAME` or `file:PATH`")),
        }
    }
}

impl std::fmt::Display for GatewayZone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::At(reference) => reference.fmt(f),
        }
    }
}

portcullis_core::written_as_text! {
    GatewayZone: "gateway-zone", "the name of a zone, `env:NAME` or `file:PATH`", "^.+$";
}

/// The endpoints of the gateway's own zone get its requests, as many as they can carry: `true`,
/// `off`, or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PreferZone {
    /// What one of them gets at most before other zones get the rest: in per cent of what it would
    /// get if all requests of all gateways were spread over all endpoints evenly, and all were
    /// well. Default: 140.
    #[schemars(range(min = 100, max = 1000))]
    pub load_max: u32,
}

impl Default for PreferZone {
    fn default() -> Self {
        Self { load_max: 140 }
    }
}
