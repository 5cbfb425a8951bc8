//! The file on a disk that fails, fills up, or loses power: nothing acknowledged is lost, nothing refused has happened.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::apply::Random;
use super::redb::Parts;
use super::tests::{Dice, SEED, any_request, config, create, dump, event, jid, memory, offline, put, show};
use super::{MemoryStore, OpenError, RedbStore, Store};
use crate::core::effects::StoreRequest as R;

/// What goes wrong, counted from when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The n-th write or change of length fails, once.
    Write(u64),
    /// The n-th sync fails, once.
    Sync(u64),
    /// Everything from the n-th write, change of length or sync on.
    Power(u64),
    /// Nothing can be written where nothing was written before.
    Full,
}

#[derive(Clone, Debug)]
enum Pending {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
struct File {
    /// What a reader sees.
    cached: Vec<u8>,
    /// What is safe.
    durable: Vec<u8>,
    /// What was done since the last sync.
    pending: Vec<Pending>,
    /// How far writes reach.
    reach: u64,
}

#[derive(Debug, Default)]
struct Platter {
    /// The store's and its journal.
    files: [File; 2],
    trouble: Option<Trouble>,
    /// Writes so far.
    writes: u64,
}

/// One file on a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Platter>>, usize);

const SECTOR: usize = 512;
/// Power cuts in the ordinary run; `WHINCHAT_CUTS` says otherwise.
const CUTS: u64 = 200;
/// Some batches of these tests go to the journal, others are redb's.
pub(super) const RECENT_BYTES_MAX: usize = 1500;

fn apply(image: &mut Vec<u8>, pending: &Pending) {
    match pending {
        Pending::SetLen(len) => image.resize(*len as usize, 0),
        Pending::Write(offset, data) => {
            let (from, to) = (*offset as usize, *offset as usize + data.len());
            // Past an end that was not moved: the file system leaves a hole before it.
            image.resize(image.len().max(to), 0);
            image[from..to].copy_from_slice(data);
        }
    }
}

impl Disk {
    /// A disk whose first file holds this.
    pub(super) fn holding(image: Vec<u8>) -> Disk {
        Disk::holding_both([image, Vec::new()])
    }

    /// A disk whose files hold this.
    pub(super) fn holding_both(images: [Vec<u8>; 2]) -> Disk {
        let files = images.map(|image| {
            let reach = image.len() as u64;
            File { cached: image.clone(), durable: image, reach, ..File::default() }
        });
        Disk(Arc::new(Mutex::new(Platter { files, ..Platter::default() })), 0)
    }

    /// The other file.
    pub(super) fn journal(&self) -> Disk {
        Disk(self.0.clone(), 1)
    }

    /// All that a reader sees.
    pub(super) fn image(&self) -> Vec<u8> {
        self.with(|platter| platter.files[self.1].cached.clone())
    }

    fn with<T>(&self, run: impl FnOnce(&mut Platter) -> T) -> T {
        run(&mut self.0.lock().expect("no panic while it is held"))
    }

    fn trouble(&self, trouble: Option<Trouble>) {
        self.with(|platter| platter.trouble = trouble);
    }

    /// The disk as it may be found when the power is back: of what was not synced, any part, in whole sectors.
    fn after_power_cut(&self, dice: &mut Dice) -> Disk {
        let files = self.with(|platter| platter.files.clone());
        Disk::holding_both(files.map(|File { durable: mut image, pending, .. }| {
            for pending in pending {
                match (dice.below(4), &pending) {
                    (0, _) => {}
                    (1, Pending::Write(offset, data)) => {
                        for (at, sector) in data.chunks(SECTOR).enumerate().filter(|_| dice.below(2) == 0) {
                            apply(&mut image, &Pending::Write(offset + (at * SECTOR) as u64, sector.to_vec()));
                        }
                    }
                    _ => apply(&mut image, &pending),
                }
            }
            image
        }))
    }
}

impl Platter {
    fn change(&mut self, file: usize, pending: Pending) -> io::Result<()> {
        let reach = self.files[file].reach;
        let error = match (&mut self.trouble, &pending) {
            (Some(Trouble::Power(n)), _) => count(n).then_some(io::ErrorKind::BrokenPipe),
            (Some(Trouble::Write(n)), _) => count(n).then_some(io::ErrorKind::StorageFull),
            (Some(Trouble::Full), Pending::Write(offset, data)) => {
                (offset + data.len() as u64 > reach).then_some(io::ErrorKind::StorageFull)
            }
            _ => None,
        };
        if let Some(kind) = error {
            if let Some(Trouble::Write(_)) = self.trouble {
                self.trouble = None;
            }
            return Err(kind.into());
        }
        if let Pending::Write(offset, data) = &pending {
            self.writes += 1;
            self.files[file].reach = reach.max(offset + data.len() as u64);
        }
        apply(&mut self.files[file].cached, &pending);
        self.files[file].pending.push(pending);
        Ok(())
    }
}

/// Whether it is the turn; stays so.
fn count(n: &mut u64) -> bool {
    *n = n.saturating_sub(1);
    *n == 0
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|platter| platter.files[self.1].cached.len() as u64))
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|platter| {
            let from = offset as usize;
            let data = platter.files[self.1].cached.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(data);
            Ok(())
        })
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|platter| platter.change(self.1, Pending::SetLen(len)))
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|platter| platter.change(self.1, Pending::Write(offset, data.to_vec())))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.with(|platter| {
            let fails = match &mut platter.trouble {
                Some(Trouble::Power(n) | Trouble::Sync(n)) => count(n),
                _ => false,
            };
            if fails {
                if let Some(Trouble::Sync(_)) = platter.trouble {
                    platter.trouble = None;
                }
                return Err(io::Error::other("lost"));
            }
            let file = &mut platter.files[self.1];
            for pending in std::mem::take(&mut file.pending) {
                apply(&mut file.durable, &pending);
            }
            Ok(())
        })
    }
}

