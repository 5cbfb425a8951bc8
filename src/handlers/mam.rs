//! XEP-0313: Message Archive Management, paged by XEP-0059, with preferences by XEP-0441.
//!
//! Every message worth reading again on another device is kept for its sender and its receiver: `copy` decides that before the
//! message is delivered, `query` reads what is asked for. The store keeps one stanza for both, and for the receiver who is not
//! there. Messages of rooms are not here: a room has an archive of its own.

mod copy;
mod query;

use super::prelude::*;
use crate::core::archive::{ArchiveDefault, ArchiveId, ArchiveIds, ArchivePage, ArchivePaging, ArchivePrefs};
use crate::core::form;
use crate::jid::Jid;
pub(crate) use copy::on_put;
pub(super) use copy::{Copy, Verdict, is_archiving, is_lasting, lasts, push_stanza_id, without};
pub(super) use query::{parse_filter, parse_paging};

pub(super) const HANDLER: Handler = Handler {
    name: "mam",
    spec: "XEP-0313 1.1.4, XEP-0059 1.0, XEP-0359 0.7.0, XEP-0441 0.2.0",
    features: &[ns::MAM, ns::MAM_EXTENDED, ns::STANZA_ID],
    account_features: &[ns::MAM, ns::MAM_EXTENDED, ns::STANZA_ID],
    routes: &[
        iq_set(Target::Account, ns::MAM, "query", query),
        iq_get(Target::Account, ns::MAM, "query", form),
        iq_get(Target::Account, ns::MAM, "metadata", metadata),
        iq_get(Target::Account, ns::MAM, "prefs", prefs),
        iq_set(Target::Account, ns::MAM, "prefs", set_prefs),
        iq_set(Target::Peer, ns::MAM, "query", refuse),
        iq_get(Target::Peer, ns::MAM, "query", refuse),
        iq_get(Target::Peer, ns::MAM, "metadata", refuse),
        iq_get(Target::Peer, ns::MAM, "prefs", refuse),
        iq_set(Target::Peer, ns::MAM, "prefs", refuse),
    ],
    ..Handler::EMPTY
};

/// What is advertised only where messages are archived.
pub(super) const FEATURES: [&str; 2] = [ns::MAM, ns::MAM_EXTENDED];

/// For the whole server: where ids come from.
pub(crate) type Ids = ArchiveIds;

/// Per account in use: what it wants archived; `None` for everything.
#[derive(Default)]
pub(crate) struct Preferences(Option<Box<ArchivePrefs>>);

impl Preferences {
    /// The addresses it names.
    pub(super) fn jids(&self) -> impl Iterator<Item = &Jid> {
        self.0.iter().flat_map(|prefs| prefs.always.iter().chain(&prefs.never))
    }

    pub(super) fn new(prefs: &ArchivePrefs) -> Preferences {
        Preferences((*prefs != ArchivePrefs::default()).then(|| Box::new(prefs.clone())))
    }
}

/// Whether the domain of the account that asks keeps archives.
fn check_archive(cx: &Cx<'_>) -> Result<(), StanzaError> {
    match copy::is_archiving(cx.core, cx.account().jid.domain()) {
        true => Ok(()),
        false => Err(StanzaError::SERVICE_UNAVAILABLE.text("This server does not keep an archive.")),
    }
}

fn refuse(_: &mut Cx<'_>, _: &Iq<'_>) -> Handled {
    Err(StanzaError::FORBIDDEN)
}

fn query(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    check_archive(cx)?;
    let limits = cx.limits();
    let (page_max, bytes_max) = (limits.archive_page_max, limits.output_pause);
    let filter = query::parse_filter(&iq.payload, page_max)?;
    let paging = query::parse_paging(&iq.payload, page_max, bytes_max)?;
    let user = cx.account().jid.clone();
    let mut parked = iq.park();
    parked.note = iq.payload.attr("queryid").map(Into::into);
    cx.ask(StoreRequest::ArchivePage { user, filter, paging }, parked, on_page)
}

fn on_page(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { core, conn, iq, out, .. } = resumed;
    let Stored::ArchivePage(page) = reply? else { return Err(StanzaError::INTERNAL_SERVER_ERROR) };
    let Some(account) = core.account_id(conn).map(|id| core.accounts.get(id)) else { return Ok(()) };
    let Some(resource) = account.resource(conn) else { return Ok(()) };
    send_page(conn, account.jid.as_str(), resource.jid.as_str(), iq, &page, out);
    // The page may have to wait for a slow client; then so does its next question.
    core.press(conn, conn, out);
    Ok(())
}

/// A page of the archive of `from` to a session; the note of `iq` is the query's id.
pub(super) fn send_page(conn: ConnId, from: &str, to: &str, iq: &ParkedIq, page: &ArchivePage, out: &mut Outputs) {
    for (id, stanza) in &page.messages {
        out.wire.stanza(conn, |buf| {
            let mut w = Writer::new(buf);
            w.open("message", ns::CLIENT).attr("from", from).attr("to", to);
            w.open("result", ns::MAM).attr_opt("queryid", iq.note.as_deref()).attr("id", id);
            w.open("forwarded", ns::FORWARD);
            w.open("delay", ns::DELAY).attr("stamp", id.time()).close();
            write_stanza(&mut w, stanza);
        });
    }
    out.reply(conn, iq, |w| write_fin(w, page));
}

