//! What is sent for a route, and what has to become of each of it.
//!
//! The plan of a route is the same whenever it is made, but for nonces, so it need not be kept:
//! whoever has a finding makes the plan once more to say what was sent.

mod site;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_config::Config;
use portcullis_snapshot::Access;
use portcullis_snapshot::router::Example;

use crate::draft::Draft;
use crate::forge::{Caller, Credential, Forged};
use crate::mutate;
use crate::needs::{self, TENANT};
use crate::oracle::Oracle;
use crate::send::{Lane, Presented, Protocol};

use site::Site;

/// Public paths that are known of one host.
const OPEN_KNOWN_MAX: usize = 16;
/// Kinds of probes of which one variant a route would be too few: whether they lead elsewhere
/// depends on the route more than on the variant.
const SEVERAL: [(&str, usize); 2] = [("host", 5), ("method override", 4)];
/// What a client would like the backend to believe.
pub(crate) const SPOOF: &str = "audit-spoofed";
/// What has to become of a probe.
#[derive(Clone, Debug)]
pub(crate) enum Expect {
    /// The backend gets it, and is told of this caller.
    Through(Arc<Good>),
    /// The route answers it by itself, with this status.
    Answered(u16),
    /// Somebody's, and not to be had without a good credential. A route without a backend would
    /// give this answer of its own to somebody whom it lets in.
    Refused(Option<u16>),
    /// Nobody's.
    Unrouted,
    /// A public route's, by whatever way it came there.
    Open,
}

/// A caller with a good credential.
#[derive(Debug)]
pub(crate) struct Good {
    pub(crate) auth: String,
    pub(crate) caller: Caller,
    pub(crate) secrets: Vec<String>,
    /// Whether the backend is to see the credential.
    pub(crate) forwarded: bool,
}

#[derive(Debug)]
pub(crate) struct Probe {
    /// What reports go by.
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
    pub(crate) lane: Lane,
    pub(crate) draft: Draft,
    pub(crate) expect: Expect,
}

/// The probes of one route.
#[derive(Debug, Default)]
pub(crate) struct Planned {
    pub(crate) probes: Vec<Probe>,
    /// What could not be planned: why the route is not covered.
    pub(crate) gaps: Vec<String>,
    /// Why nobody gets through with good credentials of some entry: what they can say of a caller
    /// is not what the route requires.
    pub(crate) shut: Vec<String>,
}

impl Planned {
    fn shut(&mut self, why: String) {
        if !self.shut.contains(&why) {
            self.shut.push(why);
        }
    }

    fn gap(&mut self, gap: String) {
        if !self.gaps.contains(&gap) {
            self.gaps.push(gap);
        }
    }
}

/// What the plan has to know of a listener.
#[derive(Clone, Debug)]
pub(crate) struct ListenerFacts {
    /// Where a shell finds it.
    pub(crate) connect: String,
    pub(crate) https: bool,
    pub(crate) http2: bool,
    /// Where it demands a certificate of everybody.
    pub(crate) certificate: Presented,
}

/// What is presented for each entry of `auth`, or why nothing is.
pub(crate) type Tools = Vec<(String, Arc<Result<Forged, String>>)>;

/// What one route is tried with. Different methods may ask for different callers.
#[derive(Default)]
pub(crate) struct Kit {
    pub(crate) by_method: Vec<(String, Tools)>,
    pub(crate) otherwise: Tools,
}

impl Kit {
    fn of(&self, method: &str) -> &Tools {
        // As `require` has it.
        let method = if method == "HEAD" { "GET" } else { method };
        let found = self.by_method.iter().find(|(name, _)| name == method);
        found.map_or(&self.otherwise, |(_, tools)| tools)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Tools> {
        self.by_method.iter().map(|(_, tools)| tools).chain([&self.otherwise])
    }
}

/// One of the routes that take turns at something.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn {
    /// The entry, by its position among those of the route.
    pub(crate) entry: usize,
    pub(crate) number: usize,
    /// How many routes there are for the same entry.
    pub(crate) of: usize,
}

