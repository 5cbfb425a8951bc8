//! Logging in with SASL2 and tokens (XEP-0388, XEP-0484): one that is good is taken, one that is not is not.
//!
//! A token is good until the password is changed, until a newer one was used, or, as long as it was not used itself, until another
//! one was given out. Each `count` is good once.

use std::time::Duration;

use whinchat::xml::{Element, ns};

use super::device::Device;
use super::land::Land;
use super::oracle::Oracle;
use super::registers::Key;
use super::{account_name, scram};

/// A token that a device was given.
#[derive(Clone, Debug)]
struct Token {
    text: String,
    /// When the log-in began with which it came.
    asked: Duration,
    got: Duration,
    was_used: bool,
    /// The highest with which it was used, and the highest with which that was tried.
    count: u64,
    tried: u64,
}

/// What a device keeps to log in with.
#[derive(Clone, Debug, Default)]
pub struct Wallet {
    tokens: Vec<Token>,
    attempt: Option<Attempt>,
    /// Log-ins that may have brought a token, whether it arrived or not.
    wishes: Vec<Duration>,
    pub logins: u64,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    token: usize,
    count: u64,
    asked: Duration,
}

const WISH: &str = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";

impl Wallet {
    /// Why a token may be refused.
    fn excuse(&self, oracle: &Oracle, account: usize, Attempt { token, count, .. }: Attempt) -> Option<&'static str> {
        let known = &self.tokens[token];
        let later = &self.tokens[token + 1..];
        if oracle.may_have_changed(&Key::Password(account), known.asked) {
            return Some("the password may have been changed");
        }
        if later.iter().any(|later| later.was_used || later.tried > 0) {
            return Some("a newer one may have been used");
        }
        if !known.was_used && self.wishes.iter().any(|wish| *wish > known.asked) {
            return Some("another one may have been given out");
        }
        if count <= known.tried {
            return Some("this count may have been used");
        }
        None
    }

    /// Why it must be refused.
    fn objection(&self, oracle: &Oracle, account: usize, attempt: Attempt) -> Option<&'static str> {
        let known = &self.tokens[attempt.token];
        if oracle.has_changed(&Key::Password(account), known.got, attempt.asked) {
            return Some("the password was changed");
        }
        if self.tokens[attempt.token + 1..].iter().any(|later| later.was_used) {
            return Some("a newer one was used");
        }
        if attempt.count <= known.count {
            return Some("this count was used");
        }
        None
    }
}

impl Device {
    fn user_agent(&self) -> String {
        format!("<user-agent id='d4565fa7-4d72-4749-b3d3-74000000{:04}'/>", self.index())
    }

    /// Begins to log in, mostly with the newest token.
    pub fn authenticate(&mut self, land: &mut Land) {
        let newest = self.wallet.tokens.len().checked_sub(1).filter(|_| land.dice.percent(85));
        match newest {
            Some(newest) => self.use_token(land, newest),
            None => self.use_password(land),
        }
    }

    fn use_token(&mut self, land: &mut Land, newest: usize) {
        // Now and then an old one, or one a second time.
        let token = if land.dice.percent(15) { newest.saturating_sub(1) } else { newest };
        let known = &mut self.wallet.tokens[token];
        let count = if land.dice.percent(20) { known.count.max(1) } else { known.tried + 1 };
        let attempt = Attempt { token, count, asked: land.now };
        self.wallet.attempt = Some(attempt);
        let wish = if land.dice.percent(30) { WISH } else { "" };
        let user = account_name(self.account).split('@').next().unwrap_or_default();
        let xml = format!(
            "<authenticate xmlns='{}' mechanism='HT-SHA-256-NONE'><initial-response>{}</initial-response>{}\
             <fast xmlns='{}' count='{count}'/>{wish}</authenticate>",
            ns::SASL2,
            scram::token(user, &self.wallet.tokens[token].text),
            self.user_agent(),
            ns::FAST,
        );
        if !wish.is_empty() {
            self.wallet.wishes.push(land.now);
        }
        self.write(land, &xml);
    }

    fn use_password(&mut self, land: &mut Land) {
        self.wallet.attempt = None;
        let Some(first) = self.choose_password(land) else { return };
        self.wallet.wishes.push(land.now);
        let xml = format!(
            "<authenticate xmlns='{}' mechanism='SCRAM-SHA-256'><initial-response>{first}</initial-response>{}{WISH}\
             </authenticate>",
            ns::SASL2,
            self.user_agent(),
        );
        self.write(land, &xml);
    }

    /// It is in. With the password it may have got a token.
    pub fn on_authenticated(&mut self, land: &mut Land, success: &Element<'_>) {
        if let Some(attempt) = self.wallet.attempt.take() {
            self.wallet.logins += 1;
            if let Some(objection) = self.wallet.objection(&land.oracle, self.account, attempt) {
                let what = format!("device {} came in with {attempt:?}, though {objection}", self.index());
                return land.oracle.fail(|| what);
            }
            let known = &mut self.wallet.tokens[attempt.token];
            known.was_used = true;
            known.count = known.count.max(attempt.count);
            known.tried = known.tried.max(attempt.count);
        }
        let token = success.children().find(|child| child.is("token", ns::FAST));
        if let (Some(text), Some(asked)) =
            (token.and_then(|token| token.attr("token").map(str::to_owned)), self.wallet.wishes.last())
        {
            let token = Token { text, asked: *asked, got: land.now, was_used: false, count: 0, tried: 0 };
            self.wallet.tokens.push(token);
        }
    }

    /// Whether it was about a token; then the password is tried.
    pub fn on_token_refused(&mut self, land: &mut Land, condition: &str) -> bool {
        let Some(attempt) = self.wallet.attempt.take() else { return false };
        let excuse = self.wallet.excuse(&land.oracle, self.account, attempt);
        self.wallet.tokens[attempt.token].tried = self.wallet.tokens[attempt.token].tried.max(attempt.count);
        match condition {
            "temporary-auth-failure" => return false,
            "not-authorized" if excuse.is_some() => {}
            _ => {
                let token = &self.wallet.tokens[attempt.token];
                let what = format!("device {} was refused {attempt:?} of {token:?}: {condition}", self.index());
                land.oracle.fail(|| what);
            }
        }
        self.use_password(land);
        true
    }

    /// The outcome of a log-in will not be known.
    pub fn forget_attempt(&mut self) {
        if let Some(Attempt { token, count, .. }) = self.wallet.attempt.take() {
            let known = &mut self.wallet.tokens[token];
            known.tried = known.tried.max(count);
        }
    }
}
