//! XEP-0045: group chat rooms at a service of each domain's own (`conference.DOMAIN`), in this process.
//!
//! A room is read from the store when somebody addresses it and put away when nobody is in it. What lasts (`core::rooms`) follows
//! the store and never precedes it: a change is checked, stored, and only then applied, told and acknowledged. A room has at
//! most one change on its way; who wants another meanwhile asks the store for the room once more, and since the store answers
//! in order, the change is done when that answer comes ([`Refusal::Busy`]).
//!
//! Occupants are sessions: a session that hibernates (XEP-0198) stays an occupant, one that ends is told off by
//! [`on_unavailable`]. After a restart nobody is an occupant; who still believes to be one is told by the answer to whatever it
//! sends (`not-acceptable`, or a kick with 333), as XEP-0410 expects.
//!
//! A line is checked and copied once; for each occupant only `to` is put in. A receiver that does not read does not hold the
//! others back, as in a conversation of two: it is dropped when its output is full.

mod admin;
mod archive;
mod card;
mod config;
mod disco;
mod entry;
mod history;
mod invite;
mod message;
mod moderation;
mod nick;
pub(crate) mod operator;
mod presence;
mod privilege;
mod register;
mod relay;
mod room;
mod voice;

use std::borrow::Cow;

use hashbrown::HashMap;
use slab::Slab;

use super::prelude::*;
use super::{avatar, displayed};
use crate::core::parked::Waiting;
use crate::core::rooms::{Affiliation, Line, RoomRecord, RoomState, Tombstone};
use crate::core::session::AccountId;
use crate::jid::{BareJid, FullJid, Jid, JidRef};
use crate::xml::{Frame, Kind, Tree};
pub(super) use disco::write_service_item;
pub(crate) use entry::{on_deadline, on_taken};
use history::History;
use room::{Notice, Room};

pub(super) const HANDLER: Handler = Handler {
    name: "muc",
    spec: "XEP-0045 1.35, XEP-0249 1.2, XEP-0410 1.1, XEP-0421 1.0, XEP-0424 0.4, XEP-0425 0.3, XEP-0486 0.1",
    ..Handler::EMPTY
};

/// How long the name of a destroyed room is kept from strangers, in milliseconds: 30 days.
const TOMBSTONE_MILLIS: u64 = 30 * 24 * 3600 * 1000;

/// The rooms in use.
#[derive(Default)]
pub(crate) struct Rooms {
    /// Empty while somebody works on the room.
    slab: Slab<Option<Box<Room>>>,
    by_jid: HashMap<BareJid, usize>,
    /// Which rooms a session is in.
    by_conn: HashMap<ConnId, Vec<usize>>,
    /// Services whose domains keep archives.
    archived: Vec<Box<str>>,
    /// Of which `occupant-id`s are made.
    secret: [u8; 32],
    /// What is left to do for those who are entering.
    slices: entry::Slices,
    held: usize,
}

impl Rooms {
    /// None yet. `secret` is drawn once per installation, `archived` are the services whose domains keep archives.
    pub(super) fn new(secret: &[u8; 32], archived: Vec<Box<str>>) -> Rooms {
        Rooms { secret: *secret, archived, ..Rooms::default() }
    }

    fn find(&self, room: &str) -> Option<usize> {
        self.by_jid.get(room).copied()
    }

    /// Rooms that one account has made and that are not in the store.
    fn unstored_of(&self, maker: &BareJid) -> usize {
        let rooms = self.slab.iter().filter_map(|(_, room)| room.as_deref());
        rooms.filter(|room| !room.stored && room.record.creator == *maker).count()
    }

    /// Bytes that rooms hold, roughly.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// A room comes into use; it is put away behind the next [`visit`] if nobody has entered it then.
    fn add(&mut self, name: &BareJid, record: RoomRecord, history: History, stored: bool) -> usize {
        let entry = self.slab.vacant_entry();
        let key = entry.key();
        let archived = self.archived.iter().any(|domain| **domain == *name.domain());
        let room = Room::new(key, name.clone(), record, history, stored, archived);
        self.held += room.held();
        entry.insert(Some(Box::new(room)));
        self.by_jid.insert(name.clone(), key);
        key
    }

