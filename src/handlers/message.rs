//! RFC 6121 section 8.5: where a message goes, by its type and by the state of whom it is for.
//!
//! | addressed to | normal, chat | groupchat | headline | error |
//! |---|---|---|---|---|
//! | a connected resource | it | it | it | it |
//! | the account, or a resource that is not there | all resources with a priority of 0 or more | error | the same, for the bare JID only | nobody |
//! | an account without such a resource | offline storage | error | nobody | nobody |
//! | no such account | error | error | error | nobody |
//!
//! An error for a missing account and silence for a missing resource tell a local user which accounts exist; so does any message
//! that is answered. A mistyped address that is noticed is worth more on a server whose users know each other (PROTOCOL RT-20).

use std::num::NonZeroU64;

use memchr::memmem;

use super::prelude::*;
use super::sm::Sent;
use super::{blocking, carbons, csi, displayed, mam, muc, offline};
use crate::core::Mark;
use crate::core::effects::Delivered;
use crate::core::parked::Waiting;
use crate::core::router::{Addressee, NO_FEDERATION};
use crate::core::session::{Account, AccountId, Resource};
use crate::jid::{FullJid, Jid, JidRef};
use crate::xml::{Frame, attribute_value};

pub(super) const HANDLER: Handler = Handler { name: "message", spec: "RFC 6121 sections 5 and 8.5", ..Handler::EMPTY };

/// Receivers of the message that is being routed; kept so that routing allocates nothing.
#[derive(Default)]
pub(crate) struct Receivers(Vec<ConnId>);

/// A message's type; an unknown one counts as normal (section 5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageType {
    Normal,
    Chat,
    Groupchat,
    Headline,
    Error,
}

impl MessageType {
    /// Whether messages of this type are kept for later.
    fn lasts(self) -> bool {
        matches!(self, MessageType::Normal | MessageType::Chat)
    }

    fn of(frame: &Frame<'_>) -> MessageType {
        MessageType::named(frame.type_)
    }

    fn named(name: Option<&str>) -> MessageType {
        match name {
            Some("chat") => MessageType::Chat,
            Some("groupchat") => MessageType::Groupchat,
            Some("headline") => MessageType::Headline,
            Some("error") => MessageType::Error,
            _ => MessageType::Normal,
        }
    }
}

/// What the table says.
enum Way {
    /// To the connections that were collected.
    Resources,
    /// Into offline storage, if it is worth it.
    Offline,
    /// Back to the sender.
    Error(StanzaError),
    /// Nowhere.
    Silence,
}

/// A message of a bound session.
pub(crate) fn route(core: &mut Core, now: Now, conn: ConnId, account: AccountId, frame: &Frame<'_>, out: &mut Outputs) {
    let kind = MessageType::of(frame);
    let to = frame.to.map(attribute_value);
    let own;
    let to = match to.as_deref().map(JidRef::parse) {
        Some(Ok(to)) => to,
        Some(Err(_)) if kind == MessageType::Error => return,
        Some(Err(_)) => {
            let host = core.host_name(conn).to_owned();
            return out.bounce(conn, "message", frame.id, Some(&host), StanzaError::JID_MALFORMED);
        }
        // Without an address it is for the sender's own account (RFC 6120 section 10.3.1).
        None => {
            own = core.accounts.get(account).jid.clone();
            match JidRef::parse(own.as_str()) {
                Ok(to) => to,
                Err(_) => return,
            }
        }
    };
    if let Addressee::Rooms(to) = core.addressee(to.clone()) {
        displayed::publish(core, now, account, frame, &to, out);
        return muc::on_stanza(core, now, conn, account, frame, &to, out);
    }
    let mut receivers = std::mem::take(&mut core.shared.message.0);
    match way(core, kind, Some((account, conn)), &to, &mut receivers) {
        Way::Resources => {
            // A note to oneself goes to the other devices (PROTOCOL RT-15).
            if receivers.len() > 1 && to.bare() == core.accounts.get(account).jid.as_str() {
                receivers.retain(|receiver| *receiver != conn);
            }
            let copy = mam::Copy::of(core, now, (conn, account), frame, &to, kind.lasts());
            if copy.is_cleaned() {
                displayed::publish(core, now, account, frame, &to, out);
            }
            if copy.archive(core, out) {
                for receiver in &receivers {
                    // Who typed is of no interest to a phone in a pocket.
                    if out.wire.is_quiet(*receiver) && csi::is_typing_only(frame) {
                        continue;
                    }
                    copy.forward(core, *receiver, out);
                }
                carbons::copy(core, &copy, &receivers, out);
                observe(core, conn, account, frame, &to, out);
            }
        }
        Way::Offline => {
            let copy = mam::Copy::of(core, now, (conn, account), frame, &to, kind.lasts());
            if copy.is_cleaned() {
                displayed::publish(core, now, account, frame, &to, out);
            }
            if offline::keep(core, now, &copy, out) {
                // The resource that gets what is stored gets this too.
                receivers.extend(core.accounts.find(to.bare()).and_then(|account| account.per.offline.drains_to()));
                carbons::copy(core, &copy, &receivers, out);
                observe(core, conn, account, frame, &to, out);
            }
        }
        Way::Error(error) if kind != MessageType::Error => out.bounce(conn, "message", frame.id, frame.to, error),
        Way::Error(_) | Way::Silence => {}
    }
    receivers.clear();
    core.shared.message.0 = receivers;
}

