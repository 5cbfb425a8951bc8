//! The store: what a request costs alone and in company, on a file in a temporary directory and in memory.
//!
//! Each commit is synced, so the figures of `redb` are as much the disk's as ours.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use whinchat::config::Config;
use whinchat::core::archive::{ArchiveFilter, ArchiveId, ArchivePaging, Keep};
use whinchat::core::{StoreRequest, UtcTime};
use whinchat::jid::{BareJid, Jid};
use whinchat::store::{MemoryStore, RedbStore, Store};

const ACCOUNTS: usize = 1000;
const BATCHES: [usize; 4] = [1, 16, 256, 4096];

/// Routed form of a chat message with its delay stamp, 300 bytes.
const STANZA: &str = "<message xmlns='jabber:client' from='romeo@localhost/orchard' to='juliet@localhost' type='chat' \
                      id='5f3c9a1e-77d0-4b1c'><body>Art thou not Romeo, and a Montague? It is nor hand, nor foot, nor arm\
                      </body><delay xmlns='urn:xmpp:delay' from='localhost' stamp='2026-11-22T19:30:50.000Z'/></message>";

/// Removed with what is in it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        let path = std::env::temp_dir().join(format!("whinchat-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for the store");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn account(number: usize) -> BareJid {
    BareJid::from_prepared(&format!("user{}@localhost", number % ACCOUNTS))
}

fn populate(store: &mut impl Store) {
    for number in 0..ACCOUNTS {
        let create = StoreRequest::AccountCreate {
            user: account(number),
            password: "correct horse battery staple".to_owned().into(),
            at: UtcTime(0),
        };
        assert!(store.apply(&[create])[0].is_ok());
        let put = StoreRequest::RosterPut {
            user: account(number),
            jid: account(number + 1),
            name: "Romeo".to_owned(),
            groups: vec!["Montague".to_owned()],
        };
        assert!(store.apply(&[put])[0].is_ok());
    }
}

/// Accounts in an order without a pattern that a cache could like, and requests that never repeat, since what changes nothing
/// is not written.
fn next(round: &mut usize, make: Make) -> StoreRequest {
    *round += 7919;
    make(account(*round), *round)
}

/// Between two accounts, later than all before.
fn archived(user: BareJid, round: usize) -> StoreRequest {
    StoreRequest::ArchivePut {
        id: ArchiveId::least_at(UtcTime(round as u64)),
        from: user.into(),
        to: account(round + 1).into(),
        sender: Keep::Yes,
        receiver: Keep::Yes,
        offline: false,
        stanza: STANZA.into(),
    }
}

type Make = fn(BareJid, usize) -> StoreRequest;

fn measure(c: &mut Criterion, name: &str, store: &mut impl Store) {
    let kinds: [(&str, Make); 6] = [
        ("ask account", |user, _| StoreRequest::Activate { user }),
        ("ask credentials", |user, _| StoreRequest::Credentials { user }),
        ("put roster item", |user, round| {
            let groups = vec!["Montague".to_owned()];
            StoreRequest::RosterPut {
                user,
                jid: BareJid::from_prepared("romeo@montague.example"),
                name: format!("Romeo {round}"),
                groups,
            }
        }),
        ("put archived message", |user, round| archived(user, round)),
        ("ask archive page of 20", |user, _| StoreRequest::ArchivePage {
            user,
            filter: ArchiveFilter::default(),
            paging: ArchivePaging {
                max: 20,
                bytes_max: usize::MAX,
                after: None,
                before: None,
                backwards: true,
                flip: false,
            },
        }),
        ("put offline message", |user, _| StoreRequest::OfflinePut {
            user,
            from: Jid::from_prepared("romeo@montague.test/orchard"),
            stanza: STANZA.into(),
            archived: None,
        }),
    ];
    let mut round = 0;
    for (kind, make) in kinds {
        let mut group = c.benchmark_group(format!("{name}/{kind}"));
        group.sample_size(10);
        for size in BATCHES {
            group.throughput(Throughput::Elements(size as u64));
            group.bench_with_input(BenchmarkId::from_parameter(size), &size, |b, size| {
                let batch = || (0..*size).map(|_| next(&mut round, make)).collect::<Vec<_>>();
                b.iter_batched(batch, |batch| black_box(store.apply(&batch)), criterion::BatchSize::PerIteration);
            });
        }
        group.finish();
    }
}

fn store(c: &mut Criterion) {
    let mut config = Config::try_out();
    // A full mailbox would turn writes into refusals.
    config.limits.offline_messages_max = usize::MAX;
    config.limits.offline_bytes_max = usize::MAX;
    let directory = Directory::new();
    let mut redb = RedbStore::open(&directory.0.join("store.redb"), &config).expect("a new store");
    populate(&mut redb);
    measure(c, "redb", &mut redb);
    let mut memory = MemoryStore::new(&config, [7; 32]);
    populate(&mut memory);
    measure(c, "memory", &mut memory);
}

criterion_group!(benches, store);
criterion_main!(benches);