    /// A session is in a room from now on.
    fn note(&mut self, conn: ConnId, room: usize) {
        self.by_conn.entry(conn).or_default().push(room);
    }

    /// A session is no longer in a room.
    fn unnote(&mut self, conn: ConnId, room: usize) {
        if let Some(rooms) = self.by_conn.get_mut(&conn) {
            rooms.retain(|other| *other != room);
            if rooms.is_empty() {
                self.by_conn.remove(&conn);
            }
        }
    }
}

/// Why a stanza is not carried out.
enum Refusal {
    /// Its sender is told.
    Error(StanzaError),
    /// A change of the room is on its way; it is tried again behind that.
    Busy,
    /// The sender is not done with entering; it is looked at behind that.
    Early,
}

impl From<StanzaError> for Refusal {
    fn from(error: StanzaError) -> Refusal {
        Refusal::Error(error)
    }
}

type Outcome = Result<(), Refusal>;

/// A stanza to a service of rooms.
struct Stanza<'a> {
    kind: Kind,
    from: FullJid,
    to: Jid,
    /// As written.
    to_written: Cow<'a, str>,
    /// As written.
    id: Option<Cow<'a, str>>,
    /// As written.
    type_: Option<Cow<'a, str>>,
    /// Valid by itself, without `to`.
    xml: String,
    /// Where in `xml` goes on what stands behind `from`.
    rest: usize,
}

impl<'a> Stanza<'a> {
    fn of(core: &Core, conn: ConnId, account: AccountId, frame: &Frame<'a>, to: &JidRef<'_>) -> Option<Stanza<'a>> {
        let resource = core.accounts.get(account).resource(conn)?;
        let lang = core.streams.get(conn).and_then(|stream| stream.lang.as_deref());
        let mut xml = Vec::with_capacity(frame.xml.len() + resource.from.len() + 64);
        frame.splice_to_into(&resource.from, None, lang, &mut xml);
        if frame.kind == Kind::Presence && frame.type_.is_none() {
            avatar::stamp(core, account, &mut xml);
        } else if frame.kind == Kind::Message {
            displayed::strip(&mut xml);
        }
        Some(Stanza {
            kind: frame.kind,
            from: resource.jid.clone(),
            to: to.to_owned_jid(),
            to_written: Cow::Borrowed(frame.to?),
            id: frame.id.map(Cow::Borrowed),
            type_: frame.type_.map(Cow::Borrowed),
            xml: String::from_utf8(xml).ok()?,
            rest: 1 + frame.local.len() + " from=''".len() + resource.from.len(),
        })
    }

    fn into_owned(self) -> Stanza<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Stanza {
            kind: self.kind,
            from: self.from,
            to: self.to,
            to_written: own(self.to_written),
            id: self.id.map(own),
            type_: self.type_.map(own),
            xml: self.xml,
            rest: self.rest,
        }
    }

    fn copied(&self) -> Stanza<'static> {
        let own = |text: &Cow<'_, str>| Cow::Owned(text.as_ref().to_owned());
        Stanza {
            kind: self.kind,
            from: self.from.clone(),
            to: self.to.clone(),
            to_written: own(&self.to_written),
            id: self.id.as_ref().map(own),
            type_: self.type_.as_ref().map(own),
            xml: self.xml.clone(),
            rest: self.rest,
        }
    }

    /// What stands behind `from`, up to the end of the element.
    fn rest(&self) -> &str {
        self.xml.get(self.rest..).unwrap_or_default()
    }

    /// Tells the sender that it is not carried out. An error is never answered.
    fn refuse(&self, conn: ConnId, error: StanzaError, out: &mut Outputs) {
        self.refuse_towards(conn, error, "", out);
    }

    /// [`Stanza::refuse`] with an address inside the condition.
    fn refuse_towards(&self, conn: ConnId, error: StanzaError, address: &str, out: &mut Outputs) {
        if matches!(self.type_.as_deref(), Some("error" | "result")) {
            return;
        }
        let name = match self.kind {
            Kind::Presence => "presence",
            Kind::Message => "message",
            Kind::Iq | Kind::Other => "iq",
        };
        out.wire.stanza(conn, |buf| {
            let mut w = Writer::new(buf);
            w.open(name, ns::CLIENT).attr("type", "error");
            if let Some(id) = &self.id {
                w.attr_escaped("id", id);
            }
            w.attr_escaped("from", &self.to_written);
            if self.kind == Kind::Presence {
                // By this clients know that it was their joining that has failed (PROTOCOL CL-08).
                w.empty("x", ns::MUC);
            }
            error.write_by(Some(self.to.bare()), address, &mut w);
        });
    }

    fn parked(&self) -> Box<ParkedIq> {
        let id = self.id.as_deref().unwrap_or_default().into();
        Box::new(ParkedIq { id, to: Some(self.to_written.as_ref().into()), note: None })
    }
}

