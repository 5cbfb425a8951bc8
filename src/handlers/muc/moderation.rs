//! XEP-0424 and XEP-0425: lines are taken back by who has said them, or by a moderator.
//!
//! What is taken back is no longer shown to who comes later; in its place a tombstone is stored.

use super::history::{self, Said};
use super::message::NOT_INSIDE;
use super::privilege::Act;
use super::room::{Occupant, Room};
use super::{Change, Outcome, Refusal, Request, commit, visit};
use crate::core::UtcTime;
use crate::core::archive::{ArchiveFilter, ArchiveId, ArchivePaging};
use crate::core::parked::Waiting;
use crate::core::rooms::Line;
use crate::handlers::prelude::*;
use crate::xml::Tree;

/// A request of XEP-0425, or of its version 0.2, which clients in use still send.
pub(super) fn moderate(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    request: &Request<'_>,
    out: &mut Outputs,
) -> Outcome {
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
    let id = ArchiveId::parse(wanted).ok_or(StanzaError::ITEM_NOT_FOUND)?;
    if room.saving {
        return Err(Refusal::Busy);
    }
    let iq = request.stanza.parked();
    if let Some(line) = room.history.find(id).cloned() {
        take_back(core, now, request.conn, room, &line, reason.as_deref(), iq, out);
        return Ok(());
    }
    if !room.archives() {
        return Err(StanzaError::ITEM_NOT_FOUND.into());
    }
    // It was said so long ago that it is only in the archive.
    let key = room.key;
    let then = Box::new(move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        let line = match reply {
            Ok(Stored::ArchivePage(page)) => page.messages.into_iter().next().map(|(id, xml)| Line { id, xml }),
            Ok(_) => None,
            Err(error) => return out.reply_error(conn, &*iq, error.into()),
        };
        let line = line.filter(|line| Said::of(line).is_some_and(|said| !said.is_tombstone));
        let Some(line) = line else { return out.reply_error(conn, &*iq, StanzaError::ITEM_NOT_FOUND) };
        visit(core, key, |core, room| take_back(core, now, conn, room, &line, reason.as_deref(), iq, out));
    });
    core.ask(one_line(room, id), Waiting::Detached { conn: request.conn, then }, out);
    Ok(())
}

/// Reads one line from the room's archive.
fn one_line(room: &Room, id: ArchiveId) -> StoreRequest {
    let filter = ArchiveFilter { ids: Some(vec![id]), ..ArchiveFilter::default() };
    let paging =
        ArchivePaging { max: 1, bytes_max: usize::MAX, after: None, before: None, backwards: false, flip: false };
    StoreRequest::ArchivePage { user: room.record.archive(&room.jid), filter, paging }
}

#[allow(clippy::too_many_arguments)]
fn take_back(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    room: &mut Room,
    line: &Line,
    reason: Option<&str>,
    iq: Box<ParkedIq>,
    out: &mut Outputs,
) {
    let Some(moderator) = room.occupant_of(conn) else { return out.reply_error(conn, &*iq, NOT_INSIDE) };
    let id = core.ids.next_id();
    let by = (moderator, reason);
    let tombstone = tombstone_of(line, now.utc, &id, |w| write_moderated(by, w));
    let notice_id = core.shared.mam.next(now.utc, &mut core.ids);
    let told = notice(room, by, line.id, &id, notice_id);
    let then = move |core: &mut Core,
                     _: Now,
                     conn: ConnId,
                     room: &mut Room,
                     result: Result<(), StanzaError>,
                     out: &mut Outputs| {
        match result {
            Ok(()) => {
                out.reply_empty(conn, &*iq);
                room.send_all("message", &told, out);
                let line = Line { id: notice_id, xml: [b"<message", &*told].concat() };
                keep_notice(core, room, line, out);
            }
            Err(error) => out.reply_error(conn, &*iq, error),
        }
    };
    commit(core, now, conn, room, Change::Line(tombstone), then, out);
}

/// Who was not here is told later that something was taken back.
fn keep_notice(core: &mut Core, room: &mut Room, line: Line, out: &mut Outputs) {
    room.history.push(line.clone(), &core.limits);
    history::keep_quietly(core, room, room.jid.clone().into(), line, out);
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
fn notice(room: &Room, by: (&Occupant, Option<&str>), wanted: ArchiveId, id: &str, stanza_id: ArchiveId) -> Vec<u8> {
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
    conn: ConnId,
    root: &Element<'_>,
    by: &str,
    out: &mut Outputs,
) {
    let wanted = root.child("retract", ns::RETRACT).and_then(|retract| ArchiveId::parse(retract.attr("id")?));
    let Some(wanted) = wanted else { return };
    let (by, id) = (by.to_owned(), root.attr("id").unwrap_or_default().to_owned());
    let archive = room.record.archive(&room.jid);
    let is_own = move |line: &Line| Said::of(line).is_some_and(|said| !said.is_tombstone && said.by == by);
    match room.history.find(wanted) {
        Some(line) if is_own(line) => {
            let tombstone = tombstone_of(line, now.utc, &id, |_| {});
            room.history.forget(wanted);
            if room.archives() {
                core.ask(StoreRequest::RoomRewrite { archive, line: tombstone }, Waiting::Line { sender: None }, out);
            }
        }
        Some(_) => {}
        None if room.archives() => {
            let then = Box::new(move |core: &mut Core, now: Now, _: ConnId, reply: StoreReply, out: &mut Outputs| {
                let Ok(Stored::ArchivePage(page)) = reply else { return };
                let line = page.messages.into_iter().next().map(|(id, xml)| Line { id, xml });
                if let Some(line) = line.filter(is_own) {
                    let line = tombstone_of(&line, now.utc, &id, |_| {});
                    core.ask(StoreRequest::RoomRewrite { archive, line }, Waiting::Line { sender: None }, out);
                }
            });
            core.ask(one_line(room, wanted), Waiting::Detached { conn, then }, out);
        }
        None => {}
    }
}

/// The line without what it said.
fn tombstone_of(line: &Line, at: UtcTime, retraction: &str, write: impl Fn(&mut Writer<'_>)) -> Line {
    let text = String::from_utf8_lossy(&line.xml);
    let mut xml = Vec::with_capacity(256);
    if let Ok(tree) = Tree::parse(&text, ns::CLIENT) {
        let root = tree.root();
        let by = root.child("occupant-id", ns::OCCUPANT_ID).and_then(|id| id.attr("id"));
        let mut w = Writer::new(&mut xml);
        w.open("message", ns::CLIENT).attr_opt("from", root.attr("from")).attr("type", "groupchat");
        w.attr_opt("id", root.attr("id"));
        w.open("occupant-id", ns::OCCUPANT_ID).attr_opt("id", by).close();
        w.open("retracted", ns::RETRACT)
            .attr_opt("id", (!retraction.is_empty()).then_some(retraction))
            .attr("stamp", at);
        write(&mut w);
    }
    Line { id: line.id, xml }
}
