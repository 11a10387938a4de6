//! W3C Trace Context (<https://www.w3.org/TR/trace-context-2/>): continuing or beginning a trace.
//!
//! Spans are not recorded or sent anywhere here; backends see the gateway as one hop.

use portcullis_core::exchange::TraceContext;
use portcullis_core::{Fields, Known, hex};

/// List members of `tracestate`; more, and it is dropped (§3.3.1.1).
const MEMBERS_MAX: usize = 32;
/// Bytes of `tracestate` over all its field lines; §3.3.1.5 asks for at least 512.
const STATE_BYTES_MAX: usize = 1_024;
/// `00-` 32 `-` 16 `-` 2.
const PARENT_LEN: usize = 55;

/// Random bits for one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Randomness {
    pub trace_id: u128,
    pub span_id: u64,
}

/// The context of one exchange: the caller's trace with this gateway as a span of it, or a new
/// trace, when there is no valid `traceparent` or more than one.
///
/// `sampled` is what a new trace says; backends that follow their parent's decision record it or
/// not.
#[must_use]
pub fn receive(fields: &Fields, random: Randomness, sampled: bool) -> TraceContext {
    // Ids of zero are invalid; the odds that random bits are zero are not worth more than this.
    let span_id = random.span_id.max(1);
    let mut sent = fields.known_all(Known::Traceparent);
    let parent = match (sent.next(), sent.next()) {
        (Some(text), None) => parse(text),
        _ => None,
    };
    match parent {
        Some(parent) => TraceContext { span_id, ..parent },
        None => TraceContext { trace_id: random.trace_id.max(1), span_id, parent_id: 0, sampled },
    }
}

/// Writes the context into the head that goes to the backend. `tracestate` is passed on as it came
/// while the trace is the caller's and the state is within bounds; otherwise it is removed whole.
pub fn send(fields: &mut Fields, context: &TraceContext) {
    fields.remove_known(Known::Traceparent);
    fields.append_known(Known::Traceparent, &traceparent(context));
    if context.parent_id == 0 || !is_state_sound(fields) {
        fields.remove_known(Known::Tracestate);
    }
}

/// The context of a further span under this one, for an attempt of its own.
#[must_use]
pub fn child(context: &TraceContext, random: u64) -> TraceContext {
    TraceContext { parent_id: context.span_id, span_id: random.max(1), ..*context }
}

/// The field value, version 00.
#[must_use]
pub fn traceparent(context: &TraceContext) -> [u8; PARENT_LEN] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    text[3..35].copy_from_slice(&hex::of_128(context.trace_id));
    text[36..52].copy_from_slice(&hex::of_64(context.span_id));
    text[PARENT_LEN - 1] = b'0' + u8::from(context.sampled);
    text
}

/// `parent_id` is the sender's span, `span_id` is left 0.
fn parse(text: &[u8]) -> Option<TraceContext> {
    let (known, more) = text.split_at_checked(PARENT_LEN)?;
    let version = hex(&known[..2])?;
    // Later versions may append fields, and nothing else may change (§4.3).
    let shape = match (version, more.first()) {
        (0xff, _) => false,
        (0, more) => more.is_none(),
        (_, more) => matches!(more, None | Some(b'-')),
    };
    let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    if !shape || !dashes {
        return None;
    }
    let trace_id = hex(&known[3..35])?;
    let parent_id = hex(&known[36..52])? as u64;
    let flags = hex(&known[53..])?;
    let valid = trace_id != 0 && parent_id != 0;
    valid.then_some(TraceContext { trace_id, span_id: 0, parent_id, sampled: flags & 1 == 1 })
}

/// Lower case only, as the specification has it; at most 32 digits.
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number: u128, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

fn is_state_sound(fields: &Fields) -> bool {
    let mut members = 0;
    let mut bytes = 0;
    for line in fields.known_all(Known::Tracestate) {
        bytes += line.len();
        for member in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            // Empty members are allowed and say nothing.
            if member.is_empty() {
                continue;
            }
            members += 1;
            if !is_member(member) {
                return false;
            }
        }
    }
    members <= MEMBERS_MAX && bytes <= STATE_BYTES_MAX
}

