//! An endpoint of an issuer, as an operator names it: by its URL, or by its issuer, whose discovery
//! document says where it is.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::Services;
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::registry::{Compile, Site};

use super::discovery::{Discovery, Which, is_trustworthy};

/// Where something is asked.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    issuer: Option<Arc<str>>,
    location: Location,
}

#[derive(Clone, Debug)]
enum Location {
    Url(Arc<str>),
    Found(Arc<Discovery>, Which),
}

/// What is written about an endpoint.
pub(crate) struct Written<'a> {
    pub(crate) issuer: Option<&'a Spanned<String>>,
    /// The key of the URL, and the URL.
    pub(crate) key: &'static str,
    pub(crate) url: Option<&'a Spanned<String>>,
    pub(crate) which: Which,
    pub(crate) ca: Option<&'a Arc<[u8]>>,
}

impl Endpoint {
    /// `None` after an error.
    pub(crate) fn compile(
        written: &Written<'_>,
        site: &Site<'_>,
        with: &mut Compile<'_>,
    ) -> Option<Self> {
        let named = [("issuer", written.issuer), (written.key, written.url)];
        let mut good = true;
        for (key, url) in named.into_iter().filter_map(|(key, url)| Some((key, url?))) {
            good &= check_url(key, url, site, with);
        }
        let location = match (written.url, written.issuer) {
            (Some(url), _) => Location::Url(url.value.as_str().into()),
            (None, Some(issuer)) => {
                let of = (&issuer.value, written.ca);
                let discovery = with.carry.keep("oauth-discovery", &issuer.value, &of, || {
                    Discovery::new(issuer.value.clone(), written.ca.cloned())
                });
                Location::Found(discovery, written.which)
            }
            (None, None) => {
                let message = format!("`issuer` or `{}` is missing", written.key);
                with.findings.error("missing-key", site.span, site.resource, message);
                return None;
            }
        };
        let issuer = written.issuer.map(|issuer| issuer.value.as_str().into());
        good.then_some(Self { issuer, location })
    }

    /// The issuer it belongs to, where the operator named one.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// # Errors
    /// For the operator: the issuer does not say where it is.
    pub(crate) async fn url(&self, services: &dyn Services) -> Result<Arc<str>, String> {
        match &self.location {
            Location::Url(url) => Ok(Arc::clone(url)),
            Location::Found(discovery, which) => {
                let metadata = discovery.metadata(services).await?;
                metadata.endpoint(*which).map(Into::into)
            }
        }
    }

    /// Work in the background: `None` where there is none.
    pub(crate) async fn upkeep(&self, services: &dyn Services) -> Option<Duration> {
        match &self.location {
            Location::Url(_) => None,
            Location::Found(discovery, _) => Some(discovery.upkeep(services).await),
        }
    }

    /// Whether [`Self::upkeep`] has anything to do.
    pub(crate) fn is_discovered(&self) -> bool {
        matches!(self.location, Location::Found(..))
    }

    /// What decides where it is; for [`portcullis_core::carry::Carry`].
    pub(crate) fn settings(&self) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let url = match &self.location {
            Location::Url(url) => Some(Arc::clone(url)),
            Location::Found(..) => None,
        };
        (self.issuer.clone(), url)
    }
}

/// Whether secrets may go there; a finding where not.
pub(crate) fn check_url(
    key: &str,
    url: &Spanned<String>,
    site: &Site<'_>,
    with: &mut Compile<'_>,
) -> bool {
    let odd: &[char] = if key == "issuer" { &['?', '#', ' '] } else { &['#', ' '] };
    if is_trustworthy(url) && !url.contains(odd) {
        return true;
    }
    let resource = format!("{}.{key}", site.resource);
    let message = format!("`{}` cannot be asked: anybody on the way could read along", url.value);
    with.findings.push(
        Finding::error("invalid-value", url.span, resource, message)
            .help("an `https://` URL, or `http://` on loopback"),
    );
    false
}
