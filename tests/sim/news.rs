//! Personal eventing (XEP-0163): what was published stays, and whoever may hear of it has the newest in the end.

use whinchat::xml::{Element, ns};

use super::device::{Device, Purpose};
use super::land::Land;
use super::registers::Key;
use super::world::World;
use super::{Plant, account_name};

const NODE: &str = "urn:x:tune";
/// The answer to a question for capabilities (XEP-0115), and its hash.
const ANSWER: &str = "<identity category='client' type='pc'/><feature var='urn:x:tune+notify'/>";
const HASH: &str = "NASaL+SReAUH33oUeS5sXgaPD64=";

impl Device {
    pub fn publish(&mut self, land: &mut Land) {
        let key = Key::Tune(self.account);
        self.set(land, key, |value| {
            format!(
                "<pubsub xmlns='{}'><publish node='{NODE}'><item id='current'><tune xmlns='{NODE}'>{value}</tune></item>\
                 </publish></pubsub>",
                ns::PUBSUB
            )
        });
    }

    pub fn ask_tune(&mut self, land: &mut Land) {
        let payload = format!("<pubsub xmlns='{}'><items node='{NODE}'/></pubsub>", ns::PUBSUB);
        self.request(land, "get", None, &payload, Purpose::Read { key: Key::Tune(self.account) });
    }

    /// What its presence says of it. Some hashes are wrong, so that the server has to ask each time.
    pub fn capabilities(&self) -> String {
        let ver = if self.index().is_multiple_of(2) { HASH } else { "v" };
        format!("<c xmlns='{}' hash='sha-1' node='urn:x:client' ver='{ver}'/>", ns::CAPS)
    }

    /// The answer to the server's question.
    pub fn tell_capabilities(&mut self, query: &Element<'_>) -> String {
        let node = query.attr("node").unwrap_or_default();
        format!("<query xmlns='{}' node='{node}'>{ANSWER}</query>", ns::DISCO_INFO)
    }

    /// Whether it was news.
    pub fn on_news(&mut self, land: &mut Land, message: &Element<'_>) -> bool {
        let Some(event) = message.child("event", ns::PUBSUB_EVENT) else { return false };
        let owner = (0..=super::NEWCOMER).find(|account| message.attr("from") == Some(account_name(*account)));
        let tune = event.children().next().and_then(|items| items.children().next()?.children().next());
        match (owner, tune) {
            (Some(owner), Some(_)) if land.plant == Some(Plant::HideNews) && self.tunes.contains_key(&owner) => {}
            (Some(owner), Some(tune)) => {
                let value = tune.text().into_owned();
                // It is stored before anybody hears of it.
                land.oracle.on_shown(&Key::Tune(owner), &value, land.now);
                self.tunes.insert(owner, value);
            }
            _ => land.oracle.fail(|| format!("device {} got {}", self.index(), message.source())),
        }
        true
    }
}

impl World {
    /// Everybody knows the newest of whom he hears of.
    pub fn check_news(&mut self) {
        for device in &self.devices {
            for owner in self.heard_by(device) {
                let possible = self.land.oracle.possible(&Key::Tune(owner), self.land.now);
                let known = device.tunes.get(&owner).cloned().unwrap_or_default();
                if !possible.contains(&known) {
                    let what = format!(
                        "device {} has {known:?} as the newest of {}, not {possible:?}",
                        device.index(),
                        account_name(owner)
                    );
                    return self.land.oracle.fail(|| what);
                }
            }
        }
    }
}
