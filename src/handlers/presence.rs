//! RFC 6121 section 4: presence.
//!
//! The last presence of each available resource is kept in the form in which it is sent; a broadcast copies it and only puts the
//! receiver's `to` in. Who may see whom is `subscription`'s business.
//!
//! A local contact's presence is read directly where the standard speaks of probes between servers. Who is not subscribed gets
//! silence for a probe, as does who probes an account that does not exist (section 4.3.2 allows it).

use std::collections::VecDeque;
use std::num::NonZeroU64;

use super::blocking::{BLOCKED_BY_SENDER, may_reach, on_speaking_terms};
use super::prelude::*;
use super::{avatar, muc, offline, pep, shared_contacts, sm, subscription};
use crate::core::parked::Waiting;
use crate::core::roster::Event;
use crate::core::router::{Addressee, NO_FEDERATION};
use crate::core::session::{Account, AccountId, Resource};
use crate::core::stream::Phase;
use crate::jid::{BareJid, Jid, JidRef};
use crate::xml::writer::escape_attr;
use crate::xml::{Frame, Tree, attribute_value};

pub(super) const HANDLER: Handler = Handler { name: "presence", spec: "RFC 6121 section 4", ..Handler::EMPTY };

/// Every kept presence begins so; the receiver's `to` goes behind it.
const HEAD: &[u8] = b"<presence";

/// Per bound resource.
#[derive(Default)]
pub(crate) struct State {
    available: Option<Available>,
    /// Who got presence directly and must be told of the end (section 4.6).
    directed: Vec<Jid>,
    shifts: Shifts,
}

impl State {
    /// What it holds, roughly, in bytes.
    pub(crate) fn held(&self) -> usize {
        let available = self.available.as_ref().map_or(0, |available| available.xml.len());
        available + self.directed.iter().map(|jid| 48 + jid.as_str().len()).sum::<usize>()
    }
}

/// In which steps of the core a resource took messages.
#[derive(Default)]
struct Shifts {
    since: Option<NonZeroU64>,
    /// Behind a pointer, for most resources have none.
    past: Option<Box<Past>>,
}

/// The last shifts that are over, oldest first, with the steps in which they began and ended.
#[derive(Default)]
struct Past(VecDeque<(u64, u64)>);

impl Shifts {
    /// Beyond it the oldest is forgotten: what it had got may come again.
    const PAST_MAX: usize = 16;

    fn note(&mut self, takes_messages: bool, step: u64) {
        match (self.since, takes_messages) {
            (None, true) => self.since = NonZeroU64::new(step),
            (Some(since), false) => {
                let Past(past) = self.past.get_or_insert_default().as_mut();
                if past.len() == Self::PAST_MAX {
                    past.pop_front();
                }
                past.push_back((since.get(), step));
                self.since = None;
            }
            _ => {}
        }
    }

    fn cover(&self, step: u64) -> bool {
        let mut past = self.past.iter().flat_map(|past| &past.0);
        self.since.is_some_and(|since| since.get() <= step) || past.any(|(from, to)| (*from..=*to).contains(&step))
    }
}

/// The last presence of an available resource.
struct Available {
    priority: i8,
    /// Without `to`, from the full JID.
    xml: Box<[u8]>,
}

impl State {
    /// Whether initial presence was sent and not taken back.
    pub(crate) fn is_available(&self) -> bool {
        self.available.is_some()
    }

    /// Available for messages to the bare JID.
    pub(crate) fn takes_messages(&self) -> bool {
        self.available.as_ref().is_some_and(|available| available.priority >= 0)
    }

    /// Whether it took messages in that step.
    pub(super) fn took_messages(&self, step: u64) -> bool {
        self.shifts.cover(step)
    }
}

/// Whether any resource of the account is available.
pub(super) fn is_available(account: &Account) -> bool {
    account.resources.iter().any(|resource| resource.per.presence.is_available())
}

