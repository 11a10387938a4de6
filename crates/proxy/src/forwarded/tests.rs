use portcullis_core::Fields;

use super::*;

/// `name: value` lines.
fn fields(lines: &[&str]) -> Fields {
    let mut fields = Fields::default();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        fields.append(name.as_bytes(), value.as_bytes());
    }
    fields
}

/// 10.0.0.0/8 and fd00::/8 are trusted, and the peer is 10.9.9.9.
fn trusted(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.octets()[0] == 0xfd,
    }
}

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));

fn client(lines: &[&str]) -> String {
    Hops::of(&fields(lines)).client(PEER, trusted).0.to_string()
}

#[test]
fn the_client_is_the_right_most_that_is_not_trusted() {
    let cases = [
        ("192.0.2.1", "192.0.2.1"),
        ("203.0.113.9, 192.0.2.1", "192.0.2.1"),
        ("203.0.113.9,192.0.2.1 ,10.0.0.1\t,10.0.0.2", "192.0.2.1"),
        ("10.0.0.3, 10.0.0.1", "10.0.0.3"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("192.0.2.1, fd00::1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        // What names nobody ends the search at whoever wrote it.
        ("192.0.2.1, unknown", "10.9.9.9"),
        ("192.0.2.1, unknown, 10.0.0.1", "10.0.0.1"),
        ("192.0.2.1,, 10.0.0.1", "10.0.0.1"),
        ("192.0.2.1, 10.0.0.300, 10.0.0.1", "10.0.0.1"),
        ("192.0.2.1, 10.0.0.2:x, 10.0.0.1", "10.0.0.1"),
        ("192.0.2.1, 10.0.0.2:123456, 10.0.0.1", "10.0.0.1"),
        ("192.0.2.1, [10.0.0.2], 10.0.0.1", "10.0.0.1"),
        ("192.0.2.1, [fd00::2]x, 10.0.0.1", "10.0.0.1"),
        ("192.0.2.1, [fd00::2, 10.0.0.1", "10.0.0.1"),
        ("", "10.9.9.9"),
    ];
    for (list, expected) in cases {
        assert_eq!(client(&[&format!("x-forwarded-for: {list}")]), expected, "{list}");
    }
    assert_eq!(client(&[]), "10.9.9.9");
    let lines = ["x-forwarded-for: 192.0.2.1", "x-forwarded-for: 10.0.0.1"];
    assert_eq!(client(&lines), "192.0.2.1");
}

#[test]
fn forwarded_names_the_client_by_the_same_rule() {
    let cases = [
        ("for=192.0.2.1", "192.0.2.1"),
        ("For=\"192.0.2.1:4711\";proto=http", "192.0.2.1"),
        ("proto=https ; FOR=\"[2001:db8:cafe::17]:4711\" ; by=203.0.113.43", "2001:db8:cafe::17"),
        ("for=\"[2001:db8::1]:_port\"", "2001:db8::1"),
        ("for=203.0.113.9, for=192.0.2.1, for=10.0.0.1;host=\"a,b\"", "192.0.2.1"),
        ("for=192.0.2.1,for=unknown", "10.9.9.9"),
        ("for=192.0.2.1, for=_hidden, for=10.0.0.1", "10.0.0.1"),
        ("for=192.0.2.1, proto=https, for=10.0.0.1", "10.0.0.1"),
        ("for=192.0.2.1, for=10.0.0.2;for=10.0.0.3, for=10.0.0.1", "10.0.0.1"),
        ("for=192.0.2.1, for=\"10.0.0.\\2\", for=10.0.0.1", "10.0.0.1"),
        // What a client wrote in front does not change how the hop behind it is read.
        ("for=\", for=192.0.2.1", "192.0.2.1"),
        ("for=10.0.0.5;x=\"\\\", for=192.0.2.1;proto=https", "192.0.2.1"),
        ("for=10.0.0.5;x=\"a\\\", for=192.0.2.1;x=\"y\"", "192.0.2.1"),
        ("for=10.0.0.5, for=192.0.2.1;x=\"\\\\\\\",\"", "192.0.2.1"),
        ("nonsense", "10.9.9.9"),
    ];
    for (list, expected) in cases {
        assert_eq!(client(&[&format!("forwarded: {list}")]), expected, "{list}");
    }
    let lines = ["forwarded: for=192.0.2.1;x=\"", "forwarded: for=10.0.0.1"];
    assert_eq!(client(&lines), "10.0.0.1", "an open quote ends with its line");
}

#[test]
fn where_both_are_there_x_forwarded_for_decides() {
    let lines = ["forwarded: for=203.0.113.9", "x-forwarded-for: 192.0.2.1"];
    assert_eq!(client(&lines), "192.0.2.1");
    assert_eq!(client(&["forwarded: for=203.0.113.9", "x-forwarded-for: unknown"]), "10.9.9.9");
}

fn told(lines: &[&str]) -> String {
    let told = Told::of(&fields(lines), PEER, trusted);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (before, after) = told.elements.split_at(told.client_end);
    let host = told.host.as_deref().map_or("-".to_owned(), text);
    let port = told.port.map_or("-".to_owned(), |port| port.to_string());
    let proto = told.proto.unwrap_or("-");
    format!("{}| {}!{}| {proto} {host} {port}", text(&told.list), text(before), text(after))
}

#[test]
fn lists_are_told_in_both_forms() {
    let cases = [
        (&["x-forwarded-for: 192.0.2.1"][..], "192.0.2.1, | for=192.0.2.1!, | - - -"),
        (
            &["x-forwarded-for: 203.0.113.9,192.0.2.1:80", "x-forwarded-for: fd00::1"],
            "203.0.113.9, 192.0.2.1:80, fd00::1, \
             | for=203.0.113.9, for=192.0.2.1!, for=\"[fd00::1]\", | - - -",
        ),
        (
            &["x-forwarded-for: a\"b, _c, 10.0.0.1"],
            "a\"b, _c, 10.0.0.1, | for=unknown, for=_c!, for=10.0.0.1, | - - -",
        ),
        (
            &["forwarded: for=1.2.3.4;host=evil, for=\"[2001:DB8::1]:1\";proto=HTTPS;\
                 host=A.b:8443, for=10.0.0.1;proto=http;host=inner"],
            "1.2.3.4, 2001:db8::1, 10.0.0.1, \
             | for=1.2.3.4, for=\"[2001:db8::1]\"!, for=10.0.0.1, | https a.b:8443 -",
        ),
        (
            &["forwarded: for=_x;by=_y, proto=https;host=\"a:443\""],
            "_x, unknown, | for=_x, for=unknown!, | https a -",
        ),
        (&[], "| !| - - -"),
    ];
    for (lines, expected) in cases {
        assert_eq!(told(lines), expected, "{lines:?}");
    }
}

#[test]
fn what_was_asked_for_is_believed_if_it_is_one_well_formed_value() {
    let cases = [
        ("x-forwarded-proto: HTTPS", "https - -"),
        ("x-forwarded-proto: wss", "wss - -"),
        ("x-forwarded-proto: https, http", "- - -"),
        ("x-forwarded-proto: gopher", "- - -"),
        ("x-forwarded-proto:", "- - -"),
        ("x-forwarded-host: Shop.Example.COM:8443", "- shop.example.com:8443 -"),
        ("x-forwarded-host: [2001:DB8::1]", "- [2001:db8::1] -"),
        ("x-forwarded-host: a.example, b.example", "- - -"),
        ("x-forwarded-host: a/b", "- - -"),
        ("x-forwarded-host: user@a", "- - -"),
        ("x-forwarded-host:", "- - -"),
        ("x-forwarded-port: 8443", "- - 8443"),
        ("x-forwarded-port: 0", "- - -"),
        ("x-forwarded-port: 0443", "- - -"),
        ("x-forwarded-port: 65536", "- - -"),
        ("x-forwarded-port: +443", "- - -"),
        ("x-forwarded-port: 443, 80", "- - -"),
        ("x-forwarded-port:", "- - -"),
        ("forwarded: for=192.0.2.1;proto=ftp;host=\"a b\"", "- - -"),
    ];
    for (line, expected) in cases {
        let seen = told(&[line]);
        assert_eq!(seen.rsplit("| ").next(), Some(expected), "{line}");
    }
    for name in ["proto: https", "host: a.example", "port: 443"] {
        let line = format!("x-forwarded-{name}");
        assert!(told(&[&line, &line]).ends_with("| - - -"), "{name} twice");
    }
}

#[test]
fn an_element_goes_before_fields_about_the_same() {
    let x = ["x-forwarded-proto: http", "x-forwarded-host: x.example", "x-forwarded-port: 81"];
    let with = |element| told(&[&[element], &x[..]].concat());
    let whole = with("forwarded: for=192.0.2.1;proto=https;host=f.example");
    assert!(whole.ends_with("| https f.example -"), "{whole}");
    let silent = with("forwarded: for=192.0.2.1");
    assert!(silent.ends_with("| http x.example 81"), "{silent}");
    let both = told(&[
        "x-forwarded-for: 192.0.2.1",
        "forwarded: for=203.0.113.9;proto=https;host=f.example",
    ]);
    assert_eq!(both, "192.0.2.1, | for=192.0.2.1!, | - - -");
}

#[test]
fn no_more_hops_are_passed_on_than_anybody_has() {
    let list = format!("x-forwarded-for: 192.0.2.1{}", ", 10.0.0.1".repeat(HOPS_MAX));
    let fields = fields(&[&list]);
    assert_eq!(Hops::of(&fields).client(PEER, trusted).0, IpAddr::from([10, 0, 0, 1]));
    let told = Told::of(&fields, PEER, trusted);
    assert_eq!(told.list, "10.0.0.1, ".repeat(HOPS_MAX).into_bytes());
}

#[test]
fn a_host_that_is_no_token_is_quoted() {
    for (host, expected) in [
        ("a.example", ";proto=https;host=a.example"),
        ("a.example:81", ";proto=https;host=\"a.example:81\""),
        ("[2001:db8::1]", ";proto=https;host=\"[2001:db8::1]\""),
        ("", ";proto=https"),
    ] {
        let mut out = host.as_bytes().to_vec();
        write_asked(&mut out, "https", Span::new(0, host.len()));
        assert_eq!(out[host.len()..].escape_ascii().to_string().replace('\\', ""), expected);
    }
}

#[test]
fn any_bytes_are_read_and_what_is_written_is_well_formed() {
    // xorshift, so that a failure repeats.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let alphabet: [&str; 14] =
        ["for=", "\"", "\\", ",", ";", "=", "10.0.0.1", "192.0.2.1", "[", "]", ":", "_", "é", " "];
    for _ in 0..20_000 {
        let text: String = (0..next(12)).map(|_| alphabet[next(alphabet.len())]).collect();
        for name in ["forwarded", "x-forwarded-for"] {
            let told = Told::of(&fields(&[&format!("{name}: {text}")]), PEER, trusted);
            let elements = String::from_utf8(told.elements).unwrap();
            for element in elements.split_terminator(", ") {
                let node = element.strip_prefix("for=").unwrap();
                let node =
                    node.strip_prefix("\"[").and_then(|n| n.strip_suffix("]\"")).unwrap_or(node);
                let named = node.parse::<IpAddr>().is_ok();
                assert!(named || label(node.as_bytes()) == node.as_bytes(), "{text}: {elements}");
            }
        }
    }
}
