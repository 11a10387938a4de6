//! What one try at an endpoint came to, as outlier detection and breakers see it.
//!
//! Who says so, and of what, is `proxy`'s business. A try that its client abandoned has no verdict:
//! it says nothing about the endpoint.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An answer that is none of the following.
    Well,
    /// An answer with a status of 500 or more, or with one of gRPC that is as bad.
    Status,
    /// No answer, as seen from here: no connection, a reset, a time that passed, nonsense.
    Error,
}

impl Verdict {
    #[must_use]
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Well)
    }
}

/// The verdicts on one endpoint since it is known. Workers count without a lock.
#[derive(Debug, Default)]
pub(crate) struct Record {
    ended: AtomicU64,
    errors: AtomicU64,
    statuses: AtomicU64,
    /// Errors since the last answer.
    in_a_row: AtomicU32,
    timed: AtomicU64,
    /// Of the times of answers the binary logarithms in microseconds, in units of 1/1024: their
    /// mean is hardly moved by a few requests that take long by their nature.
    logarithms: AtomicU64,
}

/// A [`Record`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ended: u64,
    pub(crate) errors: u64,
    pub(crate) statuses: u64,
    pub(crate) in_a_row: u32,
    pub(crate) timed: u64,
    pub(crate) logarithms: u64,
}

impl Record {
    pub(crate) fn count(&self, verdict: Verdict) {
        self.ended.fetch_add(1, Relaxed);
        match verdict {
            Verdict::Error => {
                self.errors.fetch_add(1, Relaxed);
                self.in_a_row.fetch_add(1, Relaxed);
                return;
            }
            Verdict::Status => {
                self.statuses.fetch_add(1, Relaxed);
            }
            Verdict::Well => {}
        }
        // Read first: the usual case has nothing to write.
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }

    /// An answer that had begun to arrive broke off: there has been a verdict already.
    pub(crate) fn broke_off(&self) {
        self.errors.fetch_add(1, Relaxed);
        self.in_a_row.fetch_add(1, Relaxed);
    }

    pub(crate) fn time(&self, took: Duration) {
        self.timed.fetch_add(1, Relaxed);
        self.logarithms.fetch_add(logarithm(took), Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            ended: self.ended.load(Relaxed),
            errors: self.errors.load(Relaxed),
            statuses: self.statuses.load(Relaxed),
            in_a_row: self.in_a_row.load(Relaxed),
            timed: self.timed.load(Relaxed),
            logarithms: self.logarithms.load(Relaxed),
        }
    }
}

/// The binary logarithm of the microseconds in units of 1/1024, straight between powers of two.
fn logarithm(took: Duration) -> u64 {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let whole = u64::from(micros.ilog2());
    let rest = u128::from(micros - (1 << whole)) * 1_024 / (1_u128 << whole);
    whole * 1_024 + rest as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_a_row_of_errors_whatever_its_status() {
        let record = Record::default();
        for verdict in [Verdict::Error, Verdict::Error, Verdict::Status, Verdict::Error] {
            record.count(verdict);
        }
        record.broke_off();
        let Counts { ended, errors, statuses, in_a_row, .. } = record.counts();
        assert_eq!((ended, errors, statuses, in_a_row), (4, 4, 1, 2));
    }

    #[test]
    fn logarithms_are_exact_at_powers_of_two_and_close_between() {
        for (micros, exact) in [(1, 0.0_f64), (1_024, 10.0), (1_500, 10.55), (1 << 40, 40.0)] {
            let found = logarithm(Duration::from_micros(micros)) as f64 / 1_024.0;
            assert!((found - exact).abs() < 0.09, "{micros}: {found}");
        }
        assert_eq!(logarithm(Duration::ZERO), 0);
    }
}
