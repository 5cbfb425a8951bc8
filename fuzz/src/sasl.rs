//! One SASL exchange, by whatever a client sends: nobody gets in without the password, and who follows the standard with the
//! password does.
//!
//! Half of the inputs are messages as they stand. The other half drive a client of its own, written from RFC 5802, that knows
//! the password and does one thing or another wrong; what must come of it is computed beside.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use whinchat::auth::{
    Bindings, Credentials, Exchange, FakeKeys, Mechanism, Offer, PasswordScheme, Prepared, Progress, decode, encode,
};
use whinchat::jid::BareJid;

const DOMAIN: &str = "capulet.test";
const USER: &str = "juliet";
/// Not to be found by changing bytes.
const PASSWORD: &str = "3Wk9-vTq7-xA2p-Zr5m";
const ITERATIONS: u32 = 4096;
const SALTS: [&[u8]; 2] = [b"salt for SHA-256", b"salt for SHA-1.."];
const SERVER_NONCE: &str = "fyko+d2lbbFgONRv9qkxdawL";
const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const EXPORTER: [u8; 32] = [0x42; 32];
const END_POINT: [u8; 32] = [0x17; 32];

const MECHANISMS: [Mechanism; 5] = [
    Mechanism::Plain,
    Mechanism::ScramSha1,
    Mechanism::ScramSha256,
    Mechanism::ScramSha1Plus,
    Mechanism::ScramSha256Plus,
];

/// What the account has: derived once, as it takes a millisecond.
fn credentials() -> &'static Credentials {
    static CREDENTIALS: OnceLock<Credentials> = OnceLock::new();
    CREDENTIALS.get_or_init(|| {
        let password = Prepared::presented(PASSWORD).expect("a password");
        Credentials::scram(&password, ITERATIONS, SALTS[0].to_vec(), SALTS[1].to_vec())
    })
}

/// The bytes that choose, in order; zero when there are none left.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self, count: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first % count
    }

    fn text(&mut self) -> String {
        let count = usize::from(self.next(16)).min(self.0.len());
        let (text, rest) = self.0.split_at(count);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }
}

/// The connection and the account.
struct Scene {
    mechanism: Mechanism,
    tls: bool,
    exporter: bool,
    end_point: bool,
    exists: bool,
}

impl Scene {
    fn of(bits: u8, which: u8) -> Scene {
        Scene {
            mechanism: MECHANISMS[usize::from(which) % MECHANISMS.len()],
            tls: bits & 1 != 0,
            exporter: bits & 2 != 0,
            end_point: bits & 4 != 0,
            exists: bits & 8 != 0,
        }
    }

    fn offers_plus(&self) -> bool {
        self.tls && (self.exporter || self.end_point)
    }

    fn offers(&self) -> bool {
        match self.mechanism {
            Mechanism::Plain => self.tls,
            mechanism => !mechanism.is_plus() || self.offers_plus(),
        }
    }

    fn begin(&self) -> Exchange {
        let bindings = Bindings {
            exporter: self.exporter.then_some(EXPORTER),
            server_end_point: self.end_point.then(|| END_POINT.to_vec()),
        };
        let offer = Offer::new(self.tls, &bindings, PasswordScheme::Scram { iterations: ITERATIONS });
        assert_eq!(offer.select(self.mechanism.name()).is_ok(), self.offers());
        Exchange::begin(self.mechanism, &offer, &bindings, DOMAIN, SERVER_NONCE.to_owned())
    }

    /// Answers what the exchange asks the store, and asserts what must be true of it.
    fn answer(&self, exchange: &mut Exchange, progress: Progress) -> Progress {
        let fake = FakeKeys::new([3; 32], &PasswordScheme::Scram { iterations: ITERATIONS });
        let prepared = |username: &str| {
            let user = BareJid::from_parts(username, DOMAIN).expect("a prepared name");
            assert_eq!(user.local(), Some(username));
        };
        match progress {
            Progress::NeedKeys { username } => {
                prepared(&username);
                exchange.keys(Some(credentials()).filter(|_| self.exists && username == USER), &fake)
            }
            Progress::NeedVerify { username, password } => {
                prepared(&username);
                exchange.verified(self.exists && username == USER && *password == PASSWORD)
            }
            other => other,
        }
    }
}

