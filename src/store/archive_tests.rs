//! Archives: what goes in, what is found, what leaves; and what a message costs.

use std::time::Duration;

use super::apply::Engine as _;
use super::schema::Table;
use super::tests::{again, check, config, create, dump, jid, memory, offline, page, show};
use super::{MemoryStore, RedbStore, Store};
use crate::core::archive::{ArchiveDefault, ArchiveFilter, ArchiveId, ArchivePaging, ArchivePrefs, Keep};
use crate::core::clock::UtcTime;
use crate::core::effects::StoreRequest as R;
use crate::jid::Jid;

/// The id of the message received at so many milliseconds.
fn id(at: u64) -> ArchiveId {
    ArchiveId(ArchiveId::least_at(UtcTime(at)).0 + 7)
}

fn address(text: &str) -> Jid {
    let (bare, resource) = text.split_once('/').map_or((text, None), |(bare, resource)| (bare, Some(resource)));
    match resource {
        Some(resource) => Jid::from_prepared(&format!("{}/{resource}", jid(bare).as_str())),
        None => jid(bare).into(),
    }
}

pub(super) fn message(at: u64, from: &str, to: &str, keep: (Keep, Keep), offline: bool, stanza: &str) -> R {
    R::ArchivePut {
        id: id(at),
        from: address(from),
        to: address(to),
        sender: keep.0,
        receiver: keep.1,
        offline,
        stanza: stanza.as_bytes().to_vec(),
    }
}

const BOTH: (Keep, Keep) = (Keep::Yes, Keep::Yes);

fn said(at: u64, from: &str, to: &str, stanza: &str) -> R {
    message(at, from, to, BOTH, false, stanza)
}

const ALL: ArchivePaging =
    ArchivePaging { max: 100, bytes_max: usize::MAX, after: None, before: None, backwards: false, flip: false };

fn ask(user: &str, filter: ArchiveFilter, paging: ArchivePaging) -> R {
    R::ArchivePage { user: jid(user), filter, paging }
}

pub(super) fn all(user: &str) -> R {
    ask(user, ArchiveFilter::default(), ALL)
}

fn prefs(user: &str, default: ArchiveDefault, always: &[&str], never: &[&str]) -> R {
    let list = |list: &[&str]| list.iter().map(|text| address(text)).collect();
    R::ArchivePrefsPut { user: jid(user), prefs: ArchivePrefs { default, always: list(always), never: list(never) } }
}

fn again_offline(at: u64) -> R {
    R::OfflinePut { user: jid("a"), from: address("b"), stanza: b"stamped".to_vec(), archived: Some(id(at)) }
}

