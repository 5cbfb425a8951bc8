//! XEP-0163: Personal Eventing, on the part of XEP-0060 that it profiles.
//!
//! Every account is a service for its own nodes: it alone publishes, its contacts are told. Who may read is decided in the store,
//! next to the data (`store::pubsub`); here requests are parsed (`publish`, `items`, `nodes`), readers are told (`notify`), and it
//! is found out what their clients want to hear of (`caps`). What is refused looks the same whether there is no account, no node,
//! or a block.
//!
//! Deliberately absent: publishing by others, subscriptions that wait for approval, subscription options, collections.

mod caps;
mod form;
mod items;
mod nodes;
mod notify;
mod publish;

use super::prelude::*;
use super::{Answer, iq_get, iq_set};
use crate::core::error::ErrorType;
use crate::core::pubsub::{Operation, Outcome, Refusal};
use crate::core::router::Then;

pub(crate) use caps::{Known, State, on_flushed, on_gone, on_presence, on_seen};
pub(super) use notify::tell_readers;
pub(crate) use notify::{Run, on_last_items};

pub(super) const HANDLER: Handler = Handler {
    name: "pep",
    spec: "XEP-0163 1.2, XEP-0060 1.26",
    // Of an account; profanity looks for it here, and publishes no keys where it is missing.
    features: &["http://jabber.org/protocol/pubsub#publish-options"],
    account_features: &[
        ns::PUBSUB,
        "http://jabber.org/protocol/pubsub#access-open",
        "http://jabber.org/protocol/pubsub#access-presence",
        "http://jabber.org/protocol/pubsub#access-roster",
        "http://jabber.org/protocol/pubsub#access-whitelist",
        "http://jabber.org/protocol/pubsub#auto-create",
        "http://jabber.org/protocol/pubsub#auto-subscribe",
        "http://jabber.org/protocol/pubsub#config-node",
        "http://jabber.org/protocol/pubsub#config-node-max",
        "http://jabber.org/protocol/pubsub#create-and-configure",
        "http://jabber.org/protocol/pubsub#create-nodes",
        "http://jabber.org/protocol/pubsub#delete-items",
        "http://jabber.org/protocol/pubsub#delete-nodes",
        "http://jabber.org/protocol/pubsub#filtered-notifications",
        "http://jabber.org/protocol/pubsub#item-ids",
        "http://jabber.org/protocol/pubsub#last-published",
        "http://jabber.org/protocol/pubsub#member-affiliation",
        "http://jabber.org/protocol/pubsub#meta-data",
        "http://jabber.org/protocol/pubsub#modify-affiliations",
        "http://jabber.org/protocol/pubsub#multi-items",
        "http://jabber.org/protocol/pubsub#outcast-affiliation",
        "http://jabber.org/protocol/pubsub#persistent-items",
        "http://jabber.org/protocol/pubsub#presence-notifications",
        "http://jabber.org/protocol/pubsub#publish",
        "http://jabber.org/protocol/pubsub#publish-options",
        "http://jabber.org/protocol/pubsub#purge-nodes",
        "http://jabber.org/protocol/pubsub#retract-items",
        "http://jabber.org/protocol/pubsub#retrieve-default",
        "http://jabber.org/protocol/pubsub#retrieve-items",
        "http://jabber.org/protocol/pubsub#rsm",
        "http://jabber.org/protocol/pubsub#subscribe",
    ],
    account_identities: &[("pubsub", "pep")],
    routes: &[
        iq_get(Target::Account, ns::PUBSUB, "pubsub", get),
        iq_set(Target::Account, ns::PUBSUB, "pubsub", set),
        iq_get(Target::Account, ns::PUBSUB_OWNER, "pubsub", nodes::get),
        iq_set(Target::Account, ns::PUBSUB_OWNER, "pubsub", nodes::set),
        iq_get(Target::Peer, ns::PUBSUB, "pubsub", get),
        iq_set(Target::Peer, ns::PUBSUB, "pubsub", set),
        iq_get(Target::Peer, ns::PUBSUB_OWNER, "pubsub", nodes::get),
        iq_set(Target::Peer, ns::PUBSUB_OWNER, "pubsub", nodes::set),
    ],
    answer: Some(caps::on_answer),
    ..Handler::EMPTY
};

/// The longest name of a node or id of an item, in bytes: a bookmark's id is a JID.
const NAME_BYTES_MAX: usize = 3071;

fn get(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let request = iq.payload.children().next().ok_or(StanzaError::BAD_REQUEST)?;
    match request.name() {
        "items" => items::get(cx, iq, &request),
        _ => Err(StanzaError::FEATURE_NOT_IMPLEMENTED),
    }
}

fn set(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let request = iq.payload.children().next().ok_or(StanzaError::BAD_REQUEST)?;
    match request.name() {
        "publish" => publish::publish(cx, iq, &request),
        "retract" => publish::retract(cx, iq, &request),
        "create" => nodes::create(cx, iq, &request),
        "subscribe" => items::subscribe(cx, iq, &request),
        "unsubscribe" => items::unsubscribe(cx, iq, &request),
        _ => Err(StanzaError::FEATURE_NOT_IMPLEMENTED),
    }
}

