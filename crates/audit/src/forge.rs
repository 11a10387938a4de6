//! Making credentials: for each kind of authentication the good one, and all the bad ones that
//! must not let anybody in. A kind is one file with one function, and its line in [`FORGERS`].
//!
//! Forgers read what the operator has written and make the issuer, the file of keys or the
//! authority that it refers to. They share no code with the authenticators: what both got wrong
//! together nobody would find.

mod api_keys;
mod basic;
pub(crate) mod clients;
mod forward;
mod hmac;
mod introspection;
mod jwt;
mod keys;
mod mtls;
mod oidc;
mod signature;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_config::Config;
use portcullis_core::calendar::Time;
use portcullis_core::node::Node;
use portcullis_proxy::Clock;
use serde_json::{Map, Value, json};

use crate::certificates::{Authority, ClientIdentity, Failure};
use crate::draft::Draft;
use crate::needs::Needs;
use crate::send::Presented;
use crate::world::{Page, json as page};

/// The kinds that the audit has a forger for, in alphabetical order. Routes that take only others
/// are not covered, which is a failure.
const FORGERS: &[(&str, Forge)] = &[
    ("api_keys", api_keys::forge),
    ("basic", basic::forge),
    ("forward", forward::forge),
    ("hmac", hmac::forge),
    ("introspection", introspection::forge),
    ("jwt", jwt::forge),
    ("mtls", mtls::forge),
    ("oidc", oidc::forge),
    ("signature", signature::forge),
];

/// What a bad credential is bad by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    /// One of a fixed list of names, which reports go by.
    pub(crate) kind: &'static str,
    /// What exactly, where a kind has several.
    pub(crate) detail: String,
    /// With which methods it is bad. Default: with all.
    pub(crate) methods: Option<&'static [&'static str]>,
}

impl Bad {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self::of(kind, "")
    }

    pub(crate) fn of(kind: &'static str, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), methods: None }
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.detail {
            "" => f.write_str(self.kind),
            detail => write!(f, "{}: {detail}", self.kind),
        }
    }
}

/// Who a good credential says is calling, as the backend is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) client: String,
    pub(crate) tenant: Option<String>,
    pub(crate) scopes: Vec<String>,
    /// What else the gateway learns of it.
    pub(crate) claims: Map<String, Value>,
}

type Apply = Arc<dyn Fn(&mut Draft) + Send + Sync>;

/// A credential as a connection, or a hop before the gateway, presents it.
#[derive(Clone, Debug, Default)]
pub(crate) struct OnListener {
    /// In the handshake; by default there is none, whatever the listener demands.
    pub(crate) certificate: Presented,
    /// The address that it comes from.
    pub(crate) peer: Option<IpAddr>,
    /// What the hop says.
    pub(crate) fields: Vec<(String, String)>,
    /// Whose certificate the hop hands on.
    pub(crate) handed_on: Option<usize>,
}

/// By the number of the listener.
pub(crate) type ByListener = HashMap<u16, OnListener>;

/// A way to present something to a gateway.
#[derive(Clone)]
pub(crate) struct Credential {
    /// Puts it into a request. May make another one each time: a nonce, a signature.
    pub(crate) apply: Apply,
    /// What it is on the connections of each listener, where that matters.
    pub(crate) by_listener: ByListener,
    /// Without TLS it has to come from this machine.
    pub(crate) near: bool,
    /// Texts of which none may reach a backend.
    pub(crate) secrets: Vec<String>,
}

impl Credential {
    pub(crate) fn new(apply: impl Fn(&mut Draft) + Send + Sync + 'static) -> Self {
        let (by_listener, secrets) = (HashMap::new(), Vec::new());
        Self { apply: Arc::new(apply), by_listener, near: false, secrets }
    }

    /// In one field of the head.
    pub(crate) fn field(name: &str, value: impl Into<String>) -> Self {
        let (name, value) = (name.to_owned(), value.into());
        Self::new(move |draft| draft.add(&name, value.clone()))
    }

