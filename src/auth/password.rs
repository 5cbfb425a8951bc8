//! Passwords: what may be one, what is kept of it, and how long finding out takes.
//!
//! A password is prepared with OpaqueString before anything is done with it (RFC 4616 section 2, RFC 8265 section 4) and never
//! kept. What is kept are SCRAM keys, with which a client can prove that it knows the password without sending it, or a scrypt
//! hash, which costs whoever copies the disk more and the client its proof.

use std::fmt;

use scrypt::Params;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::scram::{Hash, ScramKeys};
use crate::jid;

/// Octets of a password, as sent and as prepared. RFC 4616 section 2 asks for 255.
pub const PASSWORD_BYTES_MAX: usize = 1023;

/// Characters a new password must have. It stops what is empty or nearly so; against guessing the limits on failed logins
/// do more than a rule that makes people write passwords down.
pub const PASSWORD_CHARS_MIN: usize = 4;

/// Octets of a salt.
pub const SALT_BYTES: usize = 16;

/// PBKDF2 iterations that RFC 7677 section 4 asks for at least.
pub const ITERATIONS_MIN: u32 = 4096;

/// PBKDF2 iterations where nothing is configured: what a login costs the *client*; the server does them once, or per PLAIN.
pub const ITERATIONS_DEFAULT: u32 = 10_000;

/// A record with more than these iterations is not worth the helper thread's seconds.
const ITERATIONS_MAX: u32 = 10_000_000;

/// scrypt's block size and parallelism; what its memory and time depend on is `log_n`.
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 1;
const SCRYPT_BYTES: usize = 32;

/// scrypt takes `128 * r << log_n` octets of memory: at these limits 1 GiB.
const SCRYPT_LOG_N_MAX: u8 = 20;
const SCRYPT_R_MAX: u32 = 8;
const SCRYPT_P_MAX: u32 = 16;

/// Why this is no password for an account. The texts are for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordError {
    /// Nothing, or nothing left.
    Empty,
    /// A character that OpaqueString refuses: control characters above all.
    Forbidden,
    /// Fewer than [`PASSWORD_CHARS_MIN`] characters.
    TooShort,
    /// More than [`PASSWORD_BYTES_MAX`] octets.
    TooLong,
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PasswordError::Empty => f.write_str("The password is empty."),
            PasswordError::Forbidden => f.write_str("The password has a character that is not allowed."),
            PasswordError::TooShort => write!(f, "The password has fewer than {PASSWORD_CHARS_MIN} characters."),
            PasswordError::TooLong => write!(f, "The password has more than {PASSWORD_BYTES_MAX} bytes."),
        }
    }
}

impl std::error::Error for PasswordError {}

/// How the passwords of this server are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordScheme {
    /// Keys for SCRAM-SHA-256 and SCRAM-SHA-1.
    Scram {
        /// PBKDF2 iterations; fewer than [`ITERATIONS_MIN`] are not done.
        iterations: u32,
    },
    /// A scrypt hash: PLAIN only.
    Scrypt {
        /// Logarithm of the cost: 14 takes 16 MiB, 12 suits a router. At most 20.
        log_n: u8,
    },
}

impl Default for PasswordScheme {
    fn default() -> PasswordScheme {
        PasswordScheme::Scram { iterations: ITERATIONS_DEFAULT }
    }
}

impl PasswordScheme {
    /// The iterations that new keys get.
    pub fn iterations(self) -> u32 {
        match self {
            PasswordScheme::Scram { iterations } => iterations.clamp(ITERATIONS_MIN, ITERATIONS_MAX),
            PasswordScheme::Scrypt { .. } => ITERATIONS_DEFAULT,
        }
    }
}

/// A password in its OpaqueString form.
pub struct Prepared(Zeroizing<String>);

impl Prepared {
    /// Prepares a password that somebody logs in with: whatever may have been one is.
    ///
    /// # Errors
    /// [`PasswordError`], but never `TooShort`.
    pub fn presented(password: &str) -> Result<Prepared, PasswordError> {
        match password.len() {
            0 => return Err(PasswordError::Empty),
            1..=PASSWORD_BYTES_MAX => {}
            _ => return Err(PasswordError::TooLong),
        }
        let prepared = jid::opaque_string(password).map_err(|_| PasswordError::Forbidden)?;
        let prepared = Zeroizing::new(prepared.into_owned());
        if prepared.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        Ok(Prepared(prepared))
    }

