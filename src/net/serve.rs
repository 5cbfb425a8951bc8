//! What the loop does with one connection: hand its bytes to the core, carry out what the core orders, send, end it.

use std::cmp::Reverse;
use std::time::Duration;

use mio::Interest;

use super::conn::{Conn, Outcome, Phase};
use super::engine::guarded;
use super::poll::Loop;
use super::slab::token_of;
use crate::core::{Answer, CloseReason, ConnId, ConnOrder, Input};

/// Unread bytes beyond the longest stanza, above which a connection is not read until the core asks for more. The core leaves
/// bytes because a stanza is not complete, which this can hold, or because the session waits.
const UNREAD_MARGIN: usize = 64 * 1024;
/// When all connections together leave more than an eighth of `memory_max` unread, one that leaves more than its share of that
/// is closed; never one that leaves less than this.
const UNREAD_SPARED: usize = 4 * 1024;

impl Loop {
    /// Gives the core something about a connection and carries out what comes of it. A panic ends the connection.
    pub(super) fn step(&mut self, id: ConnId, input: Input<'_>) {
        let result = self.engine.step(input);
        self.settle();
        if result.is_err() {
            self.gone(id, CloseReason::Fault);
        }
    }

    /// Takes everything out of the outputs but the bytes, and does it. The store gets its requests at the end of the turn.
    pub(super) fn settle(&mut self) {
        loop {
            let out = &mut self.engine.out;
            self.asked.append(&mut out.store);
            for (id, mut answer) in out.answers.drain(..) {
                if let (Answer::Status(status), Some(store)) = (&mut answer, &self.store) {
                    let counters = store.counters();
                    status.push(("store_rows_checked", counters.looked_at));
                    status.push(("store_rows_damaged", counters.damaged));
                }
                if let Some(index) = self.answers_to.iter().position(|(waiting, _)| *waiting == id) {
                    // Who asked may have given up.
                    let _ = self.answers_to.swap_remove(index).1.send(answer);
                }
            }
            for delivered in out.delivered.drain(..) {
                if let Some(on_delivered) = &mut self.on_delivered {
                    let _ = guarded(|| on_delivered(&delivered));
                }
            }
            self.orders.extend(out.conns.drain(..));
            self.is_stop_due |= std::mem::take(&mut out.stop);
            let Some(order) = self.orders.pop_front() else { return };
            self.carry_out(order);
        }
    }

