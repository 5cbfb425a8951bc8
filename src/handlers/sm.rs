//! XEP-0198: Stream Management.
//!
//! What a client is told to have been handled has been handed to its receivers, and what went into the store is durable: while a
//! put of a stanza is outstanding, or the session is parked for one, `h` stays below that stanza, and an answer that had to stay
//! short is repeated when the store has committed.
//!
//! A session whose socket is lost hibernates as a *ghost*: its stream, its resource and its unacknowledged stanzas move to a
//! connection without a socket, where it stays available and its stanzas are kept. A client that resumes takes all that over. When
//! the time is out, or the session is replaced, the ghost ends like any session and its unacknowledged messages are treated as
//! messages to a resource that is not there: other resources, offline storage, or an error to the sender. What it had handled is
//! written down then, and when the server is stopped, for the client that comes back too late.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use super::prelude::*;
use super::{carbons, message, muc, offline, push, sasl2};
use crate::core::effects::ConnOrder;
use crate::core::error::StreamError;
use crate::core::parked::Waiting;
use crate::core::stream::{Phase, Stream};
use crate::core::timers::Due;
use crate::core::{Entry, Mark, UtcTime};
use crate::handlers::StreamPhase;
use crate::jid::{BareJid, FullJid, JidRef};
use crate::xml::{Frame, Tree};

pub(super) const HANDLER: Handler = Handler {
    name: "sm",
    spec: "XEP-0198 1.6.2",
    stream_features: Some(advertise),
    inline: Some(advertise_inline),
    bind2_feature: Some(ns::SM),
    ..Handler::EMPTY
};

const CONFLICT: StreamError = StreamError::new("conflict", "The session goes on on another connection.");

/// A stream with stream management.
pub(crate) struct Session {
    /// By which it can be resumed; empty if it cannot.
    id: Box<str>,
    /// Stanzas received, modulo 2^32.
    received: u32,
    /// Numbers of those that are on their way into the store, oldest first.
    storing: VecDeque<u32>,
    /// The last answer told less than was received.
    short: bool,
    /// Who wants to resume as soon as nothing is on its way into the store, and the `h` it has sent.
    resumer: Option<(ConnId, u32)>,
    /// How long it may be resumed.
    resume: Duration,
    /// When the client was asked what it has handled, if it has not answered.
    asked: Option<Duration>,
}

impl Session {
    /// A stanza was received.
    pub(crate) fn count(&mut self) {
        self.received = self.received.wrapping_add(1);
    }

    /// How many stanzas are handled; the last one is not while the session is parked for it.
    fn handled(&self, is_parked: bool) -> u32 {
        match self.storing.front() {
            Some(number) => number.wrapping_sub(1),
            None => self.received.wrapping_sub(u32::from(is_parked)),
        }
    }
}

/// Sessions that can be resumed, by their id.
#[derive(Default)]
pub(crate) struct Resumable {
    conns: HashMap<Box<str>, ConnId>,
    ghosts: u32,
}

fn advertise(_: &Core, stream: &Stream, phase: StreamPhase, w: &mut Writer<'_>) {
    if phase == StreamPhase::Authed || phase == StreamPhase::Bound && stream.sm.is_none() {
        w.empty("sm", ns::SM);
    }
}

/// A log-in may resume (section 9.2).
fn advertise_inline(_: &Core, _: &Stream, w: &mut Writer<'_>) {
    w.empty("sm", ns::SM);
}

/// An element of stream management, in any phase.
pub(crate) fn on_element(core: &mut Core, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
    let Some(stream) = core.streams.get_mut(conn) else { return };
    match (frame.local, &stream.phase, &stream.sm) {
        ("enable", Phase::Bound(_), None) => enable(core, conn, frame, out),
        ("resume", Phase::Authed(_), None) => resume(core, now, conn, &Resume::parse(&Tree::of(frame).root()), out),
        ("r", Phase::Bound(_), Some(_)) => answer(core, conn, out),
        ("a", Phase::Bound(_), Some(_)) => on_answer(core, now, conn, frame, out),
        ("enable" | "resume", ..) => fail(conn, StanzaError::UNEXPECTED_REQUEST, None, out),
        _ => {
            let error = StreamError::new("policy-violation", "Stream management is not enabled on this stream.");
            core.close_stream(now, conn, Some(error), out);
        }
    }
}

