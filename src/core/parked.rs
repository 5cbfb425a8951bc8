//! Who waits for which answer of the store.
//!
//! A session has at most one request outstanding and is not read meanwhile, so that its stanzas stay in order without a queue
//! (RFC 6120 section 10.1). Messages put into offline storage park nobody; their entry remembers whom to tell of a failure.

use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashMap;

use crate::core::effects::{CommandId, ConnId, StoreError, StoreReply, StoreRequest, Ticket};
use crate::core::penalties::subscriber;
use crate::core::roster::Event;
use crate::core::router::{ParkedIq, Then};
use crate::core::stream::ThenStream;
use crate::core::{Core, Outputs};
use crate::jid::BareJid;

/// Time without a failure of the disk after which it is taken to work again.
const CALM: Duration = Duration::from_secs(5);

/// What goes on when an answer comes.
pub enum Waiting {
    /// A handler's request; the session is parked.
    Iq {
        /// The session.
        conn: ConnId,
        /// What a reply needs.
        iq: Box<ParkedIq>,
        /// How it goes on.
        then: Then,
    },
    /// A stream that is still logging in or binding; it is parked.
    Stream {
        /// The stream.
        conn: ConnId,
        /// How it goes on.
        then: ThenStream,
    },
    /// A subscription stanza; the session is parked.
    Subscription {
        /// The session.
        conn: ConnId,
        /// Its stanza in routed form, from bare JID to bare JID.
        stanza: Vec<u8>,
        /// Which.
        event: Event,
    },
    /// What is finished whether the session is still there or not: it concerns a room, or all of an account's devices. The session
    /// is parked; [`ConnId::NOBODY`] has none.
    Detached {
        /// The session.
        conn: ConnId,
        /// How it goes on.
        then: ThenStream,
    },
    /// A line said in a room on its way into the store; nobody is parked.
    Line {
        /// Who has said it, if its count of handled stanzas (XEP-0198) waits for this.
        sender: Option<ConnId>,
    },
    /// A message on its way into offline storage; nobody is parked.
    Put {
        /// For whom.
        user: BareJid,
        /// Who is told of a failure, and with which stanza's head.
        sender: ConnId,
        /// `id` and `to` as written, `type` as bounced.
        head: Box<BounceHead>,
    },
    /// A message on its way into the archives only; nobody is parked.
    Archive {
        /// Who is told of a failure.
        sender: ConnId,
        /// With which stanza's head.
        head: Box<BounceHead>,
    },
    /// The next offline messages of an account that is being served, for the drain of this number.
    Page(BareJid, u32),
    /// Last items of nodes for a resource that has come online; nobody is parked.
    LastItems(Box<crate::handlers::pep::Run>),
    /// An operator's or embedder's command.
    Command(CommandId, CommandContext),
    /// Nobody; a failure is logged by the store.
    Nobody,
}

impl Waiting {
    /// Whose stream waits for it.
    fn conn(&self) -> Option<ConnId> {
        match self {
            Waiting::Iq { conn, .. }
            | Waiting::Stream { conn, .. }
            | Waiting::Subscription { conn, .. }
            | Waiting::Detached { conn, .. } => Some(*conn),
            _ => None,
        }
    }
}

/// What an error reply to a message needs.
pub struct BounceHead {
    /// As written.
    pub id: Option<Box<str>>,
    /// As written.
    pub to: Box<str>,
    /// The sender's count of handled stanzas (XEP-0198) waits for this one.
    pub counted: bool,
    /// It is worth waking its receiver for (XEP-0357).
    pub wakes: bool,
}

/// What is left to do for a command when the store has answered.
pub enum CommandContext {
    /// Only to answer.
    Answer,
    /// To tell others of the account: it was made.
    Added(BareJid),
    /// To end the account's sessions: its password was changed.
    PasswordSet(BareJid),
    /// To end the account's sessions and tell its contacts: it is gone.
    Removed(BareJid),
}

/// Outstanding requests.
#[derive(Default)]
pub struct Parked {
    waiting: HashMap<Ticket, Entry>,
    last: u64,
    /// From where the password hashes that are outstanding were asked for.
    hashes: Vec<Option<IpAddr>>,
    /// Bytes of the stanzas that are on their way into the store.
    bytes: usize,
    /// Sessions that are not read until the store has caught up.
    held: Vec<ConnId>,
    /// Requests that the disk has refused.
    failures: u64,
    /// When the last of them was that wrote, and whether nothing was written since.
    failed: Option<(Duration, bool)>,
}

