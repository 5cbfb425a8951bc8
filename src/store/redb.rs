//! The store as one redb file.
//!
//! Every commit is synced before it is acknowledged, and saves what makes opening after a crash quick. After a failed write the
//! file is closed and opened again, which brings back the last commit, and life goes on. After a failed *sync* nobody knows what
//! the disk has: the kernel may have dropped the pages and would call a second try a success. Then nothing is written any more
//! until the server is restarted; what is in the cache can still be read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{
    AccessGuard, BackendError, Database, DatabaseError, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    ReadableTable, StorageBackend, StorageError, TableDefinition, TableError, WriteTransaction,
};

use super::apply::{self, EachRow, Engine, Random, Rules, Run, Tx};
use super::schema::{self, Malformed, Table};
use super::{Authenticator, Store, sum};
use crate::config::Config;
use crate::core::effects::{StoreError, StoreReply, StoreRequest};

/// A file up to this size is read and checked whole when the server starts: half a second where the system still has it in
/// memory, some seconds from a memory card. Of a larger one only what is used is checked, row by row.
const CHECKED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Time without trouble after which the file is said to work again.
const CALM: Duration = Duration::from_secs(5);

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

const fn definition(table: Table) -> Definition {
    TableDefinition::new(table.name())
}

/// A store in one file.
pub struct RedbStore {
    disk: Disk,
    rules: Rules,
    secret: [u8; 32],
}

impl RedbStore {
    /// Opens the file, or makes a new one that only its owner may read.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub fn open(path: &Path, config: &Config) -> Result<RedbStore, OpenError> {
        let refuse = |cause| OpenError::new(path, cause);
        match path.metadata() {
            Ok(found) if found.len() == 0 => return Err(refuse(OpenCause::Empty)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Only a whole one gets the name: what is found under it and is not whole was damaged.
                let mut new = path.as_os_str().to_owned();
                new.push(".new");
                make(Path::new(&new), path, config).map_err(|error| refuse(error.cause))?;
            }
            _ => {}
        }
        RedbStore::open_file(path, config)
    }

    fn open_file(path: &Path, config: &Config) -> Result<RedbStore, OpenError> {
        let file = path.to_owned();
        let open = move || {
            let file = OpenOptions::new().read(true).write(true).open(&file)?;
            Ok(Box::new(FileBackend::new(file).map_err(not_io)?) as Box<dyn StorageBackend>)
        };
        RedbStore::build(path.to_owned(), Box::new(open), config, Random::System)
    }

    /// Opens what `open` gives; it is called again after a failed write, when the backend that it gave before is closed.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn with_backend<B: StorageBackend>(
        mut open: impl FnMut() -> io::Result<B> + Send + 'static,
        config: &Config,
    ) -> Result<RedbStore, OpenError> {
        let open = move || Ok(Box::new(open()?) as Box<dyn StorageBackend>);
        RedbStore::build(PathBuf::from("the given backend"), Box::new(open), config, Random::System)
    }

    pub(super) fn build(
        path: PathBuf,
        open: Box<OpenBackend>,
        config: &Config,
        random: Random,
    ) -> Result<RedbStore, OpenError> {
        RedbStore::build_checking(CHECKED_BYTES_MAX, path, open, config, random)
    }

    /// A file above `checked_bytes_max` is not checked whole.
    pub(super) fn build_checking(
        checked_bytes_max: u64,
        path: PathBuf,
        open: Box<OpenBackend>,
        config: &Config,
        mut random: Random,
    ) -> Result<RedbStore, OpenError> {
        let mut disk = Disk {
            path,
            open,
            cache_bytes: config.limits.store_cache_bytes,
            database: None,
            sync_failed: Arc::new(AtomicBool::new(false)),
            failed_at: None,
        };
        // Drawn in any case, so that what follows does not depend on whether the file is new.
        let fresh = random.array();
        let database = disk.open_checked(checked_bytes_max).map_err(|cause| disk.open_error(cause))?;
        let secret = unwinding(|| match read_meta(&database)? {
            Some(secret) => Ok(secret),
            None => initialize(&database, &fresh).map(|()| fresh).map_err(OpenCause::from),
        })
        .unwrap_or_else(|error| Err(error.into()))
        .map_err(|cause| OpenError::new(&disk.path, cause))?;
        disk.database = Some(database);
        Ok(RedbStore { disk, rules: Rules::new(config, random), secret })
    }

    #[cfg(test)]
    pub(super) fn engine(&mut self) -> &mut impl Engine {
        &mut self.disk
    }
}

