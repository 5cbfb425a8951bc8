//! A room in use: who is in it, and what they are sent.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::time::Duration;

use hashbrown::HashMap;

use super::Change;
use super::entry::{Entering, Showing};
use super::history::History;
use super::nick::likeness;
use super::relay::Relayed;
use crate::core::effects::ConnId;
use crate::core::error::{ErrorType, StanzaError};
use crate::core::rooms::{Affiliation, Role, RoomConfig, RoomRecord};
use crate::core::{Limits, Outputs};
use crate::jid::{BareJid, FullJid};
use crate::xml::writer::escape_attr;
use crate::xml::{Writer, ns};

/// A room in use.
pub(super) struct Room {
    /// Its place among the rooms in use.
    pub(super) key: usize,
    pub(super) jid: BareJid,
    /// As it was last made durable, if it lasts at all.
    pub(super) record: RoomRecord,
    /// Its owner has not said yet what it shall be (section 10.1).
    pub(super) locked: bool,
    /// The store has it.
    pub(super) stored: bool,
    /// A change is on its way into the store.
    pub(super) saving: bool,
    /// That change takes it out of the store.
    pub(super) ending: bool,
    /// Its domain keeps archives.
    may_archive: bool,
    pub(super) history: History,
    pub(super) relayed: Relayed,
    /// Sessions that are being told who is here, and are not here themselves yet (`entry`).
    pub(super) entering: VecDeque<Entering>,
    /// Occupants that the others are being told of, one behind the other.
    pub(super) showing: VecDeque<Showing>,
    /// By number, in the order in which they came.
    occupants: BTreeMap<usize, Occupant>,
    /// Number of the next one.
    next: usize,
    by_nick: HashMap<Box<str>, usize>,
    /// By [`likeness`] of the nick; those of one look are one account's.
    by_look: HashMap<Box<str>, Vec<usize>>,
    /// To whom nicks are promised, by [`likeness`].
    promised: HashMap<Box<str>, BareJid>,
    by_conn: HashMap<ConnId, usize>,
    /// What the occupants' presence comes to, in bytes.
    presence_bytes: usize,
    /// What was said to all of late.
    said: Rate,
    /// What those had sent who came or left last.
    last: VecDeque<(BareJid, Rate)>,
    /// Hashes of the ids of the last messages that were passed on, oldest first.
    sent_ids: VecDeque<u64>,
}

/// Accounts of whom a room knows what they sent before they left.
const LAST_MAX: usize = 64;
const SLOWER: StanzaError = StanzaError::POLICY_VIOLATION.kind(ErrorType::Wait).text("You send too much at once.");
/// Messages of which a room knows the ids.
const SENT_IDS_MAX: usize = 128;

/// In what time so many messages as a limit says may come.
const RATE_TIME: Duration = Duration::from_secs(10);

/// How much came of late: until when nothing more might come, at the rate allowed, to make up for it. On the clock of
/// [`crate::core::Now::mono`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate(Duration);

impl Rate {
    /// With one more, if `count` in [`RATE_TIME`] may come: all at once after a silence, later one each time there is room.
    fn with_one(self, now: Duration, count: usize) -> Option<Rate> {
        let until = self.0.max(now) + RATE_TIME / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        (until <= now + RATE_TIME).then_some(Rate(until))
    }
}

/// Somebody in the room, with one session or several (section 7.2.8).
pub(super) struct Occupant {
    /// Who came later has a higher one; never given twice.
    pub(super) key: usize,
    pub(super) nick: Box<str>,
    /// Room and nick, escaped for an attribute.
    pub(super) from: Box<str>,
    pub(super) user: BareJid,
    pub(super) affiliation: Affiliation,
    pub(super) role: Role,
    /// Its `occupant-id` (XEP-0421).
    pub(super) id: Box<str>,
    /// The latest is the last; never empty but on the way out.
    pub(super) sessions: Vec<Session>,
    /// Everybody has seen it, so everybody is told what becomes of it.
    pub(super) seen: bool,
    /// What it has sent of late.
    pub(super) sent: Rate,
}

