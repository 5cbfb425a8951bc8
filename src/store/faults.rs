//! A store that fails on demand.

use super::{Authenticator, Looked, Store};
use crate::core::effects::{StoreError, StoreReply, StoreRequest};

/// Wraps a store and lets chosen batches fail as a disk would: everything in them is answered with the error, nothing happens.
pub struct Faults<S> {
    inner: S,
    /// Batches until the fault, and what it is.
    due: Option<(u64, StoreError)>,
    /// Whether only batches that may write are counted and fail.
    writes_only: bool,
    applied: u64,
}

impl<S: Store> Faults<S> {
    /// Without faults so far.
    pub fn new(inner: S) -> Faults<S> {
        Faults { inner, due: None, writes_only: false, applied: 0 }
    }

    /// The `n`-th batch from now, counted from 1, fails once with `error`.
    pub fn fail_nth(&mut self, n: u64, error: StoreError) {
        (self.due, self.writes_only) = (Some((n.max(1), error)), false);
    }

    /// Like [`Faults::fail_nth`], but only batches count that may write.
    pub fn fail_nth_write(&mut self, n: u64, error: StoreError) {
        (self.due, self.writes_only) = (Some((n.max(1), error)), true);
    }

    /// Whether the fault that was asked for is still to come.
    pub fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// How many batches were let through.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The store behind.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The store behind, to keep.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Store> Store for Faults<S> {
    fn apply(&mut self, batch: &[StoreRequest]) -> Vec<StoreReply> {
        if let Some((left, error)) = &mut self.due
            && (!self.writes_only || batch.iter().any(StoreRequest::may_write))
        {
            *left -= 1;
            if *left == 0 {
                let error = *error;
                self.due = None;
                return batch.iter().map(|_| Err(error)).collect();
            }
        }
        self.applied += 1;
        self.inner.apply(batch)
    }
    fn secret(&self) -> [u8; 32] {
        self.inner.secret()
    }
    fn set_authenticator(&mut self, authenticator: Box<dyn Authenticator>) {
        self.inner.set_authenticator(authenticator);
    }
    fn look_over(&mut self) -> Looked {
        self.inner.look_over()
    }
}
