//! Rules about the code that the compiler does not know. Each rule is one test; a rule that needs an
//! exception gets it in a table here, with the reason, not by being switched off.
//!
//! Not a linter: what clippy or rustfmt can say is left to them.

#[cfg(test)]
mod dependencies;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod features;
#[cfg(test)]
mod imports;
#[cfg(test)]
mod licence;
#[cfg(test)]
mod purity;
#[cfg(test)]
mod shape;
#[cfg(test)]
mod words;
#[cfg(test)]
mod workspace;
