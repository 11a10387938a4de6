//! The gateway's own requests, answered from a table.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use portcullis_core::services::{Fetch, FetchFuture, Fetched, Fetcher, Unavailable};

/// Answers by URL; any other URL is unavailable.
#[derive(Debug, Default)]
pub struct Scripted {
    answers: Mutex<HashMap<String, Bytes>>,
    asked: Mutex<Vec<String>>,
}

impl Scripted {
    pub fn answer(&self, url: &str, body: impl Into<Bytes>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(url.to_owned(), body.into());
    }

    /// The URLs asked for, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Fetcher for Scripted {
    fn fetch(&self, fetch: Fetch) -> FetchFuture {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(fetch.url.clone());
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.get(&fetch.url).cloned();
        Box::pin(async move {
            // Never at once, so that whoever asks really waits.
            tokio::task::yield_now().await;
            let body = answer.ok_or_else(|| Unavailable(format!("{} is down", fetch.url)))?;
            Ok(Fetched {
                status: StatusCode::OK,
                content_type: None,
                fields: Vec::new(),
                body,
                stale: false,
            })
        })
    }
}
