//! The mistakes themselves, as far as they are made in one place; the others ask [`is_planted`]
//! where they are made.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use super::Fault;
use crate::exchange::Exchange;
use crate::head::{RequestHead, Version};

static PLANTED: AtomicU8 = AtomicU8::new(0);

std::thread_local! {
    static HONEST: Cell<bool> = const { Cell::new(false) };
}

/// Lets the whole process make this mistake, and no other, from now on.
pub fn plant(fault: Option<Fault>) {
    PLANTED.store(fault.map_or(0, |fault| fault as u8), SeqCst);
}

/// Whether this mistake is to be made.
#[must_use]
pub fn is_planted(fault: Fault) -> bool {
    PLANTED.load(SeqCst) == fault as u8 && !HONEST.get()
}

/// Runs without any: whoever judges must not make the mistake that it looks for.
pub fn honestly<T>(run: impl FnOnce() -> T) -> T {
    let before = HONEST.replace(true);
    let result = run();
    HONEST.set(before);
    result
}

/// Whether a path is left as it came.
pub(crate) fn leaves_path(path: &[u8]) -> bool {
    let has =
        |odd: &str| path.windows(odd.len()).any(|part| part.eq_ignore_ascii_case(odd.as_bytes()));
    is_planted(Fault::PathNotCanonical)
        || (is_planted(Fault::EncodedSlash) && has("%2f"))
        || (is_planted(Fault::DoubleDecoding) && has("%25"))
        || (is_planted(Fault::Backslash) && has("\\"))
        || (is_planted(Fault::PathParameterCut) && has(";"))
}

/// The path that routes are found by.
#[must_use]
pub fn routed_path(head: &RequestHead) -> Cow<'_, [u8]> {
    let path = head.path();
    if is_planted(Fault::PathCase) {
        return path.to_ascii_lowercase().into();
    }
    if is_planted(Fault::PathParameterCut) {
        let segments = path.split(|byte| *byte == b'/');
        let cut = segments.map(|segment| segment.split(|b| *b == b';').next().unwrap_or_default());
        return cut.collect::<Vec<_>>().join(&b'/').into();
    }
    if is_planted(Fault::PathOverride)
        && let Some(path) = head.fields.get(b"x-original-url")
    {
        return path.into();
    }
    path.into()
}

/// The method that routes are found by, where it is another one than the request's.
#[must_use]
pub fn routed_method(head: &RequestHead) -> Option<&[u8]> {
    let named = || head.fields.get(b"x-http-method-override");
    is_planted(Fault::MethodOverride).then(named).flatten()
}

/// Whether nobody is asked who is calling.
#[must_use]
pub fn is_not_asked(exchange: &Exchange) -> bool {
    let method = exchange.request.method.as_str();
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    (is_planted(Fault::ListenerWithoutAuth) && exchange.connection.listener == 1)
        || (is_planted(Fault::HeadNotAsked) && method == "HEAD")
        || (is_planted(Fault::OptionsNotAsked) && method == "OPTIONS")
        || (is_planted(Fault::UnknownMethodNotAsked) && !known.contains(&method))
        || (is_planted(Fault::Http2NotAsked) && exchange.request.version == Version::Http2)
}
