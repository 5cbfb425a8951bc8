//! SCRAM (RFC 5802, RFC 7677): its keys, its four messages, its channel binding.
//!
//! The grammar is that of RFC 5802 section 7 and the order of attributes is fixed. What violates it, or the negotiation of
//! channel binding, is `malformed-request`; what is well-formed and wrong is `not-authorized` and nothing finer.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use pbkdf2::pbkdf2_hmac;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::password::{PasswordScheme, Prepared, SALT_BYTES};
use super::{Bindings, Offer, SaslError};

/// SCRAM's hash functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// Of SCRAM-SHA-1. What SCRAM needs of it is not broken.
    Sha1,
    /// Of SCRAM-SHA-256.
    Sha256,
}

impl Hash {
    /// Octets of its output.
    pub fn bytes(self) -> usize {
        match self {
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
        }
    }

    pub(super) fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha1 => Sha1::digest(data).to_vec(),
            Hash::Sha256 => Sha256::digest(data).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], data: &[&[u8]]) -> Vec<u8> {
        fn run<M: Mac + KeyInit>(key: &[u8], data: &[&[u8]]) -> Vec<u8> {
            let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
            data.iter().for_each(|data| mac.update(data));
            mac.finalize().into_bytes().to_vec()
        }
        match self {
            Hash::Sha1 => run::<Hmac<Sha1>>(key, data),
            Hash::Sha256 => run::<Hmac<Sha256>>(key, data),
        }
    }

    /// `Hi` of RFC 5802 section 2.2.
    fn salted(self, password: &Prepared, salt: &[u8], iterations: u32) -> Zeroizing<Vec<u8>> {
        let mut salted = Zeroizing::new(vec![0; self.bytes()]);
        match self {
            Hash::Sha1 => pbkdf2_hmac::<Sha1>(password.as_bytes(), salt, iterations, &mut salted),
            Hash::Sha256 => pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, &mut salted),
        }
        salted
    }

    fn stored_key(self, salted: &[u8]) -> Vec<u8> {
        self.digest(&Zeroizing::new(self.hmac(salted, &[b"Client Key"])))
    }
}

/// What is kept of a password for one hash function (RFC 5802 section 3). Empty keys are no keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ScramKeys {
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// The salt, as octets.
    pub salt: Vec<u8>,
    /// `H(ClientKey)`.
    pub stored_key: Vec<u8>,
    /// With which the server proves that it has the keys.
    pub server_key: Vec<u8>,
}

impl ScramKeys {
    /// The keys of a password. Takes a millisecond for 4,096 iterations.
    pub fn derive(hash: Hash, password: &Prepared, salt: Vec<u8>, iterations: u32) -> ScramKeys {
        let salted = hash.salted(password, &salt, iterations);
        let (stored_key, server_key) = (hash.stored_key(&salted), hash.hmac(&salted, &[b"Server Key"]));
        ScramKeys { iterations, salt, stored_key, server_key }
    }

    /// The keys of a password whose `SaltedPassword` somebody else has computed (RFC 5802 section 3); `None` if it has another
    /// length.
    pub fn from_salted(hash: Hash, salted: &[u8], salt: Vec<u8>, iterations: u32) -> Option<ScramKeys> {
        let (stored_key, server_key) = (hash.stored_key(salted), hash.hmac(salted, &[b"Server Key"]));
        (salted.len() == hash.bytes()).then_some(ScramKeys { iterations, salt, stored_key, server_key })
    }

    /// Whether these can be keys for that hash function.
    pub(super) fn is_usable(&self, hash: Hash) -> bool {
        let bytes = hash.bytes();
        self.iterations > 0 && !self.salt.is_empty() && self.stored_key.len() == bytes && self.server_key.len() == bytes
    }

    pub(super) fn verify(&self, hash: Hash, password: &Prepared) -> bool {
        let salted = hash.salted(password, &self.salt, self.iterations);
        hash.stored_key(&salted).ct_eq(&self.stored_key).into()
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramKeys(i={}, …)", self.iterations)
    }
}

