//! RFC 6121 section 2: the roster.
//!
//! An account's roster is read from the store when its first resource binds and stays in memory while any is bound. Memory
//! follows the store and never precedes it: a change is parsed, stored, and only then applied, pushed and acknowledged, so a
//! power cut can lose an unacknowledged change but never an acknowledged one.
//!
//! A client owns an item's name and groups; the subscription state belongs to `subscription`. [`StoreRequest::RosterPut`] carries
//! only the client's part, which is why a roster set cannot forge a subscription.

use super::prelude::*;
use super::{shared_contacts, subscription};
use crate::core::effects::Half;
use crate::core::roster::{Item, RosterVersion};
use crate::core::{Limits, stream::Stream};
use crate::handlers::StreamPhase;
use crate::jid::{BareJid, JidRef};

pub(super) const HANDLER: Handler = Handler {
    name: "roster",
    spec: "RFC 6121 section 2",
    features: &[ns::ROSTER],
    routes: &[iq_get(Target::Account, ns::ROSTER, "query", get), iq_set(Target::Account, ns::ROSTER, "query", set)],
    stream_features: Some(advertise),
    ..Handler::EMPTY
};

/// Per bound resource.
#[derive(Default)]
pub(crate) struct State {
    /// Has asked for the roster, so it is told of changes.
    pub(super) interested: bool,
}

fn advertise(_: &Core, _: &Stream, phase: StreamPhase, w: &mut Writer<'_>) {
    if phase.is_authed() {
        w.empty("ver", ns::ROSTER_VERSIONING).empty("sub", ns::PRE_APPROVAL);
    }
}

fn get(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    cx.resource_mut().per.roster.interested = true;
    let Cx { core, out, conn, .. } = cx;
    let Some(account) = core.account_id(*conn).map(|id| core.accounts.get(id)) else { return Ok(Done) };
    let version = shared_contacts::version(core, &account.jid, account.roster.version);

    // An unchanged roster is an empty result, without even the query element (section 2.6.3).
    if iq.payload.attr("ver") == Some(&version) {
        out.reply_empty(*conn, iq);
        return Ok(Done);
    }
    out.reply(*conn, iq, |w| {
        w.open("query", ns::ROSTER).attr("ver", version);
        shared_contacts::each_item(core, account, |jid, item| write_item(w, jid, item));
    });
    Ok(Done)
}

fn set(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let user = cx.account().jid.clone();
    let request = match Change::parse(&iq.payload, cx.limits())? {
        Change::Put { jid, .. } | Change::Remove { jid } if jid == user => {
            return Err(StanzaError::NOT_ALLOWED.text("An account cannot be its own contact."));
        }
        Change::Remove { jid } if shared_contacts::is_shared(cx.core, &user, jid.as_str()) => {
            return Err(shared_contacts::IS_SHARED);
        }
        Change::Put { jid, name, groups } => StoreRequest::RosterPut { user, jid, name, groups },
        Change::Remove { jid } => StoreRequest::RosterRemove { user, jid },
    };
    cx.ask(request, iq.park(), on_stored)
}

/// The change is durable. The asking resource may have gone meanwhile: the reply is then nothing, the push is not.
fn on_stored(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { core, conn, iq, out, .. } = resumed;
    let Stored::Halves { user, contact, .. } = reply? else { return Err(StanzaError::INTERNAL_SERVER_ERROR) };
    if user.item.is_none() {
        subscription::settle_removal(core, &user, contact.as_deref(), out);
    } else {
        apply(core, &user);
        push(core, &user, out);
    }
    out.reply_empty(conn, iq);
    Ok(())
}

/// Brings one side's roster in memory to what the store has, if the account is in use.
pub(super) fn apply(core: &mut Core, half: &Half) {
    let Some(account) = core.accounts.find_mut(half.account.as_str()) else { return };
    let roster = &mut account.roster;
    roster.version = half.version;
    match &half.item {
        Some(item) => drop(roster.items.insert(half.jid.clone(), item.clone())),
        None => drop(roster.items.remove(half.jid.as_str())),
    }
    match &half.request {
        Some(request) => drop(roster.requests.insert(half.jid.clone(), request.clone())),
        None => drop(roster.requests.remove(half.jid.as_str())),
    }
}

/// [`push`], if there is something new to tell. A request that waits for an answer is not (section 3.1.3).
pub(super) fn push_change(core: &mut Core, half: &Half, out: &mut Outputs) {
    if half.item != half.before {
        push(core, half, out);
    }
}

