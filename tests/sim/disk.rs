//! The store under a simulated server, and what goes wrong with it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use redb::StorageBackend;
use whinchat::config::Config;
use whinchat::core::effects::DocumentKey;
use whinchat::core::tokens::ClientTokens;
use whinchat::core::{StoreError, StoreReply, StoreRequest, Stored, UtcTime};
use whinchat::jid::BareJid;
use whinchat::store::{Faults, MemoryStore, RedbStore, Store};

use super::dice::Dice;
use super::{ACCOUNTS, Medium, PASSWORD, Plant};

/// What goes wrong with the disk, counted from when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The n-th read fails, once.
    Read(u64),
    /// The n-th write or change of length fails, once.
    Write(u64),
    /// The n-th sync fails, once.
    Sync(u64),
    /// The power fails at the n-th write, change of length or sync.
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
    /// How far writes have reached.
    reach: u64,
}

#[derive(Clone, Debug, Default)]
struct Platter {
    /// The store's and its journal.
    files: [File; 2],
    trouble: Option<Trouble>,
    is_dark: bool,
    /// What went wrong.
    faults: Faulted,
}

/// How often each fault has struck.
pub type Faulted = BTreeMap<&'static str, u64>;

fn struck(faults: &mut Faulted, fault: &'static str) {
    *faults.entry(fault).or_default() += 1;
}

/// A file on a disk that can be made to fail; its copies are on the same disk.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platter>>, usize);

const SECTOR: usize = 512;

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

/// Whether it is the turn; stays so.
fn count(n: &mut u64) -> bool {
    *n = n.saturating_sub(1);
    *n == 0
}

impl Disk {
    /// The first file of a disk with these two.
    fn of(images: [Vec<u8>; 2]) -> Disk {
        let files = images.map(|image| {
            let reach = image.len() as u64;
            File { cached: image.clone(), durable: image, reach, ..File::default() }
        });
        Disk(Arc::new(Mutex::new(Platter { files, ..Platter::default() })), 0)
    }

    /// The other file.
    fn journal(&self) -> Disk {
        Disk(self.0.clone(), 1)
    }

    fn with<T>(&self, run: impl FnOnce(&mut Platter) -> T) -> T {
        run(&mut self.0.lock().expect("no panic while it is held"))
    }