/// Messages as they stand.
fn raw(scene: &Scene, data: &[u8]) {
    let mut exchange = scene.begin();
    for message in data.split(|byte| *byte == 0xFF) {
        if let Some(decoded) = std::str::from_utf8(message).ok().and_then(|text| decode(text).ok()).flatten() {
            assert_eq!(decode(&encode(&decoded)), Ok(Some(decoded)));
        }
        let progress = exchange.respond((message != b"\xFE").then_some(message));
        match scene.answer(&mut exchange, progress) {
            Progress::Challenge(_) => {}
            Progress::Failure(_) => break,
            Progress::Success { username, .. } => {
                let told = message.ends_with([b"\0", PASSWORD.as_bytes()].concat().as_slice());
                assert!(scene.mechanism == Mechanism::Plain && told && username == USER, "{username} got in");
                break;
            }
            other => panic!("{other:?}: asked twice"),
        }
    }
    assert!(matches!(exchange.respond(Some(b"n,,n=juliet,r=x")), Progress::Failure(_) | Progress::NeedKeys { .. }));
}

fn hmac(sha256: bool, key: &[u8], data: &[u8]) -> Vec<u8> {
    fn run<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> Vec<u8> {
        let mut mac = <M as KeyInit>::new_from_slice(key).expect("a key");
        mac.update(data);
        mac.finalize().into_bytes().to_vec()
    }
    if sha256 { run::<Hmac<Sha256>>(key, data) } else { run::<Hmac<Sha1>>(key, data) }
}

fn salted(sha256: bool) -> &'static [u8] {
    static SALTED: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let salted = SALTED.get_or_init(|| {
        let (mut long, mut short) = (vec![0; 32], vec![0; 20]);
        pbkdf2::pbkdf2_hmac::<Sha256>(PASSWORD.as_bytes(), SALTS[0], ITERATIONS, &mut long);
        pbkdf2::pbkdf2_hmac::<Sha1>(PASSWORD.as_bytes(), SALTS[1], ITERATIONS, &mut short);
        [long, short]
    });
    &salted[usize::from(!sha256)]
}

/// Proof and the server's signature for an AuthMessage (RFC 5802 section 3).
fn proof(sha256: bool, auth_message: &str) -> (Vec<u8>, Vec<u8>) {
    let client_key = hmac(sha256, salted(sha256), b"Client Key");
    let stored_key = if sha256 { Sha256::digest(&client_key).to_vec() } else { Sha1::digest(&client_key).to_vec() };
    let signature = hmac(sha256, &stored_key, auth_message.as_bytes());
    let proof = client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
    let server_key = hmac(sha256, salted(sha256), b"Server Key");
    (proof, hmac(sha256, &server_key, auth_message.as_bytes()))
}

/// What may come of a client that knows the password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Must {
    Succeed,
    Fail,
    /// An extension was made up; whether it is one that may be ignored is not computed here.
    Either,
}

impl Must {
    fn and(self, right: bool) -> Must {
        if right { self } else { Must::Fail }
    }
}

