//! Whose stanza it is: envelope checks, the table of requests, the default answers (RFC 6120 sections 8 and 10, RFC 6121
//! section 8.5).

use crate::core::effects::{ConnId, StoreReply, StoreRequest};
use crate::core::error::{StanzaError, StreamError};
use crate::core::parked::Waiting;
use crate::core::session::{Account, AccountId, Resource};
use crate::core::stream::{Phase, ThenStream};
use crate::core::{Core, Limits, Now, Outputs};
use crate::handlers::{self, Handled, RequestKind, Target};
use crate::jid::{BareJid, FullJid, JidRef};
use crate::xml::{Element, Frame, Kind, Tree, Writer, attribute_value, ns};

/// What a handler sees and may do during one request.
pub struct Cx<'a> {
    /// The clocks.
    pub now: Now,
    /// The server.
    pub core: &'a mut Core,
    /// What shall happen outside.
    pub out: &'a mut Outputs,
    /// The session that asks. It may have gone when a parked request goes on; what is written to it is dropped then.
    pub conn: ConnId,
    account: AccountId,
}

/// A request, its envelope checked: an `id` and exactly one child element; the route tells its type.
pub struct Iq<'a> {
    /// As written.
    pub id: &'a str,
    /// As written.
    pub to: Option<&'a str>,
    /// The bare JID that it is for: the domain, the sender's own account, or another account.
    pub addressee: &'a BareJid,
    /// The one child.
    pub payload: Element<'a>,
}

/// What a client answers to a request of the server.
pub struct Answer<'a> {
    /// As written.
    pub id: &'a str,
    /// The first child of a result; `None` for an error.
    pub payload: Option<Element<'a>>,
    /// The `<error/>` of an error.
    pub error: Option<Element<'a>>,
}

/// What a reply to a request needs, kept while the request waits for the store.
#[derive(Debug)]
pub struct ParkedIq {
    /// As written.
    pub id: Box<str>,
    /// As written.
    pub to: Option<Box<str>>,
    /// For continuations that need more than the store's answer.
    pub note: Option<Box<str>>,
}

/// A parked request that goes on. The stanza it came from is gone.
pub struct Resumed<'a> {
    /// The server.
    pub core: &'a mut Core,
    /// The clocks.
    pub now: Now,
    /// The session that asked.
    pub conn: ConnId,
    /// What a reply needs.
    pub iq: &'a ParkedIq,
    /// What shall happen outside.
    pub out: &'a mut Outputs,
}

/// Continues a parked request.
pub type Then = fn(Resumed<'_>, StoreReply) -> Result<(), StanzaError>;

/// The [`Then`] of a request whose result says no more than that it is done.
pub fn acknowledge(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { conn, iq, out, .. } = resumed;
    reply?;
    out.reply_empty(conn, iq);
    Ok(())
}

/// What a reply is addressed by: a request or what was kept of it.
pub trait Replied {
    /// The request's `id` as written.
    fn id(&self) -> &str;
    /// The request's `to` as written.
    fn to(&self) -> Option<&str>;
}

impl Replied for Iq<'_> {
    fn id(&self) -> &str {
        self.id
    }
    fn to(&self) -> Option<&str> {
        self.to
    }
}

impl Replied for ParkedIq {
    fn id(&self) -> &str {
        &self.id
    }
    fn to(&self) -> Option<&str> {
        self.to.as_deref()
    }
}

impl Iq<'_> {
    /// What a reply needs.
    pub fn park(&self) -> Box<ParkedIq> {
        Box::new(ParkedIq { id: self.id.into(), to: self.to.map(Into::into), note: None })
    }
}