impl Store for RedbStore {
    fn apply(&mut self, batch: &[StoreRequest]) -> Vec<StoreReply> {
        apply::apply(&mut self.disk, &mut self.rules, batch)
    }
    fn secret(&self) -> [u8; 32] {
        self.secret
    }
    fn set_authenticator(&mut self, authenticator: Box<dyn Authenticator>) {
        self.rules.authenticator = Some(authenticator);
    }
}

/// Why the store cannot be opened. Displayed as one sentence that names the file and what to do.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    cause: OpenCause,
}

/// What is in the way.
#[derive(Debug)]
pub enum OpenCause {
    /// Another process has the file open.
    Locked,
    /// A newer version of this program wrote it.
    Newer {
        /// The format that it wrote.
        format: u64,
    },
    /// It is something else.
    Foreign,
    /// There is a file and nothing in it.
    Empty,
    /// It was ours and cannot be read.
    Damaged(String),
    /// The operating system refused.
    Io(io::Error),
}

impl OpenError {
    fn new(path: &Path, cause: OpenCause) -> OpenError {
        OpenError { path: path.to_owned(), cause }
    }

    /// What is in the way.
    pub fn cause(&self) -> &OpenCause {
        &self.cause
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.cause {
            OpenCause::Locked => {
                write!(
                    f,
                    "{path} is in use by another process; stop the other server first, or give this one its own data directory"
                )
            }
            OpenCause::Newer { format } => write!(
                f,
                "{path} was written by a newer version (format {format}, this one knows {}); run the newer version, or restore \
                 a backup from before the upgrade",
                schema::FORMAT
            ),
            OpenCause::Foreign => {
                write!(f, "{path} is not a database of this server; move it away, or set another data directory")
            }
            OpenCause::Empty => write!(
                f,
                "{path} is empty, which this server never leaves it; restore a backup, or remove it if there were no accounts"
            ),
            OpenCause::Damaged(reason) => {
                write!(f, "{path} is damaged ({reason}); keep a copy of it and restore a backup")
            }
            OpenCause::Io(error) => write!(
                f,
                "{path} cannot be opened: {error}; see that its directory exists, may be written by the user who runs the \
                 server, and has space left"
            ),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<redb::Error> for OpenCause {
    fn from(error: redb::Error) -> OpenCause {
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => OpenCause::Locked,
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => OpenCause::Foreign,
            redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                OpenCause::Damaged("its end is missing".to_owned())
            }
            redb::Error::Io(error) => OpenCause::Io(error),
            error => OpenCause::Damaged(error.to_string()),
        }
    }
}

fn not_io(error: DatabaseError) -> io::Error {
    io::Error::other(error.to_string())
}

/// Makes a file for its owner alone, and gives it its name when it is whole. The name is synced too, or a power cut could take
/// the file with all it holds.
fn make(new: &Path, path: &Path, config: &Config) -> Result<(), OpenError> {
    let failed = |error| OpenError::new(new, OpenCause::Io(error));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // What is there was left by a start that was cut off.
    options.open(new).map_err(failed)?;
    drop(RedbStore::open_file(new, config)?);
    std::fs::rename(new, path).map_err(failed)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// The secret of a file of ours; `None` if it is new.
fn read_meta(database: &Database) -> Result<Option<[u8; 32]>, OpenCause> {
    let failed = |error: redb::Error| OpenCause::from(error);
    let damaged = |reason: &str| OpenCause::Damaged(reason.to_owned());
    let txn = database.begin_read().map_err(|error| failed(error.into()))?;
    let meta = match txn.open_table(definition(Table::Meta)) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => {
            let is_empty = txn.list_tables().map_err(|error| failed(error.into()))?.next().is_none();
            return if is_empty { Ok(None) } else { Err(OpenCause::Foreign) };
        }
        Err(TableError::Storage(error)) => return Err(failed(error.into())),
        Err(_) => return Err(OpenCause::Foreign),
    };
    let get = |key: &[u8]| -> Result<Option<Vec<u8>>, OpenCause> {
        let Some(row) = meta.get(key).map_err(|error: StorageError| failed(error.into()))? else { return Ok(None) };
        let value = sum::check(Table::Meta, key, row.value()).ok_or_else(|| damaged("a sum of its head is wrong"))?;
        Ok(Some(value.to_vec()))
    };
    let format = get(schema::FORMAT_KEY)?.ok_or(OpenCause::Foreign)?;
    match schema::decode_format(&format).map_err(|error| damaged(error.0))? {
        schema::FORMAT => {}
        format => return Err(OpenCause::Newer { format }),
    }
    for table in Table::ALL {
        match txn.open_table(definition(table)) {
            // An older version did not need it.
            Err(TableError::TableDoesNotExist(_)) => add_table(database, table).map_err(failed)?,
            opened => drop(opened.map_err(|error| failed(error.into()))?),
        }
    }
    let secret = get(schema::SECRET_KEY)?.ok_or_else(|| damaged("the secret is missing"))?;
    schema::decode_secret(&secret).map(Some).map_err(|error| damaged(error.0))
}

/// Makes a file ours: all tables, so that a read never finds one missing.
fn initialize(database: &Database, secret: &[u8; 32]) -> Result<(), redb::Error> {
    let mut txn = database.begin_write()?;
    prepare(&mut txn)?;
    for table in Table::ALL {
        txn.open_table(definition(table))?;
    }
    {
        let mut meta = txn.open_table(definition(Table::Meta))?;
        let rows = [
            (schema::FORMAT_KEY, schema::encode_format(schema::FORMAT)),
            (schema::SECRET_KEY, schema::encode_secret(secret)),
        ];
        for (key, value) in rows {
            meta.insert(key, &*sum::add(Table::Meta, key, &value))?;
        }
    }
    Ok(txn.commit()?)
}

fn add_table(database: &Database, table: Table) -> Result<(), redb::Error> {
    let mut txn = database.begin_write()?;
    prepare(&mut txn)?;
    txn.open_table(definition(table))?;
    Ok(txn.commit()?)
}

fn prepare(txn: &mut WriteTransaction) -> Result<(), redb::Error> {
    txn.set_durability(Durability::Immediate)?;
    txn.set_quick_repair(true);
    Ok(())
}

/// Gives the backend anew each time.
pub(super) type OpenBackend = dyn FnMut() -> io::Result<Box<dyn StorageBackend>> + Send;

/// The database, or what it takes to have it again.
struct Disk {
    path: PathBuf,
    open: Box<OpenBackend>,
    cache_bytes: usize,
    /// `None` after a failed write, until it could be opened again.
    database: Option<Database>,
    /// Nothing is written any more.
    sync_failed: Arc<AtomicBool>,
    /// When there was trouble last. That was logged; what repeats it is not.
    failed_at: Option<Instant>,
}

impl Disk {
    /// Opens what another run has left. The check of a whole file writes at its end; where there is no room for that, the file
    /// is opened without, so that a full disk keeps nobody from logging in.
    fn open_checked(&mut self, bytes_max: u64) -> Result<Database, redb::Error> {
        match self.open_database(bytes_max) {
            Err(error) if kind_of(&error) == StoreError::DiskFull => self.open_database(0),
            opened => opened,
        }
    }

