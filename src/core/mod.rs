//! The server without its sockets.
//!
//! [`Core`] is the whole XMPP server as one value: streams, sessions, rosters in use, routing. It is driven from outside by
//! [`Core::step`] and answers only by writing into [`Outputs`]. `net::poll` drives it with real sockets, `tests/scripts.rs` with
//! text files; both run the same code.
//!
//! ```text
//!   readable bytes ─┐                              ┌─ bytes per connection ──> net::conn
//!   stored replies ─┼─> Core::step(now, input) ──> ├─ store requests ────────> store::thread
//!   deadlines ──────┘                              └─ close / TLS / resume ──> net::poll
//! ```
//!
//! # Contract with the caller
//!
//! 1. Give one [`Input`], then drain [`Outputs::store`], [`Outputs::conns`], [`Outputs::answers`] and [`Outputs::delivered`]
//!    completely, then give the next. [`Outputs::wire`] is flushed once per turn.
//! 2. `now.mono` never goes backwards. Call with [`Input::Deadline`] no later than [`Core::next_deadline`].
//! 3. Of [`Input::Bytes`], drop what [`Step::consumed`] says and offer the rest again, unchanged, with what came after it. The
//!    tokenizer remembers how far it looked, so offering a long stanza in many pieces costs no second scan.
//!
//! # What is deliberately absent
//!
//! No socket, file, clock, thread or environment: they arrive as arguments. Nonces and identifiers come from a generator that
//! [`Core::new`] is given. No panic that input can reach: a peer's mistake is a stanza error, a stream error or a close, and a
//! counter. No unbounded container: each has a limit in [`Limits`], and a full one stops its producer. Nothing slow: what takes
//! longer than a millisecond (an fsync, a password hash) is a request with a ticket.
//!
//! # Order
//!
//! RFC 6120 section 10.1 asks that stanzas of one stream are processed in order, although a handler may have to wait for the
//! store. So a session that waits ("parked") is not fed: its bytes stay unconsumed until the reply, and then
//! [`ConnOrder::Resume`] asks the caller to offer them again. No per-session queue exists.

pub mod archive;
pub mod blocklist;
pub mod bookmarks;
pub mod clock;
mod commands;
pub mod effects;
pub mod error;
pub mod form;
mod ids;
mod login;
mod memory;
pub(crate) mod parked;
pub(crate) mod penalties;
pub mod pubsub;
pub mod push;
pub mod reports;
pub mod rooms;
pub mod roster;
pub(crate) mod router;
pub(crate) mod session;
pub(crate) mod stream;
pub(crate) mod timers;
pub mod tokens;
pub mod vcard;
mod wire;

use std::time::Duration;

use crate::auth::{FakeKeys, PasswordScheme, TokenSecret};
use crate::config::Config;
pub use crate::config::Limits;
use crate::handlers;
pub use clock::{Now, UtcTime};
pub use effects::{
    Answer, CloseReason, Command, CommandId, ConnId, ConnOrder, Delivered, Input, ListenerKind, StoreError, StoreReply,
    StoreRequest, Stored, Ticket, TlsFacts,
};
use ids::IdSource;
use parked::Parked;
use penalties::Penalties;
use session::Accounts;
use stream::{Login, Streams};
use timers::Timers;
pub use wire::{Entry, Mark, Unacked, Wire};

/// Everything the outside must now do. One value for the life of the process: its buffers are reused, not reallocated.
#[derive(Default)]
pub struct Outputs {
    /// Bytes to send, per connection.
    pub wire: Wire,
    /// In order; the storage thread answers in the same order but for slow requests ([`StoreRequest::is_slow`]).
    pub store: Vec<(Ticket, StoreRequest)>,
    /// Start TLS, resume reading, close after the flush.
    pub conns: Vec<ConnOrder>,
    /// Answers to [`Input::Command`].
    pub answers: Vec<(CommandId, Answer)>,
    /// Messages delivered, if somebody asked with [`Core::observe`].
    pub delivered: Vec<Delivered>,
    /// An administrator wants the server to end: the caller gives [`Input::Shutdown`] as for a signal.
    pub stop: bool,
}

