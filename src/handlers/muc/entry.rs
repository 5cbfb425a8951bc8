//! Section 7.2: entering a room, in slices, so that a room of thousands does not hold up everybody else.
//!
//! Who enters is first told who is here, in the order in which they came; each slice follows when the last one has left. So long
//! it is not in the room: it has no more than its nick and its place, is not shown and hears nothing but what becomes of those
//! whom it has been told of. Then it is let in at a stroke: it is looked at once more, and gets its own presence, what was said,
//! and the subject; from there on it hears all. Then the others are told of it, in slices as well: those who came before it, since
//! later ones have it in their list. Who has not been told yet hears nothing else of it either, and later the state of then.
//!
//! What it sends to the room before all that is over waits, and it is not read meanwhile. All slices of one turn of the loop
//! together are no more than `limits.room_slice`, whoever enters where; a small room is entered in one go.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::history::{self, Wanted};
use super::nick::likeness;
use super::presence::{check_nick, occupant_id, payload_of, wanted_nick};
use super::room::{News, Notice, Occupant, Payload, Rate, Receiver, Room, Session, escaped};
use super::{Outcome, Rooms, Stanza, dispatch, visit};
use crate::core::error::ErrorType;
use crate::core::rooms::{Affiliation, Role};
use crate::handlers::prelude::*;
use crate::handlers::sm;
use crate::jid::BareJid;
use crate::xml::Tree;

/// By how much admins may overfill a room (section 7.2.9).
const ADMINS_ABOVE: usize = 16;

/// A session that is being told who is here.
pub(super) struct Entering {
    pub(super) conn: ConnId,
    /// Its address, escaped for an attribute.
    to: Box<str>,
    /// The presence with which it enters.
    stanza: Stanza<'static>,
    user: BareJid,
    /// Of its nick.
    look: Box<str>,
    /// With which it is told of the others.
    pub(super) role: Role,
    /// Whether it sees addresses, and who is not shown to everybody.
    sees: [bool; 2],
    /// Number of who comes next.
    cursor: usize,
    /// Above the number of everybody it has been told of; more than `cursor` if it is told again.
    told: usize,
    /// It has been in the room all the time, and has lost track.
    again: bool,
    /// What it has sent to the room since; while there is something it is not read.
    next: Option<Stanza<'static>>,
}

impl Entering {
    fn new(room: &Room, conn: ConnId, stanza: &Stanza<'_>, role: Role, again: bool) -> Entering {
        Entering {
            conn,
            to: escaped(stanza.from.as_str()),
            user: stanza.from.to_bare(),
            look: likeness(stanza.to.resource().unwrap_or_default()),
            stanza: stanza.copied(),
            role,
            sees: sees(room, role),
            cursor: 0,
            told: 0,
            again,
            next: None,
        }
    }

    pub(super) fn receiver(&self) -> Receiver<'_> {
        Receiver { conn: self.conn, to: &self.to }
    }

    fn nick(&self) -> &str {
        self.stanza.to.resource().unwrap_or_default()
    }

    /// Whether it will be another session of this occupant.
    fn is_beside(&self, other: &Occupant) -> bool {
        other.user == self.user && *other.nick == *self.nick()
    }

    /// Whether it hears of this occupant without being in the room.
    pub(super) fn is_told_of(&self, who: &Occupant) -> bool {
        !self.again && who.key < self.told
    }

    /// Whether the last slice has left. Who counts what it gets (XEP-0198) must not have too much of it before it either, unless
    /// it is not read.
    fn may_go_on(&self, core: &Core, out: &Outputs) -> bool {
        let unacked = out.wire.unacked(self.conn).map_or(0, |unacked| unacked.held());
        out.wire.pending(self.conn) == 0 && (self.next.is_some() || unacked <= core.limits.output_max / 4)
    }

    /// The occupant that it would have been.
    fn into_occupant(self, core: &Core, room: &Room) -> Occupant {
        let Entering { conn, to, user, role, .. } = self;
        let nick = self.stanza.to.resource().unwrap_or_default();
        Occupant {
            key: room.end(),
            nick: nick.into(),
            from: escaped(&format!("{}/{nick}", room.jid)),
            affiliation: room.record.affiliation(user.as_str()),
            role,
            id: occupant_id(&core.shared.muc.secret, &room.jid, &user),
            user,
            sessions: vec![Session { conn, jid: self.stanza.from, to, presence: Payload::default() }],
            seen: false,
            sent: Rate::default(),
        }
    }
}

