//! TLS 1.2 and 1.3 for accepted connections. All of rustls is in this file and `certificates.rs`.
//!
//! The unbuffered interface of rustls is used, so that an idle connection holds its keys and nothing else: what was received
//! is decrypted out of the loop's shared scratch space, what is sent is encrypted into it. A [`Session`] keeps only a record
//! that has not arrived in full and, while the peer is slow, records that the socket did not take.
//!
//! # Channel bindings
//!
//! That interface has no `export_keying_material`. `tls-exporter` (RFC 9266) is therefore computed from the exporter secret
//! that rustls tells its key log, for TLS 1.3 only; nothing is ever logged. `tls-server-end-point` (RFC 5929) is of the
//! certificate that the resolver gave this very connection. Tickets are good for one [`ServerConfig`] only, that is for one
//! default domain and until the next reload of a certificate, because a resumed session is bound to the certificate of the
//! one before.
//!
//! # What is deliberately absent
//!
//! No early data, no session cache (tickets carry the state), no client certificates, no renegotiation.

use std::sync::{Arc, Mutex, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{KeyLog, ProtocolVersion, ServerConfig};
use sha2::{Digest, Sha256, Sha384};
use zeroize::Zeroizing;

use super::certificates::{Certificates, Identity};
use super::scratch::Filling;
use crate::auth::Bindings;
use crate::core::TlsFacts;

/// What a TLS 1.3 or 1.2 record adds to its content, with room to spare: header, explicit nonce, type, tag.
const RECORD_OVERHEAD: usize = 64;
/// Content of one record.
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What is encrypted at once.
const ENCRYPT_BYTES_MAX: usize = 4 * RECORD_BYTES_MAX;
/// What of a peer's records may wait to be complete. One record has at most 16,645 bytes; more can only be a handshake
/// message in fragments, and no client has one so long.
pub(super) const HELD_BYTES_MAX: usize = 24 * 1024;

/// How a domain is found and what it shows.
#[derive(Clone, Debug)]
struct Shown {
    domain: String,
    ascii: String,
    identity: Arc<Identity>,
}

/// Makes sessions. Made anew when a certificate has changed; sessions keep the one they were made by.
pub(super) struct Acceptor {
    /// One for each domain, which is the default of a client that names none.
    configs: Vec<(String, Arc<ServerConfig>)>,
    notebook: Arc<Notebook>,
}

impl Acceptor {
    /// # Errors
    /// The system's random generator fails, or the provider cannot do TLS.
    pub(super) fn new(certificates: &Certificates, provider: &Arc<CryptoProvider>) -> Result<Acceptor, rustls::Error> {
        let shown: Vec<Shown> = certificates
            .served()
            .iter()
            .map(|served| Shown {
                domain: served.domain.clone(),
                ascii: served.ascii.clone(),
                identity: served.identity.clone(),
            })
            .collect();
        let notebook = Arc::new(Notebook::default());
        let mut configs = Vec::with_capacity(shown.len());
        for (default, served) in certificates.served().iter().enumerate() {
            let resolver = Resolver { shown: shown.clone(), default, notebook: notebook.clone() };
            let mut config = ServerConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(resolver));
            config.alpn_protocols = vec![b"xmpp-client".to_vec()];
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.ticketer = rustls::crypto::ring::Ticketer::new()?;
            config.send_tls13_tickets = 1;
            config.key_log = notebook.clone();
            configs.push((served.domain.clone(), Arc::new(config)));
        }
        Ok(Acceptor { configs, notebook })
    }

    /// A session in its handshake. `domain` is the stream's `to` (RFC 6120 section 5.4.3.1); without one the first domain is
    /// the default.
    ///
    /// # Errors
    /// As rustls says; none is known.
    pub(super) fn accept(&self, domain: Option<&str>) -> Result<Session, rustls::Error> {
        let named = self.configs.iter().find(|(name, _)| Some(name.as_str()) == domain);
        let (_, config) =
            named.or(self.configs.first()).ok_or_else(|| rustls::Error::General("no domain is served".to_owned()))?;
        Ok(Session {
            tls: UnbufferedServerConnection::new(config.clone())?,
            held: Vec::new(),
            handshake: Some(Box::new(Handshake { notebook: self.notebook.clone(), notes: Notes::default() })),
            has_failed: false,
        })
    }
}

