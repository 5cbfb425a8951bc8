//! All accounts of a domain as each other's contacts, without anybody asking anybody, where the configuration says so.
//!
//! Nothing of this is stored in rosters: a domain that shares its contacts has one list of its accounts in memory, with the names
//! that they give themselves, and who looks at a roster or asks who sees whom looks there too ([`sees`], [`watchers`], …). What a
//! roster holds of such a contact is the name and the groups that its owner has given it; they are shown, its subscription is
//! not. The store has the same rule for what it decides itself (`store::roster::load_towards`).
//!
//! A contact of that kind cannot be removed, and its subscription cannot be changed; blocking works as ever. The list is bounded:
//! accounts beyond `Limits::shared_contacts_max` are not on it.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::prelude::*;
use super::roster;
use crate::config::Config;
use crate::core::effects::StoreError;
use crate::core::parked::Waiting;
use crate::core::roster::{Item, RosterVersion, Subscription};
use crate::core::session::Account;
use crate::jid::BareJid;

pub(super) const HANDLER: Handler =
    Handler { name: "shared_contacts", spec: "RFC 6121 section 2, by configuration", ..Handler::EMPTY };

/// What is said to who wants to be rid of such a contact.
pub(super) const IS_SHARED: StanzaError =
    StanzaError::NOT_ALLOWED.text("Everybody of this domain is everybody's contact.");

/// The domains that share their contacts.
#[derive(Default)]
pub(crate) struct Circles(Vec<Circle>);

/// A domain that does.
struct Circle {
    domain: Box<str>,
    /// In which group its accounts are.
    group: Box<str>,
    /// Accounts with the names that they give themselves; `None` before the store has told.
    members: Option<BTreeMap<BareJid, Box<str>>>,
    members_max: usize,
    /// Stands for what the list says: the same list has the same, also after a restart.
    version: u64,
    /// What it holds, roughly, in bytes.
    held: usize,
}

impl Circles {
    /// Of a configuration.
    pub(crate) fn new(config: &Config) -> Circles {
        let sharing = config.domains.iter().filter(|domain| !domain.shared_contacts.is_empty());
        let circle = |domain: &crate::config::DomainConfig| Circle {
            domain: domain.name.as_str().into(),
            group: domain.shared_contacts.as_str().into(),
            members: None,
            members_max: config.limits.shared_contacts_max,
            version: digest("", &domain.shared_contacts),
            held: 0,
        };
        Circles(sharing.map(circle).collect())
    }

    fn of(&self, jid: &BareJid) -> Option<&Circle> {
        self.0.iter().find(|circle| *circle.domain == *jid.domain())
    }

    fn of_mut(&mut self, jid: &BareJid) -> Option<&mut Circle> {
        self.0.iter_mut().find(|circle| *circle.domain == *jid.domain())
    }

    /// What they hold, roughly, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.0.iter().map(|circle| circle.held).sum()
    }
}

impl Circle {
    fn has(&self, jid: &str) -> bool {
        self.members.as_ref().is_some_and(|members| members.contains_key(jid))
    }

    /// Sets or changes a member; whether anything is other than before.
    fn put(&mut self, jid: &BareJid, name: &str) -> bool {
        let Some(members) = &mut self.members else { return false };
        let before = members.get(jid.as_str());
        if before.is_some_and(|before| **before == *name) {
            return false;
        }
        if before.is_none() && members.len() >= self.members_max {
            log::warn!("{} has more accounts than shared_contacts_max; {jid} is not shared", self.domain);
            return false;
        }
        if let Some(before) = members.insert(jid.clone(), name.into()) {
            self.count_out(jid, &before);
        }
        self.version ^= digest(jid.as_str(), name);
        self.held += entry_bytes(jid, name);
        true
    }

    fn remove(&mut self, jid: &BareJid) -> bool {
        let removed = self.members.as_mut().and_then(|members| members.remove(jid.as_str()));
        if let Some(name) = &removed {
            self.count_out(jid, name);
        }
        removed.is_some()
    }

    fn count_out(&mut self, jid: &BareJid, name: &str) {
        self.version ^= digest(jid.as_str(), name);
        self.held = self.held.saturating_sub(entry_bytes(jid, name));
    }
}

fn entry_bytes(jid: &BareJid, name: &str) -> usize {
    64 + jid.as_str().len() + name.len()
}

