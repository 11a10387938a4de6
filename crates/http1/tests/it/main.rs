//! What must hold for every byte string, tried on generated ones.

mod differential;
