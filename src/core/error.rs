//! Errors of the standard as values: stanza errors and stream errors (SASL's are in `auth`).

use crate::core::effects::StoreError;
use crate::xml::{Writer, XmlError, ns};

/// A stanza error's class (RFC 6120 section 8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// Retry after providing credentials.
    Auth,
    /// Do not retry.
    Cancel,
    /// Retry after changing the data sent.
    Modify,
    /// Retry after waiting.
    Wait,
}

impl ErrorType {
    fn name(self) -> &'static str {
        match self {
            ErrorType::Auth => "auth",
            ErrorType::Cancel => "cancel",
            ErrorType::Modify => "modify",
            ErrorType::Wait => "wait",
        }
    }
}

/// A stanza error (RFC 6120 section 8.3). The constants carry the type that section 8.3.3 gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StanzaError {
    /// Class.
    pub kind: ErrorType,
    /// Defined condition.
    pub condition: &'static str,
    /// For a person, in English.
    pub text: Option<&'static str>,
    /// Application-specific condition: name and namespace.
    pub application: Option<(&'static str, &'static str)>,
}

macro_rules! stanza_errors {
    ($($name:ident $kind:ident $condition:literal)*) => {
        impl StanzaError {
            $(
                #[doc = concat!("`", $condition, "`, RFC 6120 section 8.3.3.")]
                pub const $name: StanzaError =
                    StanzaError { kind: ErrorType::$kind, condition: $condition, text: None, application: None };
            )*
        }
    };
}

stanza_errors! {
    BAD_REQUEST Modify "bad-request"
    CONFLICT Cancel "conflict"
    FEATURE_NOT_IMPLEMENTED Cancel "feature-not-implemented"
    FORBIDDEN Auth "forbidden"
    GONE Cancel "gone"
    INTERNAL_SERVER_ERROR Wait "internal-server-error"
    ITEM_NOT_FOUND Cancel "item-not-found"
    JID_MALFORMED Modify "jid-malformed"
    NOT_ACCEPTABLE Modify "not-acceptable"
    NOT_ALLOWED Cancel "not-allowed"
    NOT_AUTHORIZED Auth "not-authorized"
    POLICY_VIOLATION Modify "policy-violation"
    REGISTRATION_REQUIRED Auth "registration-required"
    REMOTE_SERVER_NOT_FOUND Cancel "remote-server-not-found"
    REMOTE_SERVER_TIMEOUT Wait "remote-server-timeout"
    RESOURCE_CONSTRAINT Wait "resource-constraint"
    SERVICE_UNAVAILABLE Cancel "service-unavailable"
    UNEXPECTED_REQUEST Wait "unexpected-request"
}

impl StanzaError {
    /// With a sentence for a person.
    #[must_use]
    pub const fn text(self, text: &'static str) -> StanzaError {
        StanzaError { text: Some(text), ..self }
    }

    /// With another class, where a standard asks for one.
    #[must_use]
    pub const fn kind(self, kind: ErrorType) -> StanzaError {
        StanzaError { kind, ..self }
    }

    /// Writes the `<error/>` element.
    pub fn write(&self, w: &mut Writer<'_>) {
        self.write_by(None, "", w);
    }

    /// Writes the `<error/>` element, saying who has found it, and with an address inside the condition (`gone`,
    /// `redirect`) if that is not empty.
    pub fn write_by(&self, by: Option<&str>, address: &str, w: &mut Writer<'_>) {
        // The number of XEP-0086: profanity goes by it when it looks for its first list of keys.
        let code = (self.condition == "item-not-found").then_some("404");
        w.open("error", ns::CLIENT).attr_opt("by", by).attr_opt("code", code).attr("type", self.kind.name());
        w.open(self.condition, ns::STANZA_ERRORS);
        if !address.is_empty() {
            w.text(address);
        }
        w.close();
        if let Some(text) = self.text {
            w.open("text", ns::STANZA_ERRORS).attr("xml:lang", "en").text(text).close();
        }
        if let Some((name, ns)) = self.application {
            w.empty(name, ns);
        }
        w.close();
    }
}

impl From<StoreError> for StanzaError {
    fn from(error: StoreError) -> StanzaError {
        match error {
            StoreError::NoAccount => StanzaError::SERVICE_UNAVAILABLE,
            StoreError::Conflict => StanzaError::CONFLICT,
            StoreError::NotFound => StanzaError::ITEM_NOT_FOUND,
            StoreError::Full => StanzaError::RESOURCE_CONSTRAINT,
            StoreError::DiskFull => StanzaError::RESOURCE_CONSTRAINT.text("The server's disk is full."),
            StoreError::Failed => StanzaError::INTERNAL_SERVER_ERROR.text("The server could not store this."),
        }
    }
}

/// A stream error (RFC 6120 section 4.9); it always ends the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamError {
    /// Defined condition.
    pub condition: &'static str,
    /// For a person, in English.
    pub text: &'static str,
    /// Application-specific condition: name and namespace.
    pub application: Option<(&'static str, &'static str)>,
    /// Attributes of that condition.
    pub numbers: Option<[(&'static str, u32); 2]>,
}

impl StreamError {
    /// A defined condition of section 4.9.3 with its reason.
    pub const fn new(condition: &'static str, text: &'static str) -> StreamError {
        StreamError { condition, text, application: None, numbers: None }
    }

    /// Writes the `<stream:error/>` element.
    pub fn write(&self, buf: &mut Vec<u8>) {
        let mut w = Writer::new(buf);
        w.open("stream:error", ns::CLIENT).empty(self.condition, ns::STREAM_ERRORS);
        w.open("text", ns::STREAM_ERRORS).attr("xml:lang", "en").text(self.text).close();
        if let Some((name, ns)) = self.application {
            w.open(name, ns);
            for (name, number) in self.numbers.iter().flatten() {
                w.attr(name, number);
            }
            w.close();
        }
    }
}

impl From<XmlError> for StreamError {
    fn from(error: XmlError) -> StreamError {
        match error {
            XmlError::NotWellFormed(text) => StreamError::new("not-well-formed", text),
            XmlError::Restricted(text) => StreamError::new("restricted-xml", text),
            XmlError::UnsupportedEncoding(text) => StreamError::new("unsupported-encoding", text),
            XmlError::BadNamespacePrefix => {
                StreamError::new("bad-namespace-prefix", "The content namespace must be the default, without prefix.")
            }
            XmlError::InvalidNamespace => StreamError::new(
                "invalid-namespace",
                "Expected a stream of http://etherx.jabber.org/streams with content of jabber:client.",
            ),
            XmlError::BadFormat(text) => StreamError::new("bad-format", text),
            XmlError::TooBig(text) => StreamError {
                application: Some(("stanza-too-big", ns::XMPP_ERRORS)),
                ..StreamError::new("policy-violation", text)
            },
        }
    }
}
