//! An XMPP client over real sockets, as small as the tests allow: blocking, with a deadline on every read and write.

// None of the tests uses all of it.
#![allow(dead_code)]

mod any_certificate;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use sha2::{Digest, Sha256};
use whinchat::xml::{Framer, Next, XmlLimits};

pub use any_certificate::config;

/// How long a client waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const PASSWORD: &str = "correct horse battery staple";

const LIMITS: XmlLimits = XmlLimits {
    stanza_bytes_max: 1 << 24,
    depth_max: 100,
    attributes_max: 100,
    name_bytes_max: 1 << 10,
    header_bytes_max: 1 << 12,
};

/// How a client proves its password.
#[derive(Clone, Copy)]
pub enum Proof {
    Plain,
    /// SCRAM-SHA-256 with this channel binding, or none.
    Scram(Option<&'static str>),
}

pub struct Client {
    pub socket: TcpStream,
    tls: Option<ClientConnection>,
    framer: Framer,
    input: Vec<u8>,
    /// The server has closed its stream.
    is_over: bool,
    /// What it logs in with.
    pub password: String,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).expect("a connection")
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Client> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let password = PASSWORD.to_owned();
        Ok(Client { socket, tls: None, framer: Framer::new(), input: Vec::new(), is_over: false, password })
    }

    /// The TLS handshake, to its end on both sides.
    pub fn secure(&mut self, config: &Arc<ClientConfig>, name: &str) -> io::Result<()> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut tls = ClientConnection::new(config.clone(), name).expect("a session");
        tls.set_buffer_limit(None);
        while tls.is_handshaking() {
            tls.complete_io(&mut self.socket)?;
        }
        tls.complete_io(&mut self.socket)?;
        self.tls = Some(tls);
        self.framer.restart();
        Ok(())
    }

    /// STARTTLS up to the end of the handshake.
    pub fn start_tls(&mut self, domain: &str) {
        self.open(domain);
        self.until("</stream:features>");
        self.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        self.until("<proceed");
        self.secure(&config(&["xmpp-client"]), domain).expect("TLS");
    }

    pub fn send(&mut self, text: &str) {
        self.try_send(text).expect("sent");
    }

    /// Fails where the socket takes no more in time; under TLS the rest is kept.
    pub fn try_send(&mut self, text: &str) -> io::Result<()> {
        match &mut self.tls {
            None => self.socket.write_all(text.as_bytes()),
            Some(tls) => {
                tls.writer().write_all(text.as_bytes())?;
                self.flush()
            }
        }
    }

    /// Sends what [`Client::try_send`] had to leave.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Sends a stream header; what comes next is one of the server's.
    pub fn open(&mut self, domain: &str) {
        self.try_open(domain).expect("sent");
    }

    pub fn try_open(&mut self, domain: &str) -> io::Result<()> {
        self.framer.restart();
        self.try_send(&format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             to='{domain}' version='1.0'>"
        ))
    }

    /// Our side of TLS and TCP is closed.
    pub fn hang_up(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.complete_io(&mut self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        let count = match &mut self.tls {
            None => self.socket.read(&mut bytes)?,
            Some(tls) => rustls::Stream::new(tls, &mut self.socket).read(&mut bytes)?,
        };
        self.input.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// The next thing on the first level: a stream header, an element, or `</stream:stream>`. `None` at a clean end: with TLS
    /// its closing alert, without it the end of the socket.
    pub fn next(&mut self) -> io::Result<Option<String>> {
        while !self.is_over {
            let next = self.framer.next(&self.input, &LIMITS).expect("XMPP");
            let (used, text) = match &next {
                Next::Incomplete { skip } => (*skip, None),
                Next::Header { used, .. } | Next::Footer { used } => {
                    (*used, Some(String::from_utf8_lossy(&self.input[..*used]).into_owned()))
                }
                Next::Stanza { used, frame } => (*used, Some(frame.xml.to_owned())),
            };
            let is_over = matches!(next, Next::Footer { .. });
            self.is_over = is_over;
            self.input.drain(..used);
            if text.is_some() {
                return Ok(text);
            }
            if self.read()? == 0 {
                return Ok(None);
            }
        }
        match self.read()? {
            0 => Ok(None),
            count => panic!("{count} bytes behind the end of the stream"),
        }
    }

    /// Skips what comes until something contains this.
    pub fn until(&mut self, expected: &str) -> String {
        self.try_until(expected).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same; fails where the connection ends or nothing comes.
    pub fn try_until(&mut self, expected: &str) -> io::Result<String> {
        let mut skipped = Vec::new();
        loop {
            match self.next() {
                Ok(Some(text)) if text.contains(expected) => return Ok(text),
                Ok(Some(text)) => skipped.push(text),
                Ok(None) => {
                    let text = format!("the end instead of {expected:?} behind {skipped:?}");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                Err(error) => {
                    let text = format!("{error} instead of {expected:?} behind {skipped:?}");
                    return Err(io::Error::new(error.kind(), text));
                }
            }
        }
    }

    /// Sends a stanza and waits for what contains this.
    pub fn try_ask(&mut self, stanza: &str, expected: &str) -> io::Result<String> {
        self.try_send(stanza)?;
        self.try_until(expected)
    }

    /// Reads to the clean end and returns what came before it.
    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        while let Some(text) = self.next().expect("a clean end") {
            rest.push_str(&text);
        }
        rest
    }

    /// Whether the connection ends, cleanly or not, whatever comes before.
    pub fn is_dropped(&mut self) -> bool {
        loop {
            match self.next() {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            }
        }
    }

    /// Opens the stream and proves the password. Returns the server's last word.
    pub fn authenticate(&mut self, user: &str, proof: Proof) -> String {
        self.try_authenticate(user, proof).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_authenticate(&mut self, user: &str, proof: Proof) -> io::Result<String> {
        let (local, domain) = user.split_once('@').expect("an account");
        self.try_open(domain)?;
        let features = self.try_until("</stream:features>")?;
        match proof {
            Proof::Plain => {
                assert!(features.contains(">PLAIN<"), "{features}");
                self.auth("PLAIN", &format!("\0{local}\0{}", self.password))?;
                self.try_until("urn:ietf:params:xml:ns:xmpp-sasl")
            }
            Proof::Scram(binding) => {
                let name = if binding.is_some() { "SCRAM-SHA-256-PLUS" } else { "SCRAM-SHA-256" };
                assert!(features.contains(&format!(">{name}<")), "{features}");
                self.scram(name, binding, local)
            }
        }
    }

    fn auth(&mut self, mechanism: &str, message: &str) -> io::Result<()> {
        let message = STANDARD.encode(message);
        self.try_send(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{message}</auth>"
        ))
    }

    /// RFC 5802, RFC 7677, RFC 9266. The server's signature is checked too.
    fn scram(&mut self, mechanism: &str, binding: Option<&str>, local: &str) -> io::Result<String> {
        let gs2 = binding.map_or("n,,".to_owned(), |binding| format!("p={binding},,"));
        let first = format!("n={local},r=rOprNGfwEbeRWgbNEkqO");
        self.auth(mechanism, &format!("{gs2}{first}"))?;
        let challenge = decoded(&self.try_until("<challenge")?);
        let field = |name: &str| challenge.split(',').find_map(|field| field.strip_prefix(name)).expect(name);
        let (nonce, salt) = (field("r="), STANDARD.decode(field("s=")).expect("base64"));
        let salted = salted(&self.password, salt, field("i=").parse().expect("a number"));

        let mut bound = gs2.into_bytes();
        bound.extend(binding.map_or(Vec::new(), |binding| self.binding(binding)));
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(bound));
        let signed = format!("{first},{challenge},{without_proof}");
        let key = hmac(&salted, "Client Key");
        let signature = hmac(&Sha256::digest(&key), &signed);
        let proof: Vec<u8> = key.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect();
        let last = STANDARD.encode(format!("{without_proof},p={}", STANDARD.encode(proof)));
        self.try_send(&format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{last}</response>"))?;
        let answer = self.try_until("urn:ietf:params:xml:ns:xmpp-sasl")?;
        if answer.starts_with("<success") {
            let server = STANDARD.encode(hmac(&hmac(&salted, "Server Key"), &signed));
            assert_eq!(decoded(&answer), format!("v={server}"));
        }
        Ok(answer)
    }

    /// What the TLS connection can be bound to, by its name.
    pub fn binding(&self, name: &str) -> Vec<u8> {
        let tls = self.tls.as_ref().expect("TLS");
        match name {
            "tls-exporter" => {
                tls.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b"")).expect("an exporter")
            }
            // The certificates of these tests are signed with ECDSA and SHA-256.
            _ => Sha256::digest(self.certificate()).to_vec(),
        }
    }

    /// What the server has shown, in DER.
    pub fn certificate(&self) -> Vec<u8> {
        let chain = self.tls.as_ref().and_then(|tls| tls.peer_certificates()).expect("a certificate");
        chain[0].to_vec()
    }

    /// A new stream, a resource.
    pub fn bind(&mut self, user: &str, resource: &str) {
        self.try_bind(user, resource).unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn try_bind(&mut self, user: &str, resource: &str) -> io::Result<()> {
        let domain = user.split_once('@').expect("an account").1;
        self.try_open(domain)?;
        self.try_until("</stream:features>")?;
        let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>";
        let bind = format!("<iq type='set' id='bind'>{bind}<resource>{resource}</resource></bind></iq>");
        let answer = self.try_ask(&bind, "id='bind'")?;
        match answer.contains(&format!("<jid>{user}/{resource}</jid>")) {
            true => Ok(()),
            false => Err(io::Error::other(format!("not bound: {answer}"))),
        }
    }

    /// Says that it is there, and waits until the server knows.
    pub fn come(&mut self) {
        self.send("<presence/>");
        self.until("<presence");
    }
}

/// A session in the clear without presence; the listener is of that kind.
pub fn try_plain_session(address: SocketAddr, user: &str, password: &str, resource: &str) -> io::Result<Client> {
    let mut client = Client::try_connect(address)?;
    client.password = password.to_owned();
    let answer = client.try_authenticate(user, Proof::Scram(None))?;
    if !answer.starts_with("<success") {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, answer));
    }
    client.try_bind(user, resource)?;
    Ok(client)
}

