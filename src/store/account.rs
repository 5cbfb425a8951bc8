//! Accounts: their passwords, their documents, when they were last seen.

use std::ops::ControlFlow;

use super::apply::{Engine, Rules, Staged, alone, malformed};
use super::schema::{self, AccountRow, DocumentsHead, Table};
use super::{archive, avatar, bridges, offline, reports, roster, tokens};
use crate::auth::{self, Credentials};
use crate::core::blocklist::{Blocklist, BlocklistChange};
use crate::core::clock::UtcTime;
use crate::core::effects::{AccountRecord, DocumentKey, StoreError, StoreReply, Stored};
use crate::core::push::{self, PushChange};
use crate::core::reports::Report;
use crate::core::roster::{Roster, RosterVersion};
use crate::jid::BareJid;

fn row(tx: &mut Staged<'_>, user: &BareJid) -> Result<Option<AccountRow>, StoreError> {
    tx.read(Table::Accounts, &schema::account_key(user), schema::decode_account)
}

pub(super) fn credentials(tx: &mut Staged<'_>, rules: &Rules, user: &BareJid) -> StoreReply {
    let row = match rules.authenticator {
        Some(_) => None,
        None => row(tx, user)?,
    };
    Ok(match row {
        Some(AccountRow { credentials, disabled: true, .. }) => Stored::Disabled(credentials),
        row => Stored::Credentials(row.and_then(|row| row.credentials)),
    })
}

/// A password that was changed meanwhile stays changed.
pub(super) fn replace_credentials(
    tx: &mut Staged<'_>,
    user: &BareJid,
    before: &Credentials,
    after: &Credentials,
) -> StoreReply {
    let row = row(tx, user)?.filter(|row| row.credentials.as_ref() == Some(before)).ok_or(StoreError::NotFound)?;
    let row = AccountRow { credentials: Some(after.clone()), ..row };
    tx.put(Table::Accounts, schema::account_key(user), schema::encode_account(&row));
    Ok(Stored::Done)
}

/// Finding out takes as long for an account that does not exist.
pub(super) fn verify(engine: &mut impl Engine, rules: &mut Rules, user: &BareJid, password: &str) -> StoreReply {
    if let Some(authenticator) = &mut rules.authenticator {
        let verified = authenticator.verify(user.as_str(), password);
        if verified && !alone(engine, false, |tx| tx.has_account(user))? {
            alone(engine, true, |tx| {
                admit(tx, rules, user);
                Ok(())
            })?;
        }
        let disabled = verified && alone(engine, false, |tx| is_disabled(tx, user))?;
        return Ok(if disabled { Stored::Disabled(None) } else { Stored::Verified(verified) });
    }
    let row = alone(engine, false, |tx| row(tx, user))?;
    let disabled = row.as_ref().is_some_and(|row| row.disabled);
    let credentials = row.and_then(|row| row.credentials);
    let verified = auth::verify(credentials.as_ref(), &rules.scheme, password);
    Ok(if verified && disabled { Stored::Disabled(None) } else { Stored::Verified(verified) })
}

pub(super) fn is_disabled(tx: &mut Staged<'_>, user: &BareJid) -> Result<bool, StoreError> {
    Ok(row(tx, user)?.is_some_and(|row| row.disabled))
}

pub(super) fn disable(tx: &mut Staged<'_>, user: &BareJid, disabled: bool) -> StoreReply {
    let row = row(tx, user)?.ok_or(StoreError::NoAccount)?;
    tx.put(Table::Accounts, schema::account_key(user), schema::encode_account(&AccountRow { disabled, ..row }));
    if disabled {
        tokens::forget(tx, user);
    }
    Ok(Stored::Done)
}

/// Gives a domain's accounts in order, behind `after`, until told to stop.
fn each(
    tx: &mut Staged<'_>,
    domain: &str,
    after: Option<&BareJid>,
    give: &mut dyn FnMut(BareJid, bool) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let (mut from, to) = schema::domain_keys(domain);
    if let Some(after) = after {
        // The key with a zero byte behind it is the least one above the key.
        from = from.max([&schema::account_key(after)[..], &[0]].concat());
    }
    let mut result = Ok(());
    tx.scan(Table::Accounts, &from, &to, &mut |key, record| {
        let account = schema::account_of_key(key).and_then(|account| Ok((account, schema::is_disabled(record)?)));
        match account {
            Ok((account, disabled)) => give(account, disabled),
            Err(error) => {
                result = Err(malformed(Table::Accounts, key, error));
                ControlFlow::Continue(())
            }
        }
    })?;
    result
}

