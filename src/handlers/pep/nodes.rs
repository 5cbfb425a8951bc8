//! What an owner does with nodes (XEP-0060 section 8).

use super::super::prelude::*;
use super::{ask, check_owner, form, node_of, on_changed, outcome};
use crate::core::pubsub::{Affiliation, NodeConfig, Operation, Outcome};
use crate::jid::{BareJid, JidRef};

pub(super) fn create(cx: &mut Cx<'_>, iq: &Iq<'_>, request: &Element<'_>) -> Handled {
    check_owner(cx, iq)?;
    let node = node_of(request)?;
    let options = form::parse(iq.payload.child("configure", ns::PUBSUB))?;
    ask(cx, iq, node, Operation::Create { options }, String::new(), on_changed)
}

pub(super) fn get(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    check_owner(cx, iq)?;
    let request = iq.payload.only_child().ok_or(StanzaError::BAD_REQUEST)?;
    match request.name() {
        "default" => {
            cx.out.reply(cx.conn, iq, |w| {
                w.open("pubsub", ns::PUBSUB_OWNER).open("default", ns::PUBSUB_OWNER);
                form::write(w, &NodeConfig::default());
            });
            Ok(Done)
        }
        "configure" => {
            let node = node_of(&request)?;
            ask(cx, iq, node, Operation::Config, node.to_owned(), on_config)
        }
        "affiliations" => {
            let node = node_of(&request)?;
            ask(cx, iq, node, Operation::Affiliations, node.to_owned(), on_affiliations)
        }
        _ => Err(StanzaError::FEATURE_NOT_IMPLEMENTED),
    }
}

pub(super) fn set(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    check_owner(cx, iq)?;
    let request = iq.payload.only_child().ok_or(StanzaError::BAD_REQUEST)?;
    let operation = match request.name() {
        "configure" => Operation::Configure { options: form::parse(Some(request))? },
        "delete" => Operation::Delete,
        "purge" => Operation::Purge,
        "affiliations" => Operation::Affiliate { changes: affiliations(cx, &request)? },
        _ => return Err(StanzaError::FEATURE_NOT_IMPLEMENTED),
    };
    ask(cx, iq, node_of(&request)?, operation, String::new(), on_changed)
}

fn on_config(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { conn, iq, out, .. } = resumed;
    let Outcome::Config(config) = outcome(reply)? else { return Err(StanzaError::INTERNAL_SERVER_ERROR) };
    out.reply(conn, iq, |w| {
        w.open("pubsub", ns::PUBSUB_OWNER).open("configure", ns::PUBSUB_OWNER);
        w.attr_opt("node", iq.note.as_deref());
        form::write(w, &config);
    });
    Ok(())
}

/// Answers disco for a node.
pub(super) fn on_described(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { conn, iq, out, .. } = resumed;
    let Outcome::Config(config) = outcome(reply)? else { return Err(StanzaError::INTERNAL_SERVER_ERROR) };
    out.reply(conn, iq, |w| {
        w.open("query", ns::DISCO_INFO).attr_opt("node", iq.note.as_deref());
        w.open("identity", ns::DISCO_INFO).attr("category", "pubsub").attr("type", "leaf").close();
        w.open("feature", ns::DISCO_INFO).attr("var", ns::PUBSUB).close();
        form::write_description(w, &config);
    });
    Ok(())
}

type Changes = Vec<(BareJid, Option<Affiliation>)>;

/// Who is to be what; the owner stays the only one.
fn affiliations(cx: &Cx<'_>, request: &Element<'_>) -> Result<Changes, StanzaError> {
    let own = &cx.account().jid;
    let entries = request.children().filter(|child| child.is("affiliation", ns::PUBSUB_OWNER));
    let parse = |entry: Element<'_>| {
        let jid = JidRef::parse(entry.attr("jid").ok_or(StanzaError::BAD_REQUEST)?);
        let jid = jid.map_err(|_| StanzaError::JID_MALFORMED)?.to_bare();
        let affiliation = match entry.attr("affiliation").ok_or(StanzaError::BAD_REQUEST)? {
            "none" => None,
            name => Some(Affiliation::from_name(name).ok_or(StanzaError::NOT_ACCEPTABLE)?),
        };
        if jid == *own {
            return Err(StanzaError::NOT_ACCEPTABLE.text("The account stays the owner of its nodes."));
        }
        Ok((jid, affiliation))
    };
    entries.map(parse).collect()
}

fn on_affiliations(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { core, conn, iq, out, .. } = resumed;
    let Outcome::Affiliations(list) = outcome(reply)? else { return Err(StanzaError::INTERNAL_SERVER_ERROR) };
    let owner = core.account_id(conn).map(|account| core.accounts.get(account).jid.clone());
    out.reply(conn, iq, |w| {
        w.open("pubsub", ns::PUBSUB_OWNER).open("affiliations", ns::PUBSUB_OWNER);
        w.attr_opt("node", iq.note.as_deref());
        let mut entry = |jid: &BareJid, name: &str| {
            w.open("affiliation", ns::PUBSUB_OWNER).attr("jid", jid).attr("affiliation", name).close();
        };
        owner.iter().for_each(|owner| entry(owner, "owner"));
        list.iter().for_each(|(jid, affiliation)| entry(jid, affiliation.name()));
    });
    Ok(())
}
