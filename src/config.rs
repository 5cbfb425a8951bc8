//! What an operator or embedder sets. Parsed into a value that cannot be wrong; every bound of the server is in [`Limits`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::PasswordScheme;
use crate::xml::XmlLimits;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory for everything that the server writes.
    pub data: PathBuf,
    /// How passwords are stored.
    pub password_scheme: PasswordScheme,
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

/// One served domain.
#[derive(Clone, Debug, Default)]
pub struct DomainConfig {
    /// Prepared name.
    pub name: String,
    /// Certificate chain and key in PEM; `None` for a self-made one kept in the data directory.
    pub certificate: Option<CertificateFiles>,
    /// Whether anybody may register an account in band (XEP-0077).
    pub registration_open: bool,
    /// Contact addresses (XEP-0157) as URIs: field name without `-addresses` (`abuse`, `admin`, `support`, …) and URI.
    pub contacts: Vec<(String, String)>,
}

/// A certificate as certbot leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// `fullchain.pem`
    pub chain: PathBuf,
    /// `privkey.pem`
    pub key: PathBuf,
}

/// Every bound of the server. Full means that the producer waits or is refused with a condition of the standard.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What sessions may hold together, in bytes; beyond it new ones are refused with `resource-constraint`.
    pub memory_max: usize,
    /// Whether rate limits and log-in back-off are on.
    pub rates: bool,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address (IPv6: from one /64).
    pub connections_per_address_max: usize,
    /// Bound resources of one account.
    pub resources_per_account_max: usize,
    /// XML from a peer before it has logged in.
    pub xml_before_auth: XmlLimits,
    /// XML from a peer that has logged in.
    pub xml: XmlLimits,
    /// Time from the connection to a bound resource.
    pub login_time: Duration,
    /// SASL failures on one stream, then it is closed (RFC 6120 section 6.4.5: 2 to 5 retries).
    pub login_failures_max: u32,
    /// Resource binding failures on one stream (RFC 6120 section 7.7.3: 5 to 10 retries).
    pub bind_failures_max: u32,
    /// Silence of a peer after which it is asked whether it is there (RFC 6120 section 4.6.4: not below five minutes).
    pub idle_ping: Duration,
    /// Time a peer has for an answer to that, then it is taken for gone.
    pub ping_answer: Duration,
    /// A peer that takes none of our bytes for so long is gone.
    pub write_stall: Duration,
    /// Time a peer has to close its side after ours is closed.
    pub close_time: Duration,
    /// Bytes of output waiting for one connection above which those who fill it are not read.
    pub output_pause: usize,
    /// Bytes of output waiting for one connection above which it is closed.
    pub output_max: usize,
    /// Bytes per second that one session may send for long.
    pub session_rate: usize,
    /// Bytes that one session may send at once after a silence.
    pub session_burst: usize,
    /// Bytes of one connection handled in one turn of the loop.
    pub turn_bytes: usize,
    /// Items in a roster.
    pub roster_items_max: usize,
    /// Groups of one roster item.
    pub roster_groups_max: usize,
    /// A roster item's name or group, in bytes.
    pub roster_name_bytes_max: usize,
    /// Unanswered subscription requests kept for an account.
    pub requests_max: usize,
    /// A subscription request kept for an account, in bytes; what is longer is kept without its children.
    pub request_bytes_max: usize,
    /// Receivers of directed presence remembered for one session.
    pub directed_presence_max: usize,
    /// Bytes of the last presence kept for one session.
    pub presence_bytes_max: usize,
    /// Offline messages kept for one account.
    pub offline_messages_max: usize,
    /// Offline messages kept for one account, in bytes.
    pub offline_bytes_max: usize,
    /// A vCard, in bytes.
    pub vcard_bytes_max: usize,
    /// One private XML element, in bytes.
    pub private_bytes_max: usize,
    /// All private XML of an account, in bytes.
    pub private_total_bytes_max: usize,
    /// Store requests waiting at once; beyond it what would add one is refused.
    pub store_queue_max: usize,
    /// Password hashes waiting at once; beyond it log-ins are refused with `temporary-auth-failure`.
    pub hash_queue_max: usize,
    /// Accounts that one address may register in an hour.
    pub registrations_per_hour: u32,
    /// Failed log-ins of an account or an address after which further ones wait.
    pub login_backoff_after: u32,
    /// The store's cache in bytes.
    pub store_cache_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        let xml = XmlLimits {
            stanza_bytes_max: 256 * 1024,
            depth_max: 64,
            attributes_max: 64,
            name_bytes_max: 256,
            header_bytes_max: 4096,
        };
        Limits {
            memory_max: 64 * 1024 * 1024,
            rates: true,
            connections_max: 4096,
            connections_per_address_max: 256,
            resources_per_account_max: 16,
            xml_before_auth: XmlLimits { stanza_bytes_max: 10_000, depth_max: 16, ..xml },
            xml,
            login_time: Duration::from_secs(60),
            login_failures_max: 5,
            bind_failures_max: 6,
            idle_ping: Duration::from_secs(600),
            ping_answer: Duration::from_secs(60),
            write_stall: Duration::from_secs(60),
            close_time: Duration::from_secs(5),
            output_pause: 128 * 1024,
            output_max: 2 * 1024 * 1024,
            session_rate: 64 * 1024,
            session_burst: 512 * 1024,
            turn_bytes: 64 * 1024,
            roster_items_max: 2000,
            roster_groups_max: 32,
            roster_name_bytes_max: 1023,
            requests_max: 100,
            request_bytes_max: 2048,
            directed_presence_max: 500,
            presence_bytes_max: 8192,
            offline_messages_max: 1000,
            offline_bytes_max: 4 * 1024 * 1024,
            vcard_bytes_max: 128 * 1024,
            private_bytes_max: 128 * 1024,
            private_total_bytes_max: 512 * 1024,
            store_queue_max: 4096,
            hash_queue_max: 32,
            registrations_per_hour: 10,
            login_backoff_after: 5,
            store_cache_bytes: 4 * 1024 * 1024,
        }
    }
}
