//! State of one stream: opening, features, errors, the end.
//!
//! A stream goes Login → Authed → Bound; each state owns what only it needs, so that a bound stream, which lives for days,
//! carries nothing of its log-in. Where the bytes are read only the phase decides what a first-level element may be.

use std::net::IpAddr;
use std::time::Duration;

use crate::auth::{Exchange, Offer};
use crate::core::effects::{CloseReason, ConnId, ConnOrder, ListenerKind, StoreReply, TlsFacts};
use crate::core::error::StreamError;
use crate::core::login::Penalty;
use crate::core::session::AccountId;
use crate::core::timers::{Deadlines, Due};
use crate::core::{Core, Now, Outputs};
use crate::handlers::{self, StreamPhase};
use crate::jid::{self, BareJid, JidRef};
use crate::xml::writer::escape_attr;
use crate::xml::{Frame, Framer, Header, Kind, Next, Writer, XmlError, ns};

/// Longest time that a session is not read because somebody else does not take what it sends.
const OUTPUT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Continues a stream's request to the store that was made before a resource was bound.
pub type ThenStream = Box<dyn FnOnce(&mut Core, Now, ConnId, StoreReply, &mut Outputs)>;

/// One stream.
pub struct Stream {
    /// Where it came in.
    pub listener: ListenerKind,
    /// From where.
    pub peer: IpAddr,
    /// Index of the served domain it is for, once its header has said so.
    pub host: Option<usize>,
    /// Under TLS.
    pub secure: bool,
    /// How far it is.
    pub phase: Phase,
    /// Why it is not read.
    pub hold: Hold,
    /// What is due when.
    pub deadlines: Deadlines,
    /// The client's `xml:lang`, escaped for an attribute.
    pub lang: Option<Box<str>>,
    framer: Framer,
    header_sent: bool,
    /// When the peer was last heard.
    heard: Duration,
    /// It was asked whether it is there.
    pinged: bool,
    /// Bytes it may send before it has to wait; goes below zero by one stanza at most.
    allowance: i64,
    refilled: Duration,
    /// Bytes it has sent since its account was measured last.
    pub(super) unmeasured: usize,
    /// Stream management (XEP-0198), once it is enabled.
    pub sm: Option<Box<handlers::sm::Session>>,
}

/// How far a stream is.
pub enum Phase {
    /// Not authenticated.
    Login(Box<Login>),
    /// The TLS handshake runs.
    Handshake,
    /// Authenticated; a resource must be bound.
    Authed(Authed),
    /// A session.
    Bound(AccountId),
    /// Our end is closed; what comes is dropped.
    Closing,
}

/// What only a stream that logs in needs.
#[derive(Default)]
pub struct Login {
    /// The running SASL exchange.
    pub exchange: Option<Box<Exchange>>,
    /// What the client has asked for beside the exchange, if it speaks XEP-0388: there is an exchange then, or a task after one.
    pub sasl2: Option<Box<handlers::sasl2::Request>>,
    /// What the TLS handshake gave.
    pub tls: TlsFacts,
    /// What was offered on this stream.
    pub offer: Option<Offer>,
    /// SASL failures so far.
    pub failures: u32,
    /// Whether that account is disabled.
    pub disabled: bool,
    /// Which account the running exchange is for, as it says.
    pub guessed: Option<BareJid>,
    /// What waits until the time for a failure is over.
    pub penalty: Option<Penalty>,
    /// `from` of the header that was protected by TLS.
    pub claimed: Option<BareJid>,
}

/// What only a stream between log-in and binding needs. Made by `core::login` alone.
pub struct Authed {
    /// Whose it is.
    pub user: BareJid,
    /// Failures to bind so far.
    pub bind_failures: u32,
    /// What is left to do before the client hears of its success, if it speaks XEP-0388.
    pub completion: Option<Box<handlers::sasl2::Completion>>,
}

/// Why a stream is not read.
#[derive(Debug, Default)]
pub struct Hold {
    /// It waits for an answer of the store.
    pub parked: bool,
    /// It has sent too much in too short a time, or has to wait after a failed log-in.
    pub rate: bool,
    /// Who it sends to does not take it fast enough.
    pub output: bool,
    /// The store does not take fast enough what it sends.
    pub store: bool,
}

impl Hold {
    fn any(&self) -> bool {
        self.parked || self.rate || self.output || self.store
    }
}

