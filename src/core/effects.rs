//! The vocabulary that the core shares with the shells: what happened outside, what must be done there.
//!
//! Nothing here decides anything. The core names these types, `net` and `store` carry them.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::auth::{Bindings, Credentials};
use crate::core::archive::{ArchiveFilter, ArchiveId, ArchivePage, ArchivePaging, ArchivePrefs, Keep};
use crate::core::blocklist::{Blocklist, BlocklistChange};
use crate::core::clock::UtcTime;
use crate::core::pubsub::{self, LastItem, Operation, Outcome};
use crate::core::push::PushChange;
use crate::core::reports::Report;
use crate::core::rooms::{Affiliation, Line, RoomItem, RoomRecord, RoomState, Tombstone};
use crate::core::roster::{Event, Item, Request, Roster, RosterVersion};
use crate::core::tokens::{Client, ClientPlace, ClientTokens, TokenChange};
use crate::jid::{BareJid, Jid};

/// One connection for as long as it lives: a slot of the slab and how often that slot was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Index in the slab.
    pub slot: u32,
    /// Tells this connection from the earlier ones of its slot.
    pub generation: u32,
}

impl ConnId {
    const GHOST: u32 = 1 << 31;

    /// No connection: what goes on for its own sake, and has nobody to wait for it or to be answered.
    pub const NOBODY: ConnId = ConnId { slot: u32::MAX, generation: u32::MAX };

    /// A connection without a socket, for a session that waits to be resumed (XEP-0198).
    pub fn ghost(index: u32, generation: u32) -> ConnId {
        ConnId { slot: index | ConnId::GHOST, generation }
    }

    /// Whether it has no socket.
    pub fn is_ghost(self) -> bool {
        self.slot & ConnId::GHOST != 0
    }

    /// Index of its slot, among the ghosts or among the others.
    pub fn index(self) -> usize {
        (self.slot & !ConnId::GHOST) as usize
    }
}

/// Number of a store request whose reply somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Which door a connection came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// STARTTLS, required before a password is accepted.
    StartTls,
    /// TLS from the first byte (XEP-0368). Bytes come to the core after [`Input::Secured`].
    Tls,
    /// STARTTLS offered, not required; bound to loopback addresses only.
    Plain,
}

/// What a finished TLS handshake tells.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// Channel-binding data of this connection.
    pub bindings: Bindings,
    /// Name that the client asked for (SNI), prepared as a domain if it is one of ours.
    pub server_name: Option<String>,
    /// Protocol version, for the log.
    pub version: &'static str,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed its side, or the socket failed.
    Gone,
    /// The peer did not take our bytes for `Limits::write_stall`.
    Stalled,
    /// The TLS handshake failed.
    Tls,
    /// We asked for it with [`ConnOrder::Close`] or [`ConnOrder::Abort`].
    Ordered,
    /// A step for it panicked; counted and logged by the loop.
    Fault,
}

/// One thing that happened outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection was accepted.
    Opened {
        /// Its name from now on.
        conn: ConnId,
        /// Where it came in.
        listener: ListenerKind,
        /// Address of the peer, for rates and the log of failed logins.
        peer: IpAddr,
    },
    /// Bytes to read, decrypted. Drop as many as the step says, offer the rest again with what follows.
    Bytes {
        /// Whose.
        conn: ConnId,
        /// All that is unread.
        unread: &'a [u8],
    },
    /// The TLS handshake is done.
    Secured {
        /// Whose.
        conn: ConnId,
        /// What it gave.
        tls: TlsFacts,
    },
    /// All output of a connection that was watched with [`super::Wire::watch`] is in the hands of the operating system.
    Flushed {
        /// Whose.
        conn: ConnId,
    },
    /// The connection is gone. Also given after [`ConnOrder::Close`] and [`ConnOrder::Abort`] were carried out.
    Closed {
        /// Whose.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// The answer to a store request. Answers come in the order of the requests, but for those that hash a password
    /// ([`StoreRequest::is_slow`]), which come in order among themselves, before or after what was asked beside them.
    Stored {
        /// Of which request.
        ticket: Ticket,
        /// The answer.
        reply: StoreReply,
    },
    /// [`super::Core::next_deadline`] has come.
    Deadline,
    /// What an operator or the embedding program asks for; its answer comes in [`super::Outputs::answers`].
    Command {
        /// Chosen by the caller.
        id: CommandId,
        /// What to do.
        command: Command,
    },
    /// Shut down: every stream gets `system-shutdown`; the caller drains, then stops.
    Shutdown,
}

