//! XEP-0402: bookmarks are items of a node; clients that keep them in private XML (XEP-0048 in XEP-0049) see and change the same.
//!
//! The items are what counts as soon as there is the node. A list that an older client writes is compared with them: only what
//! differs is published or retracted, and what that client does not know of an item (its extensions) stays. What a list holds
//! beside rooms is kept with the list.

use super::pep;
use super::prelude::*;
use crate::core::form::parse_switch;
use crate::core::parked::Waiting;
use crate::core::pubsub::{Item, Operation, Outcome, Wanted};
use crate::jid::BareJid;
use crate::xml::Tree;

pub(super) const HANDLER: Handler = Handler {
    name: "bookmarks",
    spec: "XEP-0402 1.2, XEP-0048 1.2",
    account_features: &[ns::BOOKMARKS, "urn:xmpp:bookmarks:1#compat"],
    ..Handler::EMPTY
};

/// A room, whichever way it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Conference {
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

    /// Those of a list as older clients write it.
    fn all_of(list: &Element<'_>) -> Vec<Conference> {
        let conferences = list.children().filter(|child| child.is("conference", ns::OLD_BOOKMARKS));
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
}

/// Whether a request for private XML is one for bookmarks.
pub(super) fn is_list(key: &DocumentKey) -> bool {
    matches!(key, DocumentKey::Private { name, ns } if name == "storage" && ns == ns::OLD_BOOKMARKS)
}

type Items = Option<Vec<Item>>;

/// Reads the items, `None` if there is no node, and goes on; the session waits.
fn read_items(
    core: &mut Core,
    conn: ConnId,
    user: &BareJid,
    then: impl FnOnce(&mut Core, Now, ConnId, Result<Items, StanzaError>, &mut Outputs) + Send + 'static,
    out: &mut Outputs,
) {
    let operation = Operation::Items { wanted: Wanted::Recent(usize::MAX), bytes_max: core.limits.output_max / 4 };
    let (owner, asker, node) = (user.clone(), user.clone(), ns::BOOKMARKS.to_owned());
    let answer = move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        let items = match reply {
            Ok(Stored::Pubsub(Outcome::Items { items, .. })) => Ok(Some(items)),
            Ok(_) => Ok(None),
            Err(error) => Err(error.into()),
        };
        then(core, now, conn, items, out);
    };
    let request = StoreRequest::Pubsub { owner, asker, node, operation };
    core.ask(request, Waiting::Room { conn, then: Box::new(answer) }, out);
}

/// An older client reads its list; `asked` is what it has asked with.
pub(super) fn get(cx: &mut Cx<'_>, iq: &Iq<'_>, key: DocumentKey, asked: String) -> Handled {
    let user = cx.account().jid.clone();
    let parked = iq.park();
    let owner = user.clone();
    let then = move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        let list = match reply {
            Ok(Stored::Document(list)) => list.and_then(|list| String::from_utf8(list).ok()).unwrap_or(asked),
            Ok(_) => return out.reply_error(conn, &*parked, StanzaError::INTERNAL_SERVER_ERROR),
            Err(error) => return out.reply_error(conn, &*parked, error.into()),
        };
        let tell = move |_: &mut Core, _: Now, conn: ConnId, items: Result<Items, StanzaError>, out: &mut Outputs| {
            match items {
                Err(error) => out.reply_error(conn, &*parked, error),
                Ok(items) => out.reply(conn, &*parked, |w| {
                    w.open("query", ns::PRIVATE);
                    match items {
                        None => drop(w.raw(list.as_bytes())),
                        Some(items) => write_list(&list, &items, w),
                    }
                }),
            }
        };
        read_items(core, conn, &owner, tell, out);
    };
    cx.ask_for_all(StoreRequest::DocumentGet { user, key }, Box::new(then))
}

/// The rooms as the items have them, the rest as the list has it.
fn write_list(list: &str, items: &[Item], w: &mut Writer<'_>) {
    w.open("storage", ns::OLD_BOOKMARKS);
    if let Ok(tree) = Tree::parse(list, ns::CLIENT) {
        for child in tree.root().children().filter(|child| !child.is("conference", ns::OLD_BOOKMARKS)) {
            let mut element = Vec::new();
            child.write_standalone(ns::OLD_BOOKMARKS, &mut element);
            w.raw(&element);
        }
    }
    for conference in items.iter().filter_map(Conference::of_item) {
        conference.write(ns::OLD_BOOKMARKS, w);
        w.close();
    }
    w.close();
}

/// An older client writes its list.
pub(super) fn set(cx: &mut Cx<'_>, iq: &Iq<'_>, key: DocumentKey, content: Vec<u8>) -> Handled {
    let user = cx.account().jid.clone();
    let parked = iq.park();
    let wanted = iq.payload.only_child().map(|list| Conference::all_of(&list)).unwrap_or_default();
    let owner = user.clone();
    let then = move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        if let Err(error) = reply {
            return out.reply_error(conn, &*parked, error.into());
        }
        let user = owner.clone();
        let settle = move |core: &mut Core, now: Now, conn: ConnId, items: Result<Items, StanzaError>, out: &mut Outputs| {
            match items {
                Err(error) => out.reply_error(conn, &*parked, error),
                Ok(items) => {
                    let steps = changes(core, now, &owner, &wanted, &items.unwrap_or_default());
                    let done = Box::new(move |_: &mut Core, conn: ConnId, out: &mut Outputs| out.reply_empty(conn, &*parked));
                    pep::carry_out_all(core, conn, &owner, steps, done, out);
                }
            }
        };
        read_items(core, conn, &user, settle, out);
    };
    cx.ask_for_all(StoreRequest::DocumentPut { user, key, content }, Box::new(then))
}

/// What makes the items those of the list (section 5.3.2): nothing for what is the same.
fn changes(
    core: &Core,
    now: Now,
    user: &BareJid,
    wanted: &[Conference],
    items: &[Item],
) -> Vec<(&'static str, Operation)> {
    let known: Vec<(&Item, Conference)> =
        items.iter().filter_map(|item| Some((item, Conference::of_item(item)?))).collect();
    let mut steps = Vec::new();
    for conference in wanted.iter().take(core.limits.pep_items_max) {
        let before = known.iter().find(|(_, known)| known.jid == conference.jid);
        if before.is_some_and(|(_, known)| known == conference) {
            continue;
        }
        let payload = payload(conference, before.map(|(item, _)| *item));
        let id = before.map_or_else(|| conference.jid.as_str().to_owned(), |(item, _)| item.id.clone());
        let item = Item { id, publisher: user.as_str().to_owned(), at: now.utc, payload };
        steps.push((ns::BOOKMARKS, Operation::Publish { item, options: Vec::new() }));
    }
    let gone = known.iter().filter(|(_, known)| wanted.iter().all(|conference| conference.jid != known.jid));
    let ids: Vec<String> = gone.map(|(item, _)| item.id.clone()).collect();
    if !ids.is_empty() {
        steps.push((ns::BOOKMARKS, Operation::Retract { ids, notify: true }));
    }
    steps
}

/// A room as an item, with the extensions that the item had before.
fn payload(conference: &Conference, before: Option<&Item>) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut w = Writer::new(&mut payload);
    conference.write(ns::BOOKMARKS, &mut w);
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
