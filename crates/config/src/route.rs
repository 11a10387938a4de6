//! Routes, groups and defaults: what a request meets, as written.

use std::borrow::Cow;

use portcullis_core::decode::{Entries, Spanned, short_or_long};
use portcullis_core::node::{Key, Node, SourceSpan, Value};
use portcullis_core::units::{DurationOrOff, Size};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::analysis::Analysis;
use crate::balance::HashKey;
use crate::bulkhead::Bulkhead;
use crate::deadline::DeadlineHeader;
use crate::forms::OneOrMany;
use crate::matching::Match;
use crate::mirror::Mirror;
use crate::require::Require;
use crate::retry::Retry;
use crate::target::{Target, Targets};
use crate::text::{Name, Reason};

/// Keys of which every route has exactly one: what becomes of a request that passed.
pub const ACTIONS: [&str; 4] = ["to", "respond", "redirect", "deny"];

/// One route under its full name.
#[derive(Clone, Debug)]
pub struct Route {
    /// `orders`, or `group/orders`.
    pub name: String,
    /// Its path in the configuration: `routes.orders`, `groups.shop.routes.orders`.
    pub resource: String,
    /// Where its name stands.
    pub span: SourceSpan,
    /// Index into [`crate::Config::groups`].
    pub group: Option<usize>,
    /// At least one; any of them will do. The group's own is already worked in.
    pub matches: Vec<Match>,
    pub public: Option<Spanned<Reason>>,
    /// Backends by weight; empty when the action is one of the policies.
    pub to: Vec<Target>,
    pub sticky: Option<Spanned<OneOrMany<HashKey>>>,
    pub mirror: Option<Spanned<Mirror>>,
    pub analysis: Option<Spanned<Analysis>>,
    /// What it says itself, without what it inherits.
    pub layer: Layer,
}

/// Routes that share a beginning and settings.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    pub resource: String,
    pub span: SourceSpan,
    pub layer: Layer,
}

/// What `defaults`, a group and a route can all say.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    pub settings: Settings,
    /// Policies by the names of the registry, in the order written. Actions are among them.
    pub policies: Vec<(Key, Node)>,
}

/// The settings, other than policies, that a route inherits from its group and from `defaults`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The listeners whose requests can reach it: a name or a list. Replaces what is inherited.
    /// Default: the only listener that does not redirect; with several of them it has to be said.
    #[serde(default)]
    pub on: Option<OneOrMany<Spanned<Name>>>,
    /// Who may call: the name of an `auth` entry, or a list of names, any of which will do. Of a
    /// list a request presents exactly one credential, and a bad one is refused. Replaces what is
    /// inherited. `{optional: NAME, reason: …}` lets callers without a credential through and
    /// counts as public.
    #[serde(default)]
    pub auth: Option<Spanned<AuthUse>>,
    /// What a caller must have to pass: a map, or a list of maps for different methods. Adds to
    /// what is inherited; a missing part is a 403.
    #[serde(default)]
    pub require: Option<Require>,
    /// Limits, each `COUNT/[N](s|m|h|d) [burst N] [per KEY[+KEY]]` or a map. Adds to what is
    /// inherited. A limit in `defaults` or in a group is one counter over all its routes.
    #[serde(default)]
    pub limits: Option<Limits>,
    /// How long to wait for a backend: one duration, up to the head of its answer, or a map. Each
    /// part replaces the inherited one. Default: `15s` to the head.
    #[serde(default)]
    pub timeout: Option<Timeouts>,
    /// The request header in which a caller says for how many milliseconds it still waits. What a
    /// trusted proxy (`trusted_proxies` of the listener) says there bounds the whole exchange as
    /// `timeout: {total: …}` does, and the shorter of the two holds; what anybody else says is
    /// removed. The backend is told there what is left, with each try anew, where there is such a
    /// bound. `grpc-timeout` of gRPC calls is always read, from every caller, and told. Replaces
    /// what is inherited. Default: `off`.
    #[serde(default)]
    pub deadline_header: Option<DeadlineHeader>,
    /// When a request is sent to another endpoint of its backend: a map, or `off`. Replaces what is
    /// inherited. Default: where no connection could be made, up to four endpoints are tried. Where
    /// it is not `off`, what the backend has not begun with is sent again in any case: a refused
    /// stream, or an idempotent request on a connection that had been closed meanwhile. The
    /// backend's `retry_budget` bounds all of it.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// How many of its requests may be under way at backends at once: a number, a map, or `off`.
    /// Each route has a bulkhead of its own, whoever says it. Those beyond wait in a short line.
    /// Replaces what is inherited. Default: where other routes use the same backend, three quarters
    /// of that one's `requests_max`, so that no route can take all of it; else `off`.
    #[serde(default)]
    pub bulkhead: Option<Spanned<Bulkhead>>,
    /// Which requests are refused first when the gateway has more to do than it can (see `shed` of
    /// the listener): `sheddable` ones; `critical` ones last. Replaces what is inherited. Default:
    /// `default`, in between.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// Largest request body. A larger one is a 413, as soon as its length or its bytes say so.
    /// Replaces what is inherited. Default: `10MiB`.
    #[serde(default)]
    pub body_max: Option<Size>,
    /// Whether the backend sees the credential that the caller presented. Replaces what is
    /// inherited. Default: `false`; the verified identity is in `Portcullis-*` headers.
    #[serde(default)]
    pub forward_credential: Option<Spanned<bool>>,
    /// What a connection may turn into after the request that opens it was let through:
    /// `websocket`. Replaces what is inherited; `[]` is nothing. Default: nothing, and such a
    /// request is answered as any other.
    #[serde(default)]
    pub upgrade: Option<Spanned<Upgrades>>,
}

