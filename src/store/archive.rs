//! Messages kept for their sender and their receiver, each stanza once.
//!
//! A stanza lies with its conversation, as long as an archive has a row of it. An archive forgets its oldest messages as it
//! grows, some with each new one: there is no sweep, and a box that was off for a year does not spend its first minute on what
//! has become too old.

use std::ops::ControlFlow;

use super::apply::{Rules, Staged, malformed};
use super::schema::{self, ArchiveRow, Archived, Malformed, OfflineRow, Table};
use super::{offline, roster};
use crate::core::archive::{ArchiveFilter, ArchiveId, ArchivePage, ArchivePaging, ArchivePrefs, Keep};
use crate::core::effects::{StoreError, StoreReply, Stored};
use crate::core::rooms::Line;
use crate::jid::{BareJid, Jid};

/// What a message takes beside its stanza, in bytes: rows, keys, pages that are not full.
const ROW_BYTES: u64 = 192;
/// Messages that become too old leave by at most so many for each that comes.
const OLD_ROWS_MAX: usize = 8;
/// Messages that leave at most to make room for one.
const ROOM_ROWS_MAX: usize = 256;
/// An archive that is full loses so many bytes at once, less if it is small: one look for many messages, and the pages that they
/// leave are written once for all of them.
const ROOM_BYTES: u64 = 64 * 1024;
/// The stored id above all others is ahead of them by so many milliseconds at most, so that it is seldom written. After a restart
/// ids go on from there.
const BOUND_MILLIS: u64 = 5000;
/// Messages looked at to say how many there are.
const COUNTED_MAX: usize = 1000;
/// Rows of a removed account that go with it. What it has beyond goes with messages of others.
const CLEARED_WITH_ACCOUNT: usize = 8192;
/// Rows of removed accounts that go with one message of others.
const CLEARED_WITH_MESSAGE: usize = 64;

/// A message on its way into the store.
pub(super) struct Put<'r> {
    pub(super) id: ArchiveId,
    pub(super) from: &'r Jid,
    pub(super) to: &'r Jid,
    pub(super) sender: Keep,
    pub(super) receiver: Keep,
    pub(super) offline: bool,
    pub(super) stanza: &'r [u8],
}

/// A line said in a room, in the room's archive alone.
pub(super) fn put_line(
    tx: &mut Staged<'_>,
    rules: &mut Rules,
    archive: &BareJid,
    from: &Jid,
    line: &Line,
) -> StoreReply {
    let Line { id, xml } = line;
    let put = Put { id: *id, from, to: from, sender: Keep::No, receiver: Keep::No, offline: false, stanza: xml };
    let last = end_of(tx, archive, End::Last)?;
    if last.as_ref().is_some_and(|(last, _)| *last >= *id) {
        log::error!("store: a line is older than the last one of its room");
        return Err(StoreError::Failed);
    }
    write_line(tx, archive, from.bare(), from.resource().unwrap_or_default(), line);
    add(tx, rules, &put, Owner { user: archive.clone(), with: from, last: last.map(|(_, row)| row) })?;
    clear_some(tx, rules)?;
    keep_above(tx, rules, *id)?;
    Ok(Stored::Done)
}

/// A line lies as a message that the room has sent to its archive, from the nick's address.
fn write_line(tx: &mut Staged<'_>, archive: &BareJid, room: &str, nick: &str, line: &Line) {
    let archived = Archived {
        kept_by: (false, true),
        sent_by_greater: room > archive.as_str(),
        from: nick,
        to: "",
        stanza: &line.xml,
    };
    let key = schema::archived_key(room, archive.as_str(), line.id);
    tx.put(Table::Archive, key, schema::encode_archived(&archived));
}

