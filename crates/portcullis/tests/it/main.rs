//! The command as its users have it: the real binary, its output and its exit status.
//!
//! What the gateway does to traffic is tested in its own crates; here are the verbs.

#![allow(clippy::unwrap_used, reason = "a failure in a test's helper fails the test")]

mod analysis;
mod audit;
mod binary;
mod check;
mod completions;
mod demo;
mod drill;
mod examples;
mod explain;
mod finding;
mod guides;
mod keys;
mod overrides;
mod real;
mod routes;
mod run;
mod schema;
mod token;
mod usage;
