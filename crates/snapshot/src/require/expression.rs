//! Expressions in CEL, the Common Expression Language: what no other rule can say.
//!
//! Everything that can be known without a request is checked when the configuration is loaded
//! ([`check`]). What an expression costs is bounded there too: by its length, and since no loop
//! stands in another, a request costs at most that length for each element of one list. An
//! expression that fails, or is not `true`, refuses.

mod check;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, Program, Value};
use portcullis_core::{Exchange, Identity};

/// Longer expressions are for a program to decide.
const BYTES_MAX: usize = 2048;

/// Functions and macros of the language's standard library, without regular expressions.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A checked expression.
#[derive(Clone)]
pub struct Expression {
    source: String,
    program: Arc<Program>,
    /// The variables that it looks at; no others are made.
    uses: Vec<&'static str>,
}

/// What is wrong with an expression, and where in it.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) at: Range<usize>,
    pub(crate) message: String,
}

impl Expression {
    pub(crate) fn compile(source: &str) -> Result<Self, Fault> {
        let whole = |message: String| Fault { at: 0..source.len(), message };
        if source.len() > BYTES_MAX {
            return Err(whole(format!("an expression has at most {BYTES_MAX} bytes")));
        }
        let program = ENV.compile(source).map_err(|errors| {
            let Some(first) = errors.errors.first() else {
                return whole("it cannot be read".to_owned());
            };
            // Lines and columns count from 1.
            let (line, column) = first.pos;
            let before: usize =
                source.split_inclusive('\n').take((line.max(1) - 1) as usize).map(str::len).sum();
            let start = (before + column.max(1) as usize - 1).min(source.len());
            let message = first.msg.lines().next().unwrap_or_default();
            // The rest lists every token of the language.
            let message = message.split(" expecting ").next().unwrap_or_default();
            Fault { at: start..source.len().min(start + 1), message: message.to_owned() }
        })?;
        let uses = check::check(&program).map_err(|wrong| Fault {
            at: place(source, program.source_info().offset_for(wrong.id)),
            message: wrong.message,
        })?;
        Ok(Self { source: source.to_owned(), program: Arc::new(program), uses })
    }

    pub(super) fn check(&self, identity: &Identity, exchange: &Exchange) -> Result<(), String> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        for name in &self.uses {
            let value = match *name {
                "identity" => of_identity(identity)?,
                "request" => of_request(exchange)?,
                "params" => of_params(exchange),
                "certificate" => of_certificate(exchange),
                _ => Value::Int(i64::try_from(exchange.now.wall.as_secs()).unwrap_or(i64::MAX)),
            };
            context.add_variable_from_value(*name, value);
        }
        // What an error says may quote the caller's claims, which are not for the log.
        match self.program.execute(&context) {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(Value::Bool(false)) => Err(format!("does not fulfil `{}`", self.source)),
            Ok(_) => Err(format!("cannot be judged by `{}`: it is not true or false", self.source)),
            Err(error) => {
                let kind = format!("{error:?}");
                let kind = kind.split(['(', ' ']).next().unwrap_or_default();
                Err(format!("cannot be judged by `{}`: {kind}", self.source))
            }
        }
    }
}

/// The bytes of a part of an expression; a dot and the name after it are one.
fn place(source: &str, offsets: Option<(u32, u32)>) -> Range<usize> {
    let (start, stop) = offsets.unwrap_or_default();
    let start = (start as usize).min(source.len());
    let mut stop = (stop as usize + 1).clamp(start, source.len());
    let rest = source.as_bytes().get(stop..).unwrap_or_default();
    if source.as_bytes().get(start) == Some(&b'.') {
        stop += rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    }
    if source.is_char_boundary(start) && source.is_char_boundary(stop) {
        start..stop
    } else {
        0..source.len()
    }
}

fn map(entries: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value::from(entries.into_iter().collect::<HashMap<String, Value>>())
}

fn strings(list: &[String]) -> Value {
    Value::from(list.iter().map(String::as_str).collect::<Vec<&str>>())
}

fn of_identity(identity: &Identity) -> Result<Value, String> {
    let claims = cel::to_value(&identity.claims).map_err(|_| "has claims of another kind")?;
    Ok(map([
        ("auth".to_owned(), Value::from(&*identity.auth)),
        ("client".to_owned(), Value::from(identity.client.as_str())),
        ("tenant".to_owned(), Value::from(identity.tenant.as_deref().unwrap_or_default())),
        ("scopes".to_owned(), strings(&identity.scopes)),
        ("claims".to_owned(), claims),
    ]))
}

/// A field that is not text cannot be judged: leaving it out would be as if it were not there.
fn of_request(exchange: &Exchange) -> Result<Value, String> {
    let request = &exchange.request;
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map(str::to_owned);
        text.map_err(|_| "sends what is not text".to_owned())
    };
    let mut headers: HashMap<String, String> = HashMap::new();
    for (name, value) in request.fields.iter() {
        let (name, value) = (text(name)?.to_ascii_lowercase(), text(value)?);
        // Several fields of one name are one list (RFC 9110 §5.3).
        headers
            .entry(name)
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert(value);
    }
    Ok(map([
        ("method".to_owned(), Value::from(request.method.as_str())),
        ("host".to_owned(), Value::from(text(request.host())?)),
        ("path".to_owned(), Value::from(text(request.path())?)),
        ("query".to_owned(), Value::from(text(request.query().unwrap_or_default())?)),
        ("client_ip".to_owned(), Value::from(exchange.client_ip.to_string())),
        ("headers".to_owned(), Value::from(headers)),
    ]))
}

fn of_params(exchange: &Exchange) -> Value {
    let names = exchange.params.names.as_deref().unwrap_or_default();
    map(names.iter().filter_map(|name| {
        let value = String::from_utf8(super::decoded(exchange.param(name)?)).ok()?;
        Some((name.to_string(), Value::from(value)))
    }))
}

/// Empty where there is no certificate, or one that has ended.
fn of_certificate(exchange: &Exchange) -> Value {
    let valid = exchange.certificate.as_deref();
    let Some(certificate) = valid.filter(|one| one.not_after > exchange.now.wall) else {
        return map([]);
    };
    map([
        ("subject".to_owned(), Value::from(certificate.subject.as_str())),
        ("dns".to_owned(), strings(&certificate.dns)),
        ("uris".to_owned(), strings(&certificate.uris)),
        ("emails".to_owned(), strings(&certificate.emails)),
        ("serial".to_owned(), Value::from(certificate.serial.as_str())),
        ("sha256".to_owned(), Value::from(portcullis_core::hex::of_bytes(&certificate.sha256))),
    ])
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "when `{}`", self.source)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
