//! A client as people have them: it logs in, keeps a roster, talks, is cut off, comes back, and takes part in stream
//! management as XEP-0198 asks. What it does next is the dice's; what it sees it tells the oracle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use whinchat::xml::{Element, Framer, Next, Tree, XmlLimits, ns};

use super::land::{Event, Land};
use super::oracle::Form;
use super::registers::{Key, Ticket};
use super::rooms::{Place, ROOMS};
use super::tokens::Wallet;
use super::{ACCOUNTS, NEWCOMER, PASSWORD, Plant, account_name, scram};

const LIMITS: XmlLimits = XmlLimits {
    stanza_bytes_max: 1 << 30,
    depth_max: 1000,
    attributes_max: 1000,
    name_bytes_max: 1 << 16,
    header_bytes_max: 1 << 16,
};
/// Longest time that an answer may take while the connection is well: a slow disk, a slow network, a full receiver.
const ANSWER_TIME: Duration = Duration::from_secs(400);

/// How far a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Away,
    /// The first header was sent.
    Greeting,
    Registering,
    Challenge,
    Proof,
    /// The second header was sent.
    Restarting,
    Resuming,
    Binding,
    Online,
    /// The stream was closed from here.
    Leaving,
}

/// Why a request was made.
#[derive(Clone, Debug)]
pub enum Purpose {
    Roster {
        least: Option<String>,
    },
    /// All of them at once.
    Write(Vec<Ticket>),
    Read {
        key: Key,
    },
    Nothing,
    /// A page of the own archive, or that of a room.
    Archive {
        room: Option<usize>,
    },
    Description {
        room: usize,
    },
    Affiliated {
        room: usize,
        affiliation: &'static str,
    },
    Occupants {
        room: usize,
    },
    Blocklist,
    Kick {
        room: usize,
        nick: String,
    },
    /// To another device, which may go away over it, or what may well be refused.
    Peer,
}

#[derive(Clone, Debug)]
struct Request {
    purpose: Purpose,
    asked: Duration,
}

/// What a stanza says to somebody.
#[derive(Clone, Copy, Debug)]
pub enum Sent {
    Message(usize),
    Line(usize),
}

/// A stanza that the server has not acknowledged.
#[derive(Clone, Debug)]
struct Unacked {
    xml: String,
    sent: Option<Sent>,
}

/// Stream management, from enabling on.
#[derive(Clone, Debug, Default)]
struct Managed {
    /// By which the session is resumed, once the server has said.
    id: Option<String>,
    is_enabled: bool,
    acknowledged: u32,
    unacked: VecDeque<Unacked>,
    handled: u32,
}

pub struct Device {
    index: usize,
    pub account: usize,
    /// The account's first.
    pub is_first: bool,
    resource: String,
    wants_management: bool,
    wants_resumption: bool,
    wants_copies: bool,
    phase: Phase,
    turn: u32,
    conn: Option<usize>,
    framer: Framer,
    inbox: Vec<u8>,
    session: Option<usize>,
    life: Option<usize>,
    managed: Option<Managed>,
    requests: BTreeMap<String, Request>,
    ids: u64,
    jid: String,
    available: Option<i8>,
    /// Who is available, as far as this session was told.
    pub seen: BTreeSet<String>,
    /// Who has asked to be subscribed and got no answer.
    pub asking: BTreeSet<String>,
    /// The roster as it was last shown, and as pushes have changed it.
    pub roster: BTreeMap<String, String>,
    roster_version: Option<String>,
    trying: Option<(String, Duration)>,
    is_registered: bool,
    registration: Option<usize>,
    /// Messages of the account's archive, as far as they were asked for.
    pub archive: Vec<usize>,
    /// The archive was read to its end.
    pub has_archive: bool,
    /// Stamped messages of this session.
    pub stamped: usize,
    /// What it is in each room, as far as it was told.
    pub places: [Place; ROOMS.len()],
    /// The newest of everybody, as far as it was told.
    pub tunes: BTreeMap<usize, String>,
    /// Logs in with SASL2, and with tokens where it has one.
    wants_tokens: bool,
    pub wallet: Wallet,
    /// A line that is held back, of a mistake that is made on purpose.
    pub held: Option<(usize, usize)>,
    held_left: Option<usize>,
    pub logins: u64,
    pub resumptions: u64,
}

fn domain(account: usize) -> &'static str {
    account_name(account).split_once('@').expect("an account's name").1
}

fn local(account: usize) -> &'static str {
    account_name(account).split_once('@').expect("an account's name").0
}

impl Device {
    pub fn new(index: usize, account: usize, number: usize, land: &mut Land) -> Device {
        // All devices of an account are alike: what one without stream management loses excuses what the others do not get.
        let wants_management = !account.is_multiple_of(4);
        Device {
            index,
            account,
            is_first: number == 0,
            resource: format!("r{number}"),
            wants_management,
            wants_resumption: wants_management && land.dice.percent(85),
            wants_copies: land.dice.percent(30),
            phase: Phase::Away,
            turn: 0,
            conn: None,
            framer: Framer::new(),
            inbox: Vec::new(),
            session: None,
            life: None,
            managed: None,
            requests: BTreeMap::new(),
            ids: 0,
            jid: String::new(),
            available: None,
            seen: BTreeSet::new(),
            asking: BTreeSet::new(),
            roster: BTreeMap::new(),
            roster_version: None,
            trying: None,
            is_registered: account != NEWCOMER,
            registration: None,
            archive: Vec::new(),
            has_archive: false,
            stamped: 0,
            places: Default::default(),
            tunes: BTreeMap::new(),
            wants_tokens: index % 3 == 1,
            wallet: Wallet::default(),
            held: None,
            held_left: None,
            logins: 0,
            resumptions: 0,
        }
    }

