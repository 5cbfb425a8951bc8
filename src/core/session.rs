//! Accounts in use: their bound resources, and the state that features keep for them.

use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;

use crate::core::effects::{AccountRecord, ConnId};
use crate::core::roster::Roster;
use crate::handlers::{PerAccount, PerResource};
use crate::jid::{BareJid, FullJid};
use crate::xml::writer::escape_attr;

/// Index of an account in use; valid while one of its resources is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountId(usize);

/// The accounts that have a bound resource.
#[derive(Default)]
pub struct Accounts {
    slab: Slab<Account>,
    by_jid: HashMap<BareJid, AccountId>,
    sessions: usize,
    held: usize,
}

/// An account in use.
pub struct Account {
    /// Its address.
    pub jid: BareJid,
    /// Roster and pending requests; follows the store and never precedes it.
    pub roster: Roster,
    /// Bound, in the order of binding.
    pub resources: Vec<Resource>,
    /// What features keep for the account.
    pub per: PerAccount,
    /// What it held when it was measured.
    measured: usize,
}

/// A bound resource.
pub struct Resource {
    /// Its connection.
    pub conn: ConnId,
    /// Its address.
    pub jid: FullJid,
    /// The same, escaped for an attribute: stamped into every stanza it sends.
    pub from: Arc<str>,
    /// What features keep for it.
    pub per: PerResource,
}

impl Resource {
    /// A resource without state.
    pub fn new(conn: ConnId, jid: FullJid) -> Resource {
        let mut escaped = Vec::with_capacity(jid.as_str().len());
        escape_attr(jid.as_str(), &mut escaped);
        let from = String::from_utf8_lossy(&escaped).as_ref().into();
        Resource { conn, jid, from, per: PerResource::default() }
    }
}

impl Account {
    /// The resource of a connection.
    pub fn resource(&self, conn: ConnId) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.conn == conn)
    }

    /// The resource of a connection.
    pub fn resource_mut(&mut self, conn: ConnId) -> Option<&mut Resource> {
        self.resources.iter_mut().find(|resource| resource.conn == conn)
    }

    /// The resource with this resourcepart, which must be prepared.
    pub fn resource_named(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.jid.resource() == name)
    }
}

impl Accounts {
    /// An account in use, by its prepared bare JID.
    pub fn find(&self, jid: &str) -> Option<&Account> {
        self.by_jid.get(jid).map(|id| &self.slab[id.0])
    }

    /// An account in use, by its prepared bare JID.
    pub fn find_mut(&mut self, jid: &str) -> Option<&mut Account> {
        self.by_jid.get(jid).map(|id| &mut self.slab[id.0])
    }

    /// The account of a bound stream.
    pub fn get(&self, id: AccountId) -> &Account {
        &self.slab[id.0]
    }

    /// The account of a bound stream.
    pub fn get_mut(&mut self, id: AccountId) -> &mut Account {
        &mut self.slab[id.0]
    }

    /// Every account in use.
    pub fn iter(&self) -> impl Iterator<Item = (AccountId, &Account)> {
        self.slab.iter().map(|(index, account)| (AccountId(index), account))
    }

    /// Bound resources of all accounts.
    pub fn session_count(&self) -> usize {
        self.sessions
    }

    /// Binds a resource; `record` is what the store knows, used if the account was not in use before.
    pub fn bind(&mut self, jid: &BareJid, record: AccountRecord, resource: Resource) -> AccountId {
        let id = match self.by_jid.get(jid.as_str()) {
            Some(id) => *id,
            None => {
                let per = PerAccount::activated(&record);
                let account = Account {
                    jid: jid.clone(),
                    roster: record.roster,
                    resources: Vec::with_capacity(1),
                    per,
                    measured: 0,
                };
                let id = AccountId(self.slab.insert(account));
                self.by_jid.insert(jid.clone(), id);
                id
            }
        };
        self.slab[id.0].resources.push(resource);
        self.sessions += 1;
        self.measure(id);
        id
    }

    /// What all accounts held when they were measured, roughly, in bytes.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Measures an account again.
    pub fn measure(&mut self, id: AccountId) {
        let account = &mut self.slab[id.0];
        let (held, before) = (account.held(), account.measured);
        account.measured = held;
        self.held = self.held - before + held;
    }

    /// A session goes on on another connection.
    pub fn move_resource(&mut self, id: AccountId, from: ConnId, to: ConnId) {
        if let Some(resource) = self.slab[id.0].resource_mut(from) {
            resource.conn = to;
        }
    }

    /// Unbinds the resource of a connection; an account without resources is forgotten.
    pub fn unbind(&mut self, id: AccountId, conn: ConnId) {
        let account = &mut self.slab[id.0];
        let before = account.resources.len();
        account.resources.retain(|resource| resource.conn != conn);
        self.sessions -= before - account.resources.len();
        if account.resources.is_empty() {
            let account = self.slab.remove(id.0);
            self.by_jid.remove(account.jid.as_str());
            self.held -= account.measured;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::stream::Stream;

    /// Every session has one of each, so that their sizes are part of what an idle session costs.
    #[test]
    fn sessions_stay_small() {
        let value = |name: &str| {
            let (_, entry) = include_str!("../../benches/baseline.toml").split_once(&format!("\n[{name}]\n"))?;
            entry.lines().find_map(|line| line.strip_prefix("value = "))?.parse().ok()
        };
        for (name, size) in [
            ("struct_stream_bytes", size_of::<Stream>()),
            ("struct_account_bytes", size_of::<Account>()),
            ("struct_resource_bytes", size_of::<Resource>()),
        ] {
            let most: usize = value(name).unwrap_or(0);
            assert!(size <= most, "{name} was {most} and is {size}; if it must be, say why in benches/baseline.toml");
        }
    }
}
