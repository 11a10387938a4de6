//! Which zone a gateway is in, and what is said where that does nothing.

use expect_test::{Expect, expect};

use crate::testing::{Files, compiled};

fn config(gateway: &str, backend: &str) -> String {
    format!(
        r#"
listeners: {{ http: {{ bind: "127.0.0.1:8080" }} }}
routes: {{ a: {{ match: /a, public: for a test, to: b }} }}
{gateway}
backends: {{ b: {backend} }}
"#
    )
}

fn env(name: &str, value: &str) -> Files {
    let mut files = Files::default();
    files.0.insert(format!("env:{name}"), value.as_bytes().to_vec());
    files
}

const TWO: &str = r#"{ endpoints: [{ url: "http://10.0.0.1", zone: eu-1a }, "http://10.0.0.2"], prefer_zone: true }"#;

#[track_caller]
fn says(text: &str, expected: &Expect) {
    expected.assert_eq(&compiled(text, &env("ZONE", " \n")).findings);
}

#[test]
fn a_zone_is_written_or_read_from_elsewhere() {
    for gateway in ["gateway: { zone: eu-1a }", "gateway: { zone: \"env:ZONE\", load: 20 }"] {
        let snapshot = compiled(&config(gateway, TWO), &env("ZONE", "eu-1a\n")).ok();
        let zone = snapshot.backends[0].endpoints.load().balancer.settings().zone.clone().unwrap();
        assert_eq!((&*zone.own, zone.load_max), ("eu-1a", 140));
        assert_eq!(zone.load, gateway.contains("load").then_some(20));
    }
    let more = TWO.replace("prefer_zone: true", "prefer_zone: { load_max: 200 }");
    let snapshot = compiled(&config("gateway: { zone: eu-1a }", &more), &Files::default()).ok();
    let set = snapshot.backends[0].endpoints.load();
    assert_eq!(set.balancer.settings().zone.as_ref().unwrap().load_max, 200);
}

#[test]
fn a_zone_that_nobody_knows() {
    says(
        &config("", TWO),
        &expect![[r#"
        warning[zone]: `b` prefers its own zone in vain: nothing says which zone this gateway is in
         --> gw.yaml:5:104
          |
        5 | backends: { b: { endpoints: [{ url: "http://10.0.0.1", zone: eu-1a }, "http://10.0.0.2"], prefer_zone: true } }
          |                                                                                                        ^^^^ in backends.b.prefer_zone
          |
          = help: say `gateway: { zone: NAME }`, or `env:NAME` to take it from there

    "#]],
    );
    says(
        &config("gateway: { zone: \"env:ZONE\" }", TWO),
        &expect![[r#"
        error[zone]: `env:ZONE` is not the name of a zone
         --> gw.yaml:4:18
          |
        4 | gateway: { zone: "env:ZONE" }
          |                  ^^^^^^^^^^ in gateway.zone
          |
          = help: one has 1 to 64 bytes

    "#]],
    );
    says(
        &config("gateway: { zone: eu1a }", TWO),
        &expect![[r#"
        warning[zone]: `b` prefers its own zone in vain: none of its endpoints is in the zone `eu1a` of this gateway
         --> gw.yaml:5:104
          |
        5 | backends: { b: { endpoints: [{ url: "http://10.0.0.1", zone: eu-1a }, "http://10.0.0.2"], prefer_zone: true } }
          |                                                                                                        ^^^^ in backends.b.prefer_zone
          |
          = help: did you mean `eu-1a`?

    "#]],
    );
}

#[test]
fn what_dns_finds_is_in_no_zone() {
    let dns = r#"{ discover: { dns: "http://orders.internal" }, prefer_zone: true }"#;
    says(
        &config("gateway: { zone: a }", dns),
        &expect![[r#"
        warning[zone]: `b` prefers its own zone in vain: what DNS finds is in no zone
         --> gw.yaml:5:76
          |
        5 | backends: { b: { discover: { dns: "http://orders.internal" }, prefer_zone: true } }
          |                                                                            ^^^^ in backends.b.prefer_zone
          |
          = help: a file of endpoints can say zones

    "#]],
    );
    let file = r#"{ discover: { file: endpoints.yaml }, prefer_zone: true }"#;
    says(&config("gateway: { zone: a }", file), &expect![[r#""#]]);
}