pub(crate) struct Planner {
    pub(crate) oracle: Oracle,
    pub(crate) quick: bool,
    /// The gateway under audit is in use: nothing is sent that is to get through, and nothing that
    /// only the operator's own issuers could have made.
    pub(crate) in_use: bool,
    pub(crate) listeners: Vec<ListenerFacts>,
    /// Addresses that clients may have, the usual one first.
    pub(crate) peers: Vec<IpAddr>,
    /// By the index of the route.
    pub(crate) kits: Vec<Kit>,
    /// By the index of the route: which entry of `auth` a quick audit tries there with bad
    /// credentials.
    pub(crate) turns: Vec<Turn>,
    /// What could not be done beforehand, by the index of the route: why nobody can log in.
    pub(crate) gaps: HashMap<usize, Vec<String>>,
    /// Paths of public routes, by listener and host.
    pub(crate) open: HashMap<(u16, String), Vec<String>>,
}

impl Planner {
    /// Whether a route takes credentials of this entry of `auth`.
    pub(crate) fn takes(&self, index: usize, entry: &str) -> bool {
        self.kits[index].otherwise.iter().any(|(name, _)| name == entry)
    }

    /// Leaves out what is sent to other listeners.
    pub(crate) fn keep_listeners(&mut self, keeps: impl Fn(u16) -> bool) {
        for examples in &mut self.oracle.examples {
            examples.retain(|example| keeps(example.listener));
        }
        self.open.retain(|(listener, _), _| keeps(*listener));
    }

    /// Fills in where the public routes are.
    pub(crate) fn find_open(&mut self) {
        for (index, examples) in self.oracle.examples.iter().enumerate() {
            if !self.oracle.is_open(index) {
                continue;
            }
            for example in examples {
                let paths = self.open.entry((example.listener, example.host.clone())).or_default();
                if paths.len() < OPEN_KNOWN_MAX && !paths.contains(&example.path) {
                    paths.push(example.path.clone());
                }
            }
        }
    }

    /// Lets requests name the tenant of the audit's callers, where the path has to name it.
    pub(crate) fn name_tenants(&mut self, config: &Config) {
        for (index, route) in config.routes.iter().enumerate() {
            let Some(param) = needs::tenant_param(config, route) else { continue };
            let templates: Vec<&str> = route
                .matches
                .iter()
                .flat_map(|one| &one.paths)
                .map(|path| path.text().value.as_str())
                .collect();
            for example in &mut self.oracle.examples[index] {
                let named = templates.iter().find_map(|path| named(path, &param, &example.path));
                if let Some(path) = named {
                    example.path = path;
                }
            }
        }
    }

    /// Everything that is sent for the route of this index.
    pub(crate) fn plan(&self, index: usize) -> Planned {
        let mut planned = Planned::default();
        let route = self.oracle.route(index);
        let examples = &self.oracle.examples[index];
        if matches!(route.access, Access::Public { .. }) {
            self.around(index, examples, &mut planned);
            return planned;
        }
        if examples.is_empty() {
            let gap = "no request could be made up that reaches it";
            planned.gap(gap.to_owned());
        }
        for (name, forged) in self.kits[index].all().flatten() {
            if let Err(reason) = &**forged {
                planned.gap(format!("`{name}`: {reason}"));
            }
        }
        for gap in self.gaps.get(&index).into_iter().flatten() {
            planned.gap(gap.clone());
        }
        if self.quick {
            self.once(index, examples, &mut planned);
        } else {
            self.all(index, examples, &mut planned);
        }
        // Where somebody gets through, the route is no less proved for those who cannot.
        let passes =
            |probe: &Probe| matches!(probe.expect, Expect::Through(_) | Expect::Answered(_));
        if !planned.probes.iter().any(passes) {
            planned.gaps.append(&mut planned.shut);
        }
        planned
    }