/// Another text in the place of a line's. What the archive counts as its bytes stays.
pub(super) fn rewrite(tx: &mut Staged<'_>, archive: &BareJid, line: &Line) -> StoreReply {
    let Some(row) = row(tx, archive, line.id)? else { return Err(StoreError::NotFound) };
    let key = schema::archived_key(archive.as_str(), &row.with, line.id);
    let nick = tx.read(Table::Archive, &key, |record| Ok(schema::decode_archived(record)?.from.to_owned()))?;
    write_line(tx, archive, &row.with, &nick.unwrap_or_default(), line);
    Ok(Stored::Done)
}

/// The last lines of a room, oldest first.
pub(super) fn last_lines(tx: &mut Staged<'_>, archive: &BareJid, max: usize) -> Result<Vec<Line>, StoreError> {
    let found = find(tx, archive, &ArchiveFilter::default(), Range::ALL, true, max)?;
    let lines = found.into_iter().rev();
    lines.map(|(id, room)| Ok(Line { id, xml: stanza_with(tx, archive, &room, id)? })).collect()
}

/// One archive that takes it.
struct Owner<'r> {
    user: BareJid,
    with: &'r Jid,
    last: Option<ArchiveRow>,
}

pub(super) fn put(tx: &mut Staged<'_>, rules: &mut Rules, put: &Put<'_>) -> StoreReply {
    let (sender, receiver) = (put.from.to_bare(), put.to.to_bare());
    if put.offline {
        offline::check(tx, &receiver, put.from)?;
    }
    let sender = owner(tx, rules, put, put.sender, sender, put.to)?;
    let archived = match &sender {
        Some(sender) if sender.user == receiver => None,
        _ => owner(tx, rules, put, put.receiver, receiver.clone(), put.from)?,
    };
    let owners = [sender, archived];
    if put.offline {
        let row = match owners.iter().flatten().any(|owner| owner.user == receiver) {
            true => OfflineRow::Archived(put.id, put.stanza.len() as u64),
            false => OfflineRow::Stanza(put.id, put.stanza),
        };
        offline::put_row(tx, rules, &receiver, &row)?;
    }
    if owners.iter().any(Option::is_some) {
        let (from, to) = (put.from.bare(), put.to.bare());
        let archived = Archived {
            kept_by: (owners[0].is_some() || from == to, owners[1].is_some() || from == to),
            sent_by_greater: from > to,
            from: put.from.resource().unwrap_or_default(),
            to: put.to.resource().unwrap_or_default(),
            stanza: put.stanza,
        };
        tx.put(Table::Archive, schema::archived_key(from, to, put.id), schema::encode_archived(&archived));
    }
    let mut added = [const { None }; 2];
    for (owner, added) in owners.into_iter().flatten().zip(&mut added) {
        *added = Some(add(tx, rules, put, owner)?);
    }
    clear_some(tx, rules)?;
    // The last steps, since what they note is not undone.
    keep_above(tx, rules, put.id)?;
    for (user, row) in added.into_iter().flatten() {
        rules.archive_ends.insert(user, (put.id, row));
    }
    Ok(Stored::Done)
}

/// The archive of `user`, if it takes the message.
fn owner<'r>(
    tx: &mut Staged<'_>,
    rules: &Rules,
    put: &Put<'r>,
    keep: Keep,
    user: BareJid,
    with: &'r Jid,
) -> Result<Option<Owner<'r>>, StoreError> {
    let wanted = match keep {
        Keep::No => false,
        Keep::Yes => true,
        Keep::IfWanted => wants(tx, rules, &user, with)?,
    };
    if !wanted {
        return Ok(None);
    }
    let last = match rules.archive_ends.get(user.as_str()) {
        Some(last) => Some(last.clone()),
        None => end_of(tx, &user, End::Last)?,
    };
    match &last {
        Some((last, _)) if *last >= put.id => {
            log::error!("store: a message of {user} is older than the last one in its archive");
            return Err(StoreError::Failed);
        }
        // An archive that has messages has an account.
        None if !tx.has_account(&user)? => return Ok(None),
        _ => {}
    }
    Ok(Some(Owner { user, with, last: last.map(|(_, row)| row) }))
}

