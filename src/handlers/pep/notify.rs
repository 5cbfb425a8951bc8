//! Who is told of what (XEP-0163 section 4.3).
//!
//! Notifications go to the owner's and its contacts' resources whose capabilities ask for the node, and to who has subscribed.
//! The store has checked who may read; what is left to see here is who is here, and whether he has blocked the owner.

use super::super::{avatar, prelude::*, shared_contacts};
use crate::core::parked::Waiting;
use crate::core::pubsub::{Change, Event, Item, LastItem};
use crate::core::session::{Account, Resource};
use crate::jid::{BareJid, FullJid};

use super::caps::Interests;

/// Owners whose last items are read with one request.
const OWNERS_AT_ONCE: usize = 32;

/// An owner's request has changed something: readers are told, and what hangs on it follows.
pub(super) fn tell(core: &mut Core, conn: ConnId, events: &[Event], out: &mut Outputs) {
    events.iter().for_each(|event| tell_readers(core, conn, event, out));
    let Some(owner) = events.first().map(|event| &event.owner) else { return };
    let changed = |nodes: &[&str]| events.iter().any(|event| nodes.contains(&event.node.as_str()));
    if changed(&[ns::AVATAR_METADATA, ns::AVATAR_DATA]) {
        avatar::refresh(core, conn, owner, out);
    }
    if changed(&[ns::NICK, ns::VCARD4_NODE]) {
        shared_contacts::on_renamed(core, owner, out);
    }
}

/// Tells everybody of an event; `conn` is whose request it was, and waits for receivers that are full.
pub(in super::super) fn tell_readers(core: &mut Core, conn: ConnId, event: &Event, out: &mut Outputs) {
    let mut receivers: Vec<(ConnId, String)> = Vec::new();
    for jid in std::iter::once(&event.owner).chain(&event.readers) {
        let Some(account) = hearing(core, jid.as_str(), &event.owner) else { continue };
        let wanting = account.resources.iter().filter(|resource| resource.per.pep.wants(&event.node));
        receivers.extend(wanting.map(|resource| (resource.conn, resource.jid.as_str().to_owned())));
    }
    for jid in &event.subscribers {
        let Some(account) = hearing(core, jid.bare(), &event.owner) else { continue };
        let meant = |resource: &&Resource| match jid.resource() {
            Some(name) => resource.jid.resource() == name,
            None => resource.per.presence.is_available(),
        };
        for resource in account.resources.iter().filter(meant) {
            // Who hears of it by his capabilities already does not hear it twice.
            if !receivers.iter().any(|(conn, _)| *conn == resource.conn) {
                receivers.push((resource.conn, jid.as_str().to_owned()));
            }
        }
    }
    for (receiver, to) in receivers {
        let own = core.account_id(receiver).is_some_and(|account| core.accounts.get(account).jid == event.owner);
        match &event.change {
            // Of contacts an inactive client hears when it is active again; its own devices' bookmarks and the like matter.
            Change::Published(item) if !own => {
                out.wire
                    .news(receiver, (event.owner.as_str(), &event.node, &item.id), |buf| write_event(buf, event, &to));
            }
            _ => out.wire.stanza(receiver, |buf| write_event(buf, event, &to)),
        }
        core.press(conn, receiver, out);
    }
}

/// An account in use that has not blocked the owner.
fn hearing<'c>(core: &'c Core, jid: &str, owner: &BareJid) -> Option<&'c Account> {
    core.accounts.find(jid).filter(|account| !account.per.blocking.blocks_prepared(owner.as_str()))
}

fn open_event<'b>(buf: &'b mut Vec<u8>, owner: &str, to: &str) -> Writer<'b> {
    let mut w = Writer::new(buf);
    w.open("message", ns::CLIENT).attr("type", "headline").attr("from", owner).attr("to", to);
    w.open("event", ns::PUBSUB_EVENT);
    w
}

fn write_event(buf: &mut Vec<u8>, event: &Event, to: &str) {
    let mut w = open_event(buf, event.owner.as_str(), to);
    let node = &event.node;
    match &event.change {
        Change::Published(item) => write_item(&mut w, node, item),
        Change::Retracted(ids) => {
            w.open("items", ns::PUBSUB_EVENT).attr("node", node);
            for id in ids {
                w.open("retract", ns::PUBSUB_EVENT).attr("id", id).close();
            }
        }
        Change::Purged => drop(w.open("purge", ns::PUBSUB_EVENT).attr("node", node)),
        Change::Deleted => drop(w.open("delete", ns::PUBSUB_EVENT).attr("node", node)),
    }
}

fn write_item(w: &mut Writer<'_>, node: &str, item: &Item) {
    w.open("items", ns::PUBSUB_EVENT).attr("node", node);
    w.open("item", ns::PUBSUB_EVENT).attr("id", &item.id);
    if !item.payload.is_empty() {
        w.raw(&item.payload);
    }
    w.close().close();
}

/// A last item to one connection, with the time when it was published (section 4.3.4).
pub(super) fn send_last(conn: ConnId, owner: &str, to: &str, node: &str, item: &Item, out: &mut Outputs) {
    out.wire.news(conn, (owner, node, &item.id), |buf| {
        let mut w = open_event(buf, owner, to);
        write_item(&mut w, node, item);
        w.close().open("delay", ns::DELAY).attr("stamp", item.at);
    });
}

/// A resource that gets the last items of all it may read.
pub(crate) struct Run {
    /// To whom. It may have gone, and come again as another session.
    to: FullJid,
    /// Tells this run from others of the same resource.
    pub(super) serial: u64,
    /// Whose nodes are still to be read.
    owners: Vec<BareJid>,
    nodes: Interests,
}

impl Run {
    /// One that reads the nodes of these owners, last one first.
    pub(super) fn new(to: FullJid, serial: u64, owners: Vec<BareJid>, nodes: Interests) -> Box<Run> {
        Box::new(Run { to, serial, owners, nodes })
    }
}

/// Reads the next owners' nodes. Nothing is read where the store is busy: it is news, not mail.
pub(super) fn go_on(core: &mut Core, mut run: Box<Run>, out: &mut Outputs) {
    if run.owners.is_empty() || !core.store_has_room() {
        return;
    }
    let rest = run.owners.len().saturating_sub(OWNERS_AT_ONCE);
    let mut owners = run.owners.split_off(rest);
    owners.reverse();
    let request = StoreRequest::LastItems { owners, reader: run.to.to_bare(), nodes: run.nodes.clone() };
    core.ask(request, Waiting::LastItems(run), out);
}

/// The store has read some.
pub(crate) fn on_last_items(core: &mut Core, run: Box<Run>, reply: StoreReply, out: &mut Outputs) {
    let Ok(Stored::LastItems(items)) = reply else { return };
    let Some(account) = core.accounts.find(run.to.bare()) else { return };
    let Some(resource) = account.resource_named(run.to.resource()) else { return };
    if !resource.per.pep.hears(run.serial) {
        return;
    }
    let conn = resource.conn;
    for LastItem { owner, node, item } in &items {
        if !account.per.blocking.blocks_prepared(owner.as_str()) {
            send_last(conn, owner.as_str(), run.to.as_str(), node, item, out);
        }
    }
    if out.wire.pending(conn) > core.limits.output_pause {
        super::caps::wait(core, conn, run, out);
    } else {
        go_on(core, run, out);
    }
}