#[test]
fn one_copy_for_both_and_for_later() {
    check(&[
        (create("a"), "done"),
        (create("b"), "done"),
        (R::ArchiveBounds { user: jid("a") }, "empty"),
        (all("a"), ". ?/0"),
        (said(10, "a/1", "b/2", "one"), "done"),
        (message(11, "b/2", "a", BOTH, true, "two"), "done"),
        (message(12, "a/1", "a", (Keep::Yes, Keep::No), false, "note"), "done"),
        (all("a"), "one two note. 0/3"),
        (all("b"), "one two. 0/2"),
        (R::ArchiveBounds { user: jid("a") }, "10..12"),
        // Waiting, by reference; and when it is not archived, by itself.
        (page("a", 0, 0, 99), "1:two@11+"),
        (message(13, "b/2", "a", (Keep::Yes, Keep::No), true, "three"), "done"),
        (page("a", 0, 0, 99), "1:two@11+ 2:three@13"),
        (page("a", 0, 0, 4), "1:two@11+"),
        (all("b"), "one two three. 0/3"),
        // Over the bound of offline messages (20 bytes) nothing happens, in the sender's archive neither.
        (message(14, "b/2", "a", BOTH, true, "thirteen bytes"), "Full"),
        (all("b"), "one two three. 0/3"),
        (page("a", 1, 0, 99), "2:three@13"),
        (message(15, "b/2", "a", BOTH, true, "twelve bytes"), "done"),
        (page("a", u64::MAX, 0, 99), ""),
        (all("a"), "one two note twelve bytes. 0/4"),
        // SM-15: what came back from a lost connection is in the archive already, or is not.
        (again_offline(10), "done"),
        (again_offline(13), "done"),
        (page("a", 0, 0, 99), "4:one@10+ 5:stamped"),
        // B2-04: who reads the archive needs no more than what is not there.
        (R::OfflineClear { user: jid("a") }, "done"),
        (R::OfflineClear { user: jid("b") }, "done"),
        (page("a", 0, 0, 99), "5:stamped"),
        // Not there, not here, without an account.
        (message(20, "a/1", "z", BOTH, true, "x"), "NoAccount"),
        (message(20, "a/1", "z", BOTH, false, "x"), "done"),
        (message(21, "a/1", "z@elsewhere.example", (Keep::Yes, Keep::No), false, "y"), "done"),
        (message(22, "x", "a", (Keep::No, Keep::Yes), false, "z"), "done"),
        (all("a"), "one two note twelve bytes x y z. 0/7"),
        (all("z"), ". ?/0"),
        // A name that goes back is refused rather than taken for a new one.
        (said(22, "a/1", "b", "again"), "Failed"),
    ]);
}

#[test]
fn preferences_of_who_is_not_there() {
    const COLD: (Keep, Keep) = (Keep::No, Keep::IfWanted);
    check(&[
        (prefs("a", ArchiveDefault::Never, &[], &[]), "NoAccount"),
        (create("a"), "done"),
        (message(1, "b/1", "a", COLD, true, "1"), "done"),
        (prefs("a", ArchiveDefault::Never, &["c"], &[]), "done"),
        (message(2, "b/1", "a", COLD, true, "2"), "done"),
        (message(3, "c/1", "a", COLD, false, "3"), "done"),
        (prefs("a", ArchiveDefault::Roster, &[], &[]), "done"),
        (message(4, "b/1", "a", COLD, false, "4"), "done"),
        (super::tests::put("a", "b", ""), "a 1 ->none | kept | -"),
        (message(5, "b/1", "a", COLD, false, "5"), "done"),
        (prefs("a", ArchiveDefault::Always, &[], &["b/1"]), "done"),
        (message(6, "b/1", "a", COLD, true, "6"), "done"),
        (message(7, "b/2", "a", COLD, false, "7"), "done"),
        (all("a"), "1 3 5 7. 0/4"),
        (page("a", 0, 0, 99), "1:1@1+ 2:2@2 3:6@6"),
        (prefs("a", ArchiveDefault::Always, &[], &[]), "done"),
    ]);
}

fn filled() -> Vec<(R, &'static str)> {
    vec![
        (create("a"), "done"),
        (create("b"), "done"),
        (create("c"), "done"),
        (said(10, "a/1", "b", "0"), "done"),
        (said(20, "b/x", "a", "1"), "done"),
        (said(20 + 1, "c/x", "a/1", "2"), "done"),
        (said(30, "b/y", "a", "3"), "done"),
        (said(40, "a/1", "b/x", "4"), "done"),
        (said(50, "a/1", "c", "5"), "done"),
        (said(60, "a/1", "b.b@x", "6"), "done"),
        (message(70, "a/1", "a", (Keep::Yes, Keep::No), false, "7"), "done"),
    ]
}

