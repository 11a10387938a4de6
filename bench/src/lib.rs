//! What the programs of the bench share. Not part of the product.

pub mod tls;
