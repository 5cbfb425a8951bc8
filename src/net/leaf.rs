//! The two facts that we read out of our own certificates: the hash of the signature, for `tls-server-end-point`
//! (RFC 5929 section 4.1), and the end of the validity. Just enough DER for that; a certificate that it cannot read is refused.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

const DAY_SECONDS: u64 = 86_400;

/// The hash of a certificate's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureHash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl SignatureHash {
    pub(super) fn digest(self, der: &[u8]) -> Vec<u8> {
        match self {
            SignatureHash::Sha224 => Sha224::digest(der).to_vec(),
            SignatureHash::Sha256 => Sha256::digest(der).to_vec(),
            SignatureHash::Sha384 => Sha384::digest(der).to_vec(),
            SignatureHash::Sha512 => Sha512::digest(der).to_vec(),
        }
    }

    /// By the content octets of the algorithm's object identifier. MD5 and SHA-1 count as SHA-256 (RFC 5929 section 4.1); where
    /// the identifier alone does not name one hash (Ed25519, RSASSA-PSS) there is none, because a binding that clients compute
    /// otherwise locks them out.
    fn of_algorithm(oid: &[u8]) -> Option<SignatureHash> {
        // 1.2.840.113549.1.1 and 1.2.840.10045.4
        const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
        const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
        if let Some(rest) = oid.strip_prefix(RSA) {
            return match rest {
                [4 | 5 | 11] => Some(SignatureHash::Sha256),
                [12] => Some(SignatureHash::Sha384),
                [13] => Some(SignatureHash::Sha512),
                [14] => Some(SignatureHash::Sha224),
                _ => None,
            };
        }
        match oid.strip_prefix(ECDSA)? {
            [1] | [3, 2] => Some(SignatureHash::Sha256),
            [3, 1] => Some(SignatureHash::Sha224),
            [3, 3] => Some(SignatureHash::Sha384),
            [3, 4] => Some(SignatureHash::Sha512),
            _ => None,
        }
    }
}

/// What we read out of a certificate ourselves (RFC 5280 section 4.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeafFacts {
    pub(super) hash: Option<SignatureHash>,
    /// Seconds since 1970.
    pub(super) not_after: u64,
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

impl LeafFacts {
    pub(super) fn parse(der: &[u8]) -> Option<LeafFacts> {
        let (certificate, after) = element(der, SEQUENCE)?;
        if !after.is_empty() {
            return None;
        }
        let (to_be_signed, rest) = element(certificate, SEQUENCE)?;
        let (algorithm, _) = element(rest, SEQUENCE)?;
        let (oid, _) = element(algorithm, OBJECT_IDENTIFIER)?;

        // TBSCertificate: [0] version OPTIONAL, serialNumber, signature, issuer, validity
        let mut rest = to_be_signed;
        if rest.first() == Some(&VERSION) {
            rest = any_element(rest)?.2;
        }
        for _ in 0..3 {
            rest = any_element(rest)?.2;
        }
        let (validity, _) = element(rest, SEQUENCE)?;
        let (_, _, not_after) = any_element(validity)?;
        let (tag, time, _) = any_element(not_after)?;
        Some(LeafFacts { hash: SignatureHash::of_algorithm(oid), not_after: der_time(tag, time)? })
    }
}

/// Tag, content and what follows.
fn any_element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (octets.iter().try_fold(0usize, |len, octet| len.checked_mul(256)?.checked_add(usize::from(*octet)))?, rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(len)?;
    Some((tag, content, after))
}

fn element(der: &[u8], expected: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, after) = any_element(der)?;
    (tag == expected).then_some((content, after))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ` (RFC 5280 section 4.1.2.5) in seconds since 1970; 0 for what lies before.
fn der_time(tag: u8, text: &[u8]) -> Option<u64> {
    let (digits, zone) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if zone != b"Z" || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => match number(&digits[..2]) {
            year @ 50.. => (1900 + year, &digits[2..]),
            year => (2000 + year, &digits[2..]),
        },
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let mut fields = rest.chunks_exact(2).map(number);
    let mut next = || fields.next();
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days from 1 March of year 0, so that the leap day is the last of its year; 719,468 of them lie before 1970.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = shifted_year * 365 + shifted_year / 4 - shifted_year / 100 + shifted_year / 400;
    let days = days + (153 * shifted_month + 2) / 5 + day - 1;
    Some(days.saturating_sub(719_468) * DAY_SECONDS + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn hash_of_the_signature() {
        let check = |oid: &[u8], expected| assert_eq!(SignatureHash::of_algorithm(oid), expected, "{oid:?}");
        let rsa = |last| [&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01][..], &[last]].concat();
        let ecdsa = |last: &[u8]| [&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04][..], last].concat();
        check(&rsa(4), Some(SignatureHash::Sha256));
        check(&rsa(5), Some(SignatureHash::Sha256));
        check(&rsa(10), None);
        check(&rsa(11), Some(SignatureHash::Sha256));
        check(&rsa(12), Some(SignatureHash::Sha384));
        check(&rsa(13), Some(SignatureHash::Sha512));
        check(&rsa(14), Some(SignatureHash::Sha224));
        check(&ecdsa(&[1]), Some(SignatureHash::Sha256));
        check(&ecdsa(&[3, 1]), Some(SignatureHash::Sha224));
        check(&ecdsa(&[3, 2]), Some(SignatureHash::Sha256));
        check(&ecdsa(&[3, 3]), Some(SignatureHash::Sha384));
        check(&ecdsa(&[3, 4]), Some(SignatureHash::Sha512));
        check(&ecdsa(&[3]), None);
        check(&[0x2b, 0x65, 0x70], None);
        check(&[], None);
    }

    #[test]
    fn certificates_are_read_as_rcgen_writes_them_and_not_cut_short() {
        let check = |algorithm, expected| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(2055, 3, 1);
            let der = params.self_signed(&key).unwrap().der().to_vec();
            let facts = LeafFacts { hash: expected, not_after: 2_687_472_000 };
            assert_eq!(LeafFacts::parse(&der), Some(facts));
            for len in 0..der.len() {
                assert_eq!(LeafFacts::parse(&der[..len]), None);
                let mut damaged = der.clone();
                damaged[len] ^= 0x80;
                let _ = LeafFacts::parse(&damaged);
            }
        };
        check(&rcgen::PKCS_ECDSA_P256_SHA256, Some(SignatureHash::Sha256));
        check(&rcgen::PKCS_ECDSA_P384_SHA384, Some(SignatureHash::Sha384));
        check(&rcgen::PKCS_ED25519, None);
    }

    #[test]
    fn times() {
        let check = |tag, text: &str, expected| assert_eq!(der_time(tag, text.as_bytes()), expected, "{text}");
        check(UTC_TIME, "700101000000Z", Some(0));
        check(UTC_TIME, "491231235959Z", Some(2_524_607_999));
        check(UTC_TIME, "500101000000Z", Some(0));
        check(UTC_TIME, "240229120000Z", Some(1_709_208_000));
        check(GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000));
        check(GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799));
        check(GENERALIZED_TIME, "00000101000000Z", None);
        check(UTC_TIME, "20500101000000Z", None);
        check(UTC_TIME, "241301000000Z", None);
        check(UTC_TIME, "240100000000Z", None);
        check(UTC_TIME, "2402291200+0", None);
        check(UTC_TIME, "24022912000xZ", None);
        check(UTC_TIME, "Z", None);
        check(UTC_TIME, "", None);
        check(0x16, "240229120000Z", None);
    }
}
