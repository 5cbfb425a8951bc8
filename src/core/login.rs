//! From the first stream header to an authenticated user: STARTTLS and SASL (RFC 6120 sections 5 and 6), and registration
//! before that.
//!
//! An exchange may be spoken in two syntaxes: that of RFC 6120, which is read here, and that of XEP-0388, which is read in
//! `handlers::sasl2`. What is between its beginning and its outcome is the same.

use std::time::Duration;

use crate::auth::{self, Exchange, Mechanism, Offer, Progress, SaslError};
use crate::core::effects::{ConnId, ConnOrder, ListenerKind, StoreReply, StoreRequest, Stored};
use crate::core::error::StreamError;
use crate::core::parked::Waiting;
use crate::core::stream::{Authed, Phase, Stream};
use crate::core::timers::Due;
use crate::core::{Core, Login, Now, Outputs};
use crate::handlers;
use crate::jid::BareJid;
use crate::xml::{Frame, Kind, Tree, Writer, ns};

/// What waits until the time for a failed log-in is over.
pub enum Penalty {
    /// The answer that it has failed.
    Answer(SaslError),
    /// The next attempt from the same address, and what it asks the store.
    Attempt(Box<(Exchange, StoreRequest)>),
}

impl Core {
    /// What this stream may log in with.
    pub(super) fn make_offer(&self, conn: ConnId) -> Option<Offer> {
        let stream = self.streams.get(conn)?;
        let Phase::Login(login) = &stream.phase else { return None };
        // Before TLS that is required nothing is offered (RFC 6120 section 5.3.1).
        if !stream.secure && stream.listener == ListenerKind::StartTls {
            return None;
        }
        let offer = Offer::new(stream.secure, &login.tls.bindings, self.password_scheme);
        if self.scram {
            return Some(offer);
        }
        use Mechanism::{ScramSha1, ScramSha1Plus, ScramSha256, ScramSha256Plus};
        Some([ScramSha256Plus, ScramSha1Plus, ScramSha256, ScramSha1].into_iter().fold(offer, Offer::without))
    }

    pub(super) fn write_login_features(&self, stream: &Stream, login: &Login, w: &mut Writer<'_>) {
        if !stream.secure {
            w.open("starttls", ns::TLS);
            if stream.listener == ListenerKind::StartTls {
                w.empty("required", ns::TLS);
            }
            w.close();
        }
        let Some(offer) = login.offer else { return };
        if offer.mechanisms().next().is_some() {
            w.open("mechanisms", ns::SASL);
            for mechanism in offer.mechanisms() {
                w.text_element("mechanism", mechanism.name());
            }
            w.close();
        }
        if offer.channel_bindings().next().is_some() {
            w.open("sasl-channel-binding", ns::SASL_CHANNEL_BINDING);
            for kind in offer.channel_bindings() {
                w.open("channel-binding", ns::SASL_CHANNEL_BINDING).attr("type", kind).close();
            }
            w.close();
        }
    }

    pub(super) fn on_login_frame(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
        if *frame.ns == *ns::SASL2 || self.login_mut(conn).is_some_and(|login| login.sasl2.is_some()) {
            return handlers::sasl2::on_element(self, now, conn, frame, out);
        }
        match (frame.kind, frame.local, &*frame.ns) {
            (Kind::Other, "starttls", ns::TLS) => self.on_starttls(now, conn, frame, out),
            (Kind::Other, "auth", ns::SASL) => self.on_auth(now, conn, frame, out),
            (Kind::Other, "response", ns::SASL) => self.on_response(now, conn, frame, out),
            (Kind::Other, "abort", ns::SASL) => self.fail_login(now, conn, SaslError::Aborted, out),
            (Kind::Other, _, ns::SM) => handlers::sm::on_element(self, now, conn, frame, out),
            (Kind::Other, "error", ns::STREAMS) => self.close_stream(now, conn, None, out),
            (Kind::Iq, ..) if handlers::register::before_login(self, now, conn, frame, out) => {}
            (Kind::Message | Kind::Presence | Kind::Iq, ..) => {
                let error = StreamError::new("not-authorized", "Log in before sending stanzas.");
                self.close_stream(now, conn, Some(error), out);
            }
            _ => {
                let error = StreamError::new("unsupported-stanza-type", "This element is not known here.");
                self.close_stream(now, conn, Some(error), out);
            }
        }
    }