/// A presence stanza of a bound session.
pub(crate) fn route(core: &mut Core, now: Now, conn: ConnId, account: AccountId, frame: &Frame<'_>, out: &mut Outputs) {
    let to = frame.to.map(attribute_value);
    let to = match to.as_deref().map(JidRef::parse) {
        None => None,
        Some(Ok(to)) => Some(to),
        Some(Err(_)) if frame.type_ == Some("error") => return,
        Some(Err(_)) => {
            let host = core.host_name(conn).to_owned();
            return out.bounce(conn, "presence", frame.id, Some(&host), StanzaError::JID_MALFORMED);
        }
    };
    if let Some(Addressee::Rooms(to)) = to.clone().map(|to| core.addressee(to)) {
        return muc::on_stanza(core, now, conn, account, frame, &to, out);
    }
    match (frame.type_, to) {
        (None, None) => broadcast_available(core, conn, account, frame, out),
        (Some("unavailable"), None) => broadcast_unavailable(core, now, conn, account, frame, out),
        (Some("error" | "probe"), None) => {}
        (_, None) => out.bounce(conn, "presence", frame.id, None, StanzaError::BAD_REQUEST),
        (None | Some("unavailable"), Some(to)) => direct(core, conn, account, frame, to, out),
        (Some("error"), Some(to)) => pass_error(core, conn, account, frame, &to, out),
        (Some("probe"), Some(to)) => answer_probe(core, conn, account, frame, &to, out),
        (Some(kind), Some(to)) => match Event::from_name(kind) {
            Some(event) => subscription::route(core, now, conn, account, frame, event, &to, out),
            None => out.bounce(conn, "presence", frame.id, frame.to, StanzaError::BAD_REQUEST),
        },
    }
}

/// `<priority/>`, clamped to what the standard has; anything else than a number is 0 (section 4.7.2.3).
fn priority(frame: &Frame<'_>) -> i8 {
    if !frame.xml.contains("priority") {
        return 0;
    }
    let tree = Tree::of(frame);
    let text = tree.root().child("priority", ns::CLIENT).map(|priority| priority.text());
    let number: i64 = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    number.clamp(-128, 127) as i8
}

/// The stanza as others get it, without `to`.
fn routed(core: &Core, conn: ConnId, account: AccountId, frame: &Frame<'_>) -> Vec<u8> {
    let from = core.accounts.get(account).resource(conn).map_or("", |resource| &*resource.from);
    let lang = core.streams.get(conn).and_then(|stream| stream.lang.as_deref());
    let mut xml = Vec::with_capacity(frame.xml.len() + from.len() + 32);
    frame.splice_into(from, lang, &mut xml);
    if frame.type_.is_none() {
        avatar::stamp(core, account, &mut xml);
    }
    xml
}

/// A kept presence on its way to one receiver.
fn write_to(buf: &mut Vec<u8>, xml: &[u8], to: &str) {
    let rest = xml.strip_prefix(HEAD).unwrap_or_default();
    buf.extend_from_slice(HEAD);
    buf.extend_from_slice(b" to='");
    escape_attr(to, buf);
    buf.push(b'\'');
    buf.extend_from_slice(rest);
}

fn unavailable_from(resource: &Resource) -> Vec<u8> {
    let mut xml = Vec::with_capacity(64);
    xml.extend_from_slice(HEAD);
    xml.extend_from_slice(b" from='");
    xml.extend_from_slice(resource.from.as_bytes());
    xml.extend_from_slice(b"' type='unavailable'/>");
    xml
}

/// To every available resource of `to`, if that account is in use and neither it nor `owner` has blocked the other.
fn send_to_available(core: &Core, owner: &Account, to: &str, xml: &[u8], out: &mut Outputs) {
    let Some(account) = core.accounts.find(to).filter(|account| on_speaking_terms(owner, account)) else { return };
    let own = account.jid == owner.jid;
    if !own && account.per.blocking.blocks_prepared(&attribute_value(sender_of(xml))) {
        return;
    }
    for resource in available(account) {
        if !own && owner.per.blocking.blocks_prepared(resource.jid.as_str()) {
            continue;
        }
        out.wire.presence(resource.conn, sender_of(xml), |buf| write_to(buf, xml, to));
    }
}

/// The sender of a presence in its kept form, which begins with it; escaped.
fn sender_of(xml: &[u8]) -> &str {
    let from = xml.strip_prefix(HEAD).and_then(|rest| rest.strip_prefix(b" from='")).unwrap_or_default();
    let end = memchr::memchr(b'\'', from).unwrap_or(0);
    from.get(..end).and_then(|from| std::str::from_utf8(from).ok()).unwrap_or_default()
}

