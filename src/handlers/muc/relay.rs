//! Requests from one occupant to another, and the ping to oneself (XEP-0410).
//!
//! A request is passed on under an id of the room's; by that the answer finds back, to the very session that has asked. A room
//! remembers some such requests for some time; who waits for an answer that cannot come any more is told so. A vCard is the
//! account's, so the room fetches it itself (PROTOCOL MU-38).

use std::collections::VecDeque;
use std::time::Duration;

use super::message::NOT_INSIDE;
use super::privilege::Act;
use super::room::Room;
use super::{Outcome, Stanza};
use crate::core::parked::Waiting;
use crate::handlers::prelude::*;
use crate::jid::FullJid;

/// Requests under way that a room remembers.
const REQUESTS_MAX: usize = 256;
/// For how long, as others are made meanwhile.
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// Requests under way, oldest first.
#[derive(Default)]
pub(super) struct Relayed(VecDeque<Asked>);

struct Asked {
    /// The id under which it was passed on.
    id: String,
    asker: FullJid,
    /// As the asker wrote them.
    asker_id: Box<str>,
    to: Box<str>,
    /// Who answers.
    receiver: FullJid,
    /// When it was passed on.
    at: Duration,
}

/// A request to an occupant, or an answer to one.
#[allow(clippy::too_many_arguments)]
pub(super) fn on_iq(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    conn: ConnId,
    stanza: &Stanza<'_>,
    root: &Element<'_>,
    nick: &str,
    out: &mut Outputs,
) -> Outcome {
    if matches!(stanza.type_.as_deref(), Some("result" | "error")) {
        answer(core, room, stanza, root, out);
        return Ok(());
    }
    let Some(payload) = root.only_child() else { return Ok(()) };
    let Some(asker) = room.occupant_of(conn) else {
        // Section 6.6.
        let disco = matches!(payload.ns(), ns::DISCO_INFO | ns::DISCO_ITEMS);
        return Err(if disco { StanzaError::BAD_REQUEST.into() } else { NOT_INSIDE.into() });
    };
    if payload.is("ping", ns::PING) && *asker.nick == *nick {
        out.pong(conn, &*stanza.parked());
        return Ok(());
    }
    let receiver = room.nick_holder(nick).and_then(|key| room.occupant(key)).ok_or(StanzaError::ITEM_NOT_FOUND)?;
    if *asker.nick != *nick && !Act::Whisper.is_allowed(asker.role, room.config()) {
        return Err(StanzaError::FORBIDDEN.into());
    }
    if payload.is("vCard", ns::VCARD) && stanza.type_.as_deref() == Some("get") {
        let request = StoreRequest::DocumentGet { user: receiver.user.clone(), key: DocumentKey::Vcard };
        show_card(core, conn, stanza.parked(), request, out);
        return Ok(());
    }
    let Some(session) = receiver.sessions.last() else { return Ok(()) };
    let asked = Asked {
        id: core.ids.next_id(),
        asker: stanza.from.clone(),
        asker_id: stanza.id.as_deref().unwrap_or_default().into(),
        to: stanza.to_written.as_ref().into(),
        receiver: session.jid.clone(),
        at: now.mono,
    };
    out.wire.stanza(session.conn, |buf| {
        let mut w = Writer::new(buf);
        w.open("iq", ns::CLIENT).attr_escaped("from", &asker.from).attr_escaped("to", &session.to);
        w.attr("type", stanza.type_.as_deref().unwrap_or_default()).attr("id", &asked.id);
        w.raw(&standalone(&payload));
    });
    core.press(conn, session.conn, out);
    let requests = &mut room.relayed.0;
    requests.push_back(asked);
    let is_late = |asked: &Asked| asked.at + ANSWER_TIME < now.mono;
    while requests.front().is_some_and(is_late)
        && let Some(late) = requests.pop_front()
    {
        late.give_up(core, StanzaError::REMOTE_SERVER_TIMEOUT, out);
    }
    if requests.len() > REQUESTS_MAX
        && let Some(oldest) = requests.pop_front()
    {
        oldest.give_up(core, StanzaError::RESOURCE_CONSTRAINT.text("Too many requests wait for an answer."), out);
    }
    Ok(())
}

impl Asked {
    /// There will be no answer.
    fn give_up(&self, core: &Core, error: StanzaError, out: &mut Outputs) {
        if let Some(asker) = core.session_of(self.asker.as_str()) {
            out.bounce(asker, "iq", Some(&self.asker_id), Some(&self.to), error);
        }
    }
}

/// A session is no longer in the room: it answers nothing any more, and waits for nothing.
pub(super) fn on_gone(core: &Core, room: &mut Room, session: &FullJid, out: &mut Outputs) {
    room.relayed.0.retain(|asked| {
        if asked.receiver == *session {
            asked.give_up(core, StanzaError::ITEM_NOT_FOUND.text("Who was asked has left the room."), out);
        }
        asked.receiver != *session && asked.asker != *session
    });
}

fn standalone(element: &Element<'_>) -> Vec<u8> {
    let mut xml = Vec::with_capacity(element.source().len() + 64);
    element.write_standalone(ns::CLIENT, &mut xml);
    xml
}

fn answer(core: &Core, room: &mut Room, stanza: &Stanza<'_>, root: &Element<'_>, out: &mut Outputs) {
    let id = root.attr("id").unwrap_or_default();
    let place = room.relayed.0.iter().position(|asked| asked.id == id && asked.receiver == stanza.from);
    let Some(asked) = place.and_then(|place| room.relayed.0.remove(place)) else { return };
    let Some(asker) = core.session_of(asked.asker.as_str()) else { return };
    out.wire.stanza(asker, |buf| {
        let mut w = Writer::new(buf);
        w.open("iq", ns::CLIENT).attr_escaped("from", &asked.to).attr_escaped("id", &asked.asker_id);
        w.attr("to", &asked.asker).attr("type", stanza.type_.as_deref().unwrap_or_default());
        for child in root.children() {
            w.raw(&standalone(&child));
        }
    });
}

/// Answers a request for a vCard with what the store has.
pub(super) fn show_card(core: &mut Core, conn: ConnId, iq: Box<ParkedIq>, request: StoreRequest, out: &mut Outputs) {
    let then = Box::new(move |_: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Ok(Stored::Document(Some(card))) => out.reply(conn, &*iq, |w| {
            w.raw(&card);
        }),
        Ok(Stored::Document(None)) => out.reply(conn, &*iq, |w| {
            w.empty("vCard", ns::VCARD);
        }),
        Ok(_) => out.reply_error(conn, &*iq, StanzaError::INTERNAL_SERVER_ERROR),
        Err(error) => out.reply_error(conn, &*iq, error.into()),
    });
    core.ask(request, Waiting::Detached { conn, then }, out);
}
