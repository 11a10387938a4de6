//! How much an authorizer is asked at once, and when it is left alone for a while.
//!
//! Closed, everybody asks. After [`FAILURES_MAX`] times in a row without an answer it is open:
//! nobody asks for [`PAUSE`], then one request does; its answer closes the circuit again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Failures in a row after which the authorizer is left alone.
pub(super) const FAILURES_MAX: u32 = 10;
/// For how long.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Requests that wait for an authorizer's answer; each holds what it shows of itself.
pub(super) const UNDER_WAY_MAX: usize = 1000;

/// Shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Circuit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    failures: u32,
    /// Where there were too many failures: nobody asks before this moment of the monotonic clock.
    pause_until: Duration,
}

/// Why nobody was asked, or gave no answer.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) reason: String,
    pub(super) retry_after: Duration,
}

/// The right to ask once.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Circuit);

impl Circuit {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, now: Duration) -> Result<Turn<'_>, Away> {
        let mut state = self.lock();
        if state.failures >= FAILURES_MAX {
            if now < state.pause_until {
                let reason = format!("the authorizer gave no answer {FAILURES_MAX} times in a row");
                return Err(Away { reason, retry_after: state.pause_until - now });
            }
            // The others go on waiting while this one tries.
            state.pause_until = now + PAUSE;
        }
        if state.under_way >= UNDER_WAY_MAX {
            let reason = format!("{UNDER_WAY_MAX} requests wait for the authorizer already");
            return Err(Away { reason, retry_after: PAUSE });
        }
        state.under_way += 1;
        Ok(Turn(self))
    }
}

impl Turn<'_> {
    pub(super) fn end(self, is_away: bool, now: Duration) {
        let mut state = self.0.lock();
        match is_away {
            true => {
                state.failures = state.failures.saturating_add(1);
                state.pause_until = now + PAUSE;
            }
            false => state.failures = 0,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(circuit: &Circuit, ms: u64) -> Result<Turn<'_>, u128> {
        circuit.enter(Duration::from_millis(ms)).map_err(|away| away.retry_after.as_millis())
    }

    fn end(turn: Result<Turn<'_>, u128>, is_away: bool, ms: u64) {
        turn.unwrap().end(is_away, Duration::from_millis(ms));
    }

    #[test]
    fn who_does_not_answer_is_left_alone_and_asked_once_in_a_while() {
        let circuit = Circuit::default();
        for _ in 1..FAILURES_MAX {
            end(enter(&circuit, 0), true, 0);
        }
        end(enter(&circuit, 0), false, 0);
        for _ in 0..FAILURES_MAX {
            end(enter(&circuit, 0), true, 100);
        }
        assert_eq!(enter(&circuit, 200).unwrap_err(), 900);
        let one = enter(&circuit, 1100);
        assert_eq!(enter(&circuit, 1200).unwrap_err(), 900, "one tries for all");
        end(one, true, 1500);
        assert_eq!(enter(&circuit, 2400).unwrap_err(), 100);
        // Gone before it had an answer.
        drop(enter(&circuit, 2500).unwrap());
        assert_eq!(enter(&circuit, 3000).unwrap_err(), 500);
        end(enter(&circuit, 3500), false, 3600);
        let all = [enter(&circuit, 3600), enter(&circuit, 3600)];
        assert!(all.iter().all(Result::is_ok));
    }

    #[test]
    fn so_many_ask_at_once() {
        let circuit = Circuit::default();
        let mut turns: Vec<_> = (0..UNDER_WAY_MAX).map(|_| enter(&circuit, 0).unwrap()).collect();
        assert!(enter(&circuit, 0).is_err());
        turns.pop();
        assert!(enter(&circuit, 0).is_ok());
    }
}
