//! What a caller must have beside a good credential, as written. Whether a caller has it is decided
//! in `snapshot`.

use std::borrow::Cow;

use portcullis_core::decode::{Entries, Spanned, short_or_long};
use portcullis_core::node::{Node, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::forms::OneOrMany;
use crate::hours::Times;
use crate::matching::Method;

/// One set of requirements, or a list of sets, each perhaps for some methods only.
pub type Require = OneOrMany<Spanned<Requirement>>;

/// What a caller must have, all of it. A list of these may require different things for different
/// methods: every set that is for the request's method must hold, and a method that no set is for
/// is refused.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct Requirement {
    /// The methods that this set is for. `GET` includes `HEAD`. Default: every method.
    #[serde(default)]
    pub methods: Option<OneOrMany<Spanned<Method>>>,
    /// Scopes, all of which the caller must have. What is missing is told to the client (RFC 6750).
    #[serde(default)]
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub scopes: Option<Vec<Spanned<String>>>,
    /// Roles: a name or a list, all of which the caller must have, or a map with `any`, `all` and
    /// `claim`. They are those of the claim `roles`, else of `realm_access.roles`, else of
    /// `groups`.
    #[serde(default)]
    pub roles: Option<Roles>,
    /// Claims of the token by name, each a value that it must equal, or a map with `equals`,
    /// `contains`, `any` or `all`. A name with dots is a path into nested claims.
    #[serde(default)]
    pub claims: Entries<ClaimTest>,
    /// The tenant that the caller must belong to: a name, a list of which one will do, or
    /// `{param: NAME}`, the segment of the request's path that the route captures as `{NAME}`.
    #[serde(default)]
    pub tenant: Option<Spanned<Tenant>>,
    /// What the client's certificate must say of itself, whichever credential the caller presents.
    #[serde(default)]
    pub certificate: Option<Spanned<CertificateRule>>,
    /// When requests are let through, by the gateway's clock.
    #[serde(default)]
    pub time: Option<Spanned<Times>>,
    /// An expression in CEL that must be true, over `identity`, `request`, `params`, `certificate`
    /// and `now`. It is checked when the configuration is loaded; one that fails at a request
    /// refuses it.
    #[serde(default)]
    pub when: Option<Spanned<String>>,
}

/// Roles by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roles {
    pub any: Vec<String>,
    pub all: Vec<String>,
    pub claim: Option<String>,
}

/// Roles that the caller must have: a name, a list, all of which are needed, or a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
struct LongRoles {
    /// Any one of these will do.
    #[serde(default)]
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    any: Option<Vec<String>>,
    /// All of these are needed.
    #[serde(default)]
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    all: Option<Vec<String>>,
    /// The claim that has the roles: a list of strings, or one string. A name with dots is a path
    /// into nested claims. Default: `roles`, else `realm_access.roles`, else `groups`.
    #[serde(default)]
    claim: Option<String>,
}

impl JsonSchema for Roles {
    fn schema_name() -> Cow<'static, str> {
        "Roles".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        short_or_long(names("the name of a role"), LongRoles::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if !node.is_map() {
            let all = OneOrMany::deserialize(&node).map_err(D::Error::custom)?.0;
            return Ok(Self { all, ..Self::default() });
        }
        let LongRoles { any, all, claim } =
            LongRoles::deserialize(&node).map_err(D::Error::custom)?;
        let (any, all) = (any.unwrap_or_default(), all.unwrap_or_default());
        if any.is_empty() && all.is_empty() {
            return Err(D::Error::custom("`any` or `all` has to name a role"));
        }
        Ok(Self { any, all, claim })
    }
}

/// One text, or a list of them.
fn names(expected: &str) -> Vec<Schema> {
    let name = json_schema!({ "type": "string", "minLength": 1, "x-expected": expected });
    let list = json_schema!({
        "type": "array", "items": name, "minItems": 1, "uniqueItems": true,
    });
    vec![name, list]
}

/// A string, a number or a boolean.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalar(pub(crate) serde_json::Value);

