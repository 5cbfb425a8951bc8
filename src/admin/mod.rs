//! The admin socket: how `whinchat user …` and `whinchat status` reach a running server.
//!
//! A Unix socket `admin.sock` (mode 0600) in the data directory. Who may open it may do everything; there is no other check. A
//! connection carries one request and its reply, both text:
//!
//! ```text
//! request = verb *( SP argument ) LF            at most REQUEST_BYTES_MAX bytes
//! reply   = *( "= " text LF ) ( "ok" LF / "error " text LF )
//!
//! user-add JID PASSWORD | user-passwd JID PASSWORD | user-remove JID | user-list DOMAIN MAX [AFTER]
//! room-list DOMAIN MAX [AFTER] | room-show JID | room-destroy JID | room-affiliate JID JID AFFILIATION
//! send FROM TO BODY | status                    one line "= name value" for each counter
//! ```
//!
//! In arguments and texts `\s` is a space, `\n` a line feed, `\r` a carriage return and `\\` a backslash. A client that finds no
//! "ok" or "error" at the end knows that the server ended before it answered.
//!
//! [`answer_offline`] carries out the same commands on a store that no server has open, through the same [`Core`], so that the
//! rules for addresses and passwords are those of the running server.

pub mod client;
pub mod server;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use crate::config::Config;
use crate::core::rooms::{Affiliation, RoomItem};
use crate::core::{Answer, Command, CommandId, Core, Input, Now, Outputs, Seeds, StoreError, UtcTime};
use crate::jid::BareJid;
use crate::store::Store;

/// Bytes of a request. Holds the longest address and password there is, every byte escaped.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// The most accounts that one `user-list` names, or rooms that one `room-list` does.
pub const LIST_MAX: usize = 500;

/// Where the socket of a data directory is.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("admin.sock")
}

/// The request line for a command, without its line feed. Zeroized, since it may hold a password.
fn encode(command: &Command) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(REQUEST_BYTES_MAX));
    let mut add = |verb: &str, arguments: &[&str]| {
        line.push_str(verb);
        for argument in arguments {
            line.push(' ');
            escape(argument, &mut line);
        }
    };
    match command {
        Command::UserAdd { user, password } => add("user-add", &[user.as_str(), password]),
        Command::UserPassword { user, password } => add("user-passwd", &[user.as_str(), password]),
        Command::UserRemove { user } => add("user-remove", &[user.as_str()]),
        Command::UserList { domain, after: None, max } => add("user-list", &[domain, &max.to_string()]),
        Command::UserList { domain, after: Some(after), max } => {
            add("user-list", &[domain, &max.to_string(), after.as_str()]);
        }
        Command::RoomList { domain, after: None, max } => add("room-list", &[domain, &max.to_string()]),
        Command::RoomList { domain, after: Some(after), max } => {
            add("room-list", &[domain, &max.to_string(), after.as_str()]);
        }
        Command::RoomShow { room } => add("room-show", &[room.as_str()]),
        Command::RoomDestroy { room } => add("room-destroy", &[room.as_str()]),
        Command::RoomAffiliate { room, user, to } => {
            add("room-affiliate", &[room.as_str(), user.as_str(), to.name()]);
        }
        Command::SendMessage { from, to, body } => add("send", &[from, to, body]),
        Command::Status => add("status", &[]),
    }
    line
}

