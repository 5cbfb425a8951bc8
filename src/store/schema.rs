//! Tables, keys and record layouts, by hand.
//!
//! Every record begins with a version byte; a reader that does not know it refuses the record and never guesses. Numbers are
//! LEB128 unless said otherwise, texts and byte strings are preceded by their length. Golden bytes in the tests hold the layouts
//! still: whoever changes one writes a new version and keeps reading the old.
//!
//! | table | key | record |
//! |---|---|---|
//! | `meta` | name | `format`: number of the format; `secret`: 32 bytes; `journal`: generation of the journal, u64 |
//! | `accounts` | account | when created, password keys; version 2: flags |
//! | `rosters` | account | version, items, requests |
//! | `offline` | account 0x00 u64 | sequence number 0: counters; else a stanza, or where the archive has it |
//! | `archive` | 0x00 | an id that is above all there are |
//! | `archive` | 0x01 account | nothing: the account is gone, its archive is being cleared |
//! | `archive` | 0x02 bare-jid 0x00 bare-jid 0x00 id | a stanza between the two, the lesser named first |
//! | `archive` | account 0x00 0x00 | what the account wants archived |
//! | `archive` | account 0x00 0x01 id | a message in the account's archive: with whom, running totals |
//! | `documents` | account 0x00 kind … | without kind: counters; else a document |
//! | `pubsub` | account 0x00 | counters |
//! | | account 0x00 1 node | configuration, who is what, counters |
//! | | account 0x00 2 node 0x00 id | an item |
//! | | account 0x00 3 node 0x00 u64 | id of the item published as that number |
//! | `last_seen` | account | when, status |
//! | `tombstones` | account | nothing |
//! | `tokens` | account | its clients that log in by tokens, the one that did last at the end |
//! | `reports` | domain 0x00 0x00 u64 | who has reported whom |
//! | `sessions` | account | its last sessions that ended without being closed, and what they had handled |
//! | `rooms` | account of a room | 1: configuration, affiliations, subject; 2: what is left of a destroyed one |
//! | `room_makers` | account | how many rooms it has made |
//!
//! An account's key is `domain 0x00 local`, so that a domain's accounts lie together; no part of a JID holds a zero byte. The
//! counters lie beside what they count, where they mostly cost no further page.
//!
//! An archived stanza lies with the others of its conversation, once for both sides, which is what a client asks for; a small row
//! for each side says in which order it got them. So a message costs three rows, and those of two busy talkers few pages. An
//! archive needs no counters of its own: each row carries the totals up to itself, and the difference of two tells what lies
//! between.

use crate::auth::{Credentials, ScramKeys, TokenMechanism};
use crate::core::archive::{ArchiveDefault, ArchiveId, ArchivePrefs};
use crate::core::clock::UtcTime;
use crate::core::effects::DocumentKey;
use crate::core::pubsub::{self, Access, NodeConfig, SendLast};
use crate::core::reports::{Reason, Report};
use crate::core::rooms::{Affiliation, Member, Role, Roles, RoomConfig, RoomRecord, RoomState, Subject, Tombstone};
use crate::core::roster::{Item, Request, Roster, RosterVersion, Subscription};
use crate::core::tokens::{ClientPlace, ClientTokens, Token};
use crate::jid::{BareJid, Jid};

/// Number of the format that this program writes.
pub(super) const FORMAT: u64 = 1;
/// Key of [`FORMAT`] in `meta`.
pub(super) const FORMAT_KEY: &[u8] = b"format";
/// Key of the server's secret in `meta`.
pub(super) const SECRET_KEY: &[u8] = b"secret";

/// Key in `meta` of the generation of the journal's records that belong to the file.
pub(super) const JOURNAL_KEY: &[u8] = b"journal";

/// Version byte of every record so far, but for some of `offline` and `accounts`.
const V1: u8 = 1;
/// Of those.
const V2: u8 = 2;

/// One table. Their order is that of the journal's numbers: new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Meta,
    Accounts,
    Rosters,
    Offline,
    Archive,
    Documents,
    LastSeen,
    Tombstones,
    Rooms,
    RoomMakers,
    Pubsub,
    Tokens,
    Sessions,
    Reports,
}

impl Table {
    pub(super) const ALL: [Table; 14] = [
        Table::Meta,
        Table::Accounts,
        Table::Rosters,
        Table::Offline,
        Table::Archive,
        Table::Documents,
        Table::LastSeen,
        Table::Tombstones,
        Table::Rooms,
        Table::RoomMakers,
        Table::Pubsub,
        Table::Tokens,
        Table::Sessions,
        Table::Reports,
    ];

    /// Name in the file.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Accounts => "accounts",
            Table::Rosters => "rosters",
            Table::Offline => "offline",
            Table::Archive => "archive",
            Table::Documents => "documents",
            Table::LastSeen => "last_seen",
            Table::Tombstones => "tombstones",
            Table::Rooms => "rooms",
            Table::RoomMakers => "room_makers",
            Table::Pubsub => "pubsub",
            Table::Tokens => "tokens",
            Table::Sessions => "sessions",
            Table::Reports => "reports",
        }
    }
}

/// Why a record is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub &'static str);

/// Key of an account.
pub(super) fn account_key(user: &BareJid) -> Vec<u8> {
    let mut key = Vec::with_capacity(user.as_str().len() + 1);
    push_account_key(user, &mut key);
    key
}

fn push_account_key(user: &BareJid, key: &mut Vec<u8>) {
    key.extend_from_slice(user.domain().as_bytes());
    key.push(0);
    key.extend_from_slice(user.local().unwrap_or_default().as_bytes());
}

/// The account that a key names.
pub(super) fn account_of_key(key: &[u8]) -> Result<BareJid, Malformed> {
    let text = std::str::from_utf8(key).map_err(|_| Malformed("account key is not UTF-8"))?;
    let (domain, local) = text.split_once('\0').ok_or(Malformed("account key has one part"))?;
    if text.contains('@') {
        return Err(Malformed("account key holds an address"));
    }
    match local {
        "" => prepared(domain),
        _ => prepared(&[local, "@", domain].concat()),
    }
}

/// Bounds of a domain's account keys: from the first, up to the second and without it.
pub(super) fn domain_keys(domain: &str) -> (Vec<u8>, Vec<u8>) {
    ([domain.as_bytes(), &[0]].concat(), [domain.as_bytes(), &[1]].concat())
}

/// Bounds of the keys that begin with an account: from the first, up to the second and without it.
pub(super) fn owned_keys(user: &BareJid) -> (Vec<u8>, Vec<u8>) {
    let account = account_key(user);
    ([&account[..], &[0]].concat(), [&account[..], &[1]].concat())
}

/// Between which keys a domain's reports are.
pub(super) fn report_keys(domain: &str) -> (Vec<u8>, Vec<u8>) {
    ([domain.as_bytes(), &[0, 0]].concat(), [domain.as_bytes(), &[0, 1]].concat())
}

/// Key of a report, which ends in its number.
pub(super) fn report_key(domain: &str, number: u64) -> Vec<u8> {
    [domain.as_bytes(), &[0, 0], &number.to_be_bytes()].concat()
}

