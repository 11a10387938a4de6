//! Canaries on their way up: looks at what their variants did, and changes weights by overrides.
//!
//! When a canary gets more, and when it gets nothing any more, is `upstream`'s to say.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_core::now::Now;
use portcullis_snapshot::{Canary, Route, Snapshot, Targets};
use portcullis_telemetry::metrics::VariantSeries;
use portcullis_upstream::analysis::{EVENTS_MAX, Event, Stage};
use portcullis_upstream::subset::Terms;
use portcullis_upstream::{Analysis, AnalysisSettings, Change, Overrides, Seen};

use crate::gateway::{Active, Gateway, Shared};
use crate::overrides::{ANALYSIS, Order, tell_ended};
use crate::worker::Worker;

/// How often the counters are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What events are called, in the order in which they are counted.
const EVENTS: [&str; 5] = ["step", "promoted", "rolled_back", PAUSED, RESUMED];
const PAUSED: &str = "paused";
const RESUMED: &str = "resumed";

/// What the log calls it. `errors` and `slow` beside it are evidence, so many to one.
const ABOUT: &str = "analysis of a canary";

/// By the name of the route. Locked before the overrides are, where both are.
pub(crate) type Analyses = BTreeMap<Arc<str>, Watched>;

/// One canary that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    plan: Plan,
    analysis: Analysis,
    /// The weights are ours.
    in_force: bool,
    /// Somebody else decides about the weights.
    paused: bool,
    events: VecDeque<AnalysisEvent>,
    counts: [u64; EVENTS.len()],
}

/// What it is about. Another plan begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    canary: Side,
    baseline: Side,
    settings: AnalysisSettings,
}

/// One of the two variants, and what is behind its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Side {
    variant: Arc<str>,
    backend: Arc<str>,
    /// Labels may be all that tells one release from the next.
    subset: Option<Terms>,
}

/// Something that happened to a canary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnalysisEvent {
    /// Since 1970.
    pub at: Duration,
    /// `step`, `promoted`, `rolled_back`, `paused` or `resumed`.
    pub name: &'static str,
    /// What it was then, or became.
    pub state: Event,
}

