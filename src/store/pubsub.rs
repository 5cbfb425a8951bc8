//! Nodes and items (XEP-0163): who may, what is kept, who is told.
//!
//! A refusal is an answer, not an error: nothing has been written when it is given. Items have a number in the order of
//! publication beside their id; publishing under a known id gives it a new one.

use std::ops::ControlFlow;

use super::apply::{Rules, Staged, malformed};
use super::roster;
use super::schema::{self, NodeRow, PubsubHead, Table};
use super::{account, avatar, bridges, nickname};
use crate::core::clock::UtcTime;
use crate::core::effects::{StoreError, StoreReply, Stored};
use crate::core::form::Field;
use crate::core::pubsub::{
    Access, Affiliation, Change, Event, Item, LastItem, NodeConfig, Operation, Outcome, Refusal, SendLast, Wanted,
};
use crate::core::roster::Roster;
use crate::jid::{BareJid, Jid};
use crate::xml::ns;

/// Entries of one node's list of affiliations or of subscriptions.
const LIST_MAX: usize = 1000;
/// Bytes of the texts of one configuration.
const CONFIG_BYTES_MAX: usize = 4096;

type Result<T> = std::result::Result<T, StoreError>;

/// Whose node, which, and what is known of it.
struct Node<'a> {
    owner: &'a BareJid,
    name: &'a str,
    row: NodeRow,
}

/// Carries out an operation of the second account on nodes of the first.
pub(super) fn carry_out(
    tx: &mut Staged<'_>,
    rules: &Rules,
    pair: (&BareJid, &BareJid),
    name: &str,
    operation: &Operation,
    at: UtcTime,
) -> Result<Outcome> {
    let outcome = carry_out_alone(tx, rules, pair, name, operation)?;
    let done = matches!(outcome, Outcome::Done | Outcome::Told(_));
    let more = match operation {
        Operation::Publish { .. } | Operation::Retract { .. } | Operation::Purge if done => {
            bridges::on_node(tx, rules, pair.0, name, at)?
        }
        Operation::Delete if done => bridges::on_node_deleted(tx, rules, pair.0, name, at)?,
        _ => Vec::new(),
    };
    Ok(match outcome {
        Outcome::Told(mut events) => {
            events.extend(more);
            Outcome::Told(events)
        }
        Outcome::Done if !more.is_empty() => Outcome::Told(more),
        outcome => outcome,
    })
}

fn carry_out_alone(
    tx: &mut Staged<'_>,
    rules: &Rules,
    (owner, asker): (&BareJid, &BareJid),
    name: &str,
    operation: &Operation,
) -> Result<Outcome> {
    if !tx.has_account(owner)? || account::blocklist(tx, owner)?.blocks_prepared(asker.as_str()) {
        return Ok(match operation {
            Operation::Nodes => Outcome::Nodes(Vec::new()),
            _ => Outcome::Refused(Refusal::NotFound),
        });
    }
    if operation.is_owners() && owner != asker {
        return Ok(Outcome::Refused(Refusal::Forbidden));
    }
    let row = tx.read(Table::Pubsub, &schema::node_key(owner, name), schema::decode_node)?;
    let node = row.map(|row| Node { owner, name, row });
    match (operation, node) {
        (Operation::Nodes, _) => readable_nodes(tx, rules, owner, asker),
        (Operation::Create { options }, None) => Ok(match add_node(tx, rules, owner, name, options)? {
            Ok(node) => node.save(tx),
            Err(refusal) => Outcome::Refused(refusal),
        }),
        (Operation::Create { .. }, Some(_)) => Ok(Outcome::Refused(Refusal::Exists)),
        (Operation::Publish { item, options }, None) => match add_node(tx, rules, owner, name, options)? {
            Ok(node) => publish(tx, rules, node, item),
            Err(refusal) => Ok(Outcome::Refused(refusal)),
        },
        (Operation::Publish { item, options }, Some(node)) => match node.row.config.with(options) {
            None => Ok(Outcome::Refused(Refusal::Options)),
            Some(wanted) if wanted != node.row.config => Ok(Outcome::Refused(Refusal::Precondition)),
            Some(_) => publish(tx, rules, node, item),
        },
        (_, None) => Ok(Outcome::Refused(Refusal::NotFound)),
        (operation, Some(node)) => on_node(tx, rules, node, asker, operation),
    }
}

