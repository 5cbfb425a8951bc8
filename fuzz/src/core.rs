//! Arbitrary bytes on several connections, while commits come late or fail and clients stop reading, leave and come back. After
//! each step the core's own checks run; at the end nothing waits for ever, what every client was sent is one well-formed stream,
//! nobody was sent what is secret or what its sender did not send, and when all have gone nothing is left of them.
//!
//! The first byte is the scene (see [`Scene`]). Then come pieces, each ended by a byte that UTF-8 does not have:
//!
//! | byte | what happens |
//! |---|---|
//! | 0xF5 | by the piece's last byte: store answers are held back or given, a command, shutdown |
//! | 0xF6 | a client stops reading, or goes on |
//! | 0xF7 | a socket is lost; a new connection of the same client takes its place |
//! | 0xF8-0xFC | the piece is sent on connection 0 to 4 |
//! | 0xFD | the next batch of the store fails |
//! | 0xFE, 0xFF | a second, a minute passes |
//!
//! In a piece `%sm%` stands for the last stream-management id that the client's account was given, `%id%` for the last archive id.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roxmltree::Node;
use whinchat::config::Config;
use whinchat::core::blocklist::BlocklistChange;
use whinchat::core::effects::DocumentKey;
use whinchat::core::roster::Event;
use whinchat::core::{
    Answer, CloseReason, Command, CommandId, ConnId, ConnOrder, Core, Input, ListenerKind, Now, Outputs, Seeds,
    StoreError, StoreRequest, Ticket, TlsFacts, UtcTime,
};
use whinchat::jid::{BareJid, Jid};
use whinchat::store::{Authenticator, Faults, MemoryStore, Store};

use crate::opinion;

const CLIENTS: usize = 5;
const PASSWORD: &str = "secret";
const EPOCH: u64 = 1_795_375_850_000;
/// Whose connections these are; the last never logs in by itself.
const OWNERS: [&str; CLIENTS] =
    ["juliet@capulet.test", "juliet@capulet.test", "romeo@montague.test", "mercutio@montague.test", ""];
const RESOURCES: [&str; CLIENTS] = ["balcony", "phone", "orchard", "hall", ""];
/// Has an account, and nobody's client.
const NURSE: &str = "nurse@capulet.test";
/// Lies in the nurse's records and nowhere else.
const SECRET: &str = "qZ81xWmB44tR";
/// As long as anybody is made to wait for something that is not the store: penalties, rates, slow readers.
const WAIT_MAX: Duration = Duration::from_secs(60);

const CONFIG: &str = "
[limits]
stanza_bytes_max = '10K'
output_pause = '4K'
output_max = '64K'
roster_items_max = 20
requests_max = 4
blocklist_max = 5
directed_presence_max = 4
offline_messages_max = 6
resources_per_account_max = 4
room_occupants_max = 4
room_history_max = 3
rooms_per_account_max = 2
pep_nodes_max = 4
pep_items_max = 3
archive_page_max = 10
archive_prefs_max = 3
caps_max = 10
store_queue_max = 32
[[domain]]
name = 'capulet.test'
registration = 'open'
[[domain]]
name = 'montague.test'
archive = false
";

struct Passwords;

impl Authenticator for Passwords {
    fn verify(&mut self, user: &str, password: &str) -> bool {
        user != NURSE && password == PASSWORD
    }
}

/// How it is when the first piece comes.
struct Scene {
    /// Clients 0 to 3 log in, and are available.
    available: [bool; 4],
    /// Juliet and Romeo see each other.
    friends: bool,
    stream_management: bool,
    rates: bool,
    scram: bool,
}

impl Scene {
    fn of(bits: u8) -> Scene {
        let bit = |place: u8| bits >> place & 1 == 1;
        Scene {
            available: [bit(0), bit(1), bit(2), bit(3)],
            friends: bit(4),
            stream_management: bit(5),
            rates: bit(6),
            scram: bit(7),
        }
    }
}

fn config() -> &'static Config {
    static READ: OnceLock<Config> = OnceLock::new();
    READ.get_or_init(|| {
        Config::parse(CONFIG, Path::new("/nowhere")).unwrap_or_else(|mistakes| {
            let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            panic!("{}", mistakes.join("\n"))
        })
    })
}

fn bare(jid: &str) -> BareJid {
    BareJid::parse(jid).expect("an account")
}

/// A copy of a store with the accounts, and something of the nurse's that nobody may see.
fn furnished(friends: bool, config: &Config) -> MemoryStore {
    static STORES: OnceLock<[Mutex<MemoryStore>; 2]> = OnceLock::new();
    let stores = STORES.get_or_init(|| [false, true].map(|friends| Mutex::new(furnish(friends))));
    stores[usize::from(friends)].lock().expect("nobody panics with it").reopened(config)
}

