use std::sync::LazyLock;

use expect_test::{Expect, expect};

use super::*;
use crate::testing::{Flag, World, print_verified};

/// Hashes cost time, so that these are made once.
static HASHES: LazyLock<[String; 2]> = LazyLock::new(|| {
    ["öpen sesame:", "other"].map(|password| hash_password(password, [7; SALT_BYTES]).unwrap())
});

fn users(scope: &str) -> String {
    let [alice, bob] = &*HASHES;
    format!(
        "- {{ user: alice, hash: \"{alice}\", tenant: shop, scopes: [\"{scope}\"] }}\n\
         - {{ user: \"Bob ß\", hash: \"{bob}\", client: bob }}\n"
    )
}

fn world() -> World {
    World::default().file("users.yaml", users("orders:read"))
}

const SETTINGS: &str = r#"{ users: "file:users.yaml" }"#;

fn line(text: impl AsRef<[u8]>) -> String {
    format!("192.0.2.7 GET / | Authorization: Basic {}", STANDARD.encode(text))
}

/// Whether it was decided at once.
fn is_immediate(auth: &dyn Authenticator, world: &World, line: &str) -> bool {
    let exchange = world.exchange(line);
    matches!(auth.verify(&exchange, &world.services), Verify::Done(_))
}

#[test]
fn a_password_names_its_user() {
    let world = world();
    let auth = world.auth("basic", SETTINGS);
    let alice = line("alice:öpen sesame:");
    assert_eq!(world.verify(&*auth, &alice), "idp/alice of shop for orders:read");
    assert_eq!(world.verify(&*auth, &line("Bob ß:other")), "idp/bob");
    assert_eq!(auth.challenge(), "Basic realm=\"idp\", charset=\"UTF-8\"");
    let mut exchange = world.exchange(&format!("{alice} | X-Other: a"));
    assert!(matches!(auth.presented(&exchange), Presented::Mine(_)));
    auth.conceal(&mut exchange.request);
    assert_eq!(exchange.request.fields.iter().count(), 1);
}

#[test]
fn a_password_that_was_right_is_not_verified_again_for_a_while() {
    let world = world();
    let auth = world.auth("basic", SETTINGS);
    let alice = line("alice:öpen sesame:");
    assert!(!is_immediate(&*auth, &world, &alice));
    world.verify(&*auth, &alice);
    assert!(is_immediate(&*auth, &world, &alice));
    let wrong = line("alice:open sesame:");
    world.verify(&*auth, &wrong);
    assert!(!is_immediate(&*auth, &world, &wrong), "what was wrong is not remembered");
    assert!(is_immediate(&*auth, &world, &format!("299999ms {alice}")));
    assert!(!is_immediate(&*auth, &world, &format!("300000ms {alice}")));
}

#[test]
fn a_reload_forgets_who_has_changed_and_nobody_else() {
    let world = world();
    let auth = world.auth("basic", SETTINGS);
    let (alice, bob) = (line("alice:öpen sesame:"), line("Bob ß:other"));
    world.verify(&*auth, &alice);
    world.verify(&*auth, &bob);
    world.next_generation();
    let world = world.file("users.yaml", users("orders:write"));
    let auth = world.auth("basic", SETTINGS);
    assert!(is_immediate(&*auth, &world, &bob));
    assert!(!is_immediate(&*auth, &world, &alice));
    assert_eq!(world.verify(&*auth, &alice), "idp/alice of shop for orders:write");
    world.next_generation();
    let world = world.file("users.yaml", "[]");
    let auth = world.auth("basic", SETTINGS);
    let seen = world.verify(&*auth, &alice);
    assert!(seen.starts_with("401 credentials-invalid | no user is listed"), "{seen}");
}

#[test]
fn what_is_not_right_is_refused() {
    let world = world();
    let auth = world.auth("basic", SETTINGS);
    let long =
        |user: usize, password: usize| format!("{}:{}", "a".repeat(user), "b".repeat(password));
    for (given, detail) in [
        (b"alice:open sesame:".to_vec(), "another password"),
        (b"alice:".to_vec(), "another password"),
        (b"Alice:other".to_vec(), "no such user"),
        (b":".to_vec(), "no such user"),
        (b"alice".to_vec(), "no colon in the credential"),
        (b"alice:a\0".to_vec(), "a control character in the credential"),
        (b"ali\tce:a".to_vec(), "a control character in the credential"),
        ("alice:a\u{85}".into(), "a control character in the credential"),
        (b"alice:\xf6pen".to_vec(), "the credential is not UTF-8"),
        (long(256, 1024).into(), "no such user"),
        (long(257, 10).into(), "the credential is too long"),
        (long(10, 1025).into(), "the credential is too long"),
        (long(10, 9000).into(), "the credential is too long"),
    ] {
        let seen = world.verify(&*auth, &line(&given));
        let want =
            format!("401 credentials-invalid | {detail}\n< www-authenticate: {}", auth.challenge());
        assert_eq!(seen, want, "{}", given.escape_ascii());
    }
    for given in ["YWxpY2U6YQ", "YWxpY2U6YR==", "YWxpY2U6YQ== x", "%%%", ""] {
        let seen = world.verify(&*auth, &format!("192.0.2.7 GET / | Authorization: Basic {given}"));
        let expected = "401 credentials-invalid | the credential is not base64";
        let no_colon = "401 credentials-invalid | no colon in the credential";
        assert!(seen.starts_with(if given.is_empty() { no_colon } else { expected }), "{seen}");
    }
    let seen = world.verify(&*auth, "192.0.2.7 GET /");
    assert!(seen.starts_with("401 credentials-missing"), "{seen}");
    let both = format!("{} | Authorization: basic YTpi", line("alice:other"));
    assert_eq!(world.verify(&*auth, &both), "400 credentials-ambiguous | two passwords");
}

