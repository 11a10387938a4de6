//! The one place that asks the operating system for the time. Tests move it by hand.

#![expect(clippy::disallowed_types, reason = "this is the clock that everybody else is told by")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use portcullis_core::Now;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// A clock, shared by all workers.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Real(Instant),
    /// As the real one, but begun at another time of day.
    Begun(Instant, Duration),
    Manual(Arc<Manual>),
}

/// A clock that moves when a test says so.
#[derive(Debug)]
struct Manual {
    nanoseconds: AtomicU64,
    wall_start: Duration,
    moved: Notify,
    /// For how long nobody had a turn, as whoever asks next is told.
    stalled: AtomicU64,
    /// For how long all threads have had something to do.
    busy: AtomicU64,
}

impl Clock {
    #[must_use]
    pub fn real() -> Self {
        Self(Source::Real(Instant::now()))
    }

    /// Goes on from `wall`, as if it were that now.
    #[must_use]
    pub fn beginning(wall: Duration) -> Self {
        Self(Source::Begun(Instant::now(), wall))
    }

    /// Stands still at `wall` until [`Self::advance`].
    #[must_use]
    pub fn manual(wall: Duration) -> Self {
        Self(Source::Manual(Arc::new(Manual {
            nanoseconds: AtomicU64::new(0),
            wall_start: wall,
            moved: Notify::new(),
            stalled: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        })))
    }

    #[must_use]
    pub fn now(&self) -> Now {
        match &self.0 {
            Source::Real(start) => {
                // A wall clock before 1970 is broken; zero lets every token be "not yet valid".
                let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                Now { mono: start.elapsed(), wall: wall.unwrap_or_default() }
            }
            Source::Begun(start, wall) => {
                let mono = start.elapsed();
                Now { mono, wall: *wall + mono }
            }
            Source::Manual(manual) => {
                let mono = Duration::from_nanos(manual.nanoseconds.load(Relaxed));
                Now { mono, wall: manual.wall_start + mono }
            }
        }
    }

    /// Only the monotonic half; half the price.
    #[must_use]
    pub fn mono(&self) -> Duration {
        match &self.0 {
            Source::Real(start) | Source::Begun(start, _) => start.elapsed(),
            Source::Manual(_) => self.now().mono,
        }
    }

    /// A wall clock's reading as `Date` has it (RFC 9110 §5.6.7).
    pub(crate) fn http_date(wall: Duration) -> String {
        /// The year has four digits.
        const LAST: Duration = Duration::from_secs(253_402_300_799);
        httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + wall.min(LAST))
    }

    /// Moves a manual clock and lets everybody who sleeps look at it. A real one moves itself.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.nanoseconds.fetch_add(by.as_nanos() as u64, Relaxed);
            manual.moved.notify_waiters();
        }
    }

    /// Moves a manual clock as if nobody had a turn for the last `late` of `by`, while there was
    /// something to do for `busy`.
    pub fn stall(&self, by: Duration, late: Duration, busy: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.stalled.store(late.as_nanos() as u64, Relaxed);
            manual.busy.fetch_add(busy.as_nanos() as u64, Relaxed);
        }
        self.advance(by);
    }

    /// For how long this thread's runtime has had something to do until now.
    pub(crate) fn busy(&self) -> Duration {
        match &self.0 {
            Source::Real(_) | Source::Begun(..) => {
                Handle::current().metrics().worker_total_busy_duration(0)
            }
            Source::Manual(manual) => Duration::from_nanos(manual.busy.load(Relaxed)),
        }
    }

    /// How much later than meant somebody has his turn who slept for `wait` from `since` on. That a
    /// manual clock is moved far makes nobody late.
    pub(crate) fn lateness(&self, since: Duration, wait: Duration) -> Duration {
        match &self.0 {
            Source::Real(_) | Source::Begun(..) => {
                self.mono().saturating_sub(since).saturating_sub(wait)
            }
            Source::Manual(manual) => Duration::from_nanos(manual.stalled.swap(0, Relaxed)),
        }
    }

    /// Waits at least so long by this clock.
    pub async fn sleep(&self, wait: Duration) {
        match &self.0 {
            Source::Real(_) | Source::Begun(..) => tokio::time::sleep(wait).await,
            Source::Manual(manual) => {
                let until = self.now().mono + wait;
                loop {
                    let moved = manual.moved.notified();
                    if self.now().mono >= until {
                        return;
                    }
                    moved.await;
                }
            }
        }
    }
}
