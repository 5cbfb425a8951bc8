//! Sections 7.4, 7.5 and 8.1: what is said to all, what is said to one, and the subject.

use super::history;
use super::privilege::Act;
use super::room::{Occupant, Room, escaped, push_addressed};
use super::{Change, Outcome, Refusal, Stanza, commit, invite, moderation, presence, voice};
use crate::core::rooms::{Line, Role, Subject};
use crate::handlers::{carbons, mam, prelude::*};

/// A message to a room in use, or to an occupant of it.
pub(super) fn on_message(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    conn: ConnId,
    stanza: &Stanza<'_>,
    root: &Element<'_>,
    out: &mut Outputs,
) -> Outcome {
    let kind = stanza.type_.as_deref();
    if core.limits.rates && kind != Some("error") {
        room.takes(now.mono, conn, kind == Some("groupchat"), &core.limits)?;
    }
    let outcome = dispatch(core, now, room, conn, stanza, root, out);
    if outcome.is_ok() && kind != Some("error") {
        room.note_sent(stanza.id.as_deref().unwrap_or_default());
    }
    outcome
}

fn dispatch(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    conn: ConnId,
    stanza: &Stanza<'_>,
    root: &Element<'_>,
    out: &mut Outputs,
) -> Outcome {
    match (stanza.type_.as_deref(), stanza.to.resource()) {
        (Some("error"), _) => {
            presence::on_error(core, room, conn, root, out);
            Ok(())
        }
        (Some("groupchat"), None) => speak(core, now, room, conn, stanza, root, out),
        (Some("groupchat"), Some(_)) => {
            Err(StanzaError::BAD_REQUEST.text("A message to one occupant is no groupchat message.").into())
        }
        (_, Some(nick)) => whisper(core, room, conn, stanza, root, nick, out),
        (_, None) => to_room(core, now, room, conn, stanza, root, out),
    }
}

/// What is for the room itself: invitations, answers to them, requests for voice.
fn to_room(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    conn: ConnId,
    stanza: &Stanza<'_>,
    root: &Element<'_>,
    out: &mut Outputs,
) -> Outcome {
    if let Some(x) = root.child("x", ns::MUC_USER) {
        if let Some(decline) = x.child("decline", ns::MUC_USER) {
            return invite::decline(core, now, room, stanza, &decline, out);
        }
        if x.child("invite", ns::MUC_USER).is_some() {
            return invite::invite(core, now, room, conn, stanza, &x, out);
        }
    }
    match root.child("x", ns::DATA_FORMS) {
        Some(form) => voice::on_form(core, room, conn, &form, out),
        None => Err(StanzaError::BAD_REQUEST.text("A message to a room is a groupchat message.").into()),
    }
}

pub(super) const NOT_INSIDE: StanzaError = StanzaError::NOT_ACCEPTABLE.text("You are not in the room.");

fn speak(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    conn: ConnId,
    stanza: &Stanza<'_>,
    root: &Element<'_>,
    out: &mut Outputs,
) -> Outcome {
    let occupant = room.occupant_of(conn).ok_or(NOT_INSIDE)?;
    if is_subject(root) {
        return change_subject(core, now, room, conn, stanza, root, out);
    }
    if !Act::Speak.is_allowed(occupant.role, room.config()) {
        return Err(StanzaError::FORBIDDEN.text("You may not speak here.").into());
    }
    if room.ending {
        return Err(Refusal::Busy);
    }
    let kept = mam::lasts(root);
    if kept && room.archives() && !core.store_has_room() {
        return Err(StanzaError::RESOURCE_CONSTRAINT.text("The server is busy.").into());
    }
    let id = core.shared.mam.next(now.utc, &mut core.ids);
    let rest = compose(room, occupant, stanza, root, |w| {
        w.open("stanza-id", ns::STANZA_ID).attr("by", &room.jid).attr("id", id).close();
    });
    room.send_all("message", &rest, out);
    core.counters.delivered += room.len() as u64;
    if kept {
        let (by, from) = (occupant.id.clone(), history::address(room, occupant));
        let line = Line { id, xml: history::as_kept(room, occupant, &rest) };
        moderation::on_retraction(core, now, room, conn, root, &by, out);
        history::keep(core, room, conn, from, line, history::is_shown(root), out);
    }
    Ok(())
}

/// Whether a message changes the subject; else it is a line that has one (section 8.1, PROTOCOL MU-18).
pub(super) fn is_subject(root: &Element<'_>) -> bool {
    let has = |name| root.child(name, ns::CLIENT).is_some();
    has("subject") && !has("body") && !has("thread")
}

/// Whether a child of a message is the room's alone to say (PROTOCOL MU-17).
fn is_forged(room: &Room, child: &Element<'_>) -> bool {
    let from_room = |attribute| child.attr(attribute).is_some_and(|jid| jid == room.jid.as_str());
    match (child.name(), child.ns()) {
        ("stanza-id", ns::STANZA_ID) => from_room("by"),
        ("delay", ns::DELAY) => from_room("from"),
        ("retracted", ns::RETRACT) | (_, ns::MUC_USER | ns::OCCUPANT_ID) => true,
        _ => false,
    }
}

