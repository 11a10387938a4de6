//! What each spelling of a path becomes, and what holds for all of them.

use expect_test::expect;
use proptest::prelude::*;

use super::*;

const KEEP: PathRules =
    PathRules { encoded_slash: Treatment::Keep, semicolon: Treatment::Keep, merge_slashes: true };

fn canonical(path: &[u8], rules: &PathRules) -> Result<Vec<u8>, PathError> {
    let mut out = b"before".to_vec();
    let result = canonicalise(path, rules, &mut out);
    assert_eq!(&out[..6], b"before");
    match result {
        Ok(Canonical::Rewritten) => Ok(out[6..].to_vec()),
        Ok(Canonical::Unchanged) => {
            assert_eq!(out.len(), 6);
            Ok(path.to_vec())
        }
        Err(error) => {
            assert_eq!(out.len(), 6);
            Err(error)
        }
    }
}

fn table(rules: &PathRules, paths: &[&str]) -> String {
    let line = |path: &&str| match canonical(path.as_bytes(), rules) {
        Ok(out) => {
            format!("{:28} {}\n", path.escape_debug().to_string(), String::from_utf8(out).unwrap())
        }
        Err(error) => format!("{:28} ! {error}\n", path.escape_debug().to_string()),
    };
    paths.iter().map(line).collect()
}

