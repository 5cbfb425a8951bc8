//! An XMPP client as far as a load needs one: register, log in, be present.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::scram::{self, Mechanism, Salted};
use crate::wire::Wire;
use crate::{Outcome, Protocol};

/// How the stream is protected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Plain,
    StartTls,
    Tls,
}

/// The server under load, and how its accounts are named.
pub struct Target {
    pub address: SocketAddr,
    pub domain: String,
    pub mode: Mode,
    pub tls: Arc<ClientConfig>,
    /// Accounts are `{prefix}0`, `{prefix}1`, …
    pub prefix: String,
    pub password: String,
    pub salted: Salted,
    /// Sessions switch on message carbons (XEP-0280).
    pub carbons: bool,
    /// Sessions can be resumed (XEP-0198).
    pub resumable: bool,
}

/// A session that is bound.
pub struct Session {
    pub wire: Wire,
    /// Its full JID.
    pub jid: String,
    domain: String,
    barriers: u32,
}

impl Target {
    /// Name of an account.
    pub fn user(&self, number: usize) -> String {
        format!("{}{number}", self.prefix)
    }

    /// A stream with its features, protected as asked.
    fn open(&self) -> Outcome<(Wire, String)> {
        let mut wire = Wire::connect(self.address)?;
        if self.mode == Mode::Tls {
            wire.start_tls(&self.tls, &self.domain)?;
        }
        let features = self.restart(&mut wire)?;
        if self.mode != Mode::StartTls {
            return Ok((wire, features));
        }
        wire.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")?;
        expect(wire.element()?, "<proceed")?;
        wire.start_tls(&self.tls, &self.domain)?;
        let features = self.restart(&mut wire)?;
        Ok((wire, features))
    }

    fn restart(&self, wire: &mut Wire) -> Outcome<String> {
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xml:lang='en' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>",
            self.domain
        );
        wire.send(header.as_bytes())?;
        expect(wire.element()?, "<stream:stream")?;
        expect(wire.element()?, "<stream:features")
    }

    /// Whether a server answers: with stream features where it speaks XMPP, by accepting the connection elsewhere.
    pub fn answers(&self, protocol: Protocol) -> Outcome<()> {
        match protocol {
            Protocol::Xmpp => self.open().map(drop),
            Protocol::Raw | Protocol::Redis => Wire::connect(self.address).map(drop),
        }
    }

    /// Registers an account in-band (XEP-0077); that it is there already is well.
    pub fn register(&self, number: usize) -> Outcome<()> {
        let (mut wire, _) = self.open()?;
        let request = format!(
            "<iq type='set' id='register'><query xmlns='jabber:iq:register'><username>{}</username>\
             <password>{}</password></query></iq>",
            self.user(number),
            self.password
        );
        wire.send(request.as_bytes())?;
        let reply = wire.element()?;
        match is_result(&reply) || reply.contains("<conflict") {
            true => wire.send(b"</stream:stream>"),
            false => Err(format!("{} cannot be registered: {reply}", self.user(number)).into()),
        }
    }

    /// Logs in and binds a resource.
    pub fn log_in(&self, number: usize, resource: &str) -> Outcome<Session> {
        let user = self.user(number);
        let (mut wire, features) = self.open()?;
        let mechanism = Mechanism::offered(&features)?;
        let auth = format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{}'>{}</auth>",
            mechanism.name(),
            scram::first(&user)
        );
        wire.send(auth.as_bytes())?;
        let challenge = expect(wire.element()?, "<challenge")?;
        let response = scram::last(mechanism, &user, &self.password, text(&challenge), &self.salted)?;
        wire.send(format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{response}</response>").as_bytes())?;
        expect(wire.element()?, "<success")?;
        self.restart(&mut wire)?;
        let bind = format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource>\
             </bind></iq>"
        );
        wire.send(bind.as_bytes())?;
        let bound = expect(wire.element()?, "<jid>")?;
        let jid = bound.split_once("<jid>").and_then(|(_, rest)| rest.split_once("</jid>"));
        let jid = jid.map(|(jid, _)| jid.to_owned()).ok_or("bound to nothing")?;
        Ok(Session { wire, jid, domain: self.domain.clone(), barriers: 0 })
    }

    /// Logs in as clients do: asks for the roster and sends initial presence.
    pub fn log_in_present(&self, number: usize, resource: &str) -> Outcome<Session> {
        let mut session = self.log_in(number, resource)?;
        if self.carbons {
            session.wire.send(b"<iq type='set' id='carbons'><enable xmlns='urn:xmpp:carbons:2'/></iq>")?;
        }
        if self.resumable {
            session.wire.send(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>")?;
        }
        session.wire.send(b"<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq><presence/>")?;
        session.barrier()?;
        Ok(session)
    }
}

impl Session {
    /// JID without its resource.
    pub fn bare(&self) -> &str {
        self.jid.split('/').next().unwrap_or_default()
    }

    /// Pings the server and drops what arrives before its answer: all that was sent before has then been processed.
    pub fn barrier(&mut self) -> Outcome<()> {
        self.barriers += 1;
        let id = format!("barrier{}", self.barriers);
        let ping = format!("<iq type='get' id='{id}' to='{}'><ping xmlns='urn:xmpp:ping'/></iq>", self.domain);
        self.wire.send(ping.as_bytes())?;
        loop {
            let element = self.wire.element()?;
            if element.starts_with("<stream:error") {
                return Err(element.into());
            }
            if element.contains(&id) {
                return Ok(());
            }
        }
    }

    /// Ends the stream in order; what arrives until then is dropped.
    pub fn close(mut self) -> Outcome<()> {
        self.wire.send(b"</stream:stream>")?;
        // The server closes the connection, which ends the loop.
        while self.wire.receive().is_ok() {
            if self.wire.input.ends_with(b"</stream:stream>") {
                break;
            }
        }
        Ok(())
    }
}

fn expect(element: String, start: &str) -> Outcome<String> {
    match element.contains(start) {
        true => Ok(element),
        false => Err(format!("expected {start}, got {element}").into()),
    }
}

fn is_result(iq: &str) -> bool {
    iq.contains("type='result'") || iq.contains("type=\"result\"")
}

/// What stands between an element's tags.
fn text(element: &str) -> &str {
    let start = element.find('>').map_or(0, |at| at + 1);
    let end = element.rfind("</").unwrap_or(element.len());
    element.get(start..end).unwrap_or_default()
}
