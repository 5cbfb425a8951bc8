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

pub mod clock;
pub mod effects;
pub mod error;
pub mod roster;
mod wire;

pub use clock::{Now, UtcTime};
pub use effects::{
    Answer, CloseReason, Command, CommandId, ConnId, ConnOrder, Delivered, Input, ListenerKind, StoreError, StoreReply,
    StoreRequest, Stored, Ticket, TlsFacts,
};
pub use wire::Wire;

use std::time::Duration;

use crate::config::Config;

/// Everything the outside must now do. One value for the life of the process: its buffers are reused, not reallocated.
#[derive(Default)]
pub struct Outputs {
    /// Bytes to send, per connection.
    pub wire: Wire,
    /// In order; the storage thread answers in the same order.
    pub store: Vec<(Ticket, StoreRequest)>,
    /// Start TLS, resume reading, close after the flush.
    pub conns: Vec<ConnOrder>,
    /// Answers to [`Input::Command`].
    pub answers: Vec<(CommandId, Answer)>,
    /// Messages delivered, if somebody asked with [`Core::observe`].
    pub delivered: Vec<Delivered>,
}

/// What a step did.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of [`Input::Bytes`] that may be dropped; zero for other inputs.
    pub consumed: usize,
}

/// The server.
pub struct Core {}

impl Core {
    /// A server with nobody connected. `seed` feeds every identifier, nonce and salt that it draws: from the system's generator
    /// in production, fixed in tests. `scram` tells whether accounts' SCRAM keys can be had from the store (false with scrypt and
    /// with users of a host's own).
    pub fn new(_config: &Config, _seed: [u8; 32], _scram: bool) -> Core {
        todo!()
    }

    /// The only door.
    pub fn step(&mut self, _now: Now, _input: Input<'_>, _out: &mut Outputs) -> Step {
        todo!()
    }

    /// When to call with [`Input::Deadline`] if nothing else happens before, on the clock of [`Now::mono`].
    pub fn next_deadline(&self) -> Option<Duration> {
        todo!()
    }

    /// Whether [`Outputs::delivered`] is filled.
    pub fn observe(&mut self, _on: bool) {
        todo!()
    }
}
