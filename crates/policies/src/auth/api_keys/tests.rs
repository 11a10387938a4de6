use expect_test::{Expect, expect};
use portcullis_core::Exchange;
use portcullis_core::auth::Authenticator;

use super::*;
use crate::testing::World;

fn key(id: &str, change: impl FnOnce(&mut KeyEntry)) -> (String, KeyEntry) {
    let NewKey { text, mut entry } = generate([id.len() as u8; 32], id, "acme").unwrap();
    change(&mut entry);
    (text, entry)
}

fn world(entries: &[&KeyEntry]) -> World {
    World::default().file("partners.yaml", serde_json::to_string(entries).unwrap())
}

/// 24 November 2026, like [`crate::testing::START`].
const SETTINGS: &str = r#"{ keys: "file:partners.yaml" }"#;

fn presented(auth: &dyn Authenticator, exchange: &Exchange) -> String {
    match auth.presented(exchange) {
        Presented::Nothing | Presented::Ambient => "nothing".to_owned(),
        Presented::Several => "several".to_owned(),
        Presented::Foreign(_) => "foreign".to_owned(),
        Presented::Mine(span) => {
            String::from_utf8_lossy(span.of(exchange.request.fields.bytes())).into_owned()
        }
    }
}

#[test]
fn a_key_names_its_client() {
    let (text, entry) = key("a1", |entry| {
        entry.tenant = Some("shop".to_owned());
        entry.scopes = vec!["orders:read".to_owned(), "orders:write".to_owned()];
    });
    let world = world(&[&entry]);
    let auth = world.auth("api_keys", SETTINGS);
    let request = format!("192.0.2.7 GET / | X-API-Key: {text}");
    let seen = world.verify(&*auth, &request);
    assert_eq!(seen, "idp/acme of shop for orders:read orders:write");
    let mut exchange = world.exchange(&request);
    assert_eq!(presented(&*auth, &exchange), text);
    auth.conceal(&mut exchange.request);
    assert_eq!(presented(&*auth, &exchange), "nothing");
    assert_eq!(auth.challenge(), "ApiKey realm=\"idp\"");
}

#[test]
fn times_hold_to_the_second() {
    let (expired, expired_entry) =
        key("a", |entry| entry.expires = Some("2026-11-24T06:00:00Z".to_owned()));
    let (early, early_entry) =
        key("bb", |entry| entry.not_before = Some("2026-11-24T06:00:01Z".to_owned()));
    let world = world(&[&expired_entry, &early_entry]);
    let auth = world.auth("api_keys", SETTINGS);
    let at = |seconds: u64, text: &str| {
        // The world starts at 06:00:00.
        let line = format!("{}ms 192.0.2.7 GET / | x-api-key: {text}", seconds * 1000);
        world.verify(&*auth, &line).replace('\n', " ")
    };
    let challenge = "< www-authenticate: ApiKey realm=\"idp\"";
    assert_eq!(
        at(0, &expired),
        format!("401 credentials-expired | the key has expired {challenge}")
    );
    assert_eq!(
        at(0, &early),
        format!("401 credentials-invalid | the key is not valid yet {challenge}")
    );
    assert_eq!(at(1, &early), "idp/acme");
}

#[test]
fn what_is_not_a_key_is_refused() {
    let (text, entry) = key("a1", |_| {});
    let world = world(&[&entry]);
    let auth = world.auth("api_keys", SETTINGS);
    let (other, _) = key("other", |_| {});
    let stolen = text.replace("pk_a1_", "pk_a2_");
    let wrong = format!("{}0", &text[..text.len() - 1]);
    for (given, detail) in [
        (other.as_str(), "no such key"),
        (&stolen, "no such key"),
        (&wrong, "no such key"),
        ("nonsense", "not an API key"),
        ("", "not an API key"),
    ] {
        let seen = world.verify(&*auth, &format!("192.0.2.7 GET / | x-api-key: {given}"));
        let want =
            format!("401 credentials-invalid | {detail}\n< www-authenticate: ApiKey realm=\"idp\"");
        assert_eq!(seen, want, "{given}");
    }
    let seen = world.verify(&*auth, "192.0.2.7 GET /");
    assert!(seen.starts_with("401 credentials-missing"), "{seen}");
    let seen = world.verify(&*auth, &format!("192.0.2.7 GET / | x-api-key: {text} | X-Api-Key: b"));
    assert_eq!(seen, "400 credentials-ambiguous | two API keys");
}

