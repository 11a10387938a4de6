//! What an operator writes about signed requests, and how it compiles.

use std::sync::Arc;
use std::time::Duration as Time;

use portcullis_core::auth::Authenticator;
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::node::SourceSpan;
use portcullis_core::registry::{AuthConfig, Compile, Site};
use portcullis_core::units::{PositiveDuration, Size};
use schemars::JsonSchema;
use serde::Deserialize;
use sfv::{Item, Parser};

use super::components::{Component, cover};
use super::keys::{self, Key};
use super::{Compiled, digest};
use crate::auth::listed;
use crate::auth::nonces::Nonces;
use crate::key::Secret;

const WINDOW_MAX: Time = Time::from_secs(600);

/// Takes requests that are signed by HTTP Message Signatures (RFC 9421).
///
/// The file lists who signs, with a public key or a shared secret each, and by which algorithm: a
/// signature cannot choose. It is read again when it changes. The body is covered by its digest
/// (`Content-Digest`, RFC 9530), which is compared before anything passes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signature {
    /// The file with the keys: `file:PATH`, YAML or JSON.
    keys: Spanned<String>,
    /// The label of the signature that counts, where a request may have several. Default: there is
    /// one signature, whatever its label.
    #[serde(default)]
    label: Option<Spanned<String>>,
    /// The `tag` of the signature that counts, instead of a label. Default: none.
    #[serde(default)]
    tag: Option<Spanned<String>>,
    /// What a signature has to cover; it may cover more. Names of fields in lower case, and
    /// `@method`, `@target-uri`, `@authority`, `@scheme`, `@request-target`, `@path`, `@query` and
    /// `"@query-param";name="…"`. `@target-uri` is taken for `@scheme`, `@authority`, `@path` and
    /// `@query` too. `content-digest` has to be covered where there is a body, and is compared with
    /// it. Default: `["@method", "@authority", "@path", "@query", content-digest]`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    components: Option<Vec<Spanned<String>>>,
    /// By how much the time at which it was made may differ from the gateway's, either way, at most
    /// `10m`. Default: `60s`.
    #[serde(default = "default_window")]
    window: PositiveDuration,
    /// Whether a signature needs a `nonce`. One with a nonce is good once, at this gateway; one
    /// without can be sent again within the window. Default: `required`.
    #[serde(default)]
    nonce: NonceUse,
    /// The longest body that is held back until its digest has been compared; a longer one is
    /// refused. Default: `1MiB`.
    #[serde(default = "default_body_max")]
    body_max: Size,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum NonceUse {
    #[default]
    Required,
    Optional,
}

const COMPONENTS: [&str; 5] = ["@method", "@authority", "@path", "@query", digest::COMPONENT];

fn default_window() -> PositiveDuration {
    PositiveDuration::from_secs(60)
}

fn default_body_max() -> Size {
    Size::mib(1)
}

/// Which of a request's signatures counts.
#[derive(Debug)]
pub(super) enum Choice {
    /// There is only one.
    Only,
    Label(Box<str>),
    Tag(Box<str>),
}

impl AuthConfig for Signature {
    const NAME: &'static str = "signature";
    const EXAMPLE: &'static str = r#"{ keys: "file:signers.yaml" }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let before = with.findings.errors();
        if self.window.0 > WINDOW_MAX {
            let resource = format!("{}.window", site.resource);
            with.findings.error("out-of-range", site.span, resource, "at most `10m`");
        }
        let choice = self.choice(site, with);
        let written = match &self.components {
            Some(written) => written.iter().map(|name| (name.as_str(), name.span)).collect(),
            None => COMPONENTS.map(|name| (name, site.span)).to_vec(),
        };
        let components: Vec<Component> =
            written.iter().filter_map(|(name, span)| component(name, *span, site, with)).collect();
        let auth: Arc<str> = site.owner.into();
        let keys = listed::read(&self.keys, ("keys", "unusable-keys"), site, with, |text| {
            keys::read(text, &auth)
        })?;
        if with.findings.errors() > before {
            return None;
        }
        self.tell_of_gaps(&components, site, with);
        let covers_body = cover(&components, digest::COMPONENT);
        let required = components.into_iter().map(Component::into_identifier).collect();
        let nonces = with.carry.keep("signature-nonces", site.owner, &(), Nonces::new);
        Some(Arc::new(Compiled {
            keys: keys.into_iter().map(|key: Key| (key.id.clone(), key)).collect(),
            choice,
            required,
            body_bytes_max: covers_body
                .then(|| usize::try_from(self.body_max.0).unwrap_or(usize::MAX)),
            window: self.window.0,
            nonce_required: self.nonce == NonceUse::Required,
            nonces,
            secret: Secret::of(with.carry),
        }))
    }
}

impl Signature {
    fn choice(&self, site: &Site<'_>, with: &mut Compile<'_>) -> Choice {
        let mut error = |key: &str, text: &Spanned<String>, message: &str| {
            let resource = format!("{}.{key}", site.resource);
            with.findings.push(Finding::error("invalid-value", text.span, resource, message));
        };
        match (&self.label, &self.tag) {
            (None, None) => Choice::Only,
            (Some(label), None) => {
                if sfv::KeyRef::from_str(label).is_err() {
                    error("label", label, "a label is lower-case letters, digits, `-` and `_`");
                }
                Choice::Label(label.value.as_str().into())
            }
            (None, Some(tag)) => {
                if tag.is_empty() || sfv::StringRef::from_str(tag).is_err() {
                    error("tag", tag, "a tag is a text in ASCII");
                }
                Choice::Tag(tag.value.as_str().into())
            }
            (Some(_), Some(tag)) => {
                error("tag", tag, "a signature is chosen by its `label` or by its `tag`");
                Choice::Only
            }
        }
    }

    /// What nobody signs can be changed by whoever sees the request.
    fn tell_of_gaps(&self, components: &[Component], site: &Site<'_>, with: &mut Compile<'_>) {
        let open: Vec<&str> =
            COMPONENTS.into_iter().filter(|needed| !cover(components, needed)).collect();
        if !open.is_empty() {
            let message = format!("a signature need not cover {}", open.join(", "));
            let resource = format!("{}.components", site.resource);
            let first = self.components.iter().flatten().next();
            let span = first.map_or(site.span, |first| first.span);
            with.findings.push(Finding::warning("partial-signature", span, resource, message));
        }
    }
}

/// `@method`, or an identifier with parameters as in a signature: `"@query-param";name="Pet"`.
fn component(
    written: &str,
    span: SourceSpan,
    site: &Site<'_>,
    with: &mut Compile<'_>,
) -> Option<Component> {
    let text = match written.starts_with('"') {
        true => written.to_owned(),
        false => format!("\"{written}\""),
    };
    let item = Parser::new(&text).parse::<Item>().map_err(|_| "not the name of a component");
    match item.and_then(|item| Component::read(&item)) {
        Ok(component) => Some(component),
        Err(reason) => {
            let resource = format!("{}.components", site.resource);
            with.findings.error("invalid-value", span, resource, format!("`{written}`: {reason}"));
            None
        }
    }
}
