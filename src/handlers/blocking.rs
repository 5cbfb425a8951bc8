//! XEP-0191: Blocking Command.
//!
//! Who is blocked sees the account as if it were not there: presence and subscription requests vanish, messages and requests come
//! back with `service-unavailable`. What the account sends to a blocked address is refused. For an account that is not in use the
//! store asks the same list. A report in a block request (XEP-0377) is kept for who administers the server
//! (`administration`); the block holds whatever it says.

use super::prelude::*;
use super::{presence, shared_contacts};
use crate::core::blocklist::{Blocklist, BlocklistChange};
use crate::core::effects::StoreError;
use crate::core::reports::{self, Reason, Report};
use crate::core::session::{Account, Resource};
use crate::jid::{BareJid, Jid, JidRef};

pub(super) const HANDLER: Handler = Handler {
    name: "blocking",
    spec: "XEP-0191 1.3, XEP-0377 0.4.1",
    features: &[ns::BLOCKING, ns::REPORTING],
    routes: &[
        iq_get(Target::Account, ns::BLOCKING, "blocklist", get),
        iq_set(Target::Account, ns::BLOCKING, "block", block),
        iq_set(Target::Account, ns::BLOCKING, "unblock", unblock),
    ],
    ..Handler::EMPTY
};

/// What is said to who writes to an address that he has blocked himself.
pub(crate) const BLOCKED_BY_SENDER: StanzaError = StanzaError {
    application: Some(("blocked", ns::BLOCKING_ERRORS)),
    ..StanzaError::NOT_ACCEPTABLE.text("You have blocked this address.")
};

/// Per bound resource.
#[derive(Default)]
pub(crate) struct State {
    /// Has asked for the list, so it is told of changes.
    interested: bool,
}

/// Whether neither of the two accounts has blocked the other.
pub(crate) fn on_speaking_terms(one: &Account, other: &Account) -> bool {
    let blocks = |owner: &Account, jid: &BareJid| owner.per.blocking.blocks_prepared(jid.as_str());
    one.jid == other.jid || !(blocks(one, &other.jid) || blocks(other, &one.jid))
}

/// The same of a session of `one`, whose very resource the other may have blocked.
pub(crate) fn may_reach(one: &Account, session: ConnId, other: &Account) -> bool {
    let blocked = |resource: &Resource| other.per.blocking.blocks_prepared(resource.jid.as_str());
    on_speaking_terms(one, other) && (one.jid == other.jid || !one.resource(session).is_some_and(blocked))
}

fn get(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    cx.resource_mut().per.blocking.interested = true;
    let list = cx.account().per.blocking.clone();
    cx.out.reply(cx.conn, iq, |w| {
        w.open("blocklist", ns::BLOCKING);
        for jid in list.jids() {
            w.open("item", ns::BLOCKING).attr("jid", jid.as_str()).close();
        }
    });
    Ok(Done)
}

fn items(request: &Element<'_>) -> Result<Vec<Jid>, StanzaError> {
    let items = request.children().filter(|child| child.is("item", ns::BLOCKING));
    let parse = |item: Element<'_>| {
        let jid = item.attr("jid").ok_or(StanzaError::BAD_REQUEST)?;
        JidRef::parse(jid).map(|jid| jid.to_owned_jid()).map_err(|_| StanzaError::JID_MALFORMED)
    };
    items.map(parse).collect()
}

fn block(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let jids = items(&iq.payload)?;
    let own = cx.account().jid.clone();
    // One's own account and server cannot be done without (section 5).
    if jids.is_empty() || jids.iter().any(|jid| jid.bare() == own.as_str() || jid.as_str() == own.domain()) {
        return Err(StanzaError::BAD_REQUEST);
    }
    let reports = reports(cx, &iq.payload);
    ask(cx, iq, BlocklistChange::Block(jids), reports)
}

/// Why addresses are blocked (XEP-0377), for who administers the server: it is kept with the block, is in the log, and goes nowhere
/// else. It blocks in any case; what of a report makes no sense is left out.
fn reports(cx: &Cx<'_>, request: &Element<'_>) -> Vec<Report> {
    let items = request.children().filter(|child| child.is("item", ns::BLOCKING));
    let parse = |item: Element<'_>| {
        let report = item.child("report", ns::REPORTING)?;
        let text = report.child("text", ns::REPORTING).map(|text| text.text().into_owned()).unwrap_or_default();
        let mut text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        while text.len() > reports::TEXT_BYTES_MAX {
            text.pop();
        }
        let ids = report.children().filter(|child| child.is("stanza-id", ns::STANZA_ID));
        let ids = ids.filter_map(|id| id.attr("id")).filter(|id| id.len() <= reports::MESSAGE_BYTES_MAX);
        Some(Report {
            at: cx.now.utc,
            by: cx.account().jid.clone(),
            about: JidRef::parse(item.attr("jid")?).ok()?.to_owned_jid(),
            reason: Reason::from_name(report.attr("reason").unwrap_or_default()),
            text,
            messages: ids.take(reports::MESSAGES_MAX).map(str::to_owned).collect(),
        })
    };
    items.filter_map(parse).take(REPORTS_MAX).collect()
}

