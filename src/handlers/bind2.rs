//! XEP-0386: Bind 2: a resource is bound with the success of a log-in by XEP-0388, and the session begins with what it needs.
//!
//! The client is told which messages its archive has at the instant of binding: it finds earlier ones there, later ones come to
//! it. The store is asked for that before; if anything is archived for the account meanwhile, it is asked again. Messages that
//! were kept for the account and are in the archive are not delivered a second time (section 4.2).
//!
//! Each session has a resource of its own, made of the client's tag and what nobody can guess. An earlier session of the same
//! client ends.

use super::bind::{self, Activated};
use super::prelude::*;
use super::{HANDLERS, mam, sm};
use crate::auth::ClientId;
use crate::core::archive::ArchiveId;
use crate::core::parked::Waiting;
use crate::core::stream::{Phase, Stream};
use crate::core::tokens::ClientPlace;
use crate::jid::{BareJid, FullJid};

pub(super) const HANDLER: Handler =
    Handler { name: "bind2", spec: "XEP-0386 1.1.0", inline: Some(advertise), ..Handler::EMPTY };

/// How often the archive is looked at again. Beyond it a message may be behind the end that is told and come live as well.
const LOOKS_MAX: u32 = 4;

/// Per bound resource.
#[derive(Default)]
pub(crate) struct State {
    /// Whose it is, for the next session of the same client.
    client: Option<Box<ClientId>>,
}

/// Streams that are about to bind, and whether something was archived for their account since they asked.
#[derive(Default)]
pub(crate) struct Binding(Vec<(ConnId, BareJid, bool)>);

impl Binding {
    /// A message is on its way into the archives of these accounts.
    pub(crate) fn on_archiving(&mut self, from: &str, to: &str) {
        for (_, user, is_late) in &mut self.0 {
            *is_late |= user.as_str() == from || user.as_str() == to;
        }
    }
}

/// What `<bind/>` asks for.
pub(crate) struct Request {
    tag: Option<Box<str>>,
    carbons: bool,
    inactive: bool,
    sm: Option<sm::Enable>,
}

impl Request {
    pub(super) fn parse(element: &Element<'_>) -> Request {
        let has = |name, ns| element.child(name, ns).is_some();
        let tag = element.child("tag", ns::BIND2).map(|tag| tag.text());
        Request {
            tag: tag.filter(|tag| !tag.is_empty()).map(|tag| (*tag).into()),
            carbons: has("enable", ns::CARBONS),
            inactive: has("inactive", ns::CSI),
            sm: element.child("enable", ns::SM).map(|enable| sm::Enable::parse(&enable)),
        }
    }
}

fn advertise(_: &Core, _: &Stream, w: &mut Writer<'_>) {
    w.open("bind", ns::BIND2).open("inline", ns::BIND2);
    for feature in HANDLERS.iter().filter_map(|handler| handler.bind2_feature) {
        w.open("feature", ns::BIND2).attr("var", feature).close();
    }
    w.close().close();
}

/// Binds a stream whose log-in has succeeded, then tells it so.
pub(super) fn start(core: &mut Core, now: Now, conn: ConnId, request: Request, out: &mut Outputs) {
    look(core, now, conn, request, LOOKS_MAX, out);
}

/// Asks for the state of the archive, if there is one, and for the account.
fn look(core: &mut Core, now: Now, conn: ConnId, request: Request, looks: u32, out: &mut Outputs) {
    let Some(Stream { phase: Phase::Authed(authed), .. }) = core.streams.get(conn) else { return };
    let user = authed.user.clone();
    if !mam::is_archiving(core, user.domain()) {
        return activate(core, now, conn, request, None, 0, out);
    }
    let streams = &core.streams;
    core.shared.bind2.0.retain(|(other, ..)| *other != conn && streams.get(*other).is_some());
    core.shared.bind2.0.push((conn, user.clone(), false));
    let then = Box::new(move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        let bounds = match reply {
            Ok(Stored::ArchiveBounds(bounds)) => Some(bounds),
            // The client is told nothing of its archive, and asks.
            Ok(_) | Err(_) => None,
        };
        activate(core, now, conn, request, bounds, looks - 1, out);
    });
    core.ask(StoreRequest::ArchiveBounds { user }, Waiting::Stream { conn, then }, out);
}

/// The first and the last message, if there is any; `None` where that is not known.
type Archive = Option<Option<(ArchiveId, ArchiveId)>>;

