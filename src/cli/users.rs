//! `whinchat user …`: asks the running server, or opens the store itself where none runs.

use std::io::{self, BufRead, IsTerminal};

use whinchat::admin::client::{AskError, ask};
use whinchat::admin::{LIST_MAX, answer_offline};
use whinchat::auth::Prepared;
use whinchat::config::Config;
use whinchat::core::Command;
use whinchat::jid::BareJid;
use whinchat::store::{RedbStore, journal_path};
use zeroize::Zeroizing;

use super::arguments::UserAction;
use super::data::{DataDirectory, hand_over};
use super::{Failure, Loaded, print};

/// Bytes read for a password, which is more than one may have.
const PASSWORD_INPUT_BYTES: u64 = 4096;

pub fn carry_out(loaded: &Loaded, action: UserAction) -> Result<(), Failure> {
    let mut accounts = Accounts::new(&loaded.config);
    match action {
        UserAction::Add { user, password_stdin } => {
            let user = parse_user(&user, &loaded.config)?;
            let password = read_password(&user, password_stdin)?;
            accounts.ask(Command::UserAdd { user: user.clone(), password })?;
            print(&format!("{user} is added.\n"));
        }
        UserAction::Password { user, password_stdin } => {
            let user = parse_user(&user, &loaded.config)?;
            let password = read_password(&user, password_stdin)?;
            accounts.ask(Command::UserPassword { user: user.clone(), password })?;
            print(&format!("{user} has a new password.\n"));
        }
        UserAction::Remove { user } => {
            let user = parse_user(&user, &loaded.config)?;
            accounts.ask(Command::UserRemove { user: user.clone() })?;
            print(&format!("{user} is removed; the name stays reserved.\n"));
        }
        UserAction::List { domain } => list(&mut accounts, domain)?,
    }
    Ok(())
}

/// Prints the accounts of a domain, or of every one.
fn list(accounts: &mut Accounts<'_>, domain: Option<String>) -> Result<(), Failure> {
    for domain in domains(accounts.config, domain)? {
        let mut after = None;
        loop {
            let users = accounts.ask(Command::UserList { domain: domain.clone(), after, max: LIST_MAX })?;
            print(&users.iter().map(|user| format!("{user}\n")).collect::<String>());
            after = match users.last() {
                Some(last) if users.len() >= LIST_MAX => Some(parse_user(last, accounts.config)?),
                _ => break,
            };
        }
    }
    Ok(())
}

/// The domain that was named, else all.
pub(super) fn domains(config: &Config, named: Option<String>) -> Result<Vec<String>, Failure> {
    let served = config.domains.iter().map(|served| served.name.clone());
    match named {
        None => Ok(served.collect()),
        Some(domain) => {
            let prepared = whinchat::jid::prepare_domain(&domain);
            let name = prepared.map_err(|error| Failure::usage(format_args!("{domain:?} is no domain: {error}")))?;
            if !served.into_iter().any(|served| served == name) {
                return Err(Failure::usage(format_args!("the domain {name} is not served here")));
            }
            Ok(vec![name.into_owned()])
        }
    }
}

/// The way to what the store has.
pub(super) struct Accounts<'c> {
    config: &'c Config,
    /// The store with the right to it, once it turned out that no server runs.
    opened: Option<(RedbStore, DataDirectory)>,
}