/// How far a canary is, for people.
#[derive(Clone, Debug)]
pub struct AnalysisReport {
    pub route: Arc<str>,
    pub canary: Arc<str>,
    pub baseline: Arc<str>,
    pub settings: AnalysisSettings,
    /// How far it is, or was when it paused.
    pub state: Event,
    /// An override of somebody else holds; nothing moves meanwhile.
    pub paused: bool,
    /// Answers of the canary and of the baseline without an error, in this step.
    pub good: (u64, u64),
    /// The latest last.
    pub events: Vec<AnalysisEvent>,
    /// Of all events, by what they are called.
    pub counts: [(&'static str, u64); EVENTS.len()],
}

impl Gateway {
    /// The canaries under analysis, by the names of their routes.
    #[must_use]
    pub fn analyses(&self) -> Vec<AnalysisReport> {
        self.shared.analyses().iter().map(|(route, watched)| watched.report(route)).collect()
    }
}

impl Shared {
    pub(crate) fn analyses(&self) -> MutexGuard<'_, Analyses> {
        self.analyses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_at_canaries(&self) {
        let mut analyses = self.analyses();
        if analyses.is_empty() {
            return;
        }
        // Held to the end: what serves stays what it is, and nobody's override is replaced that was
        // not seen.
        let mut overrides = self.overrides();
        let active = Arc::clone(&self.active.borrow());
        let now = self.world.clock().now();
        for (route, _, canary) in canaries(&active.snapshot) {
            if let Some(watched) = analyses.get_mut(&route.name)
                && let Some(seen) = seen(&active, route, canary)
            {
                watched.look(self, &mut overrides, &route.name, now, &seen);
            }
        }
    }
}

/// Before another configuration serves: canaries that are in it as they were go on, the others are
/// gone or begin anew, and what was decided about their weights holds no longer. Otherwise a new
/// canary would begin with all that the one before it had come to.
pub(crate) fn adopt(
    analyses: &mut Analyses,
    overrides: &mut Overrides,
    snapshot: &Snapshot,
    now: Now,
) {
    let plans: BTreeMap<Arc<str>, Plan> = canaries(snapshot)
        .map(|(route, to, canary)| (Arc::clone(&route.name), Plan::of(snapshot, to, canary)))
        .collect();
    analyses.retain(|name, _| plans.contains_key(name));
    for (name, plan) in plans {
        match analyses.get_mut(&name) {
            Some(watched) if watched.plan == plan => {}
            Some(watched) => {
                watched.plan = plan;
                watched.begin(now);
            }
            None => drop(analyses.insert(name, Watched::new(plan, now))),
        }
    }
    let goes_on = |route: &str| analyses.get(route).is_some_and(|watched| watched.in_force);
    let ended = overrides.take(|one| match &one.change {
        Change::Weights { route, .. } => one.author == ANALYSIS && !goes_on(route),
        Change::Service { .. } => false,
    });
    tell_ended(&ended, "its canary is gone, or another");
}

/// Runs on the first worker.
pub(crate) async fn run(worker: Rc<Worker>) {
    let clock = worker.shared.world.clock().clone();
    loop {
        worker.shared.look_at_canaries();
        clock.sleep(LOOK).await;
    }
}

fn canaries(snapshot: &Snapshot) -> impl Iterator<Item = (&Arc<Route>, &Targets, &Canary)> {
    snapshot.routes.iter().filter_map(|route| {
        let targets = route.to.as_ref()?;
        Some((route, targets, targets.canary.as_ref()?))
    })
}

/// What the canary and the baseline have done so far; `None` where there are so many variants that
/// nobody can tell them apart.
fn seen(active: &Active, route: &Route, canary: &Canary) -> Option<(Seen, Seen)> {
    let series = active.variants.get(route.index as usize)?;
    let (one, other) = (series.get(canary.canary)?, series.get(canary.baseline)?);
    let of = |series: &VariantSeries| {
        let totals = series.totals();
        let durations = totals.durations.buckets.to_vec();
        Seen { requests: totals.requests, errors: totals.errors, durations }
    };
    (!Arc::ptr_eq(one, other)).then(|| (of(one), of(other)))
}

impl Plan {
    fn of(snapshot: &Snapshot, targets: &Targets, canary: &Canary) -> Self {
        let side = |at: usize| {
            let variant = &targets.variants[at];
            let backend = &snapshot.backends[usize::from(variant.backend)];
            let subsets = &backend.endpoints.shape().settings.subsets;
            let subset = variant.subset.and_then(|number| subsets.get(usize::from(number)));
            Side {
                variant: Arc::clone(&variant.name),
                backend: Arc::clone(&backend.name),
                subset: subset.cloned(),
            }
        };
        Self {
            canary: side(canary.canary),
            baseline: side(canary.baseline),
            settings: canary.settings.clone(),
        }
    }
}

impl Watched {
    fn new(plan: Plan, now: Now) -> Self {
        let analysis = Analysis::new(plan.settings.clone(), now.mono);
        let (events, counts) = (VecDeque::new(), [0; EVENTS.len()]);
        Self { plan, analysis, in_force: false, paused: false, events, counts }
    }

    fn begin(&mut self, now: Now) {
        self.analysis = Analysis::new(self.plan.settings.clone(), now.mono);
        (self.in_force, self.paused) = (false, false);
    }

    fn look(
        &mut self,
        shared: &Shared,
        overrides: &mut Overrides,
        route: &str,
        now: Now,
        (canary, baseline): &(Seen, Seen),
    ) {
        let ours = overrides.of_route(route).map(|one| one.author == ANALYSIS);
        if ours == Some(false) {
            if !self.paused {
                (self.paused, self.in_force) = (true, false);
                self.tell(route, now, PAUSED);
            }
            return self.analysis.skip(now.mono, canary, baseline);
        }
        if ours.is_none() && self.in_force {
            // Whoever clears what it has decided wants it to begin anew.
            self.begin(now);
        }
        let name = match self.paused {
            true => {
                self.analysis.skip(now.mono, canary, baseline);
                RESUMED
            }
            false => {
                let event = self.analysis.look(now.mono, canary, baseline);
                if event.is_none() && self.in_force {
                    return;
                }
                self.analysis.state().name()
            }
        };
        match shared.set_override(overrides, self.order(route)) {
            Ok(_) => {
                (self.paused, self.in_force) = (false, true);
                self.tell(route, now, name);
            }
            // It is tried again with the next look.
            Err(error) => {
                tracing::warn!(route, %error, "a canary's weights could not be changed");
            }
        }
    }

    /// The weights as they are to be.
    fn order(&self, route: &str) -> Order {
        let percent = self.analysis.state().percent;
        let Plan { canary, baseline, .. } = &self.plan;
        let weights = vec![
            (canary.variant.to_string(), u64::from(percent)),
            (baseline.variant.to_string(), u64::from(100 - percent)),
        ];
        Order {
            change: Change::Weights { route: route.to_owned(), weights },
            author: ANALYSIS.to_owned(),
            reason: match self.analysis.state().stage {
                Stage::Step(step) => {
                    format!("step {} of {}", step + 1, self.plan.settings.steps.len())
                }
                Stage::Promoted => "promoted".to_owned(),
                Stage::RolledBack(cause) => format!("rolled back: {}", cause.name()),
            },
            lasts: None,
        }
    }

    fn tell(&mut self, route: &str, now: Now, name: &'static str) {
        let state = self.analysis.state();
        let Event { percent, evidence: (errors, slow), .. } = state;
        let canary = &*self.plan.canary.variant;
        match state.stage {
            Stage::RolledBack(cause) => {
                let (event, cause) = (name, cause.name());
                tracing::warn!(route, canary, event, cause, percent, errors, slow, "{ABOUT}");
            }
            _ => tracing::info!(route, canary, event = name, percent, errors, slow, "{ABOUT}"),
        }
        let counts = self.counts.iter_mut().zip(EVENTS);
        counts.filter(|(_, of)| *of == name).for_each(|(count, _)| *count += 1);
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(AnalysisEvent { at: now.wall, name, state });
    }

    fn report(&self, route: &Arc<str>) -> AnalysisReport {
        let Self { analysis, plan, .. } = self;
        AnalysisReport {
            route: Arc::clone(route),
            canary: Arc::clone(&plan.canary.variant),
            baseline: Arc::clone(&plan.baseline.variant),
            settings: plan.settings.clone(),
            state: analysis.state(),
            paused: self.paused,
            good: analysis.good(),
            events: self.events.iter().copied().collect(),
            counts: std::array::from_fn(|at| (EVENTS[at], self.counts[at])),
        }
    }
}
