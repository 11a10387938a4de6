//! What clients saw, held against the promises. Figures in, verdicts out.

use std::time::Duration;

use crate::client::{Outcome, Seen};
use crate::report::Kept;
use crate::scenario::Promise;

/// What takes longer is as bad as an error, for the time until all is good again.
pub(crate) const LONG: Duration = Duration::from_millis(250);
/// What the retry budget is by default, which the drills leave as it is.
const BUDGET_PERCENT: u64 = 20;
const BUDGET_PER_SECOND: u64 = 10;
const BUDGET_SAVED_SECONDS: u64 = 10;

/// Everything that is known of one drill.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) seen: Vec<Seen>,
    /// Requests that each endpoint got; of the first also how many while there was trouble.
    pub(crate) asked: Vec<u64>,
    pub(crate) first_in_trouble: u64,
    /// When the trouble began, when it ended, and when the last request was sent.
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    pub(crate) whole: Duration,
}

impl Course {
    pub(crate) fn in_trouble(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|seen| (self.began..self.ended).contains(&seen.at))
    }

    pub(crate) fn failed(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|seen| !is_good(&seen.outcome))
    }

    /// The time that so many of a hundred in trouble do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut times: Vec<Duration> = self.in_trouble().map(|seen| seen.took).collect();
        times.sort_unstable();
        let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(at).copied().unwrap_or_default()
    }

    /// How long after `since` the last bad answer came; of those that were asked for after it.
    pub(crate) fn good_again(&self, since: Duration) -> Duration {
        let bad = |seen: &&Seen| !is_good(&seen.outcome) || seen.took > LONG;
        let after = self.seen.iter().filter(|seen| seen.at >= since).filter(bad);
        let last = after.map(|seen| seen.at + seen.took).max();
        last.map_or(Duration::ZERO, |last| last - since)
    }

    fn budget(&self) -> u64 {
        let requests = self.seen.len() as u64;
        let seconds = self.whole.as_secs() + 1 + BUDGET_SAVED_SECONDS;
        requests + requests * BUDGET_PERCENT / 100 + seconds * BUDGET_PER_SECOND + 1
    }
}

fn is_good(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Endpoint(200, _))
}

