//! One request that reaches a route, and what is made of it: other methods, other spellings, good
//! and bad credentials. Which of it is sent is for the planner to say.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_core::Identity;

use super::{Expect, Good, Planned, Planner, Probe, SPOOF};
use crate::draft::Draft;
use crate::forge::{Bad, Caller, Credential, Forged};
use crate::login::NEAR;
use crate::mutate::{self, Open};
use crate::oracle::{Fate, Owner};
use crate::send::{Lane, Presented, Protocol};

/// Bad credentials that anybody can make. The others are bad only where the issuer is the audit's.
const ANYBODYS: [&str; 9] = [
    "malformed",
    "odd signature",
    "alg none",
    "unknown kid",
    "wrong key",
    "embedded jwk",
    "embedded jku",
    "embedded x5u",
    "two credentials",
];
/// Methods that are tried beside those that the route names. The last one nobody knows.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "AUDIT"];
/// Public routes that ways lead through into a protected one.
const OPEN_MAX: usize = 2;
const SPOOFED: [&str; 6] = [
    "Portcullis-Client",
    "Portcullis_Client",
    "portcullis.tenant",
    "Portcullis-Tenant",
    "Portcullis-Auth",
    "Portcullis-Scopes",
];

/// An entry of `auth` and what it is tried with.
pub(super) type Tried<'a> = (&'a String, &'a Forged);

/// One request that reaches the route, on one listener, in one version of HTTP.
pub(super) struct Site<'a> {
    pub(super) planner: &'a Planner,
    pub(super) index: usize,
    pub(super) base: Draft,
    pub(super) lane: Lane,
    /// With which status the route answers by itself.
    pub(super) answers: Option<u16>,
}