/// Every stream, by slot of its connection; those of sessions that wait to be resumed by slot of their ghost.
#[derive(Default)]
pub struct Streams {
    slots: Vec<Option<(u32, Box<Stream>)>>,
    ghosts: Vec<Option<(u32, Box<Stream>)>>,
    count: usize,
}

impl Streams {
    /// A stream that is still there.
    pub fn get(&self, conn: ConnId) -> Option<&Stream> {
        let slots = if conn.is_ghost() { &self.ghosts } else { &self.slots };
        let (generation, stream) = slots.get(conn.index())?.as_ref()?;
        (*generation == conn.generation).then_some(&**stream)
    }

    /// A stream that is still there.
    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut Stream> {
        let slots = if conn.is_ghost() { &mut self.ghosts } else { &mut self.slots };
        let (generation, stream) = slots.get_mut(conn.index())?.as_mut()?;
        (*generation == conn.generation).then_some(&mut **stream)
    }

    /// Every stream that has a connection.
    pub fn conns(&self) -> Vec<ConnId> {
        let conn = |(slot, entry): (usize, &Option<(u32, Box<Stream>)>)| {
            entry.as_ref().map(|(generation, _)| ConnId { slot: slot as u32, generation: *generation })
        };
        self.slots.iter().enumerate().filter_map(conn).collect()
    }

    /// Every session without one.
    pub fn ghosts(&self) -> Vec<ConnId> {
        let conn = |(index, entry): (usize, &Option<(u32, Box<Stream>)>)| {
            entry.as_ref().map(|(generation, _)| ConnId::ghost(index as u32, *generation))
        };
        self.ghosts.iter().enumerate().filter_map(conn).collect()
    }

    /// How many there are, ghosts included.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Puts a stream in the place of a connection.
    pub fn insert(&mut self, conn: ConnId, stream: Box<Stream>) {
        let slots = if conn.is_ghost() { &mut self.ghosts } else { &mut self.slots };
        let index = conn.index();
        if slots.len() <= index {
            slots.resize_with(index + 1, || None);
        }
        self.count += usize::from(slots[index].is_none());
        slots[index] = Some((conn.generation, stream));
    }

    /// Takes a stream out.
    pub fn take(&mut self, conn: ConnId) -> Option<Box<Stream>> {
        self.get(conn)?;
        self.count -= 1;
        let slots = if conn.is_ghost() { &mut self.ghosts } else { &mut self.slots };
        slots.get_mut(conn.index())?.take().map(|(_, stream)| stream)
    }

    /// A place for a session without a connection.
    pub fn free_ghost(&self) -> u32 {
        self.ghosts.iter().position(Option::is_none).unwrap_or(self.ghosts.len()) as u32
    }
}

impl Core {
    pub(super) fn on_opened(
        &mut self,
        now: Now,
        conn: ConnId,
        listener: ListenerKind,
        peer: IpAddr,
        out: &mut Outputs,
    ) {
        let stream = Stream {
            listener,
            peer,
            host: None,
            secure: false,
            phase: if listener == ListenerKind::Tls { Phase::Handshake } else { Phase::Login(Box::default()) },
            hold: Hold::default(),
            deadlines: Deadlines::default(),
            lang: None,
            framer: Framer::new(),
            header_sent: false,
            heard: now.mono,
            pinged: false,
            allowance: self.limits.session_burst as i64,
            refilled: now.mono,
            unmeasured: 0,
            sm: None,
        };
        self.streams.insert(conn, Box::new(stream));
        self.let_in(conn, out);
        self.counters.connections += 1;
        self.set_deadline(conn, Due::Login, now.mono + self.limits.login_time);
    }

    pub(super) fn on_secured(&mut self, conn: ConnId, tls: TlsFacts) {
        let Some(stream) = self.streams.get_mut(conn) else { return };
        if let Phase::Handshake = stream.phase {
            // All that was learnt before TLS is forgotten (RFC 6120 section 5.4.3.3), but for the host, which must not change.
            stream.phase = Phase::Login(Box::new(Login { tls, ..Login::default() }));
            stream.secure = true;
            stream.restart();
        }
    }

    pub(super) fn on_closed(&mut self, now: Now, conn: ConnId, reason: CloseReason, out: &mut Outputs) {
        if reason == CloseReason::Tls {
            self.counters.tls_failures += 1;
        }
        if !handlers::sm::hibernate(self, now, conn, out) {
            self.end_session(now, conn, out);
        }
        self.forget_blocked(conn, out);
        drop(self.streams.take(conn));
        // Not before: what was not acknowledged has to move to where it waits for resumption.
        out.wire.close(conn);
    }

