//! The server as a library: built from a [`Config`], run on a thread of its own or inside the host's loop, reached from other
//! threads by a [`Handle`].
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut server = whinchat::Server::builder().data("/var/lib/appliance/chat").domain("chat.example").build()?;
//! let handle = server.handle();
//! std::thread::spawn(move || handle.user_add("door@chat.example", "correct horse battery staple"));
//! server.run()?;
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::{Poll, Waker};
use zeroize::Zeroizing;

use crate::auth::PasswordScheme;
use crate::config::{Config, DomainConfig, Listen};
use crate::core::{Answer, Command, Core, ListenerKind, Seeds, StoreError, UtcTime};
use crate::jid::{BareJid, prepare_domain};
use crate::net::{self, Certificates, Loop, Request};
pub use crate::net::{CertificateError, ListenError, OnDelivered, check_certificate};
use crate::store::{Authenticator, OpenError, RedbStore, Store, StoreThread};

/// How long the blocking functions of a [`Handle`] wait for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// An XMPP server: its sockets are open, its store is open, nothing happens until it is run.
pub struct Server {
    inner: Loop,
    handle: Handle,
}

impl Server {
    /// What a server is to be.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Serves until [`Handle::stop`].
    ///
    /// # Errors
    /// The system's poller fails.
    pub fn run(&mut self) -> io::Result<()> {
        while self.poll_once(None)? {}
        Ok(())
    }

    /// One turn: waits until something happens, at most `timeout` (`None`: as long as it takes), and does all there is to do.
    /// Returns whether the server still runs.
    ///
    /// # Errors
    /// The system's poller fails.
    pub fn poll_once(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.inner.turn(timeout)
    }

    /// For a host with a loop of its own: call [`Server::poll_once`] with a zero timeout when the descriptor ([`AsRawFd`]) is
    /// readable, and no later than after this time.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.inner.next_due()
    }

    /// Addresses that are listened on, with the ports that the system chose where the configuration says 0.
    pub fn local_addrs(&self) -> Vec<(ListenerKind, SocketAddr)> {
        self.inner.local_addrs()
    }

    /// A means to reach the server from other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl AsRawFd for Server {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("local_addrs", &self.local_addrs()).finish_non_exhaustive()
    }
}

/// What a [`Server`] is to be. Without [`Builder::config`] it is [`Config::try_out`]: reachable from this machine only.
#[derive(Default)]
pub struct Builder {
    config: Option<Config>,
    data: Option<PathBuf>,
    listen: Option<Listen>,
    domains: Vec<String>,
    authenticator: Option<Box<dyn Authenticator>>,
    store: Option<Box<dyn Store>>,
    on_delivered: Option<OnDelivered>,
}

impl Builder {
    /// The whole configuration; the other functions change parts of it.
    #[must_use]
    pub fn config(mut self, config: Config) -> Builder {
        self.config = Some(config);
        self
    }

    /// Directory for everything that the server writes; made if it is not there.
    #[must_use]
    pub fn data(mut self, path: impl Into<PathBuf>) -> Builder {
        self.data = Some(path.into());
        self
    }

    /// Where clients connect.
    #[must_use]
    pub fn listen(mut self, listen: Listen) -> Builder {
        self.listen = Some(listen);
        self
    }

    /// Serves one more domain, with a self-made certificate and registration closed. Without a configuration these are all.
    #[must_use]
    pub fn domain(mut self, name: impl Into<String>) -> Builder {
        self.domains.push(name.into());
        self
    }