/// Keys for accounts that do not exist: the same salt whenever asked, as a real account has, and the iterations of new ones.
#[derive(Clone)]
pub struct FakeKeys {
    secret: [u8; 32],
    iterations: u32,
}

impl FakeKeys {
    /// From a random secret that the store keeps for ever: salts that change with a restart would tell.
    pub fn new(secret: [u8; 32], scheme: &PasswordScheme) -> FakeKeys {
        FakeKeys { secret, iterations: scheme.iterations() }
    }

    pub(super) fn keys(&self, hash: Hash, username: &str, domain: &str) -> ScramKeys {
        let derive = |what: &[u8]| {
            Hash::Sha256.hmac(&self.secret, &[&[hash as u8], what, b"\0", username.as_bytes(), b"@", domain.as_bytes()])
        };
        let mut salt = derive(b"salt");
        salt.truncate(SALT_BYTES);
        let key = |what| {
            let mut key = derive(what);
            key.truncate(hash.bytes());
            key
        };
        ScramKeys { iterations: self.iterations, salt, stored_key: key(b"stored"), server_key: key(b"server") }
    }
}

impl fmt::Debug for FakeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeKeys(i={}, …)", self.iterations)
    }
}

/// The client's first message, its channel binding negotiated.
pub(super) struct ClientFirst {
    /// The user's name, unescaped and unprepared.
    pub name: String,
    /// The authorization identity, unescaped, empty if absent.
    pub authzid: String,
    /// What `c=` must be: the GS2 header as received, and the data of the binding it names.
    binding_input: Vec<u8>,
    bare: String,
    nonce: String,
}

impl ClientFirst {
    pub(super) fn parse(data: &[u8], plus: bool, offer: Offer, bindings: &Bindings) -> Result<ClientFirst, SaslError> {
        let text = std::str::from_utf8(data).map_err(|_| SaslError::MalformedRequest)?;
        let (flag, rest) = text.split_once(',').ok_or(SaslError::MalformedRequest)?;
        let (authzid, bare) = rest.split_once(',').ok_or(SaslError::MalformedRequest)?;
        let binding = negotiate(flag, plus, offer, bindings)?;
        let authzid = match authzid {
            "" => String::new(),
            _ => unescape(authzid.strip_prefix("a=").ok_or(SaslError::MalformedRequest)?)?,
        };

        let mut attributes = bare.split(',');
        let name = unescape(expect(attributes.next(), "n=")?)?;
        let nonce = expect(attributes.next(), "r=")?;
        if name.is_empty() || !is_nonce(nonce) || !attributes.all(is_ignorable) {
            return Err(SaslError::MalformedRequest);
        }
        let header = &text[..text.len() - bare.len()];
        Ok(ClientFirst {
            name,
            authzid,
            binding_input: [header.as_bytes(), binding].concat(),
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
        })
    }