fn furnish(friends: bool) -> MemoryStore {
    let mut store = MemoryStore::new(config(), [9; 32]);
    store.set_authenticator(Box::new(Everybody));
    let mut requests = Vec::new();
    for user in [OWNERS[0], OWNERS[2], OWNERS[3], NURSE] {
        requests.push(StoreRequest::Verify { user: bare(user), password: PASSWORD.to_owned().into() });
    }
    let private = DocumentKey::Private { name: "notes".to_owned(), ns: "urn:notes".to_owned() };
    let content = format!("<notes xmlns='urn:notes'>{SECRET}</notes>").into_bytes();
    requests.push(StoreRequest::DocumentPut { user: bare(NURSE), key: private, content, at: UtcTime(EPOCH) });
    let change = BlocklistChange::Block(vec![Jid::from_prepared(&format!("{SECRET}@montague.test"))]);
    requests.push(StoreRequest::BlocklistChange { user: bare(NURSE), change, reports: Vec::new() });
    requests.push(StoreRequest::RosterPut {
        user: bare(NURSE),
        jid: bare(OWNERS[0]),
        name: SECRET.to_owned(),
        groups: vec![SECRET.to_owned()],
    });
    requests.push(StoreRequest::OfflinePut {
        user: bare(NURSE),
        from: Jid::parse("peter@capulet.test/x").expect("an address"),
        stanza: format!("<message from='peter@capulet.test/x' to='{NURSE}'><body>{SECRET}</body></message>")
            .into_bytes(),
        archived: None,
    });
    requests.push(StoreRequest::LastSeen { user: bare(NURSE), at: UtcTime(EPOCH), status: SECRET.to_owned() });
    if friends {
        for (user, contact) in [(OWNERS[0], OWNERS[2]), (OWNERS[2], OWNERS[0])] {
            for (user, contact, event) in [(user, contact, Event::Subscribe), (contact, user, Event::Subscribed)] {
                let stanza = format!("<presence from='{user}' to='{contact}' type='{}'/>", event.name()).into_bytes();
                let (user, contact) = (bare(user), bare(contact));
                requests.push(StoreRequest::Subscription { user, contact, event, stanza, at: UtcTime(EPOCH) });
            }
        }
    }
    for request in requests {
        let replies = store.apply(&[request]);
        assert!(matches!(replies.as_slice(), [Ok(_)]), "{replies:?}");
    }
    store
}

/// Lets everybody in, so that accounts come to be.
struct Everybody;

impl Authenticator for Everybody {
    fn verify(&mut self, _: &str, _: &str) -> bool {
        true
    }
}

/// A connection, seen from the client.
#[derive(Default)]
struct Client {
    open: bool,
    generation: u32,
    unread: Vec<u8>,
    received: Vec<u8>,
    /// Does not read.
    stalled: bool,
    /// The server has ended the stream; when all is flushed it closes the connection.
    closing: bool,
}

struct World {
    core: Core,
    out: Outputs,
    store: Faults<MemoryStore>,
    clients: [Client; CLIENTS],
    /// What was received on connections that are gone.
    streams: Vec<(usize, Vec<u8>)>,
    asked: Vec<(Ticket, StoreRequest)>,
    /// Answers are held back.
    late: bool,
    resumed: Vec<ConnId>,
    answers: Vec<(CommandId, Answer)>,
    mono: Duration,
    down: bool,
}

impl World {
    fn new(scene: &Scene) -> World {
        let mut config = config().clone();
        config.limits.rates = scene.rates;
        let mut store = furnished(scene.friends, &config);
        store.set_authenticator(Box::new(Passwords));
        let seeds = Seeds { random: [7; 32], installation: [8; 32] };
        World {
            core: Core::new(&config, seeds, scene.scram),
            out: Outputs::default(),
            store: Faults::new(store),
            clients: Default::default(),
            streams: Vec::new(),
            asked: Vec::new(),
            late: false,
            resumed: Vec::new(),
            answers: Vec::new(),
            mono: Duration::from_secs(1000),
            down: false,
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.mono, utc: UtcTime(EPOCH + self.mono.as_millis() as u64) }
    }

    fn conn(&self, index: usize) -> ConnId {
        ConnId { slot: index as u32, generation: self.clients[index].generation }
    }

