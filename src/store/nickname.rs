//! What an account calls itself, for lists of many accounts: kept beside its vCard, so that none of them is read for that.
//!
//! The nickname that it publishes (XEP-0172) counts before the one in its vCard, and that before the full name there.

use super::apply::{Rules, Staged};
use super::schema::Table;
use super::{account, pubsub, roster, schema};
use crate::core::effects::{DocumentKey, StoreError, StoreReply, Stored};
use crate::core::pubsub::Access;
use crate::jid::BareJid;
use crate::xml::{Tree, ns};

type Result<T> = std::result::Result<T, StoreError>;

/// Something has changed that it may be taken from.
pub(super) fn refresh(tx: &mut Staged<'_>, rules: &Rules, user: &BareJid) -> Result<()> {
    let name = match published(tx, user)? {
        Some(name) => Some(name),
        None => in_vcard(tx, user)?,
    };
    let mut name = name.unwrap_or_default();
    while name.len() > rules.limits.roster_name_bytes_max {
        name.pop();
    }
    account::write_document(tx, user, &DocumentKey::Nickname, name.as_bytes())
}

fn tidy(name: &str) -> Option<String> {
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// What its contacts may not read does not go to them by another way.
fn published(tx: &mut Staged<'_>, user: &BareJid) -> Result<Option<String>> {
    let Some((access, item)) = pubsub::last_of(tx, user, ns::NICK)? else { return Ok(None) };
    let open = matches!(access, Access::Open | Access::Presence);
    let payload = item.filter(|_| open).and_then(|item| String::from_utf8(item.payload).ok());
    let name = payload.and_then(|payload| {
        let tree = Tree::parse(&payload, ns::CLIENT).ok()?;
        let root = tree.root();
        root.is("nick", ns::NICK).then(|| tidy(&root.text()))?
    });
    Ok(name)
}

fn in_vcard(tx: &mut Staged<'_>, user: &BareJid) -> Result<Option<String>> {
    let Stored::Document(vcard) = account::document(tx, user, &DocumentKey::Vcard)? else { return Ok(None) };
    let name = vcard.and_then(|vcard| String::from_utf8(vcard).ok()).and_then(|vcard| {
        let tree = Tree::parse(&vcard, ns::CLIENT).ok()?;
        let named = |name| tree.root().child(name, ns::VCARD).and_then(|child| tidy(&child.text()));
        named("NICKNAME").or_else(|| named("FN"))
    });
    Ok(name)
}

/// The accounts of a domain with what they call themselves, empty for nothing.
pub(super) fn shared(tx: &mut Staged<'_>, domain: &str, max: usize) -> StoreReply {
    let mut members = Vec::new();
    for user in roster::members(tx, domain, max)? {
        let key = schema::document_key(&user, &DocumentKey::Nickname).ok_or(StoreError::Failed)?;
        let name = tx.read(Table::Documents, &key, |record| schema::decode_xml(record).map(<[u8]>::to_vec))?;
        let name = name.and_then(|name| String::from_utf8(name).ok()).unwrap_or_default();
        members.push((user, name));
    }
    Ok(Stored::SharedContacts(members))
}
