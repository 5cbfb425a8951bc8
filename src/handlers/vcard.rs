//! XEP-0054: vcard-temp. Served by the server for the account, stored as it came; what it has in common with the vCard4 that the
//! account publishes (XEP-0292) and with its avatar is kept alike by the store (`store::bridges`).
//!
//! Nobody may set another's. A vCard that does not exist and an account that does not exist give the same answer.

use super::prelude::*;
use super::{avatar, pep, shared_contacts};
use crate::core::parked::Waiting;
use crate::jid::BareJid;

pub(super) const HANDLER: Handler = Handler {
    name: "vcard",
    spec: "XEP-0054 1.2, XEP-0292 0.12",
    features: &[ns::VCARD],
    account_features: &[ns::VCARD, ns::VCARD4],
    routes: &[
        iq_get(Target::Account, ns::VCARD, "vCard", get),
        iq_get(Target::Peer, ns::VCARD, "vCard", peer),
        iq_set(Target::Account, ns::VCARD, "vCard", set),
        iq_set(Target::Peer, ns::VCARD, "vCard", refuse),
    ],
    ..Handler::EMPTY
};

fn get(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let request = StoreRequest::DocumentGet { user: iq.addressee.clone(), key: DocumentKey::Vcard };
    let mut parked = iq.park();
    parked.note = Some("own".into());
    cx.ask(request, parked, on_read)
}

/// Another's: not for whom it has blocked.
fn peer(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let request = StoreRequest::Relation { user: iq.addressee.clone(), peer: cx.account().jid.clone() };
    let mut parked = iq.park();
    parked.note = Some(iq.addressee.as_str().into());
    cx.ask(request, parked, on_relation)
}

fn on_relation(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { core, conn, iq, out, .. } = resumed;
    let Stored::Relation { exists: true, .. } = reply? else { return Err(StanzaError::ITEM_NOT_FOUND) };
    let user = BareJid::from_prepared(iq.note.as_deref().unwrap_or_default());
    let iq = Box::new(ParkedIq { id: iq.id.clone(), to: iq.to.clone(), note: None });
    core.ask(StoreRequest::DocumentGet { user, key: DocumentKey::Vcard }, Waiting::Iq { conn, iq, then: on_read }, out);
    Ok(())
}

fn on_read(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { conn, iq, out, .. } = resumed;
    match reply? {
        Stored::Document(Some(xml)) => out.reply(conn, iq, |w| {
            w.raw(&xml);
        }),
        // Section 3.1 leaves the choice; clients that edit their own card want to start from an empty one.
        _ if iq.note.is_some() => out.reply(conn, iq, |w| {
            w.empty("vCard", ns::VCARD);
        }),
        _ => return Err(StanzaError::ITEM_NOT_FOUND),
    }
    Ok(())
}

fn set(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let mut content = Vec::new();
    iq.payload.write_standalone(ns::CLIENT, &mut content);
    if content.len() > cx.limits().vcard_bytes_max {
        return Err(StanzaError::NOT_ACCEPTABLE.text("The vCard is too big."));
    }
    let (user, parked, at) = (cx.account().jid.clone(), iq.park(), cx.now.utc);
    let owner = user.clone();
    let then = move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Err(error) => out.reply_error(conn, &*parked, error.into()),
        Ok(stored) => {
            out.reply_empty(conn, &*parked);
            pep::tell_stored(core, conn, &stored, out);
            avatar::refresh(core, conn, &owner, out);
            shared_contacts::on_renamed(core, &owner, out);
        }
    };
    cx.ask_for_all(StoreRequest::DocumentPut { user, key: DocumentKey::Vcard, content, at }, Box::new(then))
}

fn refuse(_: &mut Cx<'_>, _: &Iq<'_>) -> Handled {
    Err(StanzaError::FORBIDDEN)
}
