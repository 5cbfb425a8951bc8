//! Section 7.8.2: invitations by way of the room. Direct ones (XEP-0249) pass it by.

use super::message::NOT_INSIDE;
use super::privilege::Act;
use super::room::Room;
use super::{Change, Outcome, Refusal, Stanza, commit};
use crate::core::rooms::Affiliation;
use crate::handlers::message;
use crate::handlers::prelude::*;
use crate::jid::{BareJid, Jid, JidRef};

/// Invitations in one message.
const INVITATIONS_MAX: usize = 32;

/// Who invites, as it is told to who is invited: by address only where addresses are no secret.
pub(super) fn inviter(room: &Room, user: &BareJid, nick: Option<&str>) -> String {
    match nick {
        Some(nick) if !room.config().non_anonymous => format!("{}/{nick}", room.jid),
        _ => user.as_str().to_owned(),
    }
}

struct Invitation {
    user: BareJid,
    reason: String,
}

/// `<invite/>`s of an occupant. In a members-only room they make members.
pub(super) fn invite(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    conn: ConnId,
    stanza: &Stanza<'_>,
    x: &Element<'_>,
    out: &mut Outputs,
) -> Outcome {
    let occupant = room.occupant_of(conn).ok_or(NOT_INSIDE)?;
    let config = room.config();
    let admits = occupant.affiliation >= Affiliation::Admin
        || (occupant.affiliation == Affiliation::Member && config.member_invites);
    if !Act::Invite.is_allowed(occupant.role, config) || (config.members_only && !admits) {
        return Err(StanzaError::FORBIDDEN.text("You may not invite others into this room.").into());
    }
    let by = inviter(room, &occupant.user, Some(&occupant.nick));
    let invitations: Vec<Invitation> = x
        .children()
        .filter(|child| child.is("invite", ns::MUC_USER))
        .take(INVITATIONS_MAX)
        .map(|invite| Invitation::parse(&invite))
        .collect::<Result<_, _>>()?;
    if invitations.iter().any(|one| room.record.affiliation(one.user.as_str()) == Affiliation::Outcast) {
        return Err(StanzaError::FORBIDDEN.text("An account that you invite is banned.").into());
    }
    let mut record = Box::new(room.record.clone());
    if config.members_only {
        for user in invitations.iter().map(|one| &one.user) {
            let affiliation = record.affiliation(user.as_str()).max(Affiliation::Member);
            record.set_affiliation(user, affiliation);
        }
    }
    let (id, to) = (stanza.id.as_deref().map(str::to_owned), stanza.to_written.to_string());
    let then = move |core: &mut Core,
                     now: Now,
                     conn: ConnId,
                     room: &mut Room,
                     result: Result<(), StanzaError>,
                     out: &mut Outputs| {
        match result {
            Ok(()) => {
                for one in &invitations {
                    send(core, now, room, &by, &one.user, &one.reason, out);
                }
            }
            Err(error) => out.bounce(conn, "message", id.as_deref(), Some(&to), error),
        }
    };
    if *record == room.record {
        then(core, now, conn, room, Ok(()), out);
    } else if record.members.len() > core.limits.room_members_max {
        return Err(StanzaError::RESOURCE_CONSTRAINT.text("The room has too many members.").into());
    } else if room.saving {
        return Err(Refusal::Busy);
    } else {
        commit(core, now, conn, room, Change::Save(record), then, out);
    }
    Ok(())
}

impl Invitation {
    fn parse(invite: &Element<'_>) -> Result<Invitation, StanzaError> {
        let to = invite.attr("to").ok_or(StanzaError::BAD_REQUEST)?;
        let user = JidRef::parse(to).map_err(|_| StanzaError::JID_MALFORMED)?.to_bare();
        if user.local().is_none() {
            return Err(StanzaError::ITEM_NOT_FOUND);
        }
        let reason = invite.child("reason", ns::MUC_USER).map(|reason| reason.text().into_owned()).unwrap_or_default();
        Ok(Invitation { user, reason })
    }
}

/// Invites an account.
pub(super) fn send(core: &mut Core, now: Now, room: &Room, by: &str, user: &BareJid, reason: &str, out: &mut Outputs) {
    let password = room.config().password.clone();
    deliver(core, now, room, user, out, |w| {
        w.open("invite", ns::MUC_USER).attr("from", by);
        if !reason.is_empty() {
            w.text_element("reason", reason);
        }
        w.close();
        if !password.is_empty() {
            w.text_element("password", &password);
        }
    });
}

/// A message of the room's own to an account, unless that has blocked the room or one in it.
fn deliver(
    core: &mut Core,
    now: Now,
    room: &Room,
    user: &BareJid,
    out: &mut Outputs,
    write: impl FnOnce(&mut Writer<'_>),
) {
    let (Ok(to), Ok(from)) = (JidRef::parse(user.as_str()), JidRef::parse(room.jid.as_str())) else { return };
    if core.accounts.find(user.as_str()).is_some_and(|account| account.per.blocking.blocks(&from)) {
        return;
    }
    let id = core.ids.next_id();
    let mut stanza = Vec::with_capacity(256);
    let mut w = Writer::new(&mut stanza);
    w.open("message", ns::CLIENT).attr("from", &room.jid).attr("to", user).attr("id", &id);
    w.open("x", ns::MUC_USER);
    write(&mut w);
    drop(w);
    message::deliver_own(core, now, Jid::from(room.jid.clone()), &to, &stanza, out);
}

/// `<decline/>` of who was invited, to somebody in the room or with an affiliation to it.
pub(super) fn decline(
    core: &mut Core,
    now: Now,
    room: &Room,
    stanza: &Stanza<'_>,
    decline: &Element<'_>,
    out: &mut Outputs,
) -> Outcome {
    let to = decline.attr("to").ok_or(StanzaError::BAD_REQUEST)?;
    let to = JidRef::parse(to).map_err(|_| StanzaError::JID_MALFORMED)?;
    let inviter = match to.resource() {
        Some(nick) if to.bare() == room.jid.as_str() => {
            room.nick_holder(nick).and_then(|key| room.occupant(key)).map(|occupant| occupant.user.clone())
        }
        _ => Some(to.to_bare()),
    };
    let known = |user: &BareJid| {
        let inside = room.occupants().any(|(_, occupant)| occupant.user == *user);
        inside || room.record.affiliation(user.as_str()) >= Affiliation::Member
    };
    let inviter = inviter.filter(known).ok_or(StanzaError::ITEM_NOT_FOUND)?;
    let from = stanza.from.to_bare();
    let reason = decline.child("reason", ns::MUC_USER).map(|reason| reason.text().into_owned());
    deliver(core, now, room, &inviter, out, |w| {
        w.open("decline", ns::MUC_USER).attr("from", &from);
        if let Some(reason) = reason.filter(|reason| !reason.is_empty()) {
            w.text_element("reason", reason);
        }
        w.close();
    });
    Ok(())
}