    /// Nobody waits any more for a connection that is gone, nor does it wait.
    pub(crate) fn forget_blocked(&mut self, conn: ConnId, out: &mut Outputs) {
        self.release_senders(conn, out);
        self.blocked.retain(|(_, sender)| *sender != conn);
    }

    /// Whether the bytes of a connection are left unread for now: it waits for the store, for a receiver that is slow, or
    /// because it has sent too much. [`ConnOrder::Resume`] tells when that is over.
    pub fn is_held(&self, conn: ConnId) -> bool {
        self.streams.get(conn).is_some_and(|stream| stream.hold.any())
    }

    /// Hands complete stanzas of one stream to the router until the bytes run out or the session must wait.
    pub(super) fn on_bytes(&mut self, now: Now, conn: ConnId, unread: &[u8], out: &mut Outputs) -> usize {
        if let Some(stream) = self.streams.get_mut(conn) {
            stream.heard = now.mono;
            stream.pinged = false;
        }
        let mut consumed = 0;
        loop {
            let Some(stream) = self.streams.get_mut(conn) else { return unread.len() };
            let limits = match stream.phase {
                Phase::Handshake | Phase::Closing => return unread.len(),
                Phase::Login(_) => &self.limits.xml_before_auth,
                Phase::Authed(_) | Phase::Bound(_) => &self.limits.xml,
            };
            if stream.hold.any() {
                return consumed;
            }
            let in_exchange = matches!(&stream.phase, Phase::Login(login) if login.sasl2.is_some());
            match stream.framer.next(&unread[consumed..], limits) {
                Ok(Next::Incomplete { skip: 1.. }) if in_exchange => {
                    handlers::sasl2::disturbed(self, now, conn, out);
                    return unread.len();
                }
                Ok(Next::Stanza { used, frame }) if in_exchange && used > frame.xml.len() => {
                    handlers::sasl2::disturbed(self, now, conn, out);
                    return unread.len();
                }
                Ok(Next::Incomplete { skip }) => return consumed + skip,
                Ok(Next::Header { used, header }) => {
                    consumed += used;
                    self.on_header(conn, &header, out);
                }
                Ok(Next::Stanza { used, frame }) => {
                    consumed += used;
                    if let (Some(sm), true) = (&mut stream.sm, frame.kind != Kind::Other) {
                        sm.count();
                    }
                    self.note_bytes(conn, used);
                    self.spend(now, conn, used);
                    self.on_frame(now, conn, &frame, out);
                    self.press(conn, conn, out);
                }
                Ok(Next::Footer { .. }) => {
                    handlers::sm::on_footer(self, conn, out);
                    self.close_stream(now, conn, None, out);
                    return unread.len();
                }
                Err(error) => {
                    self.fail_framing(now, conn, error, out);
                    return unread.len();
                }
            }
        }
    }

    fn fail_framing(&mut self, now: Now, conn: ConnId, error: XmlError, out: &mut Outputs) {
        self.counters.stream_errors += 1;
        self.close_stream(now, conn, Some(error.into()), out);
    }

    fn on_frame(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
        let Some(stream) = self.streams.get(conn) else { return };
        match stream.phase {
            Phase::Bound(account) => self.route(now, conn, account, frame, out),
            Phase::Login(_) => self.on_login_frame(now, conn, frame, out),
            Phase::Authed(_) => handlers::bind::on_frame(self, now, conn, frame, out),
            Phase::Handshake | Phase::Closing => {}
        }
    }

    /// Takes a stanza's bytes from the session's allowance; a session without any is not read until it has some again.
    fn spend(&mut self, now: Now, conn: ConnId, bytes: usize) {
        if !self.limits.rates {
            return;
        }
        let (rate, burst) = (self.limits.session_rate as i64, self.limits.session_burst as i64);
        let Some(stream) = self.streams.get_mut(conn) else { return };
        stream.allowance -= bytes as i64;
        if stream.allowance >= 0 {
            return;
        }
        let elapsed = now.mono.saturating_sub(stream.refilled).as_millis() as i64;
        stream.allowance = (stream.allowance + elapsed * rate / 1000).min(burst);
        stream.refilled = now.mono;
        if stream.allowance < 0 {
            stream.hold.rate = true;
            let wait = Duration::from_millis((-stream.allowance * 1000 / rate.max(1)) as u64 + 1);
            self.set_deadline(conn, Due::Rate, now.mono + wait);
        }
    }

