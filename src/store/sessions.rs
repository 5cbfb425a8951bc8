//! Sessions that ended while their client was away (XEP-0198): one record for each account that has had any.

use super::apply::Staged;
use super::schema::{self, SessionRow, Table};
use crate::core::effects::{StoreError, StoreReply, Stored};
use crate::jid::BareJid;

/// So many of an account are remembered. A client asks for the one that it has lost last, and a person has few clients.
const KEPT_MAX: usize = 8;

fn load(tx: &mut Staged<'_>, user: &BareJid) -> Result<Vec<SessionRow>, StoreError> {
    Ok(tx.read(Table::Sessions, &schema::account_key(user), schema::decode_sessions)?.unwrap_or_default())
}

pub(super) fn put(tx: &mut Staged<'_>, user: &BareJid, id: &str, handled: u32) -> StoreReply {
    if !tx.has_account(user)? {
        return Err(StoreError::NoAccount);
    }
    let mut rows = load(tx, user)?;
    rows.push(SessionRow { id: id.into(), handled });
    let rows = &rows[rows.len().saturating_sub(KEPT_MAX)..];
    tx.put(Table::Sessions, schema::account_key(user), schema::encode_sessions(rows));
    Ok(Stored::Done)
}

pub(super) fn handled(tx: &mut Staged<'_>, user: &BareJid, id: &str) -> StoreReply {
    let rows = load(tx, user)?;
    Ok(Stored::Handled(rows.iter().find(|row| *row.id == *id).map(|row| row.handled)))
}
