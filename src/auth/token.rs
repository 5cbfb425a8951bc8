//! Tokens by which a client logs in again (XEP-0484), and what tells one client from another.

use std::fmt;

/// Which installation of a client this is, as it says itself: the `user-agent` id of XEP-0388, a UUID of version 4.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientId([u8; 16]);

impl ClientId {
    /// From its usual form, in letters of either case; `None` for everything else, UUIDs of other versions included.
    pub fn parse(text: &str) -> Option<ClientId> {
        let text = text.as_bytes();
        let has_shape = text.len() == 36
            && text.iter().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => *byte == b'-',
                14 => *byte == b'4',
                19 => matches!(byte.to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b'),
                _ => byte.is_ascii_hexdigit(),
            });
        let digits = text.iter().filter_map(|byte| char::from(*byte).to_digit(16));
        let mut id = [0; 16];
        for (at, digit) in digits.take(32).enumerate() {
            let byte = id.get_mut(at / 2)?;
            *byte = *byte << 4 | digit as u8;
        }
        has_shape.then_some(ClientId(id))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nobody else is to learn of it (XEP-0388 section 2.3).
        f.write_str("ClientId(…)")
    }
}
