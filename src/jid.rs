//! XMPP addresses, RFC 7622: prepared once at the boundary, compared as bytes after.
//!
//! [`JidRef::parse`] splits, prepares and enforces; it borrows what is already in its prepared form, which is nearly every
//! address that travels. [`BareJid`], [`FullJid`] and [`Jid`] are the owned forms for tables and records; cloning one counts
//! a reference. All of them order, hash and compare as their text, so a map keyed by them can be asked with a `&str`.
//!
//! A localpart is RFC 8265 UsernameCaseMapped without `"&'/:<>@`, a resourcepart OpaqueString, a domainpart an IP literal
//! or a host name in U-labels. Lower-casing knows no context: `Σ` becomes `σ` at the end of a word too (RFC 7622 section
//! 3.5). Where this is more liberal than the letter of the standards:
//!
//! - Letters, and in resourceparts everything else, that Unicode assigned after 6.3, where the PRECIS tables end, are let in:
//!   or else new emoji were no nickname.
//! - What stringprep mapped to nothing (variation selectors, emoji joiners) is dropped from a resourcepart that PRECIS would
//!   refuse for it, as servers that follow RFC 6122 do.
//! - Host names may hold `_`, which names of local networks do, and are measured as other parts are, not by the DNS.
//!
//! Deliberately absent: XEP-0106 escaping, which is the business of whoever makes up a localpart, and the comparison of
//! look-alikes, which is that of registration.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, Hyphens, Uts46};
use precis_core::profile::Rules;
use precis_core::{DerivedPropertyValue, FreeformClass, IdentifierClass, StringClass};
use precis_profiles::{Nickname, OpaqueString, UsernameCaseMapped};

/// Octets a prepared part may have (RFC 7622 sections 3.2, 3.3, 3.4).
pub const PART_BYTES_MAX: usize = 1023;

/// Octets an unprepared part may have. Preparation shortens at best three to one (fullwidth letters to ASCII), so nothing
/// longer can become a valid part.
const RAW_BYTES_MAX: usize = 3 * PART_BYTES_MAX;

/// The context rules of RFC 5892 appendix A look at the whole string for every code point that has one: code points times
/// those that have a rule may be at most this many. A string of 256 Persian digits is within it.
const CONTEXT_WORK_MAX: usize = 1 << 16;

/// Why a string is no address (RFC 7622 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JidError(pub &'static str);

impl fmt::Display for JidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for JidError {}

/// An address as it was parsed: borrowed where the text was already in its prepared form, which is the rule.
#[derive(Clone, Debug)]
pub struct JidRef<'a> {
    text: Cow<'a, str>,
    /// Length of the localpart, 0 if there is none.
    at: u16,
    /// Length of the bare JID.
    bare: u16,
}

impl<'a> JidRef<'a> {
    /// Prepares and enforces every part.
    ///
    /// The text is split before anything is mapped, because mapping can make separators (section 3.1): the first `/` ends
    /// the bare JID, the first `@` before it the localpart.
    ///
    /// # Errors
    /// [`JidError`] for what RFC 7622 forbids.
    pub fn parse(text: &'a str) -> Result<JidRef<'a>, JidError> {
        match prepared_ascii(text) {
            Some((at, bare)) => Ok(JidRef { text: Cow::Borrowed(text), at: octets(at), bare: octets(bare) }),
            None => JidRef::prepare(text),
        }
    }

    /// [`JidRef::parse`] of what is not known to be prepared.
    fn prepare(text: &'a str) -> Result<JidRef<'a>, JidError> {
        let (bare, resource) = match text.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource)),
            None => (text, None),
        };
        let (local, domain) = match bare.split_once('@') {
            Some((local, domain)) => (Some(local), domain),
            None => (None, bare),
        };
        let local = local.map(prepare_localpart).transpose()?;
        let domain = prepare_domain(domain)?;
        let resource = resource.map(prepare_resource).transpose()?;

        let at = local.as_deref().map_or(0, str::len);
        let bare = domain.len() + if at > 0 { at + 1 } else { 0 };
        let borrowed = |part: &Option<Cow<'_, str>>| matches!(part, None | Some(Cow::Borrowed(_)));
        let joined = borrowed(&local) && matches!(domain, Cow::Borrowed(_)) && borrowed(&resource);
        // A trailing dot may be cut from a domain that is borrowed all the same: then the lengths differ.
        let text = if joined && text.len() == bare + resource.as_deref().map_or(0, |resource| resource.len() + 1) {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(join(local.as_deref(), &domain, resource.as_deref()))
        };
        Ok(JidRef { text, at: octets(at), bare: octets(bare) })
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// `local@domain` or `domain`.
    pub fn bare(&self) -> &str {
        &self.text[..usize::from(self.bare)]
    }
    /// The localpart.
    pub fn local(&self) -> Option<&str> {
        (self.at > 0).then(|| &self.text[..usize::from(self.at)])
    }
    /// The domainpart.
    pub fn domain(&self) -> &str {
        match self.at {
            0 => self.bare(),
            at => &self.bare()[usize::from(at) + 1..],
        }
    }
    /// The resourcepart.
    pub fn resource(&self) -> Option<&str> {
        self.text.get(usize::from(self.bare) + 1..)
    }
    /// Whether there is no resourcepart.
    pub fn is_bare(&self) -> bool {
        self.text.len() == usize::from(self.bare)
    }
    /// The address without its resourcepart, to keep.
    pub fn to_bare(&self) -> BareJid {
        BareJid(self.bare().into())
    }
    /// The address with its resourcepart, to keep; `None` if it has none.
    pub fn to_full(&self) -> Option<FullJid> {
        (!self.is_bare()).then(|| FullJid(self.as_str().into()))
    }
    /// The address as it is, to keep.
    pub fn to_owned_jid(&self) -> Jid {
        Jid(self.as_str().into())
    }
}