/// Where rustls' hooks leave what they were told during one call into a session. The loop is one thread and empties it after
/// each call, so notes never come to another session.
#[derive(Debug, Default)]
struct Notebook(Mutex<Notes>);

#[derive(Default)]
struct Notes {
    exporter_secret: Option<Zeroizing<Vec<u8>>>,
    end_point: Option<Vec<u8>>,
    server_name: Option<String>,
}

impl std::fmt::Debug for Notes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notes")
    }
}

impl Notebook {
    fn note(&self, write: impl FnOnce(&mut Notes)) {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn take(&self) -> Notes {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl KeyLog for Notebook {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if self.will_log(label) {
            self.note(|notes| notes.exporter_secret = Some(Zeroizing::new(secret.to_vec())));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == "EXPORTER_SECRET"
    }
}

/// Chooses the certificate by SNI, else the default; a name that is not ours gets the default too, so that the client can show
/// its user a decent error.
#[derive(Debug)]
struct Resolver {
    shown: Vec<Shown>,
    default: usize,
    notebook: Arc<Notebook>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(|name| name.trim_end_matches('.'));
        let named = self.shown.iter().find(|shown| name.is_some_and(|name| name.eq_ignore_ascii_case(&shown.ascii)));
        let shown = named.or(self.shown.get(self.default))?;
        self.notebook.note(|notes| {
            notes.end_point = shown.identity.end_point.clone();
            notes.server_name = named.map(|named| named.domain.clone());
        });
        Some(shown.identity.key.clone())
    }
}

/// The TLS side of one connection.
pub(super) struct Session {
    tls: UnbufferedServerConnection,
    /// Received and not yet decrypted: a record that is not complete.
    held: Vec<u8>,
    /// Until the handshake is done.
    handshake: Option<Box<Handshake>>,
    /// The peer has broken the protocol.
    has_failed: bool,
}

struct Handshake {
    notebook: Arc<Notebook>,
    notes: Notes,
}

/// What came of received bytes.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// The handshake was finished by them.
    pub(super) secured: Option<TlsFacts>,
    /// Nothing more comes.
    pub(super) end: Option<TlsEnd>,
}

/// Why nothing more comes from a TLS peer.
#[derive(Debug)]
pub(super) enum TlsEnd {
    /// It has said so.
    Closed,
    /// It has broken the protocol; the alert is in the output.
    Failed(rustls::Error),
}

/// The session cannot send any more: its keys are used up or it has failed.
#[derive(Debug)]
pub(super) struct CannotSend;

impl Session {
    /// Whether application data cannot pass yet.
    pub(super) fn is_handshaking(&self) -> bool {
        self.handshake.is_some()
    }

    /// Moves what is held to the front of `cipher`, which is empty; what is read behind it is then given to
    /// [`Session::receive`].
    pub(super) fn begin(&mut self, cipher: &mut Filling) {
        cipher.extend(&self.held);
        self.held.clear();
    }

