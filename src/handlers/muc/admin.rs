//! Chapters 8 and 9, 10.3 to 10.8: roles and affiliations, one by one and in lists.
//!
//! A request is all or nothing: every item is checked before the first is carried out (PROTOCOL MU-25). Affiliations are durable
//! before anybody hears of them. The result comes first, then what everybody is told.

use super::privilege::{Rank, check_affiliation_change, check_role_change, may_list};
use super::room::{Notice, Room};
use super::{Change, Outcome, Refusal, Request, commit, invite, presence};
use crate::core::rooms::{Affiliation, Role, RoomRecord};
use crate::handlers::prelude::*;
use crate::jid::{BareJid, JidRef};

/// Lists: all of one affiliation, or all occupants of one role.
pub(super) fn list(_: &mut Core, _: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    let item = request.payload.only_child().filter(|item| item.is("item", ns::MUC_ADMIN));
    let item = item.ok_or(StanzaError::BAD_REQUEST)?;
    let asker = room.record.affiliation(request.stanza.from.bare());
    let iq = request.stanza.parked();
    match (item.attr("affiliation").map(Affiliation::named), item.attr("role").map(Role::named)) {
        (Some(Some(listed)), None) if listed != Affiliation::None => {
            if !may_list(asker, listed, room.config()) {
                return Err(StanzaError::FORBIDDEN.into());
            }
            out.reply(request.conn, &*iq, |w| write_affiliated(&room.record, listed, w));
        }
        (None, Some(Some(listed))) if listed != Role::None => {
            let role = room.occupant_of(request.conn).map_or(Role::None, |occupant| occupant.role);
            if role < Role::Moderator && asker < Affiliation::Admin {
                return Err(StanzaError::FORBIDDEN.into());
            }
            out.reply(request.conn, &*iq, |w| write_occupants(room, listed, w));
        }
        _ => return Err(StanzaError::BAD_REQUEST.into()),
    }
    Ok(())
}

fn write_affiliated(record: &RoomRecord, listed: Affiliation, w: &mut Writer<'_>) {
    w.open("query", ns::MUC_ADMIN);
    for (user, member) in record.members.iter().filter(|(_, member)| member.affiliation == listed) {
        w.open("item", ns::MUC_ADMIN).attr("affiliation", listed.name()).attr("jid", user);
        w.attr_opt("nick", (!member.nick.is_empty()).then_some(&member.nick)).close();
    }
}

fn write_occupants(room: &Room, listed: Role, w: &mut Writer<'_>) {
    w.open("query", ns::MUC_ADMIN);
    for (_, occupant) in room.occupants().filter(|(_, occupant)| occupant.role == listed) {
        w.open("item", ns::MUC_ADMIN).attr("affiliation", occupant.affiliation.name());
        w.attr_opt("jid", occupant.sessions.last().map(|session| &session.jid));
        w.attr("nick", &occupant.nick).attr("role", listed.name()).close();
    }
}

/// One item of a request, checked.
struct Deed {
    what: What,
    reason: String,
}

enum What {
    Role { nick: Box<str>, to: Role },
    Affiliation { user: BareJid, to: Affiliation },
}

/// Changes.
pub(super) fn set(core: &mut Core, now: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    let own = request.stanza.from.to_bare();
    let inside = room.occupant_of(request.conn);
    let actor = Rank {
        affiliation: room.record.affiliation(own.as_str()),
        role: inside.map_or(Role::None, |occupant| occupant.role),
    };
    let actor_nick = inside.map(|occupant| occupant.nick.to_string());
    let mut record = Box::new(room.record.clone());
    let mut deeds = Vec::new();
    for item in request.payload.children().filter(|item| item.is("item", ns::MUC_ADMIN)) {
        deeds.push(check(room, &mut record, &own, actor, &item)?);
    }
    if deeds.is_empty() {
        return Err(StanzaError::BAD_REQUEST.into());
    }
    if record.owners() == 0 {
        return Err(StanzaError::CONFLICT.text("A room needs an owner.").into());
    }
    if record.members.len() > core.limits.room_members_max && record.members.len() > room.record.members.len() {
        return Err(StanzaError::RESOURCE_CONSTRAINT.text("The room has too many members.").into());
    }
    let iq = request.stanza.parked();
    let then = move |core: &mut Core,
                     now: Now,
                     conn: ConnId,
                     room: &mut Room,
                     result: Result<(), StanzaError>,
                     out: &mut Outputs| {
        match result {
            Ok(()) => {
                out.reply_empty(conn, &*iq);
                for deed in &deeds {
                    carry_out(core, now, room, &own, actor_nick.as_deref(), deed, out);
                }
            }
            Err(error) => out.reply_error(conn, &*iq, error),
        }
    };
    if *record == room.record {
        then(core, now, request.conn, room, Ok(()), out);
    } else if room.saving {
        return Err(Refusal::Busy);
    } else {
        commit(core, now, request.conn, room, Change::Save(record), then, out);
    }
    Ok(())
}

