//! The log: lines on standard error.
//!
//! systemd stamps lines itself and reads their level from a prefix, so under it (`JOURNAL_STREAM`) they carry that instead of a
//! time. Nobody writes bodies or passwords to the log; of other crates only warnings are shown, since nobody here can vouch for what
//! they tell at lower levels.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};
use whinchat::core::UtcTime;

struct Logger {
    in_journal: bool,
}

/// Starts the log.
pub fn start(level: LevelFilter) {
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    let logger = LOGGER.get_or_init(|| Logger { in_journal: std::env::var_os("JOURNAL_STREAM").is_some() });
    // Fails only if there is one already, which then goes on.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn || is_ours(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = (!self.in_journal).then_some(UtcTime(since_1970.as_secs().saturating_mul(1000)));
        // With standard error gone there is nobody left to tell.
        let _ = std::io::stderr().write_all(line(record.level(), time, &record.args().to_string()).as_bytes());
    }

    fn flush(&self) {}
}

fn is_ours(target: &str) -> bool {
    target == "whinchat" || target.starts_with("whinchat::")
}

/// One line, whatever the message holds: what a peer chose must not look like a line of ours, nor steer a terminal.
fn line(level: Level, time: Option<UtcTime>, message: &str) -> String {
    let (priority, name) = match level {
        Level::Error => (3, "error"),
        Level::Warn => (4, "warn"),
        Level::Info => (6, "info"),
        Level::Debug | Level::Trace => (7, "debug"),
    };
    let mut line = match time {
        Some(time) => format!("{time} {name} "),
        None => format!("<{priority}>"),
    };
    for c in message.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            // Writing to a string does not fail.
            let _ = write!(line, "{}", c.escape_unicode());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |level, time, message: &str, expected: &str| assert_eq!(line(level, time, message), expected);
        let time = Some(UtcTime(1_795_375_850_000));
        check(Level::Info, time, "listening", "2026-11-22T19:30:50Z info listening\n");
        check(Level::Error, None, "disk", "<3>disk\n");
        check(Level::Trace, None, "ü", "<7>ü\n");
        check(Level::Warn, None, "a\nb\u{1b}[2J\u{202e}", "<4>a\\u{a}b\\u{1b}[2J\\u{202e}\n");
    }

    #[test]
    fn others_are_heard_from_warnings_on() {
        let logger = Logger { in_journal: false };
        let enabled = |level, target| logger.enabled(&Metadata::builder().level(level).target(target).build());
        assert!(enabled(Level::Trace, "whinchat::net") && enabled(Level::Trace, "whinchat"));
        assert!(enabled(Level::Warn, "rustls") && !enabled(Level::Debug, "rustls"));
        assert!(!enabled(Level::Info, "whinchatter"));
    }
}
