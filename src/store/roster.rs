//! Rosters and subscriptions: every change to a pair is made on both sides in one transaction (RFC 6121 sections 2 and 3).

use super::account;
use super::apply::{Rules, Staged};
use super::schema::{self, Table};
use crate::core::clock::UtcTime;
use crate::core::effects::{Half, StoreError, StoreReply, Stored};
use crate::core::roster::{Event, Item, Request, Roster, State, Subscription};
use crate::jid::BareJid;
use crate::xml::writer::escape_attr;

/// An account's roster; `None` if there is no such account.
pub(super) fn load(tx: &mut Staged<'_>, user: &BareJid) -> Result<Option<Roster>, StoreError> {
    if !tx.has_account(user)? {
        return Ok(None);
    }
    let roster = tx.read(Table::Rosters, &schema::account_key(user), schema::decode_roster)?;
    if roster.is_none() {
        // Taken for empty, it would make every client drop its contacts (section 2.2).
        log::error!("store: {} has an account and no roster", user.as_str());
        return Err(StoreError::Failed);
    }
    Ok(roster)
}

/// The first accounts of a domain, in order.
pub(super) fn members(tx: &mut Staged<'_>, domain: &str, max: usize) -> Result<Vec<BareJid>, StoreError> {
    match account::list(tx, domain, None, max, false)? {
        Stored::Accounts(members) => Ok(members),
        _ => Err(StoreError::Failed),
    }
}

fn share(roster: &mut Roster, jid: &BareJid) {
    roster.items.entry(jid.clone()).or_default().subscription = Subscription::Both;
}

/// An account's roster for what `peer` may do: an account of a domain that shares its contacts is one that both see.
pub(super) fn load_towards(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    peer: &BareJid,
) -> Result<Option<Roster>, StoreError> {
    let Some(mut roster) = load(tx, user)? else { return Ok(None) };
    if user != peer && user.domain() == peer.domain() && rules.shares(user) && tx.has_account(peer)? {
        share(&mut roster, peer);
    }
    Ok(Some(roster))
}

/// An account's roster with all whom its domain shares with it.
pub(super) fn load_shared(tx: &mut Staged<'_>, rules: &Rules, user: &BareJid) -> Result<Option<Roster>, StoreError> {
    let Some(mut roster) = load(tx, user)? else { return Ok(None) };
    if rules.shares(user) {
        let members = members(tx, user.domain(), rules.limits.shared_contacts_max)?;
        members.iter().filter(|member| *member != user).for_each(|member| share(&mut roster, member));
    }
    Ok(Some(roster))
}

/// One side of a pair while it changes.
struct Side {
    account: BareJid,
    jid: BareJid,
    roster: Roster,
    before: Option<Item>,
    request_before: bool,
    deliver: Vec<Event>,
    answers: Vec<Event>,
}

impl Side {
    fn load(tx: &mut Staged<'_>, account: &BareJid, jid: &BareJid) -> Result<Option<Side>, StoreError> {
        Ok(load(tx, account)?.map(|roster| Side::new(account, jid, roster)))
    }

