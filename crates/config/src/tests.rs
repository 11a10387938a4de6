//! The language as a whole: what is read, and what is said about what is not.

mod errors;
mod forms;
mod merging;
mod robust;
mod route_errors;

pub(crate) use robust::GOOD;
