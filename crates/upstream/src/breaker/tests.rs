//! The breaker, step by step and by simulation; each simulation prints its seed when it fails.

use std::fmt::Write as _;

use expect_test::expect;

use super::*;
use crate::mix::Mix;

const TERMS: Terms = Terms {
    percent: 50,
    requests_min: 10,
    window: Duration::from_secs(10),
    open: Duration::from_secs(5),
    open_max: Duration::from_secs(30),
    probes: 3,
};

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1_000 + seconds)
}

/// Lets `count` requests through, all with one outcome.
fn send(breaker: &Breaker, count: u32, failed: bool, now: Duration) -> Option<Change> {
    (0..count).fold(None, |change, _| {
        let pass = breaker.enter(now).unwrap();
        breaker.ended(&TERMS, pass, failed, now).or(change)
    })
}

#[test]
fn the_table_of_the_lifecycle_is_that_of_the_code() {
    let mut table = String::from("| state | event | next state |\n|---|---|---|\n");
    for state in State::ALL {
        for event in Event::ALL {
            if let Some(next) = next(state, event) {
                writeln!(table, "| {state:?} | {event:?} | {next:?} |").unwrap();
            }
        }
    }
    let lifecycle = include_str!("../../LIFECYCLE.md");
    assert!(lifecycle.contains(&table), "LIFECYCLE.md should have this table:\n{table}");
}

#[test]
fn every_word_is_read_as_it_was_packed() {
    let mut mix = Mix::new(9);
    for _ in 0..1_000 {
        let word = Word {
            state: State::ALL[mix.below(3) as usize],
            again: mix.below(16),
            serial: mix.below(256) as u8,
            left: mix.below(64),
            due: mix.below(64),
            until: mix.below(UNTIL_MAX + 1),
        };
        assert_eq!(Word::read(word.pack()), word);
    }
}

#[test]
fn it_opens_at_the_share_and_not_before_there_are_enough() {
    let breaker = Breaker::default();
    assert_eq!(send(&breaker, 9, true, at(0)), None);
    let opened = Change::Opened { open: TERMS.open, ended: 10, failed: 10 };
    assert_eq!(send(&breaker, 1, true, at(0)), Some(opened));
    assert_eq!(breaker.enter(at(4)), Err(Duration::from_secs(1)));
    assert_eq!((breaker.state(), breaker.opened(), breaker.refused()), (State::Open, 1, 1));

    let breaker = Breaker::default();
    send(&breaker, 11, false, at(0));
    assert_eq!(send(&breaker, 10, true, at(1)), None, "10 of 21");
    assert!(send(&breaker, 1, true, at(2)).is_some(), "11 of 22");

    let breaker = Breaker::default();
    send(&breaker, 9, true, at(0));
    assert_eq!(send(&breaker, 9, true, at(11)), None, "the first nine are too long ago");
}

#[test]
fn half_open_lets_so_many_through_and_closes_when_all_passed() {
    let breaker = Breaker::default();
    send(&breaker, 10, true, at(0));
    let probes: Vec<Pass> = (0..3).map(|_| breaker.enter(at(5)).unwrap()).collect();
    assert_eq!(breaker.enter(at(5)), Err(Duration::ZERO));
    assert!(!breaker.is_passable(at(5)));
    // One that its client abandoned gives its place to another.
    breaker.abandoned(probes[0]);
    let again = breaker.enter(at(6)).unwrap();
    assert!(breaker.enter(at(6)).is_err());
    assert_eq!(breaker.ended(&TERMS, probes[1], false, at(6)), None);
    assert_eq!(breaker.ended(&TERMS, probes[2], false, at(6)), None);
    assert_eq!(breaker.ended(&TERMS, again, false, at(6)), Some(Change::Closed));
    assert_eq!(send(&breaker, 9, true, at(6)), None, "what opened it is forgotten");
}

