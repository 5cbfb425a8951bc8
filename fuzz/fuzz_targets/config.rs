//! A configuration is read or every mistake in it has a line of it.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use whinchat::config::Config;

fuzz_target!(|text: &str| {
    let Err(mistakes) = Config::parse(text, Path::new("/nowhere")) else { return };
    assert!(!mistakes.is_empty());
    for mistake in mistakes {
        assert!(!mistake.to_string().is_empty());
    }
});
