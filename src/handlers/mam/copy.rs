//! What is archived, and what a message carries to tell its receiver.

use std::sync::LazyLock;

use memchr::memmem;

use super::super::{prelude::*, push, shared_contacts, sm};
use super::ArchiveId;
use crate::core::archive::Keep;
use crate::core::parked::{BounceHead, Waiting};
use crate::core::session::AccountId;
use crate::jid::{Jid, JidRef};
use crate::xml::writer::{append_child, escape_attr};
use crate::xml::{Frame, Tree};

/// Payloads that other devices of a user need to see, beside a body: a name in a namespace, or every name but `request`,
/// `markable` and the like that ask for such a payload in return.
const LASTING: &[(&str, &str)] = &[
    ("body", ns::CLIENT),
    ("store", ns::HINTS),
    ("received", ns::RECEIPTS),
    ("received", ns::MARKERS),
    ("displayed", ns::MARKERS),
    ("acknowledged", ns::MARKERS),
    ("reactions", ns::REACTIONS),
    ("retract", ns::RETRACT),
    ("retract", ns::RETRACT_0),
    ("apply-to", ns::FASTEN),
    ("replace", ns::CORRECT),
    ("attach-to", ns::ATTACHING),
    ("encrypted", ns::OMEMO),
    ("encrypted", ns::OMEMO_1),
    ("encrypted", ns::OMEMO_2),
    ("encryption", ns::ENCRYPTION),
    ("openpgp", ns::OPENPGP),
    ("x", ns::PGP),
    ("x", ns::MUC_INVITE),
    ("file-sharing", ns::FILE_SHARING),
    ("x", ns::OOB),
];

/// What becomes of a message in the archives of its sender and its receiver.
#[derive(Clone, Copy)]
pub(in super::super) struct Verdict {
    id: ArchiveId,
    sender: Keep,
    receiver: Keep,
}

impl Verdict {
    /// For a message worth keeping.
    pub(in super::super) fn of(core: &mut Core, now: Now, from: &Jid, to: &JidRef<'_>) -> Verdict {
        let sender =
            if from.local().is_some() { keeps(core, from.bare(), from.domain(), to.as_str()) } else { Keep::No };
        let to_oneself = to.bare() == from.bare();
        let receiver = if to_oneself { Keep::No } else { keeps(core, to.bare(), to.domain(), from.as_str()) };
        let mut verdict = Verdict { id: ArchiveId::default(), sender, receiver };
        if verdict.is_archived() {
            verdict.id = core.shared.mam.next(now.utc, &mut core.ids);
        }
        verdict
    }

    const NOT_ARCHIVED: Verdict = Verdict { id: ArchiveId(0), sender: Keep::No, receiver: Keep::No };

    /// Whether some archive may take it.
    pub(in super::super) fn is_archived(self) -> bool {
        self.sender != Keep::No || self.receiver != Keep::No
    }

    /// Adds the message's name in the archive of `by`, who is the sender or else the receiver, to a stanza.
    pub(in super::super) fn mark(self, stanza: &mut Vec<u8>, by: &str, is_sender: bool) {
        let keep = if is_sender { self.sender } else { self.receiver };
        if keep == Keep::Yes {
            push_stanza_id(stanza, by, self.id);
        }
    }

    /// What the store shall do; `offline` is whether the receiver has yet to get the message.
    pub(in super::super) fn put(self, from: Jid, to: &JidRef<'_>, stanza: Vec<u8>, offline: bool) -> StoreRequest {
        let Verdict { id, sender, receiver } = self;
        StoreRequest::ArchivePut { id, from, to: to.to_owned_jid(), sender, receiver, offline, stanza }
    }
}

/// A message of a session on its way to an account, decided before anybody gets it: what is delivered says where it can be found.
pub(in super::super) struct Copy<'m> {
    now: Now,
    pub(in super::super) conn: ConnId,
    pub(in super::super) account: AccountId,
    pub(in super::super) frame: &'m Frame<'m>,
    pub(in super::super) to: &'m JidRef<'m>,
    pub(in super::super) verdict: Verdict,
    /// The routed form, where what the client sent names ids that are ours to give.
    cleaned: Option<Vec<u8>>,
}

