//! What goes wrong, when, and what is promised of it.

use std::time::Duration;

use crate::endpoint::Manner;

/// Before anything goes wrong.
pub(crate) const CALM: Duration = Duration::from_secs(1);
/// After all is well again.
pub(crate) const AFTER: Duration = Duration::from_secs(4);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One drill: a backend, and its trouble.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What happens to it.
    pub(crate) about: &'static str,
    /// How many endpoints run.
    pub(crate) endpoints: usize,
    /// How many of them the gateway knows of at first, and from where.
    pub(crate) serving: usize,
    pub(crate) found: Found,
    /// Of its requests.
    pub(crate) method: &'static str,
    /// What its route says beside where it leads: `, retry: …`.
    pub(crate) route: &'static str,
    /// What its backend says beside endpoints and checks, in lines.
    pub(crate) backend: &'static str,
    /// When what happens, counted from the beginning of the trouble, which lasts so long. All is
    /// well at its end, whatever the script says.
    pub(crate) script: fn(Duration) -> Vec<(Duration, Step)>,
    pub(crate) promises: &'static [Promise],
}

/// Where a backend's endpoints stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// In the configuration, which is read again when it changes.
    Written,
    /// In a file of their own.
    File,
    /// As addresses of a name, which a name server is asked for.
    Dns,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// From now on the endpoint of this number behaves so.
    One(usize, Manner),
    /// All of them do.
    All(Manner),
    /// These are where the gateway finds them.
    Serve(Vec<usize>),
    /// The name server says nothing any more.
    Mute,
}

/// What the gateway promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Every client gets its 200.
    NothingFails,
    /// What fails is said by the gateway, as 502, 503 or 504: no connection is cut, and nobody
    /// waits for ever.
    FailuresAreSaid,
    /// What the backend answers is what clients get: the gateway makes no answer of its own.
    BackendIsHeard,
    /// The endpoints get no more than the retry budget allows: 1.2 requests for each of the
    /// clients', ten each second, and what ten seconds save of these.
    WithinBudget,
    /// No request reaches two endpoints.
    AtMostOnce,
    /// The first endpoint gets at most so many of a hundred requests while it is in trouble.
    Avoided(u64),
    /// Of a hundred answers while there is trouble 99 take no longer.
    Quick(Duration),
    /// Half of them take no longer.
    Median(Duration),
    /// Nothing fails or takes long any more so long after the trouble began.
    GoodAgain(Duration),
    /// The same after it ended.
    GoodAfter(Duration),
}