/// Whether it was kept, with what was seen.
pub(crate) fn judge(promise: Promise, course: &Course) -> Kept {
    let ms = |time: Duration| format!("{} ms", time.as_millis());
    let count = |what: &dyn Fn(&Outcome) -> bool| {
        course.seen.iter().filter(|seen| what(&seen.outcome)).count() as u64
    };
    let (promise, timed, kept, seen) = match promise {
        Promise::NothingFails => {
            let failed = course.failed().count();
            ("every request gets its 200".to_owned(), false, failed == 0, failed.to_string())
        }
        Promise::FailuresAreSaid => {
            let unsaid = count(&|outcome| match outcome {
                Outcome::Gateway(status, _) => !(502..=504).contains(status),
                Outcome::Endpoint(status, _) => *status != 200,
                Outcome::Cut | Outcome::TimedOut => true,
            });
            let text = "what fails is said, with 502 to 504".to_owned();
            (text, false, unsaid == 0, unsaid.to_string())
        }
        Promise::BackendIsHeard => {
            let other = count(&|outcome| !matches!(outcome, Outcome::Endpoint(..)));
            ("only answers of the backend".to_owned(), false, other == 0, other.to_string())
        }
        Promise::WithinBudget => {
            let (asked, most) = (course.asked.iter().sum::<u64>(), course.budget());
            let text = format!("at most {most} requests reach the backend");
            (text, false, asked <= most, asked.to_string())
        }
        Promise::AtMostOnce => {
            let (asked, sent) = (course.asked.iter().sum::<u64>(), course.seen.len() as u64);
            let text = format!("at most {sent} requests reach the backend");
            (text, false, asked <= sent, asked.to_string())
        }
        Promise::Avoided(most) => {
            let all = course.in_trouble().count() as u64;
            let share = course.first_in_trouble * 100 / all.max(1);
            let text = format!("it gets at most {most} % of the requests");
            (text, false, share <= most, format!("{share} %"))
        }
        Promise::Quick(most) => {
            let seen = course.percentile(99);
            (format!("p99 at most {}", ms(most)), true, seen <= most, ms(seen))
        }
        Promise::Median(most) => {
            let seen = course.percentile(50);
            (format!("median at most {}", ms(most)), true, seen <= most, ms(seen))
        }
        Promise::GoodAgain(most) => {
            let seen = course.good_again(course.began);
            (format!("good again within {}", ms(most)), true, seen <= most, ms(seen))
        }
        Promise::GoodAfter(most) => {
            let seen = course.good_again(course.ended);
            (format!("good {} after it ended", ms(most)), true, seen <= most, ms(seen))
        }
    };
    Kept { promise, timed, kept, seen }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A request every ten milliseconds for three seconds, of which the middle one has trouble.
    fn course(outcome: impl Fn(u64) -> (u64, Outcome)) -> Course {
        let seen = |at: u64| {
            let (took, outcome) = outcome(at);
            Seen { at: ms(at), took: ms(took), outcome }
        };
        Course {
            seen: (0..3_000).step_by(10).map(seen).collect(),
            asked: vec![100, 150, 50],
            first_in_trouble: 9,
            began: ms(1_000),
            ended: ms(2_000),
            whole: ms(3_000),
        }
    }

    fn good(_: u64) -> (u64, Outcome) {
        (2, Outcome::Endpoint(200, 1))
    }

    #[test]
    fn a_good_course_keeps_everything() {
        let course = course(good);
        for promise in [
            Promise::NothingFails,
            Promise::FailuresAreSaid,
            Promise::BackendIsHeard,
            Promise::WithinBudget,
            Promise::AtMostOnce,
            Promise::Avoided(9),
            Promise::Quick(ms(2)),
            Promise::Median(ms(2)),
            Promise::GoodAgain(ms(0)),
            Promise::GoodAfter(ms(0)),
        ] {
            let kept = judge(promise, &course);
            assert!(kept.kept, "{kept:?}");
        }
    }

    #[test]
    fn each_promise_can_be_broken() {
        let problem = |status| Outcome::Gateway(status, "backend-unreachable".to_owned());
        let at = |bad: u64, outcome: Outcome| {
            course(move |at| if at == bad { (40, outcome.clone()) } else { good(at) })
        };
        let broken = |promise, course: &Course| {
            let kept = judge(promise, course);
            assert!(!kept.kept, "{kept:?}");
        };
        for outcome in [problem(502), Outcome::Cut, Outcome::TimedOut, Outcome::Endpoint(503, 1)] {
            broken(Promise::NothingFails, &at(1_500, outcome));
        }
        broken(Promise::FailuresAreSaid, &at(1_500, problem(404)));
        broken(Promise::FailuresAreSaid, &at(1_500, Outcome::Cut));
        assert!(judge(Promise::FailuresAreSaid, &at(1_500, problem(502))).kept);
        broken(Promise::BackendIsHeard, &at(1_500, problem(503)));
        broken(Promise::AtMostOnce, &Course { asked: vec![301], ..course(good) });
        broken(Promise::Avoided(8), &course(good));
        broken(Promise::GoodAgain(ms(539)), &at(1_500, problem(502)));
        assert!(judge(Promise::GoodAgain(ms(540)), &at(1_500, problem(502))).kept);
        broken(Promise::GoodAfter(ms(139)), &at(2_100, Outcome::Cut));
        assert!(judge(Promise::GoodAfter(ms(0)), &at(1_990, Outcome::Cut)).kept);
        let slow = course(|at| (if at < 1_020 { 300 } else { 2 }, Outcome::Endpoint(200, 1)));
        broken(Promise::Quick(ms(299)), &slow);
        broken(Promise::GoodAgain(ms(309)), &slow);
        broken(Promise::Median(ms(1)), &slow);
        // 300 requests, 60 for them, and 14 seconds of ten.
        let asked = |asked| Course { asked: vec![asked], ..course(good) };
        assert!(judge(Promise::WithinBudget, &asked(501)).kept);
        broken(Promise::WithinBudget, &asked(502));
    }
}
