//! Carries out the core's [`StoreRequest`]s: what must last goes to one redb file, in the order it was asked for.
//!
//! What a request means is written once (`apply` and the files of the features) over a transaction of a few tables, which
//! [`RedbStore`] and [`MemoryStore`] provide. [`StoreThread`] keeps all of it off the loop: it takes whatever has queued as one
//! batch with one commit, and hashes passwords between two batches.
//!
//! What is committed is on the disk: in the file, or in a journal beside it that small commits go to first (`disk`, `journal`).
//!
//! Deliberately absent: a cache beside redb's own, reads by a second thread, any decision that the core could take.

mod account;
mod apply;
mod archive;
#[cfg(test)]
mod archive_tests;
mod avatar;
mod bridges;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
mod disk;
mod faults;
mod journal;
mod look;
mod mark;
mod memory;
mod nickname;
mod offline;
mod pubsub;
mod recent;
mod records;
mod redb;
mod reports;
mod rooms;
mod roster;
mod schema;
mod sessions;
mod sum;
#[cfg(test)]
mod tests;
mod thread;
mod tokens;

pub use faults::Faults;
pub use memory::MemoryStore;
pub use records::{RECORD_KINDS, rewritten};
pub use thread::{StoreCounters, StoreThread};

pub use self::redb::{OpenCause, OpenError, RedbStore, journal_path};
use crate::core::effects::{StoreReply, StoreRequest};

/// Something that keeps what must last.
pub trait Store: Send {
    /// Carries out requests in order; there is one reply for each, in the same order.
    ///
    /// The writes of one batch are durable together, and before this returns. The slow requests
    /// ([`StoreRequest::is_slow`]) are the exception: each has a commit of its own, so that no transaction waits for a hash. If
    /// the commit fails, every request that wrote, and every one behind it that may have read what was written, is answered with
    /// the failure, and nothing of them has happened. A batch that only reads opens no write transaction.
    fn apply(&mut self, batch: &[StoreRequest]) -> Vec<StoreReply>;

    /// A random value that stays the same for the life of the data: what must look stable to strangers is derived from it, such
    /// as the salts of accounts that do not exist.
    fn secret(&self) -> [u8; 32];

    /// From now on passwords are checked by `authenticator`, and no password keys are given out or kept.
    fn set_authenticator(&mut self, authenticator: Box<dyn Authenticator>);

    /// Goes on with a look at everything that is stored, for some milliseconds at most. Called while there is nothing else to
    /// do, until it is done.
    fn look_over(&mut self) -> Looked {
        Looked { is_done: true, ..Looked::default() }
    }
}

/// What a look at everything that is stored has found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Rows looked at.
    pub rows: u64,
    /// How many of them are not what was stored.
    pub damaged: u64,
    /// There is nothing left to look at.
    pub is_done: bool,
}

/// Somebody else who knows the users: the program that embeds the server.
pub trait Authenticator: Send {
    /// Whether this is the password of that user, named by bare JID. Called on the storage thread: it may take its time, and
    /// the only one that waits for it is who logs in (and who does so behind them).
    fn verify(&mut self, user: &str, password: &str) -> bool;
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn apply(&mut self, batch: &[StoreRequest]) -> Vec<StoreReply> {
        (**self).apply(batch)
    }
    fn secret(&self) -> [u8; 32] {
        (**self).secret()
    }
    fn set_authenticator(&mut self, authenticator: Box<dyn Authenticator>) {
        (**self).set_authenticator(authenticator);
    }
    fn look_over(&mut self) -> Looked {
        (**self).look_over()
    }
}