    /// With a text that the backend must not see.
    pub(crate) fn secret(mut self, text: &str) -> Self {
        self.secrets.push(text.to_owned());
        self
    }

    /// Both of them in one request.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let (first, second) = (Arc::clone(&self.apply), Arc::clone(&other.apply));
        let apply = move |draft: &mut Draft| {
            first(draft);
            second(draft);
        };
        Self {
            apply: Arc::new(apply),
            by_listener: self.by_listener.clone(),
            near: self.near || other.near,
            secrets: self.secrets.iter().chain(&other.secrets).cloned().collect(),
        }
    }
}

/// What one entry of `auth` is to be tried with, for callers with these needs.
pub(crate) struct Forged {
    pub(crate) good: Credential,
    pub(crate) caller: Caller,
    pub(crate) bad: Vec<(Bad, Credential)>,
    /// What has to be gone through before anything is presented.
    pub(crate) logins: Vec<Login>,
    /// Credentials that are good once, and are used up before anything else is sent.
    pub(crate) used: Vec<Credential>,
    /// Fields beside the gateway's own that no client may tell a backend.
    pub(crate) spoofed: Vec<String>,
}

/// The session that a login comes to: what its cookie holds. Empty until then.
#[derive(Clone, Default)]
pub(crate) struct Session(pub(crate) Arc<Mutex<String>>);

/// How a browser comes back from the provider (RFC 9700 §4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twist {
    None,
    NoState,
    OtherState,
    /// As a browser that another one's login is slipped to.
    NoCookie,
    /// A second time.
    Again,
}

/// A login, from the first page to the session.
pub(crate) struct Login {
    /// The entry of `auth`.
    pub(crate) entry: String,
    /// What the provider has the browser bring, before a dot and the nonce.
    pub(crate) code: String,
    pub(crate) callback: String,
    /// Where it is ended at once.
    pub(crate) logout: Option<String>,
    /// Without TLS it has to be from this machine.
    pub(crate) near: bool,
    /// What is wrong with how the browser comes back.
    pub(crate) twist: Twist,
    /// Who wants the session.
    pub(crate) session: Option<Session>,
    /// Why there must not be one.
    pub(crate) bad: Option<Bad>,
}

/// An entry of `auth`, as written.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) settings: &'a Node,
    pub(crate) config: &'a Config,
}

impl<'a> Entry<'a> {
    /// A setting that is a text.
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.settings.get(key)?.as_str()
    }

    /// A setting that is a text or a list of texts.
    pub(crate) fn texts(&self, key: &str) -> Vec<&'a str> {
        let Some(node) = self.settings.get(key) else { return Vec::new() };
        match node.as_str() {
            Some(text) => vec![text],
            None => node.items().iter().filter_map(Node::as_str).collect(),
        }
    }
}

/// Makes what an entry is tried with, or says why that cannot be made: for the operator, the end
/// of a sentence.
type Forge = fn(&Entry<'_>, &Needs, &mut Workshop<'_>) -> Result<Forged, String>;

/// The forger for a kind of authentication.
///
/// # Errors
/// There is none.
pub(crate) fn forger(kind: &str) -> Result<Forge, String> {
    let found = FORGERS.iter().find(|(name, _)| *name == kind);
    found.map(|(_, forge)| *forge).ok_or_else(|| format!("the audit cannot make a `{kind}`"))
}

/// The text of an API key, and the hash that a file lists.
pub type ApiKey = (String, String);

/// What is made with secrets that only the gateway knows how to keep; the binary hands it in.
#[derive(Clone, Copy, Debug)]
pub struct Makers {
    /// From randomness and an id.
    pub api_key: fn([u8; 32], &str) -> Option<ApiKey>,
    /// The hash of a password, with a salt.
    pub password: fn([u8; 16], &str) -> Option<String>,
}

