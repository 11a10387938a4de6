use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(nanoseconds: u64) -> Now {
    Now::default().after(Duration::from_nanos(nanoseconds))
}

fn window(count: u32, per: u64) -> LimitSpec {
    LimitSpec { count, per: Duration::from_nanos(per), algorithm: Algorithm::Window }
}

fn bucket(count: u32, per: u64, burst: u32) -> LimitSpec {
    let algorithm = Algorithm::Bucket { burst };
    LimitSpec { count, per: Duration::from_nanos(per), algorithm }
}

/// The times of the takes that were granted.
fn granted(spec: &LimitSpec, arrivals: &[u64]) -> Vec<u64> {
    let grantor = Embedded::new(100);
    let takes = arrivals.iter().copied();
    takes.filter(|time| grantor.take(at(*time), LimitKey(7), spec, 1).granted == 1).collect()
}

/// The most that any window of length `per` holds: windows `(t - per, t]` that end in a grant are
/// enough.
fn densest(grants: &[u64], per: u64) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (last, time) in grants.iter().enumerate() {
        while grants[first] + per <= *time {
            first += 1;
        }
        most = most.max(last - first + 1);
    }
    most
}

/// Arrivals as they come: bursts at one moment, steady streams of any density, silences.
fn arrivals() -> impl Strategy<Value = Vec<u64>> {
    let burst = (1..200_usize).prop_map(|many| vec![0_u64; many]);
    let stream = (1..400_usize, 1..40_000_000_u64).prop_map(|(many, gap)| vec![gap; many]);
    let silence = (0..3 * SECOND).prop_map(|gap| vec![gap]);
    let ragged = prop::collection::vec(0..30_000_000_u64, 1..200);
    let piece = prop_oneof![burst, stream, silence, ragged];
    prop::collection::vec(piece, 1..12).prop_map(|pieces| {
        let gaps = pieces.into_iter().flatten();
        gaps.scan(5 * SECOND, |time, gap| {
            *time += gap;
            Some(*time)
        })
        .collect()
    })
}

/// Whatever happens to the clock on the wall, a limit goes by the other one.
#[test]
fn the_wall_clock_does_not_count() {
    for spec in [window(3, 60 * SECOND), bucket(3, 60 * SECOND, 3)] {
        let grantor = Embedded::new(100);
        let mut granted = Vec::new();
        for (mono, wall) in
            [(0, 9_999_999), (1, 0), (2, u32::MAX), (3, 0), (4, u32::MAX), (70, 5), (71, 0)]
        {
            let now =
                Now { mono: Duration::from_secs(mono), wall: Duration::from_secs(u64::from(wall)) };
            granted.push(grantor.take(now, LimitKey(7), &spec, 1).granted);
        }
        assert_eq!(granted, [1, 1, 1, 0, 0, 1, 1], "{spec:?}");
    }
}

proptest! {
    #[test]
    fn no_window_holds_more_than_the_limit(
        arrivals in arrivals(),
        count in 1..150_u32,
        per in prop_oneof![Just(SECOND), Just(SECOND / 3), 1_000_000..2 * SECOND],
    ) {
        let grants = granted(&window(count, per), &arrivals);
        prop_assert!(!grants.is_empty());
        prop_assert!(densest(&grants, per) <= count as usize);
    }

    /// Whoever asks again when told to is let in, and nobody is told to wait longer than that.
    #[test]
    fn retry_after_is_when(arrivals in arrivals(), count in 1..60_u32, burst in 0..60_u32) {
        let spec = match burst {
            0 => window(count, SECOND),
            burst => bucket(count, SECOND, burst),
        };
        let (grantor, key) = (Embedded::new(100), LimitKey(7));
        for time in arrivals {
            let grant = grantor.take(at(time), key, &spec, 1);
            prop_assert_eq!(grant.granted == 1, grant.retry_after.is_zero());
            if grant.granted == 0 {
                let wait = grant.retry_after.as_nanos() as u64;
                prop_assert_eq!(grantor.peek(at(time + wait), key, &spec, 1).granted, 1);
                prop_assert_eq!(grantor.peek(at(time + wait - 1), key, &spec, 1).granted, 0);
            }
            let reset = grant.reset.as_nanos() as u64;
            let whole = match spec.algorithm {
                Algorithm::Window => count,
                Algorithm::Bucket { burst } => burst,
            };
            prop_assert_eq!(grantor.peek(at(time + reset), key, &spec, 0).remaining, whole);
            if reset > 1 {
                prop_assert!(grantor.peek(at(time + reset - 2), key, &spec, 0).remaining < whole);
            }
        }
    }

    #[test]
    fn a_window_gives_95_percent_at_saturation(
        count in 1..500_u32,
        overload in 12..60_u64,
        phase in 0..SECOND,
    ) {
        // `overload` tenths of what may pass, evenly spread, over 20 windows; at least so dense
        // that nothing is lost by waiting for the next arrival.
        let gap = (10 * SECOND / (u64::from(count) * overload)).min(SECOND / 100);
        let arrivals: Vec<u64> = (0..20 * SECOND / gap).map(|i| phase + i * gap).collect();
        let grants = granted(&window(count, SECOND), &arrivals).len();
        prop_assert!(grants as f64 >= 0.95 * 20.0 * f64::from(count), "{grants} of {count}");
    }

    #[test]
    fn a_bucket_gives_rate_and_burst_within_5_percent(
        count in 1..60_u32,
        burst in 1..200_u32,
        overload in 30..60_u64,
        seconds in 20..30_u64,
    ) {
        // So dense that a grant comes at most a thirtieth of its interval late.
        let gap = SECOND / (u64::from(count) * overload);
        let arrivals: Vec<u64> = (0..seconds * SECOND / gap).map(|i| i * gap).collect();
        let grants = granted(&bucket(count, SECOND, burst), &arrivals).len() as f64;
        let owed = seconds as f64 * f64::from(count) + f64::from(burst);
        let owed = owed.min(arrivals.len() as f64);
        prop_assert!((grants - owed).abs() <= 0.05 * owed, "{grants} of {owed}");
    }

    #[test]
    fn many_workers_get_exactly_the_limit(count in 1..400_u32, workers in 2..9_u32) {
        let grantor = Embedded::new(100);
        let spec = window(count, SECOND);
        let total = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    for _ in 0..count {
                        let grant = grantor.take(at(SECOND), LimitKey(1), &spec, 1);
                        total.fetch_add(grant.granted, Ordering::Relaxed);
                    }
                });
            }
        });
        prop_assert_eq!(total.into_inner(), count);
        let stats = grantor.stats();
        prop_assert_eq!(stats.allowed, u64::from(count));
        prop_assert_eq!(stats.refused, u64::from(count * (workers - 1)));
    }
}