#[test]
fn filters() {
    let with = |with: &str| ArchiveFilter { with: Some(address(with)), ..ArchiveFilter::default() };
    let time = |start: Option<u64>, end: Option<u64>| ArchiveFilter {
        start: start.map(UtcTime),
        end: end.map(UtcTime),
        ..ArchiveFilter::default()
    };
    let between = |after: Option<u64>, before: Option<u64>| ArchiveFilter {
        after: after.map(id),
        before: before.map(id),
        ..ArchiveFilter::default()
    };
    let ids =
        |ats: &[u64]| ArchiveFilter { ids: Some(ats.iter().map(|at| id(*at)).collect()), ..ArchiveFilter::default() };
    let mut rows = filled();
    for (filter, expected) in [
        (ArchiveFilter::default(), "0 1 2 3 4 5 6 7. 0/8"),
        (with("b"), "0 1 3 4. ?/?"),
        (with("b/x"), "1 4. ?/?"),
        (with("b/z"), ". ?/0"),
        (with("c"), "2 5. ?/?"),
        (with("x"), ". ?/0"),
        // Only what was said to oneself (section 4.1.1).
        (with("a"), "7. ?/?"),
        (with("a/1"), "7. ?/?"),
        (with("a/2"), ". ?/0"),
        (with("d"), ". ?/0"),
        (time(Some(20), Some(30)), "1 2 3. 0/3"),
        (time(Some(22), None), "3 4 5 6 7. 0/5"),
        (time(None, Some(29)), "0 1 2. 0/3"),
        (time(Some(31), Some(39)), ". ?/0"),
        (time(Some(60), Some(10)), ". ?/0"),
        (time(Some(u64::MAX), Some(u64::MAX)), ". ?/0"),
        (time(Some(0), Some(u64::MAX)), "0 1 2 3 4 5 6 7. 0/8"),
        (between(Some(30), None), "4 5 6 7. 0/4"),
        (between(None, Some(20)), "0. 0/1"),
        (between(Some(20), Some(50)), "2 3 4. 0/3"),
        (between(Some(50), Some(20)), ". ?/0"),
        (between(Some(11), None), "NotFound"),
        (between(None, Some(19)), "NotFound"),
        (ids(&[50, 10, 50]), "0 5. ?/?"),
        (ids(&[]), ". ?/0"),
        (ids(&[10, 11]), "NotFound"),
        (ArchiveFilter { with: Some(address("b")), ..ids(&[10, 50, 30]) }, "0 3. ?/?"),
        (ArchiveFilter { with: Some(address("b/y")), ..ids(&[10, 50, 30]) }, "3. ?/?"),
        (ArchiveFilter { with: Some(address("b")), ..time(Some(20), Some(39)) }, "1 3. ?/?"),
        (ArchiveFilter { start: Some(UtcTime(41)), ..ids(&[10, 50]) }, "5. ?/?"),
    ] {
        rows.push((ask("a", filter, ALL), expected));
    }
    // Somebody else's message is none of this archive's.
    rows.push((ask("c", between(Some(30), None), ALL), "NotFound"));
    check(&rows);
}

