//! Nothing secret comes into a log, however talkative it is: passwords, what proves them, and what people write to each other.
//!
//! One test, because there is one logger in a process.

// `tests/scripts.rs` uses the rest of it.
#[allow(dead_code)]
mod player;
mod sockets;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, mpsc};

use log::{LevelFilter, Log, Metadata, Record};
use whinchat::auth::PasswordScheme;
use whinchat::config::{Config, Listen};
use whinchat::core::ListenerKind;
use whinchat::server::Server;

use player::{Medium, Pace};
use sockets::{Client, PASSWORD, Proof};

/// Every line that was logged.
static LINES: Mutex<String> = Mutex::new(String::new());

struct Everything;

impl Log for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let mut lines = LINES.lock().expect("nobody panics with it");
        let _ = writeln!(lines, "{} {} {}", record.level(), record.target(), record.args());
    }
    fn flush(&self) {}
}

/// Passwords of the scripts below, parts of them and of messages, and each as PLAIN sends it.
const SECRETS: [&str; 9] = [
    PASSWORD,
    "battery",
    "c0rdelia",
    "n3w-secret",
    "b1te-my-thumb",
    "pr1nce",
    "O, speak again, bright angel",
    // "c0rdelia" and "battery staple" in base64, at the three places where they may begin.
    "YzByZGVsaW",
    "YmF0dGVyeS",
];

#[test]
fn no_log_holds_a_secret() {
    log::set_logger(&Everything).expect("the only logger");
    log::set_max_level(LevelFilter::Trace);
    for script in ["register", "sasl", "sasl2", "sasl-scrypt", "sasl-backoff", "message", "offline", "security"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scripts/{script}.xmpp"));
        player::play(&path, Medium::Memory, Pace::Whole).unwrap_or_else(|error| panic!("{error}"));
        player::play(&path, Medium::Redb, Pace::Pieces(1)).unwrap_or_else(|error| panic!("{error}"));
    }
    over_sockets();
    let lines = LINES.lock().expect("nobody panics with it");
    for line in lines.lines() {
        for secret in SECRETS {
            assert!(!line.contains(secret), "{line}");
        }
    }
    // It was talkative indeed.
    for expected in ["account paris@capulet.test was registered", "failed log-in from", "TLSv1.3 for localhost"] {
        assert!(lines.contains(expected), "{expected}: {lines}");
    }
}

/// Accounts, right and wrong log-ins, a message and a changed password on a server with sockets, TLS and a storage thread.
fn over_sockets() {
    let place = std::env::temp_dir().join(format!("whinchat-secrecy-{}", std::process::id()));
    let here = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    let mut config = Config::try_out();
    config.data = place.clone();
    config.listen = Listen { c2s: here.clone(), c2s_tls: here, c2s_plain: Vec::new() };
    config.password_scheme = PasswordScheme::Scram { iterations: 4096 };
    let (to, from) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut server = Server::builder().config(config).build().expect("a server");
        to.send((server.handle(), server.local_addrs())).expect("somebody waits for it");
        server.run()
    });
    let (handle, addresses) = from.recv().expect("a server");
    let (_, address) = addresses.iter().find(|(kind, _)| *kind == ListenerKind::StartTls).expect("a listener");
    handle.user_add("juliet@localhost", PASSWORD).expect("an account");
    for proof in [Proof::Plain, Proof::Scram(None), Proof::Scram(Some("tls-exporter"))] {
        let mut client = Client::connect(*address);
        client.start_tls("localhost");
        client.authenticate("juliet@localhost", proof);
        client.bind("juliet@localhost", "balcony");
        client.come();
        client.send("<message to='juliet@localhost'><body>O, speak again, bright angel</body></message>");
        client.until("bright angel");
    }
    handle.user_password("juliet@localhost", &format!("{PASSWORD} 2")).expect("a new password");
    handle.stop();
    thread.join().expect("no panic").expect("a clean end");
    only_ours(&place);
    let _ = std::fs::remove_dir_all(place);
}

/// Store, keys and whatever else lies there is its owner's alone.
fn only_ours(path: &Path) {
    let mode = std::fs::metadata(path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{} is open to others", path.display());
    for entry in std::fs::read_dir(path).into_iter().flatten() {
        let entry = entry.expect("an entry").path();
        // Certificates are shown to everybody who connects.
        if entry.extension().is_none_or(|extension| extension != "pem") {
            only_ours(&entry);
        }
    }
}
