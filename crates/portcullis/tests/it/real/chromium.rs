//! Logging in and out with a real browser, at a real provider: chromium and npm's `oidc-provider`,
//! with nginx behind the gateway. `cargo xtask test-real` installs the browser.

use portcullis_testkit::{Chromium, Issuer, OidcProvider};
use serde_json::{Value, json};

use super::{gateway_of, nginx_saying, self_signed};

/// Access tokens live so short that sessions are refreshed while the test looks on.
const TOKENS_LIVE_S: u64 = 2;

fn issuer(origin: &str) -> Issuer {
    Issuer {
        clients: json!([{
            "client_id": "shop", "client_secret": "a-secret-of-the-test",
            "redirect_uris": [format!("{origin}/oauth2/callback")],
            "post_logout_redirect_uris": [format!("{origin}/bye")],
            "grant_types": ["authorization_code", "refresh_token"],
        }]),
        resource: None,
        config: json!({
            "ttl": { "AccessToken": TOKENS_LIVE_S, "IdToken": 60, "RefreshToken": 600, "Session": 600,
                     "Grant": 600, "Interaction": 600 },
            "rotateRefreshToken": true,
            "features": { "revocation": { "enabled": true } },
        }),
        ..Issuer::default()
    }
}

const CONFIG: &str = r#"
listeners:
  here:
    bind: "127.0.0.1:0"
    tls: { certificates: [{ cert: "file:cert.pem", key: "file:key.pem" }] }
  there:
    bind: "127.0.0.1:0"
    tls: { certificates: [{ cert: "file:cert.pem", key: "file:key.pem" }] }
auth:
  people:
    oidc:
      issuer: "ISSUER"
      client: { id: shop, secret: "file:shop.secret" }
      cookie_key: ["file:cookie.key"]
      scopes: [openid, offline_access]
      prompt: consent
      after_logout: /bye
