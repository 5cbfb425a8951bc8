//! Rows that are safe in the journal and not yet in the file. Who reads sees them first.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::{Bound, ControlFlow};

use super::apply::EachRow;
use super::schema::Table;

/// `None` is a row that was deleted.
type Value = Option<Box<[u8]>>;
type Rows = BTreeMap<Box<[u8]>, Value>;

/// What a row costs beside its key and value.
const ROW_BYTES: usize = 64;

/// The newest state of the rows that were written lately.
#[derive(Debug, Default)]
pub(super) struct Recent {
    tables: Box<[Rows; Table::ALL.len()]>,
    bytes: usize,
}

/// A row that was written, and what was known of it before.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) table: Table,
    pub(super) key: Box<[u8]>,
    before: Option<Value>,
}

fn cost(key: &[u8], value: &Value) -> usize {
    key.len() + value.as_ref().map_or(0, |value| value.len()) + ROW_BYTES
}

impl Recent {
    /// What is held, roughly, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }

    pub(super) fn clear(&mut self) {
        *self = Recent::default();
    }

    /// The row, or that it is deleted; `None` if that is as the file has it.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        self.tables[table as usize].get(key).map(Option::as_deref)
    }

    /// Writes a row; the change is what undoes it.
    pub(super) fn set(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) -> Change {
        let (key, value): (Box<[u8]>, Value) = (key.into(), value.map(Box::from));
        self.bytes += cost(&key, &value);
        let before = self.tables[table as usize].insert(key.clone(), value);
        if let Some(before) = &before {
            self.bytes -= cost(&key, before);
        }
        Change { table, key, before }
    }

    /// Undoes changes, the last first.
    pub(super) fn undo(&mut self, changes: Vec<Change>) {
        for Change { table, key, before } in changes.into_iter().rev() {
            let rows = &mut self.tables[table as usize];
            self.bytes += before.as_ref().map_or(0, |before| cost(&key, before));
            let (size, after) = (
                key.len() + ROW_BYTES,
                match before {
                    Some(before) => rows.insert(key, before),
                    None => rows.remove(&key),
                },
            );
            self.bytes -= after.map_or(0, |after| size + after.map_or(0, |value| value.len()));
        }
    }

    /// The rows from one key up to another, without it.
    pub(super) fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Range<'_, Box<[u8]>, Value> {
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        self.tables[table as usize].range::<[u8], _>(bounds)
    }

    /// All rows of a table.
    pub(super) fn rows(&self, table: Table) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.tables[table as usize].iter().map(|(key, value)| (&**key, value.as_deref()))
    }
}

/// Gives those of `rows` that lie before the place where `is_ahead` ends.
pub(super) fn give<'r>(
    rows: &mut std::iter::Peekable<impl Iterator<Item = (&'r Box<[u8]>, &'r Value)>>,
    is_ahead: impl Fn(&[u8]) -> bool,
    each: &mut EachRow<'_>,
) -> ControlFlow<()> {
    while let Some((key, value)) = rows.next_if(|(key, _)| is_ahead(key)) {
        if let Some(value) = value {
            each(key, value)?;
        }
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(recent: &Recent) -> String {
        let rows = recent.rows(Table::Rosters).map(|(key, value)| {
            let value = value.map_or("-".into(), |value| value.escape_ascii().to_string());
            format!("{}={value}", key.escape_ascii())
        });
        rows.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn changes_are_undone() {
        let mut recent = Recent::default();
        let kept = [recent.set(Table::Rosters, b"a", Some(b"1")), recent.set(Table::Rosters, b"b", None)];
        assert!(kept.iter().all(|change| change.before.is_none()));
        let bytes = recent.bytes();
        assert_eq!((show(&recent).as_str(), bytes), ("a=1 b=-", 2 * ROW_BYTES + 3));
        let changes = [("a", Some("22")), ("b", Some("3")), ("a", None), ("c", Some("4")), ("c", Some("5"))];
        let changes = changes.map(|(key, value)| recent.set(Table::Rosters, key.as_bytes(), value.map(str::as_bytes)));
        assert_eq!((show(&recent).as_str(), recent.bytes()), ("a=- b=3 c=5", 3 * ROW_BYTES + 5));
        assert_eq!(recent.get(Table::Rosters, b"a"), Some(None));
        assert_eq!(recent.get(Table::Rosters, b"c"), Some(Some(&b"5"[..])));
        assert_eq!(recent.get(Table::Accounts, b"c"), None);
        recent.undo(changes.into());
        assert_eq!((show(&recent).as_str(), recent.bytes()), ("a=1 b=-", bytes));
        recent.clear();
        assert!(recent.is_empty() && recent.bytes() == 0);
    }
}