/// Key of a stored message; number 0 is that of the counters.
pub(super) fn offline_key(user: &BareJid, seq: u64) -> Vec<u8> {
    let mut key = account_key(user);
    key.push(0);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// Sequence number in the key of a stored message.
pub(super) fn offline_seq(key: &[u8]) -> Result<u64, Malformed> {
    key.last_chunk().map(|seq| u64::from_be_bytes(*seq)).ok_or(Malformed("offline key is short"))
}

const ARCHIVE_BOUND: u8 = 0;
const ARCHIVE_CLEARED: u8 = 1;
const ARCHIVED_STANZA: u8 = 2;
const ARCHIVE_PREFS: u8 = 0;
const ARCHIVE_ROW: u8 = 1;

/// Key of the id above all.
pub(super) const ARCHIVE_BOUND_KEY: &[u8] = &[ARCHIVE_BOUND];

/// What the keys of the archived stanzas between two begin with, whoever is named first.
pub(super) fn conversation_keys(one: &str, other: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(one.len() + other.len() + 3 + 16);
    key.push(ARCHIVED_STANZA);
    for jid in [one.min(other), one.max(other)] {
        key.extend_from_slice(jid.as_bytes());
        key.push(0);
    }
    key
}

/// Key of an archived stanza.
pub(super) fn archived_key(one: &str, other: &str, id: ArchiveId) -> Vec<u8> {
    let mut key = conversation_keys(one, other);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// Key that says that an account's archive is being cleared.
pub(super) fn cleared_key(user: &BareJid) -> Vec<u8> {
    [&[ARCHIVE_CLEARED], &account_key(user)[..]].concat()
}

/// Bounds of these keys.
pub(super) fn cleared_keys() -> ([u8; 1], [u8; 1]) {
    ([ARCHIVE_CLEARED], [ARCHIVE_CLEARED + 1])
}

/// The account whose archive is being cleared.
pub(super) fn account_of_cleared_key(key: &[u8]) -> Result<BareJid, Malformed> {
    account_of_key(key.get(1..).unwrap_or_default())
}

fn archive_part(user: &BareJid, part: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(user.as_str().len() + 3 + 16);
    push_account_key(user, &mut key);
    key.extend_from_slice(&[0, part]);
    key
}

/// Key of what an account wants archived.
pub(super) fn archive_prefs_key(user: &BareJid) -> Vec<u8> {
    archive_part(user, ARCHIVE_PREFS)
}

/// What the keys of all messages in an account's archive begin with.
pub(super) fn archive_keys(user: &BareJid) -> Vec<u8> {
    archive_part(user, ARCHIVE_ROW)
}

/// Key of a message in an account's archive.
pub(super) fn archive_key(user: &BareJid, id: ArchiveId) -> Vec<u8> {
    let mut key = archive_keys(user);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// The id at the end of a key.
pub(super) fn archive_id(key: &[u8]) -> Result<ArchiveId, Malformed> {
    key.last_chunk().map(|id| ArchiveId(u128::from_be_bytes(*id))).ok_or(Malformed("archive key is short"))
}

/// Whether a key, which begins with an account, is that of a message in its archive.
pub(super) fn is_archive_key(key: &[u8], user: &BareJid) -> bool {
    key.starts_with(&archive_keys(user))
}

/// Key of an account's document counters.
pub(super) fn documents_head_key(user: &BareJid) -> Vec<u8> {
    owned_keys(user).0
}

/// Key of a document, `None` if its name is too long to be anybody's.
pub(super) fn document_key(user: &BareJid, document: &DocumentKey) -> Option<Vec<u8>> {
    let mut key = documents_head_key(user);
    match document {
        DocumentKey::Vcard => key.push(1),
        DocumentKey::Blocklist => key.push(3),
        DocumentKey::AvatarHash => key.push(4),
        DocumentKey::Push => key.push(5),
        DocumentKey::Nickname => key.push(6),
        DocumentKey::Private { name, ns } => {
            key.push(2);
            // The length keeps apart what would be alike when put together.
            key.extend_from_slice(&u16::try_from(name.len()).ok()?.to_be_bytes());
            key.extend_from_slice(name.as_bytes());
            key.extend_from_slice(ns.as_bytes());
        }
    }
    Some(key)
}

/// Key of an account's counters of nodes.
pub(super) fn pubsub_head_key(user: &BareJid) -> Vec<u8> {
    owned_keys(user).0
}

const NODE: u8 = 1;
const ITEM: u8 = 2;
const ORDER: u8 = 3;

fn pubsub_key(user: &BareJid, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = owned_keys(user).0;
    key.push(kind);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// Key of a node.
pub(super) fn node_key(user: &BareJid, node: &str) -> Vec<u8> {
    pubsub_key(user, NODE, &[node.as_bytes()])
}

/// Bounds of the keys of an account's nodes.
pub(super) fn node_keys(user: &BareJid) -> (Vec<u8>, Vec<u8>) {
    (pubsub_key(user, NODE, &[]), pubsub_key(user, ITEM, &[]))
}

/// Name of the node that a key of [`node_key`] is of.
pub(super) fn node_of_key<'k>(user: &BareJid, key: &'k [u8]) -> Result<&'k str, Malformed> {
    let prefix = pubsub_key(user, NODE, &[]);
    let name = key.strip_prefix(&prefix[..]).ok_or(Malformed("not a node's key"))?;
    std::str::from_utf8(name).map_err(|_| Malformed("node is not UTF-8"))
}

/// Key of an item. No XML text holds a zero byte.
pub(super) fn item_key(user: &BareJid, node: &str, id: &str) -> Vec<u8> {
    pubsub_key(user, ITEM, &[node.as_bytes(), &[0], id.as_bytes()])
}

/// Key of an item's place in the order of publication.
pub(super) fn order_key(user: &BareJid, node: &str, seq: u64) -> Vec<u8> {
    pubsub_key(user, ORDER, &[node.as_bytes(), &[0], &seq.to_be_bytes()])
}

/// Bounds of the keys of a node's order.
pub(super) fn order_keys(user: &BareJid, node: &str) -> (Vec<u8>, Vec<u8>) {
    (pubsub_key(user, ORDER, &[node.as_bytes(), &[0]]), pubsub_key(user, ORDER, &[node.as_bytes(), &[1]]))
}

/// What an account's nodes come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PubsubHead {
    pub(super) nodes: u64,
    /// Payloads and ids of all items.
    pub(super) bytes: u64,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeRow {
    pub(super) config: NodeConfig,
    pub(super) affiliations: Vec<(BareJid, pubsub::Affiliation)>,
    pub(super) subscriptions: Vec<Jid>,
    pub(super) items: u64,
    /// Number of the last item ever published; never goes back.
    pub(super) last_seq: u64,
}

/// An item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ItemRow {
    pub(super) seq: u64,
    pub(super) publisher: String,
    pub(super) at: UtcTime,
    pub(super) payload: Vec<u8>,
}

/// An account.
#[derive(Clone, Debug)]
pub(super) struct AccountRow {
    pub(super) created: UtcTime,
    /// `None` if somebody else checks the password.
    pub(super) credentials: Option<Credentials>,
    /// Nobody logs in.
    pub(super) disabled: bool,
}

/// What an account's stored messages come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OfflineHead {
    /// Number of the last message ever stored; never goes back, so that no number names two messages.
    pub(super) last_seq: u64,
    pub(super) count: u64,
    pub(super) bytes: u64,
}

/// A message that waits for its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfflineRow<'r> {
    /// It says itself when it was received.
    Stamped(&'r [u8]),
    /// Received when the id was made.
    Stanza(ArchiveId, &'r [u8]),
    /// In the account's archive, with so many bytes.
    Archived(ArchiveId, u64),
}

/// A message in an account's archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArchiveRow {
    /// Bare JID of the other side.
    pub(super) with: String,
    /// Messages that the archive ever had, with this one.
    pub(super) count: u64,
    /// Their bytes.
    pub(super) bytes_to: u64,
    /// Bytes of this one.
    pub(super) bytes: u64,
    /// Bytes of those that were gone when this one came.
    pub(super) bytes_gone: u64,
    /// When the oldest one was received that was still there.
    pub(super) oldest: UtcTime,
}

/// A stanza between two, of which one or both archive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Archived<'r> {
    /// Whether the sender's archive took it, and the receiver's.
    pub(super) kept_by: (bool, bool),
    /// Whether its sender is the one named last in its key.
    pub(super) sent_by_greater: bool,
    /// The sender's resource; empty if none.
    pub(super) from: &'r str,
    /// The receiver's resource; empty if none.
    pub(super) to: &'r str,
    pub(super) stanza: &'r [u8],
}