    pub fn index(&self) -> usize {
        self.index
    }

    pub fn is_away(&self) -> bool {
        self.phase == Phase::Away
    }

    pub fn is_available(&self) -> bool {
        self.available.is_some()
    }

    pub fn is_online(&self) -> bool {
        self.phase == Phase::Online
    }

    /// Its full JID while it is bound.
    pub fn jid(&self) -> &str {
        &self.jid
    }

    pub fn outstanding(&self) -> Option<String> {
        let well = |request: &&Request| !matches!(request.purpose, Purpose::Peer);
        self.requests.values().find(well).map(|request| format!("{request:?} of device {}", self.index))
    }

    // What it does.

    /// Its turn has come.
    pub fn act(&mut self, land: &mut Land, turn: u32) {
        if turn != self.turn {
            return;
        }
        self.check_patience(land);
        self.overhear(land);
        match self.phase {
            Phase::Away => self.connect(land),
            Phase::Online if !land.is_calm => self.do_something(land),
            _ => {}
        }
        // Who only waits for the end need not look at the clock that often.
        let mean = if land.is_calm && self.phase == Phase::Online { 30_000 } else { 2500 };
        let pause = land.dice.time(Duration::from_millis(mean));
        self.act_in(land, pause);
    }

    pub fn act_in(&mut self, land: &mut Land, pause: Duration) {
        self.turn += 1;
        let at = land.now + pause;
        land.schedule(at, Event::Act { device: self.index, turn: self.turn });
    }

    /// Nobody waits for ever.
    fn check_patience(&mut self, land: &mut Land) {
        if self.phase != Phase::Online {
            return;
        }
        let late =
            |request: &&Request| land.now - request.asked > ANSWER_TIME && !matches!(request.purpose, Purpose::Peer);
        if let Some(request) = self.requests.values().find(late) {
            let what = format!("device {} waits for {request:?}", self.index);
            land.oracle.fail(|| what);
        }
        let late = |place: &&Place| place.knocks_since().is_some_and(|asked| land.now - asked > ANSWER_TIME);
        if let Some(place) = self.places.iter().find(late) {
            let what = format!("device {} stands before a room: {place:?}", self.index);
            land.oracle.fail(|| what);
        }
    }

    fn connect(&mut self, land: &mut Land) {
        self.conn = Some(land.connect(self.index));
        self.framer = Framer::new();
        self.inbox.clear();
        self.phase = Phase::Greeting;
        self.open_stream(land);
    }