    /// The full matrix.
    fn all(&self, index: usize, examples: &[Example], planned: &mut Planned) {
        for (number, example) in examples.iter().enumerate() {
            // Other paths of the same host and listener differ in nothing but the path.
            let first = examples[..number]
                .iter()
                .all(|other| (other.listener, &other.host) != (example.listener, &example.host));
            for protocol in self.protocols(example) {
                let Some(site) = self.site(index, example, protocol, planned) else { continue };
                let (own, others) = site.methods();
                for method in &own {
                    site.nothing(method, planned);
                    site.good(method, None, planned);
                    if first {
                        site.bad(method, |_| true, planned);
                    }
                }
                for method in &others {
                    site.nothing(method, planned);
                }
                for mutation in site.mutations(&own, &others) {
                    site.mutated(mutation, planned);
                }
            }
        }
    }

    /// Each kind of probe once; which variant of it, over which protocol and on which listener
    /// goes round with the routes.
    fn once(&self, index: usize, examples: &[Example], planned: &mut Planned) {
        let mut sites = Vec::new();
        for (number, example) in examples.iter().enumerate() {
            if examples[..number].iter().all(|other| other.listener != example.listener) {
                for protocol in self.protocols(example) {
                    sites.extend(self.site(index, example, protocol, planned));
                }
            }
        }
        let Some(first) = sites.first() else { return };
        let (own, others) = first.methods();
        let Some(method) = own.first() else { return };
        for site in &sites {
            site.nothing(method, planned);
        }
        let mut turn = index;
        let mut site = || {
            turn += 1;
            &sites[turn % sites.len()]
        };
        let entries = first.kit(method).count().max(1);
        let Turn { entry, number, of } = self.turns[index];
        let before = planned.probes.len();
        for turn in 0..entries {
            if planned.probes.len() == before {
                site().good(method, Some((index + turn) % entries), planned);
            }
        }
        for method in own.iter().skip(1).chain(&others) {
            if matches!(method.as_str(), "HEAD" | "OPTIONS" | "AUDIT") {
                site().nothing(method, planned);
            }
        }
        for (kind, variants) in first.kinds(method, entry) {
            for variant in turns((number, of), kind, variants) {
                site().bad_of(&own, entry, kind, variant, planned);
            }
        }
        for (kind, variants) in kinds(&first.mutations(&own, &others)) {
            for variant in turns(self.all_routes(index), kind, variants) {
                let site = site();
                let mut all = site.mutations(&own, &others);
                all.retain(|mutation| mutation.kind == kind);
                // What one version of HTTP cannot say is said in the other.
                let site =
                    sites.iter().find(|site| !site.cannot_say(&all[variant])).unwrap_or(site);
                site.mutated(all.swap_remove(variant), planned);
            }
        }
    }

    fn all_routes(&self, index: usize) -> (usize, usize) {
        (index, self.oracle.snapshot.routes.len())
    }

    /// Has the routes that take an entry of `auth` take turns at it.
    pub(crate) fn take_turns(&mut self) {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut named = Vec::with_capacity(self.kits.len());
        for (index, kit) in self.kits.iter().enumerate() {
            let made = kit.otherwise.iter().filter(|(_, forged)| forged.is_ok());
            let names: Vec<&str> = made.map(|(name, _)| name.as_str()).collect();
            let entry = index % names.len().max(1);
            let name = names.get(entry).copied().unwrap_or_default();
            let count = counts.entry(name).or_default();
            named.push((name, Turn { entry, number: *count, of: 0 }));
            *count += 1;
        }
        let turns = named.into_iter().map(|(name, turn)| Turn { of: counts[name], ..turn });
        self.turns = turns.collect();
    }

    /// What is nearly a public route's: everything that is not, and would be if the gateway read
    /// it in another way than the configuration does.
    fn around(&self, index: usize, examples: &[Example], planned: &mut Planned) {
        let from = planned.probes.len();
        for (number, example) in examples.iter().enumerate() {
            let again = examples[..number].iter().any(|other| other.listener == example.listener);
            let protocols = self.protocols(example);
            for (at, protocol) in protocols.iter().enumerate() {
                if self.quick && (again || at != index % protocols.len()) {
                    continue;
                }
                let Some(site) = self.site(index, example, *protocol, planned) else { continue };
                let (own, others) = site.methods();
                for method in &others {
                    site.nothing(method, planned);
                }
                let all = site.mutations(&own, &others);
                if !self.quick {
                    all.into_iter().for_each(|mutation| site.mutated(mutation, planned));
                    continue;
                }
                for (kind, _) in kinds(&all) {
                    // What is public by any reading is nobody's loss, and nothing to be tried.
                    let open = |mutation: &&mutate::Mutation| {
                        mutation.kind == kind
                            && !site.cannot_say(mutation)
                            && !matches!(site.expect(&mutation.draft), Expect::Open)
                    };
                    let some: Vec<_> = all.iter().filter(open).collect();
                    for variant in turns(self.all_routes(index), kind, some.len()) {
                        site.mutated(some[variant].clone(), planned);
                    }
                }
            }
        }
        let kept: Vec<Probe> = planned.probes.drain(from..).collect();
        let kept = kept.into_iter().filter(|probe| !matches!(probe.expect, Expect::Open));
        planned.probes.extend(kept);
    }