    /// Lets the host check passwords; the server then keeps none.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Box<dyn Authenticator>) -> Builder {
        self.authenticator = Some(authenticator);
        self
    }

    /// Keeps what must last in this store, and not in a file in the data directory; for one of
    /// [`RedbStore::with_backend`], for instance.
    #[must_use]
    pub fn store(mut self, store: Box<dyn Store>) -> Builder {
        self.store = Some(store);
        self
    }

    /// Is called on the loop's thread with every message that was delivered or handed to the store for who is offline, those of
    /// [`Handle::send_message`] too; it must be quick.
    #[must_use]
    pub fn on_delivered(mut self, on_delivered: OnDelivered) -> Builder {
        self.on_delivered = Some(on_delivered);
        self
    }

    /// Opens the store, the certificates and the listeners.
    ///
    /// # Errors
    /// [`ServerError`] names what cannot be had and the remedy.
    pub fn build(self) -> Result<Server, ServerError> {
        let mut config = merged(self.config, self.data, self.listen, self.domains)?;
        if self.authenticator.is_some() {
            // Tokens die with the password, and nobody would tell us that one has changed.
            config.limits.token_time = Duration::ZERO;
        }
        let listeners = net::open_all(&config.listen)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = Certificates::load(&config, provider.clone(), utc_now())?;
        let scram = matches!(config.password_scheme, PasswordScheme::Scram { .. }) && self.authenticator.is_none();
        let store = open_store(&config, self.store, self.authenticator)?;

        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| ServerError::System("random numbers", error.to_string()))?;
        let core = Core::new(&config, Seeds { random, installation: store.secret() }, scram);

        let system = |error: io::Error| ServerError::System("the event queue", error.to_string());
        let poll = Poll::new().map_err(system)?;
        let waker = Loop::waker(&poll).map_err(system)?;
        let (requests_to, requests) = mpsc::channel();
        let wake_store = waker.clone();
        let wake = move || {
            // The queue of the poller is a counter and cannot be full.
            let _ = wake_store.wake();
        };
        let gather = Duration::from_millis(config.limits.store_gather_ms as u64);
        let store = StoreThread::spawn_gathering(store, gather, wake);
        let store = store.map_err(|error| ServerError::System("a thread", error.to_string()))?;
        let parts = net::Parts {
            poll,
            core,
            store,
            limits: config.limits,
            certificates,
            listeners,
            provider,
            requests,
            on_delivered: self.on_delivered,
        };
        let inner = Loop::new(parts).map_err(system)?;
        Ok(Server { inner, handle: Handle { requests_to, waker } })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("config", &self.config).field("domains", &self.domains).finish_non_exhaustive()
    }
}

fn merged(
    config: Option<Config>,
    data: Option<PathBuf>,
    listen: Option<Listen>,
    domains: Vec<String>,
) -> Result<Config, ServerError> {
    let is_given = config.is_some();
    let mut config = config.unwrap_or_else(Config::try_out);
    if !is_given && !domains.is_empty() {
        config.domains.clear();
    }
    for name in domains {
        let prepared = prepare_domain(&name);
        let name =
            prepared.map_err(|error| ServerError::Config(format!("{name:?} is no domain: {error}")))?.into_owned();
        config.domains.push(DomainConfig { name, ..DomainConfig::default() });
    }
    if let Some(data) = data {
        config.data = data;
    }
    if let Some(listen) = listen {
        config.listen = listen;
    }

    if config.domains.is_empty() {
        return Err(ServerError::Config("no domain is served; give at least one".to_owned()));
    }
    for (index, domain) in config.domains.iter().enumerate() {
        if config.domains[..index].iter().any(|other| other.name == domain.name) {
            return Err(ServerError::Config(format!("{} is served twice; remove one", domain.name)));
        }
    }
    let Listen { c2s, c2s_tls, c2s_plain } = &config.listen;
    if c2s.is_empty() && c2s_tls.is_empty() && c2s_plain.is_empty() {
        return Err(ServerError::Config("nothing is listened on; give at least one address".to_owned()));
    }
    Ok(config)
}

/// Opens the store in the data directory, which is made if it is not there and is nobody else's to read.
fn open_store(
    config: &Config,
    given: Option<Box<dyn Store>>,
    authenticator: Option<Box<dyn Authenticator>>,
) -> Result<Box<dyn Store>, ServerError> {
    let mut directory = DirBuilder::new();
    directory.recursive(true).mode(0o700);
    let made = directory.create(&config.data);
    made.map_err(|error| ServerError::Data(config.data.clone(), error))?;
    let mut store = match given {
        Some(store) => store,
        None => Box::new(RedbStore::open(&config.store_path(), config)?),
    };
    if let Some(authenticator) = authenticator {
        store.set_authenticator(authenticator);
    }
    Ok(store)
}

fn utc_now() -> UtcTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UtcTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Why a server cannot start; displayed, it names the thing and the remedy.
#[derive(Debug)]
pub enum ServerError {
    /// The configuration cannot be meant.
    Config(String),
    /// The data directory cannot be made.
    Data(PathBuf, io::Error),
    /// The store cannot be opened.
    Store(OpenError),
    /// A certificate cannot be used.
    Certificate(CertificateError),
    /// A listener cannot be opened.
    Listen(ListenError),
    /// The system does not give us this, and says why.
    System(&'static str, String),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Config(problem) => f.write_str(problem),
            ServerError::Data(path, error) => {
                write!(f, "{} cannot be made: {error}; name a directory that the server may write to", path.display())
            }
            ServerError::Store(error) => error.fmt(f),
            ServerError::Certificate(error) => error.fmt(f),
            ServerError::Listen(error) => error.fmt(f),
            ServerError::System(thing, problem) => write!(f, "the system does not give {thing}: {problem}"),
        }
    }
}