/// To all who see the account, and to its own available resources.
fn send_to_subscribers(core: &Core, account: &Account, xml: &[u8], out: &mut Outputs) {
    for contact in shared_contacts::watchers(core, account) {
        send_to_available(core, account, contact.as_str(), xml, out);
    }
    send_to_available(core, account, account.jid.as_str(), xml, out);
}

fn broadcast_available(core: &mut Core, conn: ConnId, account: AccountId, frame: &Frame<'_>, out: &mut Outputs) {
    let xml = routed(core, conn, account, frame);
    if xml.len() > core.limits.presence_bytes_max {
        let error = StanzaError::POLICY_VIOLATION.text("The presence is too big.");
        return out.bounce(conn, "presence", frame.id, None, error);
    }
    let priority = priority(frame);
    let Some(resource) = core.accounts.get_mut(account).resource_mut(conn) else { return };
    let state = &mut resource.per.presence;
    let initial = state.available.is_none();
    let takes_messages = state.takes_messages();
    state.available = Some(Available { priority, xml: xml.as_slice().into() });
    state.shifts.note(priority >= 0, core.steps);

    let id = account;
    let account = core.accounts.get(id);
    send_to_subscribers(core, account, &xml, out);
    if initial {
        tell_newcomer(core, account, conn, out);
    }
    let jid = account.jid.clone();
    pep::on_presence(core, conn, id, frame, out);
    if !takes_messages && priority >= 0 {
        offline::start(core, &jid, conn, out);
    }
    press_receivers(core, conn, &jid, out);
}

/// What a resource learns when it becomes available: its siblings' and its contacts' presence, and who waits for an answer.
fn tell_newcomer(core: &Core, account: &Account, conn: ConnId, out: &mut Outputs) {
    let to = account.jid.as_str();
    let siblings = account.resources.iter().filter(|resource| resource.conn != conn);
    let contacts = shared_contacts::watched(core, account);
    let contacts = contacts.filter_map(|contact| core.accounts.find(contact.as_str()));
    let contacts = contacts.filter(|contact| may_reach(account, conn, contact) && shows_itself(core, contact, account));
    let theirs = contacts.flat_map(|contact| &contact.resources);
    let theirs = theirs.filter(|resource| !account.per.blocking.blocks_prepared(resource.jid.as_str()));
    for resource in siblings.chain(theirs) {
        if let Some(available) = &resource.per.presence.available {
            // Large presences of many contacts, sent before the client can have read one, must not close its connection.
            match out.wire.pending(conn) + available.xml.len() > core.limits.output_max / 2 {
                true => out.wire.stanza(conn, |buf| write_bare(buf, resource, to)),
                false => out.wire.stanza(conn, |buf| write_to(buf, &available.xml, to)),
            }
        }
        if out.wire.pending(conn) > core.limits.output_max / 4 * 3 {
            break;
        }
    }
    let requests = account.roster.requests.iter();
    for (_, request) in requests.filter(|(jid, _)| !shared_contacts::is_shared(core, &account.jid, jid.as_str())) {
        // Those that do not fit come next time.
        if out.wire.pending(conn) + request.stanza.len() < core.limits.output_max {
            out.wire.stanza(conn, |buf| buf.extend_from_slice(&request.stanza));
        }
    }
}

/// Whether an account lets another one see its presence. What that has on its own roster does not count (section 4.3.2): the two
/// halves differ where one was changed while the other one's account had blocked it.
fn shows_itself(core: &Core, account: &Account, watcher: &Account) -> bool {
    shared_contacts::is_seen(core, account, watcher.jid.as_str())
}

/// That a resource is there, and no more.
fn write_bare(buf: &mut Vec<u8>, resource: &Resource, to: &str) {
    Writer::new(buf).open("presence", ns::CLIENT).attr("from", resource.jid.as_str()).attr("to", to);
}

/// A broadcast has many receivers; each that is full holds the sender back.
fn press_receivers(core: &mut Core, conn: ConnId, jid: &BareJid, out: &mut Outputs) {
    let Some(account) = core.accounts.find(jid.as_str()) else { return };
    let receivers =
        shared_contacts::watchers(core, account).chain([jid]).filter_map(|jid| core.accounts.find(jid.as_str()));
    let receivers = receivers.flat_map(|account| &account.resources).map(|resource| resource.conn);
    let full: Vec<ConnId> = receivers.filter(|conn| out.wire.pending(*conn) > core.limits.output_pause).collect();
    for receiver in full {
        core.press(conn, receiver, out);
    }
}

