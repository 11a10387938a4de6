//! Unix sockets as listener and backend.

use expect_test::expect;

use super::dump;
use super::findings::check;
use crate::testing::{Files, compiled};

#[test]
fn unix_sockets_and_what_they_cannot_do() {
    check(
        r#"
listeners:
  a: { bind: "unix:/run/a.sock", redirect: b }
  b: { bind: "unix:/run/b.sock", tls: { certificates: [{ cert: "file:c", key: "file:k" }] } }
  c: { bind: "127.0.0.1:8080", redirect: b, socket_mode: "0600" }
  d: { bind: "unix:/run/a.sock" }
routes:
  r: { match: /r, on: d, public: for a test, respond: { status: 200 } }
"#,
        &expect![[r#"
            error[redirect]: a listener on a Unix socket cannot redirect
             --> gw.yaml:3:44
              |
            3 |   a: { bind: "unix:/run/a.sock", redirect: b }
              |              ------------------            ^ in listeners.a.redirect
              |              |
              |              whoever connects here is on this machine

            error[unreadable]: cannot read `file:c`: there is no such file
             --> gw.yaml:4:64
              |
            4 |   b: { bind: "unix:/run/b.sock", tls: { certificates: [{ cert: "file:c", key: "file:k" }] } }
              |                                                                ^^^^^^^^ in listeners.b.tls.certificates[0]

            error[unreadable]: cannot read `file:k`: there is no such file
             --> gw.yaml:4:79
              |
            4 |   b: { bind: "unix:/run/b.sock", tls: { certificates: [{ cert: "file:c", key: "file:k" }] } }
              |                                                                               ^^^^^^^^ in listeners.b.tls.certificates[0]

            error[redirect]: `b` is a Unix socket and has no port
             --> gw.yaml:5:42
              |
            4 |   b: { bind: "unix:/run/b.sock", tls: { certificates: [{ cert: "file:c", key: "file:k" }] } }
              |              ------------------ here
            5 |   c: { bind: "127.0.0.1:8080", redirect: b, socket_mode: "0600" }
              |                                          ^ in listeners.c.redirect
              |
              = help: say which port clients see: `redirect: {to: b, port: 443}`

            warning[no-effect]: `socket_mode` has no effect: `bind` is not a Unix socket
             --> gw.yaml:5:58
              |
            5 |   c: { bind: "127.0.0.1:8080", redirect: b, socket_mode: "0600" }
              |                                                          ^^^^^^ in listeners.c.socket_mode

            error[address-taken]: `unix:/run/a.sock` is taken by the listener `a`
             --> gw.yaml:6:14
              |
            3 |   a: { bind: "unix:/run/a.sock", redirect: b }
              |              ------------------ here
            ...
            6 |   d: { bind: "unix:/run/a.sock" }
              |              ^^^^^^^^^^^^^^^^^^ in listeners.d.bind

        "#]],
    );
    check(
        r#"
listeners: { http: { bind: "unix:@gateway", socket_mode: "0999" } }
"#,
        &expect![[r#"
            error[invalid-value]: abstract socket names are not supported
             --> gw.yaml:2:29
              |
            2 | listeners: { http: { bind: "unix:@gateway", socket_mode: "0999" } }
              |                             ^^^^^^^^^^^^^ in listeners.http.bind
              |
              = help: they have no permissions, so that everybody on this machine could connect; write the path of a file

            error[invalid-value]: `0999` is not the mode of a file
             --> gw.yaml:2:59
              |
            2 | listeners: { http: { bind: "unix:@gateway", socket_mode: "0999" } }
              |                                                           ^^^^ in listeners.http.socket_mode
              |
              = help: write for example "0660"

        "#]],
    );
}

#[test]
fn credentials_may_cross_a_unix_socket() {
    let text = r#"
listeners: { http: { bind: "unix:/run/http.sock" } }
auth: { idp: { token: { header: x-token } } }
backends:
  one: "unix:/run/one.sock"
  two: { endpoints: ["http://10.0.0.1", "unix:/run/two.sock"], host: backend, protocol: h2 }
routes: { r: { match: /r, auth: idp, to: { one: 1, two: 1 } } }
"#;
    let compiled = compiled(text, &Files::default());
    assert_eq!(compiled.findings, "");
    let snapshot = compiled.snapshot.unwrap();
    expect![[r#"
        listener http unix:/run/http.sock
        backend one LeastRequests host Preserve
          unix:/run/one.sock localhost weight 1
        backend two LeastRequests host Endpoint
          http://10.0.0.1:80 10.0.0.1 weight 1
          unix:/run/two.sock localhost weight 1
        route r on [0] auth ["idp"] []
          match */r
          authenticate: auth Authenticate { any_of: [NamedAuthenticator { name: "idp", authenticator: Tokens { auth: "idp", header: "x-token", parameter: "token", challenge: "Token realm=\"idp\"", remote: false } }], optional: false, forward_credential: false, challenge: "Token realm=\"idp\"", owned: [], secret: ["token"] }
          to one 1
          to two 1
          response Some(15s) total None body 10485760 Untouched
    "#]].assert_eq(&dump(&snapshot));
}