struct Entry {
    waiting: Waiting,
    /// The helper thread derives keys for it, for who came from there.
    hash: Option<Option<IpAddr>>,
    /// Of the stanza.
    bytes: usize,
    /// Its answer tells whether the disk takes anything.
    writes: bool,
}

impl Parked {
    /// Requests outstanding.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that the disk has refused so far.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Whether the disk does not take what it should. A full one still takes a little here and there.
    pub fn is_failing(&self, now: Duration) -> bool {
        self.failed.is_some_and(|(at, is_last)| is_last || now < at + CALM)
    }

    fn note(&mut self, now: Duration, ticket: Ticket, reply: &StoreReply) {
        let writes = self.waiting.get(&ticket).is_some_and(|entry| entry.writes);
        match reply {
            Err(StoreError::DiskFull | StoreError::Failed) => {
                self.failures += 1;
                if writes {
                    self.failed = Some((now, true));
                }
            }
            Ok(_) if writes => self.failed = self.failed.map(|(at, _)| (at, false)),
            _ => {}
        }
    }

    /// Bytes of the stanzas that are on their way into the store.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether some stream waits with more than one request; for the check of invariants.
    #[cfg(debug_assertions)]
    pub fn conns(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.waiting.values().filter_map(|entry| entry.waiting.conn())
    }

    /// A session goes on on another connection: what it waits for follows it.
    pub fn move_session(&mut self, from: ConnId, to: ConnId) {
        for entry in self.waiting.values_mut() {
            if let Waiting::Iq { conn, .. }
            | Waiting::Stream { conn, .. }
            | Waiting::Subscription { conn, .. }
            | Waiting::Detached { conn, .. }
            | Waiting::Line { sender: Some(conn) }
            | Waiting::Put { sender: conn, .. }
            | Waiting::Archive { sender: conn, .. } = &mut entry.waiting
                && *conn == from
            {
                *conn = to;
            }
        }
    }

    /// Who waits for this answer.
    pub fn take(&mut self, ticket: Ticket) -> Option<Waiting> {
        let entry = self.waiting.remove(&ticket)?;
        if let Some(peer) = entry.hash
            && let Some(index) = self.hashes.iter().position(|other| *other == peer)
        {
            self.hashes.swap_remove(index);
        }
        self.bytes -= entry.bytes;
        Some(entry.waiting)
    }
}

impl Core {
    /// Queues a request. The stream of `waiting`, if it has one, is parked until [`Core::on_stored`].
    pub(crate) fn ask(&mut self, request: StoreRequest, waiting: Waiting, out: &mut Outputs) {
        if let Waiting::Iq { conn, .. }
        | Waiting::Stream { conn, .. }
        | Waiting::Subscription { conn, .. }
        | Waiting::Detached { conn, .. } = &waiting
            && let Some(stream) = self.streams.get_mut(*conn)
        {
            debug_assert!(!stream.hold.parked, "a stream waits for one answer at a time");
            stream.hold.parked = true;
        }
        use StoreRequest::{AccountCreate, PasswordSet, Verify};
        let hash = matches!(request, Verify { .. } | AccountCreate { .. } | PasswordSet { .. });
        let hash = hash.then(|| waiting.conn().and_then(|conn| self.hash_peer(conn)));
        self.parked.hashes.extend(hash);
        if let StoreRequest::ArchivePut { from, to, .. } = &request {
            self.shared.bind2.on_archiving(from.bare(), to.bare());
        }
        let bytes = request.stanza_bytes();
        let writes = request.may_write();
        self.parked.bytes += bytes;
        self.parked.last += 1;
        let ticket = Ticket(self.parked.last);
        self.parked.waiting.insert(ticket, Entry { waiting, hash, bytes, writes });
        out.store.push((ticket, request));
    }

    /// Whether the queue to the store has room for a request that somebody else than a parked session makes.
    pub(crate) fn store_has_room(&self) -> bool {
        // While a disk hangs the queue must not take the memory of all.
        self.parked.len() < self.limits.store_queue_max && self.parked.bytes < self.limits.memory_max / 4
    }

