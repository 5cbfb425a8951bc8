//! XEP-0424 and XEP-0425: lines are taken back by who has said them, or by a moderator.
//!
//! What is taken back is no longer shown to who comes later; in its place a tombstone is stored.

use super::message::NOT_INSIDE;
use super::privilege::Act;
use super::room::{Occupant, Room};
use super::{Change, Outcome, Refusal, Request, commit};
use crate::core::UtcTime;
use crate::core::parked::Waiting;
use crate::core::rooms::Line;
use crate::handlers::prelude::*;
use crate::xml::Tree;

/// A request of XEP-0425, or of its version 0.2, which clients in use still send.
pub(super) fn moderate(core: &mut Core, now: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    let moderator = room.occupant_of(request.conn).ok_or(NOT_INSIDE)?;
    let payload = &request.payload;
    let wanted = payload.attr("id").ok_or(StanzaError::BAD_REQUEST)?;
    let old = payload.child("moderate", ns::MODERATE_0);
    let retracts = match &old {
        Some(moderate) => moderate.child("retract", ns::RETRACT_0).is_some(),
        None => payload.child("retract", ns::RETRACT).is_some(),
    };
    if !retracts {
        return Err(StanzaError::BAD_REQUEST.into());
    }
    if !Act::Moderate.is_allowed(moderator.role, room.config()) {
        return Err(StanzaError::FORBIDDEN.text("Only moderators take back what others have said.").into());
    }
    let reason = old.as_ref().unwrap_or(payload).children().find(|child| child.name() == "reason");
    let reason = reason.map(|reason| reason.text().into_owned()).filter(|reason| !reason.is_empty());
    let line = room.history.find(wanted).ok_or(StanzaError::ITEM_NOT_FOUND)?;
    if room.saving {
        return Err(Refusal::Busy);
    }
    let id = core.ids.next_id();
    let by = (moderator, reason.as_deref());
    let tombstone = tombstone_of(line, now.utc, &id, |w| write_moderated(by, w));
    let told = notice(room, by, wanted, &id, &core.ids.next_id());
    let iq = request.stanza.parked();
    let then = move |_: &mut Core, _: Now, conn: ConnId, room: &mut Room, result: Result<(), StanzaError>, out: &mut Outputs| {
        match result {
            Ok(()) => {
                out.reply_empty(conn, &*iq);
                room.send_all("message", &told, out);
            }
            Err(error) => out.reply_error(conn, &*iq, error),
        }
    };
    commit(core, now, request.conn, room, Change::Line(tombstone), then, out);
    Ok(())
}

/// Who has moderated, and why.
fn write_moderated((moderator, reason): (&Occupant, Option<&str>), w: &mut Writer<'_>) {
    w.open("moderated", ns::MODERATE).attr_escaped("by", &moderator.from);
    w.open("occupant-id", ns::OCCUPANT_ID).attr("id", &moderator.id).close().close();
    if let Some(reason) = reason {
        w.text_element("reason", reason);
    }
}

/// What everybody is told, behind `<message to='…'`: as it is said today, and as version 0.2 had it.
fn notice(room: &Room, by: (&Occupant, Option<&str>), wanted: &str, id: &str, stanza_id: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(640);
    let mut w = Writer::new(&mut message);
    w.open("message", ns::CLIENT).attr("from", &room.jid).attr("id", id).attr("type", "groupchat");
    w.open("retract", ns::RETRACT).attr("id", wanted);
    write_moderated(by, &mut w);
    w.close();
    w.open("apply-to", ns::FASTEN).attr("id", wanted);
    w.open("moderated", ns::MODERATE_0).attr_escaped("by", &by.0.from).empty("retract", ns::RETRACT_0);
    if let Some(reason) = by.1 {
        w.text_element("reason", reason);
    }
    w.close().close();
    w.open("stanza-id", ns::STANZA_ID).attr("by", &room.jid).attr("id", stanza_id).close();
    drop(w);
    message.strip_prefix(b"<message").unwrap_or_default().to_vec()
}

/// A line in which its author takes another one back: that is no longer shown (PROTOCOL MU-42).
pub(super) fn on_retraction(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    root: &Element<'_>,
    by: &str,
    out: &mut Outputs,
) {
    let Some(wanted) = root.child("retract", ns::RETRACT).and_then(|retract| retract.attr("id")) else { return };
    let Some(line) = room.history.find(wanted).filter(|line| line.by == by) else { return };
    let tombstone = tombstone_of(line, now.utc, root.attr("id").unwrap_or_default(), |_| {});
    if room.stored && room.config().archived {
        let request = StoreRequest::RoomLine { room: room.jid.clone(), line: tombstone.clone() };
        // What its author waits for is the line that says so, which is stored behind this.
        core.ask(request, Waiting::Line { sender: None }, out);
    }
    room.history.replace(tombstone);
}

/// The line without what it said. Nobody has said a tombstone, by which it is known.
fn tombstone_of(line: &Line, at: UtcTime, retraction: &str, write: impl Fn(&mut Writer<'_>)) -> Line {
    let text = String::from_utf8_lossy(&line.xml);
    let mut xml = Vec::with_capacity(256);
    if let Ok(tree) = Tree::parse(&text, ns::CLIENT) {
        let root = tree.root();
        let mut w = Writer::new(&mut xml);
        w.open("message", ns::CLIENT).attr_opt("from", root.attr("from")).attr("type", "groupchat");
        w.attr_opt("id", root.attr("id"));
        w.open("occupant-id", ns::OCCUPANT_ID).attr("id", &line.by).close();
        w.open("retracted", ns::RETRACT).attr_opt("id", (!retraction.is_empty()).then_some(retraction)).attr("stamp", at);
        write(&mut w);
    }
    Line { by: String::new(), xml, ..line.clone() }
}