    /// Prepares a password that an account is to get.
    ///
    /// # Errors
    /// [`PasswordError`] for what is none or too weak (RFC 6120 section 13.9.4).
    pub fn chosen(password: &str) -> Result<Prepared, PasswordError> {
        let prepared = Prepared::presented(password)?;
        if prepared.0.chars().count() < PASSWORD_CHARS_MIN {
            return Err(PasswordError::TooShort);
        }
        Ok(prepared)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepared(…)")
    }
}

/// What is kept of an account's password.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Keys for both hash functions. An account that was imported with one kind only has `ScramKeys::default()` for the other.
    Scram {
        /// For SCRAM-SHA-256 and, if there, for PLAIN.
        sha256: ScramKeys,
        /// For SCRAM-SHA-1.
        sha1: ScramKeys,
    },
    /// A scrypt hash (RFC 7914).
    Scrypt {
        /// Logarithm of the cost parameter N.
        log_n: u8,
        /// Block size.
        r: u32,
        /// Parallelism.
        p: u32,
        /// At least one octet.
        salt: Vec<u8>,
        /// The hash.
        hash: Vec<u8>,
    },
}

impl Credentials {
    /// What to keep of a new password. Takes milliseconds, or for scrypt a tenth of a second and its memory: for the helper
    /// thread. `rng` fills a slice with random octets.
    ///
    /// # Errors
    /// [`PasswordError`] for what is no password or too weak.
    pub fn derive(
        scheme: &PasswordScheme,
        password: &str,
        rng: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Credentials, PasswordError> {
        let password = Prepared::chosen(password)?;
        let mut salt = || {
            let mut salt = vec![0; SALT_BYTES];
            rng(&mut salt);
            salt
        };
        Ok(match *scheme {
            PasswordScheme::Scram { .. } => Credentials::scram(&password, scheme.iterations(), salt(), salt()),
            PasswordScheme::Scrypt { log_n } => Credentials::scrypt(&password, log_n, salt()),
        })
    }

    /// SCRAM keys of a password.
    pub fn scram(password: &Prepared, iterations: u32, sha256_salt: Vec<u8>, sha1_salt: Vec<u8>) -> Credentials {
        Credentials::Scram {
            sha256: ScramKeys::derive(Hash::Sha256, password, sha256_salt, iterations),
            sha1: ScramKeys::derive(Hash::Sha1, password, sha1_salt, iterations),
        }
    }

    /// The scrypt hash of a password. A `log_n` above 20 is taken for 20.
    pub fn scrypt(password: &Prepared, log_n: u8, salt: Vec<u8>) -> Credentials {
        let log_n = log_n.clamp(1, SCRYPT_LOG_N_MAX);
        let hash = scrypt_hash(password, log_n, SCRYPT_R, SCRYPT_P, &salt, SCRYPT_BYTES)
            .expect("parameters within the limits are valid");
        Credentials::Scrypt { log_n, r: SCRYPT_R, p: SCRYPT_P, salt, hash: hash.to_vec() }
    }

    /// Whether this is the account's password. As slow as the scheme is: for the helper thread. See [`verify`] for accounts
    /// that may not exist.
    pub fn verify(&self, password: &str) -> bool {
        let Ok(password) = Prepared::presented(password) else { return false };
        match self {
            Credentials::Scram { sha256, sha1 } => {
                let (hash, keys) =
                    if sha256.is_usable(Hash::Sha256) { (Hash::Sha256, sha256) } else { (Hash::Sha1, sha1) };
                keys.is_usable(hash) && keys.iterations <= ITERATIONS_MAX && keys.verify(hash, &password)
            }
            Credentials::Scrypt { log_n, r, p, salt, hash } => {
                let computed = scrypt_hash(&password, *log_n, *r, *p, salt, hash.len());
                computed.is_some_and(|computed| computed.ct_eq(hash).into())
            }
        }
    }

    /// Whether a new password of this scheme would be kept in the same way. If not, and the password is at hand because
    /// somebody has just logged in with it, it can be kept anew.
    pub fn is_current(&self, scheme: &PasswordScheme) -> bool {
        match (self, scheme) {
            (Credentials::Scram { sha256, sha1 }, PasswordScheme::Scram { .. }) => {
                [(sha256, Hash::Sha256), (sha1, Hash::Sha1)]
                    .into_iter()
                    .all(|(keys, hash)| keys.is_usable(hash) && keys.iterations >= scheme.iterations())
            }
            (Credentials::Scrypt { log_n, .. }, PasswordScheme::Scrypt { log_n: wanted }) => log_n >= wanted,
            _ => false,
        }
    }

    /// Whether there are keys for SCRAM, but not for that hash function, or weaker ones than a new password's would be.
    pub fn lacks(&self, hash: Hash, scheme: &PasswordScheme) -> bool {
        matches!((self, scheme), (Credentials::Scram { .. }, PasswordScheme::Scram { .. }))
            && self.scram_keys(hash).is_none_or(|keys| keys.iterations < scheme.iterations())
    }

    /// The same with these keys for that hash function; `None` where there are no keys for SCRAM.
    pub fn with(&self, hash: Hash, keys: ScramKeys) -> Option<Credentials> {
        let Credentials::Scram { sha256, sha1 } = self.clone() else { return None };
        Some(match hash {
            Hash::Sha256 => Credentials::Scram { sha256: keys, sha1 },
            Hash::Sha1 => Credentials::Scram { sha256, sha1: keys },
        })
    }

    /// The keys for SCRAM with that hash function, if there are any.
    pub(super) fn scram_keys(&self, hash: Hash) -> Option<&ScramKeys> {
        let Credentials::Scram { sha256, sha1 } = self else { return None };
        let keys = match hash {
            Hash::Sha256 => sha256,
            Hash::Sha1 => sha1,
        };
        keys.is_usable(hash).then_some(keys)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Scram { .. } => f.write_str("Scram(…)"),
            Credentials::Scrypt { log_n, .. } => write!(f, "Scrypt(log_n {log_n}, …)"),
        }
    }
}