    /// How full the queue to the store is, against `part` of what it may hold: in requests, or in bytes of an eighth of the
    /// server's memory.
    fn store_is_above(&self, part: usize) -> bool {
        let limits = &self.limits;
        self.parked.len() * part > limits.store_queue_max || self.parked.bytes * part > limits.memory_max / 8
    }

    /// Looks at how much waits for the store: who adds to it when it is half full is not read until it is a quarter full.
    pub(crate) fn press_store(&mut self, sender: ConnId) {
        if self.store_is_above(2)
            && let Some(stream) = self.streams.get_mut(sender)
            && !stream.hold.store
        {
            stream.hold.store = true;
            self.parked.held.push(sender);
        }
    }

    fn release_held(&mut self, out: &mut Outputs) {
        if self.parked.held.is_empty() || self.store_is_above(4) {
            return;
        }
        for conn in std::mem::take(&mut self.parked.held) {
            if let Some(stream) = self.streams.get_mut(conn) {
                stream.hold.store = false;
                out.conns.push(super::ConnOrder::Resume(conn));
            }
        }
    }

    /// Whether one more password hash may be asked for. One address may have half of those that wait.
    pub(crate) fn hash_has_room(&self, conn: ConnId) -> bool {
        let hashes = &self.parked.hashes;
        let peer = self.hash_peer(conn);
        let of_peer = hashes.iter().filter(|other| **other == peer).count();
        let hashes_max = self.limits.hash_queue_max;
        self.store_has_room() && hashes.len() < hashes_max && of_peer < hashes_max.div_ceil(2)
    }

    fn hash_peer(&self, conn: ConnId) -> Option<IpAddr> {
        self.streams.get(conn).map(|stream| subscriber(stream.peer))
    }

    /// The answer to an earlier request.
    pub(crate) fn on_stored(&mut self, now: super::Now, ticket: Ticket, reply: StoreReply, out: &mut Outputs) {
        self.parked.note(now.mono, ticket, &reply);
        let Some(waiting) = self.parked.take(ticket) else {
            debug_assert!(false, "an answer to {ticket:?}, which nobody waits for");
            return;
        };
        self.release_held(out);
        match waiting {
            Waiting::Iq { conn, iq, then } => {
                self.unpark(conn, out);
                self.resume_iq(now, conn, &iq, then, reply, out);
                crate::handlers::sm::on_handled(self, now, conn, out);
            }
            Waiting::Stream { conn, then } => {
                self.unpark(conn, out);
                if self.streams.get_mut(conn).is_some() {
                    then(self, now, conn, reply, out);
                }
            }
            Waiting::Subscription { conn, stanza, event } => {
                self.unpark(conn, out);
                crate::handlers::subscription::on_stored(self, conn, &stanza, event, reply, out);
                crate::handlers::sm::on_handled(self, now, conn, out);
            }
            Waiting::Detached { conn, then } => {
                self.unpark(conn, out);
                then(self, now, conn, reply, out);
                crate::handlers::sm::on_handled(self, now, conn, out);
            }
            Waiting::Line { sender } => {
                if let Err(error) = reply {
                    log::warn!("a line said in a room was not stored: {error:?}");
                }
                if let Some(sender) = sender {
                    crate::handlers::sm::on_stored(self, now, sender, out);
                }
            }
            Waiting::Put { user, sender, head } => {
                crate::handlers::offline::on_put(self, now, &user, sender, &head, reply.map(drop), out);
            }
            Waiting::Archive { sender, head } => crate::handlers::mam::on_put(self, now, sender, &head, reply, out),
            Waiting::Page(user, drain) => crate::handlers::offline::on_page(self, now, &user, drain, reply, out),
            Waiting::LastItems(run) => crate::handlers::pep::on_last_items(self, run, reply, out),
            Waiting::Command(id, context) => self.on_command_stored(now, id, context, reply, out),
            Waiting::Nobody => {}
        }
    }

    /// A stream is not read until [`Core::unpark`]; it waits for something else than the store.
    pub(crate) fn park(&mut self, conn: ConnId) {
        if let Some(stream) = self.streams.get_mut(conn) {
            stream.hold.parked = true;
        }
    }

    /// A stream is read again.
    pub(crate) fn unpark(&mut self, conn: ConnId, out: &mut Outputs) {
        if let Some(stream) = self.streams.get_mut(conn) {
            stream.hold.parked = false;
            out.conns.push(super::ConnOrder::Resume(conn));
        }
    }
}