/// Reports of one request that are kept.
const REPORTS_MAX: usize = 10;

fn unblock(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let jids = items(&iq.payload)?;
    // None named means all (section 3.5).
    let change = if jids.is_empty() { BlocklistChange::Clear } else { BlocklistChange::Unblock(jids) };
    ask(cx, iq, change, Vec::new())
}

/// The account's other sessions follow the store whether the one that asks is there to hear of it or not.
fn ask(cx: &mut Cx<'_>, iq: &Iq<'_>, change: BlocklistChange, reports: Vec<Report>) -> Handled {
    for report in &reports {
        log::warn!("report: {report}");
    }
    let (user, parked) = (cx.account().jid.clone(), iq.park());
    let request = StoreRequest::BlocklistChange { user: user.clone(), change: change.clone(), reports };
    let then = move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Ok(Stored::Blocklist { before, after }) => {
            out.reply_empty(conn, &*parked);
            match change {
                BlocklistChange::Block(_) => on_blocked(core, &user, &before, after, out),
                BlocklistChange::Unblock(_) | BlocklistChange::Clear => on_unblocked(core, &user, &before, after, out),
            }
        }
        Ok(_) => out.reply_error(conn, &*parked, StanzaError::INTERNAL_SERVER_ERROR),
        Err(StoreError::Full) => {
            out.reply_error(conn, &*parked, StanzaError::RESOURCE_CONSTRAINT.text("The list is full."));
        }
        Err(error) => out.reply_error(conn, &*parked, error.into()),
    };
    cx.ask_for_all(request, Box::new(then))
}

fn on_blocked(core: &mut Core, user: &BareJid, before: &Blocklist, after: Blocklist, out: &mut Outputs) {
    let added = after.without(before);
    // Contacts see the account leave as long as they still may hear of it.
    for contact in matching(core, user, &added) {
        presence::hide_from(
            core,
            user,
            &contact,
            |jid| added.blocks_prepared(jid) && !before.blocks_prepared(jid),
            out,
        );
    }
    apply(core, user, after);
    push(core, user, "block", added.jids(), out);
}

fn on_unblocked(core: &mut Core, user: &BareJid, before: &Blocklist, after: Blocklist, out: &mut Outputs) {
    let removed = before.without(&after);
    apply(core, user, after.clone());
    for contact in matching(core, user, &removed) {
        presence::show_to(core, user, &contact, |jid| removed.blocks_prepared(jid) && !after.blocks_prepared(jid), out);
    }
    push(core, user, "unblock", if after.jids().is_empty() { &[] } else { removed.jids() }, out);
}

fn apply(core: &mut Core, user: &BareJid, list: Blocklist) {
    if let Some(account) = core.accounts.find_mut(user.as_str()) {
        account.per.blocking = list;
    }
}

/// Contacts that an entry of `jids` covers, or one of their resources.
fn matching(core: &Core, user: &BareJid, jids: &Blocklist) -> Vec<BareJid> {
    let Some(account) = core.accounts.find(user.as_str()) else { return Vec::new() };
    let covers = |contact: &BareJid, entry: &Jid| match entry.local() {
        Some(_) => entry.bare() == contact.as_str(),
        None => entry.domain() == contact.domain(),
    };
    let covered = |contact: &&BareJid| jids.jids().iter().any(|entry| covers(contact, entry));
    shared_contacts::contacts(core, account).filter(covered).cloned().collect()
}

fn push(core: &mut Core, user: &BareJid, name: &'static str, jids: &[Jid], out: &mut Outputs) {
    let Core { accounts, ids, .. } = core;
    let Some(account) = accounts.find(user.as_str()) else { return };
    for resource in account.resources.iter().filter(|resource| resource.per.blocking.interested) {
        out.wire.stanza(resource.conn, |buf| {
            let mut w = Writer::new(buf);
            w.open("iq", ns::CLIENT).attr("type", "set").attr("id", ids.next_id()).attr("to", resource.jid.as_str());
            w.open(name, ns::BLOCKING);
            for jid in jids {
                w.open("item", ns::BLOCKING).attr("jid", jid.as_str()).close();
            }
        });
    }
}
