//! The storage thread: takes what has queued, one transaction, one sync, wakes the loop.
//!
//! Requests are answered in the order in which they were sent, but for those that hash a password
//! ([`StoreRequest::is_slow`]): they have a queue of their own, in order among themselves, and one of them is carried out
//! between two batches. So a flood of log-ins delays a commit by one hash at most, and a steady flow of writes does not keep
//! anybody from logging in.
//!
//! While nothing is asked the thread looks over what is stored, once and a little at a time ([`Store::look_over`]).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Looked, Store};
use crate::core::effects::{StoreError, StoreReply, StoreRequest, Ticket};

/// Requests of one transaction. Beyond it a commit gets no cheaper a row, only later.
const BATCH_MAX: usize = 4096;

/// Time without a request after which the look over what is stored goes a step further.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// What the storage thread has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Requests answered.
    pub requests: u64,
    /// Batches of them that had something to write; what is written in one is committed and synced once.
    pub commits: u64,
    /// Requests answered with [`StoreError::DiskFull`] or [`StoreError::Failed`].
    pub failures: u64,
    /// Rows that were looked at since the start, if that was called for.
    pub looked_at: u64,
    /// How many of them are damaged.
    pub damaged: u64,
}

/// A store on a thread of its own.
pub struct StoreThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    gather: Duration,
    queue: Mutex<Queue>,
    /// Signalled when something was queued or the queue was closed.
    queued: Condvar,
    replies: Mutex<Vec<(Ticket, StoreReply)>>,
    requests: AtomicU64,
    commits: AtomicU64,
    failures: AtomicU64,
    looked_at: AtomicU64,
    damaged: AtomicU64,
    is_looked_over: AtomicBool,
}

#[derive(Default)]
struct Queue {
    quick: VecDeque<(Ticket, StoreRequest)>,
    slow: VecDeque<(Ticket, StoreRequest)>,
    /// Quick ones for whose answer somebody is not read.
    urgent: usize,
    is_closed: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.quick.is_empty() && self.slow.is_empty()
    }

    /// Whether what is there is better carried out with what may yet come.
    fn may_wait(&self) -> bool {
        self.urgent == 0 && self.slow.is_empty() && !self.is_closed && self.quick.len() < BATCH_MAX
    }
}