impl Site<'_> {
    pub(super) fn own_answer(&self) -> Option<u16> {
        if self.planner.oracle.route(self.index).to.is_some() {
            return None;
        }
        let (name, forged) = self.kit(&self.base.method).next()?;
        let (lane, draft, certificate) = self.present(&self.base.method, &forged.good);
        match self.planner.oracle.fate(&draft, &lane, (identity(name, forged), certificate)) {
            Fate::Answered(status) => Some(status),
            Fate::Forwarded | Fate::Refused(_) => None,
        }
    }

    fn with_method(&self, method: &str) -> Draft {
        Draft { method: method.to_owned(), ..self.base.clone() }
    }

    /// The methods that are the route's own here, its first one first, and the others.
    pub(super) fn methods(&self) -> (Vec<String>, Vec<String>) {
        let mut all = vec![self.base.method.clone()];
        all.extend(METHODS.iter().filter(|m| **m != self.base.method).map(|m| (*m).to_owned()));
        let own = Owner::Route(self.index);
        all.into_iter().partition(|method| {
            self.planner.oracle.owner(&self.with_method(method), &self.lane) == own
        })
    }

    pub(super) fn expect(&self, draft: &Draft) -> Expect {
        match self.planner.oracle.owner(draft, &self.lane) {
            Owner::Nobody => Expect::Unrouted,
            Owner::Route(index) if self.planner.oracle.is_open(index) => Expect::Open,
            Owner::Route(index) if index == self.index => Expect::Refused(self.answers),
            Owner::Route(_) => Expect::Refused(None),
        }
    }

    fn push(
        &self,
        kind: &'static str,
        detail: String,
        lane: Lane,
        draft: Draft,
        expect: Expect,
        planned: &mut Planned,
    ) {
        planned.probes.push(Probe { kind, detail, lane, draft, expect });
    }

    /// Without any credential.
    pub(super) fn nothing(&self, method: &str, planned: &mut Planned) {
        let draft = self.with_method(method);
        let expect = self.expect(&draft);
        self.push("no credential", String::new(), self.lane.clone(), draft, expect, planned);
    }

    pub(super) fn mutations(&self, own: &[String], others: &[String]) -> Vec<mutate::Mutation> {
        let open = &self.planner.open;
        let key = (self.lane.listener, self.base.authority.clone());
        let mut paths = open.get(&key).cloned().unwrap_or_default();
        if paths.is_empty() {
            // Routes that name no host take any; their examples have another one.
            let mut all: Vec<_> = open.iter().collect();
            all.sort();
            let same = all.into_iter().filter(|((listener, _), _)| *listener == key.0);
            paths.extend(same.flat_map(|(_, paths)| paths.clone()));
        }
        paths.retain(|path| {
            let draft = Draft { target: path.clone(), ..self.base.clone() };
            matches!(self.expect(&draft), Expect::Open)
        });
        paths.truncate(OPEN_MAX);
        // What the override would have to say to be of use: the methods that lead elsewhere, first.
        let methods: Vec<String> = others.iter().chain(own).take(4).cloned().collect();
        let mut all = mutate::all(&self.base, Open { paths: &paths, methods: &methods });
        for other in others.iter().take(2) {
            all.extend(mutate::overrides(&self.with_method(other), own));
        }
        all
    }

    pub(super) fn cannot_say(&self, mutation: &mutate::Mutation) -> bool {
        self.lane.protocol == Protocol::H2 && (mutation.h1_only || mutation.draft.h2(0).is_none())
    }

    pub(super) fn mutated(&self, mutation: mutate::Mutation, planned: &mut Planned) {
        if self.cannot_say(&mutation) {
            return;
        }
        let mutate::Mutation { kind, detail, draft, .. } = mutation;
        let expect = self.expect(&draft);
        self.push(kind, detail, self.lane.clone(), draft, expect, planned);
    }

    pub(super) fn kit(&self, method: &str) -> impl Iterator<Item = Tried<'_>> {
        let kit = self.planner.kits[self.index].of(method).iter();
        kit.filter_map(|(name, forged)| Some((name, (**forged).as_ref().ok()?)))
    }

    /// The lane and the request of somebody with this credential, and whose certificate there is.
    pub(super) fn present(
        &self,
        method: &str,
        credential: &Credential,
    ) -> (Lane, Draft, Presented) {
        let mut draft = self.with_method(method);
        let mut lane = self.lane.clone();
        let mut certificate = lane.certificate;
        if let Some(on) = credential.by_listener.get(&lane.listener) {
            lane.certificate = on.certificate;
            lane.peer = on.peer.unwrap_or(lane.peer);
            draft.fields.extend(on.fields.iter().cloned());
            certificate = on.certificate.or(on.handed_on);
        }
        if credential.near && !draft.https {
            lane.peer = NEAR;
        }
        (credential.apply)(&mut draft);
        (lane, draft, certificate)
    }

    /// With a good credential of one entry, or of each.
    pub(super) fn good(&self, method: &str, entry: Option<usize>, planned: &mut Planned) {
        if self.planner.in_use {
            return;
        }
        let route = self.planner.oracle.route(self.index);
        for (number, (name, forged)) in self.kit(method).enumerate() {
            if entry.is_some_and(|entry| entry != number) {
                continue;
            }
            let (lane, mut draft, certificate) = self.present(method, &forged.good);
            let spoofed = forged.spoofed.iter().map(String::as_str).chain(SPOOFED);
            spoofed.for_each(|field| draft.add(field, SPOOF));
            let who = (identity(name, forged), certificate);
            let expect = match self.planner.oracle.fate(&draft, &lane, who) {
                Fate::Answered(status) => Expect::Answered(status),
                Fate::Forwarded => Expect::Through(Arc::new(Good {
                    auth: name.clone(),
                    caller: forged.caller.clone(),
                    secrets: forged.good.secrets.clone(),
                    forwarded: route.forward_credential,
                })),
                // There may be methods that nobody may use; they all the same are tried with
                // every bad credential.
                Fate::Refused(_) if method != self.base.method => continue,
                Fate::Refused(reason) => {
                    planned.shut(format!("with a good credential of `{name}` {reason}"));
                    continue;
                }
            };
            self.push("good credential", name.clone(), lane, draft, expect, planned);
        }
    }

    /// With each of the bad ones that fit.
    pub(super) fn bad(&self, method: &str, fits: impl Fn(&Bad) -> bool, planned: &mut Planned) {
        for (name, forged) in self.kit(method) {
            for (bad, credential) in forged.bad.iter().filter(|(bad, _)| fits(bad)) {
                self.one_bad(method, name, bad, credential, planned);
            }
        }
        for (first, second) in self.pairs(method) {
            let bad = Bad::of("two credentials", format!("`{}` and `{}`", first.0, second.0));
            let credential = first.1.good.and(&second.1.good);
            self.one_bad(method, first.0, &bad, &credential, planned);
        }
    }

    /// Good credentials of two entries, each of which would do.
    fn pairs(&self, method: &str) -> Vec<(Tried<'_>, Tried<'_>)> {
        // A certificate goes with every other credential.
        let plain = |(_, forged): &Tried<'_>| forged.good.by_listener.is_empty();
        let kit: Vec<_> = self.kit(method).filter(plain).collect();
        kit.windows(2).map(|pair| (pair[0], pair[1])).collect()
    }

    fn one_bad(
        &self,
        method: &str,
        name: &str,
        bad: &Bad,
        credential: &Credential,
        planned: &mut Planned,
    ) {
        if self.planner.in_use && !ANYBODYS.contains(&bad.kind) {
            return;
        }
        if bad.methods.is_some_and(|methods| !methods.contains(&method)) {
            return;
        }
        let (lane, draft, _) = self.present(method, credential);
        let detail = match &*bad.detail {
            "" => format!("`{name}`"),
            detail => format!("`{name}`, {detail}"),
        };
        // Optional credentials may be left out, and must not be bad.
        self.push(bad.kind, detail, lane, draft, Expect::Refused(self.answers), planned);
    }

    /// The kinds of bad credentials of an entry, and how many of each there are.
    pub(super) fn kinds(&self, method: &str, entry: usize) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        let forged = self.kit(method).nth(entry);
        for (bad, _) in forged.into_iter().flat_map(|(_, forged)| &forged.bad) {
            *kinds.entry(bad.kind).or_default() += 1;
        }
        kinds
    }

    /// One of a kind, with the first of the methods with which it is bad.
    pub(super) fn bad_of(
        &self,
        methods: &[String],
        entry: usize,
        kind: &str,
        turn: usize,
        planned: &mut Planned,
    ) {
        let of = |method: &str| self.kit(method).nth(entry);
        let Some((_, forged)) = methods.first().and_then(|first| of(first)) else { return };
        let all: Vec<_> = forged.bad.iter().filter(|(bad, _)| bad.kind == kind).collect();
        let Some((bad, _)) = all.get(turn % all.len().max(1)) else { return };
        let is_bad =
            |method: &&String| bad.methods.is_none_or(|bad| bad.contains(&method.as_str()));
        let Some(method) = methods.iter().find(is_bad) else { return };
        // Other methods may ask for other callers.
        let Some((name, forged)) = of(method) else { return };
        if let Some((bad, credential)) = forged.bad.iter().find(|(other, _)| other == bad) {
            self.one_bad(method, name, bad, credential, planned);
        }
    }
}

fn identity(auth: &str, forged: &Forged) -> Identity {
    let Caller { client, tenant, scopes, claims } = forged.caller.clone();
    Identity { tenant, scopes, claims, ..Identity::new(auth.into(), client) }
}