/// Where stanzas of a room go.
#[derive(Clone, Copy)]
pub(super) struct Receiver<'a> {
    pub(super) conn: ConnId,
    /// Its address, escaped for an attribute.
    pub(super) to: &'a str,
}

/// One session in the room.
pub(super) struct Session {
    pub(super) conn: ConnId,
    pub(super) jid: FullJid,
    /// The same, escaped for an attribute.
    pub(super) to: Box<str>,
    pub(super) presence: Payload,
}

/// What a presence carries beside what the room says.
#[derive(Clone, Debug, Default)]
pub(super) struct Payload {
    /// Escaped for an attribute; empty for none.
    pub(super) lang: Box<str>,
    /// Elements that stand by themselves in `jabber:client`.
    pub(super) children: Box<[u8]>,
}

impl Session {
    pub(super) fn receiver(&self) -> Receiver<'_> {
        Receiver { conn: self.conn, to: &self.to }
    }
}

impl Occupant {
    /// The same occupant for one of its sessions that it no longer has.
    pub(super) fn without_sessions(&self) -> Occupant {
        Occupant {
            nick: self.nick.clone(),
            from: self.from.clone(),
            user: self.user.clone(),
            id: self.id.clone(),
            sessions: Vec::new(),
            ..*self
        }
    }
}

impl Payload {
    fn len(&self) -> usize {
        self.lang.len() + self.children.len()
    }
}

/// An occupant's presence on its way to the others, written once for those who see addresses and once for those who do not.
pub(super) struct News<'a> {
    room: &'a Room,
    who: &'a Occupant,
    shown: &'a Session,
    notice: &'a Notice<'a>,
    /// All may know of it, not only moderators.
    is_visible: bool,
    open: Vec<u8>,
    hidden: Vec<u8>,
}

impl<'a> News<'a> {
    pub(super) fn new(room: &'a Room, who: &'a Occupant, shown: &'a Session, notice: &'a Notice<'a>) -> News<'a> {
        let is_visible = who.seen || room.config().presence.contains(who.role);
        News { room, who, shown, notice, is_visible, open: Vec::new(), hidden: Vec::new() }
    }

    /// Whether somebody of this role may know.
    pub(super) fn concerns(&self, role: Role) -> bool {
        self.is_visible || role == Role::Moderator
    }

    /// Tells all sessions of another occupant.
    pub(super) fn tell(&mut self, other: &Occupant, out: &mut Outputs) {
        for session in &other.sessions {
            self.tell_one(session.receiver(), other.role, out);
        }
    }

    /// Tells a session whose occupant has, or will have, this role.
    pub(super) fn tell_one(&mut self, to: Receiver<'_>, role: Role, out: &mut Outputs) {
        let with_jid = self.room.shows_addresses_to(role);
        let rest = if with_jid { &mut self.open } else { &mut self.hidden };
        if rest.is_empty() {
            self.room.write_presence(self.who, self.shown, with_jid, false, self.notice, rest);
        }
        out.wire.presence(to.conn, &self.who.from, |buf| push_addressed(buf, "presence", to.to, rest));
    }
}

/// What the room says of an occupant.
#[derive(Clone, Copy, Default)]
pub(super) struct Notice<'a> {
    /// It is on its way out.
    pub(super) unavailable: bool,
    /// Status codes for everybody (section 14).
    pub(super) codes: &'a [u16],
    /// Status codes for the occupant itself, beside 110.
    pub(super) own_codes: &'a [u16],
    /// The nick that it takes.
    pub(super) nick: Option<&'a str>,
    /// Nick of who has done this to it.
    pub(super) actor: Option<&'a str>,
    /// Why.
    pub(super) reason: Option<&'a str>,
    /// The room is destroyed.
    pub(super) end: Option<&'a End>,
    /// `id` for the occupant itself, as written.
    pub(super) id: Option<&'a str>,
}