fn broadcast_unavailable(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    account: AccountId,
    frame: &Frame<'_>,
    out: &mut Outputs,
) {
    let xml = routed(core, conn, account, frame);
    if xml.len() > core.limits.presence_bytes_max {
        let error = StanzaError::POLICY_VIOLATION.text("The presence is too big.");
        return out.bounce(conn, "presence", frame.id, None, error);
    }
    let tree = Tree::of(frame);
    let status = tree.root().child("status", ns::CLIENT).map(|status| status.text().into_owned());
    let was_available = core.accounts.get(account).resource(conn).is_some_and(|own| own.per.presence.is_available());
    leave(core, now, conn, account, &xml, status.unwrap_or_default(), out);
    if was_available {
        // Its sender gets it back like everybody else (section 4.5.2).
        let own = core.accounts.get(account).jid.as_str();
        out.wire.stanza(conn, |buf| write_to(buf, &xml, own));
    }
}

/// A resource is no longer available: all who believe it is are told, once (sections 4.5.2 and 4.6.3).
fn leave(core: &mut Core, now: Now, conn: ConnId, account: AccountId, xml: &[u8], status: String, out: &mut Outputs) {
    let Some(resource) = core.accounts.get_mut(account).resource_mut(conn) else { return };
    let state = &mut resource.per.presence;
    state.shifts.note(false, core.steps);
    let (available, directed) = (state.available.take(), std::mem::take(&mut state.directed));
    pep::on_gone(&mut resource.per.pep);
    let was_available = available.is_some();
    let owner = core.accounts.get(account);
    if was_available {
        send_to_subscribers(core, owner, xml, out);
    }
    for receiver in &directed {
        send_direct(core, receiver, xml, was_available.then_some(owner), out);
    }
    let jid = owner.jid.clone();
    muc::on_unavailable(core, conn, xml, out);
    offline::on_gone(core, &jid, conn, out);
    let last = was_available && !is_available(core.accounts.get(account));
    if last && core.store_has_room() {
        let status = status.chars().take(256).collect();
        core.ask(StoreRequest::LastSeen { user: jid, at: now.utc, status }, Waiting::Nobody, out);
    }
}

/// The end of presence to one who got it directly. `told` is the account if its subscribers have been told already.
fn send_direct(core: &Core, to: &Jid, xml: &[u8], told: Option<&Account>, out: &mut Outputs) {
    let Some(account) = core.accounts.find(to.bare()) else { return };
    let covered =
        told.is_some_and(|told| told.jid.as_str() == to.bare() || shared_contacts::is_seen(core, told, to.bare()));
    for receiver in &account.resources {
        let available = receiver.per.presence.is_available();
        let meant = to.resource().map_or(available, |name| receiver.jid.resource() == name);
        if meant && !(covered && available) {
            out.wire.stanza(receiver.conn, |buf| write_to(buf, xml, to.as_str()));
        }
    }
}

/// The session of a connection is over: everybody is told, its resource is unbound.
pub(crate) fn on_session_end(core: &mut Core, now: Now, conn: ConnId, account: AccountId, out: &mut Outputs) {
    let Some(resource) = core.accounts.get(account).resource(conn) else { return };
    let xml = unavailable_from(resource);
    let leftovers = sm::take_leftovers(core, conn, resource.jid.clone(), out);
    if let Some(stream) = core.streams.get_mut(conn) {
        stream.phase = Phase::Closing;
    }
    leave(core, now, conn, account, &xml, String::new(), out);
    offline::forget(core.accounts.get_mut(account), conn);
    core.accounts.unbind(account, conn);
    sm::settle_leftovers(core, now, leftovers, out);
}

