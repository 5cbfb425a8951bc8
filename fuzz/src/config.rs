//! A configuration is read, or every mistake in it is told with its line.

use std::path::Path;

use whinchat::config::Config;

/// The text of a configuration file.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Err(mistakes) = Config::parse(text, Path::new("/nowhere")) else { return };
    assert!(!mistakes.is_empty());
    for mistake in mistakes {
        assert!(!mistake.to_string().is_empty());
    }
}