    fn new(account: &BareJid, jid: &BareJid, roster: Roster) -> Side {
        Side {
            before: roster.items.get(jid).cloned(),
            request_before: roster.requests.contains_key(jid),
            account: account.clone(),
            jid: jid.clone(),
            roster,
            deliver: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// The contact's side, if it is an account here.
    fn of_contact(
        tx: &mut Staged<'_>,
        rules: &Rules,
        user: &BareJid,
        contact: &BareJid,
    ) -> Result<Option<Side>, StoreError> {
        match user != contact && rules.is_local(contact) {
            true => Side::load(tx, contact, user),
            false => Ok(None),
        }
    }

    fn state(&self) -> State {
        let item = self.roster.items.get(&self.jid);
        State {
            to: item.is_some_and(|item| item.subscription.to()),
            from: item.is_some_and(|item| item.subscription.from()),
            pending_out: item.is_some_and(|item| item.ask),
            pending_in: self.roster.requests.contains_key(&self.jid),
            approved: item.is_some_and(|item| item.approved),
        }
    }

    /// Brings item and request to that state. A contact is listed as soon as there is something to say of it besides its
    /// request (Appendix A.1), and stays so.
    fn set(&mut self, state: State) {
        if !state.pending_in {
            self.roster.requests.remove(&self.jid);
        }
        let says = state.to || state.from || state.pending_out || state.approved;
        if says || self.roster.items.contains_key(&self.jid) {
            let item = self.roster.items.entry(self.jid.clone()).or_default();
            item.subscription = Subscription::new(state.to, state.from);
            item.ask = state.pending_out;
            item.approved = state.approved;
        }
    }

    /// The user's own event; whether it is routed.
    fn send(&mut self, event: Event, items_max: usize) -> Result<bool, StoreError> {
        let (state, routed) = self.state().outbound(event);
        let listed = self.roster.items.len();
        let was_listed = self.before.is_some();
        self.set(state);
        // The side is not saved after an error.
        if !was_listed && self.roster.items.len() > listed && listed >= items_max {
            return Err(StoreError::Full);
        }
        Ok(routed)
    }

    /// The other side's event; the answer that goes back. `request` is what to keep of one that stays unanswered, and how many
    /// of them there may be.
    fn receive(&mut self, event: Event, request: Option<(&Request, usize)>) -> Option<Event> {
        let before = self.state();
        let inbound = before.inbound(event);
        if inbound.state.pending_in && !before.pending_in {
            let (request, requests_max) = request?;
            if self.roster.requests.len() >= requests_max {
                log::debug!("store: {} has too many open requests for one of {}", self.account, self.jid);
                return None;
            }
            self.roster.requests.insert(self.jid.clone(), request.clone());
        }
        self.set(inbound.state);
        if inbound.deliver {
            self.deliver.push(event);
        }
        self.answers.extend(inbound.answer);
        inbound.answer
    }

    fn has_changed(&self) -> bool {
        self.before.as_ref() != self.roster.items.get(&self.jid)
            || self.request_before != self.roster.requests.contains_key(&self.jid)
    }

    /// Writes what has changed. The version goes up with what a push would show, which a request is not (section 2.6.3).
    fn save(mut self, tx: &mut Staged<'_>) -> Half {
        if self.has_changed() {
            if self.before.as_ref() != self.roster.items.get(&self.jid) {
                self.roster.version = self.roster.version.next();
            }
            tx.put(Table::Rosters, schema::account_key(&self.account), schema::encode_roster(&self.roster));
        }
        Half {
            version: self.roster.version,
            item: self.roster.items.remove(&self.jid),
            request: self.roster.requests.remove(&self.jid),
            account: self.account,
            jid: self.jid,
            before: self.before,
            request_before: self.request_before,
            deliver: self.deliver,
            answers: self.answers,
        }
    }
}

pub(super) fn put(
    tx: &mut Staged<'_>,
    rules: &Rules,
    user: &BareJid,
    jid: &BareJid,
    name: &str,
    groups: &[String],
) -> StoreReply {
    let mut side = Side::load(tx, user, jid)?.ok_or(StoreError::NoAccount)?;
    if side.before.is_none() && side.roster.items.len() >= rules.limits.roster_items_max {
        return Err(StoreError::Full);
    }
    let item = side.roster.items.entry(jid.clone()).or_default();
    item.name = name.to_owned();
    item.groups = groups.to_vec();
    // It is sent to clients in one stanza, and held in memory.
    if bytes(&side.roster) > rules.limits.output_max / 2 {
        return Err(StoreError::Full);
    }
    Ok(Stored::Halves { user: Box::new(side.save(tx)), routed: false, contact: None })
}

/// What a roster takes, about.
fn bytes(roster: &Roster) -> usize {
    const ITEM_BYTES: usize = 64;
    let of_item = |(jid, item): (&BareJid, &Item)| {
        let groups: usize = item.groups.iter().map(|group| group.len() + 16).sum();
        ITEM_BYTES + jid.as_str().len() + item.name.len() + groups
    };
    roster.items.iter().map(of_item).sum()
}

/// Removes an item, and takes back what there was between the two (section 2.5.2; for what was only asked, as Prosody does).
pub(super) fn remove(tx: &mut Staged<'_>, rules: &Rules, user: &BareJid, jid: &BareJid) -> StoreReply {
    let mut side = Side::load(tx, user, jid)?.ok_or(StoreError::NoAccount)?;
    if side.before.is_none() {
        return Err(StoreError::NotFound);
    }
    let state = side.state();
    side.roster.items.remove(jid);
    side.roster.requests.remove(jid);
    let events = [
        (state.to || state.pending_out).then_some(Event::Unsubscribe),
        (state.from || state.pending_in).then_some(Event::Unsubscribed),
    ];
    let routed = user != jid && events.iter().any(Option::is_some);
    let mut contact = None;
    if routed && let Some(mut other) = Side::of_contact(tx, rules, user, jid)? {
        for event in events.into_iter().flatten() {
            if let Some(answer) = other.receive(event, None) {
                side.receive(answer, None);
            }
        }
        contact = Some(Box::new(other.save(tx)));
    }
    Ok(Stored::Halves { user: Box::new(side.save(tx)), routed, contact })
}

/// Runs an event of `pair.0` towards `pair.1` through both sides.
pub(super) fn subscription(
    tx: &mut Staged<'_>,
    rules: &Rules,
    pair: (&BareJid, &BareJid),
    event: Event,
    stanza: &[u8],
    at: UtcTime,
) -> StoreReply {
    let (user, contact) = pair;
    let mut side = Side::load(tx, user, contact)?.ok_or(StoreError::NoAccount)?;
    if user == contact {
        return Ok(Stored::Halves { user: Box::new(side.save(tx)), routed: false, contact: None });
    }
    let routed = side.send(event, rules.limits.roster_items_max)?;
    let mut half = None;
    // To a contact that has blocked the user nothing comes through.
    let blocked = account::blocklist(tx, contact)?.blocks_prepared(user.as_str());
    if routed
        && !blocked
        && let Some(mut other) = Side::of_contact(tx, rules, user, contact)?
    {
        let request = Request { stanza: kept_form(rules, pair, stanza), at };
        if let Some(answer) = other.receive(event, Some((&request, rules.limits.requests_max))) {
            // None of the answers calls for a further one.
            side.receive(answer, None);
        }
        half = Some(Box::new(other.save(tx)));
    }
    Ok(Stored::Halves { user: Box::new(side.save(tx)), routed, contact: half })
}

/// The request as it came, or without its children if it is longer than what is kept.
fn kept_form(rules: &Rules, (user, contact): (&BareJid, &BareJid), stanza: &[u8]) -> Vec<u8> {
    if stanza.len() <= rules.limits.request_bytes_max {
        return stanza.to_vec();
    }
    let mut bare = b"<presence from='".to_vec();
    escape_attr(user.as_str(), &mut bare);
    bare.extend_from_slice(b"' to='");
    escape_attr(contact.as_str(), &mut bare);
    bare.extend_from_slice(b"' type='subscribe'/>");
    bare
}

/// Takes back, on the side of every local contact, what an account that is about to go had with it. Both events run whatever
/// our side says, so that a half left behind by any accident goes too.
pub(super) fn sever(tx: &mut Staged<'_>, rules: &Rules, user: &BareJid) -> Result<Vec<Half>, StoreError> {
    let roster = load(tx, user)?.unwrap_or_default();
    let mut contacts: Vec<&BareJid> = roster.items.keys().chain(roster.requests.keys()).collect();
    contacts.sort_unstable();
    contacts.dedup();
    let mut halves = Vec::new();
    for contact in contacts {
        let Some(mut other) = Side::of_contact(tx, rules, user, contact)? else { continue };
        for event in [Event::Unsubscribe, Event::Unsubscribed] {
            other.receive(event, None);
        }
        if other.has_changed() {
            halves.push(other.save(tx));
        }
    }
    Ok(halves)
}