/// `handled` is what the session had handled, if it is over and that is known (section 5).
fn write_failed(w: &mut Writer<'_>, error: StanzaError, handled: Option<u32>) {
    w.open("failed", ns::SM);
    if let Some(h) = handled {
        w.attr("h", h);
    }
    w.empty(error.condition, ns::STANZA_ERRORS).close();
}

fn fail(conn: ConnId, error: StanzaError, handled: Option<u32>, out: &mut Outputs) {
    out.wire.write(conn, |buf| write_failed(&mut Writer::new(buf), error, handled));
}

/// The stream does not get the session that it wants to resume: it is told at once, or with the success of its log-in.
fn refuse(core: &mut Core, now: Now, conn: ConnId, error: StanzaError, handled: Option<u32>, out: &mut Outputs) {
    match sasl2::completion(core, conn) {
        Some(completion) => {
            completion.add(|w| write_failed(w, error, handled));
            sasl2::proceed(core, now, conn, out);
        }
        None => fail(conn, error, handled, out),
    }
}

/// The session that a stream wants is not there. If it is over, the client is told what was handled, and sends only the rest again.
fn refuse_unknown(core: &mut Core, now: Now, conn: ConnId, user: BareJid, id: &str, out: &mut Outputs) {
    if !core.store_has_room() {
        return refuse(core, now, conn, StanzaError::ITEM_NOT_FOUND, None, out);
    }
    let then = Box::new(|core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        let handled = if let Ok(Stored::Handled(handled)) = reply { handled } else { None };
        refuse(core, now, conn, StanzaError::ITEM_NOT_FOUND, handled, out);
    });
    core.ask(StoreRequest::SessionHandled { user, id: id.into() }, Waiting::Stream { conn, then }, out);
}

/// What `<enable/>` asks for.
pub(super) struct Enable {
    resumable: bool,
    max: Option<Duration>,
}

impl Enable {
    pub(super) fn parse(element: &Element<'_>) -> Enable {
        let max = element.attr("max").and_then(|max| max.parse().ok()).map(Duration::from_secs);
        Enable { resumable: matches!(element.attr("resume"), Some("true" | "1")), max }
    }

    /// Begins with a bound stream's stanzas; writes what the client is told. Behind that [`Wire::keep_unacked`] is due.
    ///
    /// [`Wire::keep_unacked`]: crate::core::Wire::keep_unacked
    pub(super) fn begin(&self, core: &mut Core, conn: ConnId, w: &mut Writer<'_>) {
        let resume = self.max.unwrap_or(Duration::MAX).min(core.limits.resume_time);
        let id = if self.resumable { core.ids.next_id() } else { String::new() };
        let Some(stream) = core.streams.get_mut(conn) else { return };
        stream.sm = Some(Box::new(Session {
            id: id.as_str().into(),
            received: 0,
            storing: VecDeque::new(),
            short: false,
            resumer: None,
            resume,
            asked: None,
        }));
        w.open("enabled", ns::SM);
        if self.resumable {
            w.attr("resume", "true").attr("id", &id).attr("max", resume.as_secs());
            core.shared.sm.conns.insert(id.into(), conn);
        }
        w.close();
    }
}

fn enable(core: &mut Core, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
    let wanted = Enable::parse(&Tree::of(frame).root());
    out.wire.write(conn, |buf| wanted.begin(core, conn, &mut Writer::new(buf)));
    // What we send counts from here.
    out.wire.keep_unacked(conn);
}

/// Tells the client what is handled, if stream management is on.
pub(crate) fn answer(core: &mut Core, conn: ConnId, out: &mut Outputs) {
    let Some(stream) = core.streams.get_mut(conn) else { return };
    let Some(sm) = &mut stream.sm else { return };
    let h = sm.handled(stream.hold.parked);
    sm.short = h != sm.received;
    out.wire.write(conn, |buf| {
        Writer::new(buf).open("a", ns::SM).attr("h", h);
    });
}

/// The client ends its stream: it is told what was handled, and will not come back for the session (section 5).
pub(crate) fn on_footer(core: &mut Core, conn: ConnId, out: &mut Outputs) {
    answer(core, conn, out);
    if let Some(sm) = core.streams.get_mut(conn).and_then(|stream| stream.sm.as_mut()) {
        core.shared.sm.conns.remove(&std::mem::take(&mut sm.id));
    }
}