/// What stands behind `<message to='…'`: the message from an occupant, without what is forged, with what the room adds.
pub(super) fn compose(
    room: &Room,
    occupant: &Occupant,
    stanza: &Stanza<'_>,
    root: &Element<'_>,
    add: impl FnOnce(&mut Writer<'_>),
) -> Vec<u8> {
    let xml = stanza.xml.as_bytes();
    let mut rest = Vec::with_capacity(stanza.rest().len() + occupant.from.len() + 256);
    rest.extend_from_slice(b" from='");
    rest.extend_from_slice(occupant.from.as_bytes());
    rest.push(b'\'');
    let mut done = stanza.rest;
    for child in root.children().filter(|child| is_forged(room, child)) {
        let span = child.span();
        rest.extend_from_slice(xml.get(done..span.start).unwrap_or_default());
        done = span.end;
    }
    // Without a child the element may have no end tag.
    let (end, open) = match xml.strip_suffix(b"/>") {
        Some(head) if root.children().next().is_none() => (head.len(), true),
        _ => (memchr::memrchr(b'<', xml).unwrap_or(xml.len()), false),
    };
    rest.extend_from_slice(xml.get(done..end).unwrap_or_default());
    if open {
        rest.push(b'>');
    }
    let mut w = Writer::new(&mut rest);
    w.open("occupant-id", ns::OCCUPANT_ID).attr("id", &occupant.id).close();
    add(&mut w);
    drop(w);
    rest.extend_from_slice(b"</message>");
    rest
}

/// Section 8.1: told when it is durable.
fn change_subject(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    conn: ConnId,
    stanza: &Stanza<'_>,
    root: &Element<'_>,
    out: &mut Outputs,
) -> Outcome {
    let occupant = room.occupant_of(conn).ok_or(NOT_INSIDE)?;
    if !Act::ChangeSubject.is_allowed(occupant.role, room.config()) {
        return Err(StanzaError::FORBIDDEN.text("You may not change the subject.").into());
    }
    let text = root.child("subject", ns::CLIENT).map(|subject| subject.text().into_owned()).unwrap_or_default();
    if text.len() > core.limits.room_text_bytes_max {
        return Err(StanzaError::POLICY_VIOLATION.text("The subject is too long.").into());
    }
    if room.saving {
        return Err(Refusal::Busy);
    }
    let mut record = Box::new(room.record.clone());
    record.subject = Subject { text, nick: occupant.nick.to_string(), at: now.utc };
    let id = core.shared.mam.next(now.utc, &mut core.ids);
    let rest = compose(room, occupant, stanza, root, |w| {
        w.open("stanza-id", ns::STANZA_ID).attr("by", &room.jid).attr("id", id).close();
    });
    let line = Line { id, xml: history::as_kept(room, occupant, &rest) };
    let from = history::address(room, occupant);
    let (refused_id, to) = (stanza.id.as_deref().map(str::to_owned), stanza.to_written.to_string());
    let then = move |core: &mut Core,
                     _: Now,
                     conn: ConnId,
                     room: &mut Room,
                     result: Result<(), StanzaError>,
                     out: &mut Outputs| {
        match result {
            Ok(()) => {
                room.send_all("message", &rest, out);
                // Its sender has been told by now, or will be, that it is handled: the subject itself is durable.
                history::keep_quietly(core, room, from, line, out);
            }
            Err(error) => out.bounce(conn, "message", refused_id.as_deref(), Some(&to), error),
        }
    };
    commit(core, now, conn, room, Change::Save(record), then, out);
    Ok(())
}

/// Section 7.5: to all sessions of one occupant (PROTOCOL MU-09). Never kept.
fn whisper(
    core: &mut Core,
    room: &Room,
    conn: ConnId,
    stanza: &Stanza<'_>,
    root: &Element<'_>,
    nick: &str,
    out: &mut Outputs,
) -> Outcome {
    let occupant = room.occupant_of(conn).ok_or(NOT_INSIDE)?;
    let receiver = room.nick_holder(nick).and_then(|key| room.occupant(key)).ok_or(StanzaError::ITEM_NOT_FOUND)?;
    let config = room.config();
    // Who may not write to everybody may still turn to a moderator, unless nobody may.
    let to_moderator = receiver.role == Role::Moderator && config.private_messages > Role::None;
    if !Act::Whisper.is_allowed(occupant.role, config) && !to_moderator {
        return Err(StanzaError::FORBIDDEN.text("You may not write to single occupants here.").into());
    }
    let rest = compose(room, occupant, stanza, root, |w| {
        w.empty("x", ns::MUC_USER);
    });
    for session in &receiver.sessions {
        out.wire.stanza(session.conn, |buf| push_addressed(buf, "message", &session.to, &rest));
        core.counters.delivered += 1;
        core.press(conn, session.conn, out);
    }
    let to = escaped(stanza.to.as_str());
    let rest = stanza.xml.strip_prefix("<message").unwrap_or_default();
    carbons::copy_whisper(core, conn, root, &[" to='", &to, "'", rest].concat(), out);
    Ok(())
}
