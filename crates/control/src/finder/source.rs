//! What every place that endpoints come from can do.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use portcullis_snapshot::Listed;

pub type SourceFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place that endpoints come from. It says what there is; what is made of it is not its business.
pub trait Source: Send {
    /// All endpoints as of now, asked for and not remembered. The error says why they cannot be
    /// had; an answer that there are none is none.
    fn list(&mut self) -> SourceFuture<'_, Result<Listing, String>>;

    /// Ends when there may be news; never where the place does not tell. It may be dropped and
    /// asked for again at any time.
    fn changed(&mut self) -> SourceFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// What a place said.
#[derive(Clone, Debug)]
pub struct Listing {
    pub endpoints: Vec<Listed>,
    /// Differs where the answer does.
    pub version: String,
    /// How long it holds; `None` where the place tells of changes.
    pub valid: Option<Duration>,
}
