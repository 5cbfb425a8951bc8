//! XEP-0115: what the clients here want to hear of.
//!
//! A client's presence names its capabilities by a hash. What an unknown hash stands for is asked of that client once; an answer
//! that has that hash is remembered for all clients, any other for this one only. Of an answer only the nodes are kept that it
//! asks to be notified of.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hashbrown::HashMap;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::super::{prelude::*, shared_contacts};
use super::Answer;
use super::notify::{Run, go_on};
use crate::core::session::AccountId;
use crate::jid::BareJid;
use crate::xml::{Frame, Tree};

/// Nodes that one client wants to hear of, sorted.
pub(super) type Interests = Arc<[Box<str>]>;

/// Nodes of one client, and bytes of their names, at most; what is more is not heard of.
const INTERESTS_MAX: usize = 256;
const INTERESTS_BYTES_MAX: usize = 16 * 1024;
/// Bytes of what a presence names capabilities by; longer ones are nobody's.
const NAME_BYTES_MAX: usize = 1024;

/// Per bound resource, while it is available.
#[derive(Default)]
pub(crate) struct State(Option<Box<Heard>>);

struct Heard {
    /// As named by the last presence.
    name: Name,
    /// Id of the question that is out for it.
    asked: Option<Box<str>>,
    interests: Interests,
    /// Whose last items were sent since the resource is available, so that each is sent once.
    told: Vec<Box<str>>,
    serial: u64,
    /// Goes on when the connection has taken what it was sent.
    waiting: Option<Box<Run>>,
}

/// What a presence names capabilities by.
#[derive(Clone, PartialEq, Eq)]
struct Name {
    hash: Box<str>,
    node: Box<str>,
    ver: Box<str>,
}

impl State {
    /// Whether the client wants to hear of a node.
    pub(super) fn wants(&self, node: &str) -> bool {
        let wanted = |heard: &Heard| heard.interests.binary_search_by(|known| (**known).cmp(node)).is_ok();
        self.0.as_deref().is_some_and(wanted)
    }

    /// Whether a run of that number is still its own.
    pub(super) fn hears(&self, serial: u64) -> bool {
        self.0.as_ref().is_some_and(|heard| heard.serial == serial)
    }
}

/// Kinds of clients whose capabilities are known; the one that was not seen for longest is forgotten first.
#[derive(Default)]
pub(crate) struct Known {
    kinds: HashMap<(Box<str>, Box<str>), Kind>,
    /// Counts uses and runs.
    last: u64,
}

struct Kind {
    interests: Interests,
    used: u64,
}

impl Known {
    fn find(&mut self, name: &Name) -> Option<Interests> {
        self.last += 1;
        let kind = self.kinds.get_mut(&(name.hash.clone(), name.ver.clone()))?;
        kind.used = self.last;
        Some(kind.interests.clone())
    }

    fn insert(&mut self, name: &Name, interests: Interests, max: usize) {
        if self.kinds.len() >= max
            && let Some(oldest) = self.kinds.iter().min_by_key(|(_, kind)| kind.used).map(|(key, _)| key.clone())
        {
            self.kinds.remove(&oldest);
        }
        self.last += 1;
        self.kinds.insert((name.hash.clone(), name.ver.clone()), Kind { interests, used: self.last });
    }

