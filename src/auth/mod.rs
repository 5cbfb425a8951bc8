//! SASL (RFC 4422, RFC 6120 section 6): which mechanisms a stream offers, and one exchange from `<auth/>` to its outcome.
//!
//! Pure: no socket, clock or thread, and what is random comes from the caller. An [`Exchange`] is told what the client sent and
//! says in a [`Progress`] what the stream must do next; where it needs what the store keeps it says so and waits. Everything
//! that takes longer than some microseconds ([`verify`], [`Credentials::derive`]) is a function for the helper thread.
//!
//! The stream remains responsible for: aborts, one exchange at a time and the number of retries (RFC 6120 section 6.4), the
//! rate of failures, answering a failed store with [`SaslError::TemporaryAuthFailure`], and refusing a disabled account
//! *after* [`Progress::Success`], so that only who knows the password learns of it.
//!
//! Deliberately absent: EXTERNAL and ANONYMOUS; `tls-unique`, which rustls does not give and TLS 1.3 does not have.

mod password;
mod plain;
mod scram;
mod token;

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::jid::{BareJid, JidRef, prepare_domain, prepare_localpart};
pub use password::{
    Credentials, ITERATIONS_DEFAULT, ITERATIONS_MIN, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, PasswordError,
    PasswordScheme, Prepared, SALT_BYTES, verify,
};
pub use scram::{FakeKeys, Hash, ScramKeys};
pub use token::{ClientId, TokenMechanism, TokenMessage, TokenSalt, TokenSecret, is_proof_of, token_response};

/// Octets of a client's message. Holds the longest address and password there is, each octet of the names escaped.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The mechanisms there are, in our order of preference (RFC 6120 section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// SCRAM-SHA-256-PLUS (RFC 7677), bound to the TLS connection.
    ScramSha256Plus,
    /// SCRAM-SHA-1-PLUS (RFC 5802), bound to the TLS connection.
    ScramSha1Plus,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-1, which RFC 6120 section 13.8.3 makes mandatory.
    ScramSha1,
    /// PLAIN (RFC 4616), under TLS only.
    Plain,
}

impl Mechanism {
    const ALL: [Mechanism; 5] = [
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha1Plus,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1,
        Mechanism::Plain,
    ];