/// What needs a node that is there.
fn on_node(
    tx: &mut Staged<'_>,
    rules: &Rules,
    mut node: Node<'_>,
    asker: &BareJid,
    operation: &Operation,
) -> Result<Outcome> {
    if !operation.is_owners()
        && !matches!(operation, Operation::Unsubscribe { .. })
        && let Err(refusal) = node.readable(tx, rules, asker)?
    {
        return Ok(Outcome::Refused(refusal));
    }
    Ok(match operation {
        Operation::Items { wanted, bytes_max } => node.items(tx, wanted, *bytes_max)?,
        Operation::Retract { ids, notify } => return retract(tx, rules, node, ids, *notify),
        Operation::Purge => return purge(tx, rules, node),
        Operation::Delete => return delete(tx, rules, node),
        Operation::Config | Operation::Info => Outcome::Config(Box::new(node.row.config)),
        Operation::Configure { options } => return configure(tx, rules, node, options),
        Operation::Affiliations => Outcome::Affiliations(node.row.affiliations),
        Operation::Affiliate { changes } => {
            for (jid, affiliation) in changes {
                node.row.affiliations.retain(|(known, _)| known != jid);
                node.row.affiliations.extend(affiliation.map(|affiliation| (jid.clone(), affiliation)));
            }
            match node.row.affiliations.len() > LIST_MAX {
                true => Outcome::Refused(Refusal::Full),
                false => node.save(tx),
            }
        }
        Operation::Subscribe { jid } => return subscribe(tx, node, jid),
        Operation::Unsubscribe { jid } => {
            let before = node.row.subscriptions.len();
            node.row.subscriptions.retain(|known| known != jid);
            match node.row.subscriptions.len() == before {
                true => Outcome::Refused(Refusal::NotSubscribed),
                false => node.save(tx),
            }
        }
        Operation::Publish { .. } | Operation::Create { .. } | Operation::Nodes => {
            unreachable!("these do not need a node")
        }
    })
}

fn head(tx: &mut Staged<'_>, owner: &BareJid) -> Result<PubsubHead> {
    let head = tx.read(Table::Pubsub, &schema::pubsub_head_key(owner), schema::decode_pubsub_head)?;
    Ok(head.unwrap_or_default())
}

fn put_head(tx: &mut Staged<'_>, owner: &BareJid, head: &PubsubHead) {
    tx.put(Table::Pubsub, schema::pubsub_head_key(owner), schema::encode_pubsub_head(head));
}

/// A node that is not there yet; counted, not saved.
fn add_node<'a>(
    tx: &mut Staged<'_>,
    rules: &Rules,
    owner: &'a BareJid,
    name: &'a str,
    options: &[Field],
) -> Result<std::result::Result<Node<'a>, Refusal>> {
    let config = NodeConfig::of_new(name).with(options).filter(|config| config.text_bytes() <= CONFIG_BYTES_MAX);
    let config = config.filter(|config| config.is_allowed_for(name));
    let Some(config) = config else { return Ok(Err(Refusal::Options)) };
    let mut head = head(tx, owner)?;
    if head.nodes >= rules.limits.pep_nodes_max as u64 {
        return Ok(Err(Refusal::NodesMax));
    }
    head.nodes += 1;
    put_head(tx, owner, &head);
    Ok(Ok(Node { owner, name, row: NodeRow { config, ..NodeRow::default() } }))
}

