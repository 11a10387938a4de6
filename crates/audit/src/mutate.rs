//! The same request, said otherwise: in ways in which gateways and backends have been made to
//! disagree about whose it is. None of them carries a credential.
//!
//! Whether a way means the same to the gateway is for the oracle to say; here is only what others
//! have fallen for.

use crate::draft::Draft;

/// A request and what was done to it.
#[derive(Clone)]
pub(crate) struct Mutation {
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
    pub(crate) draft: Draft,
    /// HTTP/2 has no such thing.
    pub(crate) h1_only: bool,
}

/// How a `..` has been written to get past somebody.
const PARENTS: &[&str] = &[
    "..",
    "%2e%2e",
    "%2E%2E",
    ".%2e",
    "%252e%252e",
    "..;",
    "..;x=y",
    "..%3b",
    "%2e%2e;",
    "..%00",
    "..%09",
    "%c0%ae%c0%ae",
    "%ef%bc%8e%ef%bc%8e",
    ".%00.",
];

/// How a `/` has.
const SLASHES: &[(&str, &str)] = &[
    ("backslash", "\\"),
    ("encoded backslash", "%5c"),
    ("encoded slash", "%2f"),
    ("encoded slash", "%2F"),
    ("double encoding", "%252f"),
    ("double slash", "//"),
    ("double slash", "///"),
    ("double slash", "/\\"),
    ("encoded slash", "%c0%af"),
    ("encoded slash", "%ef%bc%8f"),
];

/// Fields by which a client has been believed about its method.
const OVERRIDES: &[&str] = &["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"];
/// And about its path.
const REWRITES: &[&str] =
    &["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri", "X-Forwarded-Prefix"];

/// What can be reached without a credential, and where from.
#[derive(Clone, Copy)]
pub(crate) struct Open<'a> {
    /// Paths of public routes on the same listener and host.
    pub(crate) paths: &'a [String],
    /// Methods that are public, or go elsewhere, at the same path.
    pub(crate) methods: &'a [String],
}

/// All of them for one request.
pub(crate) fn all(base: &Draft, open: Open<'_>) -> Vec<Mutation> {
    let mut out = Out { base, mutations: Vec::new() };
    let (path, query) = match base.target.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (&*base.target, String::new()),
    };
    let mut paths = Vec::new();
    spelling(path, &mut paths);
    dots(path, &mut paths);
    slashes(path, &mut paths);
    ends(path, &mut paths);
    for (kind, changed) in paths {
        if changed != path {
            out.path(kind, format!("{changed}{query}"));
        }
    }
    for public in open.paths {
        for (kind, changed) in through(public, path) {
            out.path(kind, format!("{changed}{query}"));
        }
    }
    out.hosts();
    out.forms();
    out.said_twice();
    out.fields(open);
    out.mutations
}

/// The request, with a claim that its method is one of those.
pub(crate) fn overrides(base: &Draft, methods: &[String]) -> Vec<Mutation> {
    let mut out = Out { base, mutations: Vec::new() };
    for method in methods.iter().take(2) {
        for name in OVERRIDES {
            let detail = format!("{name}: {method}");
            let field = |draft: &mut Draft| draft.add(name, method.clone());
            out.add("method override", detail, false, field);
        }
        let pair = format!("_method={method}");
        out.add("method override", pair.clone(), false, |draft| draft.add_query(&pair));
    }
    out.mutations
}

