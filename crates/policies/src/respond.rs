//! Answers in the backend's place.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use portcullis_core::decode::{Entries, Spanned};
use portcullis_core::finding::Finding;
use portcullis_core::head::{Fields, is_field_byte, is_token};
use portcullis_core::registry::{Compile, PolicyConfig, Site};
use portcullis_core::{
    Exchange, Known, Phase, Policy, Reply, ReplyBody, ResponseHead, Services, Step,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Kept in memory for as long as the configuration serves.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Answers in the backend's place, always the same.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Respond {
    /// Status of the answer, 200 to 599. Default: 200.
    #[serde(default = "default_status")]
    #[schemars(range(min = 200, max = 599))]
    status: u16,
    /// The body: a text, or `file:PATH`, which is read again when it changes; at most 1 MiB.
    /// Default: none.
    #[serde(default)]
    body: Option<Spanned<String>>,
    /// Media type of the body. Default: `text/plain; charset=utf-8`.
    #[serde(default)]
    content_type: Option<Spanned<String>>,
    /// More fields of the answer.
    #[serde(default)]
    headers: Entries<Spanned<String>>,
}

fn default_status() -> u16 {
    200
}

impl PolicyConfig for Respond {
    const NAME: &'static str = "respond";
    const EXAMPLE: &'static str = "{ status: 200, body: ok }";

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
        let before = with.findings.errors();
        let mut fields = Fields::default();
        let body = match &self.body {
            None => Bytes::new(),
            Some(text) if text.starts_with("file:") => {
                Bytes::from_owner(with.read(site, text.span, text)?)
            }
            Some(text) => Bytes::from(text.value.clone()),
        };
        let mut error = |key: &str, span, message: String| {
            let resource = format!("{}.{key}", site.resource);
            with.findings.push(Finding::error("invalid-value", span, resource, message));
        };
        let status = StatusCode::from_u16(self.status).ok();
        if let Some(text) = &self.body {
            if body.len() > BODY_BYTES_MAX {
                error("body", text.span, format!("longer than {BODY_BYTES_MAX} bytes"));
            }
            if matches!(self.status, 204 | 205 | 304) && !body.is_empty() {
                error("body", text.span, format!("an answer with status {} has none", self.status));
            }
        }
        if let Some(media_type) = &self.content_type {
            if !is_value(media_type) {
                error("content_type", media_type.span, "not a media type".to_owned());
            }
            fields.append(b"content-type", media_type.as_bytes());
        } else if !body.is_empty() {
            fields.append(b"content-type", b"text/plain; charset=utf-8");
        }
        for (key, value) in self.headers.iter() {
            let name = key.name.as_bytes();
            let known = Known::of(name);
            let at = format!("headers.{key}");
            if !is_token(name) {
                error(&at, key.span, format!("`{key}` is not a field name"));
            } else if known == Known::ContentType {
                error(&at, key.span, "see `content_type`".to_owned());
            } else if known == Known::ContentLength || known.is_hop_by_hop() {
                error(&at, key.span, format!("`{key}` is written by the gateway"));
            } else if !is_value(value) {
                error(&at, value.span, "not a field value".to_owned());
            } else {
                fields.append(name, value.as_bytes());
            }
        }
        if with.findings.errors() > before {
            return None;
        }
        Some(Arc::new(Compiled { status: status?, fields, body }))
    }
}

fn is_value(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && text.bytes().all(is_field_byte)
}

#[derive(Debug)]
struct Compiled {
    status: StatusCode,
    fields: Fields,
    body: Bytes,
}

impl Policy for Compiled {
    fn phase(&self) -> Phase {
        Phase::Forward
    }

    fn on_request<'a>(&'a self, _: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        let head = ResponseHead { fields: self.fields.clone(), ..ResponseHead::new(self.status) };
        Step::Reply(Reply { head, body: ReplyBody::Bytes(self.body.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::{World, check};

    #[test]
    fn always_the_same() {
        check(
            "respond",
            "{ body: ok, headers: { Cache-Control: no-store } }",
            "192.0.2.7 GET /",
            &expect![[r#"
                reply 200 ok
                < content-type: text/plain; charset=utf-8
                < Cache-Control: no-store"#]],
        );
        check("respond", "{ status: 204 }", "192.0.2.7 GET /", &expect!["reply 204"]);
    }

    #[test]
    fn a_body_may_come_from_a_file() {
        let world = World::default().file("down.json", r#"{"down":true}"#);
        let yaml = "{ status: 503, body: \"file:down.json\", content_type: application/json }";
        expect![[r#"
            reply 503 {"down":true}
            < content-type: application/json"#]]
        .assert_eq(&world.run(&*world.policy("respond", yaml), "192.0.2.7 GET /"));
    }

    #[test]
    fn what_is_no_answer_does_not_compile() {
        for (yaml, want) in [
            (
                "{ status: 100 }",
                expect!["error out-of-range at respond.status: must be from 200 to 599"],
            ),
            (
                "{ status: 204, body: x }",
                expect!["error invalid-value at respond.body: an answer with status 204 has none"],
            ),
            (
                "{ body: \"file:none\" }",
                expect!["error unreadable at respond: cannot read file:none: no such file"],
            ),
            (
                "{ headers: { Content-Length: \"1\", \"a b\": c, x: \"\\n\", content-type: a } }",
                expect![[r#"
                    error invalid-value at respond.headers.Content-Length: `Content-Length` is written by the gateway
                    error invalid-value at respond.headers.a b: `a b` is not a field name
                    error invalid-value at respond.headers.x: not a field value
                    error invalid-value at respond.headers.content-type: see `content_type`"#]],
            ),
        ] {
            check("respond", yaml, "192.0.2.7 GET /", &want);
        }
    }
}