#[test]
fn pages() {
    let mut rows = filled();
    let mut row = |filter: &ArchiveFilter, paging, expected| rows.push((ask("a", filter.clone(), paging), expected));
    let (everything, with_b) =
        (ArchiveFilter::default(), ArchiveFilter { with: Some(address("b")), ..Default::default() });
    let three = ArchivePaging { max: 3, ..ALL };
    let after = |at| ArchivePaging { after: Some(id(at)), ..three.clone() };
    let before = |at| ArchivePaging { before: Some(id(at)), backwards: true, ..three.clone() };
    row(&everything, three.clone(), "0 1 2 0/8");
    row(&everything, after(21), "3 4 5 3/8");
    row(&everything, after(50), "6 7. 6/8");
    row(&everything, after(40), "5 6 7. 5/8");
    row(&everything, after(70), ". ?/8");
    row(&everything, ArchivePaging { backwards: true, ..three.clone() }, "5 6 7 ?/8");
    row(&everything, before(50), "2 3 4 ?/8");
    row(&everything, before(21), "0 1. ?/8");
    row(&everything, before(30), "0 1 2. ?/8");
    row(&everything, before(10), ". ?/8");
    row(&everything, ArchivePaging { flip: true, ..three.clone() }, "2 1 0 0/8");
    row(&everything, ArchivePaging { flip: true, ..before(50) }, "4 3 2 ?/8");
    row(&everything, ArchivePaging { max: 0, ..ALL }, " ?/8");
    row(&everything, ArchivePaging { bytes_max: 2, ..ALL }, "0 1 0/8");
    row(&everything, ArchivePaging { bytes_max: 2, backwards: true, ..ALL }, "6 7 ?/8");
    row(&everything, ArchivePaging { bytes_max: 0, ..ALL }, "0 0/8");
    row(&everything, ArchivePaging { before: Some(id(40)), ..after(20) }, "2 3. 2/8");
    row(&everything, after(11), "NotFound");
    row(&everything, before(11), "NotFound");
    row(&with_b, three.clone(), "0 1 3 ?/?");
    row(&with_b, after(30), "4. ?/?");
    // It need not match the filter itself.
    row(&with_b, after(21), "3 4. ?/?");
    row(&with_b, before(40), "0 1 3. ?/?");
    row(&with_b, after(40), ". ?/4");
    row(&with_b, ArchivePaging { max: 0, ..ALL }, " ?/4");
    row(&with_b, ArchivePaging { backwards: true, max: 1, ..ALL }, "4 ?/?");
    let some = ArchiveFilter { ids: Some([10, 20, 30, 70].map(id).to_vec()), ..Default::default() };
    row(&some, three.clone(), "0 1 3 ?/?");
    row(&some, ArchivePaging { backwards: true, ..three.clone() }, "1 3 7 ?/?");
    row(&some, after(21), "3 7. ?/?");
    check(&rows);
}

/// An archive with room for `messages` and ten seconds.
fn small(messages: u64) -> MemoryStore {
    let mut config = config();
    config.limits.archive_bytes_max = (messages * (192 + 1)) as usize;
    config.limits.archive_time = Duration::from_secs(10);
    MemoryStore::new(&config, [7; 32])
}

fn run(store: &mut dyn Store, rows: &[(R, &str)]) {
    for (request, expected) in rows {
        assert_eq!(show(&store.apply(std::slice::from_ref(request))[0]), *expected, "{request:?}");
    }
}

/// Rows of the archive but for the bound.
fn archived(store: &mut MemoryStore) -> usize {
    dump(store.engine()).iter().filter(|(table, key, _)| *table == Table::Archive && key != &[0]).count()
}

#[test]
fn archives_are_bounded() {
    let mut store = small(3);
    run(
        &mut store,
        &[
            (create("a"), "done"),
            (create("b"), "done"),
            (said(1, "a/1", "b", "1"), "done"),
            (said(2, "a/1", "b", "2"), "done"),
            (said(3, "a/1", "b", "3"), "done"),
            (said(4, "a/1", "c", "4"), "done"),
            // The oldest has left one archive and not the other.
            (all("a"), "2 3 4. 0/3"),
            (all("b"), "1 2 3. 0/3"),
            (ask("a", ArchiveFilter { after: Some(id(1)), ..Default::default() }, ALL), "NotFound"),
            (R::ArchiveBounds { user: jid("a") }, "2..4"),
            (said(5, "a/1", "b", "5"), "done"),
            (all("a"), "3 4 5. 0/3"),
            (all("b"), "2 3 5. 0/3"),
            // Too old by now: all of a's, one of b's not.
            (said(10_005, "a/1", "c", "6"), "done"),
            (all("a"), "5 6. 0/2"),
            (said(10_006, "a/1", "b", "7"), "done"),
            (all("a"), "6 7. 0/2"),
            (all("b"), "7. 0/1"),
        ],
    );
    // A stanza and a row of each, and a row more for what both have.
    assert_eq!(archived(&mut store), 5);
    // One that takes the room of all.
    run(
        &mut store,
        &[
            (said(10_007, "a/1", "b", &"8".repeat(600)), "done"),
            (R::ArchiveBounds { user: jid("a") }, "10007..10007"),
            (R::ArchiveBounds { user: jid("b") }, "10007..10007"),
        ],
    );
    assert_eq!(archived(&mut store), 3);
}

