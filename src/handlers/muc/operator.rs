//! `whinchat room …`: an operator has an owner's rights in every room, without being in it. What is changed is told to those who
//! are in the room as a change by nobody in particular.

use super::admin::settle_affiliation;
use super::room::{End, Notice, Room};
use super::{Change, History, Outcome, Refusal, commit, config, disco, visit};
use crate::core::effects::{Answer, CommandId, StoreError};
use crate::core::parked::Waiting;
use crate::core::rooms::{Affiliation, RoomState};
use crate::handlers::prelude::*;
use crate::jid::BareJid;

/// What is to be done with a room.
pub(crate) enum Order {
    /// To tell what it is and who is in it.
    Show,
    /// To end it.
    Destroy,
    /// To give an account another affiliation.
    Affiliate(BareJid, Affiliation),
}

/// Rooms of a domain's service, those that are not public too.
pub(crate) fn list(
    core: &mut Core,
    id: CommandId,
    domain: &str,
    after: Option<BareJid>,
    max: usize,
    out: &mut Outputs,
) {
    let Some(service) = core.hosts.iter().find(|host| host.name == domain).map(|host| host.rooms.clone()) else {
        return out.answers.push((id, Answer::Invalid(format!("the domain {domain} is not served here"))));
    };
    let request = StoreRequest::RoomList { domain: service.clone(), after: after.clone(), max, public_only: false };
    let then = Box::new(move |core: &mut Core, _: Now, _: ConnId, reply: StoreReply, out: &mut Outputs| {
        let answer = match reply {
            Ok(Stored::Rooms(mut rooms)) => {
                disco::add_unstored(core, &service, after.as_ref(), false, &mut rooms);
                rooms.truncate(max);
                Answer::Rooms(rooms)
            }
            Ok(_) => Answer::Refused(StoreError::Failed),
            Err(error) => Answer::Refused(error),
        };
        out.answers.push((id, answer));
    });
    core.ask(request, Waiting::Detached { conn: ConnId::NOBODY, then }, out);
}

/// Carries out an order; the answer follows.
pub(crate) fn carry_out(core: &mut Core, now: Now, id: CommandId, room: BareJid, order: Order, out: &mut Outputs) {
    if room.local().is_none() || !core.hosts.iter().any(|host| host.rooms == room.domain()) {
        return out.answers.push((id, Answer::Invalid(format!("{room} is not a room of a service here"))));
    }
    match core.shared.muc.find(room.as_str()) {
        Some(key) => on_room(core, now, id, room, key, order, out),
        None => load(core, id, room, order, out),
    }
}

fn load(core: &mut Core, id: CommandId, room: BareJid, order: Order, out: &mut Outputs) {
    let request = StoreRequest::RoomLoad { room: room.clone() };
    let then = Box::new(move |core: &mut Core, now: Now, _: ConnId, reply: StoreReply, out: &mut Outputs| {
        let key = match (core.shared.muc.find(room.as_str()), reply) {
            (Some(key), _) => key,
            (None, Ok(Stored::Room(RoomState::Present(record, lines)))) => {
                let history = History::new(lines, &core.limits);
                core.shared.muc.add(&room, *record, history, true)
            }
            (None, Ok(_)) => return out.answers.push((id, Answer::Refused(StoreError::NotFound))),
            (None, Err(error)) => return out.answers.push((id, Answer::Refused(error))),
        };
        on_room(core, now, id, room, key, order, out);
    });
    core.ask(request, Waiting::Detached { conn: ConnId::NOBODY, then }, out);
}

fn on_room(core: &mut Core, now: Now, id: CommandId, jid: BareJid, key: usize, order: Order, out: &mut Outputs) {
    let outcome = visit(core, key, |core, room| match &order {
        Order::Show => {
            out.answers.push((id, Answer::Room(describe(room))));
            Ok(())
        }
        Order::Destroy => {
            let told = move |_: ConnId, result: Result<(), StanzaError>, out: &mut Outputs| answer(id, result, out);
            config::destroy_room(core, now, ConnId::NOBODY, room, End::default(), told, out)
        }
        Order::Affiliate(user, to) => affiliate(core, now, id, room, user, *to, out),
    });
    match outcome {
        Some(Ok(())) => {}
        Some(Err(Refusal::Error(error))) => answer(id, Err(error), out),
        // A change is on its way: behind it comes the answer to another load.
        Some(Err(Refusal::Busy | Refusal::Early)) => load(core, id, jid, order, out),
        None => out.answers.push((id, Answer::Refused(StoreError::NotFound))),
    }
}

fn answer(id: CommandId, result: Result<(), StanzaError>, out: &mut Outputs) {
    let answer = match result {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Invalid(error.text.unwrap_or(error.condition).to_owned()),
    };
    out.answers.push((id, answer));
}

fn affiliate(
    core: &mut Core,
    now: Now,
    id: CommandId,
    room: &mut Room,
    user: &BareJid,
    to: Affiliation,
    out: &mut Outputs,
) -> Outcome {
    if room.saving {
        return Err(Refusal::Busy);
    }
    let mut record = Box::new(room.record.clone());
    record.set_affiliation(user, to);
    if record.owners() == 0 {
        return Err(StanzaError::CONFLICT.text("A room needs an owner.").into());
    }
    if record.members.len() > core.limits.room_members_max.max(room.record.members.len()) {
        return Err(StanzaError::RESOURCE_CONSTRAINT.text("The room has too many members.").into());
    }
    let user = user.clone();
    let then = move |core: &mut Core,
                     _: Now,
                     _: ConnId,
                     room: &mut Room,
                     result: Result<(), StanzaError>,
                     out: &mut Outputs| {
        if result.is_ok() {
            settle_affiliation(core, room, &user, to, &Notice::default(), out);
        }
        answer(id, result, out);
    };
    commit(core, now, ConnId::NOBODY, room, Change::Save(record), then, out);
    Ok(())
}

/// Names and values for people and scripts.
fn describe(room: &Room) -> Vec<(&'static str, String)> {
    let config = room.config();
    let yes_no = |on: bool| if on { "yes" } else { "no" }.to_owned();
    let mut lines = vec![
        ("name", config.name.clone()),
        ("description", config.description.clone()),
        ("subject", room.record.subject.text.clone()),
        ("created", room.record.created.to_string()),
        ("creator", room.record.creator.to_string()),
        ("persistent", yes_no(config.persistent)),
        ("public", yes_no(config.public)),
        ("members_only", yes_no(config.members_only)),
        ("moderated", yes_no(config.moderated)),
        ("addresses_shown", yes_no(config.non_anonymous)),
        ("password", yes_no(!config.password.is_empty())),
        ("archived", yes_no(room.archives())),
        ("occupants", room.len().to_string()),
    ];
    for affiliation in Affiliation::ALL.into_iter().rev() {
        let members = room.record.members.iter().filter(|(_, member)| member.affiliation == affiliation);
        lines.extend(members.map(|(user, _)| (affiliation.name(), user.to_string())));
    }
    for (_, occupant) in room.occupants() {
        lines.push(("occupant", format!("{} {}", occupant.user, occupant.nick)));
    }
    lines
}
