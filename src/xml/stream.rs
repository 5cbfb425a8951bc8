//! Framing: the stream header, one whole stanza, the footer.

use std::borrow::Cow;
use std::sync::Arc;

use memchr::{memchr_iter, memmem};
use xmlparser::Stream;

use super::bytes::{is_white_space, skip_white_space};
use super::checker::{self, Scope, USUAL};
use super::ns;
use super::text::{prefixes_named, push_declaration};
use super::tokenizer::{Attribute, Known, Scanner, Span, declaration_error};

/// Bounds of what a peer may send, in bytes and counts.
#[derive(Clone, Copy, Debug)]
pub struct XmlLimits {
    /// One stanza from `<` to its last `>`, in bytes.
    pub stanza_bytes_max: usize,
    /// Elements open at once below the stream's root; the stanza itself is 1.
    pub depth_max: usize,
    /// Attributes of one start tag.
    pub attributes_max: usize,
    /// An element's or attribute's qualified name, in bytes.
    pub name_bytes_max: usize,
    /// A stream header with its XML declaration, in bytes.
    pub header_bytes_max: usize,
}

/// Why a stream's XML is refused; each is a stream error of RFC 6120 section 4.9.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmlError {
    /// Not well-formed in XML or in its namespaces (section 11.3). The text says what.
    NotWellFormed(&'static str),
    /// Comment, processing instruction, DTD, or another entity than the five (section 11.1).
    Restricted(&'static str),
    /// Not UTF-8, by declaration or by bytes (section 11.6).
    UnsupportedEncoding(&'static str),
    /// A root or stanza prefix that is bound but not wanted (section 4.9.3.2).
    BadNamespacePrefix,
    /// Root in a foreign namespace or with a foreign content namespace (section 4.9.3.10).
    InvalidNamespace,
    /// Right namespace, wrong shape: a root that is not `stream`, text between stanzas (section 4.9.3.1).
    BadFormat(&'static str),
    /// Above one of [`XmlLimits`] (section 4.9.3.14).
    TooBig(&'static str),
}

/// What the bytes of a stream hold next.
#[derive(Debug)]
pub enum Next<'a> {
    /// More bytes are needed; the first `skip` of those offered (keepalive white space) may be dropped.
    Incomplete {
        /// Bytes that may be dropped.
        skip: usize,
    },
    /// A stream header of `used` bytes.
    Header {
        /// Bytes that may be dropped.
        used: usize,
        /// What it says.
        header: Header<'a>,
    },
    /// A first-level element, complete and proved well-formed.
    Stanza {
        /// Bytes that may be dropped.
        used: usize,
        /// The element.
        frame: Frame<'a>,
    },
    /// `</stream:stream>`.
    Footer {
        /// Bytes that may be dropped.
        used: usize,
    },
}

/// A stream header's attributes, unescaped.
#[derive(Debug, Default)]
pub struct Header<'a> {
    /// `to`
    pub to: Option<Cow<'a, str>>,
    /// `from`
    pub from: Option<Cow<'a, str>>,
    /// `version` as written.
    pub version: Option<Cow<'a, str>>,
    /// `xml:lang`
    pub lang: Option<Cow<'a, str>>,
}

/// Which first-level element a frame is. Only elements in the content namespace are stanzas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `<message/>`
    Message,
    /// `<presence/>`
    Presence,
    /// `<iq/>`
    Iq,
    /// Anything else: SASL, STARTTLS, or something unknown; see [`Frame::local`] and [`Frame::ns`].
    Other,
}

/// One whole first-level element, borrowed from what was read. Attribute values are as written (still escaped).
#[derive(Debug)]
pub struct Frame<'a> {
    /// The element as received.
    pub xml: &'a str,
    /// Stanza kind.
    pub kind: Kind,
    /// Local name of the root.
    pub local: &'a str,
    /// Namespace of the root.
    pub ns: Cow<'a, str>,
    /// `to`, as written.
    pub to: Option<&'a str>,
    /// `from`, as written; never to be believed.
    pub from: Option<&'a str>,
    /// `id`, as written.
    pub id: Option<&'a str>,
    /// `type`, as written.
    pub type_: Option<&'a str>,
    /// `xml:lang`, as written.
    pub lang: Option<&'a str>,
    /// Direct child elements.
    pub children: usize,
    /// Local name and namespace of the first of them.
    pub child: Option<(&'a str, Cow<'a, str>)>,
    /// Character data other than white space stands directly under the root.
    pub text_between: bool,
    /// End of the root's qualified name.
    name_end: u32,
    /// What forwarding cuts, each with the white space before it; empty if not there.
    from_cut: Span,
    to_cut: Span,
    xmlns_cut: Span,
    /// Prefixes other than `xml` are or may be used.
    prefixed: bool,
    /// What the stream header declares, if that is not the usual.
    scope: Option<Arc<Scope>>,
}

