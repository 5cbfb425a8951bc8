//! XMPP addresses, RFC 7622: prepared once at the boundary, compared as bytes after.

use std::borrow::Cow;
use std::fmt;

/// Why a string is no address (RFC 7622 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JidError(pub &'static str);

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
    /// # Errors
    /// [`JidError`] for what RFC 7622 forbids.
    pub fn parse(_text: &'a str) -> Result<JidRef<'a>, JidError> {
        todo!()
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
}

impl fmt::Display for JidRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