impl fmt::Display for JidRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An address without a resourcepart: an account, a room, a server.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BareJid(Arc<str>);

impl BareJid {
    /// Prepares and enforces an address that must not have a resourcepart.
    ///
    /// # Errors
    /// [`JidError`] for what RFC 7622 forbids, and for a resourcepart.
    pub fn parse(text: &str) -> Result<BareJid, JidError> {
        let jid = JidRef::parse(text)?;
        if jid.is_bare() { Ok(jid.to_bare()) } else { Err(JidError("a bare JID has no resourcepart")) }
    }

    /// Prepares the parts and joins them.
    ///
    /// # Errors
    /// [`JidError`] for what RFC 7622 forbids; an empty localpart is such.
    pub fn from_parts(local: &str, domain: &str) -> Result<BareJid, JidError> {
        let (local, domain) = (prepare_localpart(local)?, prepare_domain(domain)?);
        Ok(BareJid(join(Some(&local), &domain, None).into()))
    }

    /// Takes text that came out of a `BareJid`, as a record of the store has it, for what it is.
    pub fn from_prepared(text: &str) -> BareJid {
        debug_assert!(!text.is_empty() && !text.contains('/'), "{text:?} is no prepared bare JID");
        BareJid(text.into())
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The localpart.
    pub fn local(&self) -> Option<&str> {
        split_at(&self.0, b'@').map(|(local, _)| local)
    }
    /// The domainpart.
    pub fn domain(&self) -> &str {
        split_at(&self.0, b'@').map_or(&*self.0, |(_, domain)| domain)
    }

    /// This address with a resourcepart.
    ///
    /// # Errors
    /// [`JidError`] for a resourcepart that is none (section 3.4).
    pub fn with_resource(&self, resource: &str) -> Result<FullJid, JidError> {
        let resource = prepare_resource(resource)?;
        Ok(FullJid([&*self.0, "/", &*resource].concat().into()))
    }
}

/// An address with a resourcepart: a connected client, an occupant of a room.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FullJid(Arc<str>);

impl FullJid {
    /// Prepares and enforces an address that must have a resourcepart.
    ///
    /// # Errors
    /// [`JidError`] for what RFC 7622 forbids, and for a missing resourcepart.
    pub fn parse(text: &str) -> Result<FullJid, JidError> {
        JidRef::parse(text)?.to_full().ok_or(JidError("a full JID has a resourcepart"))
    }

    /// Takes text that came out of a `FullJid` for what it is.
    pub fn from_prepared(text: &str) -> FullJid {
        debug_assert!(text.contains('/'), "{text:?} is no prepared full JID");
        FullJid(text.into())
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// `local@domain` or `domain`.
    pub fn bare(&self) -> &str {
        bare_of(&self.0)
    }
    /// The address without its resourcepart, to keep.
    pub fn to_bare(&self) -> BareJid {
        BareJid(self.bare().into())
    }
    /// The resourcepart.
    pub fn resource(&self) -> &str {
        split_at(&self.0, b'/').map_or("", |(_, resource)| resource)
    }
}

/// An address of either kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jid(Arc<str>);

impl Jid {
    /// Prepares and enforces an address.
    ///
    /// # Errors
    /// [`JidError`] for what RFC 7622 forbids.
    pub fn parse(text: &str) -> Result<Jid, JidError> {
        Ok(JidRef::parse(text)?.to_owned_jid())
    }

