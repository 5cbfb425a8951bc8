//! The store as maps: for scripts and simulation, with the same requests, records and keys as the file.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::apply::{self, EachRow, Engine, Random, Rules, Run, Tx};
use super::schema::Table;
use super::{Authenticator, Store};
use crate::config::Config;
use crate::core::effects::{StoreError, StoreReply, StoreRequest};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store that forgets when it is dropped.
pub struct MemoryStore {
    tables: [Rows; Table::ALL.len()],
    rules: Rules,
    secret: [u8; 32],
}

impl MemoryStore {
    /// An empty store. Everything that it draws comes from `seed`.
    pub fn new(config: &Config, seed: [u8; 32]) -> MemoryStore {
        let mut random = Random::Seeded { seed, drawn: 0 };
        let secret = random.array();
        MemoryStore { tables: Default::default(), rules: Rules::new(config, random), secret }
    }

    /// Another store with what this one holds, under a configuration that may be another one: what a restart finds. It has no
    /// authenticator.
    #[must_use]
    pub fn reopened(&self, config: &Config) -> MemoryStore {
        MemoryStore {
            tables: self.tables.clone(),
            rules: Rules::new(config, self.rules.random.clone()),
            secret: self.secret,
        }
    }

    #[cfg(test)]
    pub(super) fn engine(&mut self) -> &mut impl Engine {
        &mut self.tables
    }
}

impl Store for MemoryStore {
    fn apply(&mut self, batch: &[StoreRequest]) -> Vec<StoreReply> {
        apply::apply(&mut self.tables, &mut self.rules, batch)
    }
    fn secret(&self) -> [u8; 32] {
        self.secret
    }
    fn set_authenticator(&mut self, authenticator: Box<dyn Authenticator>) {
        self.rules.authenticator = Some(authenticator);
    }
}

impl Engine for [Rows; Table::ALL.len()] {
    fn transact(&mut self, _write: bool, run: &mut Run<'_>) -> Result<(), StoreError> {
        let mut tx = MemoryTx { tables: self, undo: Vec::new() };
        let result = run(&mut tx);
        if result.is_err() {
            let undo = std::mem::take(&mut tx.undo);
            for (table, key, value) in undo.into_iter().rev() {
                tx.set(table, key, value);
            }
        }
        result
    }
}

struct MemoryTx<'t> {
    tables: &'t mut [Rows; Table::ALL.len()],
    /// What was there before each write.
    undo: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
}

fn visit<'r>(mut rows: impl Iterator<Item = (&'r Vec<u8>, &'r Vec<u8>)>, each: &mut EachRow<'_>) {
    let _ = rows.try_for_each(|(key, value)| each(key, value));
}

impl MemoryTx<'_> {
    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> std::collections::btree_map::Range<'_, Vec<u8>, Vec<u8>> {
        self.tables[table as usize].range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
    }

    fn set(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        let rows = &mut self.tables[table as usize];
        let before = match value {
            Some(value) => rows.insert(key.clone(), value),
            None => rows.remove(&key),
        };
        self.undo.push((table, key, before));
    }
}

impl Tx for MemoryTx<'_> {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables[table as usize].get(key).cloned())
    }
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.set(table, key.to_vec(), Some(value.to_vec()));
        Ok(())
    }
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.set(table, key.to_vec(), None);
        Ok(())
    }
    fn scan(&mut self, table: Table, from: &[u8], to: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        visit(self.range(table, from, to), each);
        Ok(())
    }
    fn scan_back(&mut self, table: Table, from: &[u8], to: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        visit(self.range(table, from, to).rev(), each);
        Ok(())
    }
}