    pub(crate) fn login_mut(&mut self, conn: ConnId) -> Option<&mut Login> {
        match &mut self.streams.get_mut(conn)?.phase {
            Phase::Login(login) => Some(login),
            _ => None,
        }
    }

    fn on_starttls(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
        let Some(stream) = self.streams.get_mut(conn) else { return };
        let host = stream.host.map_or(String::new(), |host| self.hosts[host].name.clone());
        let Some(stream) = self.streams.get_mut(conn) else { return };
        if stream.secure || frame.children > 0 || frame.text_between {
            out.wire.write(conn, |buf| {
                Writer::new(buf).empty("failure", ns::TLS);
            });
            return self.close_stream(now, conn, None, out);
        }
        stream.phase = Phase::Handshake;
        out.wire.write(conn, |buf| {
            Writer::new(buf).empty("proceed", ns::TLS);
        });
        out.conns.push(ConnOrder::StartTls { conn, domain: host });
    }

    fn on_auth(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
        let tree = Tree::of(frame);
        let mechanism = tree.root().attr("mechanism").unwrap_or_default();
        self.begin_exchange(now, conn, mechanism, auth::decode(&tree.root().text()), out);
    }

    fn on_response(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
        let tree = Tree::of(frame);
        let data = auth::decode(&tree.root().text()).map(Option::unwrap_or_default);
        self.continue_exchange(now, conn, data, out);
    }

    /// Begins an exchange; a running one is dropped (section 6.4.2). `data` is the initial response, if there is one.
    pub(crate) fn begin_exchange(
        &mut self,
        now: Now,
        conn: ConnId,
        mechanism: &str,
        data: Result<Option<Vec<u8>>, SaslError>,
        out: &mut Outputs,
    ) {
        let nonce = self.ids.next_id();
        let Some(stream) = self.streams.get_mut(conn) else { return };
        let host = stream.host.map_or("", |host| self.hosts[host].name.as_str());
        let Phase::Login(login) = &mut stream.phase else { return };
        login.exchange = None;
        login.guessed = None;
        let no_offer = if stream.secure { SaslError::InvalidMechanism } else { SaslError::EncryptionRequired };
        let begun = login.offer.ok_or(no_offer).and_then(|offer| {
            let mechanism = offer.select(mechanism)?;
            let data = data?;
            let mut exchange = Exchange::begin(mechanism, &offer, &login.tls.bindings, host, nonce);
            exchange.announce_offer();
            Ok((exchange, data))
        });
        match begun {
            Err(error) => self.fail_login(now, conn, error, out),
            Ok((mut exchange, data)) => {
                let progress = exchange.respond(data.as_deref());
                self.go_on(now, conn, exchange, progress, out);
            }
        }
    }

    /// Goes on with the running exchange, if there is one.
    pub(crate) fn continue_exchange(
        &mut self,
        now: Now,
        conn: ConnId,
        data: Result<Vec<u8>, SaslError>,
        out: &mut Outputs,
    ) {
        let exchange = self.login_mut(conn).and_then(|login| login.exchange.take());
        match exchange.ok_or(SaslError::MalformedRequest).and_then(|exchange| Ok((exchange, data?))) {
            Err(error) => self.fail_login(now, conn, error, out),
            Ok((mut exchange, data)) => {
                let progress = exchange.respond(Some(&data));
                self.go_on(now, conn, *exchange, progress, out);
            }
        }
    }