/// A stored stanza names its namespace only where it stands inside another one.
fn write_stanza(w: &mut Writer<'_>, stanza: &[u8]) {
    const NAME: &[u8] = b"<message";
    match stanza.strip_prefix(NAME) {
        Some(rest) => w.raw(NAME).raw(b" xmlns='jabber:client'").raw(rest),
        None => w.raw(stanza),
    };
}

fn write_fin(w: &mut Writer<'_>, page: &ArchivePage) {
    w.open("fin", ns::MAM);
    if page.complete {
        w.attr("complete", "true");
    }
    w.open("set", ns::RSM);
    if let Some((first, last)) = page.bounds {
        w.open("first", ns::RSM).attr_opt("index", page.index).text(first).close();
        w.text_element("last", last);
    }
    if let Some(count) = page.count {
        w.text_element("count", count);
    }
}

/// What may be asked for (section 4.1.5).
fn form(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    check_archive(cx)?;
    cx.out.reply(cx.conn, iq, write_form);
    Ok(Done)
}

pub(super) fn write_form(w: &mut Writer<'_>) {
    w.open("query", ns::MAM);
    form::open(w, "form", ns::MAM);
    for (input, name) in query::FIELDS {
        form::field(w, name, "", input, query::UNFILLED);
    }
}

fn metadata(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    check_archive(cx)?;
    let user = cx.account().jid.clone();
    cx.ask(StoreRequest::ArchiveBounds { user }, iq.park(), on_bounds)
}

fn on_bounds(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { conn, iq, out, .. } = resumed;
    let Stored::ArchiveBounds(bounds) = reply? else { return Err(StanzaError::INTERNAL_SERVER_ERROR) };
    out.reply(conn, iq, |w| write_bounds(w, bounds));
    Ok(())
}

/// What tells an archive's first and last message (section 5).
pub(super) fn write_bounds(w: &mut Writer<'_>, bounds: Option<(ArchiveId, ArchiveId)>) {
    w.open("metadata", ns::MAM);
    if let Some((first, last)) = bounds {
        w.open("start", ns::MAM).attr("id", first).attr("timestamp", first.time()).close();
        w.open("end", ns::MAM).attr("id", last).attr("timestamp", last.time()).close();
    }
    w.close();
}

fn prefs(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    check_archive(cx)?;
    let Cx { core, out, conn, .. } = cx;
    let account = core.accounts.find(iq.addressee.as_str()).ok_or(StanzaError::ITEM_NOT_FOUND)?;
    let everything = ArchivePrefs::default();
    let prefs = account.per.mam.0.as_deref().unwrap_or(&everything);
    out.reply(*conn, iq, |w| write_prefs(w, prefs));
    Ok(Done)
}

fn write_prefs(w: &mut Writer<'_>, prefs: &ArchivePrefs) {
    w.open("prefs", ns::MAM).attr("default", prefs.default.name());
    for (name, list) in [("always", &prefs.always), ("never", &prefs.never)] {
        w.open(name, ns::MAM);
        for jid in list {
            w.text_element("jid", jid.as_str());
        }
        w.close();
    }
}

fn set_prefs(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    check_archive(cx)?;
    let prefs = parse_prefs(&iq.payload)?;
    if prefs.always.len() + prefs.never.len() > cx.limits().archive_prefs_max {
        return Err(StanzaError::RESOURCE_CONSTRAINT.text("These are too many addresses."));
    }
    let user = cx.account().jid.clone();
    let mut parked = iq.park();
    // The request goes to the store and does not come back.
    let mut note = Vec::new();
    write_prefs(&mut Writer::new(&mut note), &prefs);
    parked.note = String::from_utf8(note).ok().map(Into::into);
    cx.ask(StoreRequest::ArchivePrefsPut { user, prefs }, parked, on_prefs_stored)
}

fn parse_prefs(element: &Element<'_>) -> Result<ArchivePrefs, StanzaError> {
    let default = element.attr("default").ok_or(StanzaError::BAD_REQUEST)?;
    let default = ArchiveDefault::ALL.into_iter().find(|known| known.name() == default);
    let list = |name| -> Result<Vec<Jid>, StanzaError> {
        let Some(list) = element.child(name, ns::MAM) else { return Ok(Vec::new()) };
        let jids = list.children().filter(|child| child.is("jid", ns::MAM));
        let mut jids: Vec<Jid> = jids
            .map(|jid| Jid::parse(&jid.text()))
            .collect::<Result<_, _>>()
            .map_err(|_| StanzaError::JID_MALFORMED)?;
        jids.sort_unstable();
        jids.dedup();
        Ok(jids)
    };
    Ok(ArchivePrefs {
        default: default.ok_or(StanzaError::BAD_REQUEST)?,
        always: list("always")?,
        never: list("never")?,
    })
}

fn on_prefs_stored(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { core, conn, iq, out, .. } = resumed;
    reply?;
    let note = iq.note.as_deref().unwrap_or_default();
    let tree = crate::xml::Tree::parse(note, ns::CLIENT).map_err(|_| StanzaError::INTERNAL_SERVER_ERROR)?;
    let prefs = parse_prefs(&tree.root())?;
    out.reply(conn, iq, |w| write_prefs(w, &prefs));
    if let Some(account) = core.account_id(conn) {
        core.accounts.get_mut(account).per.mam = Preferences::new(&prefs);
    }
    Ok(())
}