    fn next_serial(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

fn name_of(frame: &Frame<'_>) -> Option<Name> {
    if !frame.xml.contains(ns::CAPS) {
        return None;
    }
    let tree = Tree::of(frame);
    let c = tree.root().child("c", ns::CAPS)?;
    let name = Name {
        hash: c.attr("hash").unwrap_or_default().into(),
        node: c.attr("node")?.into(),
        ver: c.attr("ver")?.into(),
    };
    (name.hash.len() + name.node.len() + name.ver.len() <= NAME_BYTES_MAX).then_some(name)
}

/// A resource has said that it is available, for the first time or again.
pub(crate) fn on_presence(core: &mut Core, conn: ConnId, account: AccountId, frame: &Frame<'_>, out: &mut Outputs) {
    let name = name_of(frame);
    let known = name.as_ref().and_then(|name| core.shared.pep.find(name));
    let serial = core.shared.pep.next_serial();
    let id = core.ids.next_id();
    let host = core.host_name(conn).to_owned();
    let Some(resource) = core.accounts.get_mut(account).resource_mut(conn) else { return };
    let state = &mut resource.per.pep;
    let Some(name) = name else {
        state.0 = None;
        return;
    };
    if state.0.as_ref().is_some_and(|heard| heard.name == name) {
        return;
    }
    let heard = state.0.get_or_insert_with(|| {
        let (name, interests) = (name.clone(), Arc::new([]));
        Box::new(Heard { name, asked: None, interests, told: Vec::new(), serial, waiting: None })
    });
    heard.name = name;
    match known {
        Some(interests) => {
            heard.asked = None;
            learn(core, conn, account, interests, out);
        }
        None => {
            heard.asked = Some(id.as_str().into());
            let node = format!("{}#{}", heard.name.node, heard.name.ver);
            let to = resource.jid.clone();
            out.wire.stanza(conn, |buf| {
                let mut w = Writer::new(buf);
                w.open("iq", ns::CLIENT)
                    .attr("type", "get")
                    .attr("id", &id)
                    .attr("from", &host)
                    .attr("to", to.as_str());
                w.open("query", ns::DISCO_INFO).attr("node", node);
            });
        }
    }
}

/// A resource is no longer available.
pub(crate) fn on_gone(state: &mut State) {
    state.0 = None;
}

/// A client answers, if it was us who asked.
pub(super) fn on_answer(cx: &mut Cx<'_>, answer: &Answer<'_>) -> bool {
    let Some(heard) = cx.resource_mut().per.pep.0.as_deref_mut() else { return false };
    if heard.asked.as_deref() != Some(answer.id) {
        return false;
    }
    heard.asked = None;
    let name = heard.name.clone();
    let info = answer.payload.filter(|payload| payload.is("query", ns::DISCO_INFO));
    let interests = info.map(|info| interests(&info)).unwrap_or_else(|| Arc::new([]));
    if let Some(info) = info
        && verification(&info, &name.hash).is_some_and(|ver| ver == *name.ver)
    {
        let max = cx.limits().caps_max;
        cx.core.shared.pep.insert(&name, interests.clone(), max);
    }
    if let Some(account) = cx.core.account_id(cx.conn) {
        learn(cx.core, cx.conn, account, interests, cx.out);
    }
    true
}

fn interests(info: &Element<'_>) -> Interests {
    let features = info.children().filter(|child| child.is("feature", ns::DISCO_INFO));
    let nodes = features.filter_map(|feature| feature.attr("var")?.strip_suffix("+notify"));
    let mut bytes = 0;
    let fits = |node: &&str| {
        bytes += node.len();
        bytes <= INTERESTS_BYTES_MAX
    };
    let mut nodes: Vec<Box<str>> = nodes.take(INTERESTS_MAX).take_while(fits).map(Into::into).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.into()
}

/// It is known what a client wants to hear of: it gets the last items that it has not had (XEP-0163 section 4.3.4).
fn learn(core: &mut Core, conn: ConnId, account: AccountId, interests: Interests, out: &mut Outputs) {
    let serial = core.shared.pep.next_serial();
    let id = account;
    let account = core.accounts.get_mut(id);
    let owner = account.jid.clone();
    let Some(resource) = account.resources.iter_mut().find(|resource| resource.conn == conn) else { return };
    let Some(heard) = resource.per.pep.0.as_deref_mut() else { return };
    let fresh: Vec<Box<str>> = interests.iter().filter(|node| !heard.told.contains(node)).cloned().collect();
    heard.interests = interests;
    if fresh.is_empty() {
        return;
    }
    // Bounded also for a client that names other capabilities all the time.
    if heard.told.len() + fresh.len() > 2 * INTERESTS_MAX {
        heard.told.clear();
    }
    heard.told.extend(fresh.iter().cloned());
    heard.serial = serial;
    heard.waiting = None;
    let to = resource.jid.clone();
    let account = core.accounts.get(id);
    let seen = shared_contacts::watched(core, account);
    let seen = seen.filter(|jid| !account.per.blocking.blocks_prepared(jid.as_str()));
    // The last one comes first: its own.
    let owners: Vec<BareJid> = seen.cloned().chain([owner]).collect();
    go_on(core, Run::new(to, serial, owners, fresh.into()), out);
}

/// A contact's resources see an account from now on: they get its last items.
pub(crate) fn on_seen(core: &mut Core, owner: &BareJid, watcher: &BareJid, out: &mut Outputs) {
    let Some(account) = core.accounts.find(watcher.as_str()) else { return };
    let run = |resource: &crate::core::session::Resource| {
        let heard = resource.per.pep.0.as_deref().filter(|heard| !heard.interests.is_empty())?;
        Some(Run::new(resource.jid.clone(), heard.serial, vec![owner.clone()], heard.interests.clone()))
    };
    let runs: Vec<Box<Run>> = account.resources.iter().filter_map(run).collect();
    runs.into_iter().for_each(|run| go_on(core, run, out));
}

/// A run goes on when the connection is empty.
pub(super) fn wait(core: &mut Core, conn: ConnId, run: Box<Run>, out: &mut Outputs) {
    let Some(account) = core.account_id(conn) else { return };
    let Some(resource) = core.accounts.get_mut(account).resource_mut(conn) else { return };
    if let Some(heard) = resource.per.pep.0.as_deref_mut() {
        heard.waiting = Some(run);
        out.wire.watch(conn);
    }
}

/// A connection has taken all that it was sent.
pub(crate) fn on_flushed(core: &mut Core, conn: ConnId, out: &mut Outputs) {
    let Some(account) = core.account_id(conn) else { return };
    let Some(resource) = core.accounts.get_mut(account).resource_mut(conn) else { return };
    if let Some(run) = resource.per.pep.0.as_deref_mut().and_then(|heard| heard.waiting.take()) {
        go_on(core, run, out);
    }
}

/// XEP-0115 section 5.1 over an answer; `None` if it is ill-formed (section 5.4) or the hash is not known.
fn verification(info: &Element<'_>, hash: &str) -> Option<String> {
    let of = |element: &Element<'_>, name| element.attr(name).unwrap_or_default().to_owned();
    let mut identities = Vec::new();
    let mut features = Vec::new();
    let mut forms = Vec::new();
    for child in info.children() {
        match (child.name(), child.ns()) {
            ("identity", ns::DISCO_INFO) => {
                let [category, kind, lang, name] =
                    ["category", "type", "xml:lang", "name"].map(|name| of(&child, name));
                identities.push(format!("{category}/{kind}/{lang}/{name}"));
            }
            ("feature", ns::DISCO_INFO) => features.push(of(&child, "var")),
            ("x", ns::DATA_FORMS) => forms.extend(form(&child)),
            _ => {}
        }
    }
    let mut text = String::new();
    for list in [&mut identities, &mut features] {
        sorted_once(list, &mut text)?;
    }
    forms.sort_unstable();
    if forms.windows(2).any(|pair| matches!(pair, [a, b] if a.0 == b.0)) {
        return None;
    }
    for (kind, fields) in forms {
        push(&kind, &mut text)?;
        for (name, values) in fields {
            push(&name, &mut text)?;
            values.iter().try_for_each(|value| push(value, &mut text))?;
        }
    }
    match hash {
        "sha-1" => Some(STANDARD.encode(Sha1::digest(text.as_bytes()))),
        "sha-256" => Some(STANDARD.encode(Sha256::digest(text.as_bytes()))),
        _ => None,
    }
}

/// One with the sign between the pieces in it could stand for two.
fn push(piece: &str, text: &mut String) -> Option<()> {
    text.push_str(piece);
    text.push('<');
    (!piece.contains('<')).then_some(())
}

fn sorted_once(list: &mut [String], text: &mut String) -> Option<()> {
    list.sort_unstable();
    if list.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
        return None;
    }
    list.iter().try_for_each(|piece| push(piece, text))
}

type Form = (String, Vec<(String, Vec<String>)>);

/// A form's type and its other fields, sorted; `None` for one without a hidden type.
fn form(form: &Element<'_>) -> Option<Form> {
    let mut kind = None;
    let mut fields = Vec::new();
    for field in form.children().filter(|child| child.is("field", ns::DATA_FORMS)) {
        let values = field.children().filter(|child| child.is("value", ns::DATA_FORMS));
        let mut values: Vec<String> = values.map(|value| value.text().into_owned()).collect();
        values.sort_unstable();
        match field.attr("var").unwrap_or_default() {
            "FORM_TYPE" if field.attr("type") == Some("hidden") => kind = values.into_iter().next(),
            name => fields.push((name.to_owned(), values)),
        }
    }
    fields.sort_unstable();
    kind.map(|kind| (kind, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(info: &str, hash: &str, expected: Option<&str>) {
        let tree = Tree::parse(info, ns::DISCO_INFO).expect(info);
        assert_eq!(verification(&tree.root(), hash).as_deref(), expected, "{info}");
    }

    #[test]
    fn verification_strings() {
        // The examples of sections 5.2 and 5.3.
        let simple = "<identity category='client' name='Exodus 0.9.1' type='pc'/>\
            <feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#items'/>\
            <feature var='http://jabber.org/protocol/disco#info'/><feature var='http://jabber.org/protocol/muc'/>";
        check(&format!("<query>{simple}</query>"), "sha-1", Some("QgayPKawpkPSDYmwT/WM94uAlu0="));
        check(&format!("<query>{simple}</query>"), "md5", None);
        let complex = "<query xmlns='http://jabber.org/protocol/disco#info'>\
            <identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/>\
            <identity xml:lang='el' category='client' name='\u{3a8} 0.11' type='pc'/>\
            <feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>\
            <feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/>\
            <x xmlns='jabber:x:data' type='result'>\
            <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>\
            <field var='ip_version'><value>ipv4</value><value>ipv6</value></field><field var='os'><value>Mac</value></field>\
            <field var='os_version'><value>10.5.1</value></field><field var='software'><value>Psi</value></field>\
            <field var='software_version'><value>0.11</value></field></x></query>";
        check(complex, "sha-1", Some("q07IKJEyjvHSyhy//CH0CxmKi8w="));
        // Ill-formed: told twice, or ambiguous.
        check(&format!("<query>{simple}<feature var='http://jabber.org/protocol/muc'/></query>"), "sha-1", None);
        check(&format!("<query>{simple}<feature var='a&lt;b'/></query>"), "sha-1", None);
    }

    #[test]
    fn the_oldest_kind_is_forgotten() {
        let name = |ver: &str| Name { hash: "sha-1".into(), node: "n".into(), ver: ver.into() };
        let mut known = Known::default();
        known.insert(&name("a"), Arc::new([]), 2);
        known.insert(&name("b"), Arc::new([]), 2);
        assert!(known.find(&name("a")).is_some());
        known.insert(&name("c"), Arc::new([]), 2);
        assert!(known.find(&name("a")).is_some() && known.find(&name("b")).is_none());
        assert_eq!(known.kinds.len(), 2);
    }
}