/// What a step did.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of [`Input::Bytes`] that may be dropped; zero for other inputs.
    pub consumed: usize,
}

/// Secrets that a core is born with.
pub struct Seeds {
    /// Feeds every identifier, nonce and salt: from the system's generator in production, fixed in tests.
    pub random: [u8; 32],
    /// Drawn once per installation and kept: what an unknown user is answered must not change with a restart.
    pub installation: [u8; 32],
}

/// One served domain.
pub(crate) struct Host {
    pub(crate) name: String,
    /// Where its group chat rooms are.
    pub(crate) rooms: String,
    /// Whether its users may make rooms.
    pub(crate) rooms_open: bool,
    pub(crate) registration_open: bool,
    /// Whether its accounts have archives.
    pub(crate) archive: bool,
    pub(crate) contacts: Vec<(String, String)>,
    /// Services elsewhere for its users.
    pub(crate) external: handlers::services::External,
    /// Who may administer it.
    pub(crate) admins: Vec<crate::jid::BareJid>,
    /// Value of `ver` in entity capabilities (XEP-0115).
    pub(crate) caps: String,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: u64,
    pub(crate) logins: u64,
    pub(crate) login_failures: u64,
    pub(crate) tls_failures: u64,
    pub(crate) stream_errors: u64,
    pub(crate) stanzas: u64,
    pub(crate) delivered: u64,
    pub(crate) stored_offline: u64,
    pub(crate) overflowed: u64,
    pub(crate) shed: u64,
}

/// The server.
pub struct Core {
    pub(crate) limits: Limits,
    pub(crate) hosts: Vec<Host>,
    pub(crate) ids: IdSource,
    pub(crate) streams: Streams,
    pub(crate) accounts: Accounts,
    pub(crate) counters: Counters,
    /// Steps so far: what happened before what.
    pub(crate) steps: u64,
    pub(crate) shared: handlers::Shared,
    pub(crate) observed: bool,
    memory: memory::Memory,
    timers: Timers,
    pub(crate) parked: Parked,
    penalties: Penalties,
    pub(crate) password_scheme: PasswordScheme,
    scram: bool,
    fake_keys: FakeKeys,
    pub(crate) token_secret: TokenSecret,
    /// Receivers that are full, and who waits for them.
    blocked: Vec<(ConnId, ConnId)>,
    /// When an administrator wants the server to end.
    pub(crate) stops_at: Option<Duration>,
    /// When the running step began, on the clock of [`Now::mono`].
    turn: Duration,
}

impl Core {
    /// A server with nobody connected. `scram` tells whether accounts' SCRAM keys can be had from the store: false with scrypt
    /// and with users of a host's own.
    pub fn new(config: &Config, seeds: Seeds, scram: bool) -> Core {
        let host = |domain: &crate::config::DomainConfig| Host {
            name: domain.name.clone(),
            rooms: domain.rooms_domain(),
            rooms_open: domain.rooms == crate::config::RoomMakers::Users,
            registration_open: domain.registration_open,
            archive: domain.archive,
            contacts: domain.contacts.clone(),
            external: handlers::services::External {
                services: domain.services.clone(),
                secret: domain.services_secret.clone(),
                seconds: domain.services_time.as_secs(),
            },
            admins: domain.admins.clone(),
            caps: handlers::disco::caps_ver(&domain.contacts, domain.registration_open, domain.archive),
        };
        let archived = config.domains.iter().filter(|domain| domain.archive).map(|domain| domain.rooms_domain().into());
        let shared = handlers::Shared::new(&seeds.installation, archived.collect(), config);
        Core {
            limits: config.limits.clone(),
            hosts: config.domains.iter().map(host).collect(),
            ids: IdSource::new(seeds.random),
            streams: Streams::default(),
            accounts: Accounts::default(),
            counters: Counters::default(),
            steps: 0,
            shared,
            observed: false,
            memory: memory::Memory::default(),
            timers: Timers::default(),
            parked: Parked::default(),
            penalties: Penalties::default(),
            password_scheme: config.password_scheme,
            scram,
            fake_keys: FakeKeys::new(seeds.installation, &config.password_scheme),
            token_secret: TokenSecret::new(seeds.installation),
            blocked: Vec::new(),
            stops_at: None,
            turn: Duration::ZERO,
        }
    }

