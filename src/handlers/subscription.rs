//! RFC 6121 section 3: subscriptions.
//!
//! Those of local pairs change on both sides in one transaction of the store (`State` in `core::roster` is the table); what the
//! sides are then told is settled here, in the order that section 3 asks for.

use super::blocking::BLOCKED_BY_SENDER;
use super::prelude::*;
use super::{presence, roster, shared_contacts};
use crate::core::effects::Half;
use crate::core::parked::Waiting;
use crate::core::roster::{Event, Item};
use crate::core::router::{Addressee, NO_FEDERATION};
use crate::core::session::AccountId;
use crate::jid::{BareJid, JidRef};
use crate::xml::writer::escape_attr;
use crate::xml::{Frame, Tree};

pub(super) const HANDLER: Handler = Handler { name: "subscription", spec: "RFC 6121 section 3", ..Handler::EMPTY };

/// A subscription stanza: stored on both sides first, told after ([`on_stored`]).
#[expect(clippy::too_many_arguments, reason = "what a stanza's handler gets, and what kind it is")]
pub(super) fn route(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    account: AccountId,
    frame: &Frame<'_>,
    event: Event,
    to: &JidRef<'_>,
    out: &mut Outputs,
) {
    let user = core.accounts.get(account).jid.clone();
    let contact = to.to_bare();
    match core.addressee(to.clone()) {
        Addressee::Remote => return out.bounce(conn, "presence", frame.id, frame.to, NO_FEDERATION),
        Addressee::Host(_) | Addressee::Rooms(_) => return,
        Addressee::Bare(_) | Addressee::Full(_) if contact == user => return,
        Addressee::Bare(_) | Addressee::Full(_) if core.accounts.get(account).per.blocking.blocks(to) => {
            return out.bounce(conn, "presence", frame.id, frame.to, BLOCKED_BY_SENDER);
        }
        Addressee::Bare(_) | Addressee::Full(_) if shared_contacts::is_shared(core, &user, contact.as_str()) => {
            return subscribe_to_shared(core, conn, frame, event, (&user, &contact), out);
        }
        Addressee::Bare(_) | Addressee::Full(_) => {}
    }
    let lang = core.streams.get(conn).and_then(|stream| stream.lang.as_deref());
    let (mut from, mut to) = (Vec::new(), Vec::new());
    escape_attr(user.as_str(), &mut from);
    escape_attr(contact.as_str(), &mut to);
    let mut stanza = Vec::with_capacity(frame.xml.len() + 64);
    frame.splice_to_into(&String::from_utf8_lossy(&from), Some(&String::from_utf8_lossy(&to)), lang, &mut stanza);
    let request = StoreRequest::Subscription { user, contact, event, stanza: stanza.clone(), at: now.utc };
    core.ask(request, Waiting::Subscription { conn, stanza, event }, out);
}

/// The two see each other in any case: who asks is told so at once, as one whose request was granted before would be, and nobody
/// can take it back (PROTOCOL SU-14).
fn subscribe_to_shared(
    core: &mut Core,
    conn: ConnId,
    frame: &Frame<'_>,
    event: Event,
    (user, contact): (&BareJid, &BareJid),
    out: &mut Outputs,
) {
    match event {
        Event::Subscribe => {
            out.wire.stanza(conn, |buf| {
                let mut w = Writer::new(buf);
                w.open("presence", ns::CLIENT).attr("from", contact).attr("to", user).attr("type", "subscribed");
            });
            presence::show(core, contact, user, out);
        }
        Event::Subscribed => {}
        Event::Unsubscribe | Event::Unsubscribed => {
            out.bounce(conn, "presence", frame.id, frame.to, shared_contacts::IS_SHARED);
        }
    }
}

