//! The command line.

use std::path::PathBuf;

use pico_args::Arguments;
use whinchat::core::rooms::Affiliation;

use super::Failure;

pub const HELP: &str = "\
Whinchat: an XMPP (Jabber) chat server for small machines

Usage:
  whinchat [run]                   run the server
  whinchat check                   read the configuration and tell every mistake
  whinchat user add ADDRESS        make an account; asks for its password
  whinchat user passwd ADDRESS     change a password; ends the account's sessions
  whinchat user remove ADDRESS     remove an account with all it has
  whinchat user list [DOMAIN]      list accounts
  whinchat room list [DOMAIN]      list rooms, hidden ones too
  whinchat room show ROOM          tell what a room is, who has a say in it, who is in it
  whinchat room destroy ROOM       end a room
  whinchat room affiliate ROOM ADDRESS owner|admin|member|none|outcast
                                   say what an account is to a room
  whinchat status                  show the counters of the running server
  whinchat features                list what the server speaks
  whinchat --help | --version

Options:
  --config FILE      the configuration; otherwise /etc/whinchat/whinchat.toml
  --password-stdin   read the password from the first line of standard input

Without any configuration the server runs as a try-out: domain localhost, reachable
from this machine only, data in ./whinchat-data.

SIGTERM and SIGINT end the server in order, SIGHUP makes it read its certificates
again. The user and room commands work whether the server runs or not.

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    Help,
    Version,
    Run { config: Option<PathBuf> },
    Check { config: Option<PathBuf> },
    Features,
    Status { config: Option<PathBuf> },
    Room { config: Option<PathBuf>, action: RoomAction },
    User { config: Option<PathBuf>, action: UserAction },
}

/// What to do with rooms. Addresses are as typed.
#[derive(Debug, PartialEq, Eq)]
pub enum RoomAction {
    List { domain: Option<String> },
    Show { room: String },
    Destroy { room: String },
    Affiliate { room: String, user: String, to: Affiliation },
}

/// What to do with accounts. Addresses are as typed.
#[derive(Debug, PartialEq, Eq)]
pub enum UserAction {
    Add { user: String, password_stdin: bool },
    Password { user: String, password_stdin: bool },
    Remove { user: String },
    List { domain: Option<String> },
}

pub fn parse(mut arguments: Arguments) -> Result<Invocation, Failure> {
    if arguments.contains(["-h", "--help"]) {
        return Ok(Invocation::Help);
    }
    if arguments.contains(["-V", "--version"]) {
        return Ok(Invocation::Version);
    }
    let config = arguments.opt_value_from_str("--config");
    let config = config.map_err(|_| usage("--config wants a file behind it, in UTF-8"))?;
    let password_stdin = arguments.contains("--password-stdin");
    let command = arguments.subcommand().map_err(|_| usage("a command that is not UTF-8"))?;
    let invocation = match command.as_deref() {
        None | Some("run") => Invocation::Run { config },
        Some("check") => Invocation::Check { config },
        Some("features") => Invocation::Features,
        Some("status") => Invocation::Status { config },
        Some("user") => Invocation::User { config, action: user_action(&mut arguments, password_stdin)? },
        Some("room") => Invocation::Room { config, action: room_action(&mut arguments)? },
        Some("help") => Invocation::Help,
        Some(other) => return Err(usage(&format!("there is no command {other:?}"))),
    };
    let takes_password =
        matches!(invocation, Invocation::User { action: UserAction::Add { .. } | UserAction::Password { .. }, .. });
    if password_stdin && !takes_password {
        return Err(usage("--password-stdin goes with user add and user passwd only"));
    }
    match arguments.finish().as_slice() {
        [] => Ok(invocation),
        // It may be a password, so it is not repeated where others may read.
        _ if takes_password => {
            Err(usage("too many arguments; a password is asked for or read with --password-stdin, never an argument"))
        }
        [first, ..] => Err(usage(&format!("{first:?} does not belong there"))),
    }
}

fn user_action(arguments: &mut Arguments, password_stdin: bool) -> Result<UserAction, Failure> {
    let action = arguments.subcommand().ok().flatten();
    let mut user = || match free(arguments)? {
        Some(user) => Ok(user),
        None => Err(usage("which account? Write its address, such as juliet@example.org")),
    };
    match action.as_deref() {
        Some("add") => Ok(UserAction::Add { user: user()?, password_stdin }),
        Some("passwd") => Ok(UserAction::Password { user: user()?, password_stdin }),
        Some("remove") => Ok(UserAction::Remove { user: user()? }),
        Some("list") => Ok(UserAction::List { domain: free(arguments)? }),
        _ => Err(usage("whinchat user takes one of add, passwd, remove, list")),
    }
}

