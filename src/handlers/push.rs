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
use crate::core::push::{self, PushChange, Registration};
use crate::core::router::{Addressee, NO_FEDERATION};
use crate::jid::{BareJid, Jid, JidRef};

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

/// Messages that come so soon after a notification are told together.
const PAUSE: Duration = Duration::from_secs(5);
/// Accounts that are in that pause, notifications whose answer is awaited, and app servers in trouble that are remembered.
const REMEMBERED_MAX: usize = 1024;
/// The longest time that an app server in trouble is left alone.
const BACK_OFF_MAX: Duration = Duration::from_secs(3600);

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

fn enable(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let new = Registration::parse(&iq.payload)?;
    match JidRef::parse(new.jid.as_str()).map(|jid| cx.core.addressee(jid)) {
        Ok(Addressee::Remote | Addressee::Rooms(_) | Addressee::Host(_)) | Err(_) => return Err(NO_FEDERATION),
        Ok(Addressee::Bare(_) | Addressee::Full(_)) => {}
    }
    cx.core.shared.push.trouble.remove(&(new.jid.clone(), new.node.clone()));
    change(cx, iq, PushChange::Enable(new))
}

fn disable(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let Registration { jid, node, .. } = Registration::parse(&iq.payload)?;
    let node = iq.payload.attr("node").is_some().then_some(node);
    change(cx, iq, PushChange::Disable { jid, node })
}

fn change(cx: &mut Cx<'_>, iq: &Iq<'_>, change: PushChange) -> Handled {
    let user = cx.account().jid.clone();
    cx.ask(StoreRequest::PushChange { user, change }, iq.park(), acknowledge)
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
        let Ok(Stored::Document(Some(document))) = reply else { return };
        for registration in push::decode(&document) {
            publish(core, now, &owner, registration, count, out);
        }
    };
    let request = StoreRequest::DocumentGet { user: user.clone(), key: DocumentKey::Push };
    core.ask(request, Waiting::Detached { conn: ConnId::NOBODY, then: Box::new(then) }, out);
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
        None => {
            account.resources.iter().find(|own| presence::is_available(account) && own.per.presence.takes_messages())
        }
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
        let Registration { jid, node, .. } = registration;
        let change = PushChange::Disable { jid, node: Some(node) };
        cx.core.ask(StoreRequest::PushChange { user, change }, Waiting::Nobody, cx.out);
    } else {
        fail(cx.core, cx.now, key, condition);
    }
    true
}

/// Errors that say that a registration is no longer wanted (section 7.1).
const PERMANENT: &[&str] =
    &["bad-request", "forbidden", "gone", "item-not-found", "not-acceptable", "not-allowed", "not-authorized"];
