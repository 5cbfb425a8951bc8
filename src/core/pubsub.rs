//! Nodes and items of an account (XEP-0060 as XEP-0163 profiles it), as the store and the handlers both read them.
//!
//! What may be read by whom is decided in the store, in the transaction that reads it: there are the owner's roster and
//! blocklist whether the owner is here or not.

use crate::core::clock::UtcTime;
use crate::core::form::{self, Field, Input};
use crate::jid::{BareJid, Jid};
use crate::xml::ns;

/// Who may read a node (XEP-0060 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// Who sees the owner's presence.
    Presence,
    /// Who sees the owner's presence and is in one of the node's roster groups.
    Roster,
    /// Who is on the node's list.
    Whitelist,
    /// The same here: nobody is asked.
    Authorize,
}

/// When the last item is sent unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendLast {
    /// Never.
    Never,
    /// To who subscribes.
    OnSubscription,
    /// To who subscribes, and to who comes online.
    OnPresence,
}

/// A named value of an enumeration.
trait Named: Sized + Copy + PartialEq + 'static {
    const ALL: &'static [(Self, &'static str)];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(value, _)| *value == self).map_or("", |(_, name)| name)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
    }
}

impl Named for Access {
    const ALL: &'static [(Access, &'static str)] = &[
        (Access::Open, "open"),
        (Access::Presence, "presence"),
        (Access::Roster, "roster"),
        (Access::Whitelist, "whitelist"),
        (Access::Authorize, "authorize"),
    ];
}

impl Named for SendLast {
    const ALL: &'static [(SendLast, &'static str)] = &[
        (SendLast::Never, "never"),
        (SendLast::OnSubscription, "on_sub"),
        (SendLast::OnPresence, "on_sub_and_presence"),
    ];
}

/// How a node behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Who may read it.
    pub access: Access,
    /// With [`Access::Roster`]: which groups.
    pub groups: Vec<String>,
    /// Items kept; the oldest go first. [`NodeConfig::MAX`] for as many as there may be.
    pub max_items: u32,
    /// Whether items are kept at all.
    pub persist: bool,
    /// Whether notifications carry the payload.
    pub payloads: bool,
    /// When the last item is sent unasked.
    pub send_last: SendLast,
    /// Whether every retraction is told, also where the request does not ask for it.
    pub notify_retract: bool,
    /// Whether the end of the node is told.
    pub notify_delete: bool,
    /// For people.
    pub title: String,
    /// Namespace of the payloads, as its owner says.
    pub kind: String,
}

impl Default for NodeConfig {
    /// XEP-0163 section 5.
    fn default() -> NodeConfig {
        NodeConfig {
            access: Access::Presence,
            groups: Vec::new(),
            max_items: 1,
            persist: true,
            payloads: true,
            send_last: SendLast::OnPresence,
            notify_retract: true,
            notify_delete: true,
            title: String::new(),
            kind: String::new(),
        }
    }
}

const ACCESS: &str = "pubsub#access_model";
const GROUPS: &str = "pubsub#roster_groups_allowed";
const MAX_ITEMS: &str = "pubsub#max_items";
const PERSIST: &str = "pubsub#persist_items";
const PAYLOADS: &str = "pubsub#deliver_payloads";
const SEND_LAST: &str = "pubsub#send_last_published_item";
const NOTIFY_RETRACT: &str = "pubsub#notify_retract";
const NOTIFY_DELETE: &str = "pubsub#notify_delete";
const TITLE: &str = "pubsub#title";
const KIND: &str = "pubsub#type";

const ACCESS_NAMES: &[(&str, &str)] =
    &[("authorize", ""), ("open", ""), ("presence", ""), ("roster", ""), ("whitelist", "")];
const SEND_LAST_NAMES: &[(&str, &str)] = &[("never", ""), ("on_sub", ""), ("on_sub_and_presence", "")];

