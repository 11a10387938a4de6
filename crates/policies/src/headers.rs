//! Sets, adds and removes fields of requests and answers.
//!
//! What the gateway itself writes (framing, hop-by-hop, identity, forwarding) is out of reach.

use std::fmt;
use std::sync::Arc;

use portcullis_core::decode::{Entries, Spanned};
use portcullis_core::finding::Finding;
use portcullis_core::head::{Fields, is_field_byte};
use portcullis_core::known::is_alias;
use portcullis_core::node::SourceSpan;
use portcullis_core::registry::{Compile, PolicyConfig, Site};
use portcullis_core::{Exchange, Phase, Policy, ResponseHead, Services, Step};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::owned::{OWNED_IN_REQUESTS, OWNED_IN_RESPONSES, Owned, check_name};
use crate::template::ValueTemplate;

/// Sets, adds and removes header fields, of the request on its way to the backend and of the answer
/// on its way to the client.
///
/// Values may name what is known of the request: `${client}`, `${tenant}`, `${auth}`,
/// `${claim.NAME}`, `${client_ip}`, `${request_id}`, `${host}`, `${scheme}`, `${param.NAME}`;
/// `$${` is a literal `${`. A value that begins with `file:` or `env:` is read from there, and read
/// again when it changes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Headers {
    /// Edits to the request. What clients send under other spellings of a name that is set or
    /// removed (`X_Plan` for `X-Plan`) is removed too, since some backends take it for the same.
    #[serde(default)]
    request: Option<Edits>,
    /// Edits to the answer, also to one that the gateway gives in the backend's place after this
    /// point: a refusal by `auth` or `limits` comes before it.
    #[serde(default)]
    response: Option<Edits>,
}

/// Edits in one direction. They are made in this order: remove, set, add.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Edits {
    /// Names of fields to take out.
    #[serde(default)]
    remove: Vec<Spanned<String>>,
    /// Fields that have this value and no other. Where a variable in the value has no value, the
    /// field is only taken out.
    #[serde(default)]
    set: Entries<Spanned<String>>,
    /// Fields to add to those of the same name. Where a variable in the value has no value, nothing
    /// is added.
    #[serde(default)]
    add: Entries<Spanned<String>>,
}

impl PolicyConfig for Headers {
    const NAME: &'static str = "headers";
    const EXAMPLE: &'static str =
        r#"{ request: { set: { X-Plan: "${claim.plan}" } }, response: { remove: [Server] } }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
        let before = with.findings.errors();
        let request = compile(self.request, "request", OWNED_IN_REQUESTS, site, with);
        let response = compile(self.response, "response", OWNED_IN_RESPONSES, site, with);
        if with.findings.errors() > before {
            return None;
        }
        if request.is_empty() && response.is_empty() {
            let message = "there is nothing to set, add or remove";
            with.findings.error("missing-key", site.span, site.resource, message);
            return None;
        }
        Some(Arc::new(Compiled { request, response }))
    }
}

fn compile(
    edits: Option<Edits>,
    direction: &str,
    owned: Owned,
    site: &Site<'_>,
    with: &mut Compile<'_>,
) -> Vec<Edit> {
    let Edits { remove, set, add } = edits.unwrap_or_default();
    let mut compiled = Vec::new();
    let resource =
        |list: &str, item: &dyn fmt::Display| format!("{}.{direction}.{list}{item}", site.resource);
    for (index, name) in remove.into_iter().enumerate() {
        let at = resource("remove", &format_args!("[{index}]"));
        if named(&name.value, name.span, owned, &at, with) {
            compiled.push(Edit { name: name.value.into(), what: What::Remove });
        }
    }
    let lists = [("set", set.0, true), ("add", add.0, false)];
    for (list, entries, replace) in lists {
        for (key, text) in entries {
            let at = resource(list, &format_args!(".{key}"));
            let good = named(&key.name, key.span, owned, &at, with);
            let value = value(&text, &at, site, with);
            if let Some(value) = value.filter(|_| good) {
                let what = if replace { What::Set(value) } else { What::Add(value) };
                compiled.push(Edit { name: key.name.into(), what });
            }
        }
    }
    compiled
}

