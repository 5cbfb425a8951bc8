//! What an account has in several shapes is the same in all of them: whoever changes one changes the others in the same
//! transaction.
//!
//! Bookmarks are items of one node, the item of another, and private XML (XEP-0402, XEP-0048, XEP-0049; `core::bookmarks`).
//! Visiting cards are a document and the item of a node (XEP-0054, XEP-0292; `core::vcard`). The picture of a vCard is that of
//! two nodes (XEP-0398; the other way round is in `avatar`). A bridge is crossed once: what is written here crosses none.

use super::apply::{Rules, Staged};
use super::{account, avatar, nickname, pubsub};
use crate::core::bookmarks::{self, Conference};
use crate::core::clock::UtcTime;
use crate::core::effects::{DocumentKey, StoreError, Stored};
use crate::core::pubsub::{Access, Event, Item};
use crate::core::vcard::Card;
use crate::jid::BareJid;
use crate::xml::{Tree, ns};

type Result<T> = std::result::Result<T, StoreError>;

/// Id of the item of a node that has one.
const CURRENT: &str = "current";

/// Whose, and when.
struct Change<'a> {
    user: &'a BareJid,
    at: UtcTime,
}

/// A node's items have changed.
pub(super) fn on_node(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    node: &str,
    at: UtcTime,
) -> Result<Vec<Event>> {
    let change = Change { user, at };
    match node {
        ns::BOOKMARKS => change.list_bookmarks(tx, rules),
        ns::OLD_BOOKMARKS => change.take_published_list(tx, rules),
        ns::VCARD4_NODE => change.take_vcard4(tx, rules),
        _ => Ok(Vec::new()),
    }
}

/// A node with its items is gone.
pub(super) fn on_node_deleted(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    node: &str,
    at: UtcTime,
) -> Result<Vec<Event>> {
    match node {
        // Without its node of items the list in private XML would count again.
        ns::BOOKMARKS => {
            let change = Change { user, at };
            if let Some(list) = change.list(tx)? {
                let rest = bookmarks::list(Some(&list), &[]);
                account::replace_private(tx, rules, user, &bookmarks_key(), &rest)?;
            }
            change.list_bookmarks(tx, rules)
        }
        // A list that is no longer published is not one without rooms.
        ns::OLD_BOOKMARKS => Ok(Vec::new()),
        _ => on_node(tx, rules, user, node, at),
    }
}

/// A document was written.
pub(super) fn on_document(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    key: &DocumentKey,
    at: UtcTime,
) -> Result<Vec<Event>> {
    let change = Change { user, at };
    match key {
        DocumentKey::Vcard => {
            nickname::refresh(tx, rules, user)?;
            let mut events = change.publish_picture(tx, rules)?;
            events.extend(change.publish_vcard4(tx, rules)?);
            Ok(events)
        }
        key if is_bookmarks(key) => change.take_list(tx, rules),
        _ => Ok(Vec::new()),
    }
}

/// Whether a document is the list of bookmarks, which is read by [`bookmarks_as_list`].
pub(super) fn is_bookmarks(key: &DocumentKey) -> bool {
    matches!(key, DocumentKey::Private { name, ns } if name == "storage" && ns == ns::OLD_BOOKMARKS)
}

fn bookmarks_key() -> DocumentKey {
    DocumentKey::Private { name: "storage".to_owned(), ns: ns::OLD_BOOKMARKS.to_owned() }
}

/// The list as it is in private XML: with the rooms of the items, if there is their node.
pub(super) fn bookmarks_as_list(tx: &mut Staged<'_>, user: &BareJid) -> Result<Option<Vec<u8>>> {
    let change = Change { user, at: UtcTime(0) };
    let list = change.list(tx)?;
    match pubsub::all_items(tx, user, ns::BOOKMARKS)? {
        Some(items) => Ok(Some(bookmarks::list(list.as_deref(), &items))),
        None => Ok(list.map(String::into_bytes)),
    }
}

