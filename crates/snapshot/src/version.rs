//! The identity of a configuration: equal for texts that mean the same.

use std::io::{BufWriter, Write as _};

use portcullis_config::Config;

/// Hexadecimal BLAKE3 over the configuration as it was understood. Comments, layout and the
/// division into files do not count; the contents behind `file:` and `env:` do not either.
pub(crate) fn hash(config: &Config) -> String {
    let mut out = BufWriter::new(blake3::Hasher::new());
    // Without the places in the files, which comments and layout move. A hasher takes everything.
    let written = write!(out, "{config:-?}").and_then(|()| out.into_inner().map_err(Into::into));
    written.unwrap_or_default().finalize().to_hex().to_string()
}
