//! Where requests go when endpoints are not all in one place.

use std::ops::Range;
use std::sync::Arc;

use portcullis_upstream::balancer::Settings;
use portcullis_upstream::mix::Mix;
use portcullis_upstream::zone::Terms;
use portcullis_upstream::{Ask, Balancer, Endpoint, Listed, Member, Service, Tried, subset};

use super::balancing::check;
use super::plot::{BLUE, GREY, Line, ORANGE, Panel, Plot};
use super::simulation::{Course, WINDOW, at};

/// Endpoints of each zone.
const EACH: usize = 4;
/// Requests a second to the gateways of each zone.
const RATE: f64 = 400.0;

fn endpoints() -> Vec<Listed> {
    let zone = |index| if index < EACH { "a" } else { "b" };
    let listed = |index| Listed {
        zone: Some(zone(index).into()),
        ..Listed::new(&format!("http://endpoint-{index}"))
    };
    (0..2 * EACH).map(listed).collect()
}

/// A gateway of a zone, over endpoints that others have too.
fn gateway(own: &str, listed: &[Listed], endpoints: &[Arc<Endpoint>]) -> anyhow::Result<Balancer> {
    let zone = Some(Terms { own: own.into(), load: None, load_max: 140 });
    let member = |endpoint: &Arc<Endpoint>| Member { endpoint: Arc::clone(endpoint), weight: 1 };
    let members = endpoints.iter().map(member).collect();
    let settings = Settings { zone, ..Settings::default() };
    Balancer::placed(settings, members, listed).map_err(Into::into)
}

/// When each endpoint of the zone `a` is down, in seconds.
const DOWN: [(f64, f64); EACH] = [(10.0, 50.0), (18.0, 50.0), (26.0, 50.0), (34.0, 42.0)];

pub(super) fn zones() -> anyhow::Result<Plot> {
    let listed = endpoints();
    let endpoints: Vec<_> =
        (0..).zip(&listed).map(|(seed, one)| Arc::new(Endpoint::new(&one.url, seed))).collect();
    let gateways = [gateway("a", &listed, &endpoints)?, gateway("b", &listed, &endpoints)?];
    let mut mix = Mix::new(17);
    let mut stays: [Course; 2] = Default::default();
    // Of those that are well, on average: in the zone `a`, in `b`, and if zones did not count.
    let mut given: [Course; 3] = Default::default();
    for window in 0..120 {
        let begin = f64::from(window) * WINDOW;
        let is_down =
            |index: usize| DOWN.get(index).is_some_and(|(from, to)| (*from..*to).contains(&begin));
        for (index, endpoint) in endpoints.iter().enumerate() {
            check(endpoint, !is_down(index), at(begin));
        }
        let mut counts = [0.0; 2 * EACH];
        let requests = (RATE * WINDOW) as u32;
        for (gateway, stays) in gateways.iter().zip(&mut stays) {
            let mut own = 0.0;
            for request in 0..requests {
                let now = at(begin + f64::from(request) / RATE);
                let ask = Ask { now, random: mix.next(), ..Ask::default() };
                let Some(index) = gateway.pick(ask, &Tried::NONE) else { continue };
                counts[index.get()] += 1.0 / WINDOW;
                own += f64::from(u8::from(gateway.is_in_own_zone(index) == Some(true)));
            }
            stays.push((begin + WINDOW / 2.0, own * 100.0 / f64::from(requests)));
        }
        let well = |zone: Range<usize>| zone.filter(|index| !is_down(*index)).count();
        let mean = |sum: f64, count: usize| if count == 0 { 0.0 } else { sum / count as f64 };
        let (a, b): (f64, f64) = (counts[..EACH].iter().sum(), counts[EACH..].iter().sum());
        let middle = begin + WINDOW / 2.0;
        given[0].push((middle, mean(a, well(0..EACH))));
        given[1].push((middle, mean(b, well(EACH..2 * EACH))));
        given[2].push((middle, mean(a + b, well(0..2 * EACH))));
    }
    let [of_a, of_b] = stays;
    let [in_a, in_b, even] = given;
    Ok(Plot {
        title: "prefer_zone",
        about: "Two zones with four endpoints and as many requests each. Those of zone a go down \
                one after the other.",
        spans: vec![
            (10.0, 18.0, "1 down"),
            (18.0, 26.0, "2"),
            (26.0, 34.0, "3"),
            (34.0, 42.0, "all of a"),
            (42.0, 50.0, "3"),
        ],
        seconds: 60.0,
        panels: vec![
            Panel {
                label: "requests that stay in their zone, %",
                lines: vec![
                    Line::new("gateways in a", ORANGE, of_a),
                    Line::new("gateways in b", BLUE, of_b),
                ],
            },
            Panel {
                label: "requests a second to one that is well",
                lines: vec![
                    Line::new("if zones did not count", GREY, even).dashed(),
                    Line::new("in a", ORANGE, in_a),
                    Line::new("in b", BLUE, in_b),
                ],
            },
        ],
    })
}

/// When each of three endpoints of the first priority is down, in seconds.
const FAILS: [(f64, f64); 3] = [(10.0, 30.0), (15.0, 30.0), (20.0, 35.0)];