/// What an account's private XML comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DocumentsHead {
    pub(super) private_bytes: u64,
}

/// The one flag of an account.
const DISABLED: u8 = 1;
/// A client that logs in by tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientRow {
    pub(super) client: ClientPlace,
    /// When it last did, or got its first one.
    pub(super) used: UtcTime,
    /// What it calls itself; may be empty.
    pub(super) name: String,
    pub(super) tokens: ClientTokens,
}

pub(super) fn encode_tokens(rows: &[ClientRow]) -> Vec<u8> {
    let mut out = vec![V1];
    put_number(&mut out, rows.len() as u64);
    for row in rows {
        out.extend_from_slice(&row.client);
        put_number(&mut out, row.used.0);
        put_bytes(&mut out, row.name.as_bytes());
        for token in [&row.tokens.current, &row.tokens.fresh] {
            let Some(token) = token else {
                out.push(NO_TOKEN);
                continue;
            };
            out.push(match token.mechanism {
                TokenMechanism::None => 1,
                TokenMechanism::EndPoint => 2,
                TokenMechanism::Exporter => 3,
            });
            out.extend_from_slice(&token.salt);
            put_number(&mut out, token.issued.0);
            put_number(&mut out, token.expires.0);
            put_number(&mut out, token.count);
        }
    }
    out
}

pub(super) fn decode_tokens(record: &[u8]) -> Result<Vec<ClientRow>, Malformed> {
    let mut input = Input::versioned(record)?;
    let count = input.number()?;
    let mut rows = Vec::new();
    for _ in 0..count {
        let (client, used, name) = (*input.array()?, UtcTime(input.number()?), input.text()?.to_owned());
        let tokens = ClientTokens { current: decode_token(&mut input)?, fresh: decode_token(&mut input)? };
        rows.push(ClientRow { client, used, name, tokens });
    }
    input.end()?;
    Ok(rows)
}

const NO_TOKEN: u8 = 0;

fn decode_token(input: &mut Input<'_>) -> Result<Option<Token>, Malformed> {
    let mechanism = match input.byte()? {
        NO_TOKEN => return Ok(None),
        1 => TokenMechanism::None,
        2 => TokenMechanism::EndPoint,
        3 => TokenMechanism::Exporter,
        _ => return Err(Malformed("unknown mechanism")),
    };
    let salt = *input.array()?;
    let (issued, expires, count) = (UtcTime(input.number()?), UtcTime(input.number()?), input.number()?);
    Ok(Some(Token { mechanism, salt, issued, expires, count }))
}

/// A session that is over (XEP-0198).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionRow {
    /// By which it could be resumed.
    pub(super) id: Box<str>,
    /// How many of its stanzas were handled.
    pub(super) handled: u32,
}

pub(super) fn encode_sessions(rows: &[SessionRow]) -> Vec<u8> {
    let mut out = vec![V1];
    put_number(&mut out, rows.len() as u64);
    for row in rows {
        put_bytes(&mut out, row.id.as_bytes());
        put_number(&mut out, row.handled.into());
    }
    out
}

pub(super) fn decode_sessions(record: &[u8]) -> Result<Vec<SessionRow>, Malformed> {
    let mut input = Input::versioned(record)?;
    let count = input.number()?;
    let mut rows = Vec::new();
    for _ in 0..count {
        rows.push(SessionRow { id: input.text()?.into(), handled: input.number32()? });
    }
    input.end()?;
    Ok(rows)
}

pub(super) fn encode_report(report: &Report) -> Vec<u8> {
    let mut out = vec![V1];
    put_number(&mut out, report.at.0);
    put_bytes(&mut out, report.by.as_str().as_bytes());
    put_bytes(&mut out, report.about.as_str().as_bytes());
    out.push(place(&Reason::ALL, &report.reason));
    put_bytes(&mut out, report.text.as_bytes());
    put_number(&mut out, report.messages.len() as u64);
    report.messages.iter().for_each(|id| put_bytes(&mut out, id.as_bytes()));
    out
}

pub(super) fn decode_report(record: &[u8]) -> Result<Report, Malformed> {
    let mut input = Input::versioned(record)?;
    let mut report = Report {
        at: UtcTime(input.number()?),
        by: prepared(input.text()?)?,
        about: prepared_with_resource(input.text()?)?,
        reason: at_place(&Reason::ALL, input.byte()?)?,
        text: input.text()?.to_owned(),
        messages: Vec::new(),
    };
    for _ in 0..input.number()? {
        report.messages.push(input.text()?.to_owned());
    }
    input.end()?;
    Ok(report)
}

/// Kinds of password keys.
const NO_KEYS: u8 = 0;
const SCRAM: u8 = 1;
const SCRYPT: u8 = 2;

pub(super) fn encode_account(row: &AccountRow) -> Vec<u8> {
    // The older version has no flags; one is written only where there is one to tell.
    let mut out = vec![if row.disabled { V2 } else { V1 }];
    if row.disabled {
        out.push(DISABLED);
    }
    put_number(&mut out, row.created.0);
    match &row.credentials {
        None => out.push(NO_KEYS),
        Some(Credentials::Scram { sha256, sha1 }) => {
            out.push(SCRAM);
            for keys in [sha256, sha1] {
                put_number(&mut out, keys.iterations.into());
                put_bytes(&mut out, &keys.salt);
                put_bytes(&mut out, &keys.stored_key);
                put_bytes(&mut out, &keys.server_key);
            }
        }
        Some(Credentials::Scrypt { log_n, r, p, salt, hash }) => {
            out.extend_from_slice(&[SCRYPT, *log_n]);
            put_number(&mut out, (*r).into());
            put_number(&mut out, (*p).into());
            put_bytes(&mut out, salt);
            put_bytes(&mut out, hash);
        }
    }
    out
}

fn decode_scram_keys(input: &mut Input<'_>) -> Result<ScramKeys, Malformed> {
    Ok(ScramKeys {
        iterations: input.number32()?,
        salt: input.bytes()?.to_vec(),
        stored_key: input.bytes()?.to_vec(),
        server_key: input.bytes()?.to_vec(),
    })
}

pub(super) fn decode_account(record: &[u8]) -> Result<AccountRow, Malformed> {
    let (version, mut input) = Input::either(record)?;
    let disabled = input.disabled(version)?;
    let created = UtcTime(input.number()?);
    let credentials = match input.byte()? {
        NO_KEYS => None,
        SCRAM => {
            Some(Credentials::Scram { sha256: decode_scram_keys(&mut input)?, sha1: decode_scram_keys(&mut input)? })
        }
        SCRYPT => Some(Credentials::Scrypt {
            log_n: input.byte()?,
            r: input.number32()?,
            p: input.number32()?,
            salt: input.bytes()?.to_vec(),
            hash: input.bytes()?.to_vec(),
        }),
        _ => return Err(Malformed("unknown kind of password keys")),
    };
    input.end()?;
    Ok(AccountRow { created, credentials, disabled })
}

/// Whether an account is disabled, without reading the rest of its record.
pub(super) fn is_disabled(record: &[u8]) -> Result<bool, Malformed> {
    let (version, mut input) = Input::either(record)?;
    input.disabled(version)
}

const TO: u8 = 1;
const FROM: u8 = 2;
const ASK: u8 = 4;
const APPROVED: u8 = 8;

