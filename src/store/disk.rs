//! Transactions over the store's file, its journal and the rows that are only in that.
//!
//! A transaction reads what redb has committed, with the recent rows before it, and writes into the recent rows alone. It is
//! made durable by a record of the journal; where that is full or much was written, by one transaction of redb that takes all
//! recent rows and begins the journal anew. Without a journal each transaction is one of redb's.
//!
//! After a failed write the file is closed and opened again, which brings back the last commit, and life goes on. After a failed
//! *sync* nobody knows what the disk has: the kernel may have dropped the pages and would call a second try a success. Then
//! nothing is written any more until the server is restarted; what is in memory can still be read.

use std::io;
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redb::{
    AccessGuard, BackendError, Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, StorageBackend,
    StorageError, TableDefinition, TableError, WriteTransaction,
};

use super::apply::{self, EachRow, Engine, Run, Tx};
use super::journal::{Damaged, Journal};
use super::look::Look;
use super::mark::Mark;
use super::recent::{self, Change, Recent};
use super::schema::{self, Malformed, Table};
use super::sum;
use crate::core::effects::StoreError;

/// Time without trouble after which the file is said to work again.
const CALM: Duration = Duration::from_secs(5);

/// The cache while the file is checked.
const CHECK_CACHE_BYTES: usize = 512 * 1024;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(super) const fn definition(table: Table) -> Definition {
    TableDefinition::new(table.name())
}

/// Gives the backend anew each time.
pub(super) type OpenBackend = dyn FnMut() -> io::Result<Arc<dyn StorageBackend>> + Send;

/// Gives the journal's backend, once; only with `true` it is made if it is not there.
pub(super) type OpenJournal = dyn FnMut(bool) -> io::Result<Arc<dyn StorageBackend>> + Send;

/// The database, or what it takes to have it again.
pub(super) struct Disk {
    path: PathBuf,
    open: Box<OpenBackend>,
    cache_bytes: usize,
    recent_bytes_max: usize,
    /// It is a file of ours, which can be closed and opened at any time.
    is_file: bool,
    /// `None` after a failed write, and when its memory was given back, until it is opened again.
    pub(super) database: Option<Database>,
    journal: Option<Journal>,
    recent: Recent,
    /// The file names a generation of the journal, which has to change with what it holds. One that was closed in order names
    /// none, nor does one that nothing was written into since: it is complete without a journal.
    names_generation: bool,
    /// The generation that a transaction would have made valid of which nobody knows how it ended.
    attempted: Option<u64>,
    /// Nothing is written any more.
    sync_failed: Arc<AtomicBool>,
    /// When there was trouble last. That was logged; what repeats it is not.
    failed_at: Option<Instant>,
    /// What says that the file was closed in order.
    mark: Option<Mark>,
    pub(super) look: Look,
}

impl Disk {
    pub(super) fn new(
        path: PathBuf,
        open: Box<OpenBackend>,
        cache_bytes: usize,
        recent_bytes_max: usize,
        is_file: bool,
    ) -> Disk {
        Disk {
            path,
            open,
            cache_bytes,
            recent_bytes_max,
            is_file,
            database: None,
            journal: None,
            recent: Recent::default(),
            names_generation: false,
            attempted: None,
            sync_failed: Arc::new(AtomicBool::new(false)),
            failed_at: None,
            mark: None,
            look: Look::default(),
        }
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Opens what another run has left, and checks a file of up to so many bytes whole. The check writes at its end; where there
    /// is no room for that, the file is opened without, so that a full disk keeps nobody from logging in.
    pub(super) fn open_checked(&mut self, bytes_max: u64) -> Result<Database, redb::Error> {
        match self.open_database(bytes_max) {
            Err(error) if kind_of(&error) == StoreError::DiskFull => self.open_database(0),
            opened => opened,
        }
    }

    fn open_database(&mut self, checked_bytes_max: u64) -> Result<Database, redb::Error> {
        let inner = (self.open)().map_err(redb::Error::Io)?;
        let check = inner.len().map_err(redb::Error::Io)? <= checked_bytes_max;
        // What is read once, for a check, need not fill a cache that is never given back.
        let is_small = check && self.is_file;
        let cache_bytes = if is_small { self.cache_bytes.min(CHECK_CACHE_BYTES) } else { self.cache_bytes };
        self.look.is_done |= check;
        let backend = self.watched(inner);
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes).set_check_integrity_on_open(check);
        unwinding(|| builder.create_with_backend(backend))?.map_err(redb::Error::from)
    }

