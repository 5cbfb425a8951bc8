//! Messages kept for accounts without a session.

use std::ops::ControlFlow;

use super::account;
use super::apply::{Rules, Staged, malformed};
use super::archive;
use super::schema::{self, OfflineHead, OfflineRow, Table};
use crate::core::archive::ArchiveId;
use crate::core::effects::{OfflineMessage, StoreError, StoreReply, Stored};
use crate::jid::{BareJid, Jid};

fn head(tx: &mut Staged<'_>, user: &BareJid) -> Result<OfflineHead, StoreError> {
    let head = tx.read(Table::Offline, &schema::offline_key(user, 0), schema::decode_offline_head)?;
    Ok(head.unwrap_or_default())
}

fn put_head(tx: &mut Staged<'_>, user: &BareJid, head: &OfflineHead) {
    tx.put(Table::Offline, schema::offline_key(user, 0), schema::encode_offline_head(head));
}

/// Whether messages wait for the account.
pub(super) fn any(tx: &mut Staged<'_>, user: &BareJid) -> Result<bool, StoreError> {
    Ok(head(tx, user)?.count > 0)
}

/// Whether the account takes messages from there: it exists, and has not blocked the sender.
pub(super) fn check(tx: &mut Staged<'_>, user: &BareJid, from: &Jid) -> Result<(), StoreError> {
    // Who is blocked learns no more than who writes to nobody.
    match !tx.has_account(user)? || account::blocklist(tx, user)?.blocks_prepared(from.as_str()) {
        true => Err(StoreError::NoAccount),
        false => Ok(()),
    }
}

pub(super) fn put(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    from: &Jid,
    stanza: &[u8],
    archived: Option<ArchiveId>,
) -> StoreReply {
    check(tx, user, from)?;
    if let Some(id) = archived
        && let Some(archived) = archive::stanza(tx, user, id)?
    {
        put_row(tx, rules, user, &OfflineRow::Archived(id, archived.len() as u64))?;
    } else {
        put_row(tx, rules, user, &OfflineRow::Stamped(stanza))?;
    }
    Ok(Stored::Done)
}

/// Adds a message for an account that exists.
pub(super) fn put_row(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    row: &OfflineRow<'_>,
) -> Result<(), StoreError> {
    let head = head(tx, user)?;
    let after = OfflineHead {
        last_seq: head.last_seq.checked_add(1).ok_or(StoreError::Full)?,
        count: head.count.saturating_add(1),
        bytes: head.bytes.saturating_add(bytes_of(row)),
    };
    let limits = &rules.limits;
    if after.count > limits.offline_messages_max as u64 || after.bytes > limits.offline_bytes_max as u64 {
        return Err(StoreError::Full);
    }
    tx.put(Table::Offline, schema::offline_key(user, after.last_seq), schema::encode_offline(row));
    put_head(tx, user, &after);
    Ok(())
}

/// What a message counts for, wherever its stanza is.
fn bytes_of(row: &OfflineRow<'_>) -> u64 {
    match row {
        OfflineRow::Stamped(stanza) | OfflineRow::Stanza(_, stanza) => stanza.len() as u64,
        OfflineRow::Archived(_, bytes) => *bytes,
    }
}

