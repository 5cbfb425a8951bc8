//! Time as the core sees it: two clocks that are read outside and given in.

use std::fmt;
use std::time::Duration;

/// Both clocks, read once per turn of the loop: one for deadlines, one for stamps that people see.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since some fixed instant; never goes backwards.
    pub mono: Duration,
    /// Wall clock.
    pub utc: UtcTime,
}

/// Milliseconds since 1970 in UTC. Displayed as XEP-0082 has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UtcTime(pub u64);

impl UtcTime {
    /// Reads a stamp as XEP-0082 section 3.2 has it, with any offset. `None` if it is none, or lies before 1970.
    pub fn parse(text: &str) -> Option<UtcTime> {
        let number = |from: usize, to: usize| -> Option<i64> {
            let digits = text.get(from..to)?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let marks = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")];
        if marks.iter().any(|(at, mark)| text.get(*at..at + 1) != Some(mark)) {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 24 || minute > 59 || second > 60 {
            return None;
        }
        let mut rest = text.get(19..)?;
        let mut millis = 0;
        if let Some(fraction) = rest.strip_prefix('.') {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            let shown: String = fraction.get(..digits.min(3))?.to_owned();
            millis = format!("{shown:0<3}").parse().ok()?;
            rest = fraction.get(digits..)?;
        }
        let offset = match rest.as_bytes() {
            b"Z" | b"z" => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let digit = |byte: &u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
                let minutes = (digit(h1)? * 10 + digit(h2)?) * 60 + digit(m1)? * 10 + digit(m2)?;
                if *sign == b'+' { minutes } else { -minutes }
            }
            _ => return None,
        };
        let seconds = days_to(year, month, day) * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
        u64::try_from(seconds * 1000 + millis).ok().map(UtcTime)
    }

    /// Whole seconds from `earlier` to this, 0 if the clock was set back between.
    pub fn seconds_since(self, earlier: UtcTime) -> u64 {
        self.0.saturating_sub(earlier.0) / 1000
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match self.0 % 1000 {
            0 => f.write_str("Z"),
            millis => write!(f, ".{millis:03}Z"),
        }
    }
}

/// A date to days since 1970-01-01; the other way round than [`civil`].
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Days since 1970-01-01 to a date of the Gregorian calendar. Counts from 1 March of year 0, so that the leap day is the last
/// of its year, in eras of 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        let check = |millis, expected: &str| assert_eq!(UtcTime(millis).to_string(), expected);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400_000, "2000-02-29T00:00:00Z");
        check(1_709_251_199_999, "2024-02-29T23:59:59.999Z");
        check(1_795_375_850_000, "2026-11-22T19:30:50Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00Z");
    }

    #[test]
    fn stamps_are_read() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(UtcTime::parse(text), expected.map(UtcTime), "{text}");
        check("1970-01-01T00:00:00Z", Some(0));
        check("2000-02-29T00:00:00Z", Some(951_782_400_000));
        check("2024-02-29T23:59:59.999Z", Some(1_709_251_199_999));
        check("2024-02-29T23:59:59.99912Z", Some(1_709_251_199_999));
        check("2024-02-29T23:59:59.9Z", Some(1_709_251_199_900));
        check("2026-11-22T20:30:50+01:00", Some(1_795_375_850_000));
        check("2026-11-22T14:00:50-05:30", Some(1_795_375_850_000));
        check("1969-12-31T23:59:59Z", None);
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T19:30:50",
            "2026-13-22T19:30:50Z",
            "+026-11-22T19:30:50Z",
            "2026-11-22T19:30:50+1",
        ] {
            check(text, None);
        }
        for millis in (0..4_200_000_000_000).step_by(86_399_999_777) {
            check(&UtcTime(millis).to_string(), Some(millis));
        }
    }
}
