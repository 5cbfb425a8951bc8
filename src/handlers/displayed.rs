//! XEP-0490: how far a user has read, told to his other devices; with the server's help (section 4).
//!
//! The node is an ordinary one that nobody else may read. A client that tells its contact that it has read a message may put the
//! note for its own devices into that very message: it is taken out and published here.

use super::prelude::*;
use super::{mam, pep};
use crate::core::parked::Waiting;
use crate::core::pubsub::{Item, Operation, Outcome};
use crate::core::session::AccountId;
use crate::jid::JidRef;
use crate::xml::{Frame, Tree};
use memchr::memmem;

pub(super) const HANDLER: Handler = Handler {
    name: "displayed",
    spec: "XEP-0490 1.0.1",
    account_features: &["urn:xmpp:mds:server-assist:0"],
    ..Handler::EMPTY
};

/// Publishes what a message of the account to `to` says of how far it has read.
pub(super) fn publish(
    core: &mut Core,
    now: Now,
    account: AccountId,
    frame: &Frame<'_>,
    to: &JidRef<'_>,
    out: &mut Outputs,
) {
    if memmem::find(frame.xml.as_bytes(), ns::DISPLAYED.as_bytes()).is_none() || !core.store_has_room() {
        return;
    }
    let tree = Tree::of(frame);
    let Some(displayed) = tree.root().child("displayed", ns::DISPLAYED) else { return };
    let mut payload = Vec::new();
    displayed.write_standalone(ns::XML, &mut payload);
    if payload.len() > core.limits.pep_payload_bytes_max {
        return;
    }
    let user = core.accounts.get(account).jid.clone();
    let item = Item { id: to.as_str().to_owned(), publisher: user.as_str().to_owned(), at: now.utc, payload };
    let operation = Operation::Publish { item, options: Vec::new() };
    let then = |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        if let Ok(Stored::Pubsub(Outcome::Told(events))) = reply {
            events.iter().for_each(|event| pep::tell_readers(core, conn, event, out));
        }
    };
    let (owner, asker, node) = (user.clone(), user, ns::DISPLAYED.to_owned());
    let request = StoreRequest::Pubsub { owner, asker, node, operation, at: now.utc };
    core.ask(request, Waiting::Detached { conn: ConnId::NOBODY, then: Box::new(then) }, out);
}

/// A message on its way into a room, without what is for the sender's own devices.
pub(super) fn strip(xml: &mut Vec<u8>) {
    if memmem::find(xml, ns::DISPLAYED.as_bytes()).is_some() {
        *xml = mam::without(std::mem::take(xml), |child| child.is("displayed", ns::DISPLAYED));
    }
}