impl<'m> Copy<'m> {
    /// `lasts` is whether its type is one that is kept.
    pub(in super::super) fn of(
        core: &mut Core,
        now: Now,
        (conn, account): (ConnId, AccountId),
        frame: &'m Frame<'m>,
        to: &'m JidRef<'m>,
        lasts: bool,
    ) -> Copy<'m> {
        let judged = judge(core, frame);
        let mut copy = Copy { conn, account, frame, to, verdict: Verdict::NOT_ARCHIVED, cleaned: None, now };
        if lasts && judged.lasts && core.hosts.iter().any(|host| host.archive) {
            let from = copy.from(core);
            copy.verdict = Verdict::of(core, now, &from, to);
        }
        if judged.forged {
            copy.cleaned = Some(clean(core, copy.routed(core)));
        }
        copy
    }

    /// Whether something was taken out of it.
    pub(in super::super) fn is_cleaned(&self) -> bool {
        self.cleaned.is_some()
    }

    /// Whether it is for its sender's own account.
    fn is_to_oneself(&self, core: &Core) -> bool {
        self.to.bare() == core.accounts.get(self.account).jid.as_str()
    }

    /// The sender's full JID.
    pub(in super::super) fn from(&self, core: &Core) -> Jid {
        let own = core.accounts.get(self.account);
        own.resource(self.conn).map_or_else(|| own.jid.clone().into(), |resource| resource.jid.clone().into())
    }

    /// It goes into the store: its sender's acknowledgement waits for that. What an error reply needs.
    pub(in super::super) fn storing(&self, core: &mut Core) -> Box<BounceHead> {
        let counted = sm::on_storing(core, self.conn);
        let own = core.accounts.get(self.account).jid.as_str();
        Box::new(BounceHead {
            id: self.frame.id.map(Into::into),
            to: self.frame.to.unwrap_or(own).into(),
            counted,
            wakes: false,
        })
    }

    fn write(&self, core: &Core, buf: &mut Vec<u8>) {
        match &self.cleaned {
            Some(cleaned) => buf.extend_from_slice(cleaned),
            None => {
                let own = core.accounts.get(self.account).resource(self.conn);
                let lang = core.streams.get(self.conn).and_then(|stream| stream.lang.as_deref());
                self.frame.splice_into(own.map_or("", |resource| &*resource.from), lang, buf);
            }
        }
    }

    /// The routed form without what only one reader may see.
    pub(in super::super) fn routed(&self, core: &Core) -> Vec<u8> {
        let mut stanza = Vec::with_capacity(self.frame.xml.len() + 192);
        self.write(core, &mut stanza);
        stanza
    }

    /// Writes it to a resource of its receiver, with its name in the receiver's archive.
    pub(in super::super) fn forward(&self, core: &mut Core, receiver: ConnId, out: &mut Outputs) {
        let to_oneself = self.is_to_oneself(core);
        out.wire.stanza(receiver, |buf| {
            self.write(core, buf);
            self.verdict.mark(buf, self.to.bare(), to_oneself);
        });
        core.counters.delivered += 1;
        core.press(self.conn, receiver, out);
        if receiver.is_ghost() && push::is_worth(&Tree::of(self.frame).root()) {
            push::on_waiting(core, self.now, &self.to.to_bare(), out);
        }
    }

    /// What the store shall do with it; `None` if no archive takes it.
    pub(in super::super) fn request(&self, core: &Core, offline: bool) -> Option<StoreRequest> {
        let archived = self.verdict.is_archived();
        archived.then(|| self.verdict.put(self.from(core), self.to, self.routed(core), offline))
    }

    /// Puts it into the archives; its sender's acknowledgement waits for that, its delivery does not. Returns whether it may
    /// be delivered: where the store takes no more, the sender is told so instead.
    pub(in super::super) fn archive(&self, core: &mut Core, out: &mut Outputs) -> bool {
        let Some(request) = self.request(core, false) else { return true };
        if !core.store_has_room() {
            let error = StanzaError::RESOURCE_CONSTRAINT.text("The server is busy.");
            out.bounce(self.conn, "message", self.frame.id, self.frame.to, error);
            return false;
        }
        let head = self.storing(core);
        core.ask(request, Waiting::Archive { sender: self.conn, head }, out);
        core.press_store(self.conn);
        true
    }
}

/// A message is durable in the archives, or is not.
pub(crate) fn on_put(
    core: &mut Core,
    now: Now,
    sender: ConnId,
    head: &BounceHead,
    reply: StoreReply,
    out: &mut Outputs,
) {
    if let Err(error) = reply {
        out.bounce(sender, "message", head.id.as_deref(), Some(&head.to), error.into());
    }
    if head.counted {
        sm::on_stored(core, now, sender, out);
    }
}

/// Whether the accounts of a domain of ours have archives.
pub(in super::super) fn is_archiving(core: &Core, domain: &str) -> bool {
    core.hosts.iter().any(|host| host.name == domain && host.archive)
}