impl Change<'_> {
    fn item(&self, id: &str, payload: Vec<u8>) -> Item {
        Item { id: id.to_owned(), publisher: self.user.as_str().to_owned(), at: self.at, payload }
    }

    fn document(&self, tx: &mut Staged<'_>, key: &DocumentKey) -> Result<Option<String>> {
        let Stored::Document(document) = account::document(tx, self.user, key)? else { return Ok(None) };
        Ok(document.and_then(|document| String::from_utf8(document).ok()))
    }

    /// The list of bookmarks as it was written.
    fn list(&self, tx: &mut Staged<'_>) -> Result<Option<String>> {
        self.document(tx, &bookmarks_key())
    }

    /// The items of bookmarks have changed: so has the list that is an item.
    fn list_bookmarks(&self, tx: &mut Staged<'_>, rules: &Rules) -> Result<Vec<Event>> {
        let items = pubsub::all_items(tx, self.user, ns::BOOKMARKS)?.unwrap_or_default();
        let list = bookmarks::list(self.list(tx)?.as_deref(), &items);
        let known = pubsub::last_of(tx, self.user, ns::OLD_BOOKMARKS)?.and_then(|(_, item)| item);
        if known.is_some_and(|known| known.payload == list) {
            return Ok(Vec::new());
        }
        pubsub::put(tx, rules, self.user, ns::OLD_BOOKMARKS, &self.item(CURRENT, list), None)
    }

    /// A list was written into private XML.
    fn take_list(&self, tx: &mut Staged<'_>, rules: &Rules) -> Result<Vec<Event>> {
        let wanted = self.list(tx)?.map(|list| Conference::all_of(&list)).unwrap_or_default();
        let mut events = self.take_bookmarks(tx, rules, &wanted)?;
        events.extend(self.list_bookmarks(tx, rules)?);
        Ok(events)
    }

    /// A list was published.
    fn take_published_list(&self, tx: &mut Staged<'_>, rules: &Rules) -> Result<Vec<Event>> {
        let published = pubsub::last_of(tx, self.user, ns::OLD_BOOKMARKS)?.and_then(|(_, item)| item);
        let Some(list) = published.and_then(|item| String::from_utf8(item.payload).ok()) else { return Ok(Vec::new()) };
        let is_list = Tree::parse(&list, ns::CLIENT).is_ok_and(|tree| tree.root().is("storage", ns::OLD_BOOKMARKS));
        if !is_list {
            return Ok(Vec::new());
        }
        account::replace_private(tx, rules, self.user, &bookmarks_key(), list.as_bytes())?;
        self.take_bookmarks(tx, rules, &Conference::all_of(&list))
    }

    fn take_bookmarks(&self, tx: &mut Staged<'_>, rules: &Rules, wanted: &[Conference]) -> Result<Vec<Event>> {
        let items = pubsub::all_items(tx, self.user, ns::BOOKMARKS)?;
        if items.is_none() && wanted.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = wanted.get(..rules.limits.pep_items_max).unwrap_or(wanted);
        let changes = bookmarks::changes(wanted, &items.unwrap_or_default());
        let mut events = Vec::new();
        for (id, payload) in changes.published {
            events.extend(pubsub::put(tx, rules, self.user, ns::BOOKMARKS, &self.item(&id, payload), None)?);
        }
        events.extend(pubsub::take(tx, rules, self.user, ns::BOOKMARKS, &changes.retracted)?);
        Ok(events)
    }

    /// The vCard's picture is published (XEP-0398 section 3.2), data first. What is readable in a vCard is readable by all; a
    /// node that is there stays as its owner has made it.
    fn publish_picture(&self, tx: &mut Staged<'_>, rules: &Rules) -> Result<Vec<Event>> {
        let before = avatar::hash(tx, self.user)?;
        let vcard = self.document(tx, &DocumentKey::Vcard)?;
        let picture = vcard.as_deref().and_then(avatar::Picture::of_vcard);
        avatar::note(tx, self.user, picture.as_ref())?;
        let Some(picture) = picture.filter(|picture| picture.hash != before) else { return Ok(Vec::new()) };
        let (data, metadata) = (picture.data(), picture.metadata());
        let bytes = data.len() + metadata.len() + 2 * picture.hash.len();
        if data.len() > rules.limits.pep_payload_bytes_max || !pubsub::has_room(tx, rules, self.user, bytes)? {
            return Ok(Vec::new());
        }
        let mut events = Vec::new();
        for (node, payload) in [(ns::AVATAR_DATA, data), (ns::AVATAR_METADATA, metadata)] {
            let item = self.item(&picture.hash, payload);
            events.extend(pubsub::put(tx, rules, self.user, node, &item, Some(Access::Open))?);
        }
        Ok(events)
    }

    /// The vCard is published in its younger form.
    fn publish_vcard4(&self, tx: &mut Staged<'_>, rules: &Rules) -> Result<Vec<Event>> {
        let card = Card::of_temp(&self.document(tx, &DocumentKey::Vcard)?.unwrap_or_default());
        let known = pubsub::last_of(tx, self.user, ns::VCARD4_NODE)?.and_then(|(_, item)| item);
        let id = known.as_ref().map_or(CURRENT, |known| known.id.as_str()).to_owned();
        let known = known.and_then(|known| String::from_utf8(known.payload).ok());
        if Card::of_v4(known.as_deref().unwrap_or_default()) == card {
            return Ok(Vec::new());
        }
        let payload = card.v4(known.as_deref());
        if payload.len() > rules.limits.pep_payload_bytes_max || !pubsub::has_room(tx, rules, self.user, payload.len())?
        {
            return Ok(Vec::new());
        }
        pubsub::put(tx, rules, self.user, ns::VCARD4_NODE, &self.item(&id, payload), Some(Access::Open))
    }

    /// A vCard4 was published, or is gone. The other can be read by anybody, so what only some may read does not come into it.
    fn take_vcard4(&self, tx: &mut Staged<'_>, rules: &Rules) -> Result<Vec<Event>> {
        let item = match pubsub::last_of(tx, self.user, ns::VCARD4_NODE)? {
            Some((Access::Open, item)) => item,
            Some(_) => return Ok(Vec::new()),
            None => None,
        };
        let card = Card::of_v4(&item.and_then(|item| String::from_utf8(item.payload).ok()).unwrap_or_default());
        let known = self.document(tx, &DocumentKey::Vcard)?;
        if Card::of_temp(known.as_deref().unwrap_or_default()) == card {
            return Ok(Vec::new());
        }
        let vcard = card.temp(known.as_deref());
        if vcard.len() <= rules.limits.vcard_bytes_max {
            account::write_document(tx, self.user, &DocumentKey::Vcard, &vcard)?;
            nickname::refresh(tx, rules, self.user)?;
        }
        Ok(Vec::new())
    }
}
