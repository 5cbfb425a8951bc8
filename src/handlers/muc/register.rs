//! Section 7.10: an account registers with a room, and so becomes a member and has its nick kept for it.

use super::admin::settle_affiliation;
use super::presence::check_nick;
use super::room::{Notice, Room};
use super::{Change, Outcome, Refusal, Request, commit};
use crate::core::form::{self, Form, Input};
use crate::core::rooms::Affiliation;
use crate::handlers::prelude::*;
use crate::jid::prepare_resource;

const NICK: &str = "muc#register_roomnick";

/// Who may not enter may not register either.
fn check_allowed(room: &Room, user: &str) -> Result<Affiliation, StanzaError> {
    match room.record.affiliation(user) {
        Affiliation::Outcast => Err(StanzaError::FORBIDDEN),
        Affiliation::None if room.config().members_only => {
            Err(StanzaError::NOT_ALLOWED.text("Only who is invited becomes a member of this room."))
        }
        affiliation => Ok(affiliation),
    }
}

pub(super) fn show(_: &mut Core, _: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    let user = request.stanza.from.bare();
    check_allowed(room, user)?;
    let nick = room.record.members.get(user).map(|member| member.nick.as_str()).filter(|nick| !nick.is_empty());
    out.reply(request.conn, &*request.stanza.parked(), |w| {
        w.open("query", ns::REGISTER);
        if let Some(nick) = nick {
            w.empty("registered", ns::REGISTER).text_element("username", nick);
            return;
        }
        form::open_titled(w, ns::MUC_REGISTER, format_args!("Registration with {}", room.jid), "");
        form::required(w, NICK, "Nick", Input::Text);
    });
    Ok(())
}

pub(super) fn set(core: &mut Core, now: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    let user = request.stanza.from.to_bare();
    let before = check_allowed(room, user.as_str())?;
    let mut record = Box::new(room.record.clone());
    let after = if request.payload.child("remove", ns::REGISTER).is_some() {
        // A rank that somebody has given does not go with the nick.
        let after = if before == Affiliation::Member { Affiliation::None } else { before };
        record.set_affiliation(&user, after);
        if let Some(member) = record.members.get_mut(&user) {
            member.nick.clear();
        }
        after
    } else {
        let nick = wanted_nick(room, user.as_str(), request)?;
        let after = before.max(Affiliation::Member);
        record.set_affiliation(&user, after);
        if let Some(member) = record.members.get_mut(&user) {
            member.nick = nick;
        }
        after
    };
    if record.members.len() > core.limits.room_members_max && record.members.len() > room.record.members.len() {
        return Err(StanzaError::RESOURCE_CONSTRAINT.text("The room has too many members.").into());
    }
    if room.saving {
        return Err(Refusal::Busy);
    }
    let iq = request.stanza.parked();
    let then = move |core: &mut Core,
                     _: Now,
                     conn: ConnId,
                     room: &mut Room,
                     result: Result<(), StanzaError>,
                     out: &mut Outputs| {
        match result {
            Ok(()) => {
                out.reply_empty(conn, &*iq);
                settle_affiliation(core, room, &user, after, &Notice::default(), out);
            }
            Err(error) => out.reply_error(conn, &*iq, error),
        }
    };
    commit(core, now, request.conn, room, Change::Save(record), then, out);
    Ok(())
}

/// The nick of a submitted form, if it can be kept.
fn wanted_nick(room: &Room, user: &str, request: &Request<'_>) -> Result<String, StanzaError> {
    let form = Form::inside(&request.payload)?.ok_or(StanzaError::BAD_REQUEST)?;
    let nick = form.value(NICK).filter(|nick| !nick.trim().is_empty()).ok_or(StanzaError::BAD_REQUEST)?;
    let nick = prepare_resource(nick).map_err(|_| StanzaError::NOT_ACCEPTABLE.text("That is no nick."))?;
    check_nick(room, &nick, user)?;
    Ok(nick.into_owned())
}
