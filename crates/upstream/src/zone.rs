//! Preferring endpoints of the gateway's own zone, without overloading the few that are left there.
//!
//! **Even** is what an endpoint would get if all requests of all gateways were spread over all
//! endpoints that are well, by weight, and **normal** the same were all of them well. The own zone
//! keeps as many requests as give none of its endpoints more than 1.4 times the normal, or than
//! what is even where that is more; the rest goes to all other zones. So a zone that is well and
//! large enough keeps everything, one that lost endpoints or is small for its share of the load
//! keeps what it can carry, and where all zones are worse off alike none sends requests across for
//! nothing.
//!
//! This is the rule of Envoy's priorities (1.4 is its overprovisioning factor) and that of its
//! zone-aware routing (a zone's part of what is well against its part of the load) in one. The
//! first alone knows nothing of a zone that is too small, and sends requests across when every
//! zone has lost half; the second alone gives a zone's last endpoint several times the normal. That
//! HAProxy's `backup` servers and Finagle's and Linkerd's failover get nothing before the others
//! are all down (or too slow) drowns the last of the own zone first.
//!
//! How much of the load comes to a zone no gateway sees. Unless it is said, it is an equal part for
//! each zone that has endpoints.
//!
//! Not here: clients that stay by a cookie stay in whatever zone they are, and while so few
//! endpoints are good that others are used as well, zones do not count.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::balancer::{Ask, Balancer, EndpointIndex, Settings};
use crate::endpoint::Rank;
use crate::listed::Listed;
use crate::mix::{Mix, scale};
use crate::part::Part;
use crate::tried::Tried;

/// How long it is believed what the own zone keeps, so that a choice does not look at everybody.
const BELIEVED: Duration = Duration::from_millis(100);
/// All requests, as a share.
const ALL: u64 = 10_000;
/// In place of a share: zones do not count.
const SHORT: u64 = 0xffff;

/// Where the gateway is, and how much its zone is to bear.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The gateway's zone.
    pub own: Box<str>,
    /// Of a hundred requests to all gateways, how many come to those of its zone. `None`: an equal
    /// part for each zone that has endpoints.
    pub load: Option<u32>,
    /// What an endpoint of the own zone gets at most, in per cent of the normal.
    pub load_max: u32,
}

/// Which of a balancer's members are in the own zone, and how many requests they get.
#[derive(Debug)]
pub(crate) struct Zones {
    own: Box<[bool]>,
    /// The own zone's and the others; `None` when all that have a weight are on one side.
    sides: Option<[Part; 2]>,
    /// A zone's normal load is its part of the requests times this, for each weight.
    normal_max: f64,
    /// The own zone's part of all requests.
    load: f64,
    /// Milliseconds of the last look, and the share of the own zone in the lowest 16 bits.
    share: AtomicU64,
}

impl Zones {
    /// `None` where the balancer's settings make nothing of zones.
    pub(crate) fn new(whole: &Balancer, listed: &[Listed]) -> Option<Self> {
        let (settings, members) = (whole.settings(), whole.members());
        let terms = settings.zone.as_ref()?;
        let is_own = |one: &Listed| one.zone.as_deref() == Some(&*terms.own);
        // Panic is for the whole to decide: each side gives what is good, or nothing.
        let (zone, subsets) = (None, Vec::new());
        let alone = Settings { zone, subsets, panic_threshold: 0, ..settings.clone() };
        let side = |own_side: bool| {
            let inside = |one: &Listed| is_own(one) == own_side && one.share() > 0;
            listed.iter().any(inside).then(|| Part::new(alone.clone(), members, listed, inside))?
        };
        let sides = side(true).zip(side(false)).map(|(own, others)| [own, others]);
        let weighted = || listed.iter().filter(|one| one.share() > 0);
        let mut zones: Vec<_> = weighted().map(|one| one.zone.as_deref()).collect();
        zones.sort_unstable();
        zones.dedup();
        let weight: f64 = weighted().map(|one| f64::from(one.share())).sum();
        Some(Self {
            own: listed.iter().map(is_own).collect(),
            sides,
            normal_max: f64::from(terms.load_max) / 100.0 / weight.max(1.0),
            load: match terms.load {
                Some(percent) => f64::from(percent.clamp(1, 100)) / 100.0,
                None => 1.0 / zones.len().max(1) as f64,
            },
            share: AtomicU64::new(u64::MAX),
        })
    }

    pub(crate) fn is_own(&self, index: EndpointIndex) -> bool {
        self.own.get(index.get()) == Some(&true)
    }

    /// How many of [`ALL`] requests the own zone keeps; [`SHORT`] while zones do not count.
    fn share(&self, whole: &Balancer, now: Duration) -> u64 {
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX) & (u64::MAX >> 16);
        let seen = self.share.load(Relaxed);
        let age = millis.checked_sub(seen >> 16);
        if age.is_some_and(|age| age < BELIEVED.as_millis() as u64) {
            return seen & 0xffff;
        }
        let share = self.look(whole, now);
        self.share.store(millis << 16 | share, Relaxed);
        share
    }

    fn look(&self, whole: &Balancer, now: Duration) -> u64 {
        if whole.is_short(now) {
            return SHORT;
        }
        let (mut own, mut all) = (0.0, 0.0);
        for (index, member) in whole.candidates() {
            if member.endpoint.rank(now) == Rank::Good {
                let weight = whole.carries(member, now);
                all += weight;
                own += if self.is_own(index) { weight } else { 0.0 };
            }
        }
        let even = 1.0 / all.max(f64::MIN_POSITIVE);
        let kept = own * even.max(self.normal_max) / self.load;
        (kept.min(1.0) * ALL as f64).round() as u64
    }

    /// As [`Balancer::own_zone_share`].
    pub(crate) fn kept(&self, whole: &Balancer, now: Duration) -> Option<f64> {
        if self.sides.is_none() {
            let all_own = whole.candidates().next().is_some_and(|(index, _)| self.is_own(index));
            return Some(f64::from(u8::from(all_own)));
        }
        let share = self.look(whole, now);
        (share != SHORT).then_some(share as f64 / ALL as f64)
    }

    /// An endpoint that is good, if there is one: of the own zone by its share.
    pub(crate) fn pick(&self, whole: &Balancer, ask: Ask, tried: &Tried) -> Option<EndpointIndex> {
        let sides = self.sides.as_ref()?;
        let share = self.share(whole, ask.now);
        if share == SHORT {
            return None;
        }
        // Where keys are hashed the same key stays in the same zone, for as long as that has room.
        let chance = Mix::new(ask.key.unwrap_or(ask.random) ^ 0x7a6f_6e65).next();
        let [own, others] = sides;
        let order = if scale(chance, ALL) < share { [own, others] } else { [others, own] };
        let good = |side: &Part| {
            let index = side.pick(Ask { home: None, ..ask }, tried)?;
            (whole.endpoint(index).rank(ask.now) == Rank::Good).then_some(index)
        };
        order.into_iter().find_map(good)
    }
}
