//! Space that the loop lends to the connection it is working on, so that an idle connection owns none.

/// What is read from a socket at once.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// Space that has grown beyond this is given back after the turn.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// A buffer that stays allocated (and initialised) while it is filled and emptied.
#[derive(Default)]
pub(super) struct Filling {
    bytes: Vec<u8>,
    len: usize,
}

impl Filling {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// At least `count` bytes behind what is filled, to be written to; [`Filling::advance`] says how many were.
    pub(super) fn room(&mut self, count: usize) -> &mut [u8] {
        let needed = self.len + count;
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
        &mut self.bytes[self.len..]
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.len += count;
        assert!(self.len <= self.bytes.len(), "more was filled than there was room");
    }

    pub(super) fn extend(&mut self, more: &[u8]) {
        self.room(more.len())[..more.len()].copy_from_slice(more);
        self.advance(more.len());
    }

    fn trim(&mut self) {
        self.len = 0;
        if self.bytes.len() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }
}

/// The loop's space for one connection at a time.
#[derive(Default)]
pub(super) struct Scratch {
    /// As it came from the socket, where TLS is on.
    pub(super) cipher: Filling,
    /// What the core is offered.
    pub(super) plain: Filling,
    /// Encrypted output.
    pub(super) out: Filling,
}

impl Scratch {
    /// Forgets what the last connection left.
    pub(super) fn clear(&mut self) {
        self.cipher.clear();
        self.plain.clear();
        self.out.clear();
    }

    /// Gives back what a large connection made grow. Called once per turn.
    pub(super) fn trim(&mut self) {
        self.cipher.trim();
        self.plain.trim();
        self.out.trim();
    }
}
