//! Blocking (XEP-0191): what somebody says after he was blocked does not arrive, whatever happened meanwhile.

use std::time::Duration;

use whinchat::xml::{Element, ns};

use super::device::{Device, Purpose};
use super::land::Land;
use super::oracle::Oracle;
use super::registers::Key;
use super::{NEWCOMER, account_name};

const BLOCKED: &str = "blocked";

/// Whether two accounts ever block each other. What one of them answers to the other meanwhile is lost, so that what they have of
/// each other in their rosters may differ for ever.
pub fn may_quarrel(one: usize, other: usize) -> bool {
    (one + other).is_multiple_of(3)
}

impl Device {
    pub fn block_or_unblock(&mut self, land: &mut Land) {
        let other = land.dice.below(NEWCOMER + 1);
        if other == self.account || !may_quarrel(self.account, other) {
            return;
        }
        let key = Key::Blocked(self.account, other);
        let is_blocked = land.oracle.possible(&key, land.now).iter().any(|value| value == BLOCKED);
        let (name, value) = if is_blocked { ("unblock", "") } else { ("block", BLOCKED) };
        let write = land.oracle.begin_write(&key, value, land.now);
        let payload = format!("<{name} xmlns='{}'><item jid='{}'/></{name}>", ns::BLOCKING, account_name(other));
        self.request(land, "set", None, &payload, Purpose::Write(vec![(key, write)]));
    }

    pub fn unblock_all(&mut self, land: &mut Land) {
        let keys = (0..=NEWCOMER).map(|other| Key::Blocked(self.account, other));
        let writes = keys.map(|key| (key.clone(), land.oracle.begin_write(&key, "", land.now))).collect();
        let payload = format!("<unblock xmlns='{}'/>", ns::BLOCKING);
        self.request(land, "set", None, &payload, Purpose::Write(writes));
    }

    pub fn ask_blocklist(&mut self, land: &mut Land) {
        self.request(land, "get", None, &format!("<blocklist xmlns='{}'/>", ns::BLOCKING), Purpose::Blocklist);
    }

    pub fn on_blocklist(&mut self, land: &mut Land, iq: &Element<'_>, asked: Duration) {
        let Some(list) = iq.child("blocklist", ns::BLOCKING) else { return };
        for other in 0..=NEWCOMER {
            let is_there = list.children().any(|item| item.attr("jid") == Some(account_name(other)));
            let value = if is_there { BLOCKED } else { "" };
            land.oracle.on_read(&Key::Blocked(self.account, other), value, asked, land.now);
        }
    }
}

impl Oracle {
    /// Whether one of the two has blocked the other since then.
    pub fn may_be_blocked(&self, one: usize, other: usize, since: Duration) -> bool {
        let may_be = |key| self.possible(&key, since).iter().any(|value| value == BLOCKED);
        may_be(Key::Blocked(one, other)) || may_be(Key::Blocked(other, one))
    }

    /// Something that was sent then has arrived.
    pub fn check_not_blocked(&mut self, receiver: usize, sender: usize, sent: Duration, what: &str) {
        if self.possible(&Key::Blocked(receiver, sender), sent).iter().all(|value| value == BLOCKED) {
            self.fail(|| format!("{what} of account {sender} has come to account {receiver}, which had blocked that"));
        }
    }
}