/// A request to a room, its envelope checked.
struct Request<'a> {
    conn: ConnId,
    stanza: &'a Stanza<'a>,
    payload: Element<'a>,
}

type Run = fn(&mut Core, Now, &mut Room, &Request<'_>, &mut Outputs) -> Outcome;

/// What a room itself answers: `get` or `set`, namespace and name of the payload.
const REQUESTS: &[(&str, &str, &str, Run)] = &[
    ("get", ns::DISCO_INFO, "query", disco::room_info),
    ("get", ns::DISCO_ITEMS, "query", disco::room_items),
    ("get", ns::MUC_OWNER, "query", config::show),
    ("set", ns::MUC_OWNER, "query", config::set),
    ("get", ns::MUC_ADMIN, "query", admin::list),
    ("set", ns::MUC_ADMIN, "query", admin::set),
    ("get", ns::REGISTER, "query", register::show),
    ("set", ns::REGISTER, "query", register::set),
    ("set", ns::MODERATE, "moderate", moderation::moderate),
    ("set", ns::FASTEN, "apply-to", moderation::moderate),
    ("get", ns::VCARD, "vCard", card::show),
    ("set", ns::VCARD, "vCard", card::set),
    ("set", ns::MAM, "query", archive::query),
    ("get", ns::MAM, "query", archive::form),
    ("get", ns::MAM, "metadata", archive::metadata),
    ("get", ns::PING, "ping", ping),
];

/// A stanza that is addressed to a service of rooms, or to what is there.
pub(crate) fn on_stanza(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    account: AccountId,
    frame: &Frame<'_>,
    to: &JidRef<'_>,
    out: &mut Outputs,
) {
    if let Some(stanza) = Stanza::of(core, conn, account, frame, to) {
        dispatch(core, now, conn, stanza, out);
    }
}

fn dispatch(core: &mut Core, now: Now, conn: ConnId, stanza: Stanza<'_>, out: &mut Outputs) {
    if stanza.to.local().is_none() {
        return disco::on_service(core, conn, stanza, out);
    }
    match core.shared.muc.find(stanza.to.bare()) {
        Some(key) => on_room(core, now, conn, key, stanza, out),
        // Nobody is in a room that is not in use.
        None if !concerns_absent(&stanza) => presence::refuse_stranger(conn, &stanza, out),
        None => load(core, conn, stanza.into_owned(), out),
    }
}

/// Whether a stanza may do something where its sender is no occupant.
fn concerns_absent(stanza: &Stanza<'_>) -> bool {
    match (stanza.kind, stanza.type_.as_deref()) {
        (_, Some("error" | "result" | "unavailable" | "groupchat")) => false,
        (Kind::Presence, kind) => kind.is_none() && stanza.xml.contains(ns::MUC),
        (Kind::Message, _) | (Kind::Iq, _) => stanza.to.is_bare(),
        (Kind::Other, _) => false,
    }
}

/// Reads the room, then goes on with the stanza; its sender is not read meanwhile.
fn load(core: &mut Core, conn: ConnId, stanza: Stanza<'static>, out: &mut Outputs) {
    if !core.store_has_room() {
        return stanza.refuse(conn, StanzaError::RESOURCE_CONSTRAINT.text("The server is busy."), out);
    }
    let room = stanza.to.to_bare();
    let then = Box::new(move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        if !core.is_bound_as(conn, &stanza.from) {
            return;
        }
        match (core.shared.muc.find(stanza.to.bare()), reply) {
            (Some(key), _) => on_room(core, now, conn, key, stanza, out),
            (None, Ok(Stored::Room(RoomState::Present(record, lines)))) => {
                let history = History::new(lines, &core.limits);
                let key = core.shared.muc.add(&stanza.to.to_bare(), *record, history, true);
                on_room(core, now, conn, key, stanza, out);
            }
            (None, Ok(Stored::Room(RoomState::Absent))) => presence::on_absent(core, now, conn, stanza, None, out),
            (None, Ok(Stored::Room(RoomState::Destroyed(tombstone)))) => {
                presence::on_absent(core, now, conn, stanza, Some(&tombstone), out);
            }
            (None, Ok(_)) => stanza.refuse(conn, StanzaError::INTERNAL_SERVER_ERROR, out),
            (None, Err(error)) => stanza.refuse(conn, error.into(), out),
        }
    });
    core.ask(StoreRequest::RoomLoad { room }, Waiting::Detached { conn, then }, out);
}

