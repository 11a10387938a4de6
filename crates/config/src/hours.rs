//! Hours, days and times at which callers pass, as written.

use std::fmt;
use std::str::FromStr;

use portcullis_core::calendar::Time;
use portcullis_core::decode::Fault;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::forms::OneOrMany;

/// When requests are let through. Every part that is written must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct Times {
    /// Hours of the day, the second one excluded: `08:00-18:00`. `22:00-06:00` goes on into the
    /// next day and belongs to the day it begins on. Default: all day.
    #[serde(default)]
    pub between: Option<Hours>,
    /// Days of the week: `[mon-fri, sun]`. Default: every day.
    #[serde(default)]
    pub days: Option<OneOrMany<Days>>,
    /// How far `between` and `days` are from UTC: `UTC`, `+01:00`. There is no daylight saving
    /// time. Default: `UTC`.
    #[serde(default)]
    pub zone: Option<Zone>,
    /// Nobody passes before this time: `2027-01-31` or `2027-01-31T12:00:00Z`. Default: none.
    #[serde(default)]
    pub not_before: Option<Time>,
    /// Nobody passes from this time on. Default: none.
    #[serde(default)]
    pub not_after: Option<Time>,
}

/// Minutes of the day, from and to; over midnight where the second comes before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    pub from: u16,
    pub to: u16,
}

const DAY_MINUTES: u16 = 24 * 60;

impl FromStr for Hours {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let minutes = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let number = |digits: &str| {
                let good = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
                digits.parse::<u16>().ok().filter(|_| good)
            };
            let (hour, minute) = (number(hour)?, number(minute)?);
            let minutes = hour * 60 + minute;
            (minute < 60 && minutes <= DAY_MINUTES).then_some(minutes)
        };
        let parsed = text.split_once('-').and_then(|(from, to)| {
            Some(Self { from: minutes(from.trim())?, to: minutes(to.trim())? })
        });
        match parsed {
            Some(Self { from, to }) if from == to || from == DAY_MINUTES => {
                Err(Fault::new(0..text.len(), "there is no time between these")
                    .help("leave `between` out for all day"))
            }
            Some(hours) => Ok(hours),
            None => Err(Fault::new(0..text.len(), format!("`{text}` is not hours of a day"))
                .help("write for example `08:00-18:00`")),
        }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

/// Days of the week, a bit for each, Monday's the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(pub u8);

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl FromStr for Days {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let day = |name: &str| {
            let at = DAYS.iter().position(|day| *day == name);
            at.ok_or_else(|| {
                Fault::new(0..text.len(), format!("`{name}` is not a day"))
                    .help("write `mon` to `sun`, or a range such as `mon-fri`")
            })
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(text)?, day(text)?),
        };
        // From Friday to Monday goes over the end of the week.
        let length = (last + 7 - first) % 7;
        Ok(Self((0..=length).fold(0, |days, step| days | 1 << ((first + step) % 7))))
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = DAYS.iter().enumerate().filter(|(at, _)| self.0 & (1 << at) != 0);
        let names: Vec<&str> = named.map(|(_, name)| *name).collect();
        f.write_str(&names.join(","))
    }
}

/// Minutes east of UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zone(pub i16);

impl FromStr for Zone {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let offset = || {
            let (sign, rest) = match text.as_bytes().first()? {
                b'+' => (1, &text[1..]),
                b'-' => (-1, &text[1..]),
                _ => return None,
            };
            let (hours, minutes) = rest.split_once(':')?;
            let number = |digits: &str| digits.parse::<i16>().ok().filter(|_| digits.len() == 2);
            let (hours, minutes) = (number(hours)?, number(minutes)?);
            let good = (0..=14).contains(&hours) && (0..60).contains(&minutes);
            good.then_some(Self(sign * (hours * 60 + minutes)))
        };
        match text {
            "UTC" | "Z" => Ok(Self(0)),
            _ => offset().ok_or_else(|| {
                Fault::new(0..text.len(), format!("`{text}` is not a distance from UTC"))
                    .help("write `UTC`, `+01:00` or `-05:00`; names of places are not known here")
            }),
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0.unsigned_abs();
        match self.0 {
            0 => f.write_str("UTC"),
            offset => {
                let sign = if offset < 0 { '-' } else { '+' };
                write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
    }
}

portcullis_core::written_as_text! {
    Hours: "hours", "hours of a day such as `08:00-18:00`",
        r"^[0-9]{2}:[0-9]{2} *- *[0-9]{2}:[0-9]{2}$";
    Days: "days", "days such as `mon-fri` or `sat`", r"^[a-z]{3}(-[a-z]{3})?$";
    Zone: "zone", "`UTC` or a distance from it such as `+01:00`",
        r"^(UTC|Z|[+-][0-9]{2}:[0-9]{2})$";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_they_are_read() {
        for text in ["08:00-18:00", "22:30-06:00", "00:00-24:00"] {
            assert_eq!(text.parse::<Hours>().unwrap().to_string(), text);
        }
        for text in ["8-18", "08:00", "08:60-09:00", "25:00-26:00", "08:00-08:00", "+8:00-09:00"] {
            assert!(text.parse::<Hours>().is_err(), "{text}");
        }
        for (text, days) in [("mon", 1), ("mon-fri", 0b1_1111), ("fri-mon", 0b111_0001)] {
            assert_eq!(text.parse::<Days>().unwrap(), Days(days), "{text}");
        }
        assert_eq!("sat-sun".parse::<Days>().unwrap().to_string(), "sat,sun");
        for text in ["monday", "mon-", "MON", ""] {
            assert!(text.parse::<Days>().is_err(), "{text}");
        }
        for (text, minutes) in [("UTC", 0), ("+01:00", 60), ("-05:30", -330)] {
            let zone: Zone = text.parse().unwrap();
            assert_eq!((zone.0, zone.to_string().as_str()), (minutes, text));
        }
        for text in ["CET", "+1", "+15:00", "+-1:00", "Europe/Berlin"] {
            assert!(text.parse::<Zone>().is_err(), "{text}");
        }
    }
}
