//! XEP-0030: Service Discovery, with the server's own entity capabilities (XEP-0115) and contact addresses (XEP-0157).
//!
//! What is advertised is what the handlers' constants say. Of another account only who sees its presence learns anything;
//! everybody else gets the answer for an account that does not exist (section 8).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::prelude::*;
use crate::core::form::{self, Input};
use crate::core::stream::Stream;
use crate::handlers::blocking::on_speaking_terms;
use crate::handlers::{HANDLERS, StreamPhase, commands, mam, muc, pep, shared_contacts};

pub(super) const HANDLER: Handler = Handler {
    name: "disco",
    spec: "XEP-0030 2.5, XEP-0115 1.6, XEP-0157 1.1",
    features: &[ns::DISCO_INFO, ns::DISCO_ITEMS, ns::CAPS],
    account_features: &[ns::DISCO_INFO, ns::DISCO_ITEMS],
    routes: &[
        iq_get(Target::Host, ns::DISCO_INFO, "query", host_info),
        iq_get(Target::Host, ns::DISCO_ITEMS, "query", host_items),
        iq_get(Target::Account, ns::DISCO_INFO, "query", account_info),
        iq_get(Target::Account, ns::DISCO_ITEMS, "query", account_items),
        iq_get(Target::Peer, ns::DISCO_INFO, "query", peer_info),
        iq_get(Target::Peer, ns::DISCO_ITEMS, "query", peer_items),
    ],
    stream_features: Some(advertise),
    ..Handler::EMPTY
};

/// What entity capabilities are named after.
const CAPS_NODE: &str = "https://whinchat.example/caps";
const IDENTITY_NAME: &str = "Whinchat";

fn advertise(core: &Core, stream: &Stream, _: StreamPhase, w: &mut Writer<'_>) {
    if let Some(host) = stream.host {
        let ver = &core.hosts[host].caps;
        w.open("c", ns::CAPS).attr("hash", "sha-1").attr("node", CAPS_NODE).attr("ver", ver).close();
    }
}

/// The host's features, sorted and each once.
fn host_features(registration_open: bool, archive: bool) -> Vec<&'static str> {
    let mut features: Vec<&str> = HANDLERS.iter().flat_map(|handler| handler.features).copied().collect();
    features.retain(|feature| archive || !mam::FEATURES.contains(feature));
    if registration_open {
        features.push(ns::REGISTER);
    }
    features.sort_unstable();
    features.dedup();
    features
}

/// Contact addresses by field, sorted (XEP-0157 section 3).
fn contact_fields(contacts: &[(String, String)]) -> Vec<(String, Vec<&str>)> {
    let mut fields: Vec<(String, Vec<&str>)> = Vec::new();
    for (kind, uri) in contacts {
        let name = format!("{kind}-addresses");
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, uris)) => uris.push(uri),
            None => fields.push((name, vec![uri])),
        }
    }
    for (_, uris) in &mut fields {
        uris.sort_unstable();
    }
    fields.sort_unstable();
    fields
}

/// XEP-0115 section 5.1 over what [`host_info`] answers.
pub(crate) fn caps_ver(contacts: &[(String, String)], registration_open: bool, archive: bool) -> String {
    let mut text = format!("server/im//{IDENTITY_NAME}<");
    for feature in host_features(registration_open, archive) {
        text.push_str(feature);
        text.push('<');
    }
    let fields = contact_fields(contacts);
    if !fields.is_empty() {
        text.push_str(ns::SERVER_INFO);
        text.push('<');
        for (name, uris) in fields {
            text.push_str(&name);
            text.push('<');
            for uri in uris {
                text.push_str(uri);
                text.push('<');
            }
        }
    }
    STANDARD.encode(Sha1::digest(text.as_bytes()))
}

fn host_info(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let node = iq.payload.attr("node");
    if let Some(node) = node.filter(|node| commands::is_node(node)) {
        return commands::describe(cx, iq, node);
    }
    let Cx { core, out, conn, .. } = cx;
    let host = core.hosts.iter().find(|host| host.name == iq.addressee.as_str()).ok_or(StanzaError::ITEM_NOT_FOUND)?;
    if node.is_some_and(|node| node.strip_prefix(CAPS_NODE).and_then(|rest| rest.strip_prefix('#')) != Some(&host.caps))
    {
        return Err(StanzaError::ITEM_NOT_FOUND);
    }
    out.reply(*conn, iq, |w| {
        w.open("query", ns::DISCO_INFO).attr_opt("node", node);
        w.open("identity", ns::DISCO_INFO).attr("category", "server").attr("type", "im").attr("name", IDENTITY_NAME);
        w.close();
        for feature in host_features(host.registration_open, host.archive) {
            w.open("feature", ns::DISCO_INFO).attr("var", feature).close();
        }
        let fields = contact_fields(&host.contacts);
        if !fields.is_empty() {
            write_contacts(w, &fields);
        }
    });
    Ok(Done)
}

fn write_contacts(w: &mut Writer<'_>, fields: &[(String, Vec<&str>)]) {
    form::open(w, "result", ns::SERVER_INFO);
    for (name, uris) in fields {
        form::field(w, name, "", Input::Some(&[]), uris);
    }
    w.close();
}

/// The services that stand beside the host.
fn host_items(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    if let Some(node) = iq.payload.attr("node") {
        return commands::list(cx, iq, node);
    }
    let host = cx.core.hosts.iter().find(|host| host.name == iq.addressee.as_str());
    cx.out.reply(cx.conn, iq, |w| {
        w.open("query", ns::DISCO_ITEMS);
        if let Some(host) = host {
            muc::write_service_item(&host.rooms, w);
        }
    });
    Ok(Done)
}