/// Number of a [`Command`], chosen by the shell that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// What an operator or the embedding program may ask for. Its `Debug` shows neither passwords nor the text of messages, which
/// must not come into anybody's log.
pub enum Command {
    /// Creates an account.
    UserAdd {
        /// Account.
        user: BareJid,
        /// Its password.
        password: Zeroizing<String>,
    },
    /// Changes a password; the account's sessions are ended with `reset`.
    UserPassword {
        /// Account.
        user: BareJid,
        /// Its new password.
        password: Zeroizing<String>,
    },
    /// Removes an account and all it has; its sessions are ended with `not-authorized`.
    UserRemove {
        /// Account.
        user: BareJid,
    },
    /// Lists accounts of a domain.
    UserList {
        /// Domain.
        domain: String,
        /// Only names behind this one.
        after: Option<BareJid>,
        /// At most this many.
        max: usize,
    },
    /// Lists the rooms of a domain, hidden ones too.
    RoomList {
        /// Domain of accounts, not that of its service of rooms.
        domain: String,
        /// Only rooms behind this one.
        after: Option<BareJid>,
        /// At most this many.
        max: usize,
    },
    /// Tells what a room is and who is in it.
    RoomShow {
        /// Room.
        room: BareJid,
    },
    /// Ends a room; who is in it is put out.
    RoomDestroy {
        /// Room.
        room: BareJid,
    },
    /// Changes an account's relation to a room.
    RoomAffiliate {
        /// Room.
        room: BareJid,
        /// Account.
        user: BareJid,
        /// What it is to be.
        to: Affiliation,
    },
    /// Sends a chat message from an account or from the server.
    SendMessage {
        /// A bare JID of ours, or a served domain.
        from: String,
        /// To whom.
        to: String,
        /// Text.
        body: String,
    },
    /// Reads the counters.
    Status,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::UserAdd { user, password: _ } => {
                f.debug_struct("UserAdd").field("user", user).finish_non_exhaustive()
            }
            Command::UserPassword { user, password: _ } => {
                f.debug_struct("UserPassword").field("user", user).finish_non_exhaustive()
            }
            Command::UserRemove { user } => f.debug_struct("UserRemove").field("user", user).finish(),
            Command::UserList { domain, after, max } => {
                f.debug_struct("UserList").field("domain", domain).field("after", after).field("max", max).finish()
            }
            Command::RoomList { domain, after, max } => {
                f.debug_struct("RoomList").field("domain", domain).field("after", after).field("max", max).finish()
            }
            Command::RoomShow { room } => f.debug_struct("RoomShow").field("room", room).finish(),
            Command::RoomDestroy { room } => f.debug_struct("RoomDestroy").field("room", room).finish(),
            Command::RoomAffiliate { room, user, to } => {
                f.debug_struct("RoomAffiliate").field("room", room).field("user", user).field("to", to).finish()
            }
            Command::SendMessage { from, to, body: _ } => {
                f.debug_struct("SendMessage").field("from", from).field("to", to).finish_non_exhaustive()
            }
            Command::Status => f.write_str("Status"),
        }
    }
}

