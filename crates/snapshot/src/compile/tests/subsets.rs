//! Which endpoints a variant keeps to, and what is said where there are none.

use expect_test::{Expect, expect};

use crate::testing::{Files, compiled};

fn config(to: &str, backend: &str) -> String {
    format!(
        r#"
listeners: {{ http: {{ bind: "127.0.0.1:8080" }} }}
routes:
  one: {{ match: /one, public: for a test, to: {to} }}
  two: {{ match: /two, public: for a test, to: {{ b: {{ weight: 1, subset: {{ labels: {{ v: "1" }} }} }} }} }}
backends: {{ b: {backend} }}
"#
    )
}

const LABELLED: &str = r#"{ endpoints: [{ url: "http://10.0.0.1", labels: { v: "1" } }, { url: "http://10.0.0.2", labels: { v: "2", x: y } }] }"#;

#[track_caller]
fn says(text: &str, expected: &Expect) {
    expected.assert_eq(&compiled(text, &Files::default()).findings);
}

#[test]
fn the_same_subset_has_one_number_wherever_it_is_written() {
    let to = r#"{ s: { backend: b, weight: 1, subset: { labels: { x: y, v: "2" }, empty: any } }, t: { backend: b, subset: { labels: { v: "1" } } }, u: { backend: b } }"#;
    let snapshot = compiled(&config(to, LABELLED), &Files::default()).ok();
    let numbers = snapshot.routes.iter().flat_map(|route| &route.to.as_ref().unwrap().variants);
    let numbers: Vec<_> = numbers.map(|variant| variant.subset).collect();
    assert_eq!(numbers, [Some(0), Some(1), None, Some(1)]);
    let set = snapshot.backends[0].endpoints.load();
    let subsets = set.balancer.subsets(std::time::Duration::from_secs(1));
    let told: Vec<_> =
        subsets.map(|(terms, now)| (terms.to_string(), terms.or_any, now.usable)).collect();
    assert_eq!(told, [("v=2,x=y".to_owned(), true, 1), ("v=1".to_owned(), false, 1)]);
}

#[test]
fn a_subset_that_is_empty_from_the_start() {
    let to = r#"{ b: { weight: 1, subset: { labels: { v: "3" } } } }"#;
    says(
        &config(to, LABELLED),
        &expect![[r#"
        warning[empty-subset]: the subset v=3 of `b` is empty: no endpoint has these labels
         --> gw.yaml:4:73
          |
        4 |   one: { match: /one, public: for a test, to: { b: { weight: 1, subset: { labels: { v: "3" } } } } }
          |                                                                         ^^^^^^^^^^^^^^^^^^^^^^ in routes.one.to
        5 |   two: { match: /two, public: for a test, to: { b: { weight: 1, subset: { labels: { v: "1" } } } } }
        6 | backends: { b: { endpoints: [{ url: "http://10.0.0.1", labels: { v: "1" } }, { url: "http://10.0.0.2", labels: { v: "2", x: y } }] } }
          |             - this backend
          |
          = help: say `labels` of endpoints

    "#]],
    );
}

#[test]
fn what_dns_finds_has_no_labels() {
    let dns = r#"{ discover: { dns: "http://orders.internal" } }"#;
    says(
        &config("b", dns),
        &expect![[r#"
        warning[empty-subset]: the subset v=1 of `b` is empty: what DNS finds has no labels
         --> gw.yaml:5:73
          |
        5 |   two: { match: /two, public: for a test, to: { b: { weight: 1, subset: { labels: { v: "1" } } } } }
          |                                                                         ^^^^^^^^^^^^^^^^^^^^^^ in routes.two.to
        6 | backends: { b: { discover: { dns: "http://orders.internal" } } }
          |             - this backend
          |
          = help: a file of endpoints can say labels

    "#]],
    );
}

#[test]
fn a_subset_of_everything_is_none() {
    says(
        &config("{ b: { weight: 1, subset: { labels: {} } } }", LABELLED),
        &expect![[r#"
        error[out-of-range]: needs at least 1 entry
         --> gw.yaml:4:75
          |
        4 |   one: { match: /one, public: for a test, to: { b: { weight: 1, subset: { labels: {} } } } }
          |                                                                           ^^^^^^ in routes.one.to.b.subset.labels

    "#]],
    );
}

#[test]
fn more_subsets_than_there_may_be() {
    let one = |number| {
        format!(
            "t{number}: {{ backend: b, weight: 1, subset: {{ labels: {{ n: \"{number}\" }} }} }}"
        )
    };
    let to: Vec<_> = (0..64).map(one).collect();
    let text = config(&format!("{{ {} }}", to.join(", ")), "http://10.0.0.1");
    let findings = compiled(&text, &Files::default()).findings;
    assert!(findings.contains("error[too-many]: `b` has more than 64 subsets"), "{findings}");
}
