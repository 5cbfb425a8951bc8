//! Identifiers, nonces and salts from one seeded generator.

use sha2::{Digest, Sha256};

/// Draws unpredictable bytes: SHA-256 over a secret seed and a counter. Seeded by the system in production and by the test
/// elsewhere, so that a run can be repeated.
pub struct IdSource {
    seed: [u8; 32],
    counter: u64,
}

impl IdSource {
    /// From 32 secret bytes.
    pub fn new(seed: [u8; 32]) -> IdSource {
        IdSource { seed, counter: 0 }
    }

    /// The next 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        self.counter += 1;
        Sha256::new().chain_update(self.seed).chain_update(self.counter.to_be_bytes()).finalize().into()
    }

    /// Twenty letters and digits, 100 random bits: for stream ids, resources, nonces and the ids of our own stanzas.
    pub fn next_id(&mut self) -> String {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        self.bytes().iter().take(20).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
    }
}