/// What became of a [`Command`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is done and durable.
    Done,
    /// Names of accounts.
    Users(Vec<BareJid>),
    /// Rooms.
    Rooms(Vec<RoomItem>),
    /// What a room is: names and values; `owner`, `admin`, `member`, `outcast` and `occupant` once for each.
    Room(Vec<(&'static str, String)>),
    /// Counters and gauges by name.
    Status(Vec<(&'static str, u64)>),
    /// The store did not do it.
    Refused(StoreError),
    /// It cannot be done; says why.
    Invalid(String),
}

/// A message stanza that was handed to a session or kept for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Full JID of the sender; for a message of the embedding program, what it gave.
    pub from: String,
    /// As addressed.
    pub to: String,
    /// The stanza in routed form.
    pub stanza: Vec<u8>,
}

/// What the loop must do with a connection, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnOrder {
    /// After what is written so far, start TLS as a server; what the peer sent in clear behind its request is dropped.
    StartTls {
        /// Whose.
        conn: ConnId,
        /// The stream's `to`, which chooses the certificate where the client sends no SNI.
        domain: String,
    },
    /// Offer the unread bytes again, and read on.
    Resume(ConnId),
    /// Read nothing more, flush, send the TLS close, wait a moment for the peer's, close.
    Close(ConnId),
    /// Close at once; what is unsent is dropped.
    Abort(ConnId),
}

/// A password on its way to the store. `Debug` does not show it, and its memory is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl From<Zeroizing<String>> for Password {
    fn from(password: Zeroizing<String>) -> Password {
        Password(password)
    }
}

impl From<String> for Password {
    fn from(password: String) -> Password {
        Password(password.into())
    }
}

