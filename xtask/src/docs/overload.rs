//! More requests than can be served: a picture of the limit that finds itself, and one of what is
//! refused first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use portcullis_upstream::gradient::{Gradient, Sample};
use portcullis_upstream::mix::Mix;
use portcullis_upstream::shed::{Pressure, Priority, Shedder};

use super::plot::{BLUE, GREEN, GREY, Line, ORANGE, Panel, Plot};
use super::simulation::{Course, WINDOW, around, at, percentile};

const REQUESTS_MAX: u32 = 1_024;

/// A backend that works on so many requests at once, each for twenty milliseconds; the others wait
/// in it.
#[derive(Default)]
struct Backend {
    queue: VecDeque<Duration>,
    /// When each ends, and when it came.
    ends: BinaryHeap<Reverse<(Duration, Duration)>>,
}

impl Backend {
    fn work(&mut self, units: usize, now: Duration, mix: &mut Mix) {
        while self.ends.len() < units
            && let Some(came) = self.queue.pop_front()
        {
            let takes = Duration::from_secs_f64(around(20.0, mix) / 1e3);
            self.ends.push(Reverse((now + takes, came)));
        }
    }

    fn in_flight(&self) -> u32 {
        (self.queue.len() + self.ends.len()) as u32
    }
}

/// How many it works on at once, at this second.
fn units(second: f64) -> usize {
    if (20.0..40.0).contains(&second) { 10 } else { 40 }
}

/// What the limit is and how long answers take, with a limit that finds itself or with none.
fn under_load(adaptive: bool) -> (Course, Course) {
    const RATE: f64 = 2_400.0;
    let (mut mix, mut gradient) = (Mix::new(11), Gradient::new(11));
    let mut backend = Backend::default();
    let (mut limits, mut p50) = (Vec::new(), Vec::new());
    let mut request = 0.0;
    for window in 0..120 {
        let (begin, end) = (f64::from(window) * WINDOW, f64::from(window + 1) * WINDOW);
        let mut took = Vec::new();
        while request / RATE < end {
            let now = at(request / RATE);
            let units = units(request / RATE);
            request += 1.0;
            while let Some(Reverse((when, came))) = backend.ends.peek().copied()
                && when <= now
            {
                let in_flight = backend.in_flight();
                backend.ends.pop();
                took.push(when - came);
                let sample = Sample { took: when - came, in_flight, now: when };
                gradient.observe(sample, REQUESTS_MAX);
                backend.work(units, when, &mut mix);
            }
            let most = if adaptive { gradient.limit(REQUESTS_MAX) } else { REQUESTS_MAX };
            if backend.in_flight() < most {
                backend.queue.push_back(now);
                backend.work(units, now, &mut mix);
            }
        }
        let middle = begin + WINDOW / 2.0;
        limits.push((middle, f64::from(gradient.limit(REQUESTS_MAX))));
        p50.push((middle, percentile(&mut took, 50)));
    }
    (limits, p50)
}

pub(super) fn adaptive() -> Plot {
    let ((limits, with), (_, without)) = (under_load(true), under_load(false));
    let can = [(0.0, 40.0), (20.0, 40.0), (20.0, 10.0), (40.0, 10.0), (40.0, 40.0), (60.0, 40.0)];
    Plot {
        title: "Adaptive concurrency",
        about: "More than a backend can do, all the time; for twenty seconds it can do a quarter.",
        spans: vec![(20.0, 40.0, "it can do a quarter")],
        seconds: 60.0,
        panels: vec![
            Panel {
                label: "requests at once",
                lines: vec![
                    Line::new("the backend works on", GREY, can.to_vec()).dashed(),
                    Line::new("the limit", BLUE, limits),
                ],
            },
            Panel {
                label: "median of the answers, ms",
                lines: vec![
                    Line::new("without a limit", GREY, without).dashed(),
                    Line::new("with it", BLUE, with),
                ],
            },
        ],
    }
}

/// What a worker can do in a second; a refusal costs a tenth of a request.
const CAPACITY: f64 = 1_000.0;
const REFUSAL: f64 = 0.1;
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn shedding() -> Plot {
    let looks_a_window = (WINDOW / LOOK.as_secs_f64()).round() as u32;
    let shares = [0.25, 0.5, 0.25];
    let (mut shedder, mut mix) = (Shedder::default(), Mix::new(12));
    let (mut pressure, mut backlog, mut alone) = (Pressure::default(), 0.0_f64, 0.0_f64);
    let mut served: [Course; 3] = Default::default();
    let (mut delays, mut without) = (Vec::new(), Vec::new());
    for window in 0..70 {
        let begin = f64::from(window) * WINDOW;
        let load = if (5.0..20.0).contains(&begin) { 3.0 } else { 0.7 };
        let mut counts = [0.0; 3];
        let mut longest = 0.0_f64;
        for _ in 0..looks_a_window {
            let offered = CAPACITY * LOOK.as_secs_f64() * load;
            for _ in 0..offered as u32 {
                let drawn = mix.below(100) as f64 / 100.0;
                let which = shares.iter().scan(0.0, |sum, share| {
                    *sum += share;
                    Some(*sum)
                });
                let which = which.take_while(|sum| *sum <= drawn).count().min(2);
                let refused = pressure.sheds(Priority::ALL[which], mix.next());
                backlog += if refused { REFUSAL } else { 1.0 } / CAPACITY;
                counts[which] += f64::from(u32::from(!refused));
            }
            alone = (alone + offered / CAPACITY - LOOK.as_secs_f64()).max(0.0);
            backlog = (backlog - LOOK.as_secs_f64()).max(0.0);
            longest = longest.max(backlog);
            pressure = shedder.look(Duration::from_secs_f64(backlog), LOOK, LOOK);
        }
        let middle = begin + WINDOW / 2.0;
        for (course, count) in served.iter_mut().zip(counts) {
            course.push((middle, count / WINDOW));
        }
        delays.push((middle, longest * 1e3));
        without.push((middle, (alone * 1e3).min(2_000.0)));
    }
    let [critical, default, sheddable] = served;
    Plot {
        title: "Shedding",
        about: "A gateway that can serve 1,000 requests a second gets 3,000, a quarter of them \
                critical.",
        spans: vec![(5.0, 20.0, "three times what it can do")],
        seconds: 35.0,
        panels: vec![
            Panel {
                label: "requests that are served, a second",
                lines: vec![
                    Line::new("critical", GREEN, critical),
                    Line::new("default", BLUE, default),
                    Line::new("sheddable", ORANGE, sheddable),
                ],
            },
            Panel {
                label: "how long work waits in the gateway, ms",
                lines: vec![
                    Line::new("without (cut off)", GREY, without).dashed(),
                    Line::new("with shedding", BLUE, delays),
                ],
            },
        ],
    }
}