    fn watched(&self, inner: Arc<dyn StorageBackend>) -> Watched {
        Watched { inner, sync_failed: self.sync_failed.clone() }
    }

    /// Takes a database that is ours, and the journal's records of the generation that it names.
    pub(super) fn start(
        &mut self,
        database: Database,
        journal: Option<Box<OpenJournal>>,
        mark: Option<Mark>,
    ) -> Result<Result<(), Damaged>, redb::Error> {
        let generation = unwinding(|| named_generation(&database))??;
        self.database = Some(database);
        self.mark = mark;
        self.names_generation = generation.is_some();
        let Some(mut open) = journal else { return Ok(Ok(())) };
        let opened = match open(generation.is_none()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && generation.is_some() => {
                return Ok(Err(Damaged::Missing));
            }
            opened => opened.map_err(redb::Error::Io)?,
        };
        let backend = self.watched(opened);
        let mut journal = match Journal::open(Box::new(backend)) {
            Ok(journal) => journal,
            // It had not been whole before either, so nothing is in it.
            Err(error) if is_full(&error) => {
                log::warn!("store: there is no room for the journal of {}; it goes without", self.path.display());
                return Ok(Ok(()));
            }
            Err(error) => return Err(redb::Error::Io(error)),
        };
        if let Some(generation) = generation
            && let Err(damaged) = journal.load(generation, &mut self.recent).map_err(redb::Error::Io)?
        {
            // What was taken up so far is left where it is, and the file unmarked.
            self.recent.clear();
            self.mark = None;
            return Ok(Err(damaged));
        }
        self.journal = Some(journal);
        if self.look.is_done {
            // From now on with the whole cache.
            self.empty_cache();
        }
        Ok(Ok(()))
    }

    /// Closes the file after trouble, so that the next transaction opens it at its last commit.
    pub(super) fn on_failure(&mut self, error: redb::Error) -> StoreError {
        if self.failed_at.replace(Instant::now()).is_none() {
            let path = self.path.display();
            if self.sync_failed.load(Ordering::Relaxed) {
                log::error!(
                    "store: {path} could not be synced: {error}. The disk may have lost what it was given; nothing is written \
                     until the server is restarted. Check the disk first"
                );
            } else {
                log::error!("store: {path} failed: {error}. Until it works again, what needs it is refused");
            }
        }
        // A database that could not sync is not opened again: its cache still answers, the disk may answer anything.
        if !self.sync_failed.load(Ordering::Relaxed) {
            self.let_go();
        }
        kind_of(&error)
    }

    fn on_success(&mut self) {
        // A full disk still takes a little here and there.
        let is_calm = self.failed_at.is_some_and(|at| at.elapsed() >= CALM);
        if is_calm && !self.sync_failed.load(Ordering::Relaxed) {
            self.failed_at = None;
            log::warn!("store: {} works again", self.path.display());
        }
    }

    /// Closes the database, which gives back its memory; it is opened again when it is needed.
    pub(super) fn let_go(&mut self) {
        let database = self.database.take();
        let _ = unwinding(|| drop(database));
    }

    /// Empties the cache: the next transaction opens the file anew. A backend that was given may be one that is made anew each
    /// time.
    pub(super) fn empty_cache(&mut self) {
        if self.is_file {
            self.let_go();
        }
    }