/// Options of which only one value is carried out: it is taken and shown, any other is refused.
const FIXED: &[(&str, &str)] = &[
    ("pubsub#publish_model", "publishers"),
    ("pubsub#deliver_notifications", "1"),
    ("pubsub#notify_config", "0"),
    ("pubsub#notification_type", "headline"),
    ("pubsub#presence_based_delivery", "0"),
    ("pubsub#purge_offline", "0"),
    ("pubsub#node_type", "leaf"),
    ("pubsub#itemreply", "owner"),
    ("pubsub#subscribe", "1"),
];

impl NodeConfig {
    /// As many items as the server keeps: `max` in a form.
    pub const MAX: u32 = u32::MAX;

    /// The configuration of a new node. What is nobody else's business is readable by its owner alone from the beginning.
    pub fn of_new(node: &str) -> NodeConfig {
        let private = NodeConfig { access: Access::Whitelist, ..NodeConfig::default() };
        match node {
            ns::BOOKMARKS | ns::DISPLAYED => {
                NodeConfig { max_items: NodeConfig::MAX, send_last: SendLast::Never, ..private }
            }
            ns::OLD_BOOKMARKS => private,
            _ => NodeConfig::default(),
        }
    }

    /// Whether a node may be configured so: passwords of rooms are never shown to the world.
    pub fn is_allowed_for(&self, node: &str) -> bool {
        let private = matches!(node, ns::BOOKMARKS | ns::DISPLAYED | ns::OLD_BOOKMARKS);
        !private || matches!(self.access, Access::Whitelist | Access::Authorize)
    }

    /// Takes one field of a form. `None` if the field is not known or its value not possible.
    #[must_use]
    pub fn set(&mut self, name: &str, values: &[String]) -> Option<()> {
        let value = values.first().map(String::as_str).unwrap_or_default();
        match name {
            "FORM_TYPE" => {}
            ACCESS => self.access = Access::from_name(value)?,
            GROUPS => self.groups = values.iter().filter(|group| !group.is_empty()).cloned().collect(),
            MAX_ITEMS if value == "max" => self.max_items = NodeConfig::MAX,
            MAX_ITEMS => self.max_items = value.parse::<u32>().ok().filter(|max| *max > 0)?,
            PERSIST => self.persist = form::parse_switch(value)?,
            PAYLOADS => self.payloads = form::parse_switch(value)?,
            SEND_LAST => self.send_last = SendLast::from_name(value)?,
            NOTIFY_RETRACT => self.notify_retract = form::parse_switch(value)?,
            NOTIFY_DELETE => self.notify_delete = form::parse_switch(value)?,
            TITLE => self.title = value.to_owned(),
            KIND => self.kind = value.to_owned(),
            _ => {
                let (_, only) = FIXED.iter().find(|(known, _)| *known == name)?;
                let same = *only == value
                    || (form::parse_switch(only).is_some() && form::parse_switch(only) == form::parse_switch(value));
                return same.then_some(());
            }
        }
        Some(())
    }

    /// Takes all fields of a form.
    #[must_use]
    pub fn with(&self, fields: &[Field]) -> Option<NodeConfig> {
        let mut config = self.clone();
        fields.iter().try_for_each(|(name, values)| config.set(name, values))?;
        Some(config)
    }

    /// The form with its current values.
    pub fn fields(&self) -> Vec<(&'static str, Input, Vec<String>)> {
        let on = |on: bool| vec![form::switch(on).to_owned()];
        let text = |text: &str| vec![text.to_owned()];
        let max = if self.max_items == NodeConfig::MAX { "max".to_owned() } else { self.max_items.to_string() };
        let mut fields = vec![
            (TITLE, Input::Text, text(&self.title)),
            (KIND, Input::Text, text(&self.kind)),
            (ACCESS, Input::One(ACCESS_NAMES), text(self.access.name())),
            (GROUPS, Input::Texts, self.groups.clone()),
            (MAX_ITEMS, Input::Text, vec![max]),
            (PERSIST, Input::Switch, on(self.persist)),
            (PAYLOADS, Input::Switch, on(self.payloads)),
            (SEND_LAST, Input::One(SEND_LAST_NAMES), text(self.send_last.name())),
            (NOTIFY_RETRACT, Input::Switch, on(self.notify_retract)),
            (NOTIFY_DELETE, Input::Switch, on(self.notify_delete)),
        ];
        fields.push(("pubsub#publish_model", Input::One(&[("publishers", "")]), text("publishers")));
        fields
    }

    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        self.title.len() + self.kind.len() + self.groups.iter().map(String::len).sum::<usize>()
    }
}