fn activate(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    request: Request,
    archive: Archive,
    looks: u32,
    out: &mut Outputs,
) {
    let then = Box::new(move |core: &mut Core, now: Now, conn: ConnId, record: Activated, out: &mut Outputs| {
        let place = core.shared.bind2.0.iter().position(|(other, ..)| *other == conn);
        let is_late = place.is_some_and(|place| core.shared.bind2.0.swap_remove(place).2);
        match is_late && looks > 0 {
            true => look(core, now, conn, request, looks, out),
            false => finish(core, now, conn, &request, archive, record, out),
        }
    });
    bind::activate(core, now, conn, then, out);
}

/// Everything is known: the session begins here.
fn finish(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    request: &Request,
    archive: Archive,
    record: Activated,
    out: &mut Outputs,
) {
    let id = core.ids.next_id();
    let Some(Stream { phase: Phase::Authed(authed), .. }) = core.streams.get_mut(conn) else { return };
    let Some(mut completion) = authed.completion.take() else { return };
    let user = authed.user.clone();
    // A tag that cannot be part of a resource is left out.
    let tagged = request.tag.as_ref().and_then(|tag| user.with_resource(&format!("{tag}/{id}")).ok());
    let jid = tagged.map_or_else(|| user.with_resource(&id), Ok).map_err(|_| StanzaError::INTERNAL_SERVER_ERROR);
    let bound = jid.and_then(|jid| Ok((bind::bind(core, now, conn, &jid, record?)?, jid)));
    let (crowd, jid) = match bound {
        Ok(bound) => bound,
        Err(error) => {
            // No answer is defined for that: the log-in has succeeded, and the stream can still be bound as ever.
            log::debug!("no resource was bound for {user}: {}", error.condition);
            completion.write_success(conn, user.as_str(), out);
            return core.send_features(conn, out);
        }
    };
    // What an earlier session of the client leaves goes into the store as far as the archive does not have it.
    end_earlier(core, now, conn, &jid, completion.client, out);
    bind::make_room(core, now, &user, crowd, out);
    if archive.is_some() {
        clear_offline(core, &user, out);
    }
    completion.add(|w| {
        w.open("bound", ns::BIND2);
        if let Some(bounds) = archive {
            mam::write_bounds(w, bounds);
        }
        if let Some(enable) = &request.sm {
            enable.begin(core, conn, w);
        }
        w.close();
    });
    completion.write_success(conn, jid.as_str(), out);
    // What we send counts from here.
    if request.sm.is_some() {
        out.wire.keep_unacked(conn);
    }
    core.send_features(conn, out);
    out.wire.set_active(conn, !request.inactive);
    let steps = core.steps;
    let resource = core.accounts.find_mut(user.as_str()).and_then(|account| account.resource_mut(conn));
    if let Some(resource) = resource.filter(|_| request.carbons) {
        resource.per.carbons.begin(steps);
    }
}

/// Ends the earlier sessions of a client.
fn end_earlier(core: &mut Core, now: Now, conn: ConnId, jid: &FullJid, client: Option<ClientId>, out: &mut Outputs) {
    let (Some(client), Some(account)) = (client, core.accounts.find_mut(jid.bare())) else { return };
    let is_same = |state: &State| state.client.as_deref() == Some(&client);
    let resources = account.resources.iter();
    let earlier: Vec<ConnId> =
        resources.filter(|resource| is_same(&resource.per.bind2)).map(|resource| resource.conn).collect();
    if let Some(resource) = account.resource_mut(conn) {
        resource.per.bind2.client = Some(Box::new(client));
    }
    for earlier in earlier {
        core.close_stream(now, earlier, Some(bind::CONFLICT), out);
    }
}

/// The sessions of some of an account's clients.
pub(super) fn sessions_of(core: &Core, user: &BareJid, clients: &[ClientPlace]) -> Vec<ConnId> {
    let Some(account) = core.accounts.find(user.as_str()) else { return Vec::new() };
    let is_theirs = |state: &State| {
        state.client.as_deref().is_some_and(|client| clients.contains(&core.token_secret.place(user, client)))
    };
    account.resources.iter().filter(|own| is_theirs(&own.per.bind2)).map(|own| own.conn).collect()
}

/// What was kept for the account and is in its archive need not come; another client that is getting it goes on.
fn clear_offline(core: &mut Core, user: &BareJid, out: &mut Outputs) {
    let is_draining = core.accounts.find(user.as_str()).is_some_and(|account| account.per.offline.is_draining());
    if !is_draining && core.store_has_room() {
        core.ask(StoreRequest::OfflineClear { user: user.clone() }, Waiting::Nobody, out);
    }
}