#[test]
fn a_changed_number_keeps_the_history() {
    let (grantor, key) = (Embedded::new(100), LimitKey(1));
    let take = |spec: &LimitSpec, want| {
        let grant = grantor.take(at(SECOND), key, spec, want);
        (grant.granted, grant.remaining)
    };
    assert_eq!(take(&window(10, SECOND), 8), (8, 2));
    assert_eq!(take(&window(5, SECOND), 1), (0, 0));
    assert_eq!(take(&window(20, SECOND), 1), (1, 11));
}

#[test]
fn a_want_is_granted_whole_or_not_at_all() {
    for spec in [window(10, SECOND), bucket(10, SECOND, 10)] {
        let (grantor, key) = (Embedded::new(100), LimitKey(1));
        let take = |want| grantor.take(at(SECOND), key, &spec, want).granted;
        assert_eq!([take(7), take(4), take(3), take(0), take(11)], [7, 0, 3, 0, 0]);
        let never = grantor.take(at(5 * SECOND), key, &spec, 11);
        assert_eq!(never.retry_after, Duration::from_secs(1));
    }
}

#[test]
fn peeking_counts_nothing() {
    let (grantor, key, spec) = (Embedded::new(100), LimitKey(1), window(2, SECOND));
    for _ in 0..5 {
        assert_eq!(grantor.peek(at(0), key, &spec, 2).granted, 2);
    }
    assert_eq!(grantor.stats(), Stats::default());
}

/// Clocks that two workers read in one order and bring in the other lose and gain nothing.
#[test]
fn an_older_clock_counts_as_the_newest_seen() {
    let (grantor, key, spec) = (Embedded::new(100), LimitKey(1), window(2, SECOND));
    let take = |time| grantor.take(at(time), key, &spec, 1).granted;
    assert_eq!([take(5 * SECOND), take(4 * SECOND), take(4 * SECOND)], [1, 1, 0]);
    assert_eq!(take(5 * SECOND + SECOND / 2), 0);
    assert_eq!(take(6 * SECOND + SECOND / 50), 1);
}

#[test]
fn a_key_is_forgotten_when_its_count_is_over() {
    let grantor = Embedded::new(1000);
    for key in 0..500 {
        grantor.take(at(SECOND), LimitKey(key), &window(5, SECOND), 1);
    }
    assert_eq!(grantor.stats().keys, 500);
    // Each take of the same class forgets one or two.
    for key in 1000..1500 {
        grantor.take(at(9 * SECOND), LimitKey(key), &window(5, SECOND), 1);
    }
    let stats = grantor.stats();
    assert_eq!((stats.keys, stats.evicted), (500, 0));
}

#[test]
fn at_the_bound_the_oldest_idle_key_goes() {
    let grantor = Embedded::new(100);
    let spec = window(1, SECOND);
    let take = |time, key| grantor.take(at(SECOND + time), LimitKey(key), &spec, 1).granted;
    for key in 0..100 {
        assert_eq!(take(key as u64, key), 1);
    }
    assert_eq!(grantor.stats().evicted, 0);
    assert_eq!(take(200, 100), 1);
    assert_eq!((grantor.stats().keys, grantor.stats().evicted), (100, 1));
    assert_eq!(take(201, 99), 0, "a recent key is still counted");
    assert_eq!(take(202, 0), 1, "the oldest one was forgotten");
}

/// A short-lived key that is over goes before a long-lived one that counts.
#[test]
fn what_is_over_goes_first() {
    let grantor = Embedded::new(100);
    let (day, short) = (window(1, 86_400 * SECOND), window(1, SECOND));
    grantor.take(at(SECOND), LimitKey(1), &day, 1);
    for key in 2..500 {
        grantor.take(at(key as u64 * 10 * SECOND), LimitKey(key), &short, 1);
    }
    assert_eq!(grantor.take(at(6000 * SECOND), LimitKey(1), &day, 1).granted, 0);
    assert_eq!(grantor.stats().evicted, 0);
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let grantor = Embedded::new(8192);
    let spec = window(10, 3600 * SECOND);
    for key in 0..100_000_u128 {
        let spread = key.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        grantor.take(at(key as u64), LimitKey(spread), &spec, 1);
    }
    let stats = grantor.stats();
    assert!(stats.keys <= 8192 && stats.keys > 8000, "{stats:?}");
    assert_eq!(stats.evicted, 100_000 - stats.keys as u64);
}

/// A million keys are what the documentation says.
#[test]
fn keys_are_small() {
    assert_eq!(Table::<Counter, CLASSES>::ENTRY_BYTES, 112);
}
