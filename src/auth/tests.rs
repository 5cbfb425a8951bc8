//! Exchanges as tables: what a client says, what comes of it. The client's half of SCRAM is here a second time.

#![allow(clippy::unwrap_used)]

use super::*;

const DOMAIN: &str = "example.com";
const NONCE: &str = "3rfcNHYJY1ZVvWVs7j";
const EXPORTER: [u8; 32] = [7; 32];
const END_POINT: &[u8] = b"hash of a certificate";
const SCHEME: PasswordScheme = PasswordScheme::Scram { iterations: 0 };

/// The connection and configuration of an offer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum On {
    Tls13,
    Tls12,
    /// TLS that ends in a proxy.
    Proxy,
    NoTls,
    /// TLS 1.3 where passwords are kept by scrypt.
    Scrypt,
}
use On::*;

fn offer(on: On) -> (Offer, Bindings) {
    let bindings = Bindings {
        exporter: matches!(on, Tls13 | Scrypt).then_some(EXPORTER),
        server_end_point: matches!(on, Tls13 | Tls12 | Scrypt).then(|| END_POINT.to_vec()),
    };
    let scheme = if on == Scrypt { PasswordScheme::Scrypt { log_n: 2 } } else { SCHEME };
    (Offer::new(on != NoTls, &bindings, scheme), bindings)
}

