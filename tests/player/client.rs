//! A client, seen from its own side: what it has received, and how it logs in.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use whinchat::core::ListenerKind;
use whinchat::xml::{Framer, Next, XmlLimits};

use super::machine::{EXPORTER, Machine, PEER, SERVER_END_POINT, State};
use super::script::Login;
use super::xml::{CLIENT, Node, Own, SASL, SASL2, STREAMS, Source, TLS};

/// One of a script's clients.
pub struct Client {
    pub conn: usize,
    framer: Framer,
    /// What has come and was not expected yet.
    inbox: VecDeque<Item>,
    /// Its full JID, once it is bound.
    pub jid: Option<String>,
}

/// Begins the error that says that the server has sent what is no XMPP.
pub const MALFORMED: &str = "malformed";

/// Something on the first level of a stream.
#[derive(Debug)]
pub enum Item {
    /// A stream header or an element, and its text.
    Xml(Node, String),
    /// `</stream:stream>`
    Footer,
}

impl Item {
    pub fn text(&self) -> &str {
        match self {
            Item::Xml(_, text) => text,
            Item::Footer => "</stream:stream>",
        }
    }
}

const LIMITS: XmlLimits = XmlLimits {
    stanza_bytes_max: 1 << 30,
    depth_max: 1000,
    attributes_max: 1000,
    name_bytes_max: 1 << 16,
    header_bytes_max: 1 << 16,
};

impl Client {
    pub fn connect(machine: &mut Machine, listener: ListenerKind) -> Client {
        let conn = machine.open(listener, listener == ListenerKind::Tls);
        Client { conn, framer: Framer::new(), inbox: VecDeque::new(), jid: None }
    }

