//! Lets client addresses through by lists.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::registry::{Compile, PolicyConfig, Site};
use portcullis_core::{Exchange, Phase, Policy, Problem, Services, Step, codes};
use schemars::JsonSchema;
use serde::Deserialize;

/// Lets only some client addresses through; everybody else gets `403 address-not-allowed`.
///
/// The address is the peer's, or the one that trusted hops report. It is looked at before
/// authentication and in addition to it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IpFilter {
    /// Addresses and networks (`192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`) that may pass.
    /// Default: all. An IPv4 address written as IPv6 (`::ffff:192.0.2.7`) is that IPv4 address.
    #[serde(default)]
    #[schemars(length(min = 1))]
    allow: Option<Vec<Spanned<String>>>,
    /// Addresses and networks that may not, also where `allow` has them. Default: none.
    #[serde(default)]
    #[schemars(length(min = 1))]
    deny: Option<Vec<Spanned<String>>>,
}

impl PolicyConfig for IpFilter {
    const NAME: &'static str = "ip_filter";
    const EXAMPLE: &'static str =
        r#"{ allow: ["192.0.2.0/24", "2001:db8::/32"], deny: ["192.0.2.13"] }"#;

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
        if self.allow.is_none() && self.deny.is_none() {
            let message = "an `allow` or a `deny` is needed";
            with.findings.error("missing-key", site.span, site.resource, message);
            return None;
        }
        let allow = self.allow.map(|list| compile_list("allow", &list, site, with));
        let deny = compile_list("deny", &self.deny.unwrap_or_default(), site, with);
        let allow = match allow {
            Some(list) => Some(list?),
            None => None,
        };
        Some(Arc::new(Compiled { allow, deny: deny? }))
    }
}

fn compile_list(
    name: &str,
    list: &[Spanned<String>],
    site: &Site<'_>,
    with: &mut Compile<'_>,
) -> Option<Ranges> {
    let before = with.findings.errors();
    let mut ranges = Vec::with_capacity(list.len());
    for (index, text) in list.iter().enumerate() {
        match network(text) {
            Ok(net) => ranges.push(range(net)),
            Err(message) => {
                let resource = format!("{}.{name}[{index}]", site.resource);
                with.findings.push(Finding::error("invalid-value", text.span, resource, message));
            }
        }
    }
    (with.findings.errors() == before).then(|| Ranges::new(ranges))
}

fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let net: IpNet = text.parse().map_err(|_| format!("`{text}` is no address or network"))?;
    if net.addr() != net.network() {
        return Err(format!("`{text}` has bits beyond its length: write `{}`", net.trunc()));
    }
    // ::ffff:0:0/96 is all of IPv4.
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
            let address = v6.addr().to_canonical();
            IpNet::new(address, v6.prefix_len() - 96).map_err(|error| error.to_string())
        }
        net => Ok(net),
    }
}

/// IPv4 lives where its mapped form is, so that both families share one order.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn range(net: IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

/// Disjoint ranges in order: a lookup is a binary search, however long the list.
#[derive(Debug)]
struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    fn new(mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    fn contains(&self, address: u128) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= address);
        after > 0 && address <= self.0[after - 1].1
    }
}

#[derive(Debug)]
struct Compiled {
    allow: Option<Ranges>,
    deny: Ranges,
}

impl Policy for Compiled {
    fn phase(&self) -> Phase {
        Phase::Screen
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        let address = number(exchange.client_ip);
        let listed = self.allow.as_ref().is_none_or(|allow| allow.contains(address));
        if listed && !self.deny.contains(address) {
            return Step::Continue;
        }
        let address = Ipv6Addr::from_bits(address).to_canonical();
        Step::Refuse(Problem::new(codes::ADDRESS_NOT_ALLOWED).detail(address))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{check, check_many};

    #[test]
    fn deny_wins_over_allow() {
        check_many(
            "ip_filter",
            IpFilter::EXAMPLE,
            &[
                "192.0.2.7 GET /",
                "192.0.2.13 GET /",
                "192.0.3.7 GET /",
                "::ffff:192.0.2.7 GET /",
                "::ffff:192.0.2.13 GET /",
                "2001:db8:ffff::1 GET /",
                "2001:db9::1 GET /",
            ],
            &expect![[r#"
                continue
                403 address-not-allowed | 192.0.2.13
                403 address-not-allowed | 192.0.3.7
                continue
                403 address-not-allowed | 192.0.2.13
                continue
                403 address-not-allowed | 2001:db9::1"#]],
        );
    }

    #[test]
    fn without_allow_everybody_else_may() {
        check_many(
            "ip_filter",
            r#"{ deny: ["::ffff:10.0.0.0/104"] }"#,
            &["10.1.2.3 GET /", "11.1.2.3 GET /", "2001:db8::1 GET /"],
            &expect![[r#"
                403 address-not-allowed | 10.1.2.3
                continue
                continue"#]],
        );
    }

    #[test]
    fn what_is_no_network_does_not_compile() {
        check(
            "ip_filter",
            r#"{ allow: ["192.0.2.1/24", "192.0.2.256", "a.example"] }"#,
            "192.0.2.7 GET /",
            &expect![[r#"
                error invalid-value at ip_filter.allow[0]: `192.0.2.1/24` has bits beyond its length: write `192.0.2.0/24`
                error invalid-value at ip_filter.allow[1]: `192.0.2.256` is no address or network
                error invalid-value at ip_filter.allow[2]: `a.example` is no address or network"#]],
        );
        let want = expect!["error missing-key at ip_filter: an `allow` or a `deny` is needed"];
        check("ip_filter", "{}", "192.0.2.7 GET /", &want);
        let want = expect!["error out-of-range at ip_filter.allow: needs at least 1 item"];
        check("ip_filter", "{ allow: [] }", "192.0.2.7 GET /", &want);
    }

    proptest! {
        #[test]
        fn merging_changes_nothing(
            nets in prop::collection::vec((any::<u32>(), 0..=32_u8), 0..20),
            probes in prop::collection::vec(any::<u32>(), 20),
        ) {
            let nets: Vec<IpNet> = nets
                .into_iter()
                .map(|(bits, len)| IpNet::new(std::net::Ipv4Addr::from_bits(bits).into(), len))
                .map(|net| net.unwrap().trunc())
                .collect();
            let ranges = Ranges::new(nets.iter().map(|net| range(*net)).collect());
            let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
            let probes = probes.into_iter().map(|b| IpAddr::from(std::net::Ipv4Addr::from_bits(b)));
            for address in edges.chain(probes) {
                let listed = nets.iter().any(|net| net.contains(&address));
                prop_assert_eq!(ranges.contains(number(address)), listed);
            }
        }
    }
}
