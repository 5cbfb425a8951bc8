//! The loop. One turn: wait, take in what came (connections, store replies, commands, deadlines), serve every connection that
//! has something to read, flush every one that has something to send.
//!
//! Readiness is edge-triggered and a socket stays registered for reading as long as it lives, so a message costs no system
//! call but its read and its write. What an edge announced and a turn did not finish is on a list of the loop's own
//! (`ready`, `flushes`, a listener's `is_ready`); while such a list is not empty the poller is not waited for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use rustls::crypto::CryptoProvider;

use super::certificates::Certificates;
use super::conn::Conn;
use super::engine::Engine;
use super::listen::{ACCEPTS_PER_TURN, Accepted, Admission, Full, Listener};
use super::scratch::Scratch;
use super::slab::{Slab, token_of};
use super::tls::Acceptor;
use crate::config::Limits;
use crate::core::{
    Answer, CloseReason, Command, CommandId, ConnId, ConnOrder, Core, Delivered, Input, ListenerKind, Now, StoreReply,
    StoreRequest, Ticket, UtcTime,
};
use crate::store::StoreThread;

/// What the poller reports at once.
const EVENTS_MAX: usize = 1024;
const WAKER: Token = Token(usize::MAX);
/// Listeners count down from here.
const LISTENERS: usize = usize::MAX - 1;
/// TLS handshakes that go on in one turn: each costs up to a millisecond, and those inside wait.
const HANDSHAKES_PER_TURN: usize = 16;
/// Commands of the host taken in one turn, and waiting for an answer.
const COMMANDS_MAX: usize = 256;
/// Between two looks at the certificates.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(60);
/// Time for a shutdown.
const STOP_TIME: Duration = Duration::from_secs(5);
/// Of which peers have this to close their side, once all is said.
const STOP_LINGER: Duration = Duration::from_secs(1);

/// What another thread asks of the loop, after which it wakes it with the [`Waker`].
#[derive(Debug)]
pub(crate) enum Request {
    Command(Command, Sender<Answer>),
    Reload,
    Stop,
}

/// What the host does with every message that was delivered or kept.
pub type OnDelivered = Box<dyn FnMut(&Delivered) + Send>;

/// What a loop is made of.
pub(crate) struct Parts {
    pub(crate) poll: Poll,
    pub(crate) core: Core,
    pub(crate) store: StoreThread,
    pub(crate) limits: Limits,
    pub(crate) certificates: Certificates,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) requests: Receiver<Request>,
    pub(crate) on_delivered: Option<OnDelivered>,
}

/// The loop and all that it owns.
pub(crate) struct Loop {
    pub(super) poll: Poll,
    events: Events,
    clock: Clock,
    pub(super) engine: Engine,
    /// `None` once it is closed.
    pub(super) store: Option<StoreThread>,
    /// Store requests of this turn.
    pub(super) asked: Vec<(Ticket, StoreRequest)>,
    replies: Vec<(Ticket, StoreReply)>,
    pub(super) limits: Limits,
    certificates: Certificates,
    pub(super) acceptor: Acceptor,
    provider: Arc<CryptoProvider>,
    certificates_at: Duration,
    listeners: Vec<Listener>,
    pub(super) admission: Admission,
    is_full_said: bool,
    pub(super) conns: Slab<Conn>,
    pub(super) scratch: Scratch,
    /// Connections that have something to read or to be offered.
    pub(super) ready: Vec<ConnId>,
    serving: Vec<ConnId>,
    pub(super) handshakes_left: usize,
    /// Connections that have something to send, beside those that the core wrote to.
    pub(super) flushes: Vec<ConnId>,
    dirty: Vec<ConnId>,
    pub(super) orders: VecDeque<ConnOrder>,
    pub(super) timers: BinaryHeap<Reverse<(Duration, ConnId)>>,
    /// Bytes unread over all connections.
    pub(super) unread: usize,
    requests: Receiver<Request>,
    pub(super) answers_to: Vec<(CommandId, Sender<Answer>)>,
    commands: u64,
    pub(super) on_delivered: Option<OnDelivered>,
    stops_at: Option<Duration>,
    /// An administrator wants the end.
    pub(super) is_stop_due: bool,
}

