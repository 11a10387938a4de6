//! The audit from the outside: what it says of a gateway that is right, and of one that is not.

mod clean;
mod faults;
mod kinds;
mod place;