    /// Works through `cipher`; appends what was decrypted to `plain` and answers of TLS itself to `out`. Keeps what is
    /// incomplete.
    pub(super) fn receive(&mut self, cipher: &mut Filling, plain: &mut Filling, out: &mut Filling) -> Received {
        let incoming = cipher.filled_mut();
        let mut used = 0;
        let mut received = Received::default();
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut incoming[used..]);
            let mut waits = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        plain.extend(record.payload);
                        discard += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(|room| data.encode(room), out);
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    received.end = Some(TlsEnd::Closed);
                    waits = true;
                }
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => waits = true,
                // Early data is not accepted, and states of later versions are not asked for.
                Ok(_) => waits = true,
                Err(error) => {
                    received.end = Some(TlsEnd::Failed(error));
                    waits = true;
                }
            }
            used = (used + discard).min(incoming.len());
            if let Some(handshake) = &mut self.handshake {
                handshake.gather();
            }
            if waits {
                break;
            }
        }

        self.keep(&incoming[used..], &mut received, out);
        if received.end.is_none() && !self.tls.is_handshaking() {
            received.secured = self.handshake.take().map(|handshake| handshake.finish(&self.tls));
        }
        received
    }

    fn keep(&mut self, rest: &[u8], received: &mut Received, out: &mut Filling) {
        if rest.len() > HELD_BYTES_MAX && received.end.is_none() {
            received.end = Some(TlsEnd::Failed(rustls::Error::General("a handshake message is too long".to_owned())));
        }
        if rest.is_empty() {
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(rest);
        }
        if let Some(TlsEnd::Failed(_)) = received.end {
            self.has_failed = true;
            self.held = Vec::new();
            // The alert. A failed session must not look at its input again, which it does only when nothing is queued.
            while self.tls.wants_write()
                && let Ok(ConnectionState::EncodeTlsData(mut data)) = self.tls.process_tls_records(&mut []).state
            {
                encode(|room| data.encode(room), out);
            }
        }
    }

    /// Encrypts the front of `plain`, up to [`ENCRYPT_BYTES_MAX`], into `out` and says how much. Not to be called in the
    /// handshake.
    ///
    /// # Errors
    /// The session cannot send any more.
    pub(super) fn encrypt(&mut self, plain: &[u8], out: &mut Filling) -> Result<usize, CannotSend> {
        let mut taken = 0;
        for record in plain.chunks(RECORD_BYTES_MAX).take(ENCRYPT_BYTES_MAX / RECORD_BYTES_MAX) {
            if !self.encode_queued(out) {
                return Err(CannotSend);
            }
            let start = out.len();
            let status = self.tls.process_tls_records(&mut self.held);
            let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else { return Err(CannotSend) };
            let room = out.room(record.len() + RECORD_OVERHEAD);
            let written = traffic.encrypt(record, room).map_err(|_| CannotSend)?;
            out.advance(written);
            taken += record.len();

            // A key update that was due was queued by the same call and belongs before the record, which is already encrypted
            // with the new key.
            if self.tls.wants_write() {
                let end = out.len();
                self.encode_queued(out);
                out.filled_mut()[start..].rotate_left(end - start);
            }
        }
        Ok(taken)
    }

    /// Encrypts the closing alert into `out`, if the session is so far.
    pub(super) fn encrypt_close(&mut self, out: &mut Filling) {
        if !self.encode_queued(out) {
            return;
        }
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = self.tls.process_tls_records(&mut self.held).state
            && let Ok(written) = traffic.queue_close_notify(out.room(RECORD_OVERHEAD))
        {
            out.advance(written);
        }
    }

    /// Appends what TLS itself has to say. Returns whether the session lives.
    fn encode_queued(&mut self, out: &mut Filling) -> bool {
        if self.has_failed {
            return false;
        }
        if !self.tls.wants_write() {
            return true;
        }
        loop {
            match self.tls.process_tls_records(&mut self.held).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(|room| data.encode(room), out),
                Ok(ConnectionState::TransmitTlsData(sent)) => {
                    sent.done();
                    return true;
                }
                _ => return false,
            }
        }
    }
}

fn encode(mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>, out: &mut Filling) {
    let written = match write(out.room(RECORD_BYTES_MAX + RECORD_OVERHEAD)) {
        Err(EncodeError::InsufficientSize(needed)) => write(out.room(needed.required_size)),
        written => written,
    };
    out.advance(written.unwrap_or(0));
}