    fn go_on(&mut self, now: Now, conn: ConnId, exchange: Exchange, progress: Progress, out: &mut Outputs) {
        let request = match progress {
            Progress::Challenge(data) => {
                let Some(login) = self.login_mut(conn) else { return };
                login.exchange = Some(Box::new(exchange));
                let syntax = if login.sasl2.is_some() { ns::SASL2 } else { ns::SASL };
                out.wire.write(conn, |buf| {
                    let mut w = Writer::new(buf);
                    w.open("challenge", syntax);
                    // An empty challenge has no content, unlike an empty response (section 6.4.2).
                    if !data.is_empty() {
                        w.text(auth::encode(&data));
                    }
                });
                return;
            }
            Progress::Success { username, data } => return self.succeed(now, conn, &username, &data, out),
            Progress::Failure(error) => return self.fail_login(now, conn, error, out),
            Progress::NeedKeys { username } => {
                self.account_of(conn, &username).map(|user| StoreRequest::Credentials { user })
            }
            Progress::NeedVerify { username, password } => self
                .account_of(conn, &username)
                .filter(|_| self.hash_has_room(conn))
                .map(|user| StoreRequest::Verify { user, password: password.into() }),
        };
        let Some(request) = request.filter(|_| self.store_has_room()) else {
            return self.fail_login(now, conn, SaslError::TemporaryAuthFailure, out);
        };
        if let (Some(login), StoreRequest::Credentials { user } | StoreRequest::Verify { user, .. }) =
            (self.login_mut(conn), &request)
        {
            login.guessed = Some(user.clone());
            login.disabled = false;
        }
        let due = self.penalty_due(now, conn);
        if !due.is_zero() {
            return self.hold_login(now, conn, due, Penalty::Attempt(Box::new((exchange, request))));
        }
        self.ask_keys(conn, exchange, request, out);
    }

    /// What is left of the time for the last failure from the stream's address.
    fn penalty_due(&self, now: Now, conn: ConnId) -> Duration {
        match self.streams.get(conn) {
            Some(stream) if self.limits.rates => {
                self.penalties.due(stream.peer, now.mono, self.limits.login_backoff_after)
            }
            _ => Duration::ZERO,
        }
    }

    fn hold_login(&mut self, now: Now, conn: ConnId, wait: Duration, penalty: Penalty) {
        if let Some(login) = self.login_mut(conn) {
            login.penalty = Some(penalty);
        }
        if let Some(stream) = self.streams.get_mut(conn) {
            stream.hold.rate = true;
        }
        self.set_deadline(conn, Due::Penalty, now.mono + wait);
    }

