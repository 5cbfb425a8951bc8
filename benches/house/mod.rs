//! A server without sockets and the loop around it, for the benchmarks and for the tests that count (`tests/costs.rs`) and that
//! enter rooms (`tests/entry.rs`).

// Each of them needs a part of it.
#![allow(dead_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use whinchat::config::Config;
use whinchat::core::{
    CloseReason, ConnId, ConnOrder, Core, Input, ListenerKind, Now, Outputs, Seeds, StoreRequest, Ticket, TlsFacts,
    UtcTime,
};
use whinchat::store::{Authenticator, MemoryStore, Store};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Of every account.
pub const PASSWORD: &str = "correct horse battery staple";
/// How a stream begins.
pub const HEADER: &str = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

/// A server and the loop around it.
pub struct House {
    core: Core,
    out: Outputs,
    pub store: MemoryStore,
    pub now: Now,
    opened: u32,
    dirty: Vec<ConnId>,
    requests: Vec<(Ticket, StoreRequest)>,
    steps: usize,
}

/// Lets everybody in, where logging in is not what is measured.
struct Anybody;

impl Authenticator for Anybody {
    fn verify(&mut self, _user: &str, _password: &str) -> bool {
        true
    }
}

impl House {
    /// What is served: everything, without rates, to many.
    pub fn config() -> Config {
        let mut config = Config::try_out();
        config.limits.rates = false;
        config.limits.memory_max = 1 << 30;
        config.limits.connections_max = 100_000;
        config.limits.connections_per_address_max = 100_000;
        config.limits.room_occupants_max = 10_000;
        config.limits.output_max = 64 << 20;
        config
    }

    /// A server with that, which checks passwords or lets everybody in.
    pub fn new(scram: bool) -> House {
        House::with(&House::config(), scram)
    }

    /// The same with another configuration.
    pub fn with(config: &Config, scram: bool) -> House {
        let mut store = MemoryStore::new(config, [7; 32]);
        if !scram {
            store.set_authenticator(Box::new(Anybody));
        }
        let core = Core::new(config, Seeds { random: [1; 32], installation: store.secret() }, scram);
        let now = Now { mono: Duration::from_secs(1000), utc: UtcTime(1_795_375_850_000) };
        House {
            core,
            out: Outputs::default(),
            store,
            now,
            opened: 0,
            dirty: Vec::new(),
            requests: Vec::new(),
            steps: 0,
        }
    }

    /// One step and all that follows from it.
    pub fn step(&mut self, input: Input<'_>) -> usize {
        self.steps += 1;
        let consumed = self.core.step(self.now, input, &mut self.out).consumed;
        self.out.conns.retain(|order| matches!(order, ConnOrder::Abort(_)));
        assert!(self.out.conns.is_empty(), "the server gave up a connection");
        consumed
    }

    /// Carries out what the core asks of the store, until it asks no more.
    pub fn settle(&mut self) {
        while !self.out.store.is_empty() {
            std::mem::swap(&mut self.requests, &mut self.out.store);
            let (tickets, batch): (Vec<_>, Vec<_>) = self.requests.drain(..).unzip();
            for (ticket, reply) in tickets.into_iter().zip(self.store.apply(&batch)) {
                // What a reply makes the core ask for is kept behind what it asked before.
                let waiting = std::mem::take(&mut self.out.store);
                self.step(Input::Stored { ticket, reply });
                let asked = std::mem::replace(&mut self.out.store, waiting);
                self.out.store.extend(asked);
            }
        }
    }

    /// Offers bytes until all are taken.
    pub fn give(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut unread = bytes;
        while !unread.is_empty() {
            let consumed = self.step(Input::Bytes { conn, unread });
            unread = &unread[consumed..];
            assert!(consumed > 0 || !self.out.store.is_empty(), "no progress");
            self.settle();
        }
    }

    /// Offers bytes once: how many of them were taken.
    pub fn offer(&mut self, conn: ConnId, unread: &[u8]) -> usize {
        let consumed = self.step(Input::Bytes { conn, unread });
        self.settle();
        consumed
    }

