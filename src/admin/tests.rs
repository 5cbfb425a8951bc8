use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use super::client::{AskError, ask};
use super::server::AdminServer;
use super::*;

/// A directory of this test's own, removed with it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("whinchat-admin-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary directory");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn jid(text: &str) -> BareJid {
    BareJid::parse(text).expect("an address")
}

fn secret(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

#[test]
fn commands_survive_their_line() {
    let check = |command: Command, line: &str| {
        assert_eq!(encode(&command).as_str(), line);
        let decoded = decode(line).expect(line);
        assert_eq!(format!("{decoded:?}"), format!("{command:?}"));
        assert_eq!(encode(&decoded).as_str(), line);
    };
    let user = || jid("juliet@example.org");
    let hard = " a \\s\\ \r\n ü ";
    check(
        Command::UserAdd { user: user(), password: secret(hard) },
        "user-add juliet@example.org \\sa\\s\\\\s\\\\\\s\\r\\n\\sü\\s",
    );
    check(Command::UserPassword { user: user(), password: secret("") }, "user-passwd juliet@example.org ");
    check(Command::UserRemove { user: user() }, "user-remove juliet@example.org");
    check(Command::UserList { domain: "example.org".to_owned(), after: None, max: 7 }, "user-list example.org 7");
    check(
        Command::UserList { domain: "example.org".to_owned(), after: Some(user()), max: LIST_MAX },
        "user-list example.org 500 juliet@example.org",
    );
    check(
        Command::SendMessage { from: "example.org".to_owned(), to: "a@b".to_owned(), body: "Good night!\n".to_owned() },
        "send example.org a@b Good\\snight!\\n",
    );
    let room = || jid("hall@conference.example.org");
    let list = |after| Command::RoomList { domain: "example.org".to_owned(), after, max: 7 };
    check(list(None), "room-list example.org 7");
    check(list(Some(room())), "room-list example.org 7 hall@conference.example.org");
    check(Command::RoomShow { room: room() }, "room-show hall@conference.example.org");
    check(Command::RoomDestroy { room: room() }, "room-destroy hall@conference.example.org");
    let affiliate = Command::RoomAffiliate { room: room(), user: user(), to: Affiliation::Outcast };
    check(affiliate, "room-affiliate hall@conference.example.org juliet@example.org outcast");
    check(Command::Status, "status");
}

#[test]
fn other_lines_are_refused() {
    let check = |line: &str, expected: &str| {
        let reason = decode(line).map(|command| format!("{command:?}")).expect_err(line);
        assert!(reason.contains(expected), "{line:?}: {reason}");
    };
    check("", "does not know");
    check("reboot", "does not know");
    check("status now", "status with 1 arguments");
    check("user-add juliet@example.org", "user-add with 1 arguments");
    check("user-add a@b two words", "user-add with 3 arguments");
    check("user-add a@b x\\y", "escape");
    check("user-add a@b x\\", "escape");
    check("user-remove a\\sb@c", "no address");
    check("user-list example.org many", "number");
    check("user-list a 1 b@c d@e", "user-list with 4 arguments");
}

/// Serves one directory with the answers of a function, and passes on the commands it was given.
fn serve(data: &Path, answer: fn(&Command) -> Option<Answer>) -> (AdminServer, mpsc::Receiver<String>) {
    let (sender, commands) = mpsc::channel();
    let server = AdminServer::start(data, move |command| {
        sender.send(format!("{command:?}")).ok()?;
        answer(&command)
    });
    (server.expect("a socket"), commands)
}

#[test]
fn round_trips() {
    let directory = Directory::new();
    let (server, commands) = serve(&directory.0, |command| match command {
        Command::Status => Some(Answer::Status(vec![("connections", 3), ("uptime_seconds", 86_400)])),
        Command::UserList { .. } => Some(Answer::Users(vec![jid("a@example.org"), jid("b@example.org")])),
        Command::RoomList { .. } => {
            let room = |public| RoomItem { jid: jid("hall@c"), name: "The hall".to_owned(), public };
            Some(Answer::Rooms(vec![room(true), RoomItem { name: String::new(), ..room(false) }]))
        }
        Command::RoomShow { .. } => Some(Answer::Room(vec![("occupants", "2".to_owned()), ("name", String::new())])),
        Command::RoomDestroy { .. } | Command::RoomAffiliate { .. } => Some(Answer::Refused(StoreError::NotFound)),
        Command::UserAdd { .. } => Some(Answer::Refused(StoreError::Conflict)),
        Command::UserRemove { .. } => Some(Answer::Done),
        Command::UserPassword { .. } => Some(Answer::Invalid("The password is \"1 2\".\n".to_owned())),
        Command::SendMessage { .. } => None,
    });
    let mode = fs::metadata(socket_path(&directory.0)).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let check = |command: Command, expected: Result<&[&str], &str>| {
        let shown = format!("{command:?}");
        match (ask(&directory.0, &command), expected) {
            (Ok(lines), Ok(expected)) => assert_eq!(lines, expected, "{shown}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{shown}: {error}"),
            (found, expected) => panic!("{shown}: {found:?}, expected {expected:?}"),
        }
    };
    let user = jid("juliet@example.org");
    let list = Command::UserList { domain: "example.org".to_owned(), after: Some(user.clone()), max: 2 };
    let message = Command::SendMessage { from: String::new(), to: String::new(), body: String::new() };
    let rooms = Command::RoomList { domain: "example.org".to_owned(), after: None, max: 2 };
    check(rooms, Ok(&["hall@c The hall", "hall@c (hidden)"]));
    check(Command::RoomShow { room: jid("hall@c") }, Ok(&["occupants 2", "name "]));
    check(Command::RoomDestroy { room: jid("hall@c") }, Err("there is no such thing"));
    check(Command::Status, Ok(&["connections 3", "uptime_seconds 86400"]));
    check(list, Ok(&["a@example.org", "b@example.org"]));
    check(Command::UserAdd { user: user.clone(), password: secret("p w") }, Err("the name is taken"));
    check(Command::UserPassword { user: user.clone(), password: secret("1 2") }, Err("The password is \"1 2\".\n"));
    check(Command::UserRemove { user: user.clone() }, Ok(&[]));
    check(message, Err("ended before it answered"));
    check(Command::UserAdd { user, password: secret(&" ".repeat(REQUEST_BYTES_MAX)) }, Err("too long"));
    drop(server);
    let seen: Vec<_> = commands.iter().collect();
    assert_eq!(seen.len(), 9, "{seen:?}");
    assert!(matches!(ask(&directory.0, &Command::Status), Err(AskError::NotRunning)));
}

#[test]
fn hostile_clients_do_not_stop_the_next_one() {
    let directory = Directory::new();
    let (_server, _commands) = serve(&directory.0, |_| Some(Answer::Done));
    let check = |sent: &[u8], expected: &str| {
        let mut stream = UnixStream::connect(socket_path(&directory.0)).expect("a server");
        // The server may close before it has read everything.
        let _ = stream.write_all(sent);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        assert_eq!(String::from_utf8_lossy(&reply), expected);
        assert!(ask(&directory.0, &Command::Status).is_ok());
    };
    check(b"", "");
    check(b"status", "");
    check(
        b"\n",
        "error a\\srequest\\sthat\\sthis\\sserver\\sdoes\\snot\\sknow;\\sis\\sit\\sof\\sanother\\sversion\\sthan\\sthis\\sprogram?\n",
    );
    check(b"status\nstatus\n", "ok\n");
    check(b"\xff\xfe\n", "error a\\srequest\\sthat\\sis\\snot\\sUTF-8\n");
    check(&vec![b'x'; REQUEST_BYTES_MAX], "");
    check(&vec![0; 10 * REQUEST_BYTES_MAX], "");
}

#[test]
fn only_a_socket_that_nobody_serves_is_replaced() {
    let directory = Directory::new();
    let start = || AdminServer::start(&directory.0, |_| Some(Answer::Done)).map(drop).map_err(|error| error.kind());
    let path = socket_path(&directory.0);
    assert_eq!(start(), Ok(()));
    assert!(!path.exists());
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists(), "a killed server leaves its socket behind");
    assert_eq!(start(), Ok(()));
    let (server, _commands) = serve(&directory.0, |_| Some(Answer::Done));
    assert_eq!(start(), Err(std::io::ErrorKind::AddrInUse));
    assert!(ask(&directory.0, &Command::Status).is_ok());
    drop(server);
    fs::write(&path, "precious").expect("a file");
    assert_eq!(start(), Err(std::io::ErrorKind::AlreadyExists));
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}