impl<'c> Accounts<'c> {
    pub(super) fn new(config: &'c Config) -> Accounts<'c> {
        Accounts { config, opened: None }
    }

    pub(super) fn ask(&mut self, command: Command) -> Result<Vec<String>, Failure> {
        if self.opened.is_none() {
            match ask(&self.config.data, &command) {
                Err(AskError::NotRunning) => {}
                Err(error @ AskError::Failed(_)) => {
                    let data = self.config.data.display();
                    return Err(Failure::runtime(format_args!("{error}; run as root, or as the owner of {data}")));
                }
                other => return other.map_err(Failure::runtime),
            }
        }
        let (store, _) = match &mut self.opened {
            Some(opened) => opened,
            None => self.opened.insert(open(self.config)?),
        };
        answer_offline(self.config, store, command).map_err(Failure::runtime)
    }
}

fn open(config: &Config) -> Result<(RedbStore, DataDirectory), Failure> {
    let directory = DataDirectory::take(&config.data)?;
    let path = config.store_path();
    let store = RedbStore::open(&path, config).map_err(Failure::runtime)?;
    hand_over(&path, &config.data);
    hand_over(&journal_path(&path), &config.data);
    Ok((store, directory))
}

pub(super) fn parse_user(text: &str, config: &Config) -> Result<BareJid, Failure> {
    let user = BareJid::parse(text).map_err(|error| Failure::usage(format_args!("{text:?} is no address: {error}")))?;
    if user.local().is_none() {
        let domain = config.domains.first().map_or("example.org", |domain| &domain.name);
        return Err(Failure::usage(format_args!("{text:?} is no account; write {text}@{domain}")));
    }
    Ok(user)
}

/// Asks for a new password twice without showing it, or takes the first line of standard input.
fn read_password(user: &BareJid, from_stdin: bool) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: io::Error| Failure::runtime(format_args!("the password cannot be read: {error}"));
    let password = if from_stdin || !io::stdin().is_terminal() {
        first_line(io::stdin().lock()).map_err(failed)?
    } else {
        let ask = |question: String| rpassword::prompt_password(question).map(Zeroizing::new).map_err(failed);
        let password = ask(format!("New password of {user}: "))?;
        if *ask("The same again: ".to_owned())? != *password {
            return Err(Failure::runtime("the two are not the same; nothing is changed"));
        }
        password
    };
    Prepared::chosen(&password).map_err(Failure::runtime)?;
    Ok(password)
}

fn first_line(input: impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(4096));
    input.take(PASSWORD_INPUT_BYTES).read_line(&mut line)?;
    let end = line.strip_suffix('\n').map_or(line.len(), |rest| rest.strip_suffix('\r').unwrap_or(rest).len());
    line.truncate(end);
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines() {
        let check = |input: &str, expected: &str| {
            assert_eq!(first_line(input.as_bytes()).expect("readable").as_str(), expected);
        };
        check("", "");
        check("secret", "secret");
        check("secret\n", "secret");
        check("secret\r\nmore\n", "secret");
        check(" two words \n", " two words ");
        check(&"x".repeat(5000), &"x".repeat(4096));
    }

    #[test]
    fn users() {
        let config = Config::try_out();
        let check = |text: &str, expected: Result<&str, &str>| match (parse_user(text, &config), expected) {
            (Ok(user), Ok(expected)) => assert_eq!(user.as_str(), expected),
            (Err(failure), Err(expected)) => assert!(failure.text.contains(expected), "{}", failure.text),
            (found, _) => panic!("{text}: {found:?}"),
        };
        check("Juliet@LOCALHOST", Ok("juliet@localhost"));
        check("juliet", Err("write juliet@localhost"));
        check("juliet@localhost/balcony", Err("no address"));
        check("a b@localhost", Err("no address"));
    }

    /// The whole way without a server: what was written is there for the next process.
    #[test]
    fn accounts_without_a_server() {
        let mut config = Config::try_out();
        config.data = std::env::temp_dir().join(format!("whinchat-users-{}", std::process::id()));
        let ask = |command| Accounts { config: &config, opened: None }.ask(command).map_err(|failure| failure.text);
        let user = || BareJid::parse("juliet@localhost").expect("an address");
        let password = |text: &str| Zeroizing::new(text.to_owned());
        let list = || Command::UserList { domain: "localhost".to_owned(), after: None, max: LIST_MAX };
        assert_eq!(ask(list()), Ok(vec![]));
        assert_eq!(ask(Command::UserAdd { user: user(), password: password("correct horse") }), Ok(vec![]));
        assert_eq!(ask(list()), Ok(vec!["juliet@localhost".to_owned()]));
        let refused = |command, expected: &str| {
            let reason = ask(command).expect_err("refused");
            assert!(reason.contains(expected), "{reason}");
        };
        refused(Command::UserAdd { user: user(), password: password("correct horse") }, "taken");
        let foreign = BareJid::parse("juliet@example.org").expect("an address");
        refused(Command::UserAdd { user: foreign, password: password("correct horse") }, "not served");
        refused(Command::UserPassword { user: user(), password: password("x") }, "fewer than");
        assert_eq!(ask(Command::UserPassword { user: user(), password: password("battery staple") }), Ok(vec![]));
        assert_eq!(ask(Command::UserRemove { user: user() }), Ok(vec![]));
        refused(Command::UserRemove { user: user() }, "no such account");
        assert_eq!(ask(list()), Ok(vec![]));
        std::fs::remove_dir_all(&config.data).expect("removed");
    }
}
