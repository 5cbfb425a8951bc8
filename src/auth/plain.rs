//! PLAIN (RFC 4616): three fields between two NULs.

use super::SaslError;
use super::password::PASSWORD_BYTES_MAX;

/// The fields as they were sent.
pub(super) struct Message<'a> {
    /// Empty if absent.
    pub authzid: &'a str,
    pub authcid: &'a str,
    pub password: &'a str,
}

impl<'a> Message<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Message<'a>, SaslError> {
        let text = std::str::from_utf8(data).map_err(|_| SaslError::MalformedRequest)?;
        let mut fields = text.split('\0');
        let (Some(authzid), Some(authcid), Some(password), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(SaslError::MalformedRequest);
        };
        if authcid.is_empty() || password.is_empty() {
            return Err(SaslError::MalformedRequest);
        }
        // No account has such a password, so it is wrong; the helper thread need not hear of it.
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(SaslError::NotAuthorized);
        }
        Ok(Message { authzid, authcid, password })
    }
}