/// The stanza that is being handled goes into the store: it is not handled before it is durable.
/// Returns whether anybody counts; only then [`on_stored`] is due.
pub(super) fn on_storing(core: &mut Core, conn: ConnId) -> bool {
    let sm = core.streams.get_mut(conn).and_then(|stream| stream.sm.as_mut());
    sm.map(|sm| sm.storing.push_back(sm.received)).is_some()
}

/// The oldest stanza on its way into the store is there, or was refused and that was said.
pub(crate) fn on_stored(core: &mut Core, now: Now, conn: ConnId, out: &mut Outputs) {
    if let Some(sm) = core.streams.get_mut(conn).and_then(|stream| stream.sm.as_mut()) {
        sm.storing.pop_front();
        on_handled(core, now, conn, out);
    }
}

/// A stanza may be handled that was not before: one that went into the store, or one that the session was parked for.
pub(crate) fn on_handled(core: &mut Core, now: Now, conn: ConnId, out: &mut Outputs) {
    let Some(stream) = core.streams.get_mut(conn) else { return };
    let Some(sm) = &mut stream.sm else { return };
    let resumer = if sm.storing.is_empty() && !stream.hold.parked { sm.resumer.take() } else { None };
    if sm.short && !conn.is_ghost() {
        answer(core, conn, out);
    }
    if let Some((fresh, h)) = resumer.filter(|(fresh, _)| release(core, *fresh, out)) {
        go_on(core, now, conn, fresh, h, out);
    }
}

/// A stream that waited to resume a session is read again. Returns whether it is still there.
fn release(core: &mut Core, fresh: ConnId, out: &mut Outputs) -> bool {
    let Some(stream) = core.streams.get_mut(fresh) else { return false };
    if !matches!(stream.phase, Phase::Authed(_)) {
        return false;
    }
    stream.hold.parked = false;
    out.conns.push(ConnOrder::Resume(fresh));
    true
}

/// Asks those who were sent stanzas in this step what they have handled.
pub(crate) fn ask(core: &mut Core, now: Now, out: &mut Outputs) {
    while let Some(conn) = out.wire.take_unasked() {
        let due = now.mono + core.limits.ping_answer;
        let Some(stream) = core.streams.get_mut(conn) else { continue };
        let Some(sm) = &mut stream.sm else { continue };
        if conn.is_ghost() || matches!(stream.phase, Phase::Closing) {
            continue;
        }
        sm.asked = Some(now.mono);
        let set = stream.deadlines.at(Due::Acknowledgement).is_some();
        out.wire.write(conn, |buf| {
            Writer::new(buf).empty("r", ns::SM);
        });
        if !set {
            core.set_deadline(conn, Due::Acknowledgement, due);
        }
    }
}

/// A client that does not answer has lost its connection, whatever the socket says.
pub(crate) fn on_unanswered(core: &mut Core, now: Now, conn: ConnId, out: &mut Outputs) {
    let answer_time = core.limits.ping_answer;
    let Some(asked) = core.streams.get(conn).and_then(|stream| stream.sm.as_ref()).and_then(|sm| sm.asked) else {
        return;
    };
    if asked + answer_time > now.mono {
        return core.set_deadline(conn, Due::Acknowledgement, asked + answer_time);
    }
    if hibernate(core, now, conn, out) {
        core.forget_blocked(conn, out);
        out.conns.push(ConnOrder::Abort(conn));
    } else {
        let error = StreamError::new("connection-timeout", "The client did not answer.");
        core.close_stream(now, conn, Some(error), out);
    }
}

fn on_answer(core: &mut Core, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
    let tree = Tree::of(frame);
    let Some(h) = tree.root().attr("h").and_then(|h| h.parse().ok()) else {
        let error = StreamError::new("policy-violation", "An acknowledgement without a number.");
        return core.close_stream(now, conn, Some(error), out);
    };
    if let Some(sm) = core.streams.get_mut(conn).and_then(|stream| stream.sm.as_mut()) {
        sm.asked = None;
    }
    acknowledge(core, now, conn, conn, h, out);
}

