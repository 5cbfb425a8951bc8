//! Plays scripts against a `Core`: see `tests/scripts/README.md` for what a script says.

mod client;
mod machine;
mod script;
mod xml;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use whinchat::auth::PasswordScheme;
use whinchat::config::Config;
use whinchat::core::rooms::Affiliation;
use whinchat::core::{Answer, Command, ListenerKind, StoreError};
use whinchat::jid::BareJid;
use zeroize::Zeroizing;

use client::{Client, Item};
use machine::{Machine, PASSWORD};
pub use machine::{Medium, Pace};
use script::{Expected, Login, Script, Step};
use xml::{Node, SASL, Source, Variables};

/// Plays one script.
///
/// # Errors
/// File and line, what was expected there and what came, and how it was played.
pub fn play(path: &Path, medium: Medium, pace: Pace) -> Result<(), String> {
    report(path, medium, pace, Player::play)
}

/// Plays one script, in pieces, while commits fail and sockets are lost by the same seed. What comes then need not be what the
/// script says, but it is XMPP, nothing panics, and the core's own checks hold.
///
/// # Errors
/// As [`play`].
pub fn trouble(path: &Path, seed: u64) -> Result<(), String> {
    report(path, Medium::Memory, Pace::Pieces(seed), Player::play_in_trouble)
}

/// All that is announced once a script has come to its first section: by service discovery at each of `places`, a name and an
/// address, and by the features of streams before TLS, before log-in and behind it. Each is a place, a colon, a space and the
/// namespace, or the element's name in a stream.
///
/// # Errors
/// As [`play`].
pub fn announced(path: &Path, places: &[(&str, &str)]) -> Result<BTreeSet<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let script = script::parse(&text).map_err(|(line, error)| format!("{}:{line}: {error}", path.display()))?;
    let mut player = Player::new(&script, Medium::Memory, Pace::Whole, &Cell::new(0))?;
    for (line, step) in script.steps.iter().take_while(|(_, step)| !matches!(step, Step::Section)) {
        player.step(step).map_err(|error| format!("{}:{line}: {error}", path.display()))?;
    }
    let mut found = BTreeSet::new();
    let Player { machine, clients, .. } = &mut player;
    let machine = machine.as_mut().expect("there is a machine");
    let client = clients.get_mut("").ok_or("there is no client without a name")?;
    for (place, address) in places {
        let (to, node) = address.split_once('?').unwrap_or((address, ""));
        let node = if node.is_empty() { String::new() } else { format!(" node='{node}'") };
        let query = format!("<query xmlns='http://jabber.org/protocol/disco#info'{node}/>");
        let told = client.ask(machine, to, &query)?;
        let features = told.elements().filter(|node| node.name == "feature").filter_map(|node| node.attr("var"));
        found.extend(features.map(|feature| format!("{place}: {feature}")));
    }
    for (place, listener) in [("clear", ListenerKind::StartTls), ("login", ListenerKind::Tls)] {
        let mut stream = Client::connect(machine, listener);
        let features = stream.open_stream(machine, "capulet.test")?;
        found.extend(features.elements().map(|feature| format!("{place}: {}", feature.name)));
        let Some(login) = features.child("authentication") else { continue };
        let bind = login.child("inline").and_then(|inline| inline.child("bind")).and_then(|bind| bind.child("inline"));
        for (place, list) in [("inline", login.child("inline")), ("bind", bind)] {
            let name = |feature: &Node| feature.attr("var").unwrap_or(&feature.name).to_owned();
            found
                .extend(list.into_iter().flat_map(Node::elements).map(|feature| format!("{place}: {}", name(feature))));
        }
        stream.send(machine, &format!("<auth xmlns='{SASL}' mechanism='PLAIN'>AGp1bGlldABzZWNyZXQ=</auth>"));
        stream.next(machine)?;
        let features = stream.open_stream(machine, "capulet.test")?;
        found.extend(features.elements().map(|feature| format!("authed: {}", feature.name)));
    }
    Ok(found)
}

type Play = fn(Player, &Script, &Cell<usize>) -> Result<(), String>;