impl std::error::Error for ServerError {}

impl From<OpenError> for ServerError {
    fn from(error: OpenError) -> ServerError {
        ServerError::Store(error)
    }
}

impl From<CertificateError> for ServerError {
    fn from(error: CertificateError) -> ServerError {
        ServerError::Certificate(error)
    }
}

impl From<ListenError> for ServerError {
    fn from(error: ListenError) -> ServerError {
        ServerError::Listen(error)
    }
}

/// Reaches a running [`Server`] from any thread. The functions that return a value wait for it, half a minute at most; called
/// on the thread that runs the server they would wait in vain.
#[derive(Clone, Debug)]
pub struct Handle {
    requests_to: Sender<Request>,
    waker: Arc<Waker>,
}

impl Handle {
    /// Ends the server: every client is told, what is queued is written, and [`Server::run`] returns within five seconds.
    pub fn stop(&self) {
        self.request(Request::Stop);
    }

    /// Reads the certificates again. A file that cannot be used is named in the log and the old one stays.
    pub fn reload(&self) {
        self.request(Request::Reload);
    }

    /// Gives a command. Its answer comes through the channel, which is closed without one if the server ends before.
    pub fn command(&self, command: Command) -> Receiver<Answer> {
        let (answer_to, answer) = mpsc::channel();
        self.request(Request::Command(command, answer_to));
        answer
    }

    /// Creates an account.
    ///
    /// # Errors
    /// [`CommandError`]; [`StoreError::Conflict`] if there is one of that name.
    pub fn user_add(&self, user: &str, password: &str) -> Result<(), CommandError> {
        let password = Zeroizing::new(password.to_owned());
        self.ask(Command::UserAdd { user: parse_user(user)?, password }).map(drop)
    }

    /// Changes the password of an account and ends its sessions.
    ///
    /// # Errors
    /// [`CommandError`]; [`StoreError::NoAccount`] if there is none of that name.
    pub fn user_password(&self, user: &str, password: &str) -> Result<(), CommandError> {
        let password = Zeroizing::new(password.to_owned());
        self.ask(Command::UserPassword { user: parse_user(user)?, password }).map(drop)
    }

    /// Removes an account with all it has and ends its sessions.
    ///
    /// # Errors
    /// [`CommandError`]; [`StoreError::NoAccount`] if there is none of that name.
    pub fn user_remove(&self, user: &str) -> Result<(), CommandError> {
        self.ask(Command::UserRemove { user: parse_user(user)? }).map(drop)
    }

    /// Sends a chat message, from an account or from a served domain.
    ///
    /// # Errors
    /// [`CommandError`]
    pub fn send_message(&self, from: &str, to: &str, body: &str) -> Result<(), CommandError> {
        let command = Command::SendMessage { from: from.to_owned(), to: to.to_owned(), body: body.to_owned() };
        self.ask(command).map(drop)
    }

    /// Counters and gauges by name.
    ///
    /// # Errors
    /// [`CommandError`]
    pub fn status(&self) -> Result<Vec<(&'static str, u64)>, CommandError> {
        match self.ask(Command::Status)? {
            Answer::Status(counters) => Ok(counters),
            other => Err(CommandError::Invalid(format!("the answer to a question for the status was {other:?}"))),
        }
    }

    /// Gives a command and waits for its answer.
    ///
    /// # Errors
    /// [`CommandError`]
    pub fn ask(&self, command: Command) -> Result<Answer, CommandError> {
        match self.command(command).recv_timeout(ANSWER_TIME) {
            Ok(Answer::Refused(error)) => Err(CommandError::Refused(error)),
            Ok(Answer::Invalid(problem)) => Err(CommandError::Invalid(problem)),
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => Err(CommandError::Late),
            Err(RecvTimeoutError::Disconnected) => Err(CommandError::Gone),
        }
    }

    fn request(&self, request: Request) {
        // A server that has gone drops the request, and with it the sender of its answer.
        if self.requests_to.send(request).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

fn parse_user(user: &str) -> Result<BareJid, CommandError> {
    BareJid::parse(user).map_err(|error| CommandError::Invalid(format!("{user:?} is no bare JID: {error}")))
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandError {
    /// The server has ended, or has too many commands waiting.
    Gone,
    /// No answer came in time; it may yet be carried out.
    Late,
    /// The store did not do it.
    Refused(StoreError),
    /// It cannot be done; says why.
    Invalid(String),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Gone => f.write_str("the server has ended or is overloaded"),
            CommandError::Late => f.write_str("the server did not answer in time"),
            CommandError::Refused(error) => write!(f, "the store refused: {error:?}"),
            CommandError::Invalid(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for CommandError {}
