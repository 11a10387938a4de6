//! A real issuer: npm's `oidc-provider`, run by node as a process of its own on a free port.
//!
//! For tests in modules called `real`. What it is can be changed while it runs, so keys rotate
//! under load; dropped, it is down, and may be started again on the same port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Serialize;
use serde_json::{Value, json};

/// The release that tests are written for.
const PACKAGE: &str = "oidc-provider@9";
const PROGRAM: &str = include_str!("oidc_provider.mjs");

/// What the issuer is to be.
#[derive(Clone, Debug, Serialize)]
pub struct Issuer {
    /// 0: any free port. Read when it starts only.
    pub port: u16,
    /// As `oidc-provider` takes them (RFC 7591 §2).
    pub clients: Value,
    /// `{kid, alg}` of the signing keys, which are made on the spot and known by their `kid` while
    /// the process lives. The first of an algorithm signs. `alg` is `RS256` (the default), `PS256`,
    /// `ES256` or `EdDSA`. Empty: the development keys of the package.
    pub keys: Vec<Value>,
    /// A key set with private keys, instead of `keys`.
    pub jwks: Option<Value>,
    /// Makes access tokens JWTs (RFC 9068): `{audience, scope, alg}`. Without it they are opaque,
    /// and good at `/me` and `/token/introspection`.
    pub resource: Option<Value>,
    /// Whether it exchanges the opaque tokens that clients have got for themselves (RFC 8693); what
    /// it gives says at introspection whose token it was (`subject`), who got it (`act`) and for
    /// whom (`for`).
    pub exchange: bool,
    /// What cookies are signed with.
    pub cookies: Vec<String>,
    /// Anything else of the package's configuration that can be said in JSON.
    pub config: Value,
}

impl Default for Issuer {
    /// One client, `shop`, with the secret `a-secret-of-the-test`, that may get JWTs for
    /// `urn:example:orders` by client credentials.
    fn default() -> Self {
        Self {
            port: 0,
            clients: json!([{
                "client_id": "shop", "client_secret": "a-secret-of-the-test",
                "redirect_uris": [], "response_types": [], "grant_types": ["client_credentials"],
            }]),
            keys: Vec::new(),
            jwks: None,
            resource: Some(json!({ "audience": "urn:example:orders", "scope": "orders:read" })),
            exchange: false,
            cookies: vec!["a-cookie-key-of-the-test".to_owned()],
            config: json!({}),
        }
    }
}

/// The running process; it ends with this.
#[derive(Debug)]
pub struct OidcProvider {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl OidcProvider {
    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// Where node or npm are missing, or the package cannot be installed.
    #[must_use]
    pub fn start(issuer: &Issuer) -> Self {
        let mut child = Command::new("node")
            .arg(program())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's package nodejs; `cargo xtask setup` installs it");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut started = Self { child, input, output, port: 0 };
        started.change(issuer);
        started
    }

    /// Makes it another issuer at the same address; requests after this meet the new one.
    ///
    /// # Panics
    /// Where `oidc-provider` does not take the settings.
    pub fn change(&mut self, issuer: &Issuer) {
        writeln!(self.input, "{}", serde_json::to_string(issuer).unwrap()).unwrap();
        let mut line = String::new();
        while !line.starts_with("ready ") {
            line.clear();
            let read = self.output.read_line(&mut line).unwrap();
            assert_ne!(read, 0, "oidc-provider does not take {issuer:?}");
        }
        self.port = line["ready ".len()..].trim().parse().unwrap();
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As its tokens name it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How often a path was asked for.
    #[must_use]
    pub fn asked(&self, path: &str) -> u64 {
        let answer = self.ask("GET", "/asked", &[], "");
        answer.get(path).and_then(Value::as_u64).unwrap_or(0)
    }

    /// An access token by the client credentials grant (RFC 6749 §4.4).
    ///
    /// # Panics
    /// Where it gives none.
    #[must_use]
    pub fn token(&self, client: &str, secret: &str, scope: &str) -> String {
        let form = format!(
            "grant_type=client_credentials&client_id={client}&client_secret={secret}&scope={}",
            scope.replace(':', "%3A").replace(' ', "+"),
        );
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let answer = self.ask("POST", "/token", &kind, &form);
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// One exchange on a connection of its own; the JSON of the answer.
    ///
    /// # Panics
    /// Where the answer is no JSON.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Value {
        let mut tcp = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        // HTTP/1.0, so that the answer is not in chunks.
        let mut request = format!("{method} {path} HTTP/1.0\r\nhost: 127.0.0.1:{}\r\n", self.port);
        for (name, value) in fields {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());
        tcp.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).unwrap();
        let (_, json) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(json).unwrap_or_else(|_| panic!("{answer}"))
    }
}

/// The program beside the installed package, where node looks for it.
fn program() -> PathBuf {
    let home = installed();
    let place = home.join("provider.mjs");
    if std::fs::read_to_string(&place).ok().as_deref() != Some(PROGRAM) {
        // Tests that begin at once write the same text; each sees a whole file.
        let own = home.join(format!("provider.{}.mjs", std::process::id()));
        std::fs::write(&own, PROGRAM).unwrap();
        std::fs::rename(&own, &place).unwrap();
    }
    place
}

/// Installed once, below `target`; tests of other processes may be about it as well.
fn installed() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace.join("target"), Into::into);
    let home = target.join(PACKAGE.replace('@', "-"));
    if home.is_dir() {
        return home;
    }
    let own = target.join(format!("{}.{}", PACKAGE.replace('@', "-"), std::process::id()));
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("package.json"), r#"{"private":true,"type":"module"}"#).unwrap();
    let npm = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--loglevel=error", PACKAGE])
        .current_dir(&own)
        .status()
        .expect("Debian's package npm; `cargo xtask setup` installs it");
    assert!(npm.success(), "npm install {PACKAGE}");
    if std::fs::rename(&own, &home).is_err() {
        // Somebody else was faster.
        std::fs::remove_dir_all(&own).unwrap();
    }
    home
}