/// Framing state of one stream. An idle one owns no heap, unless the stream header was an unusual one.
#[derive(Debug, Default)]
pub struct Framer {
    scope: Option<Arc<Scope>>,
    /// The scan of a stanza that is not yet there in full.
    partial: Option<Box<Scanner>>,
    /// Bytes of the header that were looked at.
    header_scanned: u32,
    /// The quote that a header's attribute is in, or 0.
    header_quote: u8,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Before the header or its XML declaration.
    #[default]
    Start,
    /// In the XML declaration.
    Declaration,
    /// Between the XML declaration and the header.
    Declared,
    /// In the header.
    Header,
    /// Under the stream's root.
    Open,
}

impl Framer {
    /// Expects a stream header.
    pub fn new() -> Framer {
        Framer::default()
    }

    /// Forgets everything, as after STARTTLS and SASL (RFC 6120 section 4.3.3): a header is expected.
    pub fn restart(&mut self) {
        *self = Framer::new();
    }

    /// What `unread` starts with. Offer the same bytes again with what came after them until it is no longer
    /// [`Next::Incomplete`]; nothing is scanned twice. A stanza may be offered once more after it was returned. After an error
    /// nothing more may be asked of this framer.
    ///
    /// # Errors
    /// The first rule of [`XmlError`] that the bytes break, as soon as it is broken; encoding, and what only prefixes can
    /// break, when the stanza is there in full.
    pub fn next<'a>(&mut self, unread: &'a [u8], limits: &XmlLimits) -> Result<Next<'a>, XmlError> {
        if self.phase != Phase::Open {
            return self.header(unread, limits);
        }
        let skip = skip_white_space(unread, 0);
        let bytes = unread.get(skip..).unwrap_or_default();
        match bytes {
            [] | [b'<'] => Ok(Next::Incomplete { skip }),
            [b'<', b'/', ..] => self.footer(bytes, skip, limits),
            [b'<', b'?', ..] => Err(XmlError::Restricted("processing instruction")),
            [b'<', b'!'] => Ok(Next::Incomplete { skip }),
            [b'<', b'!', b'[', ..] => Err(TEXT_BETWEEN),
            [b'<', b'!', ..] => Err(declaration_error(bytes)),
            [b'<', ..] => self.element(bytes, skip, limits),
            _ => Err(TEXT_BETWEEN),
        }
    }

    fn element<'a>(&mut self, bytes: &'a [u8], skip: usize, limits: &XmlLimits) -> Result<Next<'a>, XmlError> {
        // What lies above the bound is not looked at, so that the answer does not depend on how the bytes arrive.
        let bytes_max = limits.stanza_bytes_max.min(u32::MAX as usize);
        let offered = bytes.get(..bytes_max).unwrap_or(bytes);
        let incomplete = || match bytes.len() < bytes_max {
            true => Ok(Next::Incomplete { skip }),
            false => Err(XmlError::TooBig("stanza too big")),
        };
        if let Some(mut scanner) = self.partial.take() {
            return match scanner.run(offered, limits)? {
                Some(end) => self.stanza(&scanner, offered, skip, end, limits),
                None => {
                    self.partial = Some(scanner);
                    incomplete()
                }
            };
        }
        let mut scanner = Scanner::new();
        match scanner.run(offered, limits)? {
            Some(end) => self.stanza(&scanner, offered, skip, end, limits),
            None => {
                self.partial = Some(Box::new(scanner));
                incomplete()
            }
        }
    }

    fn stanza<'a>(
        &self,
        scanner: &Scanner,
        offered: &'a [u8],
        skip: usize,
        end: usize,
        limits: &XmlLimits,
    ) -> Result<Next<'a>, XmlError> {
        let bytes = offered.get(..end).unwrap_or_default();
        let xml = std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)?;
        if !scanner.is_ascii()
            && memchr_iter(0xEF, bytes).any(|at| matches!(bytes.get(at + 1..at + 3), Some([0xBF, 0xBE | 0xBF])))
        {
            return Err(XmlError::NotWellFormed("character that XML does not allow"));
        }
        let frame = Frame::new(xml, scanner, self.scope.as_ref(), limits)?;
        Ok(Next::Stanza { used: skip + end, frame })
    }

    fn footer<'a>(&self, bytes: &[u8], skip: usize, limits: &XmlLimits) -> Result<Next<'a>, XmlError> {
        let root = self.scope.as_deref().unwrap_or(&USUAL).root.as_bytes();
        let name = bytes.get(2..).unwrap_or_default();
        let Some(rest) = name.strip_prefix(root) else {
            if root.starts_with(name) {
                return Ok(Next::Incomplete { skip });
            }
            return Err(XmlError::NotWellFormed("end tag that ends nothing"));
        };
        // White space is scanned again at each call, so it is bounded as tightly as a name.
        let space = skip_white_space(rest, 0);
        match rest.get(space) {
            _ if space > limits.name_bytes_max => Err(XmlError::TooBig("white space in the closing tag")),
            Some(b'>') => Ok(Next::Footer { used: skip + 2 + root.len() + space + 1 }),
            Some(_) => Err(XmlError::NotWellFormed("end tag that ends nothing")),
            None => Ok(Next::Incomplete { skip }),
        }
    }

    fn header<'a>(&mut self, unread: &'a [u8], limits: &XmlLimits) -> Result<Next<'a>, XmlError> {
        let bytes_max = limits.header_bytes_max.min(u32::MAX as usize);
        let offered = unread.get(..bytes_max).unwrap_or(unread);
        let Some(used) = self.header_end(offered)? else {
            return match unread.len() < bytes_max {
                true => Ok(Next::Incomplete { skip: 0 }),
                false => Err(XmlError::TooBig("stream header too big")),
            };
        };
        let xml = std::str::from_utf8(offered.get(..used).unwrap_or_default()).map_err(|_| NOT_UTF8)?;
        // Behind white space and XML declaration, which cannot hold the like.
        let tag = xml.rfind('<').and_then(|at| xml.get(at..)).unwrap_or_default();
        let (header, scope) = read_header(tag, limits)?;
        self.restart();
        self.phase = Phase::Open;
        self.scope = (scope != USUAL).then(|| Arc::new(scope));
        Ok(Next::Header { used, header })
    }

    /// Looks for the `>` that ends the header, from where the last call stopped.
    fn header_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, XmlError> {
        let mut at = self.header_scanned as usize;
        let end = loop {
            let rest = bytes.get(at..).unwrap_or_default();
            match self.phase {
                Phase::Start | Phase::Declared => {
                    at = skip_white_space(bytes, at);
                    match bytes.get(at..).unwrap_or_default() {
                        [] | [b'<'] => break None,
                        [b'<', b'?', ..] if self.phase == Phase::Start => self.phase = Phase::Declaration,
                        [b'<', b'?', ..] => return Err(XmlError::Restricted("processing instruction")),
                        [b'<', b'!'] => break None,
                        markup @ [b'<', b'!', ..] => return Err(declaration_error(markup)),
                        [b'<', ..] => {
                            self.phase = Phase::Header;
                            at += 1;
                        }
                        // These two occur in UTF-16 and never in UTF-8.
                        [0xFE | 0xFF, ..] => return Err(NOT_UTF8),
                        _ => return Err(XmlError::NotWellFormed("text before the stream header")),
                    }
                }
                Phase::Declaration => match declaration_end(rest)? {
                    Some(end) => {
                        at += end;
                        self.phase = Phase::Declared;
                    }
                    None => break None,
                },
                Phase::Header => {
                    let (end, quote) = tag_end(rest, self.header_quote)?;
                    self.header_quote = quote;
                    match end {
                        Some(end) => break Some(at + end),
                        None => at = bytes.len(),
                    }
                    break None;
                }
                Phase::Open => break None,
            }
        };
        self.header_scanned = at as u32;
        Ok(end)
    }
}

