//! Bytes on their way out, per connection.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use memchr::memmem;

use crate::core::clock::UtcTime;
use crate::core::effects::ConnId;

/// Buffers kept for reuse when a connection has been flushed, so that an idle connection owns none: as many as have so many
/// bytes together. What is said in a big room needs one for everybody in it.
const SPARE_BYTES_TOGETHER_MAX: usize = 512 * 1024;
/// Senders whose presence is kept back for one inactive client.
const QUIET_PRESENCES_MAX: usize = 100;
/// Longest presence that is kept back; a longer one brings the others with it.
const QUIET_BYTES_MAX: usize = 2048;
/// A buffer that has grown beyond this is given back to the allocator.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// Output of every connection. The core appends, the loop sends from the front and tells with [`Wire::sent`].
///
/// Writing marks a connection dirty; the loop takes the dirty list once per turn, so no code has to remember to ask for
/// writability. What is written to a connection that is no longer there is dropped.
///
/// A session with stream management also has its stanzas kept here until the client acknowledges them ([`Unacked`]). Such a
/// session may outlive its socket: its slot is then one of a *ghost*, a connection without a socket whose stanzas are only kept.
#[derive(Default)]
pub struct Wire {
    slots: Vec<Slot>,
    ghosts: Vec<Slot>,
    dirty: Vec<ConnId>,
    spare: Vec<Vec<u8>>,
    /// What `spare` has room for together.
    spare_bytes: usize,
    held: usize,
    /// Connections that have more waiting than they may.
    overfull: Vec<ConnId>,
    bytes_max: usize,
    now: UtcTime,
    step: u64,
    /// Connections with stanzas whose acknowledgement was not asked for yet.
    unasked: Vec<ConnId>,
}

#[derive(Default)]
struct Slot {
    open: Option<u32>,
    buf: Vec<u8>,
    /// How much of `buf` the operating system has taken already.
    sent: usize,
    dirty: bool,
    watched: bool,
    overfull: bool,
    unacked: Option<Box<Unacked>>,
    /// Presence kept back from a client that is inactive.
    quiet: Option<Box<Quiet>>,
}

impl Slot {
    fn held(&self) -> usize {
        let quiet = self.quiet.as_ref().map_or(0, |quiet| quiet.bytes);
        self.buf.len() - self.sent + self.unacked.as_ref().map_or(0, |unacked| unacked.held()) + quiet
    }
}

/// The last presence of each sender, in the order in which it came first.
#[derive(Default)]
struct Quiet {
    kept: Vec<(Box<str>, Vec<u8>)>,
    bytes: usize,
}

/// Stanzas that were sent and not acknowledged (XEP-0198), oldest first, in one buffer.
#[derive(Debug, Default)]
pub struct Unacked {
    bytes: Vec<u8>,
    /// Acknowledged bytes at the front of `bytes`.
    start: usize,
    entries: VecDeque<Entry>,
    /// Stanzas acknowledged so far, modulo 2^32.
    acked: u32,
    /// An acknowledgement was asked for.
    pub asked: bool,
}

/// One stanza that waits to be acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    bytes: u32,
    /// When it was sent.
    pub at: UtcTime,
    /// In which step of the core.
    pub step: u64,
    /// What has to be known of it when nobody acknowledges it.
    pub mark: Mark,
}

/// What has to be known of a stanza that nobody acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing.
    None,
    /// It is in offline storage as well, until it is acknowledged.
    Stored,
    /// All resources that take messages got it, whatever its `to` says, but for those that were copied it in the step named.
    Shared(Option<NonZeroU64>),
    /// It is a copy of what another resource got and took along: nobody else has that any more.
    Sole,
}

impl Unacked {
    fn push(&mut self, stanza: &[u8], (at, step): (UtcTime, u64), mark: Mark) {
        self.bytes.extend_from_slice(stanza);
        self.entries.push_back(Entry { bytes: stanza.len() as u32, at, step, mark });
    }