    /// The only door.
    pub fn step(&mut self, now: Now, input: Input<'_>, out: &mut Outputs) -> Step {
        debug_assert!(out.store.is_empty() && out.conns.is_empty(), "outputs of the last step were not drained");
        self.turn = now.mono;
        out.wire.limit(self.limits.output_max);
        self.steps += 1;
        out.wire.clock(now.utc, self.steps);
        let mut consumed = 0;
        match input {
            Input::Bytes { conn, unread } => consumed = self.on_bytes(now, conn, unread, out),
            Input::Stored { ticket, reply } => self.on_stored(now, ticket, reply, out),
            Input::Opened { conn, listener, peer } => self.on_opened(now, conn, listener, peer, out),
            Input::Secured { conn, tls } => self.on_secured(conn, tls),
            Input::Flushed { conn } => self.on_flushed(conn, out),
            Input::Closed { conn, reason } => self.on_closed(now, conn, reason, out),
            Input::Deadline => self.on_deadline(now, out),
            Input::Command { id, command } => self.on_command(now, id, command, out),
            Input::Shutdown => self.on_shutdown(now, out),
        }
        handlers::sm::ask(self, now, out);
        self.drop_overflowed(now, out);
        self.shed(now, out);
        #[cfg(debug_assertions)]
        {
            self.check_invariants();
            assert_eq!(out.wire.held(), out.wire.count_held(), "bytes that wait are counted wrongly");
        }
        Step { consumed }
    }

    /// When to call with [`Input::Deadline`] if nothing else happens before, on the clock of [`Now::mono`].
    pub fn next_deadline(&self) -> Option<Duration> {
        [self.timers.next(), self.stops_at, self.shared.push.next(), self.shared.muc.next()].into_iter().flatten().min()
    }

    /// Whether [`Outputs::delivered`] is filled.
    pub fn observe(&mut self, on: bool) {
        self.observed = on;
    }

    fn on_flushed(&mut self, conn: ConnId, out: &mut Outputs) {
        self.release_senders(conn, out);
        handlers::offline::on_flushed(self, conn, out);
        handlers::pep::on_flushed(self, conn, out);
        handlers::muc::on_taken(self, conn);
    }

    fn on_shutdown(&mut self, now: Now, out: &mut Outputs) {
        handlers::muc::on_shutdown(self, out);
        // Those that wait to be resumed too: what they have not acknowledged goes into the store.
        for conn in self.streams.ghosts().into_iter().chain(self.streams.conns()) {
            let error = error::StreamError::new("system-shutdown", "The server is shutting down.");
            if !conn.is_ghost() {
                handlers::sm::answer(self, conn, out);
            }
            self.close_stream(now, conn, Some(error), out);
        }
    }

    /// A receiver that does not take what it gets is dropped before it takes the memory of all.
    fn drop_overflowed(&mut self, now: Now, out: &mut Outputs) {
        while let Some(conn) = out.wire.take_overfull() {
            if self.streams.get(conn).is_none_or(|stream| matches!(stream.phase, stream::Phase::Closing)) {
                continue;
            }
            self.counters.overflowed += 1;
            let error = error::StreamError::new("resource-constraint", "The client does not read what it is sent.");
            self.close_stream(now, conn, Some(error), out);
            if !conn.is_ghost() {
                out.conns.push(ConnOrder::Abort(conn));
            }
        }
    }

    #[cfg(debug_assertions)]
    fn check_invariants(&self) {
        let mut sessions = 0;
        for (id, account) in self.accounts.iter() {
            assert!(!account.resources.is_empty(), "{} is in use without a resource", account.jid);
            for resource in &account.resources {
                assert_eq!(self.account_id(resource.conn), Some(id), "{} has no bound stream", resource.jid);
                sessions += 1;
            }
        }
        assert_eq!(sessions, self.accounts.session_count());
        let mut parked: Vec<ConnId> = self.parked.conns().filter(|conn| self.streams.get(*conn).is_some()).collect();
        parked.sort_unstable();
        let count = parked.len();
        parked.dedup();
        assert_eq!(count, parked.len(), "a stream waits for more than one reply");
    }
}