/// What the client says.
enum Say {
    /// An element without content.
    Nothing,
    Text(&'static str),
    Octets(&'static [u8]),
    /// SCRAM's last message, made with this password.
    Proof(&'static str),
    /// The same with the password `pencil`, changed before (what is signed) or after the proof is made.
    Signed(&'static str, &'static str),
    Forged(&'static str, &'static str),
}
use Say::*;

fn account(username: &str) -> Option<Credentials> {
    let password = Prepared::chosen("pencil").unwrap();
    match username {
        "juliet" | "a,b=c" | "j\u{fc}liet" => Some(Credentials::scram(&password, 2, vec![1; 16], vec![2; 16])),
        "old" => Some(Credentials::Scram {
            sha256: ScramKeys::default(),
            sha1: ScramKeys::derive(Hash::Sha1, &password, vec![3; 16], 2),
        }),
        "scrypt" => Some(Credentials::scrypt(&password, 2, vec![4; 16])),
        _ => None,
    }
}

/// The client's half, from what both have said: its last message and the verifier it expects.
fn client_final(
    hash: Hash,
    password: &str,
    first: &str,
    challenge: &str,
    signed: impl Fn(String) -> String,
) -> (String, Vec<u8>) {
    let (header, bare) = first.split_at(first.match_indices(',').nth(1).map_or(0, |(i, _)| i + 1));
    let fields: Vec<&str> = challenge.split(',').collect();
    let (nonce, salt, iterations) = (fields[0], &fields[1][2..], fields[2][2..].parse().unwrap());
    let mut input = header.as_bytes().to_vec();
    match header.split(',').next() {
        Some("p=tls-exporter") => input.extend(EXPORTER),
        Some("p=tls-server-end-point") => input.extend(END_POINT),
        _ => {}
    }
    let without_proof = signed(format!("c={},{nonce}", STANDARD.encode(input)));
    let auth_message = format!("{bare},{challenge},{without_proof}");

    let mut salted = vec![0; hash.bytes()];
    let salt = STANDARD.decode(salt).unwrap();
    match hash {
        Hash::Sha1 => pbkdf2::pbkdf2_hmac::<sha1::Sha1>(password.as_bytes(), &salt, iterations, &mut salted),
        Hash::Sha256 => pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password.as_bytes(), &salt, iterations, &mut salted),
    }
    let hmac = |key: &[u8], data: &str| -> Vec<u8> {
        use hmac::{Hmac, KeyInit, Mac};
        match hash {
            Hash::Sha1 => {
                Hmac::<sha1::Sha1>::new_from_slice(key).unwrap().chain_update(data).finalize().into_bytes().to_vec()
            }
            Hash::Sha256 => {
                Hmac::<sha2::Sha256>::new_from_slice(key).unwrap().chain_update(data).finalize().into_bytes().to_vec()
            }
        }
    };
    let client_key = hmac(&salted, "Client Key");
    let signature = hmac(&hash.digest(&client_key), &auth_message);
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    let verifier = format!("v={}", STANDARD.encode(hmac(&hmac(&salted, "Server Key"), &auth_message)));
    (format!("{without_proof},p={}", STANDARD.encode(proof)), verifier.into_bytes())
}

/// Plays an exchange to its end and says what came of it: `juliet` for success, a condition for failure, `...` if it waits
/// for more.
fn check(mechanism: &str, on: On, says: &[Say]) -> String {
    let (offer, bindings) = offer(on);
    let mechanism = match offer.select(mechanism) {
        Ok(mechanism) => mechanism,
        Err(error) => return error.name().to_owned(),
    };
    let fake = FakeKeys::new([9; 32], &SCHEME);
    let mut exchange = Exchange::begin(mechanism, &offer, &bindings, DOMAIN, NONCE.to_owned());
    let (mut first, mut challenge, mut verifier) = ("", String::new(), Vec::new());
    let mut outcome = None;
    for say in says {
        let mut proof = |password, signed: &dyn Fn(String) -> String| {
            let (message, expected) = client_final(mechanism.hash().unwrap(), password, first, &challenge, signed);
            verifier = expected;
            message.into_bytes()
        };
        let data = match say {
            Nothing => None,
            Text(text) => {
                first = text;
                Some(text.as_bytes().to_vec())
            }
            Octets(octets) => Some(octets.to_vec()),
            Proof(password) => Some(proof(password, &|message| message)),
            Signed(from, to) => Some(proof("pencil", &|message| message.replace(from, to))),
            Forged(from, to) => {
                let message = String::from_utf8(proof("pencil", &|message| message)).unwrap();
                assert!(message.contains(from), "{message} has no {from}");
                Some(message.replace(from, to).into_bytes())
            }
        };
        let mut progress = exchange.respond(data.as_deref());
        progress = match progress {
            Progress::NeedKeys { username } => exchange.keys(account(&username).as_ref(), &fake),
            Progress::NeedVerify { username, password } => {
                exchange.verified(verify(account(&username).as_ref(), &PasswordScheme::Scrypt { log_n: 2 }, &password))
            }
            progress => progress,
        };
        assert!(outcome.is_none() || matches!(progress, Progress::Failure(_)), "goes on after {outcome:?}");
        outcome = match progress {
            Progress::Challenge(data) => {
                challenge = String::from_utf8(data).unwrap();
                None
            }
            Progress::Success { username, data } => {
                assert_eq!(data, verifier, "the server's proof");
                Some(username)
            }
            Progress::Failure(error) => Some(error.name().to_owned()),
            progress => panic!("{progress:?}"),
        };
    }
    outcome.unwrap_or_else(|| "...".to_owned())
}

const JULIET: Say = Text("n,,n=juliet,r=abc");

#[test]
fn exchanges() {
    #[rustfmt::skip]
    let cases: &[(&str, On, &[Say], &str)] = &[
        // What is offered (SA-02, SA-09, SA-13).
        ("SCRAM-SHA-256", Tls13, &[JULIET, Proof("pencil")], "juliet"),
        ("SCRAM-SHA-1", Tls13, &[JULIET, Proof("pencil")], "juliet"),
        ("SCRAM-SHA-1", NoTls, &[JULIET, Proof("pencil")], "juliet"),
        ("SCRAM-SHA-256-PLUS", NoTls, &[], "encryption-required"),
        ("PLAIN", NoTls, &[], "encryption-required"),
        ("SCRAM-SHA-256-PLUS", Proxy, &[], "invalid-mechanism"),
        ("SCRAM-SHA-256", Scrypt, &[], "invalid-mechanism"),
        ("SCRAM-SHA-256-PLUS", Scrypt, &[], "invalid-mechanism"),
        ("scram-sha-1", Tls13, &[], "invalid-mechanism"),
        ("EXTERNAL", Tls13, &[], "invalid-mechanism"),
        ("", Tls13, &[], "invalid-mechanism"),

        // Channel binding (SA-11 to SA-14).
        ("SCRAM-SHA-256-PLUS", Tls13, &[Text("p=tls-exporter,,n=juliet,r=abc"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-1-PLUS", Tls13, &[Text("p=tls-exporter,,n=juliet,r=abc"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-1-PLUS", Tls12, &[Text("p=tls-server-end-point,,n=juliet,r=abc"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-256-PLUS", Tls12, &[Text("p=tls-server-end-point,a=juliet@example.com,n=juliet,r=abc"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-256-PLUS", Tls12, &[Text("p=tls-exporter,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-256-PLUS", Tls13, &[Text("p=tls-unique,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-256-PLUS", Tls13, &[Text("p=TLS-EXPORTER,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-256-PLUS", Tls13, &[Text("p=,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-256-PLUS", Tls13, &[Text("p,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-256-PLUS", Tls13, &[Text("n,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-256-PLUS", Tls13, &[Text("y,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[Text("p=tls-exporter,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[Text("y,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls12, &[Text("y,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-256", Proxy, &[Text("y,,n=juliet,r=abc"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-256", NoTls, &[Text("y,,n=juliet,r=abc"), Proof("pencil")], "juliet"),
        // The header's octets, and the data of another type or of none, right proof or not.
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed("c=biws", "c=eSws")], "not-authorized"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed("c=biws", "c=")], "not-authorized"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed("c=biws", "c=biwsAAAA")], "not-authorized"),
        ("SCRAM-SHA-256", Tls13, &[Text("n,a=juliet@example.com,n=juliet,r=abc"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-256", Tls13, &[Text("n,a=juliet@example.com,n=juliet,r=abc"), Signed("c=bixhPWp1bGlldEBleGFtcGxlLmNvbSw=", "c=biws")], "not-authorized"),
        ("SCRAM-SHA-1-PLUS", Tls12, &[Text("p=tls-server-end-point,,n=juliet,r=abc"), Signed("aGFzaCBvZi", "aGFzaCBvZj")], "not-authorized"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed("c=biws", "c=biw")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed("c=biws", "c=bi ws")], "malformed-request"),

        // The client's first message (SA-15 to SA-18, SA-34).
        ("SCRAM-SHA-1", Tls13, &[Text("")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,r=abc,n=juliet")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,N=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("x,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("N,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("nn,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("F,n,,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,juliet,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,m=x,n=juliet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=abc,m=x")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=abc,n=romeo")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=abc,x")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=abc,x=")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=abc,xy=z")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=abc,=z")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=abc,")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=abc,x=y=z,Q=1"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=a bc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=a\u{7f}")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=\u{fc}")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet,r=~!=\"%"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-1", Tls13, &[Octets(b"n,,n=juli\xffet,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Octets(b"n,,n=juliet\0,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Octets(&[b'n'; MESSAGE_BYTES_MAX + 1])], "malformed-request"),

        // Names (SA-10, SA-17, SA-33): prepared to look up, as received to sign.
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=JULIET,r=abc"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=ju\u{308}liet,r=abc"), Proof("pencil")], "j\u{fc}liet"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet@example.com,r=abc"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet@EXAMPLE.com.,r=abc"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet@example.net,r=abc")], "not-authorized"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet@,r=abc")], "not-authorized"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=@example.com,r=abc")], "not-authorized"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=juliet@example.com/x,r=abc")], "not-authorized"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=ju liet,r=abc")], "not-authorized"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=a=2Cb=3Dc,r=abc"), Proof("pencil")], "a,b=c"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=a=2cb,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=a=,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=a=2,r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=a=2\u{e9},r=abc")], "malformed-request"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=a==3D,r=abc")], "malformed-request"),

        // Authorization identities (SA-08).
        ("SCRAM-SHA-1", Tls13, &[Text("n,a=,n=juliet,r=abc"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,a=Juliet@Example.com,n=juliet,r=abc"), Proof("pencil")], "juliet"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,a=a=2Cb=3Dc@example.com,n=a=2Cb=3Dc,r=abc"), Proof("pencil")], "a,b=c"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,a=romeo@example.com,n=juliet,r=abc")], "invalid-authzid"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,a=juliet@example.net,n=juliet,r=abc")], "invalid-authzid"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,a=juliet@example.com/x,n=juliet,r=abc")], "invalid-authzid"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,a=juliet,n=juliet,r=abc")], "invalid-authzid"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,a=@,n=juliet,r=abc")], "invalid-authzid"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,a=a=zz,n=juliet,r=abc")], "malformed-request"),

        // The client's final message (SA-16, SA-18, SA-35).
        ("SCRAM-SHA-256", Tls13, &[JULIET, Proof("Pencil")], "not-authorized"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Proof("")], "not-authorized"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Nothing], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Octets(b"")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Octets(b"\xff")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed("r=abc", "r=abd")], "not-authorized"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed(NONCE, "")], "not-authorized"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed(NONCE, "3rfcNHYJY1ZVvWVs7jx")], "not-authorized"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed(NONCE, "3rfcNHYJY1ZVvWVs7j,x=y")], "juliet"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed(NONCE, "3rfcNHYJY1ZVvWVs7j,m=y")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed(NONCE, "3rfcNHYJY1ZVvWVs7j,p=y")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed("c=biws,", "")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Signed("c=biws,r", "r=x,c=biws,r")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Forged(",p=", ",P=")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Forged(",p=", ",p=AAAA")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Forged(",p=", ",x=y,p=")], "not-authorized"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Forged(",p=", ",p=.")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Octets(b"c=biws,r=abc3rfcNHYJY1ZVvWVs7j,p=")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Octets(b"c=biws,r=abc3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=")], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Octets(b"c=biws,r=abc3rfcNHYJY1ZVvWVs7j")], "malformed-request"),

        // Accounts that are not there, or not for SCRAM (SA-19): the same as a wrong password.
        ("SCRAM-SHA-256", Tls13, &[Text("n,,n=nobody,r=abc")], "..."),
        ("SCRAM-SHA-256", Tls13, &[Text("n,,n=nobody,r=abc"), Proof("pencil")], "not-authorized"),
        ("SCRAM-SHA-256", Tls13, &[Text("n,,n=scrypt,r=abc"), Proof("pencil")], "not-authorized"),
        ("SCRAM-SHA-256", Tls13, &[Text("n,,n=old,r=abc"), Proof("pencil")], "not-authorized"),
        ("SCRAM-SHA-1", Tls13, &[Text("n,,n=old,r=abc"), Proof("pencil")], "old"),

        // The slow form (SA-31), and what comes too late (SA-05).
        ("SCRAM-SHA-256", Tls13, &[Nothing], "..."),
        ("SCRAM-SHA-256", Tls13, &[Nothing, JULIET, Proof("pencil")], "juliet"),
        ("SCRAM-SHA-256", Tls13, &[Nothing, Nothing], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Proof("pencil"), Nothing], "malformed-request"),
        ("SCRAM-SHA-256", Tls13, &[JULIET, Proof("x"), Proof("pencil")], "malformed-request"),
        ("PLAIN", Tls13, &[Nothing, Text("\0juliet\0pencil")], "juliet"),
        ("PLAIN", Tls13, &[Nothing, Nothing], "malformed-request"),
        ("PLAIN", Tls13, &[Text("\0juliet\0pencil"), Nothing], "malformed-request"),

        // PLAIN (SA-09, SA-32).
        ("PLAIN", Tls13, &[Text("\0juliet\0pencil")], "juliet"),
        ("PLAIN", Proxy, &[Text("\0Juliet@example.com\0pencil")], "juliet"),
        ("PLAIN", Scrypt, &[Text("\0scrypt\0pencil")], "scrypt"),
        ("PLAIN", Scrypt, &[Text("\0juliet\0pencil")], "juliet"),
        ("PLAIN", Tls13, &[Text("\0old\0pencil")], "old"),
        ("PLAIN", Tls13, &[Text("juliet@example.com\0juliet\0pencil")], "juliet"),
        ("PLAIN", Tls13, &[Text("romeo@example.com\0juliet\0pencil")], "invalid-authzid"),
        ("PLAIN", Tls13, &[Text("juliet@example.com/x\0juliet\0pencil")], "invalid-authzid"),
        ("PLAIN", Tls13, &[Text("\0juliet\0Pencil")], "not-authorized"),
        ("PLAIN", Scrypt, &[Text("\0scrypt\0Pencil")], "not-authorized"),
        ("PLAIN", Tls13, &[Text("\0nobody\0pencil")], "not-authorized"),
        ("PLAIN", Tls13, &[Text("\0juliet@example.net\0pencil")], "not-authorized"),
        ("PLAIN", Tls13, &[Text("\0ju liet\0pencil")], "not-authorized"),
        ("PLAIN", Tls13, &[Text("\0juliet\0pen\tcil")], "not-authorized"),
        ("PLAIN", Tls13, &[Text("\0juliet\0")], "malformed-request"),
        ("PLAIN", Tls13, &[Text("\0\0pencil")], "malformed-request"),
        ("PLAIN", Tls13, &[Text("")], "malformed-request"),
        ("PLAIN", Tls13, &[Text("juliet")], "malformed-request"),
        ("PLAIN", Tls13, &[Text("juliet\0pencil")], "malformed-request"),
        ("PLAIN", Tls13, &[Text("\0juliet\0pencil\0")], "malformed-request"),
        ("PLAIN", Tls13, &[Octets(b"\0juliet\0\xff\xfe")], "malformed-request"),
        ("PLAIN", Tls13, &[Octets(b"\xc0\x80juliet\0pencil")], "malformed-request"),
    ];
    for (i, (mechanism, on, says, outcome)) in cases.iter().enumerate() {
        assert_eq!(&check(mechanism, *on, says), outcome, "case {i}: {mechanism} on {on:?}");
    }
}

