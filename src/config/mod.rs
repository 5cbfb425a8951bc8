//! What an operator or embedder sets. Parsed into a value that cannot be wrong; every bound of the server is in [`Limits`].
//!
//! [`Config::load`] reads a file, [`Config::parse`] its text. Both find every mistake in one run and say of each where it is, why
//! it is one and what to write instead. An embedder may as well fill the fields itself: nothing here is derived. What the
//! files named here hold (certificates) is not read before the server starts.

mod limits;
mod parse;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use limits::Limits;
pub use parse::Mistake;

use crate::auth::PasswordScheme;
use crate::jid::BareJid;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory for everything that the server writes.
    pub data: PathBuf,
    /// How passwords are stored.
    pub password_scheme: PasswordScheme,
    /// How much goes to the log. The library only calls the `log` crate; the program that runs it sets this level.
    pub log: log::LevelFilter,
    /// Where clients connect.
    pub listen: Listen,
    /// Domains served, at least one; the first is the default for clients that name none.
    pub domains: Vec<DomainConfig>,
    /// Every bound.
    pub limits: Limits,
}

/// Addresses to listen on.
#[derive(Clone, Debug, Default)]
pub struct Listen {
    /// STARTTLS, required before a password is accepted.
    pub c2s: Vec<SocketAddr>,
    /// TLS from the first byte.
    pub c2s_tls: Vec<SocketAddr>,
    /// STARTTLS offered, not required; loopback addresses only.
    pub c2s_plain: Vec<SocketAddr>,
}

/// Who may make group chat rooms (XEP-0045).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoomMakers {
    /// The domain's users.
    #[default]
    Users,
    /// Nobody; the rooms that are there stay.
    Nobody,
}

/// One served domain.
#[derive(Clone, Debug)]
pub struct DomainConfig {
    /// Prepared name.
    pub name: String,
    /// Certificate chain and key in PEM; `None` for a self-made one kept in the data directory.
    pub certificate: Option<CertificateFiles>,
    /// Whether anybody may register an account in band (XEP-0077).
    pub registration_open: bool,
    /// Who may make group chat rooms.
    pub rooms: RoomMakers,
    /// What stands before the domain's name in the name of the service that has its rooms; empty for `conference`.
    pub rooms_name: String,
    /// Whether the messages of its accounts are archived (XEP-0313).
    pub archive: bool,
    /// In which roster group its accounts see each other without having asked; empty if they do not.
    pub shared_contacts: String,
    /// Contact addresses (XEP-0157) as URIs: field name without `-addresses` (`abuse`, `admin`, `support`, …) and URI.
    pub contacts: Vec<(String, String)>,
    /// Who may administer the domain from a client (XEP-0133): accounts of ours, of any domain.
    pub admins: Vec<BareJid>,
    /// Services elsewhere that its users may use (XEP-0215).
    pub services: Vec<ExternalService>,
    /// What is shared with those services to make credentials for them; empty if they need none.
    pub services_secret: String,
    /// How long such credentials hold.
    pub services_time: Duration,
}

/// A STUN or TURN server, as its URI names it (RFC 7064, RFC 7065).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalService {
    /// `stun`, `stuns`, `turn` or `turns`.
    pub kind: &'static str,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `udp` or `tcp`.
    pub transport: &'static str,
}

impl Default for DomainConfig {
    fn default() -> DomainConfig {
        DomainConfig {
            name: String::new(),
            certificate: None,
            registration_open: false,
            rooms: RoomMakers::default(),
            rooms_name: String::new(),
            archive: true,
            shared_contacts: String::new(),
            contacts: Vec::new(),
            admins: Vec::new(),
            services: Vec::new(),
            services_secret: String::new(),
            services_time: Duration::from_secs(24 * 3600),
        }
    }
}

impl DomainConfig {
    /// Name of the service that has the domain's rooms.
    pub fn rooms_domain(&self) -> String {
        let name = if self.rooms_name.is_empty() { "conference" } else { &self.rooms_name };
        format!("{name}.{}", self.name)
    }
}

/// A certificate as certbot leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// `fullchain.pem`
    pub chain: PathBuf,
    /// `privkey.pem`
    pub key: PathBuf,
}

/// Why a configuration file was not taken.
#[derive(Debug)]
pub enum LoadError {
    /// It could not be read as text.
    Unreadable(PathBuf, io::Error),
    /// It is wrong; sorted by line.
    Mistakes(PathBuf, Vec<Mistake>),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            LoadError::Mistakes(path, mistakes) => {
                for (index, mistake) in mistakes.iter().enumerate() {
                    let gap = if index == 0 { "" } else { "\n" };
                    write!(f, "{gap}{}: {mistake}", path.display())?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for LoadError {}

impl Config {
    /// Reads a configuration file. Relative paths in it start at its own directory.
    ///
    /// # Errors
    /// [`LoadError`], with every mistake that the file holds.
    pub fn load(path: &Path) -> Result<Config, LoadError> {
        let text = std::fs::read_to_string(path).map_err(|error| LoadError::Unreadable(path.to_owned(), error))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Config::parse(&text, directory).map_err(|mistakes| LoadError::Mistakes(path.to_owned(), mistakes))
    }

    /// Parses a configuration. Relative paths in it start at `directory`.
    ///
    /// # Errors
    /// Every mistake, sorted by line; at least one.
    pub fn parse(text: &str, directory: &Path) -> Result<Config, Vec<Mistake>> {
        parse::parse(text, directory)
    }

    /// The store's file in the data directory.
    pub fn store_path(&self) -> PathBuf {
        self.data.join("whinchat.redb")
    }

    /// A server to try things out with, for clients on this machine only: domain `localhost`, ports 5222 (STARTTLS) and 5223
    /// (TLS) of the loopback addresses, registration open, data in `./whinchat-data`. `[::1]` is left out where the machine
    /// has no IPv6, which is found out by binding a UDP port for a moment.
    pub fn try_out() -> Config {
        let mut hosts = vec![Ipv4Addr::LOCALHOST.into()];
        if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            hosts.push(Ipv6Addr::LOCALHOST.into());
        }
        let on = |port| hosts.iter().map(|&host| SocketAddr::new(host, port)).collect();
        Config {
            data: PathBuf::from("whinchat-data"),
            password_scheme: PasswordScheme::default(),
            log: log::LevelFilter::Info,
            listen: Listen { c2s: on(5222), c2s_tls: on(5223), c2s_plain: Vec::new() },
            domains: vec![DomainConfig {
                name: "localhost".to_owned(),
                registration_open: true,
                ..DomainConfig::default()
            }],
            limits: Limits::default(),
        }
    }
}