/// Reads an item and checks it against the tables; an affiliation is put into `record`.
fn check(
    room: &Room,
    record: &mut RoomRecord,
    own: &BareJid,
    actor: Rank,
    item: &Element<'_>,
) -> Result<Deed, StanzaError> {
    let reason = item.child("reason", ns::MUC_ADMIN).map(|reason| reason.text().into_owned()).unwrap_or_default();
    let by_nick = item.attr("nick").and_then(|nick| room.nick_holder(nick)).and_then(|key| room.occupant(key));
    match (item.attr("affiliation"), item.attr("role")) {
        (None, Some(to)) => {
            let to = Role::named(to).ok_or(StanzaError::BAD_REQUEST)?;
            item.attr("nick").ok_or(StanzaError::BAD_REQUEST)?;
            let target = by_nick.ok_or(StanzaError::ITEM_NOT_FOUND)?;
            // An affiliation given by the same request counts.
            let affiliation = record.affiliation(target.user.as_str());
            check_role_change(actor, Rank { affiliation, role: target.role }, to)?;
            Ok(Deed { what: What::Role { nick: target.nick.clone(), to }, reason })
        }
        (Some(to), _) => {
            let to = Affiliation::named(to).ok_or(StanzaError::BAD_REQUEST)?;
            let user = match item.attr("jid") {
                // Only the bare JID counts (section 10.3).
                Some(jid) => JidRef::parse(jid).map_err(|_| StanzaError::JID_MALFORMED)?.to_bare(),
                None => by_nick.ok_or(StanzaError::ITEM_NOT_FOUND)?.user.clone(),
            };
            if user == *own && to == Affiliation::Outcast {
                return Err(StanzaError::CONFLICT.text("You cannot ban yourself."));
            }
            let before = room.record.affiliation(user.as_str());
            // Everybody may give up what he has.
            if !(user == *own && (Affiliation::None..=before).contains(&to)) {
                check_affiliation_change(actor.affiliation, before, to)?;
            }
            record.set_affiliation(&user, to);
            Ok(Deed { what: What::Affiliation { user, to }, reason })
        }
        (None, None) => Err(StanzaError::BAD_REQUEST),
    }
}

fn carry_out(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    own: &BareJid,
    actor: Option<&str>,
    deed: &Deed,
    out: &mut Outputs,
) {
    let notice = Notice { actor, reason: Some(&deed.reason), ..Notice::default() };
    match &deed.what {
        What::Role { nick, to: Role::None } => {
            if let Some(key) = room.nick_holder(nick) {
                presence::put_out(core, room, key, &Notice { codes: &[307], ..notice }, out);
            }
        }
        What::Role { nick, to } => {
            if let Some(key) = room.nick_holder(nick) {
                change_rank(room, key, None, *to, &notice, out);
            }
        }
        What::Affiliation { user, to } => {
            let present = settle_affiliation(core, room, user, *to, &notice, out);
            // Who may enter from now on and is not here is told so (section 9.3).
            if !present && *to == Affiliation::Member && room.config().members_only && user != own {
                let by = invite::inviter(room, own, actor);
                invite::send(core, now, room, &by, user, &deed.reason, out);
            }
        }
    }
}

/// What another affiliation does to the account's occupants; it is in the room's record by now. Whether there are any.
pub(super) fn settle_affiliation(
    core: &mut Core,
    room: &mut Room,
    user: &BareJid,
    to: Affiliation,
    notice: &Notice<'_>,
    out: &mut Outputs,
) -> bool {
    let occupants = room.occupants().filter(|(_, occupant)| occupant.user == *user);
    let occupants: Vec<(usize, Affiliation, Role)> =
        occupants.map(|(key, occupant)| (key, occupant.affiliation, occupant.role)).collect();
    for (key, before, role) in &occupants {
        let key = *key;
        let out_code: Option<&[u16]> = match to {
            Affiliation::Outcast => Some(&[301]),
            Affiliation::None if room.config().members_only => Some(&[321]),
            _ => None,
        };
        if let Some(codes) = out_code {
            if let Some(occupant) = room.occupant_mut(key) {
                occupant.affiliation = to;
            }
            presence::put_out(core, room, key, &Notice { codes, ..*notice }, out);
        } else if to != *before {
            let initial = room.initial_role(to);
            let fell = *before >= Affiliation::Admin && to < Affiliation::Admin;
            let role = if fell { initial } else { initial.max(*role) };
            change_rank(room, key, Some(to), role, notice, out);
        }
    }
    !occupants.is_empty()
}

/// Another affiliation or role of an occupant that stays.
pub(super) fn change_rank(
    room: &mut Room,
    key: usize,
    affiliation: Option<Affiliation>,
    role: Role,
    notice: &Notice<'_>,
    out: &mut Outputs,
) {
    let shown = room.config().presence.contains(role);
    let Some(occupant) = room.occupant_mut(key) else { return };
    let rose = role == Role::Moderator && occupant.role < Role::Moderator;
    occupant.role = role;
    occupant.affiliation = affiliation.unwrap_or(occupant.affiliation);
    occupant.seen |= shown;
    let Some(occupant) = room.occupant(key) else { return };
    room.announce(occupant, None, notice, out);
    if rose {
        presence::show_hidden(room, occupant, out);
    }
}
