//! Choosing the endpoint for one request.
//!
//! What a request may be given, best first; a level is used when it leaves at least half of the
//! endpoints in service (or what the panic threshold says: so many failing at once says more about
//! the checks, or about the load that would fall on the rest) and one of them has not been tried:
//! 1. healthy, no connection failed a moment ago, and no outlier;
//! 2. healthy;
//! 3. all that are in service.
//!
//! Weight 0, an operator's drain or disable and an open breaker take an endpoint out of service;
//! such a one is never given. So there is an answer as long as anything in service has not been
//! tried.
//!
//! Where some endpoints are used before others, by their priority or because they are in the
//! gateway's own zone, or where requests keep to those with some labels, they stand in balancers of
//! their own as well.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::breaker;
use crate::endpoint::{Endpoint, InFlight, Rank};
use crate::listed::Listed;
use crate::maglev::Maglev;
use crate::mix::{Mix, scale};
use crate::outlier;
use crate::priority::Priorities;
use crate::schedule;
use crate::subset::{self, Subset};
use crate::tried::Tried;
use crate::zone::{self, Zones};

/// Endpoints of one backend.
pub const ENDPOINTS_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// In turn, each by its weight, heavy ones spread out.
    RoundRobin,
    /// Of two drawn by weight the one with fewer requests in flight for its weight.
    #[default]
    LeastRequests,
    /// Of two drawn by weight the one with less to do: requests in flight, times how long they
    /// have taken lately (peak EWMA).
    Ewma,
    /// The same one for the same key, unless it has a quarter more to do than its share (Mirrokni,
    /// Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018). Without a key as
    /// `LeastRequests`.
    Hash,
}

/// What a choice depends on beside the endpoints.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask {
    pub now: Duration,
    /// Spread over all of `u64`.
    pub random: u64,
    /// A hash of what [`Algorithm::Hash`] goes by.
    pub key: Option<u64>,
    /// Where the client has been before. It stays there while all is well with it.
    pub home: Option<EndpointIndex>,
    /// Into [`Settings::subsets`]; `None`: any endpoint will do.
    pub subset: Option<u16>,
}

/// An endpoint and its weight in one backend; weight 0 takes no requests.
#[derive(Clone, Debug)]
pub struct Member {
    pub endpoint: Arc<Endpoint>,
    pub weight: u32,
}

/// How the endpoints of a backend are chosen and watched.
#[derive(Clone, Debug)]
pub struct Settings {
    pub algorithm: Algorithm,
    /// An endpoint that is new, or back, gets its share only after this time.
    pub slow_start: Duration,
    /// Below so many of a hundred endpoints in service a level is not used; 0 for never.
    pub panic_threshold: u32,
    /// `None`: zones do not count.
    pub zone: Option<zone::Terms>,
    /// Those that requests may keep to.
    pub subsets: Vec<subset::Terms>,
    /// `None`: nobody is ejected.
    pub outliers: Option<outlier::Terms>,
    /// Of each endpoint.
    pub breaker: Option<breaker::Terms>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            slow_start: Duration::ZERO,
            panic_threshold: 50,
            zone: None,
            subsets: Vec::new(),
            outliers: None,
            breaker: None,
        }
    }
}

/// Which member of its [`Balancer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointIndex(pub u16);

impl EndpointIndex {
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// A backend has more than [`ENDPOINTS_MAX`] endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointsTooMany(pub usize);

impl fmt::Display for EndpointsTooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} endpoints, at most {ENDPOINTS_MAX} are possible", self.0)
    }
}

impl std::error::Error for EndpointsTooMany {}

/// The endpoints of one backend in one snapshot, and whose turn it is.
#[derive(Debug)]
pub struct Balancer {
    settings: Settings,
    members: Box<[Member]>,
    /// Members in proportion to their weights; empty when all weights are 0.
    turns: Box<[u16]>,
    /// How many members have a weight.
    weighted: u32,
    /// Only for [`Algorithm::Hash`].
    keys: Option<Maglev>,
    /// Where some endpoints are used before others.
    priorities: Option<Box<Priorities>>,
    cursor: Cursor,
    /// Turns of endpoints that could not take them, handed to the others.
    spilled: Cursor,
    /// `None` for most, whose endpoints are all one.
    zones: Option<Box<Zones>>,
    /// One for each of the settings, or none.
    subsets: Box<[Subset]>,
}