fn report(path: &Path, medium: Medium, pace: Pace, play: Play) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let line = Cell::new(0);
    let played = catch_unwind(AssertUnwindSafe(|| {
        let script = script::parse(&text).map_err(|(number, error)| {
            line.set(number);
            error
        })?;
        play(Player::new(&script, medium, pace, &line)?, &script, &line)
    }));
    let error = match played {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            format!("panic: {}", message.unwrap_or("without a message"))
        }
    };
    let shown = text.lines().nth(line.get().saturating_sub(1)).unwrap_or_default();
    Err(format!("{}:{}: {shown}\n  {error}\n  played {pace:?} on {medium:?}", path.display(), line.get()))
}

struct Player {
    /// Taken out for a restart only.
    machine: Option<Machine>,
    clients: BTreeMap<String, Client>,
    variables: Variables,
    /// Accounts that were made here, with their passwords.
    accounts: BTreeMap<String, String>,
}

impl Player {
    fn new(script: &Script, medium: Medium, pace: Pace, line: &Cell<usize>) -> Result<Player, String> {
        let config = configure(script, line)?;
        Ok(Player {
            machine: Some(Machine::new(config, medium, pace)),
            clients: BTreeMap::new(),
            variables: Variables::new(),
            accounts: BTreeMap::new(),
        })
    }

    fn machine(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("there is a machine but for the moment of a restart")
    }

    fn play(mut self, script: &Script, line: &Cell<usize>) -> Result<(), String> {
        for (number, step) in &script.steps {
            line.set(*number);
            self.step(step)?;
        }
        self.all_was_expected()
    }

