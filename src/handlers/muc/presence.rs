//! Sections 7.1, 7.2, 7.6, 7.7 and 7.14: entering, being there, changing one's nick, leaving.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::history::History;
use super::room::{Notice, Occupant, Payload, Room, Session, escaped};
use super::{Outcome, Stanza, TOMBSTONE_MILLIS, concerns_absent, entry, on_room, relay};
use crate::core::rooms::{Role, RoomRecord, Tombstone};
use crate::handlers::prelude::*;
use crate::jid::BareJid;
use crate::xml::{Kind, Tree};

/// The occupant was removed because of an error or a lost session (section 14).
const REMOVED: [u16; 2] = [307, 333];

/// A presence stanza to a room in use, or to an occupant of it.
pub(super) fn on_presence(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    conn: ConnId,
    stanza: &Stanza<'_>,
    root: &Element<'_>,
    out: &mut Outputs,
) -> Outcome {
    let inside = room.session_holder(conn);
    let entering = root.child("x", ns::MUC);
    match (stanza.type_.as_deref(), inside, entering) {
        (None, None, Some(x)) => entry::enter(core, now, room, conn, stanza, root, &x, out),
        (None, None, None) | (Some("unavailable"), None, _) => {
            refuse_stranger(conn, stanza, out);
            Ok(())
        }
        (None, Some(key), x) => stay(core, now, room, conn, key, stanza, root, x.is_some(), out),
        (Some("unavailable"), Some(_), _) => {
            core.shared.muc.unnote(conn, room.key);
            leave(core, room, conn, payload_of(root), &[], out);
            Ok(())
        }
        (Some("error"), Some(_), _) => {
            on_error(core, room, conn, root, out);
            Ok(())
        }
        (Some("error" | "probe" | "unsubscribe" | "unsubscribed" | "subscribed"), ..) => Ok(()),
        (Some("subscribe"), ..) => Err(StanzaError::SERVICE_UNAVAILABLE.text("A room has no subscribers.").into()),
        (Some(_), ..) => Err(StanzaError::BAD_REQUEST.into()),
    }
}

/// What of a presence is the sender's own to say.
pub(super) fn payload_of(root: &Element<'_>) -> Payload {
    let mut children = Vec::new();
    for child in root.children() {
        let ours = matches!(child.ns(), ns::MUC | ns::MUC_USER | ns::OCCUPANT_ID)
            || (child.name() == "delay" && child.ns() == ns::DELAY);
        if !ours {
            child.write_standalone(ns::CLIENT, &mut children);
        }
    }
    Payload { lang: escaped(root.attr("xml:lang").unwrap_or_default()), children: children.into() }
}

/// The nick that a presence is addressed to.
pub(super) fn wanted_nick<'s>(stanza: &'s Stanza<'_>) -> Result<&'s str, StanzaError> {
    let nick = stanza.to.resource().ok_or(StanzaError::JID_MALFORMED)?;
    if nick.trim().is_empty() {
        return Err(StanzaError::NOT_ACCEPTABLE.text("A nick is more than white space."));
    }
    Ok(nick)
}

/// Whether `user` may have this nick (sections 7.2.8, 7.10 and 17.1; PROTOCOL MU-10).
pub(super) fn check_nick(room: &Room, nick: &str, user: &str) -> Result<(), StanzaError> {
    if room.is_taken(nick, user) || entry::is_reserved(room, nick, user) {
        return Err(StanzaError::CONFLICT.text("Somebody else has that nick, or one that looks like it."));
    }
    Ok(())
}

/// `occupant-id`: the same for an account and a room for ever, and nothing that could be guessed back (XEP-0421).
pub(super) fn occupant_id(secret: &[u8; 32], room: &BareJid, user: &BareJid) -> Box<str> {
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length will do");
    let mac = mac.chain_update(b"occupant-id\0").chain_update(room.as_str()).chain_update(b"\0");
    URL_SAFE_NO_PAD.encode(mac.chain_update(user.as_str()).finalize().into_bytes()).into()
}

/// A new moderator is told what only moderators see: addresses, and who is not shown to everybody.
pub(super) fn show_hidden(room: &Room, moderator: &Occupant, out: &mut Outputs) {
    for (_, other) in room.occupants().filter(|(_, other)| !std::ptr::eq(*other, moderator)) {
        if !room.config().non_anonymous || !other.seen {
            for session in &moderator.sessions {
                room.tell_of(other, session.receiver(), Role::Moderator, false, &Notice::default(), out);
            }
        }
    }
}

