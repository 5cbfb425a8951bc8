//! Push registrations (XEP-0357): those that were acknowledged are there after every restart. No client can ask for them, so the
//! store is asked.

use super::device::{Device, Purpose};
use super::land::Land;
use super::registers::Key;
use super::{NEWCOMER, account_name};

/// It has no client, so every notification fails for the time being.
const APP_SERVER: &str = "app@a.test";
/// What the devices of an account have in common: any of them may change it.
const NODES: usize = 3;

impl Device {
    pub fn register_for_push(&mut self, land: &mut Land) {
        let node = land.dice.below(NODES);
        let key = Key::Push(self.account, node);
        let (name, value) = if land.dice.percent(70) { ("enable", "on") } else { ("disable", "") };
        let write = land.oracle.begin_write(&key, value, land.now);
        let payload = format!("<{name} xmlns='urn:xmpp:push:0' jid='{APP_SERVER}' node='n{node}'/>");
        self.request(land, "set", None, &payload, Purpose::Write(vec![(key, write)]));
    }
}

impl Land {
    /// Looks into the store.
    pub fn check_push(&mut self) {
        for account in 0..=NEWCOMER {
            let Some(document) = self.vault.push_document(account_name(account)) else { continue };
            for node in 0..NODES {
                let value = if document.contains(&format!("node='n{node}'")) { "on" } else { "" };
                self.oracle.on_read(&Key::Push(account, node), value, self.now, self.now);
            }
        }
    }
}
