//! XEP-0313 for rooms: what was said in one, for whoever may enter it.
//!
//! `with` is the address of an occupant, room and nick. Where addresses are no secret, a line that was said in a room where they
//! were none either tells that of who has said it.

use super::history::without_address;
use super::room::Room;
use super::{Outcome, Request};
use crate::core::parked::Waiting;
use crate::core::rooms::{Affiliation, Role};
use crate::handlers::{mam, prelude::*};

/// Whoever may enter may read; where a password is asked for, members and who is in.
fn check_reader(room: &Room, request: &Request<'_>) -> Result<(), StanzaError> {
    if !room.archives() {
        return Err(StanzaError::SERVICE_UNAVAILABLE.text("This room does not keep an archive."));
    }
    let affiliation = room.record.affiliation(request.stanza.from.bare());
    let config = room.config();
    let inside = room.session_holder(request.conn).is_some();
    let closed = config.members_only || !(config.password.is_empty() || inside);
    if affiliation == Affiliation::Outcast || (closed && affiliation < Affiliation::Member) {
        return Err(StanzaError::FORBIDDEN);
    }
    Ok(())
}

pub(super) fn query(core: &mut Core, _: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    check_reader(room, request)?;
    let (page_max, bytes_max) = (core.limits.archive_page_max, core.limits.output_pause);
    let filter = mam::parse_filter(&request.payload, page_max)?;
    let paging = mam::parse_paging(&request.payload, page_max, bytes_max)?;
    let affiliation = room.record.affiliation(request.stanza.from.bare());
    let role = room.occupant_of(request.conn).map_or(Role::None, |occupant| occupant.role);
    let shows_addresses = room.shows_addresses_to(role) || affiliation >= Affiliation::Admin;
    let mut iq = request.stanza.parked();
    iq.note = request.payload.attr("queryid").map(Into::into);
    let (from, to) = (room.jid.clone(), request.stanza.from.clone());
    let page = StoreRequest::ArchivePage { user: room.record.archive(&room.jid), filter, paging };
    let then = Box::new(move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        let mut page = match reply {
            Ok(Stored::ArchivePage(page)) => page,
            Ok(_) => return out.reply_error(conn, &*iq, StanzaError::INTERNAL_SERVER_ERROR),
            Err(error) => return out.reply_error(conn, &*iq, error.into()),
        };
        if !shows_addresses {
            for (_, stanza) in &mut page.messages {
                *stanza = without_address(stanza).into_owned();
            }
        }
        mam::send_page(conn, from.as_str(), to.as_str(), &iq, &page, out);
        core.press(conn, conn, out);
    });
    core.ask(page, Waiting::Detached { conn: request.conn, then }, out);
    Ok(())
}

pub(super) fn form(_: &mut Core, _: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    check_reader(room, request)?;
    out.reply(request.conn, &*request.stanza.parked(), mam::write_form);
    Ok(())
}

pub(super) fn metadata(core: &mut Core, _: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    check_reader(room, request)?;
    let iq = request.stanza.parked();
    let then = Box::new(move |_: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Ok(Stored::ArchiveBounds(bounds)) => out.reply(conn, &*iq, |w| mam::write_bounds(w, bounds)),
        Ok(_) => out.reply_error(conn, &*iq, StanzaError::INTERNAL_SERVER_ERROR),
        Err(error) => out.reply_error(conn, &*iq, error.into()),
    });
    let request_bounds = StoreRequest::ArchiveBounds { user: room.record.archive(&room.jid) };
    core.ask(request_bounds, Waiting::Detached { conn: request.conn, then }, out);
    Ok(())
}