/// Works on a room. An empty one is put away after.
fn visit<R>(core: &mut Core, key: usize, run: impl FnOnce(&mut Core, &mut Room) -> R) -> Option<R> {
    let mut room = core.shared.muc.slab.get_mut(key)?.take()?;
    let before = room.held();
    let result = run(core, &mut room);
    let rooms = &mut core.shared.muc;
    rooms.held = (rooms.held + room.held()).saturating_sub(before);
    if room.is_idle() {
        rooms.held = rooms.held.saturating_sub(room.held());
        rooms.by_jid.remove(room.jid.as_str());
        rooms.slab.remove(key);
    } else if let Some(place) = rooms.slab.get_mut(key) {
        *place = Some(room);
    }
    Some(result)
}

fn on_room(core: &mut Core, now: Now, conn: ConnId, key: usize, stanza: Stanza<'_>, out: &mut Outputs) {
    let outcome = visit(core, key, |core, room| {
        if entry::is_coming(room, conn) {
            return Err(Refusal::Early);
        }
        let tree = Tree::spliced(&stanza.xml);
        let root = tree.root();
        match stanza.kind {
            Kind::Presence => presence::on_presence(core, now, room, conn, &stanza, &root, out),
            Kind::Message => message::on_message(core, now, room, conn, &stanza, &root, out),
            Kind::Iq => on_iq(core, now, room, conn, &stanza, &root, out),
            Kind::Other => Ok(()),
        }
    });
    match outcome {
        Some(Ok(())) | None => {}
        Some(Err(Refusal::Error(error))) => stanza.refuse(conn, error, out),
        Some(Err(Refusal::Busy)) => load(core, conn, stanza.into_owned(), out),
        Some(Err(Refusal::Early)) => {
            let stanza = stanza.into_owned();
            visit(core, key, |core, room| entry::defer(core, conn, room, stanza, out));
        }
    }
}

fn on_iq(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    conn: ConnId,
    stanza: &Stanza<'_>,
    root: &Element<'_>,
    out: &mut Outputs,
) -> Outcome {
    if let Some(nick) = stanza.to.resource() {
        return relay::on_iq(core, now, room, conn, stanza, root, nick, out);
    }
    let (Some(kind @ ("get" | "set")), Some(payload)) = (stanza.type_.as_deref(), root.only_child()) else {
        return Ok(());
    };
    // A room that is not configured yet is nobody's but its owner's.
    if room.locked && room.record.affiliation(stanza.from.bare()) < Affiliation::Owner {
        return Err(StanzaError::ITEM_NOT_FOUND.into());
    }
    let found = REQUESTS.iter().find(|(k, ns, name, _)| *k == kind && payload.is(name, ns));
    let (_, _, _, run) = found.ok_or(StanzaError::SERVICE_UNAVAILABLE)?;
    run(core, now, room, &Request { conn, stanza, payload }, out)
}