    /// Stanzas acknowledged so far, modulo 2^32.
    pub fn acked(&self) -> u32 {
        self.acked
    }

    /// Stanzas sent so far, modulo 2^32.
    pub fn sent(&self) -> u32 {
        self.acked.wrapping_add(self.entries.len() as u32)
    }

    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether all are acknowledged.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The peer has handled `h` stanzas. Returns whether that can be: it cannot have handled more than were sent. An older
    /// `h` changes nothing.
    pub fn acknowledge(&mut self, h: u32) -> bool {
        let count = h.wrapping_sub(self.acked) as usize;
        if count > self.entries.len() {
            // Half of the numbers are behind us, half before us.
            return count > u32::MAX as usize / 2;
        }
        let done: usize = self.entries.drain(..count).map(|entry| entry.bytes as usize).sum();
        self.start += done;
        self.acked = h;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(4096);
            self.start = 0;
        } else if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        true
    }

    /// The stanzas that wait, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Entry, &[u8])> {
        let mut at = self.start;
        self.entries.iter().map(move |entry| {
            let from = at;
            at += entry.bytes as usize;
            (*entry, self.bytes.get(from..at).unwrap_or_default())
        })
    }

    /// Marks a copy of a stanza, sent in the same step, as the only one. Returns whether it waits here.
    fn mark_sole(&mut self, step: u64, content: &[u8]) -> bool {
        let mut at = self.start;
        for entry in &mut self.entries {
            let from = at;
            at += entry.bytes as usize;
            let copied = || self.bytes.get(from..at).is_some_and(|bytes| memmem::find(bytes, content).is_some());
            if entry.step == step && copied() {
                entry.mark = Mark::Sole;
                return true;
            }
        }
        false
    }

    /// All that waits, as it was sent.
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

impl Wire {
    /// A connection exists from now on. Called by the loop before [`super::Input::Opened`].
    pub fn open(&mut self, conn: ConnId) {
        let slots = if conn.is_ghost() { &mut self.ghosts } else { &mut self.slots };
        let index = conn.index();
        if slots.len() <= index {
            slots.resize_with(index + 1, Slot::default);
        }
        slots[index] = Slot { open: Some(conn.generation), ..Slot::default() };
    }

    /// A connection is gone; what is unsent is dropped. Called by the core when it has handled [`super::Input::Closed`].
    pub fn close(&mut self, conn: ConnId) {
        let Some(slot) = self.slot_mut(conn) else { return };
        let slot = std::mem::take(slot);
        let quiet = slot.quiet.as_ref().map_or(0, |quiet| quiet.bytes);
        self.held -= slot.buf.len() - slot.sent + slot.unacked.as_ref().map_or(0, |unacked| unacked.held()) + quiet;
        self.keep(slot.buf);
    }

    /// Time and step of what is written from now on.
    pub(super) fn clock(&mut self, now: UtcTime, step: u64) {
        (self.now, self.step) = (now, step);
    }

    /// Bytes that may wait for one connection; set by the core.
    pub(super) fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// A connection that has come to hold more than it may, once.
    pub(super) fn take_overfull(&mut self) -> Option<ConnId> {
        self.overfull.pop()
    }

    /// Tells whether the client of a connection is active (XEP-0352); what was kept back for it goes out when it is.
    pub fn set_active(&mut self, conn: ConnId, active: bool) {
        self.release(conn);
        if let Some(slot) = self.slot_mut(conn) {
            slot.quiet = (!active).then(Box::default);
        }
    }

    /// Whether the client of a connection has said that it is inactive.
    pub fn is_quiet(&self, conn: ConnId) -> bool {
        self.slot(conn).is_some_and(|slot| slot.quiet.is_some())
    }