#[test]
fn what_is_old_leaves_in_small_steps() {
    let mut store = small(1000);
    store.apply(&[create("a"), create("b")]);
    for at in 1..=20 {
        store.apply(&[said(at, "a/1", "b", "x")]);
    }
    let left = |store: &mut MemoryStore| show(&store.apply(&[R::ArchiveBounds { user: jid("a") }])[0]);
    for (at, expected) in [(20_000, "9..20000"), (20_001, "17..20001"), (20_002, "20000..20002")] {
        store.apply(&[said(at, "a/1", "b", "y")]);
        assert_eq!(left(&mut store), expected);
    }
}

#[test]
fn what_still_waits_outlives_the_archive() {
    let mut store = small(2);
    run(
        &mut store,
        &[
            (create("a"), "done"),
            (create("b"), "done"),
            (message(1, "b/1", "a", BOTH, true, "1"), "done"),
            (message(2, "b/1", "a", BOTH, true, "2"), "done"),
            (message(3, "b/1", "a", BOTH, true, "3"), "done"),
            (all("a"), "2 3. 0/2"),
            (page("a", 0, 0, 99), "1:1@1 2:2@2+ 3:3@3+"),
            (message(20_000, "b/1", "c", (Keep::Yes, Keep::No), false, "4"), "done"),
            (all("b"), "4. 0/1"),
            (page("a", 0, 0, 99), "1:1@1 2:2@2+ 3:3@3+"),
            (message(20_001, "c/1", "a", (Keep::No, Keep::Yes), false, "5"), "done"),
            (all("a"), "5. 0/1"),
            (page("a", 0, 0, 99), "1:1@1 2:2@2 3:3@3"),
            (page("a", 3, 0, 99), ""),
        ],
    );
}

#[test]
fn removed_accounts_take_their_archive_along() {
    let mut store = memory();
    run(
        &mut store,
        &[
            (create("a"), "done"),
            (create("b"), "done"),
            (said(1, "a/1", "b", "1"), "done"),
            (said(2, "a/1", "z@elsewhere.example", "2"), "done"),
            (message(3, "b/1", "a", BOTH, true, "3"), "done"),
            (prefs("a", ArchiveDefault::Roster, &["b"], &[]), "done"),
            (R::AccountRemove { user: jid("a") }, ""),
            (all("a"), ". ?/0"),
            (all("b"), "1 3. 0/2"),
            // Still on its way when the account went.
            (said(4, "a/1", "b", "4"), "done"),
            (all("a"), ". ?/0"),
            (R::AccountRemove { user: jid("b") }, ""),
        ],
    );
    assert_eq!(archived(&mut store), 0);
}

#[test]
fn a_big_archive_of_a_removed_account_goes_in_steps() {
    let mut store = MemoryStore::new(&crate::config::Config { limits: Default::default(), ..config() }, [7; 32]);
    store.apply(&[create("a"), create("b")]);
    let count = 8192 + 200;
    let batch: Vec<R> = (1..=count).map(|at| message(at, "a/1", "c", (Keep::Yes, Keep::No), false, "x")).collect();
    store.apply(&batch);
    store.apply(&[R::AccountRemove { user: jid("a") }]);
    assert_eq!(archived(&mut store), 2 * 200 + 1);
    let mut store = store.reopened(&config());
    for (at, expected) in [(1, 2 * 136 + 1), (2, 2 * 72 + 1), (3, 2 * 8 + 1), (4, 0), (5, 0)] {
        store.apply(&[message(count + at, "b/1", "c", (Keep::Yes, Keep::No), false, "y")]);
        assert_eq!(archived(&mut store), expected + 2 * at as usize, "{at}");
    }
}

