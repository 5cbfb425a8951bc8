//! RFC 6120 section 7: resource binding, and the legacy session of RFC 3921.
//!
//! A resource that is bound already is taken over: the old stream gets `conflict` (section 7.7.2.2 leaves the choice; a phone
//! that comes back finds its own dead session in the way). A resource that cannot be prepared is replaced by one of ours.

use super::prelude::*;
use super::{shared_contacts, sm};
use crate::core::effects::AccountRecord;
use crate::core::error::StreamError;
use crate::core::parked::Waiting;
use crate::core::session::Resource;
use crate::core::stream::{Phase, Stream};
use crate::core::timers::Due;
use crate::handlers::StreamPhase;
use crate::jid::{BareJid, FullJid, JidRef};
use crate::xml::{Frame, Kind, Tree};

pub(super) const HANDLER: Handler = Handler {
    name: "bind",
    spec: "RFC 6120 section 7",
    routes: &[
        iq_set(Target::Account, ns::BIND, "bind", refuse),
        iq_set(Target::Host, ns::BIND, "bind", refuse),
        iq_set(Target::Account, ns::SESSION, "session", session),
        iq_set(Target::Host, ns::SESSION, "session", session),
    ],
    stream_features: Some(advertise),
    ..Handler::EMPTY
};

pub(super) const CONFLICT: StreamError =
    StreamError::new("conflict", "Another client has logged in with this resource.");

fn advertise(_: &Core, _: &Stream, phase: StreamPhase, w: &mut Writer<'_>) {
    if phase == StreamPhase::Authed {
        w.empty("bind", ns::BIND);
        w.open("session", ns::SESSION).empty("optional", ns::SESSION).close();
    }
}

/// A second resource on one stream (section 7.6.2.2).
fn refuse(_: &mut Cx<'_>, _: &Iq<'_>) -> Handled {
    Err(StanzaError::NOT_ALLOWED)
}

/// Old clients ask for it and wait for the answer.
fn session(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    cx.out.reply_empty(cx.conn, iq);
    Ok(Done)
}

/// A first-level element of a stream that is authenticated and not bound: nothing but a request to bind is expected.
pub(crate) fn on_frame(core: &mut Core, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
    if frame.kind != Kind::Iq {
        if *frame.ns == *ns::SM {
            return sm::on_element(core, now, conn, frame, out);
        }
        if frame.local == "error" && *frame.ns == *ns::STREAMS {
            return core.close_stream(now, conn, None, out);
        }
        let error = match frame.kind {
            Kind::Other => StreamError::new("unsupported-stanza-type", "This element is not known here."),
            _ => StreamError::new("not-authorized", "Bind a resource before sending stanzas."),
        };
        return core.close_stream(now, conn, Some(error), out);
    }
    let to_us = frame.to.is_none_or(|to| {
        let own = |jid: &JidRef<'_>| jid.is_bare() && core.is_own(conn, jid.as_str());
        JidRef::parse(&crate::xml::attribute_value(to)).is_ok_and(|jid| own(&jid))
    });
    if !to_us {
        let error = StreamError::new("not-authorized", "Bind a resource before sending stanzas.");
        return core.close_stream(now, conn, Some(error), out);
    }
    match Request::parse(frame) {
        Ok(request) => start(core, now, conn, request, out),
        Err(error) => fail(core, now, conn, frame.id, error, out),
    }
}

struct Request {
    id: Box<str>,
    /// As asked for; empty for one of ours.
    resource: Box<str>,
}

impl Request {
    fn parse(frame: &Frame<'_>) -> Result<Request, StanzaError> {
        let id = frame.id.filter(|id| !id.is_empty()).ok_or(StanzaError::BAD_REQUEST)?;
        if frame.children != 1 {
            return Err(StanzaError::BAD_REQUEST);
        }
        let tree = Tree::of(frame);
        let payload = tree.root().only_child().ok_or(StanzaError::BAD_REQUEST)?;
        match (frame.type_, payload.is("bind", ns::BIND)) {
            (Some("set"), true) => {}
            (Some("get" | "set"), false) => return Err(StanzaError::SERVICE_UNAVAILABLE.text("Bind a resource first.")),
            _ => return Err(StanzaError::BAD_REQUEST),
        }
        let resource = payload.child("resource", ns::BIND).map(|resource| resource.text());
        Ok(Request { id: id.into(), resource: resource.as_deref().unwrap_or_default().into() })
    }
}

fn fail(core: &mut Core, now: Now, conn: ConnId, id: Option<&str>, error: StanzaError, out: &mut Outputs) {
    out.bounce(conn, "iq", id, None, error);
    let failures_max = core.limits.bind_failures_max;
    let Some(Stream { phase: Phase::Authed(authed), .. }) = core.streams.get_mut(conn) else { return };
    authed.bind_failures += 1;
    if authed.bind_failures > failures_max {
        let error = StreamError::new("policy-violation", "Too many failed attempts to bind a resource.");
        core.close_stream(now, conn, Some(error), out);
    }
}

fn start(core: &mut Core, now: Now, conn: ConnId, request: Request, out: &mut Outputs) {
    let then =
        Box::new(move |core: &mut Core, now: Now, conn: ConnId, record: Activated, out: &mut Outputs| match record {
            Ok(record) => finish(core, now, conn, &request, record, out),
            Err(error) => fail(core, now, conn, Some(&request.id), error, out),
        });
    activate(core, now, conn, then, out);
}

/// What the store knows of an account that was not in use; of one in use nothing.
pub(super) type Activated = Result<AccountRecord, StanzaError>;
type ThenActivated = Box<dyn FnOnce(&mut Core, Now, ConnId, Activated, &mut Outputs)>;

