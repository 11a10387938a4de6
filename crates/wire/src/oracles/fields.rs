//! What a client may say in header fields, and what only the gateway says.

use portcullis_core::known::{Known, is_alias};
use portcullis_core::path::PathRules;
use portcullis_core::{RequestHead, Scheme};
use portcullis_http1::{
    HeadLimits, ParsedRequest, RequestContext, RequestWire, encode_request, parse_request,
    request_framing,
};

/// Stands for all fields that the gateway owns.
const OWNED: &[u8] = b"x-gw-identity";

/// Fields of one connection (RFC 9110 §7.6.1), and those that are always written anew.
const NOT_PASSED_ON: [&[u8]; 13] = [
    b"connection",
    b"content-length",
    b"expect",
    b"host",
    b"http2-settings",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

type Line<'a> = (&'a [u8], &'a [u8]);

/// Field lines of a request, whose text is also the value of the gateway's own field.
///
/// # Panics
/// Where the backend would not get exactly the fields that are meant for it, in the order they
/// came, and the gateway's own, with the gateway's value, once.
pub fn fields(input: &[u8]) {
    let text = [b"POST /c HTTP/1.1\r\nHost: a.test\r\n", input, b"\r\n"].concat();
    let context = RequestContext { scheme: Scheme::Http, paths: &PathRules::default() };
    let mut head = RequestHead::default();
    let parsed = parse_request(&text, &HeadLimits::default(), &mut head, &context);
    let Ok(ParsedRequest::Complete(facts)) = parsed else { return };
    for (name, value) in head.fields.iter() {
        assert!(value.trim_ascii_start().len() == value.len(), "{}", text.escape_ascii());
        let known = Known::of(name);
        assert!(known == Known::Other || name.eq_ignore_ascii_case(known.name()));
    }

    let received = lines(&text[..facts.consumed]);
    let mut expected: Vec<Line<'_>> = vec![(b"host", b"a.test")];
    let nominated = nominated(&received);
    expected.extend(received.iter().filter(|(name, _)| {
        let is = |other: &&[u8]| name.eq_ignore_ascii_case(other);
        // Nobody strips by nomination what the gateway or the backend relies on.
        let stripped = Known::of(name) == Known::Other && nominated.iter().any(is);
        !NOT_PASSED_ON.iter().any(is) && !stripped && !reads_as_owned(name)
    }));
    let own: Vec<u8> = input
        .iter()
        .map(|byte| if matches!(byte, b'\t' | 0x20..=0x7e | 0x80..) { *byte } else { b'?' })
        .collect();
    expected.push((OWNED, trim(&own)));

    head.fields.remove_if(|_, name, _| is_alias(name, OWNED));
    head.fields.append(OWNED, input);
    let mut out = Vec::new();
    encode_request(&head, &RequestWire::new(request_framing(&head)), &mut out);
    let sent = lines(&out);
    let shown = out.escape_ascii();
    // Framing comes last.
    let Some((framing, sent)) = sent.split_last() else { panic!("{shown}") };
    let lengths: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];
    assert!(lengths.contains(&framing.0), "{shown}");
    let show = |lines: &[Line<'_>]| -> Vec<String> {
        let line =
            |(name, value): &Line<'_>| format!("{}: {}", name.escape_ascii(), value.escape_ascii());
        lines.iter().map(line).collect()
    };
    assert_eq!(show(sent), show(&expected), "for {}", text.escape_ascii());
}

/// The field lines of a well-formed head.
fn lines(head: &[u8]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut rest = head;
    let mut first = true;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let line = &rest[..end];
        rest = &rest[end + 2..];
        if std::mem::take(&mut first) {
            continue;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
        lines.push((&line[..colon], trim(&line[colon + 1..])));
    }
    lines
}

fn nominated<'a>(lines: &[Line<'a>]) -> Vec<&'a [u8]> {
    let connection = lines.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"));
    connection.flat_map(|(_, value)| value.split(|byte| *byte == b',')).map(trim).collect()
}

/// Whether CGI, or whoever folds names as it does, takes `name` for the gateway's.
fn reads_as_owned(name: &[u8]) -> bool {
    let variable = |name: &[u8]| -> Vec<u8> {
        let letter =
            |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() } else { b'_' };
        name.iter().map(letter).collect()
    };
    variable(name) == variable(OWNED)
}

/// Without the white space that may surround a value (RFC 9110 §5.5).
fn trim(text: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let Some(start) = text.iter().position(is_text) else { return b"" };
    let end = text.iter().rposition(is_text).map_or(start, |last| last + 1);
    &text[start..end]
}