    fn play_in_trouble(mut self, script: &Script, line: &Cell<usize>) -> Result<(), String> {
        for (number, step) in &script.steps {
            line.set(*number);
            let chance = self.machine().chance(32);
            let unlucky = self.clients.values().nth(chance as usize).map(|client| client.conn);
            match (chance, unlucky) {
                (30 | 31, _) => self.machine().fail_store(StoreError::Failed),
                (_, Some(conn)) if chance < 2 => self.machine().hang_up(conn),
                _ => {}
            }
            match self.step(step) {
                Err(error) if error.starts_with(client::MALFORMED) => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Section => self.all_was_expected()?,
            Step::Client(login) => self.log_in(login)?,
            Step::Connect { name, listener } => {
                let client = Client::connect(self.machine(), *listener);
                self.add(name, client)?;
            }
            Step::Tls { name } => {
                let conn = self.client(name)?.conn;
                if self.machine().conn(conn).state != machine::State::Handshake {
                    return Err("the server has not ordered TLS".into());
                }
                self.machine().secure(conn);
            }
            Step::Close { name } => {
                let conn = self.client(name)?.conn;
                self.machine().hang_up(conn);
                self.nothing_more(name)?;
                self.clients.remove(name);
            }
            Step::Stall { name, on } => {
                let conn = self.client(name)?.conn;
                self.machine().conn(conn).stalled = *on;
                self.machine().settle();
            }
            Step::Account { jid, password } => {
                let made = self.create(jid, password);
                made.map_err(|error| format!("not created: {error:?}"))?;
            }
            Step::Send { name, text } => self.send(name, text)?,
            Step::Expect { name, expected } => self.expect(name, expected)?,
            Step::Advance(by) => self.machine().advance(*by),
            Step::Restart(rounds) => self.restart(*rounds)?,
            Step::FailStore(error) => self.machine().fail_store(*error),
            Step::StallStore(on) => self.machine().stall_store(*on),
            Step::StallTurns(on) => self.machine().stall_turns(*on),
            Step::Turn(count) => self.machine().turn(*count)?,
            Step::Commit(count) => self.machine().commit(*count)?,
            Step::Command(words) => self.command(words)?,
            Step::Answer(expected) => self.answer(expected)?,
        }
        Ok(())
    }

    fn client(&mut self, name: &str) -> Result<&mut Client, String> {
        self.clients.get_mut(name).ok_or(format!("there is no client '{name}'"))
    }

    /// A name may be used again when the connection that had it is closed.
    fn add(&mut self, name: &str, client: Client) -> Result<(), String> {
        if self.clients.contains_key(name) {
            let conn = self.client(name)?.conn;
            if self.machine().conn(conn).state != machine::State::Closed {
                return Err(format!("client '{name}' is still connected"));
            }
            self.nothing_more(name)?;
        }
        self.clients.insert(name.to_owned(), client);
        Ok(())
    }

    fn create(&mut self, jid: &str, password: &str) -> Result<(), StoreError> {
        let at = self.machine().utc();
        self.machine().store(machine::create(jid, password, at))?;
        self.accounts.insert(jid.to_owned(), password.to_owned());
        Ok(())
    }

    fn log_in(&mut self, login: &Login) -> Result<(), String> {
        let bare = login.jid.split('/').next().unwrap_or_default().to_owned();
        if login.password.is_none() && !self.accounts.contains_key(&bare) {
            match self.create(&bare, PASSWORD) {
                Ok(()) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(format!("no account: {error:?}")),
            }
        }
        let known = self.accounts.get(&bare).map_or(PASSWORD, String::as_str);
        let password = login.password.as_deref().unwrap_or(known).to_owned();
        let client = Client::log_in(self.machine(), login, &password)?;
        self.add(&login.name, client)
    }

    fn send(&mut self, name: &str, text: &str) -> Result<(), String> {
        let bytes = xml::expand(&xml::substitute(text, &self.variables)?, &self.variables)?;
        let conn = self.client(name)?.conn;
        if self.machine().conn(conn).state != machine::State::Open {
            return Err(format!("the connection is {:?}", self.machine().conn(conn).state));
        }
        self.machine().deliver(conn, &bytes);
        Ok(())
    }

    fn expect(&mut self, name: &str, expected: &Expected) -> Result<(), String> {
        let Player { machine, clients, variables, .. } = self;
        let machine = machine.as_mut().expect("there is a machine");
        let client = clients.get_mut(name).ok_or(format!("there is no client '{name}'"))?;
        let came = client.next(machine)?;
        let told = came.as_ref().map_or("nothing", Item::text).to_owned();
        match (expected, came) {
            (Expected::Nothing, None) | (Expected::Footer, Some(Item::Footer)) => Ok(()),
            (Expected::Closed, None) if client.is_closed(machine) => Ok(()),
            (Expected::Closed, None) => Err("the connection is open".into()),
            (Expected::Xml(text), Some(Item::Xml(came, _))) => {
                let text = String::from_utf8(xml::expand(text, variables)?).map_err(|error| error.to_string())?;
                let expected = Node::parse(&text, Source::Script)?;
                xml::compare(&expected, &came, client.own(), variables)
                    .map_err(|error| format!("{error}\n  came: {told}"))
            }
            _ => Err(format!("came: {told}")),
        }
    }

    fn nothing_more(&mut self, name: &str) -> Result<(), String> {
        self.expect(name, &Expected::Nothing).map_err(|error| format!("client '{name}': not expected: {error}"))
    }

    fn all_was_expected(&mut self) -> Result<(), String> {
        for name in self.clients.keys().cloned().collect::<Vec<_>>() {
            self.nothing_more(&name).map_err(|error| format!("before this line: {error}"))?;
        }
        if let Some(answer) = self.machine().answers.pop_front() {
            return Err(format!("before this line: an answer that was not expected: {}", told(&answer)));
        }
        if self.machine().failure_is_due() {
            return Err("before this line: the store was to fail and was not used".into());
        }
        Ok(())
    }

    fn restart(&mut self, rounds: Option<u32>) -> Result<(), String> {
        self.all_was_expected()?;
        self.clients.clear();
        self.machine = self.machine.take().map(|machine| machine.restart(rounds));
        Ok(())
    }

    fn command(&mut self, words: &[String]) -> Result<(), String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let user = |jid: &str| BareJid::parse(jid).map_err(|error| format!("{jid}: {error}"));
        let secret = |password: &str| Zeroizing::new(password.to_owned());
        let command = match words.as_slice() {
            ["user_add", jid, password] => Command::UserAdd { user: user(jid)?, password: secret(password) },
            ["user_password", jid, password] => Command::UserPassword { user: user(jid)?, password: secret(password) },
            ["user_remove", jid] => Command::UserRemove { user: user(jid)? },
            ["user_list", domain] => Command::UserList { domain: (*domain).to_owned(), after: None, max: 100 },
            ["user_list", domain, after, max] => Command::UserList {
                domain: (*domain).to_owned(),
                after: Some(user(after)?),
                max: max.parse().map_err(|_| "no number")?,
            },
            ["room_list", domain] => Command::RoomList { domain: (*domain).to_owned(), after: None, max: 100 },
            ["room_list", domain, after, max] => Command::RoomList {
                domain: (*domain).to_owned(),
                after: Some(user(after)?),
                max: max.parse().map_err(|_| "no number")?,
            },
            ["room_show", room] => Command::RoomShow { room: user(room)? },
            ["room_destroy", room] => Command::RoomDestroy { room: user(room)? },
            ["room_affiliate", room, jid, to] => {
                let to = Affiliation::named(to).ok_or("no affiliation")?;
                Command::RoomAffiliate { room: user(room)?, user: user(jid)?, to }
            }
            ["send_message", from, to, body @ ..] => {
                Command::SendMessage { from: (*from).to_owned(), to: (*to).to_owned(), body: body.join(" ") }
            }
            ["status"] => Command::Status,
            ["shutdown"] => {
                self.machine().shut_down();
                return Ok(());
            }
            _ => return Err("no such command".into()),
        };
        self.machine().command(command);
        Ok(())
    }