    /// The mechanism of that registered name, which is compared exactly (RFC 4422 section 3.1).
    pub fn from_name(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
            Mechanism::Plain => "PLAIN",
        }
    }

    /// Whether it binds to the TLS connection.
    pub fn is_plus(self) -> bool {
        matches!(self, Mechanism::ScramSha256Plus | Mechanism::ScramSha1Plus)
    }

    /// SCRAM's hash function; `None` for PLAIN.
    fn hash(self) -> Option<Hash> {
        match self {
            Mechanism::ScramSha256Plus | Mechanism::ScramSha256 => Some(Hash::Sha256),
            Mechanism::ScramSha1Plus | Mechanism::ScramSha1 => Some(Hash::Sha1),
            Mechanism::Plain => None,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What this TLS connection can be bound to; empty without TLS and behind a proxy that terminates it.
#[derive(Clone, Default)]
pub struct Bindings {
    /// `tls-exporter` (RFC 9266): only of TLS 1.3, or of 1.2 with the extended master secret.
    pub exporter: Option<[u8; 32]>,
    /// `tls-server-end-point` (RFC 5929 section 4): the hash of the certificate served on this very connection.
    pub server_end_point: Option<Vec<u8>>,
}

const TLS_EXPORTER: &str = "tls-exporter";
const TLS_SERVER_END_POINT: &str = "tls-server-end-point";

impl Bindings {
    fn data(&self, binding_type: &str) -> Option<&[u8]> {
        match binding_type {
            TLS_EXPORTER => self.exporter.as_ref().map(<[u8; 32]>::as_slice),
            TLS_SERVER_END_POINT => self.server_end_point.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Debug for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bindings")
            .field(TLS_EXPORTER, &self.exporter.is_some())
            .field(TLS_SERVER_END_POINT, &self.server_end_point.is_some())
            .finish()
    }
}

/// What one stream offers: mechanisms and, never without each other, `-PLUS` and types of channel binding (XEP-0440).
///
/// It depends on the connection and the configuration and never on an account, or the list would tell which exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Bits of the mechanisms.
    mechanisms: u8,
    /// Those that TLS would add.
    await_tls: u8,
    /// Those that policy took away.
    too_weak: u8,
    exporter: bool,
    server_end_point: bool,
}

impl Offer {
    /// What may be offered on a connection with or without TLS where passwords are kept by `scheme`. PLAIN needs TLS whatever
    /// anybody configures (RFC 6120 section 13.8.3).
    pub fn new(tls: bool, bindings: &Bindings, scheme: PasswordScheme) -> Offer {
        let scram = matches!(scheme, PasswordScheme::Scram { .. });
        let exporter = tls && scram && bindings.exporter.is_some();
        let server_end_point = tls && scram && bindings.server_end_point.is_some();
        let mut offer = Offer { mechanisms: 0, await_tls: 0, too_weak: 0, exporter, server_end_point };
        for mechanism in Mechanism::ALL {
            let wanted = scram || mechanism == Mechanism::Plain;
            let possible = match mechanism {
                Mechanism::Plain => tls,
                _ => !mechanism.is_plus() || exporter || server_end_point,
            };
            if wanted && possible {
                offer.mechanisms |= mechanism.bit();
            } else if wanted && !tls {
                offer.await_tls |= mechanism.bit();
            }
        }
        offer
    }

    /// The offer without a mechanism that the administrator does not want. Who requires channel binding takes away all that
    /// are not `-PLUS` (RFC 5802 section 6).
    #[must_use]
    pub fn without(mut self, mechanism: Mechanism) -> Offer {
        let bit = mechanism.bit();
        self.too_weak |= bit & (self.mechanisms | self.await_tls);
        self.mechanisms &= !bit;
        self.await_tls &= !bit;
        self
    }

    /// What `<mechanisms/>` lists, in that order.
    pub fn mechanisms(self) -> impl Iterator<Item = Mechanism> {
        Mechanism::ALL.into_iter().filter(move |&mechanism| self.offers(mechanism))
    }

    /// What `<sasl-channel-binding/>` lists; it is left out if there is none (XEP-0440 section 3).
    pub fn channel_bindings(self) -> impl Iterator<Item = &'static str> {
        let types = [(self.exporter, TLS_EXPORTER), (self.server_end_point, TLS_SERVER_END_POINT)];
        let plus = self.offers_plus();
        types.into_iter().filter_map(move |(offered, name)| (plus && offered).then_some(name))
    }

    /// Whether this mechanism is offered.
    pub fn offers(self, mechanism: Mechanism) -> bool {
        self.mechanisms & mechanism.bit() != 0
    }

    /// The offered mechanism that the client names.
    ///
    /// # Errors
    /// The condition to fail with: `encryption-required` for what waits for TLS, `mechanism-too-weak` for what policy took
    /// away, `invalid-mechanism` for everything else.
    pub fn select(self, name: &str) -> Result<Mechanism, SaslError> {
        let mechanism = Mechanism::from_name(name).ok_or(SaslError::InvalidMechanism)?;
        match mechanism.bit() {
            bit if bit & self.mechanisms != 0 => Ok(mechanism),
            bit if bit & self.await_tls != 0 => Err(SaslError::EncryptionRequired),
            bit if bit & self.too_weak != 0 => Err(SaslError::MechanismTooWeak),
            _ => Err(SaslError::InvalidMechanism),
        }
    }

    fn offers_plus(self) -> bool {
        Mechanism::ALL.into_iter().any(|mechanism| mechanism.is_plus() && self.offers(mechanism))
    }

    /// What XEP-0474 0.5.0 (section 6.1) has both sides hash: the sorted lists, as this stream sent them.
    fn downgrade_text(self) -> String {
        let mut mechanisms: Vec<&str> = self.mechanisms().map(Mechanism::name).collect();
        mechanisms.sort_unstable();
        let mut bindings: Vec<&str> = self.channel_bindings().collect();
        bindings.sort_unstable();
        let mut text = mechanisms.join("\u{1e}");
        if !bindings.is_empty() {
            text.push('\u{1f}');
            text.push_str(&bindings.join("\u{1e}"));
        }
        text
    }
}

/// The conditions of RFC 6120 section 6.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslError {
    /// The client sent `<abort/>`.
    Aborted,
    /// The password was right, the account may not be used.
    AccountDisabled,
    /// The password was right and is too old.
    CredentialsExpired,
    /// The mechanism is there once the stream is encrypted.
    EncryptionRequired,
    /// Not base64 as section 13.9.1 wants it.
    IncorrectEncoding,
    /// The client may not act as whom it names.
    InvalidAuthzid,
    /// No such mechanism, or not offered here.
    InvalidMechanism,
    /// What the mechanism's syntax or the negotiation of channel binding forbids.
    MalformedRequest,
    /// The mechanism is switched off.
    MechanismTooWeak,
    /// Wrong name, wrong password, wrong channel binding: deliberately not told apart (section 6.5.10).
    NotAuthorized,
    /// Our fault, for now: storage is down or the queue of passwords to hash is full.
    TemporaryAuthFailure,
}