    /// Like [`Wire::stanza`] for a sender's presence, which an inactive client gets when something else comes.
    pub fn presence(&mut self, conn: ConnId, sender: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(quiet) = self.slot_mut(conn).and_then(|slot| slot.quiet.as_mut()) else {
            return self.append(conn, Some(Mark::None), write);
        };
        let place = quiet.kept.iter().position(|(kept, _)| **kept == *sender);
        let mut xml = Vec::new();
        write(&mut xml);
        let full = place.is_none() && quiet.kept.len() >= QUIET_PRESENCES_MAX || xml.len() > QUIET_BYTES_MAX;
        let before = quiet.bytes;
        quiet.bytes += xml.len();
        match place.and_then(|place| quiet.kept.get_mut(place)) {
            Some((_, kept)) => quiet.bytes -= std::mem::replace(kept, xml).len(),
            None => quiet.kept.push((sender.into(), xml)),
        }
        let after = quiet.bytes;
        self.held = self.held - before + after;
        if full {
            self.release(conn);
        }
    }

    /// The same for an item that a contact has published, by whose, which node's and which it is.
    pub fn news(&mut self, conn: ConnId, (owner, node, id): (&str, &str, &str), write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_quiet(conn) {
            return self.presence(conn, &format!("{owner} {node} {id}"), write);
        }
        self.append(conn, Some(Mark::None), write);
    }

    /// Sends what was kept back.
    fn release(&mut self, conn: ConnId) {
        let quiet = self.slot_mut(conn).and_then(|slot| slot.quiet.as_mut()).map(std::mem::take).unwrap_or_default();
        self.held -= quiet.bytes;
        for (_, xml) in quiet.kept {
            self.append(conn, Some(Mark::None), |buf| buf.extend_from_slice(&xml));
        }
    }

    /// Runs `write`, which appends exactly one stanza, on the connection's buffer. Nothing happens if the connection is gone.
    pub fn stanza(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_quiet(conn) {
            self.release(conn);
        }
        self.append(conn, Some(Mark::None), write);
    }

    /// The same for a stanza that tells nothing of anybody: presence that is kept back goes on waiting.
    pub fn aside(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        self.append(conn, Some(Mark::None), write);
    }

    /// The same for a stanza that offline storage has as well until it is acknowledged.
    pub fn stored_stanza(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_quiet(conn) {
            self.release(conn);
        }
        self.append(conn, Some(Mark::Stored), write);
    }

    /// The same for a stanza that goes to all resources that take messages although its `to` names one of them. Those are spared
    /// that were copied it in the step `copied`.
    pub fn shared_stanza(&mut self, conn: ConnId, copied: Option<NonZeroU64>, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_quiet(conn) {
            self.release(conn);
        }
        self.append(conn, Some(Mark::Shared(copied)), write);
    }

    /// Runs `write` on the connection's buffer for what is not a stanza. Nothing happens if the connection is gone.
    pub fn write(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        self.append(conn, None, write);
    }

    fn append(&mut self, conn: ConnId, stanza: Option<Mark>, write: impl FnOnce(&mut Vec<u8>)) {
        let slots = if conn.is_ghost() { &mut self.ghosts } else { &mut self.slots };
        let Some(slot) = slots.get_mut(conn.index()).filter(|slot| slot.open == Some(conn.generation)) else { return };
        if slot.buf.capacity() == 0
            && let Some(buf) = self.spare.pop()
        {
            self.spare_bytes -= buf.capacity();
            slot.buf = buf;
        }
        let before = slot.buf.len();
        write(&mut slot.buf);
        let mut grown = slot.buf.len() - before;
        if let (Some(mark), Some(unacked)) = (stanza, &mut slot.unacked) {
            unacked.push(&slot.buf[before..], (self.now, self.step), mark);
            self.held += grown;
            if !unacked.asked {
                unacked.asked = true;
                self.unasked.push(conn);
            }
        }
        if conn.is_ghost() {
            slot.buf.truncate(before);
            grown = 0;
        }
        self.held += grown;
        let waiting = (slot.buf.len() - slot.sent).max(slot.unacked.as_ref().map_or(0, |unacked| unacked.held()));
        if waiting > self.bytes_max && !slot.overfull {
            slot.overfull = true;
            self.overfull.push(conn);
        }
        if !slot.dirty && !conn.is_ghost() {
            slot.dirty = true;
            self.dirty.push(conn);
        }
    }