fn wants(tx: &mut Staged<'_>, rules: &Rules, user: &BareJid, with: &Jid) -> Result<bool, StoreError> {
    let prefs = prefs(tx, user)?;
    let mut result = Ok(());
    let wants = prefs.wants(with.as_str(), |contact| match roster::load_towards(tx, rules, user, &with.to_bare()) {
        Ok(roster) => roster.is_some_and(|roster| roster.items.contains_key(contact)),
        Err(error) => {
            result = Err(error);
            false
        }
    });
    result.map(|()| wants)
}

fn add(
    tx: &mut Staged<'_>,
    rules: &Rules,
    put: &Put<'_>,
    owner: Owner<'_>,
) -> Result<(BareJid, ArchiveRow), StoreError> {
    let Owner { user, with, last } = owner;
    let bytes = put.stanza.len() as u64 + ROW_BYTES;
    let mut row = match last {
        Some(last) => ArchiveRow {
            with: with.bare().to_owned(),
            count: last.count.saturating_add(1),
            bytes_to: last.bytes_to.saturating_add(bytes),
            bytes,
            ..last
        },
        None => ArchiveRow {
            with: with.bare().to_owned(),
            count: 1,
            bytes_to: bytes,
            bytes,
            bytes_gone: 0,
            oldest: put.id.time(),
        },
    };
    make_room(tx, rules, &user, put.id, &mut row)?;
    tx.put(Table::Archive, schema::archive_key(&user, put.id), schema::encode_archive(&row));
    Ok((user, row))
}

/// Deletes what is too old or too much once `new` is there, oldest first.
fn make_room(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    id: ArchiveId,
    new: &mut ArchiveRow,
) -> Result<(), StoreError> {
    let now = id.time();
    let bytes_max = rules.limits.archive_bytes_max as u64;
    let time_max = u64::try_from(rules.limits.archive_time.as_millis()).unwrap_or(u64::MAX);
    let is_old = |at: crate::core::UtcTime| now.0.saturating_sub(at.0) > time_max;
    let bytes = |row: &ArchiveRow| row.bytes_to.saturating_sub(row.bytes_gone);
    let is_full = bytes(new) > bytes_max;
    if !is_old(new.oldest) && !is_full {
        return Ok(());
    }
    let bytes_left = bytes_max - ROOM_BYTES.min(bytes_max / 1024 * 8);
    let mut gone = Vec::new();
    let mut oldest = now;
    each_row(tx, user, &mut |id, row| {
        let too_much = is_full && bytes(new) > bytes_left && gone.len() < ROOM_ROWS_MAX;
        if too_much || (is_old(id.time()) && gone.len() < OLD_ROWS_MAX) {
            new.bytes_gone = row.bytes_to;
            gone.push((id, row.with));
            return ControlFlow::Continue(());
        }
        oldest = id.time();
        ControlFlow::Break(())
    })?;
    new.oldest = oldest;
    for (id, with) in gone {
        offline::keep_stanza(tx, user, id)?;
        forget(tx, user, id, &with)?;
    }
    Ok(())
}

/// Takes a message out of an account's archive.
fn forget(tx: &mut Staged<'_>, user: &BareJid, id: ArchiveId, with: &str) -> Result<(), StoreError> {
    tx.delete(Table::Archive, schema::archive_key(user, id));
    let other = BareJid::from_prepared(with);
    if other == *user || tx.get(Table::Archive, &schema::archive_key(&other, id))?.is_none() {
        tx.delete(Table::Archive, schema::archived_key(user.as_str(), with, id));
    }
    Ok(())
}

fn row(tx: &mut Staged<'_>, user: &BareJid, id: ArchiveId) -> Result<Option<ArchiveRow>, StoreError> {
    tx.read(Table::Archive, &schema::archive_key(user, id), schema::decode_archive)
}

