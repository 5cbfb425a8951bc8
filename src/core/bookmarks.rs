//! Bookmarks of rooms in their three places: items of one node (XEP-0402), a list in private XML (XEP-0049), and the same list as
//! the item of another node (XEP-0048). What one place has is put into the others here; the store does it in the transaction that
//! changes one of them.
//!
//! The items are what counts. Of a list that an older client writes only what differs is changed in them, and what that client
//! does not know of an item (its extensions) stays. What a list holds beside rooms stays with the list.

use crate::core::form::parse_switch;
use crate::core::pubsub::Item;
use crate::jid::BareJid;
use crate::xml::{Element, Tree, Writer, ns};

/// A room, whichever way it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conference {
    jid: BareJid,
    name: Option<String>,
    autojoin: bool,
    nick: Option<String>,
    password: Option<String>,
}

impl Conference {
    fn of(element: &Element<'_>, jid: &str) -> Option<Conference> {
        let text = |name| element.child(name, element.ns()).map(|child| child.text().into_owned());
        Some(Conference {
            jid: BareJid::parse(jid).ok()?,
            name: element.attr("name").filter(|name| !name.is_empty()).map(str::to_owned),
            autojoin: element.attr("autojoin").and_then(parse_switch).unwrap_or(false),
            nick: text("nick").filter(|nick| !nick.is_empty()),
            password: text("password").filter(|password| !password.is_empty()),
        })
    }

    /// Those of a list as older clients write it; none if it is no such list.
    pub fn all_of(list: &str) -> Vec<Conference> {
        let Ok(tree) = Tree::parse(list, ns::CLIENT) else { return Vec::new() };
        let conferences = tree.root().children().filter(|child| child.is("conference", ns::OLD_BOOKMARKS));
        conferences.filter_map(|conference| Conference::of(&conference, conference.attr("jid")?)).collect()
    }

    fn of_item(item: &Item) -> Option<Conference> {
        let payload = std::str::from_utf8(&item.payload).ok()?;
        let tree = Tree::parse(payload, ns::CLIENT).ok()?;
        let root = tree.root();
        root.is("conference", ns::BOOKMARKS).then(|| Conference::of(&root, &item.id))?
    }

    fn write(&self, ns: &'static str, w: &mut Writer<'_>) {
        w.open("conference", ns);
        if ns == ns::OLD_BOOKMARKS {
            w.attr("jid", &self.jid);
        }
        w.attr_opt("name", self.name.as_deref()).attr_opt("autojoin", self.autojoin.then_some("true"));
        for (name, value) in [("nick", &self.nick), ("password", &self.password)] {
            if let Some(value) = value {
                w.text_element(name, value);
            }
        }
    }

    /// As the payload of an item, with the extensions that the item had before.
    fn payload(&self, before: Option<&Item>) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut w = Writer::new(&mut payload);
        self.write(ns::BOOKMARKS, &mut w);
        let before = before.and_then(|item| std::str::from_utf8(&item.payload).ok());
        if let Some(tree) = before.and_then(|payload| Tree::parse(payload, ns::CLIENT).ok())
            && let Some(extensions) = tree.root().child("extensions", ns::BOOKMARKS)
        {
            let mut element = Vec::new();
            extensions.write_standalone(ns::BOOKMARKS, &mut element);
            w.raw(&element);
        }
        drop(w);
        payload
    }
}

/// What makes the items those of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Ids and payloads of those that are new or other than before.
    pub published: Vec<(String, Vec<u8>)>,
    /// Ids of those that are gone.
    pub retracted: Vec<String>,
}

/// What makes `items` those of a list (XEP-0402 section 5.3.2): nothing for what is the same.
pub fn changes(wanted: &[Conference], items: &[Item]) -> Changes {
    let known: Vec<(&Item, Conference)> =
        items.iter().filter_map(|item| Some((item, Conference::of_item(item)?))).collect();
    let mut changes = Changes::default();
    for conference in wanted {
        let before = known.iter().find(|(_, known)| known.jid == conference.jid);
        if before.is_none_or(|(_, known)| known != conference) {
            let id = before.map_or_else(|| conference.jid.as_str().to_owned(), |(item, _)| item.id.clone());
            changes.published.push((id, conference.payload(before.map(|(item, _)| *item))));
        }
    }
    let gone = known.iter().filter(|(_, known)| wanted.iter().all(|conference| conference.jid != known.jid));
    changes.retracted = gone.map(|(item, _)| item.id.clone()).collect();
    changes
}