    /// Bytes that wait for a connection.
    pub fn pending(&self, conn: ConnId) -> usize {
        self.slot(conn).map_or(0, |slot| slot.buf.len() - slot.sent)
    }

    /// Bytes that wait for all connections together.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Bytes that wait for a connection or for its acknowledgement.
    pub(super) fn held_by(&self, conn: ConnId) -> usize {
        self.slot(conn).map_or(0, Slot::held)
    }

    /// [`Wire::held`], counted anew; for the check of invariants.
    #[cfg(debug_assertions)]
    pub(super) fn count_held(&self) -> usize {
        self.slots.iter().chain(&self.ghosts).map(Slot::held).sum()
    }

    /// Asks for one [`super::Input::Flushed`] when all that is written so far, and what comes before it is sent, has been taken
    /// by the operating system.
    pub fn watch(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot_mut(conn) {
            slot.watched = true;
            if !slot.dirty && !conn.is_ghost() {
                slot.dirty = true;
                self.dirty.push(conn);
            }
        }
    }

    /// The connections written to since the last call; the caller flushes each. `into` is cleared first.
    pub fn take_dirty(&mut self, into: &mut Vec<ConnId>) {
        into.clear();
        std::mem::swap(into, &mut self.dirty);
        for conn in into.iter() {
            if let Some(slot) = self.slot_mut(*conn) {
                slot.dirty = false;
            }
        }
    }

    /// What waits for a connection.
    pub fn unsent(&self, conn: ConnId) -> &[u8] {
        self.slot(conn).map_or(&[], |slot| &slot.buf[slot.sent..])
    }

    /// The first `count` bytes of [`Wire::unsent`] were taken by the operating system (or by TLS, which then owes them).
    /// Returns whether the connection was watched and is now empty: the caller owes an [`super::Input::Flushed`].
    #[must_use]
    pub fn sent(&mut self, conn: ConnId, count: usize) -> bool {
        let Some(slot) = self.slot_mut(conn) else { return false };
        slot.sent += count;
        assert!(slot.sent <= slot.buf.len(), "more sent than was there");
        let empty = slot.sent == slot.buf.len();
        let owed = empty && std::mem::take(&mut slot.watched);
        let free = if empty {
            slot.sent = 0;
            std::mem::take(&mut slot.buf)
        } else {
            // A slow reader's buffer is moved down once in a while, not at every write.
            if slot.sent >= SPARE_BYTES_MAX && slot.sent * 2 >= slot.buf.len() {
                slot.buf.drain(..slot.sent);
                slot.sent = 0;
            }
            Vec::new()
        };
        self.held -= count;
        self.keep(free);
        owed
    }

    /// Marks a copy, sent in that step, of a stanza that is otherwise lost. Returns whether the connection's client has not
    /// acknowledged it yet.
    pub(crate) fn mark_sole(&mut self, conn: ConnId, step: u64, content: &[u8]) -> bool {
        let unacked = self.slot_mut(conn).and_then(|slot| slot.unacked.as_mut());
        unacked.is_some_and(|unacked| unacked.mark_sole(step, content))
    }

    /// Keeps a connection's stanzas until they are acknowledged, from now on.
    pub fn keep_unacked(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot_mut(conn) {
            slot.unacked = Some(Box::default());
        }
    }

    /// No longer keeps a connection's stanzas; returns those that it had.
    pub fn stop_keeping(&mut self, conn: ConnId) -> Option<Box<Unacked>> {
        let unacked = self.slot_mut(conn)?.unacked.take()?;
        self.held -= unacked.held();
        Some(unacked)
    }

