//! Who an account does not want to hear from (XEP-0191), as the store and the handlers both read it.

use crate::jid::{Jid, JidRef};

/// Blocked addresses, in their own order. Whether one is blocked is asked for every stanza and each of its receivers, so it is
/// found by halving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocklist(Vec<Jid>);

/// What an account wants changed of its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlocklistChange {
    /// These too.
    Block(Vec<Jid>),
    /// These no more.
    Unblock(Vec<Jid>),
    /// Nobody any more.
    Clear,
}

impl Blocklist {
    /// This list after a change.
    #[must_use]
    pub fn changed(&self, change: &BlocklistChange) -> Blocklist {
        match change {
            BlocklistChange::Block(jids) => self.0.iter().chain(jids).cloned().collect(),
            BlocklistChange::Unblock(jids) => self.without(&jids.iter().cloned().collect()),
            BlocklistChange::Clear => Blocklist::default(),
        }
    }

    /// From its stored form, one address a line.
    pub fn decode(stored: &[u8]) -> Blocklist {
        let text = std::str::from_utf8(stored).unwrap_or_default();
        text.lines().filter(|line| !line.is_empty()).map(Jid::from_prepared).collect()
    }

    /// Its stored form. No address holds a line end.
    pub fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|jid| [jid.as_str().as_bytes(), b"\n"].concat()).collect()
    }

    /// The addresses.
    pub fn jids(&self) -> &[Jid] {
        &self.0
    }

    /// Whether it has this very entry.
    pub fn has(&self, jid: &str) -> bool {
        self.0.binary_search_by(|entry| entry.as_str().cmp(jid)).is_ok()
    }

    /// Bytes of its addresses.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|jid| jid.as_str().len()).sum()
    }

    /// The entries that `other` does not have.
    #[must_use]
    pub fn without(&self, other: &Blocklist) -> Blocklist {
        Blocklist(self.0.iter().filter(|jid| !other.has(jid.as_str())).cloned().collect())
    }

    /// Whether it holds the address, its bare JID, its domain with the resource, or its domain (section 6).
    pub fn blocks(&self, jid: &JidRef<'_>) -> bool {
        self.blocks_prepared(jid.as_str())
    }

    /// The same for an address in its prepared form.
    pub fn blocks_prepared(&self, jid: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        // The four are parts of the address as it stands.
        let bare = jid.split_once('/').map_or(jid, |(bare, _)| bare);
        let domain = bare.find('@').map_or(0, |at| at + 1);
        let of_domain = |text: &str| self.has(text.get(domain..).unwrap_or_default());
        self.has(jid) || self.has(bare) || of_domain(jid) || of_domain(bare)
    }
}

impl FromIterator<Jid> for Blocklist {
    fn from_iter<I: IntoIterator<Item = Jid>>(jids: I) -> Blocklist {
        let mut jids: Vec<Jid> = jids.into_iter().collect();
        jids.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        jids.dedup_by(|one, other| one.as_str() == other.as_str());
        Blocklist(jids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as section 6 has it.
    fn slowly(list: &Blocklist, jid: &JidRef<'_>) -> bool {
        list.jids().iter().any(|blocked| {
            let same_resource = blocked.resource().is_none_or(|resource| jid.resource() == Some(resource));
            let same_local = blocked.local().is_none_or(|local| jid.local() == Some(local));
            blocked.domain() == jid.domain() && same_local && same_resource
        })
    }

    #[test]
    fn it_is_what_the_slow_rule_says() {
        let parts = ["a@x.test", "b@x.test", "x.test", "a@x", "x"];
        let all: Vec<String> = parts
            .iter()
            .flat_map(|bare| ["", "/", "/r", "/a@x.test", "/r/s"].map(|resource| format!("{bare}{resource}")))
            .collect();
        let all: Vec<JidRef<'_>> = all.iter().filter_map(|text| JidRef::parse(text).ok()).collect();
        for (place, one) in all.iter().enumerate() {
            let entries = all.iter().skip(place).step_by(3).chain([one]);
            let list: Blocklist = entries.map(JidRef::to_owned_jid).collect();
            for jid in &all {
                assert_eq!(list.blocks(jid), slowly(&list, jid), "{list:?} and {jid:?}");
            }
            let both =
                [BlocklistChange::Block, BlocklistChange::Unblock].map(|change| list.changed(&change(list.0.clone())));
            assert_eq!(both, [list.clone(), Blocklist::default()]);
            assert_eq!(list.changed(&BlocklistChange::Clear), Blocklist::default());
        }
    }

    #[test]
    fn what_an_entry_covers() {
        let check = |entry: &str, jid: &str, expected: bool| {
            let list = Blocklist::decode(format!("other@x.test\n{entry}\n").as_bytes());
            assert_eq!(Blocklist::decode(&list.encode()), list);
            assert_eq!(list.blocks_prepared(jid), expected, "{entry} and {jid}");
        };
        check("a@x.test/r", "a@x.test/r", true);
        check("a@x.test/r", "a@x.test/s", false);
        check("a@x.test/r", "a@x.test", false);
        check("a@x.test", "a@x.test/r", true);
        check("a@x.test", "b@x.test/r", false);
        check("x.test/r", "a@x.test/r", true);
        check("x.test/r", "a@x.test/s", false);
        check("x.test", "a@x.test/r", true);
        check("x.test", "x.test", true);
        check("x.test", "a@y.test", false);
        check("a@x.test", "x.test/a@x.test", false);
        check("x.test/b/c", "a@x.test/b/c", true);
        check("x.test/b", "a@x.test/b/c", false);
        check("r", "a@x.test/r", false);
        check("@x.test", "a@x.test", false);
    }
}
