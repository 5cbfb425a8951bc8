//! The whole server without sockets: what a stanza costs between the bytes of one connection and those of another.
//!
//! The core is driven as the loop drives it, on a store in memory. Input is offered a stanza at a time and all output is taken
//! after each, so nothing here is helped by batches.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use whinchat::config::Config;
use whinchat::core::{
    CloseReason, ConnId, ConnOrder, Core, Input, ListenerKind, Now, Outputs, Seeds, StoreRequest, Ticket, TlsFacts,
    UtcTime,
};
use whinchat::jid::BareJid;
use whinchat::store::{Authenticator, MemoryStore, Store};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PASSWORD: &str = "correct horse battery staple";
const HEADER: &str = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

/// A server and the loop around it.
struct House {
    core: Core,
    out: Outputs,
    store: MemoryStore,
    now: Now,
    opened: u32,
    dirty: Vec<ConnId>,
    requests: Vec<(Ticket, StoreRequest)>,
}

/// Lets everybody in, where logging in is not what is measured.
struct Anybody;

impl Authenticator for Anybody {
    fn verify(&mut self, _user: &str, _password: &str) -> bool {
        true
    }
}

impl House {
    fn new(scram: bool) -> House {
        let mut config = Config::try_out();
        config.limits.rates = false;
        config.limits.memory_max = 1 << 30;
        config.limits.connections_max = 100_000;
        config.limits.connections_per_address_max = 100_000;
        let mut store = MemoryStore::new(&config, [7; 32]);
        if !scram {
            store.set_authenticator(Box::new(Anybody));
        }
        let core = Core::new(&config, Seeds { random: [1; 32], installation: store.secret() }, scram);
        let now = Now { mono: Duration::from_secs(1000), utc: UtcTime(1_795_375_850_000) };
        House { core, out: Outputs::default(), store, now, opened: 0, dirty: Vec::new(), requests: Vec::new() }
    }

    /// One step and all that follows from it.
    fn step(&mut self, input: Input<'_>) -> usize {
        let consumed = self.core.step(self.now, input, &mut self.out).consumed;
        self.out.conns.retain(|order| matches!(order, ConnOrder::Abort(_)));
        assert!(self.out.conns.is_empty(), "the server gave up a connection");
        consumed
    }