/// A stanza of an account's archive, if it has it.
pub(super) fn stanza(tx: &mut Staged<'_>, user: &BareJid, id: ArchiveId) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(row) = row(tx, user, id)? else { return Ok(None) };
    stanza_with(tx, user, &row.with, id).map(Some)
}

fn stanza_with(tx: &mut Staged<'_>, user: &BareJid, with: &str, id: ArchiveId) -> Result<Vec<u8>, StoreError> {
    let key = schema::archived_key(user.as_str(), with, id);
    let stanza = tx.read(Table::Archive, &key, |record| Ok(schema::decode_archived(record)?.stanza.to_vec()))?;
    stanza.ok_or_else(|| malformed(Table::Archive, &key, Malformed("it is missing")))
}

/// Sees that the stored bound is above an id.
fn keep_above(tx: &mut Staged<'_>, rules: &mut Rules, id: ArchiveId) -> Result<(), StoreError> {
    let bound = match rules.archive_bound {
        Some(bound) => bound,
        None => stored_bound(tx)?,
    };
    rules.archive_bound = Some(bound);
    if id >= bound {
        let bound = ArchiveId::least_at(crate::core::UtcTime(id.time().0.saturating_add(BOUND_MILLIS)));
        tx.put(Table::Archive, schema::ARCHIVE_BOUND_KEY.to_vec(), schema::encode_archive_bound(bound));
        rules.archive_bound = Some(bound);
    }
    Ok(())
}

fn stored_bound(tx: &mut Staged<'_>) -> Result<ArchiveId, StoreError> {
    let bound = tx.read(Table::Archive, schema::ARCHIVE_BOUND_KEY, schema::decode_archive_bound)?;
    Ok(bound.unwrap_or_default())
}

/// An id that was above all others when the store was opened.
pub(super) fn bound_at_start(tx: &mut Staged<'_>, rules: &mut Rules) -> Result<ArchiveId, StoreError> {
    let bound = match rules.archive_bound_at_start {
        Some(bound) => bound,
        None => stored_bound(tx)?,
    };
    rules.archive_bound_at_start = Some(bound);
    Ok(bound)
}

pub(super) fn prefs(tx: &mut Staged<'_>, user: &BareJid) -> Result<ArchivePrefs, StoreError> {
    let prefs = tx.read(Table::Archive, &schema::archive_prefs_key(user), schema::decode_archive_prefs)?;
    Ok(prefs.unwrap_or_default())
}

pub(super) fn put_prefs(tx: &mut Staged<'_>, user: &BareJid, prefs: &ArchivePrefs) -> StoreReply {
    if !tx.has_account(user)? {
        return Err(StoreError::NoAccount);
    }
    let key = schema::archive_prefs_key(user);
    match *prefs == ArchivePrefs::default() {
        true => tx.delete(Table::Archive, key),
        false => tx.put(Table::Archive, key, schema::encode_archive_prefs(prefs)),
    }
    Ok(Stored::Done)
}

/// Removes an account's archive, the better part of a big one at once; the rest goes with messages of others. The name is not
/// given again, so nobody can see that.
pub(super) fn remove(tx: &mut Staged<'_>, rules: &mut Rules, user: &BareJid) -> Result<(), StoreError> {
    rules.archive_ends.remove(user.as_str());
    if !clear(tx, user, CLEARED_WITH_ACCOUNT)? {
        tx.put(Table::Archive, schema::cleared_key(user), schema::encode_tombstone());
        rules.is_clearing = true;
    }
    Ok(())
}