impl Deref for Password {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What the store must do. Every request has exactly one reply; those of one batch are durable together, and answered in
/// order. The slow ones ([`StoreRequest::is_slow`]) are not part of a batch: they are carried out one by one, in order among
/// themselves, between two batches, so what must come after one is asked when its reply is there.
#[derive(Debug)]
pub enum StoreRequest {
    /// The account's stored password keys. Reply: [`Stored::Credentials`].
    Credentials {
        /// Account.
        user: BareJid,
    },
    /// Slow on purpose: checks a password. Reply: [`Stored::Verified`].
    Verify {
        /// Account.
        user: BareJid,
        /// As the client sent it.
        password: Password,
    },
    /// What is kept of the tokens of one of an account's clients. Reply: [`Stored::Tokens`].
    Tokens {
        /// Account.
        user: BareJid,
        /// Which client.
        client: ClientPlace,
    },
    /// What a log-in does to its client's tokens. Above the bound of clients with tokens the one goes that logged in first. Reply:
    /// [`Stored::Done`], or an error of [`crate::core::tokens::ClientTokens::apply`]; [`StoreError::NoAccount`].
    TokenChange {
        /// Account.
        user: BareJid,
        /// Which client.
        client: ClientPlace,
        /// When.
        at: UtcTime,
        /// What.
        change: Box<TokenChange>,
    },
    /// Which clients of an account have tokens. Reply: [`Stored::Clients`].
    Clients {
        /// Account.
        user: BareJid,
    },
    /// Makes the tokens of some of its clients worthless. Reply: [`Stored::Done`].
    ClientsForget {
        /// Account.
        user: BareJid,
        /// Which clients; may be gone already.
        clients: Vec<ClientPlace>,
    },
    /// Makes all tokens of an account worthless, as a new password does in its own transaction. Reply: [`Stored::Done`].
    TokensForget {
        /// Account.
        user: BareJid,
    },
    /// A session that its client may still try to resume (XEP-0198) is over. Of an account's oldest such sessions the store may
    /// forget. Reply: [`Stored::Done`] or [`StoreError::NoAccount`].
    SessionEnded {
        /// Account.
        user: BareJid,
        /// By which it could be resumed.
        id: Box<str>,
        /// How many of its stanzas were handled, modulo 2^32.
        handled: u32,
    },
    /// How many stanzas of such a session were handled. Reply: [`Stored::Handled`].
    SessionHandled {
        /// Account.
        user: BareJid,
        /// By which it could be resumed.
        id: Box<str>,
    },
    /// Creates an account. Slow: derives the keys. Reply: [`Stored::Done`] or [`StoreError::Conflict`].
    AccountCreate {
        /// Account.
        user: BareJid,
        /// Checked by `auth` for strength before.
        password: Password,
        /// When.
        at: UtcTime,
    },
    /// Changes a password. Slow. Reply: [`Stored::Done`] or [`StoreError::NoAccount`].
    PasswordSet {
        /// Account.
        user: BareJid,
        /// As above.
        password: Password,
    },
    /// Keeps other keys of the same password (XEP-0480). Reply: [`Stored::Done`], [`StoreError::NotFound`] if the account's are not
    /// those that they are to replace.
    CredentialsReplace {
        /// Account.
        user: BareJid,
        /// What it has.
        before: Box<Credentials>,
        /// What it shall have.
        after: Box<Credentials>,
    },
    /// Removes an account with all it has, and its half of every subscription with a local contact in the same transaction.
    /// The name stays reserved. Reply: [`Stored::Removed`] or [`StoreError::NoAccount`].
    AccountRemove {
        /// Account.
        user: BareJid,
    },
    /// Shuts an account out, or lets it in again; all that it has stays. Reply: [`Stored::Done`] or
    /// [`StoreError::NoAccount`].
    AccountDisable {
        /// Account.
        user: BareJid,
        /// Whether it is shut out from now on.
        disabled: bool,
    },
    /// Counts a domain's accounts. Reply: [`Stored::Census`].
    Census {
        /// Domain.
        domain: String,
    },
    /// Names of a domain's accounts that are disabled, in order. Reply: [`Stored::Accounts`].
    DisabledAccounts {
        /// Domain.
        domain: String,
        /// Only names behind this one.
        after: Option<BareJid>,
        /// At most this many.
        max: usize,
    },
    /// Names of a domain's accounts, in order. Reply: [`Stored::Accounts`].
    Accounts {
        /// Domain.
        domain: String,
        /// Only names behind this one.
        after: Option<BareJid>,
        /// At most this many.
        max: usize,
    },
    /// All that a session needs at hand. Reply: [`Stored::Account`], or [`StoreError::NoAccount`] also if it is disabled.
    Activate {
        /// Account.
        user: BareJid,
    },
    /// A domain's accounts, in order, with what they call themselves. Reply: [`Stored::SharedContacts`].
    SharedContacts {
        /// Domain.
        domain: String,
        /// At most this many.
        max: usize,
    },
    /// Creates or changes the client's part of a roster item. Reply: [`Stored::Halves`], [`StoreError::NoAccount`] or
    /// [`StoreError::Full`].
    RosterPut {
        /// Whose roster.
        user: BareJid,
        /// The contact.
        jid: BareJid,
        /// Empty for none.
        name: String,
        /// No two alike.
        groups: Vec<String>,
    },
    /// Removes a roster item and the contact's half of the subscription. Reply: [`Stored::Halves`], or
    /// [`StoreError::NotFound`].
    RosterRemove {
        /// Whose roster.
        user: BareJid,
        /// The contact.
        jid: BareJid,
    },
    /// Runs an outbound subscription stanza through both state machines. Reply: [`Stored::Halves`].
    Subscription {
        /// Who sent it.
        user: BareJid,
        /// To whom.
        contact: BareJid,
        /// Which.
        event: Event,
        /// The stanza in routed form, kept where it becomes a pending request.
        stanza: Vec<u8>,
        /// When it was received.
        at: UtcTime,
    },
    /// Keeps a message for an account without a session. Conditions (account exists, sender not blocked, quota left) are checked
    /// in the same transaction. Reply: [`Stored::Done`], [`StoreError::NoAccount`] or [`StoreError::Full`].
    OfflinePut {
        /// For whom.
        user: BareJid,
        /// From whom.
        from: Jid,
        /// Routed form with its delay stamp.
        stanza: Vec<u8>,
        /// By which name the account's archive may have it already; then it is not stored a second time.
        archived: Option<ArchiveId>,
    },
    /// Deletes the messages up to `delete_to`, then reads the next ones. Reply: [`Stored::Offline`].
    OfflinePage {
        /// Whose.
        user: BareJid,
        /// Sequence number up to which (inclusive) messages were delivered; 0 for none.
        delete_to: u64,
        /// Only messages above this number.
        after: u64,
        /// At most about this many bytes, but at least one message if there is any; 0 for none (only deletes).
        bytes_max: usize,
    },
    /// Deletes the messages kept for an account that its archive has too (XEP-0386). Reply: [`Stored::Done`].
    OfflineClear {
        /// Whose.
        user: BareJid,
    },
    /// Keeps a message in the archives of its sender and its receiver, and for later delivery, all as one copy. An archive
    /// whose account is gone does not take it. Each archive forgets what is too old or too much as it grows. Reply:
    /// [`Stored::Done`]; [`StoreError::NoAccount`] or [`StoreError::Full`] if it is to be delivered later and cannot.
    ArchivePut {
        /// Above every id there is.
        id: ArchiveId,
        /// From whom.
        from: Jid,
        /// To whom.
        to: Jid,
        /// Whether the sender's archive takes it.
        sender: Keep,
        /// Whether the receiver's archive takes it. No for a message to oneself, which is the sender's.
        receiver: Keep,
        /// Whether the receiver's account has yet to get it.
        offline: bool,
        /// Routed form without delay stamp and without ids of archives of ours.
        stanza: Vec<u8>,
    },
    /// Reads from an account's archive. Reply: [`Stored::ArchivePage`], or [`StoreError::NotFound`] if an id that is named is
    /// not in the archive.
    ArchivePage {
        /// Whose.
        user: BareJid,
        /// Which messages.
        filter: ArchiveFilter,
        /// Which part of those.
        paging: ArchivePaging,
    },
    /// The first and the last message of an account's archive. Reply: [`Stored::ArchiveBounds`].
    ArchiveBounds {
        /// Whose.
        user: BareJid,
    },
    /// What an account wants archived from now on. Reply: [`Stored::Done`] or [`StoreError::NoAccount`].
    ArchivePrefsPut {
        /// Whose.
        user: BareJid,
        /// What.
        prefs: ArchivePrefs,
    },
    /// Reads a document of the account. Reply: [`Stored::Document`].
    DocumentGet {
        /// Whose.
        user: BareJid,
        /// Which.
        key: DocumentKey,
    },
    /// Writes a document of the account; empty content removes it. Reply: [`Stored::Done`], [`Stored::Told`] if nodes of the
    /// account have changed with it, [`StoreError::NoAccount`] or [`StoreError::Full`].
    DocumentPut {
        /// Whose.
        user: BareJid,
        /// Which.
        key: DocumentKey,
        /// A whole element, valid by itself.
        content: Vec<u8>,
        /// When.
        at: UtcTime,
    },
    /// Registers an app server for one of an account's clients, or ends that. Reply: [`Stored::Done`] or
    /// [`StoreError::NoAccount`].
    PushChange {
        /// Whose client.
        user: BareJid,
        /// What.
        change: PushChange,
    },
    /// Changes whom an account has blocked. Reply: [`Stored::Blocklist`], [`StoreError::NoAccount`] or [`StoreError::Full`].
    BlocklistChange {
        /// Whose list.
        user: BareJid,
        /// What.
        change: BlocklistChange,
        /// What is said of those who are blocked; kept for the account's domain.
        reports: Vec<Report>,
    },
    /// Reports that users of a domain have made, the latest first. Reply: [`Stored::Reports`].
    Reports {
        /// Domain.
        domain: String,
        /// Only those before the one of this number.
        before: Option<u64>,
        /// At most this many.
        max: usize,
    },
    /// Notes when an account's last resource left, and its last status. Reply: [`Stored::Done`].
    LastSeen {
        /// Whose.
        user: BareJid,
        /// When.
        at: UtcTime,
        /// Text of its `<status/>`, may be empty.
        status: String,
    },
    /// Reads a group chat room. Reply: [`Stored::Room`].
    RoomLoad {
        /// Which.
        room: BareJid,
    },
    /// Writes all that lasts of a room but for its lines; a new one counts against its creator's bound. Reply:
    /// [`Stored::Done`] or [`StoreError::Full`].
    RoomSave {
        /// Which.
        room: BareJid,
        /// As it shall be.
        record: Box<RoomRecord>,
    },
    /// Keeps one more line of a room, and forgets what becomes too old or too much. Reply: [`Stored::Done`].
    RoomLine {
        /// [`RoomRecord::archive`] of the room, which must be in the store.
        archive: BareJid,
        /// Room and nick of who has said it.
        from: Jid,
        /// What was said.
        line: Line,
    },
    /// Writes another text in the place of a line's. Reply: [`Stored::Done`], [`StoreError::NotFound`] if there is no such line.
    RoomRewrite {
        /// [`RoomRecord::archive`] of the room.
        archive: BareJid,
        /// The line as it shall be.
        line: Line,
    },
    /// Removes a room with its lines and picture. Reply: [`Stored::Done`].
    RoomDestroy {
        /// Which.
        room: BareJid,
        /// What stays in its place.
        tombstone: Option<Tombstone>,
    },
    /// Rooms of a service, in order. Reply: [`Stored::Rooms`].
    RoomList {
        /// The service's domain.
        domain: String,
        /// Only names behind this one.
        after: Option<BareJid>,
        /// At most this many.
        max: usize,
        /// Only those that everybody may know of.
        public_only: bool,
    },
    /// Writes a room's vCard and the hash of its picture, as [`StoreRequest::RoomSave`] does; empty content removes it. Reply:
    /// [`Stored::Done`] or [`StoreError::Full`].
    RoomCard {
        /// Which.
        room: BareJid,
        /// As it shall be.
        record: Box<RoomRecord>,
        /// A whole element, valid by itself.
        content: Vec<u8>,
    },
    /// What an account has to do with a peer; used for accounts that are not active. Reply: [`Stored::Relation`].
    Relation {
        /// The account asked about.
        user: BareJid,
        /// Who asks.
        peer: BareJid,
    },
    /// Reads or changes nodes of an account (XEP-0163). Who may is checked in the same transaction. Reply: [`Stored::Pubsub`].
    Pubsub {
        /// Whose nodes.
        owner: BareJid,
        /// Who asks.
        asker: BareJid,
        /// Which node; empty for what needs none.
        node: String,
        /// What.
        operation: Operation,
        /// When.
        at: UtcTime,
    },
    /// Reads the last items of nodes that send them to who comes online. Reply: [`Stored::LastItems`].
    LastItems {
        /// Whose nodes; of owners whose nodes the reader may not read there is nothing.
        owners: Vec<BareJid>,
        /// Who comes online.
        reader: BareJid,
        /// Which nodes.
        nodes: Arc<[Box<str>]>,
    },
}

impl StoreRequest {
    /// Whether it takes milliseconds of hashing. Such requests are not carried out together with others.
    pub fn is_slow(&self) -> bool {
        matches!(
            self,
            StoreRequest::Verify { .. } | StoreRequest::AccountCreate { .. } | StoreRequest::PasswordSet { .. }
        )
    }