/// Of one entry; those of a list are put together so that their order does not matter.
fn digest(jid: &str, name: &str) -> u64 {
    let hash = Sha256::new().chain_update(jid).chain_update([0]).chain_update(name).finalize();
    hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What the account is called that gives itself no name.
fn plain_name(jid: &BareJid) -> &str {
    jid.local().unwrap_or_default()
}

/// Whether two different accounts see each other because their domain shares its contacts.
pub(crate) fn is_shared(core: &Core, one: &BareJid, other: &str) -> bool {
    let shares = |circle: &Circle| one.as_str() != other && circle.has(other) && circle.has(one.as_str());
    core.shared.shared_contacts.of(one).is_some_and(shares)
}

/// Whether an account sees the presence of `contact`.
pub(crate) fn sees(core: &Core, account: &Account, contact: &str) -> bool {
    account.roster.state(contact).to || is_shared(core, &account.jid, contact)
}

/// Whether `contact` sees the presence of an account.
pub(crate) fn is_seen(core: &Core, account: &Account, contact: &str) -> bool {
    account.roster.state(contact).from || is_shared(core, &account.jid, contact)
}

/// Whether an account has `contact` on its roster, as its clients see it.
pub(crate) fn lists(core: &Core, account: &Account, contact: &str) -> bool {
    account.roster.items.contains_key(contact) || is_shared(core, &account.jid, contact)
}

/// The other accounts that an account sees, and is seen by, because their domain shares its contacts.
fn shared_with<'c>(core: &'c Core, account: &'c Account) -> impl Iterator<Item = (&'c BareJid, &'c str)> {
    let circle = core.shared.shared_contacts.of(&account.jid).filter(|circle| circle.has(account.jid.as_str()));
    let members = circle.and_then(|circle| circle.members.as_ref()).into_iter().flatten();
    members.filter(|(jid, _)| **jid != account.jid).map(|(jid, name)| (jid, &**name))
}

/// Contacts on the roster that are so by subscription and not by their domain.
fn own<'c>(core: &'c Core, account: &'c Account) -> impl Iterator<Item = (&'c BareJid, &'c Item)> {
    account.roster.items.iter().filter(|(jid, _)| !is_shared(core, &account.jid, jid.as_str()))
}

/// Whoever sees the presence of an account.
pub(crate) fn watchers<'c>(core: &'c Core, account: &'c Account) -> impl Iterator<Item = &'c BareJid> {
    let own = own(core, account).filter(|(_, item)| item.subscription.from()).map(|(jid, _)| jid);
    own.chain(shared_with(core, account).map(|(jid, _)| jid))
}

/// Whose presence an account sees.
pub(crate) fn watched<'c>(core: &'c Core, account: &'c Account) -> impl Iterator<Item = &'c BareJid> {
    let own = own(core, account).filter(|(_, item)| item.subscription.to()).map(|(jid, _)| jid);
    own.chain(shared_with(core, account).map(|(jid, _)| jid))
}

/// Everybody on the roster of an account.
pub(crate) fn contacts<'c>(core: &'c Core, account: &'c Account) -> impl Iterator<Item = &'c BareJid> {
    own(core, account).map(|(jid, _)| jid).chain(shared_with(core, account).map(|(jid, _)| jid))
}

/// The roster of an account as its clients see it: its version, and its items one after another.
pub(super) fn each_item(core: &Core, account: &Account, mut each: impl FnMut(&BareJid, &Item)) {
    own(core, account).for_each(|(jid, item)| each(jid, item));
    for (jid, name) in shared_with(core, account) {
        each(jid, &merged(account.roster.items.get(jid.as_str()), name, group_of(core, jid)));
    }
}

/// An item as clients see it.
pub(super) fn shown(core: &Core, user: &BareJid, jid: &BareJid, item: Option<&Item>) -> Option<Item> {
    match is_shared(core, user, jid.as_str()) {
        true => Some(merged(item, name_of(core, jid), group_of(core, jid))),
        false => item.cloned(),
    }
}

/// What clients know the state of a roster by.
pub(super) fn version(core: &Core, user: &BareJid, own: RosterVersion) -> String {
    match core.shared.shared_contacts.of(user) {
        Some(circle) if circle.has(user.as_str()) => format!("{own}-{:x}", circle.version),
        _ => own.to_string(),
    }
}

fn name_of<'c>(core: &'c Core, jid: &BareJid) -> &'c str {
    let circle = core.shared.shared_contacts.of(jid);
    let name = circle.and_then(|circle| circle.members.as_ref()?.get(jid.as_str()));
    name.map(|name| &**name).unwrap_or_default()
}

fn group_of<'c>(core: &'c Core, jid: &BareJid) -> &'c str {
    core.shared.shared_contacts.of(jid).map(|circle| &*circle.group).unwrap_or_default()
}

/// A shared contact: with the name and the groups that the owner of the roster has given it, if he has.
fn merged(own: Option<&Item>, name: &str, group: &str) -> Item {
    let own_name = own.map(|own| own.name.as_str()).filter(|name| !name.is_empty());
    let own_groups = own.map(|own| own.groups.clone()).filter(|groups| !groups.is_empty());
    Item {
        name: own_name.unwrap_or(name).to_owned(),
        groups: own_groups.unwrap_or_else(|| vec![group.to_owned()]),
        subscription: Subscription::Both,
        ..Item::default()
    }
}

/// Whether the list of an account's domain has to be read before the account comes into use.
pub(super) fn is_unread(core: &Core, user: &BareJid) -> bool {
    core.shared.shared_contacts.of(user).is_some_and(|circle| circle.members.is_none())
}

