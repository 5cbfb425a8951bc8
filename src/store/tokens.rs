//! Tokens of an account's clients (XEP-0484): one record for each account that has any.

use super::account;
use super::apply::{Rules, Staged};
use super::schema::{self, ClientRow, Table};
use crate::core::clock::UtcTime;
use crate::core::effects::{StoreError, StoreReply, Stored};
use crate::core::tokens::{Client, ClientPlace, TokenChange};
use crate::jid::BareJid;

fn load(tx: &mut Staged<'_>, user: &BareJid) -> Result<Vec<ClientRow>, StoreError> {
    Ok(tx.read(Table::Tokens, &schema::account_key(user), schema::decode_tokens)?.unwrap_or_default())
}

pub(super) fn read(tx: &mut Staged<'_>, user: &BareJid, client: &ClientPlace) -> StoreReply {
    let row = load(tx, user)?.into_iter().find(|row| row.client == *client);
    Ok(Stored::Tokens(Box::new(row.map(|row| row.tokens).unwrap_or_default())))
}

pub(super) fn change(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    client: &ClientPlace,
    at: UtcTime,
    change: &TokenChange,
) -> StoreReply {
    // Where somebody else checks passwords nobody would tell us that one has changed.
    if !tx.has_account(user)? || account::is_disabled(tx, user)? || rules.authenticator.is_some() {
        return Err(StoreError::NoAccount);
    }
    let mut rows = load(tx, user)?;
    let place = rows.iter().position(|row| row.client == *client);
    let row = place.map(|place| rows.remove(place));
    let (mut tokens, mut name) = row.map(|row| (row.tokens, row.name)).unwrap_or_default();
    tokens.apply(change)?;
    if !change.name.is_empty() {
        name.clone_from(&change.name);
    }
    if !tokens.is_empty() {
        rows.push(ClientRow { client: *client, used: at, name, tokens });
    }
    // The last one is that of this client.
    let others = rows.len().saturating_sub(1);
    for _ in rules.limits.tokens_per_account_max..=others {
        let oldest = rows.iter().take(others).enumerate().min_by_key(|(_, row)| row.used).map(|(place, _)| place);
        oldest.map(|place| rows.remove(place));
    }
    save(tx, user, &rows);
    Ok(Stored::Done)
}

fn save(tx: &mut Staged<'_>, user: &BareJid, rows: &[ClientRow]) {
    let key = schema::account_key(user);
    match rows.is_empty() {
        true => tx.delete(Table::Tokens, key),
        false => tx.put(Table::Tokens, key, schema::encode_tokens(rows)),
    }
}

pub(super) fn list(tx: &mut Staged<'_>, user: &BareJid) -> StoreReply {
    let client = |row: ClientRow| Client { place: row.client, used: row.used, name: row.name };
    Ok(Stored::Clients(load(tx, user)?.into_iter().map(client).collect()))
}

pub(super) fn forget_some(tx: &mut Staged<'_>, user: &BareJid, clients: &[ClientPlace]) -> StoreReply {
    let mut rows = load(tx, user)?;
    rows.retain(|row| !clients.contains(&row.client));
    save(tx, user, &rows);
    Ok(Stored::Done)
}

/// All tokens of an account are no good any more.
pub(super) fn forget(tx: &mut Staged<'_>, user: &BareJid) {
    tx.delete(Table::Tokens, schema::account_key(user));
}
