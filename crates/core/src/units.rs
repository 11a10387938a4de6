//! Times and sizes as operators write them: `15s`, `1h30m`, `10MiB`.
//!
//! Every number with a dimension is written with its unit, so that no field needs `_ms` in its name
//! and none can be misread. Only sizes may be plain numbers, which are bytes.

use std::borrow::Cow;
use std::fmt;
use std::time;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::decode::Fault;

/// Milliseconds in each unit of time, longest first.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Bytes in each unit of size, in the order in which a size is printed.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// No written time is longer: 100 years, so that sums of times cannot overflow anywhere.
const TIME_MAX_MS: u64 = 100 * 365 * 86_400_000;

/// Reads `15s`, `250ms`, `1h30m`: whole numbers with units, the longer unit first.
///
/// # Errors
/// A [`Fault`] at the part that is wrong.
pub fn parse_duration(text: &str) -> Result<time::Duration, Fault> {
    let fault = |at: std::ops::Range<usize>, message: String| {
        Err(Fault::new(at, message)
            .help("write for example `250ms`, `15s`, `5m`, `12h` or `1h30m`"))
    };
    if text.is_empty() {
        return fault(0..0, "an empty duration".to_owned());
    }
    let (mut total, mut units_left, mut at) = (0_u64, 0, 0);
    while at < text.len() {
        let digits = digits_at(text, at);
        let unit = unit_at(text, digits);
        if digits == at {
            return fault(at..text.len(), format!("`{}` is not a duration", clip(text)));
        }
        let name = &text[digits..unit];
        if name.is_empty() {
            return fault(at..digits, format!("`{}` has no unit", &text[at..digits]));
        }
        let Some(index) = TIME_UNITS.iter().position(|(unit, _)| *unit == name) else {
            return fault(digits..unit, format!("`{}` is not a unit of time", clip(name)));
        };
        if index < units_left {
            return fault(digits..unit, format!("`{name}` must stand before the smaller unit"));
        }
        units_left = index + 1;
        let amount = text[at..digits].parse::<u64>().ok();
        let sum = amount
            .and_then(|amount| amount.checked_mul(TIME_UNITS[index].1))
            .and_then(|ms| total.checked_add(ms))
            .filter(|sum| *sum <= TIME_MAX_MS);
        let Some(sum) = sum else {
            return fault(at..unit, "longer than 100 years".to_owned());
        };
        (total, at) = (sum, unit);
    }
    Ok(time::Duration::from_millis(total))
}

/// Reads `10MiB`, `64KiB`, `5MB`, `1024` (bytes).
///
/// # Errors
/// A [`Fault`] at the part that is wrong.
pub fn parse_size(text: &str) -> Result<u64, Fault> {
    let digits = digits_at(text, 0);
    let help = "write for example `64KiB`, `10MiB`, `1GiB`, or a number of bytes";
    if digits == 0 {
        let message = format!("`{}` is not a size", clip(text));
        return Err(Fault::new(0..text.len(), message).help(help));
    }
    let name = &text[digits..];
    let factor = match name {
        "" => Some(1),
        _ => SIZE_UNITS.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor),
    };
    let Some(factor) = factor else {
        let message = format!("`{}` is not a unit of size", clip(name));
        return Err(Fault::new(digits..text.len(), message).help(help));
    };
    text[..digits]
        .parse::<u64>()
        .ok()
        .and_then(|amount| amount.checked_mul(factor))
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| Fault::new(0..text.len(), "larger than 8 EiB".to_owned()))
}

fn digits_at(text: &str, from: usize) -> usize {
    from + text[from..].bytes().take_while(u8::is_ascii_digit).count()
}

fn unit_at(text: &str, from: usize) -> usize {
    text[from..].find(|c: char| c.is_ascii_digit()).map_or(text.len(), |at| from + at)
}

/// What a message quotes of a value that may be long.
fn clip(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((at, _)) => Cow::Owned(format!("{}…", &text[..at])),
        None => Cow::Borrowed(text),
    }
}

/// Prints a time the way it would be written: the largest units first, none that is zero.
#[must_use]
pub fn format_duration(duration: time::Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, ms) in TIME_UNITS {
        if left >= ms {
            text.push_str(&format!("{}{unit}", left / ms));
            left %= ms;
        }
    }
    text
}

/// Prints a size the way it would be written: in the largest unit that divides it.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    if bytes < 1024 {
        return bytes.to_string();
    }
    SIZE_UNITS[..4]
        .iter()
        .find(|(_, factor)| bytes.is_multiple_of(*factor))
        .map_or_else(|| bytes.to_string(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// A length of time; zero is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub time::Duration);

/// A length of time that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PositiveDuration(pub time::Duration);

/// A length of time that is not zero, or `off`, which is written out because zero means opposite
/// things in different programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationOrOff(pub Option<time::Duration>);

impl Duration {
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }
}

impl PositiveDuration {
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }
}