impl Loop {
    /// # Errors
    /// The poller does not take the listeners, or TLS cannot be set up.
    pub(crate) fn new(mut parts: Parts) -> io::Result<Loop> {
        for (index, listener) in parts.listeners.iter_mut().enumerate() {
            parts.poll.registry().register(&mut listener.socket, Token(LISTENERS - index), Interest::READABLE)?;
        }
        let clock = Clock { start: Instant::now() };
        if parts.on_delivered.is_some() {
            parts.core.observe(true);
        }
        Ok(Loop {
            poll: parts.poll,
            events: Events::with_capacity(EVENTS_MAX),
            engine: Engine::new(parts.core, clock.now()),
            clock,
            store: Some(parts.store),
            asked: Vec::new(),
            replies: Vec::new(),
            admission: Admission::new(&parts.limits),
            limits: parts.limits,
            acceptor: Acceptor::new(&parts.certificates, &parts.provider).map_err(io::Error::other)?,
            certificates: parts.certificates,
            provider: parts.provider,
            certificates_at: CERTIFICATES_EVERY,
            listeners: parts.listeners,
            is_full_said: false,
            conns: Slab::new(),
            scratch: Scratch::default(),
            ready: Vec::new(),
            serving: Vec::new(),
            handshakes_left: 0,
            flushes: Vec::new(),
            dirty: Vec::new(),
            orders: VecDeque::new(),
            timers: BinaryHeap::new(),
            unread: 0,
            requests: parts.requests,
            answers_to: Vec::new(),
            commands: 0,
            on_delivered: parts.on_delivered,
            stops_at: None,
            is_stop_due: false,
        })
    }

    /// What wakes the loop from another thread, by its token.
    ///
    /// # Errors
    /// The system has none.
    pub(crate) fn waker(poll: &Poll) -> io::Result<Arc<Waker>> {
        Ok(Arc::new(Waker::new(poll.registry(), WAKER)?))
    }

    /// Waits at most `longest` for something to happen and does all there is to do. Returns whether the server still runs.
    ///
    /// # Errors
    /// The poller fails, which no known system does.
    pub(crate) fn turn(&mut self, longest: Option<Duration>) -> io::Result<bool> {
        let due = self.next_due();
        let timeout = longest.map_or(due, |longest| Some(due.map_or(longest, |due| due.min(longest))));
        self.events.clear();
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }

        self.engine.now = self.clock.now();
        if self.note_events() {
            self.take_replies();
            self.take_requests();
        }
        self.accept();
        self.meet_deadlines();
        if std::mem::take(&mut self.is_stop_due) {
            self.stop();
        }
        self.serve_ready();
        // The disk works while the sockets are written to.
        self.ask_store();
        self.flush_dirty();
        self.ask_store();
        self.scratch.trim();
        Ok(!self.is_stopped())
    }

    /// How long there is nothing to do unless something happens.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        if !self.ready.is_empty() || !self.flushes.is_empty() {
            return Some(Duration::ZERO);
        }
        let listeners = self.listeners.iter().filter(|listener| listener.is_ready);
        let listeners = listeners.map(|listener| listener.rests_until.unwrap_or(Duration::ZERO));
        let next = [self.engine.next_deadline(), self.timers.peek().map(|Reverse((at, _))| *at), self.stops_at]
            .into_iter()
            .flatten()
            .chain(listeners)
            .fold(self.certificates_at, Duration::min);
        Some(next.saturating_sub(self.clock.start.elapsed()))
    }

    /// Addresses listened on, with the port that the system chose where none was given.
    pub(crate) fn local_addrs(&self) -> Vec<(ListenerKind, SocketAddr)> {
        let addresses = self.listeners.iter().map(|listener| Some((listener.kind, listener.socket.local_addr().ok()?)));
        addresses.flatten().collect()
    }

    /// Puts every connection that has an event on its list. Returns whether another thread has something.
    fn note_events(&mut self) -> bool {
        let mut is_woken = false;
        for event in &self.events {
            let token = event.token();
            if token == WAKER {
                is_woken = true;
            } else if let Some(id) = self.conns.named(token) {
                let Some(conn) = self.conns.get_mut(id) else { continue };
                if event.is_writable() && conn.is_blocked {
                    self.flushes.push(id);
                }
                let is_closed = event.is_read_closed() || event.is_error();
                if event.is_readable() || is_closed {
                    conn.is_hung_up |= is_closed;
                    conn.is_readable = true;
                    if !conn.is_queued {
                        conn.is_queued = true;
                        self.ready.push(id);
                    }
                }
            } else if let Some(listener) =
                LISTENERS.checked_sub(token.0).and_then(|index| self.listeners.get_mut(index))
            {
                listener.is_ready = true;
            }
        }
        is_woken
    }

    fn accept(&mut self) {
        let now = self.engine.now.mono;
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                let Some(listener) = self.listeners.get_mut(index) else { return };
                if !listener.is_ready || listener.rests_until.is_some_and(|until| until > now) {
                    break;
                }
                listener.rests_until = None;
                let kind = listener.kind;
                match listener.accept(now, &self.limits) {
                    Accepted::Conn(stream, peer) => self.open(stream, peer, kind),
                    Accepted::Nothing => {}
                    Accepted::Empty => break,
                }
            }
        }
    }

    /// Lets a connection in, or drops it.
    fn open(&mut self, stream: TcpStream, peer: IpAddr, listener: ListenerKind) {
        match self.admission.enter(peer) {
            Ok(()) => self.is_full_said = false,
            Err(Full::Address) => {
                log::debug!("{peer} has too many connections, one more is refused");
                return;
            }
            Err(Full::Server) => {
                if !std::mem::replace(&mut self.is_full_said, true) {
                    log::warn!("all {} connections are taken, further ones are refused", self.limits.connections_max);
                }
                return;
            }
        }
        let Loop { conns, acceptor, poll, .. } = self;
        let inserted = conns.insert(|id| {
            let session = match listener {
                ListenerKind::Tls => Some(acceptor.accept(None).map_err(io::Error::other)?),
                ListenerKind::StartTls | ListenerKind::Plain => None,
            };
            let mut conn = Conn::new(stream, peer, session);
            poll.registry().register(conn.socket_mut(), token_of(id), Interest::READABLE)?;
            Ok::<_, io::Error>(conn)
        });
        match inserted {
            Some(Ok(conn)) => {
                self.engine.out.wire.open(conn);
                self.step(conn, Input::Opened { conn, listener, peer });
            }
            Some(Err(error)) => {
                log::warn!("a connection from {peer} cannot be served: {error}");
                self.admission.leave(peer);
            }
            None => self.admission.leave(peer),
        }
    }

    fn take_replies(&mut self) {
        let mut replies = std::mem::take(&mut self.replies);
        if let Some(store) = &self.store {
            store.take_replies(&mut replies);
        }
        for (ticket, reply) in replies.drain(..) {
            // A panic here has no connection to close; it is logged, and what it had put out is carried out.
            let _ = self.engine.step(Input::Stored { ticket, reply });
            self.settle();
        }
        self.replies = replies;
    }

    fn ask_store(&mut self) {
        if let Some(store) = &self.store {
            store.send(&mut self.asked);
        }
    }

    /// What other threads ask for. The channel is emptied, since its sender does not wake the loop twice.
    fn take_requests(&mut self) {
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Command(..) if self.answers_to.len() >= COMMANDS_MAX => {
                    log::warn!("too many commands wait for an answer; one is dropped");
                }
                Request::Command(command, answer_to) => {
                    self.commands += 1;
                    let id = CommandId(self.commands);
                    self.answers_to.push((id, answer_to));
                    if self.engine.step(Input::Command { id, command }).is_err() {
                        self.answers_to.retain(|(waiting, _)| *waiting != id);
                    }
                    self.settle();
                }
                Request::Reload => self.refresh_certificates(true),
                Request::Stop => self.stop(),
            }
        }
    }

    fn meet_deadlines(&mut self) {
        let now = self.engine.now.mono;
        if self.engine.step_deadline() {
            self.settle();
        }
        while let Some(Reverse((at, id))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            self.on_timer(id, at);
        }
        if now >= self.certificates_at {
            self.certificates_at = now + CERTIFICATES_EVERY;
            self.refresh_certificates(false);
        }
    }

    fn refresh_certificates(&mut self, force: bool) {
        let (is_changed, problems) = self.certificates.refresh(force, self.engine.now.utc);
        for problem in problems {
            log::error!("the old certificate stays in use: {problem}");
        }
        if is_changed {
            match Acceptor::new(&self.certificates, &self.provider) {
                Ok(acceptor) => {
                    self.acceptor = acceptor;
                    log::info!("new certificates are in use for new connections");
                }
                Err(error) => log::error!("the old certificates stay in use: {error}"),
            }
        }
    }

    fn serve_ready(&mut self) {
        self.handshakes_left = HANDSHAKES_PER_TURN;
        let mut serving = std::mem::take(&mut self.serving);
        std::mem::swap(&mut serving, &mut self.ready);
        for id in serving.drain(..) {
            self.serve(id);
        }
        self.serving = serving;
    }

    /// One write for each connection. An answer to [`Input::Flushed`] may write again, which is flushed too, but not for ever.
    fn flush_dirty(&mut self) {
        for _ in 0..4 {
            let mut dirty = std::mem::take(&mut self.dirty);
            self.engine.out.wire.take_dirty(&mut dirty);
            dirty.append(&mut self.flushes);
            let is_done = dirty.is_empty();
            for id in dirty.drain(..) {
                self.flush(id);
            }
            self.dirty = dirty;
            if is_done {
                return;
            }
        }
        // What is dirty now waits for the next turn, which comes at once.
        self.engine.out.wire.take_dirty(&mut self.dirty);
        self.flushes.append(&mut self.dirty);
    }

    /// Begins the end: nobody comes in, everybody is told.
    fn stop(&mut self) {
        if self.stops_at.is_some() {
            return;
        }
        self.stops_at = Some(self.engine.now.mono + STOP_TIME);
        self.limits.close_time = self.limits.close_time.min(STOP_LINGER);
        for mut listener in self.listeners.drain(..) {
            // Closing takes it out of the poller in any case.
            let _ = self.poll.registry().deregister(&mut listener.socket);
        }
        let _ = self.engine.step(Input::Shutdown);
        self.settle();
    }

    fn is_stopped(&mut self) -> bool {
        let Some(stops_at) = self.stops_at else { return false };
        if self.conns.len() > 0 && self.engine.now.mono < stops_at {
            return false;
        }
        self.close();
        true
    }

    /// Closes what is still open, then the store, which first carries out what it was given. Who waits for an answer learns that
    /// there is none.
    pub(crate) fn close(&mut self) {
        let left: Vec<ConnId> = self.conns.ids().collect();
        for id in left {
            self.gone(id, CloseReason::Ordered);
        }
        if let Some(store) = self.store.take() {
            store.send(&mut self.asked);
            store.close();
        }
        self.answers_to.clear();
        while self.requests.try_recv().is_ok() {}
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.close();
    }
}

/// Both clocks. The monotonic one counts from the start of the loop.
struct Clock {
    start: Instant,
}

impl Clock {
    fn now(&self) -> Now {
        let utc = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.start.elapsed(), utc: UtcTime(u64::try_from(utc.as_millis()).unwrap_or(u64::MAX)) }
    }
}

impl AsRawFd for Loop {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}