pub(super) fn encode_roster(roster: &Roster) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + 48 * roster.items.len());
    out.push(V1);
    out.extend_from_slice(&roster.version.epoch.to_be_bytes());
    put_number(&mut out, roster.version.count);
    put_number(&mut out, roster.items.len() as u64);
    for (jid, item) in &roster.items {
        put_bytes(&mut out, jid.as_str().as_bytes());
        out.push(
            flag(item.subscription.to(), TO)
                | flag(item.subscription.from(), FROM)
                | flag(item.ask, ASK)
                | flag(item.approved, APPROVED),
        );
        put_bytes(&mut out, item.name.as_bytes());
        put_number(&mut out, item.groups.len() as u64);
        for group in &item.groups {
            put_bytes(&mut out, group.as_bytes());
        }
    }
    put_number(&mut out, roster.requests.len() as u64);
    for (jid, request) in &roster.requests {
        put_bytes(&mut out, jid.as_str().as_bytes());
        put_number(&mut out, request.at.0);
        put_bytes(&mut out, &request.stanza);
    }
    out
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

pub(super) fn decode_roster(record: &[u8]) -> Result<Roster, Malformed> {
    let mut input = Input::versioned(record)?;
    let mut roster = Roster {
        version: RosterVersion { epoch: u32::from_be_bytes(*input.array()?), count: input.number()? },
        ..Roster::default()
    };
    // A map that is made from all its rows has full nodes, one that grows by the last has half-empty ones.
    let mut items = Vec::new();
    for _ in 0..input.number()? {
        let jid = prepared(input.text()?)?;
        let flags = input.byte()?;
        if flags & !(TO | FROM | ASK | APPROVED) != 0 {
            return Err(Malformed("unknown flag of a roster item"));
        }
        let mut item = Item {
            name: input.text()?.to_owned(),
            groups: Vec::new(),
            subscription: Subscription::new(flags & TO != 0, flags & FROM != 0),
            ask: flags & ASK != 0,
            approved: flags & APPROVED != 0,
        };
        for _ in 0..input.number()? {
            // Most have one, and room for four takes four times as much.
            item.groups.reserve_exact(1);
            item.groups.push(input.text()?.to_owned());
        }
        items.push((jid, item));
    }
    roster.items = items.into_iter().collect();
    for _ in 0..input.number()? {
        let jid = prepared(input.text()?)?;
        let at = UtcTime(input.number()?);
        roster.requests.insert(jid, Request { at, stanza: input.bytes()?.to_vec() });
    }
    input.end()?;
    Ok(roster)
}

pub(super) fn encode_offline_head(head: &OfflineHead) -> Vec<u8> {
    let mut out = vec![V1];
    put_number(&mut out, head.last_seq);
    put_number(&mut out, head.count);
    put_number(&mut out, head.bytes);
    out
}

pub(super) fn decode_offline_head(record: &[u8]) -> Result<OfflineHead, Malformed> {
    let mut input = Input::versioned(record)?;
    let head = OfflineHead { last_seq: input.number()?, count: input.number()?, bytes: input.number()? };
    input.end()?;
    Ok(head)
}

const IN_ARCHIVE: u8 = 0;
const HERE: u8 = 1;

pub(super) fn encode_offline(row: &OfflineRow<'_>) -> Vec<u8> {
    let waiting = |id: &ArchiveId, kind| [&[V2], &id.0.to_be_bytes()[..], &[kind]].concat();
    match row {
        OfflineRow::Stamped(stanza) => encode_xml(stanza),
        OfflineRow::Stanza(id, stanza) => {
            let mut out = waiting(id, HERE);
            out.extend_from_slice(stanza);
            out
        }
        OfflineRow::Archived(id, bytes) => {
            let mut out = waiting(id, IN_ARCHIVE);
            put_number(&mut out, *bytes);
            out
        }
    }
}

pub(super) fn decode_offline(record: &[u8]) -> Result<OfflineRow<'_>, Malformed> {
    let Some((&V2, rest)) = record.split_first() else { return decode_xml(record).map(OfflineRow::Stamped) };
    let mut input = Input { rest };
    let id = ArchiveId(u128::from_be_bytes(*input.array()?));
    match input.byte()? {
        HERE => Ok(OfflineRow::Stanza(id, input.rest)),
        IN_ARCHIVE => {
            let bytes = input.number()?;
            input.end()?;
            Ok(OfflineRow::Archived(id, bytes))
        }
        _ => Err(Malformed("unknown kind of message")),
    }
}

pub(super) fn encode_archive(row: &ArchiveRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(row.with.len() + 32);
    out.push(V1);
    put_bytes(&mut out, row.with.as_bytes());
    for number in [row.count, row.bytes_to, row.bytes, row.bytes_gone, row.oldest.0] {
        put_number(&mut out, number);
    }
    out
}

pub(super) fn decode_archive(record: &[u8]) -> Result<ArchiveRow, Malformed> {
    let mut input = Input::versioned(record)?;
    let row = ArchiveRow {
        with: input.text()?.to_owned(),
        count: input.number()?,
        bytes_to: input.number()?,
        bytes: input.number()?,
        bytes_gone: input.number()?,
        oldest: UtcTime(input.number()?),
    };
    input.end()?;
    Ok(row)
}

const KEPT_BY_SENDER: u8 = 1;
const KEPT_BY_RECEIVER: u8 = 2;
const SENT_BY_GREATER: u8 = 4;

pub(super) fn encode_archived(archived: &Archived<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(archived.stanza.len() + archived.from.len() + archived.to.len() + 6);
    out.push(V1);
    out.push(
        flag(archived.kept_by.0, KEPT_BY_SENDER)
            | flag(archived.kept_by.1, KEPT_BY_RECEIVER)
            | flag(archived.sent_by_greater, SENT_BY_GREATER),
    );
    put_bytes(&mut out, archived.from.as_bytes());
    put_bytes(&mut out, archived.to.as_bytes());
    out.extend_from_slice(archived.stanza);
    out
}

pub(super) fn decode_archived(record: &[u8]) -> Result<Archived<'_>, Malformed> {
    let mut input = Input::versioned(record)?;
    let flags = input.byte()?;
    if flags & !(KEPT_BY_SENDER | KEPT_BY_RECEIVER | SENT_BY_GREATER) != 0 {
        return Err(Malformed("unknown flag of an archived stanza"));
    }
    Ok(Archived {
        kept_by: (flags & KEPT_BY_SENDER != 0, flags & KEPT_BY_RECEIVER != 0),
        sent_by_greater: flags & SENT_BY_GREATER != 0,
        from: input.text()?,
        to: input.text()?,
        stanza: input.rest,
    })
}

pub(super) fn encode_archive_bound(bound: ArchiveId) -> Vec<u8> {
    [&[V1], &bound.0.to_be_bytes()[..]].concat()
}

pub(super) fn decode_archive_bound(record: &[u8]) -> Result<ArchiveId, Malformed> {
    let mut input = Input::versioned(record)?;
    let bound = ArchiveId(u128::from_be_bytes(*input.array()?));
    input.end()?;
    Ok(bound)
}

pub(super) fn encode_archive_prefs(prefs: &ArchivePrefs) -> Vec<u8> {
    let mut out = vec![V1, prefs.default as u8];
    for list in [&prefs.always, &prefs.never] {
        put_number(&mut out, list.len() as u64);
        list.iter().for_each(|jid| put_bytes(&mut out, jid.as_str().as_bytes()));
    }
    out
}

pub(super) fn decode_archive_prefs(record: &[u8]) -> Result<ArchivePrefs, Malformed> {
    let mut input = Input::versioned(record)?;
    let default = input.byte()?;
    let known = ArchiveDefault::ALL.into_iter().find(|known| *known as u8 == default);
    let mut prefs =
        ArchivePrefs { default: known.ok_or(Malformed("unknown default of the archive"))?, ..ArchivePrefs::default() };
    for list in [&mut prefs.always, &mut prefs.never] {
        for _ in 0..input.number()? {
            match input.text()? {
                "" => return Err(Malformed("not a JID")),
                jid => list.push(Jid::from_prepared(jid)),
            }
        }
    }
    input.end()?;
    Ok(prefs)
}

pub(super) fn encode_documents_head(head: &DocumentsHead) -> Vec<u8> {
    let mut out = vec![V1];
    put_number(&mut out, head.private_bytes);
    out
}