pub(super) fn census(tx: &mut Staged<'_>, domain: &str) -> StoreReply {
    let (mut accounts, mut disabled) = (0, 0);
    each(tx, domain, None, &mut |_, is_disabled| {
        accounts += 1;
        disabled += u64::from(is_disabled);
        ControlFlow::Continue(())
    })?;
    Ok(Stored::Census { accounts, disabled })
}

/// Makes an account for a user whom somebody else knows. A name that was removed here is theirs to give again.
fn admit(tx: &mut Staged<'_>, rules: &mut Rules, user: &BareJid) {
    // There is no request that says when; 0 stands for unknown.
    add(tx, rules, user, UtcTime(0), None);
    tx.delete(Table::Tombstones, schema::account_key(user));
}

fn add(tx: &mut Staged<'_>, rules: &mut Rules, user: &BareJid, created: UtcTime, credentials: Option<Credentials>) {
    let key = schema::account_key(user);
    let version = RosterVersion { epoch: u32::from_be_bytes(rules.random.array()), count: 0 };
    let roster = Roster { version, ..Roster::default() };
    tx.put(Table::Accounts, key.clone(), schema::encode_account(&AccountRow { created, credentials, disabled: false }));
    tx.put(Table::Rosters, key, schema::encode_roster(&roster));
}

/// The keys of a new password; `None` if somebody else checks passwords.
fn derive(rules: &mut Rules, password: &str) -> Result<Option<Credentials>, StoreError> {
    if rules.authenticator.is_some() {
        return Ok(None);
    }
    let Rules { scheme, random, .. } = rules;
    Credentials::derive(scheme, password, &mut |out| random.fill(out)).map(Some).map_err(|error| {
        // Who asked has checked it before; this is the second lock on the door.
        log::error!("store: a password was refused: {error}");
        StoreError::Failed
    })
}

pub(super) fn create(
    engine: &mut impl Engine,
    rules: &mut Rules,
    user: &BareJid,
    password: &str,
    at: UtcTime,
) -> StoreReply {
    let key = schema::account_key(user);
    let is_free = |tx: &mut Staged<'_>| match tx.get(Table::Tombstones, &key)?.is_some() || tx.has_account(user)? {
        true => Err(StoreError::Conflict),
        false => Ok(()),
    };
    // A name that is taken need not cost a hash.
    alone(engine, false, is_free)?;
    let credentials = derive(rules, password)?;
    alone(engine, true, |tx| {
        add(tx, rules, user, at, credentials.clone());
        Ok(Stored::Done)
    })
}

pub(super) fn set_password(engine: &mut impl Engine, rules: &mut Rules, user: &BareJid, password: &str) -> StoreReply {
    if rules.authenticator.is_some() {
        // There is no account here whose password is ours to change.
        return Err(StoreError::NoAccount);
    }
    let row = alone(engine, false, |tx| row(tx, user))?.ok_or(StoreError::NoAccount)?;
    let row = AccountRow { credentials: derive(rules, password)?, ..row };
    alone(engine, true, |tx| {
        tx.put(Table::Accounts, schema::account_key(user), schema::encode_account(&row));
        tokens::forget(tx, user);
        Ok(Stored::Done)
    })
}