/// RFC 4616 section 2: fields of 255 octets, and one of ours too many.
#[test]
fn plain_lengths() {
    let parse = |authcid: usize, password: usize| {
        let data = ["\0", &"j".repeat(authcid), "\0", &"p".repeat(password)].concat();
        plain::Message::parse(data.as_bytes()).map(|message| (message.authcid.len(), message.password.len()))
    };
    assert_eq!(parse(255, 255), Ok((255, 255)));
    assert_eq!(parse(1023, 1023), Ok((1023, 1023)));
    assert_eq!(parse(1, 1024), Err(SaslError::NotAuthorized));
}

/// RFC 5802 section 5, RFC 7677 section 3.
#[test]
fn vectors() {
    let cases = [
        (
            Hash::Sha1,
            "QSXCR+Q6sek8bf92",
            "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
            "3rfcNHYJY1ZVvWVs7j",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            Hash::Sha256,
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ];
    let (offer, bindings) = offer(NoTls);
    for (hash, salt, first, nonce, challenge, last, verifier) in cases {
        let password = Prepared::chosen("pencil").unwrap();
        let keys = ScramKeys::derive(hash, &password, STANDARD.decode(salt).unwrap(), 4096);
        let (credentials, mechanism) = match hash {
            Hash::Sha1 => (Credentials::Scram { sha256: ScramKeys::default(), sha1: keys }, Mechanism::ScramSha1),
            Hash::Sha256 => (Credentials::Scram { sha256: keys, sha1: ScramKeys::default() }, Mechanism::ScramSha256),
        };
        let mut exchange = Exchange::begin(mechanism, &offer, &bindings, DOMAIN, nonce.to_owned());
        assert!(
            matches!(exchange.respond(Some(first.as_bytes())), Progress::NeedKeys { username } if username == "user")
        );
        let fake = FakeKeys::new([0; 32], &SCHEME);
        assert!(
            matches!(exchange.keys(Some(&credentials), &fake), Progress::Challenge(data) if data == challenge.as_bytes())
        );
        let Progress::Success { data, .. } = exchange.respond(Some(last.as_bytes())) else { panic!("{hash:?}") };
        assert_eq!(data, verifier.as_bytes());
        assert!(credentials.verify("pencil") && !credentials.verify("pencils"));
    }
}

/// SA-19: what an account that does not exist is answered looks like one that does, and stays.
#[test]
fn unknown_accounts_have_stable_salts() {
    let challenge = |secret, mechanism: Mechanism, name: &str, domain: &str, credentials: Option<&Credentials>| {
        let (offer, bindings) = offer(NoTls);
        let mut exchange = Exchange::begin(mechanism, &offer, &bindings, domain, NONCE.to_owned());
        exchange.respond(Some(format!("n,,n={name},r=abc").as_bytes()));
        let Progress::Challenge(data) = exchange.keys(credentials, &FakeKeys::new([secret; 32], &SCHEME)) else {
            panic!()
        };
        String::from_utf8(data).unwrap()
    };
    let sha256 = Mechanism::ScramSha256;
    let nobody = challenge(1, sha256, "nobody", DOMAIN, None);
    assert_eq!(nobody, challenge(1, sha256, "NOBODY", DOMAIN, None));
    assert_eq!(nobody, challenge(1, sha256, "nobody", DOMAIN, account("scrypt").as_ref()));
    for other in [
        challenge(2, sha256, "nobody", DOMAIN, None),
        challenge(1, Mechanism::ScramSha1, "nobody", DOMAIN, None),
        challenge(1, sha256, "nobody2", DOMAIN, None),
        challenge(1, sha256, "nobody", "example.net", None),
    ] {
        assert_ne!(nobody, other);
        assert_eq!(nobody.len(), other.len());
    }
    let mut seed = 0;
    let real = Credentials::derive(&SCHEME, "pencil", &mut |salt| {
        seed += 1;
        salt.fill(seed);
    });
    assert_eq!(nobody.len(), challenge(1, sha256, "juliet", DOMAIN, Some(&real.unwrap())).len());
}

#[test]
fn offers() {
    let lists = |offer: Offer| {
        let mechanisms: Vec<_> = offer.mechanisms().map(Mechanism::name).collect();
        [mechanisms.join(" "), offer.channel_bindings().collect::<Vec<_>>().join(" ")]
    };
    let cases = [
        (
            offer(Tls13).0,
            "SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1 PLAIN",
            "tls-exporter tls-server-end-point",
        ),
        (offer(Tls12).0, "SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1 PLAIN", "tls-server-end-point"),
        (offer(Proxy).0, "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN", ""),
        (offer(NoTls).0, "SCRAM-SHA-256 SCRAM-SHA-1", ""),
        (offer(Scrypt).0, "PLAIN", ""),
        // Bindings without TLS cannot be.
        (Offer::new(false, &offer(Tls13).1, SCHEME), "SCRAM-SHA-256 SCRAM-SHA-1", ""),
        // Channel binding required (SA-37), and its types never without it (SA-25).
        (
            offer(Tls13).0.without(Mechanism::ScramSha256).without(Mechanism::ScramSha1).without(Mechanism::Plain),
            "SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS",
            "tls-exporter tls-server-end-point",
        ),
        (
            offer(Tls13).0.without(Mechanism::ScramSha256Plus).without(Mechanism::ScramSha1Plus),
            "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN",
            "",
        ),
    ];
    for (offer, mechanisms, bindings) in cases {
        assert_eq!(lists(offer), [mechanisms, bindings]);
    }
    assert_eq!(offer(Tls13).0.without(Mechanism::Plain).select("PLAIN"), Err(SaslError::MechanismTooWeak));
    assert_eq!(offer(NoTls).0.without(Mechanism::Plain).select("PLAIN"), Err(SaslError::MechanismTooWeak));
    for mechanism in Mechanism::ALL {
        assert_eq!(Mechanism::from_name(mechanism.name()), Some(mechanism));
        assert!(mechanism.name().len() <= 20, "RFC 4422 section 3.1");
    }
}

/// XEP-0474 0.5.0 section 6.1, and that the extension is signed with the rest.
#[test]
fn the_offer_is_announced() {
    let (offer, bindings) = offer(Tls13);
    assert_eq!(
        offer.downgrade_text(),
        "PLAIN\u{1e}SCRAM-SHA-1\u{1e}SCRAM-SHA-1-PLUS\u{1e}SCRAM-SHA-256\u{1e}SCRAM-SHA-256-PLUS\u{1f}tls-exporter\u{1e}tls-server-end-point"
    );
    assert_eq!(self::offer(NoTls).0.downgrade_text(), "SCRAM-SHA-1\u{1e}SCRAM-SHA-256");

    let mut exchange = Exchange::begin(Mechanism::ScramSha1, &offer, &bindings, DOMAIN, NONCE.to_owned());
    exchange.announce_offer();
    exchange.respond(Some(b"n,,n=juliet,r=abc"));
    let fake = FakeKeys::new([9; 32], &SCHEME);
    let Progress::Challenge(challenge) = exchange.keys(account("juliet").as_ref(), &fake) else { panic!() };
    let challenge = String::from_utf8(challenge).unwrap();
    let expected = STANDARD.encode(Hash::Sha1.digest(offer.downgrade_text().as_bytes()));
    assert_eq!(challenge.split_once(",h=").map(|(_, digest)| digest), Some(&*expected));
    let (last, _) = client_final(Hash::Sha1, "pencil", "n,,n=juliet,r=abc", &challenge, |message| message);
    assert!(matches!(exchange.respond(Some(last.as_bytes())), Progress::Success { .. }));
}

/// SA-01.
#[test]
fn encoding() {
    assert_eq!(decode(""), Ok(None));
    for (content, data) in
        [("=", ""), ("biws", "n,,"), ("Zm8=", "fo"), ("Zg==", "f"), ("w7w+", "\u{fc}>"), ("Pz8/", "???")]
    {
        assert_eq!(decode(content), Ok(Some(data.as_bytes().to_vec())), "{content:?}");
        assert_eq!(encode(data.as_bytes()), content);
    }
    let refused = [
        "==",
        "====",
        "===",
        "Zg",
        "Zg=",
        "Zh==",
        "Zm9=",
        "Zg==Zg==",
        "=Zg=",
        "Z",
        "Zm8=\n",
        " Zm8=",
        "bi ws",
        "_-8=",
        "bi\u{e9}s",
        "biws=",
        "biws\0",
    ];
    for content in refused {
        assert_eq!(decode(content), Err(SaslError::IncorrectEncoding), "{content:?}");
    }
}

/// No message panics, and none but the right one gets in.
#[test]
fn random_messages() {
    const PIECES: &str = "n y p= a= n= r= c= m= x= i= tls-exporter juliet @example.com abc biws =2C =3D = , ,, \u{fc} \0 AAAA ,p= \
        3rfcNHYJY1ZVvWVs7j";
    let pieces: Vec<&str> = PIECES.split(' ').collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let fake = FakeKeys::new([9; 32], &SCHEME);
    let juliet = account("juliet");
    let mut asked = 0;
    for _ in 0..20_000 {
        let (offer, bindings) = offer([Tls13, Tls12, Proxy][random(3)]);
        let Some(mechanism) = offer.mechanisms().nth(random(5)) else { continue };
        let mut exchange = Exchange::begin(mechanism, &offer, &bindings, DOMAIN, NONCE.to_owned());
        let mut progress = Progress::Challenge(Vec::new());
        for _ in 0..4 {
            let mut message: String = (0..random(8)).map(|_| pieces[random(pieces.len())]).collect();
            if random(2) == 0 {
                message
                    .insert_str(0, ["n,,n=juliet,r=abc", "\0juliet\0", "c=biws,r=abc3rfcNHYJY1ZVvWVs7j,p="][random(3)]);
            }
            progress = match progress {
                Progress::NeedKeys { .. } => exchange.keys(juliet.as_ref(), &fake),
                Progress::Challenge(_) => exchange.respond(Some(message.as_bytes())),
                _ => break,
            };
            asked += usize::from(matches!(progress, Progress::NeedKeys { .. } | Progress::NeedVerify { .. }));
            assert!(!matches!(progress, Progress::Success { .. }), "{message:?}");
        }
    }
    assert!(asked > 1_000, "{asked}");
}

#[test]
fn misuse_fails() {
    let (offer, bindings) = offer(NoTls);
    let fake = FakeKeys::new([0; 32], &SCHEME);
    let failed = |progress| matches!(progress, Progress::Failure(SaslError::MalformedRequest));
    // Not offered.
    let mut plain = Exchange::begin(Mechanism::Plain, &offer, &bindings, DOMAIN, NONCE.to_owned());
    assert!(failed(plain.respond(Some(b"\0juliet\0pencil"))));
    // Answers that nobody asked for.
    let mut scram = Exchange::begin(Mechanism::ScramSha1, &offer, &bindings, DOMAIN, NONCE.to_owned());
    assert!(failed(scram.verified(true)));
    assert!(failed(scram.keys(None, &fake)));
    // A response before the keys are there.
    let mut scram = Exchange::begin(Mechanism::ScramSha1, &offer, &bindings, DOMAIN, NONCE.to_owned());
    assert!(matches!(scram.respond(Some(b"n,,n=juliet,r=abc")), Progress::NeedKeys { .. }));
    assert!(failed(scram.respond(Some(b"n,,n=juliet,r=abc"))));
}

#[test]
fn nothing_secret_is_printed() {
    let (offer, bindings) = offer(Tls13);
    let mut exchange = Exchange::begin(Mechanism::Plain, &offer, &bindings, DOMAIN, NONCE.to_owned());
    let progress = exchange.respond(Some(b"\0juliet\0pencil"));
    let credentials = account("juliet").unwrap();
    let Credentials::Scram { sha1, .. } = &credentials else { panic!() };
    let fake = FakeKeys::new([77; 32], &SCHEME);
    let password = Prepared::chosen("pencil").unwrap();
    let printed = format!("{progress:?} {exchange:?} {credentials:?} {sha1:?} {fake:?} {password:?} {bindings:?}");
    for secret in ["pencil", "77", "[", "7, 7"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn passwords() {
    let derive = |scheme: PasswordScheme, password: &str| {
        let mut seed = 0;
        Credentials::derive(&scheme, password, &mut |salt| {
            seed += 1;
            salt.fill(seed);
        })
    };
    let scrypt = PasswordScheme::Scrypt { log_n: 3 };
    let long = "p".repeat(PASSWORD_BYTES_MAX);
    let too_long = "p".repeat(PASSWORD_BYTES_MAX + 1);
    // Chosen, then presented: equal once prepared.
    let cases = [
        ("correct horse battery staple", "correct horse battery staple", true),
        ("correct horse battery staple", "Correct Horse Battery Staple", false),
        ("\u{3c0}\u{df}\u{e5}\u{e5}", "\u{3c0}\u{df}a\u{30a}\u{e5}", true),
        ("Jack of \u{2666}s", "Jack of \u{2666}s", true),
        ("foo\u{1680}bar", "foo bar", true),
        ("love \u{2764}\u{fe0f}", "love \u{2764}", true),
        ("pencil", "pencil ", false),
        ("pencil", "", false),
        ("pencil", "pen\tcil", false),
        (&long, &long, true),
        (&long, &too_long, false),
    ];
    for (chosen, presented, equal) in cases {
        let credentials = derive(scrypt, chosen).unwrap();
        assert_eq!(verify(Some(&credentials), &scrypt, presented), equal, "{chosen:?} {presented:?}");
        assert!(!verify(None, &scrypt, presented));
        let keys = Credentials::scram(&Prepared::chosen(chosen).unwrap(), 1, vec![1; 16], vec![2; 16]);
        assert_eq!(keys.verify(presented), equal, "{chosen:?} {presented:?}");
    }
    let refused = [
        ("", PasswordError::Empty),
        ("abc", PasswordError::TooShort),
        ("\u{e9}\u{e9}", PasswordError::TooShort),
        ("my cat is a \tby", PasswordError::Forbidden),
        ("\u{ad}\u{ad}\u{ad}\u{ad}", PasswordError::Forbidden),
        (&too_long, PasswordError::TooLong),
    ];
    for (password, error) in refused {
        assert_eq!(derive(scrypt, password), Err(error), "{password:?}");
    }
}

#[test]
fn credentials() {
    let password = Prepared::chosen("pencil").unwrap();
    let scrypt = Credentials::scrypt(&password, 2, vec![1; 16]);
    // RFC 7914 section 12, third vector.
    let hash =
        STANDARD.decode("/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWIurzDZLiKjiG/xCSedmDDaxyevuUqD7m2DYMvfoswGQA==");
    let vector = Credentials::Scrypt { log_n: 10, r: 8, p: 16, salt: b"NaCl".to_vec(), hash: hash.unwrap() };
    assert!(vector.verify("password"));

    // Records that are not ours neither panic nor eat the machine.
    let Credentials::Scrypt { salt, hash, .. } = scrypt.clone() else { panic!() };
    for (log_n, r, p, hash) in [
        (63, 8, 1, hash.clone()),
        (255, 8, 1, hash.clone()),
        (0, 8, 1, hash.clone()),
        (2, 0, 1, hash.clone()),
        (2, u32::MAX, 1, hash.clone()),
        (2, 8, 0, hash.clone()),
        (2, 8, u32::MAX, hash.clone()),
        (2, 8, 1, vec![]),
        (2, 8, 1, vec![0; 1 << 20]),
    ] {
        assert!(!Credentials::Scrypt { log_n, r, p, salt: salt.clone(), hash }.verify("pencil"));
    }
    let nothing = Credentials::Scram { sha256: ScramKeys::default(), sha1: ScramKeys::default() };
    assert!(!nothing.verify("pencil"));
    let endless = ScramKeys { iterations: u32::MAX, salt: vec![1], stored_key: vec![0; 32], server_key: vec![0; 32] };
    assert!(!Credentials::Scram { sha256: endless, sha1: ScramKeys::default() }.verify("pencil"));

    let scheme = |iterations| PasswordScheme::Scram { iterations };
    let keys = Credentials::scram(&password, 5000, vec![1; 16], vec![2; 16]);
    let cases = [
        (&keys, scheme(5000), true),
        (&keys, scheme(0), true),
        (&keys, scheme(5001), false),
        (&keys, PasswordScheme::Scrypt { log_n: 2 }, false),
        (&scrypt, PasswordScheme::Scrypt { log_n: 2 }, true),
        (&scrypt, PasswordScheme::Scrypt { log_n: 3 }, false),
        (&scrypt, scheme(0), false),
        (&nothing, scheme(0), false),
    ];
    for (credentials, scheme, current) in cases {
        assert_eq!(credentials.is_current(&scheme), current, "{credentials:?} {scheme:?}");
    }
}

/// SA-19: finding out that a password is wrong takes as long for an account that does not exist.
#[test]
fn unknown_accounts_cost_as_much() {
    let scheme = PasswordScheme::Scram { iterations: 20_000 };
    let known = Credentials::scram(&Prepared::presented("pencil").unwrap(), 20_000, vec![1; 16], vec![2; 16]);
    let time = |credentials: Option<&Credentials>| {
        let begin = std::time::Instant::now();
        assert!(!verify(credentials, &scheme, "wrong"));
        begin.elapsed()
    };
    // What else the machine does only makes it longer; on a busy one it takes more rounds until both were alone once.
    let (mut nobody, mut somebody) = (std::time::Duration::MAX, std::time::Duration::MAX);
    for round in 0..300 {
        nobody = nobody.min(time(None));
        somebody = somebody.min(time(Some(&known)));
        if round >= 10 && nobody < somebody * 2 && somebody < nobody * 2 {
            return;
        }
    }
    panic!("{nobody:?} for nobody, {somebody:?} for somebody");
}
