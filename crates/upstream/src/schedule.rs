//! The order in which weighted members take their turns, computed once.

/// Turns in one schedule. Weights whose sum does not reduce below this are approximated.
const TURNS_MAX: u64 = 4_096;

/// A list of member numbers in which member `i` stands in proportion to `weights[i]`, spread as
/// evenly as the weights allow (the order of smooth weighted round robin). Weight 0 never occurs.
///
/// Walked in order it is a round robin; looked up at random it samples by weight in O(1).
pub(crate) fn turns(weights: &[u32]) -> Box<[u16]> {
    let weights = reduced(weights);
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    let mut turns = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += weight;
        }
        // The first of equals goes first, so that equal weights rotate in the order written.
        let richest = (0..credit.len())
            .filter(|i| weights[*i] > 0)
            .reduce(|best, i| if credit[i] > credit[best] { i } else { best });
        let Some(richest) = richest else { break };
        credit[richest] -= total;
        turns.push(u16::try_from(richest).unwrap_or(u16::MAX));
    }
    turns.into_boxed_slice()
}

/// Divides by the common divisor, and scales down what is still too large; what was not zero
/// stays at least 1.
fn reduced(weights: &[u32]) -> Vec<i64> {
    let divisor = weights.iter().fold(0, |a, b| common_divisor(a, *b)).max(1);
    let total: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    let scale = |weight: u32| {
        let weight = u64::from(weight / divisor);
        if total <= TURNS_MAX || weight == 0 {
            return weight;
        }
        ((weight * TURNS_MAX + total / 2) / total).max(1)
    };
    weights.iter().map(|weight| scale(*weight) as i64).collect()
}

fn common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn heavy_members_are_spread_out() {
        expect!["[0, 0, 1, 0, 2, 0, 0]"].assert_eq(&format!("{:?}", turns(&[5, 1, 1])));
        expect!["[0, 1, 2]"].assert_eq(&format!("{:?}", turns(&[100, 100, 100])));
        expect!["[1]"].assert_eq(&format!("{:?}", turns(&[0, 50, 0])));
        expect!["[]"].assert_eq(&format!("{:?}", turns(&[0, 0])));
    }

    #[test]
    fn a_schedule_stays_small_and_forgets_nobody() {
        let turns = turns(&[u32::MAX, 1, 1_000_003]);
        assert!(turns.len() <= TURNS_MAX as usize + 3, "{}", turns.len());
        assert!((0..3).all(|member| turns.contains(&member)));
    }
}
