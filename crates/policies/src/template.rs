//! Texts with places to fill in: header values with variables, paths with the route's parameters.
//!
//! Both are read once, at compile; filling in copies bytes and formats nothing but addresses.

use std::io::Write as _;
use std::ops::Range;

use portcullis_core::Exchange;
use portcullis_core::decode::Fault;
use portcullis_core::head::Span;

/// A header value: text with `${VARIABLE}` in it. `$${` stands for `${`.
#[derive(Clone, Debug)]
pub(crate) struct ValueTemplate(Vec<ValuePiece>);

#[derive(Clone, Debug)]
enum ValuePiece {
    Text(Box<[u8]>),
    Variable(Variable),
}

#[derive(Clone, Debug)]
enum Variable {
    Client,
    Tenant,
    Auth,
    ClientIp,
    RequestId,
    Host,
    Scheme,
    Claim(Box<str>),
    Param(Box<str>),
}

const VARIABLES: &str = "variables: `${client}`, `${tenant}`, `${auth}`, `${claim.NAME}`, \
    `${client_ip}`, `${request_id}`, `${host}`, `${scheme}`, `${param.NAME}`";

impl Variable {
    fn read(name: &str) -> Option<Self> {
        Some(match name {
            "client" => Self::Client,
            "tenant" => Self::Tenant,
            "auth" => Self::Auth,
            "client_ip" => Self::ClientIp,
            "request_id" => Self::RequestId,
            "host" => Self::Host,
            "scheme" => Self::Scheme,
            _ => match name.split_once('.')? {
                ("claim", name) if !name.is_empty() => Self::Claim(name.into()),
                ("param", name) if !name.is_empty() => Self::Param(name.into()),
                _ => return None,
            },
        })
    }

    /// What stands in the request's own buffer; everything else is in [`Self::append`].
    fn span(&self, exchange: &Exchange) -> Option<Span> {
        match self {
            Self::Host => Some(exchange.request.host),
            Self::Param(name) => {
                let mut names = exchange.params.names.as_ref()?.iter();
                exchange.params.values.get(names.position(|n| n == name)?).copied()
            }
            _ => None,
        }
    }

    /// `None` where the request has no such thing.
    fn append(&self, exchange: &Exchange, out: &mut Vec<u8>) -> Option<()> {
        let identity = exchange.identity.as_deref();
        match self {
            Self::Client => out.extend_from_slice(identity?.client.as_bytes()),
            Self::Tenant => out.extend_from_slice(identity?.tenant.as_ref()?.as_bytes()),
            Self::Auth => out.extend_from_slice(identity?.auth.as_bytes()),
            Self::ClientIp => write!(out, "{}", exchange.client_ip).ok()?,
            Self::RequestId => out.extend_from_slice(exchange.request_id.as_str().as_bytes()),
            Self::Scheme => out.extend_from_slice(exchange.request.scheme.as_str().as_bytes()),
            Self::Claim(path) => match identity?.claim(path)? {
                serde_json::Value::String(text) => out.extend_from_slice(text.as_bytes()),
                other => serde_json::to_writer(out, other).ok()?,
            },
            // These have spans, or nothing.
            Self::Host | Self::Param(_) => return None,
        }
        Some(())
    }
}