    fn open_database(&mut self, checked_bytes_max: u64) -> Result<Database, redb::Error> {
        let inner = (self.open)().map_err(redb::Error::Io)?;
        let check = inner.len().map_err(redb::Error::Io)? <= checked_bytes_max;
        let backend = Watched { inner, sync_failed: self.sync_failed.clone() };
        let mut builder = Database::builder();
        builder.set_cache_size(self.cache_bytes).set_check_integrity_on_open(check);
        unwinding(|| builder.create_with_backend(backend))?.map_err(redb::Error::from)
    }

    fn open_error(&self, error: redb::Error) -> OpenError {
        OpenError::new(&self.path, error.into())
    }

    /// Closes the file after trouble, so that the next transaction opens it at its last commit.
    fn on_failure(&mut self, error: redb::Error) -> StoreError {
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
            let database = self.database.take();
            let _ = unwinding(|| drop(database));
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
}

/// redb trusts what it wrote, and may panic where somebody else wrote into it.
fn unwinding<T>(run: impl FnOnce() -> T) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|_| redb::Error::Corrupted("its pages contradict each other; restore a backup".to_owned()))
}

/// What to tell about an error.
fn kind_of(error: &redb::Error) -> StoreError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error {
        redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) => {
            StoreError::DiskFull
        }
        _ => StoreError::Failed,
    }
}

