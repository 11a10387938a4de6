//! A strict reader of OpenMetrics text, for tests: it refuses whatever the specification does.

use std::collections::{BTreeMap, BTreeSet};

/// `name{labels} value` lines of a sound text, or the first thing that is wrong with it.
pub(crate) fn read(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("does not end in `# EOF`")?;
    let mut samples = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut family: Option<(String, String)> = None;
    for line in body.split_terminator('\n') {
        let fail = |why: &str| format!("{why}: {line}");
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, value) = (words.next(), words.next(), words.next());
            let (Some(what), Some(name), Some(value)) = (what, name, value) else {
                return Err(fail("metadata of three parts"));
            };
            let current = family.as_ref().is_some_and(|(current, _)| current == name);
            match what {
                "TYPE" if !seen.insert(name.to_owned()) => return Err(fail("family again")),
                "TYPE" if !is_name(name) => return Err(fail("not a name")),
                "TYPE" => family = Some((name.to_owned(), value.to_owned())),
                "UNIT" if current && name.ends_with(&format!("_{value}")) => {}
                "HELP" if current && !value.is_empty() => {}
                _ => return Err(fail("metadata of another family")),
            }
            continue;
        }
        let (name, labels, value) = split(line).ok_or_else(|| fail("not a sample"))?;
        let (family, kind) = family.as_ref().ok_or_else(|| fail("before its TYPE"))?;
        let suffix = name.strip_prefix(family.as_str()).ok_or_else(|| fail("of another family"))?;
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_count", "_sum"],
            _ => return Err(fail("type")),
        };
        if !suffixes.contains(&suffix)
            || (suffix == "_bucket") != labels.iter().any(|(n, _)| n == "le")
        {
            return Err(fail("suffix"));
        }
        let number: f64 = value.parse().map_err(|_| fail("not a number"))?;
        let whole = suffix != "_sum" && kind != "gauge";
        if !number.is_finite() || (whole && (number < 0.0 || number.fract() != 0.0)) {
            return Err(fail("number"));
        }
        let key = line[..line.len() - value.len() - 1].to_owned();
        if samples.insert(key, number).is_some() {
            return Err(fail("sample again"));
        }
    }
    histograms(&samples).map(|()| samples)
}

/// Buckets must not fall, must end at `+Inf`, and that one must equal the count.
fn histograms(samples: &BTreeMap<String, f64>) -> Result<(), String> {
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (key, value) in samples {
        let Some((name, labels, _)) =
            split(&format!("{key} 0")).map(|(n, l, v)| (n.to_owned(), l, v.to_owned()))
        else {
            continue;
        };
        let Some(family) = name.strip_suffix("_bucket") else { continue };
        let (bounds, others): (Vec<_>, Vec<_>) = labels.into_iter().partition(|(n, _)| n == "le");
        let bound =
            bounds[0].1.replace("+Inf", "inf").parse().map_err(|_| format!("bound: {key}"))?;
        let labels: Vec<_> = others.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        buckets.entry(format!("{family}_count{labels}")).or_default().push((bound, *value));
    }
    for (count, mut buckets) in buckets {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        if !buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
            return Err(format!("buckets fall: {count}"));
        }
        let last = buckets[buckets.len() - 1];
        if last.0 != f64::INFINITY || samples.get(&count) != Some(&last.1) {
            return Err(format!("buckets and count differ: {count}"));
        }
    }
    Ok(())
}

type Labels = Vec<(String, String)>;

/// Name, labels as they are written, value.
fn split(line: &str) -> Option<(&str, Labels, &str)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let quote = closing_quote(after)?;
            labels.push((label.to_owned(), after[..quote].to_owned()));
            rest = &after[quote + 1..];
            if !is_name(label) {
                return None;
            }
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => break,
            }
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.strip_prefix(' ')?;
    (is_name(name) && !value.contains(' ')).then_some((name, labels, value))
}

/// The first quote that is not escaped; anything escaped that must not be is `None`.
fn closing_quote(text: &str) -> Option<usize> {
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some(at),
            '\\' => {
                characters.next().filter(|(_, next)| matches!(next, '\\' | '"' | 'n'))?;
            }
            _ => {}
        }
    }
    None
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[test]
fn it_refuses_what_is_wrong() {
    let sound = "# TYPE a counter\n# HELP a Help.\na_total{x=\"1\"} 2\n";
    assert!(read(&format!("{sound}# EOF\n")).is_ok());
    for wrong in [
        sound.to_owned(),
        format!("{sound}{sound}# EOF\n"),
        format!("{sound}a_total{{x=\"1\"}} 2\n# EOF\n"),
        format!("{sound}a{{x=\"2\"}} 2\n# EOF\n"),
        format!("{sound}a_total{{x=\"2\"}} -1\n# EOF\n"),
        format!("{sound}a_total{{x=\"2\n\"}} 1\n# EOF\n"),
        format!("{sound}a_total{{x=\"\"\"}} 1\n# EOF\n"),
        format!("{sound}b_total 1\n# EOF\n"),
        format!("{sound}# UNIT a seconds\n# EOF\n"),
        "# TYPE h histogram\nh_bucket{le=\"1.0\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_count 1\nh_sum 1\n# EOF\n".to_owned(),
        "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_count 2\nh_sum 1\n# EOF\n".to_owned(),
    ] {
        assert!(read(&wrong).is_err(), "{wrong}");
    }
}
