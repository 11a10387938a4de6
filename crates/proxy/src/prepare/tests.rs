use std::sync::Arc;

use portcullis_core::Scheme;
use portcullis_core::exchange::RequestId;
use portcullis_core::identity::Identity;

use super::*;

/// A request for `https://a.example/` with these `name: value` lines.
fn exchange(lines: &[&str]) -> Exchange {
    let mut exchange = Exchange { request_id: RequestId::new(7), ..Exchange::default() };
    let request = &mut exchange.request;
    request.scheme = Scheme::Https;
    request.authority = request.fields.intern(b"a.example");
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        request.fields.append(name.as_bytes(), value.as_bytes());
    }
    exchange
}

fn lines(fields: &Fields) -> Vec<String> {
    let line = |(name, value): (&[u8], &[u8])| {
        format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
    };
    fields.iter().map(line).collect()
}

const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
const HOP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fn trusted(address: IpAddr) -> bool {
    address == HOP
}

/// What is told, without the id and the trace, which are the same each time.
fn told(peer: IpAddr, forwarded: bool, sent: &[&str]) -> Vec<String> {
    let mut exchange = exchange(sent);
    prepare(&mut exchange, peer, trusted, forwarded).unwrap();
    let mut lines = lines(&exchange.request.fields);
    let trace = lines.pop().unwrap();
    assert!(trace.starts_with("traceparent: 00-"), "{trace}");
    assert_eq!(lines.pop(), Some("x-request-id: 00000000000000000000000000000007".to_owned()));
    lines
}

#[test]
fn strangers_are_not_believed() {
    let sent = [
        "accept: */*",
        "x-forwarded-for: 203.0.113.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: evil",
        "x-forwarded-port: 1",
        "x-forwarded-prefix: /admin",
        "X_Forwarded_Prefix: /admin",
        "x-forwarded.server: a",
        "x-forwarded: for=a",
        "forwarded: for=203.0.113.1",
        "x-real-ip: 203.0.113.1",
        "Portcullis_Client: root",
        "x-forward: stays",
        "x-portcullis: stays",
    ];
    let expected = [
        "accept: */*",
        "x-forward: stays",
        "x-portcullis: stays",
        "x-forwarded-for: 192.0.2.7",
        "x-forwarded-proto: https",
        "x-forwarded-host: a.example",
        "forwarded: for=192.0.2.7;proto=https;host=a.example",
        "via: 1.1 portcullis",
    ];
    assert_eq!(told(STRANGER, true, &sent), expected);
    let unasked = told(STRANGER, false, &sent);
    assert!(!unasked.iter().any(|line| line.starts_with("forwarded:")), "{unasked:?}");
}

#[test]
fn a_trusted_hop_is_believed_as_far_as_it_makes_sense() {
    let sent = [
        "x-forwarded-for: 203.0.113.1, 192.0.2.8",
        "x-forwarded-proto: http",
        "x-forwarded-host: Shop.example:8080",
        "x-forwarded-port: 8080",
        "x-forwarded-prefix: /shop",
        "x_forwarded_prefix: /admin",
        "x-forwarded_port: 1",
        "forwarded: for=198.51.100.1",
        "x-real-ip: 203.0.113.1",
    ];
    let expected = [
        "x-forwarded-prefix: /shop",
        "x-forwarded-for: 203.0.113.1, 192.0.2.8, 10.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example:8080",
        "x-forwarded-port: 8080",
        "forwarded: for=203.0.113.1, for=192.0.2.8;proto=http;host=\"shop.example:8080\", \
         for=10.0.0.1",
        "via: 1.1 portcullis",
    ];
    assert_eq!(told(HOP, true, &sent), expected);
    let odd = ["x-forwarded-proto: gopher", "x-forwarded-host: a b", "x-forwarded-port: http"];
    let expected = [
        "x-forwarded-for: 10.0.0.1",
        "x-forwarded-proto: https",
        "x-forwarded-host: a.example",
        "forwarded: for=10.0.0.1;proto=https;host=a.example",
        "via: 1.1 portcullis",
    ];
    assert_eq!(told(HOP, true, &odd), expected);
}

#[test]
fn forwarded_of_a_trusted_hop_is_told_in_both_forms() {
    let sent = ["forwarded: for=\"[2001:db8::1]\";proto=http;host=shop.example"];
    let expected = [
        "x-forwarded-for: 2001:db8::1, 10.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example",
        r#"forwarded: for="[2001:db8::1]";proto=http;host=shop.example, for=10.0.0.1"#,
        "via: 1.1 portcullis",
    ];
    assert_eq!(told(HOP, true, &sent), expected);
}

