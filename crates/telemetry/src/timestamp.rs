//! RFC 3339 in UTC with milliseconds, for a clock that is mostly in the same second as before.

use std::time::Duration;

use crate::digits::pair;

/// `2026-11-24T09:30:00.125Z`.
pub const LEN: usize = 24;

/// Writes times, and keeps what is the same for a whole second.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Of `text`, in seconds since 1970.
    second: u64,
    text: [u8; LEN],
}

impl Default for Stamp {
    fn default() -> Self {
        let mut stamp = Self { second: 0, text: *b"0000-00-00T00:00:00.000Z" };
        stamp.set_second(0);
        stamp
    }
}

impl Stamp {
    /// `wall` since 1970-01-01T00:00:00Z. The year is four digits: 9999 is the last one.
    pub fn text(&mut self, wall: Duration) -> &[u8; LEN] {
        if wall.as_secs() != self.second {
            self.set_second(wall.as_secs());
        }
        let millis = u64::from(wall.subsec_millis());
        self.text[20] = b'0' + (millis / 100) as u8;
        self.text[21..23].copy_from_slice(&pair(millis));
        &self.text
    }

    fn set_second(&mut self, second: u64) {
        /// 9999-12-31T23:59:59Z.
        const LAST: u64 = 253_402_300_799;
        self.second = second;
        let shown = second.min(LAST);
        let (year, month, day) = date(shown / 86_400);
        let time = shown % 86_400;
        for (at, value) in [
            (0, year / 100),
            (2, year),
            (5, month),
            (8, day),
            (11, time / 3_600),
            (14, time / 60 % 60),
            (17, time % 60),
        ] {
            self.text[at..at + 2].copy_from_slice(&pair(value));
        }
    }
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01.
///
/// Counts from 0000-03-01, so that the leap day is the last of a year and of its 400-year era.
const fn date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let day_of_era = days % ERA;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / (ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March on have 153 days in a repeating pattern.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = days / ERA * 400 + year_of_era;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        let mut stamp = Stamp::default();
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_005, "2024-02-29T23:59:59.005Z"),
            (1_795_512_600_125, "2026-11-24T09:30:00.125Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_050, "9999-12-31T23:59:59.050Z"),
            (999_999_999_999_000, "9999-12-31T23:59:59.000Z"),
        ] {
            let read = stamp.text(Duration::from_millis(millis));
            assert_eq!(std::str::from_utf8(read).unwrap(), text, "{millis}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut previous = date(0);
        for days in 1..146_097 {
            let (year, month, day) = date(days);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            assert!(
                day <= 31 && (month != 2 || day <= 28 + u64::from(leap)),
                "{year}-{month}-{day}"
            );
            assert!((year, month, day) > previous, "{days}");
            assert!(day == previous.2 + 1 || day == 1, "{days}");
            previous = (year, month, day);
        }
    }
}
