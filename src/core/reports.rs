//! Reports of spam and abuse that come with a block (XEP-0377), as they are kept for who runs the server.

use std::fmt;

use crate::core::clock::UtcTime;
use crate::jid::{BareJid, Jid};

/// Bytes of a report's text that are kept.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Messages that a report names, at most.
pub const MESSAGES_MAX: usize = 16;
/// Bytes of the name of a message.
pub const MESSAGE_BYTES_MAX: usize = 128;

/// What is complained of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Something that is not said.
    Unknown,
    /// Unwanted messages.
    Spam,
    /// Anything else that hurts.
    Abuse,
}

impl Reason {
    /// In the order of their numbers in the store.
    pub const ALL: [Reason; 3] = [Reason::Unknown, Reason::Spam, Reason::Abuse];

    /// From the attribute.
    pub fn from_name(name: &str) -> Reason {
        match name {
            "urn:xmpp:reporting:spam" => Reason::Spam,
            "urn:xmpp:reporting:abuse" => Reason::Abuse,
            _ => Reason::Unknown,
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Unknown => "unknown reason",
            Reason::Spam => "spam",
            Reason::Abuse => "abuse",
        }
    }
}

/// A report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// When.
    pub at: UtcTime,
    /// Who reports.
    pub by: BareJid,
    /// Who is reported.
    pub about: Jid,
    /// Why.
    pub reason: Reason,
    /// What is said about it, in one line; may be empty.
    pub text: String,
    /// Ids that the reported messages have in archives.
    pub messages: Vec<String>,
}

/// In one line, for logs and lists.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { at, by, about, reason, text, messages } = self;
        write!(f, "{at} {about}: {}, reported by {by}", reason.name())?;
        if !messages.is_empty() {
            write!(f, ", messages {}", messages.join(" "))?;
        }
        if !text.is_empty() {
            write!(f, ": {text:?}")?;
        }
        Ok(())
    }
}