/// Whether the archive of an account of ours takes a message with `with`. What an account wants is known while it is in use.
fn keeps(core: &Core, user: &str, domain: &str, with: &str) -> Keep {
    if !is_archiving(core, domain) {
        return Keep::No;
    }
    let Some(account) = core.accounts.find(user) else { return Keep::IfWanted };
    let in_roster = |contact: &str| shared_contacts::lists(core, account, contact);
    match account.per.mam.0.as_ref().is_none_or(|prefs| prefs.wants(with, in_roster)) {
        true => Keep::Yes,
        false => Keep::No,
    }
}

/// What can be said of a message by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Judged {
    /// It is worth keeping.
    lasts: bool,
    /// It names ids that are ours to give.
    forged: bool,
}

// To make ready for a search takes longer than to search a message.
static STANZA_ID: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new("stanza-id"));
static STORE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new("-store"));

fn judge(core: &Core, frame: &Frame<'_>) -> Judged {
    let (first, xml) = (frame.child.as_ref(), frame.xml.as_bytes());
    // Names cannot be written in another way, namespaces can.
    let names_ids = STANZA_ID.find(xml).is_some();
    let begins_with = |name: &str, ns: &str| first.is_some_and(|(first, in_ns)| *first == name && *in_ns == *ns);
    if !names_ids {
        if begins_with("body", ns::CLIENT) && STORE.find(xml).is_none() {
            return Judged { lasts: true, forged: false };
        }
        let chat_state = first.is_some_and(|(_, ns)| *ns == *ns::CHAT_STATES);
        if frame.children == 0 || frame.children == 1 && chat_state {
            return Judged { lasts: false, forged: false };
        }
    }
    let tree = Tree::of(frame);
    let root = tree.root();
    let forged = root.children().any(|child| is_forged(core, &child));
    Judged { lasts: lasts(&root), forged }
}

/// Whether a message is worth keeping.
pub(in super::super) fn lasts(root: &Element<'_>) -> bool {
    let unwanted =
        |child: Element<'_>| matches!((child.name(), child.ns()), ("no-store" | "no-permanent-store", ns::HINTS));
    root.children().any(|child| is_lasting(&child)) && !root.children().any(unwanted)
}

/// Whether a message is worth keeping for this payload.
pub(in super::super) fn is_lasting(payload: &Element<'_>) -> bool {
    match payload.ns() {
        // Calls: each step tells the other devices what became of the ringing.
        ns::JINGLE_MESSAGE | ns::CALL_INVITES => true,
        // Invitations through a room; the rest of this namespace is about presence.
        ns::MUC_USER => payload.children().any(|child| matches!(child.name(), "invite" | "decline")),
        ns => LASTING.iter().any(|(name, known)| *known == ns && *name == payload.name()),
    }
}

/// Whether a child claims to be an id of an archive that is here (XEP-0359 section 3); of rooms too, whose services have names
/// below a domain of ours.
fn is_forged(core: &Core, child: &Element<'_>) -> bool {
    if !child.is("stanza-id", ns::STANZA_ID) {
        // How far a user has read is for his own devices.
        return child.is("displayed", ns::DISPLAYED);
    }
    let Some(Ok(by)) = child.attr("by").map(JidRef::parse) else { return false };
    core.hosts.iter().any(|host| {
        let above = by.domain().strip_suffix(host.name.as_str());
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    })
}

/// Without what is not the client's to send on.
#[cold]
fn clean(core: &Core, stanza: Vec<u8>) -> Vec<u8> {
    without(stanza, |child| is_forged(core, child))
}

/// A stanza without some of its children.
pub(in super::super) fn without(stanza: Vec<u8>, unwanted: impl Fn(&Element<'_>) -> bool) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(&stanza) else { return stanza };
    let Ok(tree) = Tree::parse(text, ns::CLIENT) else { return stanza };
    let mut cleaned = Vec::with_capacity(stanza.len());
    let mut done = 0;
    for child in tree.root().children().filter(unwanted) {
        let range = child.range();
        cleaned.extend_from_slice(stanza.get(done..range.start).unwrap_or_default());
        done = range.end;
    }
    cleaned.extend_from_slice(stanza.get(done..).unwrap_or_default());
    cleaned
}

/// Adds a message's name in the archive of `by`, a bare JID, at its end.
pub(in super::super) fn push_stanza_id(stanza: &mut Vec<u8>, by: &str, id: ArchiveId) {
    append_child(stanza, "message", |buf| {
        buf.extend_from_slice(b"<stanza-id xmlns='urn:xmpp:sid:0' by='");
        escape_attr(by, buf);
        buf.extend_from_slice(b"' id='");
        id.push(buf);
        buf.extend_from_slice(b"'/>");
    });
}