impl ValueTemplate {
    /// # Errors
    /// A place where a variable is not closed or not known.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut at = 0;
        while let Some(found) = text[at..].find("${") {
            let start = at + found;
            let escaped = text[at..start].ends_with('$');
            plain.extend_from_slice(&text.as_bytes()[at..start - usize::from(escaped)]);
            if escaped {
                plain.extend_from_slice(b"${");
                at = start + 2;
                continue;
            }
            let Some(length) = text[start..].find('}') else {
                return Err(Fault::new(start..text.len(), "a `${` without its `}`")
                    .help("write `$${` for a literal `${`"));
            };
            let name = &text[start + 2..start + length];
            let Some(variable) = Variable::read(name) else {
                let message = format!("unknown variable `{name}`");
                return Err(Fault::new(start..start + length + 1, message).help(VARIABLES));
            };
            if !plain.is_empty() {
                pieces.push(ValuePiece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(ValuePiece::Variable(variable));
            at = start + length + 1;
        }
        plain.extend_from_slice(&text.as_bytes()[at..]);
        if !plain.is_empty() || pieces.is_empty() {
            pieces.push(ValuePiece::Text(plain.into()));
        }
        Ok(Self(pieces))
    }

    /// A text without variables, whatever is in it.
    pub(crate) fn literal(text: &[u8]) -> Self {
        Self(vec![ValuePiece::Text(text.into())])
    }

    /// The value, if it is the same for every request.
    pub(crate) fn fixed(&self) -> Option<&[u8]> {
        match self.0.as_slice() {
            [ValuePiece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the value; `None` if the request lacks something that it names.
    pub(crate) fn append(&self, exchange: &Exchange, out: &mut Vec<u8>) -> Option<()> {
        self.each(out, |variable, out| match variable.span(exchange) {
            Some(span) => {
                out.extend_from_slice(span.of(exchange.request.fields.bytes()));
                Some(())
            }
            None => variable.append(exchange, out),
        })
    }

    /// The same where `out` is the buffer of the request's own fields, taken out of the exchange.
    pub(crate) fn append_within(&self, exchange: &Exchange, out: &mut Vec<u8>) -> Option<()> {
        self.each(out, |variable, out| match variable.span(exchange) {
            Some(span) => {
                out.extend_from_within(span.start as usize..span.end());
                Some(())
            }
            None => variable.append(exchange, out),
        })
    }

    fn each(
        &self,
        out: &mut Vec<u8>,
        append: impl Fn(&Variable, &mut Vec<u8>) -> Option<()>,
    ) -> Option<()> {
        self.0.iter().try_for_each(|piece| match piece {
            ValuePiece::Text(text) => {
                out.extend_from_slice(text);
                Some(())
            }
            ValuePiece::Variable(variable) => append(variable, out),
        })
    }
}

/// A path with `{NAME}` where the route's template has captured something.
#[derive(Clone, Debug)]
pub(crate) struct PathTemplate(Vec<PathPiece>);

#[derive(Clone, Debug)]
enum PathPiece {
    Text(Box<[u8]>),
    Param(Box<str>),
}

impl PathTemplate {
    /// # Errors
    /// A brace without its partner, or an empty name.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(found) = text[at..].find(['{', '}']) {
            let start = at + found;
            let end = text[start..].find('}').map(|length| start + length);
            let name = end.filter(|end| *end > start + 1).map(|end| &text[start + 1..end]);
            let Some((name, end)) = name.filter(|name| !name.contains('{')).zip(end) else {
                let range: Range<usize> = start..end.map_or(text.len(), |end| end + 1);
                return Err(Fault::new(range, "a parameter is written `{name}`"));
            };
            if start > at {
                pieces.push(PathPiece::Text(text.as_bytes()[at..start].into()));
            }
            pieces.push(PathPiece::Param(name.into()));
            at = end + 1;
        }
        if at < text.len() {
            pieces.push(PathPiece::Text(text.as_bytes()[at..].into()));
        }
        Ok(Self(pieces))
    }

    /// The text with some segment in place of every parameter.
    pub(crate) fn sample(&self) -> Vec<u8> {
        let piece = |piece: &PathPiece| match piece {
            PathPiece::Text(text) => text.to_vec(),
            PathPiece::Param(_) => b"x".to_vec(),
        };
        self.0.iter().flat_map(piece).collect()
    }

    /// # Errors
    /// The name of a parameter that the route has not captured.
    pub(crate) fn append<'a>(
        &'a self,
        exchange: &Exchange,
        out: &mut Vec<u8>,
    ) -> Result<(), &'a str> {
        for piece in &self.0 {
            match piece {
                PathPiece::Text(text) => out.extend_from_slice(text),
                PathPiece::Param(name) => {
                    out.extend_from_slice(exchange.param(name).ok_or(&**name)?);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn value(text: &str) -> String {
        let request = "192.0.2.7 GET / | :client alice | :claim plan=\"gold\" | :param id=7";
        let exchange = World::default().exchange(request);
        let template = match ValueTemplate::parse(text) {
            Ok(template) => template,
            Err(fault) => return format!("{:?} {}", fault.at, fault.message),
        };
        let mut out = Vec::new();
        match template.append(&exchange, &mut out) {
            Some(()) => String::from_utf8(out).unwrap(),
            None => "nothing".to_owned(),
        }
    }

    #[test]
    fn values() {
        for (text, expected) in [
            ("", ""),
            ("plain $5 {x} $", "plain $5 {x} $"),
            ("${client}@${client_ip}", "alice@192.0.2.7"),
            ("<${auth}/${claim.plan}/${param.id}>", "<idp/gold/7>"),
            ("${host} ${scheme}", "api.example.com https"),
            ("$${client} ${request_id}", "${client} 00000000000000000000000000c0ffee"),
            ("${tenant}", "nothing"),
            ("${claim.none}", "nothing"),
            ("${param.none}", "nothing"),
            ("a ${clint}", "2..10 unknown variable `clint`"),
            ("a ${client", "2..10 a `${` without its `}`"),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn paths() {
        let exchange = World::default().exchange("192.0.2.7 GET / | :param id=7 | :param x=b");
        for (text, expected) in [
            ("/a", "/a"),
            ("/{id}", "/7"),
            ("/a/{id}-{x}/c", "/a/7-b/c"),
            ("/{other}", "no other"),
            ("/{", "1..2 a parameter is written `{name}`"),
            ("/{}", "1..3 a parameter is written `{name}`"),
            ("/{a{b}", "1..6 a parameter is written `{name}`"),
            ("/a}", "2..3 a parameter is written `{name}`"),
        ] {
            let mut out = Vec::new();
            let seen = match PathTemplate::parse(text) {
                Err(fault) => format!("{:?} {}", fault.at, fault.message),
                Ok(template) => match template.append(&exchange, &mut out) {
                    Ok(()) => String::from_utf8(out).unwrap(),
                    Err(name) => format!("no {name}"),
                },
            };
            assert_eq!(seen, expected, "{text}");
        }
    }
}
