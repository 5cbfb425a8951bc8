//! Which app servers the clients of an account have registered (XEP-0357), as the store and the handlers both read them.
//!
//! The store changes the list in one transaction, so that two clients that register at once are both there afterwards.

use crate::core::error::StanzaError;
use crate::jid::{Jid, JidRef};
use crate::xml::{Element, Tree, Writer, ns};

/// Registrations of one account; the oldest makes room.
pub const REGISTRATIONS_MAX: usize = 16;
/// Bytes of what a registration gives to be repeated to its app server.
const OPTIONS_BYTES_MAX: usize = 4096;

/// What a client has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The app server.
    pub jid: Jid,
    /// Its name for the client; may be empty.
    pub node: String,
    /// A data form, valid by itself; empty for none.
    pub options: String,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushChange {
    /// A registration, or another form for one that is there.
    Enable(Registration),
    /// The end of one, or without a node of all at that app server.
    Disable {
        /// The app server.
        jid: Jid,
        /// Its name for the client.
        node: Option<String>,
    },
}

impl Registration {
    /// From `<enable/>` or `<disable/>`.
    ///
    /// # Errors
    /// `bad-request` without an address, `jid-malformed`, `not-acceptable` if it is too big to be kept.
    pub fn parse(element: &Element<'_>) -> Result<Registration, StanzaError> {
        let jid = JidRef::parse(element.attr("jid").ok_or(StanzaError::BAD_REQUEST)?);
        let jid = jid.map_err(|_| StanzaError::JID_MALFORMED)?.to_owned_jid();
        let mut options = Vec::new();
        if let Some(form) = element.child("x", ns::DATA_FORMS) {
            form.write_standalone(ns::PUBSUB, &mut options);
        }
        let node = element.attr("node").unwrap_or_default().to_owned();
        let options = String::from_utf8(options).map_err(|_| StanzaError::BAD_REQUEST)?;
        if options.len() + node.len() > OPTIONS_BYTES_MAX {
            return Err(StanzaError::NOT_ACCEPTABLE.text("The registration is too big."));
        }
        Ok(Registration { jid, node, options })
    }

    /// Whether both are the same client's.
    pub fn is_same(&self, other: &Registration) -> bool {
        self.jid == other.jid && self.node == other.node
    }
}

impl PushChange {
    /// Changes a list, oldest first.
    pub fn apply(&self, list: &mut Vec<Registration>) {
        match self {
            PushChange::Enable(new) => {
                list.retain(|known| !known.is_same(new));
                if list.len() >= REGISTRATIONS_MAX {
                    list.remove(0);
                }
                list.push(new.clone());
            }
            PushChange::Disable { jid, node } => {
                let meant = |known: &Registration| node.as_ref().is_none_or(|node| known.node == *node);
                list.retain(|known| known.jid != *jid || !meant(known));
            }
        }
    }
}

/// A list from its stored form; what cannot be read is left out.
pub fn decode(document: &[u8]) -> Vec<Registration> {
    let document = std::str::from_utf8(document).unwrap_or_default();
    let Ok(tree) = Tree::parse(document, ns::CLIENT) else { return Vec::new() };
    let enabled = tree.root().children().filter(|child| child.is("enable", ns::PUSH));
    enabled.filter_map(|enable| Registration::parse(&enable).ok()).collect()
}

/// The stored form of a list; empty for none.
pub fn encode(registrations: &[Registration]) -> Vec<u8> {
    let mut document = Vec::new();
    if registrations.is_empty() {
        return document;
    }
    let mut w = Writer::new(&mut document);
    w.open("push", ns::PUSH);
    for Registration { jid, node, options } in registrations {
        w.open("enable", ns::PUSH).attr("jid", jid.as_str());
        w.attr_opt("node", (!node.is_empty()).then_some(node)).raw(options.as_bytes()).close();
    }
    drop(w);
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(jid: &str, node: &str, options: &str) -> Registration {
        Registration { jid: Jid::from_prepared(jid), node: node.to_owned(), options: options.to_owned() }
    }

    #[test]
    fn changes() {
        let mut list = Vec::new();
        let mut check = |change: PushChange, expected: &[(&str, &str)]| {
            change.apply(&mut list);
            let nodes: Vec<_> = list.iter().map(|known| (known.node.as_str(), known.options.as_str())).collect();
            assert_eq!(nodes, expected, "{change:?}");
            assert_eq!(decode(&encode(&list)), list);
        };
        let form = "<x xmlns='jabber:x:data'/>";
        let disable = |jid, node: Option<&str>| PushChange::Disable {
            jid: Jid::from_prepared(jid),
            node: node.map(str::to_owned),
        };
        check(PushChange::Enable(registration("a@x.test", "1", "")), &[("1", "")]);
        check(PushChange::Enable(registration("a@x.test", "2", form)), &[("1", ""), ("2", form)]);
        check(PushChange::Enable(registration("a@x.test", "1", form)), &[("2", form), ("1", form)]);
        check(disable("b@x.test", None), &[("2", form), ("1", form)]);
        check(disable("a@x.test", Some("")), &[("2", form), ("1", form)]);
        check(disable("a@x.test", Some("2")), &[("1", form)]);
        check(PushChange::Enable(registration("b@x.test", "", "")), &[("1", form), ("", "")]);
        check(disable("a@x.test", None), &[("", "")]);
        check(disable("b@x.test", Some("")), &[]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut list = Vec::new();
        for number in 0..2 * REGISTRATIONS_MAX {
            PushChange::Enable(registration("a@x.test", &number.to_string(), "")).apply(&mut list);
        }
        assert_eq!((list.len(), list[0].node.as_str()), (REGISTRATIONS_MAX, "16"));
    }
}
