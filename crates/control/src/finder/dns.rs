//! Endpoints by DNS: the addresses of a name, or its SRV records (RFC 2782).
//!
//! Both families of addresses have to be known for an answer. Where one of them cannot be had, its
//! addresses of the last time stand in for it: a name server that has lost half of a name must not
//! take half of a backend away. "There are none" is an answer, an error is none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use portcullis_snapshot::{Listed, Origin, Place, Scheme};

use super::source::{Listing, Source, SourceFuture};

/// For one question to one name server.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// Hosts that the SRV records of one name may name; those beyond are left out.
const HOSTS_MAX: usize = 256;

pub(super) struct Names {
    origin: Origin,
    /// The addresses of each name and family that were found last.
    last: HashMap<(String, RecordType), Vec<IpAddr>>,
}

/// Records and for how long they hold.
struct Answer<T> {
    records: Vec<T>,
    ttl: Option<Duration>,
}

impl Names {
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, last: HashMap::new() }
    }

    async fn ask(&mut self) -> Result<Listing, String> {
        let resolver = resolver(&self.origin.resolvers).map_err(|error| error.to_string())?;
        let (endpoints, ttl) = match self.origin.place.clone() {
            Place::Dns { scheme, name, port } => {
                let found = self.addresses(&resolver, &name).await?;
                let listed = |ip: &IpAddr| endpoint(scheme, *ip, port, &name);
                (found.records.iter().map(listed).collect(), found.ttl)
            }
            Place::Srv { scheme, name } => self.services(&resolver, scheme, &name).await?,
            Place::File { .. } => (Vec::new(), None),
        };
        let version = version(&endpoints);
        let held = ttl.unwrap_or(self.origin.ttl_min);
        let valid = held.clamp(self.origin.ttl_min, self.origin.ttl_max);
        Ok(Listing { endpoints, version, valid: Some(valid) })
    }

    /// Addresses of both families, sorted: the order of an answer says nothing.
    async fn addresses(
        &mut self,
        resolver: &TokioResolver,
        name: &str,
    ) -> Result<Answer<IpAddr>, String> {
        let ip = |data: &RData| data.ip_addr();
        let (v4, v6) = tokio::join!(
            self.look_up(resolver, name, RecordType::A, ip),
            self.look_up(resolver, name, RecordType::AAAA, ip)
        );
        let mut all = BTreeSet::new();
        let mut ttl: Option<Duration> = None;
        let mut failure = None;
        let mut answers = Vec::new();
        for (family, answer) in [(RecordType::A, v4), (RecordType::AAAA, v6)] {
            match answer {
                Ok(answer) => {
                    ttl = ttl.into_iter().chain(answer.ttl).min();
                    all.extend(answer.records.iter().copied());
                    answers.push((family, answer.records));
                }
                Err(error) => {
                    let last = self.last.get(&(name.to_owned(), family));
                    all.extend(last.into_iter().flatten().copied());
                    failure = Some(error);
                }
            }
        }
        let found = answers.iter().any(|(_, records)| !records.is_empty());
        if let Some(error) = failure.filter(|_| !found) {
            return Err(error);
        }
        for (family, records) in answers {
            self.last.insert((name.to_owned(), family), records);
        }
        Ok(Answer { records: all.into_iter().collect(), ttl })
    }

    /// Every address of every host, each with its record's weight and priority. A host that stands
    /// in for others and cannot be looked up is as it was, or left out: whoever is there to help
    /// must not do harm.
    async fn services(
        &mut self,
        resolver: &TokioResolver,
        scheme: Scheme,
        name: &str,
    ) -> Result<(Vec<Listed>, Option<Duration>), String> {
        let service = |data: &RData| match data {
            RData::SRV(service) => Some(service.clone()),
            _ => None,
        };
        let answer = self.look_up(resolver, name, RecordType::SRV, service).await?;
        let mut ttl = answer.ttl;
        let services = chosen(&answer.records);
        let best = services.first().map(|(_, service)| service.priority);
        let mut found: BTreeMap<(IpAddr, u16), Listed> = BTreeMap::new();
        let mut hosts: HashMap<&str, Vec<IpAddr>> = HashMap::new();
        for (host, service) in &services {
            if !hosts.contains_key(&**host) {
                let addresses = match self.addresses(resolver, host).await {
                    Ok(addresses) => addresses,
                    Err(error) if Some(service.priority) == best => return Err(error),
                    Err(_) => Answer { records: self.known(host), ttl: None },
                };
                ttl = ttl.into_iter().chain(addresses.ttl).min();
                hosts.insert(host, addresses.records);
            }
            for ip in &hosts[&**host] {
                let one = Listed {
                    // RFC 2782 gives a weight of 0 beside others a very small chance.
                    weight: u32::from(service.weight).max(1),
                    priority: service.priority,
                    ..endpoint(scheme, *ip, service.port, host)
                };
                found.entry((*ip, service.port)).or_insert(one);
            }
        }
        self.last.retain(|(known, _), _| known == name || hosts.contains_key(&**known));
        Ok((found.into_values().collect(), ttl))
    }

    /// The addresses of a name that were found last, of both families.
    fn known(&self, name: &str) -> Vec<IpAddr> {
        let families = [RecordType::A, RecordType::AAAA].into_iter();
        let last = families.filter_map(|family| self.last.get(&(name.to_owned(), family)));
        last.flatten().copied().collect()
    }

    /// Records of one type. None is an answer too.
    async fn look_up<T>(
        &self,
        resolver: &TokioResolver,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, String> {
        let mut complete = Name::from_ascii(name).map_err(|error| format!("{name}: {error}"))?;
        // Only the system knows by which domains it completes names.
        if !self.origin.resolvers.is_empty() {
            complete.set_fqdn(true);
        }
        match resolver.lookup(complete, kind).await {
            Ok(lookup) => {
                let answers = lookup.answers();
                let ttl = answers.iter().map(|record| record.ttl).min();
                let records = answers.iter().filter_map(|record| read(&record.data)).collect();
                Ok(Answer { records, ttl: ttl.map(|ttl| Duration::from_secs(ttl.into())) })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
            {
                Ok(Answer { records: Vec::new(), ttl: None })
            }
            Err(error) => Err(format!("{name} {kind}: {error}")),
        }
    }
}

impl Source for Names {
    fn list(&mut self) -> SourceFuture<'_, Result<Listing, String>> {
        Box::pin(self.ask())
    }
}