const NOT_UTF8: XmlError = XmlError::UnsupportedEncoding("not UTF-8");
const TEXT_BETWEEN: XmlError = XmlError::BadFormat("text between stanzas");

/// An XML declaration is not longer than this; it is scanned again at each call.
const DECLARATION_BYTES_MAX: usize = 256;

/// The length of the XML declaration that `bytes`, which begin with `<?`, begin with.
fn declaration_end(bytes: &[u8]) -> Result<Option<usize>, XmlError> {
    const OPENING: &[u8] = b"<?xml";
    let offered = bytes.get(..DECLARATION_BYTES_MAX).unwrap_or(bytes);
    let restricted = Err(XmlError::Restricted("processing instruction"));
    match offered.strip_prefix(OPENING) {
        None if OPENING.starts_with(offered) => return Ok(None),
        None => return restricted,
        Some([]) => return Ok(None),
        Some([first, ..]) if !is_white_space(*first) => return restricted,
        Some(_) => {}
    }
    let Some(end) = memmem::find(offered, b"?>") else {
        return match bytes.len() < DECLARATION_BYTES_MAX {
            true => Ok(None),
            false => Err(XmlError::TooBig("XML declaration too long")),
        };
    };
    let inner = offered.get(OPENING.len()..end).unwrap_or_default();
    check_declaration(std::str::from_utf8(inner).map_err(|_| NOT_UTF8)?)?;
    Ok(Some(end + 2))
}

