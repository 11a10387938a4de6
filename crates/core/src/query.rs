//! Parameters of a query, for those who look for a credential there and for those who must not show
//! it. Queries are relayed as they came; nothing here rebuilds one that has no such parameter.

use crate::head::{RequestHead, Span};

/// The values of all parameters of that name, as they are written. Names are compared decoded, as
/// whoever reads them after us will.
pub fn values<'a>(request: &'a RequestHead, name: &'a str) -> impl Iterator<Item = Span> + 'a {
    let mut start = request.query.map_or(0, |query| query.start as usize);
    let parameters = request.query().into_iter().flat_map(parameters);
    parameters.filter_map(move |(parameter, written)| {
        let at = start;
        start += parameter.len() + 1;
        is_written(written, name).then(|| {
            let value = (at + written.len() + 1).min(at + parameter.len());
            Span::new(value, at + parameter.len())
        })
    })
}

/// Takes the parameters of these names out of the request's query.
pub fn remove<N: AsRef<str>>(request: &mut RequestHead, names: &[N]) {
    let without = request.query().and_then(|query| without(query, names));
    if let Some(rest) = without {
        request.set_query((!rest.is_empty()).then_some(&rest));
    }
}

/// A URL without the parameters of these names, where it has any.
#[must_use]
pub fn strip_url<N: AsRef<str>>(url: &[u8], names: &[N]) -> Option<Vec<u8>> {
    let question = url.iter().position(|byte| *byte == b'?')?;
    let (before, query) = (&url[..question], &url[question + 1..]);
    let end = query.iter().position(|byte| *byte == b'#').unwrap_or(query.len());
    let rest = without(&query[..end], names)?;
    let mark: &[u8] = if rest.is_empty() { b"" } else { b"?" };
    Some([before, mark, &rest, &query[end..]].concat())
}

/// Every parameter with the part of it that is its name.
fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|byte| *byte == b'&').map(|parameter| {
        let end = parameter.iter().position(|byte| *byte == b'=').unwrap_or(parameter.len());
        (parameter, &parameter[..end])
    })
}

/// `None`: it has none of these.
fn without<N: AsRef<str>>(query: &[u8], names: &[N]) -> Option<Vec<u8>> {
    let goes = |written: &[u8]| names.iter().any(|name| is_written(written, name.as_ref()));
    if !parameters(query).any(|(_, written)| goes(written)) {
        return None;
    }
    let kept = parameters(query).filter(|(_, written)| !goes(written));
    let kept: Vec<&[u8]> = kept.map(|(parameter, _)| parameter).collect();
    Some(kept.join(&b'&'))
}

/// Whether a name is what was written, with `%41` for `A` and `+` for a space.
fn is_written(written: &[u8], name: &str) -> bool {
    let mut rest = written;
    name.bytes().all(|wanted| {
        let Some((byte, after)) = first(rest) else { return false };
        rest = after;
        byte == wanted
    }) && rest.is_empty()
}

fn first(written: &[u8]) -> Option<(u8, &[u8])> {
    let (byte, rest) = written.split_first()?;
    match byte {
        b'+' => Some((b' ', rest)),
        b'%' => {
            let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
            match (digit(0), digit(1)) {
                (Some(high), Some(low)) => Some(((high << 4 | low) as u8, &rest[2..])),
                _ => Some((b'%', rest)),
            }
        }
        _ => Some((*byte, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(query: &str) -> RequestHead {
        let mut request = RequestHead::default();
        request.fields.intern(b"GET /somewhere");
        request.set_query(Some(query.as_bytes()));
        request
    }

    #[test]
    fn values_are_found_by_decoded_names_and_taken_out() {
        for (query, found, rest) in [
            ("t=a", "a", None),
            ("t", "", None),
            ("t=", "", None),
            ("a=1&t=x=y&b=2", "x=y", Some("a=1&b=2")),
            ("t=1&%74=2&a", "1|2", Some("a")),
            ("a=1&%7=3&T=4&tt=5&t%3D=6", "-", Some("a=1&%7=3&T=4&tt=5&t%3D=6")),
            ("a&&t=1&", "1", Some("a&&")),
            ("", "-", Some("")),
            ("a=t=1", "-", Some("a=t=1")),
        ] {
            let mut request = request(query);
            let bytes = request.fields.bytes();
            let values = values(&request, "t");
            let values: Vec<_> =
                values.map(|span| span.of(bytes).escape_ascii().to_string()).collect();
            let values = if values.is_empty() { "-".to_owned() } else { values.join("|") };
            assert_eq!(values, found, "{query}");
            remove(&mut request, &["t"]);
            assert_eq!(request.query(), rest.map(str::as_bytes), "{query}");
        }
        assert_eq!(values(&RequestHead::default(), "t").count(), 0);
        assert_eq!(values(&request("a+b=1&a%20b=2"), "a b").count(), 2);
    }

    #[test]
    fn a_url_without_secrets() {
        for (url, expected) in [
            ("https://a/b?t=1", Some("https://a/b")),
            ("https://a/b?x=1&t=1&y", Some("https://a/b?x=1&y")),
            ("https://a/b?%74=1&u=2#t=3", Some("https://a/b#t=3")),
            ("https://a/b?x=1#?t=1", None),
            ("https://a/t=1", None),
        ] {
            let stripped = strip_url(url.as_bytes(), &["t", "u"]);
            assert_eq!(stripped.as_deref(), expected.map(str::as_bytes), "{url}");
        }
    }
}
