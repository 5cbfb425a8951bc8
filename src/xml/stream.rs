//! Framing: the stream header, one whole stanza, the footer.

use std::borrow::Cow;

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
}

/// Framing state of one stream. An idle one owns no heap.
#[derive(Debug, Default)]
pub struct Framer {}

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
    /// [`Next::Incomplete`]; nothing is scanned twice. After an error nothing more may be asked of this framer.
    pub fn next<'a>(&mut self, _unread: &'a [u8], _limits: &XmlLimits) -> Result<Next<'a>, XmlError> {
        todo!()
    }
}

impl Frame<'_> {
    /// Appends the stanza in its routed form (DESIGN, "Forwarding"): as received, but with `from` replaced, a root `xmlns`
    /// equal to the content namespace cut, prefixes that only the stream header declares copied into the root, and
    /// `xml:lang` inserted if the root has none.
    ///
    /// `from` and `lang` must be escaped for a single-quoted attribute value.
    pub fn splice_into(&self, _from: &str, _lang: Option<&str>, _out: &mut Vec<u8>) {
        todo!()
    }
}