/// An occupant whom the others are being told of.
pub(super) struct Showing {
    pub(super) key: usize,
    /// Which of its sessions has entered.
    pub(super) conn: ConnId,
    /// The others have not heard of it before.
    pub(super) is_new: bool,
    /// Number of who is told next, and above that of who is told last.
    untold: Range<usize>,
    /// As in [`Entering`].
    next: Option<Stanza<'static>>,
}

impl Showing {
    /// Numbers of those who are not told yet.
    pub(super) fn untold(&self) -> Range<usize> {
        self.untold.clone()
    }
}

/// What there is to do in the next turns.
#[derive(Default)]
pub(super) struct Slices {
    /// Rooms in which it goes on.
    rooms: VecDeque<usize>,
    /// Sessions that have not taken the last slice, and in which room.
    waiting: Vec<(ConnId, usize)>,
    /// What sessions have sent that are done with entering.
    released: VecDeque<(ConnId, Stanza<'static>)>,
    /// In which step of the core how much was done.
    spent: (u64, usize),
}

impl Slices {
    fn schedule(&mut self, room: usize) {
        if !self.rooms.contains(&room) {
            self.rooms.push_back(room);
        }
    }

    fn release(&mut self, conn: ConnId, next: Option<Stanza<'static>>) {
        self.released.extend(next.map(|stanza| (conn, stanza)));
    }