    fn settle(&mut self) {
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
    fn give(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut unread = bytes;
        while !unread.is_empty() {
            let consumed = self.step(Input::Bytes { conn, unread });
            unread = &unread[consumed..];
            assert!(consumed > 0 || !self.out.store.is_empty(), "no progress");
            self.settle();
        }
    }

    /// Sends all that is to be sent: bytes.
    fn flush(&mut self) -> usize {
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
    fn ask(&mut self, conn: ConnId, bytes: &str) -> String {
        self.give(conn, bytes.as_bytes());
        let answer = String::from_utf8_lossy(self.out.wire.unsent(conn)).into_owned();
        self.flush();
        answer
    }

    fn open(&mut self) -> ConnId {
        // The slot is used again by the benchmark that closes what it opens.
        let conn = ConnId { slot: self.opened, generation: 1 };
        self.opened += 1;
        self.connect(conn);
        conn
    }

    fn connect(&mut self, conn: ConnId) {
        self.out.wire.open(conn);
        self.step(Input::Opened { conn, listener: ListenerKind::Tls, peer: PEER });
        self.step(Input::Secured { conn, tls: TlsFacts { version: "TLSv1.3", ..TlsFacts::default() } });
    }

    fn close(&mut self, conn: ConnId) {
        self.out.wire.close(conn);
        self.step(Input::Closed { conn, reason: CloseReason::Gone });
        self.settle();
    }

    fn bind(&mut self, conn: ConnId, resource: &str) {
        self.ask(conn, HEADER);
        let bind = format!(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind></iq>"
        );
        let bound = self.ask(conn, &bind);
        assert!(bound.contains("type='result'"), "{bound}");
    }

    /// A session that asked for its roster and is available.
    fn log_in(&mut self, user: &str, resource: &str) -> ConnId {
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
fn message(to: &str) -> String {
    format!(
        "<message to='{to}' type='chat' id='5f3c9a1e-77d0-4b1c'><body>Art thou not Romeo, and a Montague? It is nor hand, nor \
         foot, nor arm</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>"
    )
}

fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    group.throughput(Throughput::Elements(1));
    let mut house = House::new(false);
    let sender = house.log_in("romeo", "orchard");
    house.log_in("juliet", "balcony");
    let mut run = |house: &mut House, name: &str, stanza: &str, least: usize| {
        group.bench_function(name, |b| {
            b.iter(|| {
                house.give(sender, black_box(stanza.as_bytes()));
                let bytes = house.flush();
                assert!(bytes >= least, "{bytes} bytes");
            });
        });
    };
    let stanza = message("juliet@localhost/balcony");
    run(&mut house, "message to a resource", &stanza, stanza.len());
    let stanza = message("juliet@localhost");
    run(&mut house, "message to an account with 1 resource", &stanza, stanza.len());
    for resource in ["chamber", "tomb", "ball"] {
        house.log_in("juliet", resource);
    }
    run(&mut house, "message to an account with 4 resources", &stanza, 4 * stanza.len());
    run(&mut house, "message to nobody", &message("tybalt@localhost/street"), 100);
    run(&mut house, "ping", "<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>", 20);
    group.finish();

    let mut group = c.benchmark_group("route in bulk");
    let bulk = message("juliet@localhost/balcony").repeat(16);
    group.throughput(Throughput::Elements(16));
    group.bench_function("16 messages in one read", |b| {
        b.iter(|| {
            house.give(sender, black_box(bulk.as_bytes()));
            assert!(house.flush() >= bulk.len());
        });
    });
    group.finish();
}

fn presence(c: &mut Criterion) {
    let mut group = c.benchmark_group("presence");
    for contacts in [10, 100, 1000] {
        let mut house = House::new(false);
        let publisher = house.log_in("juliet", "balcony");
        for number in 0..contacts {
            let user = format!("guest{number}");
            let contact = house.log_in(&user, "ball");
            house.ask(contact, "<presence type='subscribe' to='juliet@localhost'/>");
            house.ask(publisher, &format!("<presence type='subscribed' to='{user}@localhost'/>"));
        }
        let stanza = "<presence><show>away</show><status>at the ball</status></presence>";
        group.throughput(Throughput::Elements(contacts));
        group.bench_with_input(BenchmarkId::new("to contacts", contacts), stanza, |b, stanza| {
            b.iter(|| {
                house.give(publisher, black_box(stanza.as_bytes()));
                assert!(house.flush() >= contacts as usize * stanza.len());
            });
        });
    }
    group.finish();
}

fn roster(c: &mut Criterion) {
    let mut house = House::new(false);
    let conn = house.log_in("juliet", "balcony");
    for number in 0..1000 {
        let user = BareJid::from_prepared("juliet@localhost");
        let jid = BareJid::from_prepared(&format!("guest{number}@example.org"));
        let groups = vec!["Verona".to_owned()];
        let put = StoreRequest::RosterPut { user, jid, name: format!("Guest {number}"), groups };
        assert!(house.store.apply(&[put])[0].is_ok());
    }
    // The account was active before; what it has is read when it is activated again.
    house.close(conn);
    let conn = house.log_in("juliet", "balcony");
    let request = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
    let mut group = c.benchmark_group("roster");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("get of 1000 items", |b| {
        b.iter(|| {
            house.give(conn, black_box(request.as_bytes()));
            assert!(house.flush() > 50_000);
        });
    });
    group.finish();
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// Client-final message for a challenge; some microseconds of what is measured are the client's.
fn answer(challenge: &str, salted: &mut Vec<u8>) -> String {
    let start = challenge.find('>').map_or(0, |at| at + 1);
    let end = challenge.rfind("</").unwrap_or(challenge.len());
    let server_first = String::from_utf8(STANDARD.decode(&challenge[start..end]).expect("base64")).expect("text");
    let field = |name: &str| server_first.split(',').find_map(|field| field.strip_prefix(name)).expect("a field");
    if salted.is_empty() {
        let salt = STANDARD.decode(field("s=")).expect("base64");
        salted.resize(32, 0);
        pbkdf2::pbkdf2_hmac::<Sha256>(PASSWORD.as_bytes(), &salt, field("i=").parse().expect("a number"), salted);
    }
    let bare = format!("c=biws,r={}", field("r="));
    let client_key = hmac(salted, b"Client Key");
    let signature = hmac(&Sha256::digest(&client_key), format!("n=juliet,r=cnonce,{server_first},{bare}").as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect();
    STANDARD.encode(format!("{bare},p={}", STANDARD.encode(proof)))
}

fn login(c: &mut Criterion) {
    let mut house = House::new(true);
    let user = BareJid::from_prepared("juliet@localhost");
    let create = StoreRequest::AccountCreate { user, password: PASSWORD.to_owned().into(), at: house.now.utc };
    assert!(house.store.apply(&[create])[0].is_ok());
    let first = STANDARD.encode("n,,n=juliet,r=cnonce");
    let auth = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>{first}</auth>");
    let mut salted = Vec::new();
    let mut generation = 0;
    c.bench_function("login/SCRAM-SHA-256, bind, close", |b| {
        b.iter(|| {
            generation += 1;
            let conn = ConnId { slot: 0, generation };
            house.connect(conn);
            house.ask(conn, HEADER);
            let response = answer(&house.ask(conn, &auth), &mut salted);
            let response = format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{response}</response>");
            assert!(house.ask(conn, &response).contains("<success"));
            house.bind(conn, "balcony");
            house.close(conn);
        });
    });
}

criterion_group!(benches, route, presence, roster, login);
criterion_main!(benches);
