//! What fuzzing found stays found.

mod corpus;