impl Node<'_> {
    fn save(&self, tx: &mut Staged<'_>) -> Outcome {
        tx.put(Table::Pubsub, schema::node_key(self.owner, self.name), schema::encode_node(&self.row));
        Outcome::Done
    }

    /// Whether somebody may read it.
    fn readable(
        &self,
        tx: &mut Staged<'_>,
        rules: &Rules,
        asker: &BareJid,
    ) -> Result<std::result::Result<(), Refusal>> {
        let roster = roster::load_towards(tx, rules, self.owner, asker)?.unwrap_or_default();
        Ok(self.access(&roster, asker))
    }

    fn access(&self, roster: &Roster, asker: &BareJid) -> std::result::Result<(), Refusal> {
        if asker == self.owner {
            return Ok(());
        }
        let affiliation =
            self.row.affiliations.iter().find(|(jid, _)| jid == asker).map(|(_, affiliation)| *affiliation);
        match affiliation {
            Some(Affiliation::Outcast) => return Err(Refusal::Forbidden),
            Some(Affiliation::Member | Affiliation::Publisher) => return Ok(()),
            None => {}
        }
        let item = roster.items.get(asker);
        let sees = item.is_some_and(|item| item.subscription.from());
        match self.row.config.access {
            Access::Open => Ok(()),
            Access::Presence if sees => Ok(()),
            Access::Presence => Err(Refusal::PresenceRequired),
            Access::Roster => {
                let groups = item.map(|item| item.groups.as_slice()).unwrap_or_default();
                match sees && groups.iter().any(|group| self.row.config.groups.contains(group)) {
                    true => Ok(()),
                    false => Err(Refusal::NotInGroup),
                }
            }
            Access::Whitelist | Access::Authorize => Err(Refusal::Closed),
        }
    }

    /// Ids by number, oldest first.
    fn order(&self, tx: &mut Staged<'_>) -> Result<Vec<(u64, String)>> {
        let (from, to) = schema::order_keys(self.owner, self.name);
        let (mut order, mut result) = (Vec::new(), Ok(()));
        tx.scan(Table::Pubsub, &from, &to, &mut |key, record| {
            let entry = schema::offline_seq(key).and_then(|seq| Ok((seq, schema::decode_xml(record)?)));
            match entry {
                Ok((seq, id)) => order.push((seq, String::from_utf8_lossy(id).into_owned())),
                Err(error) => result = Err(malformed(Table::Pubsub, key, error)),
            }
            ControlFlow::Continue(())
        })?;
        result.map(|()| order)
    }

    fn item(&self, tx: &mut Staged<'_>, id: &str) -> Result<Option<(u64, Item)>> {
        let row = tx.read(Table::Pubsub, &schema::item_key(self.owner, self.name, id), schema::decode_item)?;
        Ok(row.map(|row| {
            let schema::ItemRow { seq, publisher, at, payload } = row;
            (seq, Item { id: id.to_owned(), publisher, at, payload })
        }))
    }

    /// The item that was published last.
    fn last(&self, tx: &mut Staged<'_>) -> Result<Option<Item>> {
        if self.row.items == 0 {
            return Ok(None);
        }
        // Mostly the last number of all is still there.
        let key = schema::order_key(self.owner, self.name, self.row.last_seq);
        let id = match tx.read(Table::Pubsub, &key, |record| schema::decode_xml(record).map(<[u8]>::to_vec))? {
            Some(id) => Some(String::from_utf8_lossy(&id).into_owned()),
            None => self.order(tx)?.pop().map(|(_, id)| id),
        };
        let Some(id) = id else { return Ok(None) };
        Ok(self.item(tx, &id)?.map(|(_, item)| item))
    }

    fn items(&self, tx: &mut Staged<'_>, wanted: &Wanted, bytes_max: usize) -> Result<Outcome> {
        let count = self.row.items as usize;
        let mut items = Vec::new();
        let mut bytes = 0usize;
        // Whether another one fits; the first always does.
        let mut fits = |item: &Item| {
            let first = bytes == 0;
            bytes = bytes.saturating_add(item.payload.len() + item.id.len() + 1);
            first || bytes <= bytes_max
        };
        if let Wanted::Ids(ids) = wanted {
            for id in ids {
                match self.item(tx, id)? {
                    Some((_, item)) if fits(&item) => items.push(item),
                    Some(_) => break,
                    None => {}
                }
            }
            return Ok(Outcome::Items { items, count, index: 0 });
        }
        let order = self.order(tx)?;
        let place = |id: &str| order.iter().position(|(_, known)| known == id);
        let (range, backwards) = match wanted {
            Wanted::Recent(max) => (order.len().saturating_sub(*max)..order.len(), true),
            Wanted::Page { after: Some(id), max, .. } => match place(id) {
                Some(at) => (at + 1..(at + 1).saturating_add(*max).min(order.len()), false),
                None => return Ok(Outcome::Refused(Refusal::NotFound)),
            },
            Wanted::Page { before: Some(id), max, .. } => match place(id).or(id.is_empty().then_some(order.len())) {
                Some(at) => (at.saturating_sub(*max)..at, true),
                None => return Ok(Outcome::Refused(Refusal::NotFound)),
            },
            Wanted::Page { max, .. } => (0..(*max).min(order.len()), false),
            Wanted::Ids(_) => unreachable!("answered above"),
        };
        let mut index = if backwards { range.end } else { range.start };
        let chosen = order.get(range).unwrap_or_default();
        // What does not fit is left out at the far end: old items of recent ones, the rest of a page forwards.
        for step in 0..chosen.len() {
            let at = if backwards { chosen.len() - 1 - step } else { step };
            let Some((_, id)) = chosen.get(at) else { break };
            let Some((_, item)) = self.item(tx, id)? else { continue };
            if !fits(&item) {
                break;
            }
            items.push(item);
            index -= usize::from(backwards);
        }
        if backwards {
            items.reverse();
        }
        Ok(Outcome::Items { items, count, index })
    }

    /// Takes an item away; counts it out of both counters.
    fn forget(&mut self, tx: &mut Staged<'_>, head: &mut PubsubHead, seq: u64, item: &Item) {
        tx.delete(Table::Pubsub, schema::item_key(self.owner, self.name, &item.id));
        tx.delete(Table::Pubsub, schema::order_key(self.owner, self.name, seq));
        self.row.items = self.row.items.saturating_sub(1);
        head.bytes = head.bytes.saturating_sub(size(item));
    }

    /// Keeps only the most recent items; `known` is one whose place has changed in this transaction.
    fn trim(&mut self, tx: &mut Staged<'_>, head: &mut PubsubHead, keep: u64, known: &str) -> Result<()> {
        if self.row.items <= keep {
            return Ok(());
        }
        for (seq, id) in self.order(tx)? {
            if self.row.items <= keep {
                break;
            }
            if id != known
                && let Some((_, item)) = self.item(tx, &id)?
            {
                self.forget(tx, head, seq, &item);
            }
        }
        Ok(())
    }

    fn keep(&self, rules: &Rules) -> u64 {
        u64::from(self.row.config.max_items).min(rules.limits.pep_items_max as u64)
    }

    /// With whom it is to be told.
    fn event(&self, tx: &mut Staged<'_>, rules: &Rules, change: Change) -> Result<Outcome> {
        if self.name == ns::NICK {
            nickname::refresh(tx, rules, self.owner)?;
        }
        let roster = roster::load_shared(tx, rules, self.owner)?.unwrap_or_default();
        let blocked = account::blocklist(tx, self.owner)?;
        let may = |jid: &BareJid| !blocked.blocks_prepared(jid.as_str()) && self.access(&roster, jid).is_ok();
        let seen_by = roster.items.iter().filter(|(_, item)| item.subscription.from()).map(|(jid, _)| jid);
        let readers = seen_by.filter(|jid| may(jid)).cloned().collect();
        let subscribers = self.row.subscriptions.iter().filter(|jid| may(&jid.to_bare())).cloned().collect();
        let (owner, node) = (self.owner.clone(), self.name.to_owned());
        Ok(Outcome::Told(vec![Event { owner, node, change, readers, subscribers }]))
    }
}