    /// Of counters only those that are named must be equal.
    fn answer(&mut self, expected: &str) -> Result<(), String> {
        let answer = self.machine().answers.pop_front().ok_or("there is no answer")?;
        let came = told(&answer).trim_end().to_owned();
        let equal = match (&answer, expected.strip_prefix("status ")) {
            (Answer::Room(_), _) => {
                let named = expected.strip_prefix("room ").unwrap_or("?");
                named.split(" | ").all(|one| came.split(" | ").any(|other| one == other.trim_start_matches("room ")))
            }
            (Answer::Status(_), Some(named)) => named.split(' ').all(|one| came.split(' ').any(|other| one == other)),
            _ => came == expected || expected == "invalid *" && matches!(answer, Answer::Invalid(_)),
        };
        if equal { Ok(()) } else { Err(format!("came: {came}")) }
    }
}

/// An answer as scripts write it.
fn told(answer: &Answer) -> String {
    match answer {
        Answer::Done => "done".to_owned(),
        Answer::Users(users) => format!("users {}", users.iter().map(BareJid::as_str).collect::<Vec<_>>().join(" ")),
        Answer::Rooms(rooms) => {
            format!("rooms {}", rooms.iter().map(|room| room.jid.as_str()).collect::<Vec<_>>().join(" "))
        }
        Answer::Room(lines) => {
            format!(
                "room {}",
                lines.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" | ")
            )
        }
        Answer::Status(counters) => {
            let counters: Vec<String> = counters.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("status {}", counters.join(" "))
        }
        Answer::Refused(error) => format!("refused {error:?}"),
        Answer::Invalid(reason) => format!("invalid {reason}"),
    }
}

/// The configuration that a script's first lines ask for: `domains` and the keys of every domain, keys of the
/// file's top, and else of its `[limits]`. Rates are off unless it says otherwise, and passwords are
/// hashed once only: thousands of times would take most of the tests' time.
fn configure(script: &Script, line: &Cell<usize>) -> Result<Config, String> {
    let mut domains = "capulet.test,montague.test,example.test";
    let mut registration = "open";
    // A script about something else need not name the ids of an archive in every message.
    let mut archive = "false";
    let mut contacts = String::new();
    let mut top = BTreeMap::<&str, String>::new();
    let mut limits = BTreeMap::from([("rates", "false".to_owned())]);
    for (number, key, value) in &script.config {
        line.set(*number);
        let bare = value.parse::<i64>().is_ok() || matches!(value.as_str(), "true" | "false");
        let toml = if bare { value.clone() } else { format!("{value:?}") };
        match key.as_str() {
            "domains" => domains = value,
            "registration" => registration = value,
            "archive" => archive = value,
            "contacts" => contacts += &format!("contacts = {value}\n"),
            "admins" | "services" | "services_secret" | "services_time" => contacts += &format!("{key} = {value}\n"),
            "rooms" | "rooms_name" | "shared_contacts" => contacts += &format!("{key} = {toml}\n"),
            "password_hash" | "scram_iterations" | "scrypt_log_n" => drop(top.insert(key, toml)),
            _ => drop(limits.insert(key, toml)),
        }
    }
    let lines = |table: &BTreeMap<&str, String>| -> String {
        table.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
    };
    let mut text = format!("{}[limits]\n{}", lines(&top), lines(&limits));
    for domain in domains.split(',') {
        text +=
            &format!("[[domain]]\nname = {domain:?}\nregistration = {registration:?}\narchive = {archive}\n{contacts}");
    }
    let mut config =
        Config::parse(&text, Path::new("/nonexistent")).map_err(|mistakes| format!("{mistakes:?} in\n{text}"))?;
    if top.is_empty() {
        config.password_scheme = PasswordScheme::Scram { iterations: 1 };
    }
    Ok(config)
}
