//! Sections 7.13 and 8.6: a visitor asks for voice, a moderator grants it.

use super::message::NOT_INSIDE;
use super::privilege::{Act, Rank, check_role_change};
use super::room::{Notice, Room, push_addressed};
use super::{Outcome, admin};
use crate::core::form::{self, Form, Input};
use crate::core::rooms::Role;
use crate::handlers::prelude::*;

/// A submitted form whose type is [`ns::MUC_REQUEST`].
pub(super) fn on_form(
    core: &mut Core,
    room: &mut Room,
    conn: ConnId,
    element: &Element<'_>,
    out: &mut Outputs,
) -> Outcome {
    let form = Form::parse(element)?;
    if element.attr("type") != Some("submit") || form.kind.as_deref() != Some(ns::MUC_REQUEST) {
        return Err(StanzaError::BAD_REQUEST.into());
    }
    let role = match form.value("muc#role").map(Role::named) {
        None => Role::Participant,
        Some(Some(role @ (Role::Participant | Role::Visitor))) => role,
        Some(_) => return Err(StanzaError::BAD_REQUEST.into()),
    };
    match (form.value("muc#request_allow"), form.value("muc#roomnick")) {
        (None, _) => request(core, room, conn, out),
        (Some("1" | "true"), Some(nick)) => grant(room, conn, nick, role, out),
        // Refused, and nobody is told.
        (Some(_), _) => Ok(()),
    }
}

fn request(core: &mut Core, room: &Room, conn: ConnId, out: &mut Outputs) -> Outcome {
    let asker = room.occupant_of(conn).ok_or(NOT_INSIDE)?;
    if !Act::RequestVoice.is_allowed(asker.role, room.config()) || asker.role > Role::Visitor {
        return Err(StanzaError::FORBIDDEN.text("You may speak already.").into());
    }
    let Some(session) = asker.sessions.last() else { return Ok(()) };
    let id = core.ids.next_id();
    let mut stanza = Vec::with_capacity(640);
    let mut w = Writer::new(&mut stanza);
    w.open("message", ns::CLIENT).attr("from", &room.jid).attr("id", &id);
    form::open_titled(&mut w, ns::MUC_REQUEST, "Request for voice", "Shall this occupant be allowed to speak?");
    for (var, input, label, value) in [
        ("muc#role", Input::One(&[]), "Requested role", Role::Participant.name()),
        ("muc#jid", Input::Jid, "Address", session.jid.as_str()),
        ("muc#roomnick", Input::Text, "Nick", &asker.nick),
        ("muc#request_allow", Input::Switch, "Allowed to speak", "0"),
    ] {
        form::field(&mut w, var, label, input, &[value]);
    }
    drop(w);
    let rest = stanza.strip_prefix(b"<message").unwrap_or_default();
    for (_, moderator) in room.occupants().filter(|(_, occupant)| occupant.role == Role::Moderator) {
        for session in &moderator.sessions {
            out.wire.stanza(session.conn, |buf| push_addressed(buf, "message", &session.to, rest));
        }
    }
    Ok(())
}

fn grant(room: &mut Room, conn: ConnId, nick: &str, role: Role, out: &mut Outputs) -> Outcome {
    let actor = room.occupant_of(conn).ok_or(NOT_INSIDE)?;
    let rank = Rank { affiliation: actor.affiliation, role: actor.role };
    let key = room.nick_holder(nick).ok_or(StanzaError::ITEM_NOT_FOUND)?;
    let target = room.occupant(key).ok_or(StanzaError::ITEM_NOT_FOUND)?;
    check_role_change(rank, Rank { affiliation: target.affiliation, role: target.role }, role)?;
    // A moderator is not made less by a form that somebody else has answered already.
    if target.role < role {
        let by = actor.nick.to_string();
        admin::change_rank(room, key, None, role, &Notice { actor: Some(&by), ..Notice::default() }, out);
    }
    Ok(())
}