/// A session over STARTTLS, with presence.
pub fn session(address: SocketAddr, user: &str, resource: &str) -> Client {
    let mut client = Client::connect(address);
    client.start_tls(user.split_once('@').expect("an account").1);
    let answer = client.authenticate(user, Proof::Scram(Some("tls-exporter")));
    assert!(answer.starts_with("<success"), "{answer}");
    client.bind(user, resource);
    client.come();
    client
}

/// The salted password. Clients keep it too (RFC 5802 section 3), and without optimization it takes a tenth of a second.
fn salted(password: &str, salt: Vec<u8>, iterations: u32) -> [u8; 32] {
    type Known = HashMap<(String, Vec<u8>, u32), [u8; 32]>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    let key = (password.to_owned(), salt, iterations);
    if let Some(salted) = KNOWN.lock().expect("no panic while it is held").get(&key) {
        return *salted;
    }
    let mut salted = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &key.1, iterations, &mut salted);
    KNOWN.lock().expect("no panic while it is held").insert(key, salted);
    salted
}

fn decoded(element: &str) -> String {
    let text = element.split_once('>').and_then(|(_, rest)| rest.split_once('<')).expect("an element with text").0;
    String::from_utf8(STANDARD.decode(text).expect("base64")).expect("text")
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("a key");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