/// Presence for one receiver (section 4.6).
fn direct(core: &mut Core, conn: ConnId, account: AccountId, frame: &Frame<'_>, to: JidRef<'_>, out: &mut Outputs) {
    let leaving = frame.type_.is_some();
    if matches!(core.addressee(to.clone()), Addressee::Remote) {
        if !leaving {
            out.bounce(conn, "presence", frame.id, frame.to, NO_FEDERATION);
        }
        return;
    }
    let owner = core.accounts.get(account);
    if !leaving && owner.per.blocking.blocks(&to) {
        return out.bounce(conn, "presence", frame.id, frame.to, BLOCKED_BY_SENDER);
    }
    if core.accounts.find(to.bare()).is_some_and(|receiver| !may_reach(owner, conn, receiver)) {
        return;
    }
    let directed_max = core.limits.directed_presence_max;
    let Some(resource) = core.accounts.get_mut(account).resource_mut(conn) else { return };
    let directed = &mut resource.per.presence.directed;
    let known = directed.iter().position(|jid| jid.as_str() == to.as_str());
    match (known, leaving) {
        (Some(index), true) => drop(directed.swap_remove(index)),
        (None, false) if directed.len() >= directed_max => {
            let error = StanzaError::RESOURCE_CONSTRAINT.text("Presence was sent to too many receivers.");
            return out.bounce(conn, "presence", frame.id, frame.to, error);
        }
        (None, false) => directed.push(to.to_owned_jid()),
        (Some(_), false) | (None, true) => {}
    }
    let receivers: Vec<ConnId> = receivers_of(core, &to);
    if leaving {
        forget_directed(core, account, &to);
    }
    let xml = routed(core, conn, account, frame);
    for receiver in receivers {
        out.wire.presence(receiver, sender_of(&xml), |buf| buf.extend_from_slice(&xml));
        core.counters.delivered += 1;
        core.press(conn, receiver, out);
    }
}

fn receivers_of(core: &Core, to: &JidRef<'_>) -> Vec<ConnId> {
    let resources = core.accounts.find(to.bare()).map(|account| account.resources.as_slice()).unwrap_or_default();
    let meant = |resource: &&Resource| match to.resource() {
        Some(name) => resource.jid.resource() == name,
        None => resource.per.presence.is_available(),
    };
    resources.iter().filter(meant).map(|resource| resource.conn).collect()
}

/// Who sends us `unavailable` needs not be told when we leave (section 4.6.1).
fn forget_directed(core: &mut Core, leaver: AccountId, to: &JidRef<'_>) {
    let leaver = core.accounts.get(leaver).jid.clone();
    let Some(account) = core.accounts.find_mut(to.bare()) else { return };
    for resource in &mut account.resources {
        if to.resource().is_none_or(|name| resource.jid.resource() == name) {
            resource.per.presence.directed.retain(|jid| jid.bare() != leaver.as_str());
        }
    }
}

/// An error goes to the very resource that it is for, or nowhere.
fn pass_error(
    core: &mut Core,
    conn: ConnId,
    account: AccountId,
    frame: &Frame<'_>,
    to: &JidRef<'_>,
    out: &mut Outputs,
) {
    if to.resource().is_some() {
        for receiver in receivers_of(core, to) {
            core.forward(conn, account, frame, receiver, out);
        }
    }
}

/// A client's own probe is answered as another server's would be (section 4.3.2).
fn answer_probe(
    core: &mut Core,
    conn: ConnId,
    account: AccountId,
    frame: &Frame<'_>,
    to: &JidRef<'_>,
    out: &mut Outputs,
) {
    let asker = core.accounts.get(account);
    let own = asker.jid.as_str() == to.bare();
    let found = core.accounts.find(to.bare());
    if found.is_some_and(|found| !may_reach(asker, conn, found)) {
        return;
    }
    let is_subscribed =
        shared_contacts::sees(core, asker, to.bare()) && found.is_none_or(|found| shows_itself(core, found, asker));
    if !own && !is_subscribed {
        return answer_directed_probe(core, asker, conn, frame, to, out);
    }
    let resources = core.accounts.find(to.bare()).map(|account| account.resources.as_slice()).unwrap_or_default();
    let meant = resources.iter().filter(|resource| to.resource().is_none_or(|name| resource.jid.resource() == name));
    let mut answered = false;
    for available in meant.filter_map(|resource| resource.per.presence.available.as_ref()) {
        answered = true;
        out.wire.stanza(conn, |buf| write_to(buf, &available.xml, asker.jid.as_str()));
    }
    if !answered {
        out.wire.stanza(conn, |buf| {
            let mut w = Writer::new(buf);
            w.open("presence", ns::CLIENT).attr("from", to.as_str()).attr("to", &asker.jid).attr("type", "unavailable");
            if let Some(id) = frame.id {
                w.attr_escaped("id", id);
            }
        });
    }
}