impl Engine for Disk {
    fn transact(&mut self, may_write: bool, run: &mut Run<'_>) -> Result<(), StoreError> {
        if may_write && self.sync_failed.load(Ordering::Relaxed) {
            return Err(StoreError::Failed);
        }
        if self.database.is_none() {
            if self.sync_failed.load(Ordering::Relaxed) {
                return Err(StoreError::Failed);
            }
            match self.open_database(0) {
                Ok(database) => self.database = Some(database),
                Err(error) => return Err(self.on_failure(error)),
            }
        }
        let Some(database) = &self.database else { return Err(StoreError::Failed) };
        let outcome = unwinding(|| match may_write {
            true => read_and_write(database, run),
            false => read(database, run).map(|()| Ok(false)),
        });
        match outcome.unwrap_or_else(Err) {
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

/// The outer error is redb's; the inner result that of what ran, with whether anything was written.
fn read_and_write(database: &Database, run: &mut Run<'_>) -> Result<Result<bool, StoreError>, redb::Error> {
    let mut txn = database.begin_write()?;
    prepare(&mut txn)?;
    let (result, wrote, failure) = {
        let mut tx = WriteTx { txn: &txn, tables: [const { None }; Table::ALL.len()], wrote: false, failure: None };
        (run(&mut tx), tx.wrote, tx.failure.take())
    };
    if let Some(error) = failure {
        // What redb says to this says nothing new.
        let _ = txn.abort();
        return Err(error);
    }
    if wrote && result.is_ok() {
        txn.commit()?;
    } else {
        txn.abort()?;
    }
    Ok(result.map(|()| wrote))
}

fn read(database: &Database, run: &mut Run<'_>) -> Result<(), redb::Error> {
    let mut tx = ReadTx { txn: &database.begin_read()?, tables: [const { None }; Table::ALL.len()], failure: None };
    // Whatever it answered, there is nothing to undo.
    let _ = run(&mut tx);
    tx.failure.map_or(Ok(()), Err)
}

/// Keeps the first error whole and gives the caller its kind.
fn note<T>(failure: &mut Option<redb::Error>, result: Result<T, redb::Error>) -> Result<T, StoreError> {
    result.map_err(|error| {
        let kind = kind_of(&error);
        failure.get_or_insert(error);
        kind
    })
}

type Row = ReadOnlyTable<&'static [u8], &'static [u8]>;

struct ReadTx<'t> {
    txn: &'t ReadTransaction,
    tables: [Option<Row>; Table::ALL.len()],
    failure: Option<redb::Error>,
}

impl ReadTx<'_> {
    fn table(&mut self, table: Table) -> Result<&Row, redb::Error> {
        let slot = &mut self.tables[table as usize];
        match slot {
            Some(open) => Ok(open),
            None => Ok(slot.insert(self.txn.open_table(definition(table))?)),
        }
    }
}

impl Tx for ReadTx<'_> {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let result = self.table(table).and_then(|open| get(open, table, key));
        note(&mut self.failure, result)?
    }
    fn put(&mut self, _table: Table, _key: &[u8], _value: &[u8]) -> Result<(), StoreError> {
        debug_assert!(false, "a request that only reads wrote");
        Err(StoreError::Failed)
    }
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.put(table, key, &[])
    }
    fn scan(&mut self, table: Table, from: &[u8], to: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        let result = self.table(table).and_then(|open| scan(open, table, from, to, each));
        note(&mut self.failure, result)?
    }
    fn scan_back(&mut self, table: Table, from: &[u8], to: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        let result = self.table(table).and_then(|open| scan_back(open, table, from, to, each));
        note(&mut self.failure, result)?
    }
}

