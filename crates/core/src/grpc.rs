//! What the gateway has to know of gRPC: which requests are, how long they may take, and how a
//! problem is told. Messages are not read.
//!
//! After the gRPC project's "gRPC over HTTP2" and its HTTP to gRPC status code mapping.

use std::time::Duration;

use crate::head::Fields;
use crate::known::Known;

/// `content-type` of gRPC, without a subtype.
pub const CONTENT_TYPE: &[u8] = b"application/grpc";

/// Whether a request is gRPC: `application/grpc`, alone or with a `+subtype` or parameters.
///
/// gRPC-Web (`application/grpc-web`) is another protocol.
#[must_use]
pub fn is_grpc(fields: &Fields) -> bool {
    let Some(value) = fields.known(Known::ContentType) else { return false };
    let Some((name, rest)) = value.split_at_checked(CONTENT_TYPE.len()) else { return false };
    name.eq_ignore_ascii_case(CONTENT_TYPE) && matches!(rest, [] | [b'+' | b';', ..])
}

/// How long the caller waits, by the `grpc-timeout` field: up to eight digits and a unit, which is
/// one of `H M S m u n`. `None` where there is none, or one that is not well-formed.
#[must_use]
pub fn timeout(fields: &Fields) -> Option<Duration> {
    let (unit, digits) = fields.get(b"grpc-timeout")?.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// What `grpc-timeout` says of a wait: an amount, and its unit. The finest of milliseconds, seconds
/// and hours that eight digits can hold, rounded down, since nobody is to be told more than is
/// left; below a millisecond in nanoseconds.
#[must_use]
pub fn amount(left: Duration) -> (u64, char) {
    /// Of eight digits.
    const MOST: u128 = 99_999_999;
    let seconds = left.as_secs();
    match left.as_millis() {
        0 => (left.as_nanos() as u64, 'n'),
        millis @ 1..=MOST => (millis as u64, 'm'),
        _ if u128::from(seconds) <= MOST => (seconds, 'S'),
        _ => ((seconds / 3600).min(MOST as u64), 'H'),
    }
}

/// The gRPC status for a problem with this HTTP status.
///
/// gRPC's own mapping is for a client that meets an answer which is not gRPC: it knows little, and
/// says 429 and 504 to be UNAVAILABLE, which callers take as leave to try again at once. We know
/// what went wrong, so that we say it as a gRPC server would: too much is RESOURCE_EXHAUSTED, too
/// late is DEADLINE_EXCEEDED, and UNAVAILABLE is left for what is worth another try. The rest is
/// as in that mapping: 400 INTERNAL, 401 UNAUTHENTICATED, 403 PERMISSION_DENIED, 404
/// UNIMPLEMENTED, anything else UNKNOWN; with 405 as 404, and 500 INTERNAL, which it is.
#[must_use]
pub const fn status_of(http_status: u16) -> u8 {
    match http_status {
        400 | 500 => 13,
        401 => 16,
        403 => 7,
        404 | 405 => 12,
        408 | 504 => 4,
        413 | 414 | 429 | 431 => 8,
        502 | 503 => 14,
        _ => 2,
    }
}

/// How a call ended, by the field `grpc-status` of its trailers, or of the head where that is all
/// there is. `None` where there is none, or what is no number.
#[must_use]
pub fn status(fields: &Fields) -> Option<u8> {
    std::str::from_utf8(fields.get(b"grpc-status")?).ok()?.parse().ok()
}

/// Whether a call that ended so says that whoever answered it does not work, as a status of 500 and
/// more does for HTTP: UNKNOWN (which servers make of an exception that nobody caught), INTERNAL,
/// UNAVAILABLE and DATA_LOSS.
///
/// The gRPC project's guide to status codes and Envoy's mapping to HTTP agree on these. Envoy
/// counts two more, which callers can bring about as they like, and could use to have endpoints
/// left out: UNIMPLEMENTED, by asking for what is not there, and DEADLINE_EXCEEDED, by having no
/// time. So the first is no fault here, and the second only where the caller set no deadline.
#[must_use]
pub const fn is_fault(status: u8, has_deadline: bool) -> bool {
    match status {
        2 | 13..=15 => true,
        4 => !has_deadline,
        _ => false,
    }
}

/// A text as the value of `grpc-message`: percent-encoded but for the printable ASCII without `%`.
#[must_use]
pub fn message(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;

    fn fields(name: &[u8], value: &str) -> Fields {
        let mut fields = Fields::default();
        fields.append(name, value.as_bytes());
        fields
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let is = |value: &str| is_grpc(&fields(b"Content-Type", value));
        for value in [
            "application/grpc",
            "Application/GRPC",
            "application/grpc+proto",
            "application/grpc;v=1",
        ] {
            assert!(is(value), "{value}");
        }
        for value in
            ["", "application/grp", "application/grpc-web", "application/grpcx", "application/json"]
        {
            assert!(!is(value), "{value}");
        }
        assert!(!is_grpc(&Fields::default()));
    }

    #[test]
    fn what_a_service_is_at_fault_for_is_not_what_its_callers_are() {
        let of = |value: &str| status(&fields(b"grpc-status", value));
        for (value, expected) in
            [("0", Some(0)), ("14", Some(14)), ("", None), ("-1", None), ("UNAVAILABLE", None)]
        {
            assert_eq!(of(value), expected, "{value}");
        }
        assert_eq!(status(&Fields::default()), None);
        let faults = |has_deadline| (0..=99).filter(move |status| is_fault(*status, has_deadline));
        assert_eq!(faults(true).collect::<Vec<_>>(), [2, 13, 14, 15]);
        assert_eq!(faults(false).collect::<Vec<_>>(), [2, 4, 13, 14, 15]);
    }

    #[test]
    fn a_timeout_has_up_to_eight_digits_and_a_unit() {
        let of = |value: &str| timeout(&fields(b"grpc-timeout", value));
        let cases = [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("0S", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ];
        for (value, expected) in cases {
            assert_eq!(of(value), Some(expected), "{value}");
        }
        for value in ["", "S", "1", "1s", "1h", "123456789S", "-1S", "+1S", "1.5S", "1 S", "١S"] {
            assert_eq!(of(value), None, "{value}");
        }
        assert_eq!(timeout(&Fields::default()), None);
    }

    #[test]
    fn what_is_told_of_a_wait_is_never_more_than_it() {
        let told = |left: Duration| {
            let (amount, unit) = amount(left);
            timeout(&fields(b"grpc-timeout", &format!("{amount}{unit}"))).unwrap()
        };
        for exact in [Duration::ZERO, Duration::from_nanos(999_999), Duration::from_millis(1_500)] {
            assert_eq!(told(exact), exact);
        }
        assert_eq!(told(Duration::from_micros(1_999)), Duration::from_millis(1));
        assert_eq!(told(Duration::from_millis(100_000_999)), Duration::from_secs(100_000));
        let days = Duration::from_secs(2_000 * 86_400 + 1);
        assert_eq!(told(days), days - Duration::from_secs(1));
        assert!(told(Duration::MAX) < Duration::MAX);
    }

    #[test]
    fn a_message_is_printable_ascii() {
        assert_eq!(message("100 % of\n\"é\"~"), "100 %25 of%0A\"%C3%A9\"~");
    }

    #[test]
    fn every_problem_has_a_status_that_says_what_to_do() {
        let mut seen: Vec<_> =
            codes::ALL.iter().map(|code| (code.status, status_of(code.status))).collect();
        seen.dedup();
        let expected = [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (405, 12),
            (408, 4),
            (413, 8),
            (414, 8),
            (417, 2),
            (421, 2),
            (429, 8),
            (431, 8),
            (500, 13),
            (502, 14),
            (503, 14),
            (504, 4),
            (505, 2),
            (508, 2),
        ];
        assert_eq!(seen, expected);
    }
}