    /// A session goes on on another connection.
    pub(super) fn move_session(&mut self, from: ConnId, to: ConnId) {
        self.waiting.retain(|(conn, _)| *conn != from);
        self.released.iter_mut().filter(|(conn, _)| *conn == from).for_each(|(conn, _)| *conn = to);
    }
}

impl Rooms {
    /// When there is something to do: at once, or not at all.
    pub(crate) fn next(&self) -> Option<Duration> {
        let Slices { rooms, released, .. } = &self.slices;
        (!rooms.is_empty() || !released.is_empty()).then_some(Duration::ZERO)
    }
}

/// How many presences may still be written in this step.
fn left(core: &mut Core) -> usize {
    let slices = &mut core.shared.muc.slices;
    if slices.spent.0 != core.steps {
        slices.spent = (core.steps, 0);
    }
    core.limits.room_slice.saturating_sub(slices.spent.1)
}

fn spend(core: &mut Core, count: usize) {
    core.shared.muc.slices.spent.1 += count;
}

/// Whether a role sees addresses, and who is not shown to everybody.
fn sees(room: &Room, role: Role) -> [bool; 2] {
    [room.shows_addresses_to(role), role == Role::Moderator]
}

/// Whether somebody may enter (sections 7.2.5 to 7.2.10).
fn admit(core: &Core, room: &Room, stanza: &Stanza<'_>, x: &Element<'_>) -> Result<Affiliation, StanzaError> {
    let nick = wanted_nick(stanza)?;
    let user = stanza.from.bare();
    let password = x.child("password", ns::MUC).map(|password| password.text().into_owned()).unwrap_or_default();
    let affiliation = room.record.affiliation(user);
    let config = room.config();
    if affiliation == Affiliation::Outcast {
        return Err(StanzaError::FORBIDDEN);
    }
    if room.locked && affiliation < Affiliation::Owner {
        return Err(StanzaError::ITEM_NOT_FOUND.text("The room is not configured yet."));
    }
    if !config.password.is_empty() && config.password != password {
        return Err(StanzaError::NOT_AUTHORIZED);
    }
    if config.members_only && affiliation < Affiliation::Member {
        return Err(StanzaError::REGISTRATION_REQUIRED);
    }
    check_nick(room, nick, user)?;
    let occupants_max = match config.occupants_max {
        0 => core.limits.room_occupants_max,
        own => usize::from(own).min(core.limits.room_occupants_max),
    };
    let above = if affiliation >= Affiliation::Admin { ADMINS_ABOVE } else { 0 };
    if room.len() + coming(room).count() >= occupants_max + above {
        return Err(StanzaError::SERVICE_UNAVAILABLE.kind(ErrorType::Wait).text("The room is full."));
    }
    Ok(affiliation)
}

/// Those who are not in the room yet.
fn coming(room: &Room) -> impl Iterator<Item = &Entering> {
    room.entering.iter().filter(|entering| !entering.again)
}

/// Whether a nick is that of somebody else who is on the way in, or looks like it.
pub(super) fn is_reserved(room: &Room, nick: &str, user: &str) -> bool {
    let mut others = coming(room).filter(|entering| entering.user.as_str() != user).peekable();
    others.peek().is_some() && {
        let look = likeness(nick);
        others.any(|entering| entering.look == look)
    }
}

/// Whether a session is not done with entering, so that what it sends has to wait.
pub(super) fn is_coming(room: &Room, conn: ConnId) -> bool {
    coming(room).any(|entering| entering.conn == conn) || room.showing.iter().any(|showing| showing.conn == conn)
}

#[allow(clippy::too_many_arguments)]
pub(super) fn enter(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    conn: ConnId,
    stanza: &Stanza<'_>,
    root: &Element<'_>,
    x: &Element<'_>,
    out: &mut Outputs,
) -> Outcome {
    let affiliation = admit(core, room, stanza, x)?;
    let rooms_max = core.limits.directed_presence_max;
    if payload_of(root).children.len() > core.limits.presence_bytes_max {
        return Err(StanzaError::POLICY_VIOLATION.text("The presence is too big.").into());
    }
    if core.shared.muc.by_conn.get(&conn).is_some_and(|rooms| rooms.len() >= rooms_max) {
        return Err(StanzaError::RESOURCE_CONSTRAINT.text("The session is in too many rooms.").into());
    }
    if core.limits.rates {
        room.takes_newcomer(now.mono, &stanza.from.to_bare(), &core.limits)?;
    }
    core.shared.muc.note(conn, room.key);
    let entering = Entering::new(room, conn, stanza, room.initial_role(affiliation), false);
    list(core, now, room, entering, out);
    show(core, room, out);
    schedule(core, room, out);
    Ok(())
}

/// Who is in the room has lost track of it: it gets all as if it had just entered (section 7.2.1), and goes on hearing meanwhile.
pub(super) fn enter_again(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    conn: ConnId,
    stanza: &Stanza<'_>,
    out: &mut Outputs,
) {
    let Some(role) = room.occupant_of(conn).map(|occupant| occupant.role) else { return };
    room.entering.retain(|entering| entering.conn != conn);
    let entering = Entering::new(room, conn, stanza, role, true);
    list(core, now, room, entering, out);
    schedule(core, room, out);
}

/// A slice of who is here, for one session.
fn list(core: &mut Core, now: Now, room: &mut Room, mut entering: Entering, out: &mut Outputs) {
    let left = left(core);
    let mut count = 0;
    let mut is_done = true;
    for (key, other) in room.occupants_in(entering.cursor..room.end()) {
        if count == left {
            is_done = false;
            break;
        }
        count += 1;
        entering.cursor = key + 1;
        entering.told = entering.told.max(entering.cursor);
        let visible = other.seen || entering.role == Role::Moderator;
        if visible && !entering.is_beside(other) {
            room.tell_of(other, entering.receiver(), entering.role, false, &Notice::default(), out);
        }
    }
    spend(core, count);
    if !is_done {
        room.entering.push_back(entering);
    } else if entering.again {
        let tree = Tree::spliced(&entering.stanza.xml);
        let wanted = tree.root().child("x", ns::MUC).map(|x| Wanted::parse(&x)).unwrap_or_default();
        welcome(now, room, entering.conn, &entering.stanza, wanted, false, out);
    } else {
        let_in(core, now, room, entering, out);
    }
}

/// Who has been told of everybody is in the room from now on, if it still may.
fn let_in(core: &mut Core, now: Now, room: &mut Room, mut entering: Entering, out: &mut Outputs) {
    let conn = entering.conn;
    let next = entering.next.take();
    let tree = Tree::spliced(&entering.stanza.xml);
    let root = tree.root();
    let Some(x) = root.child("x", ns::MUC) else { return };
    let affiliation = match admit(core, room, &entering.stanza, &x) {
        Ok(affiliation) => affiliation,
        Err(error) => {
            core.shared.muc.unnote(conn, room.key);
            core.shared.muc.slices.release(conn, next);
            return entering.stanza.refuse(conn, error, out);
        }
    };
    let role = room.initial_role(affiliation);
    let sees = sees(room, role);
    if sees.iter().zip(entering.sees).any(|(sees, saw)| *sees && !saw) {
        // What it has not been shown, it is now.
        drop(tree);
        room.entering.push_back(Entering { role, sees, cursor: 0, next, ..entering });
        return;
    }
    let (from, user) = (escaped(&format!("{}/{}", room.jid, entering.nick())), entering.user.clone());
    let holder = room.nick_holder(entering.nick());
    let key = holder.unwrap_or_else(|| {
        let nick = entering.nick().into();
        let id = occupant_id(&core.shared.muc.secret, &room.jid, &user);
        let seen = room.config().presence.contains(role);
        let sent = room.rate_of(&user);
        room.add_occupant(Occupant {
            key: 0,
            nick,
            from,
            user,
            affiliation,
            role,
            id,
            sessions: Vec::new(),
            seen,
            sent,
        })
    });
    let session =
        Session { conn, jid: entering.stanza.from.clone(), to: entering.to.clone(), presence: payload_of(&root) };
    room.add_session(key, session);
    let new = room.locked && room.len() == 1;
    welcome(now, room, conn, &entering.stanza, Wanted::parse(&x), new, out);
    tell_siblings(room, key, conn, out);
    let untold = 0..if holder.is_none() { key } else { room.end() };
    room.showing.push_back(Showing { key, conn, is_new: holder.is_none(), untold, next });
}

/// The other sessions under the same nick see what the others do.
fn tell_siblings(room: &Room, key: usize, conn: ConnId, out: &mut Outputs) {
    let Some(occupant) = room.occupant(key) else { return };
    for sibling in occupant.sessions.iter().filter(|session| session.conn != conn) {
        room.tell_of(occupant, sibling.receiver(), occupant.role, true, &Notice::default(), out);
    }
}

/// All but the session itself, at once; its siblings under the same nick count as others.
pub(super) fn tell_others(room: &Room, occupant: &Occupant, conn: ConnId, out: &mut Outputs) {
    let Some(shown) = occupant.sessions.last() else { return };
    room.announce_to_rest(occupant, shown, &Notice::default(), out);
    tell_siblings(room, occupant.key, conn, out);
}

/// What follows the others' presence, in the order of section 7.1: its own, what was said, the subject (PROTOCOL MU-02).
fn welcome(now: Now, room: &Room, conn: ConnId, stanza: &Stanza<'_>, wanted: Wanted, new: bool, out: &mut Outputs) {
    let Some(occupant) = room.occupant_of(conn) else { return };
    let Some(session) = occupant.sessions.iter().find(|session| session.conn == conn) else { return };
    let config = room.config();
    let codes = [(100, config.non_anonymous), (170, room.is_logged()), (201, new)];
    let codes: Vec<u16> = codes.into_iter().filter(|(_, applies)| *applies).map(|(code, _)| code).collect();
    let notice = Notice { own_codes: &codes, id: stanza.id.as_deref(), ..Notice::default() };
    room.tell_of(occupant, session.receiver(), occupant.role, true, &notice, out);
    history::replay(now, room, session, wanted, out);
    history::show_subject(room, session, out);
}

/// Slices of the others' being told of who has entered.
fn show(core: &mut Core, room: &mut Room, out: &mut Outputs) {
    while let Some(mut showing) = room.showing.pop_front() {
        let left = left(core);
        let mut count = 0;
        let mut is_done = true;
        if let Some(who) = room.occupant(showing.key)
            && let Some(shown) = who.sessions.last()
        {
            let notice = Notice::default();
            let mut news = News::new(room, who, shown, &notice);
            for (key, other) in room.occupants_in(showing.untold()).filter(|(key, _)| *key != showing.key) {
                if count == left {
                    is_done = false;
                    break;
                }
                count += 1;
                showing.untold.start = key + 1;
                if news.concerns(other.role) {
                    news.tell(other, out);
                }
            }
        }
        spend(core, count);
        if !is_done {
            return room.showing.push_front(showing);
        }
        core.shared.muc.slices.release(showing.conn, showing.next);
    }
}

/// The room shows more of who is in it than before: everybody is told of those who were hidden.
pub(super) fn show_more(core: &mut Core, room: &mut Room, out: &mut Outputs) {
    let presence = room.config().presence;
    let hidden = room.occupants().filter(|(_, occupant)| !occupant.seen && presence.contains(occupant.role));
    let hidden: Vec<usize> = hidden.map(|(key, _)| key).collect();
    for key in hidden {
        let untold = 0..room.end();
        let Some(occupant) = room.occupant_mut(key) else { continue };
        occupant.seen = true;
        let Some(conn) = occupant.sessions.last().map(|session| session.conn) else { continue };
        room.showing.push_back(Showing { key, conn, is_new: false, untold, next: None });
    }
    show(core, room, out);
    schedule(core, room, out);
}

/// Notes what is left to do, and for whom it has to wait.
fn schedule(core: &mut Core, room: &Room, out: &mut Outputs) {
    let mut goes_on = !room.showing.is_empty();
    for entering in &room.entering {
        if entering.may_go_on(core, out) {
            goes_on = true;
            continue;
        }
        let waiting = &mut core.shared.muc.slices.waiting;
        if !waiting.contains(&(entering.conn, room.key)) {
            waiting.push((entering.conn, room.key));
        }
        if out.wire.pending(entering.conn) > 0 {
            out.wire.watch(entering.conn);
        }
    }
    if goes_on {
        core.shared.muc.slices.schedule(room.key);
    }
}

/// The next turn.
pub(crate) fn on_deadline(core: &mut Core, now: Now, out: &mut Outputs) {
    for _ in 0..core.shared.muc.slices.rooms.len() {
        if left(core) == 0 {
            break;
        }
        let Some(key) = core.shared.muc.slices.rooms.pop_front() else { break };
        visit(core, key, |core, room| go_on(core, now, room, out));
    }
    for _ in 0..core.shared.muc.slices.released.len() {
        let Some((conn, stanza)) = core.shared.muc.slices.released.pop_front() else { break };
        core.unpark(conn, out);
        if core.is_bound_as(conn, &stanza.from) {
            dispatch(core, now, conn, stanza, out);
        }
        sm::on_handled(core, now, conn, out);
    }
}

fn go_on(core: &mut Core, now: Now, room: &mut Room, out: &mut Outputs) {
    show(core, room, out);
    for _ in 0..room.entering.len() {
        if left(core) == 0 {
            break;
        }
        let Some(entering) = room.entering.pop_front() else { break };
        if entering.may_go_on(core, out) {
            list(core, now, room, entering, out);
        } else {
            room.entering.push_back(entering);
        }
    }
    show(core, room, out);
    schedule(core, room, out);
}

/// A session has taken what it was sent, or has said so.
pub(crate) fn on_taken(core: &mut Core, conn: ConnId) {
    let slices = &mut core.shared.muc.slices;
    let mut index = 0;
    while let Some((waiting, room)) = slices.waiting.get(index).copied() {
        if waiting == conn {
            slices.waiting.swap_remove(index);
            slices.schedule(room);
        } else {
            index += 1;
        }
    }
}

/// A session goes on on another connection, which may take more.
pub(super) fn on_moved(core: &mut Core, room: &Room) {
    if !room.entering.is_empty() {
        core.shared.muc.slices.schedule(room.key);
    }
}

/// What a session sends before it is done with entering waits until it is; it is not read any further.
pub(super) fn defer(core: &mut Core, conn: ConnId, room: &mut Room, stanza: Stanza<'static>, out: &mut Outputs) {
    let entering =
        room.entering.iter_mut().filter(|entering| !entering.again).map(|entering| (entering.conn, &mut entering.next));
    let showing = room.showing.iter_mut().map(|showing| (showing.conn, &mut showing.next));
    if let Some((_, next)) = entering.chain(showing).find(|(other, _)| *other == conn) {
        *next = Some(stanza);
        core.park(conn);
    }
    schedule(core, room, out);
}

/// A session that is not in the room yet goes away. Returns whether it was one.
pub(super) fn give_up(core: &mut Core, room: &mut Room, conn: ConnId, notice: &Notice<'_>, out: &mut Outputs) -> bool {
    let place = room.entering.iter().position(|entering| entering.conn == conn && !entering.again);
    let Some(mut entering) = place.and_then(|place| room.entering.remove(place)) else { return false };
    core.shared.muc.unnote(conn, room.key);
    core.shared.muc.slices.release(conn, entering.next.take());
    // A session that is over is sent nothing more.
    if core.account_id(conn).is_some() {
        let occupant = entering.into_occupant(core, room);
        if let Some(session) = occupant.sessions.last() {
            room.tell_of(&occupant, session.receiver(), occupant.role, true, notice, out);
        }
    }
    true
}

/// Nobody who is not in the room yet will be.
pub(super) fn turn_away(core: &mut Core, room: &mut Room, notice: &Notice<'_>, out: &mut Outputs) {
    let conns: Vec<ConnId> = coming(room).map(|entering| entering.conn).collect();
    for conn in conns {
        give_up(core, room, conn, notice, out);
    }
}