/// Goes on with what [`remove`] has begun, if there is such an archive.
fn clear_some(tx: &mut Staged<'_>, rules: &mut Rules) -> Result<(), StoreError> {
    if !rules.is_clearing {
        return Ok(());
    }
    let (from, to) = schema::cleared_keys();
    let mut user = None;
    tx.scan(Table::Archive, &from, &to, &mut |key, _| {
        user = Some(schema::account_of_cleared_key(key).map_err(|error| malformed(Table::Archive, key, error)));
        ControlFlow::Break(())
    })?;
    let Some(user) = user.transpose()? else {
        // Should the commit fail that emptied the list, what is left waits for the next start.
        rules.is_clearing = false;
        return Ok(());
    };
    rules.archive_ends.remove(user.as_str());
    if clear(tx, &user, CLEARED_WITH_MESSAGE)? {
        tx.delete(Table::Archive, schema::cleared_key(&user));
    }
    Ok(())
}

/// Deletes up to so many rows of an account; whether those were all.
fn clear(tx: &mut Staged<'_>, user: &BareJid, rows_max: usize) -> Result<bool, StoreError> {
    let (from, to) = schema::owned_keys(user);
    let (mut rows, mut all, mut result) = (Vec::new(), true, Ok(()));
    tx.scan(Table::Archive, &from, &to, &mut |key, record| {
        if rows.len() >= rows_max {
            all = false;
            return ControlFlow::Break(());
        }
        let message = schema::is_archive_key(key, user)
            .then(|| Ok((schema::archive_id(key)?, schema::decode_archive(record)?.with)))
            .transpose();
        match message {
            Ok(message) => rows.push((key.to_vec(), message)),
            Err(error) => result = Err(malformed(Table::Archive, key, error)),
        }
        ControlFlow::Continue(())
    })?;
    result?;
    for (key, message) in rows {
        match message {
            Some((id, with)) => forget(tx, user, id, &with)?,
            None => tx.delete(Table::Archive, key),
        }
    }
    Ok(all)
}

/// Which end of an archive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

fn end_of(tx: &mut Staged<'_>, user: &BareJid, end: End) -> Result<Option<(ArchiveId, ArchiveRow)>, StoreError> {
    end_of_range(tx, user, Range::ALL, end)
}

fn end_of_range(
    tx: &mut Staged<'_>,
    user: &BareJid,
    range: Range,
    end: End,
) -> Result<Option<(ArchiveId, ArchiveRow)>, StoreError> {
    let mut found = Ok(None);
    range.scan(tx, &schema::archive_keys(user), end == End::Last, &mut |key, record| {
        found = decode_row(key, record).map(Some);
        ControlFlow::Break(())
    })?;
    found
}

fn decode_row(key: &[u8], record: &[u8]) -> Result<(ArchiveId, ArchiveRow), StoreError> {
    let row = schema::archive_id(key).and_then(|id| Ok((id, schema::decode_archive(record)?)));
    row.map_err(|error| malformed(Table::Archive, key, error))
}

/// An archive's messages from the oldest.
fn each_row(
    tx: &mut Staged<'_>,
    user: &BareJid,
    each: &mut dyn FnMut(ArchiveId, ArchiveRow) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut result = Ok(());
    Range::ALL.scan(tx, &schema::archive_keys(user), false, &mut |key, record| match decode_row(key, record) {
        Ok((id, row)) => each(id, row),
        Err(error) => {
            result = Err(error);
            ControlFlow::Break(())
        }
    })?;
    result
}

pub(super) fn bounds(tx: &mut Staged<'_>, user: &BareJid) -> StoreReply {
    let first = end_of(tx, user, End::First)?;
    let last = end_of(tx, user, End::Last)?;
    Ok(Stored::ArchiveBounds(first.zip(last).map(|((first, _), (last, _))| (first, last))))
}

/// Ids from the first up to the second, without it.
#[derive(Clone, Copy)]
struct Range(u128, u128);

impl Range {
    const ALL: Range = Range(0, u128::MAX);

    fn new(after: Option<ArchiveId>, before: Option<ArchiveId>) -> Range {
        Range(after.map_or(0, |id| id.0.saturating_add(1)), before.map_or(u128::MAX, |id| id.0))
    }

