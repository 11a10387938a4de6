//! A request as the audit is about to send it, in either version of HTTP, and as a line of shell
//! that sends it once more.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, Method, Request, Uri};

/// By this field the stub backend knows which probe has come through.
pub(crate) const PROBE: &str = "x-audit-probe";

/// What stands in the shell for a credential that is too long to be read.
const SHOWN_MAX: usize = 400;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) method: String,
    /// `Host`, or `:authority`.
    pub(crate) authority: String,
    /// Path and query, not a byte of it changed on the way out.
    pub(crate) target: String,
    /// HTTP/1.1 only: the target is sent as a whole URL (RFC 9112 §3.2.2).
    pub(crate) absolute: bool,
    pub(crate) https: bool,
    pub(crate) fields: Vec<(String, String)>,
}

impl Draft {
    pub(crate) fn add(&mut self, name: &str, value: impl Into<String>) {
        self.fields.push((name.to_owned(), value.into()));
    }

    /// `NAME=VALUE`, at the end of the query.
    pub(crate) fn add_query(&mut self, pair: &str) {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(pair);
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Whether a request of this method says how long its body is, even when there is none.
    fn has_length(&self) -> bool {
        matches!(&*self.method, "POST" | "PUT" | "PATCH")
    }

    /// Appends it as HTTP/1.1.
    pub(crate) fn write_h1(&self, probe: u32, out: &mut Vec<u8>) {
        let mut text = String::with_capacity(256);
        text.push_str(&self.method);
        text.push(' ');
        if self.absolute {
            text.push_str(self.scheme());
            text.push_str("://");
            text.push_str(&self.authority);
        }
        for part in [&*self.target, " HTTP/1.1\r\nHost: ", &self.authority, "\r\n"] {
            text.push_str(part);
        }
        for (name, value) in &self.fields {
            for part in [&**name, ": ", value, "\r\n"] {
                text.push_str(part);
            }
        }
        if self.has_length() {
            text.push_str("Content-Length: 0\r\n");
        }
        // A string takes everything that is written to it.
        write!(text, "{PROBE}: {probe}\r\n\r\n").unwrap_or_default();
        out.extend_from_slice(text.as_bytes());
    }

    /// The same for HTTP/2; `None` where a request of HTTP/2 cannot be made of it.
    pub(crate) fn h2(&self, probe: u32) -> Option<Request<()>> {
        let uri = Uri::builder()
            .scheme(self.scheme())
            .authority(&*self.authority)
            .path_and_query(&*self.target)
            .build()
            .ok()?;
        // The library would leave out what it takes for a fragment.
        if self.absolute || self.target.contains('#') {
            return None;
        }
        let mut request = Request::new(());
        *request.method_mut() = Method::from_bytes(self.method.as_bytes()).ok()?;
        *request.uri_mut() = uri;
        let fields = request.headers_mut();
        for (name, value) in &self.fields {
            let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).ok()?;
            fields.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
        if self.has_length() {
            fields.append("content-length", HeaderValue::from_static("0"));
        }
        fields.append(PROBE, HeaderValue::from(probe));
        Some(request)
    }

    /// The same request, for a shell. `connect` is where to, if that is not what the URL says.
    pub(crate) fn curl(&self, http2: bool, connect: &str) -> String {
        let version = match (http2, self.https) {
            (false, _) => "--http1.1",
            (true, true) => "--http2",
            (true, false) => "--http2-prior-knowledge",
        };
        let mut line = format!("curl -sik {version} --path-as-is");
        match &*self.method {
            "GET" => {}
            "HEAD" => line += " --head",
            method => line += &format!(" -X {}", quoted(method)),
        }
        if self.has_length() {
            line += " -H 'Content-Length: 0'";
        }
        for (name, value) in &self.fields {
            let shown = match value.get(..SHOWN_MAX).filter(|_| value.len() > SHOWN_MAX) {
                Some(start) => format!("{start}…"),
                None => value.clone(),
            };
            line += &format!(" -H {}", quoted(&format!("{name}: {shown}")));
        }
        if self.absolute {
            let whole = format!("{}://{}{}", self.scheme(), self.authority, self.target);
            line += &format!(" --request-target {}", quoted(&whole));
        }
        line += &format!(
            " -H {} --connect-to ::{connect}",
            quoted(&format!("Host: {}", self.authority))
        );
        let url = format!("{}://{}{}", self.scheme(), self.url_host(), self.target);
        line + " " + &quoted(&url)
    }

    /// The authority as it can stand in a URL: without what only a `Host` field can say.
    fn url_host(&self) -> &str {
        self.authority.trim_end_matches('.')
    }
}

/// For a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn draft() -> Draft {
        Draft {
            method: "POST".to_owned(),
            authority: "a.example".to_owned(),
            target: "/it's/..;/x?y".to_owned(),
            fields: vec![("Authorization".to_owned(), "Bearer x".to_owned())],
            ..Draft::default()
        }
    }

    #[test]
    fn it_is_sent_as_it_is() {
        let mut out = Vec::new();
        Draft { absolute: true, ..draft() }.write_h1(7, &mut out);
        expect![[r#"
            POST http://a.example/it's/..;/x?y HTTP/1.1
            Host: a.example
            Authorization: Bearer x
            Content-Length: 0
            x-audit-probe: 7

        "#]]
        .assert_eq(&String::from_utf8(out).unwrap().replace('\r', ""));
        let request = draft().h2(7).unwrap();
        assert_eq!(request.uri().to_string(), "http://a.example/it's/..;/x?y");
        assert_eq!(request.headers()[PROBE], "7");
        assert!(Draft { absolute: true, ..draft() }.h2(7).is_none());
        assert!(Draft { target: "/a#b".to_owned(), ..draft() }.h2(7).is_none());
    }

    #[test]
    fn a_shell_reads_it_as_it_is() {
        expect![[r#"curl -sik --http1.1 --path-as-is -X 'POST' -H 'Content-Length: 0' -H 'Authorization: Bearer x' -H 'Host: a.example' --connect-to ::127.0.0.1:1 'http://a.example/it'\''s/..;/x?y'"#]]
            .assert_eq(&draft().curl(false, "127.0.0.1:1"));
    }
}