/// What an item counts for in an account's share.
fn size(item: &Item) -> u64 {
    (item.payload.len() + item.id.len()) as u64
}

fn publish(tx: &mut Staged<'_>, rules: &Rules, mut node: Node<'_>, item: &Item) -> Result<Outcome> {
    if node.name == ns::AVATAR_METADATA {
        avatar::on_metadata(tx, rules, node.owner, &item.payload)?;
    }
    if node.row.config.persist {
        let mut head = head(tx, node.owner)?;
        if let Some((seq, before)) = node.item(tx, &item.id)? {
            node.forget(tx, &mut head, seq, &before);
        }
        node.row.last_seq = node.row.last_seq.checked_add(1).ok_or(StoreError::Full)?;
        node.row.items += 1;
        head.bytes = head.bytes.saturating_add(size(item));
        tx.put(
            Table::Pubsub,
            schema::order_key(node.owner, node.name, node.row.last_seq),
            schema::encode_xml(item.id.as_bytes()),
        );
        tx.put(
            Table::Pubsub,
            schema::item_key(node.owner, node.name, &item.id),
            schema::encode_item(node.row.last_seq, item),
        );
        let keep = node.keep(rules);
        node.trim(tx, &mut head, keep, &item.id)?;
        if head.bytes > rules.limits.pep_total_bytes_max as u64 {
            return Err(StoreError::Full);
        }
        put_head(tx, node.owner, &head);
    }
    node.save(tx);
    let mut item = item.clone();
    if !node.row.config.payloads {
        item.payload.clear();
    }
    node.event(tx, rules, Change::Published(item))
}