    fn of(filter: &ArchiveFilter) -> Range {
        let start = filter.start.map_or(0, |start| ArchiveId::least_at(start).0);
        let end =
            filter.end.map_or(u128::MAX, |end| ArchiveId::least_at(crate::core::UtcTime(end.0.saturating_add(1))).0);
        Range(start, end).and(Range::new(filter.after, filter.before))
    }

    fn and(self, other: Range) -> Range {
        Range(self.0.max(other.0), self.1.min(other.1))
    }

    fn contains(self, id: ArchiveId) -> bool {
        (self.0..self.1).contains(&id.0)
    }

    /// The rows whose keys are `prefix` and an id of the range.
    fn scan(
        self,
        tx: &mut Staged<'_>,
        prefix: &[u8],
        backwards: bool,
        each: &mut super::apply::EachRow<'_>,
    ) -> Result<(), StoreError> {
        let key = |id: u128| [prefix, &id.to_be_bytes()].concat();
        let (from, to) = (key(self.0), key(self.1));
        match backwards {
            false => tx.scan(Table::Archive, &from, &to, each),
            true => tx.scan_back(Table::Archive, &from, &to, each),
        }
    }
}

pub(super) fn page(tx: &mut Staged<'_>, user: &BareJid, filter: &ArchiveFilter, paging: &ArchivePaging) -> StoreReply {
    let named = [filter.after, filter.before, paging.after, paging.before];
    for id in named.into_iter().flatten().chain(filter.ids.iter().flatten().copied()) {
        if row(tx, user, id)?.is_none() {
            return Err(StoreError::NotFound);
        }
    }
    let all = Range::of(filter);
    let range = all.and(Range::new(paging.after, paging.before));
    let mut found = find(tx, user, filter, range, paging.backwards, paging.max.saturating_add(1))?;
    let mut page = ArchivePage { complete: found.len() <= paging.max, ..ArchivePage::default() };
    found.truncate(paging.max);
    let mut bytes = 0usize;
    for (id, with) in found {
        let stanza = stanza_with(tx, user, &with, id)?;
        bytes = bytes.saturating_add(stanza.len());
        if bytes > paging.bytes_max && !page.messages.is_empty() {
            page.complete = false;
            break;
        }
        page.messages.push((id, stanza));
    }
    if paging.backwards {
        page.messages.reverse();
    }
    let ends = page.messages.first().zip(page.messages.last());
    page.bounds = ends.map(|((first, _), (last, _))| (*first, *last));
    count(tx, user, filter, all, &mut page)?;
    // slixmpp takes the page that reaches the count for the last one, also where it goes backwards from there.
    if paging.backwards {
        page.index = None;
    }
    if paging.flip {
        page.messages.reverse();
    }
    Ok(Stored::ArchivePage(Box::new(page)))
}

/// At most `max` messages of a range that match, with whom they are, in order or from the end.
fn find(
    tx: &mut Staged<'_>,
    user: &BareJid,
    filter: &ArchiveFilter,
    range: Range,
    backwards: bool,
    max: usize,
) -> Result<Vec<(ArchiveId, String)>, StoreError> {
    match (&filter.ids, &filter.with) {
        (Some(ids), _) => pick(tx, user, filter, ids, range, backwards, max),
        (None, Some(with)) => find_with(tx, user, with, range, backwards, max),
        (None, None) => {
            let (mut found, mut result) = (Vec::new(), Ok(()));
            range.scan(tx, &schema::archive_keys(user), backwards, &mut |key, record| {
                if found.len() >= max {
                    return ControlFlow::Break(());
                }
                match decode_row(key, record) {
                    Ok((id, row)) => found.push((id, row.with)),
                    Err(error) => result = Err(error),
                }
                ControlFlow::Continue(())
            })?;
            result.map(|()| found)
        }
    }
}