/// Time tells nobody which names are listed: a name that is not costs a verification as well.
#[test]
fn an_unknown_name_costs_what_a_wrong_password_costs() {
    let world = world();
    let auth = world.auth("basic", SETTINGS);
    let jobs = |line: &str| {
        let before = world.services.offloaded();
        world.verify(&*auth, line);
        world.services.offloaded() - before
    };
    assert_eq!(jobs(&line("alice:wrong")), 1);
    assert_eq!(jobs(&line("nobody:wrong")), 1);
    // The password of the user whose hash stood in opens nothing.
    for name in ["nobody", "nobody2", "nobody3", "nobody4"] {
        for password in ["öpen sesame:", "other"] {
            let seen = world.verify(&*auth, &line(format!("{name}:{password}")));
            assert!(seen.starts_with("401 credentials-invalid | no such user"), "{seen}");
        }
    }
}

#[test]
fn few_are_verified_at_once_and_no_more_wait_than_there_is_room_for() {
    let world = world();
    let auth = world.auth("basic", r#"{ users: "file:users.yaml", verifications_max: 1 }"#);
    let exchange = world.exchange(&line("alice:öpen sesame:"));
    world.services.hold();
    let begin = || match auth.verify(&exchange, &world.services) {
        Verify::Wait(future) => future,
        Verify::Done(done) => panic!("{done:?}"),
    };
    let flag = Arc::new(Flag::default());
    let mut running: Vec<_> = (0..=WAITING_MAX).map(|_| begin()).collect();
    assert!(running.iter_mut().all(|future| flag.poll(future).is_none()));
    let refused = flag.poll(&mut begin()).expect("an answer at once");
    assert_eq!(
        print_verified(refused),
        "503 authorizer-unavailable | too many passwords to verify\n< retry-after: 1"
    );
    world.services.release();
    let before = world.services.offloaded();
    for mut future in running {
        let verified = flag.poll(&mut future).expect("its turn");
        assert_eq!(print_verified(verified), "idp/alice of shop for orders:read");
    }
    // The others find what the first has found.
    assert_eq!(world.services.offloaded() - before, 0);
}

fn check(file: &str, settings: &str, want: &Expect) {
    let world = World::default().file("users.yaml", file);
    want.assert_eq(&world.try_auth("basic", settings).map(|_| ()).unwrap_err());
}

#[test]
fn all_that_is_wrong_with_the_file_is_said() {
    let good = &HASHES[0];
    let cheap = good.replace("m=19456,t=2", "m=4096,t=3");
    let dear = good.replace("m=19456,t=2", "m=1048576,t=2");
    check(
        &format!(
            "- {{ user: \"a:b\", hash: \"{good}\" }}\n\
             - {{ user: c, hash: secret }}\n\
             - {{ user: d, hash: \"{dear}\" }}\n\
             - {{ user: e, hash: \"{good}\", client: \"\" }}\n\
             - {{ user: f, hash: \"{good}\", scopes: [\"a b\"] }}\n\
             - {{ user: g, hash: \"{good}\" }}\n\
             - {{ user: g, hash: \"{good}\" }}\n"
        ),
        SETTINGS,
        &expect![[r#"
            error unusable-users at basic.users: file:users.yaml: user 1: a `user` is a name without a colon
            error unusable-users at basic.users: file:users.yaml: user 2: the `hash` of `c` is not `$argon2id$v=19$m=…,t=…,p=…$SALT$HASH`
            error unusable-users at basic.users: file:users.yaml: user 3: the `hash` of `d` costs more than is spent on one: at most m=262144, t=10, p=16
            error unusable-users at basic.users: file:users.yaml: user 4: the `client` of `e` is not a name
            error unusable-users at basic.users: file:users.yaml: user 5: a scope of `f` is not a scope
            error unusable-users at basic.users: file:users.yaml: the user `g` twice"#]],
    );
    check(
        &format!("- {{ user: a, hash: \"{cheap}\" }}"),
        SETTINGS,
        &expect![
            "error weak-password-hash at basic.users: file:users.yaml: the hash of `a` is too cheap to guess (make one with `portcullis keys hash-password`)"
        ],
    );
    check(
        "- { user: a }",
        SETTINGS,
        &expect![
            "error unusable-users at basic.users: file:users.yaml: line 1 column 5: missing field `hash`"
        ],
    );
    check(
        "[]",
        r#"{ users: "file:users.yaml", remember: 2h }"#,
        &expect!["error out-of-range at basic.remember: at most `1h`"],
    );
    check(
        "[]",
        r#"{ users: "file:users.yaml", verifications_max: 65 }"#,
        &expect!["error out-of-range at basic.verifications_max: must be from 1 to 64"],
    );
}