fn retract(tx: &mut Staged<'_>, rules: &Rules, mut node: Node<'_>, ids: &[String], notify: bool) -> Result<Outcome> {
    let mut head = head(tx, node.owner)?;
    for id in ids {
        match node.item(tx, id)? {
            Some((seq, item)) => node.forget(tx, &mut head, seq, &item),
            None => return Err(StoreError::NotFound),
        }
    }
    put_head(tx, node.owner, &head);
    let done = node.save(tx);
    match notify || node.row.config.notify_retract {
        true => node.event(tx, rules, Change::Retracted(ids.to_vec())),
        false => Ok(done),
    }
}

/// Removes the items; the counters are not saved.
fn clear(tx: &mut Staged<'_>, node: &mut Node<'_>, head: &mut PubsubHead) -> Result<()> {
    for (seq, id) in node.order(tx)? {
        if let Some((_, item)) = node.item(tx, &id)? {
            node.forget(tx, head, seq, &item);
        }
    }
    Ok(())
}

fn purge(tx: &mut Staged<'_>, rules: &Rules, mut node: Node<'_>) -> Result<Outcome> {
    let mut head = head(tx, node.owner)?;
    clear(tx, &mut node, &mut head)?;
    put_head(tx, node.owner, &head);
    node.save(tx);
    node.event(tx, rules, Change::Purged)
}

fn delete(tx: &mut Staged<'_>, rules: &Rules, mut node: Node<'_>) -> Result<Outcome> {
    let mut head = head(tx, node.owner)?;
    clear(tx, &mut node, &mut head)?;
    head.nodes = head.nodes.saturating_sub(1);
    put_head(tx, node.owner, &head);
    tx.delete(Table::Pubsub, schema::node_key(node.owner, node.name));
    match node.row.config.notify_delete {
        true => node.event(tx, rules, Change::Deleted),
        false => Ok(Outcome::Done),
    }
}

fn configure(tx: &mut Staged<'_>, rules: &Rules, mut node: Node<'_>, options: &[Field]) -> Result<Outcome> {
    let config = node.row.config.with(options).filter(|config| config.text_bytes() <= CONFIG_BYTES_MAX);
    let config = config.filter(|config| config.is_allowed_for(node.name));
    let Some(config) = config else { return Ok(Outcome::Refused(Refusal::Options)) };
    node.row.config = config;
    let keep = if node.row.config.persist { node.keep(rules) } else { 0 };
    let mut head = head(tx, node.owner)?;
    node.trim(tx, &mut head, keep, "")?;
    put_head(tx, node.owner, &head);
    let done = node.save(tx);
    if node.name == ns::NICK {
        nickname::refresh(tx, rules, node.owner)?;
    }
    Ok(done)
}

fn subscribe(tx: &mut Staged<'_>, mut node: Node<'_>, jid: &Jid) -> Result<Outcome> {
    if !node.row.subscriptions.contains(jid) {
        if node.row.subscriptions.len() >= LIST_MAX {
            return Ok(Outcome::Refused(Refusal::Full));
        }
        node.row.subscriptions.push(jid.clone());
        node.save(tx);
    }
    let last = match node.row.config.send_last {
        SendLast::Never => None,
        SendLast::OnSubscription | SendLast::OnPresence => node.last(tx)?,
    };
    Ok(Outcome::Subscribed(last))
}

fn readable_nodes(tx: &mut Staged<'_>, rules: &Rules, owner: &BareJid, asker: &BareJid) -> Result<Outcome> {
    let (from, to) = schema::node_keys(owner);
    let (mut rows, mut result) = (Vec::new(), Ok(()));
    tx.scan(Table::Pubsub, &from, &to, &mut |key, record| {
        match schema::node_of_key(owner, key).and_then(|name| Ok((name.to_owned(), schema::decode_node(record)?))) {
            Ok(row) => rows.push(row),
            Err(error) => result = Err(malformed(Table::Pubsub, key, error)),
        }
        ControlFlow::Continue(())
    })?;
    result?;
    let roster = roster::load_towards(tx, rules, owner, asker)?.unwrap_or_default();
    let may = |(name, row): (String, NodeRow)| {
        let node = Node { owner, name: &name, row };
        node.access(&roster, asker).ok()?;
        let title = node.row.config.title;
        Some((name, title))
    };
    Ok(Outcome::Nodes(rows.into_iter().filter_map(may).collect()))
}

