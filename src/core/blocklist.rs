//! Who an account does not want to hear from (XEP-0191), as the store and the handlers both read it.

use crate::jid::{Jid, JidRef};

/// Blocked addresses, in the order in which they were blocked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocklist(pub Vec<Jid>);

impl Blocklist {
    /// From its stored form, one address a line.
    pub fn decode(stored: &[u8]) -> Blocklist {
        let text = std::str::from_utf8(stored).unwrap_or_default();
        Blocklist(text.lines().filter(|line| !line.is_empty()).map(Jid::from_prepared).collect())
    }

    /// Its stored form. No address holds a line end.
    pub fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|jid| [jid.as_str().as_bytes(), b"\n"].concat()).collect()
    }

    /// Whether it holds the address, its bare JID, its domain with the resource, or its domain (section 6).
    pub fn blocks(&self, jid: &JidRef<'_>) -> bool {
        self.0.iter().any(|blocked| {
            let same_resource = blocked.resource().is_none_or(|resource| jid.resource() == Some(resource));
            let same_local = blocked.local().is_none_or(|local| jid.local() == Some(local));
            blocked.domain() == jid.domain() && same_local && same_resource
        })
    }

    /// The same for an address in its prepared form.
    pub fn blocks_prepared(&self, jid: &str) -> bool {
        !self.0.is_empty() && JidRef::parse(jid).is_ok_and(|jid| self.blocks(&jid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