    /// Takes text that came out of a `Jid` for what it is.
    pub fn from_prepared(text: &str) -> Jid {
        debug_assert!(!text.is_empty(), "an address is not empty");
        Jid(text.into())
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// `local@domain` or `domain`.
    pub fn bare(&self) -> &str {
        bare_of(&self.0)
    }
    /// The address without its resourcepart, to keep.
    pub fn to_bare(&self) -> BareJid {
        BareJid(self.bare().into())
    }
    /// The localpart.
    pub fn local(&self) -> Option<&str> {
        split_at(self.bare(), b'@').map(|(local, _)| local)
    }
    /// The domainpart.
    pub fn domain(&self) -> &str {
        let bare = self.bare();
        split_at(bare, b'@').map_or(bare, |(_, domain)| domain)
    }
    /// The resourcepart.
    pub fn resource(&self) -> Option<&str> {
        split_at(&self.0, b'/').map(|(_, resource)| resource)
    }
    /// Whether there is no resourcepart.
    pub fn is_bare(&self) -> bool {
        self.resource().is_none()
    }
}

impl From<BareJid> for Jid {
    fn from(jid: BareJid) -> Jid {
        Jid(jid.0)
    }
}

impl From<FullJid> for Jid {
    fn from(jid: FullJid) -> Jid {
        Jid(jid.0)
    }
}

/// What the three owned addresses share: they are their text.
macro_rules! is_its_text {
    ($($jid:ty),*) => {$(
        impl Borrow<str> for $jid {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $jid {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl PartialEq<str> for $jid {
            fn eq(&self, text: &str) -> bool {
                &*self.0 == text
            }
        }
        impl fmt::Display for $jid {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $jid {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}

is_its_text!(BareJid, FullJid, Jid);

/// A prepared localpart: RFC 8265 UsernameCaseMapped without the characters of RFC 7622 section 3.3.1.
///
/// # Errors
/// [`JidError`] for a code point or direction of writing that is not allowed there, and for a length outside 1..=1023 octets.
pub fn prepare_localpart(text: &str) -> Result<Cow<'_, str>, JidError> {
    let classes = text.bytes().fold(0, |seen, byte| seen | class_of(byte));
    let prepared = if classes & LOCAL_NO == 0 {
        match classes & UPPER {
            0 => Cow::Borrowed(text),
            _ => Cow::Owned(text.to_ascii_lowercase()),
        }
    } else if classes & NON_ASCII != 0 {
        until_stable(within(text, RAW_BYTES_MAX)?, enforce_localpart)?
    } else {
        return Err(FORBIDDEN_LOCAL);
    };
    within_octets(prepared)
}

/// A prepared domainpart: an IPv4 address, an IPv6 literal in brackets, or a host name whose labels are lower-cased NR-LDH
/// labels or U-labels (section 3.2). One trailing dot is dropped.
///
/// # Errors
/// [`JidError`] for what is none of these, and for a length outside 1..=1023 octets.
pub fn prepare_domain(text: &str) -> Result<Cow<'_, str>, JidError> {
    if let Some(literal) = text.strip_prefix('[') {
        return prepare_ipv6(text, literal.strip_suffix(']').ok_or(JidError("an IPv6 literal without its bracket"))?);
    }
    // The separators that UTS #46 maps to a dot; section 3.2 wants it gone before any mapping.
    let text = text.strip_suffix(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']).unwrap_or(text);
    let prepared = if is_plain_domain(text.as_bytes()) {
        lower_ascii(text)
    } else {
        // An A-label may name what reads as another A-label; what has no stable form would be two addresses of one.
        until_stable(within(text, RAW_BYTES_MAX)?, enforce_domain)?
    };
    within_octets(prepared)
}

/// A prepared resourcepart: RFC 8265 OpaqueString.
///
/// # Errors
/// [`JidError`] for a control or other code point that is not allowed there, and for a length outside 1..=1023 octets.
pub fn prepare_resource(text: &str) -> Result<Cow<'_, str>, JidError> {
    if text.bytes().all(|byte| class_of(byte) & RESOURCE_NO == 0) {
        return within_octets(Cow::Borrowed(text));
    }
    within_octets(opaque_string(within(text, RAW_BYTES_MAX)?)?)
}

/// RFC 8265 section 4.2 OpaqueString, with the liberties that the module names. The caller bounds the length on both sides.
///
/// # Errors
/// [`JidError`] for a control or other code point that FreeformClass refuses, and for nothing left.
pub(crate) fn opaque_string(text: &str) -> Result<Cow<'_, str>, JidError> {
    until_stable(text, enforce_opaque).or_else(|error| {
        let kept: String = text.chars().filter(|&c| !is_mapped_to_nothing(c)).collect();
        if kept.len() == text.len() {
            return Err(error);
        }
        Ok(Cow::Owned(until_stable(&kept, enforce_opaque)?.into_owned()))
    })
}

const FORBIDDEN_LOCAL: JidError = JidError("a character that a localpart cannot have");
const FORBIDDEN_RESOURCE: JidError = JidError("a character that a resourcepart cannot have");
const FORBIDDEN_DOMAIN: JidError = JidError("not a host name or IP address");

/// Bits of [`CLASSES`]: what a byte is not, or not without being changed, part of.
const LOCAL_NO: u8 = 1;
const RESOURCE_NO: u8 = 2;
const UPPER: u8 = 4;
const NON_ASCII: u8 = 8;
const DOMAIN_NO: u8 = 16;

/// What the ASCII range means to each part; everything above needs the slow path.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let c = byte as u8;
        let mut class = 0;
        if !c.is_ascii_graphic() || matches!(c, b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@') {
            class |= LOCAL_NO;
        }
        if !c.is_ascii_graphic() && c != b' ' {
            class |= RESOURCE_NO;
        }
        if c.is_ascii_uppercase() {
            class |= UPPER;
        }
        if !c.is_ascii() {
            class |= NON_ASCII;
        }
        if !c.is_ascii_alphanumeric() && !matches!(c, b'-' | b'_' | b'.') {
            class |= DOMAIN_NO;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

fn class_of(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
}

/// The lengths of the localpart (0 if there is none) and of the bare JID, if the whole address is ASCII in its prepared form:
/// the short cut that nearly all take. `None` says nothing about the address.
fn prepared_ascii(text: &str) -> Option<(usize, usize)> {
    let text = text.as_bytes();
    let end = text.iter().position(|&byte| matches!(byte, b'@' | b'/')).unwrap_or(text.len());
    let at = if text.get(end) == Some(&b'@') { end } else { 0 };
    let (local, rest) = if at > 0 { (&text[..at], &text[at + 1..]) } else { (&text[..0], text) };
    let bare = text.len() - rest.len() + rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let domain = &text[text.len() - rest.len()..bare];
    let resource = text.get(bare + 1..);

    let free_of = |part: &[u8], classes: u8| part.iter().fold(0, |seen, &byte| seen | class_of(byte)) & classes == 0;
    let prepared = free_of(local, LOCAL_NO | UPPER)
        && free_of(domain, UPPER)
        && is_plain_domain(domain)
        && resource.is_none_or(|resource| !resource.is_empty() && free_of(resource, RESOURCE_NO));
    let short = [local, domain, resource.unwrap_or_default()].iter().all(|part| part.len() <= PART_BYTES_MAX);
    (prepared && short).then_some((at, bare))
}

/// Whether this is a host name that needs no more than lower-casing. An A-label has two hyphens in a row, so a name that
/// has them anywhere is looked at more closely.
fn is_plain_domain(text: &[u8]) -> bool {
    let mut last = b'.';
    for &byte in text {
        let after_boundary = matches!(last, b'.' | b'-');
        if class_of(byte) & DOMAIN_NO != 0 || (byte == b'.' && after_boundary) || (byte == b'-' && after_boundary) {
            return false;
        }
        last = byte;
    }
    !matches!(last, b'.' | b'-')
}

fn lower_ascii(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

/// The address in the one form of RFC 5952, so that equal addresses are equal text. The bracketed text is `literal`.
fn prepare_ipv6<'a>(text: &'a str, literal: &str) -> Result<Cow<'a, str>, JidError> {
    let address: Ipv6Addr = literal.parse().map_err(|_| FORBIDDEN_DOMAIN)?;
    let canonical = format!("[{address}]");
    Ok(if canonical == text { Cow::Borrowed(text) } else { Cow::Owned(canonical) })
}

/// Every ASCII character that no label has, except `_`.
const DENIED_IN_LABELS: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// Case, width and A-labels by UTS #46, which maps for IDNA2008; then each U-label by the rules of RFC 5892, because UTS #46
/// alone lets symbols through.
fn enforce_domain(text: &str) -> Result<Cow<'_, str>, JidError> {
    let (mapped, outcome) = Uts46::new().to_unicode(text.as_bytes(), DENIED_IN_LABELS, Hyphens::CheckFirstLast);
    outcome.map_err(|_| FORBIDDEN_DOMAIN)?;
    for label in mapped.split('.') {
        if label.is_empty() {
            return Err(JidError("a domainpart with an empty label"));
        }
        if !label.is_ascii() && !is_allowed(label, &IdentifierClass {}, is_later_letter) {
            return Err(FORBIDDEN_DOMAIN);
        }
    }
    // The crate copies what it has not changed as soon as there is a U-label.
    Ok(if mapped == text { Cow::Borrowed(text) } else { mapped })
}

/// One round of UsernameCaseMapped (RFC 8265 section 3.3.2) and the exclusions of RFC 7622 section 3.3.1, which are looked
/// for after the width mapping because it can make them.
fn enforce_localpart(text: &str) -> Result<Cow<'_, str>, JidError> {
    let profile = UsernameCaseMapped::new();
    let narrow = profile.width_mapping_rule(text).map_err(|_| FORBIDDEN_LOCAL)?;
    let forbidden = |c: char| c.is_ascii() && class_of(c as u8) & LOCAL_NO != 0;
    if narrow.contains(forbidden) || !is_allowed(&narrow, &IdentifierClass {}, is_later_letter) {
        return Err(FORBIDDEN_LOCAL);
    }
    let lower = profile.case_mapping_rule(narrow).map_err(|_| FORBIDDEN_LOCAL)?;
    let composed = profile.normalization_rule(lower).map_err(|_| FORBIDDEN_LOCAL)?;
    profile.directionality_rule(composed).map_err(|_| JidError("a localpart that mixes directions of writing"))
}

/// One round of OpaqueString (RFC 8265 section 4.2.2).
fn enforce_opaque(text: &str) -> Result<Cow<'_, str>, JidError> {
    let profile = OpaqueString::new();
    if text.is_empty() || !is_allowed(text, &FreeformClass {}, is_later_freeform) {
        return Err(FORBIDDEN_RESOURCE);
    }
    let spaced = profile.additional_mapping_rule(text).map_err(|_| FORBIDDEN_RESOURCE)?;
    profile.normalization_rule(spaced).map_err(|_| FORBIDDEN_RESOURCE)
}

/// Applies the rules until they change nothing, at most three more times (RFC 8264 section 7).
fn until_stable(
    text: &str,
    enforce: for<'b> fn(&'b str) -> Result<Cow<'b, str>, JidError>,
) -> Result<Cow<'_, str>, JidError> {
    let mut prepared = enforce(text)?;
    if prepared == text {
        return Ok(prepared);
    }
    for _ in 0..3 {
        let again = enforce(&prepared)?;
        if again == prepared {
            return Ok(prepared);
        }
        prepared = Cow::Owned(again.into_owned());
    }
    Err(JidError("a part that has no stable form"))
}

/// Whether every code point is allowed by a string class of RFC 8264, `later` deciding for those that its tables, which are
/// of Unicode 6.3, do not know.
fn is_allowed(text: &str, class: &impl StringClass, later: fn(char) -> bool) -> bool {
    let (mut contextual, mut unknown) = (0, false);
    for c in text.chars() {
        match class.get_value_from_char(c) {
            DerivedPropertyValue::PValid | DerivedPropertyValue::SpecClassPval => {}
            DerivedPropertyValue::ContextJ | DerivedPropertyValue::ContextO => contextual += 1,
            DerivedPropertyValue::Unassigned if later(c) => unknown = true,
            _ => return false,
        }
    }
    if contextual == 0 {
        return true;
    }
    if contextual * text.chars().count() > CONTEXT_WORK_MAX {
        return false;
    }
    // The crate runs the context rules only over strings whose every code point it knows; no rule looks for an `a`.
    let is_unknown = |c| class.get_value_from_char(c) == DerivedPropertyValue::Unassigned;
    match unknown {
        true => class.allows(text.replace(is_unknown, "a")).is_ok(),
        false => class.allows(text).is_ok(),
    }
}

/// Whether a code point assigned after Unicode 6.3 is a letter that is its own compatibility form, which is what
/// IdentifierClass asks of one (RFC 8264 section 4.2.1). The alphabet is that of the standard library.
fn is_later_letter(c: char) -> bool {
    let mut buffer = [0; 4];
    let text: &str = c.encode_utf8(&mut buffer);
    c.is_alphabetic() && Nickname::new().normalization_rule(text).is_ok_and(|same| same == text)
}

/// Whether a code point that Unicode 6.3 had not assigned may be in an opaque string: all but what is reserved for, or has
/// become, ignorable and format characters (Unicode 17, DerivedCoreProperties and UnicodeData).
fn is_later_freeform(c: char) -> bool {
    !matches!(c,
        '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{180f}' | '\u{2065}' | '\u{fff0}'..='\u{fff8}' | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{e0000}'..='\u{e0fff}')
}

/// RFC 3454 table B.1, with the later variation selectors and the tags of emoji flags.
fn is_mapped_to_nothing(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{1806}' | '\u{180b}'..='\u{180d}' | '\u{200b}'..='\u{200d}' | '\u{2060}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0020}'..='\u{e007f}' | '\u{e0100}'..='\u{e01ef}')
}

fn within(text: &str, max: usize) -> Result<&str, JidError> {
    if text.len() > max { Err(TOO_LONG) } else { Ok(text) }
}

fn within_octets(part: Cow<'_, str>) -> Result<Cow<'_, str>, JidError> {
    match part.len() {
        0 => Err(JidError("an empty part")),
        1..=PART_BYTES_MAX => Ok(part),
        _ => Err(TOO_LONG),
    }
}

const TOO_LONG: JidError = JidError("a part longer than 1023 octets");

/// A length inside an address. Three parts and two separators are 3071 octets at most.
fn octets(length: usize) -> u16 {
    u16::try_from(length).expect("prepared parts have at most 1023 octets")
}

fn join(local: Option<&str>, domain: &str, resource: Option<&str>) -> String {
    let mut text = String::with_capacity(domain.len() + local.map_or(0, str::len) + resource.map_or(0, str::len) + 2);
    if let Some(local) = local {
        text.push_str(local);
        text.push('@');
    }
    text.push_str(domain);
    if let Some(resource) = resource {
        text.push('/');
        text.push_str(resource);
    }
    text
}

fn bare_of(text: &str) -> &str {
    split_at(text, b'/').map_or(text, |(bare, _)| bare)
}

/// What is before and behind the first such byte, which is ASCII. Some are looked for with every message, and looking for a
/// `char` takes several times as long.
fn split_at(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = memchr::memchr(byte, text.as_bytes())?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Parses, and asserts what must hold of every address: its prepared form parses as itself, borrowed; the parts are
    /// within their limits and hold none of the separators.
    fn check(text: &str) -> Result<String, JidError> {
        let jid = JidRef::parse(text)?;
        let prepared = jid.to_string();
        let slowly = JidRef::prepare(text).expect("the short cut took it");
        assert_eq!((slowly.as_str(), slowly.at, slowly.bare), (jid.as_str(), jid.at, jid.bare), "{text:?}");
        let again = JidRef::parse(&prepared).unwrap_or_else(|e| panic!("{text:?} became {prepared:?}: {e}"));
        assert_eq!(again.as_str(), prepared, "{text:?} is not stable");
        assert!(matches!(again.text, Cow::Borrowed(_)), "{prepared:?} is prepared and was copied");

        assert_eq!(join(jid.local(), jid.domain(), jid.resource()), prepared);
        for part in [jid.local(), Some(jid.domain()), jid.resource()].into_iter().flatten() {
            assert!((1..=PART_BYTES_MAX).contains(&part.len()), "{prepared:?}");
        }
        assert!(!jid.local().unwrap_or("").contains(['"', '&', '\'', '/', ':', '<', '>', '@', ' ']), "{prepared:?}");
        assert!(!jid.domain().contains(['@', '/']), "{prepared:?}");

        let owned = jid.to_owned_jid();
        assert_eq!((owned.bare(), owned.resource()), (jid.bare(), jid.resource()));
        assert_eq!((owned.local(), owned.domain()), (jid.local(), jid.domain()));
        let bare = jid.to_bare();
        assert_eq!((bare.as_str(), bare.local(), bare.domain()), (jid.bare(), jid.local(), jid.domain()));
        assert_eq!(jid.is_bare(), jid.resource().is_none());
        match jid.to_full() {
            Some(full) => assert_eq!((full.bare(), Some(full.resource())), (jid.bare(), jid.resource())),
            None => assert!(jid.is_bare()),
        }
        Ok(prepared)
    }

    #[test]
    fn accepts() {
        let long = "a".repeat(1023);
        let longest = format!("{long}@{long}/{long}");
        let fullwidth = format!("{}@example.com", "\u{ff21}".repeat(1023));
        let fullwidth_prepared = format!("{long}@example.com");
        let digits = format!("{}@example.com", "\u{6f1}".repeat(200));
        #[rustfmt::skip]
        let cases: &[(&str, &str)] = &[
            // RFC 7622 table 1.
            ("juliet@example.com", "juliet@example.com"),
            ("juliet@example.com/foo", "juliet@example.com/foo"),
            ("juliet@example.com/foo bar", "juliet@example.com/foo bar"),
            ("juliet@example.com/foo@bar", "juliet@example.com/foo@bar"),
            ("foo\\20bar@example.com", "foo\\20bar@example.com"),
            ("fussball@example.com", "fussball@example.com"),
            ("fu\u{df}ball@example.com", "fu\u{df}ball@example.com"),
            ("\u{3c0}@example.com", "\u{3c0}@example.com"),
            ("\u{3a3}@example.com/foo", "\u{3c3}@example.com/foo"),
            ("\u{3c3}@example.com/foo", "\u{3c3}@example.com/foo"),
            ("\u{3c2}@example.com/foo", "\u{3c2}@example.com/foo"),
            ("king@example.com/\u{265a}", "king@example.com/\u{265a}"),
            ("example.com", "example.com"),
            ("example.com/foobar", "example.com/foobar"),
            ("a.example.com/b@example.net", "a.example.com/b@example.net"),
            // Table 2, row 18: OpaqueString has no such rule (JI-05).
            ("juliet@example.com/ foo", "juliet@example.com/ foo"),

            // Separators (JI-01): split before mapping, the first of each.
            ("a@b/c/d", "a@b/c/d"),
            ("a@b/@", "a@b/@"),
            ("b//", "b//"),
            ("b/ ", "b/ "),
            ("a@b/\u{ff0f}\u{ff20}", "a@b/\u{ff0f}\u{ff20}"),

            // Localparts: width, case, normal form, in this order.
            ("JuLiEt@example.com", "juliet@example.com"),
            ("\u{ff2a}\u{ff35}liet@example.com", "juliet@example.com"),
            ("\u{c5}ngstr\u{f6}m@example.com", "\u{e5}ngstr\u{f6}m@example.com"),
            ("A\u{30a}@example.com", "\u{e5}@example.com"),
            ("\u{39f}\u{394}\u{39f}\u{3a3}@example.com", "\u{3bf}\u{3b4}\u{3bf}\u{3c3}@example.com"),
            ("\u{130}@example.com", "i\u{307}@example.com"),
            ("\u{1e9e}@example.com", "\u{df}@example.com"),
            ("!#$%()*+,-.;=?[\\]^_`{|}~@example.com", "!#$%()*+,-.;=?[\\]^_`{|}~@example.com"),
            ("\u{5d0}\u{5d1}@example.com", "\u{5d0}\u{5d1}@example.com"),
            // Context rules: Catalan, Persian.
            ("paral\u{b7}lel@example.com", "paral\u{b7}lel@example.com"),
            ("\u{646}\u{627}\u{645}\u{647}\u{200c}\u{627}\u{6cc}@example.com", "\u{646}\u{627}\u{645}\u{647}\u{200c}\u{627}\u{6cc}@example.com"),
            // Letters newer than the PRECIS tables: Han extension E, Adlam.
            ("\u{2b820}@example.com", "\u{2b820}@example.com"),
            ("\u{1e900}@example.com", "\u{1e922}@example.com"),
            (&fullwidth, &fullwidth_prepared),
            (&longest, &longest),

            // Domains (JI-06).
            ("juliet@EXAMPLE.com", "juliet@example.com"),
            ("example.com.", "example.com"),
            ("juliet@example.com./x", "juliet@example.com/x"),
            ("example\u{3002}com\u{3002}", "example.com"),
            ("127.0.0.1", "127.0.0.1"),
            ("a@[::1]/b", "a@[::1]/b"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[2001:DB8::A]", "[2001:db8::a]"),
            ("localhost", "localhost"),
            ("my_box.lan", "my_box.lan"),
            ("a--b.example", "a--b.example"),
            ("xn--bcher-kva.example", "b\u{fc}cher.example"),
            ("XN--BCHER-KVA.example", "b\u{fc}cher.example"),
            ("B\u{dc}CHER.example", "b\u{fc}cher.example"),
            ("bu\u{308}cher.example", "b\u{fc}cher.example"),
            ("\u{ff42}.example", "b.example"),
            ("fa\u{df}.de", "fa\u{df}.de"),
            ("xn--fa-hia.de", "fa\u{df}.de"),
            ("\u{b2}.example", "2.example"),
            ("\u{5d0}.example", "\u{5d0}.example"),

            // Resources (JI-05): case and width stay, foreign spaces become one, NFC.
            ("a@b/FoO", "a@b/FoO"),
            ("a@b/\u{ff26}", "a@b/\u{ff26}"),
            ("a@b/x\u{a0}\u{2003}\u{3000}y", "a@b/x   y"),
            ("a@b/\u{2000}", "a@b/ "),
            ("a@b/e\u{301}", "a@b/\u{e9}"),
            ("a@b/\u{5d0}b1", "a@b/\u{5d0}b1"),
            ("a@b/<&\"'>:", "a@b/<&\"'>:"),
            // Emoji: older than the tables, newer, of no version yet; with selector, joined, a flag of tags.
            ("a@b/\u{1f600}", "a@b/\u{1f600}"),
            ("a@b/\u{1f980}", "a@b/\u{1f980}"),
            ("a@b/\u{1faff}", "a@b/\u{1faff}"),
            ("a@b/\u{2764}\u{fe0f}", "a@b/\u{2764}"),
            ("a@b/\u{1f468}\u{200d}\u{1f469}", "a@b/\u{1f468}\u{1f469}"),
            ("a@b/\u{1f3f4}\u{e0067}\u{e007f}", "a@b/\u{1f3f4}"),
            // A new code point beside one that has a context rule.
            ("a@b/\u{1f980}\u{661}", "a@b/\u{1f980}\u{661}"),
            (&digits, &digits),
        ];
        for (text, prepared) in cases {
            assert_eq!(check(text).as_deref(), Ok(*prepared), "{text:?}");
        }
    }

    #[test]
    fn refuses() {
        let long = "a".repeat(1024);
        #[rustfmt::skip]
        let cases = [
            // RFC 7622 table 2.
            "\"juliet\"@example.com", "foo bar@example.com", "@example.com/", "henry\u{2163}@example.com",
            "\u{265a}@example.com", "juliet@", "/foobar",
            // Empty parts (JI-02).
            "", "@", "/", "@/", "a@/b", "@b", "a@b/", "b/", "@b/c", "a@.", ".", "b/\u{ad}", "\u{ad}",
            // Localparts, also such as become forbidden by mapping (JI-03).
            "a&b@c", "a'b@c", "a:b@c", "a<b@c", "a>b@c", "a\tb@c", "a\u{7f}@b", "a\u{0}@b",
            "a\u{ff20}b@c", "a\u{ff0f}b@c", "\u{ff1a}@c", "a\u{3000}@b", "a\u{a0}@b", "<\u{338}@b",
            "\u{aa}@b", "\u{ad}a@b", "a\u{200d}@b", "a\u{b7}b@c", "\u{661}\u{6f1}@b", "\u{5d0}a@b",
            "\u{1100}@b", "\u{378}@b", "\u{fdd0}@b", "\u{1f980}@b", "\u{e000}@b", "\u{221e}@b", "\u{212b}@b",
            // Domains.
            "a@b@c", "a@@b", "exa mple.com", "a..b", ".a", "a@b..", "-a.b", "a-.b", "a@b:5222", "::1", "[::1", "[]", "[::1]x",
            "[::1%eth0]", "[1.2.3.4]", "[v1.a]", "a@b\u{0}", "a\\b", "a+b.c", "xn--.b", "xn--a.b", "xn--\u{e9}.b", "\u{2603}.net",
            "xn--n3h.net", "XN--XN--ZZLLLLLXN-LZZ", "a\u{3002}\u{3002}b", "a\u{ff0f}b", "\u{fffd}.b", "\u{5d0}a.b",
            // A scheme (JI-13).
            "xmpp:juliet@example.com", "xmpp:example.com", "xmpp://juliet@example.com",
            // Resources.
            "a@b/\u{0}", "a@b/\t", "a@b/\n", "a@b/\u{7f}", "a@b/\u{85}", "a@b/\u{fdd0}", "a@b/\u{202e}x", "a@b/\u{e000}",
            "a@b/\u{1100}", "a@b/\u{fe0f}", "a@b/\u{e0001}", "a@b/\u{661}\u{6f1}", "a@b/\u{1bca0}",
        ];
        for text in cases {
            assert!(JidRef::parse(text).is_err(), "{text:?} is {:?}", JidRef::parse(text));
        }
        let decomposed = "e\u{301}".repeat(512);
        let digits = "\u{6f1}".repeat(511);
        for text in [
            format!("{long}@b"),
            format!("a@{long}"),
            format!("a@b/{long}"),
            format!("a@b/{decomposed}"),
            // More work for context rules than a part is worth.
            format!("{digits}@b"),
            format!("a@b/{digits}"),
            format!("{}@b", "\u{ff21}".repeat(1024)),
            format!("a@b/{}", "\u{ad}".repeat(100_000)),
            format!("a@{}", "xn--".repeat(100_000)),
        ] {
            assert!(JidRef::parse(&text).is_err(), "{} octets", text.len());
        }
    }

    #[test]
    fn owned_forms() {
        assert!(BareJid::parse("a@b/c").is_err());
        assert!(FullJid::parse("a@b").is_err());
        assert_eq!(
            BareJid::from_parts("Romeo", "Example.net.").map(|jid| jid.to_string()),
            Ok("romeo@example.net".into())
        );
        for (local, domain) in [("", "b"), ("a@b", "c"), ("a", ""), ("a", "b/c"), ("a", "b@c")] {
            assert!(BareJid::from_parts(local, domain).is_err(), "{local:?} {domain:?}");
        }

        let bare = BareJid::parse("Juliet@example.com").unwrap();
        let full = bare.with_resource("balcony/1@2").unwrap();
        assert_eq!(
            (full.as_str(), full.bare(), full.resource()),
            ("juliet@example.com/balcony/1@2", bare.as_str(), "balcony/1@2")
        );
        assert_eq!(full.to_bare(), bare);
        assert!(bare.with_resource("").is_err());
        assert_eq!(BareJid::from_prepared(bare.as_str()), bare);
        assert_eq!(FullJid::from_prepared(full.as_str()), full);
        assert_eq!(Jid::from(full.clone()), Jid::from_prepared(full.as_str()));
        assert!(bare < BareJid::from_prepared("z@a"));

        let map = HashMap::from([(bare, 1)]);
        assert_eq!(map.get("juliet@example.com"), Some(&1));
        assert_eq!(map.get("juliet@example.org"), None);
    }

    /// A small generator, so that a failure can be repeated.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// No text panics, whatever the tables of the crates make of it, and what is accepted is stable.
    #[test]
    fn random_text() {
        /// What has rules of its own, between spaces.
        const PIECES: &str = "@ / . - -- xn-- [ ] : a B 0 _ \\20 \u{ad} \u{b7} l \u{df} \u{130} \u{3a3} \u{375} \u{308} \u{338} < \
            \u{5d0} \u{5f3} \u{661} \u{6f1} \u{627} \u{94d} \u{200c} \u{200d} \u{1100} \u{ac00} \u{30fb} \
            \u{30a2} \u{ff21} \u{ff20} \u{ff9e} \u{3002} \u{212b} \u{1e900} \u{1f980} \u{fe0f} \u{e0100} \
            \u{1d165} \u{10ffff} \u{378} kva zzzzz 99999";
        let pieces: Vec<&str> = PIECES.split(' ').chain([" "]).collect();
        let mut state = 0x1234_5678_9abc_def1;
        let mut accepted = 0;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..random(&mut state) % 12 {
                match random(&mut state) % 4 {
                    0 => text.extend(char::from_u32((random(&mut state) % 0x11_0000) as u32)),
                    1 => text.extend(char::from_u32((random(&mut state) % 0x3000) as u32)),
                    _ => text.push_str(pieces[(random(&mut state) % pieces.len() as u64) as usize]),
                }
            }
            for text in [format!("{text}@b"), format!("a@b/{text}"), text] {
                accepted += usize::from(check(&text).is_ok());
            }
        }
        assert!(accepted > 5_000, "{accepted}");
    }

    /// Every code point alone, in each part.
    #[test]
    fn every_code_point() {
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            // The insides of large blocks of one kind, and of planes of no characters yet.
            if matches!(c as u32, 0x3500..0x4d00 | 0x4f00..0x9f00 | 0xad00..0xd700 | 0xe100..0xf800 | 0x2_0100..0x2_f000
                | 0x3_0100..0xd_ff00 | 0xf_0100..0x10_ff00)
            {
                continue;
            }
            for text in [format!("{c}@b"), format!("{c}.b"), format!("a@b/{c}")] {
                let _ = check(&text);
            }
        }
    }

    /// The tables for ASCII agree with the profiles they are a short cut for.
    #[test]
    fn ascii_agrees_with_the_profiles() {
        let slow = |text: &str, enforce: for<'b> fn(&'b str) -> Result<Cow<'b, str>, JidError>| {
            until_stable(text, enforce).ok().filter(|part| !part.is_empty()).map(Cow::into_owned)
        };
        let mut state = 0x9e37_79b9_7f4a_7c15;
        for i in 0..4_000_u64 {
            let length = if i < 128 { 1 } else { random(&mut state) % 8 };
            let mut text: String = (0..length).map(|_| char::from((random(&mut state) % 128) as u8)).collect();
            if i < 128 {
                text = char::from(i as u8).to_string();
            }
            let fast = |part: Result<Cow<'_, str>, JidError>| part.ok().map(Cow::into_owned);
            assert_eq!(fast(prepare_localpart(&text)), slow(&text, enforce_localpart), "{text:?}");
            assert_eq!(fast(prepare_resource(&text)), slow(&text, enforce_opaque), "{text:?}");
            if is_plain_domain(text.as_bytes()) {
                assert_eq!(fast(prepare_domain(&text)), slow(&text, enforce_domain), "{text:?}");
            }
        }
    }
}