pub(crate) static ALL: &[Scenario] = &[
    Scenario {
        name: "steady",
        about: "nothing, beside all of the others",
        script: |_| vec![],
        promises: &[Promise::NothingFails, Promise::Quick(millis(100))],
        ..Scenario::THREE
    },
    Scenario {
        name: "killed",
        about: "one of three endpoints is killed",
        script: |_| vec![(Duration::ZERO, Step::One(0, Manner::Down))],
        promises: &[Promise::NothingFails, Promise::GoodAgain(millis(1_000))],
        ..Scenario::THREE
    },
    Scenario {
        name: "hung",
        about: "one of three takes requests and never answers",
        route: ", retry: { attempts: 3, per_try: 1s }",
        script: |_| vec![(Duration::ZERO, Step::One(0, Manner::Hung))],
        promises: &[Promise::NothingFails, Promise::GoodAgain(millis(5_000))],
        ..Scenario::THREE
    },
    Scenario {
        name: "slow",
        about: "one of three answers after half a second",
        backend: "\n    balance: ewma",
        script: |_| vec![(Duration::ZERO, Step::One(0, Manner::Slow(millis(500))))],
        promises: &[Promise::NothingFails, Promise::Avoided(10)],
        ..Scenario::THREE
    },
    Scenario {
        name: "tail",
        about: "one of three answers after half a second, and nobody avoids it",
        route: ", retry: { hedge: p95 }",
        backend: "\n    balance: round_robin",
        script: |_| vec![(Duration::ZERO, Step::One(0, Manner::Slow(millis(500))))],
        promises: &[Promise::NothingFails, Promise::WithinBudget, Promise::Quick(millis(250))],
        ..Scenario::THREE
    },
    Scenario {
        name: "failing",
        about: "one of three answers 503, and that it is well",
        script: |_| vec![(Duration::ZERO, Step::One(0, Manner::Failing(503)))],
        promises: &[Promise::NothingFails, Promise::GoodAgain(millis(1_000))],
        ..Scenario::THREE
    },
    Scenario {
        name: "flapping",
        about: "one of three dies and returns, twice a second",
        script: flapping,
        promises: &[Promise::NothingFails],
        ..Scenario::THREE
    },
    Scenario {
        name: "posted",
        about: "POST, and one of three is killed over requests that it has taken",
        method: "POST",
        script: |trouble| {
            let turns = (trouble.as_millis() / 1_000) as u32;
            let turn = |turn: u32| {
                let manners = [Manner::Hung, Manner::Down, Manner::Good];
                let at = move |step: usize| millis(1_000) * turn + millis(300) * step as u32;
                let step = move |(step, manner)| (at(step), Step::One(0, manner));
                manners.into_iter().enumerate().map(step)
            };
            (0..turns).flat_map(turn).collect()
        },
        promises: &[Promise::AtMostOnce, Promise::FailuresAreSaid],
        ..Scenario::THREE
    },
    Scenario {
        name: "garbage",
        about: "one of three answers what is no HTTP",
        script: |_| vec![(Duration::ZERO, Step::One(0, Manner::Garbage))],
        promises: &[Promise::NothingFails, Promise::GoodAgain(millis(1_000))],
        ..Scenario::THREE
    },
    Scenario {
        name: "reloaded",
        about: "each second one comes to the configuration or goes, and who goes is killed",
        ..Scenario::CHANGED
    },
    Scenario {
        name: "listed",
        about: "the same in a file of endpoints",
        found: Found::File,
        ..Scenario::CHANGED
    },
    Scenario {
        name: "resolved",
        about: "the same with the addresses of a name",
        found: Found::Dns,
        ..Scenario::CHANGED
    },
    Scenario {
        name: "nameless",
        about: "the name server falls silent, and then one of three is killed",
        found: Found::Dns,
        script: |trouble| {
            vec![(Duration::ZERO, Step::Mute), (trouble / 2, Step::One(0, Manner::Down))]
        },
        promises: &[Promise::NothingFails, Promise::GoodAgain(millis(1_000))],
        ..Scenario::THREE
    },
    Scenario {
        name: "crowded",
        about: "all three hang, and the backend has room for twenty requests",
        route: ", timeout: 2s, retry: off",
        backend: "\n    requests_max: 20\n    pending_max: 1\n    pending_timeout: 50ms",
        script: |_| vec![(Duration::ZERO, Step::All(Manner::Hung))],
        promises: &[
            Promise::FailuresAreSaid,
            Promise::Median(millis(25)),
            Promise::GoodAfter(millis(3_000)),
        ],
        ..Scenario::THREE
    },
    Scenario {
        name: "late",
        about: "all three answer after two seconds, which is too late",
        route: ", timeout: 500ms, retry: off",
        backend: "\n    breaker: { of: backend, requests_min: 5, open: 1s, open_max: 2s }",
        script: |_| vec![(Duration::ZERO, Step::All(Manner::Slow(millis(2_000))))],
        promises: &[
            Promise::FailuresAreSaid,
            Promise::Avoided(20),
            Promise::Median(millis(25)),
            Promise::GoodAfter(millis(3_000)),
        ],
        ..Scenario::THREE
    },
    Scenario {
        name: "storm",
        about: "all three answer 503",
        script: |_| vec![(Duration::ZERO, Step::All(Manner::Failing(503)))],
        promises: &[
            Promise::BackendIsHeard,
            Promise::WithinBudget,
            Promise::GoodAfter(millis(500)),
        ],
        ..Scenario::THREE
    },
    Scenario {
        name: "down",
        about: "all three are killed, and return",
        script: |_| vec![(Duration::ZERO, Step::All(Manner::Down))],
        promises: &[
            Promise::FailuresAreSaid,
            Promise::Quick(millis(250)),
            Promise::GoodAfter(millis(3_000)),
        ],
        ..Scenario::THREE
    },
];

impl Scenario {
    const THREE: Self = Self {
        name: "",
        about: "",
        endpoints: 3,
        serving: 3,
        found: Found::Written,
        method: "GET",
        route: "",
        backend: "",
        script: |_| Vec::new(),
        promises: &[],
    };

    const CHANGED: Self = Self {
        endpoints: 4,
        serving: 2,
        script: changed,
        promises: &[Promise::NothingFails, Promise::GoodAgain(millis(1_000))],
        ..Self::THREE
    };
}

fn flapping(trouble: Duration) -> Vec<(Duration, Step)> {
    let turns = trouble.as_millis() / 250;
    let turn = |turn: u128| {
        let manner = if turn.is_multiple_of(2) { Manner::Down } else { Manner::Good };
        (millis(250) * turn as u32, Step::One(0, manner))
    };
    (0..turns).map(turn).collect()
}

/// Of four endpoints two or three serve, in a ring.
fn changed(trouble: Duration) -> Vec<(Duration, Step)> {
    let mut steps = Vec::new();
    let mut serving = vec![0, 1];
    for second in 0..trouble.as_secs() {
        let at = Duration::from_secs(second);
        if second.is_multiple_of(2) {
            let newest = serving.last().map_or(0, |last| (last + 1) % 4);
            serving.push(newest);
            steps.push((at, Step::One(newest, Manner::Good)));
            steps.push((at, Step::Serve(serving.clone())));
        } else {
            let oldest = serving.remove(0);
            steps.push((at, Step::Serve(serving.clone())));
            steps.push((at, Step::One(oldest, Manner::Down)));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_was_not_the_last_and_who_comes_is_up() {
        let mut up = [true; 4];
        let mut serving = vec![0, 1];
        for (_, step) in changed(Duration::from_secs(60)) {
            match step {
                Step::One(number, manner) => up[number] = manner == Manner::Good,
                Step::Serve(next) => serving = next,
                Step::All(_) | Step::Mute => unreachable!(),
            }
            assert!(serving.len() >= 2);
            assert!(serving.iter().filter(|number| up[**number]).count() >= 2);
        }
    }

    #[test]
    fn each_has_a_name_of_its_own_and_something_to_keep() {
        for (index, scenario) in ALL.iter().enumerate() {
            assert!(ALL[..index].iter().all(|other| other.name != scenario.name));
            assert!(!scenario.promises.is_empty() && scenario.serving <= scenario.endpoints);
        }
    }
}