/// How much it matters that a request is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Refused only when all others are.
    Critical,
    /// Neither of the two.
    Default,
    /// Refused first.
    Sheddable,
}

/// A protocol that a route lets clients change to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// RFC 6455, and RFC 8441 over HTTP/2.
    WebSocket,
}

/// None, one, or a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgrades(pub Vec<Upgrade>);

impl JsonSchema for Upgrades {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Upgrades".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let name = json_schema!({ "type": "string", "enum": ["websocket"] });
        json_schema!({
            "anyOf": [name, { "type": "array", "items": name, "uniqueItems": true }],
        })
    }
}

impl<'de> Deserialize<'de> for Upgrades {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let names = OneOrMany::<String>::deserialize(from)?;
        // The schema knows no other names.
        Ok(Self(names.iter().map(|_| Upgrade::WebSocket).collect()))
    }
}

/// What only a route can say. The loader adds [`Settings`] and the policies to this.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteOnly {
    /// The requests it takes: `HOST/PATH`, `/PATH`, a map, or a list of these. In a group the path
    /// is relative to the group's. Of all routes that match a request the most specific one has it.
    #[serde(rename = "match")]
    pub(crate) matches: OneOrMany<Match>,
    /// Lets everybody in, and says why. A route has this or an `auth`, its own or inherited; this
    /// cannot be inherited, so that each open door was opened by itself.
    #[serde(default)]
    pub(crate) public: Option<Spanned<Reason>>,
    /// The backend that gets the request, or several variants with weights:
    /// `{orders-v1: 90, orders-v2: 10}`. A weight of 0 gets only what its `when` says. Which
    /// variant it is stands in the log and the metrics, and the backend is told in
    /// `Portcullis-Variant`.
    #[serde(default)]
    pub(crate) to: Targets,
    /// What keeps a client at its variant: `client`, `tenant`, `ip`, `header:NAME`, `cookie:NAME`
    /// or `param:NAME`, or a list, of which the first counts that the request has. When a weight is
    /// raised, clients move to that variant only. Default: each request is drawn anew, and so is
    /// one that has none of these.
    #[serde(default)]
    pub(crate) sticky: Option<Spanned<OneOrMany<HashKey>>>,
    /// A backend that gets copies of requests, once their own backend has answered: its name, or a
    /// map. What it answers is compared with the answer that counts, told in the metrics, and
    /// thrown away; no client waits for it. Copies carry `Portcullis-Mirror`. Default: none.
    #[serde(default)]
    pub(crate) mirror: Option<Spanned<Mirror>>,
    /// Lets one of two variants grow in steps while it is no worse than the other, by errors (5xx)
    /// and by slow answers, and takes all requests away from it when it is. An override of the
    /// author `analysis` holds in place of the weights; while somebody else overrides them it
    /// pauses, and goes on after that. At most 500 routes have one. Default: the weights stay as
    /// they are.
    #[serde(default)]
    pub(crate) analysis: Option<Spanned<Analysis>>,
}

/// What only a group can say.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupOnly {
    /// Host and path that its routes begin with: `api.example.com/shop/**`. Only hosts and one
    /// path that ends in `/**`.
    #[serde(rename = "match", default)]
    pub(crate) matches: Option<Match>,
    /// Its routes by name; the full name of each is `GROUP/ROUTE`.
    pub(crate) routes: Entries<Node>,
}

/// Which `auth` entries a caller may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthUse {
    /// Exactly one credential must be presented, of any of these.
    Any(Vec<Spanned<Name>>),
    /// A credential may be left out; a bad one is refused. Audited as public.
    Optional { name: Spanned<Name>, reason: Spanned<Reason> },
}

/// Who may call: one `auth` entry, several of which any will do, or one that may be left out.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OptionalAuth {
    /// The `auth` entry whose credential may be presented. A bad one is still refused.
    optional: Spanned<Name>,
    /// Why nobody has to present it.
    reason: Spanned<Reason>,
}

impl AuthUse {
    /// The names it mentions.
    #[must_use]
    pub fn names(&self) -> &[Spanned<Name>] {
        match self {
            Self::Any(names) => names,
            Self::Optional { name, .. } => std::slice::from_ref(name),
        }
    }
}

