//! Section 6: what the service is, which rooms there are, what a room is.

use super::room::Room;
use super::{Outcome, Request, Stanza};
use crate::core::parked::Waiting;
use crate::core::rooms::RoomItem;
use crate::core::router::ParkedIq;
use crate::handlers::{mam, prelude::*};
use crate::jid::BareJid;
use crate::xml::{Kind, Tree};

/// Rooms in one answer, where no fewer are asked for.
const PAGE_MAX: usize = 200;
const SERVICE_NAME: &str = "Group chat";

const SERVICE_FEATURES: [&str; 7] =
    [ns::DISCO_INFO, ns::DISCO_ITEMS, ns::RSM, ns::MUC, ns::MUC_STABLE_ID, ns::PING, ns::VCARD];
const ROOM_FEATURES: [&str; 16] = [
    ns::DISCO_INFO,
    ns::DISCO_ITEMS,
    ns::MUC,
    ns::MUC_REGISTER,
    ns::MUC_REQUEST,
    ns::MUC_SELF_PING,
    ns::MUC_STABLE_ID,
    ns::MODERATE_0,
    ns::MODERATE,
    ns::OCCUPANT_ID,
    ns::PING,
    ns::REGISTER,
    ns::RETRACT,
    ns::RETRACT_TOMBSTONE,
    ns::STANZA_ID,
    ns::VCARD,
];

/// The service in its host's list of items.
pub(in crate::handlers) fn write_service_item(rooms: &str, w: &mut Writer<'_>) {
    w.open("item", ns::DISCO_ITEMS).attr("jid", rooms).attr("name", SERVICE_NAME).close();
}

/// A stanza to the service itself.
pub(super) fn on_service(core: &mut Core, conn: ConnId, stanza: Stanza<'_>, out: &mut Outputs) {
    let tree = Tree::spliced(&stanza.xml);
    let root = tree.root();
    let payload = match (stanza.kind, stanza.type_.as_deref(), root.only_child()) {
        (Kind::Presence, ..) => return,
        (Kind::Iq, Some("get"), Some(payload)) if stanza.to.is_bare() => payload,
        _ => return stanza.refuse(conn, StanzaError::SERVICE_UNAVAILABLE, out),
    };
    let iq = stanza.parked();
    match (payload.name(), payload.ns()) {
        ("query", ns::DISCO_INFO | ns::DISCO_ITEMS) if payload.attr("node").is_some() => {
            stanza.refuse(conn, StanzaError::ITEM_NOT_FOUND, out);
        }
        ("query", ns::DISCO_INFO) => out.reply(conn, &*iq, |w| {
            w.open("query", ns::DISCO_INFO);
            w.open("identity", ns::DISCO_INFO).attr("category", "conference").attr("type", "text");
            w.attr("name", SERVICE_NAME).close();
            for feature in SERVICE_FEATURES {
                w.open("feature", ns::DISCO_INFO).attr("var", feature).close();
            }
        }),
        ("query", ns::DISCO_ITEMS) => list_rooms(core, conn, &stanza, iq, &payload, out),
        ("ping", ns::PING) => out.pong(conn, &*iq),
        ("vCard", ns::VCARD) => out.reply(conn, &*iq, |w| {
            w.open("vCard", ns::VCARD).text_element("FN", SERVICE_NAME);
        }),
        _ => stanza.refuse(conn, StanzaError::SERVICE_UNAVAILABLE, out),
    }
}

/// Section 6.3: the public rooms, page by page where that is asked for (XEP-0059).
fn list_rooms(
    core: &mut Core,
    conn: ConnId,
    stanza: &Stanza<'_>,
    iq: Box<ParkedIq>,
    query: &Element<'_>,
    out: &mut Outputs,
) {
    let set = query.child("set", ns::RSM);
    let text = |name| set.as_ref().and_then(|set| set.child(name, ns::RSM)).map(|child| child.text().into_owned());
    let asked: Option<usize> = text("max").and_then(|max| max.trim().parse().ok());
    let paged = set.is_some();
    let max = asked.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let after = text("after").filter(|after| !after.is_empty());
    let after = match after.as_deref().map(BareJid::parse) {
        None => None,
        Some(Ok(after)) => Some(after),
        Some(Err(_)) => return stanza.refuse(conn, StanzaError::ITEM_NOT_FOUND, out),
    };
    if !core.store_has_room() {
        return stanza.refuse(conn, StanzaError::RESOURCE_CONSTRAINT.text("The server is busy."), out);
    }
    let domain = stanza.to.domain().to_owned();
    let request =
        StoreRequest::RoomList { domain: domain.clone(), after: after.clone(), max: max + 1, public_only: true };
    let then = Box::new(move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        let mut rooms = match reply {
            Ok(Stored::Rooms(rooms)) => rooms,
            Ok(_) => return out.reply_error(conn, &*iq, StanzaError::INTERNAL_SERVER_ERROR),
            Err(error) => return out.reply_error(conn, &*iq, error.into()),
        };
        add_unstored(core, &domain, after.as_ref(), true, &mut rooms);
        rooms.truncate(max);
        out.reply(conn, &*iq, |w| write_rooms(core, &rooms, paged, w));
    });
    core.ask(request, Waiting::Detached { conn, then }, out);
}

