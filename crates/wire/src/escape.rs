//! Bytes as text, and back: how the files of cases write what goes over a wire.
//!
//! `\r`, `\n`, `\t`, `\0`, `\\` and `\x85` are one byte each. `\{TEXT*4096\}` is TEXT so many
//! times, and `\#` in it the number of the repetition, counted from 0.

/// The bytes that `text` stands for.
///
/// # Errors
/// What is wrong with it.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    append(text, 0, &mut out)?;
    Ok(out)
}

/// The same, where `\#` is `index`.
///
/// # Errors
/// What is wrong with it.
pub fn unescape_at(text: &str, index: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    append(text, index, &mut out)?;
    Ok(out)
}

fn append(text: &str, index: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let kind = rest.chars().next().ok_or("a backslash at the end")?;
        rest = &rest[kind.len_utf8()..];
        match kind {
            'r' => out.push(b'\r'),
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            '0' => out.push(0),
            '\\' => out.push(b'\\'),
            '#' => out.extend_from_slice(index.to_string().as_bytes()),
            'x' => {
                let hex = rest.get(..2).ok_or("two digits after \\x")?;
                out.push(
                    u8::from_str_radix(hex, 16).map_err(|error| format!("\\x{hex}: {error}"))?,
                );
                rest = &rest[2..];
            }
            '{' => {
                let (inside, after) = closed(rest).ok_or("\\{ without \\}")?;
                let (what, times) = inside.rsplit_once('*').ok_or("\\{TEXT*TIMES\\}")?;
                let times: usize = times.parse().map_err(|error| format!("{times}: {error}"))?;
                for index in 0..times {
                    append(what, index, out)?;
                }
                rest = after;
            }
            other => return Err(format!("\\{other} is no escape")),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(())
}

/// What stands before the `\}` that closes, and after it.
fn closed(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0;
    let mut at = 0;
    while let Some(next) = text[at..].find('\\') {
        at += next;
        match text[at..].get(..2)? {
            "\\{" => depth += 1,
            "\\}" if depth == 0 => return Some((&text[..at], &text[at + 2..])),
            "\\}" => depth -= 1,
            _ => {}
        }
        at += 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_for_bytes() {
        let bytes = |text| unescape(text).map(|bytes| bytes.escape_ascii().to_string());
        assert_eq!(unescape(r"a\r\n\t\0\\\x85").unwrap(), b"a\r\n\t\0\\\x85");
        assert_eq!(bytes(r"\{ab*3\}c"), Ok("abababc".to_owned()));
        assert_eq!(bytes(r"\{X-\#: y\r\n*2\}"), Ok(r"X-0: y\r\nX-1: y\r\n".to_owned()));
        assert_eq!(bytes(r"\{a**2\}"), Ok("a*a*".to_owned()));
        assert_eq!(bytes(r"\{a\{b*2\};*2\}\\"), Ok(r"abb;abb;\\".to_owned()));
        assert_eq!(unescape_at(r"x-\#", 7).unwrap(), b"x-7");
    }

    #[test]
    fn what_stands_for_nothing_is_an_error() {
        for text in ["\\", "\\q", "\\x8", "\\xzz", "\\{a*2", "\\{a\\}", "\\{a*b\\}"] {
            assert!(unescape(text).is_err(), "{text}");
        }
    }
}
