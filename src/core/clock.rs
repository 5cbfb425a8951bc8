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
}