    /// The stanzas of a connection that wait to be acknowledged, if it keeps them.
    pub fn unacked(&self, conn: ConnId) -> Option<&Unacked> {
        self.slot(conn)?.unacked.as_deref()
    }

    /// The peer has handled `h` stanzas. Returns whether that can be.
    pub fn acknowledge(&mut self, conn: ConnId, h: u32) -> bool {
        let Some(unacked) = self.slot_mut(conn).and_then(|slot| slot.unacked.as_mut()) else { return true };
        let before = unacked.held();
        let possible = unacked.acknowledge(h);
        let freed = before - unacked.held();
        unacked.asked = false;
        let more = !unacked.is_empty();
        self.held -= freed;
        if more {
            self.ask_again(conn);
        }
        possible
    }

    fn ask_again(&mut self, conn: ConnId) {
        if let Some(unacked) = self.slot_mut(conn).and_then(|slot| slot.unacked.as_mut()) {
            unacked.asked = true;
            self.unasked.push(conn);
        }
    }

    /// A connection that has to be asked how many stanzas it has handled.
    pub(crate) fn take_unasked(&mut self) -> Option<ConnId> {
        self.unasked.pop()
    }

    /// Moves the unacknowledged stanzas of one connection to another, and sends them there if it has a socket.
    pub fn hand_over(&mut self, from: ConnId, to: ConnId) {
        // What was kept back comes behind the others; who resumes is active (XEP-0352).
        self.set_active(from, true);
        let Some(unacked) = self.slot_mut(from).and_then(|slot| slot.unacked.take()) else { return };
        let resend = !to.is_ghost() && !unacked.is_empty();
        let moved = unacked.held();
        if resend {
            self.write(to, |buf| buf.extend_from_slice(unacked.rest()));
        }
        match self.slot_mut(to) {
            Some(slot) => slot.unacked = Some(unacked),
            None => self.held -= moved,
        }
        if resend {
            self.ask_again(to);
        }
    }

    fn slot(&self, conn: ConnId) -> Option<&Slot> {
        let slots = if conn.is_ghost() { &self.ghosts } else { &self.slots };
        slots.get(conn.index()).filter(|slot| slot.open == Some(conn.generation))
    }

    fn slot_mut(&mut self, conn: ConnId) -> Option<&mut Slot> {
        let slots = if conn.is_ghost() { &mut self.ghosts } else { &mut self.slots };
        slots.get_mut(conn.index()).filter(|slot| slot.open == Some(conn.generation))
    }

