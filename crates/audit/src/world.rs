//! The world around the gateway under audit: files, and whoever it asks over the network, made up
//! by the audit. Nobody real is asked for anything.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use portcullis_core::Now;
use portcullis_core::limit::{Grant, Grantor, LimitKey, LimitSpec};
use portcullis_core::registry::Sources;
use portcullis_core::services::{Fetch, FetchFuture, Fetched, Fetcher, Unavailable};

/// Files by reference; what the audit has not made is the operator's.
pub(crate) struct Files<'a> {
    pub(crate) made: HashMap<String, Arc<[u8]>>,
    pub(crate) written: &'a dyn Sources,
}

impl Sources for Files<'_> {
    fn read(&self, reference: &str) -> Result<Arc<[u8]>, String> {
        match self.made.get(reference) {
            Some(bytes) => Ok(Arc::clone(bytes)),
            None => self.written.read(reference),
        }
    }
}

/// What an URL answers.
pub(crate) type Page = Arc<dyn Fn(&Fetch) -> Fetched + Send + Sync>;

/// A page that is always the same.
pub(crate) fn json(text: impl Into<Bytes>) -> Page {
    let body = text.into();
    Arc::new(move |_| Fetched {
        status: StatusCode::OK,
        content_type: Some("application/json".to_owned()),
        fields: vec![("content-type".into(), b"application/json".as_slice().into())],
        body: body.clone(),
        stale: false,
    })
}

/// Issuers and authorizers, by URL.
#[derive(Default)]
pub(crate) struct Pages {
    pub(crate) at: HashMap<String, Page>,
    /// For all URLs that begin so.
    pub(crate) beneath: Vec<(String, Page)>,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.at.keys()).finish()
    }
}

impl Fetcher for Pages {
    fn fetch(&self, fetch: Fetch) -> FetchFuture {
        let bare = fetch.url.split('?').next().unwrap_or_default();
        let beneath = || self.beneath.iter().find(|(url, _)| fetch.url.starts_with(url.as_str()));
        let page = self.at.get(&fetch.url).or_else(|| self.at.get(bare));
        let page = page.or_else(|| beneath().map(|(_, page)| page)).cloned();
        Box::pin(async move {
            match page {
                Some(page) => Ok(page(&fetch)),
                None => Err(Unavailable(format!("{} is not asked in an audit", fetch.url))),
            }
        })
    }
}

/// No limit refuses: what is proved is who may pass, not how often.
#[derive(Debug)]
pub(crate) struct Unlimited;

impl Grantor for Unlimited {
    fn take(&self, _: Now, _: LimitKey, spec: &LimitSpec, want: u32) -> Grant {
        Grant { granted: want, remaining: spec.count, ..Grant::default() }
    }

    fn peek(&self, now: Now, key: LimitKey, spec: &LimitSpec, want: u32) -> Grant {
        self.take(now, key, spec, want)
    }
}