/// Takes `h` for the session of `conn`; returns whether it can be, and ends the stream of `told` if it cannot.
fn acknowledge(core: &mut Core, now: Now, conn: ConnId, told: ConnId, h: u32, out: &mut Outputs) -> bool {
    if out.wire.acknowledge(conn, h) {
        offline::on_acknowledged(core, conn, out);
        muc::on_taken(core, conn);
        return true;
    }
    let sent = out.wire.unacked(conn).map_or(0, |unacked| unacked.sent());
    let error = StreamError {
        application: Some(("handled-count-too-high", ns::SM)),
        numbers: Some([("h", h), ("send-count", sent)]),
        ..StreamError::new("undefined-condition", "More stanzas were acknowledged than were sent.")
    };
    core.close_stream(now, told, Some(error), out);
    false
}

/// A connection is lost: its session waits as a ghost, if it can be resumed. Returns whether it does.
pub(crate) fn hibernate(core: &mut Core, now: Now, conn: ConnId, out: &mut Outputs) -> bool {
    let Some(stream) = core.streams.get(conn) else { return false };
    let (Phase::Bound(_), Some(sm)) = (&stream.phase, &stream.sm) else { return false };
    if sm.id.is_empty() || sm.resume.is_zero() || conn.is_ghost() {
        return false;
    }
    let resume = sm.resume;
    core.shared.sm.ghosts = core.shared.sm.ghosts.wrapping_add(1);
    let ghost = ConnId::ghost(core.streams.free_ghost(), core.shared.sm.ghosts);
    out.wire.open(ghost);
    move_session(core, conn, ghost, out);
    if let Some(stream) = core.streams.get_mut(ghost) {
        stream.hold.rate = false;
        stream.hold.output = false;
        stream.hold.store = false;
        stream.deadlines.clear(Due::Idle);
        stream.deadlines.clear(Due::Acknowledgement);
    }
    core.set_deadline(ghost, Due::Resumption, now.mono + resume);
    if let Some(user) = core.account_id(ghost).map(|account| core.accounts.get(account).jid.clone()) {
        offline::on_lost(core, &user, ghost, out);
        // What the lost connection may not have brought.
        let waits = |(_, xml): (_, &[u8])| {
            let tree = std::str::from_utf8(xml).ok().and_then(|xml| Tree::parse(xml, ns::CLIENT).ok());
            tree.is_some_and(|tree| tree.root().name() == "message" && push::is_worth(&tree.root()))
        };
        if out.wire.unacked(ghost).is_some_and(|unacked| unacked.iter().any(waits)) {
            push::on_waiting(core, now, &user, out);
        }
    }
    true
}

/// Everything that names the session's connection names another one from now on.
fn move_session(core: &mut Core, from: ConnId, to: ConnId, out: &mut Outputs) {
    let Some(stream) = core.streams.take(from) else { return };
    if let (Phase::Bound(account), Some(sm)) = (&stream.phase, &stream.sm) {
        core.accounts.move_resource(*account, from, to);
        core.shared.sm.conns.insert(sm.id.clone(), to);
        offline::move_session(core.accounts.get_mut(*account), from, to);
    }
    core.streams.insert(to, stream);
    core.parked.move_session(from, to);
    muc::move_session(core, from, to);
    out.wire.hand_over(from, to);
}

/// What `<resume/>` asks for.
pub(super) struct Resume {
    id: Box<str>,
    h: Option<u32>,
}

impl Resume {
    pub(super) fn parse(element: &Element<'_>) -> Resume {
        let id = element.attr("previd").unwrap_or_default().into();
        Resume { id, h: element.attr("h").and_then(|h| h.parse().ok()) }
    }
}