#[test]
fn by_default_whatever_has_two_readings_is_refused() {
    let seen = table(
        &PathRules::default(),
        &[
            "/",
            "/c",
            "/a/b/",
            "/.well-known/x",
            "/a.b/c..d/..e",
            "/admin",
            "/public/../admin",
            "/public/%2e%2e/admin",
            "/public/.%2E/admin",
            "//admin",
            "/a///b//",
            "/./admin",
            "/%61dmin",
            "/a/.",
            "/a/./",
            "/a/b/..",
            "/a/..",
            "/a//../b",
            "/..",
            "/../a",
            "/a/../../b",
            "/%2e%2e",
            "/%7Euser/%E2%82%AC",
            "/%7euser/%e2%82%ac",
            "/a%40b%2b",
            "/a b",
            "/a%20b",
            "/a|b",
            "/{id}",
            "/a\"<>^`[]",
            "/public%2f..%2fadmin",
            "/public/..%2fadmin",
            "/admin;x=1/y",
            "/public/..;/admin",
            "/a%3bb",
            "/public\\..\\admin",
            "/%5cadmin",
            "/admin%3f",
            "/admin%23",
            "/admin%00.css",
            "/%0a",
            "/%7f",
            "/%c2%85",
            "/public/%252e%252e/admin",
            "/%25",
            "/c%zz",
            "/c%",
            "/c%4",
            "/%u002e",
            "/%c0%af",
            "/%c0%ae",
            "/%e0%80%af",
            "/%ff",
            "/%E9",
            "/%e2%82",
            "/%e2%82x",
            "/%ed%a0%80",
            "/%ef%bc%8fadmin",
            "/%ef%bc%8e%ef%bc%8e/admin",
            "/%e2%88%95admin",
            "/admin.",
            "/admin./x",
            "/admin..",
            "/...",
            "/admin%20",
            "/admin%20/x",
            "/admin%2e",
            "/%20admin",
            "/admin%09",
            "/admin%c2%a0",
            "/caf\u{e9}",
            "/a#b",
            "",
            "a",
            "*",
            "/a\tb",
            "/a\u{1}",
        ],
    );
    expect![[r#"
        /                            /
        /c                           /c
        /a/b/                        /a/b/
        /.well-known/x               /.well-known/x
        /a.b/c..d/..e                /a.b/c..d/..e
        /admin                       /admin
        /public/../admin             /admin
        /public/%2e%2e/admin         /admin
        /public/.%2E/admin           /admin
        //admin                      /admin
        /a///b//                     /a/b/
        /./admin                     /admin
        /%61dmin                     /admin
        /a/.                         /a/
        /a/./                        /a/
        /a/b/..                      /a/
        /a/..                        /
        /a//../b                     /b
        /..                          ! path-above-root
        /../a                        ! path-above-root
        /a/../../b                   ! path-above-root
        /%2e%2e                      ! path-above-root
        /%7Euser/%E2%82%AC           /~user/%E2%82%AC
        /%7euser/%e2%82%ac           /~user/%E2%82%AC
        /a%40b%2b                    /a%40b%2B
        /a b                         ! path-control-byte
        /a%20b                       /a%20b
        /a|b                         /a%7Cb
        /{id}                        /%7Bid%7D
        /a\"<>^`[]                   /a%22%3C%3E%5E%60%5B%5D
        /public%2f..%2fadmin         ! path-encoded-slash
        /public/..%2fadmin           ! path-encoded-slash
        /admin;x=1/y                 ! path-semicolon
        /public/..;/admin            ! path-semicolon
        /a%3bb                       ! path-semicolon
        /public\\..\\admin           ! path-backslash
        /%5cadmin                    ! path-backslash
        /admin%3f                    ! path-encoded-delimiter
        /admin%23                    ! path-encoded-delimiter
        /admin%00.css                ! path-control-byte
        /%0a                         ! path-control-byte
        /%7f                         ! path-control-byte
        /%c2%85                      ! path-control-byte
        /public/%252e%252e/admin     ! path-encoded-percent
        /%25                         ! path-encoded-percent
        /c%zz                        ! path-bad-escape
        /c%                          ! path-bad-escape
        /c%4                         ! path-bad-escape
        /%u002e                      ! path-bad-escape
        /%c0%af                      ! path-bad-utf8
        /%c0%ae                      ! path-bad-utf8
        /%e0%80%af                   ! path-bad-utf8
        /%ff                         ! path-bad-utf8
        /%E9                         ! path-bad-utf8
        /%e2%82                      ! path-bad-utf8
        /%e2%82x                     ! path-bad-utf8
        /%ed%a0%80                   ! path-bad-utf8
        /%ef%bc%8fadmin              ! path-lookalike-character
        /%ef%bc%8e%ef%bc%8e/admin    ! path-lookalike-character
        /%e2%88%95admin              ! path-lookalike-character
        /admin.                      ! path-segment-edge
        /admin./x                    ! path-segment-edge
        /admin..                     ! path-segment-edge
        /...                         ! path-segment-edge
        /admin%20                    ! path-segment-edge
        /admin%20/x                  ! path-segment-edge
        /admin%2e                    ! path-segment-edge
        /%20admin                    ! path-segment-edge
        /admin%09                    ! path-control-byte
        /admin%c2%a0                 ! path-segment-edge
        /café                        ! path-non-ascii
        /a#b                         ! path-fragment
                                     ! path-not-absolute
        a                            ! path-not-absolute
        *                            ! path-not-absolute
        /a\tb                        ! path-control-byte
        /a\u{1}                      ! path-control-byte
    "#]]
    .assert_eq(&seen);
}

#[test]
fn what_may_be_kept_still_hides_no_dot_segment() {
    let seen = table(
        &KEEP,
        &[
            "/a%2fb",
            "/a%2Fb/c",
            "/public%2f..%2fadmin",
            "/..%2fadmin",
            "/a%2f.",
            "/%2fadmin",
            "/a%2f%2fb",
            "/a%2f",
            "/admin;x=1/y",
            "/a;x=..;y/b",
            "/a%3bb",
            "/..;/admin",
            "/.;x/admin",
            "/;x/admin",
            "/admin.;x",
            "/admin%20%3bx",
            "/a;b%2f..",
            "/a;b%2fc",
            "/%5c",
            "/%252f",
        ],
    );
    expect![[r#"
        /a%2fb                       /a%2Fb
        /a%2Fb/c                     /a%2Fb/c
        /public%2f..%2fadmin         ! path-segment-edge
        /..%2fadmin                  ! path-segment-edge
        /a%2f.                       ! path-segment-edge
        /%2fadmin                    ! path-empty-segment
        /a%2f%2fb                    ! path-empty-segment
        /a%2f                        /a%2F
        /admin;x=1/y                 /admin;x=1/y
        /a;x=..;y/b                  /a;x=..;y/b
        /a%3bb                       /a%3Bb
        /..;/admin                   ! path-segment-edge
        /.;x/admin                   ! path-segment-edge
        /;x/admin                    ! path-empty-segment
        /admin.;x                    ! path-segment-edge
        /admin%20%3bx                ! path-segment-edge
        /a;b%2f..                    ! path-segment-edge
        /a;b%2fc                     /a;b%2Fc
        /%5c                         ! path-backslash
        /%252f                       ! path-encoded-percent
    "#]]
    .assert_eq(&seen);
}

#[test]
fn kept_empty_segments_are_not_popped() {
    let rules = PathRules { merge_slashes: false, ..PathRules::default() };
    let seen = table(&rules, &["//a", "/a//b", "/a//", "/a//../b", "/a/..//b", "/a/b/../c"]);
    expect![[r#"
        //a                          //a
        /a//b                        /a//b
        /a//                         /a//
        /a//../b                     ! path-empty-segment
        /a/..//b                     //b
        /a/b/../c                    /a/c
    "#]]
    .assert_eq(&seen);
}

#[test]
fn a_query_is_printable_ascii_without_a_fragment() {
    assert_eq!(split_query(b"/a?b?c"), (&b"/a"[..], Some(&b"b?c"[..])));
    assert_eq!(split_query(b"/a?"), (&b"/a"[..], Some(&b""[..])));
    assert_eq!(split_query(b"/a"), (&b"/a"[..], None));
    assert_eq!(check_query(b"a=%zz&b=/../;\\|\"{}"), Ok(()));
    assert_eq!(check_query(b"a#b"), Err(PathError::Fragment));
    assert_eq!(check_query(b"a b"), Err(PathError::ControlByte));
    assert_eq!(check_query(b"a\0b"), Err(PathError::ControlByte));
    assert_eq!(check_query("\u{e9}".as_bytes()), Err(PathError::NonAscii));
}

/// Pieces that mean something to somebody, so that random paths are hostile more often than not.
fn hostile_path() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => Just("/"), 3 => Just("."), 2 => Just(".."), 1 => Just("..;"), 1 => Just(";"),
        1 => Just("%2e"), 1 => Just("%2E"), 1 => Just("%2f"), 1 => Just("%5C"), 1 => Just("%25"),
        1 => Just("%3b"), 1 => Just("%3f"), 1 => Just("%20"), 1 => Just("%00"), 1 => Just("\\"),
        1 => Just("%c0%af"), 1 => Just("%ef%bc%8f"), 1 => Just("%E2%82%AC"), 2 => Just("admin"),
        2 => Just("%61"), 1 => Just("|"), 1 => Just(" "), 1 => Just("@:+"), 1 => Just("%"),
        1 => Just("%40"), 1 => Just("a;b=c"), 1 => Just("x"),
    ];
    prop::collection::vec(piece, 0..12)
        .prop_map(|pieces| format!("/{}", pieces.concat()).into_bytes())
}

fn rules() -> impl Strategy<Value = PathRules> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(slash, semicolon, merge_slashes)| {
        let treatment = |keep| if keep { Treatment::Keep } else { Treatment::Refuse };
        PathRules {
            encoded_slash: treatment(slash),
            semicolon: treatment(semicolon),
            merge_slashes,
        }
    })
}

fn unescape_all(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match unescape(&text[at..]) {
            Ok(byte) if text[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

/// A backend that decodes `rounds` times and reads all that anybody is known to read leniently.
fn lenient_segments(path: &[u8], rounds: usize) -> Vec<Vec<u8>> {
    let mut text = path.to_vec();
    for _ in 0..rounds {
        text = unescape_all(&text);
    }
    for (from, to) in [
        (&b"\\"[..], &b"/"[..]),
        (b"\xef\xbc\x8f", b"/"),
        (b"\xc0\xaf", b"/"),
        (b"\xef\xbc\x8e", b"."),
    ] {
        while let Some(at) = memchr::memmem::find(&text, from) {
            text.splice(at..at + from.len(), to.iter().copied());
        }
    }
    let end = text.iter().position(|byte| matches!(byte, 0 | b'?' | b'#')).unwrap_or(text.len());
    let mut segments: Vec<Vec<u8>> = Vec::new();
    for segment in text[..end].split(|byte| *byte == b'/') {
        let name = segment.split(|byte| *byte == b';').next().unwrap();
        match name {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            _ => segments.push(name.trim_ascii().to_ascii_lowercase()),
        }
    }
    for segment in &mut segments {
        while segment.last().is_some_and(|byte| matches!(byte, b'.' | b' ' | b'\t')) {
            segment.pop();
        }
    }
    segments
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn canonical_paths_stay_as_they_are(path in hostile_path(), rules in rules()) {
        if let Ok(first) = canonical(&path, &rules) {
            let mut out = Vec::new();
            prop_assert_eq!(canonicalise(&first, &rules, &mut out), Ok(Canonical::Unchanged));
            prop_assert_eq!(first.first(), Some(&b'/'));
        }
    }

    #[test]
    fn any_bytes_give_a_canonical_path_or_an_error(path: Vec<u8>, rules in rules()) {
        if let Ok(first) = canonical(&path, &rules) {
            prop_assert_eq!(canonical(&first, &rules), Ok(first));
        }
    }

    /// What the router sees is what every lenient backend sees, however often it decodes.
    #[test]
    fn no_lenient_backend_reads_another_path(path in hostile_path()) {
        let Ok(path) = canonical(&path, &PathRules::default()) else { return Ok(()) };
        let strict: Vec<Vec<u8>> = path
            .split(|byte| *byte == b'/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| unescape_all(segment).to_ascii_lowercase())
            .collect();
        for rounds in 1..=3 {
            prop_assert_eq!(&lenient_segments(&path, rounds), &strict);
        }
    }

    /// A backend that keeps to what the operator said of it sees no dot segment either.
    #[test]
    fn kept_constructs_never_climb(path in hostile_path(), rules in rules()) {
        let Ok(path) = canonical(&path, &rules) else { return Ok(()) };
        for piece in unescape_all(&path).split(|byte| *byte == b'/') {
            let name = piece.split(|byte| *byte == b';').next().unwrap();
            prop_assert!(name != b"." && name != b"..", "{:?}", String::from_utf8_lossy(&path));
        }
    }

    #[test]
    fn the_fast_way_and_the_slow_way_agree(path in "/[a-z./~%0-9A-F]{0,20}") {
        if is_plainly_canonical(path.as_bytes()) {
            let mut out = Vec::new();
            prop_assert_eq!(rewrite(path.as_bytes(), &PathRules::default(), &mut out), Ok(()));
            prop_assert_eq!(out, path.as_bytes());
        }
    }
}