/// Fills `receivers`, which is empty, if that is the way.
fn way(
    core: &Core,
    kind: MessageType,
    sender: Option<(AccountId, ConnId)>,
    to: &JidRef<'_>,
    receivers: &mut Vec<ConnId>,
) -> Way {
    if let Some((sender, session)) = sender.map(|(sender, session)| (core.accounts.get(sender), session)) {
        if sender.per.blocking.blocks(to) {
            return Way::Error(blocking::BLOCKED_BY_SENDER);
        }
        if core.accounts.find(to.bare()).is_some_and(|receiver| !blocking::may_reach(sender, session, receiver)) {
            return Way::Error(StanzaError::SERVICE_UNAVAILABLE);
        }
    }
    match core.addressee(to.clone()) {
        Addressee::Remote => Way::Error(NO_FEDERATION),
        Addressee::Host(_) | Addressee::Rooms(_) => Way::Error(StanzaError::SERVICE_UNAVAILABLE),
        Addressee::Full(to) => match core.accounts.find(to.bare()) {
            Some(account) => to_resource(account, kind, to.resource().unwrap_or_default(), receivers),
            None => to_nobody(kind),
        },
        Addressee::Bare(to) => match core.accounts.find(to.bare()) {
            Some(account) => to_account(account, kind, receivers),
            None => to_nobody(kind),
        },
    }
}

fn to_resource(account: &Account, kind: MessageType, name: &str, receivers: &mut Vec<ConnId>) -> Way {
    match account.resource_named(name) {
        // What waits in offline storage comes first, or the order of one sender's messages would break.
        Some(resource)
            if account.per.offline.drains_to() == Some(resource.conn)
                && matches!(kind, MessageType::Normal | MessageType::Chat) =>
        {
            Way::Offline
        }
        Some(resource) => {
            receivers.push(resource.conn);
            Way::Resources
        }
        None => match kind {
            MessageType::Normal | MessageType::Chat => to_account(account, kind, receivers),
            MessageType::Groupchat => Way::Error(StanzaError::SERVICE_UNAVAILABLE),
            MessageType::Headline | MessageType::Error => Way::Silence,
        },
    }
}

fn to_account(account: &Account, kind: MessageType, receivers: &mut Vec<ConnId>) -> Way {
    match kind {
        MessageType::Groupchat => return Way::Error(StanzaError::SERVICE_UNAVAILABLE),
        MessageType::Error => return Way::Silence,
        MessageType::Normal | MessageType::Chat if account.per.offline.is_draining() => return Way::Offline,
        MessageType::Normal | MessageType::Chat | MessageType::Headline => {}
    }
    let takes = account.resources.iter().filter(|resource| resource.per.presence.takes_messages());
    receivers.extend(takes.map(|resource| resource.conn));
    match (receivers.is_empty(), kind) {
        (false, _) => Way::Resources,
        (true, MessageType::Headline) => Way::Silence,
        (true, _) => Way::Offline,
    }
}

/// An account that is not in use, or does not exist: the store will tell which.
fn to_nobody(kind: MessageType) -> Way {
    match kind {
        MessageType::Normal | MessageType::Chat => Way::Offline,
        MessageType::Groupchat => Way::Error(StanzaError::SERVICE_UNAVAILABLE),
        MessageType::Headline | MessageType::Error => Way::Silence,
    }
}

/// Shows a message to the embedding program, if it wants to see them.
fn observe(core: &Core, conn: ConnId, account: AccountId, frame: &Frame<'_>, to: &JidRef<'_>, out: &mut Outputs) {
    if !core.observed {
        return;
    }
    let Some(resource) = core.accounts.get(account).resource(conn) else { return };
    let mut stanza = Vec::with_capacity(frame.xml.len() + 64);
    frame.splice_into(&resource.from, core.streams.get(conn).and_then(|stream| stream.lang.as_deref()), &mut stanza);
    out.delivered.push(Delivered { from: resource.jid.as_str().to_owned(), to: to.as_str().to_owned(), stanza });
}