/// Gets the account of an authenticated stream at hand, for [`bind`] in the same step.
pub(super) fn activate(core: &mut Core, now: Now, conn: ConnId, then: ThenActivated, out: &mut Outputs) {
    let Some(Stream { phase: Phase::Authed(authed), .. }) = core.streams.get(conn) else { return };
    let user = authed.user.clone();
    if !core.make_memory(now, out) {
        let error = StanzaError::RESOURCE_CONSTRAINT.text("The server's memory limit is reached.");
        return then(core, now, conn, Err(error), out);
    }
    if core.accounts.find(user.as_str()).is_some() {
        return then(core, now, conn, Ok(AccountRecord::default()), out);
    }
    // Before the account is read, so that nothing comes between its record and its use.
    if shared_contacts::is_unread(core, &user) {
        let go_on =
            Box::new(
                move |core: &mut Core, now: Now, conn: ConnId, read: Result<(), _>, out: &mut Outputs| match read {
                    Ok(()) => activate(core, now, conn, then, out),
                    Err(error) => then(core, now, conn, Err(StanzaError::from(error)), out),
                },
            );
        return shared_contacts::read(core, conn, &user, go_on, out);
    }
    let owner = user.clone();
    let then = Box::new(move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        if reply.is_ok() {
            // Where somebody else checks passwords this is where we hear of a new one.
            shared_contacts::on_added(core, &owner, out);
        }
        let record = match reply {
            Ok(Stored::Account(record)) => Ok(*record),
            Ok(_) => Err(StanzaError::INTERNAL_SERVER_ERROR),
            Err(error) => Err(error.into()),
        };
        then(core, now, conn, record, out);
    });
    core.ask(StoreRequest::Activate { user }, Waiting::Stream { conn, then }, out);
}

/// The account is at hand, or in use already.
fn finish(core: &mut Core, now: Now, conn: ConnId, request: &Request, record: AccountRecord, out: &mut Outputs) {
    let own = core.ids.next_id();
    let Some(Stream { phase: Phase::Authed(authed), .. }) = core.streams.get(conn) else { return };
    let user = authed.user.clone();
    let asked = (!request.resource.is_empty()).then(|| user.with_resource(&request.resource).ok()).flatten();
    let bound = asked.or_else(|| user.with_resource(&own).ok()).ok_or(StanzaError::INTERNAL_SERVER_ERROR);
    match bound.and_then(|jid| Ok((bind(core, now, conn, &jid, record)?, jid))) {
        Err(error) => fail(core, now, conn, Some(&request.id), error, out),
        Ok((crowd, jid)) => {
            acknowledge(conn, &request.id, &jid, out);
            make_room(core, now, &user, crowd, out);
        }
    }
}

/// Who has to go because of a new session.
pub(super) enum Crowd {
    Nobody,
    /// The session that had its resource.
    Holder(ConnId),
    /// One of those that wait to be resumed.
    Waiting,
}

/// Makes an authenticated stream the session of an address of its user. Whoever has to go for it goes by [`make_room`], when the
/// client has been told.
pub(super) fn bind(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    jid: &FullJid,
    mut record: AccountRecord,
) -> Result<Crowd, StanzaError> {
    let user = jid.to_bare();
    let account = core.accounts.find(user.as_str());
    let holder = account.and_then(|account| account.resource_named(jid.resource())).map(|resource| resource.conn);
    let bound = account.map_or(0, |account| account.resources.len());
    // A session that waits to be resumed makes room.
    let waiting = account.is_some_and(|account| account.resources.iter().any(|resource| resource.conn.is_ghost()));
    let is_full = bound >= core.limits.resources_per_account_max;
    if holder.is_none() && is_full && !waiting {
        return Err(StanzaError::RESOURCE_CONSTRAINT.text("The account has too many sessions."));
    }
    // A message may be on its way into the store since before the account was read.
    record.offline |= core.shared.offline.any(&user);
    core.shared.mam.seen(record.last_archived);
    let id = core.accounts.bind(&user, record, Resource::new(conn, jid.clone()));
    if let Some(stream) = core.streams.get_mut(conn) {
        stream.phase = Phase::Bound(id);
        stream.deadlines.clear(Due::Login);
    }
    core.set_deadline(conn, Due::Idle, now.mono + core.limits.idle_ping);
    Ok(match holder {
        Some(holder) => Crowd::Holder(holder),
        None if is_full => Crowd::Waiting,
        None => Crowd::Nobody,
    })
}

/// Ends the session that has to go.
pub(super) fn make_room(core: &mut Core, now: Now, user: &BareJid, crowd: Crowd, out: &mut Outputs) {
    match crowd {
        Crowd::Nobody => {}
        Crowd::Holder(holder) => core.close_stream(now, holder, Some(CONFLICT), out),
        Crowd::Waiting => {
            let bound = core.accounts.find(user.as_str()).map_or(0, |account| account.resources.len());
            if bound > core.limits.resources_per_account_max {
                sm::evict(core, now, user, out);
            }
        }
    }
}

fn acknowledge(conn: ConnId, id: &str, jid: &FullJid, out: &mut Outputs) {
    out.wire.stanza(conn, |buf| {
        let mut w = Writer::new(buf);
        w.open("iq", ns::CLIENT).attr("type", "result").attr_escaped("id", id);
        w.open("bind", ns::BIND).text_element("jid", jid.as_str());
    });
}

impl Core {
    /// Whether an address is the stream's own host or account.
    fn is_own(&self, conn: ConnId, jid: &str) -> bool {
        let own = match self.streams.get(conn).map(|stream| &stream.phase) {
            Some(Phase::Authed(authed)) => authed.user.as_str() == jid,
            _ => false,
        };
        own || self.host_name(conn) == jid
    }
}
