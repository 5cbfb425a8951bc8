//! Real sockets and real TLS against the library's server: what scripts and the core's tests cannot see.
//!
//! Port 0 everywhere; whatever is waited for has a deadline ([`PATIENCE`]).

mod sockets;

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::Sha256;
use whinchat::auth::PasswordScheme;
use whinchat::config::{CertificateFiles, Config, DomainConfig, Listen};
use whinchat::core::ListenerKind;
use whinchat::server::{Handle, Server};

use sockets::{Client, PASSWORD, PATIENCE, Proof, config, session};

const JULIET: &str = "juliet@localhost";
const ROMEO: &str = "romeo@localhost";
const EXPORTER: Proof = Proof::Scram(Some("tls-exporter"));
const END_POINT: Proof = Proof::Scram(Some("tls-server-end-point"));

/// A data directory, removed with it.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("whinchat-wire-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary directory");
        Place(path)
    }

    fn certificate(&self, domain: &str) -> Vec<u8> {
        let path = self.0.join(format!("certificates/{domain}.pem"));
        CertificateDer::from_pem_file(path).expect("a certificate").to_vec()
    }

    /// Writes a new pair and returns the certificate in DER.
    fn put_pair(&self, files: &CertificateFiles) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(&files.key, made.signing_key.serialize_pem()).expect("a key");
        fs::write(&files.chain, made.cert.pem()).expect("a chain");
        made.cert.der().to_vec()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server on a thread of its own, ended with this value.
struct Running {
    handle: Handle,
    addresses: Vec<(ListenerKind, SocketAddr)>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    fn start(place: &Place, change: impl FnOnce(&mut Config)) -> Running {
        Running::run_by(place, change, |mut server| server.run())
    }

    fn run_by(
        place: &Place,
        change: impl FnOnce(&mut Config),
        run: impl FnOnce(Server) -> io::Result<()> + Send + 'static,
    ) -> Running {
        let here = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        let mut config = Config::try_out();
        config.data = place.0.clone();
        config.listen = Listen { c2s: here.clone(), c2s_tls: here, c2s_plain: Vec::new() };
        config.password_scheme = PasswordScheme::Scram { iterations: 4096 };
        change(&mut config);
        let (to, from) = mpsc::channel();
        // A server stays on the thread that built it.
        let thread = std::thread::spawn(move || {
            let server = Server::builder().config(config).build().expect("a server");
            to.send((server.handle(), server.local_addrs())).expect("somebody waits for it");
            run(server)
        });
        let (handle, addresses) = from.recv().expect("a server");
        Running { handle, addresses, thread: Some(thread) }
    }

    fn add(&self, users: &[&str]) {
        for user in users {
            self.handle.user_add(user, PASSWORD).expect("an account");
        }
    }

    fn address(&self, kind: ListenerKind) -> SocketAddr {
        self.addresses.iter().find(|(other, _)| *other == kind).expect("a listener").1
    }

    fn session(&self, user: &str, resource: &str) -> Client {
        session(self.address(ListenerKind::StartTls), user, resource)
    }

    fn counter(&self, name: &str) -> u64 {
        let counters = self.handle.status().expect("counters");
        counters.iter().find(|(other, _)| *other == name).expect(name).1
    }

