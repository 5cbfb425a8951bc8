//! The client's side of SCRAM-SHA-1 and SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding.

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::Outcome;

/// A mechanism; the stronger first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    Sha256,
    Sha1,
}

/// What PBKDF2 made of a password, by user, salt and iterations: a client that logs in often keeps it too, and the load
/// tool would otherwise need more CPU for a login than any server.
pub type Salted = Mutex<HashMap<(String, String, u32), Vec<u8>>>;

impl Mechanism {
    /// The best that stream features offer.
    pub fn offered(features: &str) -> Outcome<Mechanism> {
        [Mechanism::Sha256, Mechanism::Sha1]
            .into_iter()
            .find(|mechanism| features.contains(&format!(">{}<", mechanism.name())))
            .ok_or_else(|| format!("no SCRAM is offered: {features}").into())
    }

    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Sha256 => "SCRAM-SHA-256",
            Mechanism::Sha1 => "SCRAM-SHA-1",
        }
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        fn run<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> Vec<u8> {
            let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
            mac.update(data);
            mac.finalize().into_bytes().to_vec()
        }
        match self {
            Mechanism::Sha256 => run::<Hmac<Sha256>>(key, data),
            Mechanism::Sha1 => run::<Hmac<Sha1>>(key, data),
        }
    }

    fn hash(self, data: &[u8]) -> Vec<u8> {
        match self {
            Mechanism::Sha256 => Sha256::digest(data).to_vec(),
            Mechanism::Sha1 => Sha1::digest(data).to_vec(),
        }
    }

    fn salted(self, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
        match self {
            Mechanism::Sha256 => {
                let mut salted = vec![0; 32];
                pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, &mut salted);
                salted
            }
            Mechanism::Sha1 => {
                let mut salted = vec![0; 20];
                pbkdf2::pbkdf2_hmac::<Sha1>(password.as_bytes(), salt, iterations, &mut salted);
                salted
            }
        }
    }
}

/// The nonce need not be unguessable: nothing is protected here.
const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

/// Client-first message in base64.
pub fn first(user: &str) -> String {
    STANDARD.encode(format!("n,,n={user},r={NONCE}"))
}

/// Client-final message in base64, for the base64 text of a challenge.
pub fn last(mechanism: Mechanism, user: &str, password: &str, challenge: &str, cache: &Salted) -> Outcome<String> {
    let challenge = String::from_utf8(STANDARD.decode(challenge)?)?;
    let field = |name: &str| {
        let value = challenge.split(',').find_map(|field| field.strip_prefix(name));
        value.ok_or_else(|| format!("no {name} in the challenge {challenge}"))
    };
    let (nonce, salt, iterations) = (field("r=")?, field("s=")?, field("i=")?.parse::<u32>()?);

    let key = (format!("{user} {}", mechanism.name()), salt.to_owned(), iterations);
    let known = cache.lock().ok().and_then(|cache| cache.get(&key).cloned());
    let salted = match known {
        Some(salted) => salted,
        None => {
            let salted = mechanism.salted(password, &STANDARD.decode(salt)?, iterations);
            cache.lock().ok().and_then(|mut cache| cache.insert(key, salted.clone()));
            salted
        }
    };
    let without_proof = format!("c=biws,r={nonce}");
    let auth_message = format!("n={user},r={NONCE},{challenge},{without_proof}");
    let client_key = mechanism.hmac(&salted, b"Client Key");
    let signature = mechanism.hmac(&mechanism.hash(&client_key), auth_message.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect();
    Ok(STANDARD.encode(format!("{without_proof},p={}", STANDARD.encode(proof))))
}
