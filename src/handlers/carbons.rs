//! XEP-0280: Message Carbons: what one device of an account sends or gets, the others see too.
//!
//! A message that goes to all resources of an account is no carbon for those that got it. Errors are not copied: to know which
//! belong to a chat would take a memory of what was sent (section 6.1 leaves that open for servers).

use super::prelude::*;
use super::{csi, mam};
use crate::core::session::Account;
use crate::jid::FullJid;
use crate::xml::{Frame, Tree};

pub(super) const HANDLER: Handler = Handler {
    name: "carbons",
    spec: "XEP-0280 1.0.1",
    features: &[ns::CARBONS],
    account_features: &[ns::CARBONS],
    routes: &[
        iq_set(Target::Account, ns::CARBONS, "enable", enable),
        iq_set(Target::Account, ns::CARBONS, "disable", disable),
    ],
    bind2_feature: Some(ns::CARBONS),
    ..Handler::EMPTY
};

/// How every message begins that is copied.
const HEAD: &[u8] = b"<message";

/// Per bound resource.
#[derive(Default)]
pub(crate) struct State {
    /// In which step of the core it was enabled.
    enabled: Option<u64>,
}

impl State {
    /// For a session that begins with them in that step (XEP-0386).
    pub(super) fn begin(&mut self, step: u64) {
        self.enabled = Some(step);
    }

    /// Whether the resource was copied what came in that step to another one.
    pub(super) fn was_on(&self, step: u64) -> bool {
        self.enabled.is_some_and(|since| since <= step)
    }
}

fn enable(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    cx.resource_mut().per.carbons.enabled = Some(cx.core.steps);
    cx.out.reply_empty(cx.conn, iq);
    Ok(Done)
}

fn disable(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    cx.resource_mut().per.carbons.enabled = None;
    cx.out.reply_empty(cx.conn, iq);
    Ok(Done)
}

/// Copies a message that `receivers` have got to the other devices of both sides. One that nobody has got waits in the store for
/// the first device that takes messages, so the receiver's side is copied nothing: it would come twice.
pub(super) fn copy(core: &mut Core, copy: &mam::Copy<'_>, receivers: &[ConnId], out: &mut Outputs) {
    let mam::Copy { conn, frame, to, verdict, .. } = *copy;
    let own = core.accounts.get(copy.account);
    let other = core.accounts.find(to.bare()).filter(|other| other.jid != own.jid && !receivers.is_empty());
    let wants = |account: &Account| account.resources.iter().any(|resource| resource.per.carbons.enabled.is_some());
    if !(wants(own) || other.is_some_and(wants)) || !is_eligible(frame) {
        return;
    }
    let routed = copy.routed(core);
    let typing = csi::is_typing_only(frame);
    // Who typed is of no interest to a phone in a pocket.
    let spared = |resource: ConnId, out: &Outputs| {
        resource == conn || receivers.contains(&resource) || typing && out.wire.is_quiet(resource)
    };
    let mut full = Vec::new();
    for (name, account) in [("sent", Some(own)), ("received", other)] {
        let Some(account) = account else { continue };
        let mut inner = routed.clone();
        verdict.mark(&mut inner, account.jid.as_str(), name == "sent");
        for resource in account.resources.iter().filter(|resource| resource.per.carbons.enabled.is_some()) {
            if spared(resource.conn, out) {
                continue;
            }
            out.wire.stanza(resource.conn, |buf| write(buf, name, account, &resource.jid, frame.type_, &inner));
            if out.wire.pending(resource.conn) > core.limits.output_pause {
                full.push(resource.conn);
            }
        }
    }
    for receiver in full {
        core.press(conn, receiver, out);
    }
}

/// Copies what `conn` has said to an occupant of a room to the sender's other devices: the room tells its receiver's. `rest` is
/// what stands behind `<message`.
pub(super) fn copy_whisper(core: &mut Core, conn: ConnId, message: &Element<'_>, rest: &str, out: &mut Outputs) {
    let Some(account) = core.account_id(conn).map(|account| core.accounts.get(account)) else { return };
    if !is_copied(message) {
        return;
    }
    let inner = [HEAD, rest.as_bytes()].concat();
    let others = account.resources.iter().filter(|other| other.conn != conn && other.per.carbons.enabled.is_some());
    for other in others {
        out.wire.stanza(other.conn, |buf| write(buf, "sent", account, &other.jid, message.attr("type"), &inner));
    }
}

fn write(buf: &mut Vec<u8>, name: &'static str, account: &Account, to: &FullJid, kind: Option<&str>, inner: &[u8]) {
    let mut w = Writer::new(buf);
    w.open("message", ns::CLIENT).attr("from", &account.jid).attr("to", to.as_str());
    if let Some(kind) = kind {
        w.attr_escaped("type", kind);
    }
    w.open(name, ns::CARBONS).open("forwarded", ns::FORWARD);
    w.raw(HEAD).raw(b" xmlns='jabber:client'").raw(inner.strip_prefix(HEAD).unwrap_or_default());
}

/// What other devices want to see (section 6.1): chats, and of other messages those that belong to one.
fn is_eligible(frame: &Frame<'_>) -> bool {
    match frame.type_ {
        Some("groupchat" | "headline" | "error") => return false,
        // Nothing in it says no without naming one of these.
        Some("chat")
            if !frame.xml.contains(ns::CARBONS)
                && !frame.xml.contains(ns::HINTS)
                && !frame.xml.contains(ns::MUC_USER) =>
        {
            return true;
        }
        _ => {}
    }
    is_copied(&Tree::of(frame).root())
}

/// Whether a message was copied to those who wanted copies when it came.
pub(super) fn is_copied(message: &Element<'_>) -> bool {
    let kind = message.attr("type");
    let has = |name, ns| message.child(name, ns).is_some();
    if matches!(kind, Some("groupchat" | "headline" | "error"))
        || has("private", ns::CARBONS)
        || has("no-copy", ns::HINTS)
    {
        return false;
    }
    let belongs = |child: Element<'_>| {
        matches!(child.ns(), ns::RECEIPTS | ns::CHAT_STATES | ns::MARKERS | ns::MUC_USER | ns::MUC_INVITE)
            || child.is("body", ns::CLIENT)
    };
    kind == Some("chat") || message.children().any(belongs)
}

/// The copied message, in a copy of what another device got.
pub(super) fn received<'a>(copy: &Element<'a>) -> Option<Element<'a>> {
    copy.child("received", ns::CARBONS)?.child("forwarded", ns::FORWARD)?.child("message", ns::CLIENT)
}
