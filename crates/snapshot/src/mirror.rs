//! Which requests of a route are copied to a mirror. Sending the copies, and what their answers are
//! compared with, is the proxy's business.

use std::time::Duration;

use http::Method;

/// What a share of everything is counted in.
const WHOLE: u64 = 1_000_000;

/// A backend that gets copies of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Into [`crate::Snapshot::backends`].
    pub backend: u16,
    /// Of a million requests.
    share: u64,
    /// How much of a body is kept.
    pub body_bytes_max: usize,
    /// The longest wait in the queue, and then for all of the mirror's answer.
    pub timeout: Duration,
    /// Whether methods are copied that do something.
    pub unsafe_methods: bool,
}

impl Mirror {
    /// `percent` is 0 to 100.
    #[must_use]
    pub fn new(backend: u16, percent: f64, body_bytes_max: usize, timeout: Duration) -> Self {
        // What is beyond the bounds becomes the nearest of them.
        let share = (percent * (WHOLE / 100) as f64).round().clamp(0.0, WHOLE as f64) as u64;
        Self { backend, share, body_bytes_max, timeout, unsafe_methods: false }
    }

    /// The share of the requests that is drawn, in percent.
    #[must_use]
    pub fn percent(&self) -> f64 {
        self.share as f64 / (WHOLE / 100) as f64
    }

    /// Whether a request is drawn, by a number spread over all of `u64`.
    #[must_use]
    pub fn draws(&self, random: u64) -> bool {
        (u128::from(random) * u128::from(WHOLE)) >> 64 < u128::from(self.share)
    }

    /// Whether requests of this method are copied at all.
    #[must_use]
    pub fn copies(&self, method: &Method) -> bool {
        self.unsafe_methods || method.is_safe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(percent: f64) -> Mirror {
        Mirror::new(0, percent, 0, Duration::ZERO)
    }

    /// Of so many numbers spread evenly.
    fn drawn(percent: f64, of: u64) -> usize {
        let mirror = mirror(percent);
        let step = u64::MAX / of;
        (0..of).filter(|number| mirror.draws(step * number + step / 2)).count()
    }

    #[test]
    fn the_share_is_what_was_written() {
        assert_eq!(drawn(0.0, 1000), 0);
        assert_eq!(drawn(100.0, 1000), 1000);
        assert_eq!(drawn(25.0, 1000), 250);
        assert_eq!(drawn(0.1, 10_000), 10);
        assert!(mirror(100.0).draws(u64::MAX) && !mirror(0.0).draws(0));
        assert!(!mirror(99.999_9).draws(u64::MAX));
        let written = [0.0, 0.000_1, 0.1, 12.5, 100.0];
        assert_eq!(written.map(|percent| mirror(percent).percent()), written);
    }

    #[test]
    fn what_does_something_needs_a_word() {
        let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE];
        let others = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let purge = Method::from_bytes(b"PURGE").unwrap();
        let mut mirror = mirror(100.0);
        assert!(safe.iter().all(|method| mirror.copies(method)));
        assert!(!others.iter().chain([&purge]).any(|method| mirror.copies(method)));
        mirror.unsafe_methods = true;
        assert!(others.iter().chain([&purge]).all(|method| mirror.copies(method)));
    }
}