pub(super) fn priorities() -> anyhow::Result<Plot> {
    let listed: Vec<_> = (0..5)
        .map(|index| Listed {
            priority: u16::from(index >= FAILS.len()),
            ..Listed::new(&format!("http://endpoint-{index}"))
        })
        .collect();
    let member = |(seed, one): (u64, &Listed)| Member {
        endpoint: Arc::new(Endpoint::new(&one.url, seed)),
        weight: 1,
    };
    let members = (0..).zip(&listed).map(member).collect();
    let settings = Settings { slow_start: at(30.0) - at(0.0), ..Settings::default() };
    let balancer = Balancer::placed(settings, members, &listed)?;
    let mut mix = Mix::new(23);
    let mut given: [Course; 2] = Default::default();
    let mut well: Course = Course::default();
    for window in 0..120 {
        let begin = f64::from(window) * WINDOW;
        let is_down =
            |index: usize| FAILS.get(index).is_some_and(|(from, to)| (*from..*to).contains(&begin));
        for (index, member) in balancer.members().iter().enumerate() {
            check(&member.endpoint, !is_down(index), at(begin));
        }
        let middle = begin + WINDOW / 2.0;
        let left = (0..FAILS.len()).filter(|index| !is_down(*index)).count();
        well.push((middle, left as f64));
        let mut counts = [0.0; 2];
        for request in 0..(RATE * WINDOW) as u32 {
            let now = at(begin + f64::from(request) / RATE);
            let ask = Ask { now, random: mix.next(), ..Ask::default() };
            let Some(index) = balancer.pick(ask, &Tried::NONE) else { continue };
            counts[usize::from(listed[index.get()].priority)] += 1.0 / WINDOW;
        }
        for (course, count) in given.iter_mut().zip(counts) {
            course.push((middle, count));
        }
    }
    let [first, second] = given;
    Ok(Plot {
        title: "priority",
        about: "Three endpoints of priority 0 go down one after the other and come back; two of \
                priority 1 stand in for them.",
        spans: vec![(15.0, 30.0, "priority 1 takes over"), (30.0, 45.0, "and gives back")],
        seconds: 60.0,
        panels: vec![
            Panel {
                label: "endpoints of priority 0 that are well",
                lines: vec![Line::new("of three", GREY, well)],
            },
            Panel {
                label: "requests a second",
                lines: vec![
                    Line::new("priority 0", BLUE, first),
                    Line::new("priority 1", ORANGE, second),
                ],
            },
        ],
    })
}

/// Which endpoints of version 2 are taken out when, in seconds; the first four are of version 1.
const OUT: [(usize, Range<f64>); 2] = [(4, 10.0..35.0), (5, 20.0..30.0)];

pub(super) fn subsets() -> anyhow::Result<Plot> {
    let labels = |version: &str| [("version".into(), version.into())].into();
    let listed = |index: usize| Listed {
        labels: labels(if index < 4 { "v1" } else { "v2" }),
        ..Listed::new(&format!("http://endpoint-{index}"))
    };
    let listed: Vec<_> = (0..6).map(listed).collect();
    let member =
        |one: &Listed| Member { endpoint: Arc::new(Endpoint::new(&one.url, 1)), weight: 1 };
    let terms = |or_any| subset::Terms { labels: labels("v2"), or_any };
    let settings = Settings { subsets: vec![terms(false), terms(true)], ..Settings::default() };
    let balancer = Balancer::placed(settings, listed.iter().map(member).collect(), &listed)?;
    let mut mix = Mix::new(18);
    let mut refused = Course::new();
    let mut given: [Course; 2] = Default::default();
    for window in 0..90 {
        let begin = f64::from(window) * WINDOW;
        for (index, out) in &OUT {
            let service = if out.contains(&begin) { Service::Disabled } else { Service::Active };
            balancer.members()[*index].endpoint.set_service(service);
        }
        let (mut counts, mut nowhere) = ([0.0; 2], 0.0);
        for request in 0..(RATE * WINDOW) as u32 {
            let now = at(begin + f64::from(request) / RATE);
            let ask = |number, random| Ask { now, random, subset: Some(number), ..Ask::default() };
            if balancer.pick(ask(0, mix.next()), &Tried::NONE).is_none() {
                nowhere += 1.0 / WINDOW;
            }
            if let Some(index) = balancer.pick(ask(1, mix.next()), &Tried::NONE) {
                counts[usize::from(index.get() >= 4)] += 1.0 / WINDOW;
            }
        }
        let middle = begin + WINDOW / 2.0;
        refused.push((middle, nowhere));
        for (course, count) in given.iter_mut().zip(counts) {
            course.push((middle, count));
        }
    }
    let [v1, v2] = given;
    Ok(Plot {
        title: "subset",
        about: "Four endpoints of version 1 and two of version 2, which requests keep to. Those two \
                are taken out.",
        spans: vec![(10.0, 20.0, "1 of v2 out"), (20.0, 30.0, "both"), (30.0, 35.0, "1")],
        seconds: 45.0,
        panels: vec![
            Panel {
                label: "empty: any, requests a second, by version",
                lines: vec![Line::new("v2", BLUE, v2), Line::new("v1", ORANGE, v1)],
            },
            Panel {
                label: "empty: refuse, refused a second",
                lines: vec![Line::new("refused", ORANGE, refused)],
            },
        ],
    })
}
