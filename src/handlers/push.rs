//! XEP-0357: a phone that sleeps is woken by its app server when something waits for it.
//!
//! A registration names an app server and what shall be said to it. It is told when a message is stored for an account that is
//! not here, and when one waits for a session whose connection is lost; never who has written, nor what. The first message is
//! told at once, those of the next seconds together.
//!
//! App servers are reached as any other address; [`send`] is the one place where a notification leaves, and until there is
//! federation it knows accounts of this server only, so others are refused when they are registered.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use super::prelude::*;
use super::{Answer, presence};
use crate::core::parked::Waiting;
use crate::core::router::{Addressee, NO_FEDERATION};
use crate::jid::{BareJid, Jid, JidRef};
use crate::xml::Tree;

pub(super) const HANDLER: Handler = Handler {
    name: "push",
    spec: "XEP-0357 0.4.1",
    account_features: &[ns::PUSH],
    routes: &[
        iq_set(Target::Account, ns::PUSH, "enable", enable),
        iq_set(Target::Account, ns::PUSH, "disable", disable),
    ],
    answer: Some(on_answer),
    ..Handler::EMPTY
};

/// Registrations of one account; the oldest makes room.
const REGISTRATIONS_MAX: usize = 16;
/// Bytes of what a registration gives to be repeated to its app server.
const OPTIONS_BYTES_MAX: usize = 4096;
/// Messages that come so soon after a notification are told together.
const PAUSE: Duration = Duration::from_secs(5);
/// Accounts that are in that pause, notifications whose answer is awaited, and app servers in trouble that are remembered.
const REMEMBERED_MAX: usize = 1024;
/// The longest time that an app server in trouble is left alone.
const BACK_OFF_MAX: Duration = Duration::from_secs(3600);

/// Nobody waits for what is done here.
const NOBODY: ConnId = ConnId { slot: u32::MAX, generation: u32::MAX };

/// What a client has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Registration {
    jid: Jid,
    node: String,
    /// A data form, valid by itself; empty for none.
    options: String,
}

/// What is going on for all accounts.
#[derive(Default)]
pub(crate) struct Notifier {
    /// Until when, for whom, and what has come meanwhile; in the order of time.
    pauses: VecDeque<(Duration, BareJid, u32)>,
    /// Notifications by the id of their request, oldest first.
    sent: VecDeque<(Box<str>, BareJid, Registration)>,
    /// App servers that have failed: how often in a row, and until when they are left alone.
    trouble: HashMap<(Jid, String), (u32, Duration)>,
}

impl Notifier {
    /// When something is to be done next.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.pauses.front().map(|(until, ..)| *until)
    }
}

fn parse(document: Option<Vec<u8>>) -> Vec<Registration> {
    let document = document.and_then(|document| String::from_utf8(document).ok()).unwrap_or_default();
    let Ok(tree) = Tree::parse(&document, ns::CLIENT) else { return Vec::new() };
    let enabled = tree.root().children().filter(|child| child.is("enable", ns::PUSH));
    enabled.filter_map(|enable| registration(&enable).ok()).collect()
}

fn registration(element: &Element<'_>) -> Result<Registration, StanzaError> {
    let jid = JidRef::parse(element.attr("jid").ok_or(StanzaError::BAD_REQUEST)?);
    let jid = jid.map_err(|_| StanzaError::JID_MALFORMED)?.to_owned_jid();
    let mut options = Vec::new();
    if let Some(form) = element.child("x", ns::DATA_FORMS) {
        form.write_standalone(ns::PUBSUB, &mut options);
    }
    let node = element.attr("node").unwrap_or_default().to_owned();
    let options = String::from_utf8(options).map_err(|_| StanzaError::BAD_REQUEST)?;
    if options.len() + node.len() > OPTIONS_BYTES_MAX {
        return Err(StanzaError::NOT_ACCEPTABLE.text("The registration is too big."));
    }
    Ok(Registration { jid, node, options })
}

fn write(registrations: &[Registration]) -> Vec<u8> {
    let mut document = Vec::new();
    if registrations.is_empty() {
        return document;
    }
    let mut w = Writer::new(&mut document);
    w.open("push", ns::PUSH);
    for Registration { jid, node, options } in registrations {
        w.open("enable", ns::PUSH).attr("jid", jid.as_str());
        w.attr_opt("node", (!node.is_empty()).then_some(node)).raw(options.as_bytes()).close();
    }
    drop(w);
    document
}

fn enable(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let new = registration(&iq.payload)?;
    match JidRef::parse(new.jid.as_str()).map(|jid| cx.core.addressee(jid)) {
        Ok(Addressee::Remote | Addressee::Rooms(_) | Addressee::Host(_)) | Err(_) => return Err(NO_FEDERATION),
        Ok(Addressee::Bare(_) | Addressee::Full(_)) => {}
    }
    cx.core.shared.push.trouble.remove(&(new.jid.clone(), new.node.clone()));
    change(cx, iq, move |list| {
        list.retain(|known| (&known.jid, &known.node) != (&new.jid, &new.node));
        if list.len() >= REGISTRATIONS_MAX {
            list.remove(0);
        }
        list.push(new);
    })
}

