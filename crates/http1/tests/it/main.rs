//! What must hold for every byte string, tried on generated ones and on the fuzzers' corpora.

mod corpus;
mod differential;
