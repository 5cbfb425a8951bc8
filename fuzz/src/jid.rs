//! An address that is accepted is in its prepared form: preparing it again changes nothing, and its parts make it up.

use whinchat::jid::{BareJid, JidRef};

/// An address as text.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(jid) = JidRef::parse(text) else { return };
    let again = JidRef::parse(jid.as_str()).expect("a prepared address is an address");
    assert_eq!(again.as_str(), jid.as_str());
    assert_eq!((again.local(), again.domain(), again.resource()), (jid.local(), jid.domain(), jid.resource()));
    assert!(!jid.as_str().contains(['\0', '\n', '<']) || jid.resource().is_some(), "what keys and lists divide by");
    assert!(!jid.as_str().contains(['\0', '\n']), "what keys and lists divide by");
    let bare = jid.to_bare();
    assert_eq!(bare.as_str(), jid.bare());
    let parts = bare.local().map(|local| BareJid::from_parts(local, bare.domain()).expect("prepared parts"));
    assert!(parts.is_none_or(|parts| parts == bare));
}
