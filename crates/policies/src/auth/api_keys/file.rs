//! The file that lists the keys.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::is_id;

const KEYS_MAX: usize = 1_000_000;
const NAME_BYTES_MAX: usize = 256;

/// One key, as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Part of the key's text; finds this entry. Letters, digits, `-` and `.`.
    pub id: String,
    /// `blake3:` and 64 hexadecimal digits, as `portcullis keys` prints it.
    pub hash: String,
    /// Who the key was given to.
    pub client: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What the key may be used for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// From when on it is refused: `2027-01-31` or `2027-01-31T12:00:00Z`. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Until when it is refused, likewise. Default: valid at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
}

/// An entry whose every part is in order.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) id: String,
    pub(super) hash: [u8; 32],
    pub(super) client: String,
    pub(super) tenant: Option<String>,
    pub(super) scopes: Vec<String>,
    /// Since 1970.
    pub(super) expires: Option<Duration>,
    pub(super) not_before: Option<Duration>,
}

/// Reads the file: YAML, of which JSON is a part.
///
/// # Errors
/// All that is wrong with it, as sentences for the operator.
pub(super) fn read(text: &[u8]) -> Result<Vec<Checked>, Vec<String>> {
    let text = str::from_utf8(text).map_err(|_| vec!["not UTF-8".to_owned()])?;
    let entries: Vec<KeyEntry> = serde_saphyr::from_str(text).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        vec![first.to_owned()]
    })?;
    if entries.len() > KEYS_MAX {
        return Err(vec![format!("{} keys, at most {KEYS_MAX}", entries.len())]);
    }
    let mut wrong = Vec::new();
    let mut checked = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        match check(entry) {
            Ok(entry) => checked.push(entry),
            Err(reason) => wrong.push(format!("key {}: {reason}", index + 1)),
        }
    }
    let mut ids: Vec<&str> = checked.iter().map(|entry| entry.id.as_str()).collect();
    ids.sort_unstable();
    for pair in ids.windows(2).filter(|pair| pair[0] == pair[1]) {
        wrong.push(format!("the id `{}` twice", pair[0]));
    }
    if wrong.is_empty() { Ok(checked) } else { Err(wrong) }
}

fn check(entry: KeyEntry) -> Result<Checked, String> {
    let KeyEntry { id, hash, client, tenant, scopes, expires, not_before } = entry;
    if !is_id(id.as_bytes()) {
        return Err("an `id` is letters, digits, `-` and `.`".to_owned());
    }
    let digits = hash.strip_prefix("blake3:").and_then(|hex| blake3::Hash::from_hex(hex).ok());
    let hash = *digits
        .ok_or_else(|| format!("the `hash` of `{id}` is not `blake3:` and 64 digits"))?
        .as_bytes();
    for (name, text) in [("client", Some(&client)), ("tenant", tenant.as_ref())] {
        let good = |text: &String| {
            (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
        };
        if !text.is_none_or(good) {
            return Err(format!("the `{name}` of `{id}` is not a name"));
        }
    }
    if scopes.iter().any(|scope| scope.is_empty() || scope.contains([' ', '"', '\\'])) {
        return Err(format!("a scope of `{id}` is not a scope"));
    }
    let time = |name: &str, text: Option<String>| match text {
        None => Ok(None),
        Some(text) => match parse_time(&text) {
            Some(time) => Ok(Some(time)),
            None => Err(format!(
                "the `{name}` of `{id}` is not a time: write `2027-01-31` or `2027-01-31T12:00:00Z`"
            )),
        },
    };
    let (expires, not_before) = (time("expires", expires)?, time("not_before", not_before)?);
    Ok(Checked { id, hash, client, tenant, scopes, expires, not_before })
}

/// `YYYY-MM-DD`, alone or with `Thh:mm:ssZ` (RFC 3339, in UTC), since 1970.
fn parse_time(text: &str) -> Option<Duration> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year < 1970 || !(1..=days_in).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Years begin in March, so that the leap day is the last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    // Days from the first of March of the year 0 to 1970.
    let days = days - 719_468;
    Some(Duration::from_secs(days * 86_400 + hour * 3600 + minute * 60 + second))
}

fn numbers(text: &str, between: char, lengths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut numbers = [0; 3];
    for (number, length) in numbers.iter_mut().zip(lengths) {
        let part = parts.next().filter(|part| part.len() == length)?;
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let seconds = |text| parse_time(text).map(|time| time.as_secs());
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("1970-01-02T00:00:01Z", Some(86_401)),
            ("2000-02-29", Some(951_782_400)),
            ("2000-03-01", Some(951_868_800)),
            ("2026-11-24T05:45:00Z", Some(1_795_499_100)),
            ("2100-03-01", Some(4_107_542_400)),
            ("2100-02-29", None),
            ("2027-13-01", None),
            ("2027-00-01", None),
            ("2027-04-31", None),
            ("2027-1-1", None),
            ("1969-12-31", None),
            ("2027-01-01T24:00:00Z", None),
            ("2027-01-01T00:00:00", None),
            ("2027-01-01T00:00:00+01:00", None),
            ("tomorrow", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
