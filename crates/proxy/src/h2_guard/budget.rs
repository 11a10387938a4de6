//! How much a client may ask for before it has waited.

use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// So many at once and so many a minute: a bucket that leaks.
#[derive(Debug)]
pub(super) struct Budget {
    /// What one costs; the bucket holds a minute.
    cost: Duration,
    /// When the bucket will be empty.
    empty_at: Duration,
}

impl Budget {
    pub(super) fn per_minute(count: u32) -> Self {
        // None at all fits where one costs more than there is room for.
        let cost = MINUTE.checked_div(count).unwrap_or(MINUTE * 2);
        Self { cost, empty_at: Duration::ZERO }
    }

    /// `false` when there is no room.
    pub(super) fn spend(&mut self, now: Duration) -> bool {
        let empty_at = self.empty_at.max(now) + self.cost;
        let fits = empty_at - now <= MINUTE;
        if fits {
            self.empty_at = empty_at;
        }
        fits
    }

    pub(super) fn earn(&mut self, count: u32) {
        self.empty_at = self.empty_at.saturating_sub(self.cost * count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_full_at_once_and_refills_within_a_minute() {
        let mut budget = Budget::per_minute(6);
        let now = Duration::from_secs(1_000);
        let spent = |budget: &mut Budget, now| (0..99).take_while(|_| budget.spend(now)).count();
        assert_eq!(spent(&mut budget, now), 6);
        assert_eq!(spent(&mut budget, now + Duration::from_secs(10)), 1);
        assert_eq!(spent(&mut budget, now + Duration::from_secs(11)), 0);
        budget.earn(2);
        assert_eq!(spent(&mut budget, now + Duration::from_secs(11)), 2);
        assert_eq!(spent(&mut budget, now + MINUTE * 5), 6);
        assert_eq!(spent(&mut Budget::per_minute(0), now), 0);
    }
}
