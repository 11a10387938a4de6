use expect_test::{Expect, expect};
use http::Method;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::*;

/// `GET,POST *.example.com /users/{id} header:x-a=1 header:x-b query:q~regex on:0,1`; a path that
/// begins with `~` is a regular expression.
fn pattern(route: u32, text: &str) -> RoutePattern {
    let mut words = text.split(' ');
    let methods = words.next().unwrap();
    let hosts = words.next().unwrap();
    let path = words.next().unwrap();
    let mut pattern = RoutePattern {
        route: RouteIndex(route),
        hosts: hosts.split(',').map(|host| HostPattern::parse(host).unwrap()).collect(),
        path: match path.strip_prefix('~') {
            Some(source) => PathPattern::regex(source).unwrap(),
            None => PathPattern::parse(path).unwrap(),
        },
        methods: match methods {
            "*" => Vec::new(),
            some => some.split(',').map(|m| Method::from_bytes(m.as_bytes()).unwrap()).collect(),
        },
        headers: Vec::new(),
        query: Vec::new(),
        listeners: Vec::new(),
    };
    for word in words {
        let (kind, rest) = word.split_once(':').unwrap();
        match kind {
            "header" => pattern.headers.push(condition(rest)),
            "query" => pattern.query.push(condition(rest)),
            _ => pattern.listeners = rest.split(',').map(|l| l.parse().unwrap()).collect(),
        }
    }
    pattern
}

fn condition(text: &str) -> Condition {
    let at = text.find(['=', '^', '~']);
    let (name, value) = at.map_or((text, ""), |at| text.split_at(at));
    let name = name.to_owned();
    let value = match (value.get(..1), value.get(1..)) {
        (Some("="), Some(text)) => ValuePattern::Exact(text.to_owned()),
        (Some("^"), Some(text)) => ValuePattern::Prefix(text.to_owned()),
        (Some(_), Some(text)) => ValuePattern::Regex(Expression::new(text).unwrap()),
        _ => ValuePattern::Present,
    };
    Condition { name, value }
}

fn patterns(texts: &[&str]) -> Vec<RoutePattern> {
    texts.iter().enumerate().map(|(route, text)| pattern(route as u32, text)).collect()
}

/// `GET api.example.com/path?query x-a:1 x-b:2`
fn head(text: &str) -> RequestHead {
    let mut words = text.split(' ');
    let method = words.next().unwrap();
    let (host, target) = words.next().unwrap().split_once('/').unwrap();
    let target = format!("/{target}");
    let (path, query) = target.split_once('?').map_or((&*target, None), |(p, q)| (p, Some(q)));
    let mut head = RequestHead {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        ..RequestHead::default()
    };
    head.host = head.fields.intern(host.as_bytes());
    head.set_path(path.as_bytes());
    head.set_query(query.map(str::as_bytes));
    for word in words {
        let (name, value) = word.split_once(':').unwrap();
        head.fields.append(name.as_bytes(), value.as_bytes());
    }
    head
}

/// Each request with the route that takes it and what was captured.
fn check(texts: &[&str], requests: &[&str], expected: &Expect) {
    let router = Router::build(&patterns(texts));
    let mut params = Params::default();
    let mut seen = String::new();
    for request in requests {
        let head = head(request);
        let found = match router.find(0, &head, &mut params) {
            Some(route) => {
                let names = params.names.as_deref().unwrap_or_default();
                let captured: Vec<String> = std::iter::zip(names, params.values)
                    .map(|(name, span)| {
                        format!(" {name}={}", String::from_utf8_lossy(span.of(head.fields.bytes())))
                    })
                    .collect();
                format!("{}{}", texts[route.0 as usize], captured.concat())
            }
            None => match router.allowed(0, &head) {
                Some(set) => format!("405 {}", set.names().collect::<Vec<_>>().join(", ")),
                None => "404".to_owned(),
            },
        };
        seen.push_str(&format!("{request} => {found}\n"));
    }
    expected.assert_eq(&seen);
}

fn check_findings(texts: &[&str], expected: &Expect) {
    let patterns = patterns(texts);
    let (_, findings) = Router::compile(&patterns, 2);
    let mut seen = String::new();
    for finding in findings {
        seen.push_str(&format!("{:?} {}", finding.kind, texts[finding.pattern]));
        if let Some(other) = finding.other {
            seen.push_str(&format!(" | {}", texts[other.0 as usize]));
        }
        if let Some(example) = finding.example {
            seen.push_str(&format!(" | {example}"));
        }
        seen.push('\n');
    }
    expected.assert_eq(&seen);
}

