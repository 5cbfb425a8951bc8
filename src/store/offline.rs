//! Messages kept for accounts without a session.

use std::ops::ControlFlow;

use super::account;
use super::apply::{Rules, Staged, malformed};
use super::schema::{self, OfflineHead, Table};
use crate::core::effects::{StoreError, StoreReply, Stored};
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

pub(super) fn put(tx: &mut Staged<'_>, rules: &Rules, user: &BareJid, from: &Jid, stanza: &[u8]) -> StoreReply {
    // Who is blocked learns no more than who writes to nobody.
    if !tx.has_account(user)? || account::blocklist(tx, user)?.blocks_prepared(from.as_str()) {
        return Err(StoreError::NoAccount);
    }
    let head = head(tx, user)?;
    let after = OfflineHead {
        last_seq: head.last_seq.checked_add(1).ok_or(StoreError::Full)?,
        count: head.count.saturating_add(1),
        bytes: head.bytes.saturating_add(stanza.len() as u64),
    };
    let limits = &rules.limits;
    if after.count > limits.offline_messages_max as u64 || after.bytes > limits.offline_bytes_max as u64 {
        return Err(StoreError::Full);
    }
    tx.put(Table::Offline, schema::offline_key(user, after.last_seq), schema::encode_xml(stanza));
    put_head(tx, user, &after);
    Ok(Stored::Done)
}

pub(super) fn page(tx: &mut Staged<'_>, user: &BareJid, delete_to: u64, after: u64, bytes_max: usize) -> StoreReply {
    if delete_to > 0 {
        delete(tx, user, delete_to)?;
    }
    let mut messages = Vec::new();
    // Nothing is stored under the highest number of all, so that it can stand for the end.
    let next = after.max(delete_to).saturating_add(1);
    if bytes_max > 0 {
        let mut bytes = 0usize;
        each_message(tx, user, next, u64::MAX, &mut |seq, stanza| {
            if !messages.is_empty() && bytes.saturating_add(stanza.len()) > bytes_max {
                return ControlFlow::Break(());
            }
            bytes = bytes.saturating_add(stanza.len());
            messages.push((seq, stanza.to_vec()));
            ControlFlow::Continue(())
        })?;
    }
    Ok(Stored::Offline(messages))
}

/// Deletes the messages up to that number, inclusive. The counters stay when the last one goes: they hold the number from which
/// to go on.
fn delete(tx: &mut Staged<'_>, user: &BareJid, to: u64) -> Result<(), StoreError> {
    let (mut gone, mut bytes) = (Vec::new(), 0);
    each_message(tx, user, 1, to.saturating_add(1), &mut |seq, stanza| {
        gone.push(seq);
        bytes += stanza.len() as u64;
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
    each: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let (from, to) = (schema::offline_key(user, from), schema::offline_key(user, to));
    let mut result = Ok(());
    tx.scan(Table::Offline, &from, &to, &mut |key, record| match schema::offline_seq(key)
        .and_then(|seq| Ok((seq, schema::decode_xml(record)?)))
    {
        Ok((seq, stanza)) => each(seq, stanza),
        Err(error) => {
            result = Err(malformed(Table::Offline, key, error));
            ControlFlow::Break(())
        }
    })?;
    result
}