/// `key=value` of §3.3.1.3.
fn is_member(member: &[u8]) -> bool {
    let Some(at) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (&member[..at], &member[at + 1..]);
    let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let further = |byte: &u8| first(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
    let printable = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b'=';
    key.first().is_some_and(first)
        && key.len() <= 256
        && key.iter().all(further)
        && !value.is_empty()
        && value.len() <= 256
        && value.iter().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANDOM: Randomness = Randomness { trace_id: 0xfeed, span_id: 0xbeef };
    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn head(fields: &[(&str, &str)]) -> Fields {
        let mut head = Fields::default();
        for (name, value) in fields {
            head.append(name.as_bytes(), value.as_bytes());
        }
        head
    }

    /// What a backend gets as `traceparent`, with the random parts named.
    fn forwarded(sent: &[&str]) -> String {
        let mut fields =
            head(&sent.iter().map(|value| ("traceparent", *value)).collect::<Vec<_>>());
        let context = receive(&fields, RANDOM, false);
        send(&mut fields, &context);
        let all: Vec<_> = fields.get_all(b"traceparent").collect();
        assert_eq!(all.len(), 1);
        let text = std::str::from_utf8(all[0]).unwrap();
        text.replace(&format!("{:032x}", 0xfeed), "NEW").replace(&format!("{:016x}", 0xbeef), "ME")
    }

    #[test]
    fn a_valid_parent_is_continued_and_anything_else_begins_a_trace() {
        const CONTINUED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-ME-01";
        const BEGUN: &str = "00-NEW-ME-00";
        for (sent, expected) in [
            (CALLER, CONTINUED),
            // Only the lowest flag has a meaning in version 00.
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", CONTINUED),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02",
                &CONTINUED.replace("-01", "-00"),
            ),
            // A later version, with and without more fields.
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", CONTINUED),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-brings",
                CONTINUED,
            ),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what", BEGUN),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", BEGUN),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-", BEGUN),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", BEGUN),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", BEGUN),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", BEGUN),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", BEGUN),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01", BEGUN),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", BEGUN),
            ("00-4bf92f3577b34da6a3ce929d0e0e47366-00f067aa0ba902b7-01", BEGUN),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1", BEGUN),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x", BEGUN),
            ("00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01", BEGUN),
            ("0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", BEGUN),
            ("qw-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", BEGUN),
            (".0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", BEGUN),
            ("", BEGUN),
            ("foo", BEGUN),
        ] {
            assert_eq!(forwarded(&[sent]), expected, "{sent}");
        }
        assert_eq!(forwarded(&[]), BEGUN);
        assert_eq!(forwarded(&[CALLER, CALLER]), BEGUN, "two of them");
    }

    #[test]
    fn a_new_trace_says_what_the_operator_chose() {
        assert!(receive(&Fields::default(), RANDOM, true).sampled);
        let context = receive(&Fields::default(), Randomness::default(), false);
        assert!(context.trace_id != 0 && context.span_id != 0, "zero is not an id");
    }

    #[test]
    fn a_child_stays_in_the_trace() {
        let context = receive(&head(&[("traceparent", CALLER)]), RANDOM, false);
        let child = child(&context, 5);
        assert_eq!((child.trace_id, child.parent_id, child.span_id), (context.trace_id, 0xbeef, 5));
        assert!(child.sampled);
    }

    /// What a backend gets as `tracestate`.
    fn state(parent: &str, lines: &[&str]) -> String {
        let mut fields = head(&[("traceparent", parent)]);
        for line in lines {
            fields.append(b"tracestate", line.as_bytes());
        }
        let context = receive(&fields, RANDOM, false);
        send(&mut fields, &context);
        let lines: Vec<_> = fields.get_all(b"tracestate").map(<[u8]>::escape_ascii).collect();
        lines.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn a_sound_state_travels_on_with_its_trace() {
        for sound in
            ["foo=1", "foo=1,bar=2", "foo=1 , \tbar=2, ", "fw529a3039@dt=FfffFf!", "0a/*-_=x y"]
        {
            assert_eq!(state(CALLER, &[sound]), sound.escape_default().to_string(), "{sound}");
        }
        assert_eq!(state(CALLER, &["foo=1", "bar=2"]), "foo=1 | bar=2");
        assert_eq!(state("foo", &["foo=1"]), "", "of another trace");
    }

    #[test]
    fn an_unsound_state_is_dropped_whole() {
        for unsound in ["foo", "foo=", "=1", "foo=1=2", "FOO=1", "foo =1", "-a=1", "foo=\u{e9}"] {
            assert_eq!(state(CALLER, &["a=1", unsound]), "", "{unsound}");
        }
        let members = |count: usize| vec!["a=1"; count].join(",");
        assert_eq!(state(CALLER, &[&members(32)]), members(32));
        assert_eq!(state(CALLER, &[&members(32), "b=1"]), "");
        let long = format!("a={}", "x".repeat(256));
        assert_eq!(state(CALLER, &[&long, &long]), format!("{long} | {long}"));
        assert_eq!(state(CALLER, &[&long, &long, &long, &long]), "");
        assert_eq!(state(CALLER, &[&format!("{long}x")]), "");
    }
}