/// A client that knows the password.
fn scram(scene: &Scene, choices: &mut Choices<'_>) {
    let sha256 = matches!(scene.mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus);
    let plus = scene.mechanism.is_plus();
    let mut must = Must::Succeed.and(scene.offers() && scene.exists);
    let (flag, binding, right): (&str, &[u8], bool) = match choices.next(6) {
        0 => ("n", &[], !plus),
        1 => ("y", &[], !plus && !scene.offers_plus()),
        2 => ("p=tls-exporter", &EXPORTER, plus && scene.exporter),
        3 => ("p=tls-server-end-point", &END_POINT, plus && scene.end_point),
        4 => ("p=tls-unique", &END_POINT, false),
        _ => ("N", &[], false),
    };
    must = must.and(right);
    let (authzid, right) = [
        ("", true),
        ("a=juliet@capulet.test", true),
        ("a=JULIET@Capulet.test", true),
        ("a=romeo@capulet.test", false),
        ("a=juliet", false),
        ("a=juliet@capulet.test/x", false),
    ][usize::from(choices.next(6))];
    must = must.and(right);
    let (name, right) = [
        ("juliet", true),
        ("JuLiEt", true),
        ("juliet@capulet.test", true),
        ("juliet@montague.test", false),
        ("romeo", false),
        ("juli=3Det", false),
        ("juliet=2C", false),
    ][usize::from(choices.next(7))];
    must = must.and(right);
    let extension = match choices.next(4) {
        0 => format!(",{}", choices.text()),
        _ => String::new(),
    };
    if !extension.is_empty() && must == Must::Succeed {
        must = Must::Either;
    }

    let header = format!("{flag},{authzid},");
    let bare = format!("n={name},r={CLIENT_NONCE}{extension}");
    let mut exchange = scene.begin();
    let progress = exchange.respond(Some([&*header, &bare].concat().as_bytes()));
    let server_first = match scene.answer(&mut exchange, progress) {
        Progress::Challenge(challenge) => String::from_utf8(challenge).expect("ASCII"),
        Progress::Failure(error) => return assert_ne!(must, Must::Succeed, "{error}: {header}{bare}"),
        other => panic!("{other:?} after the first message"),
    };
    assert!(server_first.starts_with(&format!("r={CLIENT_NONCE}")), "{server_first}");
    let nonce = server_first.split([',']).next().unwrap_or_default();
    let (nonce, right) = match choices.next(5) {
        0 => (format!("r={CLIENT_NONCE}"), false),
        1 => (format!("{nonce}x"), false),
        _ => (nonce.to_owned(), true),
    };
    must = must.and(right);
    let bound = match choices.next(6) {
        0 => [header.as_bytes(), b"x"].concat(),
        1 => b"n,,".to_vec(),
        _ => [header.as_bytes(), binding].concat(),
    };
    must = must.and(bound == [header.as_bytes(), binding].concat());
    let extension = match choices.next(4) {
        0 => format!(",{}", choices.text()),
        _ => String::new(),
    };
    if !extension.is_empty() && must == Must::Succeed {
        must = Must::Either;
    }
    let without_proof = format!("c={},{nonce}{extension}", STANDARD.encode(bound));
    let (mut proof, signature) = proof(sha256, &format!("{bare},{server_first},{without_proof}"));
    let flip = choices.next(255);
    if let Some(byte) = proof.get_mut(usize::from(flip) % 64).filter(|_| flip >= 128) {
        *byte ^= 1 << (flip % 8);
        must = Must::Fail;
    }
    let message = format!("{without_proof},p={}", STANDARD.encode(proof));
    match exchange.respond(Some(message.as_bytes())) {
        Progress::Success { username, data } => {
            assert_ne!(must, Must::Fail, "{header}{bare} {message}");
            assert_eq!(username, USER);
            assert_eq!(data, format!("v={}", STANDARD.encode(signature)).into_bytes(), "the server's signature");
        }
        Progress::Failure(error) => assert_ne!(must, Must::Succeed, "{error}: {header}{bare} {message}"),
        other => panic!("{other:?} after the last message"),
    }
}

/// How the connection is, which mechanism, then messages or choices.
pub fn run(data: &[u8]) {
    let [bits, which, rest @ ..] = data else { return };
    let scene = Scene::of(*bits, *which);
    if bits & 0x80 != 0 && scene.mechanism != Mechanism::Plain {
        scram(&scene, &mut Choices(rest));
    } else {
        raw(&scene, rest);
    }
}