fn named(
    name: &str,
    span: SourceSpan,
    owned: Owned,
    resource: &str,
    with: &mut Compile<'_>,
) -> bool {
    match check_name(name, owned) {
        Ok(()) => true,
        Err(message) => {
            with.findings.error("invalid-value", span, resource, message);
            false
        }
    }
}

fn value(
    text: &Spanned<String>,
    resource: &str,
    site: &Site<'_>,
    with: &mut Compile<'_>,
) -> Option<FieldValue> {
    let (template, secret) = match text.starts_with("file:") || text.starts_with("env:") {
        true => {
            let bytes = with.read(site, text.span, text)?;
            (Ok(ValueTemplate::literal(bytes.trim_ascii())), true)
        }
        false => (ValueTemplate::parse(text), false),
    };
    let template = match template {
        Ok(template) => template,
        Err(fault) => {
            let span = text.span.within(text, &fault.at);
            let mut finding = Finding::error("invalid-value", span, resource, fault.message);
            finding.help = fault.help;
            with.findings.push(finding);
            return None;
        }
    };
    let fixed = template.fixed().unwrap_or(text.as_bytes());
    if !fixed.iter().all(|byte| is_field_byte(*byte)) || fixed.trim_ascii() != fixed {
        let message = "a value has no control characters and no spaces at its ends";
        with.findings.error("invalid-value", text.span, resource, message);
        return None;
    }
    Some(FieldValue { template, secret })
}

/// A value that is not shown where it came from a secret.
struct FieldValue {
    template: ValueTemplate,
    secret: bool,
}

impl fmt::Debug for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.secret {
            true => f.write_str("(secret)"),
            false => self.template.fmt(f),
        }
    }
}

#[derive(Debug)]
struct Edit {
    name: Box<str>,
    what: What,
}

#[derive(Debug)]
enum What {
    Remove,
    Set(FieldValue),
    Add(FieldValue),
}

#[derive(Debug)]
struct Compiled {
    request: Vec<Edit>,
    response: Vec<Edit>,
}

/// Adds a field whose value is in the buffer already; an edit cannot end a line and begin another.
fn push(fields: &mut Fields, name: &[u8], write: impl FnOnce(&mut Vec<u8>) -> Option<()>) {
    let name = fields.intern(name);
    let (value, written) = fields.intern_with(|out| {
        let start = out.len();
        let written = write(out);
        for byte in &mut out[start..] {
            if !is_field_byte(*byte) {
                *byte = b'?';
            }
        }
        written
    });
    if written.is_some() {
        fields.push_parsed(name, value);
    }
}

impl Policy for Compiled {
    fn phase(&self) -> Phase {
        Phase::Transform
    }

    fn request_fields(&self) -> Vec<&str> {
        let decides = |edit: &&Edit| !matches!(edit.what, What::Add(_));
        self.request.iter().filter(decides).map(|edit| &*edit.name).collect()
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        for Edit { name, what } in &self.request {
            let name = name.as_bytes();
            if !matches!(what, What::Add(_)) {
                exchange.request.fields.remove_if(|_, found, _| is_alias(found, name));
            }
            let (What::Set(value) | What::Add(value)) = what else { continue };
            match value.template.fixed() {
                Some(text) => exchange.request.fields.append(name, text),
                None => {
                    // Out of the exchange while it is written to, since the value reads the rest.
                    let mut fields = std::mem::take(&mut exchange.request.fields);
                    push(&mut fields, name, |out| value.template.append_within(exchange, out));
                    exchange.request.fields = fields;
                }
            }
        }
        Step::Continue
    }