/// The end of a room (section 10.9), as its owner has put it.
#[derive(Clone, Debug, Default)]
pub(super) struct End {
    /// Where to go instead; empty for nowhere.
    pub(super) alternate: String,
    /// May be empty.
    pub(super) reason: String,
    /// That of the other room; may be empty.
    pub(super) password: String,
}

fn hash_of(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn escaped(text: &str) -> Box<str> {
    let mut escaped = Vec::with_capacity(text.len());
    escape_attr(text, &mut escaped);
    String::from_utf8_lossy(&escaped).into()
}

/// Appends `<NAME to='TO'` and what stands behind it.
pub(super) fn push_addressed(buf: &mut Vec<u8>, name: &str, to: &str, rest: &[u8]) {
    // At once, since the buffer may be a new one.
    buf.reserve(name.len() + to.len() + rest.len() + 8);
    buf.push(b'<');
    buf.extend_from_slice(name.as_bytes());
    buf.extend_from_slice(b" to='");
    buf.extend_from_slice(to.as_bytes());
    buf.push(b'\'');
    buf.extend_from_slice(rest);
}

impl Room {
    pub(super) fn new(
        key: usize,
        jid: BareJid,
        record: RoomRecord,
        history: History,
        stored: bool,
        may_archive: bool,
    ) -> Room {
        let mut room = Room {
            key,
            jid,
            record,
            locked: false,
            stored,
            saving: false,
            ending: false,
            may_archive,
            history,
            relayed: Relayed::default(),
            entering: VecDeque::new(),
            showing: VecDeque::new(),
            occupants: BTreeMap::new(),
            next: 0,
            by_nick: HashMap::new(),
            by_look: HashMap::new(),
            promised: HashMap::new(),
            by_conn: HashMap::new(),
            presence_bytes: 0,
            said: Rate::default(),
            last: VecDeque::new(),
            sent_ids: VecDeque::new(),
        };
        room.note_promised();
        room
    }

    fn note_promised(&mut self) {
        let members = self.record.members.iter().filter(|(_, member)| !member.nick.is_empty());
        self.promised = members.map(|(user, member)| (likeness(&member.nick), user.clone())).collect();
    }

    pub(super) fn config(&self) -> &RoomConfig {
        &self.record.config
    }

    /// What is said in it is to be kept, as far as its owner and the domain's say.
    pub(super) fn is_logged(&self) -> bool {
        self.may_archive && self.record.config.archived
    }

    /// What is said in it is kept in the store.
    pub(super) fn archives(&self) -> bool {
        self.stored && self.is_logged()
    }

    /// Nothing keeps it in memory.
    pub(super) fn is_idle(&self) -> bool {
        self.occupants.is_empty() && self.entering.is_empty() && self.showing.is_empty() && !self.saving
    }

    /// Bytes that it holds, roughly.
    pub(super) fn held(&self) -> usize {
        const ROOM: usize = 1024;
        const SESSION: usize = 512;
        const MEMBER: usize = 128;
        const ENTERING: usize = 2048;
        let members = self.record.members.len() * MEMBER;
        let coming = (self.entering.len() + self.showing.len()) * ENTERING;
        ROOM + self.by_conn.len() * SESSION + coming + members + self.presence_bytes + self.history.bytes()
    }

    /// A change is durable.
    pub(super) fn apply(&mut self, change: Change, lasting: bool) {
        self.stored = lasting;
        match change {
            Change::Save(record) | Change::Card(record, _) => {
                self.record = *record;
                self.note_promised();
            }
            Change::Open(record) => {
                self.record = *record;
                self.locked = false;
            }
            Change::Line(line) => self.history.forget(line.id),
            Change::Destroy(_) => {}
        }
    }

    pub(super) fn occupants(&self) -> impl Iterator<Item = (usize, &Occupant)> {
        self.occupants_in(0..usize::MAX)
    }

    /// Those with such numbers, in their order.
    pub(super) fn occupants_in(&self, keys: Range<usize>) -> impl Iterator<Item = (usize, &Occupant)> {
        self.occupants.range(keys).map(|(key, occupant)| (*key, occupant))
    }

    /// Above the number of everybody who is here.
    pub(super) fn end(&self) -> usize {
        self.next
    }

    pub(super) fn occupant(&self, key: usize) -> Option<&Occupant> {
        self.occupants.get(&key)
    }

    pub(super) fn occupant_mut(&mut self, key: usize) -> Option<&mut Occupant> {
        self.occupants.get_mut(&key)
    }

    /// Whether somebody may enter once more: all that are told of it are as many as hear a message.
    pub(super) fn takes_newcomer(&mut self, now: Duration, user: &BareJid, limits: &Limits) -> Result<(), StanzaError> {
        let rate = self.rate_of(user).with_one(now, limits.room_occupant_rate).ok_or(SLOWER)?;
        self.note_rate(user, rate);
        Ok(())
    }

    /// What somebody who is not here, or comes again, has sent of late.
    pub(super) fn rate_of(&self, user: &BareJid) -> Rate {
        self.last.iter().find(|(last, _)| last == user).map_or(Rate::default(), |(_, rate)| *rate)
    }

    fn note_rate(&mut self, user: &BareJid, rate: Rate) {
        self.last.retain(|(last, _)| last != user);
        if self.last.len() >= LAST_MAX {
            self.last.pop_front();
        }
        self.last.push_back((user.clone(), rate));
    }

    /// Whether an occupant may show another presence or nick.
    pub(super) fn takes_presence(&mut self, now: Duration, conn: ConnId, limits: &Limits) -> Result<(), StanzaError> {
        let Some(occupant) = self.by_conn.get(&conn).and_then(|key| self.occupants.get_mut(key)) else { return Ok(()) };
        occupant.sent = occupant.sent.with_one(now, limits.room_occupant_rate).ok_or(SLOWER)?;
        Ok(())
    }

    /// Whether an occupant may send one more message to single ones, or to all.
    pub(super) fn takes(
        &mut self,
        now: Duration,
        conn: ConnId,
        to_all: bool,
        limits: &Limits,
    ) -> Result<(), StanzaError> {
        const FULL: StanzaError = StanzaError::RESOURCE_CONSTRAINT.text("Too much is said here at once.");
        let Some(occupant) = self.by_conn.get(&conn).and_then(|key| self.occupants.get_mut(key)) else { return Ok(()) };
        let sent = occupant.sent.with_one(now, limits.room_occupant_rate).ok_or(SLOWER)?;
        // Who is to put an end to a flood has to be heard.
        if to_all && occupant.role < Role::Moderator {
            self.said = self.said.with_one(now, limits.room_rate).ok_or(FULL)?;
        }
        occupant.sent = sent;
        Ok(())
    }

    /// A message with this id was passed on.
    pub(super) fn note_sent(&mut self, id: &str) {
        if self.sent_ids.len() >= SENT_IDS_MAX {
            self.sent_ids.pop_front();
        }
        self.sent_ids.push_back(hash_of(id));
    }

    /// Whether a message with this id was passed on of late.
    pub(super) fn has_sent(&self, id: &str) -> bool {
        self.sent_ids.contains(&hash_of(id))
    }

    pub(super) fn len(&self) -> usize {
        self.occupants.len()
    }

    pub(super) fn nick_holder(&self, nick: &str) -> Option<usize> {
        self.by_nick.get(nick).copied()
    }

    pub(super) fn session_holder(&self, conn: ConnId) -> Option<usize> {
        self.by_conn.get(&conn).copied()
    }

    /// The occupant of a session.
    pub(super) fn occupant_of(&self, conn: ConnId) -> Option<&Occupant> {
        self.occupants.get(&self.session_holder(conn)?)
    }

    /// Whether a nick is somebody else's than `user`'s, is promised to somebody else (section 7.10), or looks like such a one.
    pub(super) fn is_taken(&self, nick: &str, user: &str) -> bool {
        let look = likeness(nick);
        let keys = self.by_look.get(&look).map(Vec::as_slice).unwrap_or_default();
        let holders = keys.iter().filter_map(|key| self.occupants.get(key)).map(|holder| &holder.user);
        holders.chain(self.promised.get(&look)).any(|holder| holder.as_str() != user)
    }

    fn note_look(&mut self, key: usize, nick: &str) {
        self.by_look.entry(likeness(nick)).or_default().push(key);
    }

    fn forget_look(&mut self, key: usize, nick: &str) {
        let look = likeness(nick);
        if let Some(keys) = self.by_look.get_mut(&look) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_look.remove(&look);
            }
        }
    }

    pub(super) fn add_occupant(&mut self, occupant: Occupant) -> usize {
        let key = self.next;
        self.next += 1;
        self.by_nick.insert(occupant.nick.clone(), key);
        self.note_look(key, &occupant.nick);
        self.occupants.insert(key, Occupant { key, ..occupant });
        key
    }

    pub(super) fn add_session(&mut self, key: usize, session: Session) {
        self.by_conn.insert(session.conn, key);
        self.presence_bytes += session.presence.len();
        if let Some(occupant) = self.occupants.get_mut(&key) {
            occupant.sessions.push(session);
        }
    }

    /// The session shows another presence from now on, and is the one that is shown.
    pub(super) fn set_presence(&mut self, conn: ConnId, presence: Payload) {
        let Some(occupant) = self.by_conn.get(&conn).and_then(|key| self.occupants.get_mut(key)) else { return };
        if let Some(place) = occupant.sessions.iter().position(|session| session.conn == conn) {
            let mut session = occupant.sessions.remove(place);
            self.presence_bytes = (self.presence_bytes + presence.len()).saturating_sub(session.presence.len());
            session.presence = presence;
            occupant.sessions.push(session);
        }
    }

    /// Takes a session out; its occupant stays, even without one.
    pub(super) fn remove_session(&mut self, conn: ConnId) -> Option<(usize, Session)> {
        let key = self.by_conn.remove(&conn)?;
        self.entering.retain(|entering| entering.conn != conn);
        let occupant = self.occupants.get_mut(&key)?;
        let place = occupant.sessions.iter().position(|session| session.conn == conn)?;
        let session = occupant.sessions.remove(place);
        self.presence_bytes = self.presence_bytes.saturating_sub(session.presence.len());
        Some((key, session))
    }

    /// Takes an occupant out with all its sessions.
    pub(super) fn remove_occupant(&mut self, key: usize) -> Option<Occupant> {
        let occupant = self.occupants.remove(&key)?;
        self.by_nick.remove(&occupant.nick);
        self.forget_look(key, &occupant.nick);
        self.note_rate(&occupant.user, occupant.sent);
        for session in &occupant.sessions {
            self.by_conn.remove(&session.conn);
            self.entering.retain(|entering| entering.conn != session.conn);
            self.presence_bytes = self.presence_bytes.saturating_sub(session.presence.len());
        }
        Some(occupant)
    }

    pub(super) fn rename(&mut self, key: usize, nick: &str) {
        let from = escaped(&format!("{}/{nick}", self.jid));
        let Some(occupant) = self.occupants.get_mut(&key) else { return };
        let before = std::mem::replace(&mut occupant.nick, nick.into());
        occupant.from = from;
        self.by_nick.remove(&before);
        self.by_nick.insert(nick.into(), key);
        self.forget_look(key, &before);
        self.note_look(key, nick);
    }

    pub(super) fn move_session(&mut self, from: ConnId, to: ConnId) {
        let entering = self.entering.iter_mut().map(|entering| &mut entering.conn);
        let conns = entering.chain(self.showing.iter_mut().map(|showing| &mut showing.conn));
        conns.filter(|conn| **conn == from).for_each(|conn| *conn = to);
        let Some(key) = self.by_conn.remove(&from) else { return };
        self.by_conn.insert(to, key);
        let sessions = self.occupants.get_mut(&key).map(|occupant| occupant.sessions.as_mut_slice());
        for session in sessions.unwrap_or_default().iter_mut().filter(|session| session.conn == from) {
            session.conn = to;
        }
    }

    /// The role with which an affiliation enters (section 5.1.2).
    pub(super) fn initial_role(&self, affiliation: Affiliation) -> Role {
        match affiliation {
            Affiliation::Outcast => Role::None,
            Affiliation::None if self.config().moderated => Role::Visitor,
            Affiliation::None | Affiliation::Member => Role::Participant,
            Affiliation::Admin | Affiliation::Owner => Role::Moderator,
        }
    }

    /// Whether an occupant of this role sees the others' addresses.
    pub(super) fn shows_addresses_to(&self, role: Role) -> bool {
        self.config().non_anonymous || role == Role::Moderator
    }

    /// Sends what stands behind the name and `to` of a stanza to every session.
    pub(super) fn send_all(&self, name: &str, rest: &[u8], out: &mut Outputs) {
        for occupant in self.occupants.values() {
            for session in &occupant.sessions {
                out.wire.stanza(session.conn, |buf| push_addressed(buf, name, &session.to, rest));
            }
        }
    }

    /// A notice of the room's own to everybody: a message with status codes.
    pub(super) fn tell_codes(&self, codes: &[u16], out: &mut Outputs) {
        let mut message = Vec::with_capacity(160);
        let mut w = Writer::new(&mut message);
        w.open("message", ns::CLIENT).attr("from", &self.jid).attr("type", "groupchat");
        w.open("x", ns::MUC_USER);
        for code in codes {
            w.open("status", ns::MUC_USER).attr("code", code).close();
        }
        drop(w);
        self.send_all("message", message.strip_prefix(b"<message").unwrap_or_default(), out);
    }

    /// Tells of an occupant: everybody who may know, and itself. It may have been taken out before; then `shown` is one of
    /// its sessions that is no longer in it.
    pub(super) fn announce(&self, who: &Occupant, shown: Option<&Session>, notice: &Notice<'_>, out: &mut Outputs) {
        let Some(shown) = shown.or(who.sessions.last()) else { return };
        self.announce_to_rest(who, shown, notice, out);
        let mut own = Vec::new();
        for session in &who.sessions {
            own.clear();
            self.write_presence(who, shown, true, true, notice, &mut own);
            out.wire.stanza(session.conn, |buf| push_addressed(buf, "presence", &session.to, &own));
        }
    }

    /// Tells of an occupant, as shown by this session, everybody else who may know. Written once for those who see addresses
    /// and once for those who do not. Who was not told yet that it is here hears nothing of it, and later the state of then.
    pub(super) fn announce_to_rest(&self, who: &Occupant, shown: &Session, notice: &Notice<'_>, out: &mut Outputs) {
        let mut news = News::new(self, who, shown, notice);
        let untold = self.showing.iter().find(|showing| showing.key == who.key && showing.is_new);
        let untold = untold.map_or(0..0, Showing::untold);
        for (key, other) in self.occupants().filter(|(key, _)| !untold.contains(key)) {
            if key != who.key && news.concerns(other.role) {
                news.tell(other, out);
            }
        }
        for entering in self.entering.iter().filter(|entering| entering.is_told_of(who)) {
            if news.concerns(entering.role) {
                news.tell_one(entering.receiver(), entering.role, out);
            }
        }
    }

    /// Tells one session of an occupant.
    pub(super) fn tell_of(
        &self,
        who: &Occupant,
        to: Receiver<'_>,
        role: Role,
        own: bool,
        notice: &Notice<'_>,
        out: &mut Outputs,
    ) {
        let Some(shown) = who.sessions.last() else { return };
        let with_jid = own || self.shows_addresses_to(role);
        out.wire.stanza(to.conn, |buf| {
            push_addressed(buf, "presence", to.to, b"");
            self.write_presence(who, shown, with_jid, own, notice, buf);
        });
    }

    /// What stands behind `<presence to='…'`.
    fn write_presence(
        &self,
        who: &Occupant,
        shown: &Session,
        with_jid: bool,
        own: bool,
        notice: &Notice<'_>,
        rest: &mut Vec<u8>,
    ) {
        let mut attribute = |name: &str, value: &str| {
            if !value.is_empty() {
                rest.extend_from_slice(name.as_bytes());
                rest.extend_from_slice(value.as_bytes());
                rest.push(b'\'');
            }
        };
        attribute(" from='", &who.from);
        attribute(" type='", if notice.unavailable { "unavailable" } else { "" });
        attribute(" id='", &notice.id.filter(|_| own).unwrap_or_default().replace('\'', "&apos;"));
        attribute(" xml:lang='", &shown.presence.lang);
        rest.push(b'>');
        rest.extend_from_slice(&shown.presence.children);
        let mut w = Writer::new(rest);
        w.open("occupant-id", ns::OCCUPANT_ID).attr("id", &who.id).close();
        w.open("x", ns::MUC_USER);
        self.write_item(who, with_jid.then_some(shown), notice, &mut w);
        let itself: &[u16] = if own { &[110] } else { &[] };
        let own_codes = if own { notice.own_codes } else { &[] };
        for code in itself.iter().chain(own_codes).chain(notice.codes) {
            w.open("status", ns::MUC_USER).attr("code", code).close();
        }
        if let Some(end) = notice.end {
            w.open("destroy", ns::MUC_USER).attr_opt("jid", (!end.alternate.is_empty()).then_some(&end.alternate));
            for (name, text) in [("reason", &end.reason), ("password", &end.password)] {
                if !text.is_empty() {
                    w.text_element(name, text);
                }
            }
            w.close();
        }
        drop(w);
        rest.extend_from_slice(b"</presence>");
    }

    fn write_item(&self, who: &Occupant, shown: Option<&Session>, notice: &Notice<'_>, w: &mut Writer<'_>) {
        // Who changes its nick stays in the room (section 7.6).
        let leaves = notice.unavailable && notice.nick.is_none();
        let role = if leaves { Role::None } else { who.role };
        w.open("item", ns::MUC_USER).attr("affiliation", who.affiliation.name());
        w.attr_opt("jid", shown.map(|session| &session.jid)).attr_opt("nick", notice.nick).attr("role", role.name());
        if let Some(actor) = notice.actor {
            w.open("actor", ns::MUC_USER).attr("nick", actor).close();
        }
        if let Some(reason) = notice.reason.filter(|reason| !reason.is_empty()) {
            w.text_element("reason", reason);
        }
        w.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_ten_seconds() {
        let mut rate = Rate::default();
        let mut check = |at: u64, count: usize, expected: &[bool]| {
            let now = Duration::from_millis(at);
            let taken: Vec<bool> =
                expected.iter().map(|_| rate.with_one(now, count).map(|with| rate = with).is_some()).collect();
            assert_eq!(taken, expected, "at {at} ms");
        };
        check(0, 3, &[true, true, true, false, false]);
        check(3_000, 3, &[false]);
        check(3_334, 3, &[true, false]);
        check(9_999, 3, &[true, false]);
        check(10_000, 3, &[true, false]);
        // No more than three, however long the silence.
        check(3_600_000, 3, &[true, true, true, false]);
        check(3_600_000, 1, &[false]);
        check(3_700_000, 1, &[true, false]);
        check(3_709_999, 1, &[false]);
        check(3_710_000, 1, &[true]);
    }
}