    fn open_stream(&mut self, land: &mut Land) {
        let from = if self.wants_tokens { format!(" from='{}'", account_name(self.account)) } else { String::new() };
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='{}'{from} version='1.0' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>",
            domain(self.account)
        );
        self.write(land, &header);
    }

    pub fn write(&mut self, land: &mut Land, text: &str) {
        let Some(conn) = self.conn else { return };
        land.note(|| format!("{} C{conn}: {text}", self.index));
        land.send(conn, text.as_bytes());
    }

    pub fn stanza(&mut self, land: &mut Land, xml: String, sent: Option<Sent>) {
        self.write(land, &xml);
        if let Some(managed) = &mut self.managed {
            managed.unacked.push_back(Unacked { xml, sent });
            if land.dice.percent(40) {
                self.write(land, "<r xmlns='urn:xmpp:sm:3'/>");
            }
        }
    }

    pub fn new_id(&mut self) -> String {
        self.ids += 1;
        format!("d{}-{}", self.index, self.ids)
    }

    pub fn request(&mut self, land: &mut Land, kind: &str, to: Option<&str>, payload: &str, purpose: Purpose) {
        let id = self.new_id();
        let to = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
        self.requests.insert(id.clone(), Request { purpose, asked: land.now });
        self.stanza(land, format!("<iq type='{kind}' id='{id}'{to}>{payload}</iq>"), None);
    }

    fn do_something(&mut self, land: &mut Land) {
        match land.dice.below(133) {
            0..=29 => self.chat(land, 1),
            30..=32 => {
                let count = 1 + land.dice.below(40);
                self.chat(land, count);
            }
            33..=40 => self.set_roster(land),
            41..=46 => self.subscribe(land),
            47..=50 => {
                let key = Key::Private(self.account);
                self.set(land, key, |value| {
                    format!("<query xmlns='jabber:iq:private'><x xmlns='x:y'>{value}</x></query>")
                });
            }
            51..=53 => {
                let key = Key::Vcard(self.account);
                self.set(land, key, |value| format!("<vCard xmlns='vcard-temp'><FN>{value}</FN></vCard>"));
            }
            54..=59 => self.look_something_up(land),
            60..=63 => self.change_presence(land),
            64..=66 => {
                let to = domain(self.account);
                self.request(land, "get", Some(to), "<ping xmlns='urn:xmpp:ping'/>", Purpose::Nothing);
            }
            67..=69 => {
                let to = self.somebody(land);
                self.request(land, "get", Some(&to), "<ping xmlns='urn:xmpp:ping'/>", Purpose::Peer);
            }
            70 | 71 => self.change_password(land),
            72 | 73 => {
                let until = land.now + land.dice.time(Duration::from_secs(40));
                land.reads_at[self.index] = until;
                land.strike("network: client stops reading for a while");
            }
            74..=79 => self.leave(land),
            80..=84 => {
                if let Some(conn) = self.conn {
                    land.note(|| format!("{} C{conn} is cut", self.index));
                    land.reset(conn);
                }
            }
            85..=87 => {
                if let Some(conn) = self.conn {
                    land.note(|| format!("{} C{conn} vanishes", self.index));
                    land.vanish(conn);
                    self.on_gone(land);
                }
            }
            88 => {
                if let Some(conn) = self.conn {
                    land.note(|| format!("{} C{conn} is dead", self.index));
                    land.half_open(conn);
                }
            }
            89..=91 => self.publish(land),
            92..=94 => self.block_or_unblock(land),
            95 | 96 => self.register_for_push(land),
            97.. => self.go_to_a_room(land),
        }
    }

    /// Somebody's full JID, there or not.
    fn somebody(&mut self, land: &mut Land) -> String {
        let account = land.dice.below(NEWCOMER + 1);
        format!("{}/r{}", account_name(account), land.dice.below(3))
    }

    fn chat(&mut self, land: &mut Land, count: usize) {
        let Some(session) = self.session else { return };
        let account = land.dice.below(NEWCOMER + 1);
        for _ in 0..count {
            let number = land.oracle.on_message_sent(session, account, land.now);
            let kind = if land.dice.percent(80) { " type='chat'" } else { "" };
            let padding = if land.dice.percent(5) { "x".repeat(land.dice.below(9000)) } else { String::new() };
            let resource = if land.dice.percent(80) { String::new() } else { format!("/r{}", land.dice.below(3)) };
            let xml = format!(
                "<message id='m{number}'{kind} to='{}{resource}'><body>{padding}</body></message>",
                account_name(account)
            );
            self.stanza(land, xml, Some(Sent::Message(number)));
        }
    }

    /// Says something to an account or one of its devices; the message's number.
    pub fn say(&mut self, land: &mut Land, account: usize, to: &str) -> Option<usize> {
        let number = land.oracle.on_message_sent(self.session?, account, land.now);
        let xml = format!("<message id='m{number}' type='chat' to='{to}'><body>peace</body></message>");
        self.stanza(land, xml, Some(Sent::Message(number)));
        Some(number)
    }

    pub fn session(&self) -> Option<usize> {
        self.session
    }

    pub fn wants_copies(&self) -> bool {
        self.wants_copies
    }

    pub fn set(&mut self, land: &mut Land, key: Key, payload: impl FnOnce(&str) -> String) {
        let value = land.oracle.new_value();
        let write = land.oracle.begin_write(&key, &value, land.now);
        self.request(land, "set", None, &payload(&value), Purpose::Write(vec![(key, write)]));
    }

    fn set_roster(&mut self, land: &mut Land) {
        let contact = account_name(land.dice.below(NEWCOMER + 1)).to_owned();
        if contact == account_name(self.account) {
            return;
        }
        let key = Key::Name(self.account, contact.clone());
        if land.dice.percent(20) {
            let write = land.oracle.begin_write(&key, "", land.now);
            let payload =
                format!("<query xmlns='jabber:iq:roster'><item jid='{contact}' subscription='remove'/></query>");
            return self.request(land, "set", None, &payload, Purpose::Write(vec![(key, write)]));
        }
        self.set(land, key, |value| {
            format!(
                "<query xmlns='jabber:iq:roster'><item jid='{contact}' name='{value}'><group>g</group></item></query>"
            )
        });
    }

    fn subscribe(&mut self, land: &mut Land) {
        let contact = account_name(land.dice.below(NEWCOMER + 1));
        let kind = *land
            .dice
            .pick(&["subscribe", "subscribe", "subscribe", "unsubscribe", "subscribed", "unsubscribed"])
            .expect("some");
        self.stanza(land, format!("<presence to='{contact}' type='{kind}'/>"), None);
    }

    fn look_something_up(&mut self, land: &mut Land) {
        match land.dice.below(5) {
            3 => self.ask_tune(land),
            4 => self.ask_blocklist(land),
            0 => self.ask_roster(land),
            1 => self.ask_private(land),
            _ => self.ask_vcard(land),
        }
    }

    pub fn ask_roster(&mut self, land: &mut Land) {
        let least = land.oracle.roster_version(self.account);
        self.request(land, "get", None, "<query xmlns='jabber:iq:roster'/>", Purpose::Roster { least });
    }

    pub fn ask_private(&mut self, land: &mut Land) {
        let payload = "<query xmlns='jabber:iq:private'><x xmlns='x:y'/></query>";
        self.request(land, "get", None, payload, Purpose::Read { key: Key::Private(self.account) });
    }

    pub fn ask_vcard(&mut self, land: &mut Land) {
        let payload = "<vCard xmlns='vcard-temp'/>";
        self.request(land, "get", None, payload, Purpose::Read { key: Key::Vcard(self.account) });
    }

    /// Asks for the own archive, or a room's, behind that place, page by page.
    pub fn ask_archive(&mut self, land: &mut Land, room: Option<usize>, after: Option<&str>) {
        let after = after.map(|after| format!("<after>{after}</after>")).unwrap_or_default();
        let payload = format!(
            "<query xmlns='{}'><set xmlns='http://jabber.org/protocol/rsm'><max>50</max>{after}</set></query>",
            ns::MAM
        );
        self.request(land, "set", room.map(|room| ROOMS[room]), &payload, Purpose::Archive { room });
    }

    fn change_presence(&mut self, land: &mut Land) {
        match land.dice.below(5) {
            0 => {
                self.available = None;
                self.seen.clear();
                self.stanza(land, "<presence type='unavailable'/>".to_owned(), None);
            }
            1 => self.become_available(land, -1),
            _ => self.become_available(land, 1),
        }
    }

    pub fn become_available(&mut self, land: &mut Land, priority: i8) {
        self.available = Some(priority);
        let xml = format!("<presence><priority>{priority}</priority>{}</presence>", self.capabilities());
        self.stanza(land, xml, None);
    }

    fn change_password(&mut self, land: &mut Land) {
        if land.new_passwords == 0 {
            return;
        }
        land.new_passwords -= 1;
        let value = land.oracle.new_value();
        let key = Key::Password(self.account);
        let write = land.oracle.begin_write(&key, &value, land.now);
        let payload = format!(
            "<query xmlns='jabber:iq:register'><username>{}</username><password>{value}</password></query>",
            local(self.account)
        );
        let to = domain(self.account);
        self.request(land, "set", Some(to), &payload, Purpose::Write(vec![(key, write)]));
    }

    /// Logs out as one should: what is on its way is read until the server has closed its side.
    pub fn leave(&mut self, land: &mut Land) {
        if self.phase == Phase::Online {
            self.phase = Phase::Leaving;
            self.write(land, "</stream:stream>");
        }
    }

    /// The system says that a connection is closed.
    pub fn on_closed(&mut self, land: &mut Land, conn: usize) {
        if self.conn == Some(conn) {
            self.on_gone(land);
        }
    }

    /// The connection is gone. The session may go on.
    pub fn on_gone(&mut self, land: &mut Land) {
        let conn = self.conn.take();
        land.note(|| format!("{} C{conn:?} is gone", self.index));
        let is_over = self.phase == Phase::Leaving || land.dice.percent(15);
        self.phase = Phase::Away;
        self.life = None;
        self.trying = None;
        self.forget_attempt();
        let can_resume = self.managed.as_ref().is_some_and(|managed| managed.id.is_some());
        if self.session.is_some() && (is_over || !can_resume) {
            self.end_session(land);
        }
        let mean = if land.dice.percent(20) { 120 } else { 6 };
        let pause = match land.is_calm {
            true => Duration::from_secs(1),
            false => land.dice.time(Duration::from_secs(mean)),
        };
        self.act_in(land, pause);
    }

    fn end_session(&mut self, land: &mut Land) {
        if let Some(session) = self.session.take() {
            land.oracle.on_ended(session, land.now);
        }
        self.managed = None;
        self.requests.clear();
        self.available = None;
        self.seen.clear();
        self.asking.clear();
        self.roster.clear();
        self.roster_version = None;
        self.stamped = 0;
        self.places = Default::default();
        self.tunes.clear();
        self.held = None;
        self.held_left = None;
    }

    // What it is told.

    pub fn on_bytes(&mut self, land: &mut Land, conn: usize, bytes: &[u8]) {
        if self.conn != Some(conn) {
            return;
        }
        self.inbox.extend_from_slice(bytes);
        let mut inbox = std::mem::take(&mut self.inbox);
        let mut at = 0;
        while self.conn == Some(conn) {
            let next = match self.framer.next(&inbox[at..], &LIMITS) {
                Ok(next) => next,
                Err(error) => {
                    let text = String::from_utf8_lossy(&inbox[at..]).into_owned();
                    return land.oracle.fail(|| format!("{error:?} in what device {} was sent: {text}", self.index));
                }
            };
            match next {
                Next::Incomplete { skip } => {
                    at += skip;
                    break;
                }
                Next::Header { used, .. } => at += used,
                Next::Footer { .. } => {
                    self.on_footer(land);
                    return;
                }
                Next::Stanza { used, frame } => {
                    at += used;
                    land.note(|| format!("{} S{conn}: {}", self.index, frame.xml));
                    self.on_element(land, &Tree::of(&frame).root());
                }
            }
        }
        inbox.drain(..at);
        self.inbox = inbox;
    }

    fn on_footer(&mut self, land: &mut Land) {
        let Some(conn) = self.conn else { return };
        if self.phase == Phase::Leaving
            && let Some(life) = self.life
        {
            land.oracle.lives[life].is_clean = true;
        } else {
            self.write(land, "</stream:stream>");
        }
        // A stream that was closed cannot be resumed.
        if self.session.is_some() {
            self.end_session(land);
        }
        land.hang_up(conn);
        self.on_gone(land);
    }

    fn on_element(&mut self, land: &mut Land, element: &Element<'_>) {
        match (element.ns(), element.name()) {
            (ns::STREAMS, "features") => self.on_features(land, element),
            (ns::STREAMS, "error") => {
                let condition = element.children().next().map(|child| child.name().to_owned()).unwrap_or_default();
                if !matches!(
                    &*condition,
                    "conflict"
                        | "reset"
                        | "connection-timeout"
                        | "system-shutdown"
                        | "policy-violation"
                        | "resource-constraint"
                ) {
                    land.oracle.fail(|| format!("device {} got {}", self.index, element.source()));
                }
            }
            (ns::SASL | ns::SASL2, "challenge") if self.phase == Phase::Challenge => self.prove(land, &element.text()),
            (ns::SASL, "success") => self.on_success(land),
            (ns::SASL2, "success") => {
                self.on_authenticated(land, element);
                self.on_known(land);
            }
            (ns::SASL | ns::SASL2, "failure") => self.on_failure(land, element),
            (ns::SM, _) => self.on_management(land, element),
            (ns::CLIENT, name) => {
                if let Some(managed) = self.managed.as_mut().filter(|managed| managed.is_enabled) {
                    managed.handled = managed.handled.wrapping_add(1);
                }
                let is_of_room = element.attr("from").is_some_and(|from| from.contains("@conference."));
                match name {
                    "message" | "presence" if is_of_room => self.on_room(land, element),
                    "iq" => self.on_iq(land, element),
                    "message" => self.on_message(land, element),
                    "presence" => self.on_presence(land, element),
                    _ => land.oracle.fail(|| format!("device {} got {}", self.index, element.source())),
                }
            }
            _ => land.oracle.fail(|| format!("device {} got {}", self.index, element.source())),
        }
    }

    // Logging in.

    fn on_features(&mut self, land: &mut Land, features: &Element<'_>) {
        match self.phase {
            Phase::Greeting if !self.is_registered => {
                let key = Key::Password(self.account);
                let write = match self.registration {
                    Some(write) => write,
                    None => land.oracle.begin_write(&key, PASSWORD, land.now),
                };
                self.registration = Some(write);
                self.phase = Phase::Registering;
                let xml = format!(
                    "<iq type='set' id='reg'><query xmlns='jabber:iq:register'><username>{}</username>\
                     <password>{PASSWORD}</password></query></iq>",
                    local(self.account)
                );
                self.write(land, &xml);
            }
            Phase::Greeting => self.log_in(land),
            Phase::Restarting => {
                let offered = features.child("sm", ns::SM).is_some();
                match self.managed.as_ref().and_then(|managed| Some((managed.id.clone()?, managed.handled))) {
                    Some((id, handled)) if offered && self.session.is_some() => {
                        self.phase = Phase::Resuming;
                        self.begin_life(land);
                        self.write(land, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{handled}'/>"));
                    }
                    _ => self.bind(land),
                }
            }
            _ => land.oracle.fail(|| format!("features for device {} at {:?}", self.index, self.phase)),
        }
    }

    fn log_in(&mut self, land: &mut Land) {
        self.phase = Phase::Challenge;
        if self.wants_tokens {
            return self.authenticate(land);
        }
        let Some(first) = self.choose_password(land) else { return };
        self.write(land, &format!("<auth xmlns='{}' mechanism='SCRAM-SHA-256'>{first}</auth>", ns::SASL));
    }

    /// One that may be right; the first word of the exchange.
    pub fn choose_password(&mut self, land: &mut Land) -> Option<String> {
        let possible = land.oracle.possible(&Key::Password(self.account), land.now);
        let Some(password) = land.dice.pick(&possible).cloned() else {
            land.oracle.fail(|| format!("no password for device {}", self.index));
            return None;
        };
        self.trying = Some((password, land.now));
        Some(scram::begin(local(self.account)))
    }

    fn prove(&mut self, land: &mut Land, challenge: &str) {
        self.phase = Phase::Proof;
        let Some((password, _)) = &self.trying else { return };
        match scram::respond(local(self.account), password, challenge) {
            Some(proof) => {
                let sasl = if self.wants_tokens { ns::SASL2 } else { ns::SASL };
                self.write(land, &format!("<response xmlns='{sasl}'>{proof}</response>"));
            }
            None => land.oracle.fail(|| format!("a challenge: {challenge}")),
        }
    }

    fn on_success(&mut self, land: &mut Land) {
        self.on_known(land);
        self.framer.restart();
        self.open_stream(land);
    }

    fn on_known(&mut self, land: &mut Land) {
        self.logins += 1;
        if let Some((password, asked)) = self.trying.take() {
            land.oracle.on_read(&Key::Password(self.account), &password, asked, land.now);
        }
        self.phase = Phase::Restarting;
    }

    fn on_failure(&mut self, land: &mut Land, failure: &Element<'_>) {
        let condition = failure.children().next().map(|child| child.name().to_owned()).unwrap_or_default();
        if self.on_token_refused(land, &condition) {
            return;
        }
        if condition == "temporary-auth-failure" {
            let Some(conn) = self.conn else { return };
            land.hang_up(conn);
            return self.on_gone(land);
        }
        let Some((password, asked)) = self.trying.take() else { return };
        match &*condition {
            "not-authorized" => {
                let possible = land.oracle.possible(&Key::Password(self.account), asked);
                if possible == [&*password] {
                    return land.oracle.fail(|| format!("{password:?} of device {} is not taken", self.index));
                }
                self.phase = Phase::Challenge;
                self.log_in(land);
            }
            _ => land.oracle.fail(|| format!("device {} got {}", self.index, failure.source())),
        }
    }

    fn begin_life(&mut self, land: &mut Land) {
        let Some(conn) = self.conn else { return };
        self.life = Some(land.oracle.on_life(self.account, conn, land.now));
    }

    fn bind(&mut self, land: &mut Land) {
        if self.session.is_some() {
            self.end_session(land);
        }
        self.managed = None;
        self.phase = Phase::Binding;
        self.begin_life(land);
        let resource =
            if land.dice.percent(80) { format!("<resource>{}</resource>", self.resource) } else { String::new() };
        let id = self.new_id();
        self.write(land, &format!("<iq type='set' id='{id}'><bind xmlns='{}'>{resource}</bind></iq>", ns::BIND));
    }

    fn on_bound(&mut self, land: &mut Land, iq: &Element<'_>) {
        let jid =
            iq.child("bind", ns::BIND).and_then(|bind| bind.child("jid", ns::BIND)).map(|jid| jid.text().into_owned());
        let Some(jid) = jid else {
            // No room, or the store could not be asked.
            let Some(conn) = self.conn else { return };
            land.hang_up(conn);
            return self.on_gone(land);
        };
        self.jid = jid;
        self.phase = Phase::Online;
        self.session = Some(land.oracle.on_bound(self.account));
        if self.wants_management {
            let resume = if self.wants_resumption { " resume='true'" } else { "" };
            self.write(land, &format!("<enable xmlns='urn:xmpp:sm:3'{resume}/>"));
            self.managed = Some(Managed::default());
        }
        self.ask_roster(land);
        if self.wants_copies {
            self.request(land, "set", None, "<enable xmlns='urn:xmpp:carbons:2'/>", Purpose::Nothing);
        }
        let priority = if land.is_calm || land.dice.percent(90) { 1 } else { -1 };
        self.become_available(land, priority);
        for room in 0..ROOMS.len() {
            if !land.is_calm && land.dice.percent(50) {
                self.enter(land, room);
            }
        }
    }

    // Stream management.

    fn on_management(&mut self, land: &mut Land, element: &Element<'_>) {
        let h = || element.attr("h").and_then(|h| h.parse::<u32>().ok());
        let Some(managed) = &mut self.managed else { return };
        match element.name() {
            "enabled" => {
                managed.is_enabled = true;
                managed.id = element.attr("id").map(str::to_owned);
                if let Some(life) = self.life {
                    land.oracle.lives[life].is_managed = true;
                }
            }
            "r" => {
                let h = managed.handled;
                if land.is_calm || land.dice.percent(90) {
                    self.write(land, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
                }
            }
            "a" => match h() {
                Some(h) => self.on_acknowledged(land, h),
                None => land.oracle.fail(|| format!("an acknowledgement: {}", element.source())),
            },
            "resumed" => {
                let Some(h) = h() else { return land.oracle.fail(|| format!("resumed: {}", element.source())) };
                self.resumptions += 1;
                self.phase = Phase::Online;
                if let Some(life) = self.life {
                    land.oracle.lives[life].is_managed = true;
                }
                self.on_acknowledged(land, h);
                let again: Vec<String> = self
                    .managed
                    .iter()
                    .flat_map(|managed| &managed.unacked)
                    .map(|unacked| unacked.xml.clone())
                    .collect();
                for xml in again {
                    self.write(land, &xml);
                }
                self.write(land, "<r xmlns='urn:xmpp:sm:3'/>");
            }
            "failed" => {
                // What was handled before the session ended is told where it is known.
                if let Some(h) = h() {
                    self.on_acknowledged(land, h);
                }
                if self.phase == Phase::Resuming {
                    self.bind(land);
                } else {
                    self.managed = None;
                }
            }
            _ => land.oracle.fail(|| format!("device {} got {}", self.index, element.source())),
        }
    }

    fn on_acknowledged(&mut self, land: &mut Land, h: u32) {
        let Some(managed) = &mut self.managed else { return };
        let count = h.wrapping_sub(managed.acknowledged) as usize;
        if count > managed.unacked.len() {
            let what = format!("h='{h}' for device {}: {} sent", self.index, managed.unacked.len());
            return land.oracle.fail(|| what);
        }
        managed.acknowledged = h;
        for unacked in managed.unacked.drain(..count) {
            match unacked.sent {
                Some(Sent::Message(message)) => land.oracle.on_message_acknowledged(message),
                Some(Sent::Line(line)) => land.oracle.on_line_acknowledged(line),
                None => {}
            }
        }
    }

    // Stanzas.

    fn on_iq(&mut self, land: &mut Land, iq: &Element<'_>) {
        let (id, from) = (iq.attr("id").unwrap_or_default().to_owned(), iq.attr("from").map(str::to_owned));
        match iq.attr("type") {
            Some("get" | "set") => self.on_request(land, iq, &id, from.as_deref()),
            Some(_) if self.phase == Phase::Binding => self.on_bound(land, iq),
            Some(_) if self.phase == Phase::Registering => self.on_registered(land, iq),
            Some(kind) => match self.requests.remove(&id) {
                Some(request) => self.on_answer(land, iq, kind == "result", request),
                // Another device answers what an earlier session of that name has asked.
                None if from.is_some_and(|from| from.contains('/')) => {}
                None => {
                    land.oracle.fail(|| format!("device {} was answered without asking: {}", self.index, iq.source()))
                }
            },
            None => land.oracle.fail(|| format!("device {} got {}", self.index, iq.source())),
        }
    }

    fn on_request(&mut self, land: &mut Land, iq: &Element<'_>, id: &str, from: Option<&str>) {
        if let Some(query) = iq.child("query", ns::ROSTER) {
            self.on_push(land, &query);
        }
        let to = from.map(|from| format!(" to='{from}'")).unwrap_or_default();
        let answer = iq.child("query", ns::DISCO_INFO).map(|query| self.tell_capabilities(&query)).unwrap_or_default();
        self.stanza(land, format!("<iq type='result' id='{id}'{to}>{answer}</iq>"), None);
    }

    fn on_registered(&mut self, land: &mut Land, iq: &Element<'_>) {
        let key = Key::Password(self.account);
        let is_conflict = iq
            .children()
            .flat_map(|error| error.children().collect::<Vec<_>>())
            .any(|child| child.name() == "conflict");
        if iq.attr("type") == Some("result") || is_conflict {
            self.is_registered = true;
            if let Some(write) = self.registration {
                land.oracle.acknowledge_write(&key, write, land.now);
            }
            return self.log_in(land);
        }
        let Some(conn) = self.conn else { return };
        land.hang_up(conn);
        self.on_gone(land);
    }

    fn on_answer(&mut self, land: &mut Land, iq: &Element<'_>, is_result: bool, request: Request) {
        match request.purpose {
            Purpose::Nothing if !is_result => land.oracle.fail(|| format!("refused: {}", iq.source())),
            Purpose::Nothing | Purpose::Peer => {}
            Purpose::Write(writes) => self.on_written(land, iq, is_result, &writes),
            Purpose::Archive { .. } if !is_result => land.oracle.fail(|| format!("refused: {}", iq.source())),
            Purpose::Archive { room } => self.on_archive_page(land, iq, room),
            Purpose::Read { key } if !is_result && iq.source().contains("item-not-found") => {
                land.oracle.on_read(&key, "", request.asked, land.now);
            }
            Purpose::Read { .. } | Purpose::Roster { .. } if !is_result => {}
            // The room may not be there, or not be this account's.
            Purpose::Affiliated { .. } | Purpose::Occupants { .. } | Purpose::Kick { .. } if !is_result => {}
            Purpose::Blocklist if !is_result => land.oracle.fail(|| format!("refused: {}", iq.source())),
            Purpose::Blocklist => self.on_blocklist(land, iq, request.asked),
            Purpose::Occupants { room } => self.on_occupants(iq, room),
            Purpose::Kick { room, nick } => land.oracle.on_kick(room, &nick, request.asked, land.now),
            Purpose::Description { room } => self.on_description(land, iq, room, request.asked),
            Purpose::Affiliated { room, affiliation } => {
                self.on_affiliated(land, iq, (room, affiliation), request.asked);
            }
            Purpose::Read { key } => {
                let value = iq.children().next().map(|document| text_within(&document)).unwrap_or_default();
                land.oracle.on_read(&key, &value, request.asked, land.now);
            }
            Purpose::Roster { least } => self.on_roster(land, iq, least.as_deref(), request.asked),
        }
    }

    fn on_written(&mut self, land: &mut Land, iq: &Element<'_>, is_result: bool, writes: &[Ticket]) {
        let error = iq.child("error", ns::CLIENT);
        let may_retry = error.as_ref().and_then(|error| error.attr("type")) == Some("wait");
        for (key, write) in writes {
            match is_result {
                true => land.oracle.acknowledge_write(key, *write, land.now),
                false => land.oracle.refuse_write(key, *write, !may_retry),
            }
        }
        if is_result {
            self.on_room_written(land, writes);
        }
    }

    fn on_roster(&mut self, land: &mut Land, iq: &Element<'_>, least: Option<&str>, asked: Duration) {
        let Some(query) = iq.child("query", ns::ROSTER) else {
            return land.oracle.fail(|| format!("a roster: {}", iq.source()));
        };
        let version = query.attr("ver").unwrap_or_default().to_owned();
        let items: BTreeMap<String, String> = query.children().map(|item| (jid_of(&item), describe(&item))).collect();
        for account in 0..=NEWCOMER {
            let contact = account_name(account);
            let name = query
                .children()
                .find(|item| jid_of(item) == contact)
                .and_then(|item| item.attr("name").map(str::to_owned));
            let key = Key::Name(self.account, contact.to_owned());
            land.oracle.on_read(&key, name.as_deref().unwrap_or_default(), asked, land.now);
        }
        land.oracle.on_roster(self.account, &version, least, Some(items.clone()));
        self.roster = items;
        self.roster_version = Some(version);
    }

    fn on_archive_page(&mut self, land: &mut Land, iq: &Element<'_>, room: Option<usize>) {
        let fin = iq.children().find(|child| child.is("fin", ns::MAM));
        let is_complete = fin.as_ref().and_then(|fin| fin.attr("complete")) == Some("true");
        let set = fin.and_then(|fin| fin.children().find(|child| child.name() == "set"));
        let last = set
            .and_then(|set| set.children().find(|child| child.name() == "last").map(|last| last.text().into_owned()));
        match last {
            Some(last) if !is_complete => self.ask_archive(land, room, Some(&last)),
            _ => match room {
                Some(room) => self.places[room].has_archive = true,
                None => self.has_archive = true,
            },
        }
    }

    fn on_push(&mut self, land: &mut Land, query: &Element<'_>) {
        let version = query.attr("ver").unwrap_or_default().to_owned();
        for item in query.children() {
            let key = Key::Name(self.account, jid_of(&item));
            if item.attr("subscription") == Some("remove") {
                self.roster.remove(&jid_of(&item));
            } else {
                self.roster.insert(jid_of(&item), describe(&item));
                land.oracle.on_shown(&key, item.attr("name").unwrap_or_default(), land.now);
            }
        }
        // Only who has the roster at hand knows what it is now.
        let content = self.roster_version.is_some().then(|| self.roster.clone());
        let least = self.roster_version.clone();
        land.oracle.on_roster(self.account, &version, least.as_deref(), content);
        if self.roster_version.is_some() {
            self.roster_version = Some(version);
        }
    }

    fn on_message(&mut self, land: &mut Land, message: &Element<'_>) {
        if let Some(wrapper) = message.children().find(|child| matches!(child.ns(), ns::MAM | ns::CARBONS)) {
            return self.on_wrapped(land, &wrapper);
        }
        if self.on_news(land, message) {
            return;
        }
        let Some(number) = number_of(message) else {
            return land.oracle.fail(|| format!("device {} got {}", self.index, message.source()));
        };
        if message.attr("type") == Some("error") {
            return land.oracle.on_bounced(number);
        }
        let stamped = message.child("delay", ns::DELAY).is_some();
        self.stamped += usize::from(stamped);
        if land.plant == Some(Plant::SwapLeft) && stamped && self.held_left.is_none() && land.oracle.is_left(number) {
            self.held_left = Some(number);
            return;
        }
        if let Some(session) = self.session {
            land.oracle.on_received(session, number, stamped);
            if let Some(held) = self.held_left.take() {
                land.oracle.on_received(session, held, true);
            }
        }
    }

    /// A message of the archive, or a copy of what another device has sent or got.
    fn on_wrapped(&mut self, land: &mut Land, wrapper: &Element<'_>) {
        let forwarded = wrapper.children().next();
        let inner = forwarded.and_then(|forwarded| forwarded.children().find(|child| child.name() == "message"));
        if inner.as_ref().and_then(|inner| inner.attr("from")).is_some_and(|from| from.contains("@conference.")) {
            // An invitation.
            return;
        }
        match inner.as_ref().and_then(number_of) {
            Some(number) if wrapper.ns() == ns::MAM => self.archive.push(number),
            Some(number) => {
                let form = if wrapper.name() == "received" { Form::Received } else { Form::Sent };
                if let Some(session) = self.session {
                    land.oracle.on_copied(session, number, form);
                }
            }
            None => land.oracle.fail(|| format!("device {} got {}", self.index, wrapper.source())),
        }
    }

    fn on_presence(&mut self, land: &mut Land, presence: &Element<'_>) {
        let from = presence.attr("from").unwrap_or_default().to_owned();
        match presence.attr("type") {
            None => drop(self.seen.insert(from)),
            Some("unavailable") => drop(self.seen.remove(&from)),
            Some("subscribe") => {
                match land.dice.below(10) {
                    0..=5 => self.answer_request(land, &from, "subscribed"),
                    6 => self.answer_request(land, &from, "unsubscribed"),
                    _ => drop(self.asking.insert(from.clone())),
                }
                if land.dice.percent(50) && !land.is_calm {
                    self.stanza(land, format!("<presence to='{from}' type='subscribe'/>"), None);
                }
            }
            Some(_) => {}
        }
    }

    fn answer_request(&mut self, land: &mut Land, from: &str, kind: &str) {
        if !land.is_calm {
            self.stanza(land, format!("<presence to='{from}' type='{kind}'/>"), None);
        }
    }
}

fn number_of(message: &Element<'_>) -> Option<usize> {
    message.attr("id")?.strip_prefix('m')?.parse().ok()
}

fn jid_of(item: &Element<'_>) -> String {
    item.attr("jid").unwrap_or_default().to_owned()
}

/// A roster item as far as it is compared.
fn describe(item: &Element<'_>) -> String {
    let attribute = |name| item.attr(name).unwrap_or_default();
    let groups: Vec<_> = item.children().map(|group| group.text().into_owned()).collect();
    let (subscription, ask, approved) = (attribute("subscription"), attribute("ask"), attribute("approved"));
    format!("{:?} {subscription} {ask} {approved} {groups:?}", attribute("name"))
}

/// The text of the innermost first child.
fn text_within(element: &Element<'_>) -> String {
    match element.children().next() {
        Some(child) => text_within(&child),
        None => element.text().into_owned(),
    }
}

const _: () = assert!(NEWCOMER == ACCOUNTS.len());