    /// Opens the database again if it was closed.
    pub(super) fn database(&mut self) -> Result<&Database, redb::Error> {
        if self.database.is_none() {
            if self.sync_failed.load(Ordering::Relaxed) {
                return Err(redb::Error::Io(io::Error::other("it could not be synced before")));
            }
            let database = self.open_database(0)?;
            self.agree(unwinding(|| named_generation(&database))??)?;
            self.database = Some(database);
        }
        self.database.as_ref().ok_or(redb::Error::DatabaseAlreadyOpen)
    }

    /// After trouble: which of two commits the file has is told by the generation it names.
    fn agree(&mut self, named: Option<u64>) -> Result<(), redb::Error> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let attempted = self.attempted.take();
        if named.is_some() && named == attempted {
            self.recent.clear();
            self.names_generation = true;
            journal.restart(named.unwrap_or_default());
        } else if named != self.names_generation.then(|| journal.generation()) {
            return Err(redb::Error::Corrupted("it is not the file that was closed".to_owned()));
        }
        Ok(())
    }

    /// Makes changes durable.
    fn commit(&mut self, changes: &mut [Change]) -> Result<(), redb::Error> {
        // Stable: what was changed twice is undone in order.
        changes.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        let value_bytes = |change: &Change| self.recent.get(change.table, &change.key).flatten().map_or(0, <[u8]>::len);
        let bytes = changes.iter().map(|change| change.key.len() + value_bytes(change)).sum();
        if let Some(journal) = self.journal.as_mut().filter(|_| self.names_generation)
            && self.recent.bytes() <= self.recent_bytes_max
            && journal.has_room(changes.len(), bytes)
        {
            return journal.append(changes, &self.recent).map_err(redb::Error::Io);
        }
        self.write_out(self.journal.is_some())
    }

    /// Writes all recent rows into the file. It names a new generation of the journal, which begins anew, or none.
    fn write_out(&mut self, names_generation: bool) -> Result<(), redb::Error> {
        let mut generation = None;
        if names_generation {
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(|error| redb::Error::Io(io::Error::other(error.to_string())))?;
            generation = Some(u64::from_le_bytes(random));
        }
        self.database()?;
        self.attempted = generation;
        let Disk { database: Some(database), recent, .. } = self else { return Err(redb::Error::DatabaseAlreadyOpen) };
        let names = if generation.is_some() || self.names_generation { Some(generation) } else { None };
        unwinding(|| write_rows(database, recent, names))??;
        self.attempted = None;
        self.recent.clear();
        self.names_generation = generation.is_some();
        if let (Some(journal), Some(generation)) = (&mut self.journal, generation) {
            journal.restart(generation);
        }
        Ok(())
    }

    /// Runs it and commits what it has written; whether that was anything.
    fn run(&mut self, may_write: bool, run: &mut Run<'_>) -> Result<Result<bool, StoreError>, redb::Error> {
        self.database()?;
        let mut changes = Vec::new();
        let Disk { database: Some(database), recent, .. } = self else { return Err(redb::Error::DatabaseAlreadyOpen) };
        let outcome = unwinding(|| {
            let txn = database.begin_read()?;
            let tables = [const { None }; Table::ALL.len()];
            let mut tx = FileTx { txn: &txn, tables, recent, changes: &mut changes, may_write, failure: None };
            let result = run(&mut tx);
            tx.failure.map_or(Ok(result), Err)
        });
        let committed = match outcome.and_then(|outcome| outcome) {
            Ok(Ok(())) if changes.is_empty() => return Ok(Ok(false)),
            Ok(Ok(())) => self.commit(&mut changes).map(|()| Ok(true)),
            Ok(Err(refused)) => Ok(Err(refused)),
            Err(error) => Err(error),
        };
        if !matches!(committed, Ok(Ok(_))) {
            self.recent.undo(changes);
        }
        committed
    }

    /// Leaves a file that needs no journal and no check, and says so.
    fn close(&mut self) -> Result<(), redb::Error> {
        if self.sync_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.names_generation {
            self.write_out(false)?;
        }
        self.let_go();
        if let Some(mark) = self.mark.as_ref().filter(|_| self.look.damaged == 0 && self.failed_at.is_none()) {
            mark.leave();
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::warn!("store: {} could not take what its journal has: {error}", self.path.display());
        }
        self.let_go();
    }
}