    /// Whether it may change something.
    pub fn may_write(&self) -> bool {
        match self {
            StoreRequest::Credentials { .. }
            | StoreRequest::Verify { .. }
            | StoreRequest::Tokens { .. }
            | StoreRequest::Clients { .. }
            | StoreRequest::SessionHandled { .. }
            | StoreRequest::Accounts { .. }
            | StoreRequest::Census { .. }
            | StoreRequest::DisabledAccounts { .. }
            | StoreRequest::Activate { .. }
            | StoreRequest::SharedContacts { .. }
            | StoreRequest::DocumentGet { .. }
            | StoreRequest::Reports { .. }
            | StoreRequest::RoomLoad { .. }
            | StoreRequest::RoomList { .. }
            | StoreRequest::ArchivePage { .. }
            | StoreRequest::ArchiveBounds { .. }
            | StoreRequest::LastItems { .. }
            | StoreRequest::Relation { .. } => false,
            StoreRequest::Pubsub { operation, .. } => operation.may_write(),
            StoreRequest::OfflinePage { delete_to, .. } => *delete_to > 0,
            StoreRequest::AccountCreate { .. }
            | StoreRequest::PasswordSet { .. }
            | StoreRequest::CredentialsReplace { .. }
            | StoreRequest::TokenChange { .. }
            | StoreRequest::TokensForget { .. }
            | StoreRequest::ClientsForget { .. }
            | StoreRequest::SessionEnded { .. }
            | StoreRequest::AccountRemove { .. }
            | StoreRequest::AccountDisable { .. }
            | StoreRequest::RosterPut { .. }
            | StoreRequest::RosterRemove { .. }
            | StoreRequest::Subscription { .. }
            | StoreRequest::OfflinePut { .. }
            | StoreRequest::OfflineClear { .. }
            | StoreRequest::ArchivePut { .. }
            | StoreRequest::ArchivePrefsPut { .. }
            | StoreRequest::DocumentPut { .. }
            | StoreRequest::PushChange { .. }
            | StoreRequest::BlocklistChange { .. }
            | StoreRequest::RoomSave { .. }
            | StoreRequest::RoomLine { .. }
            | StoreRequest::RoomRewrite { .. }
            | StoreRequest::RoomDestroy { .. }
            | StoreRequest::RoomCard { .. }
            | StoreRequest::LastSeen { .. } => true,
        }
    }

