//! The certificates of a listener, and which of them a name gets.
//!
//! Reading, matching and dating them is done here; the handshake is rustls's.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates by the names they are valid for.
#[derive(Debug)]
pub struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, usize>,
    /// By what follows `*.`; a wildcard covers one label (RFC 6125 §6.4.3).
    wildcard: HashMap<String, usize>,
}

impl Certificates {
    /// The first one is the default. `keys` come with their names in lower case; where two have
    /// a name in common, the first has it.
    #[must_use]
    pub fn new(keys: Vec<(Arc<CertifiedKey>, Vec<String>)>) -> Self {
        let mut certificates =
            Self { keys: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new() };
        for (key, names) in keys {
            let number = certificates.keys.len();
            certificates.keys.push(key);
            for name in names {
                match name.strip_prefix("*.") {
                    Some(suffix) => certificates.wildcard.entry(suffix.to_owned()),
                    None => certificates.exact.entry(name),
                }
                .or_insert(number);
            }
        }
        certificates
    }

    /// Which certificate a name gets; the default for a name that none is valid for.
    #[must_use]
    pub fn pick(&self, name: &str) -> usize {
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        let exact = self.exact.get(name);
        let found = exact.or_else(|| self.wildcard.get(name.split_once('.')?.1));
        found.copied().unwrap_or(0)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let at = hello.server_name().map_or(0, |name| self.pick(name));
        self.keys.get(at).map(Arc::clone)
    }
}