struct WriteTx<'t> {
    txn: &'t WriteTransaction,
    tables: [Option<redb::Table<'t, &'static [u8], &'static [u8]>>; Table::ALL.len()],
    wrote: bool,
    failure: Option<redb::Error>,
}

impl<'t> WriteTx<'t> {
    fn table(&mut self, table: Table) -> Result<&mut redb::Table<'t, &'static [u8], &'static [u8]>, redb::Error> {
        let slot = &mut self.tables[table as usize];
        match slot {
            Some(open) => Ok(open),
            None => Ok(slot.insert(self.txn.open_table(definition(table))?)),
        }
    }
}

impl Tx for WriteTx<'_> {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let result = self.table(table).and_then(|open| get(open, table, key));
        note(&mut self.failure, result)?
    }
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.wrote = true;
        let result =
            self.table(table).and_then(|open| Ok(open.insert(key, &*sum::add(table, key, value)).map(drop)?));
        note(&mut self.failure, result)
    }
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.wrote = true;
        let result = self.table(table).and_then(|table| Ok(table.remove(key).map(drop)?));
        note(&mut self.failure, result)
    }
    fn scan(&mut self, table: Table, from: &[u8], to: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        let result = self.table(table).and_then(|open| scan(open, table, from, to, each));
        note(&mut self.failure, result)?
    }
    fn scan_back(&mut self, table: Table, from: &[u8], to: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        let result = self.table(table).and_then(|open| scan_back(open, table, from, to, each));
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

fn get(open: &impl ReadableTable<&'static [u8], &'static [u8]>, table: Table, key: &[u8]) -> Checked<Option<Vec<u8>>> {
    let row = open.get(key)?;
    Ok(row.map(|row| checked(table, key, row.value()).map(<[u8]>::to_vec)).transpose())
}

fn scan(
    open: &impl ReadableTable<&'static [u8], &'static [u8]>,
    table: Table,
    from: &[u8],
    to: &[u8],
    each: &mut EachRow<'_>,
) -> Checked<()> {
    visit(open.range::<&[u8]>(from..to)?, table, each)
}

fn scan_back(
    open: &impl ReadableTable<&'static [u8], &'static [u8]>,
    table: Table,
    from: &[u8],
    to: &[u8],
    each: &mut EachRow<'_>,
) -> Checked<()> {
    visit(open.range::<&[u8]>(from..to)?.rev(), table, each)
}

type Bytes<'t> = AccessGuard<'t, &'static [u8]>;

fn visit<'t>(
    rows: impl Iterator<Item = Result<(Bytes<'t>, Bytes<'t>), StorageError>>,
    table: Table,
    each: &mut EachRow<'_>,
) -> Checked<()> {
    for row in rows {
        let (key, row) = row?;
        match checked(table, key.value(), row.value()).map(|value| each(key.value(), value)) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}

/// A backend that remembers whether a sync ever failed: redb's error does not say which call it was.
#[derive(Debug)]
struct Watched {
    inner: Box<dyn StorageBackend>,
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