/// An authenticated stream wants a session back.
pub(super) fn resume(core: &mut Core, now: Now, conn: ConnId, wanted: &Resume, out: &mut Outputs) {
    let id = &*wanted.id;
    let Some(h) = wanted.h else { return refuse(core, now, conn, StanzaError::BAD_REQUEST, None, out) };
    let user = match core.streams.get(conn).map(|stream| &stream.phase) {
        Some(Phase::Authed(authed)) => authed.user.clone(),
        _ => return,
    };
    let found = core.shared.sm.conns.get(id).copied();
    // Somebody else's session is none that we would know of.
    let found = found.filter(|old| core.account_id(*old).is_some_and(|account| core.accounts.get(account).jid == user));
    let Some(old) = found else { return refuse_unknown(core, now, conn, user, id, out) };
    let ghost = match old.is_ghost() {
        true => old,
        false => match displace(core, now, old, id, out) {
            Some(ghost) => ghost,
            None => return refuse(core, now, conn, StanzaError::ITEM_NOT_FOUND, None, out),
        },
    };
    // A number that stayed short now would make the client send again what is on its way into the store.
    let Some(stream) = core.streams.get_mut(ghost) else { return };
    let is_parked = stream.hold.parked;
    let earlier = match &mut stream.sm {
        Some(sm) if is_parked || !sm.storing.is_empty() => sm.resumer.replace((conn, h)),
        _ => return go_on(core, now, ghost, conn, h, out),
    };
    if let Some(stream) = core.streams.get_mut(conn) {
        stream.hold.parked = true;
    }
    if let Some((earlier, _)) = earlier.filter(|(earlier, _)| release(core, *earlier, out)) {
        refuse(core, now, earlier, StanzaError::ITEM_NOT_FOUND, None, out);
    }
}

/// The session of `ghost` goes on over `conn`.
fn go_on(core: &mut Core, now: Now, ghost: ConnId, conn: ConnId, h: u32, out: &mut Outputs) {
    if acknowledge(core, now, ghost, conn, h, out) {
        take_over(core, now, ghost, conn, out);
    }
}

/// The session's old connection still looks alive: it is told and closed, the session does not end (section 5).
fn displace(core: &mut Core, now: Now, old: ConnId, id: &str, out: &mut Outputs) -> Option<ConnId> {
    if !hibernate(core, now, old, out) {
        return None;
    }
    core.forget_blocked(old, out);
    out.wire.write(old, |buf| {
        CONFLICT.write(buf);
        buf.extend_from_slice(b"</stream:stream>");
    });
    out.conns.push(ConnOrder::Close(old));
    core.shared.sm.conns.get(id).copied()
}

fn take_over(core: &mut Core, now: Now, ghost: ConnId, conn: ConnId, out: &mut Outputs) {
    let completion = sasl2::completion(core, conn).map(std::mem::take);
    let jid = core.account_id(ghost).and_then(|account| Some(core.accounts.get(account).resource(ghost)?.jid.clone()));
    let Some(fresh) = core.streams.take(conn) else { return };
    let Some(stream) = core.streams.get_mut(ghost) else { return };
    stream.adopt(*fresh);
    let parked = stream.hold.parked;
    let Some(sm) = &mut stream.sm else { return };
    sm.asked = None;
    let h = sm.handled(parked);
    sm.short = h != sm.received;
    let write = |w: &mut Writer<'_>| {
        w.open("resumed", ns::SM).attr("previd", &sm.id).attr("h", h).close();
    };
    match (completion, &jid) {
        // No features follow: the stream is what it was (section 9.2.2).
        (Some(mut completion), Some(jid)) => {
            completion.add(write);
            completion.write_success(conn, jid.as_str(), out);
        }
        _ => out.wire.write(conn, |buf| write(&mut Writer::new(buf))),
    }
    move_session(core, ghost, conn, out);
    out.wire.close(ghost);
    core.set_deadline(conn, Due::Idle, now.mono + core.limits.idle_ping);
    if !parked {
        out.conns.push(ConnOrder::Resume(conn));
    }
    offline::start_again(core, conn, out);
}

/// Nobody came back for the session in time.
pub(crate) fn on_not_resumed(core: &mut Core, now: Now, conn: ConnId, out: &mut Outputs) {
    core.close_stream(now, conn, None, out);
}

/// Ends the oldest session of an account that waits to be resumed; returns whether there was one.
pub(super) fn evict(core: &mut Core, now: Now, user: &BareJid, out: &mut Outputs) {
    let resources = core.accounts.find(user.as_str()).map(|account| account.resources.as_slice()).unwrap_or_default();
    if let Some(ghost) = resources.iter().map(|resource| resource.conn).find(|conn| conn.is_ghost()) {
        core.close_stream(now, ghost, None, out);
    }
}

