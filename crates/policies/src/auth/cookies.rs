//! The `Cookie` field (RFC 6265 §5.4), for credentials that browsers keep.
//!
//! HTTP/2 may bring it in pieces, and nothing says that a name stands there once. Writing cookies
//! is the business of whoever has some.

use portcullis_core::head::Field;
use portcullis_core::{Known, RequestHead, Span};

/// Every cookie of a request as its name and the place of its value, in order.
pub(crate) fn pairs(request: &RequestHead) -> impl Iterator<Item = (&[u8], Span)> {
    let bytes = request.fields.bytes();
    let fields = request.fields.live().filter(|field| field.known == Known::Cookie);
    fields.flat_map(move |field| pairs_of(bytes, field))
}

fn pairs_of<'a>(bytes: &'a [u8], field: &Field) -> impl Iterator<Item = (&'a [u8], Span)> {
    let mut start = field.value.start as usize;
    field.value.of(bytes).split(|byte| *byte == b';').filter_map(move |pair| {
        let at = start;
        start += pair.len() + 1;
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let value = pair[equals + 1..].trim_ascii();
        let before = pair[equals + 1..].len() - pair[equals + 1..].trim_ascii_start().len();
        let from = at + equals + 1 + before;
        Some((pair[..equals].trim_ascii(), Span::new(from, from + value.len())))
    })
}

/// The values of all cookies of that name; names are compared with case.
pub(crate) fn named<'a>(
    request: &'a RequestHead,
    name: &'a [u8],
) -> impl Iterator<Item = Span> + 'a {
    pairs(request).filter(move |(found, _)| *found == name).map(|(_, value)| value)
}

/// Removes cookies by their names and leaves the others in one field.
pub(crate) fn remove(request: &mut RequestHead, condemned: impl Fn(&[u8]) -> bool) {
    if !pairs(request).any(|(name, _)| condemned(name)) {
        return;
    }
    let mut rest: Vec<u8> = Vec::new();
    for field in request.fields.known_all(Known::Cookie) {
        for pair in field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
            if pair.is_empty() || condemned(name.trim_ascii()) {
                continue;
            }
            if !rest.is_empty() {
                rest.extend_from_slice(b"; ");
            }
            rest.extend_from_slice(pair);
        }
    }
    request.fields.remove_known(Known::Cookie);
    if !rest.is_empty() {
        request.fields.append_known(Known::Cookie, &rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[&str]) -> RequestHead {
        let mut request = RequestHead::default();
        for field in fields {
            request.fields.append(b"cookie", field.as_bytes());
        }
        request
    }

    fn print(request: &RequestHead) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pair = |(name, value): (&[u8], Span)| {
            format!("{}={}", text(name), text(value.of(request.fields.bytes())))
        };
        pairs(request).map(pair).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn cookies_are_read_from_every_field() {
        for (fields, expected) in [
            (&["a=1"][..], "a=1"),
            (&["a=1; b=2", "c=3"], "a=1 | b=2 | c=3"),
            (&["a=1;b=2;;  c = 3 ; d"], "a=1 | b=2 | c=3"),
            (&["a==1=; =x; b="], "a==1= | =x | b="),
            (&[""], ""),
            (&[], ""),
        ] {
            assert_eq!(print(&request(fields)), expected, "{fields:?}");
        }
        let request = request(&["a=1; A=2", "a=3"]);
        let values: Vec<_> =
            named(&request, b"a").map(|span| span.of(request.fields.bytes()).to_vec()).collect();
        assert_eq!(values, [b"1".to_vec(), b"3".to_vec()]);
    }

    #[test]
    fn what_is_removed_leaves_the_others() {
        for (fields, expected) in [
            (&["a=1; x=2; b=3", "x=4", "c"][..], Some("a=1; b=3; c")),
            (&["x=1"], None),
            (&["a=1", "b=2"], Some("a=1")),
            (&[" x =1; a=1"], Some("a=1")),
        ] {
            let mut request = request(fields);
            remove(&mut request, |name| name == b"x");
            let left = request.fields.known(Known::Cookie);
            assert_eq!(left, expected.map(str::as_bytes), "{fields:?}");
        }
    }
}
