//! Written configuration → compiled snapshot: everything a request needs, checked, immutable.
//!
//! No sockets, no files, no clock: what must be read comes through `core::Sources`.

pub mod router;