/// What stands between `<?xml` and `?>`: version, encoding, standalone (XML 1.0 section 2.8; RFC 6120 sections 11.5, 11.6).
fn check_declaration(source: &str) -> Result<(), XmlError> {
    const WRONG: XmlError = XmlError::NotWellFormed("XML declaration");
    let mut stream = Stream::from(source);
    let mut allowed: &[&str] = &["version", "encoding", "standalone"];
    loop {
        let space = stream.consume_spaces();
        if stream.at_end() {
            break;
        }
        space.map_err(|_| WRONG)?;
        let name = stream.consume_name().map_err(|_| WRONG)?;
        stream.consume_eq().map_err(|_| WRONG)?;
        let quote = stream.consume_quote().map_err(|_| WRONG)?;
        let value = stream.consume_bytes(|_, byte| byte != quote);
        stream.consume_byte(quote).map_err(|_| WRONG)?;

        let place = allowed.iter().position(|known| *known == name.as_str()).ok_or(WRONG)?;
        // The version is never left out.
        if allowed.len() == 3 && place > 0 {
            return Err(WRONG);
        }
        allowed = allowed.get(place + 1..).unwrap_or_default();
        match (name.as_str(), value.as_str()) {
            ("version", "1.0") | ("standalone", "yes" | "no") => {}
            ("encoding", name) if name.eq_ignore_ascii_case("utf-8") => {}
            ("encoding", _) => return Err(XmlError::UnsupportedEncoding("another encoding declared")),
            _ => return Err(WRONG),
        }
    }
    if allowed.len() == 3 { Err(WRONG) } else { Ok(()) }
}

