//! XEP-0398: one avatar, whether it was published (XEP-0084) or set in the vCard (XEP-0153).
//!
//! A published one is put into the vCard by the store, in the same transaction (`store::avatar`). Here a picture that was set in
//! the vCard is published, and every presence is stamped with the picture's hash, so that clients need not know it.

use super::prelude::*;
use super::pep;
use crate::core::form::Field;
use crate::core::parked::Waiting;
use crate::core::pubsub::{Item, Operation};
use crate::core::session::AccountId;
use crate::jid::BareJid;
use crate::xml::Tree;
use crate::xml::writer::append_child;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

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
    core.ask(request, Waiting::Room { conn, then: Box::new(then) }, out);
}

/// A picture that a vCard carries.
pub(super) struct Picture {
    kind: String,
    base64: String,
    bytes: usize,
    hash: String,
}

/// The picture of a vCard that is about to be set, if it is another than before.
pub(super) fn new_picture(cx: &Cx<'_>, vcard: &Element<'_>) -> Option<Picture> {
    let photo = vcard.child("PHOTO", ns::VCARD)?;
    let base64: String = photo.child("BINVAL", ns::VCARD)?.text().split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(&base64).ok().filter(|bytes| !bytes.is_empty())?;
    let hash: String = Sha1::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let kind = photo.child("TYPE", ns::VCARD).map(|kind| kind.text().into_owned()).unwrap_or_default();
    let fits = base64.len() + 64 <= cx.core.limits.pep_payload_bytes_max && kind.len() <= 64;
    let new = fits && *cx.account().per.avatar.0 != *hash;
    new.then_some(Picture { kind, base64, bytes: bytes.len(), hash })
}

/// Publishes a vCard's picture (section 3.2): data first, then metadata. What is readable in a vCard is readable by all.
pub(super) fn publish(core: &mut Core, now: Now, conn: ConnId, user: &BareJid, picture: &Picture, out: &mut Outputs) {
    let open: Vec<Field> = vec![("pubsub#access_model".to_owned(), vec!["open".to_owned()])];
    let item = |write: &dyn Fn(&mut Writer<'_>)| {
        let mut payload = Vec::new();
        write(&mut Writer::new(&mut payload));
        Item { id: picture.hash.clone(), publisher: user.as_str().to_owned(), at: now.utc, payload }
    };
    let data = item(&|w| {
        w.open("data", ns::AVATAR_DATA).text(&picture.base64);
    });
    let metadata = item(&|w| {
        w.open("metadata", ns::AVATAR_METADATA).open("info", ns::AVATAR_METADATA);
        w.attr("bytes", picture.bytes).attr("id", &picture.hash).attr("type", &picture.kind);
    });
    // A node that is there stays as its owner has made it.
    let steps = vec![
        (ns::AVATAR_DATA, Operation::Create { options: open.clone() }),
        (ns::AVATAR_DATA, Operation::Publish { item: data, options: Vec::new() }),
        (ns::AVATAR_METADATA, Operation::Create { options: open }),
        (ns::AVATAR_METADATA, Operation::Publish { item: metadata, options: Vec::new() }),
    ];
    pep::carry_out_all(core, conn, user, steps, Box::new(|_, _, _| {}), out);
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
