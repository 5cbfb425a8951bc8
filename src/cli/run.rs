//! `whinchat run`: the server until a signal ends it.

use std::io;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use whinchat::admin::server::AdminServer;
use whinchat::admin::socket_path;
use whinchat::core::{Answer, Command, ListenerKind};
use whinchat::server::{Handle, Server, ServerError};

use super::data::DataDirectory;
use super::{CONFIG_PATH, Failure, Loaded, logger, print};

/// How long the admin socket waits for the server.
const ANSWER_TIME: Duration = Duration::from_secs(50);

pub fn run(loaded: Loaded) -> Result<(), Failure> {
    let Loaded { config, file } = loaded;
    logger::start(config.log);
    let directory = DataDirectory::take(&config.data)?;
    if directory.is_open_to_others {
        log::warn!("other users may look into {0}; chmod 700 {0}", config.data.display());
    }
    let built = Server::builder().config(config.clone()).build();
    let mut server = built.map_err(|error| match error {
        ServerError::Config(_) => Failure::usage(error),
        other => Failure::runtime(other),
    })?;
    let _admin = start_admin(&config.data, server.handle())?;
    start_signals(server.handle())
        .map_err(|error| Failure::runtime(format_args!("signals cannot be heard: {error}")))?;
    let listens = listens(&server);
    match file {
        None => print(&try_out_text(&listens, &config.data)),
        Some(file) => {
            let names: Vec<_> = config.domains.iter().map(|domain| domain.name.as_str()).collect();
            log::info!("whinchat {} with {}", env!("CARGO_PKG_VERSION"), file.display());
            log::info!("serving {} on {listens}", names.join(", "));
        }
    }
    server.run().map_err(|error| Failure::runtime(format_args!("the system's poller failed: {error}")))?;
    log::info!("ended");
    Ok(())
}

fn start_admin(data: &Path, handle: Handle) -> Result<AdminServer, Failure> {
    let answer = move |command: Command| match handle.command(command).recv_timeout(ANSWER_TIME) {
        Ok(answer) => Some(answer),
        Err(RecvTimeoutError::Timeout) => {
            Some(Answer::Invalid("the server is busy; whether it will be done is not known".to_owned()))
        }
        Err(RecvTimeoutError::Disconnected) => None,
    };
    AdminServer::start(data, answer).map_err(|error| {
        let socket = socket_path(data);
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => "another server answers there; stop it first".to_owned(),
            io::ErrorKind::InvalidInput => format!("{error}; a data directory with a shorter path helps"),
            _ => error.to_string(),
        };
        Failure::runtime(format_args!("the admin socket {} cannot be opened: {fix}", socket.display()))
    })
}

/// The first signal ends the server in order; a second one does not wait for that.
fn start_signals(handle: Handle) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let listen = move || {
        let mut is_ending = false;
        for signal in signals.forever() {
            match signal {
                SIGHUP => handle.reload(),
                _ if is_ending => std::process::exit(1),
                _ => {
                    is_ending = true;
                    log::info!("ending");
                    handle.stop();
                }
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(listen).map(drop)
}

fn listens(server: &Server) -> String {
    let addresses = server.local_addrs();
    let addresses = addresses.iter().map(|(kind, address)| {
        let kind = match kind {
            ListenerKind::StartTls => "STARTTLS",
            ListenerKind::Tls => "TLS",
            ListenerKind::Plain => "without TLS",
        };
        format!("{address} ({kind})")
    });
    addresses.collect::<Vec<_>>().join(", ")
}

fn try_out_text(listens: &str, data: &Path) -> String {
    format!(
        "\
Whinchat {version}: no configuration, so this is a try-out that only this machine can reach.

  listening on          {listens}
  data directory        {data}

  make an account       whinchat user add juliet@localhost
                        (in another terminal, same directory; or let the client register one)
  log in with a client  address juliet@localhost, server 127.0.0.1, port 5222;
                        say yes to its self-made certificate
  serve others          write {CONFIG_PATH}, see whinchat.example.toml
  end it                Ctrl-C

",
        version = env!("CARGO_PKG_VERSION"),
        data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned()).display(),
    )
}