/// [`find`] among the messages with somebody.
fn find_with(
    tx: &mut Staged<'_>,
    user: &BareJid,
    with: &Jid,
    range: Range,
    backwards: bool,
    max: usize,
) -> Result<Vec<(ArchiveId, String)>, StoreError> {
    // What this archive has forgotten may still be in the other one.
    let Some((first, _)) = end_of(tx, user, End::First)? else { return Ok(Vec::new()) };
    let range = range.and(Range(first.0, u128::MAX));
    let (mut found, mut result) = (Vec::new(), Ok(()));
    range.scan(tx, &schema::conversation_keys(user.as_str(), with.bare()), backwards, &mut |key, record| {
        if found.len() >= max {
            return ControlFlow::Break(());
        }
        match schema::decode_archived(record).and_then(|archived| Ok((schema::archive_id(key)?, archived))) {
            Ok((id, archived)) if matches(&archived, user, with) => found.push((id, with.bare().to_owned())),
            Ok(_) => {}
            Err(error) => result = Err(malformed(Table::Archive, key, error)),
        }
        ControlFlow::Continue(())
    })?;
    result.map(|()| found)
}

/// Whether a message between the user and the bare JID of `with` is in the user's archive, and is to or from `with`.
fn matches(archived: &Archived<'_>, user: &BareJid, with: &Jid) -> bool {
    let to_oneself = user.as_str() == with.bare();
    let is_sender = to_oneself || (user.as_str() > with.bare()) == archived.sent_by_greater;
    let is_kept = if is_sender { archived.kept_by.0 } else { archived.kept_by.1 };
    is_kept
        && with.resource().is_none_or(|resource| match (to_oneself, is_sender) {
            (true, _) => resource == archived.from || resource == archived.to,
            (false, true) => resource == archived.to,
            (false, false) => resource == archived.from,
        })
}

/// [`find`] among messages that are named.
fn pick(
    tx: &mut Staged<'_>,
    user: &BareJid,
    filter: &ArchiveFilter,
    ids: &[ArchiveId],
    range: Range,
    backwards: bool,
    max: usize,
) -> Result<Vec<(ArchiveId, String)>, StoreError> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    if backwards {
        ids.reverse();
    }
    let mut found = Vec::new();
    for id in ids.into_iter().filter(|id| range.contains(*id)) {
        let Some(row) = row(tx, user, id)? else { continue };
        let fits = match &filter.with {
            None => true,
            Some(with) if with.bare() != row.with => false,
            Some(with) => {
                let key = schema::archived_key(user.as_str(), &row.with, id);
                let fits = |record: &[u8]| Ok(matches(&schema::decode_archived(record)?, user, with));
                tx.read(Table::Archive, &key, fits)? == Some(true)
            }
        };
        if fits && found.len() < max {
            found.push((id, row.with));
        }
    }
    Ok(found)
}

/// How many match on all pages: known from two rows if it is a stretch of the archive, counted where there is nothing else to
/// tell and they are not many, else left out.
fn count(
    tx: &mut Staged<'_>,
    user: &BareJid,
    filter: &ArchiveFilter,
    all: Range,
    page: &mut ArchivePage,
) -> Result<(), StoreError> {
    if filter.with.is_some() || filter.ids.is_some() {
        if page.messages.is_empty() {
            let found = find(tx, user, filter, all, false, COUNTED_MAX + 1)?.len();
            page.count = (found <= COUNTED_MAX).then_some(found as u64);
        }
        return Ok(());
    }
    let first = end_of_range(tx, user, all, End::First)?;
    let last = end_of_range(tx, user, all, End::Last)?;
    let Some(((_, first), (_, last))) = first.zip(last) else {
        page.count = Some(0);
        return Ok(());
    };
    page.count = Some(last.count.saturating_sub(first.count).saturating_add(1));
    if let Some((oldest, _)) = page.bounds {
        page.index = row(tx, user, oldest)?.map(|row| row.count.saturating_sub(first.count));
    }
    Ok(())
}
