//! The store as one redb file with a journal beside it: how it is made, opened and refused.
//!
//! Every commit is synced before it is acknowledged, and saves what makes opening after a crash quick (`disk`).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, StorageBackend, StorageError, TableError};

#[cfg(test)]
use super::apply::Engine;
use super::apply::{self, Random, Rules};
use super::disk::{Disk, OpenBackend, OpenJournal, definition, prepare, unwinding};
use super::journal::Damaged;
use super::mark::Mark;
use super::schema::{self, Table};
use super::{Authenticator, Looked, Store, sum};
use crate::config::Config;
use crate::core::effects::{StoreReply, StoreRequest};

/// A file up to this size is read and checked whole when the server starts after it was not stopped in order: half a second
/// where the system still has it in memory, some seconds from a memory card. Of a larger one only what is used is checked, row by
/// row, and the rest when there is time.
const CHECKED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What the rows may come to that are in the journal alone, in bytes. With more, and with more at once, a commit is redb's. A page
/// of the journal for each message of a quiet house fills it at about the same time.
const RECENT_BYTES_MAX: usize = 256 * 1024;

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
        RedbStore::build(Parts::of_file(path), config, Random::System)
    }

    /// Opens what `open` gives; it is called again after a failed write, when the backend that it gave before is closed. Each
    /// commit is one of the database's.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn with_backend<B: StorageBackend>(
        open: impl FnMut() -> io::Result<B> + Send + 'static,
        config: &Config,
    ) -> Result<RedbStore, OpenError> {
        RedbStore::build(Parts::given(open), config, Random::System)
    }

    /// [`RedbStore::with_backend`] with a journal in `journal`, in which small commits are kept until many can be written at
    /// once: a tenth of what is written, and half the syncs. The two belong together from then on.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn with_journal<B: StorageBackend>(
        open: impl FnMut() -> io::Result<B> + Send + 'static,
        journal: B,
        config: &Config,
    ) -> Result<RedbStore, OpenError> {
        let mut journal = Some(journal);
        let open_journal = move |_| match journal.take() {
            Some(journal) => Ok(Arc::new(journal) as Arc<dyn StorageBackend>),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let parts = Parts { journal: Some(Box::new(open_journal)), ..Parts::given(open) };
        RedbStore::build(parts, config, Random::System)
    }

    pub(super) fn build(parts: Parts, config: &Config, mut random: Random) -> Result<RedbStore, OpenError> {
        let Parts { path, open, journal, mark, checked_bytes_max, recent_bytes_max } = parts;
        let is_clean = mark.as_ref().is_some_and(Mark::take);
        let mut disk = Disk::new(path.clone(), open, config.limits.store_cache_bytes, recent_bytes_max, mark.is_some());
        // Drawn in any case, so that what follows does not depend on whether the file is new.
        let fresh = random.array();
        let refuse = |cause| OpenError::new(&path, cause);
        let checked_bytes_max = if is_clean { 0 } else { checked_bytes_max };
        let database = disk.open_checked(checked_bytes_max).map_err(|error| refuse(error.into()))?;
        let secret = unwinding(|| match read_meta(&database)? {
            Some(secret) => Ok(secret),
            None => initialize(&database, &fresh).map(|()| fresh).map_err(OpenCause::from),
        })
        .unwrap_or_else(|error| Err(error.into()))
        .map_err(refuse)?;
        let started = disk.start(database, journal, mark).map_err(|error| refuse(error.into()))?;
        started.map_err(|damaged| match damaged {
            Damaged::Missing => refuse(OpenCause::WithoutJournal),
            Damaged::Record => refuse(OpenCause::Damaged("a record of its journal is not what was written".to_owned())),
        })?;
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
    fn look_over(&mut self) -> Looked {
        self.disk.look_over()
    }
}

/// What a store is opened from.
pub(super) struct Parts {
    pub(super) path: PathBuf,
    pub(super) open: Box<OpenBackend>,
    pub(super) journal: Option<Box<OpenJournal>>,
    pub(super) mark: Option<Mark>,
    /// A file above it is not checked whole.
    pub(super) checked_bytes_max: u64,
    /// What the rows may come to that are in the journal alone.
    pub(super) recent_bytes_max: usize,
}

impl Parts {
    fn of_file(path: &Path) -> Parts {
        let store = path.to_owned();
        // Kept open: the database is closed and opened again now and then, and somebody may take the last descriptor in between.
        let mut opened = None;
        let open = move || match &opened {
            Some(backend) => Ok(Arc::clone(backend)),
            None => {
                let backend = open_backend(OpenOptions::new().read(true).write(true), &store)?;
                opened = Some(backend.clone());
                Ok(backend)
            }
        };
        let journal = journal_path(path);
        let open_journal = move |is_new| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(is_new).truncate(false);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let opened = open_backend(&options, &journal)?;
            sync_directory(&journal)?;
            Ok(opened)
        };
        Parts {
            path: path.to_owned(),
            open: Box::new(open),
            journal: Some(Box::new(open_journal)),
            mark: Some(Mark::of(path)),
            checked_bytes_max: CHECKED_BYTES_MAX,
            recent_bytes_max: RECENT_BYTES_MAX,
        }
    }

    pub(super) fn given<B: StorageBackend>(mut open: impl FnMut() -> io::Result<B> + Send + 'static) -> Parts {
        Parts {
            path: PathBuf::from("the given backend"),
            open: Box::new(move || Ok(Arc::new(open()?) as Arc<dyn StorageBackend>)),
            journal: None,
            mark: None,
            checked_bytes_max: CHECKED_BYTES_MAX,
            recent_bytes_max: RECENT_BYTES_MAX,
        }
    }
}

fn open_backend(options: &OpenOptions, path: &Path) -> io::Result<Arc<dyn StorageBackend>> {
    Ok(Arc::new(FileBackend::new(options.open(path)?).map_err(not_io)?))
}

/// Where the journal of a store's file is.
pub fn journal_path(store: &Path) -> PathBuf {
    let mut journal = store.as_os_str().to_owned();
    journal.push(".journal");
    journal.into()
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
    /// It was not closed in order, and what was written last is in a journal that is not there.
    WithoutJournal,
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
            OpenCause::WithoutJournal => {
                let journal = journal_path(&self.path);
                write!(
                    f,
                    "{path} is not complete without {0}, which is missing; put the two of one moment together, or restore a backup. \
                     To go on without what was written last, make {0} an empty file",
                    journal.display()
                )
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
    let parts = Parts { journal: None, mark: None, ..Parts::of_file(new) };
    drop(RedbStore::build(parts, config, Random::System)?);
    std::fs::rename(new, path).map_err(failed)?;
    sync_directory(path).map_err(failed)
}

/// Makes a name in a directory durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
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