impl Cx<'_> {
    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// The sender's account.
    pub fn account(&self) -> &Account {
        self.core.accounts.get(self.account)
    }

    /// The sender's account.
    pub fn account_mut(&mut self) -> &mut Account {
        self.core.accounts.get_mut(self.account)
    }

    /// The sender's resource.
    pub fn resource_mut(&mut self) -> &mut Resource {
        let conn = self.conn;
        self.account_mut().resource_mut(conn).expect("a bound stream has a resource")
    }

    /// Asks the store; the session is not read until `then` has run.
    pub fn ask(&mut self, request: StoreRequest, iq: Box<ParkedIq>, then: Then) -> Handled {
        let waiting = Waiting::Iq { conn: self.conn, iq, then };
        self.core.ask(request, waiting, self.out);
        Ok(handlers::Outcome::Parked)
    }

    /// [`Cx::ask`] for what must be finished even if the session ends meanwhile; `then` replies by itself.
    pub fn ask_for_all(&mut self, request: StoreRequest, then: ThenStream) -> Handled {
        self.core.ask(request, Waiting::Detached { conn: self.conn, then }, self.out);
        Ok(handlers::Outcome::Parked)
    }
}

impl Outputs {
    /// Writes the result of a request around `payload`.
    pub fn reply(&mut self, conn: ConnId, iq: &impl Replied, payload: impl FnOnce(&mut Writer<'_>)) {
        self.wire.stanza(conn, |buf| {
            let mut w = Writer::new(buf);
            open_reply(&mut w, "iq", "result", Some(iq.id()), iq.to());
            payload(&mut w);
        });
    }

    /// Writes an empty result.
    pub fn reply_empty(&mut self, conn: ConnId, iq: &impl Replied) {
        self.reply(conn, iq, |_| {});
    }

    /// Writes the answer to a ping, which brings nothing along that is kept back for an inactive client (XEP-0352).
    pub fn pong(&mut self, conn: ConnId, iq: &impl Replied) {
        self.wire.aside(conn, |buf| {
            open_reply(&mut Writer::new(buf), "iq", "result", Some(iq.id()), iq.to());
        });
    }

    /// Writes an error reply to a request.
    pub fn reply_error(&mut self, conn: ConnId, iq: &impl Replied, error: StanzaError) {
        self.bounce(conn, "iq", Some(iq.id()), iq.to(), error);
    }

    /// Sends a stanza back as an error: from whom it was for, with its id (RFC 6120 section 8.3). The payload is not repeated.
    pub fn bounce(
        &mut self,
        conn: ConnId,
        name: &'static str,
        id: Option<&str>,
        from: Option<&str>,
        error: StanzaError,
    ) {
        self.wire.stanza(conn, |buf| {
            let mut w = Writer::new(buf);
            open_reply(&mut w, name, "error", id, from);
            error.write(&mut w);
        });
    }
}

fn open_reply(w: &mut Writer<'_>, name: &'static str, kind: &'static str, id: Option<&str>, from: Option<&str>) {
    w.open(name, ns::CLIENT).attr("type", kind);
    if let Some(id) = id {
        w.attr_escaped("id", id);
    }
    if let Some(from) = from {
        w.attr_escaped("from", from);
    }
}

/// What a stanza's `to` is, seen from the server.
pub enum Addressee<'a> {
    /// A domain of ours, without or with resource.
    Host(JidRef<'a>),
    /// A local account's bare JID, existing or not.
    Bare(JidRef<'a>),
    /// A local account's resource, existing or not.
    Full(JidRef<'a>),
    /// A service of group chat rooms, a room, or an occupant of one.
    Rooms(JidRef<'a>),
    /// Not ours.
    Remote,
}

impl Core {
    /// One complete first-level element of a bound stream.
    pub(super) fn route(&mut self, now: Now, conn: ConnId, account: AccountId, frame: &Frame<'_>, out: &mut Outputs) {
        self.counters.stanzas += 1;
        match frame.kind {
            Kind::Message => handlers::message::route(self, now, conn, account, frame, out),
            Kind::Presence => handlers::presence::route(self, now, conn, account, frame, out),
            Kind::Iq => self.on_iq(now, conn, account, frame, out),
            Kind::Other if *frame.ns == *ns::CSI => handlers::csi::on_element(self, now, conn, frame, out),
            Kind::Other if *frame.ns == *ns::SM => handlers::sm::on_element(self, now, conn, frame, out),
            Kind::Other if frame.local == "error" && *frame.ns == *ns::STREAMS => {
                self.close_stream(now, conn, None, out)
            }
            Kind::Other => {
                let error = StreamError::new("unsupported-stanza-type", "This element is not known here.");
                self.close_stream(now, conn, Some(error), out);
            }
        }
    }

    /// Which of ours an address is.
    pub(crate) fn addressee<'a>(&self, to: JidRef<'a>) -> Addressee<'a> {
        if !self.serves(to.domain()) {
            let rooms = self.hosts.iter().any(|host| host.rooms == to.domain());
            return if rooms { Addressee::Rooms(to) } else { Addressee::Remote };
        }
        match (to.local().is_some(), to.is_bare()) {
            (false, _) => Addressee::Host(to),
            (true, true) => Addressee::Bare(to),
            (true, false) => Addressee::Full(to),
        }
    }

    pub(crate) fn serves(&self, domain: &str) -> bool {
        self.hosts.iter().any(|host| host.name == domain)
    }

    fn on_iq(&mut self, now: Now, conn: ConnId, account: AccountId, frame: &Frame<'_>, out: &mut Outputs) {
        let kind = match frame.type_ {
            Some("get") => Some(RequestKind::Get),
            Some("set") => Some(RequestKind::Set),
            Some("result" | "error") => None,
            _ => return out.bounce(conn, "iq", frame.id, frame.to, StanzaError::BAD_REQUEST),
        };
        if kind.is_some() && (frame.id.is_none_or(str::is_empty) || frame.children != 1) {
            let error = StanzaError::BAD_REQUEST.text("A request has an id and exactly one child element.");
            return out.bounce(conn, "iq", frame.id, frame.to, error);
        }
        let to = frame.to.map(attribute_value);
        let to = match to.as_deref().map(JidRef::parse) {
            None => None,
            Some(Ok(to)) => Some(to),
            Some(Err(_)) if kind.is_none() => return,
            Some(Err(_)) => {
                let host = self.host_name(conn).to_owned();
                return out.bounce(conn, "iq", frame.id, Some(&host), StanzaError::JID_MALFORMED);
            }
        };
        let own = self.accounts.get(account).jid.clone();
        let (target, addressee) = match to.map(|to| self.addressee(to)) {
            None => (Target::Account, own),
            Some(Addressee::Bare(to)) if to.bare() == own.as_str() => (Target::Account, own),
            Some(Addressee::Bare(to)) => (Target::Peer, to.to_bare()),
            Some(Addressee::Host(to)) if to.is_bare() => (Target::Host, to.to_bare()),
            Some(Addressee::Full(to)) => return self.forward_iq(conn, account, frame, kind, &to, out),
            Some(Addressee::Rooms(to)) => return handlers::muc::on_stanza(self, now, conn, account, frame, &to, out),
            Some(Addressee::Host(_) | Addressee::Remote) if kind.is_none() => return,
            Some(Addressee::Host(_)) => {
                return out.bounce(conn, "iq", frame.id, frame.to, StanzaError::SERVICE_UNAVAILABLE);
            }
            Some(Addressee::Remote) => return out.bounce(conn, "iq", frame.id, frame.to, NO_FEDERATION),
        };
        let tree = Tree::of(frame);
        let Some(kind) = kind else {
            // Answers to our own pushes and pings need nothing.
            let payload = tree.root().children().next().filter(|_| frame.type_ == Some("result"));
            let error = tree.root().child("error", ns::CLIENT).filter(|_| frame.type_ == Some("error"));
            let answer = Answer { id: frame.id.unwrap_or_default(), payload, error };
            let mut cx = Cx { now, core: self, out, conn, account };
            return handlers::answer(&mut cx, &answer);
        };
        if target == Target::Peer && self.accounts.get(account).per.blocking.blocks_prepared(addressee.as_str()) {
            return out.bounce(conn, "iq", frame.id, frame.to, handlers::blocking::BLOCKED_BY_SENDER);
        }
        let Some(payload) = tree.root().only_child() else { return };
        let iq = Iq { id: frame.id.unwrap_or_default(), to: frame.to, addressee: &addressee, payload };
        let mut cx = Cx { now, core: self, out, conn, account };
        let handled = match handlers::find(kind, target, payload.ns(), payload.name()) {
            Some(run) => run(&mut cx, &iq),
            None => Err(StanzaError::SERVICE_UNAVAILABLE),
        };
        if let Err(error) = handled {
            out.reply_error(conn, &iq, error);
        }
    }

    /// To a resource of a local account: passed on, or refused at once if it is not there (RFC 6121 section 8.5.3).
    fn forward_iq(
        &mut self,
        conn: ConnId,
        account: AccountId,
        frame: &Frame<'_>,
        kind: Option<RequestKind>,
        to: &JidRef<'_>,
        out: &mut Outputs,
    ) {
        let own = self.accounts.get(account);
        if kind.is_some() && own.per.blocking.blocks(to) {
            return out.bounce(conn, "iq", frame.id, frame.to, handlers::blocking::BLOCKED_BY_SENDER);
        }
        let found = self.accounts.find(to.bare()).filter(|found| handlers::blocking::may_reach(own, conn, found));
        let receiver = found.and_then(|found| found.resource_named(to.resource()?));
        match receiver.map(|resource| resource.conn) {
            Some(receiver) => self.forward(conn, account, frame, receiver, out),
            None if kind.is_some() => out.bounce(conn, "iq", frame.id, frame.to, StanzaError::SERVICE_UNAVAILABLE),
            None => {}
        }
    }

    /// Writes a stanza to one connection, as received but for `from` (DESIGN, "Forwarding").
    pub(crate) fn forward(
        &mut self,
        sender: ConnId,
        account: AccountId,
        frame: &Frame<'_>,
        receiver: ConnId,
        out: &mut Outputs,
    ) {
        let from = self.accounts.get(account).resource(sender).map_or("", |resource| &*resource.from);
        let lang = self.streams.get(sender).and_then(|stream| stream.lang.as_deref());
        match (frame.kind, frame.type_) {
            (Kind::Presence, None | Some("unavailable")) => {
                out.wire.presence(receiver, from, |buf| frame.splice_into(from, lang, buf));
            }
            _ => out.wire.stanza(receiver, |buf| frame.splice_into(from, lang, buf)),
        }
        self.counters.delivered += 1;
        self.press(sender, receiver, out);
    }

    /// Looks at how much waits for a receiver: who fills it is not read until it is empty.
    pub(crate) fn press(&mut self, sender: ConnId, receiver: ConnId, out: &mut Outputs) {
        if out.wire.pending(receiver) > self.limits.output_pause {
            self.hold_sender(sender, receiver, out);
        }
    }

    pub(crate) fn host_name(&self, conn: ConnId) -> &str {
        let host = self.streams.get(conn).and_then(|stream| stream.host);
        host.map_or("", |host| self.hosts[host].name.as_str())
    }

    pub(super) fn resume_iq(
        &mut self,
        now: Now,
        conn: ConnId,
        iq: &ParkedIq,
        then: Then,
        reply: StoreReply,
        out: &mut Outputs,
    ) {
        let resumed = Resumed { core: self, now, conn, iq, out };
        if let Err(error) = then(resumed, reply) {
            out.reply_error(conn, iq, error);
        }
    }

    /// The connection of a bound resource by its full JID.
    pub(crate) fn session_of(&self, full: &str) -> Option<ConnId> {
        let jid = JidRef::parse(full).ok()?;
        let resource = self.accounts.find(jid.bare())?.resource_named(jid.resource()?)?;
        Some(resource.conn)
    }

    /// Whether a connection is that of this resource.
    pub(crate) fn is_bound_as(&self, conn: ConnId, jid: &FullJid) -> bool {
        let bound = self.account_id(conn).and_then(|account| self.accounts.get(account).resource(conn));
        bound.is_some_and(|resource| resource.jid == *jid)
    }

    /// The account of a bound stream.
    pub(crate) fn account_id(&self, conn: ConnId) -> Option<AccountId> {
        match self.streams.get(conn)?.phase {
            Phase::Bound(account) => Some(account),
            _ => None,
        }
    }
}

/// Answer to what is for another server.
pub const NO_FEDERATION: StanzaError =
    StanzaError::REMOTE_SERVER_NOT_FOUND.text("This server does not exchange messages with other servers.");
