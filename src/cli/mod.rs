//! Arguments to commands, results to exit codes: 0 it is done, 1 it failed, 2 the command line or the configuration is wrong.

mod arguments;
mod data;
mod inspect;
mod logger;
mod rooms;
mod run;
mod users;

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arguments::Invocation;
use whinchat::config::{Config, LoadError};

/// Where the configuration is if nothing is said.
const CONFIG_PATH: &str = "/etc/whinchat/whinchat.toml";

/// Why a command was not done, in words for the operator.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// The command line or the configuration is wrong.
    fn usage(text: impl fmt::Display) -> Failure {
        Failure { code: 2, text: text.to_string() }
    }

    /// The world is not as it should be.
    fn runtime(text: impl fmt::Display) -> Failure {
        Failure { code: 1, text: text.to_string() }
    }
}

/// The configuration and where it came from; `None` is the try-out.
struct Loaded {
    config: Config,
    file: Option<PathBuf>,
}

/// Reads the file that was named, else the usual one, else makes a try-out of it.
fn load(named: Option<PathBuf>) -> Result<Loaded, Failure> {
    let file = match named {
        Some(file) => file,
        // Anything but its absence is told when it is read: one that may not be read must not become a try-out.
        None if matches!(Path::new(CONFIG_PATH).try_exists(), Ok(false)) => {
            return Ok(Loaded { config: Config::try_out(), file: None });
        }
        None => PathBuf::from(CONFIG_PATH),
    };
    let config = Config::load(&file).map_err(|error| match error {
        LoadError::Unreadable(..) => Failure::usage(format_args!(
            "{error}; name the configuration with --config FILE, run as a user who may read it"
        )),
        LoadError::Mistakes(..) => Failure::usage(error),
    })?;
    Ok(Loaded { config, file: Some(file) })
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let done = arguments::parse(pico_args::Arguments::from_env()).and_then(|invocation| match invocation {
        Invocation::Help => {
            print(arguments::HELP);
            Ok(())
        }
        Invocation::Version => {
            print(concat!("whinchat ", env!("CARGO_PKG_VERSION"), "\n"));
            Ok(())
        }
        Invocation::Run { config } => run::run(load(config)?),
        Invocation::Check { config } => inspect::check(load(config)?),
        Invocation::Features => {
            inspect::features();
            Ok(())
        }
        Invocation::Status { config } => inspect::status(&load(config)?),
        Invocation::Room { config, action } => rooms::carry_out(&load(config)?, action),
        Invocation::User { config, action } => users::carry_out(&load(config)?, action),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "whinchat: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

/// Prints to standard output. That somebody closed it (`whinchat features | head`) is no failure.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