pub(super) fn remove(tx: &mut Staged<'_>, rules: &mut Rules, user: &BareJid) -> StoreReply {
    if !tx.has_account(user)? {
        return Err(StoreError::NoAccount);
    }
    let contacts = roster::sever(tx, rules, user)?;
    archive::remove(tx, rules, user)?;
    let key = schema::account_key(user);
    for table in [Table::Offline, Table::Documents, Table::Pubsub] {
        let (from, to) = schema::owned_keys(user);
        let mut gone = Vec::new();
        tx.scan(table, &from, &to, &mut |key, _| {
            gone.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        gone.into_iter().for_each(|key| tx.delete(table, key));
    }
    for table in [Table::Accounts, Table::Rosters, Table::LastSeen, Table::Tokens, Table::Sessions] {
        tx.delete(table, key.clone());
    }
    tx.put(Table::Tombstones, key, schema::encode_tombstone());
    Ok(Stored::Removed { contacts })
}

/// All accounts of a domain, or only the disabled ones.
pub(super) fn list(
    tx: &mut Staged<'_>,
    domain: &str,
    after: Option<&BareJid>,
    max: usize,
    only_disabled: bool,
) -> StoreReply {
    let mut accounts = Vec::new();
    each(tx, domain, after, &mut |account, disabled| {
        if accounts.len() >= max {
            return ControlFlow::Break(());
        }
        if disabled || !only_disabled {
            accounts.push(account);
        }
        ControlFlow::Continue(())
    })?;
    Ok(Stored::Accounts(accounts))
}

pub(super) fn activate(tx: &mut Staged<'_>, rules: &mut Rules, user: &BareJid) -> StoreReply {
    // Whoever was let in by something else than a password comes no further.
    if is_disabled(tx, user)? {
        return Err(StoreError::NoAccount);
    }
    let roster = roster::load(tx, user)?.ok_or(StoreError::NoAccount)?;
    Ok(Stored::Account(Box::new(AccountRecord {
        roster,
        offline: offline::any(tx, user)?,
        blocked: blocklist(tx, user)?,
        avatar: avatar::hash(tx, user)?,
        archive: archive::prefs(tx, user)?,
        last_archived: archive::bound_at_start(tx, rules)?,
    })))
}

/// Who an account has blocked.
pub(super) fn blocklist(tx: &mut Staged<'_>, user: &BareJid) -> Result<Blocklist, StoreError> {
    let Some(key) = schema::document_key(user, &DocumentKey::Blocklist) else { return Ok(Blocklist::default()) };
    let list = tx.read(Table::Documents, &key, |record| Ok(Blocklist::decode(schema::decode_xml(record)?)))?;
    Ok(list.unwrap_or_default())
}

/// Writes a document of an account that is there; empty content removes it.
pub(super) fn write_document(
    tx: &mut Staged<'_>,
    user: &BareJid,
    document: &DocumentKey,
    content: &[u8],
) -> Result<(), StoreError> {
    let key = schema::document_key(user, document).ok_or(StoreError::Full)?;
    match content {
        [] => tx.delete(Table::Documents, key),
        _ => tx.put(Table::Documents, key, schema::encode_xml(content)),
    }
    Ok(())
}

pub(super) fn change_blocklist(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    change: &BlocklistChange,
    reports: &[Report],
) -> StoreReply {
    if !tx.has_account(user)? {
        return Err(StoreError::NoAccount);
    }
    let before = blocklist(tx, user)?;
    let after = before.changed(change);
    // It is sent to clients in one stanza. What shrinks is let through even where a bound was lowered since.
    let limits = &rules.limits;
    let too_big = after.jids().len() > limits.blocklist_max || after.bytes() > limits.xml.stanza_bytes_max;
    if too_big && after.jids().len() > before.jids().len() {
        return Err(StoreError::Full);
    }
    write_document(tx, user, &DocumentKey::Blocklist, &after.encode())?;
    reports.iter().try_for_each(|report| reports::put(tx, rules, report))?;
    Ok(Stored::Blocklist { before, after })
}

pub(super) fn change_push(tx: &mut Staged<'_>, user: &BareJid, change: &PushChange) -> StoreReply {
    if !tx.has_account(user)? {
        return Err(StoreError::NoAccount);
    }
    let Stored::Document(document) = document(tx, user, &DocumentKey::Push)? else { return Err(StoreError::Failed) };
    let mut list = push::decode(&document.unwrap_or_default());
    change.apply(&mut list);
    write_document(tx, user, &DocumentKey::Push, &push::encode(&list))?;
    Ok(Stored::Done)
}

/// A document as clients read it.
pub(super) fn shown_document(tx: &mut Staged<'_>, user: &BareJid, key: &DocumentKey) -> StoreReply {
    match bridges::is_bookmarks(key) {
        true => bridges::bookmarks_as_list(tx, user).map(Stored::Document),
        false => document(tx, user, key),
    }
}

pub(super) fn document(tx: &mut Staged<'_>, user: &BareJid, document: &DocumentKey) -> StoreReply {
    let Some(key) = schema::document_key(user, document) else { return Ok(Stored::Document(None)) };
    let content = tx.read(Table::Documents, &key, |record| schema::decode_xml(record).map(<[u8]>::to_vec))?;
    Ok(Stored::Document(content))
}

pub(super) fn put_document(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    document: &DocumentKey,
    content: &[u8],
    at: UtcTime,
) -> StoreReply {
    if !tx.has_account(user)? {
        return Err(StoreError::NoAccount);
    }
    let limits = &rules.limits;
    let bytes_max = match document {
        DocumentKey::Vcard => limits.vcard_bytes_max,
        // They are written as a whole by nobody.
        DocumentKey::Blocklist | DocumentKey::Push | DocumentKey::AvatarHash | DocumentKey::Nickname => 0,
        DocumentKey::Private { .. } => limits.private_bytes_max,
    };
    if content.len() > bytes_max {
        return Err(StoreError::Full);
    }
    match document {
        DocumentKey::Private { .. } => put_private(tx, rules, user, document, content)?,
        _ => write_document(tx, user, document, content)?,
    }
    Ok(match bridges::on_document(tx, rules, user, document, at)? {
        told if told.is_empty() => Stored::Done,
        told => Stored::Told(told),
    })
}

fn put_private(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    document: &DocumentKey,
    content: &[u8],
) -> Result<(), StoreError> {
    let key = schema::document_key(user, document).ok_or(StoreError::Full)?;
    let before = tx.read(Table::Documents, &key, |record| Ok(schema::decode_xml(record)?.len()))?;
    count_private(tx, user, before.unwrap_or(0), content.len(), rules.limits.private_total_bytes_max)?;
    write_document(tx, user, document, content)
}

/// Writes private XML that the account has in another shape; what is too big for this one is left out.
pub(super) fn replace_private(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    document: &DocumentKey,
    content: &[u8],
) -> Result<(), StoreError> {
    let content = if content.len() > rules.limits.private_bytes_max { &[] } else { content };
    match put_private(tx, rules, user, document, content) {
        Err(StoreError::Full) => put_private(tx, rules, user, document, &[]),
        done => done,
    }
}

/// Keeps the sum of an account's private XML, so that its bound costs no scan.
fn count_private(
    tx: &mut Staged<'_>,
    user: &BareJid,
    before: usize,
    after: usize,
    total_max: usize,
) -> Result<(), StoreError> {
    if before == after {
        return Ok(());
    }
    let key = schema::documents_head_key(user);
    let head = tx.read(Table::Documents, &key, schema::decode_documents_head)?.unwrap_or_default();
    let private_bytes = head.private_bytes.saturating_sub(before as u64).saturating_add(after as u64);
    // What shrinks is let through even where the bound was lowered since.
    if after > before && private_bytes > total_max as u64 {
        return Err(StoreError::Full);
    }
    tx.put(Table::Documents, key, schema::encode_documents_head(&DocumentsHead { private_bytes }));
    Ok(())
}

pub(super) fn put_last_seen(tx: &mut Staged<'_>, user: &BareJid, at: UtcTime, status: &str) -> StoreReply {
    // An account removed while its last session was still there must not come back as a row of its own.
    if tx.has_account(user)? {
        tx.put(Table::LastSeen, schema::account_key(user), schema::encode_last_seen(at, status));
    }
    Ok(Stored::Done)
}

pub(super) fn relation(tx: &mut Staged<'_>, rules: &Rules, user: &BareJid, peer: &BareJid) -> StoreReply {
    let nothing = Ok(Stored::Relation { exists: false, sees_presence: false, last_seen: None });
    let Some(roster) = roster::load_towards(tx, rules, user, peer)? else { return nothing };
    // Who is blocked learns no more than who asks for nobody.
    if blocklist(tx, user)?.blocks_prepared(peer.as_str()) {
        return nothing;
    }
    let last_seen = tx.read(Table::LastSeen, &schema::account_key(user), schema::decode_last_seen)?;
    let sees_presence = roster.items.get(peer).is_some_and(|item| item.subscription.from());
    Ok(Stored::Relation { exists: true, sees_presence, last_seen })
}