/// Goes on in a start tag, within `quote` if it is not 0: the length up to its `>`, and the quote at the end of `bytes`.
fn tag_end(bytes: &[u8], mut quote: u8) -> Result<(Option<usize>, u8), XmlError> {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'>' if quote == 0 => return Ok((Some(at + 1), 0)),
            b'\'' | b'"' if quote == 0 => quote = *byte,
            b'<' => return Err(XmlError::NotWellFormed("< in the stream header")),
            byte if *byte == quote => quote = 0,
            0..0x20 if !is_white_space(*byte) => {
                return Err(XmlError::NotWellFormed("character that XML does not allow"));
            }
            _ => {}
        }
    }
    Ok((None, quote))
}

fn read_header<'a>(tag: &'a str, limits: &XmlLimits) -> Result<(Header<'a>, Scope), XmlError> {
    let root = checker::check_root(tag, limits)?;
    if root.ns != ns::STREAMS {
        return Err(XmlError::InvalidNamespace);
    }
    if root.local != "stream" {
        return Err(XmlError::BadFormat("the root is not a stream"));
    }
    // Stanzas may name their namespace themselves (RFC 6120 section 4.8.2).
    if !matches!(&*root.default, ns::CLIENT | ns::STREAMS | "") {
        return Err(XmlError::InvalidNamespace);
    }
    let mut header = Header::default();
    for (prefix, local, value) in root.attributes {
        match (prefix, local) {
            ("", "to") => header.to = Some(value),
            ("", "from") => header.from = Some(value),
            ("", "version") => header.version = Some(value),
            ("xml", "lang") => header.lang = Some(value),
            _ => {}
        }
    }
    let own = |text: &str| Cow::Owned(text.to_owned());
    let scope = Scope {
        root: own(root.name),
        default: own(&root.default),
        prefixes: root
            .prefixes
            .iter()
            .filter(|(name, _)| *name != "xml")
            .map(|(name, ns)| (own(name), own(ns)))
            .collect(),
    };
    Ok((header, scope))
}

impl<'a> Frame<'a> {
    /// The frame that was scanned, once the checker has judged what the scanner left to it.
    fn new(
        xml: &'a str,
        scanner: &Scanner,
        scope: Option<&Arc<Scope>>,
        limits: &XmlLimits,
    ) -> Result<Frame<'a>, XmlError> {
        let text = |span: Span| xml.get(span.start as usize..span.end as usize).unwrap_or_default();
        let value = |known| scanner.root_attribute(known).map(|attribute| text(attribute.value));
        let cut = |known| scanner.root_attribute(known).map_or(Span::default(), cut_of);
        let inherited = || scope.map_or(Cow::Borrowed(ns::CLIENT), |scope| scope.default.clone());

