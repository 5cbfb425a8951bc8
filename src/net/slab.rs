//! What belongs to each connection, found by the token that the poller gives back.
//!
//! A [`ConnId`] is a slot and a generation. The generation is counted over the whole table, not per slot, so that slots can
//! be given back when a crowd has left without an old name ever meaning a new connection.

use mio::Token;

use crate::core::ConnId;

/// Bits of a [`Token`] that carry the slot; the rest carries as much of the generation as fits.
const SLOT_BITS: u32 = if usize::BITS >= 64 { 32 } else { 20 };
/// Tokens from here on are not connections: the waker and the listeners.
pub(super) const SLOTS_MAX: usize = (1 << 20) - 64;
/// Slots that are kept when nobody is there.
const IDLE_SLOTS: usize = 64;

/// Connections by slot.
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    generation: u32,
    len: usize,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new(), generation: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts in what `make` builds with its name; `None` if the table is full. An error of `make` leaves the table as it was.
    pub(super) fn insert<E>(&mut self, make: impl FnOnce(ConnId) -> Result<T, E>) -> Option<Result<ConnId, E>> {
        let slot = match self.free.last() {
            Some(slot) => *slot,
            None if self.slots.len() < SLOTS_MAX => self.slots.len() as u32,
            None => return None,
        };
        let id = ConnId { slot, generation: self.generation.wrapping_add(1) };
        let value = match make(id) {
            Ok(value) => Some(value),
            Err(error) => return Some(Err(error)),
        };

        self.generation = id.generation;
        let entry = Slot { generation: id.generation, value };
        match self.free.pop() {
            Some(slot) => self.slots[slot as usize] = entry,
            None => self.slots.push(entry),
        }
        self.len += 1;
        Some(Ok(id))
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?.value.as_mut()
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<T> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        let value = slot.value.take()?;
        self.free.push(id.slot);
        self.len -= 1;
        if self.len == 0 && self.slots.len() > IDLE_SLOTS {
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        Some(value)
    }

    /// The connection that a token means, if it is still there.
    pub(super) fn named(&self, token: Token) -> Option<ConnId> {
        let slot = (token.0 & ((1 << SLOT_BITS) - 1)) as u32;
        let entry = self.slots.get(slot as usize).filter(|entry| entry.value.is_some())?;
        let id = ConnId { slot, generation: entry.generation };
        (token_of(id) == token).then_some(id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ConnId> {
        let entries = self.slots.iter().zip(0u32..).filter(|(entry, _)| entry.value.is_some());
        entries.map(|(entry, slot)| ConnId { slot, generation: entry.generation })
    }
}

/// Where 32-bit machines cut the generation short, a stale event may reach a later connection of the slot. That costs one
/// read that would block, nothing else.
pub(super) fn token_of(id: ConnId) -> Token {
    Token(id.slot as usize | (id.generation as usize) << SLOT_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(slab: &mut Slab<&'static str>, value: &'static str) -> ConnId {
        slab.insert(|_| Ok::<_, ()>(value)).expect("room").expect("made")
    }

    #[test]
    fn names_are_never_used_twice() {
        let mut slab = Slab::new();
        let (a, b) = (put(&mut slab, "a"), put(&mut slab, "b"));
        assert_eq!((slab.named(token_of(a)), slab.get_mut(b).copied()), (Some(a), Some("b")));
        assert_eq!(slab.remove(a), Some("a"));
        assert_eq!((slab.remove(a), slab.named(token_of(a)), slab.len()), (None, None, 1));

        let c = put(&mut slab, "c");
        assert_eq!((c.slot, slab.get_mut(a).copied(), slab.named(token_of(a))), (a.slot, None, None));
        assert_eq!(slab.insert(|_| Err(())), Some(Err(())));
        assert_eq!(slab.ids().collect::<Vec<_>>(), [c, b]);
    }

    #[test]
    fn a_crowd_that_left_leaves_nothing() {
        let mut slab = Slab::new();
        let ids: Vec<_> = (0..1000).map(|_| put(&mut slab, "x")).collect();
        for id in &ids {
            slab.remove(*id);
        }
        assert_eq!((slab.slots.capacity(), slab.free.capacity()), (0, 0));
        let again = put(&mut slab, "y");
        assert!(ids.iter().all(|id| *id != again && slab.named(token_of(*id)).is_none()));
    }
}
