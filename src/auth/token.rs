//! Tokens by which a client logs in again (XEP-0484) with mechanisms of the HT family (draft-schmaus-kitten-sasl-ht-09), and what
//! tells one client from another.
//!
//! A token is derived, not kept: from a secret of this installation, the account, the client's id, the mechanism, and a random salt
//! that the store keeps. The client's id is not kept either, only a hash of it. So whoever has copied the disk can neither log in
//! with what is there nor make out a token, unless he also knows the id, 122 random bits that only the client has.
//!
//! Deliberately absent: HT-SHA-256-UNIQ, since there is no `tls-unique`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use super::{Bindings, SaslError};
use crate::jid::BareJid;

/// What tells a token from others of its client.
pub type TokenSalt = [u8; 16];

/// The mechanisms that tokens are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenMechanism {
    /// HT-SHA-256-EXPR, bound to the TLS connection by `tls-exporter`.
    Exporter,
    /// HT-SHA-256-ENDP, bound to the certificate by `tls-server-end-point`.
    EndPoint,
    /// HT-SHA-256-NONE, bound to nothing.
    None,
}

impl TokenMechanism {
    /// All, strongest first.
    pub const ALL: [TokenMechanism; 3] = [TokenMechanism::Exporter, TokenMechanism::EndPoint, TokenMechanism::None];

    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            TokenMechanism::Exporter => "HT-SHA-256-EXPR",
            TokenMechanism::EndPoint => "HT-SHA-256-ENDP",
            TokenMechanism::None => "HT-SHA-256-NONE",
        }
    }

    /// The mechanism of that name.
    pub fn from_name(name: &str) -> Option<TokenMechanism> {
        TokenMechanism::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// What it binds to on this connection; `None` where it cannot be used.
    pub fn binding(self, bindings: &Bindings) -> Option<&[u8]> {
        match self {
            TokenMechanism::Exporter => bindings.exporter.as_ref().map(<[u8; 32]>::as_slice),
            TokenMechanism::EndPoint => bindings.server_end_point.as_deref(),
            TokenMechanism::None => Some(&[]),
        }
    }
}

/// A client's only message: its name and the proof that it has a token.
pub struct TokenMessage<'a> {
    /// The account's name, as sent.
    pub authcid: &'a str,
    proof: &'a [u8],
}

impl<'a> TokenMessage<'a> {
    /// Reads `authcid NUL proof`.
    ///
    /// # Errors
    /// [`SaslError::MalformedRequest`] for anything else.
    pub fn parse(data: &'a [u8]) -> Result<TokenMessage<'a>, SaslError> {
        let nul = data.iter().position(|byte| *byte == 0).ok_or(SaslError::MalformedRequest)?;
        let (authcid, proof) = data.split_at_checked(nul).ok_or(SaslError::MalformedRequest)?;
        let authcid = std::str::from_utf8(authcid).map_err(|_| SaslError::MalformedRequest)?;
        let proof = proof.get(1..).filter(|proof| proof.len() == 32 && !authcid.is_empty());
        Ok(TokenMessage { authcid, proof: proof.ok_or(SaslError::MalformedRequest)? })
    }

    /// The proof, to be checked later.
    pub fn proof(&self) -> [u8; 32] {
        let mut proof = [0; 32];
        proof.iter_mut().zip(self.proof).for_each(|(to, from)| *to = *from);
        proof
    }
}

/// From what tokens are derived.
#[derive(Clone)]
pub struct TokenSecret([u8; 32]);

impl TokenSecret {
    /// From a random secret that the store keeps for ever: with another one all tokens are worthless.
    pub fn new(secret: [u8; 32]) -> TokenSecret {
        TokenSecret(secret)
    }

    /// Under which name the store keeps what belongs to a client of an account.
    pub fn place(&self, user: &BareJid, client: &ClientId) -> [u8; 16] {
        let hash = hmac(&self.0, &[b"token client\0", user.as_str().as_bytes(), b"\0", &client.0]);
        std::array::from_fn(|at| hash[at])
    }

