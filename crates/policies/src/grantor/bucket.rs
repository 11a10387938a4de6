//! GCRA: the one moment at which a key's budget will be whole again says all there is to know.
//!
//! `count / per` on average, `burst` at once after a quiet time; admitted in any span T: at most
//! `burst + T · count / per`.

use std::time::Duration;

use portcullis_core::limit::{Grant, LimitSpec};

/// Sixteenths of a nanosecond: at 10⁸ requests a second, one is 160 of them, so that rounding stays
/// below one in a hundred; and 36 years of them fit.
const PARTS: u64 = 16;
/// No budget takes longer to become whole: nine years, far beyond what a limit may say.
const DEBT_MAX: u64 = u64::MAX >> 2;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// When the budget is whole again, in sixteenths of a nanosecond of the process.
    whole_at: u64,
}

impl Bucket {
    pub(super) fn take(&mut self, now: u64, spec: &LimitSpec, burst: u32, want: u32) -> Grant {
        let now = now.saturating_mul(PARTS);
        // Rounded up: never more than was asked for.
        let per = spec.per.as_nanos() * u128::from(PARTS);
        let one = per.div_ceil(u128::from(spec.count.max(1)));
        let one = u64::try_from(one).unwrap_or(DEBT_MAX).clamp(1, DEBT_MAX);
        let depth = one.saturating_mul(u64::from(burst)).min(DEBT_MAX);
        // A whole budget is no debt, so that quiet times do not add up.
        let debt = self.whole_at.saturating_sub(now);
        let asked = one.saturating_mul(u64::from(want.max(1)));
        let granted = debt.saturating_add(asked) <= depth;
        let debt_after = if granted { debt + one * u64::from(want) } else { debt };
        if granted && want > 0 {
            self.whole_at = now.saturating_add(debt_after);
        }
        Grant {
            granted: if granted { want } else { 0 },
            remaining: (depth.saturating_sub(debt_after) / one) as u32,
            retry_after: match granted {
                true => Duration::ZERO,
                // More than can ever be free at once.
                false if asked > depth => spec.per,
                false => duration(debt.saturating_add(asked) - depth),
            },
            reset: duration(debt_after),
        }
    }
}

fn duration(parts: u64) -> Duration {
    Duration::from_nanos(parts.div_ceil(PARTS))
}
