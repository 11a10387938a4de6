//! Judgements, case by case and by simulation; each simulation prints its seed when it fails.

use expect_test::expect;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Endpoints as the judge sees them.
struct Court {
    terms: Terms,
    now: Duration,
    judged: Vec<Judged>,
    counts: Vec<Counts>,
    usable: Vec<bool>,
}

impl Court {
    fn new(terms: Terms, size: usize) -> Self {
        Self {
            terms,
            now: Duration::from_secs(1_000),
            judged: (0..size as u64).map(Judged::new).collect(),
            counts: vec![Counts::default(); size],
            usable: vec![true; size],
        }
    }

    fn requests(&mut self, at: usize, well: u64, errors: u64, statuses: u64) {
        let counts = &mut self.counts[at];
        counts.ended += well + errors + statuses;
        counts.errors += errors;
        counts.statuses += statuses;
        let answered = well + statuses > 0;
        counts.in_a_row = if answered { 0 } else { counts.in_a_row + errors as u32 };
    }

    fn judge(&mut self) -> Vec<(usize, Event)> {
        self.now += SECOND;
        let rest = self.counts.iter().zip(&self.usable);
        let mut cases: Vec<Case<'_>> = self
            .judged
            .iter_mut()
            .zip(rest)
            .map(|(judged, (counts, usable))| Case { judged, counts: *counts, usable: *usable })
            .collect();
        judge(&self.terms, self.now, &mut cases)
    }

    fn out(&self) -> Vec<usize> {
        (0..self.judged.len()).filter(|at| self.judged[*at].until.is_some()).collect()
    }
}

fn told(events: &[(usize, Event)]) -> String {
    let line = |(at, event): &(usize, Event)| match event {
        Event::Ejected { reason, pause, detail } => {
            format!("{at} ejected for {}, {} s: {detail}\n", reason.name(), pause.as_secs())
        }
        Event::Returned => format!("{at} returned\n"),
    };
    events.iter().map(line).collect()
}

#[test]
fn five_errors_in_a_row_are_enough_and_four_are_not() {
    let mut court = Court::new(Terms::default(), 4);
    court.requests(2, 0, 4, 0);
    assert_eq!(court.judge(), []);
    court.requests(2, 0, 1, 0);
    expect![[r#"
        2 ejected for errors, 10 s: 5 errors in a row
    "#]]
    .assert_eq(&told(&court.judge()));
    // Two of four are the most.
    for at in [0, 1, 3] {
        court.requests(at, 0, 5 + at as u64, 0);
    }
    court.judge();
    assert_eq!(court.out(), [2, 3]);
}

#[test]
fn who_fails_more_than_the_others_goes_for_a_while_and_longer_each_time() {
    let mut court = Court::new(Terms::default(), 10);
    let mut lines = String::new();
    for second in 0..150 {
        for at in 0..10 {
            if !court.out().contains(&at) {
                let bad = if at == 7 { 6 } else { 0 };
                court.requests(at, 10 - bad, 0, bad);
            }
        }
        let told = told(&court.judge());
        told.lines().for_each(|line| lines += &format!("{second}: {line}\n"));
    }
    expect![[r#"
        2: 7 ejected for statuses, 9 s: 60 % of its requests failed, 0 % of the others'
        12: 7 returned
        15: 7 ejected for statuses, 17 s: 60 % of its requests failed, 0 % of the others'
        33: 7 returned
        36: 7 ejected for statuses, 44 s: 60 % of its requests failed, 0 % of the others'
        81: 7 returned
        84: 7 ejected for statuses, 81 s: 60 % of its requests failed, 0 % of the others'
    "#]]
    .assert_eq(&lines);
}

#[test]
fn where_all_fail_alike_nobody_goes() {
    let mut court = Court::new(Terms::default(), 5);
    for _ in 0..20 {
        (0..5).for_each(|at| court.requests(at, 5, 2, 8));
        assert_eq!(court.judge(), []);
    }
}

#[test]
fn never_the_last_of_use_and_never_more_than_half() {
    for size in 1..12 {
        let mut court = Court::new(Terms::default(), size);
        for at in 0..size {
            court.requests(at, 0, 10 + at as u64, 0);
        }
        court.judge();
        assert_eq!(court.out().len(), size / 2, "of {size}");
    }
    let mut court = Court::new(Terms { ejected_max: 100, ..Terms::default() }, 3);
    court.usable[2] = false;
    for at in 0..3 {
        court.requests(at, 0, 10, 0);
    }
    court.judge();
    assert_eq!(court.out(), [0, 2], "of the two that are of use one stays");
}

#[test]
fn slow_answers_take_an_endpoint_out_and_a_few_long_ones_do_not() {
    let terms = Terms { latency: Some(3.0), ..Terms::default() };
    let mut court = Court::new(terms, 4);
    let times = |court: &mut Court, at: usize, millis: u64, count: u64| {
        let logarithm = ((millis * 1_000) as f64).log2() * 1_024.0;
        court.requests(at, count, 0, 0);
        court.counts[at].timed += count;
        court.counts[at].logarithms += logarithm as u64 * count;
    };
    for _ in 0..10 {
        for at in 0..4 {
            times(&mut court, at, 20, 19);
            times(&mut court, at, if at == 1 { 10_000 } else { 20 }, 1);
        }
        assert_eq!(court.judge(), []);
    }
    let mut lines = String::new();
    for _ in 0..4 {
        (0..4).for_each(|at| times(&mut court, at, if at == 1 { 200 } else { 20 }, 20));
        lines += &told(&court.judge());
    }
    expect![[r#"
        1 ejected for latency, 10 s: answers take 76 ms, those of the others 20 ms
    "#]]
    .assert_eq(&lines);
    assert_eq!(court.out(), [1]);
}

/// Ten endpoints, of which one fails most of its requests from the tenth second on.
#[test]
fn one_bad_in_ten_is_found_within_seconds_and_nobody_else_is() {
    for seed in 0..50 {
        let mut mix = Mix::new(seed);
        let mut court = Court::new(Terms::default(), 10);
        let mut found = None;
        for second in 0..40 {
            for at in 0..10 {
                if court.out().contains(&at) {
                    continue;
                }
                // All fail a little: a bad request fails everywhere.
                let percent = if at == 3 && second >= 10 { 60 } else { 5 };
                let failed = (0..20).filter(|_| mix.below(100) < percent).count() as u64;
                court.requests(at, 20 - failed, 0, failed);
            }
            for (at, event) in court.judge() {
                assert_eq!(at, 3, "seed {seed}, second {second}: {event:?}");
                assert!(second >= 10, "seed {seed}: {event:?}");
                found.get_or_insert(second - 10);
            }
        }
        assert!(found.is_some_and(|after| after <= 5), "seed {seed}: {found:?}");
    }
}

/// An hour of twelve endpoints that all fail one request in five, few requests each.
#[test]
fn chance_alone_ejects_nobody() {
    for seed in 0..8 {
        let mut mix = Mix::new(seed);
        let mut court = Court::new(Terms { in_a_row: 0, ..Terms::default() }, 12);
        for second in 0..3_600 {
            for at in 0..12 {
                let requests = mix.below(12);
                let failed = (0..requests).filter(|_| mix.below(5) == 0).count() as u64;
                court.requests(at, requests - failed, 0, failed);
            }
            let events = court.judge();
            assert!(events.is_empty(), "seed {seed}, second {second}: {events:?}");
        }
    }
}