    /// Our first message and what to expect after it. `known` is whether the keys can let anybody in, `offer_digest` what
    /// XEP-0474 adds.
    pub(super) fn answer(
        self,
        hash: Hash,
        keys: ScramKeys,
        known: bool,
        server_nonce: &str,
        offer_digest: Option<&[u8]>,
    ) -> (Vec<u8>, ServerFirst) {
        let nonce = self.nonce + server_nonce;
        let mut message = format!("r={nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.iterations);
        if let Some(digest) = offer_digest {
            message.push_str(",h=");
            message.push_str(&STANDARD.encode(digest));
        }
        let auth_message = [&*self.bare, ",", &*message, ","].concat();
        let first = ServerFirst { hash, keys, known, nonce, auth_message, binding_input: self.binding_input };
        (message.into_bytes(), first)
    }
}

/// What was agreed when our first message went out.
pub(super) struct ServerFirst {
    hash: Hash,
    keys: ScramKeys,
    known: bool,
    nonce: String,
    /// AuthMessage (RFC 5802 section 3) up to the client's final message.
    auth_message: String,
    binding_input: Vec<u8>,
}

impl ServerFirst {
    /// Checks the client's final message and makes ours.
    pub(super) fn finish(&self, data: &[u8]) -> Result<Vec<u8>, SaslError> {
        let text = std::str::from_utf8(data).map_err(|_| SaslError::MalformedRequest)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(SaslError::MalformedRequest)?;
        let proof = base64(proof)?;
        let mut attributes = without_proof.split(',');
        let binding = base64(expect(attributes.next(), "c=")?)?;
        let nonce = expect(attributes.next(), "r=")?;
        if !attributes.all(is_ignorable) || proof.len() != self.hash.bytes() {
            return Err(SaslError::MalformedRequest);
        }

        // All is computed whatever fails, and all failures are one.
        let message: [&[u8]; 2] = [self.auth_message.as_bytes(), without_proof.as_bytes()];
        let signature = self.hash.hmac(&self.keys.stored_key, &message);
        let client_key: Zeroizing<Vec<u8>> = Zeroizing::new(proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect());
        let right_key = self.hash.digest(&client_key).ct_eq(&self.keys.stored_key);
        let right_binding = binding.ct_eq(&self.binding_input);
        let right_nonce = nonce.as_bytes().ct_eq(self.nonce.as_bytes());
        let verifier = self.hash.hmac(&self.keys.server_key, &message);
        if !bool::from(right_key & right_binding & right_nonce) || !self.known {
            return Err(SaslError::NotAuthorized);
        }
        Ok(["v=", &STANDARD.encode(verifier)].concat().into_bytes())
    }
}

/// The data to bind to, by the flag of the GS2 header (RFC 5802 section 6):
///
/// | flag | `-PLUS` | not `-PLUS` |
/// |---|---|---|
/// | `n` | no | yes |
/// | `y` | no | unless we offered `-PLUS`: somebody took it out of the list |
/// | `p=type` | if we offered the type | no |
fn negotiate<'a>(flag: &str, plus: bool, offer: Offer, bindings: &'a Bindings) -> Result<&'a [u8], SaslError> {
    match flag {
        "n" if !plus => Ok(&[]),
        "y" if !plus && !offer.offers_plus() => Ok(&[]),
        _ if plus => flag
            .strip_prefix("p=")
            .filter(|&binding_type| offer.channel_bindings().any(|offered| offered == binding_type))
            .and_then(|binding_type| bindings.data(binding_type))
            .ok_or(SaslError::MalformedRequest),
        _ => Err(SaslError::MalformedRequest),
    }
}

/// The value of the attribute that must stand here.
fn expect<'a>(attribute: Option<&'a str>, name: &str) -> Result<&'a str, SaslError> {
    attribute.and_then(|attribute| attribute.strip_prefix(name)).ok_or(SaslError::MalformedRequest)
}

/// Whether this is an extension that we need not understand: an attribute that RFC 5802 section 5.1 does not define. Those that
/// it does have their places, and `m=` is an extension that we must understand.
fn is_ignorable(attribute: &str) -> bool {
    let Some((name, value)) = attribute.split_once('=') else { return false };
    let is_extension =
        name.len() == 1 && name.bytes().all(|name| name.is_ascii_alphabetic() && !b"aceimnprsv".contains(&name));
    is_extension && !value.is_empty() && !value.contains('\0')
}

/// Whether this is one or more printable ASCII characters without a comma.
pub(super) fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// A saslname's text: `=2C` is a comma, `=3D` an equals sign, any other `=` an error.
fn unescape(name: &str) -> Result<String, SaslError> {
    if name.contains('\0') {
        return Err(SaslError::MalformedRequest);
    }
    let mut pieces = name.split('=');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (c, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(SaslError::MalformedRequest),
        };
        text.push(c);
        text.push_str(rest);
    }
    Ok(text)
}

fn base64(text: &str) -> Result<Vec<u8>, SaslError> {
    STANDARD.decode(text).map_err(|_| SaslError::MalformedRequest)
}