    fn on_header(&mut self, conn: ConnId, header: &Header<'_>, out: &mut Outputs) {
        let Some(stream) = self.streams.get_mut(conn) else { return };
        let known = stream.host;
        if let Some(lang) = header.lang.as_deref().filter(|lang| lang.len() <= 64) {
            let mut escaped = Vec::new();
            escape_attr(lang, &mut escaped);
            stream.lang = Some(String::from_utf8_lossy(&escaped).into());
        }
        let host = match self.host_of(header.to.as_deref()) {
            Ok(host) => host,
            Err(error) => return self.refuse_header(conn, header, error, out),
        };
        let checked = match known {
            Some(known) if known != host => {
                Err(StreamError::new("not-authorized", "The domain of a stream cannot change when it is restarted."))
            }
            _ => check_version(header).and_then(|()| self.claimed(header, host)),
        };
        if let Some(stream) = self.streams.get_mut(conn) {
            stream.host = Some(host);
        }
        match checked {
            Err(error) => self.refuse_header(conn, header, error, out),
            Ok(claimed) => {
                self.send_header(conn, claimed.as_ref(), true, out);
                if let Some(Stream { phase: Phase::Login(login), secure: true, .. }) = self.streams.get_mut(conn) {
                    login.claimed = claimed;
                }
                self.send_features(conn, out);
            }
        }
    }

    /// Which served domain a header's `to` names.
    fn host_of(&self, to: Option<&str>) -> Result<usize, StreamError> {
        let missing = StreamError::new("improper-addressing", "The stream header has no valid 'to'.");
        let domain = jid::prepare_domain(to.ok_or(missing)?).map_err(|_| missing)?;
        let unknown = StreamError::new("host-unknown", "This server does not serve that domain.");
        self.hosts.iter().position(|host| host.name == *domain).ok_or(unknown)
    }

    /// Who a header's `from` says it is; not to be believed.
    fn claimed(&self, header: &Header<'_>, host: usize) -> Result<Option<BareJid>, StreamError> {
        let Some(from) = header.from.as_deref().and_then(|from| JidRef::parse(from).ok().map(|jid| jid.to_bare()))
        else {
            return Ok(None);
        };
        match from.domain() == self.hosts[host].name {
            true => Ok(Some(from)),
            false => Err(StreamError::new("invalid-from", "The domain in 'from' is not the one in 'to'.")),
        }
    }

    fn refuse_header(&mut self, conn: ConnId, header: &Header<'_>, error: StreamError, out: &mut Outputs) {
        self.send_header(conn, None, header.version.is_some(), out);
        self.counters.stream_errors += 1;
        self.write_end(conn, Some(error), out);
    }

