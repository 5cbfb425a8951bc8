//! What the handlers and the store say to each other about tokens (XEP-0484): what is kept of each, and what a log-in changes.

use crate::auth::{TokenMechanism, TokenSalt};
use crate::core::clock::UtcTime;
use crate::core::effects::StoreError;

/// Which client of an account tokens are for: derived from its id, which it does not tell.
pub type ClientPlace = [u8; 16];

/// What is kept of a token. Neither the token nor what it is derived from can be had from it alone (see `auth::TokenSecret`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The one mechanism that it is good for.
    pub mechanism: TokenMechanism,
    /// Tells it from others of the client.
    pub salt: TokenSalt,
    /// When it was given out.
    pub issued: UtcTime,
    /// From when on it is no good.
    pub expires: UtcTime,
    /// The highest `count` that it was used with, 0 for none.
    pub count: u64,
}

impl Token {
    /// Whether its time is over. A clock that says it has not been given out yet is not believed.
    pub fn is_expired(&self, now: UtcTime) -> bool {
        now >= self.expires
    }
}

/// The tokens of one client: the one that it has used last, and a newer one that it may not have got (section 3.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTokens {
    /// Used, or the first there was.
    pub current: Option<Token>,
    /// Given out and not used yet.
    pub fresh: Option<Token>,
}

/// What a log-in does to its client's tokens, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenChange {
    /// It was made with the token of this salt, and this `count` if there was one.
    pub used: Option<(TokenSalt, Option<u64>)>,
    /// The client's tokens shall be no good from now on.
    pub invalidate: bool,
    /// This one is given out.
    pub issue: Option<Token>,
    /// What the client calls itself; empty if it does not say.
    pub name: String,
}

/// A client that has tokens, for its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Which.
    pub place: ClientPlace,
    /// When its tokens last changed, which they do daily where they are used.
    pub used: UtcTime,
    /// What it calls itself; may be empty.
    pub name: String,
}

impl ClientTokens {
    /// Changes them as a log-in asks.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the token is no longer there, [`StoreError::Conflict`] if its `count` was used before.
    pub fn apply(&mut self, change: &TokenChange) -> Result<(), StoreError> {
        if let Some((salt, count)) = &change.used {
            // Who has got the newer one no longer needs the older.
            if let Some(fresh) = self.fresh.take_if(|fresh| fresh.salt == *salt) {
                self.current = Some(fresh);
            }
            let token = self.current.as_mut().filter(|token| token.salt == *salt).ok_or(StoreError::NotFound)?;
            if let Some(count) = count {
                if *count <= token.count {
                    return Err(StoreError::Conflict);
                }
                token.count = *count;
            }
        }
        if change.invalidate {
            *self = ClientTokens::default();
        }
        if let Some(token) = &change.issue {
            self.fresh = Some(token.clone());
        }
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.current.is_none() && self.fresh.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(salt: u8) -> Token {
        let (issued, expires) = (UtcTime(10), UtcTime(20));
        Token { mechanism: TokenMechanism::None, salt: [salt; 16], issued, expires, count: 0 }
    }

    #[test]
    fn the_old_one_dies_when_the_new_one_is_used() {
        let mut tokens = ClientTokens::default();
        let mut check = |used: Option<(u8, Option<u64>)>,
                         invalidate,
                         issue: Option<u8>,
                         expected: Result<(u8, u8), StoreError>| {
            let used = used.map(|(salt, count)| ([salt; 16], count));
            let result = tokens.apply(&TokenChange { used, invalidate, issue: issue.map(token), name: String::new() });
            let salt = |token: &Option<Token>| token.as_ref().map_or(0, |token| token.salt[0]);
            assert_eq!(result.map(|()| (salt(&tokens.current), salt(&tokens.fresh))), expected, "{used:?} {issue:?}");
        };
        check(None, false, Some(1), Ok((0, 1)));
        check(Some((1, None)), false, None, Ok((1, 0)));
        check(Some((1, None)), false, Some(2), Ok((1, 2)));
        // The answer was lost: the old one works, and the one that was lost is replaced.
        check(Some((1, Some(5))), false, Some(3), Ok((1, 3)));
        check(Some((2, None)), false, None, Err(StoreError::NotFound));
        check(Some((1, Some(5))), false, None, Err(StoreError::Conflict));
        check(Some((1, Some(6))), false, None, Ok((1, 3)));
        check(Some((3, Some(1))), false, None, Ok((3, 0)));
        check(Some((1, None)), false, None, Err(StoreError::NotFound));
        check(Some((3, None)), true, None, Ok((0, 0)));
        check(Some((3, None)), false, None, Err(StoreError::NotFound));
        check(None, false, Some(4), Ok((0, 4)));
        check(Some((4, None)), true, Some(5), Ok((0, 5)));
    }

    #[test]
    fn time_runs_out_and_never_runs_back() {
        for (now, expired) in [(0, false), (10, false), (19, false), (20, true), (u64::MAX, true)] {
            assert_eq!(token(1).is_expired(UtcTime(now)), expired, "{now}");
        }
    }
}
