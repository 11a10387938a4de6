//! `Max-Forwards` of OPTIONS: how many more intermediaries may pass it on (RFC 9110 §7.6.2). TRACE,
//! the other method that it is for, is refused.

use bytes::Bytes;
use http::{Method, StatusCode};
use portcullis_core::policy::ReplyBody;
use portcullis_core::{Reply, RequestHead, ResponseHead};

const NAME: &[u8] = b"max-forwards";

/// Takes one off; where nothing was left the gateway is the last that is asked, and answers. What
/// is no number says nothing, of several numbers the least counts.
pub(crate) fn spend(request: &mut RequestHead) -> Option<Reply> {
    if request.method != Method::OPTIONS {
        return None;
    }
    let left = request.fields.get_all(NAME).filter_map(number).min()?;
    match left.checked_sub(1) {
        Some(left) => {
            request.fields.set(NAME, left.to_string().as_bytes());
            None
        }
        None => {
            let head = ResponseHead::new(StatusCode::NO_CONTENT);
            Some(Reply { head, body: ReplyBody::Bytes(Bytes::new()) })
        }
    }
}

/// Not more than there is room for.
fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}