fn room_action(arguments: &mut Arguments) -> Result<RoomAction, Failure> {
    let action = arguments.subcommand().ok().flatten();
    let mut next = |missing: &str| free(arguments)?.ok_or_else(|| usage(missing));
    const WHICH: &str = "which room? Write its address, such as hall@conference.example.org";
    match action.as_deref() {
        Some("list") => Ok(RoomAction::List { domain: free(arguments)? }),
        Some("show") => Ok(RoomAction::Show { room: next(WHICH)? }),
        Some("destroy") => Ok(RoomAction::Destroy { room: next(WHICH)? }),
        Some("affiliate") => {
            const WHAT: &str = "as what? Write one of owner, admin, member, none, outcast";
            let room = next(WHICH)?;
            let user = next("whom? Write an account's address, such as juliet@example.org")?;
            let to = Affiliation::named(&next(WHAT)?).ok_or_else(|| usage(WHAT))?;
            Ok(RoomAction::Affiliate { room, user, to })
        }
        _ => Err(usage("whinchat room takes one of list, show, destroy, affiliate")),
    }
}

/// The next argument that is no option.
fn free(arguments: &mut Arguments) -> Result<Option<String>, Failure> {
    let text = |text: &std::ffi::OsStr| text.to_str().map(str::to_owned).ok_or("not UTF-8");
    let argument = arguments.opt_free_from_os_str(text).map_err(|_| usage("an address that is not UTF-8"))?;
    match argument {
        Some(option) if option.starts_with('-') => Err(usage(&format!("there is no option {option}"))),
        argument => Ok(argument),
    }
}

fn usage(problem: &str) -> Failure {
    Failure::usage(format_args!("{problem}\nwhinchat --help shows what there is."))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn invoke(line: &str) -> Result<Invocation, String> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(Arguments::from_vec(words)).map_err(|failure| {
            assert_eq!(failure.code, 2);
            failure.text
        })
    }

    #[test]
    fn command_lines() {
        let check = |line, expected| assert_eq!(invoke(line), Ok(expected), "{line}");
        let file = || Some(PathBuf::from("w.toml"));
        let user = || "juliet@example.org".to_owned();
        check("", Invocation::Run { config: None });
        check("run", Invocation::Run { config: None });
        check("--config w.toml", Invocation::Run { config: file() });
        check("--config=w.toml run", Invocation::Run { config: file() });
        check("check --config w.toml", Invocation::Check { config: file() });
        check("features", Invocation::Features);
        check("status --config w.toml", Invocation::Status { config: file() });
        check("help", Invocation::Help);
        check("user add --help", Invocation::Help);
        check("-V", Invocation::Version);
        let action = |action| Invocation::User { config: None, action };
        check("user add juliet@example.org", action(UserAction::Add { user: user(), password_stdin: false }));
        check(
            "user add --password-stdin juliet@example.org",
            action(UserAction::Add { user: user(), password_stdin: true }),
        );
        check(
            "user passwd juliet@example.org --password-stdin",
            action(UserAction::Password { user: user(), password_stdin: true }),
        );
        check("user remove juliet@example.org", action(UserAction::Remove { user: user() }));
        let room = |action| Invocation::Room { config: None, action };
        let hall = || "hall@c".to_owned();
        check("room list", room(RoomAction::List { domain: None }));
        check("room show hall@c", room(RoomAction::Show { room: hall() }));
        check("room destroy hall@c", room(RoomAction::Destroy { room: hall() }));
        let affiliate = RoomAction::Affiliate { room: hall(), user: user(), to: Affiliation::None };
        check("room affiliate hall@c juliet@example.org none", room(affiliate));
        check("user list", action(UserAction::List { domain: None }));
        check("user list example.org", action(UserAction::List { domain: Some("example.org".to_owned()) }));
        check(
            "--config w.toml user list",
            Invocation::User { config: file(), action: UserAction::List { domain: None } },
        );
    }

    #[test]
    fn wrong_command_lines() {
        let check = |line: &str, expected: &str| {
            let text = invoke(line).expect_err(line);
            assert!(text.contains(expected) && text.contains("--help"), "{line}: {text}");
        };
        check("start", "no command \"start\"");
        check("--config", "--config wants a file");
        check("run --confg x", "\"--confg\" does not belong there");
        check("run now", "\"now\" does not belong there");
        check("user", "add, passwd, remove, list");
        check("user delete juliet@example.org", "add, passwd, remove, list");
        check("user add", "which account?");
        check("user add --force", "no option --force");
        check("status --password-stdin", "--password-stdin goes with");
        check("user remove a@b --password-stdin", "--password-stdin goes with");
        check("user add a@b secret", "never an argument");
        assert!(!invoke("user add a@b secret").expect_err("too many").contains("secret"));
    }
}
