//! XEP-0049: Private XML Storage. One element per name and namespace, for the account alone. That of bookmarks is kept like those
//! of today's clients (`bookmarks`).

use super::pep;
use super::prelude::*;

pub(super) const HANDLER: Handler = Handler {
    name: "private",
    spec: "XEP-0049 1.2",
    features: &[ns::PRIVATE],
    account_features: &[ns::PRIVATE],
    routes: &[
        iq_get(Target::Account, ns::PRIVATE, "query", get),
        iq_set(Target::Account, ns::PRIVATE, "query", set),
        iq_get(Target::Peer, ns::PRIVATE, "query", refuse),
        iq_set(Target::Peer, ns::PRIVATE, "query", refuse),
    ],
    ..Handler::EMPTY
};

/// The one element that a request names; several at once are refused as section 2.3 allows.
fn key(query: &Element<'_>) -> Result<(DocumentKey, String), StanzaError> {
    let element = query.only_child().ok_or(StanzaError::BAD_REQUEST)?;
    // Its own namespaces are reserved (section 4).
    let reserved = element.ns().is_empty() || element.ns() == ns::PRIVATE || element.ns().starts_with("jabber:iq:");
    if reserved || element.ns() == ns::VCARD || element.ns() == ns::CLIENT {
        return Err(StanzaError::NOT_ACCEPTABLE);
    }
    let mut xml = Vec::new();
    element.write_standalone(ns::PRIVATE, &mut xml);
    let key = DocumentKey::Private { name: element.name().to_owned(), ns: element.ns().to_owned() };
    Ok((key, String::from_utf8(xml).map_err(|_| StanzaError::INTERNAL_SERVER_ERROR)?))
}

fn get(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let (key, asked) = key(&iq.payload)?;
    if asked.len() > cx.limits().private_bytes_max {
        return Err(StanzaError::NOT_ACCEPTABLE);
    }
    let user = cx.account().jid.clone();
    let mut parked = iq.park();
    // Where nothing is stored the client gets back what it asked with (section 2.2).
    parked.note = Some(asked.into());
    cx.ask(StoreRequest::DocumentGet { user, key }, parked, on_read)
}

fn on_read(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { conn, iq, out, .. } = resumed;
    let Stored::Document(document) = reply? else { return Err(StanzaError::INTERNAL_SERVER_ERROR) };
    out.reply(conn, iq, |w| {
        let asked = iq.note.as_deref().unwrap_or_default();
        w.open("query", ns::PRIVATE).raw(document.as_deref().unwrap_or(asked.as_bytes()));
    });
    Ok(())
}

fn set(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let (key, content) = key(&iq.payload)?;
    if content.len() > cx.limits().private_bytes_max {
        return Err(StanzaError::NOT_ACCEPTABLE.text("The element is too big."));
    }
    let (user, parked, at) = (cx.account().jid.clone(), iq.park(), cx.now.utc);
    let then = move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Ok(stored) => {
            out.reply_empty(conn, &*parked);
            pep::tell_stored(core, conn, &stored, out);
        }
        Err(error) => out.reply_error(conn, &*parked, error.into()),
    };
    cx.ask_for_all(StoreRequest::DocumentPut { user, key, content: content.into_bytes(), at }, Box::new(then))
}

fn refuse(_: &mut Cx<'_>, _: &Iq<'_>) -> Handled {
    Err(StanzaError::FORBIDDEN)
}
