//! The command line.

use std::path::PathBuf;

use pico_args::Arguments;

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
  whinchat status                  show the counters of the running server
  whinchat features                list what the server speaks
  whinchat --help | --version

Options:
  --config FILE      the configuration; otherwise /etc/whinchat/whinchat.toml
  --password-stdin   read the password from the first line of standard input

Without any configuration the server runs as a try-out: domain localhost, reachable
from this machine only, data in ./whinchat-data.

SIGTERM and SIGINT end the server in order, SIGHUP makes it read its certificates
again. The user commands work whether the server runs or not.

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
    User { config: Option<PathBuf>, action: UserAction },
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