    /// Whether nobody is read no further until it is answered, so that it may be kept a moment for others to join it.
    pub fn may_wait(&self) -> bool {
        matches!(
            self,
            StoreRequest::OfflinePut { .. }
                | StoreRequest::ArchivePut { .. }
                | StoreRequest::RoomLine { .. }
                | StoreRequest::LastSeen { .. }
                | StoreRequest::SessionEnded { .. }
        )
    }

    /// Bytes of the stanza that it holds, if it is one of those that may be outstanding in numbers.
    pub fn stanza_bytes(&self) -> usize {
        match self {
            StoreRequest::OfflinePut { stanza, .. } | StoreRequest::ArchivePut { stanza, .. } => stanza.len(),
            StoreRequest::RoomLine { line, .. } => line.xml.len(),
            _ => 0,
        }
    }
}

/// One of the documents that an account keeps as opaque XML.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DocumentKey {
    /// vcard-temp (XEP-0054).
    Vcard,
    /// Who is blocked (XEP-0191), in the form of [`Blocklist::encode`]; changed by [`StoreRequest::BlocklistChange`] alone.
    Blocklist,
    /// Hash of the picture in the vCard, in hex; written by the store itself.
    AvatarHash,
    /// What the account calls itself, as text; written by the store itself.
    Nickname,
    /// App servers of its clients (XEP-0357), in the form of [`crate::core::push::encode`]; changed by
    /// [`StoreRequest::PushChange`] alone.
    Push,
    /// Private XML (XEP-0049) by local name and namespace of its element.
    Private {
        /// Local name.
        name: String,
        /// Namespace.
        ns: String,
    },
}