/// What somebody is to a node; the account itself is its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affiliation {
    /// May read it, whatever the access model.
    Member,
    /// The same here: only the owner publishes.
    Publisher,
    /// May not read it, whatever the access model.
    Outcast,
}

impl Named for Affiliation {
    const ALL: &'static [(Affiliation, &'static str)] =
        &[(Affiliation::Member, "member"), (Affiliation::Publisher, "publisher"), (Affiliation::Outcast, "outcast")];
}

impl Affiliation {
    /// Value of the attribute.
    pub fn name(self) -> &'static str {
        Named::name(self)
    }
    /// From the value of the attribute.
    pub fn from_name(name: &str) -> Option<Affiliation> {
        Named::from_name(name)
    }
}

/// An item as published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Exactly as the publisher gave it.
    pub id: String,
    /// Who published it, with resource.
    pub publisher: String,
    /// When.
    pub at: UtcTime,
    /// One whole element, valid by itself.
    pub payload: Vec<u8>,
}

/// Which items of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// These; those that are not there are left out.
    Ids(Vec<String>),
    /// The most recent ones, at most so many.
    Recent(usize),
    /// From a place in the order of publication (XEP-0059), at most so many.
    Page {
        /// Behind this item.
        after: Option<String>,
        /// Before this item; empty for the end.
        before: Option<String>,
        /// At most so many.
        max: usize,
    },
}

/// What is asked of an account's nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Publishes an item and makes the node if it is missing.
    Publish {
        /// The item.
        item: Item,
        /// Preconditions, or the configuration of the new node.
        options: Vec<Field>,
    },
    /// Removes items.
    Retract {
        /// Which.
        ids: Vec<String>,
        /// Whether readers are told, if the node's configuration does not say so anyway.
        notify: bool,
    },
    /// Reads items.
    Items {
        /// Which.
        wanted: Wanted,
        /// At most about so many bytes of payload, but at least one item.
        bytes_max: usize,
    },
    /// Makes a node.
    Create {
        /// What differs from the default.
        options: Vec<Field>,
    },
    /// Removes a node with its items.
    Delete,
    /// Removes the items of a node.
    Purge,
    /// Reads the configuration, as its owner.
    Config,
    /// Reads the configuration, as a reader.
    Info,
    /// Changes the configuration.
    Configure {
        /// What changes.
        options: Vec<Field>,
    },
    /// Reads the list of affiliations.
    Affiliations,
    /// Changes the list of affiliations; `None` takes somebody off it.
    Affiliate {
        /// Who, and what he is from now on.
        changes: Vec<(BareJid, Option<Affiliation>)>,
    },
    /// Sends notifications to an address, whatever its client's capabilities say.
    Subscribe {
        /// The asker's bare or full JID.
        jid: Jid,
    },
    /// Stops that.
    Unsubscribe {
        /// The address.
        jid: Jid,
    },
    /// Which nodes the asker may read; needs no node.
    Nodes,
}

impl Operation {
    /// Whether it may change something.
    pub fn may_write(&self) -> bool {
        match self {
            Operation::Items { .. }
            | Operation::Config
            | Operation::Info
            | Operation::Affiliations
            | Operation::Nodes => false,
            Operation::Publish { .. }
            | Operation::Retract { .. }
            | Operation::Create { .. }
            | Operation::Delete
            | Operation::Purge
            | Operation::Configure { .. }
            | Operation::Affiliate { .. }
            | Operation::Subscribe { .. }
            | Operation::Unsubscribe { .. } => true,
        }
    }

