//! A world that says what a test tells it to.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use http::StatusCode;
use portcullis_core::limit::{Grantor, LimitKey, LimitSpec};
use portcullis_core::services::{Fetch, Fetched, Lease, LocalFuture, Unavailable};
use portcullis_core::{Now, Services};

use super::START;
use crate::grantor::Embedded;

/// What a URL answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Body(String),
    /// From the disk, since nobody answered.
    Stale(String),
    Status(u16),
    /// Status, content type and body.
    Full(u16, &'static str, String),
    Down,
}

pub(crate) struct Scripted {
    pub(crate) now: Cell<Now>,
    pub(crate) grantor: Embedded,
    pub(crate) store_down: Cell<bool>,
    answers: RefCell<HashMap<String, Answer>>,
    /// URLs asked for, in order.
    asked: RefCell<Vec<String>>,
    /// All of what was sent, in order.
    sent: RefCell<Vec<Fetch>>,
    drawn: Cell<u64>,
    offloaded: Cell<usize>,
    gate: Rc<Gate>,
}

/// While closed, no fetch and no job ends.
#[derive(Default)]
struct Gate {
    closed: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Gate {
    async fn open(&self) {
        std::future::poll_fn(|context| match self.closed.get() {
            false => Poll::Ready(()),
            true => {
                self.waiting.borrow_mut().push(context.waker().clone());
                Poll::Pending
            }
        })
        .await;
    }
}

impl Default for Scripted {
    fn default() -> Self {
        Self {
            now: Cell::new(START),
            grantor: Embedded::new(10_000),
            store_down: Cell::default(),
            answers: RefCell::default(),
            asked: RefCell::default(),
            sent: RefCell::default(),
            drawn: Cell::default(),
            offloaded: Cell::default(),
            gate: Rc::default(),
        }
    }
}

impl Scripted {
    pub(crate) fn answer(&self, url: &str, answer: Answer) {
        self.answers.borrow_mut().insert(url.to_owned(), answer);
    }

    pub(crate) fn hold(&self) {
        self.gate.closed.set(true);
    }

    pub(crate) fn release(&self) {
        self.gate.closed.set(false);
        self.gate.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// What was asked for since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.take()
    }

    /// How many jobs were given to the pool.
    pub(crate) fn offloaded(&self) -> usize {
        self.offloaded.get()
    }

    /// How many requests there were since they were last taken by [`Self::sent`].
    pub(crate) fn len(&self) -> usize {
        self.sent.borrow().len()
    }

    /// The requests since the last call.
    pub(crate) fn sent(&self) -> Vec<Fetch> {
        self.sent.take()
    }

    pub(crate) fn pass(&self, time: std::time::Duration) {
        self.now.set(self.now.get().after(time));
    }
}

impl Services for Scripted {
    fn now(&self) -> Now {
        self.now.get()
    }

    /// Bytes that are no two times the same.
    fn random(&self, into: &mut [u8]) {
        let drawn = self.drawn.get();
        self.drawn.set(drawn + 1);
        into.fill(7);
        for (to, from) in into.iter_mut().zip(drawn.to_le_bytes()) {
            *to ^= from;
        }
    }

    fn fetch(&self, fetch: Fetch) -> LocalFuture<'_, Result<Fetched, Unavailable>> {
        self.asked.borrow_mut().push(fetch.url.clone());
        self.sent.borrow_mut().push(fetch.clone());
        let gate = Rc::clone(&self.gate);
        Box::pin(async move {
            gate.open().await;
            let answer = self.answers.borrow().get(&fetch.url).cloned().unwrap_or(Answer::Down);
            let good = |body: String, stale| Fetched {
                status: StatusCode::OK,
                content_type: None,
                // As the fetcher says of what it has kept.
                fields: match stale {
                    true => vec![("age".into(), (*b"5000").into())],
                    false => Vec::new(),
                },
                body: Bytes::from(body),
                stale,
            };
            match answer {
                Answer::Body(body) => Ok(good(body, false)),
                Answer::Stale(body) => Ok(good(body, true)),
                Answer::Status(status) => {
                    let status = StatusCode::from_u16(status).unwrap();
                    Ok(Fetched { status, ..good(String::new(), false) })
                }
                Answer::Full(_, _, body) if body.len() > fetch.body_bytes_max => {
                    Err(Unavailable(format!("{}: length limit exceeded", fetch.url)))
                }
                Answer::Full(status, kind, body) => Ok(Fetched {
                    status: StatusCode::from_u16(status).unwrap(),
                    content_type: Some(kind.to_owned()),
                    ..good(body, false)
                }),
                Answer::Down => Err(Unavailable(format!("{} does not answer", fetch.url))),
            }
        })
    }

    fn lease<'a>(&'a self, key: LimitKey, spec: &'a LimitSpec, want: u32) -> Lease<'a> {
        match self.store_down.get() {
            true => Lease::Wait(Box::pin(async { Err(Unavailable("no store".to_owned())) })),
            false => Lease::Ready(self.grantor.take(self.now(), key, spec, want)),
        }
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> LocalFuture<'_, Result<(), Unavailable>> {
        self.offloaded.set(self.offloaded.get() + 1);
        Box::pin(async {
            self.gate.open().await;
            job();
            Ok(())
        })
    }
}