    fn send_header(&mut self, conn: ConnId, to: Option<&BareJid>, version: bool, out: &mut Outputs) {
        let id = self.ids.next_id();
        let Some(stream) = self.streams.get_mut(conn) else { return };
        stream.header_sent = true;
        let host = stream.host.map_or("", |host| self.hosts[host].name.as_str());
        out.wire.write(conn, |buf| {
            buf.extend_from_slice(b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='");
            buf.extend_from_slice(ns::STREAMS.as_bytes());
            buf.extend_from_slice(b"' id='");
            buf.extend_from_slice(id.as_bytes());
            if !host.is_empty() {
                buf.extend_from_slice(b"' from='");
                escape_attr(host, buf);
            }
            if let Some(to) = to {
                buf.extend_from_slice(b"' to='");
                escape_attr(to.as_str(), buf);
            }
            if version {
                buf.extend_from_slice(b"' version='1.0");
            }
            buf.extend_from_slice(b"' xml:lang='en'>");
        });
    }

    pub(crate) fn send_features(&mut self, conn: ConnId, out: &mut Outputs) {
        let offer = self.make_offer(conn);
        let Some(stream) = self.streams.get_mut(conn) else { return };
        let phase = match &mut stream.phase {
            Phase::Login(login) => {
                login.offer = offer;
                StreamPhase::Login { secure: stream.secure, listener: stream.listener }
            }
            Phase::Bound(_) => StreamPhase::Bound,
            _ => StreamPhase::Authed,
        };
        let Some(stream) = self.streams.get(conn) else { return };
        out.wire.write(conn, |buf| {
            let mut w = Writer::new(buf);
            w.open("stream:features", ns::CLIENT);
            if let Phase::Login(login) = &stream.phase {
                self.write_login_features(stream, login, &mut w);
            }
            let limits = if phase.is_authed() { &self.limits.xml } else { &self.limits.xml_before_auth };
            w.open("limits", ns::STREAM_LIMITS).text_element("max-bytes", limits.stanza_bytes_max);
            if phase.is_authed() {
                w.text_element("idle-seconds", self.limits.idle_ping.as_secs());
            }
            w.close();
            for handler in handlers::HANDLERS {
                if let Some(write) = handler.stream_features {
                    write(self, stream, phase, &mut w);
                }
            }
        });
    }

    /// Ends a stream: the session with it, then our closing tag, behind an error if there is one.
    pub(crate) fn close_stream(&mut self, now: Now, conn: ConnId, error: Option<StreamError>, out: &mut Outputs) {
        if self.streams.get(conn).is_none_or(|stream| matches!(stream.phase, Phase::Closing)) {
            return;
        }
        self.end_session(now, conn, out);
        if conn.is_ghost() {
            out.wire.close(conn);
            drop(self.streams.take(conn));
            return;
        }
        let Some(stream) = self.streams.get(conn) else { return };
        if !stream.header_sent {
            self.send_header(conn, None, true, out);
        }
        self.write_end(conn, error, out);
    }

    fn write_end(&mut self, conn: ConnId, error: Option<StreamError>, out: &mut Outputs) {
        let Some(stream) = self.streams.get_mut(conn) else { return };
        let handshake = matches!(stream.phase, Phase::Handshake);
        if let Some(error) = error {
            log::debug!("stream from {} ends: {} ({})", stream.peer, error.condition, error.text);
        }
        stream.phase = Phase::Closing;
        stream.hold = Hold::default();
        if handshake {
            // A failed handshake is no place for a closing tag (RFC 6120 section 5.4.3.2).
            out.conns.push(ConnOrder::Abort(conn));
            return;
        }
        out.wire.write(conn, |buf| {
            if let Some(error) = error {
                error.write(buf);
            }
            buf.extend_from_slice(b"</stream:stream>");
        });
        out.conns.push(ConnOrder::Close(conn));
    }

    pub(crate) fn set_deadline(&mut self, conn: ConnId, due: Due, at: Duration) {
        if let Some(stream) = self.streams.get_mut(conn) {
            self.timers.set(&mut stream.deadlines, conn, due, at);
        }
        if self.timers.is_stale(self.streams.len()) {
            let streams = &self.streams;
            self.timers
                .prune(|at, conn, due| streams.get(conn).is_some_and(|stream| stream.deadlines.at(due) == Some(at)));
        }
    }

    pub(super) fn on_deadline(&mut self, now: Now, out: &mut Outputs) {
        if self.stops_at.is_some_and(|at| at <= now.mono) {
            self.stops_at = None;
            out.stop = true;
        }
        handlers::push::on_deadline(self, now, out);
        handlers::muc::on_deadline(self, now, out);
        while let Some((at, conn, due)) = self.timers.pop(now.mono) {
            let Some(stream) = self.streams.get_mut(conn) else { continue };
            if stream.deadlines.at(due) != Some(at) {
                continue;
            }
            stream.deadlines.clear(due);
            match due {
                Due::Login => self.on_login_time(now, conn, out),
                Due::Rate => self.end_rate_hold(conn, out),
                Due::Output => self.release_sender(conn, out),
                Due::Penalty => self.on_penalty_over(now, conn, out),
                Due::Idle => self.on_idle(now, conn, out),
                Due::Acknowledgement => handlers::sm::on_unanswered(self, now, conn, out),
                Due::Resumption => handlers::sm::on_not_resumed(self, now, conn, out),
                Due::Offline => handlers::offline::start_again(self, conn, out),
            }
        }
    }

    /// A stream is read again, unless it has to wait for the other reason too.
    pub(super) fn end_rate_hold(&mut self, conn: ConnId, out: &mut Outputs) {
        let Some(stream) = self.streams.get_mut(conn) else { return };
        if stream.deadlines.at(Due::Rate).is_none() && stream.deadlines.at(Due::Penalty).is_none() {
            stream.hold.rate = false;
            out.conns.push(ConnOrder::Resume(conn));
        }
    }

    fn on_login_time(&mut self, now: Now, conn: ConnId, out: &mut Outputs) {
        if let Some(Stream { phase: Phase::Login(_) | Phase::Handshake | Phase::Authed(_), .. }) =
            self.streams.get(conn)
        {
            let error = StreamError::new("policy-violation", "It took too long to log in.");
            self.close_stream(now, conn, Some(error), out);
        }
    }

    /// Asks a silent peer whether it is there; drops it if it was asked already.
    fn on_idle(&mut self, now: Now, conn: ConnId, out: &mut Outputs) {
        let id = self.ids.next_id();
        let Some(stream) = self.streams.get_mut(conn) else { return };
        let Phase::Bound(account) = stream.phase else { return };
        let silent_since = stream.heard;
        if stream.pinged {
            let error = StreamError::new("connection-timeout", "The client did not answer.");
            return self.close_stream(now, conn, Some(error), out);
        }
        let due = silent_since + self.limits.idle_ping;
        if due > now.mono {
            return self.set_deadline(conn, Due::Idle, due);
        }
        stream.pinged = true;
        let host = stream.host.map_or("", |host| self.hosts[host].name.as_str());
        let to = self.accounts.get(account).resource(conn).map_or("", |resource| resource.jid.as_str());
        out.wire.stanza(conn, |buf| {
            let mut w = Writer::new(buf);
            w.open("iq", ns::CLIENT).attr("type", "get").attr("id", &id).attr("from", host).attr("to", to);
            w.empty("ping", ns::PING);
        });
        self.set_deadline(conn, Due::Idle, now.mono + self.limits.ping_answer);
    }

    /// A sender waits until what it has filled is empty, but not for ever: a receiver that takes little must not silence all who
    /// write to it. Beyond that time it fills up, and is dropped when it is full.
    pub(crate) fn hold_sender(&mut self, sender: ConnId, receiver: ConnId, out: &mut Outputs) {
        if let Some(stream) = self.streams.get_mut(sender)
            && !stream.hold.output
        {
            stream.hold.output = true;
            self.blocked.push((receiver, sender));
            out.wire.watch(receiver);
            if sender != receiver {
                self.set_deadline(sender, Due::Output, self.turn + OUTPUT_WAIT_MAX);
            }
        }
    }

    fn release_sender(&mut self, sender: ConnId, out: &mut Outputs) {
        self.blocked.retain(|(_, blocked)| *blocked != sender);
        if let Some(stream) = self.streams.get_mut(sender) {
            stream.hold.output = false;
            out.conns.push(ConnOrder::Resume(sender));
        }
    }

    /// A receiver has taken all, or is gone: those who wait for it go on.
    pub(super) fn release_senders(&mut self, receiver: ConnId, out: &mut Outputs) {
        let mut index = 0;
        while index < self.blocked.len() {
            let (blocked_by, sender) = self.blocked[index];
            if blocked_by != receiver {
                index += 1;
                continue;
            }
            self.blocked.swap_remove(index);
            if let Some(stream) = self.streams.get_mut(sender) {
                stream.hold.output = false;
                stream.deadlines.clear(Due::Output);
                out.conns.push(ConnOrder::Resume(sender));
            }
        }
    }
}

impl Stream {
    /// The session of this stream goes on over the connection of a newer stream, which had no session yet.
    pub(crate) fn adopt(&mut self, newer: Stream) {
        self.listener = newer.listener;
        self.peer = newer.peer;
        self.secure = newer.secure;
        self.lang = newer.lang;
        self.framer = newer.framer;
        self.header_sent = newer.header_sent;
        self.heard = newer.heard;
        self.pinged = false;
        self.allowance = newer.allowance;
        self.refilled = newer.refilled;
        self.deadlines = Deadlines::default();
    }

    /// A new header is expected; the old one is forgotten (RFC 6120 section 4.3.3).
    pub(super) fn restart(&mut self) {
        self.framer.restart();
        self.header_sent = false;
        self.lang = None;
    }
}

/// Version 1.0 or later is spoken here (RFC 6120 section 4.7.5); without one it is 0.9.
fn check_version(header: &Header<'_>) -> Result<(), StreamError> {
    let major = header.version.as_deref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match major {
        Some(1..) => Ok(()),
        _ => Err(StreamError::new("unsupported-version", "This server speaks XMPP 1.0.")),
    }
}
