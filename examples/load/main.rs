//! Load for any XMPP server on this machine, and what it costs the server's process.
//!
//! ```text
//! load start|register|chat|idle|login|presence|room|offline --address 127.0.0.1:5222 --domain localhost [--pid PID] …
//! ```
//!
//! Blocking while it logs in, one mio loop while it measures; a process of its own, so that the server's counters in /proc are
//! the server's. Prints lines of a name and a value, for people and for `benches/compare.sh`. Talks to loopback addresses
//! only, since it takes any certificate, and is bounded: by `--limit` seconds as a whole, by `--seconds` and `--count` in
//! what it measures.

#[path = "../../tests/sockets/any_certificate.rs"]
mod any_certificate;
mod client;
mod histogram;
mod loads;
mod process;
mod report;
mod scram;
mod traffic;
mod wire;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use client::{Mode, Target};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const HELP: &str = "\
load COMMAND --address ADDRESS [OPTIONS]

Commands:
  start      run the words behind `--` as a server, report when it answers, and leave it running
  register   make accounts 0 to --accounts
  chat       --pairs of accounts, the even ones send to the odd ones
  idle       --sessions log in and stay, after --base others; memory of the server before and after
  login      --count logins, one after the other
  presence   account 0 sends presence to --receivers contacts
  room       account 0 speaks in a room with --receivers other occupants (--muc DOMAIN)
  offline    --count messages to an account without a session, then its login

Options:
  --address IP:PORT     loopback only
  --domain NAME         default localhost
  --mode MODE           plain, starttls or tls (default plain)
  --protocol PROTOCOL   of chat: xmpp, raw (through a relay) or redis (default xmpp); of room: xmpp or raw
  --pid PID             process of the server, for its CPU time and memory
  --prefix NAME         accounts are NAME0, NAME1, … (default load)
  --accounts N          default 2
  --pairs N             default 1
  --receivers N         default 10
  --sessions N          default 100
  --base N              idle: sessions before those that are counted (default 4)
  --window N            stanzas in flight for each sender (default 1)
  --rate N              stanzas a second of all senders together (default: as many as their windows let through)
  --body BYTES          of a message (default 128)
  --bare                send to bare JIDs
  --carbons             sessions switch on message carbons
  --resumable           sessions can be resumed; not where they receive much, which is not acknowledged
  --seconds S           measured time (default 3)
  --warm-up S           default 0.3
  --count N             deliveries, logins or offline messages (default: as many as the time allows; 100; 100)
  --jobs N              logins side by side while preparing (default 2)
  --settle S            wait before the server's counters are read again (default: idle, offline 1, else 0)
  --hold                idle: say `ready`, stay until standard input ends
  --log FILE            start: takes what the server prints
  --limit S             end at all events (default 300)
";

/// What the command line says.
struct Options {
    target: Target,
    protocol: Protocol,
    pid: Option<u32>,
    accounts: usize,
    pairs: usize,
    receivers: usize,
    sessions: usize,
    base: usize,
    window: usize,
    rate: Option<f64>,
    body: usize,
    bare: bool,
    seconds: Duration,
    warm_up: Duration,
    count: Option<u64>,
    jobs: usize,
    settle: Option<Duration>,
    hold: bool,
    muc: String,
    log: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Xmpp,
    /// No protocol: what goes into a relay's odd connections comes out of its even ones.
    Raw,
    Redis,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let server = words.iter().position(|word| word == "--").map(|at| words.split_off(at).split_off(1));
    let mut arguments = pico_args::Arguments::from_vec(words);
    if arguments.contains(["-h", "--help"]) {
        print!("{HELP}");
        return Ok(());
    }
    let command = arguments.subcommand()?.unwrap_or_default();
    let limit = Duration::from_secs(arguments.opt_value_from_str("--limit")?.unwrap_or(300).min(3600));
    let options = parse(&mut arguments)?;
    let rest = arguments.finish();
    if !rest.is_empty() {
        return Err(format!("unknown: {rest:?}").into());
    }
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("load: not done within {} s", limit.as_secs());
        std::process::exit(2);
    });
    match command.as_str() {
        "start" => loads::start(&options, &server.unwrap_or_default()),
        "register" => loads::register(&options),
        "chat" => loads::chat(&options),
        "idle" => loads::idle(&options),
        "login" => loads::login(&options),
        "presence" => loads::presence(&options),
        "room" => loads::room(&options),
        "offline" => loads::offline(&options),
        _ => Err(format!("no command {command:?}; see --help").into()),
    }
}

fn parse(arguments: &mut pico_args::Arguments) -> Outcome<Options> {
    let text = |arguments: &mut pico_args::Arguments, name, default: &str| -> Outcome<String> {
        Ok(arguments.opt_value_from_str(name)?.unwrap_or_else(|| default.to_owned()))
    };
    let number = |arguments: &mut pico_args::Arguments, name, default: usize| -> Outcome<usize> {
        Ok(arguments.opt_value_from_str(name)?.unwrap_or(default))
    };
    let seconds = |arguments: &mut pico_args::Arguments, name, default: f64| -> Outcome<Duration> {
        Ok(Duration::try_from_secs_f64(arguments.opt_value_from_str(name)?.unwrap_or(default))?)
    };
    let mode = match text(arguments, "--mode", "plain")?.as_str() {
        "plain" => Mode::Plain,
        "starttls" => Mode::StartTls,
        "tls" => Mode::Tls,
        other => return Err(format!("no mode {other}").into()),
    };
    let protocol = match text(arguments, "--protocol", "xmpp")?.as_str() {
        "xmpp" => Protocol::Xmpp,
        "raw" => Protocol::Raw,
        "redis" => Protocol::Redis,
        other => return Err(format!("no protocol {other}").into()),
    };
    Ok(Options {
        target: Target {
            address: arguments.value_from_str::<_, SocketAddr>("--address")?,
            domain: text(arguments, "--domain", "localhost")?,
            mode,
            tls: any_certificate::config(&["xmpp-client"]),
            prefix: text(arguments, "--prefix", "load")?,
            password: text(arguments, "--password", "correct horse battery staple")?,
            salted: Mutex::default(),
            carbons: arguments.contains("--carbons"),
            resumable: arguments.contains("--resumable"),
        },
        protocol,
        pid: arguments.opt_value_from_str("--pid")?,
        accounts: number(arguments, "--accounts", 2)?,
        pairs: number(arguments, "--pairs", 1)?,
        receivers: number(arguments, "--receivers", 10)?,
        sessions: number(arguments, "--sessions", 100)?,
        base: number(arguments, "--base", 4)?,
        window: number(arguments, "--window", 1)?.max(1),
        rate: arguments.opt_value_from_str("--rate")?,
        body: number(arguments, "--body", 128)?,
        bare: arguments.contains("--bare"),
        seconds: seconds(arguments, "--seconds", 3.0)?,
        warm_up: seconds(arguments, "--warm-up", 0.3)?,
        count: arguments.opt_value_from_str("--count")?,
        jobs: number(arguments, "--jobs", 2)?.max(1),
        settle: arguments.opt_value_from_str("--settle")?.map(Duration::try_from_secs_f64).transpose()?,
        hold: arguments.contains("--hold"),
        muc: text(arguments, "--muc", "conference.localhost")?,
        log: arguments.opt_value_from_str("--log")?,
    })
}