pub(super) fn decode_documents_head(record: &[u8]) -> Result<DocumentsHead, Malformed> {
    let mut input = Input::versioned(record)?;
    let head = DocumentsHead { private_bytes: input.number()? };
    input.end()?;
    Ok(head)
}

/// A stanza or a document: the version byte, then the XML as it stands.
pub(super) fn encode_xml(xml: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(xml.len() + 1);
    out.push(V1);
    out.extend_from_slice(xml);
    out
}

pub(super) fn decode_xml(record: &[u8]) -> Result<&[u8], Malformed> {
    Ok(Input::versioned(record)?.rest)
}

pub(super) fn encode_last_seen(at: UtcTime, status: &str) -> Vec<u8> {
    let mut out = vec![V1];
    put_number(&mut out, at.0);
    put_bytes(&mut out, status.as_bytes());
    out
}

pub(super) fn decode_last_seen(record: &[u8]) -> Result<(UtcTime, String), Malformed> {
    let mut input = Input::versioned(record)?;
    let seen = (UtcTime(input.number()?), input.text()?.to_owned());
    input.end()?;
    Ok(seen)
}

/// Kinds of a room's record.
const ROOM: u8 = 1;
const DESTROYED: u8 = 2;

/// A room's switches, in the order of their bits.
fn switches(config: &mut RoomConfig) -> [&mut bool; 8] {
    [
        &mut config.persistent,
        &mut config.public,
        &mut config.members_only,
        &mut config.moderated,
        &mut config.non_anonymous,
        &mut config.change_subject,
        &mut config.member_invites,
        &mut config.archived,
    ]
}

pub(super) fn encode_room(record: &RoomRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + 32 * record.members.len());
    out.extend_from_slice(&[V1, ROOM]);
    let mut config = record.config.clone();
    let switches = switches(&mut config).into_iter().rev().fold(0, |bits, on| bits << 1 | u8::from(*on));
    out.extend_from_slice(&[switches, config.private_messages as u8, config.presence.0]);
    put_number(&mut out, config.history.into());
    put_number(&mut out, config.occupants_max.into());
    put_bytes(&mut out, record.creator.as_str().as_bytes());
    put_number(&mut out, record.created.0);
    put_number(&mut out, record.subject.at.0);
    let RoomConfig { name, description, lang, password, .. } = &record.config;
    for text in [name, description, lang, password, &record.subject.text, &record.subject.nick, &record.avatar] {
        put_bytes(&mut out, text.as_bytes());
    }
    put_number(&mut out, record.members.len() as u64);
    for (jid, member) in &record.members {
        put_bytes(&mut out, jid.as_str().as_bytes());
        out.push(member.affiliation as u8);
        put_bytes(&mut out, member.nick.as_bytes());
    }
    out
}

pub(super) fn encode_destroyed(tombstone: &Tombstone) -> Vec<u8> {
    let mut out = vec![V1, DESTROYED];
    put_number(&mut out, tombstone.at.0);
    put_bytes(&mut out, tombstone.alternate.as_bytes());
    put_bytes(&mut out, tombstone.reason.as_bytes());
    put_number(&mut out, tombstone.owners.len() as u64);
    for owner in &tombstone.owners {
        put_bytes(&mut out, owner.as_str().as_bytes());
    }
    out
}

/// A room, without its lines, or what is left of it.
pub(super) fn decode_room(record: &[u8]) -> Result<RoomState, Malformed> {
    let mut input = Input::versioned(record)?;
    let state = match input.byte()? {
        ROOM => RoomState::Present(Box::new(read_room(&mut input)?), Vec::new()),
        DESTROYED => {
            let (at, alternate, reason) =
                (UtcTime(input.number()?), input.text()?.to_owned(), input.text()?.to_owned());
            let mut owners = Vec::new();
            for _ in 0..input.number()? {
                owners.push(prepared(input.text()?)?);
            }
            RoomState::Destroyed(Tombstone { alternate, reason, at, owners })
        }
        _ => return Err(Malformed("unknown kind of room")),
    };
    input.end()?;
    Ok(state)
}

fn read_room(input: &mut Input<'_>) -> Result<RoomRecord, Malformed> {
    let mut config = RoomConfig::instant();
    let bits = input.byte()?;
    for (place, switch) in switches(&mut config).into_iter().enumerate() {
        *switch = bits >> place & 1 == 1;
    }
    let role = input.byte()?;
    config.private_messages = *Role::ALL.get(usize::from(role)).ok_or(Malformed("unknown role"))?;
    config.presence = Roles(input.byte()?);
    config.history = input.number16()?;
    config.occupants_max = input.number16()?;
    let creator = prepared(input.text()?)?;
    let (created, changed) = (UtcTime(input.number()?), UtcTime(input.number()?));
    let mut text = || input.text().map(str::to_owned);
    config.name = text()?;
    config.description = text()?;
    config.lang = text()?;
    config.password = text()?;
    let subject = Subject { text: text()?, nick: text()?, at: changed };
    let mut record = RoomRecord { config, avatar: text()?, subject, members: Default::default(), creator, created };
    for _ in 0..input.number()? {
        let jid = prepared(input.text()?)?;
        let affiliation = input.byte()?;
        let affiliation = *Affiliation::ALL.get(usize::from(affiliation)).ok_or(Malformed("unknown affiliation"))?;
        record.members.insert(jid, Member { affiliation, nick: input.text()?.to_owned() });
    }
    Ok(record)
}

pub(super) fn encode_pubsub_head(head: &PubsubHead) -> Vec<u8> {
    let mut out = vec![V1];
    put_number(&mut out, head.nodes);
    put_number(&mut out, head.bytes);
    out
}

pub(super) fn decode_pubsub_head(record: &[u8]) -> Result<PubsubHead, Malformed> {
    let mut input = Input::versioned(record)?;
    let head = PubsubHead { nodes: input.number()?, bytes: input.number()? };
    input.end()?;
    Ok(head)
}

/// Values of enumerations by their place; what stands in files must not move.
const ACCESSES: [Access; 5] = [Access::Open, Access::Presence, Access::Roster, Access::Whitelist, Access::Authorize];
const SEND_LASTS: [SendLast; 3] = [SendLast::Never, SendLast::OnSubscription, SendLast::OnPresence];
const AFFILIATIONS: [pubsub::Affiliation; 3] =
    [pubsub::Affiliation::Member, pubsub::Affiliation::Publisher, pubsub::Affiliation::Outcast];

fn place<T: PartialEq>(values: &[T], value: &T) -> u8 {
    values.iter().position(|known| known == value).unwrap_or_default() as u8
}

fn at_place<T: Copy>(values: &[T], place: u8) -> Result<T, Malformed> {
    values.get(usize::from(place)).copied().ok_or(Malformed("unknown value of a node"))
}

const PERSIST: u8 = 1;
const PAYLOADS: u8 = 2;
const NOTIFY_RETRACT: u8 = 4;
const NOTIFY_DELETE: u8 = 8;

pub(super) fn encode_node(row: &NodeRow) -> Vec<u8> {
    let config = &row.config;
    let mut out = vec![V1, place(&ACCESSES, &config.access), place(&SEND_LASTS, &config.send_last)];
    out.push(
        flag(config.persist, PERSIST)
            | flag(config.payloads, PAYLOADS)
            | flag(config.notify_retract, NOTIFY_RETRACT)
            | flag(config.notify_delete, NOTIFY_DELETE),
    );
    put_number(&mut out, config.max_items.into());
    put_bytes(&mut out, config.title.as_bytes());
    put_bytes(&mut out, config.kind.as_bytes());
    put_number(&mut out, config.groups.len() as u64);
    config.groups.iter().for_each(|group| put_bytes(&mut out, group.as_bytes()));
    put_number(&mut out, row.affiliations.len() as u64);
    for (jid, affiliation) in &row.affiliations {
        put_bytes(&mut out, jid.as_str().as_bytes());
        out.push(place(&AFFILIATIONS, affiliation));
    }
    put_number(&mut out, row.subscriptions.len() as u64);
    row.subscriptions.iter().for_each(|jid| put_bytes(&mut out, jid.as_str().as_bytes()));
    put_number(&mut out, row.items);
    put_number(&mut out, row.last_seq);
    out
}

