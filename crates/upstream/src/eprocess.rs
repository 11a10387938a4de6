//! Whether one of two proportions is larger: a test that may be looked at after every request and
//! stopped whenever somebody likes, without becoming more willing to cry wolf.
//!
//! A safe test of two proportions (Turner, Ly, Grünwald: "Generic E-variables for exact sequential
//! k-sample tests", 2024). Each look multiplies the evidence `E` by how much better the counts
//! since the last one are explained by "the canary is worse" than by "both are alike". If they are
//! alike, or the canary is better, `E` is expected never to grow, so that it reaches 1/α at any
//! time at all with a probability of at most α (Ville's inequality).
//!
//! A canary may turn bad late, when much has spoken for it already. So `E` is the mean of many such
//! products, one for each look at which it may have become worse: a mean of what is not expected to
//! grow is not expected to grow either. The look with number `t` weighs `1/(t·(t + 1))`, which is
//! 1 in all, so that one sum is all that has to be kept.

/// What was counted since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub trials: u64,
    /// Of them; never more.
    pub hits: u64,
}

/// The least that "worse" means: half as much again, and half a percent more.
const WORSE_FACTOR: f64 = 1.5;
const WORSE_BY: f64 = 0.005;
/// What is believed of the baseline before anything was seen: one hit in 200, held lightly.
const BASELINE_PRIOR: (f64, f64) = (0.5, 100.0);
/// How many trials' worth the canary is believed to be like the baseline.
const CANARY_PRIOR: f64 = 10.0;

/// The evidence that the canary has more hits than the baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EProcess {
    /// The weighed sum of the products that have begun: a logarithm, since it may become larger
    /// and smaller than any number.
    log_begun: f64,
    looks: f64,
}

impl Default for EProcess {
    fn default() -> Self {
        Self { log_begun: f64::NEG_INFINITY, looks: 0.0 }
    }
}

impl EProcess {
    /// Takes in what was counted since the last look. `learnt` is what was counted before it, by
    /// which both proportions are guessed; that the guess cannot know what it is held against is
    /// what makes the test valid.
    pub fn look(&mut self, canary: Counts, baseline: Counts, learnt: (Counts, Counts)) {
        let (n_a, n_b) = (canary.trials as f64, baseline.trials as f64);
        if n_a == 0.0 || n_b == 0.0 {
            return;
        }
        let (past_a, past_b) = learnt;
        let (hits, trials) = BASELINE_PRIOR;
        let b = (past_b.hits as f64 + hits) / (past_b.trials as f64 + trials);
        let a = (past_a.hits as f64 + b * CANARY_PRIOR) / (past_a.trials as f64 + CANARY_PRIOR);
        let (a, b) = (certain(a.max(b * WORSE_FACTOR).max(b + WORSE_BY)), certain(b));
        let pooled = (n_a * a + n_b * b) / (n_a + n_b);
        self.looks += 1.0;
        let begins = -(self.looks * (self.looks + 1.0)).ln();
        self.log_begun = log_of_sum(self.log_begun, begins);
        self.log_begun += gain(canary, a, pooled) + gain(baseline, b, pooled);
    }

    /// `E`: so many to one.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        self.log_e().exp()
    }

    /// Whether it has reached 1/α.
    #[must_use]
    pub fn exceeds(&self, alpha: f64) -> bool {
        self.log_e() >= -alpha.ln()
    }

    /// With the products that have not begun, each of which is 1.
    fn log_e(&self) -> f64 {
        log_of_sum(self.log_begun, -(self.looks + 1.0).ln())
    }
}

/// `ln(exp(a) + exp(b))`; `b` is finite.
fn log_of_sum(a: f64, b: f64) -> f64 {
    let most = a.max(b);
    most + ((a - most).exp() + (b - most).exp()).ln()
}

/// Never 0 and never 1, of which no evidence could convince anybody otherwise.
fn certain(proportion: f64) -> f64 {
    proportion.clamp(1e-6, 1.0 - 1e-6)
}

/// The logarithm of how much better `p` explains the counts than `pooled`.
fn gain(counts: Counts, p: f64, pooled: f64) -> f64 {
    let hits = counts.hits as f64;
    let misses = counts.trials.saturating_sub(counts.hits) as f64;
    hits * (p / pooled).ln() + misses * ((1.0 - p) / (1.0 - pooled)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(trials: u64, hits: u64) -> Counts {
        Counts { trials, hits }
    }

    #[test]
    fn nothing_seen_is_no_evidence() {
        let mut e = EProcess::default();
        let none = (Counts::default(), Counts::default());
        e.look(counts(0, 0), counts(100, 50), none);
        e.look(counts(100, 50), counts(0, 0), none);
        assert_eq!((e.evidence(), e.exceeds(0.001)), (1.0, false));
    }

    /// What makes it a test: of all outcomes of the next look, weighted by how likely they are when
    /// both proportions are alike (or the canary's is smaller), `E` is what it was at most.
    #[test]
    fn evidence_is_not_expected_to_grow_when_the_canary_is_no_worse() {
        let choose = |n: u64, k: u64| (0..k).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64);
        let likely = |n: u64, k: u64, p: f64| {
            choose(n, k) * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32)
        };
        for (true_a, true_b) in [(0.01, 0.01), (0.3, 0.3), (0.9, 0.9), (0.1, 0.2), (0.0, 0.5)] {
            for learnt in [(counts(0, 0), counts(0, 0)), (counts(50, 9), counts(400, 8))] {
                let mut before = EProcess::default();
                for looks in 0..4 {
                    let mut expected = 0.0;
                    for hits_a in 0..=8 {
                        for hits_b in 0..=20 {
                            let mut e = before;
                            e.look(counts(8, hits_a), counts(20, hits_b), learnt);
                            let weight = likely(8, hits_a, true_a) * likely(20, hits_b, true_b);
                            expected += weight * e.evidence();
                        }
                    }
                    let at_most = before.evidence() * (1.0 + 1e-9);
                    assert!(
                        expected <= at_most,
                        "{true_a} {true_b} {learnt:?} {looks}: {expected}"
                    );
                    before.look(counts(8, 1), counts(20, 2), learnt);
                }
            }
        }
    }

    /// However long it was good: a bad minute is a bad minute.
    #[test]
    fn what_turns_bad_late_is_found_too() {
        let mut e = EProcess::default();
        let learnt = (counts(1_000, 2), counts(1_000, 2));
        for _ in 0..100_000 {
            e.look(counts(100, 0), counts(100, 0), learnt);
        }
        assert!(e.evidence() < 0.001 && e.evidence() > 0.0, "{}", e.evidence());
        let mut seconds = 0;
        while !e.exceeds(0.001) {
            e.look(counts(100, 5), counts(100, 0), learnt);
            seconds += 1;
        }
        assert!(seconds < 30, "{seconds}");
    }
}
