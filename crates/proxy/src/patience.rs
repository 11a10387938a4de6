//! How long the caller waits: what it says of that, and what the backend is told of it.
//!
//! Which end holds is the deadline's ceiling; nothing here waits.

use std::io::Write as _;
use std::time::Duration;

use portcullis_core::known::is_alias;
use portcullis_core::{Fields, RequestHead, grpc};
use portcullis_snapshot::Route;

/// Digits of the header: eleven days in milliseconds. Longer than anybody waits.
const DIGITS_MAX: usize = 9;

/// How long the caller waits, by what it says. `trusted` says whether it may say so by the route's
/// header; what others say there is removed, under every name a backend could take for it.
pub(crate) fn asked(
    request: &mut RequestHead,
    route: &Route,
    trusted: impl FnOnce() -> bool,
) -> Option<Duration> {
    let by_grpc = match grpc::is_grpc(&request.fields) {
        true => grpc::timeout(&request.fields),
        false => None,
    };
    let Some(header) = &route.deadline_header else { return by_grpc };
    let by_header = match trusted() {
        true => request.fields.get(header.as_bytes()).and_then(milliseconds),
        false => None,
    };
    request.fields.remove_if(|_, name, _| is_alias(name, header.as_bytes()));
    [by_grpc, by_header].into_iter().flatten().min()
}

/// Tells the backend how much is left.
pub(crate) fn tell(request: &mut RequestHead, route: &Route, left: Duration) {
    let fields = &mut request.fields;
    if grpc::is_grpc(fields) {
        let (amount, unit) = grpc::amount(left);
        set(fields, b"grpc-timeout", amount, &[unit as u8]);
    }
    if let Some(header) = &route.deadline_header {
        let most = 10_u128.pow(DIGITS_MAX as u32) - 1;
        set(fields, header.as_bytes(), left.as_millis().min(most) as u64, b"");
    }
}

fn set(fields: &mut Fields, name: &[u8], amount: u64, unit: &[u8]) {
    /// Of the longest number, and a unit.
    const ROOM: usize = 21;
    let mut text = [0; ROOM];
    let mut rest = &mut text[..];
    let written = write!(rest, "{amount}").and_then(|()| rest.write_all(unit));
    let free = rest.len();
    // There is room for every amount.
    if written.is_ok() {
        fields.set(name, &text[..ROOM - free]);
    }
}

/// `None` for what is not a number of milliseconds.
fn milliseconds(value: &[u8]) -> Option<Duration> {
    if !(1..=DIGITS_MAX).contains(&value.len()) || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(Duration::from_millis(amount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_number_of_milliseconds() {
        let cases: [(&str, Option<u64>); 9] = [
            ("0", Some(0)),
            ("250", Some(250)),
            ("000000001", Some(1)),
            ("999999999", Some(999_999_999)),
            ("1000000000", None),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("1s", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(milliseconds(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn the_longest_amount_has_room() {
        let mut fields = Fields::default();
        set(&mut fields, b"a", u64::MAX, b"m");
        assert_eq!(fields.get(b"a"), Some(&b"18446744073709551615m"[..]));
    }
}