/// What forgers have made: files, pages, certificates.
pub(crate) struct Workshop<'a> {
    pub(crate) clock: Clock,
    /// When the audit began, since 1970.
    pub(crate) now: Duration,
    pub(crate) makers: &'a Makers,
    pub(crate) files: HashMap<String, Arc<[u8]>>,
    /// Files that are lists, which many forgeries add to.
    pub(crate) lists: BTreeMap<String, Vec<Value>>,
    pub(crate) pages: HashMap<String, Page>,
    /// Pages of all URLs that begin so.
    pub(crate) beneath: Vec<(String, Page)>,
    /// Discovery documents by issuer, which entries of several kinds may add to.
    discovery: BTreeMap<String, Value>,
    pub(crate) identities: Vec<ClientIdentity>,
    kept: HashMap<String, Arc<dyn Any + Send + Sync>>,
    numbers: u64,
}

impl<'a> Workshop<'a> {
    pub(crate) fn new(clock: Clock, makers: &'a Makers) -> Self {
        Self {
            now: clock.now().wall,
            clock,
            makers,
            files: HashMap::new(),
            lists: BTreeMap::new(),
            pages: HashMap::new(),
            beneath: Vec::new(),
            discovery: BTreeMap::new(),
            identities: Vec::new(),
            kept: HashMap::new(),
            numbers: 0,
        }
    }

    /// The thing of this name; made where there is none yet.
    pub(crate) fn keep<T: Any + Send + Sync>(
        &mut self,
        name: &str,
        make: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<Arc<T>, String> {
        let name = format!("{} {name}", std::any::type_name::<T>());
        if let Some(kept) = self.kept.get(&name)
            && let Ok(kept) = Arc::clone(kept).downcast()
        {
            return Ok(kept);
        }
        let made = Arc::new(make(self)?);
        self.kept.insert(name, Arc::clone(&made) as Arc<dyn Any + Send + Sync>);
        Ok(made)
    }

    /// Another number each time.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Bytes that nobody can predict.
    pub(crate) fn random<const N: usize>() -> [u8; N] {
        let mut bytes = [0; N];
        portcullis_proxy::fill_random(&mut bytes);
        bytes
    }

    /// The authority of clients whose certificates are in the file of this reference.
    pub(crate) fn authority(&mut self, reference: &str) -> Result<Arc<Authority>, String> {
        let authority = self.keep(reference, |workshop| {
            let name = format!("audit authority {}", workshop.number());
            Authority::new(&name).map_err(broken)
        })?;
        let pem = authority.issuer.pem().into_bytes();
        self.files.insert(reference.to_owned(), pem.into());
        Ok(authority)
    }

    /// Changes what an issuer's discovery document says.
    pub(crate) fn discovery(&mut self, issuer: &str, change: impl FnOnce(&mut Value)) {
        let document = self.discovery.entry(issuer.to_owned());
        let document = document.or_insert_with(|| json!({ "issuer": issuer }));
        change(document);
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        self.pages.insert(url, page(document.to_string()));
    }

    /// What the gateway proves with who it is to an issuer: a secret or a key.
    pub(crate) fn client_of(&mut self, written: &Node) -> Result<(), String> {
        let reference = |key: &str| written.get(key).and_then(Node::as_str).map(str::to_owned);
        if let Some(secret) = reference("secret") {
            self.files
                .entry(secret)
                .or_insert_with(|| b"audit-secret-of-the-client".as_slice().into());
        }
        if let Some(key) = reference("key")
            && !self.files.contains_key(&key)
        {
            let pair = rcgen::KeyPair::generate().map_err(broken)?;
            self.files.insert(key, pair.serialize_pem().into_bytes().into());
        }
        Ok(())
    }

    /// A time so many seconds from now, as files have it.
    pub(crate) fn time(&self, seconds: i64) -> String {
        let seconds = u64::try_from(self.in_seconds(seconds)).unwrap_or_default();
        Time(Duration::from_secs(seconds)).to_string()
    }

    /// Seconds since 1970, so much from now.
    pub(crate) fn in_seconds(&self, seconds: i64) -> i64 {
        i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX).saturating_add(seconds)
    }
}

/// For what fails only where the machine does.
pub(crate) fn broken(error: impl Into<Failure>) -> String {
    format!("something could not be made: {}", error.into())
}
