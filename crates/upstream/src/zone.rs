//! Preferring endpoints of the gateway's own zone, without drowning the few that are left there.
//!
//! While enough of the own zone is well it gets everything. Below that it gets what it can carry,
//! and the other zones the rest: with a threshold of 70 % and half of it well, five sevenths.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::balancer::{Ask, Balancer, EndpointIndex, Member, Settings, part};
use crate::mix::{Mix, scale};
use crate::subset::Place;
use crate::tried::Tried;

/// How long it is believed what share of a zone is well.
const BELIEVED: Duration = Duration::from_millis(100);
/// All requests, as a share.
const ALL: u64 = 10_000;

/// Where the gateway is, and when it looks further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub own: Box<str>,
    /// Of a hundred endpoints of the own zone, by weight, so many have to be well for it to get
    /// everything.
    pub well_min: u32,
}

/// The endpoints of a balancer in two parts.
#[derive(Debug)]
pub(crate) struct Zones {
    own: Balancer,
    others: Balancer,
    well_min: u32,
    /// Milliseconds of the last look, and the share of the own zone in the lowest 16 bits.
    share: AtomicU64,
}

impl Zones {
    /// `None` when all members are on one side.
    pub(crate) fn of(settings: &Settings, terms: &Terms, members: &[Member]) -> Option<Self> {
        let is_own = |place: Option<&Place>| {
            place.and_then(|place| place.zone.as_deref()) == Some(&*terms.own)
        };
        // Panic is for the whole to decide: each part gives what is well, or nothing.
        let settings =
            Settings { zone: None, subsets: Vec::new(), panic_threshold: 0, ..settings.clone() };
        let side = |own: bool| {
            let members = part(members, |place| is_own(place) == own);
            let any = members.iter().any(|member| member.weight > 0);
            any.then(|| Balancer::new(settings.clone(), members).ok()).flatten()
        };
        Some(Self {
            own: side(true)?,
            others: side(false)?,
            well_min: terms.well_min.clamp(1, 100),
            share: AtomicU64::new(u64::MAX),
        })
    }

    /// How many of [`ALL`] requests the own zone gets.
    pub(crate) fn share(&self, now: Duration) -> u64 {
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX) & (u64::MAX >> 16);
        let seen = self.share.load(Relaxed);
        let age = millis.checked_sub(seen >> 16);
        if age.is_some_and(|age| age < BELIEVED.as_millis() as u64) {
            return seen & 0xffff;
        }
        let (well, all) = self.own.well(now);
        let share = (well * 100 * ALL / (all * u64::from(self.well_min)).max(1)).min(ALL);
        self.share.store(millis << 16 | share, Relaxed);
        share
    }

    /// An endpoint that is well, if there is one: of the own zone by its share.
    pub(crate) fn pick(&self, ask: Ask, tried: &Tried) -> Option<EndpointIndex> {
        // Where keys are hashed the same key stays in the same zone.
        let chance = Mix::new(ask.key.unwrap_or(ask.random) ^ 0x7a6f_6e65).next();
        let own_first = scale(chance, ALL) < self.share(ask.now);
        let order = match own_first {
            true => [&self.own, &self.others],
            false => [&self.others, &self.own],
        };
        let well = |part: &Balancer| {
            part.pick(ask, tried).filter(|index| part.endpoint(*index).is_well(ask.now))
        };
        order.into_iter().find_map(well)
    }
}