backends: { shop: { endpoints: ["http://127.0.0.1:BACKEND"] } }
routes:
  bye: { on: [here], match: /bye, public: "a test", respond: { status: 200, body: bye } }
  shop: { on: [here], match: /**, auth: people, to: shop }
  other: { on: [there], match: /**, public: "a test", respond: { status: 200, body: elsewhere } }
probes: off
access_log: off
"#;

const PAGE: &str = r#"<!doctype html><title>shop</title>
<p>client=$http_portcullis_client scopes=$http_portcullis_scopes cookie=[$http_cookie]
at $request_uri by $request_method</p>
<form method=post action=/oauth2/logout><button id=out>out</button></form>"#;

struct Shop {
    browser: Chromium,
    provider: OidcProvider,
    /// Of the gateway, and of a page elsewhere on the same host.
    origin: String,
    other: String,
    _servers: (tempfile::TempDir, super::Server, super::Server),
}

impl Shop {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let page = PAGE.replace('\n', " ");
        // How a page may be kept, it is told by its address.
        let answer = format!(
            "default_type text/html; add_header Cache-Control $arg_cache; return 200 '{page}';"
        );
        let (nginx, backend) = nginx_saying(dir.path(), &answer);
        let mut provider = OidcProvider::start(&issuer("https://localhost"));
        self_signed(dir.path());
        std::fs::write(dir.path().join("shop.secret"), "a-secret-of-the-test").unwrap();
        std::fs::write(dir.path().join("cookie.key"), [7; 32]).unwrap();
        let config =
            CONFIG.replace("ISSUER", &provider.url()).replace("BACKEND", &backend.to_string());
        std::fs::write(dir.path().join("portcullis.yaml"), config).unwrap();
        let (gateway, ports) = gateway_of(dir.path(), 2);
        let origin = format!("https://localhost:{}", ports[0]);
        // Now that it is known where it may send browsers back to.
        provider.change(&issuer(&origin));
        Self {
            browser: Chromium::start(),
            provider,
            origin,
            other: format!("https://localhost:{}", ports[1]),
            _servers: (dir, nginx, gateway),
        }
    }

    fn is_at_the_provider(&self) -> bool {
        self.browser.url().starts_with(&format!("{}/interaction/", self.provider.url()))
    }

    /// Opens a page of the shop, and does what the provider asks for.
    fn log_in(&self, path: &str) {
        self.browser.open(&format!("{}{path}", self.origin));
        self.say_who_it_is();
        self.browser.arrive(&format!("{}{path}", self.origin));
    }

    fn say_who_it_is(&self) {
        assert!(self.is_at_the_provider(), "{}", self.browser.url());
        self.browser.fill("input[name=login]", "alice");
        self.browser.fill("input[name=password]", "secret");
        self.browser.click("form:has([name=prompt][value=login]) button");
        // And that the shop may know it.
        self.browser.click("form:has([name=prompt][value=consent]) button");
    }

    fn session(&self) -> Option<Value> {
        let named = |cookie: &Value| cookie["name"] == "__Host-portcullis-people";
        self.browser.cookies().into_iter().find(named)
    }

    /// What a script of the page gets: status and body.
    fn fetch(&self, path: &str, options: &str) -> String {
        let script = format!(
            "fetch('{path}', {options}).then(async (answer) =>
               done(answer.status + ' ' + await answer.text()), (error) => done('' + error));"
        );
        self.browser.run_async(&script).as_str().unwrap().to_owned()
    }
}

#[test]
fn a_person_logs_in_stays_logged_in_and_logs_out() {
    let shop = Shop::open();
    shop.log_in("/orders?page=2");
    let text = shop.browser.text();
    assert!(text.contains("client=alice"), "{text}");
    assert!(text.contains("scopes=openid offline_access"), "{text}");
    assert!(text.contains("cookie=[]") && text.contains("at /orders?page=2 by GET"), "{text}");

    // The cookie is the gateway's and nobody else's, and nothing of the login is left.
    let session = shop.session().expect("a session");
    let names: Vec<Value> =
        shop.browser.cookies().into_iter().map(|cookie| cookie["name"].clone()).collect();
    assert!(names.iter().all(|name| !name.as_str().unwrap().contains("login")), "{names:?}");
    assert_eq!(session["httpOnly"], true);
    assert_eq!(session["secure"], true);
    assert_eq!(session["sameSite"], "Lax");
    assert_eq!(shop.browser.run("return document.cookie"), "");

    // Scripts use the session, and get no login page without one.
    let seen = shop.fetch("/data", "{}");
    assert!(seen.starts_with("200 ") && seen.contains("client=alice"), "{seen}");
    let seen = shop.fetch("/data", "{ method: 'POST' }");
    assert!(seen.starts_with("200 ") && seen.contains("by POST"), "{seen}");
    let seen = shop.fetch("/data", "{ credentials: 'omit' }");
    assert!(seen.starts_with("401 "), "{seen}");

    refreshing(&shop, &session);
    log_out(&shop);
}

/// Tokens end and come anew while the page goes on asking.
fn refreshing(shop: &Shop, session: &Value) {
    let asked = shop.provider.asked("/token");
    while shop.provider.asked("/token") < asked + 2 {
        let seen = shop.fetch("/data", "{}");
        assert!(seen.starts_with("200 ") && seen.contains("client=alice"), "{seen}");
    }
    let renewed = shop.session().expect("a session");
    assert_ne!(renewed["value"], session["value"]);
    // Several at once: a refresh token that is sent twice would end the session at the provider.
    let asked = shop.provider.asked("/token");
    while shop.provider.asked("/token") < asked + 2 {
        let seen = shop.browser.run_async(
            "Promise.all([1, 2, 3, 4, 5, 6].map(() => fetch('/data').then((a) => a.status)))
               .then((all) => done(all.join(' ')));",
        );
        assert_eq!(seen, "200 200 200 200 200 200");
    }
}

fn log_out(shop: &Shop) {
    // The page that one logs out on is kept for going back until the next one has come, so it has
    // to say that it is not to be; those before it are dropped by the logout.
    shop.browser.open(&format!("{}/account?cache=no-store", shop.origin));
    assert_eq!(shop.provider.asked("/token/revocation"), 0);
    shop.browser.click("#out");
    shop.browser.arrive(&shop.provider.url());
    shop.browser.click("button[name=logout]");
    shop.browser.arrive(&format!("{}/bye", shop.origin));
    assert!(shop.session().is_none());
    assert_eq!(shop.provider.asked("/token/revocation"), 1);
    // Going back shows no page of the session.
    for _ in 0..4 {
        shop.browser.back();
        let text = shop.browser.text();
        assert!(!text.contains("client="), "{}: {text}", shop.browser.url());
    }
    // And the way in is the login again.
    shop.browser.open(&format!("{}/orders", shop.origin));
    assert!(shop.is_at_the_provider(), "{}", shop.browser.url());
}

#[test]
fn tabs_log_in_side_by_side_and_other_pages_cannot_use_the_session() {
    let shop = Shop::open();
    // Two tabs, each sent to the provider; the second one ends first.
    shop.browser.open(&format!("{}/first", shop.origin));
    let first = shop.browser.url();
    shop.log_in("/second");
    assert!(shop.browser.text().contains("at /second"));
    shop.browser.open(&first);
    shop.say_who_it_is();
    shop.browser.arrive(&format!("{}/first", shop.origin));
    let text = shop.browser.text();
    assert!(text.contains("client=alice") && text.contains("at /first"), "{text}");

    // The same host, another port: the browser sends the cookie, and the gateway says no.
    shop.browser.open(&format!("{}/page", shop.other));
    assert_eq!(shop.browser.text(), "elsewhere");
    let form = format!(
        "const form = document.createElement('form'); form.method = 'post';
         form.action = '{}/data'; document.body.append(form); form.submit();",
        shop.origin
    );
    drop(shop.browser.run(&form));
    shop.browser.arrive(&shop.origin);
    let text = shop.browser.text();
    assert!(text.contains("origin-not-allowed"), "{text}");
    // Nor does it log anybody out.
    shop.browser.open(&format!("{}/page", shop.other));
    let form = form.replace("/data", "/oauth2/logout");
    drop(shop.browser.run(&form));
    shop.browser.arrive(&shop.origin);
    assert!(shop.browser.text().contains("origin-not-allowed"));
    shop.browser.open(&format!("{}/orders", shop.origin));
    assert!(shop.browser.text().contains("client=alice"));
}
