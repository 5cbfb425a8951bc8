//! Every key of `[limits]` in the manual has a test that reaches it: a script that sets it, or a function named here.

use std::fs;
use std::path::Path;

/// Limits that no script sets, and the tests that reach them: file and function.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("memory_max", "tests/overload.rs", "huge_rosters"),
    ("connections_max", "tests/wire.rs", "doors_close_when_it_is_full"),
    ("connections_per_address_max", "tests/wire.rs", "doors_close_when_it_is_full"),
    ("login_time", "tests/wire.rs", "who_does_not_log_in_has_to_go"),
    ("close_time", "tests/wire.rs", "who_does_not_log_in_has_to_go"),
    ("write_stall", "tests/wire.rs", "who_does_not_read_slows_the_sender_and_is_dropped"),
    ("turn_bytes", "tests/overload.rs", "a_flood_delays_nobody"),
    ("request_bytes_max", "src/store/tests.rs", "requests_are_bounded"),
    ("archive_time", "src/store/archive_tests.rs", "what_is_old_leaves_in_small_steps"),
    ("archive_bytes_max", "src/store/archive_tests.rs", "archives_are_bounded"),
    ("room_history_bytes_max", "src/handlers/muc/history.rs", "the_oldest_lines_go"),
    ("caps_max", "src/handlers/pep/caps.rs", "the_oldest_kind_is_forgotten"),
    ("tokens_per_account_max", "src/store/tests.rs", "tokens"),
    ("store_queue_max", "tests/disk.rs", "a_slow_disk_delays_only_what_must_last"),
    // How much redb keeps at hand is its own promise.
    ("store_cache_bytes", "tests/overload.rs", "huge_rosters"),
    ("store_gather_ms", "src/store/thread.rs", "what_may_wait_waits_for_others"),
];

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_limit_has_a_test() {
    let manual = read("docs/configuration.md");
    let names =
        manual.lines().filter_map(|line| line.strip_prefix("| `limits.")?.split_once('`').map(|(name, _)| name));
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let scripts: String = fs::read_dir(directory)
        .expect("scripts")
        .map(|entry| entry.expect("a script").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xmpp"))
        .map(read)
        .collect();
    let (mut count, mut missing) = (0, Vec::new());
    for name in names {
        count += 1;
        let is_set = |line: &str| {
            line.strip_prefix("config ")
                .and_then(|rest| rest.split_once('='))
                .is_some_and(|(key, _)| key.trim() == name)
        };
        let elsewhere = ELSEWHERE.iter().find(|(limit, ..)| *limit == name);
        let is_tested = elsewhere.is_some_and(|(_, file, test)| read(file).contains(&format!("fn {test}(")));
        if !is_tested && !scripts.lines().any(is_set) {
            missing.push(name);
        }
    }
    assert!(count > 50, "{count} limits in the manual");
    assert!(missing.is_empty(), "no test reaches {missing:?}");
}