impl JsonSchema for Scalar {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number", "boolean"],
            "x-expected": "a string, a number or a boolean",
        })
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(match Node::deserialize(from)?.value {
            Value::Bool(value) => value.into(),
            Value::Int(value) => value.into(),
            Value::Float(value) => value.into(),
            Value::Str(value) => value.into(),
            Value::Null | Value::Seq(_) | Value::Map(_) => {
                return Err(D::Error::custom("expected a string, a number or a boolean"));
            }
        }))
    }
}

/// What a claim must be. Every part that is written must hold; a claim that is not there never
/// does.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
struct LongClaim {
    /// The claim is this value, and no list.
    #[serde(default)]
    equals: Option<Scalar>,
    /// The claim is a list that has this value in it.
    #[serde(default)]
    contains: Option<Scalar>,
    /// The claim, or one element of it if it is a list, is one of these values.
    #[serde(default)]
    #[schemars(length(min = 1))]
    any: Option<Vec<Scalar>>,
    /// The claim is a list that has all of these values in it.
    #[serde(default)]
    #[schemars(length(min = 1))]
    all: Option<Vec<Scalar>>,
}

/// As [`LongClaim`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimTest {
    pub equals: Option<serde_json::Value>,
    /// Those of `contains` among them.
    pub all: Vec<serde_json::Value>,
    pub any: Vec<serde_json::Value>,
}

impl JsonSchema for ClaimTest {
    fn schema_name() -> Cow<'static, str> {
        "ClaimTest".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let scalar = Scalar::json_schema(generator);
        short_or_long(vec![scalar], LongClaim::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for ClaimTest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        if !node.is_map() {
            let equals = Scalar::deserialize(&node).map_err(D::Error::custom)?;
            return Ok(Self { equals: Some(equals.0), ..Self::default() });
        }
        let long = LongClaim::deserialize(&node).map_err(D::Error::custom)?;
        let plain = |list: Option<Vec<Scalar>>| {
            list.into_iter().flatten().map(|scalar| scalar.0).collect::<Vec<_>>()
        };
        let mut all = plain(long.all);
        all.extend(long.contains.map(|scalar| scalar.0));
        Ok(Self { equals: long.equals.map(|scalar| scalar.0), all, any: plain(long.any) })
    }
}

/// Whose callers pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenant {
    /// Any of these.
    Named(Vec<String>),
    /// The one that a segment of the path names.
    Param(Spanned<String>),
}

/// The tenant that the request's path names.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TenantOfPath {
    /// The name of a segment that every path of the route captures: `tenant` for
    /// `/tenants/{tenant}/**`.
    param: Spanned<String>,
}

impl JsonSchema for Tenant {
    fn schema_name() -> Cow<'static, str> {
        "TenantRule".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        short_or_long(names("the name of a tenant"), TenantOfPath::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for Tenant {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        match node.is_map() {
            true => TenantOfPath::deserialize(&node).map(|of| Self::Param(of.param)),
            false => OneOrMany::deserialize(&node).map(|names| Self::Named(names.0)),
        }
        .map_err(D::Error::custom)
    }
}

/// Names that the client's certificate must have. Of each key's list one name will do; all keys
/// that are written must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct CertificateRule {
    /// A DNS name among its alternative names; `*.example.com` is one label before it.
    #[serde(default)]
    pub dns: Option<OneOrMany<Spanned<String>>>,
    /// A URI among its alternative names; `*` is one whole segment of the path, `**` at the end
    /// all that follow.
    #[serde(default)]
    pub uri: Option<OneOrMany<Spanned<String>>>,
    /// Its SPIFFE ID, with `*` and `**` as in `uri`: `spiffe://example.org/ns/*/sa/orders`.
    #[serde(default)]
    pub spiffe: Option<OneOrMany<Spanned<String>>>,
    /// Its whole subject, exactly, as in RFC 4514: `CN=shop,O=Example`.
    #[serde(default)]
    pub subject: Option<OneOrMany<Spanned<String>>>,
    /// The SHA-256 of the whole certificate, in hexadecimal.
    #[serde(default)]
    pub sha256: Option<OneOrMany<Spanned<String>>>,
}