#[test]
fn the_version_received_goes_into_via_behind_what_is_there() {
    for (version, expected) in [
        (Version::Http10, "via: 1.0 portcullis"),
        (Version::Http11, "via: 1.1 portcullis"),
        (Version::Http2, "via: 2 portcullis"),
    ] {
        let mut exchange = exchange(&["Via: 1.1 edge (a, b)"]);
        exchange.request.version = version;
        prepare(&mut exchange, STRANGER, trusted, false).unwrap();
        let lines = lines(&exchange.request.fields);
        let via: Vec<_> =
            lines.iter().filter(|line| line.to_lowercase().starts_with("via")).collect();
        assert_eq!(via, ["Via: 1.1 edge (a, b)", expected]);
    }
}

#[test]
fn a_request_that_came_by_too_often_goes_no_further() {
    let often = |times| vec!["1.1 portcullis"; times].join(", ");
    let cases = [
        (vec![often(10)], true),
        (vec![often(11)], false),
        (vec![often(6), often(4)], true),
        (vec![often(6), "2\t Portcullis (x)".to_owned(), often(4)], false),
        (
            vec![often(10), "1.1 portcullis.example, portcullis, 1.1 a (portcullis)".to_owned()],
            true,
        ),
        (vec![format!("{},,", often(10))], true),
    ];
    for (values, passes) in cases {
        let sent: Vec<_> = values.iter().map(|value| format!("via: {value}")).collect();
        let sent: Vec<_> = sent.iter().map(|line| &**line).collect();
        let problem = prepare(&mut exchange(&sent), STRANGER, trusted, false).err();
        let expected = (!passes).then_some("loop-detected");
        assert_eq!(problem.map(|problem| problem.code.name), expected, "{values:?}");
    }
}

#[test]
fn crumbs_are_joined_and_one_cookie_is_left_alone() {
    assert_eq!(told(STRANGER, false, &["Cookie: a=1"])[0], "Cookie: a=1");
    let joined = told(STRANGER, false, &["cookie: a=1", "accept: x", "cookie: b=2"]);
    assert_eq!(joined[..2], ["accept: x", "cookie: a=1; b=2"]);
}

#[test]
fn without_a_host_none_is_told() {
    let mut exchange = exchange(&[]);
    exchange.request.authority = portcullis_core::Span::default();
    prepare(&mut exchange, STRANGER, trusted, true).unwrap();
    let lines = lines(&exchange.request.fields);
    assert!(lines.contains(&"forwarded: for=192.0.2.7;proto=https".to_owned()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("x-forwarded-host")), "{lines:?}");
}

#[test]
fn who_was_verified_is_told_last() {
    let mut exchange = exchange(&["portcullis-client: root"]);
    exchange.identity = Some(Arc::new(Identity {
        scopes: vec!["a".to_owned(), "b".to_owned()],
        ..Identity::new("keys".into(), "acme".to_owned())
    }));
    prepare(&mut exchange, STRANGER, trusted, false).unwrap();
    let lines = lines(&exchange.request.fields);
    let told = ["portcullis-client: acme", "portcullis-auth: keys", "portcullis-scopes: a b"];
    assert_eq!(lines[lines.len() - 3..], told);
}

#[test]
fn addresses_are_written_as_everybody_writes_them() {
    for text in ["0.0.0.0", "9.10.99.100", "255.200.109.1", "::", "2001:db8::1"] {
        assert_eq!(write_address(text.parse().unwrap(), &mut [0; 45]), text.as_bytes());
    }
    let longest = "1111:2222:3333:4444:5555:6666:7777:8888";
    assert_eq!(write_address(longest.parse().unwrap(), &mut [0; 45]), longest.as_bytes());
}

#[test]
fn a_mirror_is_told_what_it_asked_for_and_no_more() {
    let told = |owned| {
        let mut exchange = exchange(&["accept: x"]);
        prepare(&mut exchange, STRANGER, trusted, true).unwrap();
        let fields = &mut exchange.request.fields;
        fields.append(b"client-cert", b":AA==:");
        fields.append(b"client-cert-chain", b":AA==:");
        tell_mirror(fields, "shop/orders", owned);
        let names = fields.iter().map(|(name, _)| String::from_utf8_lossy(name).to_lowercase());
        let owned = ["forwarded", "client-cert", "client-cert-chain", "portcullis-mirror"];
        names.filter(|name| owned.contains(&&**name)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(told((false, false)), "portcullis-mirror");
    assert_eq!(told((true, false)), "forwarded portcullis-mirror");
    assert_eq!(told((false, true)), "client-cert client-cert-chain portcullis-mirror");
}