type Paths = Vec<(&'static str, String)>;

/// The same letters in other ways.
fn spelling(path: &str, out: &mut Paths) {
    out.push(("case", path.to_ascii_uppercase()));
    out.push(("case", path.to_ascii_lowercase()));
    out.push(("case", swapped_at(path, 1)));
    let Some(at) = path.bytes().position(|byte| byte.is_ascii_alphanumeric()) else { return };
    let byte = path.as_bytes()[at];
    let (before, after) = (&path[..at], &path[at + 1..]);
    out.push(("percent-encoding", format!("{before}%{byte:02x}{after}")));
    out.push(("percent-encoding", format!("{before}%{byte:02X}{after}")));
    out.push(("double encoding", format!("{before}%25{byte:02x}{after}")));
    out.push(("double encoding", format!("{before}%2525{byte:02x}{after}")));
    // As UTF-8 that is longer than it may be, and as no UTF-8 at all.
    let long = format!("%{:02x}%{:02x}", 0xc0 | byte >> 6, 0x80 | byte & 0x3f);
    out.push(("percent-encoding", format!("{before}{long}{after}")));
    out.push(("percent-encoding", format!("{before}%u00{byte:02x}{after}")));
    let everything: String = path
        .bytes()
        .map(|byte| if byte == b'/' { "/".to_owned() } else { format!("%{byte:02x}") })
        .collect();
    out.push(("percent-encoding", everything));
}

fn swapped_at(path: &str, at: usize) -> String {
    let swap = |(number, c): (usize, char)| match c.is_ascii_lowercase() {
        _ if number != at => c,
        true => c.to_ascii_uppercase(),
        false => c.to_ascii_lowercase(),
    };
    path.chars().enumerate().map(swap).collect()
}

fn dots(path: &str, out: &mut Paths) {
    let rest = path.trim_start_matches('/');
    out.push(("dot segment", format!("/./{rest}")));
    out.push(("dot segment", format!("{path}/.")));
    out.push(("encoded dot segment", format!("/%2e/{rest}")));
    for parent in PARENTS {
        let kind = match *parent {
            ".." => "dot segment",
            parent if parent.contains(';') || parent.contains("%3b") => "path parameter",
            _ => "encoded dot segment",
        };
        out.push((kind, format!("/audit/{parent}/{rest}")));
        out.push((kind, format!("{path}/audit/{parent}")));
    }
    out.push(("dot segment", format!("/../{rest}")));
}

fn slashes(path: &str, out: &mut Paths) {
    let rest = path.trim_start_matches('/');
    let inner = rest.find('/').map(|at| at + 1);
    for (kind, slash) in SLASHES {
        if *slash == "//" || *slash == "///" || *slash == "/\\" {
            out.push((kind, format!("{slash}{rest}")));
        } else {
            out.push((kind, format!("/{slash}{rest}")));
        }
        if let Some(at) = inner {
            out.push((kind, format!("{}{slash}{}", &path[..at], &path[at + 1..])));
        }
    }
}

/// What has been hung on the end of a path, or of its first segment.
fn ends(path: &str, out: &mut Paths) {
    let bare = path.trim_end_matches('/');
    for (kind, end) in [
        ("trailing slash", "/"),
        ("trailing dot", "."),
        ("trailing dot", "/."),
        ("trailing dot", "/.."),
        ("trailing dot", "%2e"),
        ("path parameter", ";"),
        ("path parameter", ";audit=1"),
        ("path parameter", ";.css"),
        ("path parameter", "%3baudit"),
        ("path parameter", "/;/"),
        ("trailing byte", "%00"),
        ("trailing byte", "%20"),
        ("trailing byte", "%09"),
        ("trailing byte", "%0a"),
        ("trailing byte", "%23"),
        ("trailing byte", "%3f"),
        ("trailing byte", "*"),
        ("trailing byte", "~"),
        ("extension", ".json"),
        ("extension", "/audit.css"),
        ("fragment", "#audit"),
        ("query", "?"),
        ("query", "?/../"),
    ] {
        out.push((kind, format!("{bare}{end}")));
    }
    let rest = path.trim_start_matches('/');
    if let Some((first, rest)) = rest.split_once('/') {
        out.push(("path parameter", format!("/{first};audit/{rest}")));
        out.push(("path parameter", format!("/{first};/{rest}")));
    }
    out.push(("path parameter", format!("/;audit/{rest}")));
}

/// In by the path of a public route, and out of it to this one.
fn through(public: &str, path: &str) -> Paths {
    let public = public.trim_end_matches('/');
    let depth = public.matches('/').count().max(1);
    let rest = path.trim_start_matches('/');
    let mut out = Vec::new();
    for parent in PARENTS {
        let up = vec![*parent; depth].join("/");
        out.push(("traversal from a public route", format!("{public}/{up}/{rest}")));
    }
    for slash in ["\\", "%2f", "%2F", "%5c", "%252f"] {
        let up = "..".to_owned() + &format!("{slash}..").repeat(depth - 1);
        out.push(("traversal from a public route", format!("{public}/{up}{slash}{rest}")));
        out.push(("traversal from a public route", format!("{public}{slash}{up}{slash}{rest}")));
    }
    out.push(("traversal from a public route", format!("{public};/{}{rest}", "../".repeat(depth))));
    out.push(("path of a public route at the end", format!("{path};{public}")));
    out.push(("path of a public route at the end", format!("{path}?{public}")));
    out.push(("path of a public route at the end", format!("{path}%3f{public}")));
    out.push(("path of a public route at the end", format!("{path}%23{public}")));
    out
}

struct Out<'a> {
    base: &'a Draft,
    mutations: Vec<Mutation>,
}

