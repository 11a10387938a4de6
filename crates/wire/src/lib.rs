//! Hostile wires: what must hold for the bytes that a gateway passes on, and how tests tell.
//!
//! The readers and oracles stand here once, for the tests of `http1` and for the fuzz targets.
//! Nothing here ships.

#![allow(clippy::expect_used, reason = "a failure here fails the test")]

pub mod answers;
pub mod case;
pub mod check;
pub mod escape;
pub mod frames;
pub mod lenient_paths;
pub mod models;
pub mod oracles;
pub mod verdict;
