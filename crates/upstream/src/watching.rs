//! What a backend's endpoints learn from its requests: times, failures, and who is an outlier.

use std::time::Duration;

use crate::balancer::{Algorithm, Balancer, EndpointIndex, Settings};
use crate::endpoint::{InFlight, Rank};
use crate::verdict::Verdict;
use crate::{breaker, outlier};

impl Balancer {
    /// It is decided what a request came to; `took` is the time up to the head of its answer.
    pub fn ended(
        &self,
        in_flight: &mut InFlight,
        verdict: Verdict,
        took: Duration,
        now: Duration,
    ) -> Option<breaker::Change> {
        let Settings { algorithm, outliers, breaker, .. } = self.settings();
        if *algorithm == Algorithm::Ewma {
            in_flight.endpoint().answered(took, verdict.is_failure(), now);
        }
        if outliers.as_ref().is_some_and(|terms| terms.latency.is_some())
            && verdict != Verdict::Error
        {
            in_flight.endpoint().time(took);
        }
        in_flight.judge(breaker.as_ref(), verdict, now)
    }

    /// The head of an answer is here, and what the request comes to is only known at its end, when
    /// [`Self::decided`] is to be called.
    pub fn answered(&self, in_flight: &InFlight, took: Duration, now: Duration) {
        let Settings { algorithm, outliers, .. } = self.settings();
        if *algorithm == Algorithm::Ewma {
            in_flight.endpoint().answered(took, false, now);
        }
        if outliers.as_ref().is_some_and(|terms| terms.latency.is_some()) {
            in_flight.endpoint().time(took);
        }
    }

    /// The end of an answer whose head was here before.
    pub fn decided(
        &self,
        in_flight: &mut InFlight,
        verdict: Verdict,
        now: Duration,
    ) -> Option<breaker::Change> {
        let Settings { algorithm, breaker, .. } = self.settings();
        if *algorithm == Algorithm::Ewma && verdict.is_failure() {
            in_flight.endpoint().answered(Duration::ZERO, true, now);
        }
        in_flight.judge(breaker.as_ref(), verdict, now)
    }

    /// A request was given up after so long because another one was quicker: nothing is known of it
    /// but that it takes longer.
    pub fn given_up(&self, in_flight: &InFlight, waited: Duration, now: Duration) {
        if self.settings().algorithm == Algorithm::Ewma {
            in_flight.endpoint().answered(waited, false, now);
        }
    }

    /// It begins to serve. `later` says that another one served before it, so that endpoints which
    /// are new start slowly.
    pub fn adopt(&self, later: bool, now: Duration) {
        for member in self.members() {
            member.endpoint.adopt(later, now);
            if self.settings().outliers.is_none() {
                member.endpoint.acquit();
            }
            if self.settings().breaker.is_none() {
                member.endpoint.remove_breaker();
            }
        }
    }

    /// Looks for outliers; to be called once in [`outlier::INTERVAL`]. What has changed, for the
    /// log.
    pub fn judge(&self, now: Duration) -> Vec<(EndpointIndex, outlier::Event)> {
        let Some(terms) = &self.settings().outliers else { return Vec::new() };
        let mut indexes = Vec::new();
        let mut guards = Vec::new();
        for (index, member) in self.candidates() {
            let rank = member.endpoint.rank(now);
            if rank == Rank::Out {
                continue;
            }
            let Some(guard) = member.endpoint.judged() else { continue };
            indexes.push(index);
            guards.push((guard, member.endpoint.counts(), rank < Rank::Down));
        }
        let mut cases: Vec<outlier::Case<'_>> = guards
            .iter_mut()
            .map(|(judged, counts, usable)| outlier::Case {
                judged,
                counts: *counts,
                usable: *usable,
            })
            .collect();
        let events = outlier::judge(terms, now, &mut cases);
        let mut named = Vec::with_capacity(events.len());
        for (case, event) in events {
            let index = indexes[case];
            match &event {
                outlier::Event::Ejected { reason, .. } => self.endpoint(index).eject(*reason),
                outlier::Event::Returned => self.endpoint(index).return_at(now),
            }
            named.push((index, event));
        }
        named
    }
}
