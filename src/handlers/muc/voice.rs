//! Sections 7.13 and 8.6: a visitor asks for voice, a moderator grants it.

use super::message::NOT_INSIDE;
use super::privilege::{Act, Rank, check_role_change};
use super::room::{Notice, Room, push_addressed};
use super::{Outcome, admin};
use crate::core::rooms::Role;
use crate::handlers::prelude::*;

/// A submitted form whose type is [`ns::MUC_REQUEST`].
pub(super) fn on_form(core: &mut Core, room: &mut Room, conn: ConnId, form: &Element<'_>, out: &mut Outputs) -> Outcome {
    let value = |var: &str| {
        let mut fields = form.children().filter(|child| child.is("field", ns::DATA_FORMS));
        let field = fields.find(|field| field.attr("var") == Some(var));
        field.and_then(|field| field.child("value", ns::DATA_FORMS)).map(|value| value.text().into_owned())
    };
    if form.attr("type") != Some("submit") || value("FORM_TYPE").as_deref() != Some(ns::MUC_REQUEST) {
        return Err(StanzaError::BAD_REQUEST.into());
    }
    let role = match value("muc#role").as_deref().map(Role::named) {
        None => Role::Participant,
        Some(Some(role @ (Role::Participant | Role::Visitor))) => role,
        Some(_) => return Err(StanzaError::BAD_REQUEST.into()),
    };
    match (value("muc#request_allow").as_deref(), value("muc#roomnick")) {
        (None, _) => request(core, room, conn, out),
        (Some("1" | "true"), Some(nick)) => grant(room, conn, &nick, role, out),
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
    w.open("x", ns::DATA_FORMS).attr("type", "form");
    w.text_element("title", "Request for voice");
    w.text_element("instructions", "Shall this occupant be allowed to speak?");
    for (var, kind, label, value) in [
        ("FORM_TYPE", "hidden", "", ns::MUC_REQUEST),
        ("muc#role", "list-single", "Requested role", Role::Participant.name()),
        ("muc#jid", "jid-single", "Address", session.jid.as_str()),
        ("muc#roomnick", "text-single", "Nick", &asker.nick),
        ("muc#request_allow", "boolean", "Allowed to speak", "0"),
    ] {
        w.open("field", ns::DATA_FORMS).attr("var", var).attr("type", kind);
        w.attr_opt("label", (!label.is_empty()).then_some(label)).text_element("value", value).close();
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