impl Handshake {
    fn gather(&mut self) {
        let notes = self.notebook.take();
        let kept = &mut self.notes;
        kept.exporter_secret = notes.exporter_secret.or(kept.exporter_secret.take());
        if notes.end_point.is_some() || notes.server_name.is_some() {
            (kept.end_point, kept.server_name) = (notes.end_point, notes.server_name);
        }
    }

    fn finish(self, tls: &UnbufferedServerConnection) -> TlsFacts {
        let is_tls13 = tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let secret = self.notes.exporter_secret.filter(|_| is_tls13);
        TlsFacts {
            bindings: Bindings {
                exporter: secret.and_then(|secret| exporter_binding(&secret)),
                server_end_point: self.notes.end_point,
            },
            server_name: self.notes.server_name,
            version: if is_tls13 { "TLSv1.3" } else { "TLSv1.2" },
        }
    }
}

/// The `tls-exporter` channel binding (RFC 9266 section 2) by RFC 8446 section 7.5, from the exporter secret of a session,
/// whose length tells the hash of its cipher suite.
fn exporter_binding(secret: &[u8]) -> Option<[u8; 32]> {
    const LABEL: &str = "EXPORTER-Channel-Binding";
    let mut binding = [0; 32];
    match secret.len() {
        32 => {
            let empty = Sha256::digest([]);
            let mut derived = Zeroizing::new([0; 32]);
            expand_label::<Hmac<Sha256>>(secret, LABEL, &empty, derived.as_mut())?;
            expand_label::<Hmac<Sha256>>(derived.as_ref(), "exporter", &empty, &mut binding)?;
        }
        48 => {
            let empty = Sha384::digest([]);
            let mut derived = Zeroizing::new([0; 48]);
            expand_label::<Hmac<Sha384>>(secret, LABEL, &empty, derived.as_mut())?;
            expand_label::<Hmac<Sha384>>(derived.as_ref(), "exporter", &empty, &mut binding)?;
        }
        _ => return None,
    }
    Some(binding)
}