pub(super) fn open(disk: &Disk) -> Result<RedbStore, OpenError> {
    open_checking(disk, u64::MAX)
}

pub(super) fn open_checking(disk: &Disk, checked_bytes_max: u64) -> Result<RedbStore, OpenError> {
    let (file, journal) = (disk.clone(), disk.journal());
    let open_journal = move |_| Ok(Arc::new(journal.clone()) as Arc<dyn StorageBackend>);
    let parts = Parts {
        path: PathBuf::from("a/file"),
        journal: Some(Box::new(open_journal)),
        checked_bytes_max,
        recent_bytes_max: RECENT_BYTES_MAX,
        ..Parts::given(move || Ok(file.clone()))
    };
    RedbStore::build(parts, &config(), Random::Seeded { seed: SEED, drawn: 0 })
}

/// A store on a disk with some accounts, and the map that it must agree with.
pub(super) fn begin() -> (Disk, RedbStore, MemoryStore) {
    let disk = Disk::default();
    let (mut store, mut model) = (open(&disk).expect("a new disk"), memory());
    let accounts: Vec<R> = ["a", "b", "c", "d@y", "e@y"].map(create).into();
    let replies = store.apply(&accounts);
    assert_eq!(replies.iter().map(show).collect::<Vec<_>>(), ["done"; 5]);
    model.apply(&accounts);
    (disk, store, model)
}

/// Requests that are one transaction and draw nothing, so that a failed batch leaves store and model in step.
pub(super) fn any_batch(dice: &mut Dice) -> Vec<R> {
    let mut batch = Vec::new();
    for _ in 0..=dice.below(8) {
        batch.extend(std::iter::repeat_with(|| any_request(dice)).find(|request| !request.is_slow()));
    }
    batch
}

fn lines(store: &mut dyn Store, batch: &[R]) -> Vec<String> {
    store.apply(batch).iter().map(show).collect()
}

#[test]
fn failed_writes_are_refused_and_forgotten() {
    for n in 1.. {
        let (disk, mut store, mut model) = begin();
        let mut dice = Dice::new(n);
        let mut failures = 0;
        disk.trouble(Some(Trouble::Write(n)));
        for _ in 0..12 {
            let batch = any_batch(&mut dice);
            let mut after = model.reopened(&config());
            let (got, expected) = (lines(&mut store, &batch), lines(&mut after, &batch));
            if got == expected {
                model = after;
            } else {
                // What was answered before the first write stands, other writes are refused, and who reads finds none of them.
                let kept = got.iter().zip(&expected).take_while(|(got, expected)| got == expected).count();
                for (line, request) in got.iter().zip(&batch).skip(kept) {
                    match request.may_write() {
                        true => assert_eq!(line, "DiskFull", "write {n}: {got:?} not {expected:?}"),
                        false => assert_eq!(*line, lines(&mut model, std::slice::from_ref(request))[0]),
                    }
                }
                failures += 1;
            }
            assert_eq!(dump(store.engine()), dump(model.engine()), "write {n}, {got:?}");
        }
        drop(store);
        let fired = disk.with(|platter| platter.trouble.take().is_none());
        let mut store = open(&disk).expect("opens again");
        assert_eq!(dump(store.engine()), dump(model.engine()), "write {n}, opened again");
        if !fired {
            assert!(n > 20, "the scenario writes more than {n} times");
            return;
        }
        // The write may have been one that closing makes, or one that redb can do without.
        assert!(failures <= 1);
    }
}