#[test]
fn hosts_from_exact_to_any() {
    check(
        &["* a.example.com /**", "* *.b.example.com /**", "* *.example.com /**", "* * /any"],
        &[
            "GET a.example.com/x",
            "GET x.a.example.com/x",
            "GET x.y.b.example.com/x",
            "GET b.example.com/x",
            "GET example.com/any",
            "GET example.com/x",
        ],
        &expect![[r#"
            GET a.example.com/x => * a.example.com /**
            GET x.a.example.com/x => * *.example.com /**
            GET x.y.b.example.com/x => * *.b.example.com /**
            GET b.example.com/x => * *.example.com /**
            GET example.com/any => * * /any
            GET example.com/x => 404
        "#]],
    );
}

#[test]
fn paths_from_exact_to_expression() {
    check(
        &[
            "* * /users/me",
            "* * /users/{id}",
            "* * /users/{id}/{part}",
            "* * /users/{id}/posts",
            "* * /users/**",
            "* * /users/{id}/posts/**",
            "* * /users/7/posts/**",
            "* * ~/users/.*|/other/[0-9]+",
            "* * /",
        ],
        &[
            "GET h/users/me",
            "GET h/users/1",
            "GET h/users/",
            "GET h/users",
            "GET h/usersx",
            "GET h/users/1/posts",
            "GET h/users/1/likes",
            "GET h/users/1/posts/2",
            "GET h/users/7/posts/2",
            "GET h/users/1/likes/2",
            "GET h/other/12",
            "GET h/other/12x",
            "GET h/",
        ],
        &expect![[r#"
            GET h/users/me => * * /users/me
            GET h/users/1 => * * /users/{id} id=1
            GET h/users/ => * * /users/**
            GET h/users => * * /users/**
            GET h/usersx => 404
            GET h/users/1/posts => * * /users/{id}/posts id=1
            GET h/users/1/likes => * * /users/{id}/{part} id=1 part=likes
            GET h/users/1/posts/2 => * * /users/{id}/posts/** id=1
            GET h/users/7/posts/2 => * * /users/7/posts/**
            GET h/users/1/likes/2 => * * /users/**
            GET h/other/12 => * * ~/users/.*|/other/[0-9]+
            GET h/other/12x => 404
            GET h/ => * * /
        "#]],
    );
}

#[test]
fn methods_headers_and_query_after_the_path() {
    check(
        &[
            "GET * /a/**",
            "* * /a/** header:x-a",
            "POST * /a/** header:x-a=1",
            "POST * /a/** header:x-a^1 query:q",
            "DELETE * /a/b",
            "PUT * /b",
        ],
        &[
            "GET h/a/b",
            "HEAD h/a/b x-a:2",
            "PATCH h/a/b x-a:2",
            "POST h/a/b x-a:1",
            "POST h/a/b?q x-a:1",
            "POST h/a/b?q x-a:1 x-a:1",
            "POST h/a/b",
            "GET h/b",
            "OPTIONS h/b origin:https://o access-control-request-method:PUT",
            "OPTIONS h/b origin:https://o",
            "OPTIONS h/a/x origin:https://o access-control-request-method:HEAD",
        ],
        &expect![[r#"
            GET h/a/b => GET * /a/**
            HEAD h/a/b x-a:2 => GET * /a/**
            PATCH h/a/b x-a:2 => * * /a/** header:x-a
            POST h/a/b x-a:1 => POST * /a/** header:x-a=1
            POST h/a/b?q x-a:1 => POST * /a/** header:x-a^1 query:q
            POST h/a/b?q x-a:1 x-a:1 => * * /a/** header:x-a
            POST h/a/b => 405 GET, HEAD, DELETE
            GET h/b => 405 PUT
            OPTIONS h/b origin:https://o access-control-request-method:PUT => PUT * /b
            OPTIONS h/b origin:https://o => 405 PUT
            OPTIONS h/a/x origin:https://o access-control-request-method:HEAD => GET * /a/**
        "#]],
    );
}

#[test]
fn ties_come_with_a_request() {
    check_findings(
        &["* a.com,b.com /x/{id}", "GET b.com /x/{name}", "* b.com /x/{other}"],
        &expect![[r#"
            Tie * b.com /x/{other} | * a.com,b.com /x/{id} | GET b.com/x/any
        "#]],
    );
    check_findings(
        &["* * /x header:a^v1 query:q", "* * /x header:a^v query:r=1", "* * /x header:a=w query:q"],
        &expect![[r#"
            Tie * * /x header:a^v query:r=1 | * * /x header:a^v1 query:q | GET any/x?q=any&r=1 with a: v1any
        "#]],
    );
    check_findings(
        &["* * /x on:0", "* * /x on:1", "* * /x on:1,0"],
        &expect![[r#"
        Tie * * /x on:1,0 | * * /x on:0 | GET any/x
        Tie * * /x on:1,0 | * * /x on:1 | GET any/x
    "#]],
    );
    check_findings(
        &["* * ~/v[0-9]+/.*", "* * ~/v1.*/x", "* * ~/w/.*", "POST * ~/w/a"],
        &expect![[r#"
            Tie * * ~/v1.*/x | * * ~/v[0-9]+/.* | GET any/v1/x
        "#]],
    );
    check_findings(
        &["* * /x header:a~v[0-9]+", "* * /x header:a~v1.*", "* * /x header:a~w"],
        &expect![[r#"
            Tie * * /x header:a~v1.* | * * /x header:a~v[0-9]+ | GET any/x with a: v1
        "#]],
    );
}

#[test]
fn unreachable_routes_come_with_who_takes_their_requests() {
    check_findings(
        &["* * ~/a/[a-z]+", "* * /a/{x}", "* * ~/a/[a-z]*/c"],
        &expect![[r#"
        Unreachable * * ~/a/[a-z]+ | * * /a/{x} | GET any/a/a
    "#]],
    );
    check_findings(
        &[
            "* a.com,b.com /a/**",
            "* * /a/b",
            "GET a.com /a",
            "* a.com,b.com /a/{x}/**",
            "* a.com /a",
            "* a.com /a/",
        ],
        &expect![[r#"
            PartlyUnreachable * a.com,b.com /a/** | GET a.com /a | GET a.com/a
        "#]],
    );
    check_findings(
        &["GET,POST * /a", "GET * /a header:x", "* * /a/** header:x=1 header:x=2", "HEAD * /b"],
        &expect![[r#"
            NeverMatches * * /a/** header:x=1 header:x=2
            HeadAlone HEAD * /b
        "#]],
    );
    check_findings(
        &["* * /a header:x~.*", "GET * /a header:x", "* * /a header:x query:q"],
        &expect![[r#""#]],
    );
}

#[test]
fn hosts_and_paths_that_are_refused() {
    let mut seen = String::new();
    for text in ["a", "/a/**/b", "/a/*", "/a//b", "/{a}/{a}", "/x{a}", "/{}", "/a?b", "/a//**"] {
        seen.push_str(&format!("{text}: {}\n", PathPattern::parse(text).unwrap_err()));
    }
    for text in ["", "a..b", "*a.com", "a.*", "a b", "[::g]", "*."] {
        seen.push_str(&format!("{text}: {}\n", HostPattern::parse(text).unwrap_err()));
    }
    expect![[r#"
        a: must begin with `/`
        /a/**/b: may have `**` only as its last segment
        /a/*: may have `**` only as its last segment, and no `*`
        /a//b: has an empty segment (`//`)
        /{a}/{a}: uses one name for two segments
        /x{a}: may have `{name}` only as a whole segment
        /{}: `{}` is not a name of a segment
        /a?b: may not hold `?` or `#`; queries have `query:`
        /a//**: has an empty segment (`//`)
        : has a label that is empty or longer than 63 characters
        a..b: has a label that is empty or longer than 63 characters
        *a.com: may have a `*` only as its whole first label
        a.*: may have a `*` only as its whole first label
        a b: has a character that no host name has
        [::g]: is not an IPv6 address in brackets
        *.: has a label that is empty or longer than 63 characters
    "#]]
    .assert_eq(&seen);
    assert_eq!(HostPattern::parse("[::0:1]").unwrap(), HostPattern::Exact("[::1]".to_owned()));
    assert_eq!(PathPattern::parse("/**").unwrap().to_string(), "/**");
    assert_eq!(PathPattern::parse("/a/").unwrap().to_string(), "/a/");
}

fn any_pattern() -> impl Strategy<Value = String> {
    let method = select(vec!["*", "*", "GET", "POST", "GET,POST", "HEAD,GET", "REPORT"]);
    let host =
        select(vec!["*", "a.com", "b.a.com", "*.a.com", "*.com", "*.b.a.com", "a.com,*.com"]);
    let segment = select(vec!["a", "b", "{x}"]);
    let path = (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(parts, tail)| {
        let mut names = ["x", "y", "z", "w"].iter();
        let mut path: String = parts
            .iter()
            .map(|part| match *part {
                "{x}" => format!("/{{{}}}", names.next().unwrap()),
                part => format!("/{part}"),
            })
            .collect();
        if tail || path.is_empty() {
            path.push_str("/**");
        }
        path
    });
    let path = prop_oneof![
        8 => path,
        1 => select(vec!["/", "/a/", "/a/b/"]).prop_map(str::to_owned),
        1 => select(vec!["~/a.*", "~.*b", "~/[ab](/c)?"]).prop_map(str::to_owned),
    ];
    let extra = select(vec![
        "",
        "",
        "",
        " header:h",
        " header:h=1",
        " header:h header:k",
        " query:q",
        " on:0",
        " on:1",
        " header:h~[0-9] query:q=1",
    ]);
    (method, host, path, extra).prop_map(|(m, h, p, extra)| format!("{m} {h} {p}{extra}"))
}

fn any_request() -> impl Strategy<Value = String> {
    let method = select(vec!["GET", "HEAD", "POST", "REPORT", "OPTIONS"]);
    let host = select(vec!["a.com", "b.a.com", "c.b.a.com", "x.com", "y"]);
    let segment = select(vec!["a", "b", "c", ""]);
    let path = prop::collection::vec(segment, 1..5).prop_map(|parts| parts.join("/"));
    let extra = select(vec!["", "?q", "?q=1", " h:1", " h:1 k:2", "?q=1 h:1", " h:1 h:1"]);
    (method, host, path, extra).prop_map(|(m, h, p, extra)| format!("{m} {h}/{p}{extra}"))
}

/// Always the same cases: a failure repeats.
fn runner(cases: u32) -> TestRunner {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]))
}

#[test]
fn the_router_agrees_with_the_order_as_documented() {
    let input = (
        prop::collection::vec(any_pattern(), 1..24),
        prop::collection::vec((0..2_u16, any_request()), 1..24),
    );
    runner(800)
        .run(&input, |(texts, requests)| {
            let patterns = patterns(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let router = Router::build(&patterns);
            let mut params = Params::default();
            for (listener, request) in requests {
                let head = head(&request);
                let found = router.find(listener, &head, &mut params);
                prop_assert_eq!(found, naive::find(&patterns, listener, &head), "{}", request);
                if found.is_none() {
                    let allowed = router.allowed(listener, &head);
                    let others = ["GET", "POST", "REPORT"].into_iter().filter(|method| {
                        let mut head = head.clone();
                        head.method = Method::from_bytes(method.as_bytes()).unwrap();
                        naive::find(&patterns, listener, &head).is_some()
                    });
                    let names: Vec<&str> = allowed.iter().flat_map(MethodSet::names).collect();
                    let names: Vec<&str> = names.into_iter().filter(|n| *n != "HEAD").collect();
                    prop_assert_eq!(names, others.collect::<Vec<_>>(), "{}", request);
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_found_holds_and_what_is_not_found_does_not() {
    let input = (
        prop::collection::vec(any_pattern(), 1..10),
        prop::collection::vec((0..2_u16, any_request()), 1..40),
    );
    runner(400)
        .run(&input, |(texts, requests)| {
            let patterns = patterns(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let (router, findings) = Router::compile(&patterns, 2);
            let of = |kind: FindingKind, route: RouteIndex| {
                findings.iter().any(|f| f.kind == kind && f.route == route)
            };
            for finding in &findings {
                let Some(example) = &finding.example else { continue };
                let taker = naive::find(&patterns, example.listener, &example.head());
                prop_assert!(taker.is_some() && taker != Some(finding.route), "{}", example);
            }
            let mut params = Params::default();
            for (listener, request) in requests {
                let head = head(&request);
                let Some(route) = router.find(listener, &head, &mut params) else { continue };
                prop_assert!(!of(FindingKind::Unreachable, route), "{} reaches it", request);
                // Whoever stands last and first gets the same requests unless there is a tie.
                let reversed: Vec<RoutePattern> = patterns.iter().rev().cloned().collect();
                let other = naive::find(&reversed, listener, &head).unwrap();
                let tied = findings.iter().any(|f| {
                    matches!(f.kind, FindingKind::Tie | FindingKind::TieCannotProve)
                        && (f.route == route || f.other == Some(route))
                });
                prop_assert!(other == route || tied, "{} is an unreported tie", request);
            }
            Ok(())
        })
        .unwrap();
}