/// An answer of the store.
pub type StoreReply = Result<Stored, StoreError>;

/// A successful answer.
#[derive(Debug)]
pub enum Stored {
    /// It is durable.
    Done,
    /// `None` if there is no such account.
    Credentials(Option<Credentials>),
    /// Whether the account exists and the password is right.
    Verified(bool),
    /// The account is disabled. Its keys; `None` where the password was checked, and is right.
    Disabled(Option<Credentials>),
    /// How many accounts a domain has, and how many of these are disabled.
    Census {
        /// All.
        accounts: u64,
        /// Disabled ones.
        disabled: u64,
    },
    /// What is kept of a client's tokens.
    Tokens(Box<ClientTokens>),
    /// How many stanzas of a session that is over were handled; `None` if it is not known, or no more.
    Handled(Option<u32>),
    /// Clients that have tokens, the one that was here last at the end.
    Clients(Vec<Client>),
    /// An account's working set.
    Account(Box<AccountRecord>),
    /// Names of accounts.
    Accounts(Vec<BareJid>),
    /// Names of accounts, each with what it calls itself; empty for nothing.
    SharedContacts(Vec<(BareJid, String)>),
    /// What a roster or subscription request did to both sides.
    Halves {
        /// The side that asked.
        user: Box<Half>,
        /// Whether the stanza is routed to the contact (RFC 6121 Appendix A.2).
        routed: bool,
        /// The other side, if it is an account here and the stanza reached it.
        contact: Option<Box<Half>>,
    },
    /// An account is gone; what that did to its local contacts.
    Removed {
        /// One for each contact that has changed.
        contacts: Vec<Half>,
    },
    /// Stored messages, oldest first.
    Offline(Vec<OfflineMessage>),
    /// A page of an archive.
    ArchivePage(Box<ArchivePage>),
    /// The first and the last message of an archive; `None` if it is empty.
    ArchiveBounds(Option<(ArchiveId, ArchiveId)>),
    /// A document, if there is one.
    Document(Option<Vec<u8>>),
    /// Reports with their numbers.
    Reports(Vec<(u64, Report)>),
    /// Whom an account had blocked and has blocked now.
    Blocklist {
        /// Before the change.
        before: Blocklist,
        /// After it.
        after: Blocklist,
    },
    /// A group chat room.
    Room(RoomState),
    /// Rooms of a service.
    Rooms(Vec<RoomItem>),
    /// What became of an operation on nodes.
    Pubsub(Outcome),
    /// It is durable, and readers of nodes are told.
    Told(Vec<pubsub::Event>),
    /// Last items, by owner in the order asked for.
    LastItems(Vec<LastItem>),
    /// What an account has to do with a peer. All false and none for an account that does not exist.
    Relation {
        /// Whether the account exists.
        exists: bool,
        /// Whether the peer gets the account's presence (from, both).
        sees_presence: bool,
        /// When the last resource left, and with which status.
        last_seen: Option<(UtcTime, String)>,
    },
}