    fn on_response<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        response: &'a mut ResponseHead,
        _: &'a dyn Services,
    ) -> Step<'a> {
        let fields = &mut response.fields;
        for Edit { name, what } in &self.response {
            let name = name.as_bytes();
            if !matches!(what, What::Add(_)) {
                fields.remove(name);
            }
            let (What::Set(value) | What::Add(value)) = what else { continue };
            push(fields, name, |out| value.template.append(exchange, out));
        }
        Step::Continue
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::{World, check};

    #[test]
    fn edits_go_both_ways() {
        check(
            "headers",
            r#"{
                request: { remove: [X-Debug], set: { X-Plan: "${claim.plan}", X-Env: prod }, add: { X-Trail: "${client_ip} ${host}" } },
                response: { remove: [server], set: { X-Frame-Options: DENY }, add: { Set-Cookie: "seen=${param.id}" } }
            }"#,
            "192.0.2.7 GET /a | x-debug: 1 | X_Plan: gold | X-Trail: first | :client a | :claim plan=\"free\" | :param id=7 | :answer 200 Server=x Set-Cookie=a=b",
            &expect![[r#"
                continue
                > GET /a
                > X-Trail: first
                > X-Plan: free
                > X-Env: prod
                > X-Trail: 192.0.2.7 api.example.com
                < Set-Cookie: a=b
                < X-Frame-Options: DENY
                < Set-Cookie: seen=7"#]],
        );
    }

    /// A client cannot speak for a variable that has no value.
    #[test]
    fn set_without_a_value_takes_out() {
        check(
            "headers",
            r#"{ request: { set: { X-Client: "${client}" }, add: { X-Tenant: "t-${tenant}" } } }"#,
            "192.0.2.7 GET /a | X-Client: admin",
            &expect![[r#"
                continue
                > GET /a"#]],
        );
    }

    #[test]
    fn a_value_cannot_end_the_line() {
        check(
            "headers",
            r#"{ request: { set: { X-Name: "${claim.name}" } } }"#,
            "192.0.2.7 GET / | :claim name=\"a\\r\\nX-Evil: 1\"",
            &expect![[r#"
                continue
                > GET /
                > X-Name: a??X-Evil: 1"#]],
        );
    }

    #[test]
    fn secrets_come_by_reference_and_are_not_shown() {
        let world = World::default().file("token", "s3cret ${x}\n");
        let policy =
            world.policy("headers", "{ request: { set: { Authorization: \"file:token\" } } }");
        expect![[r#"
            continue
            > GET /
            > Authorization: s3cret ${x}"#]]
        .assert_eq(&world.run(&*policy, "192.0.2.7 GET /"));
        assert!(!format!("{policy:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_the_gateways_does_not_compile() {
        check(
            "headers",
            r#"{
                request: { set: { Host: a, X_Forwarded.For: b, Portcullis_Client: c, "a b": d, X-A: "${clint}" }, remove: [Upgrade, via] },
                response: { add: { Content-Length: "0", X-B: "a\nb", X-C: "file:none" } }
            }"#,
            "192.0.2.7 GET /",
            &expect![[r#"
                error invalid-value at headers.request.remove[0]: `Upgrade` concerns one connection only and never travels on
                error invalid-value at headers.request.remove[1]: `via` cannot be edited: forwarding fields are written by the gateway
                error invalid-value at headers.request.set.Host: `Host` cannot be edited: see `host` of the backend
                error invalid-value at headers.request.set.X_Forwarded.For: `X_Forwarded.For` cannot be edited: forwarding fields are written by the gateway
                error invalid-value at headers.request.set.Portcullis_Client: `Portcullis_Client` is the gateway's: it says who was verified
                error invalid-value at headers.request.set.a b: `a b` is not a field name
                error invalid-value at headers.request.set.X-A: unknown variable `clint` (variables: `${client}`, `${tenant}`, `${auth}`, `${claim.NAME}`, `${client_ip}`, `${request_id}`, `${host}`, `${scheme}`, `${param.NAME}`)
                error invalid-value at headers.response.add.Content-Length: `Content-Length` cannot be edited: framing is written by the gateway
                error invalid-value at headers.response.add.X-B: a value has no control characters and no spaces at its ends
                error unreadable at headers: cannot read file:none: no such file"#]],
        );
        let want = expect!["error missing-key at headers: there is nothing to set, add or remove"];
        check("headers", "{ request: {} }", "192.0.2.7 GET /", &want);
    }
}