/// A cache line of its own, since every worker writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cursor(AtomicU64);

/// What a scan of all members found out.
#[derive(Clone, Copy, Debug)]
struct Level {
    /// Members up to this rank may be given.
    worst: Rank,
    /// The sum of their weights, without those tried.
    weight: u64,
    /// The sum of all their weights, and what all of them have to do.
    weights: u64,
    in_flight: u64,
}

impl Balancer {
    /// # Errors
    /// When there are more than [`ENDPOINTS_MAX`] members.
    pub fn new(settings: Settings, members: Vec<Member>) -> Result<Self, EndpointsTooMany> {
        if members.len() > ENDPOINTS_MAX {
            return Err(EndpointsTooMany(members.len()));
        }
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        let keys = (settings.algorithm == Algorithm::Hash).then(|| {
            Maglev::new(members.iter().map(|member| (member.endpoint.url(), member.weight)))
        });
        Ok(Self {
            settings,
            turns: schedule::turns(&weights),
            weighted: weights.iter().filter(|weight| **weight > 0).count() as u32,
            keys,
            members: members.into(),
            priorities: None,
            cursor: Cursor::default(),
            spilled: Cursor::default(),
            zones: None,
            subsets: Box::default(),
        })
    }

    /// Of members that are listed so, in this order, where priorities, zones and labels count.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn placed(
        settings: Settings,
        members: Vec<Member>,
        listed: &[Listed],
    ) -> Result<Self, EndpointsTooMany> {
        let mut whole = Self::new(settings, members)?;
        let subsets = whole.settings.subsets.iter();
        let subsets = subsets.map(|terms| Subset::new(&whole, terms, listed));
        whole.subsets = subsets.collect::<Option<_>>().ok_or(EndpointsTooMany(listed.len()))?;
        whole.priorities = Priorities::new(&whole, listed).map(Box::new);
        if whole.priorities.is_none() {
            whole.zones = Zones::new(&whole, listed).map(Box::new);
        }
        Ok(whole)
    }

    /// The priority that is used now; `None` where there is only one.
    #[must_use]
    pub fn priority(&self, now: Duration) -> Option<u16> {
        self.priorities.as_ref()?.current(now).map(|(number, _)| number)
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    #[must_use]
    pub fn endpoint(&self, index: EndpointIndex) -> &Arc<Endpoint> {
        &self.members[index.get()].endpoint
    }

    /// The endpoint for the next attempt, never one in `tried`. `None`: nothing in service is left
    /// to try.
    ///
    /// A choice and no more: the request begins with [`Self::start`] or [`Endpoint::start`].
    #[must_use]
    pub fn pick(&self, ask: Ask, tried: &Tried) -> Option<EndpointIndex> {
        if let Some(subset) = self.subset(&ask) {
            return subset.pick(self, ask, tried);
        }
        if let Some(priorities) = &self.priorities {
            return priorities.pick(ask, tried);
        }
        if let Some(home) = ask.home
            && self.stays(home, &ask, tried)
        {
            return Some(home);
        }
        if let Some(zones) = &self.zones
            && let Some(index) = zones.pick(self, ask, tried)
        {
            return Some(index);
        }
        let Ask { now, random, key, .. } = ask;
        match (self.settings.algorithm, &self.keys, key) {
            (Algorithm::RoundRobin, ..) => self.in_turn(now, tried),
            (Algorithm::Hash, Some(keys), Some(key)) => self.by_key(keys, key, now, tried),
            _ => self.of_two(now, random, tried),
        }
    }

    fn subset(&self, ask: &Ask) -> Option<&Subset> {
        self.subsets.get(usize::from(ask.subset?))
    }

    /// Those that a request may be given, as far as that does not depend on how they do.
    fn admitted(&self, ask: &Ask) -> impl Iterator<Item = (EndpointIndex, &Member)> {
        let subset = self.subset(ask);
        self.candidates().filter(move |(index, _)| subset.is_none_or(|one| one.admits(*index)))
    }

    /// How each of the subsets does.
    pub fn subsets(
        &self,
        now: Duration,
    ) -> impl Iterator<Item = (&subset::Terms, subset::Standing)> {
        let all = self.settings.subsets.iter().zip(&self.subsets);
        all.map(move |(terms, subset)| (terms, subset.standing(now)))
    }

    /// Whether a client goes on where it has been.
    fn stays(&self, home: EndpointIndex, ask: &Ask, tried: &Tried) -> bool {
        let member = self.members.get(home.get());
        member.is_some_and(|member| member.weight > 0) && self.is_good(home, ask.now, tried)
    }

    /// Picks and begins in one.
    #[must_use]
    pub fn start(&self, ask: Ask, tried: &Tried) -> Option<(EndpointIndex, InFlight)> {
        let mut ask = ask;
        // Another worker may claim an endpoint's one trial, or the last probe of its breaker,
        // between the choice and the claim. Then it ranks lower, and the next choice sees that.
        for _ in 0..4 {
            let index = self.pick(ask, tried)?;
            if let Some(in_flight) = self.endpoint(index).start(ask.now) {
                return Some((index, in_flight));
            }
            ask.random = Mix::new(ask.random).next();
        }
        self.admitted(&ask)
            .filter(|(index, member)| {
                !tried.contains(*index) && member.endpoint.rank(ask.now) < Rank::Broken
            })
            .find_map(|(index, member)| Some((index, member.endpoint.start(ask.now)?)))
    }

    /// So few endpoints are healthy that those that are not get requests too.
    #[must_use]
    pub fn is_panicking(&self, now: Duration) -> bool {
        if let Some((_, used)) = self.priorities.as_ref().and_then(|all| all.current(now)) {
            return used.is_panicking(now);
        }
        self.level(now, &Tried::NONE).is_some_and(|level| level.worst == Rank::Down)
    }

    /// So few are good that others get requests too.
    pub(crate) fn is_short(&self, now: Duration) -> bool {
        self.level(now, &Tried::NONE).is_none_or(|level| level.worst != Rank::Good)
    }

    /// Whether it is in the gateway's own zone; `None` where zones do not count.
    #[must_use]
    pub fn is_in_own_zone(&self, index: EndpointIndex) -> Option<bool> {
        if let Some(priorities) = &self.priorities {
            return priorities.is_in_own_zone(index);
        }
        self.zones.as_ref().map(|zones| zones.is_own(index))
    }

    /// What part of the requests stays in the gateway's own zone; `None` where zones do not count,
    /// or do not at the moment.
    #[must_use]
    pub fn own_zone_share(&self, now: Duration) -> Option<f64> {
        if let Some(priorities) = &self.priorities {
            return priorities.current(now)?.1.own_zone_share(now);
        }
        self.zones.as_ref()?.kept(self, now)
    }

    /// When one of the open breakers of those that it may be given lets a request through; `None`
    /// if none is open.
    #[must_use]
    pub fn opens_in(&self, ask: &Ask) -> Option<Duration> {
        let now = ask.now;
        let broken = self.admitted(ask).filter(|(_, m)| m.endpoint.rank(now) == Rank::Broken);
        broken.map(|(_, member)| member.endpoint.breaker().opens_in(now)).min()
    }

    /// The first in the key's order that may be given and is not overloaded.
    fn by_key(
        &self,
        keys: &Maglev,
        key: u64,
        now: Duration,
        tried: &Tried,
    ) -> Option<EndpointIndex> {
        let home = EndpointIndex(keys.order(key).next()?);
        let ready = self.is_ready(home, now, tried, key);
        if ready && self.endpoint(home).in_flight() == 0 {
            return Some(home);
        }
        let level = self.level(now, tried)?;
        if ready && self.has_room(home, &level) {
            return Some(home);
        }
        // Repetitions are frequent among few members and rare among many.
        let steps = 16 + self.weighted as usize * 8;
        let admitted = |index: &EndpointIndex| {
            !tried.contains(*index) && self.endpoint(*index).rank(now) <= level.worst
        };
        let order = || keys.order(key).take(steps).map(EndpointIndex).filter(admitted);
        // One that is full or that starts slowly has had its chance.
        let home_has_had_its = self.is_good(home, now, tried);
        order()
            .filter(|index| !(home_has_had_its && *index == home))
            .find(|index| self.has_room(*index, &level))
            .or_else(|| order().next())
            .or_else(|| self.at(scale(key, level.weight), level.worst, now, tried, None))
    }

    /// Whether one request more leaves it within a quarter more than its share of what those of
    /// the level have to do. Others take none of it, so that they must not count as if they did.
    fn has_room(&self, index: EndpointIndex, level: &Level) -> bool {
        let member = &self.members[index.get()];
        let flying = u64::from(member.endpoint.in_flight());
        if flying == 0 {
            return true;
        }
        let share = (level.in_flight + 1) * u64::from(member.weight);
        (flying + 1) * level.weights * 4 < share * 5 + level.weights * 4
    }

    fn in_turn(&self, now: Duration, tried: &Tried) -> Option<EndpointIndex> {
        if self.turns.is_empty() {
            return None;
        }
        let count = self.cursor.0.fetch_add(1, Relaxed);
        let turn = count % self.turns.len() as u64;
        let index = EndpointIndex(self.turns[turn as usize]);
        // Multiples of the golden ratio fill the unit interval evenly.
        if self.is_ready(index, now, tried, count.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            return Some(index);
        }
        let level = self.level(now, tried)?;
        let slow = self.is_good(index, now, tried);
        if !slow && !tried.contains(index) && self.endpoint(index).rank(now) <= level.worst {
            return Some(index);
        }
        // Multiples of the golden ratio fill the unit interval evenly, in whatever order the
        // endpoints fail and return: the others take these turns by their weights.
        let spilled = self.spilled.0.fetch_add(1, Relaxed);
        let point = spilled.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.at(scale(point, level.weight), level.worst, now, tried, None)
    }

    fn of_two(&self, now: Duration, random: u64, tried: &Tried) -> Option<EndpointIndex> {
        let mut mix = Mix::new(random);
        let drawn = self.draw(&mut mix)?;
        let chance = mix.next();
        let mut first = Some(drawn).filter(|drawn| self.is_ready(*drawn, now, tried, chance));
        if let Some(first) = first {
            if self.weighted == 1 {
                return Some(first);
            }
            // A heavy member is drawn twice often enough; a few draws settle most cases.
            for _ in 0..4 {
                let second = self.draw(&mut mix)?;
                let chance = mix.next();
                if second != first && self.is_ready(second, now, tried, chance) {
                    return Some(self.less_busy(first, second, now));
                }
            }
        }
        let level = self.level(now, tried)?;
        // A good first one is kept: another draw here would be a bias against the heavy ones,
        // which come here more often.
        if first.is_none() {
            first = self.at(mix.below(level.weight), level.worst, now, tried, None);
        }
        let first = first?;
        let rest = level.weight.saturating_sub(u64::from(self.members[first.get()].weight));
        let second = self.at(mix.below(rest), level.worst, now, tried, Some(first));
        Some(second.map_or(first, |second| self.less_busy(first, second, now)))
    }

    /// The first, unless the second has less to do for its weight. Equals go to the first, which
    /// was drawn by weight: so idle endpoints share by weight.
    fn less_busy(
        &self,
        first: EndpointIndex,
        second: EndpointIndex,
        now: Duration,
    ) -> EndpointIndex {
        let (a, b) = (&self.members[first.get()], &self.members[second.get()]);
        if self.settings.algorithm == Algorithm::Ewma {
            let cost_a = a.endpoint.cost(now) * f64::from(b.weight);
            let cost_b = b.endpoint.cost(now) * f64::from(a.weight);
            return if cost_b < cost_a { second } else { first };
        }
        let load_a = u64::from(a.endpoint.in_flight()) * u64::from(b.weight);
        let load_b = u64::from(b.endpoint.in_flight()) * u64::from(a.weight);
        if load_b < load_a { second } else { first }
    }

    fn draw(&self, mix: &mut Mix) -> Option<EndpointIndex> {
        let turn = mix.below(self.turns.len() as u64);
        self.turns.get(turn as usize).map(|index| EndpointIndex(*index))
    }

    fn is_good(&self, index: EndpointIndex, now: Duration, tried: &Tried) -> bool {
        !tried.contains(index) && self.endpoint(index).rank(now) == Rank::Good
    }

    /// Good, and not so new that this turn is for another; `chance` is spread over all of `u64`.
    fn is_ready(&self, index: EndpointIndex, now: Duration, tried: &Tried, chance: u64) -> bool {
        if !self.is_good(index, now, tried) {
            return false;
        }
        let share = self.endpoint(index).share(self.settings.slow_start, now);
        share >= 1.0 || (chance as f64) < share * u64::MAX as f64
    }

    /// The weight of what it can take now, which is less while it starts slowly.
    pub(crate) fn carries(&self, member: &Member, now: Duration) -> f64 {
        f64::from(member.weight) * member.endpoint.share(self.settings.slow_start, now)
    }

    /// The best level that leaves something to choose, by a look at every member.
    fn level(&self, now: Duration, tried: &Tried) -> Option<Level> {
        // By rank: members, and what the level says of those up to it.
        let mut count = [0_u32; 3];
        let mut weight = [0_u64; 3];
        let mut weights = [0_u64; 3];
        let mut in_flight = [0_u64; 3];
        for (index, member) in self.candidates() {
            let rank = member.endpoint.rank(now);
            if rank >= Rank::Broken {
                continue;
            }
            count[rank as usize] += 1;
            weights[rank as usize] += u64::from(member.weight);
            in_flight[rank as usize] += u64::from(member.endpoint.in_flight());
            if !tried.contains(index) {
                weight[rank as usize] += u64::from(member.weight);
            }
        }
        let in_service: u32 = count.iter().sum();
        let mut usable = 0;
        let mut level = Level { worst: Rank::Good, weight: 0, weights: 0, in_flight: 0 };
        for rank in [Rank::Good, Rank::Aside, Rank::Down] {
            usable += count[rank as usize];
            level.worst = rank;
            level.weight += weight[rank as usize];
            level.weights += weights[rank as usize];
            level.in_flight += in_flight[rank as usize];
            let enough = usable * 100 >= in_service * self.settings.panic_threshold.min(100);
            if enough && level.weight > 0 {
                return Some(level);
            }
        }
        None
    }

    /// The member at a point of the weights of those that a level admits. Ranks may have changed
    /// since the level was computed; then the last one that is admitted will do.
    fn at(
        &self,
        point: u64,
        worst: Rank,
        now: Duration,
        tried: &Tried,
        except: Option<EndpointIndex>,
    ) -> Option<EndpointIndex> {
        let mut left = point;
        let mut last = None;
        for (index, member) in self.candidates() {
            let barred = Some(index) == except || tried.contains(index);
            if barred || member.endpoint.rank(now) > worst {
                continue;
            }
            last = Some(index);
            let weight = u64::from(member.weight);
            if left < weight {
                break;
            }
            left -= weight;
        }
        last
    }

    pub(crate) fn candidates(&self) -> impl Iterator<Item = (EndpointIndex, &Member)> {
        let numbered = self.members.iter().enumerate();
        numbered
            .filter(|(_, member)| member.weight > 0)
            .map(|(index, member)| (EndpointIndex(index as u16), member))
    }
}

#[cfg(test)]
mod tests;