#[test]
fn full_disks_are_read_from() {
    let (disk, mut store, mut model) = begin();
    disk.trouble(Some(Trouble::Full));
    let question = [R::Credentials { user: jid("a") }, R::Activate { user: jid("b") }];
    let mut refused = 0;
    for round in 0..400 {
        let reader = R::Credentials { user: jid("a") };
        let batch = [put("a", "b", &"x".repeat(5000 + 50 * round)), event("b", "subscribe", "c"), reader];
        let got = lines(&mut store, &batch);
        // Somebody else's writes do not keep anybody from logging in.
        if got[..2] == ["DiskFull", "DiskFull"] {
            assert_eq!(got[2], lines(&mut model, &batch[2..])[0]);
            refused += 1;
        } else {
            assert_eq!(got, lines(&mut model, &batch), "round {round}");
        }
        // People can log in all the while.
        assert_eq!(lines(&mut store, &question), lines(&mut model, &question), "round {round}");
        if refused == 3 {
            break;
        }
    }
    assert_eq!(refused, 3, "it must get full");
    disk.trouble(None);
    let batch = [put("a", "b", &"x".repeat(9000)), offline("a", "there is room")];
    assert_eq!(lines(&mut store, &batch), lines(&mut model, &batch));
    assert_eq!(dump(store.engine()), dump(model.engine()));
}

#[test]
fn after_a_failed_sync_nothing_is_written() {
    for n in 1.. {
        let (disk, mut store, mut model) = begin();
        let mut dice = Dice::new(n);
        disk.trouble(Some(Trouble::Sync(n)));
        let mut after = model.reopened(&config());
        let mut writes = None;
        for _ in 0..8 {
            let batch = any_batch(&mut dice);
            if let Some(writes) = writes {
                let got = lines(&mut store, &batch);
                let refused = |(request, line): (&R, &String)| !request.may_write() || line == "Failed";
                assert!(batch.iter().zip(&got).all(refused), "sync {n}: {got:?}");
                assert_eq!(disk.with(|platter| platter.writes), writes, "sync {n}");
                continue;
            }
            after = model.reopened(&config());
            let (got, expected) = (lines(&mut store, &batch), lines(&mut after, &batch));
            if disk.with(|platter| platter.trouble.is_none()) {
                assert_ne!(got, expected, "sync {n} failed and nobody was told");
                writes = Some(disk.with(|platter| platter.writes));
            } else {
                assert_eq!(got, expected);
                model = after.reopened(&config());
            }
        }
        if writes.is_none() {
            assert!(n > 8);
            return;
        }
        drop(store);
        check_survivor(&disk.after_power_cut(&mut dice), &mut model, &mut after, &format!("sync {n}"));
    }
}

/// What is found later is all that was acknowledged, and of what was not the whole batch or nothing.
fn check_survivor(disk: &Disk, acknowledged: &mut MemoryStore, attempted: &mut MemoryStore, what: &str) {
    let mut store = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = dump(store.engine());
    if found != dump(acknowledged.engine()) {
        assert_eq!(found, dump(attempted.engine()), "{what}");
    }
    // And life goes on.
    assert_eq!(
        lines(&mut store, &[R::LastSeen { user: jid("a"), at: Default::default(), status: String::new() }]),
        ["done"]
    );
}

#[test]
fn power_cuts_lose_nothing_acknowledged() {
    let cuts = std::env::var("WHINCHAT_CUTS").ok().and_then(|count| count.parse().ok()).unwrap_or(CUTS);
    for seed in 1..=cuts {
        let mut dice = Dice::new(seed * 0x9e37_79b9);
        let (disk, mut store, mut model) = begin();
        let mut after = model.reopened(&config());
        disk.trouble(Some(Trouble::Power(1 + dice.below(120))));
        for _ in 0..24 {
            let batch = any_batch(&mut dice);
            after = model.reopened(&config());
            let (got, expected) = (lines(&mut store, &batch), lines(&mut after, &batch));
            // From the cut on, only what needs no commit is right.
            if got != expected {
                break;
            }
            model = after.reopened(&config());
        }
        check_survivor(&disk.after_power_cut(&mut dice), &mut model, &mut after, &format!("seed {seed}"));
        drop(store);
    }
}
