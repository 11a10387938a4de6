use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn fails(breaker: &Breaker, now: Duration) {
    breaker.enter(now).unwrap().failed(now);
}

fn wait(breaker: &Breaker, now: Duration) -> Option<Duration> {
    breaker.enter(now).err().map(|shut| shut.retry_after)
}

#[test]
fn failures_in_a_row_open_it_and_a_good_trial_closes_it() {
    let (breaker, mut now) = (Breaker::default(), SECOND);
    for _ in 0..4 {
        fails(&breaker, now);
    }
    breaker.enter(now).unwrap().succeeded();
    for _ in 0..5 {
        assert_eq!(wait(&breaker, now), None);
        fails(&breaker, now);
    }
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        let pause = pause * SECOND;
        assert_eq!(wait(&breaker, now), Some(pause));
        now += pause;
        // One tries, the others are kept away.
        let trial = breaker.enter(now).unwrap();
        assert_eq!(wait(&breaker, now), Some(SECOND));
        trial.failed(now);
    }
    now += PAUSE_MAX;
    breaker.enter(now).unwrap().succeeded();
    assert_eq!(wait(&breaker, now), None);
    for _ in 0..5 {
        assert_eq!(wait(&breaker, now), None);
        fails(&breaker, now);
    }
    assert_eq!(wait(&breaker, now), Some(PAUSE_FIRST), "it begins anew");
}

/// What began before it opened neither keeps it open longer nor closes it.
#[test]
fn stragglers_have_no_say() {
    let (breaker, now) = (Breaker::default(), SECOND);
    let mut all: Vec<_> = (0..20).map(|_| breaker.enter(now).unwrap()).collect();
    let later = now + SECOND / 2;
    all.drain(..5).for_each(|permit| permit.failed(now));
    all.drain(..10).for_each(|permit| permit.failed(later));
    all.drain(..).for_each(Permit::succeeded);
    assert_eq!(wait(&breaker, later), Some(SECOND));
    assert_eq!(wait(&breaker, now + SECOND), None);
}

/// A client that hangs up says nothing about the endpoint.
#[test]
fn a_trial_that_is_given_up_leaves_room_for_the_next() {
    let (breaker, now) = (Breaker::default(), SECOND);
    for _ in 0..5 {
        fails(&breaker, now);
    }
    let later = now + SECOND;
    drop(breaker.enter(later).unwrap());
    breaker.enter(later).unwrap().succeeded();
    assert_eq!(wait(&breaker, later), None);
}

#[test]
fn only_so_many_are_in_flight() {
    let (breaker, now) = (Breaker::default(), SECOND);
    let mut all: Vec<_> = (0..IN_FLIGHT_MAX).map(|_| breaker.enter(now).unwrap()).collect();
    assert_eq!(wait(&breaker, now), Some(SECOND));
    drop(all.pop());
    assert_eq!(wait(&breaker, now), None);
}