#[test]
fn ids_go_on_after_a_restart() {
    let mut store = memory();
    let bound = |store: &mut MemoryStore| match store.apply(&[R::Activate { user: jid("a") }]).remove(0) {
        Ok(crate::core::effects::Stored::Account(record)) => record.last_archived.time().0,
        other => panic!("{other:?}"),
    };
    store.apply(&[create("a"), create("b")]);
    assert_eq!(bound(&mut store), 0);
    for (at, expected) in [(5, 5005), (5004, 5005), (5005, 10_005), (20_000, 25_000)] {
        store.apply(&[message(at, "b/1", "c", (Keep::Yes, Keep::No), false, "x")]);
        // While it runs ids need not make room for what is not there yet.
        assert_eq!((bound(&mut store), bound(&mut store.reopened(&config()))), (0, expected));
    }
}

#[test]
fn damaged_archives_are_refused() {
    let mut store = memory();
    store.apply(&[create("a"), create("b"), said(1, "a/1", "b", "1"), offline("a", "m")]);
    let rows = dump(store.engine());
    for (table, key, _) in rows.iter().filter(|(table, ..)| *table == Table::Archive) {
        let mut store = store.reopened(&config());
        store.engine().transact(true, &mut |tx| tx.put(*table, key, &[9])).expect("memory");
        for request in [all("a"), all("b"), said(2, "b/1", "a", "2"), R::AccountRemove { user: jid("a") }] {
            // Whatever it answers, it does not panic.
            store.apply(&[again(&request)]);
        }
    }
}

/// `cargo test --release --lib -- --ignored --nocapture what_a_message_costs`
///
/// Processor time of the calling thread, and bytes handed to the file, per message between two local accounts.
#[test]
#[ignore = "measures"]
fn what_a_message_costs() {
    let mut config = config();
    config.limits = crate::config::Limits { store_cache_bytes: 16 << 20, ..Default::default() };
    for (accounts, stored) in [(2u64, 0u64), (2, 20_000), (200, 40_000), (2000, 100_000)] {
        for batch in [1u64, 16, 256] {
            let scratch = super::tests::Scratch::new(&format!("cost-{accounts}-{stored}-{batch}"));
            let path = scratch.file();
            let mut store = RedbStore::open(&path, &config).expect("opens");
            store.apply(&(0..accounts).map(|n| create(&format!("user{n}"))).collect::<Vec<_>>());
            let body = format!(
                "<message from='user1@x/Conversations.aBcD' to='user2@x' type='chat' id='{}'>\
                <body>{}</body><request xmlns='urn:xmpp:receipts'/></message>",
                "i".repeat(36),
                "b".repeat(150)
            );
            let mut dice = super::tests::Dice::new(42);
            let mut at = 0;
            let mut next = || {
                at += 1;
                let from = dice.below(accounts);
                let to = if accounts == 2 { 1 - from } else { dice.below(accounts) };
                message(at, &format!("user{from}/Conversations.aBcD"), &format!("user{to}"), BOTH, false, &body)
            };
            let mut left = stored;
            while left > 0 {
                let count = left.min(2000);
                store.apply(&(0..count).map(|_| next()).collect::<Vec<_>>());
                left -= count;
            }
            let rounds = (2048 / batch).clamp(32, 256);
            let batches: Vec<Vec<R>> = (0..rounds).map(|_| (0..batch).map(|_| next()).collect()).collect();
            let (cpu, written) = (cpu_micros(), written_bytes());
            for batch in &batches {
                assert!(store.apply(batch).iter().all(Result::is_ok));
            }
            let messages = (rounds * batch) as f64;
            println!(
                "{accounts:5} accounts, {stored:6} stored, batch {batch:3}: {:6.1} us, {:7.0} bytes written",
                (cpu_micros() - cpu) / messages,
                (written_bytes() - written) / messages
            );
        }
    }
}

/// Processor time of this thread so far.
fn cpu_micros() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos: f64 = text.split(' ').next().and_then(|field| field.parse().ok()).expect("a number");
    nanos / 1000.0
}

/// What this process has handed to `write` so far.
fn written_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/io").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("wchar");
    line.parse().expect("a number")
}