/// What goes on when the list is there, or the store has failed.
pub(super) type ThenRead = Box<dyn FnOnce(&mut Core, Now, ConnId, Result<(), StoreError>, &mut Outputs)>;

/// Reads the list of an account's domain; the stream waits.
pub(super) fn read(core: &mut Core, conn: ConnId, user: &BareJid, then: ThenRead, out: &mut Outputs) {
    let (user, max) = (user.clone(), core.limits.shared_contacts_max);
    let request = StoreRequest::SharedContacts { domain: user.domain().to_owned(), max };
    let then = move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        let done = match reply {
            Ok(Stored::SharedContacts(members)) => {
                // Another stream may have read it meanwhile, and more have come since.
                if let Some(circle) =
                    core.shared.shared_contacts.of_mut(&user).filter(|circle| circle.members.is_none())
                {
                    circle.members = Some(BTreeMap::new());
                    for (jid, name) in &members {
                        circle.put(jid, if name.is_empty() { plain_name(jid) } else { name });
                    }
                }
                Ok(())
            }
            Ok(_) => Err(StoreError::Failed),
            Err(error) => Err(error),
        };
        then(core, now, conn, done, out);
    };
    core.ask(request, Waiting::Stream { conn, then: Box::new(then) }, out);
}

/// An account is there; it may be a new one.
pub(crate) fn on_added(core: &mut Core, user: &BareJid, out: &mut Outputs) {
    let circle = core.shared.shared_contacts.of_mut(user);
    if circle.is_some_and(|circle| !circle.has(user.as_str()) && circle.put(user, plain_name(user))) {
        tell(core, user, out);
    }
}

/// An account is gone, and nobody sees it any more.
pub(crate) fn on_removed(core: &mut Core, user: &BareJid, out: &mut Outputs) {
    if core.shared.shared_contacts.of_mut(user).is_some_and(|circle| circle.remove(user)) {
        tell(core, user, out);
    }
}

/// The name that an account gives itself may be another one. Nobody waits for it to be known.
pub(super) fn on_renamed(core: &mut Core, user: &BareJid, out: &mut Outputs) {
    // Where the store is busy the next change will tell.
    if core.shared.shared_contacts.of(user).is_none() || !core.store_has_room() {
        return;
    }
    let owner = user.clone();
    let then = move |core: &mut Core, _: Now, _: ConnId, reply: StoreReply, out: &mut Outputs| {
        let Ok(Stored::Document(name)) = reply else { return };
        let name = name.and_then(|name| String::from_utf8(name).ok());
        let name = name.as_deref().unwrap_or(plain_name(&owner));
        let circle = core.shared.shared_contacts.of_mut(&owner).filter(|circle| circle.has(owner.as_str()));
        if circle.is_some_and(|circle| circle.put(&owner, name)) {
            tell(core, &owner, out);
        }
    };
    let request = StoreRequest::DocumentGet { user: user.clone(), key: DocumentKey::Nickname };
    core.ask(request, Waiting::Detached { conn: ConnId::NOBODY, then: Box::new(then) }, out);
}

/// Tells every client of the domain that has asked for its roster how the item of `jid` is now.
fn tell(core: &mut Core, jid: &BareJid, out: &mut Outputs) {
    let accounts = core.accounts.iter().map(|(_, account)| &account.jid);
    let users: Vec<BareJid> = accounts.filter(|user| user.domain() == jid.domain() && *user != jid).cloned().collect();
    for user in users {
        roster::push_current(core, &user, jid, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_for_what_the_list_says() {
        let config = "[[domain]]\nname = \"a.test\"\nshared_contacts = \"All\"\n[limits]\nshared_contacts_max = 2";
        let config = Config::parse(config, std::path::Path::new("/")).expect("a configuration");
        let mut circles = Circles::new(&config);
        let jid = |name: &str| BareJid::from_prepared(&format!("{name}@a.test"));
        let circle = circles.of_mut(&jid("x")).expect("it shares");
        assert!(!circle.put(&jid("x"), "X"), "it is not known yet who is there");
        circle.members = Some(BTreeMap::new());
        let empty = circle.version;
        let mut seen = vec![empty];
        let mut check = |circle: &Circle, is_new: bool| {
            assert_eq!(!seen.contains(&circle.version), is_new, "{:?}", circle.members);
            seen.push(circle.version);
        };
        assert!(circle.put(&jid("x"), "x"));
        check(circle, true);
        assert!(circle.put(&jid("y"), "y"));
        check(circle, true);
        assert!(!circle.put(&jid("z"), "z"), "it is full");
        check(circle, false);
        assert!(circle.put(&jid("x"), "X"), "also where it is full");
        check(circle, true);
        assert!(!circle.put(&jid("x"), "X"));
        assert!(circle.remove(&jid("x")) && !circle.remove(&jid("x")));
        check(circle, true);
        assert!(circle.put(&jid("x"), "x"));
        check(circle, false);
        assert!(circle.remove(&jid("x")) && circle.remove(&jid("y")));
        assert_eq!((circle.version, circle.held), (empty, 0));
    }
}