pub(super) fn decode_node(record: &[u8]) -> Result<NodeRow, Malformed> {
    let mut input = Input::versioned(record)?;
    let (access, send_last, flags) = (input.byte()?, input.byte()?, input.byte()?);
    if flags & !(PERSIST | PAYLOADS | NOTIFY_RETRACT | NOTIFY_DELETE) != 0 {
        return Err(Malformed("unknown flag of a node"));
    }
    let config = NodeConfig {
        access: at_place(&ACCESSES, access)?,
        send_last: at_place(&SEND_LASTS, send_last)?,
        persist: flags & PERSIST != 0,
        payloads: flags & PAYLOADS != 0,
        notify_retract: flags & NOTIFY_RETRACT != 0,
        notify_delete: flags & NOTIFY_DELETE != 0,
        max_items: input.number32()?,
        title: input.text()?.to_owned(),
        kind: input.text()?.to_owned(),
        groups: Vec::new(),
    };
    let mut row = NodeRow { config, ..NodeRow::default() };
    for _ in 0..input.number()? {
        row.config.groups.push(input.text()?.to_owned());
    }
    for _ in 0..input.number()? {
        row.affiliations.push((prepared(input.text()?)?, at_place(&AFFILIATIONS, input.byte()?)?));
    }
    for _ in 0..input.number()? {
        row.subscriptions.push(prepared_with_resource(input.text()?)?);
    }
    row.items = input.number()?;
    row.last_seq = input.number()?;
    input.end()?;
    Ok(row)
}

pub(super) fn encode_item(seq: u64, item: &pubsub::Item) -> Vec<u8> {
    let mut out = Vec::with_capacity(item.payload.len() + item.publisher.len() + 24);
    out.push(V1);
    put_number(&mut out, seq);
    put_bytes(&mut out, item.publisher.as_bytes());
    put_number(&mut out, item.at.0);
    put_bytes(&mut out, &item.payload);
    out
}

pub(super) fn decode_item(record: &[u8]) -> Result<ItemRow, Malformed> {
    let mut input = Input::versioned(record)?;
    let row = ItemRow {
        seq: input.number()?,
        publisher: input.text()?.to_owned(),
        at: UtcTime(input.number()?),
        payload: input.bytes()?.to_vec(),
    };
    input.end()?;
    Ok(row)
}

/// The record of a reserved name.
pub(super) fn encode_tombstone() -> Vec<u8> {
    vec![V1]
}

pub(super) fn encode_count(count: u64) -> Vec<u8> {
    encode_format(count)
}

pub(super) fn decode_count(record: &[u8]) -> Result<u64, Malformed> {
    decode_format(record)
}

pub(super) fn encode_format(format: u64) -> Vec<u8> {
    let mut out = vec![V1];
    put_number(&mut out, format);
    out
}

pub(super) fn decode_format(record: &[u8]) -> Result<u64, Malformed> {
    let mut input = Input::versioned(record)?;
    let format = input.number()?;
    input.end()?;
    Ok(format)
}

pub(super) fn encode_secret(secret: &[u8; 32]) -> Vec<u8> {
    [&[V1][..], secret].concat()
}

pub(super) fn decode_secret(record: &[u8]) -> Result<[u8; 32], Malformed> {
    let mut input = Input::versioned(record)?;
    let secret = *input.array()?;
    input.end()?;
    Ok(secret)
}

pub(super) fn encode_journal(generation: u64) -> Vec<u8> {
    [&[V1][..], &generation.to_be_bytes()].concat()
}

