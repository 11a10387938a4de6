//! What an operator writes about webhooks, and how it compiles.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration as Time;

use aws_lc_rs::hmac;
use portcullis_core::auth::Authenticator;
use portcullis_core::decode::{Spanned, short_or_long};
use portcullis_core::finding::Finding;
use portcullis_core::node::Node;
use portcullis_core::registry::{AuthConfig, Compile, Site};
use portcullis_core::units::{PositiveDuration, Size};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};

use super::form::{Form, Written};
use super::{Checker, Compiled, keys};
use crate::auth::listed;
use crate::auth::nonces::Nonces;
use crate::auth::place::Places;
use crate::key::Secret;

const WINDOW_MAX: Time = Time::from_secs(600);

/// Takes requests that carry an HMAC of their body under a shared secret, as webhooks do.
///
/// The file lists who sends, with a secret each. It is read again when it changes. A request does
/// not say whose it is: every secret of the file is tried, so it has at most 16. What a sender does
/// not sign can be changed by whoever sees the request, which for most is all but the body.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hmac {
    /// The file with the secrets: `file:PATH`, YAML or JSON.
    keys: Spanned<String>,
    /// How the sender signs: `standard_webhooks`, `github`, `stripe`, `slack`, or in other words.
    format: Spanned<Format>,
    /// By how much the time at which a request was made may differ from the gateway's, either way,
    /// at most `10m`; for senders that say it. Default: `5m`.
    #[serde(default = "default_window")]
    window: PositiveDuration,
    /// Whether a request that was there before is refused, for as long as its time would do.
    /// Senders that try again sign again. `refuse` or `allow`. Default: `refuse`, where the sender
    /// says the time; else `allow`, and nothing else is possible.
    #[serde(default)]
    replay: Option<Replay>,
    /// The longest body that is held back until its code has been compared; a longer one is
    /// refused. Default: `1MiB`.
    #[serde(default = "default_body_max")]
    body_max: Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Replay {
    Refuse,
    Allow,
}

fn default_window() -> PositiveDuration {
    PositiveDuration::from_secs(300)
}

fn default_body_max() -> Size {
    Size::mib(1)
}

#[derive(Clone, Debug)]
struct Format(Form);

/// The forms of usual senders.
const PRESETS: [(&str, Written<'static>); 4] = [
    (
        "standard_webhooks",
        Written {
            header: "Webhook-Signature",
            signature: "v1,${base64}",
            separator: Some(" "),
            timestamp: Some("Webhook-Timestamp"),
            id: Some("Webhook-Id"),
            message: "${id}.${timestamp}.${body}",
            algorithm: hmac::HMAC_SHA256,
            secrets_are_base64: true,
        },
    ),
    ("github", plain("X-Hub-Signature-256", "sha256=${hex}", "${body}")),
    (
        "stripe",
        Written {
            separator: Some(","),
            timestamp: Some("t=${timestamp}"),
            ..plain("Stripe-Signature", "v1=${hex}", "${timestamp}.${body}")
        },
    ),
    (
        "slack",
        Written {
            timestamp: Some("X-Slack-Request-Timestamp"),
            ..plain("X-Slack-Signature", "v0=${hex}", "v0:${timestamp}:${body}")
        },
    ),
];

const fn plain(
    header: &'static str,
    signature: &'static str,
    message: &'static str,
) -> Written<'static> {
    Written {
        header,
        signature,
        separator: None,
        timestamp: None,
        id: None,
        message,
        algorithm: hmac::HMAC_SHA256,
        secrets_are_base64: false,
    }
}

