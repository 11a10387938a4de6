use std::fmt::Write as _;

use expect_test::{Expect, expect};

use crate::snapshot::{Access, Snapshot};
use crate::testing::{Compiled, Files, compiled, compiled_after};

mod canaries;
mod client_certificates;
mod credentials;
mod findings;
mod lint;
mod material;
mod mirrors;
mod own_paths;
mod protocols;
mod sockets;
mod subsets;
mod zones;

/// The whole snapshot, as far as it is data.
fn dump(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for listener in &snapshot.listeners {
        writeln!(
            out,
            "listener {} {}{}{}",
            listener.name,
            listener.bind,
            if listener.tls.is_some() { " tls" } else { "" },
            listener
                .redirect
                .as_ref()
                .map_or(String::new(), |to| format!(" redirect {}:{}", to.listener, to.port)),
        )
        .unwrap();
    }
    for backend in &snapshot.backends {
        writeln!(
            out,
            "backend {} {:?} host {:?}{}{}",
            backend.name,
            backend.endpoints.shape().settings.algorithm,
            backend.host,
            if backend.tls.is_some() { " tls" } else { "" },
            backend
                .health
                .as_ref()
                .map_or(String::new(), |probe| format!(" probe {:?}", probe.question)),
        )
        .unwrap();
        let set = backend.endpoints.load();
        for (endpoint, member) in set.addresses.iter().zip(set.balancer.members()) {
            let name = endpoint.server_name.as_ref().map(|name| name.to_str().into_owned());
            let name = name.map_or(String::new(), |name| format!(" as {name}"));
            writeln!(
                out,
                "  {} {} weight {}{name}",
                endpoint.url, endpoint.authority, member.weight
            )
            .unwrap();
        }
    }
    for route in &snapshot.routes {
        let access = match &route.access {
            Access::Authenticated { auth, scopes } => format!("auth {auth:?} {scopes:?}"),
            Access::Optional { auth, reason } => format!("optional {auth:?} because {reason}"),
            Access::Public { reason } => format!("public because {reason}"),
        };
        writeln!(out, "route {} on {:?} {access}", route.name, route.listeners).unwrap();
        for one in &route.matches {
            writeln!(out, "  match {one}").unwrap();
        }
        for placed in &route.policies {
            writeln!(out, "  {}: {} {:?}", placed.phase.name(), placed.name, placed.policy)
                .unwrap();
        }
        let to = route.to.iter().flat_map(|targets| &targets.variants);
        for variant in to {
            let name = &snapshot.backends[usize::from(variant.backend)].name;
            writeln!(out, "  to {name} {}", variant.weight).unwrap();
        }
        writeln!(
            out,
            "  response {:?} total {:?} body {} {:?}{}",
            route.timeouts.response,
            route.timeouts.total,
            route.body_bytes_max,
            route.request_body,
            if route.forward_credential { " forwards credential" } else { "" },
        )
        .unwrap();
    }
    out
}

fn check(text: &str, expected: &Expect) {
    expected.assert_eq(&dump(&compiled(text, &Files::default()).ok()));
}

