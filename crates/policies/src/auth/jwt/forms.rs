//! The short forms in the settings of an issuer.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::Algorithm;
use portcullis_core::decode::Fault;
use portcullis_core::node::{Node, Value as Written};
use portcullis_core::written_as_text;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::Value;

use super::SCHEME;
use super::token::ClaimPath;
use crate::auth::place::Place;

/// An algorithm of RFC 7518 or RFC 8037 that needs no shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Signature {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Signature {
    pub(super) const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    pub(super) const fn algorithm(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Rs384 => Algorithm::RS384,
            Self::Rs512 => Algorithm::RS512,
            Self::Ps256 => Algorithm::PS256,
            Self::Ps384 => Algorithm::PS384,
            Self::Ps512 => Algorithm::PS512,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// `claim:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::auth) struct Claim(pub(super) ClaimPath);

impl FromStr for Claim {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text.strip_prefix("claim:") {
            Some(name) if !name.is_empty() => Ok(Self(name.into())),
            _ => Err(Fault::new(0..text.len(), format!("`{text}` is not `claim:NAME`"))),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "claim:{}", self.0)
    }
}

/// Where tokens are: `header` is `Authorization: Bearer`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenPlace(pub(super) Place);

impl Default for TokenPlace {
    fn default() -> Self {
        Self(Place::Authorization(SCHEME.into()))
    }
}

impl FromStr for TokenPlace {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text {
            "header" => Ok(Self::default()),
            _ => text.parse().map(Self),
        }
    }
}

impl fmt::Display for TokenPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Authorization(_) => f.write_str("header"),
            place => place.fmt(f),
        }
    }
}

written_as_text! {
    Claim: "claim", "`claim:NAME`", "^claim:.+$";
    TokenPlace: "token-place", "`header`, `header:NAME`, `cookie:NAME` or `query:NAME`",
        "^(header|(header|cookie|query):.+)$";
}

/// Claims that a token must have: a name, or names with the values that will do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequiredClaims(pub(super) Vec<Required>);

/// One of them; without values any will do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Required {
    pub(super) path: ClaimPath,
    pub(super) values: Vec<Value>,
}

impl<'de> Deserialize<'de> for RequiredClaims {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        let name = |text: &str| match text {
            "" => Err(D::Error::custom("a claim has a name")),
            text => Ok(ClaimPath::from(text)),
        };
        let claims = match &node.value {
            Written::Str(text) => vec![Required { path: name(text)?, values: Vec::new() }],
            Written::Map(entries) => entries
                .iter()
                .map(|(key, wanted)| {
                    let values = match &wanted.value {
                        Written::Seq(items) => items.iter().map(scalar).collect(),
                        _ => scalar(wanted).map(|one| vec![one]),
                    };
                    let values = values.filter(|values: &Vec<Value>| !values.is_empty());
                    let values = values.ok_or_else(|| {
                        D::Error::custom("a claim's value is a text, a number, true or false")
                    })?;
                    Ok(Required { path: name(&key.name)?, values })
                })
                .collect::<Result<_, D::Error>>()?,
            _ => Vec::new(),
        };
        match claims.is_empty() {
            true => Err(D::Error::custom("the name of a claim, or names with values")),
            false => Ok(Self(claims)),
        }
    }
}

fn scalar(node: &Node) -> Option<Value> {
    match &node.value {
        Written::Bool(value) => Some((*value).into()),
        Written::Int(value) => Some((*value).into()),
        Written::Float(value) => Some((*value).into()),
        Written::Str(text) => Some(text.as_str().into()),
        _ => None,
    }
}

impl JsonSchema for RequiredClaims {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RequiredClaims".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let scalar = json_schema!({ "type": ["string", "number", "boolean"] });
        json_schema!({
            "anyOf": [
                { "type": "string", "minLength": 1 },
                {
                    "type": "object",
                    "additionalProperties": {
                        "anyOf": [scalar, { "type": "array", "items": scalar, "minItems": 1 }],
                    },
                },
            ],
        })
    }
}

/// One name, or a list of at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::auth) struct Names(pub(in crate::auth) Vec<String>);

impl JsonSchema for Names {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Names".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let name = json_schema!({ "type": "string", "minLength": 1 });
        json_schema!({
            "anyOf": [
                name,
                { "type": "array", "items": name, "minItems": 1, "uniqueItems": true },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Forms;

        impl<'de> Visitor<'de> for Forms {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Names, E> {
                Ok(Names(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }

        from.deserialize_any(Forms)
    }
}

/// Whether tokens have to be bound to the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Binding {
    /// A token without `cnf` is refused.
    Required,
}