    /// The disk as it may be found when the power is back: of what was not synced, any part, in whole sectors.
    fn after_power_cut(&self, dice: &mut Dice, faults: &mut Faulted) -> Disk {
        let files = self.with(|platter| platter.files.clone());
        Disk::of(files.map(|File { durable: mut image, pending, .. }| {
            for pending in pending {
                match (dice.below(4), &pending) {
                    (0, _) => struck(faults, "redb: unsynced write lost"),
                    (1, Pending::Write(offset, data)) => {
                        struck(faults, "redb: unsynced write torn");
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
    fn go_dark(&mut self) {
        if !std::mem::replace(&mut self.is_dark, true) {
            struck(&mut self.faults, "redb: power cut within a commit");
        }
    }

    fn change(&mut self, file: usize, pending: Pending) -> io::Result<()> {
        let (reach, len) = (self.files[file].reach, self.files[file].cached.len() as u64);
        let error = match (&mut self.trouble, &pending) {
            (Some(Trouble::Power(n)), _) => count(n).then_some(io::ErrorKind::BrokenPipe),
            (Some(Trouble::Write(n)), _) => count(n).then_some(io::ErrorKind::StorageFull),
            (Some(Trouble::Full), Pending::Write(offset, data)) => {
                (offset + data.len() as u64 > reach).then_some(io::ErrorKind::StorageFull)
            }
            (Some(Trouble::Full), Pending::SetLen(to)) => (*to > len).then_some(io::ErrorKind::StorageFull),
            _ => None,
        };
        if let Some(kind) = error {
            match self.trouble {
                Some(Trouble::Write(_)) => {
                    struck(&mut self.faults, "redb: write fails");
                    self.trouble = None;
                }
                Some(Trouble::Power(_)) => self.go_dark(),
                _ => struck(&mut self.faults, "redb: disk full"),
            }
            return Err(kind.into());
        }
        if let Pending::Write(offset, data) = &pending {
            self.files[file].reach = reach.max(offset + data.len() as u64);
        }
        apply(&mut self.files[file].cached, &pending);
        self.files[file].pending.push(pending);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|platter| platter.files[self.1].cached.len() as u64))
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|platter| {
            if let Some(Trouble::Read(n)) = &mut platter.trouble
                && count(n)
            {
                platter.trouble = None;
                struck(&mut platter.faults, "redb: read fails");
                return Err(io::Error::other("unreadable"));
            }
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
                match platter.trouble {
                    Some(Trouble::Sync(_)) => {
                        struck(&mut platter.faults, "redb: fsync fails");
                        platter.trouble = None;
                    }
                    _ => platter.go_dark(),
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

/// What became of a batch.
pub enum Outcome {
    Replies(Vec<StoreReply>),
    /// The power failed before there were any.
    PowerCut,
}

/// The store of a simulated server.
pub struct Vault {
    kind: Kind,
    plant: Option<Plant>,
    /// What the planted store has answered and not yet done.
    promised: Vec<StoreRequest>,
    /// Requests that it might have forgotten.
    forgotten: u64,
    /// Tokens that it should have forgotten, by whose they are.
    kept_tokens: BTreeMap<String, ClientTokens>,
    /// The power is to fail around the next batch with something to write: before its commit, or behind it.
    cut: Option<bool>,
    /// What was done so far, for the report.
    pub batches: u64,
    pub failures: u64,
    faults: Faulted,
}

enum Kind {
    Memory(Faults<MemoryStore>),
    Redb { store: Option<RedbStore>, disk: Disk },
}

fn create(index: usize) -> StoreRequest {
    StoreRequest::AccountCreate {
        user: BareJid::parse(ACCOUNTS[index]).expect("an account's name"),
        password: PASSWORD.to_owned().into(),
        at: UtcTime(0),
    }
}

/// Stores with the accounts in them, made once: hashing the passwords takes longer than a whole simulated hour.
struct Templates {
    memory: Mutex<MemoryStore>,
    images: [Vec<u8>; 2],
}

fn templates(config: &Config) -> &'static Templates {
    static TEMPLATES: OnceLock<Templates> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let accounts: Vec<StoreRequest> = (0..ACCOUNTS.len()).map(create).collect();
        let mut memory = MemoryStore::new(config, [7; 32]);
        assert!(memory.apply(&accounts).iter().all(Result::is_ok));
        let disk = Disk::default();
        let mut store = open(&disk, config).expect("a new disk");
        assert!(store.apply(&accounts).iter().all(Result::is_ok));
        drop(store);
        let images = disk.with(|platter| platter.files.clone()).map(|file| file.cached);
        Templates { memory: Mutex::new(memory), images }
    })
}

fn open(disk: &Disk, config: &Config) -> Result<RedbStore, String> {
    let (disk, journal) = (disk.clone(), disk.journal());
    RedbStore::with_journal(move || Ok(disk.clone()), journal, config).map_err(|error| error.to_string())
}

impl Vault {
    pub fn new(config: &Config, medium: Medium, plant: Option<Plant>) -> Vault {
        let templates = templates(config);
        let kind = match medium {
            Medium::Memory => {
                let memory = templates.memory.lock().expect("no panic while it is held");
                Kind::Memory(Faults::new(memory.reopened(config)))
            }
            Medium::Redb => {
                let disk = Disk::of(templates.images.clone());
                Kind::Redb { store: Some(open(&disk, config).expect("the template")), disk }
            }
        };
        Vault {
            kind,
            plant,
            promised: Vec::new(),
            forgotten: 0,
            kept_tokens: BTreeMap::new(),
            cut: None,
            batches: 0,
            failures: 0,
            faults: Faulted::new(),
        }
    }

    pub fn secret(&self) -> [u8; 32] {
        match &self.kind {
            Kind::Memory(store) => store.secret(),
            Kind::Redb { store, .. } => store.as_ref().expect("the power is on").secret(),
        }
    }

    /// Lets a write fail soon. After a failed sync nothing is written until the server is restarted.
    pub fn fail(&mut self, dice: &mut Dice) {
        match &mut self.kind {
            Kind::Memory(store) => {
                let error = if dice.percent(50) { StoreError::Failed } else { StoreError::DiskFull };
                match dice.percent(80) {
                    true => store.fail_nth_write(1 + dice.below(3) as u64, error),
                    false => store.fail_nth(1 + dice.below(3) as u64, error),
                }
            }
            Kind::Redb { disk, .. } => {
                let n = 1 + dice.below(12) as u64;
                let trouble = match dice.below(5) {
                    0 => Trouble::Sync(1 + dice.below(3) as u64),
                    1 => Trouble::Full,
                    2 => Trouble::Read(n),
                    _ => Trouble::Write(n),
                };
                disk.with(|platter| platter.trouble = Some(trouble));
            }
        }
    }

    /// The disk works again, or for a full one, has space.
    pub fn mend(&mut self) {
        if let Kind::Redb { disk, .. } = &mut self.kind {
            disk.with(|platter| platter.trouble = None);
        }
    }

    /// The power is to fail during the next commit.
    pub fn cut_power_soon(&mut self, dice: &mut Dice) {
        match &mut self.kind {
            Kind::Memory(_) => self.cut = Some(dice.percent(50)),
            Kind::Redb { disk, .. } => {
                let n = 1 + dice.below(14) as u64;
                disk.with(|platter| platter.trouble = Some(Trouble::Power(n)));
            }
        }
    }

    /// Carries a batch out.
    pub fn apply(&mut self, mut batch: Vec<StoreRequest>, config: &Config) -> Outcome {
        self.batches += 1;
        if let Some(plant) = self.plant {
            batch.iter_mut().for_each(|request| plant.spoil(request));
        }
        let writes = batch.iter().any(StoreRequest::may_write);
        let cut = if writes { self.cut.take() } else { None };
        if cut == Some(false) {
            struck(&mut self.faults, "memory: power cut before a commit");
            return Outcome::PowerCut;
        }
        let replies = match self.plant {
            None => self.carry_out(&batch),
            Some(Plant::AcknowledgeBeforeCommit) => self.promise(batch),
            Some(plant) => self.carry_out_as(plant, batch, config),
        };
        if cut == Some(true) {
            struck(&mut self.faults, "memory: power cut behind a commit, before its answer");
        }
        if cut == Some(true) || self.is_dark() {
            return Outcome::PowerCut;
        }
        self.failures +=
            replies.iter().filter(|reply| matches!(reply, Err(error) if is_trouble(*error))).count() as u64;
        if let (Kind::Memory(_), Some(Err(error))) = (&self.kind, replies.first())
            && replies.iter().all(|reply| matches!(reply, Err(other) if other == error))
        {
            match error {
                StoreError::Failed => struck(&mut self.faults, "memory: commit fails"),
                StoreError::DiskFull => struck(&mut self.faults, "memory: disk full"),
                _ => {}
            }
        }
        Outcome::Replies(replies)
    }

    /// What is stored of an account's registrations for push, if that can be read.
    pub fn push_document(&mut self, user: &str) -> Option<String> {
        let user = BareJid::parse(user).expect("an account's name");
        let request = StoreRequest::DocumentGet { user, key: DocumentKey::Push };
        match self.carry_out(&[request]).remove(0) {
            Ok(Stored::Document(document)) => Some(String::from_utf8_lossy(&document.unwrap_or_default()).into_owned()),
            _ => None,
        }
    }

    /// What went wrong so far.
    pub fn faults(&self) -> Faulted {
        let mut faults = self.faults.clone();
        if let Kind::Redb { disk, .. } = &self.kind {
            disk.with(|platter| platter.faults.iter().for_each(|(fault, n)| *faults.entry(fault).or_default() += n));
        }
        faults
    }

    fn carry_out(&mut self, batch: &[StoreRequest]) -> Vec<StoreReply> {
        match &mut self.kind {
            Kind::Memory(store) => store.apply(batch),
            Kind::Redb { store, .. } => store.as_mut().expect("the power is on").apply(batch),
        }
    }

    fn is_dark(&self) -> bool {
        match &self.kind {
            Kind::Memory(_) => false,
            Kind::Redb { disk, .. } => disk.with(|platter| platter.is_dark),
        }
    }

    /// The planted store: some of it is not done, and answered as if it was; or answered otherwise.
    fn carry_out_as(&mut self, plant: Plant, batch: Vec<StoreRequest>, config: &Config) -> Vec<StoreReply> {
        let mut forget = |request: &StoreRequest| {
            let forgets = plant.forgets(request);
            self.forgotten += u64::from(forgets);
            forgets && self.forgotten.is_multiple_of(3)
        };
        let forgotten: Vec<bool> = batch.iter().map(&mut forget).collect();
        let is_whole = !forgotten.contains(&true);
        let mut replies = match &self.kind {
            // On a copy, which is thrown away.
            Kind::Memory(store) if !is_whole => Faults::new(store.inner().reopened(config)).apply(&batch),
            _ => self.carry_out(&batch),
        };
        for (request, reply) in batch.iter().zip(&mut replies) {
            plant.twist(request, reply);
            if plant == Plant::KeepTokens {
                self.keep_tokens(request, reply);
            }
        }
        if let (Kind::Memory(_), false) = (&self.kind, is_whole) {
            let rest = batch.into_iter().zip(forgotten).filter(|(_, forgotten)| !forgotten);
            self.carry_out(&rest.map(|(request, _)| request).collect::<Vec<_>>());
        }
        replies
    }

    /// The planted store: tokens that are gone are there again.
    fn keep_tokens(&mut self, request: &StoreRequest, reply: &mut StoreReply) {
        match (request, &mut *reply) {
            (StoreRequest::Tokens { user, client }, Ok(Stored::Tokens(tokens))) => {
                let kept = self.kept_tokens.entry(format!("{user} {client:?}")).or_default();
                match tokens.is_empty() {
                    true => **tokens = kept.clone(),
                    false => *kept = (**tokens).clone(),
                }
            }
            (StoreRequest::TokenChange { .. }, Err(StoreError::NotFound)) => *reply = Ok(Stored::Done),
            _ => {}
        }
    }

    /// The planted store: a lone message is said to be kept, and is kept one batch later.
    fn promise(&mut self, batch: Vec<StoreRequest>) -> Vec<StoreReply> {
        let due = std::mem::take(&mut self.promised);
        if !due.is_empty() {
            self.carry_out(&due);
        }
        if matches!(&*batch, [StoreRequest::OfflinePut { .. } | StoreRequest::ArchivePut { offline: true, .. }]) {
            self.promised = batch;
            return vec![Ok(Stored::Done)];
        }
        self.carry_out(&batch)
    }

    /// The server is started again; what was in its memory, and what was not synced, is gone.
    pub fn power_on(&mut self, config: &Config, dice: &mut Dice) {
        self.cut = None;
        self.promised.clear();
        self.faults = self.faults();
        let kind = std::mem::replace(&mut self.kind, Kind::Redb { store: None, disk: Disk::default() });
        self.kind = match kind {
            Kind::Memory(store) => Kind::Memory(Faults::new(store.into_inner().reopened(config))),
            Kind::Redb { store, disk } => {
                // What closing writes does not reach the disk any more.
                let survivor = disk.after_power_cut(dice, &mut self.faults);
                disk.with(|platter| platter.trouble = Some(Trouble::Power(1)));
                drop(store);
                let store = open(&survivor, config).unwrap_or_else(|error| panic!("after a power cut: {error}"));
                Kind::Redb { store: Some(store), disk: survivor }
            }
        };
    }
}

fn is_trouble(error: StoreError) -> bool {
    matches!(error, StoreError::Failed | StoreError::DiskFull)
}
