//! A credential in a query: where it is, and how it is taken out.
//!
//! A parameter is known by its name as a backend reads it, percent-decoded and with `+` for a
//! space, so that no spelling of it is passed on.

use std::ops::Range;

use portcullis_core::head::RequestHead;

/// Where the values of the parameters of that name are, as they are written.
pub(super) fn values<'a>(query: &'a [u8], name: &'a str) -> impl Iterator<Item = Range<usize>> {
    parameters(query).filter_map(move |at| {
        let equals = query[at.clone()].iter().position(|byte| *byte == b'=');
        let name_end = equals.map_or(at.end, |equals| at.start + equals);
        let value = name_end + usize::from(equals.is_some())..at.end;
        is_named(&query[at.start..name_end], name).then_some(value)
    })
}

/// Takes the parameters of that name out of the query, and out of the `Referer`: a page that was
/// asked for with the credential names it in all that it asks for.
pub(super) fn conceal(request: &mut RequestHead, name: &str) {
    if let Some(rest) = request.query().and_then(|query| without(query, name)) {
        request.set_query((!rest.is_empty()).then_some(rest.as_slice()));
    }
    let referer = request.fields.get(REFERER).and_then(|value| cleaned(value, name));
    if let Some(referer) = referer {
        request.fields.set(REFERER, &referer);
    }
}

const REFERER: &[u8] = b"referer";

/// The URL without the parameters of that name; `None` where it has none.
fn cleaned(url: &[u8], name: &str) -> Option<Vec<u8>> {
    let question = url.iter().position(|byte| *byte == b'?')?;
    let end = url.iter().position(|byte| *byte == b'#').unwrap_or(url.len());
    let rest = without(url.get(question + 1..end)?, name)?;
    let (before, after) = (&url[..question], &url[end..]);
    let between: &[u8] = if rest.is_empty() { b"" } else { b"?" };
    Some([before, between, &rest, after].concat())
}

/// The query without the parameters of that name; `None` where it has none.
fn without(query: &[u8], name: &str) -> Option<Vec<u8>> {
    values(query, name).next()?;
    let kept = parameters(query).filter(|at| values(&query[at.clone()], name).next().is_none());
    let kept: Vec<&[u8]> = kept.map(|at| &query[at]).collect();
    Some(kept.join(&b'&'))
}

fn parameters(query: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    query.split(|byte| *byte == b'&').map(move |parameter| {
        let start = at;
        at += parameter.len() + 1;
        start..start + parameter.len()
    })
}

fn is_named(mut written: &[u8], name: &str) -> bool {
    let mut name = name.bytes();
    while let [first, rest @ ..] = written {
        let (byte, rest) = match (first, rest) {
            (b'%', [high, low, rest @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, rest),
                _ => (b'%', &written[1..]),
            },
            (b'+', rest) => (b' ', rest),
            (byte, rest) => (*byte, rest),
        };
        if name.next() != Some(byte) {
            return false;
        }
        written = rest;
    }
    name.next().is_none()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> String {
        let values: Vec<_> = values(query.as_bytes(), "api_key").map(|at| &query[at]).collect();
        let rest = without(query.as_bytes(), "api_key");
        let rest = rest.map_or("as it was".to_owned(), |rest| String::from_utf8(rest).unwrap());
        format!("{} | {rest}", values.join(" "))
    }

    #[test]
    fn a_parameter_is_found_and_taken_out_however_it_is_spelt() {
        for (query, expected) in [
            ("api_key=a", "a | "),
            ("x=1&api_key=a&y=2", "a | x=1&y=2"),
            ("api%5Fkey=a&%61pi_%6B%65y=b", "a b | "),
            ("api_key&x", " | x"),
            ("api_key=a=b&", "a=b | "),
            ("&&api_key=a", "a | &"),
            ("api_keys=a&xapi_key=b&API_KEY=c", " | as it was"),
            ("x=api_key=a", " | as it was"),
            ("api%5key=a&api%5", " | as it was"),
            ("api+key=a", " | as it was"),
            ("", " | as it was"),
        ] {
            assert_eq!(of(query), expected, "{query}");
        }
        assert!(is_named(b"a+b%20c", "a b c"));
    }

    #[test]
    fn a_referer_loses_the_parameter_only() {
        let of =
            |url: &str| cleaned(url.as_bytes(), "k").map(|url| String::from_utf8(url).unwrap());
        assert_eq!(of("https://a/b?k=1").as_deref(), Some("https://a/b"));
        assert_eq!(of("https://a/b?x=2&k=1#c").as_deref(), Some("https://a/b?x=2#c"));
        assert_eq!(of("https://a/b?x=1"), None);
        assert_eq!(of("https://a/b#?k=1"), None);
        assert_eq!(of("https://a/k=1"), None);
    }
}