impl SaslError {
    /// The element's name.
    pub fn name(self) -> &'static str {
        match self {
            SaslError::Aborted => "aborted",
            SaslError::AccountDisabled => "account-disabled",
            SaslError::CredentialsExpired => "credentials-expired",
            SaslError::EncryptionRequired => "encryption-required",
            SaslError::IncorrectEncoding => "incorrect-encoding",
            SaslError::InvalidAuthzid => "invalid-authzid",
            SaslError::InvalidMechanism => "invalid-mechanism",
            SaslError::MalformedRequest => "malformed-request",
            SaslError::MechanismTooWeak => "mechanism-too-weak",
            SaslError::NotAuthorized => "not-authorized",
            SaslError::TemporaryAuthFailure => "temporary-auth-failure",
        }
    }

    /// English for `<text/>`, where the name alone would send somebody looking in the wrong place.
    pub fn text(self) -> Option<&'static str> {
        match self {
            SaslError::AccountDisabled => Some("This account is disabled."),
            SaslError::EncryptionRequired => Some("Use STARTTLS first."),
            SaslError::IncorrectEncoding => Some("The content is not strict base64."),
            SaslError::InvalidAuthzid => Some("The authorization identity is not your bare JID."),
            SaslError::MalformedRequest => {
                Some("The message is malformed, or binds to a channel otherwise than was offered.")
            }
            SaslError::TemporaryAuthFailure => Some("Not now: try again later."),
            _ => None,
        }
    }
}

impl fmt::Display for SaslError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for SaslError {}

/// What the stream must do next.
pub enum Progress {
    /// Send `<challenge/>` with these octets ([`encode`] makes its content), wait for `<response/>`.
    Challenge(Vec<u8>),
    /// Fetch the account's credentials, then call [`Exchange::keys`].
    NeedKeys {
        /// The prepared localpart.
        username: String,
    },
    /// Have [`verify`] run on the helper thread, then call [`Exchange::verified`].
    NeedVerify {
        /// The prepared localpart.
        username: String,
        /// As the client sent it.
        password: Zeroizing<String>,
    },
    /// Send `<success/>`. The client is this account.
    Success {
        /// The prepared localpart.
        username: String,
        /// What goes into `<success/>` (RFC 6120 section 6.3.10), possibly nothing.
        data: Vec<u8>,
    },
    /// Send `<failure/>`. The exchange is over.
    Failure(SaslError),
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Progress::Challenge(data) => write!(f, "Challenge({})", data.escape_ascii()),
            Progress::NeedKeys { username } => write!(f, "NeedKeys({username:?})"),
            Progress::NeedVerify { username, .. } => write!(f, "NeedVerify({username:?})"),
            Progress::Success { username, data } => write!(f, "Success({username:?}, {})", data.escape_ascii()),
            Progress::Failure(error) => write!(f, "Failure({error:?})"),
        }
    }
}