/// The list: the rooms as the items have them, the rest as the list had it.
pub fn list(before: Option<&str>, items: &[Item]) -> Vec<u8> {
    let mut list = Vec::new();
    let mut w = Writer::new(&mut list);
    w.open("storage", ns::OLD_BOOKMARKS);
    if let Some(tree) = before.and_then(|before| Tree::parse(before, ns::CLIENT).ok()) {
        for child in tree.root().children().filter(|child| !child.is("conference", ns::OLD_BOOKMARKS)) {
            let mut element = Vec::new();
            child.write_standalone(ns::OLD_BOOKMARKS, &mut element);
            w.raw(&element);
        }
    }
    for conference in items.iter().filter_map(Conference::of_item) {
        conference.write(ns::OLD_BOOKMARKS, &mut w);
        w.close();
    }
    drop(w);
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::clock::UtcTime;

    fn item(id: &str, inside: &str) -> Item {
        let payload = format!("<conference xmlns='urn:xmpp:bookmarks:1'{inside}").into_bytes();
        Item { id: id.to_owned(), publisher: String::new(), at: UtcTime(0), payload }
    }

    #[test]
    fn only_what_differs_is_changed() {
        let items = [
            item(
                "a@x.test",
                " name='A' autojoin='1'><nick>n</nick><extensions><e xmlns='urn:e'/></extensions></conference>",
            ),
            item("b@x.test", "/>"),
            item("no address", "/>"),
        ];
        let check = |rooms: &str, published: &[(&str, &str)], retracted: &[&str]| {
            let rooms = Conference::all_of(&format!("<storage xmlns='storage:bookmarks'>{rooms}</storage>"));
            let Changes { published: new, retracted: gone } = changes(&rooms, &items);
            let new: Vec<(&str, &str)> =
                new.iter().map(|(id, xml)| (id.as_str(), std::str::from_utf8(xml).expect("text"))).collect();
            assert_eq!(
                (new.as_slice(), gone.as_slice()),
                (published, retracted.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>().as_slice())
            );
        };
        let a = "<conference jid='A@x.test' name='A' autojoin='true'><nick>n</nick></conference>";
        let b = "<conference jid='b@x.test'/>";
        check(&format!("{a}{b}"), &[], &[]);
        check(a, &[], &["b@x.test"]);
        check("<conference name='nowhere'/><url/>", &[], &["a@x.test", "b@x.test"]);
        let new = "<conference xmlns='urn:xmpp:bookmarks:1' name='A'><extensions xmlns='urn:xmpp:bookmarks:1'><e xmlns='urn:e'/></extensions></conference>";
        let extended = changes(
            &Conference::all_of(
                "<storage xmlns='storage:bookmarks'><conference jid='a@x.test' name='A'/><conference jid='b@x.test'/></storage>",
            ),
            &items,
        );
        assert_eq!(extended.retracted.len(), 0);
        assert!(
            matches!(&extended.published[..], [(id, payload)] if id == "a@x.test" && payload.ends_with(b"</extensions></conference>")),
            "{new}"
        );
        check(
            &format!("{a}{b}<conference jid='c@x.test'><password>p</password></conference>"),
            &[("c@x.test", "<conference xmlns='urn:xmpp:bookmarks:1'><password>p</password></conference>")],
            &[],
        );
    }

    #[test]
    fn a_list_keeps_what_is_no_room() {
        let before = "<storage xmlns='storage:bookmarks'><conference jid='old@x.test'/><url name='u'/></storage>";
        let items = [item("a@x.test", " name='A'/>")];
        let list = |before, items: &[Item]| String::from_utf8(list(before, items)).expect("text");
        assert_eq!(
            list(Some(before), &items),
            "<storage xmlns='storage:bookmarks'><url name='u'/><conference jid='a@x.test' name='A'/></storage>"
        );
        assert_eq!(list(None, &[]), "<storage xmlns='storage:bookmarks'/>");
        assert_eq!(list(Some("nonsense"), &[]), list(None, &[]));
    }
}
