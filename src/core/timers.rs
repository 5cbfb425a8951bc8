//! Deadlines: a small fixed table per stream plus one heap.
//!
//! A stream's table says what is due when; the heap only says when to look. An entry that the table no longer confirms (the
//! deadline was moved or dropped, or the connection is another one by now) does nothing, so nothing is ever searched for in the
//! heap, and activity on a connection costs no heap operation: its idle entry is put back when it comes up too early.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::core::effects::ConnId;

/// What a deadline of a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// The peer must have bound a resource.
    Login,
    /// The session may send again.
    Rate,
    /// The session has waited long enough for a slow receiver.
    Output,
    /// The answer to a failed login is sent.
    Penalty,
    /// The peer is asked whether it is there, or was asked and has not answered.
    Idle,
    /// The peer must have said which stanzas it has handled.
    Acknowledgement,
    /// The session must have been resumed.
    Resumption,
    /// What the store could not give is asked for again.
    Offline,
}

const KINDS: usize = Due::Offline as usize + 1;

/// The deadlines of one stream.
#[derive(Debug, Default)]
pub struct Deadlines([Option<Duration>; KINDS]);

impl Deadlines {
    /// When something is due.
    pub fn at(&self, due: Due) -> Option<Duration> {
        self.0[due as usize]
    }
    /// It is no longer.
    pub fn clear(&mut self, due: Due) {
        self.0[due as usize] = None;
    }
}

/// When to look at which stream.
#[derive(Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Duration, ConnId, Due)>>,
}

impl Timers {
    /// Sets a deadline, replacing an earlier one of that kind.
    pub fn set(&mut self, deadlines: &mut Deadlines, conn: ConnId, due: Due, at: Duration) {
        deadlines.0[due as usize] = Some(at);
        self.heap.push(Reverse((at, conn, due)));
    }

    /// Whether most entries must be of deadlines that are no more: a client that comes and goes leaves some each time.
    pub fn is_stale(&self, streams: usize) -> bool {
        self.heap.len() > 1024 + 4 * KINDS * streams
    }

    /// Forgets the entries that `confirms` does not know.
    pub fn prune(&mut self, mut confirms: impl FnMut(Duration, ConnId, Due) -> bool) {
        self.heap.retain(|Reverse((at, conn, due))| confirms(*at, *conn, *due));
    }

    /// When the next look is due.
    pub fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next entry that is due by `now`; the caller checks it against the stream's table.
    pub fn pop(&mut self, now: Duration) -> Option<(Duration, ConnId, Due)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}