    fn ask_keys(&mut self, conn: ConnId, exchange: Exchange, request: StoreRequest, out: &mut Outputs) {
        let then = Box::new(move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
            core.on_keys(now, conn, exchange, reply, out);
        });
        self.ask(request, Waiting::Stream { conn, then }, out);
    }

    pub(crate) fn account_of(&self, conn: ConnId, username: &str) -> Option<BareJid> {
        let host = self.streams.get(conn)?.host?;
        BareJid::from_parts(username, &self.hosts[host].name).ok()
    }

    fn on_keys(&mut self, now: Now, conn: ConnId, mut exchange: Exchange, reply: StoreReply, out: &mut Outputs) {
        let progress = match reply {
            Ok(Stored::Credentials(credentials)) => exchange.keys(credentials.as_ref(), &self.fake_keys),
            Ok(Stored::Verified(right)) => exchange.verified(right),
            Ok(Stored::Disabled(credentials)) => {
                if let Some(login) = self.login_mut(conn) {
                    login.disabled = true;
                }
                match credentials {
                    Some(credentials) => exchange.keys(Some(&credentials), &self.fake_keys),
                    None => exchange.verified(true),
                }
            }
            Ok(_) | Err(_) => Progress::Failure(SaslError::TemporaryAuthFailure),
        };
        self.go_on(now, conn, exchange, progress, out);
    }

    fn succeed(&mut self, now: Now, conn: ConnId, username: &str, data: &[u8], out: &mut Outputs) {
        let user = self.account_of(conn, username);
        let Some(login) = self.login_mut(conn) else { return };
        let Some(user) = user.filter(|user| login.claimed.as_ref().is_none_or(|claimed| claimed == user)) else {
            // Who opens a stream as one and logs in as another (section 6.4.6).
            return self.fail_login(now, conn, SaslError::InvalidAuthzid, out);
        };
        // Only who knows the password learns that (RFC 6120 section 6.5.1).
        if login.disabled {
            return self.fail_login(now, conn, SaslError::AccountDisabled, out);
        }
        if let Some(request) = login.sasl2.take() {
            return handlers::sasl2::on_authenticated(self, now, conn, user, *request, data, out);
        }
        self.admit(conn, user);
        if let Some(stream) = self.streams.get_mut(conn) {
            stream.restart();
        }
        out.wire.write(conn, |buf| {
            let mut w = Writer::new(buf);
            w.open("success", ns::SASL);
            if !data.is_empty() {
                w.text(auth::encode(data));
            }
        });
    }

    /// The stream is this account's from now on. Only for who has just proved it.
    pub(crate) fn admit(&mut self, conn: ConnId, user: BareJid) {
        let Some(stream) = self.streams.get_mut(conn) else { return };
        self.penalties.forgive(stream.peer, &user);
        stream.phase = Phase::Authed(Authed { user, bind_failures: 0, completion: None });
        self.counters.logins += 1;
    }

    /// Answers with `<failure/>`: at once, or after a while where there were too many of them.
    pub(crate) fn fail_login(&mut self, now: Now, conn: ConnId, error: SaslError, out: &mut Outputs) {
        let Some(stream) = self.streams.get(conn) else { return };
        let peer = stream.peer;
        let guess = error == SaslError::NotAuthorized;
        let user = self.login_mut(conn).and_then(|login| login.guessed.take());
        if guess {
            self.counters.login_failures += 1;
            log::info!("failed log-in from {peer}");
        }
        let wait = match guess && self.limits.rates {
            true => self.penalties.wait(peer, user.as_ref(), now.mono, self.limits.login_backoff_after),
            false => Duration::ZERO,
        };
        if wait.is_zero() {
            return self.write_failure(now, conn, error, out);
        }
        self.hold_login(now, conn, wait, Penalty::Answer(error));
    }

    /// Answers with `<failure/>` what is no guess at a password.
    pub(crate) fn refuse_login(&mut self, now: Now, conn: ConnId, error: SaslError, out: &mut Outputs) {
        if let Some(login) = self.login_mut(conn) {
            login.guessed = None;
        }
        self.write_failure(now, conn, error, out);
    }

    pub(super) fn on_penalty_over(&mut self, now: Now, conn: ConnId, out: &mut Outputs) {
        let penalty = self.login_mut(conn).and_then(|login| login.penalty.take());
        self.end_rate_hold(conn, out);
        match penalty {
            Some(Penalty::Answer(error)) => self.write_failure(now, conn, error, out),
            Some(Penalty::Attempt(attempt)) => self.ask_keys(conn, attempt.0, attempt.1, out),
            None => {}
        }
    }

    fn write_failure(&mut self, now: Now, conn: ConnId, error: SaslError, out: &mut Outputs) {
        let failures_max = self.limits.login_failures_max;
        let Some(login) = self.login_mut(conn) else { return };
        login.exchange = None;
        login.failures += 1;
        let too_many = login.failures > failures_max;
        let syntax = if login.sasl2.take().is_some() { ns::SASL2 } else { ns::SASL };
        out.wire.write(conn, |buf| {
            let mut w = Writer::new(buf);
            // The conditions are those of RFC 6120 in both syntaxes.
            w.open("failure", syntax).empty(error.name(), ns::SASL);
            if let Some(text) = error.text() {
                w.open("text", syntax).attr("xml:lang", "en").text(text);
            }
        });
        if too_many {
            let error = StreamError::new("policy-violation", "Too many failed log-ins on this stream.");
            self.close_stream(now, conn, Some(error), out);
        }
    }
}