    pub fn own(&self) -> Own<'_> {
        let full = self.jid.as_deref();
        Own { full, bare: full.and_then(|jid| jid.split('/').next()) }
    }

    /// What has come first, if anything.
    ///
    /// # Errors
    /// What the server has sent is no XMPP.
    pub fn next(&mut self, machine: &mut Machine) -> Result<Option<Item>, String> {
        self.read(machine)?;
        Ok(self.inbox.pop_front())
    }

    pub fn is_closed(&self, machine: &mut Machine) -> bool {
        machine.conn(self.conn).state == State::Closed
    }

    fn read(&mut self, machine: &mut Machine) -> Result<(), String> {
        let received = std::mem::take(&mut machine.conn(self.conn).received);
        let mut at = 0;
        loop {
            let rest = &received[at..];
            let next = self.framer.next(rest, &LIMITS);
            match next.map_err(|error| format!("{MALFORMED}: {error:?} in {}", String::from_utf8_lossy(rest)))? {
                Next::Incomplete { skip } => {
                    at += skip;
                    break;
                }
                Next::Header { used, .. } => {
                    let text = String::from_utf8_lossy(&rest[..used]).into_owned();
                    let node = Node::parse(&text, Source::Header).map_err(|error| format!("{MALFORMED}: {error}"))?;
                    self.inbox.push_back(Item::Xml(node, text));
                    at += used;
                }
                Next::Footer { used } => {
                    self.inbox.push_back(Item::Footer);
                    at += used;
                }
                Next::Stanza { used, frame } => {
                    let text = frame.xml.to_owned();
                    // PROTOCOL SZ-24: where somebody comes from is told to admins who ask for it.
                    if text.contains(&PEER.to_string()) && !text.contains("http://jabber.org/protocol/admin") {
                        return Err(format!("{MALFORMED}: it tells an address: {text}"));
                    }
                    let node = Node::parse(&text, Source::Stream).map_err(|error| format!("{MALFORMED}: {error}"))?;
                    at += used;
                    self.note(&node);
                    self.inbox.push_back(Item::Xml(node, text));
                }
            }
        }
        machine.conn(self.conn).received = received[at..].to_vec();
        Ok(())
    }

    /// Behind some elements the stream begins anew; one tells who we are.
    fn note(&mut self, node: &Node) {
        if node.is("success", SASL) || node.is("proceed", TLS) {
            self.framer.restart();
        }
        if node.is("success", SASL2)
            && let Some(jid) = node.child("authorization-identifier").map(Node::text).filter(|jid| jid.contains('/'))
        {
            self.jid = Some(jid);
        }
        if node.is("iq", CLIENT)
            && node.attr("type") == Some("result")
            && let Some(jid) = node.child("bind").and_then(|bind| bind.child("jid"))
        {
            self.jid = Some(jid.text());
        }
    }

    /// Logs in over TLS; binds a resource if `login` says so.
    ///
    /// # Errors
    /// Anything else than success.
    pub fn log_in(machine: &mut Machine, login: &Login, password: &str) -> Result<Client, String> {
        let mut client = Client::connect(machine, ListenerKind::Tls);
        let (bare, resource) = match login.jid.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource)),
            None => (login.jid.as_str(), None),
        };
        let (user, domain) = bare.split_once('@').ok_or("a client's JID is user@domain")?;
        let features = client.open_stream(machine, domain)?;
        let syntax = if login.sasl2 { SASL2 } else { SASL };
        let offered = features
            .child(list(syntax))
            .is_some_and(|list| list.elements().any(|mechanism| mechanism.text() == login.mechanism));
        if !offered {
            return Err(format!("{} is not offered: {features:?}", login.mechanism));
        }
        match login.mechanism.as_str() {
            "PLAIN" => {
                let message = STANDARD.encode(format!("\0{user}\0{password}"));
                client.send(machine, &auth(syntax, "PLAIN", &message));
                client.expect(machine, "success", syntax)?;
            }
            _ => client.scram(machine, &features, (syntax, &login.mechanism), user, password)?,
        }
        if login.sasl2 {
            client.expect(machine, "features", STREAMS)?;
        } else {
            client.open_stream(machine, domain)?;
        }
        if login.bind {
            client.bind(machine, resource)?;
        }
        Ok(client)
    }

    /// Opens a stream; returns its features.
    ///
    /// # Errors
    /// Anything else came.
    pub fn open_stream(&mut self, machine: &mut Machine, domain: &str) -> Result<Node, String> {
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='{CLIENT}' xmlns:stream='{STREAMS}'>"
        );
        self.send(machine, &header);
        let header = self.expect(machine, "stream", STREAMS)?;
        if header.attr("from") != Some(domain) {
            return Err(format!("not from {domain}: {header:?}"));
        }
        self.expect(machine, "features", STREAMS)
    }

    fn bind(&mut self, machine: &mut Machine, resource: Option<&str>) -> Result<(), String> {
        let resource = resource.map(|resource| format!("<resource>{resource}</resource>")).unwrap_or_default();
        let request =
            format!("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{resource}</bind></iq>");
        self.send(machine, &request);
        let answer = self.expect(machine, "iq", CLIENT)?;
        if self.jid.is_none() { Err(format!("not bound: {answer:?}")) } else { Ok(()) }
    }

    /// RFC 5802 from the client's side, with channel binding where the mechanism's name ends in `-PLUS`.
    fn scram(
        &mut self,
        machine: &mut Machine,
        features: &Node,
        (syntax, mechanism): (&str, &str),
        user: &str,
        password: &str,
    ) -> Result<(), String> {
        let hash = if mechanism.contains("SHA-256") { Hash::Sha256 } else { Hash::Sha1 };
        let (gs2, binding): (&str, &[u8]) = match (mechanism.ends_with("-PLUS"), hash) {
            (false, _) => ("n,,", b""),
            (true, Hash::Sha256) => ("p=tls-exporter,,", &EXPORTER),
            (true, Hash::Sha1) => ("p=tls-server-end-point,,", &SERVER_END_POINT),
        };
        let first = format!("n={user},r=rOprNGfwEbeRWgbNEkqO");
        self.send(machine, &auth(syntax, mechanism, &STANDARD.encode(format!("{gs2}{first}"))));
        let challenge = decode(&self.expect(machine, "challenge", syntax)?)?;
        let field = |name: &str| {
            let found = challenge.split(',').find_map(|field| field.strip_prefix(name));
            found.ok_or(format!("no {name} in {challenge}"))
        };
        let offered = STANDARD.encode(hash.digest(offered(features, list(syntax)).as_bytes()));
        if field("h=")? != offered {
            return Err(format!("the offer was changed on its way (XEP-0474): {challenge}"));
        }
        let salt = STANDARD.decode(field("s=")?).map_err(|error| error.to_string())?;
        let rounds: u32 = field("i=")?.parse().map_err(|_| "i= is no number")?;
        let salted = hash.salted(password, &salt, rounds);
        let bound = STANDARD.encode([gs2.as_bytes(), binding].concat());
        let last = format!("c={bound},r={}", field("r=")?);
        let message = format!("{first},{challenge},{last}");
        let client_key = hash.hmac(&salted, b"Client Key");
        let signature = hash.hmac(&hash.digest(&client_key), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, mask)| key ^ mask).collect();
        let answer = STANDARD.encode(format!("{last},p={}", STANDARD.encode(proof)));
        self.send(machine, &format!("<response xmlns='{syntax}'>{answer}</response>"));
        let success = self.expect(machine, "success", syntax)?;
        let success = decode(success.child("additional-data").unwrap_or(&success))?;
        let server = hash.hmac(&hash.hmac(&salted, b"Server Key"), message.as_bytes());
        let expected = format!("v={}", STANDARD.encode(server));
        if success == expected { Ok(()) } else { Err(format!("wrong server signature: {success}")) }
    }

    /// Sends a request to `to` and returns the answer's payload.
    ///
    /// # Errors
    /// Anything else came.
    pub fn ask(&mut self, machine: &mut Machine, to: &str, payload: &str) -> Result<Node, String> {
        self.send(machine, &format!("<iq type='get' id='ask' to='{to}'>{payload}</iq>"));
        let answer = self.expect(machine, "iq", CLIENT)?;
        answer.elements().find(|_| answer.attr("type") == Some("result")).cloned().ok_or(format!("came: {answer:?}"))
    }

    pub fn send(&self, machine: &mut Machine, text: &str) {
        machine.deliver(self.conn, text.as_bytes());
    }

    fn expect(&mut self, machine: &mut Machine, name: &str, ns: &str) -> Result<Node, String> {
        match self.next(machine)? {
            Some(Item::Xml(node, _)) if node.is(name, ns) => Ok(node),
            Some(item) => Err(format!("expected <{name}>, came {}", item.text())),
            None => Err(format!("expected <{name}>, nothing came")),
        }
    }
}

