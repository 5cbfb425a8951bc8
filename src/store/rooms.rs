//! Group chat rooms and their last lines.

use std::ops::ControlFlow;

use super::apply::{Rules, Staged, malformed};
use super::archive;
use super::schema::{self, Table};
use crate::core::effects::{DocumentKey, StoreError, StoreReply, Stored};
use crate::core::rooms::{RoomItem, RoomRecord, RoomState, Tombstone};
use crate::jid::BareJid;

fn state(tx: &mut Staged<'_>, room: &BareJid) -> Result<RoomState, StoreError> {
    Ok(tx.read(Table::Rooms, &schema::account_key(room), schema::decode_room)?.unwrap_or(RoomState::Absent))
}

pub(super) fn load(tx: &mut Staged<'_>, rules: &Rules, room: &BareJid) -> StoreReply {
    let mut state = state(tx, room)?;
    if let RoomState::Present(record, lines) = &mut state {
        *lines = archive::last_lines(tx, &record.archive(room), rules.limits.room_history_max)?;
    }
    Ok(Stored::Room(state))
}

pub(super) fn save(tx: &mut Staged<'_>, rules: &Rules, room: &BareJid, record: &RoomRecord) -> StoreReply {
    if !matches!(state(tx, room)?, RoomState::Present(..)) {
        count(tx, &record.creator, |made| {
            if made < rules.limits.rooms_per_account_max as u64 { Ok(made + 1) } else { Err(StoreError::Full) }
        })?;
    }
    tx.put(Table::Rooms, schema::account_key(room), schema::encode_room(record));
    Ok(Stored::Done)
}

/// Changes how many rooms an account has made.
fn count(
    tx: &mut Staged<'_>,
    maker: &BareJid,
    change: impl FnOnce(u64) -> Result<u64, StoreError>,
) -> Result<(), StoreError> {
    let key = schema::account_key(maker);
    let made = tx.read(Table::RoomMakers, &key, schema::decode_count)?.unwrap_or(0);
    match change(made)? {
        0 => tx.delete(Table::RoomMakers, key),
        made => tx.put(Table::RoomMakers, key, schema::encode_count(made)),
    }
    Ok(())
}

pub(super) fn destroy(
    tx: &mut Staged<'_>,
    rules: &mut Rules,
    room: &BareJid,
    tombstone: Option<&Tombstone>,
) -> StoreReply {
    if let RoomState::Present(record, _) = state(tx, room)? {
        count(tx, &record.creator, |made| Ok(made.saturating_sub(1)))?;
        archive::remove(tx, rules, &record.archive(room))?;
        if let Some(card) = schema::document_key(room, &DocumentKey::Vcard) {
            tx.delete(Table::Documents, card);
        }
    }
    let key = schema::account_key(room);
    match tombstone {
        Some(tombstone) => tx.put(Table::Rooms, key, schema::encode_destroyed(tombstone)),
        None => tx.delete(Table::Rooms, key),
    }
    Ok(Stored::Done)
}

pub(super) fn list(
    tx: &mut Staged<'_>,
    domain: &str,
    after: Option<&BareJid>,
    max: usize,
    public_only: bool,
) -> StoreReply {
    let (mut from, to) = schema::domain_keys(domain);
    if let Some(after) = after {
        // The key with a zero byte behind it is the least one above the key.
        from = from.max([&schema::account_key(after)[..], &[0]].concat());
    }
    let (mut rooms, mut result) = (Vec::new(), Ok(()));
    tx.scan(Table::Rooms, &from, &to, &mut |key, record| {
        if rooms.len() >= max {
            return ControlFlow::Break(());
        }
        match schema::account_of_key(key).and_then(|jid| Ok((jid, schema::decode_room(record)?))) {
            Ok((jid, RoomState::Present(record, _))) if record.config.public || !public_only => {
                rooms.push(RoomItem { jid, name: record.config.name, public: record.config.public });
            }
            Ok(_) => {}
            Err(error) => result = Err(malformed(Table::Rooms, key, error)),
        }
        ControlFlow::Continue(())
    })?;
    result.map(|()| Stored::Rooms(rooms))
}

pub(super) fn put_card(
    tx: &mut Staged<'_>,
    rules: &Rules,
    room: &BareJid,
    record: &RoomRecord,
    content: &[u8],
) -> StoreReply {
    let key = schema::document_key(room, &DocumentKey::Vcard).ok_or(StoreError::Full)?;
    if content.len() > rules.limits.vcard_bytes_max {
        return Err(StoreError::Full);
    }
    match content {
        [] => tx.delete(Table::Documents, key),
        _ => tx.put(Table::Documents, key, schema::encode_xml(content)),
    }
    save(tx, rules, room, record)
}