/// HKDF-Expand-Label (RFC 8446 section 7.1) for outputs of one block.
fn expand_label<M: Mac + KeyInit>(secret: &[u8], label: &str, context: &[u8], out: &mut [u8]) -> Option<()> {
    let mut mac = <M as KeyInit>::new_from_slice(secret).ok()?;
    mac.update(&u16::try_from(out.len()).ok()?.to_be_bytes());
    mac.update(&[u8::try_from("tls13 ".len() + label.len()).ok()?]);
    mac.update(b"tls13 ");
    mac.update(label.as_bytes());
    mac.update(&[u8::try_from(context.len()).ok()?]);
    mac.update(context);
    mac.update(&[1]);
    let block = mac.finalize().into_bytes();
    out.copy_from_slice(block.get(..out.len())?);
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};

    use rustls::client::Resumption;
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SupportedCipherSuite};

    use super::super::certificates::tests::{Directory, load, own};
    use super::*;

    fn provider() -> CryptoProvider {
        rustls::crypto::ring::default_provider()
    }

    struct Rig {
        certificates: Certificates,
        acceptor: Acceptor,
        _directory: Directory,
    }

    fn rig(name: &str) -> Rig {
        let directory = Directory::new(name);
        let certificates = load(&directory.0, vec![own("a.example"), own("b.example")]).unwrap();
        let acceptor = Acceptor::new(&certificates, &Arc::new(provider())).unwrap();
        Rig { certificates, acceptor, _directory: directory }
    }

    impl Rig {
        /// A client that trusts our self-made certificates, each as an end-entity certificate for its domain.
        fn client_config(&self, suite: Option<SupportedCipherSuite>) -> ClientConfig {
            let mut roots = RootCertStore::empty();
            for served in self.certificates.served() {
                roots.add(served.identity.key.cert[0].clone()).unwrap();
            }
            let mut provider = provider();
            provider.cipher_suites.retain(|known| suite.is_none_or(|suite| *known == suite));
            let builder = ClientConfig::builder_with_provider(Arc::new(provider));
            let builder = builder.with_protocol_versions(&[suite.map_or(&rustls::version::TLS13, |s| match s {
                SupportedCipherSuite::Tls13(_) => &rustls::version::TLS13,
                SupportedCipherSuite::Tls12(_) => &rustls::version::TLS12,
            })]);
            builder.unwrap().with_root_certificates(roots).with_no_client_auth()
        }

        fn connect(&self, config: &ClientConfig, name: &'static str, domain: Option<&str>, piece: usize) -> Pair {
            let client = ClientConnection::new(Arc::new(config.clone()), name.try_into().unwrap()).unwrap();
            let server = self.acceptor.accept(domain).unwrap();
            let mut pair = Pair { client, server, piece, facts: None, end: None, received: Vec::new() };
            while pair.client.is_handshaking() || pair.server.is_handshaking() {
                let progress = pair.exchange();
                if pair.end.is_some() || !progress {
                    break;
                }
            }
            pair.exchange();
            pair
        }
    }

    struct Pair {
        client: ClientConnection,
        server: Session,
        /// What the server is given at once.
        piece: usize,
        facts: Option<TlsFacts>,
        end: Option<TlsEnd>,
        received: Vec<u8>,
    }

    impl Pair {
        /// All that the client has to say, and the answers to it. Returns whether anything was said.
        fn exchange(&mut self) -> bool {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            self.give_server(&bytes);
            !bytes.is_empty()
        }

        fn give_server(&mut self, bytes: &[u8]) {
            for piece in bytes.chunks(self.piece) {
                let (mut cipher, mut plain, mut out) = (Filling::default(), Filling::default(), Filling::default());
                self.server.begin(&mut cipher);
                cipher.extend(piece);
                let received = self.server.receive(&mut cipher, &mut plain, &mut out);
                self.received.extend_from_slice(plain.filled());
                self.give_client(out.filled());
                self.facts = received.secured.or(self.facts.take());
                self.end = received.end.or(self.end.take());
                if matches!(self.end, Some(TlsEnd::Failed(_))) {
                    return;
                }
            }
        }

        fn give_client(&mut self, mut bytes: &[u8]) -> Vec<u8> {
            let mut got = Vec::new();
            while !bytes.is_empty() {
                self.client.read_tls(&mut bytes).unwrap();
                if self.client.process_new_packets().is_err() {
                    break;
                }
                let mut buf = [0; 32 * 1024];
                while let Ok(count @ 1..) = self.client.reader().read(&mut buf) {
                    got.extend_from_slice(&buf[..count]);
                }
            }
            got
        }

        fn send(&mut self, bytes: &[u8]) -> Vec<u8> {
            let (mut sent, mut got, mut out) = (0, Vec::new(), Filling::default());
            while sent < bytes.len() {
                out.clear();
                sent += self.server.encrypt(&bytes[sent..], &mut out).unwrap();
                got.extend(self.give_client(out.filled()));
            }
            got
        }
    }

    fn suite(name: &str) -> SupportedCipherSuite {
        let suites = provider().cipher_suites;
        *suites.iter().find(|suite| format!("{:?}", suite.suite()) == name).unwrap()
    }

    #[test]
    fn channel_bindings_are_those_of_the_client() {
        let rig = rig("bindings");
        let check = |name: &str, version: &str, piece: usize| {
            let mut pair = rig.connect(&rig.client_config(Some(suite(name))), "a.example", None, piece);
            let facts = pair.facts.take().unwrap();
            let exported = pair.client.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[]));
            let expected = (version == "TLSv1.3").then(|| exported.unwrap());
            assert_eq!((facts.version, facts.bindings.exporter), (version, expected), "{name}");
            let leaf = &pair.client.peer_certificates().unwrap()[0];
            assert_eq!(facts.bindings.server_end_point, Some(Sha256::digest(leaf).to_vec()));
        };
        check("TLS13_AES_128_GCM_SHA256", "TLSv1.3", 100_000);
        check("TLS13_AES_256_GCM_SHA384", "TLSv1.3", 100_000);
        check("TLS13_CHACHA20_POLY1305_SHA256", "TLSv1.3", 1);
        check("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLSv1.2", 1);
        check("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLSv1.2", 100_000);
    }

    #[test]
    fn certificate_by_name() {
        let rig = rig("names");
        // The name asked for; whether the client says it; the stream's `to`; what it is shown; what we learn.
        let check = |name, says: bool, domain: Option<&str>, shown: &str, learnt: Option<&str>| {
            let mut config = rig.client_config(None);
            config.enable_sni = says;
            let pair = rig.connect(&config, name, domain, 1000);
            let served = rig.certificates.served().iter().find(|served| served.domain == shown).unwrap();
            let is_fit = name == shown;
            assert_eq!(pair.facts.is_some(), is_fit, "a name that does not fit is refused by the client");
            if is_fit {
                let facts = pair.facts.unwrap();
                assert_eq!(pair.client.peer_certificates().unwrap(), served.identity.key.cert);
                assert_eq!(
                    (facts.server_name.as_deref(), facts.bindings.server_end_point),
                    (learnt, served.identity.end_point.clone())
                );
            }
        };
        check("a.example", true, None, "a.example", Some("a.example"));
        check("b.example", true, None, "b.example", Some("b.example"));
        check("b.example", true, Some("a.example"), "b.example", Some("b.example"));
        check("b.example", false, Some("b.example"), "b.example", None);
        check("b.example", false, None, "a.example", None);
        check("a.example", false, Some("unknown.example"), "a.example", None);
        check("unknown.example", true, None, "a.example", None);
    }

    #[test]
    fn application_protocols() {
        let rig = rig("alpn");
        let check = |offered: &[&str], expected: Result<Option<&str>, ()>| {
            let mut config = rig.client_config(None);
            config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
            let pair = rig.connect(&config, "a.example", None, 1000);
            let result = match pair.end {
                None => Ok(pair.client.alpn_protocol().map(|name| std::str::from_utf8(name).unwrap())),
                Some(TlsEnd::Failed(rustls::Error::NoApplicationProtocol)) => Err(()),
                Some(end) => panic!("{end:?}"),
            };
            assert_eq!(result, expected, "{offered:?}");
        };
        check(&[], Ok(None));
        check(&["xmpp-client"], Ok(Some("xmpp-client")));
        check(&["http/1.1", "xmpp-client"], Ok(Some("xmpp-client")));
        check(&["http/1.1", "xmpp-server"], Err(()));
    }

    #[test]
    fn bytes_pass_both_ways_in_any_pieces() {
        let rig = rig("bytes");
        let message: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        for (name, piece, len) in [
            ("TLS13_AES_128_GCM_SHA256", 1, 18_000),
            ("TLS13_AES_128_GCM_SHA256", 16_000, 200_000),
            ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 100_000, 200_000),
        ] {
            let message = &message[..len];
            let mut pair = rig.connect(&rig.client_config(Some(suite(name))), "a.example", None, piece);
            for part in message.chunks(30_000) {
                pair.client.writer().write_all(part).unwrap();
                pair.exchange();
                assert!(pair.server.held.is_empty(), "an idle session holds nothing");
            }
            assert!(pair.received == message);
            assert!(pair.send(message) == message);
            assert!(rig.acceptor.notebook.take().exporter_secret.is_none(), "secrets are not left lying about");
        }
    }

    #[test]
    fn new_keys_are_announced_before_they_are_used() {
        let rig = rig("keys");
        let mut pair = rig.connect(&rig.client_config(None), "a.example", None, 1000);
        for round in 0..3 {
            pair.client.refresh_traffic_keys().unwrap();
            pair.client.writer().write_all(b"ping").unwrap();
            pair.exchange();
            assert!(pair.end.is_none());
            assert_eq!(pair.send(b"pong"), b"pong", "round {round}");
            assert_eq!(pair.send(&[7; 40_000]), [7; 40_000]);
        }
        assert_eq!(pair.received, b"pingpingping");
    }

    #[test]
    fn tickets_are_good_until_the_certificates_change() {
        let mut rig = rig("tickets");
        for name in ["TLS13_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"] {
            let mut config = rig.client_config(Some(suite(name)));
            config.resumption = Resumption::in_memory_sessions(8);
            let kind = |rig: &Rig| {
                let pair = rig.connect(&config, "a.example", None, 1000);
                let facts = pair.facts.unwrap();
                let exported = pair.client.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[]));
                assert!(facts.bindings.exporter.is_none_or(|binding| Ok(binding) == exported));
                assert_eq!(facts.bindings.server_end_point, rig.certificates.served()[0].identity.end_point);
                pair.client.handshake_kind()
            };
            assert_eq!(kind(&rig), Some(HandshakeKind::Full));
            assert_eq!(kind(&rig), Some(HandshakeKind::Resumed));
            rig.acceptor = Acceptor::new(&rig.certificates, &Arc::new(provider())).unwrap();
            assert_eq!(kind(&rig), Some(HandshakeKind::Full));
        }
    }

    /// What a ticket allows to be sent before the handshake could be sent again by anybody who has seen it (PROTOCOL TL-14).
    #[test]
    fn nothing_is_taken_before_the_handshake() {
        let rig = rig("early");
        let mut config = rig.client_config(None);
        config.resumption = Resumption::in_memory_sessions(8);
        config.enable_early_data = true;
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            assert_eq!(rig.connect(&config, "a.example", None, 1000).client.handshake_kind(), Some(expected));
        }
        let name = "a.example".try_into().unwrap();
        assert!(ClientConnection::new(Arc::new(config), name).unwrap().early_data().is_none());
        assert!(rig.acceptor.configs.iter().all(|(_, config)| config.max_early_data_size == 0));
    }

    #[test]
    fn ends() {
        let rig = rig("ends");
        let open = || rig.connect(&rig.client_config(None), "a.example", None, 1000);

        let mut pair = open();
        pair.client.writer().write_all(b"last words").unwrap();
        pair.client.send_close_notify();
        pair.exchange();
        assert!(matches!(pair.end, Some(TlsEnd::Closed)));
        assert_eq!(pair.received, b"last words");
        let mut out = Filling::default();
        pair.server.encrypt_close(&mut out);
        pair.give_client(out.filled());
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());

        // A record that nobody encrypted, and what is no TLS at all.
        for junk in [
            &[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20][..],
            b"<?xml version='1.0'?>",
        ] {
            let mut pair = open();
            pair.give_server(junk);
            assert!(matches!(pair.end, Some(TlsEnd::Failed(_))), "{:?}", pair.end);
            assert!(pair.client.process_new_packets().is_err(), "the client was sent an alert");
            assert!(pair.server.encrypt(b"x", &mut Filling::default()).is_err());
        }
    }

    #[test]
    fn a_handshake_in_crumbs_is_cut_off() {
        let rig = rig("crumbs");
        let mut pair = rig.connect(&rig.client_config(None), "a.example", None, 1000);
        pair.server = rig.acceptor.accept(None).unwrap();
        // A client hello of 65,000 bytes, one byte in each record.
        let mut given = 0;
        for byte in [1, 0, 0xfd, 0xe8].into_iter().chain(std::iter::repeat_n(0, 65_000)) {
            pair.give_server(&[22, 3, 1, 0, 1, byte]);
            given += 6;
            if pair.end.is_some() {
                break;
            }
        }
        assert!(matches!(pair.end, Some(TlsEnd::Failed(_))));
        assert!(given <= HELD_BYTES_MAX + 6 && pair.server.held.is_empty());
    }
}
