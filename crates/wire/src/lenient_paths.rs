//! How backends are known to read a path: decoded up to three times, with `\` for `/`, without
//! parameters, cut at NUL. Which of these a backend does is nobody's guess.

/// A reading of the target that leads to `/admin`, if there is one.
#[must_use]
pub fn read_as_admin(target: &[u8]) -> Option<String> {
    let mut text = without_authority(target).to_vec();
    for _ in 0..3 {
        let decoded = percent_decode(&text);
        for end in [end_of_path(&text), &decoded[..end_of_path(&decoded).len()]] {
            for path in [resolve(end), resolve(&fold(end))] {
                if path == b"/admin" || path.starts_with(b"/admin/") {
                    return Some(path.escape_ascii().to_string());
                }
            }
        }
        text = decoded;
    }
    None
}

/// `http://a.test/c` as `/c`.
fn without_authority(target: &[u8]) -> &[u8] {
    let scheme = target.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    match target[scheme..].strip_prefix(b"://") {
        Some(rest) if scheme > 0 => {
            let path = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
            &rest[path.unwrap_or(rest.len())..]
        }
        _ => target,
    }
}

fn end_of_path(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| matches!(byte, b'?' | b'#'));
    &text[..end.unwrap_or(text.len())]
}

/// What looks like a slash becomes one: the full-width solidus, and its overlong encoding.
fn fold(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let long = [&b"\xef\xbc\x8f"[..], b"\xc0\xaf"].into_iter().find(|c| rest.starts_with(c));
        out.push(if long.is_some() { b'/' } else { *first });
        rest = long.map_or(tail, |long| &rest[long.len()..]);
    }
    out
}

fn resolve(path: &[u8]) -> Vec<u8> {
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            name => {
                let kept = name.iter().rposition(|byte| !matches!(byte, b' ' | b'.' | b'\t'));
                segments.push(&name[..kept.map_or(0, |last| last + 1)]);
            }
        }
    }
    [b"/", &segments.join(&b'/')[..]].concat()
}

pub(crate) fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *byte == b'%').and_then(|two| {
            let two = std::str::from_utf8(two).ok()?;
            u8::from_str_radix(two, 16).ok()
        });
        out.push(hex.unwrap_or(*byte));
        rest = if hex.is_some() { &tail[2..] } else { tail };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_admin_is_known() {
        for target in [
            "/admin",
            "/admin/x",
            "//admin",
            "/./admin",
            "/x/../admin",
            "/%61dmin",
            "/%2561dmin",
            "/x%2f..%2fadmin",
            "/x\\..\\admin",
            "/admin;a=b/c",
            "/x/..;/admin",
            "/admin%00.css",
            "/admin?x",
            "/admin%3fx",
            "http://a.test/admin",
            "/%ef%bc%8fadmin",
            "/admin.",
            "/admin%20",
        ] {
            assert!(read_as_admin(target.as_bytes()).is_some(), "{target}");
        }
        for target in
            ["/c", "/administration", "/x/admin", "/c?/admin", "http://admin/c", "/.admin"]
        {
            assert_eq!(read_as_admin(target.as_bytes()), None, "{target}");
        }
    }
}
