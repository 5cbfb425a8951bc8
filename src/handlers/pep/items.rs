//! Reading items and subscribing to them (XEP-0060 sections 6.1, 6.2 and 6.5; XEP-0059 for pages).

use super::super::prelude::*;
use super::{ask, ids_of, node_of, notify, on_changed, outcome, with};
use crate::core::pubsub::{Item, Operation, Outcome, Wanted};
use crate::jid::{Jid, JidRef};

/// Stands between the parts of a note; no XML text holds it.
const BETWEEN: char = '\0';

pub(super) fn get(cx: &mut Cx<'_>, iq: &Iq<'_>, request: &Element<'_>) -> Handled {
    let node = node_of(request)?;
    let wanted = wanted(iq, request)?;
    // What the answer shows of the place of its items: always, if they are fewer than these, or not at all.
    let shown = match &wanted {
        Wanted::Page { .. } => "page".to_owned(),
        Wanted::Recent(max) => max.to_string(),
        Wanted::Ids(_) => "0".to_owned(),
    };
    let bytes_max = cx.limits().output_max / 4;
    let note = format!("{node}{BETWEEN}{shown}");
    ask(cx, iq, node, Operation::Items { wanted, bytes_max }, note, on_items)
}

fn number(text: &str) -> Result<usize, StanzaError> {
    text.trim().parse::<u32>().map(|number| number as usize).map_err(|_| StanzaError::BAD_REQUEST)
}

fn wanted(iq: &Iq<'_>, request: &Element<'_>) -> Result<Wanted, StanzaError> {
    let ids = ids_of(request)?;
    if !ids.is_empty() {
        return Ok(Wanted::Ids(ids));
    }
    if let Some(max) = request.attr("max_items") {
        return Ok(Wanted::Recent(number(max)?));
    }
    let Some(set) = iq.payload.child("set", ns::RSM) else { return Ok(Wanted::Recent(u32::MAX as usize)) };
    let text = |name| set.child(name, ns::RSM).map(|child: Element<'_>| child.text().into_owned());
    let max = text("max").map_or(Ok(u32::MAX as usize), |max| number(&max))?;
    Ok(Wanted::Page { after: text("after"), before: text("before"), max })
}

fn on_items(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { conn, iq, out, .. } = resumed;
    let Outcome::Items { items, count, index } = outcome(reply)? else {
        return Err(StanzaError::INTERNAL_SERVER_ERROR);
    };
    let (node, shown) = iq.note.as_deref().and_then(|note| note.split_once(BETWEEN)).unwrap_or_default();
    let paged = shown.parse().map_or(true, |wanted: usize| items.len() < wanted.min(count));
    out.reply(conn, iq, |w| {
        w.open("pubsub", ns::PUBSUB).open("items", ns::PUBSUB).attr("node", node);
        for item in &items {
            w.open("item", ns::PUBSUB).attr("id", &item.id).raw(&item.payload).close();
        }
        w.close();
        if paged {
            write_place(w, &items, count, index);
        }
    });
    Ok(())
}

fn write_place(w: &mut Writer<'_>, items: &[Item], count: usize, index: usize) {
    w.open("set", ns::RSM);
    if let (Some(first), Some(last)) = (items.first(), items.last()) {
        w.open("first", ns::RSM).attr("index", index).text(&first.id).close();
        w.text_element("last", &last.id);
    }
    w.text_element("count", count).close();
}

/// The address of a subscription: the asker's own, bare or full.
fn own_address(cx: &mut Cx<'_>, request: &Element<'_>) -> Result<Jid, StanzaError> {
    const INVALID: StanzaError = with(StanzaError::BAD_REQUEST, "invalid-jid");
    let jid = JidRef::parse(request.attr("jid").ok_or(INVALID)?).map_err(|_| INVALID)?;
    let full = cx.resource_mut().jid.clone();
    match jid.as_str() == full.as_str() || jid.as_str() == full.bare() {
        true => Ok(jid.to_owned_jid()),
        false => Err(INVALID),
    }
}

pub(super) fn subscribe(cx: &mut Cx<'_>, iq: &Iq<'_>, request: &Element<'_>) -> Handled {
    let node = node_of(request)?;
    let jid = own_address(cx, request)?;
    let note = format!("{node}{BETWEEN}{jid}{BETWEEN}{}", iq.addressee);
    ask(cx, iq, node, Operation::Subscribe { jid }, note, on_subscribed)
}

fn on_subscribed(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { conn, iq, out, .. } = resumed;
    let Outcome::Subscribed(last) = outcome(reply)? else { return Err(StanzaError::INTERNAL_SERVER_ERROR) };
    let mut parts = iq.note.as_deref().unwrap_or_default().split(BETWEEN);
    let mut part = || parts.next().unwrap_or_default();
    let (node, jid, owner) = (part(), part(), part());
    out.reply(conn, iq, |w| {
        w.open("pubsub", ns::PUBSUB).open("subscription", ns::PUBSUB);
        w.attr("node", node).attr("jid", jid).attr("subscription", "subscribed");
    });
    if let Some(item) = last {
        notify::send_last(conn, owner, jid, node, &item, out);
    }
    Ok(())
}

pub(super) fn unsubscribe(cx: &mut Cx<'_>, iq: &Iq<'_>, request: &Element<'_>) -> Handled {
    let node = node_of(request)?;
    let jid = own_address(cx, request)?;
    ask(cx, iq, node, Operation::Unsubscribe { jid }, String::new(), on_changed)
}