impl JsonSchema for AuthUse {
    fn schema_name() -> Cow<'static, str> {
        "AuthUse".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<Name>();
        let names = json_schema!({
            "type": "array", "items": name, "minItems": 1, "uniqueItems": true,
        });
        short_or_long(vec![name, names], OptionalAuth::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for AuthUse {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if node.is_map() {
            let OptionalAuth { optional, reason } =
                OptionalAuth::deserialize(&node).map_err(D::Error::custom)?;
            return Ok(Self::Optional { name: optional, reason });
        }
        let names = OneOrMany::deserialize(&node).map_err(D::Error::custom)?;
        Ok(Self::Any(names.0))
    }
}

/// Limits, and whether the inherited ones still count.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Drops the inherited limits, and says why.
    pub replace: Option<Spanned<Reason>>,
    /// As written, for the registry's own entry for limits.
    pub list: Vec<Node>,
}

impl Limits {
    /// The path of the list, for findings: `routes.orders.limits` or `routes.orders.limits.use`.
    #[must_use]
    pub fn path(&self, resource: &str) -> String {
        match self.replace {
            Some(_) => format!("{resource}.limits.use"),
            None => format!("{resource}.limits"),
        }
    }
}

/// Limits in addition to those inherited, or in their place.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReplacedLimits {
    /// Why the inherited limits do not count here.
    replace: Spanned<Reason>,
    /// The limits that count instead.
    #[serde(rename = "use")]
    list: LimitList,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
struct LimitList(Vec<Node>);

impl JsonSchema for LimitList {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "LimitList".into()
    }

    // The registry's own entry for limits fills `items`, see `schema.rs`.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": { "x-registry": "limit" } })
    }
}

impl JsonSchema for Limits {
    fn schema_name() -> Cow<'static, str> {
        "Limits".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let list = LimitList::json_schema(generator);
        short_or_long(vec![list], ReplacedLimits::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if let Value::Seq(list) = node.value {
            return Ok(Self { replace: None, list });
        }
        let ReplacedLimits { replace, list } =
            ReplacedLimits::deserialize(&node).map_err(D::Error::custom)?;
        Ok(Self { replace: Some(replace), list: list.0 })
    }
}

/// How long a request may take, in parts. A part left out is inherited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    pub response: Option<DurationOrOff>,
    pub total: Option<DurationOrOff>,
    pub idle: Option<DurationOrOff>,
    pub upgrade_idle: Option<DurationOrOff>,
    pub upgrade_lifetime: Option<DurationOrOff>,
}

impl Timeouts {
    /// What holds where nothing is written.
    pub const DEFAULT: Self = Self {
        response: Some(DurationOrOff::from_secs(15)),
        total: Some(DurationOrOff::OFF),
        idle: Some(DurationOrOff::from_secs(60)),
        upgrade_idle: Some(DurationOrOff::from_secs(5 * 60)),
        upgrade_lifetime: Some(DurationOrOff::from_secs(12 * 3600)),
    };

    /// These, and for what they leave out those of `inherited`.
    #[must_use]
    pub fn or(self, inherited: Self) -> Self {
        Self {
            response: self.response.or(inherited.response),
            total: self.total.or(inherited.total),
            idle: self.idle.or(inherited.idle),
            upgrade_idle: self.upgrade_idle.or(inherited.upgrade_idle),
            upgrade_lifetime: self.upgrade_lifetime.or(inherited.upgrade_lifetime),
        }
    }
}

/// How long a request may take: `response`, or a map. A part left out is inherited.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongTimeouts {
    /// From the request's last byte sent to the head of the backend's answer; a 504 after that.
    /// Default: `15s`.
    #[serde(default)]
    response: Option<DurationOrOff>,
    /// From the request's head to the answer's last byte. The connection is cut after that, since
    /// a truncated answer must not look complete. Default: `off`.
    #[serde(default)]
    total: Option<DurationOrOff>,
    /// Without a byte moving in either body. Default: `60s`.
    #[serde(default)]
    idle: Option<DurationOrOff>,
    /// Without a byte moving either way after an `upgrade`, from which on `total` and `idle` no
    /// longer count. Default: `5m`.
    #[serde(default)]
    upgrade_idle: Option<DurationOrOff>,
    /// From an `upgrade` to its end, however busy it is. Default: `12h`.
    #[serde(default)]
    upgrade_lifetime: Option<DurationOrOff>,
}

impl From<LongTimeouts> for Timeouts {
    fn from(long: LongTimeouts) -> Self {
        Self {
            response: long.response,
            total: long.total,
            idle: long.idle,
            upgrade_idle: long.upgrade_idle,
            upgrade_lifetime: long.upgrade_lifetime,
        }
    }
}

impl std::str::FromStr for Timeouts {
    type Err = portcullis_core::decode::Fault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|response| Self { response: Some(response), ..Self::default() })
    }
}

portcullis_core::written_short_or_long! {
    Timeouts = LongTimeouts: "duration-or-off", "a duration such as `15s`, or `off`",
        r"^(off|([0-9]+(d|h|ms|m|s))+)$";
}