/// Whether this is the password of the account with these credentials. Without any, which is an account that does not exist,
/// it never is, and finding out takes as long as for an account of this `scheme`.
pub fn verify(credentials: Option<&Credentials>, scheme: &PasswordScheme, password: &str) -> bool {
    if let Some(credentials) = credentials {
        return credentials.verify(password);
    }
    let nobody = match *scheme {
        PasswordScheme::Scram { .. } => Credentials::Scram {
            sha256: ScramKeys {
                iterations: scheme.iterations(),
                salt: vec![0; SALT_BYTES],
                stored_key: vec![0; Hash::Sha256.bytes()],
                server_key: vec![0; Hash::Sha256.bytes()],
            },
            sha1: ScramKeys::default(),
        },
        PasswordScheme::Scrypt { log_n } => Credentials::Scrypt {
            log_n: log_n.clamp(1, SCRYPT_LOG_N_MAX),
            r: SCRYPT_R,
            p: SCRYPT_P,
            salt: vec![0; SALT_BYTES],
            hash: vec![0; SCRYPT_BYTES],
        },
    };
    // The verdict is waited for and thrown away.
    std::hint::black_box(nobody.verify(password));
    false
}

/// `None` for parameters that a record of ours does not have: they must not make the machine run out of memory.
fn scrypt_hash(
    password: &Prepared,
    log_n: u8,
    r: u32,
    p: u32,
    salt: &[u8],
    bytes: usize,
) -> Option<Zeroizing<Vec<u8>>> {
    let in_limits = (1..=SCRYPT_LOG_N_MAX).contains(&log_n)
        && (1..=SCRYPT_R_MAX).contains(&r)
        && (1..=SCRYPT_P_MAX).contains(&p)
        && (16..=64).contains(&bytes);
    if !in_limits {
        return None;
    }
    let params = Params::new(log_n, r, p).ok()?;
    let mut hash = Zeroizing::new(vec![0; bytes]);
    scrypt::scrypt(password.as_bytes(), salt, &params, &mut hash).ok()?;
    Some(hash)
}