/// Presence of somebody who is in the room already.
#[allow(clippy::too_many_arguments)]
fn stay(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    conn: ConnId,
    key: usize,
    stanza: &Stanza<'_>,
    root: &Element<'_>,
    enters: bool,
    out: &mut Outputs,
) -> Outcome {
    let nick = wanted_nick(stanza)?;
    let payload = payload_of(root);
    if payload.children.len() > core.limits.presence_bytes_max {
        return Err(StanzaError::POLICY_VIOLATION.text("The presence is too big.").into());
    }
    if core.limits.rates {
        room.takes_presence(now.mono, conn, &core.limits)?;
    }
    let renamed = room.occupant(key).is_some_and(|occupant| *occupant.nick != *nick);
    if renamed {
        change_nick(room, key, nick, out)?;
    }
    room.set_presence(conn, payload);
    if enters {
        entry::enter_again(core, now, room, conn, stanza, out);
        if let Some(occupant) = room.occupant(key).filter(|_| renamed) {
            entry::tell_others(room, occupant, conn, out);
        }
    } else if let Some(occupant) = room.occupant(key) {
        let notice = Notice { id: stanza.id.as_deref(), ..Notice::default() };
        room.announce(occupant, None, &notice, out);
    }
    Ok(())
}

/// Section 7.6. The presence under the new nick comes after. All sessions of the occupant are renamed.
fn change_nick(room: &mut Room, key: usize, nick: &str, out: &mut Outputs) -> Result<(), StanzaError> {
    let Some(occupant) = room.occupant(key) else { return Ok(()) };
    check_nick(room, nick, occupant.user.as_str())?;
    if room.nick_holder(nick).is_some() {
        return Err(StanzaError::CONFLICT);
    }
    let notice = Notice { unavailable: true, codes: &[303], nick: Some(nick), ..Notice::default() };
    room.announce(occupant, None, &notice, out);
    room.rename(key, nick);
    Ok(())
}

/// A session leaves. Where its occupant has another one left, the others only see that one from now on.
fn leave(core: &mut Core, room: &mut Room, conn: ConnId, payload: Payload, codes: &[u16], out: &mut Outputs) {
    let shown =
        room.occupant_of(conn).and_then(|occupant| occupant.sessions.last()).is_some_and(|last| last.conn == conn);
    let Some((key, mut session)) = room.remove_session(conn) else { return };
    relay::on_gone(core, room, &session.jid, out);
    session.presence = payload;
    let notice = Notice { unavailable: true, codes, ..Notice::default() };
    // A session that is over is sent nothing more.
    let over = core.account_id(conn).is_none();
    match room.occupant(key) {
        Some(occupant) if !occupant.sessions.is_empty() => {
            if !over {
                tell_gone(room, occupant.without_sessions(), session, &notice, out);
            }
            if shown {
                room.announce(occupant, None, &Notice::default(), out);
            }
        }
        _ => {
            let Some(mut occupant) = room.remove_occupant(key) else { return };
            if over {
                room.announce(&occupant, Some(&session), &notice, out);
            } else {
                occupant.sessions.push(session);
                room.announce(&occupant, None, &notice, out);
            }
        }
    }
}

/// One session of several is told that it has left.
fn tell_gone(room: &Room, mut gone: Occupant, session: Session, notice: &Notice<'_>, out: &mut Outputs) {
    gone.sessions.push(session);
    if let Some(session) = gone.sessions.last() {
        room.tell_of(&gone, session.receiver(), gone.role, true, notice, out);
    }
}

/// [`leave`] of a session that is no longer available anywhere; `xml` is its last presence.
pub(super) fn leave_with(core: &mut Core, room: &mut Room, conn: ConnId, xml: &[u8], out: &mut Outputs) {
    let text = std::str::from_utf8(xml).unwrap_or_default();
    let payload = Tree::parse(text, ns::CLIENT).map(|tree| payload_of(&tree.root())).unwrap_or_default();
    if !entry::give_up(core, room, conn, &Notice { unavailable: true, ..Notice::default() }, out) {
        leave(core, room, conn, payload, &[], out);
    }
}

/// Puts an occupant out with all its sessions; `notice` says why.
pub(super) fn put_out(core: &mut Core, room: &mut Room, key: usize, notice: &Notice<'_>, out: &mut Outputs) {
    put_all_out(core, room, &[key], notice, out);
}

/// Puts occupants out. Each is told of itself alone, and who stays of each.
pub(super) fn put_all_out(core: &mut Core, room: &mut Room, keys: &[usize], notice: &Notice<'_>, out: &mut Outputs) {
    let gone: Vec<Occupant> = keys.iter().filter_map(|key| room.remove_occupant(*key)).collect();
    for mut occupant in gone {
        for session in &mut occupant.sessions {
            relay::on_gone(core, room, &session.jid, out);
            core.shared.muc.unnote(session.conn, room.key);
            session.presence = Payload::default();
        }
        room.announce(&occupant, None, &Notice { unavailable: true, ..*notice }, out);
    }
}

/// Everybody is out, and told of that alone; nobody comes in who is on the way.
pub(super) fn empty(core: &mut Core, room: &mut Room, notice: &Notice<'_>, out: &mut Outputs) {
    entry::turn_away(core, room, &Notice { unavailable: true, ..*notice }, out);
    let keys: Vec<usize> = room.occupants().map(|(key, _)| key).collect();
    put_all_out(core, room, &keys, notice, out);
}