/// A room that answers is there.
fn ping(_: &mut Core, _: Now, _: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    out.pong(request.conn, &*request.stanza.parked());
    Ok(())
}

/// What a change writes.
enum Change {
    /// The room as it shall be.
    Save(Box<RoomRecord>),
    /// The room as its owner has said for the first time; until that is durable it is locked.
    Open(Box<RoomRecord>),
    /// The room as it shall be, and its vCard.
    Card(Box<RoomRecord>, Vec<u8>),
    /// A line in the place of the one with its number.
    Line(Line),
    /// Its end.
    Destroy(Option<Tombstone>),
}

/// Makes a change durable, applies it, and goes on with `then`. What is only in memory is changed at once. The sender is not
/// read meanwhile, and the room does not go away.
fn commit(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    room: &mut Room,
    change: Change,
    then: impl FnOnce(&mut Core, Now, ConnId, &mut Room, Result<(), StanzaError>, &mut Outputs) + 'static,
    out: &mut Outputs,
) {
    // Whether the store has the room after this.
    let lasting = match &change {
        Change::Save(record) | Change::Card(record, _) => record.config.persistent && !room.locked,
        Change::Open(record) => record.config.persistent,
        Change::Line(_) => room.stored,
        Change::Destroy(_) => false,
    };
    let unstored = match &change {
        Change::Line(_) => !room.archives(),
        _ => !lasting && !room.stored,
    };
    if unstored {
        room.apply(change, lasting);
        return then(core, now, conn, room, Ok(()), out);
    }
    let name = room.jid.clone();
    let request = match &change {
        Change::Save(record) | Change::Open(record) if lasting => {
            StoreRequest::RoomSave { room: name, record: record.clone() }
        }
        Change::Card(record, content) => {
            StoreRequest::RoomCard { room: name, record: record.clone(), content: content.clone() }
        }
        Change::Save(_) | Change::Open(_) => StoreRequest::RoomDestroy { room: name, tombstone: None },
        Change::Line(line) => StoreRequest::RoomRewrite { archive: room.record.archive(&name), line: line.clone() },
        Change::Destroy(tombstone) => StoreRequest::RoomDestroy { room: name, tombstone: tombstone.clone() },
    };
    room.saving = true;
    room.ending = !lasting;
    let key = room.key;
    let then = Box::new(move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        visit(core, key, |core, room| {
            room.saving = false;
            room.ending = false;
            let result = reply.map(drop).map_err(StanzaError::from);
            if result.is_ok() {
                let first = lasting && !room.stored;
                room.apply(change, lasting);
                if first {
                    history::keep_all(core, room, out);
                }
            }
            then(core, now, conn, room, result, out);
        });
    });
    core.ask(request, Waiting::Detached { conn, then }, out);
}

/// A session is no longer available: it leaves its rooms. `xml` is what its other receivers are sent.
pub(super) fn on_unavailable(core: &mut Core, conn: ConnId, xml: &[u8], out: &mut Outputs) {
    for key in core.shared.muc.by_conn.remove(&conn).unwrap_or_default() {
        visit(core, key, |core, room| presence::leave_with(core, room, conn, xml, out));
    }
}

/// A session goes on on another connection.
pub(super) fn move_session(core: &mut Core, from: ConnId, to: ConnId) {
    let Some(rooms) = core.shared.muc.by_conn.remove(&from) else { return };
    for key in &rooms {
        visit(core, *key, |core, room| {
            room.move_session(from, to);
            entry::on_moved(core, room);
        });
    }
    core.shared.muc.slices.move_session(from, to);
    core.shared.muc.by_conn.insert(to, rooms);
}

/// The server ends: everybody is told once, instead of each of the end of each other.
pub(crate) fn on_shutdown(core: &mut Core, out: &mut Outputs) {
    let keys: Vec<usize> = core.shared.muc.slab.iter().map(|(key, _)| key).collect();
    for key in keys {
        let notice = Notice { codes: &[332], ..Notice::default() };
        visit(core, key, |core, room| presence::empty(core, room, &notice, out));
    }
}