impl Out<'_> {
    fn path(&mut self, kind: &'static str, target: String) {
        let detail = target.clone();
        self.add(kind, detail, false, |draft| draft.target = target);
    }

    fn add(
        &mut self,
        kind: &'static str,
        detail: String,
        h1_only: bool,
        change: impl FnOnce(&mut Draft),
    ) {
        let mut draft = self.base.clone();
        change(&mut draft);
        self.mutations.push(Mutation { kind, detail, draft, h1_only });
    }

    /// The same host. Names of hosts are looked at without case, port and closing dot.
    fn hosts(&mut self) {
        let host = self.base.authority.clone();
        let bare = host.trim_end_matches('.');
        let port = if self.base.https { 443 } else { 80 };
        for (detail, host) in [
            ("upper case", host.to_ascii_uppercase()),
            ("trailing dot", format!("{bare}.")),
            ("port", format!("{host}:{port}")),
            ("another port", format!("{host}:1")),
            ("dot and port", format!("{bare}.:{port}")),
        ] {
            self.add("host", detail.to_owned(), false, |draft| draft.authority = host);
        }
    }

    fn forms(&mut self) {
        let absolute = |draft: &mut Draft| draft.absolute = true;
        self.add("absolute form", String::new(), true, absolute);
        self.add("absolute form", "another host in `Host`".to_owned(), true, |draft| {
            draft.absolute = true;
            draft.add("Host", "audit.invalid");
        });
    }

    /// Fields that the route is found by, with another value beside theirs.
    fn said_twice(&mut self) {
        for (name, _) in self.base.fields.clone() {
            let detail = format!("{name}, another value first");
            self.add("field said twice", detail, false, |draft| {
                draft.fields.insert(0, (name.clone(), "audit".to_owned()));
            });
            let detail = format!("{name}, another value last");
            self.add("field said twice", detail, false, |draft| draft.add(&name, "audit"));
        }
    }

    /// What a client says about its own request in other fields.
    fn fields(&mut self, open: Open<'_>) {
        self.mutations.extend(overrides(self.base, open.methods));
        for path in open.paths.iter().take(1) {
            for name in REWRITES {
                let detail = format!("{name}: {path}");
                let field = |draft: &mut Draft| draft.add(name, path.clone());
                self.add("path override", detail, false, field);
            }
        }
        for (name, value) in [
            ("Portcullis-Client", "audit-admin"),
            ("Portcullis-Auth", "audit"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-User", "audit-admin"),
            ("Client-Cert", ":AA==:"),
            ("Connection", "authorization, close"),
        ] {
            // HTTP/2 has no `Connection`.
            let h1_only = name == "Connection";
            let field = |draft: &mut Draft| draft.add(name, value);
            self.add("said by the client", format!("{name}: {value}"), h1_only, field);
        }
        self.add("preflight", String::new(), false, |draft| {
            let method = std::mem::replace(&mut draft.method, "OPTIONS".to_owned());
            draft.add("Origin", "https://audit.invalid");
            draft.add("Access-Control-Request-Method", method);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_said_in_many_ways_and_each_but_once() {
        let base = Draft {
            method: "GET".to_owned(),
            authority: "a.example".to_owned(),
            target: "/orders/any?q=1".to_owned(),
            ..Draft::default()
        };
        let (paths, methods) = (["/status/any".to_owned()], ["POST".to_owned()]);
        let all = all(&base, Open { paths: &paths, methods: &methods });
        let has = |target: &str| all.iter().any(|mutation| mutation.draft.target == target);
        for target in [
            "/ORDERS/ANY?q=1",
            "/%6frders/any?q=1",
            "/orders%2fany?q=1",
            "/orders;audit/any?q=1",
            "/audit/..;/orders/any?q=1",
            "//orders/any?q=1",
            "/status/any/%2e%2e/%2e%2e/orders/any?q=1",
            "/status/any/..\\..\\orders/any?q=1",
            "/orders/any/?q=1",
            "/orders/any?q=1&_method=POST",
        ] {
            assert!(has(target), "{target}");
        }
        let changed = all.iter().filter(|mutation| mutation.draft == base).count();
        assert_eq!(changed, 0, "nothing is sent as it was");
        assert!(all.len() > 100, "{}", all.len());
    }
}