    /// Whether only the owner may ask for it.
    pub fn is_owners(&self) -> bool {
        match self {
            Operation::Items { .. }
            | Operation::Info
            | Operation::Nodes
            | Operation::Subscribe { .. }
            | Operation::Unsubscribe { .. } => false,
            Operation::Publish { .. }
            | Operation::Retract { .. }
            | Operation::Create { .. }
            | Operation::Delete
            | Operation::Purge
            | Operation::Config
            | Operation::Configure { .. }
            | Operation::Affiliations
            | Operation::Affiliate { .. } => true,
        }
    }
}

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, and nobody needs to be told.
    Done,
    /// It is done, and readers are told: of what was asked for first, then of what hangs on it.
    Told(Vec<Event>),
    /// Items, oldest first but those asked for by id, which are in that order.
    Items {
        /// The items.
        items: Vec<Item>,
        /// How many the node has.
        count: usize,
        /// Place of the first of these in the order of publication.
        index: usize,
    },
    /// A configuration.
    Config(Box<NodeConfig>),
    /// Who is what.
    Affiliations(Vec<(BareJid, Affiliation)>),
    /// It is subscribed; the last item, if it is to be sent.
    Subscribed(Option<Item>),
    /// Names and titles of nodes.
    Nodes(Vec<(String, String)>),
    /// It was not done.
    Refused(Refusal),
}

/// Why an operation was not done (XEP-0060); nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such node, item or account, or the owner has blocked who asks.
    NotFound,
    /// The node is there already.
    Exists,
    /// Only for who sees the owner's presence.
    PresenceRequired,
    /// Only for some roster groups.
    NotInGroup,
    /// Only for who is on a list.
    Closed,
    /// The asker is an outcast.
    Forbidden,
    /// A precondition does not hold.
    Precondition,
    /// A field of a form is not known or its value not possible.
    Options,
    /// There are too many nodes.
    NodesMax,
    /// The account's share is used up.
    Full,
    /// There is no such subscription.
    NotSubscribed,
}

/// What readers of a node are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose node.
    pub owner: BareJid,
    /// The node.
    pub node: String,
    /// What has happened.
    pub change: Change,
    /// Contacts who may read it and see the owner's presence; the owner is not among them.
    pub readers: Vec<BareJid>,
    /// Who has subscribed and may read it.
    pub subscribers: Vec<Jid>,
}

/// What has happened to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An item was published; without its payload if the node does not deliver it.
    Published(Item),
    /// Items were removed.
    Retracted(Vec<String>),
    /// All items were removed.
    Purged,
    /// The node is gone.
    Deleted,
}

/// The last item of a node, for somebody who has come online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastItem {
    /// Whose node.
    pub owner: BareJid,
    /// The node.
    pub node: String,
    /// Its last item.
    pub item: Item,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_says_what_it_takes() {
        let mut config = NodeConfig { max_items: NodeConfig::MAX, title: "t".to_owned(), ..NodeConfig::default() };
        config.groups = vec!["a".to_owned(), "b".to_owned()];
        let fields: Vec<Field> =
            config.fields().into_iter().map(|(name, _, values)| (name.to_owned(), values)).collect();
        assert_eq!(NodeConfig::default().with(&fields), Some(config));
    }

    #[test]
    fn fields_and_values() {
        let check = |name: &str, value: &str, expected: bool| {
            let fields = [(name.to_owned(), vec![value.to_owned()])];
            assert_eq!(NodeConfig::default().with(&fields).is_some(), expected, "{name}={value}");
        };
        check(ACCESS, "open", true);
        check(ACCESS, "authorize", true);
        check(ACCESS, "closed", false);
        check(MAX_ITEMS, "max", true);
        check(MAX_ITEMS, "1000", true);
        check(MAX_ITEMS, "0", false);
        check(MAX_ITEMS, "-1", false);
        check(PERSIST, "true", true);
        check(PERSIST, "yes", false);
        check(SEND_LAST, "never", true);
        check(SEND_LAST, "sometimes", false);
        check("pubsub#publish_model", "publishers", true);
        check("pubsub#publish_model", "open", false);
        check("pubsub#notify_config", "false", true);
        check("pubsub#unheard_of", "1", false);
    }
}