fn disable(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let Registration { jid, node, .. } = registration(&iq.payload)?;
    let all = iq.payload.attr("node").is_none();
    change(cx, iq, move |list| list.retain(|known| known.jid != jid || !(all || known.node == node)))
}

/// Changes the list in the store, then answers.
fn change(
    cx: &mut Cx<'_>,
    iq: &Iq<'_>,
    apply: impl FnOnce(&mut Vec<Registration>) + Send + 'static,
) -> Handled {
    let (user, parked) = (cx.account().jid.clone(), iq.park());
    let answer = move |conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Ok(_) => out.reply_empty(conn, &*parked),
        Err(error) => out.reply_error(conn, &*parked, error.into()),
    };
    update(cx.core, cx.conn, &user, apply, answer, cx.out);
    Ok(super::Outcome::Parked)
}

fn update(
    core: &mut Core,
    conn: ConnId,
    user: &BareJid,
    apply: impl FnOnce(&mut Vec<Registration>) + Send + 'static,
    answer: impl FnOnce(ConnId, StoreReply, &mut Outputs) + Send + 'static,
    out: &mut Outputs,
) {
    let owner = user.clone();
    let then = move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        let document = match reply {
            Ok(Stored::Document(document)) => document,
            reply => return answer(conn, reply, out),
        };
        let mut list = parse(document);
        apply(&mut list);
        let request = StoreRequest::DocumentPut { user: owner, key: DocumentKey::Push, content: write(&list) };
        let done = move |_: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| answer(conn, reply, out);
        core.ask(request, Waiting::Room { conn, then: Box::new(done) }, out);
    };
    let request = StoreRequest::DocumentGet { user: user.clone(), key: DocumentKey::Push };
    core.ask(request, Waiting::Room { conn, then: Box::new(then) }, out);
}

/// Whether a message is worth waking somebody: something to read, or a call (PROTOCOL PU-04).
pub(super) fn is_worth(message: &Element<'_>) -> bool {
    let wakes = |child: &Element<'_>| match child.ns() {
        ns::CLIENT => child.name() == "body",
        ns::OMEMO | ns::OMEMO_1 | ns::OMEMO_2 => child.name() == "encrypted",
        ns::OPENPGP => child.name() == "openpgp",
        ns::JINGLE_MESSAGE => child.name() == "propose",
        ns::CALL_INVITES => child.name() == "invite",
        _ => false,
    };
    message.children().any(|child| wakes(&child)) && !message.children().any(|child| child.is("no-store", ns::HINTS))
}

/// A message waits for an account.
pub(super) fn on_waiting(core: &mut Core, now: Now, user: &BareJid, out: &mut Outputs) {
    let pauses = &mut core.shared.push.pauses;
    if let Some((.., count)) = pauses.iter_mut().find(|(_, known, _)| known == user) {
        *count = count.saturating_add(1);
        return;
    }
    if pauses.len() < REMEMBERED_MAX {
        pauses.push_back((now.mono + PAUSE, user.clone(), 0));
    }
    notify(core, user, 1, out);
}

/// Pauses that are over.
pub(crate) fn on_deadline(core: &mut Core, now: Now, out: &mut Outputs) {
    while core.shared.push.next().is_some_and(|until| until <= now.mono) {
        let Some((_, user, count)) = core.shared.push.pauses.pop_front() else { return };
        // Whoever has come meanwhile needs no waking.
        let here = core.accounts.find(user.as_str()).is_some_and(|account| {
            account.resources.iter().any(|own| !own.conn.is_ghost() && own.per.presence.takes_messages())
        });
        if count > 0 && !here {
            core.shared.push.pauses.push_back((now.mono + PAUSE, user.clone(), 0));
            notify(core, &user, count, out);
        }
    }
}

/// Tells every app server of an account. Nothing is read where the store is busy: the message is there in any case.
fn notify(core: &mut Core, user: &BareJid, count: u32, out: &mut Outputs) {
    if !core.store_has_room() {
        return;
    }
    let owner = user.clone();
    let then = move |core: &mut Core, now: Now, _: ConnId, reply: StoreReply, out: &mut Outputs| {
        let Ok(Stored::Document(document)) = reply else { return };
        for registration in parse(document) {
            publish(core, now, &owner, registration, count, out);
        }
    };
    let request = StoreRequest::DocumentGet { user: user.clone(), key: DocumentKey::Push };
    core.ask(request, Waiting::Room { conn: NOBODY, then: Box::new(then) }, out);
}