impl Engine for Disk {
    fn transact(&mut self, may_write: bool, run: &mut Run<'_>) -> Result<(), StoreError> {
        if self.sync_failed.load(Ordering::Relaxed) && (may_write || self.database.is_none()) {
            return Err(StoreError::Failed);
        }
        match self.run(may_write, run) {
            Ok(result) => {
                if result == Ok(true) {
                    self.on_success();
                }
                result.map(drop)
            }
            Err(error) => Err(self.on_failure(error)),
        }
    }
}

/// redb trusts what it wrote, and may panic where somebody else wrote into it.
pub(super) fn unwinding<T>(run: impl FnOnce() -> T) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|_| redb::Error::Corrupted("its pages contradict each other; restore a backup".to_owned()))
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// What to tell about an error.
fn kind_of(error: &redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) if is_full(error) => StoreError::DiskFull,
        _ => StoreError::Failed,
    }
}

/// The generation of the journal whose records belong to the file.
fn named_generation(database: &Database) -> Result<Option<u64>, redb::Error> {
    let table = Table::Meta;
    let meta = match database.begin_read()?.open_table(definition(table)) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        opened => opened?,
    };
    let Some(row) = meta.get(schema::JOURNAL_KEY)? else { return Ok(None) };
    let value =
        sum::check(table, schema::JOURNAL_KEY, row.value()).and_then(|value| schema::decode_journal(value).ok());
    value.map(Some).ok_or_else(|| redb::Error::Corrupted("a sum of its head is wrong".to_owned()))
}

pub(super) fn prepare(txn: &mut WriteTransaction) -> Result<(), redb::Error> {
    txn.set_durability(Durability::Immediate)?;
    txn.set_quick_repair(true);
    Ok(())
}

/// Writes rows, and which generation the file names if that changes.
fn write_rows(database: &Database, recent: &Recent, names: Option<Option<u64>>) -> Result<(), redb::Error> {
    let mut txn = database.begin_write()?;
    prepare(&mut txn)?;
    for table in Table::ALL {
        let mut rows = recent.rows(table).peekable();
        let names = names.filter(|_| table == Table::Meta);
        if rows.peek().is_none() && names.is_none() {
            continue;
        }
        let mut open = txn.open_table(definition(table))?;
        for (key, value) in rows {
            match value {
                Some(value) => drop(open.insert(key, &*sum::add(table, key, value))?),
                None => drop(open.remove(key)?),
            }
        }
        let key = schema::JOURNAL_KEY;
        match names.map(|generation| generation.map(schema::encode_journal)) {
            Some(Some(value)) => drop(open.insert(key, &*sum::add(table, key, &value))?),
            Some(None) => drop(open.remove(key)?),
            None => {}
        }
    }
    Ok(txn.commit()?)
}

/// Keeps the first error whole and gives the caller its kind.
fn note<T>(failure: &mut Option<redb::Error>, result: Result<T, redb::Error>) -> Result<T, StoreError> {
    result.map_err(|error| {
        let kind = kind_of(&error);
        failure.get_or_insert(error);
        kind
    })
}

pub(super) type OpenTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

struct FileTx<'t> {
    txn: &'t ReadTransaction,
    tables: [Option<OpenTable>; Table::ALL.len()],
    recent: &'t mut Recent,
    changes: &'t mut Vec<Change>,
    may_write: bool,
    failure: Option<redb::Error>,
}