/// Rooms that are only in memory, in their places.
pub(super) fn add_unstored(
    core: &Core,
    domain: &str,
    after: Option<&BareJid>,
    public_only: bool,
    rooms: &mut Vec<RoomItem>,
) {
    let in_use = core.shared.muc.slab.iter().filter_map(|(_, room)| room.as_deref());
    let unstored = in_use.filter(|room| !room.stored && (!public_only || !room.locked && room.config().public));
    let unstored = unstored.filter(|room| room.jid.domain() == domain);
    let behind = |room: &&Room| after.is_none_or(|after| room.jid.local() > after.local());
    rooms.extend(unstored.filter(behind).map(|room| RoomItem {
        jid: room.jid.clone(),
        name: room.config().name.clone(),
        public: room.config().public,
    }));
    rooms.sort_unstable_by(|a, b| a.jid.local().cmp(&b.jid.local()));
}

fn write_rooms(core: &Core, rooms: &[RoomItem], paged: bool, w: &mut Writer<'_>) {
    w.open("query", ns::DISCO_ITEMS);
    for room in rooms {
        let name = if room.name.is_empty() { room.jid.local().unwrap_or_default() } else { &room.name };
        let in_use = core.shared.muc.find(room.jid.as_str()).and_then(|key| core.shared.muc.slab.get(key));
        let occupants = in_use.and_then(Option::as_deref).map_or(0, Room::len);
        w.open("item", ns::DISCO_ITEMS).attr("jid", &room.jid);
        w.attr("name", format_args!("{name} ({occupants})")).close();
    }
    if let (true, Some(first), Some(last)) = (paged, rooms.first(), rooms.last()) {
        w.open("set", ns::RSM).text_element("first", &first.jid).text_element("last", &last.jid).close();
    } else if paged {
        w.empty("set", ns::RSM);
    }
}

/// Section 6.4.
pub(super) fn room_info(_: &mut Core, _: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    match request.payload.attr("node") {
        None => {}
        Some("x-roomuser-item") => return reserved_nick(room, request, out),
        Some(_) => return Err(StanzaError::ITEM_NOT_FOUND.into()),
    }
    out.reply(request.conn, &*request.stanza.parked(), |w| {
        let config = room.config();
        let name = if config.name.is_empty() { room.jid.local().unwrap_or_default() } else { &config.name };
        w.open("query", ns::DISCO_INFO);
        w.open("identity", ns::DISCO_INFO)
            .attr("category", "conference")
            .attr("type", "text")
            .attr("name", name)
            .close();
        for feature in ROOM_FEATURES {
            w.open("feature", ns::DISCO_INFO).attr("var", feature).close();
        }
        for feature in mam::FEATURES.into_iter().filter(|_| room.archives()) {
            w.open("feature", ns::DISCO_INFO).attr("var", feature).close();
        }
        let either = |on, yes, no| if on { yes } else { no };
        for feature in [
            either(config.members_only, "muc_membersonly", "muc_open"),
            either(config.persistent, "muc_persistent", "muc_temporary"),
            either(config.public, "muc_public", "muc_hidden"),
            either(config.moderated, "muc_moderated", "muc_unmoderated"),
            either(config.non_anonymous, "muc_nonanonymous", "muc_semianonymous"),
            either(config.password.is_empty(), "muc_unsecured", "muc_passwordprotected"),
        ] {
            w.open("feature", ns::DISCO_INFO).attr("var", feature).close();
        }
        write_room_form(room, w);
    });
    Ok(())
}

fn write_room_form(room: &Room, w: &mut Writer<'_>) {
    let config = room.config();
    let yes_no = |on| if on { "1" } else { "0" };
    let occupants = room.len().to_string();
    let history = config.history.to_string();
    w.open("x", ns::DATA_FORMS).attr("type", "result");
    for (var, kind, label, value) in [
        ("FORM_TYPE", "hidden", "", ns::MUC_ROOMINFO),
        ("muc#roominfo_description", "text-single", "Description", &config.description),
        ("muc#roominfo_occupants", "text-single", "Number of occupants", &occupants),
        ("muc#roominfo_lang", "text-single", "Language", &config.lang),
        ("muc#roominfo_subject", "text-single", "Subject", if config.public { &room.record.subject.text } else { "" }),
        ("muc#roominfo_changesubject", "boolean", "Occupants may change the subject", yes_no(config.change_subject)),
        ("muc#roominfo_avatarhash", "text-multi", "Hash of the picture", &room.record.avatar),
        ("muc#maxhistoryfetch", "text-single", "Lines shown to who enters", &history),
    ] {
        if value.is_empty() {
            continue;
        }
        w.open("field", ns::DATA_FORMS).attr("var", var).attr("type", kind);
        w.attr_opt("label", (!label.is_empty()).then_some(label)).text_element("value", value).close();
    }
    w.close();
}

/// Section 7.12: the nick that is kept for who asks.
fn reserved_nick(room: &Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    let member = room.record.members.get(request.stanza.from.bare());
    let nick = member.map(|member| member.nick.as_str()).filter(|nick| !nick.is_empty());
    out.reply(request.conn, &*request.stanza.parked(), |w| {
        w.open("query", ns::DISCO_INFO).attr("node", "x-roomuser-item");
        if let Some(nick) = nick {
            w.open("identity", ns::DISCO_INFO).attr("category", "conference").attr("type", "text").attr("name", nick);
        }
    });
    Ok(())
}

/// Section 6.5: who is in a room is for everybody only if the room is.
pub(super) fn room_items(_: &mut Core, _: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    if request.payload.attr("node").is_some() {
        return Err(StanzaError::ITEM_NOT_FOUND.into());
    }
    let shown = room.config().public || room.session_holder(request.conn).is_some();
    out.reply(request.conn, &*request.stanza.parked(), |w| {
        w.open("query", ns::DISCO_ITEMS);
        for (_, occupant) in room.occupants().filter(|(_, occupant)| shown && occupant.seen) {
            w.open("item", ns::DISCO_ITEMS).attr_escaped("jid", &occupant.from).close();
        }
    });
    Ok(())
}