/// Nothing panics while it holds one of these locks, so what is behind them is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StoreThread {
    /// Starts the thread. It calls `wake` after it has published replies.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn(store: Box<dyn Store>, wake: impl Fn() + Send + 'static) -> std::io::Result<StoreThread> {
        StoreThread::spawn_gathering(store, Duration::ZERO, wake)
    }

    /// Starts the thread, which waits for `gather` when it is asked for nothing but what may wait
    /// ([`StoreRequest::may_wait`]), so that fewer and larger commits spare the disk.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn_gathering(
        store: Box<dyn Store>,
        gather: Duration,
        wake: impl Fn() + Send + 'static,
    ) -> std::io::Result<StoreThread> {
        let shared = Arc::new(Shared { gather, ..Shared::default() });
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || theirs.run(store, &wake))?;
        Ok(StoreThread { shared, thread: Some(thread) })
    }

    /// Queues requests, and leaves the vector empty. Never waits; how many may be queued is the core's bound
    /// (`Limits::store_queue_max`, `Limits::hash_queue_max`).
    pub fn send(&self, requests: &mut Vec<(Ticket, StoreRequest)>) {
        if requests.is_empty() {
            return;
        }
        let mut queue = lock(&self.shared.queue);
        let was_empty = queue.is_empty();
        for request in requests.drain(..) {
            if request.1.is_slow() {
                queue.slow.push_back(request);
            } else {
                queue.urgent += usize::from(!request.1.may_wait());
                queue.quick.push_back(request);
            }
        }
        // Who gathers looks at the time by himself.
        let is_expected = was_empty || !queue.may_wait();
        drop(queue);
        if is_expected {
            self.shared.queued.notify_one();
        }
    }

    /// Appends the replies that have come since the last call.
    pub fn take_replies(&self, replies: &mut Vec<(Ticket, StoreReply)>) {
        replies.append(&mut lock(&self.shared.replies));
    }

    /// What was done so far.
    pub fn counters(&self) -> StoreCounters {
        StoreCounters {
            requests: self.shared.requests.load(Ordering::Relaxed),
            commits: self.shared.commits.load(Ordering::Relaxed),
            failures: self.shared.failures.load(Ordering::Relaxed),
            looked_at: self.shared.looked_at.load(Ordering::Relaxed),
            damaged: self.shared.damaged.load(Ordering::Relaxed),
        }
    }

    /// Carries out all that is queued, closes the store and ends the thread. Replies that nobody took are dropped.
    pub fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        lock(&self.shared.queue).is_closed = true;
        self.shared.queued.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("store: the storage thread has panicked");
        }
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn run(&self, mut store: Box<dyn Store>, wake: &dyn Fn()) {
        let (mut tickets, mut batch) = (Vec::new(), Vec::new());
        while let Some(slow) = self.take(&mut *store, &mut tickets, &mut batch) {
            self.carry_out(&mut *store, &mut tickets, &mut batch, wake);
            if let Some((ticket, request)) = slow {
                tickets.push(ticket);
                batch.push(request);
                self.carry_out(&mut *store, &mut tickets, &mut batch, wake);
            }
        }
    }

    /// Waits for requests, and takes what is there: quick ones and at most one slow one. `None` when all is done and closed.
    fn take(
        &self,
        store: &mut dyn Store,
        tickets: &mut Vec<Ticket>,
        batch: &mut Vec<StoreRequest>,
    ) -> Option<Option<(Ticket, StoreRequest)>> {
        let mut queue = lock(&self.queue);
        while queue.is_empty() {
            if queue.is_closed {
                return None;
            }
            if self.is_looked_over.load(Ordering::Relaxed) {
                queue = self.queued.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.queued.wait_timeout(queue, LOOK_PAUSE);
            let (guard, time) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            if time.timed_out() && queue.is_empty() {
                drop(queue);
                self.look(store);
                queue = lock(&self.queue);
            }
        }
        if !self.gather.is_zero() {
            let until = Instant::now() + self.gather;
            while queue.may_wait()
                && let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            {
                queue = self.queued.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let taken = queue.quick.len().min(BATCH_MAX);
        let Queue { quick, urgent, .. } = &mut *queue;
        for (ticket, request) in quick.drain(..taken) {
            *urgent -= usize::from(!request.may_wait());
            tickets.push(ticket);
            batch.push(request);
        }
        Some(queue.slow.pop_front())
    }

    fn look(&self, store: &mut dyn Store) {
        let looked = catch_unwind(AssertUnwindSafe(|| store.look_over())).unwrap_or_else(|_| {
            log::error!("store: looking over what is stored has panicked");
            Looked { is_done: true, ..Looked::default() }
        });
        self.looked_at.store(looked.rows, Ordering::Relaxed);
        self.damaged.store(looked.damaged, Ordering::Relaxed);
        self.is_looked_over.store(looked.is_done, Ordering::Relaxed);
    }

    /// One batch, and empties it.
    fn carry_out(
        &self,
        store: &mut dyn Store,
        tickets: &mut Vec<Ticket>,
        batch: &mut Vec<StoreRequest>,
        wake: &dyn Fn(),
    ) {
        if batch.is_empty() {
            return;
        }
        let mut answers = catch_unwind(AssertUnwindSafe(|| store.apply(batch))).unwrap_or_else(|_| {
            log::error!("store: carrying out a batch of {} requests has panicked", batch.len());
            Vec::new()
        });
        debug_assert!(answers.is_empty() || answers.len() == batch.len(), "one reply for each request");
        // Somebody waits for each of them.
        answers.resize_with(batch.len(), || Err(StoreError::Failed));
        let failures = answers.iter().filter(|answer| matches!(answer, Err(StoreError::DiskFull | StoreError::Failed)));
        self.failures.fetch_add(failures.count() as u64, Ordering::Relaxed);
        self.requests.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.commits.fetch_add(batch.iter().any(StoreRequest::may_write).into(), Ordering::Relaxed);
        batch.clear();
        lock(&self.replies).extend(tickets.drain(..).zip(answers));
        wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::super::tests::{create, jid, memory, offline, put, show};
    use super::super::{Authenticator, MemoryStore};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A store that tells of each batch and carries it out when it is let.
    struct Gate {
        inner: MemoryStore,
        begun: Sender<usize>,
        go: Receiver<()>,
    }

    impl Store for Gate {
        fn apply(&mut self, batch: &[StoreRequest]) -> Vec<StoreReply> {
            let _ = self.begun.send(batch.len());
            let _ = self.go.recv_timeout(PATIENCE);
            assert!(!batch.iter().any(|request| matches!(request, StoreRequest::Accounts { .. })), "asked to panic");
            self.inner.apply(batch)
        }
        fn secret(&self) -> [u8; 32] {
            self.inner.secret()
        }
        fn set_authenticator(&mut self, _: Box<dyn Authenticator>) {}
    }

    struct Bench {
        thread: StoreThread,
        begun: Receiver<usize>,
        go: Sender<()>,
        woken: Receiver<()>,
        next: u64,
    }

    impl Bench {
        fn new() -> Bench {
            Bench::gathering(Duration::ZERO)
        }

        fn gathering(gather: Duration) -> Bench {
            let ((begun_in, begun), (go, go_out), (wake, woken)) = (channel(), channel(), channel());
            let store = Gate { inner: memory(), begun: begun_in, go: go_out };
            let wake = move || {
                let _ = wake.send(());
            };
            let thread = StoreThread::spawn_gathering(Box::new(store), gather, wake).expect("a thread");
            Bench { thread, begun, go, woken, next: 0 }
        }

        fn send(&mut self, requests: impl IntoIterator<Item = StoreRequest>) {
            let mut tickets = Vec::new();
            for request in requests {
                tickets.push((Ticket(self.next), request));
                self.next += 1;
            }
            self.thread.send(&mut tickets);
            assert!(tickets.is_empty());
        }

        /// Waits until a batch has begun; its size.
        fn begun(&self) -> usize {
            self.begun.recv_timeout(PATIENCE).expect("a batch")
        }

        /// Lets the batch go on and waits for its replies.
        fn finish(&self) -> String {
            self.go.send(()).expect("the store is there");
            self.woken.recv_timeout(PATIENCE).expect("woken");
            let mut replies = Vec::new();
            self.thread.take_replies(&mut replies);
            let lines: Vec<String> =
                replies.iter().map(|(ticket, reply)| format!("{}={}", ticket.0, show(reply))).collect();
            lines.join(" ")
        }
    }

    #[test]
    fn batches() {
        let mut bench = Bench::new();
        bench.send([create("a")]);
        assert_eq!(bench.begun(), 1);
        // While that is being done, others come: three quick ones around two slow ones.
        bench.send([offline("a", "one"), create("b"), offline("b", "two")]);
        bench.send([create("b"), offline("a", "three")]);
        assert_eq!(bench.finish(), "0=done");
        // All the quick ones make one batch, overtaking what is slow; b is not there yet.
        assert_eq!((bench.begun(), bench.finish().as_str()), (3, "1=done 3=NoAccount 5=done"));
        // What came meanwhile goes before the second slow one.
        assert_eq!(bench.begun(), 1);
        bench.send([offline("b", "four")]);
        assert_eq!(bench.finish(), "2=done");
        assert_eq!((bench.begun(), bench.finish().as_str()), (1, "6=done"));
        assert_eq!((bench.begun(), bench.finish().as_str()), (1, "4=Conflict"));
        assert_eq!(bench.thread.counters(), StoreCounters { requests: 7, commits: 5, ..StoreCounters::default() });
    }

    #[test]
    fn a_batch_is_bounded() {
        let mut bench = Bench::new();
        bench.send([create("a")]);
        bench.begun();
        bench.send((0..BATCH_MAX + 1).map(|_| put("a", "b", "")));
        bench.finish();
        assert_eq!(bench.begun(), BATCH_MAX);
        bench.finish();
        assert_eq!((bench.begun(), bench.finish().as_str()), (1, "4097=a 1 none>none | kept | -"));
    }

    #[test]
    fn what_may_wait_waits_for_others() {
        // Longer than the test's patience: what ends it is never the time.
        let mut bench = Bench::gathering(10 * PATIENCE);
        bench.send([create("a")]);
        assert_eq!((bench.begun(), bench.finish().as_str()), (1, "0=done"));
        // Messages alone are gathered, until somebody waits for an answer,
        bench.send([offline("a", "one")]);
        bench.send([offline("a", "two")]);
        bench.send([StoreRequest::Activate { user: jid("b") }]);
        assert_eq!((bench.begun(), bench.finish().as_str()), (3, "1=done 2=done 3=NoAccount"));
        // a password is to be checked,
        bench.send([offline("a", "three")]);
        bench.send([create("b")]);
        assert_eq!((bench.begun(), bench.finish().as_str()), (1, "4=done"));
        assert_eq!((bench.begun(), bench.finish().as_str()), (1, "5=done"));
        // there are many,
        bench.send((0..BATCH_MAX).map(|_| offline("nobody", "x")));
        assert_eq!(bench.begun(), BATCH_MAX);
        bench.finish();
        // or it is the end.
        bench.send([offline("a", "four")]);
        bench.go.send(()).expect("the store is there");
        bench.thread.close();
        assert_eq!(bench.begun.try_iter().collect::<Vec<_>>(), [1]);
        // Alone it waits for its time.
        let mut bench = Bench::gathering(Duration::from_millis(1));
        bench.send([offline("a", "five")]);
        assert_eq!((bench.begun(), bench.finish().as_str()), (1, "0=NoAccount"));
    }

    #[test]
    fn a_panic_is_answered() {
        let mut bench = Bench::new();
        bench.send([StoreRequest::Accounts { domain: "x".to_owned(), after: None, max: 1 }]);
        assert_eq!((bench.begun(), bench.finish().as_str()), (1, "0=Failed"));
        bench.send([StoreRequest::Activate { user: jid("a") }]);
        assert_eq!((bench.begun(), bench.finish().as_str()), (1, "1=NoAccount"));
        assert_eq!(bench.thread.counters().failures, 1);
    }

    #[test]
    fn closing_carries_out_what_is_queued() {
        let mut bench = Bench::new();
        bench.send([create("a")]);
        assert_eq!(bench.begun(), 1);
        bench.send([offline("a", "one"), create("b"), create("c")]);
        (0..4).for_each(|_| bench.go.send(()).expect("the store is there"));
        bench.thread.close();
        assert_eq!(bench.begun.try_iter().collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(bench.woken.try_iter().count(), 4);
        // The store went with its thread.
        bench.go.send(()).expect_err("closed");
    }
}