        let (local, ns, child) = if scanner.rare {
            let checked = checker::check(xml, inherited(), scope.map_or(&USUAL, |scope| scope), limits)?;
            if checked.content_prefix {
                return Err(XmlError::BadNamespacePrefix);
            }
            (checked.local, checked.ns, checked.child)
        } else {
            let ns = value(Known::Xmlns).map_or_else(inherited, Cow::Borrowed);
            let child_ns = || scanner.child_xmlns.map_or_else(|| ns.clone(), |span| Cow::Borrowed(text(span)));
            let child = (scanner.children > 0).then(|| (text(scanner.child), child_ns()));
            (text(scanner.name), ns, child)
        };
        let kind = match local {
            _ if ns != ns::CLIENT => Kind::Other,
            "message" => Kind::Message,
            "presence" => Kind::Presence,
            "iq" => Kind::Iq,
            _ => Kind::Other,
        };
        Ok(Frame {
            xml,
            kind,
            local,
            to: value(Known::To),
            from: value(Known::From),
            id: value(Known::Id),
            type_: value(Known::Type),
            lang: value(Known::Lang),
            children: scanner.children,
            child,
            text_between: scanner.text_between,
            name_end: scanner.name.end,
            from_cut: cut(Known::From),
            to_cut: cut(Known::To),
            xmlns_cut: if ns == ns::CLIENT { cut(Known::Xmlns) } else { Span::default() },
            ns,
            prefixed: scanner.rare,
            scope: scope.cloned(),
        })
    }

    /// The default namespace in which the frame stands, and what else its stream's header declares.
    pub(super) fn scope(&self) -> (Cow<'static, str>, &Scope) {
        let scope = self.scope.as_deref().unwrap_or(&USUAL);
        (scope.default.clone(), scope)
    }

    /// Appends the stanza in its routed form (DESIGN, "Forwarding"): as received, but with `from` replaced, a root `xmlns`
    /// equal to the content namespace cut, prefixes that only the stream header declares copied into the root, and
    /// `xml:lang` inserted if the root has none.
    ///
    /// `from` and `lang` must be escaped for a single-quoted attribute value. Only for frames that are stanzas.
    pub fn splice_into(&self, from: &str, lang: Option<&str>, out: &mut Vec<u8>) {
        self.splice(from, None, lang, out);
    }

    /// [`Frame::splice_into`] with `to` replaced as well, or cut if there is none. `to` must be escaped like `from`.
    pub fn splice_to_into(&self, from: &str, to: Option<&str>, lang: Option<&str>, out: &mut Vec<u8>) {
        self.splice(from, Some(to), lang, out);
    }

    fn splice(&self, from: &str, to: Option<Option<&str>>, lang: Option<&str>, out: &mut Vec<u8>) {
        debug_assert!(!from.contains(['\'', '<']), "{from:?} is not escaped");
        let lang = if self.lang.is_none() { lang } else { None };
        let inserted = from.len() + to.flatten().map_or(0, str::len) + lang.map_or(0, str::len);
        out.reserve(self.xml.len() + inserted + 32);

        let xml = self.xml.as_bytes();
        let mut done = self.name_end as usize;
        out.extend_from_slice(xml.get(..done).unwrap_or_default());
        push_attribute(" from='", from, out);
        if let Some(Some(to)) = to {
            push_attribute(" to='", to, out);
        }
        if let Some(lang) = lang {
            push_attribute(" xml:lang='", lang, out);
        }
        if self.prefixed || self.scope.is_some() {
            self.push_declarations(out);
        }
        let to_cut = if to.is_some() { self.to_cut } else { Span::default() };
        let mut cuts = [self.from_cut, to_cut, self.xmlns_cut];
        cuts.sort_unstable_by_key(|cut| cut.start);
        for cut in cuts.into_iter().filter(|cut| cut.len() > 0) {
            out.extend_from_slice(xml.get(done..cut.start as usize).unwrap_or_default());
            done = cut.end as usize;
        }
        out.extend_from_slice(xml.get(done..).unwrap_or_default());
    }

    /// The header's prefixes that the stanza names and its root does not declare.
    #[cold]
    fn push_declarations(&self, out: &mut Vec<u8>) {
        let (_, scope) = self.scope();
        let named = prefixes_named(self.xml);
        let declared = checker::declared_prefixes(self.xml);
        for (prefix, ns) in scope.prefixes.iter() {
            if named.contains(&**prefix) && !declared.contains(&&**prefix) {
                push_declaration(prefix, ns, out);
            }
        }
    }
}

/// What to cut so that nothing of an attribute remains.
fn cut_of(attribute: Attribute) -> Span {
    Span { start: attribute.start, end: attribute.value.end + 1 }
}

fn push_attribute(opening: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(opening.as_bytes());
    out.extend_from_slice(value.as_bytes());
    out.push(b'\'');
}

/// What a framer has kept of the stream header.
#[cfg(test)]
pub(super) fn scope_of(framer: &Framer) -> Scope {
    framer.scope.as_deref().unwrap_or(&USUAL).clone()
}