#[test]
fn a_key_may_come_with_authorization() {
    let (text, entry) = key("a1", |_| {});
    let world = world(&[&entry]);
    let settings = r#"{ keys: "file:partners.yaml", authorization_scheme: ApiKey }"#;
    let auth = world.auth("api_keys", settings);
    let request = format!("192.0.2.7 GET / | Authorization: apikey {text}");
    assert_eq!(world.verify(&*auth, &request), "idp/acme");
    let mut exchange = world.exchange(&format!("{request} | x-api-key: b"));
    auth.conceal(&mut exchange.request);
    assert_eq!(exchange.request.fields.iter().count(), 1);
    let bearer = world.exchange("192.0.2.7 GET / | Authorization: Bearer a.b.c");
    assert_eq!(presented(&*auth, &bearer), "nothing");
}

fn check(file: &str, settings: &str, want: &Expect) {
    let world = World::default().file("partners.yaml", file);
    want.assert_eq(&world.try_auth("api_keys", settings).map(|_| ()).unwrap_err());
}

#[test]
fn the_file_is_yaml_or_json() {
    let (text, entry) = key("a1", |_| {});
    let yaml = format!("# partners\n- id: a1\n  hash: {}\n  client: acme\n", entry.hash);
    let world = World::default().file("partners.yaml", yaml);
    let auth = world.auth("api_keys", SETTINGS);
    assert_eq!(world.verify(&*auth, &format!("192.0.2.7 GET / | x-api-key: {text}")), "idp/acme");
}