/// A new one each time: `/etc/resolv.conf` may have changed, and nothing is to be remembered.
fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        Resolver::builder_tokio()?
    } else {
        let servers = servers.iter().map(|server| {
            let mut ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            ways.iter_mut().for_each(|way| way.port = server.port());
            NameServerConfig::new(server.ip(), true, ways.into())
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        builder
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.cache_size = 0;
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    builder.build()
}

fn endpoint(scheme: Scheme, ip: IpAddr, port: u16, name: &str) -> Listed {
    let url = format!("{}://{}", scheme.name(), SocketAddr::new(ip, port));
    Listed { name: Some(name.into()), ..Listed::new(&url) }
}

/// The services that there are, each with its host, in an order that does not depend on that of the
/// answer: of too many hosts it has to leave out the same ones each time.
fn chosen(records: &[SRV]) -> Vec<(String, &SRV)> {
    // A root for a host says that there is no such service.
    let offered = records.iter().filter(|service| !service.target.is_root());
    let host = |service: &SRV| service.target.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let mut all: Vec<(String, &SRV)> = offered.map(|service| (host(service), service)).collect();
    all.sort_by_cached_key(|(host, service)| {
        (service.priority, host.clone(), service.port, service.weight)
    });
    let mut hosts = BTreeSet::new();
    all.retain(|(host, _)| {
        hosts.contains(host) || (hosts.len() < HOSTS_MAX && hosts.insert(host.clone()))
    });
    all
}

/// A short name for the answer's content.
fn version(endpoints: &[Listed]) -> String {
    let mut hasher = blake3::Hasher::new();
    for one in endpoints {
        let Listed { url, name, weight, priority, .. } = one;
        hasher.update(format!("{url} {name:?} {weight} {priority}\n").as_bytes());
    }
    hasher.finalize().to_hex()[..12].to_owned()
}

#[cfg(test)]
mod tests {
    use portcullis_testkit::NameServer;

    use super::*;

    fn names(server: &NameServer, place: Place) -> Names {
        Names::new(Origin {
            place,
            resolvers: vec![server.address],
            ttl_min: Duration::from_secs(5),
            ttl_max: Duration::from_secs(60),
            allow_empty: false,
        })
    }

    fn dns(server: &NameServer) -> Names {
        let name = "orders.internal".to_owned();
        names(server, Place::Dns { scheme: Scheme::Http, name, port: 8080 })
    }

    /// Endpoints with name, weight and priority, and for how long they hold.
    async fn found(names: &mut Names) -> Result<String, String> {
        let listing = names.list().await?;
        let one = |one: &Listed| {
            let name = one.name.as_deref().unwrap_or("-");
            format!("{} {name} {}/{}", one.url, one.weight, one.priority)
        };
        let all: Vec<String> = listing.endpoints.iter().map(one).collect();
        Ok(format!("{} for {:?}", all.join(", "), listing.valid.unwrap()))
    }

    #[tokio::test]
    async fn a_name_is_its_addresses_and_holds_for_as_long_as_it_may() {
        let server = NameServer::start().await;
        let mut names = dns(&server);
        for (ttl, holds) in [(30, "30s"), (0, "5s"), (86_400, "60s")] {
            server.addresses("orders.internal", ttl, &["10.0.0.2", "::2", "10.0.0.1"]);
            let expected = format!(
                "http://10.0.0.1:8080 orders.internal 1/0, \
                 http://10.0.0.2:8080 orders.internal 1/0, \
                 http://[::2]:8080 orders.internal 1/0 for {holds}"
            );
            assert_eq!(found(&mut names).await, Ok(expected));
        }
    }

    #[tokio::test]
    async fn none_is_an_answer_and_an_error_is_none() {
        let server = NameServer::start().await;
        let mut names = dns(&server);
        assert_eq!(found(&mut names).await, Ok(" for 5s".to_owned()));
        server.addresses("orders.internal", 9, &[]);
        assert_eq!(found(&mut names).await, Ok(" for 5s".to_owned()));
        for kind in [RecordType::A, RecordType::AAAA] {
            server.fails("orders.internal", kind);
        }
        let error = found(&mut names).await.unwrap_err();
        assert!(error.starts_with("orders.internal A"), "{error}");
    }

    #[tokio::test]
    async fn half_of_a_name_that_cannot_be_had_is_as_it_was() {
        let server = NameServer::start().await;
        let mut names = dns(&server);
        server.addresses("orders.internal", 9, &["10.0.0.1", "::1"]);
        let both = found(&mut names).await.unwrap();
        server.addresses("orders.internal", 9, &["10.0.0.1"]);
        server.fails("orders.internal", RecordType::AAAA);
        assert_eq!(found(&mut names).await, Ok(both));
        // What is left says nothing of the half that is not known.
        server.addresses("orders.internal", 9, &[]);
        server.fails("orders.internal", RecordType::AAAA);
        assert!(found(&mut names).await.is_err());
    }

    #[tokio::test]
    async fn services_have_hosts_ports_and_weights() {
        let server = NameServer::start().await;
        let place = || Place::Srv { scheme: Scheme::H2c, name: "_h._tcp.internal".to_owned() };
        let mut names = names(&server, place());
        server.addresses("a.internal", 40, &["10.0.0.1", "10.0.0.2"]);
        server.addresses("b.internal", 30, &["10.0.0.3"]);
        server.services(
            "_h._tcp.internal",
            50,
            &[
                (2, 9, 1, "c.internal"),
                (1, 7, 81, "a.internal"),
                (1, 0, 82, "b.internal"),
                (2, 8, 82, "b.internal"),
            ],
        );
        let first = "h2c://10.0.0.1:81 a.internal 7/1, h2c://10.0.0.2:81 a.internal 7/1, \
                     h2c://10.0.0.3:82 b.internal 1/1";
        // Who stands in for others is left out while he cannot be had, and then as he was.
        server.fails("c.internal", RecordType::A);
        server.fails("c.internal", RecordType::AAAA);
        let without = format!("{first} for 30s");
        assert_eq!(found(&mut names).await.as_ref(), Ok(&without));
        server.addresses("c.internal", 20, &["10.0.0.4"]);
        let all = |ttl: u32| format!("{first}, h2c://10.0.0.4:1 c.internal 9/2 for {ttl}s");
        assert_eq!(found(&mut names).await, Ok(all(20)));
        server.fails("c.internal", RecordType::A);
        server.fails("c.internal", RecordType::AAAA);
        assert_eq!(found(&mut names).await, Ok(all(30)));
        // Of the first there is no answer without all of them.
        server.fails("b.internal", RecordType::A);
        assert!(found(&mut names).await.is_err());
        server.services("_h._tcp.internal", 50, &[(0, 0, 0, ".")]);
        assert_eq!(found(&mut names).await.as_deref(), Ok(" for 50s"));
    }

    #[test]
    fn of_too_many_hosts_the_same_ones_are_left_out_whatever_the_order() {
        let record = |port: u16, host: usize| {
            SRV::new(1, 1, port, Name::from_ascii(format!("h{host:03}.internal.")).unwrap())
        };
        let mut records: Vec<SRV> = (0..300).map(|host| record(80, host)).collect();
        records.extend((1_000..2_000).map(|port| record(port, 0)));
        let ports = |records: &[SRV]| -> Vec<(String, u16)> {
            chosen(records).into_iter().map(|(host, service)| (host, service.port)).collect()
        };
        let first = ports(&records);
        assert_eq!(first.len(), HOSTS_MAX + 1_000);
        records.reverse();
        assert_eq!(ports(&records), first);
    }
}