impl From<SaslError> for Progress {
    fn from(error: SaslError) -> Progress {
        Progress::Failure(error)
    }
}

/// One exchange, from `<auth/>` to `<success/>` or `<failure/>`.
pub struct Exchange {
    mechanism: Mechanism,
    offer: Offer,
    bindings: Bindings,
    domain: String,
    server_nonce: String,
    announces_offer: bool,
    state: State,
}

enum State {
    /// Nothing came yet, not even an initial response. `asked`: the empty challenge went out (RFC 6120 section 6.3.10).
    Start {
        asked: bool,
    },
    Keys {
        username: String,
        first: scram::ClientFirst,
    },
    Final {
        username: String,
        first: scram::ServerFirst,
    },
    Verify {
        username: String,
    },
    Over,
}

impl Exchange {
    /// An exchange of a mechanism that `offer` has: [`Offer::select`] found it. `domain` is the stream's prepared host, the
    /// only place an account's domain comes from (RFC 6120 section 6.3.9); `server_nonce` at least 18 random printable
    /// characters without a comma, new for each exchange.
    pub fn begin(
        mechanism: Mechanism,
        offer: &Offer,
        bindings: &Bindings,
        domain: &str,
        server_nonce: String,
    ) -> Exchange {
        debug_assert!(scram::is_nonce(&server_nonce), "a nonce is printable ASCII without commas");
        let state = if offer.offers(mechanism) { State::Start { asked: false } } else { State::Over };
        Exchange {
            mechanism,
            offer: *offer,
            bindings: bindings.clone(),
            domain: domain.to_owned(),
            server_nonce,
            announces_offer: false,
            state,
        }
    }

    /// Makes SCRAM tell the client, protected by the password, what this stream offered (XEP-0474), so that it notices if
    /// somebody took a mechanism out. An extension that clients must ignore and a few do not: keep it switchable.
    pub fn announce_offer(&mut self) {
        self.announces_offer = true;
    }

    /// Goes on with what the client sent, as [`decode`] gave it: `None` is an `<auth/>` without initial response, and in a
    /// `<response/>` the same as no octets.
    pub fn respond(&mut self, data: Option<&[u8]>) -> Progress {
        if data.is_some_and(|data| data.len() > MESSAGE_BYTES_MAX) {
            self.state = State::Over;
            return SaslError::MalformedRequest.into();
        }
        let step = match (std::mem::replace(&mut self.state, State::Over), data) {
            (State::Start { asked: false }, None) => {
                self.state = State::Start { asked: true };
                Ok(Progress::Challenge(Vec::new()))
            }
            (State::Start { .. }, data) => self.start(data.unwrap_or_default()),
            (State::Final { username, first }, data) => {
                first.finish(data.unwrap_or_default()).map(|data| Progress::Success { username, data })
            }
            // A response while we owe the answer, or after the end.
            (State::Keys { .. } | State::Verify { .. } | State::Over, _) => Err(SaslError::MalformedRequest),
        };
        step.unwrap_or_else(Progress::Failure)
    }

    /// Answers [`Progress::NeedKeys`] with what the store has for the account.
    ///
    /// An account that does not exist, or has no keys for this mechanism, gets as good an answer as any, made of `fake`, and
    /// fails at the end like a wrong password.
    pub fn keys(&mut self, credentials: Option<&Credentials>, fake: &FakeKeys) -> Progress {
        let state = std::mem::replace(&mut self.state, State::Over);
        let (State::Keys { username, first }, Some(hash)) = (state, self.mechanism.hash()) else {
            return SaslError::MalformedRequest.into();
        };
        // Made in every case, so that the time tells nothing.
        let fake = fake.keys(hash, &username, &self.domain);
        let real = credentials.and_then(|credentials| credentials.scram_keys(hash)).cloned();
        let extension = self.announces_offer.then(|| hash.digest(self.offer.downgrade_text().as_bytes()));
        let known = real.is_some();
        let (challenge, first) =
            first.answer(hash, real.unwrap_or(fake), known, &self.server_nonce, extension.as_deref());
        self.state = State::Final { username, first };
        Progress::Challenge(challenge)
    }