    /// Steps so far.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// What is due at once, if there is something.
    pub fn turn(&mut self) -> bool {
        let is_due = self.core.next_deadline().is_some_and(|due| due <= self.now.mono);
        if is_due {
            self.step(Input::Deadline);
            self.settle();
        }
        is_due
    }

    /// Whether nothing waits for a connection.
    pub fn is_quiet(&self, conn: ConnId) -> bool {
        self.out.wire.pending(conn) == 0
    }

    /// What a connection is sent; it takes all.
    pub fn take(&mut self, conn: ConnId) -> String {
        let text = String::from_utf8_lossy(self.out.wire.unsent(conn)).into_owned();
        if self.out.wire.sent(conn, text.len()) {
            self.step(Input::Flushed { conn });
            self.settle();
        }
        text
    }

    /// Sends all that is to be sent, and does what is due at once: bytes.
    pub fn flush(&mut self) -> usize {
        let mut bytes = self.send();
        while self.turn() {
            bytes += self.send();
        }
        bytes
    }

    /// Sends all that is to be sent: bytes.
    pub fn send(&mut self) -> usize {
        let mut bytes = 0;
        let mut dirty = std::mem::take(&mut self.dirty);
        loop {
            self.out.wire.take_dirty(&mut dirty);
            if dirty.is_empty() {
                break;
            }
            for &conn in &dirty {
                let count = self.out.wire.unsent(conn).len();
                bytes += count;
                if self.out.wire.sent(conn, count) {
                    self.step(Input::Flushed { conn });
                    self.settle();
                }
            }
        }
        self.dirty = dirty;
        bytes
    }

    /// Gives bytes, returns what the same connection gets for it.
    pub fn ask(&mut self, conn: ConnId, bytes: &str) -> String {
        self.give(conn, bytes.as_bytes());
        let answer = String::from_utf8_lossy(self.out.wire.unsent(conn)).into_owned();
        self.flush();
        answer
    }

    /// A connection under TLS.
    pub fn open(&mut self) -> ConnId {
        // The slot is used again by the benchmark that closes what it opens.
        let conn = ConnId { slot: self.opened, generation: 1 };
        self.opened += 1;
        self.connect(conn);
        conn
    }

    /// The same in a slot that is used again.
    pub fn connect(&mut self, conn: ConnId) {
        self.out.wire.open(conn);
        self.step(Input::Opened { conn, listener: ListenerKind::Tls, peer: PEER });
        self.step(Input::Secured { conn, tls: TlsFacts { version: "TLSv1.3", ..TlsFacts::default() } });
    }

    /// The peer is gone.
    pub fn close(&mut self, conn: ConnId) {
        self.out.wire.close(conn);
        self.step(Input::Closed { conn, reason: CloseReason::Gone });
        self.settle();
    }

    /// Opens the stream of who is authenticated, and binds.
    pub fn bind(&mut self, conn: ConnId, resource: &str) {
        self.ask(conn, HEADER);
        let bind = format!(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind></iq>"
        );
        let bound = self.ask(conn, &bind);
        assert!(bound.contains("type='result'"), "{bound}");
    }

    /// A session that asked for its roster and is available.
    pub fn log_in(&mut self, user: &str, resource: &str) -> ConnId {
        let conn = self.open();
        self.ask(conn, HEADER);
        let message = STANDARD.encode(format!("\0{user}\0{PASSWORD}"));
        let auth = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}</auth>");
        let answer = self.ask(conn, &auth);
        assert!(answer.contains("<success"), "{answer}");
        self.bind(conn, resource);
        self.ask(conn, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>");
        conn
    }
}

/// 228 bytes in all for the usual address.
pub fn message(to: &str) -> String {
    format!(
        "<message to='{to}' type='chat' id='5f3c9a1e-77d0-4b1c'><body>Art thou not Romeo, and a Montague? It is nor hand, nor \
         foot, nor arm</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>"
    )
}