#[test]
fn probes_that_hang_do_not_keep_it_half_open_for_ever() {
    let breaker = Breaker::default();
    send(&breaker, 10, true, at(0));
    let hanging: Vec<Pass> = (0..3).map(|_| breaker.enter(at(5)).unwrap()).collect();
    assert!(breaker.enter(at(34)).is_err());
    assert!(breaker.is_passable(at(35)));
    let others: Vec<Pass> = (0..3).map(|_| breaker.enter(at(35)).unwrap()).collect();
    assert!(breaker.enter(at(36)).is_err(), "no more than before");
    breaker.abandoned(hanging[0]);
    assert_eq!(breaker.ended(&TERMS, hanging[1], false, at(36)), None);
    assert_eq!(breaker.ended(&TERMS, others[0], false, at(36)), None);
    assert_eq!(breaker.ended(&TERMS, others[1], false, at(36)), Some(Change::Closed));
}

#[test]
fn a_probe_that_fails_doubles_the_time_up_to_its_bound() {
    let breaker = Breaker::default();
    send(&breaker, 10, true, at(0));
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..5 {
        now += breaker.enter(now).unwrap_err();
        let probe = breaker.enter(now).unwrap();
        match breaker.ended(&TERMS, probe, true, now) {
            Some(Change::Opened { open, .. }) => pauses.push(open.as_secs()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pauses, [10, 20, 30, 30, 30]);
}

#[test]
fn verdicts_of_another_time_move_nothing() {
    let breaker = Breaker::default();
    let early = breaker.enter(at(0)).unwrap();
    send(&breaker, 10, true, at(0));
    assert_eq!(breaker.ended(&TERMS, early, true, at(1)), None, "it is open already");
    let old = breaker.enter(at(5)).unwrap();
    let other = breaker.enter(at(5)).unwrap();
    assert!(breaker.ended(&TERMS, other, true, at(5)).is_some());
    let new = breaker.enter(at(15)).unwrap();
    assert_eq!(breaker.ended(&TERMS, old, true, at(15)), None, "a probe of the time before");
    breaker.abandoned(old);
    assert_eq!(breaker.ended(&TERMS, early, true, at(15)), None);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.ended(&TERMS, new, false, at(15)), None, "two more have to pass");
}

#[test]
fn a_reload_without_a_breaker_closes_it() {
    let breaker = Breaker::default();
    send(&breaker, 10, true, at(0));
    breaker.remove();
    assert!(breaker.enter(at(0)).is_ok());
    assert_eq!(send(&breaker, 9, true, at(0)), None);
}

/// A backend that fails for half a minute, at a hundred requests a second.
#[test]
fn an_outage_is_met_by_few_and_over_soon_after_it_ends() {
    let mut lines = String::new();
    for seed in 0..4 {
        let breaker = Breaker::default();
        let mut mix = Mix::new(seed);
        let (mut sent, mut refused, mut closed_after) = (0, 0, None);
        for step in 0..6_000_u64 {
            let now = at(0) + Duration::from_millis(step * 10);
            let outage = (1_000..4_000).contains(&step);
            let Ok(pass) = breaker.enter(now) else {
                refused += 1;
                continue;
            };
            sent += u32::from(outage);
            let failed = mix.below(100) < if outage { 95 } else { 2 };
            let change = breaker.ended(&TERMS, pass, failed, now);
            if step > 4_000 && change == Some(Change::Closed) {
                closed_after.get_or_insert((step - 4_000) * 10);
            }
        }
        writeln!(
            lines,
            "seed {seed}: {sent} sent, {refused} refused, closed after {closed_after:?} ms"
        )
        .unwrap();
    }
    expect![[r#"
        seed 0: 503 sent, 3497 refused, closed after Some(10020) ms
        seed 1: 503 sent, 3497 refused, closed after Some(10020) ms
        seed 2: 503 sent, 3497 refused, closed after Some(10020) ms
        seed 3: 503 sent, 3497 refused, closed after Some(10020) ms
    "#]]
    .assert_eq(&lines);
}

#[test]
fn workers_together_send_no_more_probes() {
    let breaker = Breaker::default();
    send(&breaker, 10, true, at(0));
    let passed: usize = std::thread::scope(|scope| {
        let work = || (0..1_000).filter(|_| breaker.enter(at(5)).is_ok()).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(passed, 3);
}
