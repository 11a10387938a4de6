//! The identity of a configuration: equal for texts that mean the same.

use portcullis_config::Config;

/// Hexadecimal BLAKE3 over the configuration as it was understood. Comments, layout and the
/// division into files do not count; the contents behind `file:` and `env:` do not either.
pub(crate) fn hash(config: &Config) -> String {
    let written = without_places(&format!("{config:?}"));
    blake3::hash(written.as_bytes()).to_hex().to_string()
}

/// The debug form without the places in the files, which comments and layout move.
fn without_places(text: &str) -> String {
    const OPEN: &str = "SourceSpan { ";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        out.push_str(&rest[..at]);
        rest = &rest[at + OPEN.len()..];
        rest = rest.find('}').map_or("", |end| &rest[end + 1..]);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_count() {
        let text = "A { span: SourceSpan { file: 0, start: 1, end: 2 }, x: 1 }";
        assert_eq!(without_places(text), "A { span: , x: 1 }");
    }
}