fn open<'o>(
    tables: &'o mut [Option<OpenTable>; Table::ALL.len()],
    txn: &ReadTransaction,
    table: Table,
) -> Result<&'o OpenTable, redb::Error> {
    let slot = &mut tables[table as usize];
    match slot {
        Some(open) => Ok(open),
        None => Ok(slot.insert(txn.open_table(definition(table))?)),
    }
}

impl FileTx<'_> {
    fn set(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        debug_assert!(self.may_write, "a request that only reads wrote");
        if !self.may_write {
            return Err(StoreError::Failed);
        }
        self.changes.push(self.recent.set(table, key, value));
        Ok(())
    }
}

impl Tx for FileTx<'_> {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.recent.get(table, key) {
            return Ok(value.map(<[u8]>::to_vec));
        }
        let result = open(&mut self.tables, self.txn, table).and_then(|open| get(open, table, key));
        note(&mut self.failure, result)?
    }
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.set(table, key, Some(value))
    }
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.set(table, key, None)
    }
    fn scan(&mut self, table: Table, from: &[u8], to: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        let recent = self.recent.range(table, from, to).peekable();
        let result = open(&mut self.tables, self.txn, table).and_then(|open| {
            let rows = open.range::<&[u8]>(from..to)?;
            visit(rows, recent, |ours, theirs| ours < theirs, table, each)
        });
        note(&mut self.failure, result)?
    }
    fn scan_back(&mut self, table: Table, from: &[u8], to: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        let recent = self.recent.range(table, from, to).rev().peekable();
        let result = open(&mut self.tables, self.txn, table).and_then(|open| {
            let rows = open.range::<&[u8]>(from..to)?.rev();
            visit(rows, recent, |ours, theirs| ours > theirs, table, each)
        });
        note(&mut self.failure, result)?
    }
}

/// The outer error is redb's; the inner one tells of a row that is not what was stored.
type Checked<T> = Result<Result<T, StoreError>, redb::Error>;

/// The value of a row whose sum is right.
fn checked<'r>(table: Table, key: &[u8], row: &'r [u8]) -> Result<&'r [u8], StoreError> {
    sum::check(table, key, row)
        .ok_or_else(|| apply::malformed(table, key, Malformed("the disk has changed it; restore a backup")))
}

fn get(open: &OpenTable, table: Table, key: &[u8]) -> Checked<Option<Vec<u8>>> {
    let row = open.get(key)?;
    Ok(row.map(|row| checked(table, key, row.value()).map(<[u8]>::to_vec)).transpose())
}

type Bytes<'t> = AccessGuard<'t, &'static [u8]>;

/// Gives the file's rows and the recent ones in their order; `is_ahead` says whether one comes before another.
fn visit<'t, 'r>(
    rows: impl Iterator<Item = Result<(Bytes<'t>, Bytes<'t>), StorageError>>,
    mut recent: std::iter::Peekable<impl Iterator<Item = (&'r Box<[u8]>, &'r Option<Box<[u8]>>)>>,
    is_ahead: fn(&[u8], &[u8]) -> bool,
    table: Table,
    each: &mut EachRow<'_>,
) -> Checked<()> {
    for row in rows {
        let (key, row) = row?;
        if recent::give(&mut recent, |ours| is_ahead(ours, key.value()), each).is_break() {
            return Ok(Ok(()));
        }
        if recent.peek().is_some_and(|(ours, _)| ***ours == *key.value()) {
            // Written anew; it comes with the next.
            continue;
        }
        match checked(table, key.value(), row.value()).map(|value| each(key.value(), value)) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
    let _ = recent::give(&mut recent, |_| true, each);
    Ok(Ok(()))
}

/// A backend that remembers whether a sync ever failed: redb's error does not say which call it was.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn StorageBackend>,
    sync_failed: Arc<AtomicBool>,
}

impl StorageBackend for Watched {
    fn sync_data(&self) -> io::Result<()> {
        let result = self.inner.sync_data();
        if result.is_err() {
            self.sync_failed.store(true, Ordering::Relaxed);
        }
        result
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
