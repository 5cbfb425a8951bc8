//! Time as the core sees it: two clocks that are read outside and given in.

use std::fmt;
use std::time::Duration;

/// Both clocks, read once per turn of the loop: one for deadlines, one for stamps that people see.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the server started; never goes backwards.
    pub mono: Duration,
    /// Wall clock.
    pub utc: UtcTime,
}

/// Milliseconds since 1970 in UTC. Displayed as XEP-0082 has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UtcTime(pub u64);

impl UtcTime {
    /// The millisecond in which a date and time of XEP-0082 lies, with any offset from UTC; times before 1970 count as its
    /// beginning. `None` for anything else.
    pub fn parse(text: &str) -> Option<UtcTime> {
        parse(text).map(|(millis, _)| UtcTime(millis))
    }

    /// The first millisecond that does not begin before a date and time of XEP-0082.
    pub fn parse_up(text: &str) -> Option<UtcTime> {
        parse(text).map(|(millis, rest)| UtcTime(millis + u64::from(rest)))
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

/// `CCYY-MM-DDThh:mm:ss[.sss]TZD` (XEP-0082 section 3.2): milliseconds since 1970, and whether there is something behind them.
fn parse(text: &str) -> Option<(u64, bool)> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| text.as_bytes().get(*at) != Some(mark)) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last_day = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A second may be 60 (a leap second); it counts as the first of the next minute.
    if !(1..=last_day).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("0", rest),
    };
    if fraction.is_empty() {
        return None;
    }
    let digit = |at: usize| fraction.as_bytes().get(at).map_or(0, |digit| u64::from(digit - b'0'));
    let millis = digit(0) * 100 + digit(1) * 10 + digit(2);
    let more = fraction.bytes().skip(3).any(|digit| digit != b'0');
    let days = days_from_civil(year, month, day);
    let local = (days * 86_400 + (hour * 3600 + minute * 60 + second) as i64) * 1000 + millis as i64;
    let utc = local - offset_minutes(zone)? * 60_000;
    Some((u64::try_from(utc).unwrap_or(0), more && utc >= 0))
}

/// `Z`, `+hh:mm` or `-hh:mm`.
fn offset_minutes(zone: &str) -> Option<i64> {
    let (sign, rest) = match (zone, zone.split_at_checked(1)?) {
        ("Z", _) => return Some(0),
        (_, ("+", rest)) => (1, rest),
        (_, ("-", rest)) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let digits = |text: &str| {
        let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        two.then(|| text.parse::<i64>().ok())?
    };
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

/// The reverse of [`civil`], below zero before 1970.
fn days_from_civil(year: u64, month: u64, day: u64) -> i64 {
    let year = year + 400 - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era) as i64 - 146_097 - 719_468
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
    fn dates_are_read() {
        let check = |text: &str, down: Option<u64>, up: Option<u64>| {
            assert_eq!(UtcTime::parse(text).map(|at| at.0), down, "{text}");
            assert_eq!(UtcTime::parse_up(text).map(|at| at.0), up, "{text}");
        };
        for millis in [0, 951_782_400_000, 1_709_251_199_999, 1_795_375_850_000, 4_107_542_400_000, 68_169_600_000] {
            check(&UtcTime(millis).to_string(), Some(millis), Some(millis));
        }
        check("2026-11-22T19:30:50.1239Z", Some(1_795_375_850_123), Some(1_795_375_850_124));
        check("2026-11-22T19:30:50.12300Z", Some(1_795_375_850_123), Some(1_795_375_850_123));
        check("2026-11-22T21:00:50+01:30", Some(1_795_375_850_000), Some(1_795_375_850_000));
        check("2026-11-22T14:30:50.0-05:00", Some(1_795_375_850_000), Some(1_795_375_850_000));
        check("2016-12-31T23:59:60Z", Some(1_483_228_800_000), Some(1_483_228_800_000));
        check("1969-12-31T23:59:59.9999Z", Some(0), Some(0));
        check("1970-01-01T00:30:00+01:00", Some(0), Some(0));
        check("0000-01-01T00:00:00Z", Some(0), Some(0));
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T19:30:50",
            "2026-11-22T19:30:50.Z",
            "2026-11-22T19:30:50z",
            "2026-11-22T19:30:50+1:00",
            "2026-11-22T19:30:50+24:00",
            "2026-11-22T19:30:50ZZ",
            "2026-11-22 19:30:50Z",
            "2026-13-22T19:30:50Z",
            "2026-02-29T19:30:50Z",
            "2026-11-00T19:30:50Z",
            "2026-11-22T24:30:50Z",
            "2026-11-22T19:60:50Z",
            "2026-11-22T19:30:61Z",
            "+026-11-22T19:30:50Z",
            "2026-11-22T19:30:5é",
            "20261122T19:30:50",
        ] {
            check(text, None, None);
        }
    }
}
