//! XEP-0486: a room's picture, in a vCard of its own (XEP-0054). Its owner sets it, everybody may see it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::room::Room;
use super::{Change, Outcome, Refusal, Request, commit, relay};
use crate::core::rooms::Affiliation;
use crate::handlers::prelude::*;

pub(super) fn show(core: &mut Core, _: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    let get = StoreRequest::DocumentGet { user: room.jid.clone(), key: DocumentKey::Vcard };
    relay::show_card(core, request.conn, request.stanza.parked(), get, out);
    Ok(())
}

pub(super) fn set(core: &mut Core, now: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    if room.record.affiliation(request.stanza.from.bare()) < Affiliation::Owner {
        return Err(StanzaError::FORBIDDEN.text("Only owners give a room its picture.").into());
    }
    if !room.stored {
        return Err(StanzaError::NOT_ALLOWED.text("Only a room that stays has a picture.").into());
    }
    let mut content = Vec::new();
    if request.payload.children().next().is_some() {
        request.payload.write_standalone(ns::CLIENT, &mut content);
    }
    if content.len() > core.limits.vcard_bytes_max {
        return Err(StanzaError::NOT_ACCEPTABLE.text("The vCard is too big.").into());
    }
    let photo = request.payload.child("PHOTO", ns::VCARD).and_then(|photo| photo.child("BINVAL", ns::VCARD));
    let avatar = match photo {
        None => String::new(),
        Some(data) => hash_of(&data.text()).ok_or(StanzaError::BAD_REQUEST.text("The picture is not in base64."))?,
    };
    if room.saving {
        return Err(Refusal::Busy);
    }
    let mut record = Box::new(room.record.clone());
    record.avatar = avatar;
    let iq = request.stanza.parked();
    let then = move |_: &mut Core,
                     _: Now,
                     conn: ConnId,
                     room: &mut Room,
                     result: Result<(), StanzaError>,
                     out: &mut Outputs| {
        match result {
            Ok(()) => {
                out.reply_empty(conn, &*iq);
                room.tell_codes(&[104], out);
            }
            Err(error) => out.reply_error(conn, &*iq, error),
        }
    };
    commit(core, now, request.conn, room, Change::Card(record, content), then, out);
    Ok(())
}

/// SHA-1 of a picture in hexadecimal digits, as XEP-0153 has it.
fn hash_of(text: &str) -> Option<String> {
    let packed: String = text.split_ascii_whitespace().collect();
    let picture = STANDARD.decode(packed).ok()?;
    let mut hash = String::with_capacity(40);
    Sha1::digest(&picture).iter().for_each(|byte| write!(hash, "{byte:02x}").expect("text can be written to"));
    Some(hash)
}
