//! Where a token is, and who gets to see it there.

use super::*;

const ALL: &str = r#"{ issuer: "https://idp.example/", audience: [orders], jwks: "file:jwks.json",
    token: [header, "header:X-Id-Token", "cookie:session", "query:access_token"] }"#;

fn print(fixed: &Fixed, line: &str) -> String {
    fixed.world.verify(&*fixed.auth, line).lines().next().unwrap().to_owned()
}

#[test]
fn a_token_is_taken_from_each_place_that_is_asked_for() {
    let (fixed, plain) = (Fixed::with(ALL), Fixed::new());
    let token = fixed.signer.token(&claims(&json!({})));
    for line in [
        format!("192.0.2.7 GET / | Authorization: Bearer {token}"),
        format!("192.0.2.7 GET / | x-id-token: {token}"),
        format!("192.0.2.7 GET / | Cookie: a=1; session={token}; b=2"),
        format!("192.0.2.7 GET /?a=1&access_token={token}&b"),
    ] {
        assert_eq!(print(&fixed, &line), "idp/alice", "{line}");
        let other = if line.contains("Authorization") { "401 credentials-invalid" } else { "401" };
        assert!(print(&plain, &line).starts_with(other), "{line}");
    }
    assert_eq!(plain.auth.secret_parameters(), [] as [Box<str>; 0]);
    assert_eq!(fixed.auth.secret_parameters(), [Box::from("access_token")]);
    let seen = plain.auth.presented(&plain.world.exchange("192.0.2.7 GET /?access_token=x"));
    assert_eq!(seen, Presented::Nothing, "nobody asked for it");
}

/// Whichever is good, and though both are the same.
#[test]
fn two_tokens_are_one_too_many() {
    let fixed = Fixed::with(ALL);
    let token = fixed.signer.token(&claims(&json!({})));
    for line in [
        format!("192.0.2.7 GET /?access_token={token} | Authorization: Bearer {token}"),
        format!("192.0.2.7 GET / | Cookie: session={token} | Authorization: Bearer {token}"),
        format!("192.0.2.7 GET / | Cookie: session={token}; session=x"),
        format!("192.0.2.7 GET /?access_token={token}&access%5ftoken=x"),
        format!("192.0.2.7 GET /?access_token={token} | X-Id-Token: x"),
        format!("192.0.2.7 GET /?access_token= | Authorization: Bearer {token}"),
    ] {
        let exchange = fixed.world.exchange(&line);
        assert_eq!(fixed.auth.presented(&exchange), Presented::Several, "{line}");
        assert_eq!(print(&fixed, &line), "400 credentials-ambiguous | more than one token");
    }
}

#[test]
fn no_backend_gets_the_token() {
    let fixed = Fixed::with(ALL);
    let token = fixed.signer.token(&claims(&json!({})));
    for line in [
        format!("192.0.2.7 GET /a?b=1&access_token={token}&c | Cookie: d=2 | E: 3"),
        format!("192.0.2.7 GET /a?b=1&c | Cookie: d=2; session={token} | E: 3"),
        format!("192.0.2.7 GET /a?b=1&c | Cookie: d=2 | X_Id.Token: {token} | E: 3"),
    ] {
        let mut request = fixed.world.exchange(&line).request;
        fixed.auth.conceal(&mut request);
        let query = request.query().map(<[u8]>::to_vec);
        assert_eq!(query.as_deref(), Some(&b"b=1&c"[..]), "{line}");
        assert_eq!(request.fields.get(b"cookie"), Some(&b"d=2"[..]), "{line}");
        let fields = request.fields.iter().count();
        assert_eq!(fields, 2, "{line}");
    }
}

/// A browser sends cookies for everybody; a header it sends only for who put it there.
#[test]
fn a_cookie_is_for_pages_of_the_same_origin() {
    let fixed = Fixed::with(ALL);
    let token = fixed.signer.token(&claims(&json!({})));
    let of = |method: &str, place: &str, origin: &str| {
        print(&fixed, &format!("192.0.2.7 {method} / | {place}{token} | Origin: {origin}"))
    };
    let (cookie, header) = ("Cookie: session=", "Authorization: Bearer ");
    assert_eq!(of("POST", cookie, "https://api.example.com"), "idp/alice");
    assert!(of("POST", cookie, "https://evil.example").starts_with("403 origin-not-allowed"));
    assert_eq!(of("GET", cookie, "https://evil.example"), "idp/alice");
    assert_eq!(of("POST", header, "https://evil.example"), "idp/alice");
    let open = Fixed::with(
        &ALL.replace("token:", "cross_site: { origins: [\"https://shop.example\"] }, token:"),
    );
    let token = open.signer.token(&claims(&json!({})));
    let line = format!("192.0.2.7 POST / | {cookie}{token} | Origin: https://shop.example");
    assert_eq!(print(&open, &line), "idp/alice");
}
