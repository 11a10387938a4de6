//! What must hold for any bytes. Each function panics where it does not; the fuzz targets and the
//! property tests call the same ones.

mod authority;
mod fields;
mod proxy_protocol;

use http::Method;
use portcullis_core::path::{self, Canonical, PathRules, Treatment};
use portcullis_core::{BodyLength, Fields, RequestHead, ResponseHead, Scheme, Version};
use portcullis_http1::{
    BodyDecoder, BodyError, Connection, HeadLimits, ParsedRequest, ParsedResponse, RequestContext,
    RequestFacts, RequestWire, ResponseKind, ResponseWire, encode_chunk, encode_last_chunk,
    encode_request, encode_response, parse_request, parse_response, request_framing,
    response_framing,
};

use crate::lenient_paths::percent_decode;
use crate::models::{self, Request};

pub use self::authority::authority;
pub use self::fields::fields;
pub use self::proxy_protocol::proxy_protocol;

/// What a gateway without policies sends to a backend for a client's stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    pub out: Vec<u8>,
    pub requests: Vec<Request>,
    /// The last request was refused, or its body broke.
    pub refused: bool,
    /// One of them came over HTTP/1.0 and named no host.
    pub anonymous: bool,
}

fn parse(
    input: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Option<Option<RequestFacts>> {
    let context = RequestContext { scheme: Scheme::Http, paths: &PathRules::default() };
    let parsed = parse_request(input, limits, head, &context);
    // Whatever came of it, what is in the head can be looked at.
    assert!(head.fields.iter().count() <= limits.fields_max);
    match parsed {
        Ok(ParsedRequest::Complete(facts)) => Some(Some(facts)),
        Ok(ParsedRequest::Partial) => Some(None),
        Err(_) => None,
    }
}

/// Bounds for what the gateway itself has written: it may have said one length more.
fn wider() -> HeadLimits {
    let HeadLimits { head_bytes_max, fields_max, target_bytes_max } = HeadLimits::default();
    HeadLimits { head_bytes_max: 2 * head_bytes_max, fields_max: fields_max + 1, target_bytes_max }
}

/// Reads a client's stream to its end, or to the first thing that closes the connection.
pub fn relay(input: &[u8]) -> Relayed {
    relay_within(input, &HeadLimits::default())
}

fn relay_within(input: &[u8], limits: &HeadLimits) -> Relayed {
    let mut relayed = Relayed::default();
    let mut head = RequestHead::default();
    let mut at = 0;
    while at < input.len() {
        let facts = match parse(&input[at..], limits, &mut head) {
            Some(Some(facts)) => facts,
            Some(None) => break,
            None => {
                relayed.refused = true;
                break;
            }
        };
        at += facts.consumed;
        relayed.anonymous |= head.authority().is_empty();
        encode_request(&head, &RequestWire::new(request_framing(&head)), &mut relayed.out);
        let mut target = head.path().to_vec();
        if let Some(query) = head.query() {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        let method = head.method.as_str().as_bytes().to_vec();
        let mut request = Request { method, target, body: Vec::new(), partial: true };
        let mut decoder = BodyDecoder::new(head.body, facts.chunked);
        let body = relay_body(&input[at..], &mut decoder, facts.chunked, &mut relayed.out);
        request.partial = !decoder.is_complete();
        match body {
            Ok((consumed, data)) => {
                at += consumed;
                request.body = data;
            }
            Err((_, data)) => {
                relayed.refused = true;
                request.body = data;
            }
        }
        let ended = request.partial || !facts.keep_alive;
        relayed.requests.push(request);
        if ended {
            break;
        }
    }
    relayed
}

type Body = Result<(usize, Vec<u8>), (BodyError, Vec<u8>)>;

fn relay_body(input: &[u8], decoder: &mut BodyDecoder, chunked: bool, out: &mut Vec<u8>) -> Body {
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let step = match decoder.decode(&input[at..]) {
            Ok(step) => step,
            Err(error) => return Err((error, data)),
        };
        let part = &input[at..][step.data];
        data.extend_from_slice(part);
        if chunked {
            encode_chunk(part, out);
        } else {
            out.extend_from_slice(part);
        }
        at += step.consumed;
        if step.end {
            if chunked {
                encode_last_chunk(decoder.trailers(), out);
            }
            return Ok((at, data));
        }
        if step.consumed == 0 || at == input.len() {
            return Ok((at, data));
        }
    }
}

/// Whatever a client sends, what the backend gets has one reading, which is ours; and it is a
/// fixed point: another gateway behind this one passes on the same bytes.
pub fn http1_request(input: &[u8]) {
    let relayed = relay(input);
    let requests = models::one_reading(&relayed.out).unwrap_or_else(|fault| {
        panic!("{fault}\nin  {}\nout {}", input.escape_ascii(), relayed.out.escape_ascii())
    });
    assert_eq!(requests, relayed.requests, "for {}", input.escape_ascii());
    never_partial_after_wrong(input);
    if relayed.anonymous {
        // An empty Host is right in HTTP/1.1, and refused by us.
        return;
    }
    let again = relay_within(&relayed.out, &wider());
    assert_eq!(again.requests, relayed.requests, "for {}", input.escape_ascii());
    assert!(!again.refused, "for {}", input.escape_ascii());
    if relayed.requests.last().is_none_or(|last| !last.partial) {
        let (again, out) = (again.out.escape_ascii(), relayed.out.escape_ascii());
        assert_eq!(again.to_string(), out.to_string());
    }
}

/// A head that is refused stays refused when more of it comes, and a complete one is partial
/// before.
fn never_partial_after_wrong(input: &[u8]) {
    let mut head = RequestHead::default();
    let limits = HeadLimits::default();
    let whole = parse(input, &limits, &mut head);
    let Some(&cut) = input.first() else { return };
    let cut = usize::from(cut) * input.len() / 256;
    let part = parse(&input[..cut], &limits, &mut head);
    match (part, whole) {
        (None, whole) => assert_eq!(whole, None, "for {}", input.escape_ascii()),
        (Some(Some(part)), whole) => assert_eq!(whole, Some(Some(part))),
        (Some(None), Some(Some(whole))) => assert!(whole.consumed > cut),
        (Some(None), _) => {}
    }
}

/// A response that is passed on comes out with one framing and no byte that could end a line, and
/// is a fixed point.
pub fn http1_response(input: &[u8]) {
    let Some((&choice, input)) = input.split_first() else { return };
    let method = if choice & 1 == 0 { Method::GET } else { Method::HEAD };
    let client = if choice & 2 == 0 { Version::Http11 } else { Version::Http10 };
    let limits = HeadLimits::default();
    let Some((first, body)) = pass_on(input, &limits, &method, client) else { return };
    let again = pass_on(&first, &wider(), &method, client);
    let (again, body_again) = again.expect("our own response is right");
    assert_eq!(again.escape_ascii().to_string(), first.escape_ascii().to_string());
    // Behind HTTP/1.0 a body of unknown length has no framing left but the end of the connection.
    let framed = client == Version::Http11 || matches!(body, BodyLength::Known(_));
    assert!(!framed || body == body_again, "for {}", input.escape_ascii());
}

/// The head sent to the client, and the length of what follows.
fn pass_on(
    input: &[u8],
    limits: &HeadLimits,
    method: &Method,
    client: Version,
) -> Option<(Vec<u8>, BodyLength)> {
    let mut head = ResponseHead::default();
    let parsed = parse_response(input, limits, method, &mut head);
    assert!(head.fields.iter().count() <= limits.fields_max);
    let parsed = parsed.ok()?;
    let ParsedResponse::Complete(facts) = parsed else { return None };
    assert!(facts.consumed <= input.len());
    assert!(!(facts.until_close && facts.keep_alive));
    assert!(!facts.chunked || head.body == BodyLength::Unknown);
    if facts.kind != ResponseKind::Final {
        assert_eq!(head.body, BodyLength::Empty);
    }
    let framing = response_framing(&head, method, client, facts.declared_length);
    let mut out = Vec::new();
    let wire = ResponseWire { framing, connection: Connection::Unsaid };
    encode_response(&head, &wire, &mut out);
    let lines = out.windows(2).filter(|pair| pair == b"\r\n").count();
    let breaks = out.iter().filter(|byte| matches!(byte, b'\r' | b'\n' | 0)).count();
    assert_eq!(breaks, 2 * lines, "for {}", input.escape_ascii());
    Some((out, head.body))
}

/// However a chunked body is cut, it gives the same data, trailers and end, or the same error.
pub fn chunked(input: &[u8]) {
    let Some((&cut, input)) = input.split_first() else { return };
    let cut = usize::from(cut) * input.len() / 255;
    let whole = decode(&[input]);
    assert_eq!(whole, decode(&[&input[..cut], &input[cut..]]), "for {}", input.escape_ascii());
    assert_eq!(whole, decode(&input.chunks(1).collect::<Vec<_>>()), "for {}", input.escape_ascii());
    if let Ok(Decoded { data, trailers, consumed: Some(consumed), .. }) = whole {
        let mut out = Vec::new();
        encode_chunk(&data, &mut out);
        let mut fields = Fields::default();
        for (name, value) in &trailers {
            fields.append(name, value);
        }
        encode_last_chunk(Some(&fields), &mut out);
        let again = Decoded { data, trailers, consumed: Some(out.len()) };
        assert_eq!(decode(&[&out]), Ok(again));
        assert!(consumed <= input.len());
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    data: Vec<u8>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Length of the body's encoding, once it is complete.
    consumed: Option<usize>,
}

fn decode(pieces: &[&[u8]]) -> Result<Decoded, BodyError> {
    let mut decoder = BodyDecoder::new(BodyLength::Unknown, true);
    let (mut data, mut consumed) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() && !decoder.is_complete() {
            let step = decoder.decode(&piece[at..])?;
            assert!(step.consumed > 0);
            data.extend_from_slice(&piece[at..][step.data]);
            at += step.consumed;
        }
        consumed += at;
    }
    let fields = decoder.trailers().into_iter().flat_map(Fields::iter);
    let trailers = fields.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    Ok(Decoded { data, trailers, consumed: decoder.is_complete().then_some(consumed) })
}

/// A canonical path is absolute, plain, stays as it is, and climbs for nobody.
pub fn path(input: &[u8]) {
    let Some((&choice, input)) = input.split_first() else { return };
    let treatment = |bit| if choice & bit == 0 { Treatment::Refuse } else { Treatment::Keep };
    let rules = PathRules {
        encoded_slash: treatment(1),
        semicolon: treatment(2),
        merge_slashes: choice & 4 == 0,
    };
    let mut out = b"before".to_vec();
    let first = match path::canonicalise(input, &rules, &mut out) {
        Ok(Canonical::Rewritten) => out[6..].to_vec(),
        Ok(Canonical::Unchanged) => input.to_vec(),
        Err(_) => Vec::new(),
    };
    assert_eq!(&out[..6], b"before");
    if first.is_empty() {
        assert_eq!(out.len(), 6);
        return;
    }
    let mut again = Vec::new();
    assert_eq!(path::canonicalise(&first, &rules, &mut again), Ok(Canonical::Unchanged));
    assert!(first.starts_with(b"/"), "{}", first.escape_ascii());
    assert!(first.iter().all(u8::is_ascii_graphic), "{}", first.escape_ascii());
    let mut text = first.clone();
    for _ in 0..3 {
        text = percent_decode(&text);
        for segment in text.split(|byte| matches!(byte, b'/' | b'\\')) {
            let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
            assert!(name != b"." && name != b"..", "{}", first.escape_ascii());
        }
    }
}