    /// Answers [`Progress::NeedVerify`].
    pub fn verified(&mut self, right: bool) -> Progress {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Verify { username } if right => Progress::Success { username, data: Vec::new() },
            State::Verify { .. } => SaslError::NotAuthorized.into(),
            _ => SaslError::MalformedRequest.into(),
        }
    }

    fn start(&mut self, data: &[u8]) -> Result<Progress, SaslError> {
        if self.mechanism == Mechanism::Plain {
            let message = plain::Message::parse(data)?;
            let username = self.localpart(message.authcid, message.authzid)?;
            let password = Zeroizing::new(message.password.to_owned());
            self.state = State::Verify { username: username.clone() };
            return Ok(Progress::NeedVerify { username, password });
        }
        let first = scram::ClientFirst::parse(data, self.mechanism.is_plus(), self.offer, &self.bindings)?;
        let username = self.localpart(&first.name, &first.authzid)?;
        self.state = State::Keys { username: username.clone(), first };
        Ok(Progress::NeedKeys { username })
    }

    /// The localpart of the account that the client names, if `authzid` is empty or that account's bare JID.
    fn localpart(&self, authcid: &str, authzid: &str) -> Result<String, SaslError> {
        let username = localpart(authcid, &self.domain)?;
        if authzid.is_empty() {
            return Ok(username);
        }
        let own = BareJid::from_parts(&username, &self.domain).map_err(|_| SaslError::NotAuthorized)?;
        match JidRef::parse(authzid) {
            Ok(jid) if jid.as_str() == own.as_str() => Ok(username),
            _ => Err(SaslError::InvalidAuthzid),
        }
    }
}

/// The prepared localpart of the account that a client of that domain names.
///
/// # Errors
/// [`SaslError::NotAuthorized`]: a name that cannot be an account's is as wrong as one that is not.
pub fn localpart(authcid: &str, domain: &str) -> Result<String, SaslError> {
    // RFC 6120 section 6.3.7 says the localpart; clients that send the bare JID mean the same. No localpart has an `@`.
    let local = match authcid.split_once('@') {
        Some((local, named)) if prepare_domain(named).is_ok_and(|named| named == domain) => local,
        Some(_) => return Err(SaslError::NotAuthorized),
        None => authcid,
    };
    prepare_localpart(local).map(Cow::into_owned).map_err(|_| SaslError::NotAuthorized)
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Start { .. } => "start",
            State::Keys { .. } => "waits for keys",
            State::Final { .. } => "waits for the proof",
            State::Verify { .. } => "waits for the verdict",
            State::Over => "over",
        };
        write!(f, "Exchange({} {state})", self.mechanism.name())
    }
}

/// The octets of `<auth/>`, `<response/>` or `<challenge/>`: `None` for no content, which in `<auth/>` means that there is no
/// initial response, no octets for `=` (RFC 6120 section 6.4.2).
///
/// # Errors
/// [`SaslError::IncorrectEncoding`] for what is not strict base64: white space, missing or misplaced padding, padding bits
/// that are not zero (section 13.9.1).
pub fn decode(content: &str) -> Result<Option<Vec<u8>>, SaslError> {
    match content {
        "" => Ok(None),
        "=" => Ok(Some(Vec::new())),
        _ => STANDARD.decode(content).map(Some).map_err(|_| SaslError::IncorrectEncoding),
    }
}

/// The content of `<challenge/>` or `<success/>`: base64, `=` for no octets (RFC 6120 section 6.4.6).
pub fn encode(data: &[u8]) -> String {
    if data.is_empty() { "=".to_owned() } else { STANDARD.encode(data) }
}

#[cfg(test)]
mod tests;