/// Who got presence directly may ask whether that still holds (section 4.6.6).
fn answer_directed_probe(
    core: &Core,
    asker: &Account,
    conn: ConnId,
    frame: &Frame<'_>,
    to: &JidRef<'_>,
    out: &mut Outputs,
) {
    let Some(name) = to.resource() else { return };
    let Some(resource) = core.accounts.find(to.bare()).and_then(|account| account.resource_named(name)) else { return };
    let told = resource.per.presence.directed.iter().any(|jid| jid.bare() == asker.jid.as_str());
    if told {
        out.wire.stanza(conn, |buf| {
            let mut w = Writer::new(buf);
            w.open("presence", ns::CLIENT).attr("from", to.as_str()).attr("to", &asker.jid);
            if let Some(id) = frame.id {
                w.attr_escaped("id", id);
            }
        });
    }
}

/// What somebody learns who sees an account from now on.
pub(super) fn show(core: &mut Core, owner: &BareJid, watcher: &BareJid, out: &mut Outputs) {
    if let Some(account) = core.accounts.find(owner.as_str()) {
        for available in account.resources.iter().filter_map(|resource| resource.per.presence.available.as_ref()) {
            send_to_available(core, account, watcher.as_str(), &available.xml, out);
        }
    }
    pep::on_seen(core, owner, watcher, out);
}

fn available(account: &Account) -> impl Iterator<Item = &Resource> {
    account.resources.iter().filter(|resource| resource.per.presence.is_available())
}

/// What somebody learns who no longer sees an account.
pub(super) fn hide(core: &Core, owner: &BareJid, watcher: &BareJid, out: &mut Outputs) {
    let Some(account) = core.accounts.find(owner.as_str()) else { return };
    for resource in available(account) {
        send_to_available(core, account, watcher.as_str(), &unavailable_from(resource), out);
    }
}

/// Resources of a contact are about to be blocked, those that `covered` says: each sees the other leave.
pub(super) fn hide_from(
    core: &Core,
    user: &BareJid,
    contact: &BareJid,
    covered: impl Fn(&str) -> bool,
    out: &mut Outputs,
) {
    tell_each_other(core, user, contact, covered, unavailable_from, out);
}

/// They are no longer blocked: each sees the other again.
pub(super) fn show_to(
    core: &mut Core,
    user: &BareJid,
    contact: &BareJid,
    covered: impl Fn(&str) -> bool,
    out: &mut Outputs,
) {
    let last =
        |resource: &Resource| resource.per.presence.available.as_ref().map_or(Vec::new(), |last| last.xml.to_vec());
    tell_each_other(core, user, contact, covered, last, out);
    for (owner, watcher) in [(user, contact), (contact, user)] {
        let account = core.accounts.find(owner.as_str());
        if account.is_some_and(|account| shared_contacts::is_seen(core, account, watcher.as_str())) {
            pep::on_seen(core, owner, watcher, out);
        }
    }
}

/// Tells of every available resource of two accounts to those of the other, where they see each other, and of the contact's
/// resources to and of those that `covered` says.
fn tell_each_other(
    core: &Core,
    user: &BareJid,
    contact: &BareJid,
    covered: impl Fn(&str) -> bool,
    told: impl Fn(&Resource) -> Vec<u8>,
    out: &mut Outputs,
) {
    let (Some(user), Some(contact)) = (core.accounts.find(user.as_str()), core.accounts.find(contact.as_str())) else {
        return;
    };
    for (owner, watcher) in [(user, contact), (contact, user)] {
        let to = watcher.jid.as_str();
        if !shared_contacts::is_seen(core, owner, to) || !on_speaking_terms(owner, watcher) {
            continue;
        }
        for resource in available(owner) {
            let xml = told(resource);
            for other in available(watcher) {
                let theirs = if owner.jid == contact.jid { resource } else { other };
                if covered(theirs.jid.as_str()) {
                    out.wire.presence(other.conn, sender_of(&xml), |buf| write_to(buf, &xml, to));
                }
            }
        }
    }
}

impl Core {
    /// Ends the session of a stream, if it has one.
    pub(crate) fn end_session(&mut self, now: Now, conn: ConnId, out: &mut Outputs) {
        if let Some(account) = self.account_id(conn) {
            on_session_end(self, now, conn, account, out);
        }
    }
}
