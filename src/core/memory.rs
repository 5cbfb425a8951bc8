//! What the server holds, and who goes when it is too much.
//!
//! `Limits::memory_max` is what the process may hold. A part of it is kept for the program, the store's cache and what is unread;
//! the rest is for what is counted here. Nobody has to be refused while there is somebody who can do with less: first go sessions
//! that wait to be resumed (what they have not got goes into the store), then those who are sent the most and do not take it.

use std::collections::VecDeque;

use crate::core::error::StreamError;
use crate::core::session::Account;
use crate::core::stream::Phase;
use crate::core::{ConnId, ConnOrder, Core, Limits, Now, Outputs};

/// A stream with its session, its TLS state and its part of the tables; measured, see PERFORMANCE.md.
const STREAM_BYTES: usize = 6 * 1024;
/// What it takes more while it logs in: a handshake and an exchange, and a stanza that is not complete.
const STRANGER_BYTES: usize = 10 * 1024;
/// So many may be logging in at once however little memory there is.
const STRANGERS_MIN: usize = 64;
const REQUEST_BYTES: usize = 1024;
/// What a new session takes until it is measured.
const SESSION_BYTES: usize = 32 * 1024;
/// Who holds less is not worth dropping.
const SPARED_BYTES: usize = 16 * 1024;
/// Bytes from a session after which its account is measured again: what it holds grows with what is sent.
const MEASURE_EVERY: usize = 16 * 1024;

/// Part of the core.
#[derive(Default)]
pub(super) struct Memory {
    /// Dropping somebody has helped no further than this; it is tried again when more is held.
    futile: usize,
    /// Connections in the order in which they came, of whom most have not logged in. They are looked at when they are too many.
    strangers: VecDeque<ConnId>,
}

/// Bytes that sessions may hold.
fn room(limits: &Limits) -> usize {
    limits.memory_max / 2
}

impl Core {
    /// What sessions and the store's queue hold, roughly, in bytes.
    pub(crate) fn memory_held(&self, out: &Outputs) -> usize {
        let requests = self.parked.len() * REQUEST_BYTES + self.parked.bytes();
        let streams = self.streams.len() * STREAM_BYTES;
        out.wire.held()
            + self.shared.muc.held()
            + self.shared.shared_contacts.held()
            + self.accounts.held()
            + streams
            + requests
    }

    /// Whether there is memory for one more session; whoever waits to be resumed has to go for it.
    pub(crate) fn make_memory(&mut self, now: Now, out: &mut Outputs) -> bool {
        let missing =
            |core: &Core, out: &Outputs| (core.memory_held(out) + SESSION_BYTES).saturating_sub(room(&core.limits));
        let wanted = missing(self, out);
        if wanted > 0 {
            self.end_ghosts(now, wanted, out);
        }
        missing(self, out) == 0
    }

    /// Looks after each step whether too much is held.
    pub(super) fn shed(&mut self, now: Now, out: &mut Outputs) {
        let held = self.memory_held(out);
        let room = room(&self.limits);
        if held <= room {
            self.memory.futile = 0;
            return;
        }
        if held <= self.memory.futile {
            return;
        }
        // A little more than needed, or the next stanza would have the next one looked for.
        let wanted = held - room + room / 16;
        let freed = self.end_ghosts(now, wanted, out);
        if freed < wanted {
            self.drop_largest(now, wanted - freed, out);
        }
        self.memory.futile = self.memory_held(out).max(room) + room / 64;
    }

    /// Ends sessions that wait to be resumed, those that hold the most first. Returns what that frees.
    fn end_ghosts(&mut self, now: Now, wanted: usize, out: &mut Outputs) -> usize {
        let mut ghosts: Vec<(usize, ConnId)> =
            self.streams.ghosts().into_iter().map(|conn| (STREAM_BYTES + out.wire.held_by(conn), conn)).collect();
        ghosts.sort_unstable_by(|a, b| b.cmp(a));
        let mut freed = 0;
        for (held, conn) in ghosts {
            if freed >= wanted {
                break;
            }
            freed += held;
            self.counters.shed += 1;
            self.close_stream(now, conn, None, out);
        }
        freed
    }

    /// Drops those who are sent the most and do not take it.
    fn drop_largest(&mut self, now: Now, wanted: usize, out: &mut Outputs) {
        let mut conns: Vec<(usize, ConnId)> =
            self.streams.conns().into_iter().map(|conn| (out.wire.held_by(conn), conn)).collect();
        conns.sort_unstable_by(|a, b| b.cmp(a));
        let mut freed = 0;
        for (held, conn) in conns {
            if freed >= wanted || held < SPARED_BYTES {
                return;
            }
            if self.streams.get(conn).is_none_or(|stream| matches!(stream.phase, Phase::Closing)) {
                continue;
            }
            freed += held;
            self.counters.shed += 1;
            let error = StreamError::new("resource-constraint", "The server's memory limit is reached.");
            self.close_stream(now, conn, Some(error), out);
            out.conns.push(ConnOrder::Abort(conn));
        }
    }

    /// A session has sent so much: what its account holds is measured once in a while.
    pub(super) fn note_bytes(&mut self, conn: ConnId, bytes: usize) {
        let Some(stream) = self.streams.get_mut(conn) else { return };
        stream.unmeasured += bytes;
        if stream.unmeasured < MEASURE_EVERY {
            return;
        }
        stream.unmeasured = 0;
        if let Phase::Bound(account) = stream.phase {
            self.accounts.measure(account);
        }
    }

    /// Somebody has come who has not logged in. Where all of those take more than there is, the one who has taken longest goes.
    pub(super) fn let_in(&mut self, conn: ConnId, out: &mut Outputs) {
        let strangers = &mut self.memory.strangers;
        strangers.push_back(conn);
        // Most have logged in or are gone since.
        if strangers.len() >= STRANGERS_MIN.max(2 * self.streams.len()) {
            self.forget_known();
        }
        let is_full = |core: &Core, out: &Outputs| {
            core.memory_held(out) + core.memory.strangers.len() * STRANGER_BYTES > room(&core.limits)
        };
        if !is_full(self, out) {
            return;
        }
        self.forget_known();
        if is_full(self, out)
            && self.memory.strangers.len() > STRANGERS_MIN
            && let Some(oldest) = self.memory.strangers.pop_front()
        {
            self.counters.shed += 1;
            out.conns.push(ConnOrder::Abort(oldest));
        }
    }

    fn forget_known(&mut self) {
        let Core { memory, streams, .. } = self;
        memory.strangers.retain(|conn| {
            let phase = streams.get(*conn).map(|stream| &stream.phase);
            matches!(phase, Some(Phase::Login(_) | Phase::Handshake | Phase::Authed(_)))
        });
    }
}

impl Account {
    /// What it holds, roughly, in bytes.
    pub(super) fn held(&self) -> usize {
        // A node of a tree or table, and what an allocation takes beside its bytes.
        const ENTRY: usize = 160;
        let items = self.roster.items.iter().map(|(jid, item)| {
            let groups: usize = item.groups.iter().map(|group| group.len() + ENTRY / 4).sum();
            ENTRY + jid.as_str().len() + item.name.len() + groups
        });
        let requests =
            self.roster.requests.iter().map(|(jid, request)| ENTRY + jid.as_str().len() + request.stanza.len());
        let resources = self.resources.iter().map(|resource| resource.per.presence.held());
        items.sum::<usize>() + requests.sum::<usize>() + resources.sum::<usize>() + self.per.held()
    }
}