fn account_info(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    if let Some(node) = iq.payload.attr("node") {
        return pep::describe(cx, iq, node);
    }
    reply_account_info(cx, iq);
    Ok(Done)
}

fn reply_account_info(cx: &mut Cx<'_>, iq: &Iq<'_>) {
    let archive = cx.core.hosts.iter().any(|host| host.name == iq.addressee.domain() && host.archive);
    cx.out.reply(cx.conn, iq, |w| write_account_info(w, archive));
}

fn write_account_info(w: &mut Writer<'_>, archive: bool) {
    w.open("query", ns::DISCO_INFO);
    let others = HANDLERS.iter().flat_map(|handler| handler.account_identities);
    for (category, kind) in [("account", "registered")].iter().chain(others) {
        w.open("identity", ns::DISCO_INFO).attr("category", category).attr("type", kind).close();
    }
    let mut features: Vec<&str> = HANDLERS.iter().flat_map(|handler| handler.account_features).copied().collect();
    features.retain(|feature| archive || !mam::FEATURES.contains(feature));
    features.sort_unstable();
    features.dedup();
    for feature in features {
        w.open("feature", ns::DISCO_INFO).attr("var", feature).close();
    }
}

/// The account's own available resources and its nodes.
fn account_items(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    if iq.payload.attr("node").is_some() {
        return Err(StanzaError::ITEM_NOT_FOUND);
    }
    ask_items(cx, iq, true)
}

/// Of another account: its resources only if its presence is seen, and the nodes that it lets the sender read.
fn ask_items(cx: &mut Cx<'_>, iq: &Iq<'_>, resources: bool) -> Handled {
    let note = format!("{}{}", if resources { SEEN } else { UNSEEN }, iq.addressee);
    pep::ask_nodes(cx, iq, note, on_nodes)
}

/// Before the address of the account in a note: whether its resources are told too.
const SEEN: char = '+';
const UNSEEN: char = '-';

fn on_nodes(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { core, conn, iq, out, .. } = resumed;
    let nodes = pep::nodes_of(reply)?;
    let note = iq.note.as_deref().unwrap_or_default();
    let (jid, seen) = match note.strip_prefix(SEEN) {
        Some(jid) => (jid, core.accounts.find(jid)),
        None => (note.trim_start_matches(UNSEEN), None),
    };
    let resources = seen.map(|account| account.resources.as_slice()).unwrap_or_default();
    out.reply(conn, iq, |w| {
        w.open("query", ns::DISCO_ITEMS);
        for resource in resources.iter().filter(|resource| resource.per.presence.is_available()) {
            w.open("item", ns::DISCO_ITEMS).attr("jid", resource.jid.as_str()).close();
        }
        for (node, title) in &nodes {
            w.open("item", ns::DISCO_ITEMS).attr("jid", jid).attr("node", node);
            w.attr_opt("name", (!title.is_empty()).then_some(title)).close();
        }
    });
    Ok(())
}

fn peer_info(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    match iq.payload.attr("node") {
        Some(node) if sees(cx, iq) => pep::describe(cx, iq, node),
        None if sees(cx, iq) => {
            reply_account_info(cx, iq);
            Ok(Done)
        }
        _ => Err(StanzaError::SERVICE_UNAVAILABLE),
    }
}

/// To a stranger the same as for an account without items, but for nodes that are open to all (section 8).
fn peer_items(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    if iq.payload.attr("node").is_some() {
        cx.out.reply(cx.conn, iq, |w| {
            w.empty("query", ns::DISCO_ITEMS);
        });
        return Ok(Done);
    }
    let peer = cx.core.accounts.find(iq.addressee.as_str());
    let hidden = peer.is_some_and(|peer| !on_speaking_terms(cx.account(), peer));
    let seen = !hidden && sees(cx, iq);
    ask_items(cx, iq, seen)
}

/// Both halves of a local subscription change together, so the asker's own roster tells.
fn sees(cx: &Cx<'_>, iq: &Iq<'_>) -> bool {
    shared_contacts::sees(cx.core, cx.account(), iq.addressee.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_advertised_where_there_are_some() {
        for (archive, expected) in [(true, 2), (false, 0)] {
            let features = host_features(false, archive);
            assert_eq!(features.iter().filter(|feature| mam::FEATURES.contains(feature)).count(), expected);
            let mut account = Vec::new();
            write_account_info(&mut Writer::new(&mut account), archive);
            let named = memchr::memmem::find_iter(&account, ns::MAM).count();
            assert_eq!(named, expected);
            assert!(
                features.contains(&ns::STANZA_ID) && memchr::memmem::find(&account, ns::STANZA_ID.as_bytes()).is_some()
            );
        }
    }

    #[test]
    fn caps_change_with_what_they_stand_for() {
        let plain = caps_ver(&[], false, true);
        let contacts = [("abuse".to_owned(), "mailto:a@example.org".to_owned())];
        assert_eq!(plain, caps_ver(&[], false, true));
        assert_ne!(plain, caps_ver(&[], false, false));
        assert_ne!(plain, caps_ver(&[], true, true));
        assert_ne!(plain, caps_ver(&contacts, false, true));
        assert_eq!(STANDARD.decode(&plain).map(|hash| hash.len()), Ok(20));
    }
}