/// What a session that ends leaves: its stanzas that were not acknowledged, oldest first.
pub(crate) struct Leftovers {
    /// Whose they were.
    jid: FullJid,
    stanzas: Vec<(Sent, Vec<u8>)>,
    /// Who waited to resume it.
    resumer: Option<ConnId>,
}

/// When a stanza was sent.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) at: UtcTime,
    /// In which step of the core.
    pub(super) step: u64,
    pub(super) mark: Mark,
}

/// Takes the session's unacknowledged stanzas. Those that offline storage still has need nothing more.
pub(crate) fn take_leftovers(core: &mut Core, conn: ConnId, jid: FullJid, out: &mut Outputs) -> Leftovers {
    let stream = core.streams.get_mut(conn);
    let is_parked = stream.as_ref().is_some_and(|stream| stream.hold.parked);
    let sm = stream.and_then(|stream| stream.sm.take());
    if let Some(sm) = sm.as_ref().filter(|sm| !sm.id.is_empty()) {
        core.shared.sm.conns.remove(&sm.id);
        if core.store_has_room() {
            let ended =
                StoreRequest::SessionEnded { user: jid.to_bare(), id: sm.id.clone(), handled: sm.handled(is_parked) };
            core.ask(ended, Waiting::Nobody, out);
        }
    }
    let resumer = sm.and_then(|sm| sm.resumer).map(|(fresh, _)| fresh);
    let unacked = out.wire.stop_keeping(conn);
    let entries = unacked.iter().flat_map(|unacked| unacked.iter()).filter(|(entry, _)| entry.mark != Mark::Stored);
    let stanzas = entries.map(|(entry, xml)| {
        let Entry { at, step, mark, .. } = entry;
        (Sent { at, step, mark }, xml.to_vec())
    });
    Leftovers { jid, stanzas: stanzas.collect(), resumer }
}

/// Treats leftovers as stanzas to a resource that is not there; the resource must be unbound by now.
pub(crate) fn settle_leftovers(core: &mut Core, now: Now, leftovers: Leftovers, out: &mut Outputs) {
    for (sent, xml) in leftovers.stanzas {
        let Ok(text) = std::str::from_utf8(&xml) else { continue };
        let Ok(tree) = Tree::parse(text, ns::CLIENT) else { continue };
        let root = tree.root();
        match (root.name(), root.attr("type")) {
            ("message", _) if sent.mark == Mark::Sole => deliver_copied(core, sent, &root, &xml, out),
            ("message", kind) => message::deliver_again(core, &leftovers.jid, sent, kind, &root, &xml, out),
            ("iq", Some("get" | "set")) => refuse_iq(core, &root, out),
            _ => {}
        }
    }
    if let Some(fresh) = leftovers.resumer.filter(|fresh| release(core, *fresh, out)) {
        refuse(core, now, fresh, StanzaError::ITEM_NOT_FOUND, None, out);
    }
}

/// Treats what a copy holds as what the resource that it was for has left.
fn deliver_copied(core: &mut Core, sent: Sent, copy: &Element<'_>, xml: &[u8], out: &mut Outputs) {
    const HEAD: &[u8] = b"<message";
    let Some(message) = carbons::received(copy) else { return };
    let Some(Ok(Some(gone))) = message.attr("to").map(|to| JidRef::parse(to).map(|to| to.to_full())) else { return };
    // As it was, without the namespace that a copy has to name.
    let inner =
        xml.get(message.range()).and_then(|inner| inner.strip_prefix(HEAD)?.strip_prefix(b" xmlns='jabber:client'"));
    let Some(inner) = inner else { return };
    message::deliver_again(core, &gone, sent, message.attr("type"), &message, &[HEAD, inner].concat(), out);
}

/// Its sender must not wait for an answer that will not come.
fn refuse_iq(core: &Core, iq: &Element<'_>, out: &mut Outputs) {
    if let Some(sender) = iq.attr("from").and_then(|from| core.session_of(from)) {
        out.wire.stanza(sender, |buf| {
            let mut w = Writer::new(buf);
            w.open("iq", ns::CLIENT).attr("type", "error");
            w.attr_opt("id", iq.attr("id")).attr_opt("from", iq.attr("to"));
            StanzaError::SERVICE_UNAVAILABLE.write(&mut w);
        });
    }
}
