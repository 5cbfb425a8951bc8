//! The program as an operator meets it: exit codes, what it says, a server started, asked and ended.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory with a configuration, removed with it.
struct Place(PathBuf);

impl Place {
    fn new(config: &str) -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("whinchat-cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary directory");
        fs::write(path.join("whinchat.toml"), config).expect("a configuration");
        Place(path)
    }

    fn program(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whinchat"));
        command.args(words.split_whitespace()).arg("--config").arg(self.0.join("whinchat.toml"));
        command.current_dir(&self.0).env_remove("JOURNAL_STREAM");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end with something on standard input.
    fn run(&self, words: &str, input: &str) -> Output {
        let mut child = self.program(words).stdin(Stdio::piped()).spawn().expect("the program");
        // A command that reads nothing may have gone already.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        child.wait_with_output().expect("its output")
    }

    /// Runs a command and compares its exit code, and what it says on both outputs by a piece of it.
    fn check(&self, words: &str, input: &str, code: i32, expected: &str) {
        let output = self.run(words, input);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{words}: {said}");
        assert!(said.contains(expected), "{words}: {said}");
        assert!(!said.contains("correct horse") && !said.contains("panicked"), "{words}: {said}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server, killed with this value.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Running {
    /// Returns when it says that it serves.
    fn start(place: &Place) -> Running {
        let mut child = place.program("run").spawn().expect("the program");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let mut running = Running { child, log };
        running.wait_for("serving ");
        running
    }

    fn wait_for(&mut self, expected: &str) {
        let mut seen = String::new();
        while self.log.read_line(&mut seen).expect("a log") > 0 {
            if seen.lines().last().is_some_and(|line| line.contains(expected)) {
                return;
            }
        }
        panic!("it ended without {expected:?}: {seen}");
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("kill");
        assert!(kill.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CONFIG: &str = r#"
data = "data"
[listen]
c2s = ["127.0.0.1:0"]
c2s_tls = []
[[domain]]
name = "localhost"
"#;

#[test]
fn configurations_are_checked() {
    let check = |config: &str, code, expected: &str| Place::new(config).check("check", "", code, expected);
    check(
        CONFIG,
        0,
        "  domain  localhost: self-made certificate, registration closed\n  listen  127.0.0.1:0 (STARTTLS)\n",
    );
    check("", 2, "whinchat.toml: line 1: domain: no domain is served");
    check("[[domain]]\nname = \"a\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"", 2, "c.pem: cannot be read: ");
    Place::new("lgo = \"info\"\n[[domain]]\nname = \"a\"").check(
        "run",
        "",
        2,
        "line 1: lgo: there is no such key; the nearest is log",
    );
    Place::new("").check("check --config nowhere.toml", "", 2, "does not belong there");
}

#[test]
fn accounts_without_a_server() {
    let place = Place::new(CONFIG);
    place.check("user add juliet@localhost --password-stdin", "correct horse\n", 0, "juliet@localhost is added.");
    place.check("user add juliet@localhost", "correct horse\n", 1, "the name is taken");
    place.check("user add romeo@localhost", "x\n", 1, "fewer than");
    place.check("user add romeo", "correct horse\n", 2, "write romeo@localhost");
    place.check("user add romeo@example.org", "correct horse\n", 1, "not served here");
    place.check("user list", "", 0, "juliet@localhost\n");
    place.check("user list example.org", "", 2, "not served here");
    place.check("room list", "", 0, "");
    place.check("room list example.org", "", 2, "not served here");
    place.check("room show hall@conference.localhost", "", 1, "there is no such thing");
    place.check("room destroy hall@localhost", "", 1, "not a room of a service here");
    place.check("room affiliate hall@conference.localhost juliet@localhost king", "", 2, "owner, admin, member");
    place.check("room show localhost", "", 2, "is no room");
    place.check("status", "", 1, "no server is running");
    place.check("user remove juliet@localhost", "", 0, "juliet@localhost is removed");
    place.check("user passwd juliet@localhost", "correct horse\n", 1, "no such account");
}

#[test]
fn a_server_is_started_asked_and_ended() {
    let place = Place::new(CONFIG);
    let mut running = Running::start(&place);
    place.check("user add juliet@localhost", "correct horse\n", 0, "juliet@localhost is added.");
    place.check("user add juliet@localhost", "correct horse\n", 1, "the name is taken");
    place.check("user passwd juliet@localhost", "correct horse 2\n", 0, "new password");
    place.check("user list", "", 0, "juliet@localhost\n");
    place.check("room list", "", 0, "");
    place.check("room affiliate hall@conference.localhost juliet@localhost owner", "", 1, "there is no such thing");
    place.check("status", "", 0, "uptime_seconds");
    place.check("run", "", 1, "in use by another whinchat");
    assert!(place.0.join("data/admin.sock").exists());
    running.signal("-HUP");
    // What is asked behind it is answered behind it.
    place.check("status", "", 0, "sessions");
    running.signal("-TERM");
    running.wait_for("ended");
    assert_eq!(running.child.wait().expect("its end").code(), Some(0));
    assert!(!place.0.join("data/admin.sock").exists());
    place.check("user list", "", 0, "juliet@localhost\n");

    // The pair that it made for itself is one that `check` can read.
    let pair = |certificate: &str, key: &str| {
        let lines = format!("certificate = \"data/certificates/{certificate}\"\nkey = \"data/certificates/{key}\"\n");
        fs::write(place.0.join("whinchat.toml"), format!("{CONFIG}{lines}")).expect("a configuration");
    };
    pair("localhost.pem", "localhost.key");
    place.check("check", "", 0, "localhost: certificate valid until 20");
    pair("localhost.key", "localhost.pem");
    place.check("check", "", 2, "localhost.key: holds no certificate");
}

#[test]
fn a_killed_server_leaves_nothing_in_the_way() {
    let place = Place::new(CONFIG);
    let mut running = Running::start(&place);
    place.check("user add juliet@localhost", "correct horse\n", 0, "is added");
    running.child.kill().expect("killed");
    running.child.wait().expect("its end");
    place.check("user list", "", 0, "juliet@localhost\n");
    let again = Running::start(&place);
    place.check("user list", "", 0, "juliet@localhost\n");
    again.signal("-INT");
    let mut rest = String::new();
    let mut again = again;
    again.log.read_to_string(&mut rest).expect("a log");
    assert_eq!(again.child.wait().expect("its end").code(), Some(0), "{rest}");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    Place::new(&CONFIG.replace("127.0.0.1:0", &address)).check("run", "", 1, &format!("cannot listen on {address}: "));
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let place = Place::new(&CONFIG.replace("\"data\"", "\"whinchat.toml/data\""));
    place.check("run", "", 1, "cannot make the data directory");
}

#[test]
fn what_needs_no_configuration() {
    let check = |words: &[&str], code, expected: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_whinchat")).args(words).output().expect("the program");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(expected), "{words:?}: {said}");
    };
    check(&["--help"], 0, "whinchat user add ADDRESS");
    check(&["--version"], 0, concat!("whinchat ", env!("CARGO_PKG_VERSION")));
    check(&["features"], 0, "XEP-0199");
    check(&["frobnicate"], 2, "there is no command \"frobnicate\"");
    let missing = Path::new("/nonexistent/whinchat.toml");
    check(&["check", "--config", &missing.to_string_lossy()], 2, "cannot read /nonexistent/whinchat.toml");
}