/// An error with a condition of XEP-0060.
const fn with(error: StanzaError, condition: &'static str) -> StanzaError {
    StanzaError { application: Some((condition, ns::PUBSUB_ERRORS)), ..error }
}

const NODE_REQUIRED: StanzaError = with(StanzaError::BAD_REQUEST, "nodeid-required");
const ITEM_REQUIRED: StanzaError = with(StanzaError::BAD_REQUEST, "item-required");
const INVALID_OPTIONS: StanzaError = with(StanzaError::NOT_ACCEPTABLE, "invalid-options");

impl From<Refusal> for StanzaError {
    fn from(refusal: Refusal) -> StanzaError {
        match refusal {
            Refusal::NotFound => StanzaError::ITEM_NOT_FOUND,
            Refusal::Exists => StanzaError::CONFLICT,
            Refusal::PresenceRequired => with(StanzaError::NOT_AUTHORIZED, "presence-subscription-required"),
            Refusal::NotInGroup => with(StanzaError::NOT_AUTHORIZED, "not-in-roster-group"),
            Refusal::Closed => with(StanzaError::NOT_ALLOWED, "closed-node"),
            Refusal::Forbidden => StanzaError::FORBIDDEN,
            Refusal::Precondition => with(StanzaError::CONFLICT, "precondition-not-met"),
            Refusal::Options => INVALID_OPTIONS,
            Refusal::NodesMax => with(StanzaError::CONFLICT, "max-nodes-exceeded"),
            Refusal::Full => StanzaError::RESOURCE_CONSTRAINT,
            Refusal::NotSubscribed => with(StanzaError::UNEXPECTED_REQUEST.kind(ErrorType::Cancel), "not-subscribed"),
        }
    }
}

/// The node that a request names.
fn node_of<'t>(request: &Element<'t>) -> Result<&'t str, StanzaError> {
    let node = request.attr("node").filter(|node| !node.is_empty()).ok_or(NODE_REQUIRED)?;
    check_name(node)
}

fn check_name(name: &str) -> Result<&str, StanzaError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(StanzaError::NOT_ACCEPTABLE.text("The name is too long."));
    }
    Ok(name)
}

/// Ids of the items that a request names.
fn ids_of(request: &Element<'_>) -> Result<Vec<String>, StanzaError> {
    let items = request.children().filter(|child| child.name() == "item" && child.ns() == request.ns());
    items.map(|item| item.attr("id").map(str::to_owned).ok_or(ITEM_REQUIRED)).collect()
}

/// Refuses what is for the owner alone.
fn check_owner(cx: &Cx<'_>, iq: &Iq<'_>) -> Result<(), StanzaError> {
    if *iq.addressee == cx.account().jid { Ok(()) } else { Err(StanzaError::FORBIDDEN) }
}

/// Asks the store for an operation on a node of the addressee; `note` is for `then`.
fn ask(cx: &mut Cx<'_>, iq: &Iq<'_>, node: &str, operation: Operation, note: String, then: Then) -> Handled {
    let mut parked = iq.park();
    parked.note = Some(note.into());
    let (owner, asker, at) = (iq.addressee.clone(), cx.account().jid.clone(), cx.now.utc);
    cx.ask(StoreRequest::Pubsub { owner, asker, node: node.to_owned(), operation, at }, parked, then)
}

fn outcome(reply: StoreReply) -> Result<Outcome, StanzaError> {
    match reply? {
        Stored::Pubsub(Outcome::Refused(refusal)) => Err(refusal.into()),
        Stored::Pubsub(outcome) => Ok(outcome),
        _ => Err(StanzaError::INTERNAL_SERVER_ERROR),
    }
}

/// A change without a result of its own is durable.
fn on_changed(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { core, conn, iq, out, .. } = resumed;
    let outcome = outcome(reply)?;
    out.reply_empty(conn, iq);
    if let Outcome::Told(events) = outcome {
        notify::tell(core, conn, &events, out);
    }
    Ok(())
}

/// Tells readers of what has changed in nodes along with something else.
pub(super) fn tell_stored(core: &mut Core, conn: ConnId, stored: &Stored, out: &mut Outputs) {
    if let Stored::Told(events) = stored {
        events.iter().for_each(|event| notify::tell_readers(core, conn, event, out));
    }
}

/// Asks which nodes of the addressee the sender may read; for disco.
pub(super) fn ask_nodes(cx: &mut Cx<'_>, iq: &Iq<'_>, note: String, then: Then) -> Handled {
    ask(cx, iq, "", Operation::Nodes, note, then)
}

/// The answer to [`ask_nodes`]: names and titles.
pub(super) fn nodes_of(reply: StoreReply) -> Result<Vec<(String, String)>, StanzaError> {
    match outcome(reply)? {
        Outcome::Nodes(nodes) => Ok(nodes),
        _ => Err(StanzaError::INTERNAL_SERVER_ERROR),
    }
}

/// A question for a node of the addressee (XEP-0060 section 5.3); for disco.
pub(super) fn describe(cx: &mut Cx<'_>, iq: &Iq<'_>, node: &str) -> Handled {
    ask(cx, iq, node, Operation::Info, node.to_owned(), nodes::on_described)
}
