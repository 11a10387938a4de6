//! Lets client addresses through by lists.

use std::sync::Arc;

use portcullis_core::decode::Spanned;
use portcullis_core::registry::{Compile, PolicyConfig, Site};
use portcullis_core::{Exchange, Phase, Policy, Problem, Services, Step, codes};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::networks::Networks;

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
        let allow = self.allow.map(|list| Networks::compile("allow", &list, site, with));
        let deny = Networks::compile("deny", &self.deny.unwrap_or_default(), site, with);
        let allow = match allow {
            Some(list) => Some(list?),
            None => None,
        };
        Some(Arc::new(Compiled { allow, deny: deny? }))
    }
}

#[derive(Debug)]
struct Compiled {
    allow: Option<Networks>,
    deny: Networks,
}

impl Policy for Compiled {
    fn phase(&self) -> Phase {
        Phase::Screen
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        let address = exchange.client_ip;
        let listed = self.allow.as_ref().is_none_or(|allow| allow.contains(address));
        if listed && !self.deny.contains(address) {
            return Step::Continue;
        }
        Step::Refuse(Problem::new(codes::ADDRESS_NOT_ALLOWED).detail(address.to_canonical()))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

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
}