    /// Asks until a counter is as expected.
    fn wait_until(&self, name: &str, is_expected: impl Fn(u64) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let count = self.counter(name);
            if is_expected(count) {
                return;
            }
            assert!(Instant::now() < end, "{name} is {count}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it and says how long that took.
    fn stop(mut self) -> Duration {
        let start = Instant::now();
        self.handle.stop();
        let thread = self.thread.take().expect("running");
        thread.join().expect("no panic").expect("no error");
        start.elapsed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a server as a loop of the host's would: its descriptor among others.
fn run_as_guest(mut server: Server) -> io::Result<()> {
    let mut poll = mio::Poll::new()?;
    let mut events = mio::Events::with_capacity(8);
    let fd = server.as_raw_fd();
    poll.registry().register(&mut mio::unix::SourceFd(&fd), mio::Token(0), mio::Interest::READABLE)?;
    while server.poll_once(Some(Duration::ZERO))? {
        // The descriptor is reported at its edges only, so what is left of one turn is in the timeout.
        poll.poll(&mut events, server.next_timeout())?;
    }
    Ok(())
}

fn log_in_every_way(running: &Running) {
    running.add(&[JULIET]);
    let starttls = |proof| {
        let mut client = Client::connect(running.address(ListenerKind::StartTls));
        client.start_tls("localhost");
        let answer = client.authenticate(JULIET, proof);
        assert!(answer.starts_with("<success"), "{answer}");
        client.bind(JULIET, "balcony");
        client.come();
    };
    let direct = |alpn: &[&str], proof: Option<Proof>| {
        let mut client = Client::connect(running.address(ListenerKind::Tls));
        let secured = client.secure(&config(alpn), "localhost");
        assert_eq!(secured.is_ok(), proof.is_some(), "{alpn:?}: {secured:?}");
        let Some(proof) = proof else { return };
        let answer = client.authenticate(JULIET, proof);
        assert!(answer.starts_with("<success"), "{answer}");
        client.bind(JULIET, "balcony");
        client.come();
    };
    for proof in [EXPORTER, END_POINT, Proof::Scram(None), Proof::Plain] {
        starttls(proof);
    }
    direct(&["xmpp-client"], Some(Proof::Plain));
    direct(&["xmpp-client"], Some(EXPORTER));
    direct(&["http/1.1", "xmpp-client"], Some(END_POINT));
    direct(&[], Some(EXPORTER));
    direct(&["xmpp-server"], None);
    assert_eq!(running.counter("logins_total"), 8);
    running.wait_until("tls_failures_total", |count| count == 1);
}

#[test]
fn every_way_to_log_in() {
    log_in_every_way(&Running::start(&Place::new(), |_| {}));
}

#[test]
fn every_way_to_log_in_inside_the_loop_of_a_host() {
    log_in_every_way(&Running::run_by(&Place::new(), |_| {}, run_as_guest));
}

#[test]
fn names_choose_certificates() {
    let place = Place::new();
    let domain = |name: &str| DomainConfig { name: name.to_owned(), ..DomainConfig::default() };
    let running = Running::start(&place, |config| config.domains = vec![domain("one.example"), domain("two.example")]);
    let (one, two) = (place.certificate("one.example"), place.certificate("two.example"));
    assert_ne!(one, two);

    let direct = |name: &str, expected: &[u8]| {
        let mut client = Client::connect(running.address(ListenerKind::Tls));
        client.secure(&config(&[]), name).expect("TLS");
        assert_eq!(client.certificate(), expected, "{name}");
    };
    direct("one.example", &one);
    direct("TWO.example", &two);
    direct("other.example", &one);

    // A client that names nobody in TLS has named the domain before.
    let mut nameless = (*config(&[])).clone();
    nameless.enable_sni = false;
    let mut client = Client::connect(running.address(ListenerKind::StartTls));
    client.open("two.example");
    client.until("</stream:features>");
    client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    client.until("<proceed");
    client.secure(&nameless.into(), "two.example").expect("TLS");
    assert_eq!(client.certificate(), two);
}

/// Bytes in the clear behind `<starttls/>` could have been put in by anyone (CVE-2011-0411 and its kin).
#[test]
fn what_comes_behind_starttls_is_dropped() {
    let running = Running::start(&Place::new(), |_| {});
    running.add(&[JULIET]);
    // NUL juliet NUL password
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>\
                AGp1bGlldABjb3JyZWN0IGhvcnNlIGJhdHRlcnkgc3RhcGxl</auth>";
    let header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost' \
                  version='1.0'>";
    let rounds = [auth.to_owned(), format!("{header}{auth}"), "<a".to_owned(), "</stream:stream>".to_owned()];
    for (logins, injected) in (0..).zip(rounds) {
        let mut client = Client::connect(running.address(ListenerKind::StartTls));
        client.open("localhost");
        client.until("</stream:features>");
        client.send(&format!("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{injected}"));
        client.until("<proceed");
        client.secure(&config(&[]), "localhost").expect("TLS");
        client.open("localhost");
        let next = |client: &mut Client| client.next().expect("no error").expect("no end");
        assert!(next(&mut client).contains("<stream:stream"), "behind {injected}");
        assert!(next(&mut client).starts_with("<stream:features"), "behind {injected}");
        assert_eq!(running.counter("logins_total"), logins, "behind {injected}");
        client.send(auth);
        assert!(next(&mut client).starts_with("<success"), "behind {injected}");
        client.open("localhost");
        client.until("</stream:features>");
        client.send("</stream:stream>");
        assert_eq!(client.rest(), "</stream:stream>");
    }
}

/// go-sendxmpp sends and is gone (PROTOCOL CL-06).
#[test]
fn the_last_words_of_a_client_are_heard() {
    let running = Running::start(&Place::new(), |_| {});
    running.add(&[JULIET, ROMEO]);
    let mut juliet = running.session(JULIET, "balcony");
    let roster = "<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='juliet@localhost'/></query></iq>";
    let mut count = 0;
    for (before, after) in [("", "</stream:stream>"), ("", ""), (roster, "</stream:stream>"), (roster, "")] {
        for is_direct in [true, false] {
            let kind = if is_direct { ListenerKind::Tls } else { ListenerKind::StartTls };
            let mut romeo = Client::connect(running.address(kind));
            match is_direct {
                true => romeo.secure(&config(&[]), "localhost").expect("TLS"),
                false => romeo.start_tls("localhost"),
            }
            romeo.authenticate(ROMEO, Proof::Plain);
            romeo.bind(ROMEO, "orchard");
            count += 1;
            let message = format!("<message to='{JULIET}' type='chat'><body>Adieu {count}</body></message>");
            romeo.send(&format!("{before}{message}{after}"));
            romeo.hang_up();
            juliet.until(&format!("<body>Adieu {count}</body>"));
            let rest = romeo.rest();
            assert!(rest.ends_with("</stream:stream>") || after.is_empty(), "{rest}");
        }
    }
}

#[test]
fn who_does_not_read_slows_the_sender_and_is_dropped() {
    const MESSAGE_BYTES: u64 = 32 * 1024;
    const PAUSE: u64 = 128 * 1024;
    // What the two sides of two sockets can hold, by far.
    const SENT_MAX: u64 = 64 << 20;
    let running = Running::start(&Place::new(), |config| {
        config.limits.rates = false;
        config.limits.output_pause = PAUSE as usize;
        config.limits.write_stall = Duration::from_secs(3);
    });
    running.add(&[JULIET, ROMEO]);
    let juliet = running.session(JULIET, "balcony");
    let mut romeo = running.session(ROMEO, "orchard");
    let mut bystander = running.session(ROMEO, "street");

    // Headlines: nothing is stored for Juliet when she is gone.
    let body = "x".repeat(MESSAGE_BYTES as usize);
    let message = format!("<message to='{JULIET}/balcony' type='headline'><body>{body}</body></message>");
    let address = running.address(ListenerKind::StartTls);
    romeo.socket.set_write_timeout(Some(Duration::from_millis(500))).expect("a deadline");
    let mut sent = 0;
    let stalled = loop {
        assert!(sent < SENT_MAX, "the sender is not slowed down");
        match romeo.try_send(&message) {
            Ok(()) => sent += MESSAGE_BYTES,
            Err(error) => break error,
        }
    };
    assert!(matches!(stalled.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{stalled}");
    let waiting = running.counter("output_bytes_waiting");
    assert!((PAUSE..PAUSE + 4 * MESSAGE_BYTES).contains(&waiting), "{waiting} bytes wait");
    assert_eq!(running.counter("sessions"), 3);
    // Others do not feel it.
    bystander.send("<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
    bystander.until("id='p'");

    running.wait_until("sessions", |count| count == 2);
    assert_eq!(running.counter("output_bytes_waiting"), 0);
    let mut juliet = juliet;
    assert!(juliet.is_dropped());
    // The sender goes on where it was stopped.
    romeo.socket.set_write_timeout(Some(PATIENCE)).expect("a deadline");
    romeo.flush().expect("sent");
    romeo.send("<iq type='get' id='q' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
    romeo.until("id='q'");
    let mut again = session(address, JULIET, "balcony");
    romeo.send(&format!("<message to='{JULIET}/balcony' type='headline'><body>again</body></message>"));
    again.until("<body>again</body>");
}

#[test]
fn everybody_is_told_of_the_end() {
    let running = Running::start(&Place::new(), |_| {});
    running.add(&[JULIET]);
    let mut bound = running.session(JULIET, "balcony");
    let mut clear = Client::connect(running.address(ListenerKind::StartTls));
    clear.open("localhost");
    clear.until("</stream:features>");
    let mut silent = Client::connect(running.address(ListenerKind::StartTls));
    let mut handshaking = Client::connect(running.address(ListenerKind::Tls));
    running.wait_until("connections", |count| count == 4);

    let address = running.address(ListenerKind::StartTls);
    // None of them closes its side.
    let took = running.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let end = "<system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>";
    for client in [&mut bound, &mut clear, &mut silent] {
        let rest = client.rest();
        assert!(rest.contains(end) && rest.ends_with("</stream:stream>"), "{rest}");
    }
    assert!(handshaking.is_dropped());
    assert!(std::net::TcpStream::connect_timeout(&address, PATIENCE).is_err());
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let place = Place::new();
    let running = Running::start(&place, |_| {});
    running.add(&[JULIET, ROMEO]);
    let mut romeo = running.session(ROMEO, "orchard");
    romeo.send(
        "<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='juliet@localhost' name='Rose'>\
         <group>Verona</group></item></query></iq>",
    );
    romeo.until("id='r'");
    romeo.send(&format!("<message to='{JULIET}' type='chat' id='m'><body>By another name</body></message>"));
    running.wait_until("stored_offline_total", |count| count == 1);
    running.stop();

    let running = Running::start(&place, |_| {});
    let mut romeo = running.session(ROMEO, "orchard");
    romeo.send("<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>");
    let roster = romeo.until("id='g'");
    assert!(roster.contains("name='Rose'") && roster.contains("<group>Verona</group>"), "{roster}");
    let mut juliet = running.session(JULIET, "balcony");
    assert!(juliet.until("By another name").contains("urn:xmpp:delay"));
    // Her next stanza says that she has it.
    juliet.send("<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq></stream:stream>");
    juliet.until("id='p'");
    assert_eq!(juliet.rest(), "</stream:stream>");
    running.stop();

    let running = Running::start(&place, |_| {});
    let mut juliet = running.session(JULIET, "balcony");
    juliet.send("<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq></stream:stream>");
    let rest = juliet.rest();
    assert!(!rest.contains("<message"), "{rest}");
}

/// A phone, as far as logging in by XEP-0388 goes.
struct Phone {
    client: Client,
}

impl Phone {
    fn connect(running: &Running) -> Phone {
        let mut client = Client::connect(running.address(ListenerKind::Tls));
        client.secure(&config(&["xmpp-client"]), "localhost").expect("TLS");
        Phone { client }
    }

    /// Sends the stream's header and all of the log-in at once, and returns the outcome.
    fn authenticate(&mut self, mechanism: &str, message: &[u8], beside: &str) -> String {
        self.client.send(&format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost' \
             from='juliet@localhost' version='1.0'><authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>\
             <initial-response>{}</initial-response><user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>{beside}\
             </authenticate>",
            STANDARD.encode(message)
        ));
        loop {
            match self.client.next() {
                Ok(Some(text)) if text.starts_with("<success") || text.starts_with("<failure") => return text,
                Ok(Some(_)) => {}
                end => panic!("{end:?}"),
            }
        }
    }

    /// Logs in with a token; checks the server's proof if it succeeds.
    fn come_back(&mut self, token: &str, binding: &[u8], beside: &str) -> String {
        let message = [b"juliet\0", &hashed(token, b"Initiator", binding)[..]].concat();
        let beside = format!("<fast xmlns='urn:xmpp:fast:0'/>{beside}");
        let outcome = self.authenticate("HT-SHA-256-EXPR", &message, &beside);
        if outcome.starts_with("<success") {
            let answer = STANDARD.encode(hashed(token, b"Responder", binding));
            assert!(outcome.contains(&format!("<additional-data>{answer}</additional-data>")), "{outcome}");
        }
        outcome
    }

    fn binding(&self) -> Vec<u8> {
        self.client.binding("tls-exporter")
    }
}

fn hashed(token: &str, role: &[u8], binding: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("any key will do");
    mac.chain_update(role).chain_update(binding).finalize().into_bytes().to_vec()
}

/// The value of an attribute of the first element of that name.
fn attribute(xml: &str, element: &str, name: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{element} ")).expect(element);
    let (_, rest) = rest.split_once(&format!(" {name}='")).expect(name);
    rest.split_once('\'').expect("an end").0.to_owned()
}

#[test]
fn a_phone_is_back_with_one_message() {
    let place = Place::new();
    let running = Running::start(&place, |_| {});
    running.add(&[JULIET]);
    let bind = "<bind xmlns='urn:xmpp:bind:0'><tag>phone</tag><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";
    let wanted = format!("{bind}<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-EXPR'/>");
    let message = format!("\0juliet\0{PASSWORD}");
    let success = Phone::connect(&running).authenticate("PLAIN", message.as_bytes(), &wanted);
    assert!(success.contains("<authorization-identifier>juliet@localhost/phone/"), "{success}");
    let token = attribute(&success, "token", "token");
    running.stop();

    let running = Running::start(&place, |_| {});
    let mut phone = Phone::connect(&running);
    let binding = phone.binding();
    let success = phone.come_back(&token, &binding, bind);
    let session = attribute(&success, "enabled", "id");
    phone.client.socket.shutdown(std::net::Shutdown::Both).expect("cut off");

    // What was bound to one connection is worth nothing on another.
    assert!(Phone::connect(&running).come_back(&token, &binding, "").contains("<not-authorized"));
    let mut phone = Phone::connect(&running);
    let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{session}' h='0'/>");
    let success = phone.come_back(&token, &phone.binding(), &resume);
    assert!(success.contains(&format!("<resumed xmlns='urn:xmpp:sm:3' previd='{session}'")), "{success}");

    running.handle.user_password(JULIET, "another password").expect("changed");
    phone.client.until("<reset");
    let mut phone = Phone::connect(&running);
    assert!(phone.come_back(&token, &phone.binding(), "").contains("<not-authorized"));
}

#[test]
fn certificates_change_under_running_sessions() {
    let place = Place::new();
    let files = CertificateFiles { chain: place.0.join("chain.pem"), key: place.0.join("key.pem") };
    let first = place.put_pair(&files);
    let given = files.clone();
    let running = Running::start(&place, |config| config.domains[0].certificate = Some(given));
    running.add(&[JULIET]);
    let mut before = running.session(JULIET, "before");
    assert_eq!(before.certificate(), first);

    let second = place.put_pair(&files);
    running.handle.reload();
    let mut after = running.session(JULIET, "after");
    assert_eq!(after.certificate(), second);
    fs::write(&files.chain, "nonsense").expect("a chain");
    running.handle.reload();
    let mut later = running.session(JULIET, "later");
    assert_eq!(later.certificate(), second);
    for client in [&mut before, &mut after, &mut later] {
        client.send("<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
        client.until("id='p'");
    }
}

#[test]
fn who_does_not_log_in_has_to_go() {
    let running = Running::start(&Place::new(), |config| {
        config.limits.login_time = Duration::from_secs(2);
        config.limits.close_time = Duration::from_secs(1);
    });
    running.add(&[JULIET]);
    let client = |kind, bytes: &[u8]| {
        let mut client = Client::connect(running.address(kind));
        client.socket.write_all(bytes).expect("sent");
        client
    };
    // The beginning of a ClientHello of 512 bytes, and of one that will never fit.
    let half = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 100]].concat();
    let mut session = running.session(JULIET, "balcony");
    let mut waiting = vec![
        client(ListenerKind::Tls, b""),
        client(ListenerKind::Tls, &half[..3]),
        client(ListenerKind::Tls, &half),
        client(ListenerKind::StartTls, b""),
        client(ListenerKind::StartTls, b"<stream:stream "),
    ];
    let mut proceeding = Client::connect(running.address(ListenerKind::StartTls));
    proceeding.open("localhost");
    proceeding.until("</stream:features>");
    proceeding.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    proceeding.until("<proceed");
    proceeding.socket.write_all(&half).expect("sent");
    waiting.push(proceeding);
    let mut secured = Client::connect(running.address(ListenerKind::StartTls));
    secured.start_tls("localhost");
    waiting.push(secured);
    assert_eq!(running.counter("connections"), 8);

    for (index, client) in waiting.iter_mut().enumerate() {
        assert!(client.is_dropped(), "connection {index}");
    }
    // Also who never closes its side is forgotten.
    running.wait_until("connections", |count| count == 1);
    session.send("<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
    session.until("id='p'");
}

#[test]
fn what_is_no_tls_gets_an_alert() {
    let running = Running::start(&Place::new(), |_| {});
    for (count, bytes) in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"<?xml version='1.0'?>", &[0x16, 3, 1, 0, 4, 9, 0, 0, 0]]
        .into_iter()
        .enumerate()
    {
        let mut client = Client::connect(running.address(ListenerKind::Tls));
        client.socket.write_all(bytes).expect("sent");
        let mut answer = Vec::new();
        io::Read::read_to_end(&mut client.socket, &mut answer).expect("a clean end");
        // One record of an alert, fatal.
        assert!(matches!(answer[..], [0x15, 3, _, 0, 2, 2, _]), "{bytes:?}: {answer:?}");
        running.wait_until("tls_failures_total", |failures| failures == count as u64 + 1);
    }
}

#[test]
fn doors_close_when_it_is_full() {
    let check = |change: fn(&mut Config)| {
        let running = Running::start(&Place::new(), change);
        let connect = || Client::connect(running.address(ListenerKind::StartTls));
        let is_served = |client: &mut Client| {
            let sent = client.try_send(
                "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost' \
                 version='1.0'>",
            );
            sent.is_ok() && matches!(client.next(), Ok(Some(_)))
        };
        let (mut first, mut second) = (connect(), connect());
        assert!(is_served(&mut first) && is_served(&mut second));
        assert!(!is_served(&mut connect()));
        assert!(!is_served(&mut connect()));
        second.send("</stream:stream>");
        drop(second);
        running.wait_until("connections", |count| count == 1);
        assert!(is_served(&mut connect()));
    };
    check(|config| config.limits.connections_per_address_max = 2);
    check(|config| config.limits.connections_max = 2);
}
