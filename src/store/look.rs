//! A look at every row, a little at a time and when there is nothing else to do: a start that serves at once, because the last
//! stop was in order or the file is large, learns this way what the disk has done to it meanwhile.
//!
//! Of each row the sum is checked, that it comes behind the one before, and that it is found where one would look for it.

use std::ops::Bound;

use redb::{Database, ReadableDatabase};

use super::disk::{Disk, definition, unwinding};
use super::schema::Table;
use super::{Looked, sum};

/// Read at once: some milliseconds from a memory card.
const SLICE_BYTES: usize = 128 * 1024;
/// What a row is counted as beside its bytes.
const ROW_BYTES: usize = 32;
/// After so many slices the cache is emptied, which would be full of what nobody waits for.
const SLICES_CACHED: u32 = 4;

/// How far the look has come.
#[derive(Debug, Default)]
pub(super) struct Look {
    table: usize,
    /// The last row seen of that table.
    last: Option<Vec<u8>>,
    rows: u64,
    pub(super) damaged: u64,
    pub(super) is_done: bool,
    slices: u32,
}

impl Disk {
    /// Looks a little further.
    pub(super) fn look_over(&mut self) -> Looked {
        if !self.look.is_done {
            let mut look = std::mem::take(&mut self.look);
            let outcome = self.database().and_then(|database| unwinding(|| look.slice(database))?);
            self.look = look;
            if let Err(error) = outcome {
                // What is behind it cannot be reached this way.
                self.look.damaged += 1;
                self.look.is_done = true;
                self.on_failure(error);
            }
            self.look.slices += 1;
            if self.look.is_done {
                self.tell();
            }
            if self.look.is_done || self.look.slices.is_multiple_of(SLICES_CACHED) {
                self.empty_cache();
            }
        }
        Looked { rows: self.look.rows, damaged: self.look.damaged, is_done: self.look.is_done }
    }

    fn tell(&self) {
        let (path, Look { rows, damaged, .. }) = (self.path().display(), &self.look);
        match damaged {
            0 => log::info!("store: all {rows} rows of {path} are in order"),
            _ => log::error!(
                "store: {path} is damaged: {damaged} places among {rows} rows. What needs them is refused; keep a copy of the \
                 file and restore a backup"
            ),
        }
    }
}

impl Look {
    fn slice(&mut self, database: &Database) -> Result<(), redb::Error> {
        let Some(table) = Table::ALL.get(self.table).copied() else {
            self.is_done = true;
            return Ok(());
        };
        let open = database.begin_read()?.open_table(definition(table))?;
        let from = self.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        for row in open.range::<&[u8]>((from, Bound::Unbounded))? {
            let (key, row) = row?;
            let (key, row) = (key.value(), row.value());
            let is_behind = self.last.as_deref().is_none_or(|last| last < key);
            let is_found = open.get(key)?.is_some_and(|found| found.value() == row);
            self.rows += 1;
            if !is_behind || !is_found || sum::check(table, key, row).is_none() {
                self.damaged += 1;
            }
            if !is_behind {
                // Going on from here could go on for ever.
                break;
            }
            let last = self.last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
            bytes += key.len() + row.len() + ROW_BYTES;
            if bytes >= SLICE_BYTES {
                return Ok(());
            }
        }
        self.table += 1;
        self.last = None;
        Ok(())
    }
}