impl DurationOrOff {
    pub const OFF: Self = Self(None);

    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Some(time::Duration::from_secs(seconds)))
    }
}

impl std::str::FromStr for Duration {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        parse_duration(text).map(Self)
    }
}

impl std::str::FromStr for PositiveDuration {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match parse_duration(text)? {
            time::Duration::ZERO => Err(Fault::new(0..text.len(), "must be longer than zero")),
            duration => Ok(Self(duration)),
        }
    }
}

impl std::str::FromStr for DurationOrOff {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if text == "off" {
            return Ok(Self(None));
        }
        match parse_duration(text)? {
            time::Duration::ZERO => Err(Fault::new(0..text.len(), "must be longer than zero")
                .help("write `off` for no limit")),
            duration => Ok(Self(Some(duration))),
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_duration(self.0))
    }
}

impl fmt::Display for PositiveDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_duration(self.0))
    }
}

impl fmt::Display for DurationOrOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(duration) => f.write_str(&format_duration(duration)),
            None => f.write_str("off"),
        }
    }
}

crate::written_as_text! {
    Duration: "duration", "a duration such as `15s`", r"^([0-9]+(d|h|ms|m|s))+$";
    PositiveDuration: "positive-duration", "a duration such as `15s`", r"^([0-9]+(d|h|ms|m|s))+$";
    DurationOrOff: "duration-or-off", "a duration such as `15s`, or `off`",
        r"^(off|([0-9]+(d|h|ms|m|s))+)$";
}

/// A number of bytes: a plain number, or a number with a unit (`KiB`, `MiB`, `GiB`, `TiB`; `kB`,
/// `MB`, `GB` are powers of 1000).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Size {
    #[must_use]
    pub const fn kib(amount: u64) -> Self {
        Self(amount << 10)
    }

    #[must_use]
    pub const fn mib(amount: u64) -> Self {
        Self(amount << 20)
    }
}

impl std::str::FromStr for Size {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        parse_size(text).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_size(self.0))
    }
}

impl serde::Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;

        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as `10MiB`")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Size, E> {
                u64::try_from(value).map(Size).map_err(|_| E::custom("a size cannot be negative"))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Size, E> {
                Ok(Size(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(SizeVisitor)
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": "^[0-9]+(TiB|GiB|MiB|KiB|GB|MB|kB|B)?$",
            "x-format": "size",
            "x-expected": "a size such as `10MiB`",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duration(text: &str) -> String {
        match text.parse::<DurationOrOff>() {
            Ok(duration) => format!("{duration} = {:?}", duration.0),
            Err(fault) => format!("{:?} {}", fault.at, fault.message),
        }
    }

    #[test]
    fn durations() {
        let cases = [
            ("15s", "15s = Some(15s)"),
            ("250ms", "250ms = Some(250ms)"),
            ("90m", "1h30m = Some(5400s)"),
            ("1h30m", "1h30m = Some(5400s)"),
            ("1d", "1d = Some(86400s)"),
            ("off", "off = None"),
            ("0s", "0..2 must be longer than zero"),
            ("15", "0..2 `15` has no unit"),
            ("1m15", "2..4 `15` has no unit"),
            ("15 s", "2..4 ` s` is not a unit of time"),
            ("15sec", "2..5 `sec` is not a unit of time"),
            ("-1s", "0..3 `-1s` is not a duration"),
            ("1.5s", "1..2 `.` is not a unit of time"),
            ("5s1m", "3..4 `m` must stand before the smaller unit"),
            ("5s5s", "3..4 `s` must stand before the smaller unit"),
            ("99999999999999999999d", "0..21 longer than 100 years"),
            ("", "0..0 an empty duration"),
            ("é", "0..2 `é` is not a duration"),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            ("1024", Ok(1024)),
            ("10MiB", Ok(10 << 20)),
            ("5MB", Ok(5_000_000)),
            ("1B", Ok(1)),
            ("10mb", Err("2..4 `mb` is not a unit of size")),
            ("MiB", Err("0..3 `MiB` is not a size")),
            ("9999999TiB", Err("0..10 larger than 8 EiB")),
        ];
        for (text, expected) in cases {
            let got = parse_size(text).map_err(|fault| format!("{:?} {}", fault.at, fault.message));
            assert_eq!(got, expected.map_err(str::to_owned), "{text}");
        }
        assert_eq!(Size(10 << 20).to_string(), "10MiB");
        assert_eq!(Size(1500).to_string(), "1500");
    }
}