    fn carry_out(&mut self, order: ConnOrder) {
        match order {
            ConnOrder::StartTls { conn: id, domain } => {
                if let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.phase == Phase::Open) {
                    self.unread -= conn.unread.len();
                    conn.proceed(domain);
                    self.flushes.push(id);
                }
            }
            ConnOrder::Resume(id) => {
                if let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.phase == Phase::Open) {
                    conn.is_paused = false;
                    conn.is_resumed = true;
                    self.queue(id);
                }
            }
            ConnOrder::Close(id) => self.end(id, CloseReason::Ordered),
            ConnOrder::Abort(id) => self.cut(id, CloseReason::Ordered),
        }
    }

    fn queue(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id).filter(|conn| !conn.is_queued) {
            conn.is_queued = true;
            self.ready.push(id);
        }
    }

    /// Serves a connection from the ready list.
    pub(super) fn serve(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.is_queued = false;
        if conn.phase != Phase::Open {
            return self.discard(id);
        }
        if !conn.has_work() {
            return;
        }
        if conn.is_handshaking() {
            let Some(left) = self.handshakes_left.checked_sub(1) else { return self.queue(id) };
            self.handshakes_left = left;
        }

        self.scratch.clear();
        self.unread -= conn.unread.len();
        let filled = guarded(|| conn.fill(&mut self.scratch, self.limits.turn_bytes));
        self.unread += conn.unread.len();
        let Ok(filled) = filled else { return self.gone(id, CloseReason::Fault) };
        if filled.has_output {
            self.flushes.push(id);
        }
        if let Some(tls) = filled.secured {
            log::debug!(
                "connection {}: {} for {}",
                id.slot,
                tls.version,
                tls.server_name.as_deref().unwrap_or("no name")
            );
            self.step(id, Input::Secured { conn: id, tls });
        }
        self.offer(id);
        if let Some(error) = filled.failed {
            log::debug!("connection {}: TLS failed: {error}", id.slot);
            self.end(id, CloseReason::Tls);
            // The core's output could not be sent any more; only the alert is.
            self.tell(id, CloseReason::Tls);
            return self.settle();
        }

        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.is_ended {
            self.on_ended(id);
        } else if conn.has_work() {
            self.queue(id);
        }
    }

    /// Offers the core all that is unread and keeps what it leaves.
    fn offer(&mut self, id: ConnId) {
        let count = self.conns.len();
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.phase == Phase::Open) else { return };
        let plain = self.scratch.plain.filled();
        self.unread -= conn.unread.len();
        let mut unread = std::mem::take(&mut conn.unread);
        let is_apart = unread.is_empty();
        if !is_apart {
            unread.extend_from_slice(plain);
        }
        let bytes = if is_apart { plain } else { &unread };
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        let result = self.engine.step(Input::Bytes { conn: id, unread: bytes });
        let consumed = result.as_ref().map_or(len, |step| step.consumed.min(len));
        if consumed == len {
            unread = Vec::new();
        } else if is_apart {
            unread.extend_from_slice(&plain[consumed..]);
        } else {
            unread.drain(..consumed);
        }
        self.unread += unread.len();
        conn.is_paused = unread.len() > self.limits.xml.stanza_bytes_max + UNREAD_MARGIN;
        let unread_max = self.limits.memory_max / 8;
        let is_crowded = self.unread > unread_max && unread.len() > UNREAD_SPARED.max(unread_max / count);
        conn.unread = unread;

        self.settle();
        if result.is_err() {
            self.gone(id, CloseReason::Fault);
        } else if is_crowded {
            log::debug!("connection {}: closed, too much is unread", id.slot);
            self.gone(id, CloseReason::Gone);
        }
    }

    /// The peer has said its last. What the core left of it may be a stanza that waits for the store, which has a moment to be
    /// handled.
    fn on_ended(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.phase == Phase::Open && !conn.unread.is_empty() {
            let at = conn.deadline.unwrap_or(self.engine.now.mono + self.limits.close_time);
            return self.arm(id, at);
        }
        self.end(id, CloseReason::Gone);
    }

    fn discard(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        self.scratch.clear();
        conn.discard(&mut self.scratch, self.limits.turn_bytes);
        if conn.is_ended && conn.phase == Phase::Lingering {
            self.remove(id);
        } else if conn.is_ended && conn.is_blocked {
            let reason = ending(conn);
            self.gone(id, reason);
        } else if conn.is_readable {
            self.queue(id);
        }
    }

    /// Sends what a connection has to send, in one write if the socket takes it.
    pub(super) fn flush(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.phase != Phase::Lingering) else { return };
        self.scratch.clear();
        let flush = guarded(|| conn.flush(id, &mut self.engine.out.wire, &mut self.scratch));
        let Ok(flush) = flush else { return self.gone(id, CloseReason::Fault) };
        match flush.outcome {
            Outcome::Done => self.on_flushed(id),
            Outcome::Blocked => self.on_blocked(id, flush.has_moved),
            Outcome::ShutDown => self.linger(id),
            Outcome::Broken => {
                let reason = ending(conn);
                self.gone(id, reason);
            }
        }
        if flush.is_owed {
            self.step(id, Input::Flushed { conn: id });
        }
    }

    fn on_flushed(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.is_blocked {
            conn.is_blocked = false;
            if !conn.is_ended {
                conn.deadline = None;
            }
            if self.poll.registry().reregister(conn.socket_mut(), token_of(id), Interest::READABLE).is_err() {
                return self.gone(id, CloseReason::Gone);
            }
        }
        let Some(domain) = conn.wants_tls() else { return };
        match self.acceptor.accept(Some(domain)) {
            Ok(session) => {
                conn.start_tls(session);
                if conn.has_work() {
                    self.queue(id);
                }
            }
            Err(error) => {
                log::error!("connection {}: TLS cannot begin: {error}", id.slot);
                self.gone(id, CloseReason::Tls);
            }
        }
    }

    /// The socket takes no more: it is asked for an edge, and the peer has `write_stall` to take something.
    fn on_blocked(&mut self, id: ConnId, has_moved: bool) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.is_ended {
            let reason = ending(conn);
            return self.gone(id, reason);
        }
        let is_new = !std::mem::replace(&mut conn.is_blocked, true);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if is_new && self.poll.registry().reregister(conn.socket_mut(), token_of(id), interest).is_err() {
            return self.gone(id, CloseReason::Gone);
        }
        if is_new || has_moved {
            self.arm(id, self.engine.now.mono + self.limits.write_stall);
        }
    }

    /// Our side is shut down: the core is told, the socket waits for the peer's end.
    fn linger(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let reason = ending(conn);
        conn.phase = Phase::Lingering;
        let (is_ended, is_readable) = (conn.is_ended, conn.is_readable);
        self.tell(id, reason);
        self.settle();
        if is_ended {
            return self.remove(id);
        }
        self.arm(id, self.engine.now.mono + self.limits.close_time);
        if is_readable {
            self.queue(id);
        }
    }

    /// Begins to end a connection: nothing more is handed over, its output is flushed at the end of the turn.
    fn end(&mut self, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.phase == Phase::Open) else { return };
        conn.phase = Phase::Closing(reason);
        self.unread -= conn.unread.len();
        conn.unread = Vec::new();
        let is_readable = conn.is_readable;
        self.flushes.push(id);
        if is_readable {
            self.queue(id);
        }
    }

    /// Ends a connection at once.
    pub(super) fn gone(&mut self, id: ConnId, reason: CloseReason) {
        self.cut(id, reason);
        self.settle();
    }

    /// Ends a connection at once; the caller settles.
    fn cut(&mut self, id: ConnId, reason: CloseReason) {
        self.tell(id, reason);
        self.remove(id);
    }

    /// Tells the core, once, that a connection is gone; the caller settles.
    fn tell(&mut self, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if std::mem::replace(&mut conn.is_told, true) {
            return;
        }
        // A panic here has been logged; there is no more to close but what is unsent.
        if self.engine.step(Input::Closed { conn: id, reason }).is_err() {
            self.engine.out.wire.close(id);
        }
    }

    fn remove(&mut self, id: ConnId) {
        if let Some(mut conn) = self.conns.remove(id) {
            self.unread -= conn.unread.len();
            self.admission.leave(conn.peer);
            // Closing the socket takes it out of the poller in any case.
            let _ = self.poll.registry().deregister(conn.socket_mut());
        }
    }

    fn arm(&mut self, id: ConnId, at: Duration) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.deadline = Some(at);
        if conn.timer.is_none_or(|timer| timer > at) {
            conn.timer = Some(at);
            self.timers.push(Reverse((at, id)));
        }
    }

    pub(super) fn on_timer(&mut self, id: ConnId, at: Duration) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.timer == Some(at)) else { return };
        conn.timer = None;
        let Some(deadline) = conn.deadline else { return };
        if deadline > self.engine.now.mono {
            return self.arm(id, deadline);
        }
        match conn.phase {
            Phase::Lingering => self.remove(id),
            Phase::Open if conn.is_ended => self.end(id, CloseReason::Gone),
            Phase::Open | Phase::Closing(_) => self.gone(id, CloseReason::Stalled),
        }
    }
}

/// Why a connection that cannot go on has ended.
fn ending(conn: &Conn) -> CloseReason {
    match conn.phase {
        Phase::Closing(reason) => reason,
        Phase::Open | Phase::Lingering => CloseReason::Gone,
    }
}