/// Both sides of a subscription stanza are durable.
pub(crate) fn on_stored(
    core: &mut Core,
    conn: ConnId,
    stanza: &[u8],
    event: Event,
    reply: StoreReply,
    out: &mut Outputs,
) {
    let (user, contact) = match reply {
        Ok(Stored::Halves { user, contact, .. }) => (user, contact),
        Ok(_) => return,
        Err(error) => return refuse_subscription(conn, stanza, error.into(), out),
    };
    roster::apply(core, &user);
    // A cancelled subscriber sees all resources leave before the stanza (section 3.2.2).
    if event == Event::Unsubscribed {
        tell_loss(core, &user, out);
    }
    if let Some(contact) = &contact {
        roster::apply(core, contact);
        for reached in &contact.deliver {
            let xml = if *reached == event { stanza.to_vec() } else { subscription_xml(&user, *reached) };
            deliver_event(core, contact, *reached, &xml, out);
        }
        roster::push_change(core, contact, out);
        tell_loss(core, contact, out);
        for answer in &user.deliver {
            deliver_event(core, &user, *answer, &subscription_xml(contact, *answer), out);
        }
    }
    roster::push_change(core, &user, out);
    tell_gain(core, &user, out);
    if let Some(contact) = &contact {
        tell_gain(core, contact, out);
    }
}

fn refuse_subscription(conn: ConnId, stanza: &[u8], error: StanzaError, out: &mut Outputs) {
    let Ok(xml) = std::str::from_utf8(stanza) else { return };
    let Ok(tree) = Tree::parse(xml, ns::CLIENT) else { return };
    let root = tree.root();
    out.wire.stanza(conn, |buf| {
        let mut w = Writer::new(buf);
        w.open("presence", ns::CLIENT).attr("type", "error");
        w.attr_opt("id", root.attr("id")).attr_opt("from", root.attr("to"));
        error.write(&mut w);
    });
}

/// A roster item and both halves of its subscription are gone (section 2.5).
pub(super) fn settle_removal(core: &mut Core, user: &Half, contact: Option<&Half>, out: &mut Outputs) {
    roster::apply(core, user);
    tell_loss(core, user, out);
    if let Some(contact) = contact {
        settle_contact(core, contact, out);
    }
    roster::push_change(core, user, out);
}

/// The other side of a removal: what reached it, and that it is no longer seen.
pub(super) fn settle_contact(core: &mut Core, contact: &Half, out: &mut Outputs) {
    roster::apply(core, contact);
    for reached in &contact.deliver {
        let mut xml = Vec::new();
        let mut w = Writer::new(&mut xml);
        w.open("presence", ns::CLIENT)
            .attr("from", &contact.jid)
            .attr("to", &contact.account)
            .attr("type", reached.name());
        drop(w);
        deliver_event(core, contact, *reached, &xml, out);
    }
    roster::push_change(core, contact, out);
    tell_loss(core, contact, out);
}

/// `event` as it comes from the account of `half`.
fn subscription_xml(half: &Half, event: Event) -> Vec<u8> {
    let mut xml = Vec::new();
    let mut w = Writer::new(&mut xml);
    w.open("presence", ns::CLIENT).attr("from", &half.account).attr("to", &half.jid).attr("type", event.name());
    drop(w);
    xml
}

/// `subscribe` goes to the available resources, the rest to those that have asked for the roster (sections 3.1.3 and 3.1.6).
fn deliver_event(core: &Core, half: &Half, event: Event, xml: &[u8], out: &mut Outputs) {
    let Some(account) = core.accounts.find(half.account.as_str()) else { return };
    for resource in &account.resources {
        let meant = match event {
            Event::Subscribe => resource.per.presence.is_available(),
            _ => resource.per.roster.interested,
        };
        if meant {
            out.wire.stanza(resource.conn, |buf| buf.extend_from_slice(xml));
        }
    }
}

fn seen(item: &Option<Item>) -> bool {
    item.as_ref().is_some_and(|item| item.subscription.from())
}

/// The other side no longer sees this one.
fn tell_loss(core: &Core, half: &Half, out: &mut Outputs) {
    if !seen(&half.before) || seen(&half.item) {
        return;
    }
    presence::hide(core, &half.account, &half.jid, out);
}

/// The other side sees this one from now on.
fn tell_gain(core: &mut Core, half: &Half, out: &mut Outputs) {
    if seen(&half.before) || !seen(&half.item) {
        return;
    }
    presence::show(core, &half.account, &half.jid, out);
}