#[test]
fn what_is_written_short_is_complete_when_compiled() {
    check(
        r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth: { idp: { token: { header: x-token } } }
defaults: { auth: idp }
routes:
  orders: { match: api.example.com/orders/**, to: { v1: 90, v2: 10 } }
  status: { match: /status, public: a probe, respond: { status: 200 } }
  old: { match: { path: [/old, "/older/{id}"], methods: GET, headers: { x-v: "1" } }, deny: gone for good }
backends:
  v1: { endpoints: ["http://10.0.0.1:8080", { url: "http://[::1]", weight: 3 }], health: /healthz, host: backend }
  v2: { endpoints: ["http://v2.internal"], balance: round_robin, host: "v2.example.com" }
"#,
        &expect![[r#"
            listener http 127.0.0.1:8080
            backend v1 LeastRequests host Endpoint probe Http { path: "/healthz", host: None, statuses: [(200, 299)], contains: None }
              http://10.0.0.1:8080 10.0.0.1:8080 weight 1
              http://[::1]:80 [::1] weight 3
            backend v2 RoundRobin host Name("v2.example.com")
              http://v2.internal:80 v2.internal weight 1
            route orders on [0] auth ["idp"] []
              match api.example.com/orders/**
              authenticate: auth Authenticate { any_of: [NamedAuthenticator { name: "idp", authenticator: Tokens { auth: "idp", header: "x-token", parameter: "token", challenge: "Token realm=\"idp\"", remote: false } }], optional: false, forward_credential: false, challenge: "Token realm=\"idp\"", owned: [], secret: ["token"] }
              to v1 90
              to v2 10
              response Some(15s) total None body 10485760 Untouched
            route status on [0] public because a probe
              match */status
              forward: respond Respond { status: 200, body: "" }
              response Some(15s) total None body 10485760 Untouched
            route old on [0] auth ["idp"] []
              match GET */old [header x-v: 1]
              match GET */older/{id} [header x-v: 1]
              authenticate: auth Authenticate { any_of: [NamedAuthenticator { name: "idp", authenticator: Tokens { auth: "idp", header: "x-token", parameter: "token", challenge: "Token realm=\"idp\"", remote: false } }], optional: false, forward_credential: false, challenge: "Token realm=\"idp\"", owned: [], secret: ["token"] }
              forward: deny Deny("gone for good")
              response Some(15s) total None body 10485760 Untouched
        "#]],
    );
}

#[test]
fn routes_inherit_from_their_group_and_from_defaults() {
    check(
        r#"
listeners:
  a: { bind: "127.0.0.1:8080" }
  b: { bind: "127.0.0.1:8081" }
auth:
  idp: { token: { header: x-token } }
  keys: { token: { header: x-key } }
defaults:
  on: a
  auth: [idp, keys]
  require: { scopes: [base] }
  limits: ["1000/s per ip", "9/s per route", "5/s per client"]
  timeout: { response: 3s, total: 60s }
  ip_filter: { deny: 1.1.1.1 }
  stamp: everybody
  body_max: 1KiB
groups:
  shop:
    match: shop.example.com/shop/**
    on: [b, a]
    require: { scopes: [shop] }
    limits: ["100/s"]
    timeout: 4s
    ip_filter: { deny: 2.2.2.2 }
    stamp: shop
    routes:
      plain: { match: /plain, to: one }
      own:
        match: "/own/{id}/**"
        auth: keys
        require: { scopes: [own, base] }
        limits: { replace: it has its own, use: ["7/s"] }
        timeout: { total: off }
        stamp: own
        ip_filter: { deny: 3.3.3.3 }
        whole: 100
        body_max: 2KiB
        forward_credential: true
        to: one
      open: { match: /open, public: everybody may, to: one }
      maybe: { match: /maybe, auth: { optional: idp, reason: better with }, to: one }
routes:
  outside: { match: /outside, to: one }
backends: { one: "http://10.0.0.1" }
"#,
        &expect![[r#"
            listener a 127.0.0.1:8080
            listener b 127.0.0.1:8081
            backend one LeastRequests host Preserve
              http://10.0.0.1:80 10.0.0.1 weight 1
            route outside on [0] auth ["idp", "keys"] ["base"]
              match */outside
              screen: ip_filter IpFilter { deny: "1.1.1.1" }
              admit early: limits Limited { spec: LimitSpec { count: 1000, per: 1s, algorithm: Window }, early: true, what: "1000/s per ip of defaults" }
              admit early: limits Limited { spec: LimitSpec { count: 9, per: 1s, algorithm: Window }, early: true, what: "9/s per route of outside" }
              authenticate: auth Authenticate { any_of: [NamedAuthenticator { name: "idp", authenticator: Tokens { auth: "idp", header: "x-token", parameter: "token", challenge: "Token realm=\"idp\"", remote: false } }, NamedAuthenticator { name: "keys", authenticator: Tokens { auth: "keys", header: "x-key", parameter: "token", challenge: "Token realm=\"keys\"", remote: false } }], optional: false, forward_credential: false, challenge: "Token realm=\"idp\", Token realm=\"keys\"", owned: [], secret: ["token", "token"] }
              authorise: require Require { layers: [Layer { at: "defaults.require", rules: [Rule { at: "defaults.require", methods: [], scopes: ["base"], conditions: [] }] }] }
              admit: limits Limited { spec: LimitSpec { count: 5, per: 1s, algorithm: Window }, early: false, what: "5/s per client of defaults" }
              transform: stamp Stamped("defaults:everybody")
              to one 100
              response Some(3s) total Some(60s) body 1024 Untouched
            route shop/plain on [1, 0] auth ["idp", "keys"] ["base", "shop"]
              match shop.example.com/shop/plain
              screen: ip_filter IpFilter { deny: "1.1.1.1" }
              screen: ip_filter IpFilter { deny: "2.2.2.2" }
              admit early: limits Limited { spec: LimitSpec { count: 1000, per: 1s, algorithm: Window }, early: true, what: "1000/s per ip of defaults" }
              admit early: limits Limited { spec: LimitSpec { count: 9, per: 1s, algorithm: Window }, early: true, what: "9/s per route of shop/plain" }
              admit early: limits Limited { spec: LimitSpec { count: 100, per: 1s, algorithm: Window }, early: true, what: "100/s of shop" }
              authenticate: auth Authenticate { any_of: [NamedAuthenticator { name: "idp", authenticator: Tokens { auth: "idp", header: "x-token", parameter: "token", challenge: "Token realm=\"idp\"", remote: false } }, NamedAuthenticator { name: "keys", authenticator: Tokens { auth: "keys", header: "x-key", parameter: "token", challenge: "Token realm=\"keys\"", remote: false } }], optional: false, forward_credential: false, challenge: "Token realm=\"idp\", Token realm=\"keys\"", owned: [], secret: ["token", "token"] }
              authorise: require Require { layers: [Layer { at: "defaults.require", rules: [Rule { at: "defaults.require", methods: [], scopes: ["base"], conditions: [] }] }, Layer { at: "groups.shop.require", rules: [Rule { at: "groups.shop.require", methods: [], scopes: ["shop"], conditions: [] }] }] }
              admit: limits Limited { spec: LimitSpec { count: 5, per: 1s, algorithm: Window }, early: false, what: "5/s per client of defaults" }
              transform: stamp Stamped("shop:shop")
              to one 100
              response Some(4s) total Some(60s) body 1024 Untouched
            route shop/own on [1, 0] auth ["keys"] ["base", "shop", "own"]
              match shop.example.com/shop/own/{id}/**
              screen: ip_filter IpFilter { deny: "1.1.1.1" }
              screen: ip_filter IpFilter { deny: "2.2.2.2" }
              screen: ip_filter IpFilter { deny: "3.3.3.3" }
              admit early: limits Limited { spec: LimitSpec { count: 7, per: 1s, algorithm: Window }, early: true, what: "7/s of shop/own" }
              authenticate: auth Authenticate { any_of: [NamedAuthenticator { name: "keys", authenticator: Tokens { auth: "keys", header: "x-key", parameter: "token", challenge: "Token realm=\"keys\"", remote: false } }], optional: false, forward_credential: true, challenge: "Token realm=\"keys\"", owned: [], secret: ["token"] }
              authorise: require Require { layers: [Layer { at: "defaults.require", rules: [Rule { at: "defaults.require", methods: [], scopes: ["base"], conditions: [] }] }, Layer { at: "groups.shop.require", rules: [Rule { at: "groups.shop.require", methods: [], scopes: ["shop"], conditions: [] }] }, Layer { at: "groups.shop.routes.own.require", rules: [Rule { at: "groups.shop.routes.own.require", methods: [], scopes: ["own", "base"], conditions: [] }] }] }
              validate: whole Whole(100)
              transform: stamp Stamped("shop/own:own")
              to one 100
              response Some(4s) total None body 2048 Buffered { bytes_max: 100 } forwards credential
            route shop/open on [1, 0] public because everybody may
              match shop.example.com/shop/open
              screen: ip_filter IpFilter { deny: "1.1.1.1" }
              screen: ip_filter IpFilter { deny: "2.2.2.2" }
              admit early: limits Limited { spec: LimitSpec { count: 1000, per: 1s, algorithm: Window }, early: true, what: "1000/s per ip of defaults" }
              admit early: limits Limited { spec: LimitSpec { count: 9, per: 1s, algorithm: Window }, early: true, what: "9/s per route of shop/open" }
              admit early: limits Limited { spec: LimitSpec { count: 100, per: 1s, algorithm: Window }, early: true, what: "100/s of shop" }
              admit: limits Limited { spec: LimitSpec { count: 5, per: 1s, algorithm: Window }, early: false, what: "5/s per client of defaults" }
              transform: stamp Stamped("shop:shop")
              to one 100
              response Some(4s) total Some(60s) body 1024 Untouched
            route shop/maybe on [1, 0] optional ["idp"] because better with
              match shop.example.com/shop/maybe
              screen: ip_filter IpFilter { deny: "1.1.1.1" }
              screen: ip_filter IpFilter { deny: "2.2.2.2" }
              admit early: limits Limited { spec: LimitSpec { count: 1000, per: 1s, algorithm: Window }, early: true, what: "1000/s per ip of defaults" }
              admit early: limits Limited { spec: LimitSpec { count: 9, per: 1s, algorithm: Window }, early: true, what: "9/s per route of shop/maybe" }
              admit early: limits Limited { spec: LimitSpec { count: 100, per: 1s, algorithm: Window }, early: true, what: "100/s of shop" }
              authenticate: auth Authenticate { any_of: [NamedAuthenticator { name: "idp", authenticator: Tokens { auth: "idp", header: "x-token", parameter: "token", challenge: "Token realm=\"idp\"", remote: false } }], optional: true, forward_credential: false, challenge: "Token realm=\"idp\"", owned: [], secret: ["token"] }
              authorise: require Require { layers: [Layer { at: "defaults.require", rules: [Rule { at: "defaults.require", methods: [], scopes: ["base"], conditions: [] }] }, Layer { at: "groups.shop.require", rules: [Rule { at: "groups.shop.require", methods: [], scopes: ["shop"], conditions: [] }] }] }
              admit: limits Limited { spec: LimitSpec { count: 5, per: 1s, algorithm: Window }, early: false, what: "5/s per client of defaults" }
              transform: stamp Stamped("shop:shop")
              to one 100
              response Some(4s) total Some(60s) body 1024 Untouched
        "#]],
    );
}

#[test]
fn routes_that_ask_for_the_same_share_policies() {
    let snapshot = compiled(
        r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth: { idp: { token: { header: x-token } } }
defaults: { auth: idp, limits: ["9/s"], ip_filter: { deny: 1.1.1.1 } }
routes:
  a: { match: /a, to: one }
  b: { match: /b, to: one }
  c: { match: /c, to: one, forward_credential: true }
backends: { one: "http://10.0.0.1" }
"#,
        &Files::default(),
    )
    .ok();
    let names: Vec<_> = snapshot.policies().iter().map(|p| p.phase().name()).collect();
    assert_eq!(names, ["screen", "admit early", "authenticate", "authenticate"]);
}

#[test]
fn state_is_carried_to_the_next_snapshot() {
    let text = |path: &str| {
        format!(
            r#"
listeners: {{ http: {{ bind: "127.0.0.1:8080" }} }}
routes: {{ a: {{ match: "{path}", public: for a test, to: one }} }}
backends: {{ one: "http://10.0.0.1" }}
"#
        )
    };
    let Compiled { snapshot, carry, .. } = compiled(&text("/a"), &Files::default());
    let first = snapshot.unwrap();
    let second =
        compiled_after(&text("/b"), &Files::default(), carry.next_generation()).snapshot.unwrap();
    let endpoint = |snapshot: &Snapshot| {
        std::sync::Arc::as_ptr(
            &snapshot.backends[0].endpoints.load().balancer.members()[0].endpoint,
        )
    };
    assert_eq!(endpoint(&first), endpoint(&second));
    assert_ne!(first.version.hash, second.version.hash);
    let again = compiled(&format!("# a comment\n{}", text("/a")), &Files::default()).ok();
    assert_eq!(first.version, again.version);
}
