//! A published avatar (XEP-0084) becomes the picture of the vCard (XEP-0398), in the transaction that publishes it.
//!
//! Beside the vCard stands the hash of its picture, which presence is stamped with, so that nothing big is read for that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::account;
use super::apply::{Rules, Staged};
use super::schema::{self, Table};
use crate::core::effects::{DocumentKey, StoreError};
use crate::core::pubsub::Access;
use crate::jid::BareJid;
use crate::xml::{Tree, Writer, ns};

type Result<T> = std::result::Result<T, StoreError>;

/// A picture as XML carries it.
pub(super) struct Picture {
    kind: String,
    base64: String,
    bytes: usize,
    /// SHA-1 of the picture in hex.
    pub(super) hash: String,
}

impl Picture {
    fn of(kind: &str, base64: &str) -> Option<Picture> {
        let base64: String = base64.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let bytes = STANDARD.decode(&base64).ok().filter(|bytes| !bytes.is_empty())?;
        let hash = Sha1::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Picture { kind: kind.to_owned(), base64, bytes: bytes.len(), hash })
    }

    /// That of a vCard.
    pub(super) fn of_vcard(vcard: &str) -> Option<Picture> {
        let tree = Tree::parse(vcard, ns::CLIENT).ok()?;
        let photo = tree.root().child("PHOTO", ns::VCARD)?;
        let kind = photo.child("TYPE", ns::VCARD).map(|kind| kind.text().into_owned()).unwrap_or_default();
        Picture::of(&kind, &photo.child("BINVAL", ns::VCARD)?.text()).filter(|picture| picture.kind.len() <= 64)
    }

    /// Payload of the item that is the picture.
    pub(super) fn data(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        Writer::new(&mut payload).open("data", ns::AVATAR_DATA).text(&self.base64);
        payload
    }

    /// Payload of the item that describes it.
    pub(super) fn metadata(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut w = Writer::new(&mut payload);
        w.open("metadata", ns::AVATAR_METADATA).open("info", ns::AVATAR_METADATA);
        w.attr("bytes", self.bytes).attr("id", &self.hash).attr("type", &self.kind);
        drop(w);
        payload
    }
}

fn read(tx: &mut Staged<'_>, user: &BareJid, document: &DocumentKey) -> Result<Option<String>> {
    let Some(key) = schema::document_key(user, document) else { return Ok(None) };
    let content = tx.read(Table::Documents, &key, |record| schema::decode_xml(record).map(<[u8]>::to_vec))?;
    Ok(content.and_then(|content| String::from_utf8(content).ok()))
}

/// Hash of the vCard's picture; empty if it has none.
pub(super) fn hash(tx: &mut Staged<'_>, user: &BareJid) -> Result<String> {
    Ok(read(tx, user, &DocumentKey::AvatarHash)?.unwrap_or_default())
}

/// A vCard was set: its picture's hash is noted.
pub(super) fn note(tx: &mut Staged<'_>, user: &BareJid, picture: Option<&Picture>) -> Result<()> {
    let hash = picture.map(|picture| picture.hash.as_str()).unwrap_or_default();
    account::write_document(tx, user, &DocumentKey::AvatarHash, hash.as_bytes())
}

/// Metadata were published. The vCard can be read by anybody, so only what anybody may read comes into it; what is not such
/// a picture leaves the vCard without one.
pub(super) fn on_metadata(tx: &mut Staged<'_>, rules: &Rules, user: &BareJid, metadata: &[u8]) -> Result<()> {
    let picture = published(tx, user, metadata)?;
    // A picture that came from there need not go back.
    if picture.as_ref().is_some_and(|picture| hash(tx, user).is_ok_and(|hash| hash == picture.hash)) {
        return Ok(());
    }
    let before = read(tx, user, &DocumentKey::Vcard)?;
    if before.is_none() && picture.is_none() {
        return Ok(());
    }
    let vcard = with_picture(before.as_deref(), picture.as_ref());
    if vcard.len() <= rules.limits.vcard_bytes_max {
        account::write_document(tx, user, &DocumentKey::Vcard, &vcard)?;
        note(tx, user, picture.as_ref())?;
    }
    Ok(())
}

/// The picture that metadata name, if it is here, as they say it is, and open to all.
fn published(tx: &mut Staged<'_>, user: &BareJid, metadata: &[u8]) -> Result<Option<Picture>> {
    let named = std::str::from_utf8(metadata).ok().and_then(|metadata| {
        let tree = Tree::parse(metadata, ns::CLIENT).ok()?;
        let root = tree.root();
        // One with an address lies elsewhere (XEP-0398 section 3.1).
        let info = root.children().find(|info| info.is("info", ns::AVATAR_METADATA) && info.attr("url").is_none())?;
        Some((info.attr("id")?.to_owned(), info.attr("type").unwrap_or("image/png").to_owned()))
    });
    let Some((id, kind)) = named else { return Ok(None) };
    let node = tx.read(Table::Pubsub, &schema::node_key(user, ns::AVATAR_DATA), schema::decode_node)?;
    if node.is_none_or(|node| node.config.access != Access::Open) {
        return Ok(None);
    }
    let row = tx.read(Table::Pubsub, &schema::item_key(user, ns::AVATAR_DATA, &id), schema::decode_item)?;
    let picture = row.and_then(|row| {
        let payload = String::from_utf8(row.payload).ok()?;
        let tree = Tree::parse(&payload, ns::CLIENT).ok()?;
        let text = tree.root().is("data", ns::AVATAR_DATA).then(|| tree.root().text().into_owned())?;
        Picture::of(&kind, &text)
    });
    Ok(picture.filter(|picture| picture.hash == id))
}

fn with_picture(vcard: Option<&str>, picture: Option<&Picture>) -> Vec<u8> {
    let mut out = Vec::new();
    let tree = vcard.and_then(|vcard| Tree::parse(vcard, ns::CLIENT).ok());
    let mut w = Writer::new(&mut out);
    w.open("vCard", ns::VCARD);
    for child in tree.iter().flat_map(|tree| tree.root().children()).filter(|child| !child.is("PHOTO", ns::VCARD)) {
        let mut element = Vec::new();
        child.write_standalone(ns::VCARD, &mut element);
        w.raw(&element);
    }
    if let Some(picture) = picture {
        w.open("PHOTO", ns::VCARD).text_element("TYPE", &picture.kind).text_element("BINVAL", &picture.base64);
    }
    drop(w);
    out
}
