//! What the programs of the bench share. Not part of the product.

pub mod issuer;
pub mod outside;
pub mod real_job;
pub mod tls;