fn publish(core: &mut Core, now: Now, user: &BareJid, registration: Registration, count: u32, out: &mut Outputs) {
    let key = (registration.jid.clone(), registration.node.clone());
    if core.shared.push.trouble.get(&key).is_some_and(|(_, until)| *until > now.mono) {
        return;
    }
    let id = core.ids.next_id();
    let mut stanza = Vec::with_capacity(640);
    let mut w = Writer::new(&mut stanza);
    w.open("iq", ns::CLIENT).attr("type", "set").attr("id", &id);
    w.attr("from", user.domain()).attr("to", registration.jid.as_str());
    w.open("pubsub", ns::PUBSUB).open("publish", ns::PUBSUB).attr("node", &registration.node);
    w.open("item", ns::PUBSUB).open("notification", ns::PUSH);
    // Neither who nor what (section 9): an app server is somebody else.
    crate::core::form::open(&mut w, "submit", "urn:xmpp:push:summary");
    crate::core::form::told(&mut w, "message-count", &[count]);
    w.close().close().close().close();
    if !registration.options.is_empty() {
        w.open("publish-options", ns::PUBSUB).raw(registration.options.as_bytes()).close();
    }
    drop(w);
    match send(core, &registration.jid, &stanza, out) {
        Ok(()) => {
            let sent = &mut core.shared.push.sent;
            if sent.len() >= REMEMBERED_MAX {
                sent.pop_front();
            }
            sent.push_back((id.into(), user.clone(), registration));
        }
        Err(reason) => fail(core, now, key, reason),
    }
}

/// The door through which notifications leave. What is not here is for federation to send.
fn send(core: &Core, to: &Jid, stanza: &[u8], out: &mut Outputs) -> Result<(), &'static str> {
    let address = JidRef::parse(to.as_str()).map_err(|_| "it has no address")?;
    if let Addressee::Remote = core.addressee(address) {
        return Err("this server does not reach other servers");
    }
    let account = core.accounts.find(to.bare()).ok_or("it is not connected")?;
    let meant = match to.resource() {
        Some(name) => account.resource_named(name),
        None => account.resources.iter().find(|own| presence::is_available(account) && own.per.presence.takes_messages()),
    };
    let resource = meant.filter(|own| !own.conn.is_ghost()).ok_or("it is not connected")?;
    out.wire.stanza(resource.conn, |buf| buf.extend_from_slice(stanza));
    Ok(())
}

/// A failure that may pass: the app server is left alone for longer and longer, and kept.
fn fail(core: &mut Core, now: Now, key: (Jid, String), reason: &str) {
    log::info!("push to {} failed because {reason}", key.0.as_str());
    let trouble = &mut core.shared.push.trouble;
    if trouble.len() >= REMEMBERED_MAX {
        trouble.retain(|_, (_, until)| *until > now.mono);
    }
    if trouble.len() < REMEMBERED_MAX || trouble.contains_key(&key) {
        let (failures, until) = trouble.entry(key).or_default();
        *failures = failures.saturating_add(1);
        *until = now.mono + PAUSE.saturating_mul(1 << (*failures).min(10)).min(BACK_OFF_MAX);
    }
}

/// An app server answers.
fn on_answer(cx: &mut Cx<'_>, answer: &Answer<'_>) -> bool {
    let own = cx.resource_mut().jid.clone();
    let sent = &mut cx.core.shared.push.sent;
    let mine = |(id, _, to): &(Box<str>, BareJid, Registration)| {
        **id == *answer.id && (to.jid.as_str() == own.as_str() || to.jid.as_str() == own.bare())
    };
    let Some((_, user, registration)) = sent.iter().position(mine).and_then(|place| sent.remove(place)) else {
        return false;
    };
    let key = (registration.jid.clone(), registration.node.clone());
    let Some(error) = answer.error else {
        cx.core.shared.push.trouble.remove(&key);
        return true;
    };
    let condition = error.children().find(|child| child.ns() == ns::STANZA_ERRORS && child.name() != "text");
    let condition = condition.map_or("undefined-condition", |condition| condition.name());
    if error.attr("type") != Some("wait") && PERMANENT.contains(&condition) {
        log::info!("push to {} failed because of {condition}; it is disabled", registration.jid.as_str());
        let gone = move |list: &mut Vec<Registration>| {
            list.retain(|known| (&known.jid, &known.node) != (&registration.jid, &registration.node));
        };
        update(cx.core, NOBODY, &user, gone, |_, _, _| {}, cx.out);
    } else {
        fail(cx.core, cx.now, key, condition);
    }
    true
}

/// Errors that say that a registration is no longer wanted (section 7.1).
const PERMANENT: &[&str] =
    &["bad-request", "forbidden", "gone", "item-not-found", "not-acceptable", "not-allowed", "not-authorized"];