#[test]
fn all_that_is_wrong_with_the_file_is_said() {
    let (_, entry) = key("a1", |_| {});
    let hash = entry.hash;
    check(
        &format!(
            "- {{ id: a_b, hash: \"{hash}\", client: a }}\n\
             - {{ id: b, hash: \"blake3:00\", client: a }}\n\
             - {{ id: c, hash: \"{hash}\", client: \"\" }}\n\
             - {{ id: d, hash: \"{hash}\", client: a, expires: soon }}\n\
             - {{ id: e, hash: \"{hash}\", client: a, scopes: [\"a b\"] }}\n\
             - {{ id: f, hash: \"{hash}\", client: a }}\n\
             - {{ id: f, hash: \"{hash}\", client: b }}\n"
        ),
        SETTINGS,
        &expect![[r#"
            error unusable-keys at api_keys.keys: file:partners.yaml: key 1: an `id` is letters, digits, `-` and `.`
            error unusable-keys at api_keys.keys: file:partners.yaml: key 2: the `hash` of `b` is not `blake3:` and 64 digits
            error unusable-keys at api_keys.keys: file:partners.yaml: key 3: the `client` of `c` is not a name
            error unusable-keys at api_keys.keys: file:partners.yaml: key 4: the `expires` of `d` is not a time: write `2027-01-31` or `2027-01-31T12:00:00Z`
            error unusable-keys at api_keys.keys: file:partners.yaml: key 5: a scope of `e` is not a scope
            error unusable-keys at api_keys.keys: file:partners.yaml: the id `f` twice"#]],
    );
    check(
        "- { id: a, hash: b, client: c, secret: d }",
        SETTINGS,
        &expect![
            "error unusable-keys at api_keys.keys: file:partners.yaml: line 1 column 32: unknown field `secret`, expected one of id, hash, client, tenant, scopes, expires, not_before"
        ],
    );
    check(
        "- { id: a",
        SETTINGS,
        &expect![
            "error unusable-keys at api_keys.keys: file:partners.yaml: line 1 column 3: unclosed bracket '{'"
        ],
    );
}

#[test]
fn settings_that_cannot_be_meant() {
    check(
        "[]",
        r#"{ keys: "file:none" }"#,
        &expect!["error unreadable at api_keys: cannot read file:none: no such file"],
    );
    check(
        "[]",
        r#"{ keys: "file:partners.yaml", header: "a b" }"#,
        &expect!["error invalid-value at api_keys.header: not a field name"],
    );
    check(
        "[]",
        r#"{ keys: "file:partners.yaml", header: Authorization }"#,
        &expect!["error invalid-value at api_keys.header: this field has a meaning of its own"],
    );
    check(
        "[]",
        r#"{ keys: "file:partners.yaml", query: "a&b" }"#,
        &expect![
            "error invalid-value at api_keys.query: not the name of a parameter: letters, digits, `-` and `_`"
        ],
    );
}

const EVERYWHERE: &str =
    r#"{ keys: "file:partners.yaml", header: X-Key, authorization_scheme: Key, query: api_key }"#;

#[test]
fn a_key_in_the_query_is_taken_where_that_is_asked_for_and_goes_no_further() {
    let (text, entry) = key("a1", |_| {});
    let world = world(&[&entry]);
    let request = format!("192.0.2.7 GET /orders?page=2&api%5Fkey={text}");
    let auth = world.auth("api_keys", SETTINGS);
    assert_eq!(presented(&*auth, &world.exchange(&request)), "nothing");
    let auth = world.auth("api_keys", EVERYWHERE);
    assert_eq!(world.verify(&*auth, &request), "idp/acme");
    let mut exchange = world.exchange(&request);
    assert_eq!(presented(&*auth, &exchange), text);
    auth.conceal(&mut exchange.request);
    let request = &exchange.request;
    assert_eq!(request.query(), Some(&b"page=2"[..]));
    // Out of the `Referer` the composite takes it, from every request of the route.
    assert_eq!(auth.secret_parameters(), [Box::from("api_key")]);
    let mut only = world.exchange(&format!("192.0.2.7 GET /orders?api_key={text}"));
    auth.conceal(&mut only.request);
    assert_eq!(only.request.query(), None);
}

#[test]
fn one_key_in_one_place() {
    let (text, entry) = key("a1", |_| {});
    let world = world(&[&entry]);
    let auth = world.auth("api_keys", EVERYWHERE);
    let ambiguous = "400 credentials-ambiguous | two API keys";
    for line in [
        format!("192.0.2.7 GET /?api_key={text}&api_key={text}"),
        format!("192.0.2.7 GET /?api_key={text} | X-Key: {text}"),
        format!("192.0.2.7 GET / | X-Key: {text} | Authorization: Key {text}"),
    ] {
        assert_eq!(world.verify(&*auth, &line), ambiguous, "{line}");
    }
    for line in [
        format!("192.0.2.7 GET / | X-Key: {text}"),
        format!("192.0.2.7 GET / | Authorization: key {text}"),
    ] {
        assert_eq!(world.verify(&*auth, &line), "idp/acme", "{line}");
    }
    let seen = world.verify(&*auth, &format!("192.0.2.7 GET /?api_key={text}%20"));
    assert!(seen.starts_with("401 credentials-invalid | not an API key"), "{seen}");
    // This place is not named.
    let exchange = world.exchange(&format!("192.0.2.7 GET / | X-Api-Key: {text}"));
    assert_eq!(presented(&*auth, &exchange), "nothing");
}

#[test]
fn two_keys_of_a_client_are_good_at_once_until_the_first_has_expired() {
    let (old, old_entry) =
        key("old", |entry| entry.expires = Some("2026-11-24T06:00:10Z".to_owned()));
    let (new, new_entry) = key("successor", |_| {});
    let world = world(&[&old_entry, &new_entry]);
    let auth = world.auth("api_keys", SETTINGS);
    let at = |time: &str, key: &str| {
        let seen = world.verify(&*auth, &format!("{time} 192.0.2.7 GET / | X-Api-Key: {key}"));
        seen.split(' ').next().unwrap().to_owned()
    };
    assert_eq!([at("0ms", &old), at("0ms", &new)], ["idp/acme", "idp/acme"]);
    assert_eq!([at("10000ms", &old), at("10000ms", &new)], ["401", "idp/acme"]);
}

/// A storm of unknown keys leaves nothing behind: there is no table that it could fill, and each
/// costs one hash, whatever the number of keys.
#[test]
fn a_storm_of_unknown_keys_is_refused_at_once_each_time() {
    let entries: Vec<_> = (0..500).map(|n| key(&format!("k{n}"), |_| {}).1).collect();
    let world = world(&entries.iter().collect::<Vec<_>>());
    let auth = world.auth("api_keys", SETTINGS);
    for n in 0..2000 {
        let unknown = format!("192.0.2.7 GET / | X-Api-Key: pk_u{n}_{}", "x".repeat(43));
        let exchange = world.exchange(&unknown);
        let verify = auth.verify(&exchange, &world.services);
        assert!(matches!(verify, Verify::Done(Err(_))));
    }
    assert!(world.services.asked().is_empty());
}
