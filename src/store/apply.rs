//! From a batch of requests to transactions; what each request does is in the files beside this one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use hashbrown::HashMap;
use sha2::{Digest, Sha256};

use super::schema::{self, ArchiveRow, Malformed, Table};
use super::{Authenticator, account, archive, nickname, offline, pubsub, reports, rooms, roster, sessions, tokens};
use crate::auth::PasswordScheme;
use crate::config::{Config, Limits};
use crate::core::archive::ArchiveId;
use crate::core::effects::{StoreError, StoreReply, StoreRequest, Stored};
use crate::jid::BareJid;

/// A transaction over all tables.
pub(super) trait Tx {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError>;
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError>;
    /// Gives the rows from the key `from` up to the key `to` (without it), in order, until told to stop.
    fn scan(&mut self, table: Table, from: &[u8], to: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError>;
    /// The same rows from the last.
    fn scan_back(&mut self, table: Table, from: &[u8], to: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError>;
}

/// What looks at the rows of a scan.
pub(super) type EachRow<'e> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'e;

/// What runs inside a transaction; its error undoes the whole of it.
pub(super) type Run<'r> = dyn FnMut(&mut dyn Tx) -> Result<(), StoreError> + 'r;

/// Something with transactions.
pub(super) trait Engine {
    /// Runs a transaction and makes it durable. Where it wrote nothing, or may not (`write` is false), there is nothing to
    /// commit. After an error nothing of it has happened.
    fn transact(&mut self, write: bool, run: &mut Run<'_>) -> Result<(), StoreError>;
}

/// Where salts and epochs come from.
#[derive(Clone, Debug)]
pub(super) enum Random {
    /// The operating system.
    System,
    /// Hashes of a seed and a counter, for runs that can be repeated.
    Seeded { seed: [u8; 32], drawn: u64 },
}

impl Random {
    pub(super) fn fill(&mut self, out: &mut [u8]) {
        match self {
            Random::System => getrandom::fill(out).expect("the system's random generator works once it is seeded"),
            Random::Seeded { seed, drawn } => {
                for chunk in out.chunks_mut(32) {
                    *drawn += 1;
                    let block = Sha256::new().chain_update(*seed).chain_update(drawn.to_be_bytes()).finalize();
                    chunk.iter_mut().zip(block).for_each(|(out, byte)| *out = byte);
                }
            }
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }
}

/// What the requests are carried out by.
pub(super) struct Rules {
    pub(super) domains: Vec<String>,
    /// Domains whose accounts all see each other.
    pub(super) sharing: Vec<String>,
    pub(super) limits: Limits,
    pub(super) scheme: PasswordScheme,
    pub(super) random: Random,
    pub(super) authenticator: Option<Box<dyn Authenticator>>,
    /// Archives of removed accounts may be left over.
    pub(super) is_clearing: bool,
    /// An id above all in the archives, as it is stored; `None` if that has to be looked up.
    pub(super) archive_bound: Option<ArchiveId>,
    /// The same when the store was opened.
    pub(super) archive_bound_at_start: Option<ArchiveId>,
    /// The last message of each archive that this transaction has added to.
    pub(super) archive_ends: HashMap<BareJid, (ArchiveId, ArchiveRow)>,
}

impl Rules {
    pub(super) fn new(config: &Config, random: Random) -> Rules {
        Rules {
            sharing: config
                .domains
                .iter()
                .filter(|domain| !domain.shared_contacts.is_empty())
                .map(|domain| domain.name.clone())
                .collect(),
            domains: config.domains.iter().map(|domain| domain.name.clone()).collect(),
            limits: config.limits.clone(),
            scheme: config.password_scheme,
            random,
            authenticator: None,
            is_clearing: true,
            archive_bound: None,
            archive_bound_at_start: None,
            archive_ends: HashMap::new(),
        }
    }

    /// Whether all accounts of an account's domain see each other.
    pub(super) fn shares(&self, jid: &BareJid) -> bool {
        self.sharing.iter().any(|domain| domain == jid.domain())
    }

    /// Whether an account of that name could be here.
    pub(super) fn is_local(&self, jid: &BareJid) -> bool {
        jid.local().is_some() && self.domains.iter().any(|domain| domain == jid.domain())
    }
}

/// [`super::Store::apply`] for any engine.
pub(super) fn apply(engine: &mut impl Engine, rules: &mut Rules, batch: &[StoreRequest]) -> Vec<StoreReply> {
    let mut replies = Vec::with_capacity(batch.len());
    let mut rest = batch;
    while let Some(first) = rest.first() {
        if first.is_slow() {
            replies.push(carry_out_slowly(engine, rules, first));
            rest = &rest[1..];
        } else {
            let (run, behind) = rest.split_at(rest.iter().position(StoreRequest::is_slow).unwrap_or(rest.len()));
            apply_run(engine, rules, run, &mut replies);
            rest = behind;
        }
    }
    debug_assert_eq!(replies.len(), batch.len());
    replies
}

/// One transaction for requests of which none is slow.
fn apply_run(engine: &mut impl Engine, rules: &mut Rules, run: &[StoreRequest], replies: &mut Vec<StoreReply>) {
    let before = replies.len();
    let mut first_write = None;
    let result = engine.transact(run.iter().any(StoreRequest::may_write), &mut |tx| {
        for (at, request) in run.iter().enumerate() {
            let mut staged = Staged::new(&mut *tx);
            let reply = carry_out(&mut staged, rules, request);
            let writes = staged.writes;
            if reply.is_ok() && !writes.is_empty() {
                debug_assert!(request.may_write(), "{request:?} wrote");
                first_write.get_or_insert(at);
                write(tx, writes)?;
            }
            replies.push(reply);
        }
        Ok(())
    });
    rules.archive_ends = HashMap::new();
    if let Err(error) = result {
        // Nothing of what was noted about it is so.
        rules.archive_bound = None;
        // What was answered before the first write had nothing to do with it and stands.
        let stands = first_write.unwrap_or(run.len()).min(replies.len() - before);
        replies.truncate(before + stands);
        replies.extend(run[stands..].iter().map(|request| match request.may_write() {
            true => Err(error),
            // Who logs in while the disk is full must not fail because somebody else's write did.
            false => read_again(engine, rules, request),
        }));
    }
}

fn read_again(engine: &mut impl Engine, rules: &mut Rules, request: &StoreRequest) -> StoreReply {
    let mut reply = Err(StoreError::Failed);
    engine.transact(false, &mut |tx| {
        reply = carry_out(&mut Staged::new(tx), rules, request);
        Ok(())
    })?;
    reply
}

fn carry_out(tx: &mut Staged<'_>, rules: &mut Rules, request: &StoreRequest) -> StoreReply {
    use StoreRequest as R;
    match request {
        R::Credentials { user } => account::credentials(tx, rules, user),
        R::CredentialsReplace { user, before, after } => account::replace_credentials(tx, user, before, after),
        R::Tokens { user, client } => tokens::read(tx, user, client),
        R::TokenChange { user, client, at, change } => tokens::change(tx, rules, user, client, *at, change),
        R::Clients { user } => tokens::list(tx, user),
        R::ClientsForget { user, clients } => tokens::forget_some(tx, user, clients),
        R::TokensForget { user } => {
            tokens::forget(tx, user);
            Ok(Stored::Done)
        }
        R::SessionEnded { user, id, handled } => sessions::put(tx, user, id, *handled),
        R::SessionHandled { user, id } => sessions::handled(tx, user, id),
        R::AccountRemove { user } => account::remove(tx, rules, user),
        R::AccountDisable { user, disabled } => account::disable(tx, user, *disabled),
        R::Accounts { domain, after, max } => account::list(tx, domain, after.as_ref(), *max, false),
        R::DisabledAccounts { domain, after, max } => account::list(tx, domain, after.as_ref(), *max, true),
        R::Census { domain } => account::census(tx, domain),
        R::Activate { user } => account::activate(tx, rules, user),
        R::SharedContacts { domain, max } => nickname::shared(tx, domain, *max),
        R::RosterPut { user, jid, name, groups } => roster::put(tx, rules, user, jid, name, groups),
        R::RosterRemove { user, jid } => roster::remove(tx, rules, user, jid),
        R::Subscription { user, contact, event, stanza, at } => {
            roster::subscription(tx, rules, (user, contact), *event, stanza, *at)
        }
        R::OfflinePut { user, from, stanza, archived } => offline::put(tx, rules, user, from, stanza, *archived),
        R::OfflineClear { user } => offline::clear(tx, user),
        R::OfflinePage { user, delete_to, after, bytes_max } => offline::page(tx, user, *delete_to, *after, *bytes_max),
        R::ArchivePut { id, from, to, sender, receiver, offline, stanza } => {
            let put =
                archive::Put { id: *id, from, to, sender: *sender, receiver: *receiver, offline: *offline, stanza };
            archive::put(tx, rules, &put)
        }
        R::ArchivePage { user, filter, paging } => archive::page(tx, user, filter, paging),
        R::ArchiveBounds { user } => archive::bounds(tx, user),
        R::ArchivePrefsPut { user, prefs } => archive::put_prefs(tx, user, prefs),
        R::DocumentGet { user, key } => account::shown_document(tx, user, key),
        R::DocumentPut { user, key, content, at } => account::put_document(tx, rules, user, key, content, *at),
        R::PushChange { user, change } => account::change_push(tx, user, change),
        R::BlocklistChange { user, change, reports } => account::change_blocklist(tx, rules, user, change, reports),
        R::Reports { domain, before, max } => reports::list(tx, domain, *before, *max),
        R::LastSeen { user, at, status } => account::put_last_seen(tx, user, *at, status),
        R::RoomLoad { room } => rooms::load(tx, rules, room),
        R::RoomSave { room, record } => rooms::save(tx, rules, room, record),
        R::RoomLine { archive, from, line } => archive::put_line(tx, rules, archive, from, line),
        R::RoomRewrite { archive, line } => archive::rewrite(tx, archive, line),
        R::RoomDestroy { room, tombstone } => rooms::destroy(tx, rules, room, tombstone.as_ref()),
        R::RoomList { domain, after, max, public_only } => rooms::list(tx, domain, after.as_ref(), *max, *public_only),
        R::RoomCard { room, record, content } => rooms::put_card(tx, rules, room, record, content),
        R::Relation { user, peer } => account::relation(tx, rules, user, peer),
        R::Pubsub { owner, asker, node, operation, at } => {
            pubsub::carry_out(tx, rules, (owner, asker), node, operation, *at).map(Stored::Pubsub)
        }
        R::LastItems { owners, reader, nodes } => pubsub::last_items(tx, rules, owners, reader, nodes),
        R::Verify { .. } | R::AccountCreate { .. } | R::PasswordSet { .. } => {
            unreachable!("slow requests are taken out before")
        }
    }
}

fn carry_out_slowly(engine: &mut impl Engine, rules: &mut Rules, request: &StoreRequest) -> StoreReply {
    use StoreRequest as R;
    match request {
        R::Verify { user, password } => account::verify(engine, rules, user, password),
        R::AccountCreate { user, password, at } => account::create(engine, rules, user, password, *at),
        R::PasswordSet { user, password } => account::set_password(engine, rules, user, password),
        _ => unreachable!("{request:?} is not slow"),
    }
}

/// A transaction for one question or change that is not part of a batch.
pub(super) fn alone<T>(
    engine: &mut impl Engine,
    may_write: bool,
    mut run: impl FnMut(&mut Staged<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut outcome = Err(StoreError::Failed);
    engine.transact(may_write, &mut |tx| {
        let mut staged = Staged::new(&mut *tx);
        outcome = run(&mut staged);
        let writes = staged.writes;
        if outcome.is_ok() { write(tx, writes) } else { Ok(()) }
    })?;
    outcome
}

type Writes = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

fn write(tx: &mut dyn Tx, writes: Writes) -> Result<(), StoreError> {
    for ((table, key), value) in writes {
        match value {
            Some(value) => tx.put(table, &key, &value)?,
            None => tx.delete(table, &key)?,
        }
    }
    Ok(())
}

/// What one request sees of the transaction. Its writes are kept back until it has succeeded, so a request that is refused
/// half-way leaves nothing behind.
pub(super) struct Staged<'t> {
    tx: &'t mut dyn Tx,
    writes: Writes,
}

impl<'t> Staged<'t> {
    fn new(tx: &'t mut dyn Tx) -> Staged<'t> {
        Staged { tx, writes: BTreeMap::new() }
    }

    pub(super) fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if !self.writes.is_empty()
            && let Some(value) = self.writes.get(&(table, key.to_vec()))
        {
            return Ok(value.clone());
        }
        self.tx.get(table, key)
    }

    /// [`Staged::get`] and what decodes the record.
    pub(super) fn read<T>(
        &mut self,
        table: Table,
        key: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, StoreError> {
        let Some(record) = self.get(table, key)? else { return Ok(None) };
        decode(&record).map(Some).map_err(|error| malformed(table, key, error))
    }

    pub(super) fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert((table, key), Some(value));
    }

    pub(super) fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.writes.insert((table, key), None);
    }

    /// Rows from the key `from` up to the key `to`, with what this request has written itself.
    pub(super) fn scan(
        &mut self,
        table: Table,
        from: &[u8],
        to: &[u8],
        each: &mut EachRow<'_>,
    ) -> Result<(), StoreError> {
        // An engine may take bounds that are the wrong way round for an error of the program.
        if from >= to {
            return Ok(());
        }
        let mut own = self.writes.range((table, from.to_vec())..(table, to.to_vec())).peekable();
        if own.peek().is_none() {
            return self.tx.scan(table, from, to, each);
        }
        let mut stopped = false;
        self.tx.scan(table, from, to, &mut |key, value| {
            // Ours that come before, then ours in the place of this one.
            while let Some(((_, own_key), own_value)) = own.next_if(|((_, own_key), _)| **own_key < *key) {
                if let Some(own_value) = own_value
                    && each(own_key, own_value).is_break()
                {
                    stopped = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = match own.next_if(|((_, own_key), _)| **own_key == *key) {
                Some((_, Some(own_value))) => each(key, own_value),
                Some((_, None)) => ControlFlow::Continue(()),
                None => each(key, value),
            };
            stopped = flow.is_break();
            flow
        })?;
        if !stopped {
            for ((_, key), value) in own {
                if let Some(value) = value
                    && each(key, value).is_break()
                {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The rows from the last; does not see what this request has written itself.
    pub(super) fn scan_back(
        &mut self,
        table: Table,
        from: &[u8],
        to: &[u8],
        each: &mut EachRow<'_>,
    ) -> Result<(), StoreError> {
        if from < to { self.tx.scan_back(table, from, to, each) } else { Ok(()) }
    }

    /// Whether there is such an account.
    pub(super) fn has_account(&mut self, user: &BareJid) -> Result<bool, StoreError> {
        Ok(self.get(Table::Accounts, &schema::account_key(user))?.is_some())
    }
}

/// Says which record cannot be read, and refuses the request that needs it.
pub(super) fn malformed(table: Table, key: &[u8], error: Malformed) -> StoreError {
    log::error!("store: a record of {} cannot be read: {} (key {})", table.name(), error.0, key.escape_ascii());
    StoreError::Failed
}