/// What XEP-0474 section 6.1 hashes: the mechanisms and the types of channel binding, sorted.
fn offered(features: &Node, list: &str) -> String {
    let names = |list: &str, name: fn(&Node) -> String| -> String {
        let mut names: Vec<String> = features
            .child(list)
            .into_iter()
            .flat_map(Node::elements)
            .filter(|node| node.name != "inline" && node.name != "upgrade")
            .map(name)
            .collect();
        names.sort();
        names.join("\u{1e}")
    };
    let mechanisms = names(list, Node::text);
    match names("sasl-channel-binding", |binding| binding.attr("type").unwrap_or_default().to_owned()) {
        bindings if bindings.is_empty() => mechanisms,
        bindings => format!("{mechanisms}\u{1f}{bindings}"),
    }
}

/// The element of a stream's features that lists the mechanisms.
fn list(syntax: &str) -> &'static str {
    if syntax == SASL2 { "authentication" } else { "mechanisms" }
}

fn auth(syntax: &str, mechanism: &str, message: &str) -> String {
    if syntax == SASL2 {
        return format!(
            "<authenticate xmlns='{SASL2}' mechanism='{mechanism}'><initial-response>{message}</initial-response></authenticate>"
        );
    }
    format!("<auth xmlns='{SASL}' mechanism='{mechanism}'>{message}</auth>")
}

fn decode(node: &Node) -> Result<String, String> {
    let bytes = STANDARD.decode(node.text()).map_err(|error| format!("{error} in {node:?}"))?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha1 => Sha1::digest(data).to_vec(),
            Hash::Sha256 => Sha256::digest(data).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha1 => {
                let mac = Hmac::<Sha1>::new_from_slice(key).expect("any key will do").chain_update(data);
                mac.finalize().into_bytes().to_vec()
            }
            Hash::Sha256 => {
                let mac = Hmac::<Sha256>::new_from_slice(key).expect("any key will do").chain_update(data);
                mac.finalize().into_bytes().to_vec()
            }
        }
    }

    /// Takes longer than all the rest of a log-in, so it is done once for each salt.
    pub fn salted(self, password: &str, salt: &[u8], rounds: u32) -> Vec<u8> {
        type Salted = BTreeMap<(Hash, String, Vec<u8>, u32), Vec<u8>>;
        static KNOWN: Mutex<Salted> = Mutex::new(BTreeMap::new());
        let question = (self, password.to_owned(), salt.to_owned(), rounds);
        if let Some(key) = KNOWN.lock().expect("nobody panics with it").get(&question) {
            return key.clone();
        }
        let mut key = vec![0; self.digest(b"").len()];
        match self {
            Hash::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(password.as_bytes(), salt, rounds, &mut key),
            Hash::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, rounds, &mut key),
        }
        KNOWN.lock().expect("nobody panics with it").insert(question, key.clone());
        key
    }
}