    /// A request that reaches the route of this index, with a credential.
    pub(crate) fn request(&self, index: usize, credential: &Credential) -> Option<(Lane, Draft)> {
        let example = self.oracle.examples[index].first()?;
        let site = self.site(index, example, Protocol::H1, &mut Planned::default())?;
        let (lane, draft, _) = site.present(&site.base.method, credential);
        Some((lane, draft))
    }

    fn protocols(&self, example: &Example) -> Vec<Protocol> {
        let facts = &self.listeners[usize::from(example.listener)];
        Protocol::ALL.into_iter().filter(|one| *one == Protocol::H1 || facts.http2).collect()
    }

    fn site<'a>(
        &'a self,
        index: usize,
        example: &Example,
        protocol: Protocol,
        planned: &mut Planned,
    ) -> Option<Site<'a>> {
        let facts = &self.listeners[usize::from(example.listener)];
        let base = Draft {
            method: example.method.clone(),
            authority: example.host.clone(),
            target: example.target(),
            https: facts.https,
            fields: example.headers.clone(),
            ..Draft::default()
        };
        let mut lane = Lane {
            listener: example.listener,
            protocol,
            peer: self.peers[0],
            server_name: facts.https.then(|| example.host.clone()),
            certificate: facts.certificate,
        };
        let Some(peer) = self.oracle.peer(&base, &lane, &self.peers) else {
            let gap = "no client address is known that its address lists let through";
            planned.gap(gap.to_owned());
            return None;
        };
        lane.peer = peer;
        // Where a certificate is a credential, nothing is presented without any.
        let counts = self.kits[index].all().flatten().any(|(_, forged)| {
            let forged = (**forged).as_ref();
            forged.is_ok_and(|forged| !forged.good.by_listener.is_empty())
        });
        if counts {
            lane.certificate = None;
        }
        let mut site = Site { planner: self, index, base, lane, answers: None };
        site.answers = site.own_answer();
        Some(site)
    }
}

/// Which of so many variants of a probe are sent for one of several routes: one, or as many as it
/// takes for all of them together to send each.
fn turns((number, of): (usize, usize), kind: &str, variants: usize) -> Vec<usize> {
    let least = SEVERAL.iter().find(|(name, _)| *name == kind).map_or(1, |(_, least)| *least);
    let each = variants.div_ceil(of.max(1)).max(least);
    (0..each).map(|turn| (number * each + turn) % variants.max(1)).take(variants).collect()
}

/// The path with the audit's tenant for its segment of this name, if it fits the template.
fn named(template: &str, param: &str, path: &str) -> Option<String> {
    let (written, mut segments) = (template.split('/'), path.split('/').collect::<Vec<_>>());
    let mut at = None;
    for (number, part) in written.enumerate() {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            _ if part == "**" => break,
            Some(name) if name == param => at = Some(number),
            Some(_) => {}
            None if segments.get(number) == Some(&part) => {}
            None => return None,
        }
    }
    *segments.get_mut(at?)? = TENANT;
    Some(segments.join("/"))
}

/// The kinds of some mutations, and how many of each there are.
fn kinds(all: &[mutate::Mutation]) -> BTreeMap<&'static str, usize> {
    let mut kinds = BTreeMap::new();
    for mutation in all {
        *kinds.entry(mutation.kind).or_default() += 1;
    }
    kinds
}