/// A chat message of the embedding program, whole and valid, to an account of ours.
pub(crate) fn deliver_own(core: &mut Core, now: Now, from: Jid, to: &JidRef<'_>, stanza: &[u8], out: &mut Outputs) {
    let mut receivers = Vec::new();
    match way(core, MessageType::Chat, None, to, &mut receivers) {
        Way::Resources => {
            let verdict = mam::Verdict::of(core, now, &from, to);
            for receiver in receivers {
                out.wire.stanza(receiver, |buf| {
                    buf.extend_from_slice(stanza);
                    verdict.mark(buf, to.bare(), false);
                });
                core.counters.delivered += 1;
            }
            observe_own(core, &from, to, stanza, out);
            if verdict.is_archived() {
                core.ask(verdict.put(from, to, stanza.to_vec(), false), Waiting::Nobody, out);
            }
        }
        Way::Offline => {
            observe_own(core, &from, to, stanza, out);
            offline::keep_own(core, now, from, to, stanza, out);
        }
        Way::Error(_) | Way::Silence => {}
    }
}

fn observe_own(core: &Core, from: &Jid, to: &JidRef<'_>, stanza: &[u8], out: &mut Outputs) {
    if core.observed {
        let (from, to) = (from.as_str().to_owned(), to.as_str().to_owned());
        out.delivered.push(Delivered { from, to, stanza: stanza.to_vec() });
    }
}

/// A message that a resource got and never acknowledged, as it was routed: to the other resources, into the store, or nowhere.
/// `gone` is the resource, which is unbound by now.
pub(super) fn deliver_again(
    core: &mut Core,
    gone: &FullJid,
    sent: Sent,
    kind: Option<&str>,
    message: &Element<'_>,
    xml: &[u8],
    out: &mut Outputs,
) {
    let kind = MessageType::named(kind);
    // Without an address it is for the sender's own account.
    let own = message.attr("from").and_then(|from| JidRef::parse(from).ok()).map(|from| from.to_bare());
    let Some(Ok(to)) = message.attr("to").or(own.as_ref().map(|own| own.as_str())).map(JidRef::parse) else { return };
    // What an account's own server told one of its resources (a page of the archive, a copy) is for nobody else.
    if message.attr("from") == Some(to.bare()) {
        return;
    }
    let (is_for_one, copied) = match sent.mark {
        Mark::Shared(copied) => (false, copied),
        _ if to.as_str() == gone.as_str() => (true, NonZeroU64::new(sent.step)),
        _ => (false, None),
    };
    let copied = copied.filter(|_| carbons::is_copied(message));
    // Who was copied it was sent no more, and may have lost the copy since.
    let spared = |other: &Resource| copied.is_some_and(|step| other.per.carbons.was_on(step.get()));
    let had = |other: &Resource| other.per.presence.took_messages(sent.step) && !spared(other);
    let mut receivers = Vec::new();
    let way = match core.accounts.find(to.bare()) {
        _ if !kind.lasts() => Way::Silence,
        // What was not for that one alone went to all that took messages then.
        Some(account) if !is_for_one && account.resources.iter().any(had) => Way::Silence,
        // A new session may have the old one's name; it gets what waits when it takes messages.
        Some(account) => to_account(account, kind, &mut receivers),
        None => to_nobody(kind),
    };
    match way {
        Way::Resources => {
            if let Some(step) = copied {
                spare_copied(core, &to, step.get(), xml, &mut receivers, out);
            }
            let xml = offline::stamped(sent.at, &to, message, xml);
            for receiver in receivers {
                out.wire.shared_stanza(receiver, copied, |buf| buf.extend_from_slice(&xml));
            }
        }
        Way::Offline => offline::keep_again(core, sent.at, &to, message, xml, out),
        Way::Error(_) | Way::Silence => {}
    }
}

/// Takes those from `receivers` who were copied the message when it came. If that leaves none, one whose copy is still on its way
/// answers for the message from now on.
fn spare_copied(core: &Core, to: &JidRef<'_>, step: u64, xml: &[u8], receivers: &mut Vec<ConnId>, out: &mut Outputs) {
    let Some(account) = core.accounts.find(to.bare()) else { return };
    let was_on = |resource: &&Resource| resource.per.carbons.was_on(step);
    let copied: Vec<ConnId> = account.resources.iter().filter(was_on).map(|resource| resource.conn).collect();
    receivers.retain(|conn| !copied.contains(conn));
    if receivers.is_empty() {
        let content = xml.strip_prefix(b"<message").unwrap_or(xml);
        // The copy was made before the message was stamped for being late.
        let content = memmem::rfind(content, b"<delay").and_then(|end| content.get(..end)).unwrap_or(content);
        copied.into_iter().find(|conn| out.wire.mark_sole(*conn, step, content));
    }
}
