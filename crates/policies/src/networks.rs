//! Lists of client addresses and networks, as several policies take them.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_core::decode::Spanned;
use portcullis_core::finding::Finding;
use portcullis_core::registry::{Compile, Site};

/// Disjoint ranges in order: a lookup is a binary search, however long the list.
#[derive(Debug)]
pub(crate) struct Networks(Vec<(u128, u128)>);

impl Networks {
    /// What stands under the key `name` of a policy; `None` after a finding at its place.
    pub(crate) fn compile(
        name: &str,
        list: &[Spanned<String>],
        site: &Site<'_>,
        with: &mut Compile<'_>,
    ) -> Option<Self> {
        let before = with.findings.errors();
        let mut ranges = Vec::with_capacity(list.len());
        for (index, text) in list.iter().enumerate() {
            match network(text) {
                Ok(net) => ranges.push(range(net)),
                Err(message) => {
                    let resource = format!("{}.{name}[{index}]", site.resource);
                    with.findings.push(Finding::error(
                        "invalid-value",
                        text.span,
                        resource,
                        message,
                    ));
                }
            }
        }
        (with.findings.errors() == before).then(|| Self::new(ranges))
    }

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

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = number(address);
        let after = self.0.partition_point(|(first, _)| *first <= address);
        after > 0 && address <= self.0[after - 1].1
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            let ranges = Networks::new(nets.iter().map(|net| range(*net)).collect());
            let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
            let probes = probes.into_iter().map(|b| IpAddr::from(std::net::Ipv4Addr::from_bits(b)));
            for address in edges.chain(probes) {
                let listed = nets.iter().any(|net| net.contains(&address));
                prop_assert_eq!(ranges.contains(address), listed);
            }
        }
    }
}