fn told(outcome: Outcome) -> Vec<Event> {
    match outcome {
        Outcome::Told(events) => events,
        _ => Vec::new(),
    }
}

/// Publishes an item of an account by itself. A node that is missing is made as new ones are, or with the access model that is
/// given; if there may be no more nodes, nothing is published.
pub(super) fn put(
    tx: &mut Staged<'_>,
    rules: &Rules,
    owner: &BareJid,
    name: &str,
    item: &Item,
    access: Option<Access>,
) -> Result<Vec<Event>> {
    let row = tx.read(Table::Pubsub, &schema::node_key(owner, name), schema::decode_node)?;
    let node = match row.map(|row| Node { owner, name, row }) {
        Some(node) => node,
        None => match add_node(tx, rules, owner, name, &[])? {
            Ok(mut node) => {
                node.row.config.access = access.unwrap_or(node.row.config.access);
                node
            }
            Err(_) => return Ok(Vec::new()),
        },
    };
    publish(tx, rules, node, item).map(told)
}

/// Retracts items of an account by itself, and tells.
pub(super) fn take(
    tx: &mut Staged<'_>,
    rules: &Rules,
    owner: &BareJid,
    name: &str,
    ids: &[String],
) -> Result<Vec<Event>> {
    let row = tx.read(Table::Pubsub, &schema::node_key(owner, name), schema::decode_node)?;
    match row.filter(|_| !ids.is_empty()) {
        Some(row) => retract(tx, rules, Node { owner, name, row }, ids, true).map(told),
        None => Ok(Vec::new()),
    }
}

/// Every item of a node, oldest first; `None` if there is no such node.
pub(super) fn all_items(tx: &mut Staged<'_>, owner: &BareJid, name: &str) -> Result<Option<Vec<Item>>> {
    let Some(row) = tx.read(Table::Pubsub, &schema::node_key(owner, name), schema::decode_node)? else {
        return Ok(None);
    };
    let node = Node { owner, name, row };
    match node.items(tx, &Wanted::Recent(usize::MAX), usize::MAX)? {
        Outcome::Items { items, .. } => Ok(Some(items)),
        _ => Ok(None),
    }
}

/// Whether the account's share takes so many bytes more.
pub(super) fn has_room(tx: &mut Staged<'_>, rules: &Rules, owner: &BareJid, bytes: usize) -> Result<bool> {
    Ok(head(tx, owner)?.bytes.saturating_add(bytes as u64) <= rules.limits.pep_total_bytes_max as u64)
}

/// Who may read a node, and its last item.
pub(super) fn last_of(tx: &mut Staged<'_>, owner: &BareJid, name: &str) -> Result<Option<(Access, Option<Item>)>> {
    let Some(row) = tx.read(Table::Pubsub, &schema::node_key(owner, name), schema::decode_node)? else {
        return Ok(None);
    };
    let node = Node { owner, name, row };
    let item = node.last(tx)?;
    Ok(Some((node.row.config.access, item)))
}

/// Last items of the nodes that send them to who comes online.
pub(super) fn last_items(
    tx: &mut Staged<'_>,
    rules: &Rules,
    owners: &[BareJid],
    reader: &BareJid,
    nodes: &[Box<str>],
) -> StoreReply {
    let mut items = Vec::new();
    for owner in owners {
        // Most accounts have no node at all; of those nothing else is read.
        if head(tx, owner)?.nodes == 0 || account::blocklist(tx, owner)?.blocks_prepared(reader.as_str()) {
            continue;
        }
        let Some(roster) = roster::load_towards(tx, rules, owner, reader)? else { continue };
        for name in nodes {
            let row = tx.read(Table::Pubsub, &schema::node_key(owner, name), schema::decode_node)?;
            let Some(row) = row.filter(|row| row.config.send_last == SendLast::OnPresence) else { continue };
            let node = Node { owner, name, row };
            if node.access(&roster, reader).is_err() {
                continue;
            }
            if let Some(mut item) = node.last(tx)? {
                if !node.row.config.payloads {
                    item.payload.clear();
                }
                items.push(LastItem { owner: owner.clone(), node: name.to_string(), item });
            }
        }
    }
    Ok(Stored::LastItems(items))
}
