//! XEP-0160: offline messages, stamped by XEP-0203.
//!
//! A message for an account without a resource that takes it goes into the store as it is, without the account being read: the
//! store checks in the same transaction that the account exists and has room. Its sender is not parked; a refusal comes back as
//! an error.
//!
//! # Delivery
//!
//! The first resource that takes messages gets what waits, page by page. A page is deleted when the operating system has taken
//! its bytes, so a crash in between can deliver twice and never not at all. While pages are on their way the account is
//! *draining*: whatever else arrives goes through the store too, behind them, so that messages of one sender stay in order.

use std::time::Duration;

use hashbrown::HashMap;

use super::prelude::*;
use super::{mam, push, sm};
use crate::core::archive::ArchiveId;
use crate::core::effects::StoreError;
use crate::core::parked::{BounceHead, Waiting};
use crate::core::session::{Account, Resource};
use crate::core::timers::Due;
use crate::core::{Mark, UtcTime};
use crate::jid::{BareJid, Jid, JidRef};
use crate::xml::Tree;
use crate::xml::writer::{append_child, escape_attr};

pub(super) const HANDLER: Handler =
    Handler { name: "offline", spec: "XEP-0160 1.0.1, XEP-0203 2.0", features: &["msgoffline"], ..Handler::EMPTY };

/// Bytes of stored messages read and written at once.
const PAGE_BYTES: usize = 64 * 1024;
/// Time from a failure of the store to the next try.
const RETRY_TIME: Duration = Duration::from_secs(30);
/// Per account in use: where its stored messages are.
#[derive(Default)]
pub(crate) struct Queue {
    /// There may be some in the store.
    stored: bool,
    draining: Option<Drain>,
    /// Up to which message a resource has got what is stored, though it is stored still: it does not get that again.
    got: Vec<(ConnId, u64)>,
}

struct Drain {
    /// Tells the answers to its questions from those to an earlier one's, also of an earlier activation of the account.
    number: u32,
    /// To which resource.
    conn: ConnId,
    /// Up to which message it has got them.
    delivered_to: u64,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The store reads a page.
    Reading,
    /// A page is on its way to the client.
    Flushing,
    /// The store was empty, but messages are on their way into it.
    Awaiting,
}

impl Queue {
    pub(super) fn new(stored: bool) -> Queue {
        Queue { stored, ..Queue::default() }
    }

    fn note(&mut self, conn: ConnId, delivered_to: u64) {
        match self.got.iter_mut().find(|(known, _)| *known == conn) {
            Some((_, number)) => *number = delivered_to,
            None => self.got.push((conn, delivered_to)),
        }
    }

    /// Whether stored messages are being delivered.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// To which resource they are.
    pub(super) fn drains_to(&self) -> Option<ConnId> {
        self.draining.as_ref().map(|drain| drain.conn)
    }
}

/// What is between all accounts and the store.
#[derive(Default)]
pub(crate) struct InFlight {
    /// Messages on their way into the store, by account.
    puts: HashMap<BareJid, u32>,
    /// Number of the last drain.
    drains: u32,
}

impl InFlight {
    /// Whether any is on its way for this account.
    pub(super) fn any(&self, user: &BareJid) -> bool {
        self.puts.contains_key(user)
    }
}

/// Keeps a message for its account, if it is one that is kept. Returns whether that is all; where the store takes no more, its
/// sender is told so.
pub(super) fn keep(core: &mut Core, now: Now, copy: &mam::Copy<'_>, out: &mut Outputs) -> bool {
    let mam::Copy { conn, frame, to, .. } = *copy;
    if frame.children == 0 {
        return true;
    }
    let tree = Tree::of(frame);
    if !is_kept(&tree.root()) {
        return true;
    }
    if !core.store_has_room() {
        let error = StanzaError::RESOURCE_CONSTRAINT.text("The server is busy.");
        out.bounce(conn, "message", frame.id, frame.to, error);
        return false;
    }
    let request = copy.request(core, true).unwrap_or_else(|| {
        let mut stanza = copy.routed(core);
        stamp(&mut stanza, to.domain(), now.utc);
        StoreRequest::OfflinePut { user: to.to_bare(), from: copy.from(core), stanza, archived: None }
    });
    let mut head = copy.storing(core);
    head.wakes = push::is_worth(&tree.root());
    put(core, request, Waiting::Put { user: to.to_bare(), sender: conn, head }, out);
    core.press_store(conn);
    true
}