/// A command from its request line.
///
/// # Errors
/// A sentence for the operator.
fn decode(line: &str) -> Result<Command, String> {
    let mut words = line.split(' ');
    let verb = words.next().unwrap_or_default();
    let arguments = words.map(unescape).collect::<Option<Vec<_>>>().ok_or("an escape that does not exist")?;
    let arguments: Vec<&str> = arguments.iter().map(|argument| argument.as_str()).collect();
    let password = |text: &str| Zeroizing::new(text.to_owned());
    Ok(match (verb, &arguments[..]) {
        ("user-add", [user, secret]) => Command::UserAdd { user: account(user)?, password: password(secret) },
        ("user-passwd", [user, secret]) => Command::UserPassword { user: account(user)?, password: password(secret) },
        ("user-remove", [user]) => Command::UserRemove { user: account(user)? },
        ("user-list", [domain, max, after @ ..]) if after.len() < 2 => Command::UserList {
            domain: (*domain).to_owned(),
            after: after.first().map(|after| account(after)).transpose()?,
            max: max.parse::<usize>().map_err(|_| "a number that is none")?.min(LIST_MAX),
        },
        ("room-list", [domain, max, after @ ..]) if after.len() < 2 => Command::RoomList {
            domain: (*domain).to_owned(),
            after: after.first().map(|after| account(after)).transpose()?,
            max: max.parse::<usize>().map_err(|_| "a number that is none")?.min(LIST_MAX),
        },
        ("room-show", [room]) => Command::RoomShow { room: account(room)? },
        ("room-destroy", [room]) => Command::RoomDestroy { room: account(room)? },
        ("room-affiliate", [room, user, to]) => Command::RoomAffiliate {
            room: account(room)?,
            user: account(user)?,
            to: Affiliation::named(to).ok_or("an affiliation is one of owner, admin, member, none, outcast")?,
        },
        ("send", [from, to, body]) => {
            Command::SendMessage { from: (*from).to_owned(), to: (*to).to_owned(), body: (*body).to_owned() }
        }
        ("status", []) => Command::Status,
        (
            "user-add" | "user-passwd" | "user-remove" | "user-list" | "room-list" | "room-show" | "room-destroy"
            | "room-affiliate" | "send" | "status",
            _,
        ) => {
            return Err(format!("{verb} with {} arguments", arguments.len()));
        }
        _ => {
            return Err(
                "a request that this server does not know; is it of another version than this program?".to_owned()
            );
        }
    })
}

fn account(text: &str) -> Result<BareJid, String> {
    BareJid::parse(text).map_err(|error| format!("{text:?} is no address: {error}"))
}

/// What an answer says: its lines, or why it was not done.
fn spell(answer: Answer) -> Result<Vec<String>, String> {
    match answer {
        Answer::Done => Ok(Vec::new()),
        Answer::Users(users) => Ok(users.iter().map(|user| user.as_str().to_owned()).collect()),
        Answer::Rooms(rooms) => {
            let line = |room: &RoomItem| {
                let hidden = if room.public { "" } else { "(hidden)" };
                let words = [room.jid.as_str(), room.name.as_str(), hidden];
                words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
            };
            Ok(rooms.iter().map(line).collect())
        }
        Answer::Room(lines) => Ok(lines.iter().map(|(name, value)| format!("{name} {value}")).collect()),
        Answer::Status(counters) => Ok(counters.iter().map(|(name, value)| format!("{name} {value}")).collect()),
        Answer::Invalid(reason) => Err(reason),
        Answer::Refused(error) => Err(match error {
            StoreError::NoAccount => "there is no such account",
            StoreError::Conflict => "the name is taken, or it was and stays reserved",
            StoreError::NotFound => "there is no such thing",
            StoreError::Full => "a limit of the configuration is reached",
            StoreError::DiskFull => "the disk is full; make room and try again",
            StoreError::Failed => "the disk failed; the server's log says more",
        }
        .to_owned()),
    }
}

/// Carries out a command on a store that no server has open.
///
/// # Errors
/// Why it was not done, as a sentence for the operator.
pub fn answer_offline(
    config: &Config,
    store: &mut (impl Store + ?Sized),
    command: Command,
) -> Result<Vec<String>, String> {
    // A core without connections draws nothing, so its random numbers need not be any.
    let seeds = Seeds { random: [0; 32], installation: store.secret() };
    let mut core = Core::new(config, seeds, true);
    let mut out = Outputs::default();
    let started = Instant::now();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let utc = UtcTime(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX));
    let now = || Now { mono: started.elapsed(), utc };
    let _ = core.step(now(), Input::Command { id: CommandId(0), command }, &mut out);
    while !out.store.is_empty() {
        let (tickets, requests): (Vec<_>, Vec<_>) = out.store.drain(..).unzip();
        for (ticket, reply) in tickets.into_iter().zip(store.apply(&requests)) {
            let _ = core.step(now(), Input::Stored { ticket, reply }, &mut out);
        }
    }
    match out.answers.pop() {
        Some((_, answer)) => spell(answer),
        None => Err("nothing answered; this is a mistake in the program".to_owned()),
    }
}

/// Appends a text without spaces and line ends.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            ' ' => out.push_str("\\s"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
}

/// Undoes [`escape`]; `None` for an escape that does not exist.
fn unescape(text: &str) -> Option<Zeroizing<String>> {
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next()? {
                's' => ' ',
                'n' => '\n',
                'r' => '\r',
                '\\' => '\\',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests;
