//! XEP-0398: one avatar, whether it was published (XEP-0084) or set in the vCard (XEP-0153).
//!
//! A published one is put into the vCard by the store, and one that was set in the vCard is published, each in the same
//! transaction (`store::avatar`, `store::bridges`). Here every presence is stamped with the picture's hash, so that clients need
//! not know it.

use super::prelude::*;
use crate::core::parked::Waiting;
use crate::core::session::AccountId;
use crate::jid::BareJid;
use crate::xml::Tree;
use crate::xml::writer::append_child;

pub(super) const HANDLER: Handler = Handler {
    name: "avatar",
    spec: "XEP-0398 1.0, XEP-0084 1.1.4, XEP-0153 1.1",
    account_features: &["urn:xmpp:pep-vcard-conversion:0"],
    ..Handler::EMPTY
};

/// Per account in use: hash of its picture, empty for none.
#[derive(Default)]
pub(crate) struct Hash(Box<str>);

impl Hash {
    pub(super) fn new(hash: &str) -> Hash {
        Hash(hash.into())
    }
}

/// Stamps an available presence, in the form in which it is routed (section 4).
pub(super) fn stamp(core: &Core, account: AccountId, xml: &mut Vec<u8>) {
    let hash = &core.accounts.get(account).per.avatar.0;
    if !hash.is_empty() {
        stamp_with(hash, xml);
    }
}

fn stamp_with(hash: &str, xml: &mut Vec<u8>) {
    let write = |buf: &mut Vec<u8>| {
        Writer::new(buf).open("x", ns::VCARD_UPDATE).text_element("photo", hash);
    };
    let place = match std::str::from_utf8(xml).ok().filter(|text| text.contains(ns::VCARD_UPDATE)) {
        None => None,
        Some(text) => {
            let Ok(tree) = Tree::parse(text, ns::CLIENT) else { return };
            let Some(x) = tree.root().child("x", ns::VCARD_UPDATE) else { return };
            match x.child("photo", ns::VCARD_UPDATE).map(|photo| photo.text().into_owned()) {
                // The client says that it has no avatar, or says the same as we.
                Some(photo) if photo.is_empty() || photo == hash => return,
                _ => Some(x.range()),
            }
        }
    };
    match place {
        None => append_child(xml, "presence", write),
        Some(place) => {
            let mut ours = Vec::new();
            write(&mut ours);
            xml.splice(place, ours);
        }
    }
}

/// Something about an account's avatar has changed in the store. The session goes on when the hash is known, so that its next
/// presence has it.
pub(super) fn refresh(core: &mut Core, conn: ConnId, user: &BareJid, out: &mut Outputs) {
    let owner = user.clone();
    let then = move |core: &mut Core, _: Now, _: ConnId, reply: StoreReply, _: &mut Outputs| {
        let Ok(Stored::Document(hash)) = reply else { return };
        let hash = hash.and_then(|hash| String::from_utf8(hash).ok()).unwrap_or_default();
        if let Some(account) = core.accounts.find_mut(owner.as_str()) {
            account.per.avatar = Hash::new(&hash);
        }
    };
    let request = StoreRequest::DocumentGet { user: user.clone(), key: DocumentKey::AvatarHash };
    core.ask(request, Waiting::Detached { conn, then: Box::new(then) }, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_is_stamped() {
        let check = |xml: &str, expected: &str| {
            let mut stanza = format!("<presence from='a@b/c'{xml}").into_bytes();
            stamp_with("cafe", &mut stanza);
            assert_eq!(String::from_utf8_lossy(&stanza), format!("<presence from='a@b/c'{expected}"));
        };
        let ours = "<x xmlns='vcard-temp:x:update'><photo>cafe</photo></x>";
        check("/>", &format!(">{ours}</presence>"));
        check("><show>dnd</show></presence>", &format!("><show>dnd</show>{ours}</presence>"));
        check("><x xmlns='vcard-temp:x:update'/><show/></presence>", &format!(">{ours}<show/></presence>"));
        let other = "><x xmlns='vcard-temp:x:update'><photo>beef</photo></x></presence>";
        check(other, &format!(">{ours}</presence>"));
        // No avatar, says the client.
        let none = "><x xmlns='vcard-temp:x:update'><photo/></x></presence>";
        check(none, none);
        let same = &format!(">{ours}</presence>");
        check(same, same);
    }
}