/// Keeps a message that a resource got at `at` and never acknowledged.
pub(super) fn keep_again(
    core: &mut Core,
    at: UtcTime,
    to: &JidRef<'_>,
    message: &Element<'_>,
    stanza: &[u8],
    out: &mut Outputs,
) {
    if !is_kept(message) {
        return;
    }
    let stanza = stamped(at, to, message, stanza);
    // Its sender was told long ago that it is handled; a refusal is said to it all the same, if it is still there.
    let sender = message.attr("from").and_then(|from| core.session_of(from)).unwrap_or(ConnId::NOBODY);
    let mut id = Vec::new();
    escape_attr(message.attr("id").unwrap_or_default(), &mut id);
    let head = Box::new(BounceHead {
        id: Some(String::from_utf8_lossy(&id).into()),
        to: to.as_str().into(),
        counted: false,
        wakes: false,
    });
    // Only we give such ids: the account's archive has it.
    let given = |child: &Element<'_>| child.is("stanza-id", ns::STANZA_ID) && child.attr("by") == Some(to.bare());
    let archived = message.children().find(given).and_then(|child| ArchiveId::parse(child.attr("id")?));
    let Some(from) = message.attr("from").and_then(|from| JidRef::parse(from).ok()) else { return };
    if !core.store_has_room() {
        let error = StanzaError::RESOURCE_CONSTRAINT.text("The server is busy.");
        return out.bounce(sender, "message", head.id.as_deref(), Some(&head.to), error);
    }
    let request = StoreRequest::OfflinePut { user: to.to_bare(), from: from.to_owned_jid(), stanza, archived };
    put(core, request, Waiting::Put { user: to.to_bare(), sender, head }, out);
}

/// Keeps a message of the embedding program.
pub(super) fn keep_own(core: &mut Core, now: Now, from: Jid, to: &JidRef<'_>, stanza: &[u8], out: &mut Outputs) {
    let request = match mam::Verdict::of(core, now, &from, to) {
        verdict if verdict.is_archived() => verdict.put(from, to, stanza.to_vec(), true),
        _ => {
            let mut stanza = stanza.to_vec();
            stamp(&mut stanza, to.domain(), now.utc);
            StoreRequest::OfflinePut { user: to.to_bare(), from, stanza, archived: None }
        }
    };
    let head = Box::new(BounceHead { id: None, to: to.as_str().into(), counted: false, wakes: true });
    put(core, request, Waiting::Put { user: to.to_bare(), sender: ConnId::NOBODY, head }, out);
}

fn put(core: &mut Core, request: StoreRequest, waiting: Waiting, out: &mut Outputs) {
    let Waiting::Put { user, .. } = &waiting else { return };
    *core.shared.offline.puts.entry(user.clone()).or_insert(0) += 1;
    if let Some(account) = core.accounts.find_mut(user.as_str()) {
        account.per.offline.stored = true;
    }
    core.counters.stored_offline += 1;
    core.ask(request, waiting, out);
}

/// Adds the time of receipt before the end tag (XEP-0203).
fn stamp(stanza: &mut Vec<u8>, domain: &str, at: UtcTime) {
    append_child(stanza, "message", |buf| {
        Writer::new(buf).open("delay", ns::DELAY).attr("from", domain).attr("stamp", at);
    });
}

/// A message with the time of its receipt, which it may have already.
pub(super) fn stamped(at: UtcTime, to: &JidRef<'_>, message: &Element<'_>, stanza: &[u8]) -> Vec<u8> {
    let mut stanza = stanza.to_vec();
    let ours = |child: Element<'_>| child.is("delay", ns::DELAY) && child.attr("from") == Some(to.domain());
    if !message.children().any(ours) {
        stamp(&mut stanza, to.domain(), at);
    }
    stanza
}

/// What is worth keeping: a body, or what a hint or another document wants kept; not what only says that somebody types
/// (XEP-0160 section 3, XEP-0334). `no-permanent-store` speaks of archives only.
fn is_kept(message: &Element<'_>) -> bool {
    let mut kept = false;
    for child in message.children() {
        match (child.name(), child.ns()) {
            ("no-store", ns::HINTS) => return false,
            ("thread", ns::CLIENT) | (_, ns::CHAT_STATES | ns::HINTS | ns::DELAY) if child.name() != "store" => {}
            _ => kept = true,
        }
    }
    kept
}