pub(super) fn decode_journal(record: &[u8]) -> Result<u64, Malformed> {
    let mut input = Input::versioned(record)?;
    let generation = u64::from_be_bytes(*input.array()?);
    input.end()?;
    Ok(generation)
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A JID of a record, which was prepared when it was written; a damaged one must not pass for one.
fn prepared(text: &str) -> Result<BareJid, Malformed> {
    match text.is_empty() || text.contains(['/', '\0']) {
        true => Err(Malformed("not a bare JID")),
        false => Ok(BareJid::from_prepared(text)),
    }
}

/// The same where there may be a resource.
fn prepared_with_resource(text: &str) -> Result<Jid, Malformed> {
    let bare = text.split('/').next().unwrap_or_default();
    prepared(bare).map(|_| Jid::from_prepared(text))
}

/// What is left of a record.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn versioned(record: &'a [u8]) -> Result<Input<'a>, Malformed> {
        match record.split_first() {
            Some((&V1, rest)) => Ok(Input { rest }),
            Some(_) => Err(Malformed("written by a newer version")),
            None => Err(Malformed("empty")),
        }
    }

    /// Of the first version or the second; which, is told.
    fn either(record: &'a [u8]) -> Result<(u8, Input<'a>), Malformed> {
        match record.split_first() {
            Some((&V2, rest)) => Ok((V2, Input { rest })),
            _ => Input::versioned(record).map(|input| (V1, input)),
        }
    }

    /// The flags of an account, which came with the second version.
    fn disabled(&mut self, version: u8) -> Result<bool, Malformed> {
        match version {
            V1 => Ok(false),
            _ if self.byte()? == DISABLED => Ok(true),
            _ => Err(Malformed("unknown flag of an account")),
        }
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.rest.split_first().ok_or(Malformed("short"))?;
        self.rest = rest;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Malformed("short"))?;
        self.rest = rest;
        Ok(array)
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed("number over 64 bits"))
    }

    fn number16(&mut self) -> Result<u16, Malformed> {
        u16::try_from(self.number()?).map_err(|_| Malformed("number over 16 bits"))
    }

    fn number32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.number()?).map_err(|_| Malformed("number over 32 bits"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.number()?).map_err(|_| Malformed("short"))?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Malformed("short"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("not UTF-8"))
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("longer than it should be")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The layout is held still: `record` is what files out there hold, and reads back to what it was made of. What is cut off,
    /// lengthened or of an unknown version is refused.
    fn check<T: std::fmt::Debug>(
        value: &T,
        encode: impl Fn(&T) -> Vec<u8>,
        decode: impl Fn(&[u8]) -> Result<T, Malformed>,
        record: &str,
    ) {
        let bytes = encode(value);
        assert_eq!(hex(&bytes), record.replace(' ', ""), "{value:?}");
        let again = decode(&bytes).expect("what was written can be read");
        assert_eq!(hex(&encode(&again)), hex(&bytes), "{value:?}");
        for len in 0..bytes.len() {
            decode(&bytes[..len]).expect_err("cut off");
        }
        decode(&[&bytes[..], &[0]].concat()).expect_err("longer");
        let mut newer = bytes.clone();
        newer[0] += 1;
        decode(&newer).expect_err("of another version");
        newer[0] = V2 + 1;
        assert_eq!(decode(&newer).expect_err("newer"), Malformed("written by a newer version"));
        for at in 1..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                // What it is taken for matters less than that nothing panics and what is taken can be written again.
                if let Ok(value) = decode(&damaged) {
                    encode(&value);
                }
            }
        }
    }

    #[test]
    fn golden_records() {
        let keys = |byte: u8| ScramKeys {
            iterations: 10_000,
            salt: vec![byte; 3],
            stored_key: vec![byte + 1; 2],
            server_key: vec![byte + 2; 2],
        };
        let scram = Credentials::Scram { sha256: keys(1), sha1: keys(0x11) };
        let scrypt = Credentials::Scrypt { log_n: 14, r: 8, p: 1, salt: vec![5; 2], hash: vec![6; 3] };
        let account = |credentials| AccountRow { created: UtcTime(1_795_375_850_000), credentials, disabled: false };
        check(&account(None), encode_account, decode_account, "01 90c4f5a5a034 00");
        let disabled = AccountRow { disabled: true, ..account(None) };
        check(&disabled, encode_account, decode_account, "02 01 90c4f5a5a034 00");
        check(
            &account(Some(scram)),
            encode_account,
            decode_account,
            "01 90c4f5a5a034 01 904e 03010101 020202 020303 904e 03111111 021212 021313",
        );
        check(&account(Some(scrypt)), encode_account, decode_account, "01 90c4f5a5a034 02 0e 08 01 020505 03060606");

        let mut roster = Roster { version: RosterVersion { epoch: 0xdead_beef, count: 300 }, ..Roster::default() };
        check(&roster, encode_roster, decode_roster, "01 deadbeef ac02 00 00");
        let item = Item {
            name: "R".to_owned(),
            groups: vec!["a".to_owned(), "bc".to_owned()],
            subscription: Subscription::From,
            ask: true,
            approved: true,
        };
        roster.items.insert(BareJid::from_prepared("r@x"), item);
        roster.items.insert(BareJid::from_prepared("x"), Item { subscription: Subscription::To, ..Item::default() });
        roster.requests.insert(BareJid::from_prepared("q@x"), Request { stanza: b"<p/>".to_vec(), at: UtcTime(5) });
        check(
            &roster,
            encode_roster,
            decode_roster,
            "01 deadbeef ac02 02 03724078 0e 0152 02 0161 026263 0178 01 00 00 01 03714078 05 043c702f3e",
        );

        let mut room = RoomRecord::new(BareJid::from_prepared("o@x"), UtcTime(128));
        room.config.name = "N".to_owned();
        room.subject = Subject { text: "S".to_owned(), nick: "n".to_owned(), at: UtcTime(3) };
        room.set_affiliation(&BareJid::from_prepared("b@x"), Affiliation::Outcast);
        check(
            &RoomState::Present(Box::new(room), Vec::new()),
            |state| match state {
                RoomState::Present(record, _) => encode_room(record),
                RoomState::Destroyed(tombstone) => encode_destroyed(tombstone),
                RoomState::Absent => Vec::new(),
            },
            decode_room,
            "01 01 b5 01 0e 14 00 036f4078 8001 03 014e 00 00 00 0153 016e 00 02 03624078 00 00 036f4078 04 00",
        );
        let tombstone = Tombstone {
            alternate: "r@y".to_owned(),
            reason: String::new(),
            at: UtcTime(5),
            owners: vec![BareJid::from_prepared("o@x")],
        };
        assert_eq!(hex(&encode_destroyed(&tombstone)), "01020503724079000103".to_owned() + "6f4078");
        assert_eq!(decode_room(&encode_destroyed(&tombstone)), Ok(RoomState::Destroyed(tombstone)));
        let head = OfflineHead { last_seq: 1, count: 2, bytes: 300 };
        check(&head, encode_offline_head, decode_offline_head, "01 01 02 ac02");
        check(
            &DocumentsHead { private_bytes: u64::MAX },
            encode_documents_head,
            decode_documents_head,
            "01 ffffffffffffffffff01",
        );
        check(
            &(UtcTime(128), "é".to_owned()),
            |(at, status)| encode_last_seen(*at, status),
            decode_last_seen,
            "01 8001 02c3a9",
        );
        let row = ArchiveRow {
            with: "b@x".to_owned(),
            count: 3,
            bytes_to: 300,
            bytes: 200,
            bytes_gone: 1,
            oldest: UtcTime(1_795_375_850_000),
        };
        check(&row, encode_archive, decode_archive, "01 03624078 03 ac02 c801 01 90c4f5a5a034");
        let mut prefs = ArchivePrefs::default();
        check(&prefs, encode_archive_prefs, decode_archive_prefs, "01 00 00 00");
        prefs.default = ArchiveDefault::Never;
        prefs.always.push(Jid::from_prepared("a@x"));
        prefs.never.push(Jid::from_prepared("b@x/c"));
        check(&prefs, encode_archive_prefs, decode_archive_prefs, "01 02 01 03614078 01 056240782f63");
        check(
            &ArchiveId(0x0102),
            |bound| encode_archive_bound(*bound),
            decode_archive_bound,
            &format!("01{:032x}", 0x0102),
        );
        check(&PubsubHead { nodes: 2, bytes: 300 }, encode_pubsub_head, decode_pubsub_head, "01 02 ac02");
        let mut node = NodeRow { items: 1, last_seq: 7, ..NodeRow::default() };
        check(&node, encode_node, decode_node, "01 01 02 0f 01 00 00 00 00 00 01 07");
        node.config = NodeConfig {
            access: Access::Whitelist,
            groups: vec!["a".to_owned()],
            max_items: NodeConfig::MAX,
            persist: false,
            send_last: SendLast::Never,
            title: "t".to_owned(),
            kind: "k".to_owned(),
            ..NodeConfig::default()
        };
        node.affiliations.push((BareJid::from_prepared("r@x"), pubsub::Affiliation::Outcast));
        node.subscriptions.push(Jid::from_prepared("r@x/y"));
        check(
            &node,
            encode_node,
            decode_node,
            "01 03 00 0e ffffffff0f 0174 016b 01 0161 01 03724078 02 01 057240782f79 01 07",
        );
        let item = pubsub::Item {
            id: "i".to_owned(),
            publisher: "r@x/y".to_owned(),
            at: UtcTime(5),
            payload: b"<p/>".to_vec(),
        };
        let row = ItemRow { seq: 9, publisher: item.publisher.clone(), at: item.at, payload: item.payload.clone() };
        let encode = |row: &ItemRow| {
            let ItemRow { publisher, at, payload, .. } = row.clone();
            encode_item(row.seq, &pubsub::Item { id: String::new(), publisher, at, payload })
        };
        check(&row, encode, decode_item, "01 09 057240782f79 05 043c702f3e");
        assert_eq!(encode_item(9, &item), encode(&row));
        check(&Vec::new(), |rows| encode_tokens(rows), decode_tokens, "01 00");
        let token = |mechanism, salt| Token {
            mechanism,
            salt: [salt; 16],
            issued: UtcTime(1),
            expires: UtcTime(300),
            count: 2,
        };
        let rows = vec![
            ClientRow {
                client: [0xc1; 16],
                used: UtcTime(7),
                name: String::new(),
                tokens: ClientTokens { current: None, fresh: Some(token(TokenMechanism::None, 0xa1)) },
            },
            ClientRow {
                client: [0xc2; 16],
                used: UtcTime(8),
                name: "é".to_owned(),
                tokens: ClientTokens {
                    current: Some(token(TokenMechanism::EndPoint, 0xa2)),
                    fresh: Some(token(TokenMechanism::Exporter, 0xa3)),
                },
            },
        ];
        let bytes = |byte: &str| byte.repeat(16);
        let record = [
            format!("01 02 {} 07 00 00 01 {} 01 ac02 02", bytes("c1"), bytes("a1")),
            format!("{} 08 02c3a9 02 {} 01 ac02 02 03 {} 01 ac02 02", bytes("c2"), bytes("a2"), bytes("a3")),
        ];
        check(&rows, |rows| encode_tokens(rows), decode_tokens, &record.concat());
        let ended = |id: &str, handled| SessionRow { id: id.into(), handled };
        let rows = vec![ended("ab", 300), ended("c", u32::MAX)];
        check(&rows, |rows| encode_sessions(rows), decode_sessions, "01 02 02 6162 ac02 01 63 ffffffff0f");
        let report = Report {
            at: UtcTime(300),
            by: BareJid::from_prepared("a@x"),
            about: Jid::from_prepared("b@y/z"),
            reason: Reason::Abuse,
            text: "é".to_owned(),
            messages: vec!["i".to_owned(), "j".to_owned()],
        };
        check(&report, encode_report, decode_report, "01 ac02 03614078 05624079 2f7a 02 02c3a9 02 0169 016a");
        check(&1, |format| encode_format(*format), decode_format, "01 01");
        check(&[7; 32], encode_secret, decode_secret, &["01", &"07".repeat(32)].concat());
        check(&0x0102, |generation| encode_journal(*generation), decode_journal, "01 0000000000000102");
        assert_eq!(encode_xml(b"<m/>"), b"\x01<m/>");
        assert_eq!(decode_xml(b"\x01<m/>"), Ok(&b"<m/>"[..]));
        assert_eq!(decode_xml(b"\x02<m/>"), Err(Malformed("written by a newer version")));
        assert_eq!(encode_tombstone(), b"\x01");
    }

    #[test]
    fn golden_archived_stanzas() {
        for (kept_by, sent_by_greater, from, to, record) in [
            ((true, false), false, "", "", "01 01 00 00 3c6d2f3e"),
            ((true, true), true, "a", "bc", "01 07 0161 026263 3c6d2f3e"),
            ((false, true), false, "é", "", "01 02 02c3a9 00 3c6d2f3e"),
        ] {
            let archived = Archived { kept_by, sent_by_greater, from, to, stanza: b"<m/>" };
            let bytes = encode_archived(&archived);
            assert_eq!((hex(&bytes), decode_archived(&bytes)), (record.replace(' ', ""), Ok(archived)));
        }
        for record in [&b""[..], b"\x01", b"\x01\x08\0\0", b"\x01\x01\0", b"\x01\x01\x05a", b"\x01\x01\x01\xff\0"] {
            decode_archived(record).expect_err(&hex(record));
        }
        assert_eq!(decode_archived(b"\x02\x01\0\0"), Err(Malformed("written by a newer version")));
    }

    #[test]
    fn golden_messages_that_wait() {
        let id = ArchiveId(0x0102_0000_0000_0000_0000_0000_0000_00ff);
        let zeros = "00".repeat(13);
        for (row, record) in [
            (OfflineRow::Stamped(b"<m/>"), "013c6d2f3e".to_owned()),
            (OfflineRow::Stanza(id, b"<m/>"), format!("020102{zeros}ff013c6d2f3e")),
            (OfflineRow::Archived(id, 300), format!("020102{zeros}ff00ac02")),
        ] {
            let bytes = encode_offline(&row);
            assert_eq!((hex(&bytes), decode_offline(&bytes)), (record, Ok(row)));
        }
        let archived = encode_offline(&OfflineRow::Archived(id, 300));
        for len in 0..archived.len() {
            decode_offline(&archived[..len]).expect_err("cut off");
        }
        decode_offline(&[&archived[..], &[0]].concat()).expect_err("longer");
        decode_offline(&[&archived[..17], &[7]].concat()).expect_err("unknown kind");
        assert_eq!(decode_offline(b"\x03"), Err(Malformed("written by a newer version")));
    }

    #[test]
    fn hostile_records() {
        for record in [
            // A JID with a resource, an empty one, one with a zero byte, one that is not UTF-8.
            &b"\x01\0\0\0\0\0\x01\x03a/b\0\0\0\0"[..],
            b"\x01\0\0\0\0\0\x01\x00\0\0\0\0",
            b"\x01\0\0\0\0\0\x01\x03a\0b\0\0\0\0",
            b"\x01\0\0\0\0\0\x01\x01\xff\0\0\0\0",
            // An unknown flag.
            b"\x01\0\0\0\0\0\x01\x01a\x10\0\0\0",
            // As many items as there are numbers, a length as long, a number of more than 64 bits.
            b"\x01\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x01\0\0\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a",
            b"\x01\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\0\0",
        ] {
            decode_roster(record).expect_err(&hex(record));
        }
        decode_roster(b"\x01\0\0\0\0\0\x01\x01a\x0f\0\0\0").expect("the same without what is wrong");
        decode_account(b"\x01\0\x03").expect_err("unknown kind of keys");
        decode_account(b"\x01\0\x02\x0e\x80\x80\x80\x80\x10\x01\0\0").expect_err("number over 32 bits");
    }

    #[test]
    fn keys() {
        let (user, host) = (BareJid::from_prepared("juliet@example.com"), BareJid::from_prepared("example.com"));
        assert_eq!(account_key(&user), b"example.com\0juliet");
        assert_eq!(account_key(&host), b"example.com\0");
        for jid in [&user, &host] {
            assert_eq!(account_of_key(&account_key(jid)).as_ref(), Ok(jid));
        }
        account_of_key(b"example.com").expect_err("one part");
        account_of_key(b"\0").expect_err("nothing");
        account_of_key(b"b@x\0").expect_err("an address is not a domain");
        account_of_key(b"\xff\0a").expect_err("not UTF-8");
        let key = offline_key(&user, 0x0102);
        assert_eq!(key, b"example.com\0juliet\0\0\0\0\0\0\0\x01\x02");
        assert_eq!(offline_seq(&key), Ok(0x0102));
        // The rows of an account whose name goes on where another ends are not among the other's.
        let (from, to) = owned_keys(&user);
        for (other, inside) in [("juliet", true), ("juliet2", false), ("julie", false), ("juliet.x", false)] {
            let key = offline_key(&BareJid::from_prepared(&[other, "@example.com"].concat()), u64::MAX);
            assert_eq!(from <= key && key < to, inside, "{other}");
        }
        let (id, from) = (ArchiveId(0x0102), "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02");
        let conversation = ["\x02juliet@example.com\0romeo@x\0", from].concat();
        assert_eq!(archived_key("romeo@x", user.as_str(), id), conversation.as_bytes());
        assert_eq!(archived_key(user.as_str(), "romeo@x", id), conversation.as_bytes());
        assert_eq!(archive_prefs_key(&user), b"example.com\0juliet\0\0");
        assert_eq!(archive_key(&user, id), ["example.com\0juliet\0\x01", from].concat().as_bytes());
        assert_eq!(archive_id(&archive_key(&user, id)), Ok(id));
        assert!(is_archive_key(&archive_key(&user, id), &user) && !is_archive_key(&archive_prefs_key(&user), &user));
        assert_eq!(cleared_key(&user), b"\x01example.com\0juliet");
        assert_eq!(account_of_cleared_key(&cleared_key(&user)), Ok(user.clone()));
        let private = |name: &str, ns: &str| {
            document_key(&user, &DocumentKey::Private { name: name.to_owned(), ns: ns.to_owned() })
        };
        assert_eq!(private("a", "bc").as_deref(), Some(&b"example.com\0juliet\0\x02\0\x01abc"[..]));
        assert_ne!(private("a", "bc"), private("ab", "c"));
        assert_ne!(private("", ""), document_key(&user, &DocumentKey::Vcard));
        assert_eq!(node_key(&user, "n"), b"example.com\0juliet\0\x01n");
        assert_eq!(node_of_key(&user, &node_key(&user, "n")), Ok("n"));
        assert_eq!(item_key(&user, "n", "i"), b"example.com\0juliet\0\x02n\0i");
        assert_eq!(order_key(&user, "n", 1), b"example.com\0juliet\0\x03n\0\0\0\0\0\0\0\0\x01");
        let (from, to) = order_keys(&user, "n");
        for (node, inside) in [("n", true), ("n2", false), ("m", false), ("", false)] {
            let key = order_key(&user, node, u64::MAX);
            assert_eq!(from <= key && key < to, inside, "{node}");
        }
        assert_eq!(private(&"x".repeat(65_536), "c"), None);
        assert_eq!(Table::ALL.map(|table| Table::ALL[table as usize]), Table::ALL);
    }
}
