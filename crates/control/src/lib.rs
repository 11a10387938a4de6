//! Where configuration comes from, how it changes, and the gateway's own requests.
//!
//! Control knows nothing of the data plane: the binary joins the two with one function that takes
//! a snapshot. If control is broken, traffic still flows.

mod fetcher;
mod files;
mod finder;
mod loader;
mod reloader;
mod upkeep;

pub use fetcher::HttpFetcher;
pub use files::{Files, FilesError};
pub use finder::{Finder, Listing, Mono, Source, SourceFuture};
pub use loader::{Attempt, Loader, system_roots};
pub use reloader::{Outcome, Reloader, Status};
pub use upkeep::Upkeep;