/// A message is durable, or was refused.
pub(crate) fn on_put(
    core: &mut Core,
    now: Now,
    user: &BareJid,
    sender: ConnId,
    head: &BounceHead,
    reply: Result<(), StoreError>,
    out: &mut Outputs,
) {
    let in_flight = &mut core.shared.offline.puts;
    if let Some(count) = in_flight.get_mut(user) {
        *count -= 1;
        if *count == 0 {
            in_flight.remove(user);
            go_on(core, user, out);
        }
    }
    if reply.is_ok() && head.wakes {
        push::on_waiting(core, now, user, out);
    }
    if let Err(error) = reply {
        let error = match error {
            StoreError::Full => StanzaError::SERVICE_UNAVAILABLE.text("The receiver's mailbox is full."),
            error => error.into(),
        };
        out.bounce(sender, "message", head.id.as_deref(), Some(&head.to), error);
    }
    // Behind the error: who reads that it is handled must know how.
    if head.counted {
        sm::on_stored(core, now, sender, out);
    }
}

/// Nothing is on its way into the store any more: a drain that waited for that reads on.
fn go_on(core: &mut Core, user: &BareJid, out: &mut Outputs) {
    let Some(account) = core.accounts.find_mut(user.as_str()) else { return };
    if let Some(drain) = &mut account.per.offline.draining
        && drain.step == Step::Awaiting
    {
        read(core, user, out);
    }
}

/// A resource takes messages from now on.
pub(super) fn start(core: &mut Core, user: &BareJid, conn: ConnId, out: &mut Outputs) {
    let Some(account) = core.accounts.find_mut(user.as_str()) else { return };
    let queue = &mut account.per.offline;
    // A resource that waits to be resumed acknowledges nothing: who is there gets the messages, once more if need be.
    if queue.stored && queue.drains_to().is_none_or(ConnId::is_ghost) {
        let number = core.shared.offline.drains.wrapping_add(1);
        core.shared.offline.drains = number;
        let delivered_to = queue.got.iter().find(|(known, _)| *known == conn).map_or(0, |(_, number)| *number);
        queue.draining = Some(Drain { number, conn, delivered_to, step: Step::Reading });
        read(core, user, out);
    }
}

/// The store has failed a while ago, or the resource has a connection again: what was not delivered is, if it still takes messages.
pub(crate) fn start_again(core: &mut Core, conn: ConnId, out: &mut Outputs) {
    let Some(account) = core.account_id(conn).map(|id| core.accounts.get(id)) else { return };
    if account.resource(conn).is_some_and(|resource| resource.per.presence.takes_messages()) {
        let user = account.jid.clone();
        start(core, &user, conn, out);
    }
}

/// Whether the client may not have all that it was given of what is stored.
fn is_on_its_way(conn: ConnId, out: &Outputs) -> bool {
    match out.wire.unacked(conn) {
        Some(unacked) => unacked.iter().any(|(entry, _)| entry.mark == Mark::Stored),
        None => out.wire.pending(conn) > 0,
    }
}

fn read(core: &mut Core, user: &BareJid, out: &mut Outputs) {
    let Some(account) = core.accounts.find_mut(user.as_str()) else { return };
    let Some(drain) = &mut account.per.offline.draining else { return };
    drain.step = Step::Reading;
    let after = drain.delivered_to;
    let delete_to = if is_on_its_way(drain.conn, out) { 0 } else { after };
    let waiting = Waiting::Page(user.clone(), drain.number);
    let request = StoreRequest::OfflinePage { user: user.clone(), delete_to, after, bytes_max: PAGE_BYTES };
    core.ask(request, waiting, out);
}

