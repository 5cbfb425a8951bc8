//! The journal: a file beside the store's own in which small commits are safe until many of them are written out together.
//!
//! A commit of one message touches a dozen pages of a tree, which are written anew; here it is one page and one sync. The file
//! has a fixed size and is written once when it is made, so that a commit changes nothing but its own pages; it begins anew when
//! what it held has been written out. A record begins on a page of its own: what was acknowledged is never written again, and a
//! power cut in the middle of a record leaves all others alone.
//!
//! Records are of a generation, which is a random number that the store's file names, changed by the same transaction that
//! writes the records out. Whatever else lies in the journal, of older generations or of another store, is not looked at.
//!
//! | record | |
//! |---|---|
//! | 8 bytes | generation |
//! | 4 | number of the record in its generation, from 0 |
//! | 4 | bytes of the rows that follow |
//! | 4 | CRC-32 of all that and the rows |
//! | rows | table (1), bytes of the key (4), bytes of the value (4; all ones if the row is deleted), key, value |
//!
//! Numbers are little endian.

use std::io;

use redb::StorageBackend;

use super::recent::{Change, Recent};
use super::schema::Table;
use super::sum;

/// Size of the file: at one page each, as many commits share their way into the store's file.
const BYTES: usize = 1024 * 1024;
const PAGE: usize = 4096;
const HEAD: usize = 20;
const DELETED: u32 = u32::MAX;

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    backend: Box<dyn StorageBackend>,
    generation: u64,
    /// Where the next record goes, and its number.
    at: usize,
    number: u32,
    /// The record that is being made; kept for its memory.
    record: Vec<u8>,
}

/// What was acknowledged is not all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damaged {
    /// The store's file names a generation, and there is no journal.
    Missing,
    /// A record in the middle is not what was written.
    Record,
}

impl Journal {
    /// Takes a file, and sees that it has its size.
    ///
    /// # Errors
    /// There is no room for it, or the disk fails.
    pub(super) fn open(backend: Box<dyn StorageBackend>) -> io::Result<Journal> {
        let len = backend.len()?;
        if len < BYTES as u64 {
            // Real zeros: a hole would be filled while somebody waits, and cost the file system a commit of its own. Page by
            // page, or Linux keeps larger pieces in its cache and counts as written the whole of one that a page of is.
            backend.set_len(BYTES as u64)?;
            for at in (len.next_multiple_of(PAGE as u64)..BYTES as u64).step_by(PAGE) {
                backend.write(at, &[0; PAGE])?;
            }
            backend.sync_data()?;
        }
        Ok(Journal { backend, generation: 0, at: 0, number: 0, record: Vec::new() })
    }

    /// The generation of the records that are written now.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// What was in it is in the store's file, which names this generation.
    pub(super) fn restart(&mut self, generation: u64) {
        (self.generation, self.at, self.number) = (generation, 0, 0);
    }

    /// Takes up the records of a generation, and goes on behind them.
    ///
    /// # Errors
    /// The disk fails. The inner error: a record is damaged, and others that were acknowledged after it are there.
    pub(super) fn load(&mut self, generation: u64, recent: &mut Recent) -> io::Result<Result<(), Damaged>> {
        self.restart(generation);
        let mut image = vec![0; BYTES];
        self.backend.read(0, &mut image)?;
        while let Some(rows) = self.rows(&image) {
            if take_up(rows, recent).is_none() {
                return Ok(Err(Damaged::Record));
            }
            self.at += (HEAD + rows.len()).next_multiple_of(PAGE);
            self.number += 1;
        }
        // The record here may have been cut off by the power. Those that came after it may not: it was safe before they came.
        let mut behind = image.get(self.at..).unwrap_or_default().chunks(PAGE).skip(1);
        let is_damaged = behind.any(|page| number_of(page, generation).is_some_and(|number| number > self.number));
        if is_damaged {
            return Ok(Err(Damaged::Record));
        }
        if self.number > 0 {
            // The last may have been written and not synced when the process was killed. From here on it counts as stored.
            self.backend.sync_data()?;
        }
        Ok(Ok(()))
    }

    /// The rows of the next record, if it is one.
    fn rows<'i>(&self, image: &'i [u8]) -> Option<&'i [u8]> {
        let record = image.get(self.at..)?;
        if number_of(record, self.generation)? != self.number {
            return None;
        }
        let len = u32::from_le_bytes(*record.get(12..)?.first_chunk()?);
        let crc = u32::from_le_bytes(*record.get(16..)?.first_chunk()?);
        let rows = record.get(HEAD..)?.get(..usize::try_from(len).ok()?)?;
        (crc == sum_of(record.get(..16)?, rows)).then_some(rows)
    }

    /// Whether so many rows of so many bytes together find room.
    pub(super) fn has_room(&self, rows: usize, bytes: usize) -> bool {
        HEAD + rows * 9 + bytes <= BYTES - self.at
    }

    /// Makes the newest state of changed rows durable. `changes` are sorted by table and key.
    ///
    /// # Errors
    /// The disk's. Then the record is not there, unless it was the sync that failed.
    pub(super) fn append(&mut self, changes: &[Change], recent: &Recent) -> io::Result<()> {
        let record = &mut self.record;
        record.clear();
        record.resize(HEAD, 0);
        for (at, Change { table, key, .. }) in changes.iter().enumerate() {
            let is_first = at == 0 || (changes[at - 1].table, &changes[at - 1].key) != (*table, key);
            let Some(value) = recent.get(*table, key).filter(|_| is_first) else { continue };
            let len = value.map_or(DELETED, |value| value.len() as u32);
            record.push(*table as u8);
            record.extend_from_slice(&(key.len() as u32).to_le_bytes());
            record.extend_from_slice(&len.to_le_bytes());
            record.extend_from_slice(key);
            record.extend_from_slice(value.unwrap_or_default());
        }
        let (head, rows) = record.split_at_mut(HEAD);
        head[..8].copy_from_slice(&self.generation.to_le_bytes());
        head[8..12].copy_from_slice(&self.number.to_le_bytes());
        head[12..16].copy_from_slice(&(rows.len() as u32).to_le_bytes());
        let crc = sum_of(&head[..16], rows);
        head[16..].copy_from_slice(&crc.to_le_bytes());
        record.resize(record.len().next_multiple_of(PAGE), 0);
        self.backend.write(self.at as u64, record)?;
        self.backend.sync_data()?;
        self.at += record.len();
        self.number += 1;
        self.record.shrink_to(16 * PAGE);
        Ok(())
    }
}

