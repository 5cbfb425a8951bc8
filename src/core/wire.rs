//! Bytes on their way out, per connection.

use crate::core::effects::ConnId;

/// Buffers kept for reuse when a connection has been flushed, so that an idle connection owns none.
const SPARE_BUFFERS_MAX: usize = 64;
/// A buffer that has grown beyond this is given back to the allocator.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// Output of every connection. The core appends, the loop sends from the front and tells with [`Wire::sent`].
///
/// Writing marks a connection dirty; the loop takes the dirty list once per turn, so no code has to remember to ask for
/// writability. What is written to a connection that is no longer there is dropped.
#[derive(Default)]
pub struct Wire {
    slots: Vec<Slot>,
    dirty: Vec<ConnId>,
    spare: Vec<Vec<u8>>,
    held: usize,
    /// Connections that have more waiting than they may.
    overfull: Vec<ConnId>,
    bytes_max: usize,
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
}

impl Wire {
    /// A connection exists from now on. Called by the loop before [`super::Input::Opened`].
    pub fn open(&mut self, conn: ConnId) {
        let index = conn.slot as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        self.slots[index] = Slot { open: Some(conn.generation), ..Slot::default() };
    }

    /// A connection is gone; what is unsent is dropped.
    pub fn close(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot(conn) {
            let buf = std::mem::take(&mut slot.buf);
            let unsent = buf.len() - slot.sent;
            *slot = Slot::default();
            self.held -= unsent;
            self.keep(buf);
        }
    }

    /// Bytes that may wait for one connection; set by the core.
    pub(super) fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// A connection that has come to hold more than it may, once.
    pub(super) fn take_overfull(&mut self) -> Option<ConnId> {
        self.overfull.pop()
    }

    /// Runs `write` on the connection's buffer. Nothing happens if the connection is gone.
    pub fn write(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(slot) = self.slots.get_mut(conn.slot as usize).filter(|slot| slot.open == Some(conn.generation))
        else {
            return;
        };
        if slot.buf.capacity() == 0
            && let Some(buf) = self.spare.pop()
        {
            slot.buf = buf;
        }
        let before = slot.buf.len();
        write(&mut slot.buf);
        self.held += slot.buf.len() - before;
        if slot.buf.len() - slot.sent > self.bytes_max && !slot.overfull {
            slot.overfull = true;
            self.overfull.push(conn);
        }
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(conn);
        }
    }

    /// Bytes that wait for a connection.
    pub fn pending(&self, conn: ConnId) -> usize {
        self.slots
            .get(conn.slot as usize)
            .filter(|slot| slot.open == Some(conn.generation))
            .map_or(0, |slot| slot.buf.len() - slot.sent)
    }

    /// Bytes that wait for all connections together.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Asks for one [`super::Input::Flushed`] when all that is written so far, and what comes before it is sent, has been taken
    /// by the operating system.
    pub fn watch(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot(conn) {
            slot.watched = true;
            if !slot.dirty {
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
            if let Some(slot) = self.slots.get_mut(conn.slot as usize).filter(|slot| slot.open == Some(conn.generation))
            {
                slot.dirty = false;
            }
        }
    }

    /// What waits for a connection.
    pub fn unsent(&self, conn: ConnId) -> &[u8] {
        self.slots
            .get(conn.slot as usize)
            .filter(|slot| slot.open == Some(conn.generation))
            .map_or(&[], |slot| &slot.buf[slot.sent..])
    }

    /// The first `count` bytes of [`Wire::unsent`] were taken by the operating system (or by TLS, which then owes them).
    /// Returns whether the connection was watched and is now empty: the caller owes an [`super::Input::Flushed`].
    #[must_use]
    pub fn sent(&mut self, conn: ConnId, count: usize) -> bool {
        let Some(slot) = self.slot(conn) else { return false };
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

    fn slot(&mut self, conn: ConnId) -> Option<&mut Slot> {
        self.slots.get_mut(conn.slot as usize).filter(|slot| slot.open == Some(conn.generation))
    }

    fn keep(&mut self, mut buf: Vec<u8>) {
        if buf.capacity() > 0 && buf.capacity() <= SPARE_BYTES_MAX && self.spare.len() < SPARE_BUFFERS_MAX {
            buf.clear();
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
}