/// Tells one side's interested resources of the item as it is now (section 2.1.6).
fn push(core: &mut Core, half: &Half, out: &mut Outputs) {
    push_item(core, &half.account, &half.jid, half.version, half.item.as_ref(), out);
}

/// The same where nothing has changed in the store.
pub(super) fn push_current(core: &mut Core, user: &BareJid, jid: &BareJid, out: &mut Outputs) {
    let Some(account) = core.accounts.find(user.as_str()) else { return };
    let (version, item) = (account.roster.version, account.roster.items.get(jid.as_str()).cloned());
    push_item(core, user, jid, version, item.as_ref(), out);
}

fn push_item(
    core: &mut Core,
    user: &BareJid,
    jid: &BareJid,
    version: RosterVersion,
    item: Option<&Item>,
    out: &mut Outputs,
) {
    let version = shared_contacts::version(core, user, version);
    let item = shared_contacts::shown(core, user, jid, item);
    let Core { accounts, ids, .. } = core;
    let Some(account) = accounts.find(user.as_str()) else { return };
    for resource in account.resources.iter().filter(|resource| resource.per.roster.interested) {
        out.wire.stanza(resource.conn, |buf| {
            let mut w = Writer::new(buf);
            w.open("iq", ns::CLIENT).attr("type", "set").attr("id", ids.next_id()).attr("to", resource.jid.as_str());
            write_query(&mut w, &version, jid, item.as_ref());
        });
    }
}

fn write_query(w: &mut Writer<'_>, version: &str, jid: &BareJid, item: Option<&Item>) {
    w.open("query", ns::ROSTER).attr("ver", version);
    match item {
        Some(item) => write_item(w, jid, item),
        None => {
            w.open("item", ns::ROSTER).attr("jid", jid).attr("subscription", "remove").close();
        }
    }
    w.close();
}

fn write_item(w: &mut Writer<'_>, jid: &BareJid, item: &Item) {
    w.open("item", ns::ROSTER).attr("jid", jid);
    w.attr_opt("name", (!item.name.is_empty()).then_some(&item.name));
    w.attr("subscription", item.subscription.name());
    w.attr_opt("ask", item.ask.then_some("subscribe"));
    w.attr_opt("approved", item.approved.then_some("true"));
    for group in &item.groups {
        w.text_element("group", group);
    }
    w.close();
}

/// What a roster set asks for; a value of this type has passed section 2.3.3.
enum Change {
    Put { jid: BareJid, name: String, groups: Vec<String> },
    Remove { jid: BareJid },
}

impl Change {
    fn parse(query: &Element<'_>, limits: &Limits) -> Result<Change, StanzaError> {
        let item = query.only_child().filter(|item| item.is("item", ns::ROSTER)).ok_or(StanzaError::BAD_REQUEST)?;
        let jid =
            JidRef::parse(item.attr("jid").ok_or(StanzaError::BAD_REQUEST)?).map_err(|_| StanzaError::JID_MALFORMED)?;
        if !jid.is_bare() {
            return Err(StanzaError::BAD_REQUEST.text("A roster item is a bare JID."));
        }
        let jid = jid.to_bare();

        // Any other value is the client repeating what it was told; the standard says to ignore it.
        if item.attr("subscription") == Some("remove") {
            return Ok(Change::Remove { jid });
        }
        let name = item.attr("name").unwrap_or_default();
        if name.len() > limits.roster_name_bytes_max {
            return Err(StanzaError::NOT_ACCEPTABLE.text("The name is too long."));
        }
        Ok(Change::Put { jid, name: name.to_owned(), groups: parse_groups(&item, limits)? })
    }
}

fn parse_groups(item: &Element<'_>, limits: &Limits) -> Result<Vec<String>, StanzaError> {
    let mut groups: Vec<String> = Vec::new();
    for group in item.children().filter(|child| child.is("group", ns::ROSTER)) {
        let group = group.text();
        if group.is_empty() || group.len() > limits.roster_name_bytes_max {
            return Err(StanzaError::NOT_ACCEPTABLE.text("A group's name is empty or too long."));
        }
        if groups.iter().any(|known| **known == *group) {
            return Err(StanzaError::BAD_REQUEST.text("A group is named twice."));
        }
        if groups.len() >= limits.roster_groups_max {
            return Err(StanzaError::NOT_ACCEPTABLE.text("The contact is in too many groups."));
        }
        groups.push(group.into_owned());
    }
    Ok(groups)
}
