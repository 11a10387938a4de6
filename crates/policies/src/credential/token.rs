//! One token, from its coming to its end. Times are since the start of the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::oauth::answer::TokenAnswer;
use crate::oauth::hidden::Hidden;

/// Of a token that does not say how long it lives.
const LIFETIME_UNSAID: Duration = Duration::from_secs(300);
/// Before its end a token is not sent any more: it takes a while on its way.
const MARGIN_MAX: Duration = Duration::from_secs(5);
/// Before its end it is refreshed.
const EARLY_MAX: Duration = Duration::from_secs(60);
/// A backend's 401 says nothing against a token that came less than so long ago. So a backend that
/// refuses everything costs no more than one token in this time.
const TRUSTED_FOR: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Token {
    /// The whole value of the field.
    pub(super) value: Hidden,
    came: Duration,
    refresh_at: Duration,
    ends: Duration,
    /// A backend has refused it.
    distrusted: AtomicBool,
}

impl Token {
    /// One that was asked for at that time. `None`: it has ended already.
    pub(super) fn new(answer: &TokenAnswer, asked: Duration) -> Option<Self> {
        let lifetime = answer.expires_in.unwrap_or(LIFETIME_UNSAID);
        let margin = MARGIN_MAX.min(lifetime / 10);
        let early = EARLY_MAX.min(lifetime / 5);
        let value = [b"Bearer ", answer.access_token.bytes()].concat();
        (lifetime >= Duration::from_secs(1)).then(|| Self {
            value: Hidden::new(value),
            came: asked,
            refresh_at: asked + lifetime - early,
            ends: asked + lifetime - margin,
            distrusted: AtomicBool::new(false),
        })
    }

    pub(super) fn is_usable(&self, now: Duration) -> bool {
        now < self.ends
    }

    pub(super) fn refresh_at(&self) -> Duration {
        self.refresh_at
    }

    /// A backend has answered 401 to it.
    pub(super) fn distrust(&self, now: Duration) {
        if now.saturating_sub(self.came) >= TRUSTED_FOR {
            self.distrusted.store(true, Ordering::Relaxed);
        }
    }

    /// No other could be had.
    pub(super) fn trust_again(&self) {
        self.distrusted.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_distrusted(&self) -> bool {
        self.distrusted.load(Ordering::Relaxed)
    }
}
