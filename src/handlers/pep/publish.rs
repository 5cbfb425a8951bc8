//! Publishing and retracting items (XEP-0060 sections 7.1 and 7.2).

use super::super::prelude::*;
use super::{ITEM_REQUIRED, ask, check_name, check_owner, form, ids_of, node_of, notify, on_changed, outcome, with};
use crate::core::pubsub::{Change, Item, Operation, Outcome};

pub(super) fn publish(cx: &mut Cx<'_>, iq: &Iq<'_>, request: &Element<'_>) -> Handled {
    check_owner(cx, iq)?;
    let node = node_of(request)?;
    let options = form::parse(iq.payload.child("publish-options", ns::PUBSUB))?;
    let mut items = request.children().filter(|child| child.is("item", ns::PUBSUB));
    let item = items.next().ok_or(ITEM_REQUIRED)?;
    if items.next().is_some() {
        return Err(with(StanzaError::BAD_REQUEST, "max-items-exceeded"));
    }
    let payload = payload(&item, cx.limits().pep_payload_bytes_max)?;
    let id = match item.attr("id").filter(|id| !id.is_empty()) {
        Some(id) => check_name(id)?.to_owned(),
        None => cx.core.ids.next_id(),
    };
    let publisher = cx.account().jid.as_str().to_owned();
    let item = Item { id, publisher, at: cx.now.utc, payload };
    ask(cx, iq, node, Operation::Publish { item, options }, String::new(), on_published)
}

/// The one element inside an item, so that it stands by itself.
fn payload(item: &Element<'_>, bytes_max: usize) -> Result<Vec<u8>, StanzaError> {
    if item.children().next().is_none() {
        return Err(with(StanzaError::BAD_REQUEST, "payload-required"));
    }
    let element = item.only_child().ok_or(with(StanzaError::BAD_REQUEST, "invalid-payload"))?;
    let mut payload = Vec::new();
    // Items and notifications are of different namespaces, so it always says its own: no element can inherit this one.
    element.write_standalone(ns::XML, &mut payload);
    if payload.len() > bytes_max {
        return Err(with(StanzaError::NOT_ACCEPTABLE, "payload-too-big"));
    }
    Ok(payload)
}

fn on_published(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { core, conn, iq, out, .. } = resumed;
    let Outcome::Told(events) = outcome(reply)? else { return Err(StanzaError::INTERNAL_SERVER_ERROR) };
    let event = events.first().ok_or(StanzaError::INTERNAL_SERVER_ERROR)?;
    out.reply(conn, iq, |w| {
        w.open("pubsub", ns::PUBSUB).open("publish", ns::PUBSUB).attr("node", &event.node);
        if let Change::Published(item) = &event.change {
            w.open("item", ns::PUBSUB).attr("id", &item.id).close();
        }
    });
    notify::tell(core, conn, &events, out);
    Ok(())
}

pub(super) fn retract(cx: &mut Cx<'_>, iq: &Iq<'_>, request: &Element<'_>) -> Handled {
    check_owner(cx, iq)?;
    let node = node_of(request)?;
    let ids = ids_of(request)?;
    if ids.is_empty() {
        return Err(ITEM_REQUIRED);
    }
    let notify = matches!(request.attr("notify"), Some("1" | "true"));
    ask(cx, iq, node, Operation::Retract { ids, notify }, String::new(), on_changed)
}