    fn step(&mut self, input: Input<'_>) -> usize {
        let consumed = self.core.step(self.now(), input, &mut self.out).consumed;
        self.asked.append(&mut self.out.store);
        self.answers.append(&mut self.out.answers);
        self.out.delivered.clear();
        for order in std::mem::take(&mut self.out.conns) {
            match order {
                ConnOrder::Resume(conn) => self.resumed.push(conn),
                ConnOrder::StartTls { conn, domain } => {
                    assert!(!domain.is_empty());
                    if let Some(index) = self.index(conn) {
                        // What follows in clear is thrown away.
                        self.clients[index].unread.clear();
                        self.step(Input::Secured { conn, tls: facts() });
                    }
                }
                ConnOrder::Close(conn) => {
                    if let Some(index) = self.index(conn) {
                        self.clients[index].closing = true;
                        self.clients[index].unread.clear();
                    }
                }
                ConnOrder::Abort(conn) => {
                    if let Some(index) = self.index(conn) {
                        self.close(index, CloseReason::Ordered);
                    }
                }
            }
        }
        consumed
    }

    fn index(&self, conn: ConnId) -> Option<usize> {
        let index = conn.slot as usize;
        (self.clients.get(index)?.open && self.conn(index) == conn).then_some(index)
    }

    fn open(&mut self, index: usize) {
        let client = &mut self.clients[index];
        *client = Client { open: true, generation: client.generation + 1, ..Client::default() };
        let conn = self.conn(index);
        self.out.wire.open(conn);
        let listener = if index == CLIENTS - 1 { ListenerKind::StartTls } else { ListenerKind::Tls };
        // Two addresses, so that penalties are shared and not shared.
        let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1 + index as u8 % 2));
        self.step(Input::Opened { conn, listener, peer });
        if listener == ListenerKind::Tls {
            self.step(Input::Secured { conn, tls: facts() });
        }
    }

    fn close(&mut self, index: usize, reason: CloseReason) {
        let client = &mut self.clients[index];
        if std::mem::take(&mut client.open) {
            let received = std::mem::take(&mut client.received);
            self.streams.push((index, received));
            self.step(Input::Closed { conn: self.conn(index), reason });
            let conn = self.conn(index);
            assert!(self.out.wire.pending(conn) == 0 && self.out.wire.unsent(conn).is_empty(), "output to nobody");
        }
    }

    fn send(&mut self, index: usize, bytes: &[u8]) {
        let client = &mut self.clients[index];
        if client.open && !client.closing {
            client.unread.extend_from_slice(bytes);
            self.offer(index);
        }
    }

    fn offer(&mut self, index: usize) {
        if !self.clients[index].open || self.clients[index].closing {
            return;
        }
        let (conn, unread) = (self.conn(index), std::mem::take(&mut self.clients[index].unread));
        let consumed = self.step(Input::Bytes { conn, unread: &unread });
        assert!(consumed <= unread.len(), "consumed what was not there");
        if self.index(conn).is_some() && !self.clients[index].closing {
            self.clients[index].unread = unread[consumed..].to_vec();
        }
    }

    fn flush(&mut self) {
        let mut dirty = Vec::new();
        self.out.wire.take_dirty(&mut dirty);
        for index in 0..CLIENTS {
            let conn = self.conn(index);
            if !self.clients[index].open || self.clients[index].stalled {
                continue;
            }
            let unsent = self.out.wire.unsent(conn).to_vec();
            self.clients[index].received.extend_from_slice(&unsent);
            if self.out.wire.sent(conn, unsent.len()) {
                self.step(Input::Flushed { conn });
            }
            if self.clients[index].closing && self.out.wire.pending(conn) == 0 {
                self.close(index, CloseReason::Ordered);
            }
        }
    }

    fn answer_all(&mut self) {
        let (tickets, batch): (Vec<Ticket>, Vec<StoreRequest>) = std::mem::take(&mut self.asked).into_iter().unzip();
        for (ticket, reply) in tickets.into_iter().zip(self.store.apply(&batch)) {
            self.step(Input::Stored { ticket, reply });
        }
    }

    /// Goes on until there is nothing to do but for clients that do not read and a disk that does not answer.
    fn settle(&mut self) {
        for turn in 0.. {
            assert!(turn < 10_000, "no end is in sight");
            self.flush();
            if !self.resumed.is_empty() {
                for conn in std::mem::take(&mut self.resumed) {
                    if let Some(index) = self.index(conn) {
                        self.offer(index);
                    }
                }
            } else if !self.asked.is_empty() && !self.late {
                self.answer_all();
            } else {
                let idle = |index: usize| {
                    let client = &self.clients[index];
                    !client.open || client.stalled || !client.closing && self.out.wire.pending(self.conn(index)) == 0
                };
                if (0..CLIENTS).all(idle) {
                    return;
                }
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        let until = self.mono + by;
        for turn in 0.. {
            assert!(turn < 10_000, "deadlines without end");
            let Some(due) = self.core.next_deadline().filter(|due| *due <= until) else { break };
            self.mono = self.mono.max(due);
            self.step(Input::Deadline);
            self.settle();
        }
        self.mono = until;
    }

    fn log_in(&mut self, index: usize, scene: &Scene) {
        let (owner, resource) = (OWNERS[index], RESOURCES[index]);
        let Some((local, domain)) = owner.split_once('@') else { return };
        let header = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{domain}' version='1.0'>"
        );
        let plain = STANDARD.encode(format!("\0{local}\0{PASSWORD}"));
        self.send(index, header.as_bytes());
        let auth = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>");
        self.send(index, auth.as_bytes());
        self.settle();
        self.send(index, header.as_bytes());
        let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>";
        self.send(index, format!("<iq type='set' id='b'>{bind}<resource>{resource}</resource></bind></iq>").as_bytes());
        if scene.stream_management {
            self.send(index, b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        }
        if scene.available.get(index).copied().unwrap_or_default() {
            self.send(index, b"<presence/>");
        }
        self.settle();
    }

    /// A client's bytes, with what it has learnt put in.
    fn informed(&self, index: usize, piece: &[u8]) -> Vec<u8> {
        let mut piece = piece.to_vec();
        for (token, before) in [(b"%sm%".as_slice(), b"<enabled ".as_slice()), (b"%id%", b"stanza-id ")] {
            while let Some(at) = find(&piece, token) {
                let id = self.learnt(index, before).unwrap_or_default();
                piece.splice(at..at + token.len(), id);
            }
        }
        piece
    }

    /// The last `id` in a tag that begins so, on any connection of the client's account.
    fn learnt(&self, index: usize, tag: &[u8]) -> Option<Vec<u8>> {
        let old = self.streams.iter().rev().map(|(of, received)| (*of, received));
        let now = self.clients.iter().enumerate().map(|(of, client)| (of, &client.received));
        let mut own = now.chain(old).filter(|(of, _)| OWNERS[*of] == OWNERS[index]);
        own.find_map(|(_, received)| {
            let at = received.windows(tag.len()).rposition(|window| window == tag)?;
            let rest = &received[at..];
            let value = &rest[find(rest, b" id='")? + 5..];
            Some(value[..find(value, b"'")?].to_vec())
        })
    }

    fn disturb(&mut self, what: u8) {
        match what % 8 {
            0..=3 => self.late = !self.late,
            4 => self.command(Command::UserPassword { user: bare(OWNERS[0]), password: PASSWORD.to_owned().into() }),
            5 => self.command(Command::UserRemove { user: bare(OWNERS[3]) }),
            6 => self.command(Command::SendMessage {
                from: "capulet.test".to_owned(),
                to: OWNERS[2].to_owned(),
                body: "a & b".to_owned(),
            }),
            _ if !self.down => {
                self.down = true;
                self.step(Input::Shutdown);
            }
            _ => {}
        }
    }

    fn command(&mut self, command: Command) {
        self.step(Input::Command { id: CommandId(1), command });
    }

    fn play(&mut self, piece: &[u8], end: u8, scene: &Scene) {
        let last = piece.last().copied().unwrap_or_default();
        let index = usize::from(last) % CLIENTS;
        match end {
            0xF5 => self.disturb(last),
            0xF6 => self.clients[index].stalled = !self.clients[index].stalled,
            0xF7 => {
                self.close(index, CloseReason::Gone);
                self.settle();
                if !self.down {
                    self.open(index);
                    if last & 0x10 != 0 {
                        self.log_in(index, scene);
                    }
                }
            }
            0xFD => self.store.fail_nth(1, if last & 1 == 0 { StoreError::Failed } else { StoreError::DiskFull }),
            0xFE => self.advance(Duration::from_secs(1)),
            0xFF => self.advance(Duration::from_secs(60)),
            _ => {
                let index = usize::from(end.saturating_sub(0xF8)) % CLIENTS;
                let piece = self.informed(index, piece);
                self.send(index, &piece);
            }
        }
        self.settle();
    }

    /// Once everything is answered and read, nobody is made to wait any more.
    fn nobody_waits(&mut self) {
        self.late = false;
        self.clients.iter_mut().for_each(|client| client.stalled = false);
        self.settle();
        self.advance(WAIT_MAX);
        for index in 0..CLIENTS {
            let conn = self.conn(index);
            assert!(!self.clients[index].open || !self.core.is_held(conn), "client {index} waits for ever");
        }
    }

    /// When all have left, nothing is left.
    fn nothing_remains(&mut self) {
        for index in 0..CLIENTS {
            self.close(index, CloseReason::Gone);
            self.settle();
        }
        self.advance(Duration::from_secs(3 * 86_400));
        self.answers.clear();
        self.step(Input::Command { id: CommandId(2), command: Command::Status });
        let Some((_, Answer::Status(status))) = self.answers.pop() else { panic!("no status") };
        for name in ["connections", "sessions", "store_requests_waiting", "output_bytes_waiting"] {
            let value = status.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            assert_eq!(value, Some(0), "{name} when all have gone");
        }
    }
}

fn facts() -> TlsFacts {
    let mut tls = TlsFacts { version: "TLSv1.3", ..TlsFacts::default() };
    tls.bindings.exporter = Some([0x42; 32]);
    tls.bindings.server_end_point = Some(vec![0x17; 32]);
    tls
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// What a client was sent: streams one after another, each well-formed by itself.
fn check_received(index: usize, received: &[u8]) {
    let text = std::str::from_utf8(received).expect("the server sends UTF-8");
    assert!(!text.contains(SECRET), "client {index} was sent what is none of its business: {text}");
    let streams: Vec<&str> = text.split("<?xml version='1.0'?>").collect();
    assert_eq!(streams.first(), Some(&""), "something before the header: {text}");
    for (place, stream) in streams.iter().enumerate().skip(1) {
        let closed = stream.ends_with("</stream:stream>");
        // Only the last one may end; the others are restarted.
        assert!(!closed || place + 1 == streams.len(), "a header behind the end: {text}");
        let stream = if closed { (*stream).to_owned() } else { [stream, "</stream:stream>"].concat() };
        if opinion::is_beyond(&stream) {
            continue;
        }
        let document = opinion::parse(&stream).unwrap_or_else(|error| panic!("{error}: was sent to {index}: {stream}"));
        assert!(!opinion::is_restricted(&document), "{stream}");
        for stanza in opinion::elements(document.root_element()) {
            check_stanza(index, stanza);
        }
    }
}

/// Nobody speaks in another's name.
fn check_stanza(index: usize, stanza: Node<'_, '_>) {
    let from = opinion::attr(stanza, "from").unwrap_or_default();
    let bare_of = |jid: &str| jid.split('/').next().unwrap_or_default().to_owned();
    let error = opinion::attr(stanza, "type") == Some("error");
    if stanza.has_tag_name(("jabber:client", "message")) && !error {
        assert_ne!(bare_of(from), NURSE, "client {index} was sent what the nurse never said");
        assert!(!from.is_empty() || OWNERS[index].is_empty(), "client {index} was sent a message from nobody");
    }
    let own = OWNERS[index];
    // Only one's own account names its archive's ids (XEP-0359 section 3), and copies what others have sent (XEP-0280).
    let ids = opinion::elements(stanza)
        .filter(|child| child.has_tag_name(("urn:xmpp:sid:0", "stanza-id")))
        .filter(|child| opinion::attr(*child, "by") == Some(own));
    assert!(own.is_empty() || ids.count() <= 1, "two ids in the archive of client {index}");
    if from == own {
        for forwarded in stanza.descendants().filter(|node| node.has_tag_name(("urn:xmpp:forward:0", "forwarded"))) {
            for inner in opinion::elements(forwarded).filter(|child| child.has_tag_name(("jabber:client", "message"))) {
                let from = bare_of(opinion::attr(inner, "from").unwrap_or_default());
                assert_ne!(from, NURSE, "client {index} was sent a copy of what the nurse never said");
            }
        }
    }
}

/// A scene, then pieces.
pub fn run(data: &[u8]) {
    let Some((scene, rest)) = data.split_first() else { return };
    let scene = Scene::of(*scene);
    let mut world = World::new(&scene);
    for index in 0..CLIENTS {
        world.open(index);
        world.log_in(index, &scene);
    }
    // Each step costs some checks of everything; what takes long finds little.
    for piece in rest.split_inclusive(|byte| *byte >= 0xF5).take(200) {
        let (last, bytes) = piece.split_last().expect("a piece has a byte");
        match *last {
            0xF5.. => world.play(bytes, *last, &scene),
            _ => world.play(piece, 0xF8, &scene),
        }
    }
    world.nobody_waits();
    world.nothing_remains();
    for (index, received) in std::mem::take(&mut world.streams) {
        check_received(index, &received);
    }
}
