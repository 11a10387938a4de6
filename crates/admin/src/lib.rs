//! Probes and the admin API, on a thread and runtime of their own, so that looking never slows
//! traffic.
//!
//! Probes are read-only and open; the admin API is a Unix socket that only the gateway's user can
//! open, or an address that wants a token. What there is to see comes through [`View`].

mod answer;
mod server;

pub use server::{Access, Bind, Server, start};

/// What can be looked at. Called on the admin thread only.
pub trait View: Send + Sync + 'static {
    /// Whether the gateway takes traffic, and details for people.
    fn ready(&self) -> (bool, serde_json::Value);

    /// Appends the OpenMetrics text.
    fn metrics(&self, out: &mut String);

    /// The serving configuration as written. Secrets are references there, never values.
    fn config(&self) -> serde_json::Value;

    /// The compiled route table.
    fn routes(&self) -> serde_json::Value;

    /// The backends, their endpoints as they do now, and where these come from.
    fn backends(&self) -> serde_json::Value;

    /// Which routes were asked for, and when the last time was.
    fn usage(&self) -> serde_json::Value;

    /// What was decided about the requests of this id: a list, the latest first.
    fn request(&self, id: &str) -> serde_json::Value;

    /// The canaries under analysis.
    fn analysis(&self) -> serde_json::Value;

    /// What is overridden at run time.
    fn overrides(&self) -> serde_json::Value;

    /// Overrides something, as written in the body of a request.
    ///
    /// # Errors
    /// What is wrong with it, for who has sent it.
    fn set_override(&self, written: &[u8]) -> Result<serde_json::Value, String>;

    /// Ends the override of this revision, or all; says how many.
    fn clear_overrides(&self, revision: Option<u64>) -> usize;

    /// Program and configuration.
    fn version(&self) -> serde_json::Value;
}
