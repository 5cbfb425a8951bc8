//! Every kind of record, read and written again: what fuzzing and tests hold against the decoders of `schema`.

use super::schema::{self, Malformed};
use crate::core::pubsub::Item;
use crate::core::rooms::RoomState;

type Rewrite = fn(&[u8]) -> Result<Vec<u8>, Malformed>;

const KINDS: &[Rewrite] = &[
    |record| schema::decode_account(record).map(|row| schema::encode_account(&row)),
    |record| schema::decode_roster(record).map(|roster| schema::encode_roster(&roster)),
    |record| schema::decode_offline_head(record).map(|head| schema::encode_offline_head(&head)),
    |record| schema::decode_offline(record).map(|row| schema::encode_offline(&row)),
    |record| schema::decode_archive(record).map(|row| schema::encode_archive(&row)),
    |record| schema::decode_archived(record).map(|archived| schema::encode_archived(&archived)),
    |record| schema::decode_archive_bound(record).map(schema::encode_archive_bound),
    |record| schema::decode_archive_prefs(record).map(|prefs| schema::encode_archive_prefs(&prefs)),
    |record| schema::decode_documents_head(record).map(|head| schema::encode_documents_head(&head)),
    |record| schema::decode_xml(record).map(schema::encode_xml),
    |record| schema::decode_last_seen(record).map(|(at, status)| schema::encode_last_seen(at, &status)),
    |record| {
        schema::decode_room(record).map(|state| match state {
            RoomState::Present(room, _) => schema::encode_room(&room),
            RoomState::Destroyed(tombstone) => schema::encode_destroyed(&tombstone),
            RoomState::Absent => Vec::new(),
        })
    },
    |record| schema::decode_pubsub_head(record).map(|head| schema::encode_pubsub_head(&head)),
    |record| schema::decode_node(record).map(|row| schema::encode_node(&row)),
    |record| {
        schema::decode_item(record).map(|row| {
            let item = Item { id: String::new(), publisher: row.publisher, at: row.at, payload: row.payload };
            schema::encode_item(row.seq, &item)
        })
    },
    |record| schema::decode_count(record).map(schema::encode_count),
    |record| schema::decode_secret(record).map(|secret| schema::encode_secret(&secret)),
    |record| schema::decode_journal(record).map(schema::encode_journal),
    |key| schema::account_of_key(key).map(|user| schema::account_key(&user)),
    |key| schema::account_of_cleared_key(key).map(|user| schema::cleared_key(&user)),
    |record| schema::decode_report(record).map(|report| schema::encode_report(&report)),
];

/// How many kinds of records [`rewritten`] knows.
pub const RECORD_KINDS: usize = KINDS.len();

/// Takes bytes for a record of one kind and writes what they say again: `None` if they are no such record. For fuzzing: the
/// file's bytes may be anybody's, and no decoder may panic or take what it would write otherwise.
pub fn rewritten(kind: usize, record: &[u8]) -> Option<Vec<u8>> {
    KINDS.get(kind)?(record).ok()
}