    /// The token of that salt.
    pub fn token(
        &self,
        user: &BareJid,
        client: &ClientId,
        mechanism: TokenMechanism,
        salt: &TokenSalt,
    ) -> Zeroizing<String> {
        let parts = [mechanism.name().as_bytes(), b"\0", user.as_str().as_bytes(), b"\0", &client.0, salt];
        let key = Zeroizing::new(hmac(&self.0, &[&b"token\0"[..], &parts.concat()]));
        Zeroizing::new(URL_SAFE_NO_PAD.encode(*key))
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

/// Whether a client's proof is that of a token. Takes as long for a wrong one.
pub fn is_proof_of(token: &str, binding: &[u8], proof: &[u8; 32]) -> Choice {
    hmac(token.as_bytes(), &[b"Initiator", binding]).ct_eq(proof)
}

/// With which the server proves that it knows the token too.
pub fn token_response(token: &str, binding: &[u8]) -> Vec<u8> {
    hmac(token.as_bytes(), &[b"Responder", binding]).to_vec()
}

fn hmac(key: &[u8], data: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    data.iter().for_each(|data| mac.update(data));
    mac.finalize().into_bytes().into()
}

/// Which installation of a client this is, as it says itself: the `user-agent` id of XEP-0388, a UUID of version 4.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientId([u8; 16]);

impl ClientId {
    /// From its usual form, in letters of either case; `None` for everything else, UUIDs of other versions included.
    pub fn parse(text: &str) -> Option<ClientId> {
        let text = text.as_bytes();
        let has_shape = text.len() == 36
            && text.iter().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => *byte == b'-',
                14 => *byte == b'4',
                19 => matches!(byte.to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b'),
                _ => byte.is_ascii_hexdigit(),
            });
        let digits = text.iter().filter_map(|byte| char::from(*byte).to_digit(16));
        let mut id = [0; 16];
        for (at, digit) in digits.take(32).enumerate() {
            let byte = id.get_mut(at / 2)?;
            *byte = *byte << 4 | digit as u8;
        }
        has_shape.then_some(ClientId(id))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nobody else is to learn of it (XEP-0388 section 2.3).
        f.write_str("ClientId(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "d4565fa7-4d72-4749-b3d3-740edbf87770";

    #[test]
    fn clients_have_random_uuids() {
        let known = ClientId::parse(ID).expect("an id");
        assert_eq!(ClientId::parse(&ID.to_uppercase()), Some(known));
        for text in [
            "",
            "d4565fa7-4d72-1749-b3d3-740edbf87770",
            "d4565fa7-4d72-4749-73d3-740edbf87770",
            "d4565fa74d724749b3d3740edbf87770",
            "d4565fa7-4d72-4749-b3d3-740edbf8777",
            "d4565fa7-4d72-4749-b3d3-740edbf877700",
            "d4565fa7-4d72-4749-b3d3-740edbf8777g",
            "d4565fa7-4d72-4749-b3d3-740edbf877é",
        ] {
            assert_eq!(ClientId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn tokens_differ_by_all_that_they_are_for() {
        let user = |name: &str| BareJid::from_parts(name, "x.test").expect("a JID");
        let [client, other] =
            [ID, "d4565fa7-4d72-4749-b3d3-740edbf87771"].map(|id| ClientId::parse(id).expect("an id"));
        let secret = TokenSecret::new([7; 32]);
        let make =
            |user: &BareJid, client, mechanism, salt| secret.token(user, client, mechanism, &[salt; 16]).to_string();
        let first = make(&user("a"), &client, TokenMechanism::None, 1);
        assert_eq!((first.len(), &first), (43, &make(&user("a"), &client, TokenMechanism::None, 1)));
        for different in [
            make(&user("b"), &client, TokenMechanism::None, 1),
            make(&user("a"), &other, TokenMechanism::None, 1),
            make(&user("a"), &client, TokenMechanism::EndPoint, 1),
            make(&user("a"), &client, TokenMechanism::None, 2),
            TokenSecret::new([8; 32]).token(&user("a"), &client, TokenMechanism::None, &[1; 16]).to_string(),
        ] {
            assert_ne!(first, different);
        }
        assert_ne!(secret.place(&user("a"), &client), secret.place(&user("a"), &other));
        assert_ne!(secret.place(&user("a"), &client), secret.place(&user("b"), &client));
    }

    #[test]
    fn proofs() {
        // As another implementation of HMAC computes them.
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let proof = hmac(b"token", &[b"Initiator", b"binding"]);
        assert_eq!(hex(&proof), "be16e3f9f99a00a058ae1f6c9c3e0562f177c006dba78d76796e71fe79e7e51d");
        let response = token_response("token", b"binding");
        assert_eq!(hex(&response), "69ea615bbbe67f1c79ebcbfbf327793729aca4f67fe13e82f406f16edad6b4be");
        assert!(bool::from(is_proof_of("token", b"binding", &proof)));
        assert!(!bool::from(is_proof_of("token", b"", &proof)));
        assert!(!bool::from(is_proof_of("Token", b"binding", &proof)));
        let check = |data: &[u8], expected: Option<&str>| {
            assert_eq!(
                TokenMessage::parse(data).ok().map(|message| message.authcid),
                expected,
                "{}",
                data.escape_ascii()
            );
        };
        check(&[b"juliet\0", &proof[..]].concat(), Some("juliet"));
        check(&[b"juliet\0", &[0; 32][..]].concat(), Some("juliet"));
        check(&[b"juliet\0", &proof[..31]].concat(), None);
        check(&[b"juliet\0", &proof[..], b"x"].concat(), None);
        check(&[b"\0", &proof[..]].concat(), None);
        check(&[b"\xff\0", &proof[..]].concat(), None);
        check(b"juliet", None);
        check(b"", None);
    }
}