/// The account's archive is about to forget a message: if that waits for the account, the stanza stays here.
pub(super) fn keep_stanza(tx: &mut Staged<'_>, user: &BareJid, id: ArchiveId) -> Result<(), StoreError> {
    if !any(tx, user)? {
        return Ok(());
    }
    let mut waiting = None;
    each_message(tx, user, 1, u64::MAX, &mut |seq, row| {
        if matches!(row, OfflineRow::Archived(archived, _) if archived == id) {
            waiting = Some(seq);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    if let Some(seq) = waiting
        && let Some(stanza) = archive::stanza(tx, user, id)?
    {
        let row = schema::encode_offline(&OfflineRow::Stanza(id, &stanza));
        tx.put(Table::Offline, schema::offline_key(user, seq), row);
    }
    Ok(())
}

pub(super) fn page(tx: &mut Staged<'_>, user: &BareJid, delete_to: u64, after: u64, bytes_max: usize) -> StoreReply {
    if delete_to > 0 {
        delete(tx, user, delete_to)?;
    }
    let mut messages = Vec::new();
    // Nothing is stored under the highest number of all, so that it can stand for the end.
    let next = after.max(delete_to).saturating_add(1);
    if bytes_max > 0 {
        let mut bytes = 0u64;
        each_message(tx, user, next, u64::MAX, &mut |number, row| {
            bytes = bytes.saturating_add(bytes_of(&row));
            if !messages.is_empty() && bytes > bytes_max as u64 {
                return ControlFlow::Break(());
            }
            let (at, archived, stanza) = match row {
                OfflineRow::Stamped(stanza) => (None, None, stanza.to_vec()),
                OfflineRow::Stanza(id, stanza) => (Some(id.time()), None, stanza.to_vec()),
                OfflineRow::Archived(id, _) => (Some(id.time()), Some(id), Vec::new()),
            };
            messages.push(OfflineMessage { number, at, archived, stanza });
            ControlFlow::Continue(())
        })?;
    }
    for message in &mut messages {
        if let Some(id) = message.archived {
            let key = schema::archive_key(user, id);
            let missing = schema::Malformed("a message that waits is missing");
            message.stanza = archive::stanza(tx, user, id)?.ok_or_else(|| malformed(Table::Archive, &key, missing))?;
        }
    }
    Ok(Stored::Offline(messages))
}

/// Deletes the messages that are in the account's archive. Those that are nowhere else stay.
pub(super) fn clear(tx: &mut Staged<'_>, user: &BareJid) -> StoreReply {
    if any(tx, user)? {
        delete_where(tx, user, u64::MAX, |row| matches!(row, OfflineRow::Archived(..)))?;
    }
    Ok(Stored::Done)
}

/// Deletes the messages up to that number, inclusive.
fn delete(tx: &mut Staged<'_>, user: &BareJid, to: u64) -> Result<(), StoreError> {
    delete_where(tx, user, to.saturating_add(1), |_| true)
}

/// Deletes the messages below that number that are meant. The counters stay when the last one goes: they hold the number from
/// which to go on.
fn delete_where(
    tx: &mut Staged<'_>,
    user: &BareJid,
    below: u64,
    is_meant: fn(&OfflineRow<'_>) -> bool,
) -> Result<(), StoreError> {
    let (mut gone, mut bytes) = (Vec::new(), 0);
    each_message(tx, user, 1, below, &mut |seq, row| {
        if is_meant(&row) {
            gone.push(seq);
            bytes += bytes_of(&row);
        }
        ControlFlow::Continue(())
    })?;
    if gone.is_empty() {
        return Ok(());
    }
    let mut head = head(tx, user)?;
    head.count = head.count.saturating_sub(gone.len() as u64);
    head.bytes = head.bytes.saturating_sub(bytes);
    put_head(tx, user, &head);
    for seq in gone {
        tx.delete(Table::Offline, schema::offline_key(user, seq));
    }
    Ok(())
}

/// The messages with numbers from `from` up to `to`, without it.
fn each_message(
    tx: &mut Staged<'_>,
    user: &BareJid,
    from: u64,
    to: u64,
    each: &mut dyn FnMut(u64, OfflineRow<'_>) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let (from, to) = (schema::offline_key(user, from), schema::offline_key(user, to));
    let mut result = Ok(());
    tx.scan(Table::Offline, &from, &to, &mut |key, record| match schema::offline_seq(key)
        .and_then(|seq| Ok((seq, schema::decode_offline(record)?)))
    {
        Ok((seq, row)) => each(seq, row),
        Err(error) => {
            result = Err(malformed(Table::Offline, key, error));
            ControlFlow::Break(())
        }
    })?;
    result
}
