//! A registry for the tests of this crate: the shapes of policies, without any that works.

use portcullis_core::auth::Authenticator;
use portcullis_core::limit_config::LimitConfig;
use portcullis_core::policy::Policy;
use portcullis_core::registry::{Entry, Registry};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Reference;
use crate::{Loaded, Source, load};

/// Answers by itself.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the shape is of interest")]
struct Respond {
    /// Status of the answer.
    #[schemars(range(min = 200, max = 599))]
    status: u16,
    /// Its body. Default: empty.
    #[serde(default)]
    body: String,
}

/// Lets pages of other origins in.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the shape is of interest")]
struct Cors {
    /// Origins that may read answers.
    origins: Vec<String>,
}

/// Tokens of an issuer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the shape is of interest")]
struct Jwt {
    /// Who issues the tokens.
    issuer: String,
    /// For whom they are.
    audience: Vec<String>,
}

/// Keys that were handed out.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the shape is of interest")]
struct ApiKeys {
    /// The file of hashed keys.
    keys: Reference,
}

/// Refuses, and says why.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
#[expect(dead_code, reason = "only the shape is of interest")]
struct Deny(String);

const fn policy<T: JsonSchema>(name: &'static str) -> Entry<dyn Policy> {
    Entry { name, example: "", schema: T::json_schema, compile: |_, _, _| None }
}

const fn auth<T: JsonSchema>(name: &'static str) -> Entry<dyn Authenticator> {
    Entry { name, example: "", schema: T::json_schema, compile: |_, _, _| None }
}

static POLICIES: [Entry<dyn Policy>; 3] =
    [policy::<Cors>("cors"), policy::<Respond>("respond"), policy::<Deny>("deny")];
static AUTH: [Entry<dyn Authenticator>; 2] = [auth::<Jwt>("jwt"), auth::<ApiKeys>("api_keys")];
static LIMIT: Entry<dyn Policy> = policy::<LimitConfig>("limit");

pub(crate) static REGISTRY: Registry = Registry { policies: &POLICIES, auth: &AUTH, limit: &LIMIT };

pub(crate) fn load_files(files: &[(&str, &str)]) -> Loaded {
    let source =
        |(name, text): &(&str, &str)| Source { name: (*name).to_owned(), text: (*text).to_owned() };
    load(files.iter().map(source).collect(), &REGISTRY)
}