/// The next stored messages, or none.
pub(crate) fn on_page(core: &mut Core, now: Now, user: &BareJid, number: u32, reply: StoreReply, out: &mut Outputs) {
    let in_flight = core.shared.offline.any(user);
    let Some(account) = core.accounts.find_mut(user.as_str()) else { return };
    let queue = &mut account.per.offline;
    let Some(drain) = queue.draining.as_mut().filter(|drain| drain.number == number) else { return };
    let conn = drain.conn;
    let page = match reply {
        Ok(Stored::Offline(page)) => page,
        // What is stored stays there; live messages go on.
        Ok(_) | Err(_) => {
            queue.draining = None;
            return core.set_deadline(conn, Due::Offline, now.mono + RETRY_TIME);
        }
    };
    match page.last() {
        Some(last) => {
            drain.delivered_to = last.number;
            drain.step = Step::Flushing;
            queue.note(conn, last.number);
            for message in &page {
                out.wire.stored_stanza(conn, |buf| {
                    buf.extend_from_slice(&message.stanza);
                    if let Some(at) = message.at {
                        stamp(buf, user.domain(), at);
                    }
                    if let Some(id) = message.archived {
                        mam::push_stanza_id(buf, user.as_str(), id);
                    }
                });
            }
            out.wire.watch(conn);
            core.counters.delivered += page.len() as u64;
        }
        None if is_on_its_way(conn, out) => {
            drain.step = Step::Flushing;
            out.wire.watch(conn);
        }
        None if in_flight => drain.step = Step::Awaiting,
        None => {
            queue.stored = false;
            queue.draining = None;
            queue.got.clear();
        }
    }
}

/// A page has left. That must do for a client that does not count it.
pub(crate) fn on_flushed(core: &mut Core, conn: ConnId, out: &mut Outputs) {
    // Stream management may have been enabled behind the page.
    on_acknowledged(core, conn, out);
}

/// A client has acknowledged stanzas: a page is delivered when none of it waits any more.
pub(super) fn on_acknowledged(core: &mut Core, conn: ConnId, out: &mut Outputs) {
    if !is_on_its_way(conn, out) {
        on_page_delivered(core, conn, out);
    }
}

/// A page is deleted, and the next one read.
fn on_page_delivered(core: &mut Core, conn: ConnId, out: &mut Outputs) {
    let Some(id) = core.account_id(conn) else { return };
    let account = core.accounts.get(id);
    let delivered =
        account.per.offline.draining.as_ref().is_some_and(|drain| drain.conn == conn && drain.step == Step::Flushing);
    if delivered {
        let user = account.jid.clone();
        read(core, &user, out);
    }
}

/// A session goes on on another connection.
pub(super) fn move_session(account: &mut Account, from: ConnId, to: ConnId) {
    let queue = &mut account.per.offline;
    let got = queue.got.iter_mut().map(|(conn, _)| conn);
    let conns = got.chain(queue.draining.as_mut().map(|drain| &mut drain.conn));
    conns.filter(|conn| **conn == from).for_each(|conn| *conn = to);
}

/// A session is over: another may have its connection's number one day.
pub(super) fn forget(account: &mut Account, conn: ConnId) {
    account.per.offline.got.retain(|(known, _)| *known != conn);
}

/// A resource has lost its connection: others do not wait until it comes back.
pub(super) fn on_lost(core: &mut Core, user: &BareJid, ghost: ConnId, out: &mut Outputs) {
    let Some(account) = core.accounts.find(user.as_str()) else { return };
    let takes = |resource: &&Resource| !resource.conn.is_ghost() && resource.per.presence.takes_messages();
    if account.per.offline.drains_to() == Some(ghost)
        && let Some(next) = account.resources.iter().find(takes).map(|resource| resource.conn)
    {
        start(core, user, next, out);
    }
}

/// A resource no longer takes messages: what it was being given goes to another, or waits.
pub(super) fn on_gone(core: &mut Core, user: &BareJid, conn: ConnId, out: &mut Outputs) {
    let Some(account) = core.accounts.find_mut(user.as_str()) else { return };
    if account.per.offline.draining.as_ref().is_none_or(|drain| drain.conn != conn) {
        return;
    }
    account.per.offline.draining = None;
    let next =
        account.resources.iter().find(|resource| resource.conn != conn && resource.per.presence.takes_messages());
    if let Some(next) = next.map(|resource| resource.conn) {
        start(core, user, next, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_go_before_the_end() {
        let check = |stanza: &str, expected: &str| {
            let mut buf = stanza.as_bytes().to_vec();
            stamp(&mut buf, "x.test", UtcTime(0));
            assert_eq!(String::from_utf8_lossy(&buf), expected);
        };
        let delay = "<delay xmlns='urn:xmpp:delay' from='x.test' stamp='1970-01-01T00:00:00Z'/>";
        check("<message><body>a</body></message>", &format!("<message><body>a</body>{delay}</message>"));
        check("<message><body/></message >", &format!("<message><body/>{delay}</message >"));
        check("<message id='1'/>", &format!("<message id='1'>{delay}</message>"));
    }
}
