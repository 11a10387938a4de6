//! The drills from beginning to end: endpoints, gateway, load, trouble, judgement.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::Method;
use tokio::time::{Instant, sleep_until};

use crate::client::{Seen, load};
use crate::endpoint::{Endpoint, Manner};
use crate::gateway::{Config, Gateway};
use crate::judge::Course;
use crate::names::NameServer;
use crate::report::{Drill, Report};
use crate::scenario::{AFTER, ALL, CALM, Found, Scenario, Step};
use crate::{DrillError, Options, RATE_MAX};

/// One scenario with the endpoints that play it.
struct Stage {
    scenario: &'static Scenario,
    endpoints: Vec<Endpoint>,
    first_in_trouble: Cell<u64>,
}

/// Plays the drills, all at once.
///
/// # Errors
/// There is no such drill, or the machine lacks something.
pub async fn run(options: &Options) -> Result<Report, DrillError> {
    let started = Instant::now();
    let mut stages = Vec::new();
    for scenario in chosen(&options.only)? {
        let endpoints = endpoints(scenario)?;
        stages.push(Stage { scenario, endpoints, first_in_trouble: Cell::new(0) });
    }
    let serving = |stage: &Stage| {
        let first = stage.endpoints.iter().take(stage.scenario.serving);
        (stage.scenario, first.map(|endpoint| endpoint.address).collect())
    };
    let names = NameServer::start().await?;
    let mut config = Config { backends: stages.iter().map(serving).collect(), names };
    let gateway = Gateway::start(&options.program, &config).await?;
    let rate = options.rate.clamp(1, RATE_MAX);
    let (began, trouble) = (Instant::now(), options.trouble);
    let whole = CALM + trouble + AFTER;

    let mut loads = Vec::new();
    for stage in &stages {
        let Scenario { name, method, .. } = stage.scenario;
        let method = Method::from_bytes(method.as_bytes()).map_err(std::io::Error::other)?;
        let asked = (method, format!("/{name}"));
        let socket = gateway.socket();
        let load = async move { load(&socket, asked, rate, began, whole).await };
        loads.push(tokio::spawn(load));
    }
    play(&stages, &gateway, &mut config, began, trouble).await?;
    let mut drills = Vec::new();
    for (stage, load) in stages.iter().zip(loads) {
        let seen: Vec<Seen> = load.await.map_err(std::io::Error::other)?;
        let course = Course {
            seen,
            asked: stage.endpoints.iter().map(Endpoint::asked).collect(),
            first_in_trouble: stage.first_in_trouble.get(),
            began: CALM,
            ended: CALM + trouble,
            whole,
        };
        drills.push(Drill::new(stage.scenario, &course));
    }
    Ok(Report {
        rate,
        trouble_seconds: trouble.as_secs_f64(),
        drills,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Those of a name have addresses of their own and one port.
fn endpoints(scenario: &Scenario) -> std::io::Result<Vec<Endpoint>> {
    /// Ports that are tried, since another program may have one of them at one of the addresses.
    const PORTS_MAX: usize = 20;
    let named = scenario.found == Found::Dns;
    let start = || {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for name in 1..=scenario.endpoints {
            let last = if named { 10 + name as u8 } else { 1 };
            let port = endpoints.first().filter(|_| named).map_or(0, |first| first.address.port());
            let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
            endpoints.push(Endpoint::start(name as u32, address)?);
        }
        Ok(endpoints)
    };
    let mut started = start();
    for _ in 1..PORTS_MAX {
        if started.is_ok() {
            break;
        }
        started = start();
    }
    started
}

fn chosen(only: &[String]) -> Result<Vec<&'static Scenario>, DrillError> {
    let named = |name: &String| {
        let found = ALL.iter().find(|scenario| scenario.name == *name);
        found.ok_or_else(|| DrillError::NoSuchDrill {
            name: name.clone(),
            known: ALL.iter().map(|scenario| scenario.name.to_owned()).collect(),
        })
    };
    if only.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let mut chosen: Vec<&Scenario> = only.iter().map(named).collect::<Result<_, _>>()?;
    chosen.dedup_by_key(|scenario| scenario.name);
    Ok(chosen)
}

/// All scripts, in the order of their steps; then all is well.
async fn play(
    stages: &[Stage],
    gateway: &Gateway,
    config: &mut Config,
    began: Instant,
    trouble: Duration,
) -> Result<(), DrillError> {
    let mut steps = Vec::new();
    for (index, stage) in stages.iter().enumerate() {
        let script = (stage.scenario.script)(trouble);
        steps.extend(script.into_iter().map(|(at, step)| (at, index, step)));
    }
    // Stable, so that steps of one moment stay in their order.
    steps.sort_by_key(|(at, ..)| *at);
    sleep_until(began + CALM).await;
    let before: Vec<u64> = stages.iter().map(|stage| stage.endpoints[0].asked()).collect();
    for (at, index, step) in steps {
        sleep_until(began + CALM + at).await;
        let Stage { endpoints, .. } = &stages[index];
        match step {
            Step::One(number, manner) => endpoints[number].set(manner),
            Step::All(manner) => endpoints.iter().for_each(|endpoint| endpoint.set(manner)),
            Step::Serve(numbers) => {
                let serving: Vec<SocketAddr> =
                    numbers.iter().map(|number| endpoints[*number].address).collect();
                gateway.serve(config, index, serving)?;
            }
            Step::Mute => config.names.mute(stages[index].scenario.name),
        }
    }
    sleep_until(began + CALM + trouble).await;
    for (stage, before) in stages.iter().zip(before) {
        stage.first_in_trouble.set(stage.endpoints[0].asked() - before);
        stage.endpoints.iter().for_each(|endpoint| endpoint.set(Manner::Good));
    }
    Ok(())
}