fn sum_of(head: &[u8], rows: &[u8]) -> u32 {
    !sum::crc(sum::crc(u32::MAX, head), rows)
}

/// The number of the record that begins here, if it is of that generation.
fn number_of(record: &[u8], generation: u64) -> Option<u32> {
    let is_of_it = u64::from_le_bytes(*record.first_chunk()?) == generation;
    let number = u32::from_le_bytes(*record.get(8..)?.first_chunk()?);
    is_of_it.then_some(number)
}

fn take_up(mut rows: &[u8], recent: &mut Recent) -> Option<()> {
    while let Some((table, rest)) = rows.split_first() {
        let (key_len, rest) = rest.split_first_chunk()?;
        let (value_len, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
        let (value, rest) = match u32::from_le_bytes(*value_len) {
            DELETED => (None, rest),
            len => rest.split_at_checked(len as usize).map(|(value, rest)| (Some(value), rest))?,
        };
        recent.set(*Table::ALL.get(usize::from(*table))?, key, value);
        rows = rest;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::super::crash_tests::Disk;
    use super::*;

    /// A commit of these rows.
    fn put(journal: &mut Journal, recent: &mut Recent, rows: &[(&[u8], Option<&[u8]>)]) {
        let mut changes: Vec<_> = rows.iter().map(|(key, value)| recent.set(Table::Rosters, key, *value)).collect();
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        journal.append(&changes, recent).expect("written");
    }

    fn rows(recent: &Recent) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        recent.rows(Table::Rosters).map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect()
    }

    fn load(image: &[u8], generation: u64) -> Result<(Journal, Recent), Damaged> {
        let mut journal = Journal::open(Box::new(Disk::holding(image.to_vec()))).expect("opens");
        let mut recent = Recent::default();
        journal.load(generation, &mut recent).expect("read")?;
        Ok((journal, recent))
    }

    /// Four records of generation 7, one of them of three pages, over older ones.
    fn written() -> (Vec<u8>, Recent) {
        let disk = Disk::default();
        let mut journal = Journal::open(Box::new(disk.clone())).expect("opens");
        let mut recent = Recent::default();
        journal.restart(6);
        (0..9).for_each(|_| put(&mut journal, &mut recent, &[(b"old", Some(b"old"))]));
        recent.clear();
        journal.restart(7);
        put(&mut journal, &mut recent, &[(b"a", Some(b"1")), (b"b", None), (b"a", Some(b"2"))]);
        put(&mut journal, &mut recent, &[(b"c", Some(&[7; 9000]))]);
        put(&mut journal, &mut recent, &[(b"a", None), (b"", Some(b""))]);
        put(&mut journal, &mut recent, &[(b"d", Some(b"4"))]);
        (disk.image(), recent)
    }

    #[test]
    fn what_was_written_is_found() {
        let (image, recent) = written();
        assert_eq!(image.len(), BYTES);
        let (mut journal, mut found) = load(&image, 7).expect("whole");
        assert_eq!((rows(&found), found.bytes()), (rows(&recent), recent.bytes()));
        assert_eq!((journal.at, journal.number), (6 * PAGE, 4));
        put(&mut journal, &mut found, &[(b"e", Some(b"5"))]);
        assert!(load(&image, 8).expect("whole").1.is_empty(), "another generation");
        assert!(load(&[], 7).expect("new").1.is_empty());
        assert!(load(&image[..100], 9).expect("short").1.is_empty());
    }

    #[test]
    fn what_is_damaged_is_not_used() {
        let (image, recent) = written();
        for at in (0..6 * PAGE).step_by(37).chain(0..HEAD).chain(5 * PAGE..5 * PAGE + 40) {
            let mut image = image.clone();
            image[at] ^= 0x10;
            match load(&image, 7) {
                // Zeros behind a record, or the last one, which may have been cut off.
                Ok((_, found)) if at < 5 * PAGE => assert_eq!(rows(&found), rows(&recent), "{at}"),
                Ok((_, found)) => assert!(found.get(Table::Rosters, b"a") == Some(None), "{at}"),
                Err(damaged) => assert!(damaged == Damaged::Record && at < 5 * PAGE, "{at}"),
            }
        }
        let cut_off = load(&image[..5 * PAGE], 7).expect("the last one was not acknowledged").1;
        assert_eq!(rows(&cut_off).len(), rows(&recent).len() - 1);
    }

    #[test]
    fn it_gets_full() {
        let mut journal = Journal::open(Box::new(InMemoryBackend::new())).expect("opens");
        let mut recent = Recent::default();
        let mut records = 0;
        while journal.has_room(1, 1 + PAGE) {
            put(&mut journal, &mut recent, &[(b"a", Some(&[1; PAGE]))]);
            records += 1;
        }
        assert_eq!(records, BYTES / PAGE / 2);
        assert!(!journal.has_room(0, 0));
        journal.restart(1);
        assert!(journal.has_room(1, BYTES - HEAD - 9) && !journal.has_room(1, BYTES - HEAD - 8));
    }
}