/// How a sender signs.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct OwnFormat {
    /// The field with the code: `X-Signature`.
    header: String,
    /// How a code is written there: a text, and `${hex}` or `${base64}`. Items that begin otherwise
    /// are for others. Default: `${hex}`.
    #[serde(default = "default_signature")]
    signature: String,
    /// What stands between several of them, one character. Default: there is one.
    #[serde(default)]
    separator: Option<String>,
    /// The field that says when a request was made, in seconds since 1970; or, where that is an
    /// item among the codes, how it is written there: `t=${timestamp}`. Default: nothing says it,
    /// and whoever has seen a request can send it again.
    #[serde(default)]
    timestamp: Option<String>,
    /// The field with the request's id, where it is signed. Default: none.
    #[serde(default)]
    id: Option<String>,
    /// What is signed: texts, `${timestamp}`, `${id}` and `${body}`. Default: `${body}`.
    #[serde(default = "default_message")]
    message: String,
    /// `sha256` or `sha512`. Default: `sha256`.
    #[serde(default)]
    algorithm: Algorithm,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    #[default]
    Sha256,
    Sha512,
}

fn default_signature() -> String {
    "${hex}".to_owned()
}

fn default_message() -> String {
    "${body}".to_owned()
}

impl OwnFormat {
    fn written(&self) -> Written<'_> {
        Written {
            header: &self.header,
            signature: &self.signature,
            separator: self.separator.as_deref(),
            timestamp: self.timestamp.as_deref(),
            id: self.id.as_deref(),
            message: &self.message,
            algorithm: match self.algorithm {
                Algorithm::Sha256 => hmac::HMAC_SHA256,
                Algorithm::Sha512 => hmac::HMAC_SHA512,
            },
            secrets_are_base64: false,
        }
    }
}

impl JsonSchema for Format {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "HmacFormat".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let names = PRESETS.map(|(name, _)| name);
        let name = json_schema!({ "type": "string", "enum": names });
        short_or_long(vec![name], OwnFormat::json_schema(generator))
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(from)?;
        let form = match node.as_str() {
            // The schema knows no other text.
            Some(name) => PRESETS
                .iter()
                .find(|(preset, _)| *preset == name)
                .map_or(Err("no such format".to_owned()), |(_, written)| {
                    Form::read_settings(*written)
                }),
            None => {
                let own = OwnFormat::deserialize(&node).map_err(D::Error::custom)?;
                Form::read_settings(own.written())
            }
        };
        form.map(Self).map_err(D::Error::custom)
    }
}

impl AuthConfig for Hmac {
    const NAME: &'static str = "hmac";
    const EXAMPLE: &'static str = r#"{ keys: "file:senders.yaml", format: standard_webhooks }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let before = with.findings.errors();
        if self.window.0 > WINDOW_MAX {
            let resource = format!("{}.window", site.resource);
            with.findings.error("out-of-range", site.span, resource, "at most `10m`");
        }
        let Format(form) = &self.format.value;
        if !form.has_time() && self.replay == Some(Replay::Refuse) {
            let resource = format!("{}.replay", site.resource);
            let message = "without a time a request is good for ever, and none can be remembered \
                           for so long";
            with.findings.error("invalid-value", site.span, resource, message);
        }
        let auth: Arc<str> = site.owner.into();
        let keys = listed::read(&self.keys, ("keys", "unusable-keys"), site, with, |text| {
            keys::read(text, form, &auth)
        })?;
        if with.findings.errors() > before {
            return None;
        }
        self.tell_of_gaps(site, with);
        let once = form.has_time() && self.replay != Some(Replay::Allow);
        let nonces = once.then(|| with.carry.keep("hmac-nonces", site.owner, &(), Nonces::new));
        Some(Arc::new(Compiled {
            places: Places::new(vec![form.place.clone()]),
            checker: Arc::new(Checker { form: form.clone(), keys }),
            window: self.window.0,
            body_bytes_max: usize::try_from(self.body_max.0).unwrap_or(usize::MAX),
            nonces,
            secret: Secret::of(with.carry),
        }))
    }
}

impl Hmac {
    /// Whoever sees such a request has it for good.
    fn tell_of_gaps(&self, site: &Site<'_>, with: &mut Compile<'_>) {
        if self.format.value.0.has_time() {
            return;
        }
        let message = "the sender does not sign the time: whoever sees a request can send it again";
        let resource = format!("{}.format", site.resource);
        let finding = Finding::warning("partial-signature", self.format.span, resource, message);
        with.findings.push(finding.help("let the backend know by their ids those that it has had"));
    }
}