/// A message that waits for its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineMessage {
    /// Sequence number.
    pub number: u64,
    /// When it was received, if it does not say so itself.
    pub at: Option<UtcTime>,
    /// Its name in the account's archive.
    pub archived: Option<ArchiveId>,
    /// Routed form.
    pub stanza: Vec<u8>,
}

/// Why the store did not do it. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No such account.
    NoAccount,
    /// The name is taken, or reserved because it was.
    Conflict,
    /// No such item.
    NotFound,
    /// A bound of `Limits` is reached.
    Full,
    /// No space left on the device.
    DiskFull,
    /// The disk failed; details are in the log.
    Failed,
}

/// What a change did to one side of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Half {
    /// Whose roster this is.
    pub account: BareJid,
    /// The other side.
    pub jid: BareJid,
    /// Version after the change.
    pub version: RosterVersion,
    /// The item before the change.
    pub before: Option<Item>,
    /// The item after the change; `None` if the roster lists none.
    pub item: Option<Item>,
    /// Whether there was a pending request of the other side before the change.
    pub request_before: bool,
    /// The other side's pending request after the change.
    pub request: Option<Request>,
    /// Events that reached this side and are to be delivered to its resources, in order.
    pub deliver: Vec<Event>,
    /// What the server answers for this side to the other, in order; their effect on the other side is already in its half.
    pub answers: Vec<Event>,
}

/// What a session needs at hand.
#[derive(Clone, Debug, Default)]
pub struct AccountRecord {
    /// Roster with pending requests.
    pub roster: Roster,
    /// Whether messages wait for it.
    pub offline: bool,
    /// Who is blocked.
    pub blocked: Blocklist,
    /// Hash of the picture in its vCard; empty if there is none.
    pub avatar: String,
    /// What it wants archived.
    pub archive: ArchivePrefs,
    /// Above every id that there was when the store was opened; ids go on from there.
    pub last_archived: ArchiveId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_shows_no_secret() {
        let secret = "correct horse battery staple";
        let check = |command: Command, expected: &str| {
            let shown = format!("{command:?}");
            assert!(shown.starts_with(expected) && !shown.contains("horse"), "{shown}");
        };
        let user = || BareJid::parse("juliet@localhost").expect("a JID");
        let password = || Zeroizing::new(secret.to_owned());
        check(Command::UserAdd { user: user(), password: password() }, "UserAdd { user: ");
        check(Command::UserPassword { user: user(), password: password() }, "UserPassword { user: ");
        for request in [
            StoreRequest::Verify { user: user(), password: password().into() },
            StoreRequest::AccountCreate { user: user(), password: password().into(), at: UtcTime(0) },
            StoreRequest::PasswordSet { user: user(), password: password().into() },
        ] {
            let shown = format!("{request:?}");
            assert!(shown.contains("juliet@localhost") && !shown.contains("horse"), "{shown}");
        }
        let (from, to) = ("localhost".to_owned(), "juliet@localhost".to_owned());
        check(Command::SendMessage { from, to, body: secret.to_owned() }, "SendMessage { from: \"localhost\", to: ");
    }
}