    fn keep(&mut self, mut buf: Vec<u8>) {
        let together = self.spare_bytes + buf.capacity();
        if buf.capacity() > 0 && buf.capacity() <= SPARE_BYTES_MAX && together <= SPARE_BYTES_TOGETHER_MAX {
            buf.clear();
            self.spare_bytes = together;
            self.spare.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_fill_drain_and_are_reused() {
        let conn = ConnId { slot: 3, generation: 1 };
        let stale = ConnId { slot: 3, generation: 0 };
        let mut wire = Wire::default();
        wire.limit(5);
        wire.write(conn, |_| panic!("not open yet"));
        wire.open(conn);
        wire.write(stale, |_| panic!("an earlier connection of the slot"));
        wire.write(conn, |buf| buf.extend_from_slice(b"hello"));
        wire.watch(conn);
        let mut dirty = vec![stale];
        wire.take_dirty(&mut dirty);
        assert_eq!((dirty.as_slice(), wire.unsent(conn), wire.held()), ([conn].as_slice(), b"hello".as_slice(), 5));
        assert!(!wire.sent(conn, 2));
        assert_eq!((wire.unsent(conn), wire.pending(conn)), (b"llo".as_slice(), 3));
        assert!(wire.sent(conn, 3), "the watch is owed once");
        assert_eq!((wire.pending(conn), wire.held(), wire.spare.len()), (0, 0, 1));
        wire.write(conn, |buf| buf.push(b'x'));
        assert_eq!((wire.spare.len(), wire.take_overfull()), (0, None));
        wire.write(conn, |buf| buf.extend_from_slice(b"too much"));
        wire.write(conn, |buf| buf.push(b'x'));
        assert_eq!((wire.take_overfull(), wire.take_overfull()), (Some(conn), None));
        wire.close(conn);
        assert_eq!((wire.pending(conn), wire.held()), (0, 0));
    }

    #[test]
    fn unacknowledged_stanzas_move_to_a_ghost_and_back() {
        let (first, ghost, second) =
            (ConnId { slot: 0, generation: 1 }, ConnId::ghost(0, 1), ConnId { slot: 1, generation: 1 });
        let mut wire = Wire::default();
        wire.limit(1000);
        wire.open(first);
        wire.write(first, |buf| buf.extend_from_slice(b"before"));
        wire.keep_unacked(first);
        for stanza in [b"<a/>", b"<b/>", b"<c/>"] {
            wire.stanza(first, |buf| buf.extend_from_slice(stanza));
        }
        assert!(wire.acknowledge(first, 1) && !wire.acknowledge(first, 4));
        assert!(wire.acknowledge(first, 0), "an old count is no error");
        wire.open(ghost);
        wire.hand_over(first, ghost);
        wire.close(first);
        wire.stanza(ghost, |buf| buf.extend_from_slice(b"<d/>"));
        assert_eq!((wire.pending(ghost), wire.held()), (0, 12));
        wire.open(second);
        wire.hand_over(ghost, second);
        wire.close(ghost);
        assert_eq!(wire.unsent(second), b"<b/><c/><d/>");
        let all: Vec<&[u8]> = wire.unacked(second).into_iter().flat_map(Unacked::iter).map(|(_, xml)| xml).collect();
        assert_eq!(all, [b"<b/>", b"<c/>", b"<d/>"]);
        assert!(wire.acknowledge(second, 4));
        assert!(!wire.sent(second, 12));
        assert_eq!(wire.held(), 0);
    }

    #[test]
    fn as_much_presence_is_kept_back_as_is_allowed() {
        let conn = ConnId { slot: 0, generation: 1 };
        let mut wire = Wire::default();
        wire.limit(1 << 20);
        wire.open(conn);
        wire.set_active(conn, false);
        let mut expected = Vec::new();
        for number in 0..=QUIET_PRESENCES_MAX {
            assert!(wire.unsent(conn).is_empty(), "{number}");
            for stanza in [b"<old/>", b"<new/>"] {
                wire.presence(conn, &number.to_string(), |buf| buf.extend_from_slice(stanza));
                if number == QUIET_PRESENCES_MAX {
                    break;
                }
            }
            expected.extend_from_slice(if number == QUIET_PRESENCES_MAX { b"<old/>" } else { b"<new/>" });
        }
        assert_eq!(wire.unsent(conn), expected, "the last of each, in order, and the one that was too many");
        assert_eq!(wire.held(), expected.len());
        wire.aside(conn, |buf| buf.extend_from_slice(b"<pong/>"));
        wire.presence(conn, "a", |buf| buf.extend_from_slice(b"<a/>"));
        wire.aside(conn, |buf| buf.extend_from_slice(b"<pong/>"));
        wire.stored_stanza(conn, |buf| buf.extend_from_slice(b"<stored/>"));
        assert!(wire.unsent(conn).ends_with(b"<pong/><pong/><a/><stored/>"));
    }

    #[test]
    fn counts_wrap() {
        let mut unacked = Unacked { acked: u32::MAX - 1, ..Unacked::default() };
        for _ in 0..4 {
            unacked.push(b"<a/>", (UtcTime(0), 0), Mark::None);
        }
        assert_eq!(unacked.sent(), 2);
        assert!(unacked.acknowledge(0) && unacked.entries.len() == 2);
        assert!(!unacked.acknowledge(3) && unacked.acknowledge(2) && unacked.is_empty());
    }
}