/// An error that an occupant sends back: some mean that it does not get what the room sends (PROTOCOL MU-35).
pub(super) fn on_error(core: &mut Core, room: &mut Room, conn: ConnId, root: &Element<'_>, out: &mut Outputs) {
    const FATAL: [&str; 8] = [
        "gone",
        "item-not-found",
        "recipient-unavailable",
        "redirect",
        "remote-server-not-found",
        "remote-server-timeout",
        "service-unavailable",
        "jid-malformed",
    ];
    let condition = root.child("error", ns::CLIENT).and_then(|error| {
        let mut conditions = error.children().filter(|child| child.ns() == ns::STANZA_ERRORS);
        conditions.find(|child| child.name() != "text").map(|child| child.name())
    });
    // Nobody leaves for an error to what the room has not sent.
    let is_ours = root.name() == "presence" || room.has_sent(root.attr("id").unwrap_or_default());
    if is_ours && condition.is_some_and(|condition| FATAL.contains(&condition)) {
        core.shared.muc.unnote(conn, room.key);
        leave(core, room, conn, Payload::default(), &REMOVED, out);
    }
}

/// Who is not in the room is told so, in the way of what it has sent (PROTOCOL MU-04, MU-33).
pub(super) fn refuse_stranger(conn: ConnId, stanza: &Stanza<'_>, out: &mut Outputs) {
    match (stanza.kind, stanza.type_.as_deref()) {
        (Kind::Presence, None) if stanza.to.is_bare() => stanza.refuse(conn, StanzaError::JID_MALFORMED, out),
        (Kind::Presence, None) => out.wire.stanza(conn, |buf| {
            let mut w = Writer::new(buf);
            w.open("presence", ns::CLIENT).attr("from", &stanza.to).attr("type", "unavailable");
            if let Some(id) = &stanza.id {
                w.attr_escaped("id", id);
            }
            w.open("x", ns::MUC_USER);
            w.open("item", ns::MUC_USER).attr("affiliation", "none").attr("role", "none");
            w.text_element("reason", "You are not in the room.").close();
            for code in [110, 307, 333] {
                w.open("status", ns::MUC_USER).attr("code", code).close();
            }
        }),
        (Kind::Presence, Some("subscribe")) => stanza.refuse(conn, StanzaError::SERVICE_UNAVAILABLE, out),
        (Kind::Presence, _) => {}
        _ => stanza.refuse(conn, StanzaError::NOT_ACCEPTABLE.text("You are not in the room."), out),
    }
}

/// There is no such room: whoever enters makes it (section 10.1).
pub(super) fn on_absent(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    stanza: Stanza<'_>,
    tombstone: Option<&Tombstone>,
    out: &mut Outputs,
) {
    // It may have ended while somebody was in it.
    if !concerns_absent(&stanza) {
        return refuse_stranger(conn, &stanza, out);
    }
    if stanza.kind != Kind::Presence {
        return stanza.refuse(conn, StanzaError::ITEM_NOT_FOUND.text("There is no such room."), out);
    }
    let user = stanza.from.to_bare();
    let kept = tombstone.filter(|tombstone| {
        now.utc.0 < tombstone.at.0.saturating_add(TOMBSTONE_MILLIS) && !tombstone.owners.contains(&user)
    });
    if let Some(tombstone) = kept {
        let alternate = match tombstone.alternate.as_str() {
            "" => String::new(),
            alternate => format!("xmpp:{alternate}?join"),
        };
        return stanza.refuse_towards(conn, StanzaError::GONE, &alternate, out);
    }
    match make(core, now, &stanza, &user) {
        Ok(key) => on_room(core, now, conn, key, stanza, out),
        Err(error) => stanza.refuse(conn, error, out),
    }
}

/// A room that is there for whoever enters it at once, and locked until it is configured.
fn make(core: &mut Core, now: Now, stanza: &Stanza<'_>, user: &BareJid) -> Result<usize, StanzaError> {
    wanted_nick(stanza)?;
    let host = core.hosts.iter().find(|host| host.rooms == stanza.to.domain()).ok_or(StanzaError::ITEM_NOT_FOUND)?;
    if !host.rooms_open || host.name != user.domain() {
        return Err(StanzaError::NOT_ALLOWED.text("You may not make rooms here."));
    }
    let rooms = &mut core.shared.muc;
    if rooms.unstored_of(user) >= core.limits.rooms_per_account_max {
        return Err(StanzaError::RESOURCE_CONSTRAINT.text("You have made too many rooms."));
    }
    let record = RoomRecord::new(user.clone(), now.utc);
    let key = rooms.add(&stanza.to.to_bare(), record, History::default(), false);
    if let Some(Some(room)) = rooms.slab.get_mut(key) {
        room.locked = true;
    }
    Ok(key)
}
