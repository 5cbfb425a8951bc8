//! XEP-0484: Fast Authentication Streamlining Tokens: a client that has logged in gets a token, with which it is back by one
//! message. What tokens are made of is in `auth`, what is kept of them in `core::tokens`.
//!
//! A token is good for one client of an account and one mechanism, for a time that begins anew as it is exchanged for a newer one.
//! It dies with the password, with the account, and where there are too many. TLS early data is not read, so a `count` is not asked
//! for; one that is sent has to grow all the same. A wrong token is no guess at a password: its answer does not wait.

use subtle::{Choice, ConditionallySelectable};
use zeroize::Zeroizing;

use super::prelude::*;
use super::sasl2;
use crate::auth::{self, ClientId, SaslError, TokenMechanism, TokenMessage};
use crate::core::UtcTime;
use crate::core::effects::StoreError;
use crate::core::parked::Waiting;
use crate::core::stream::{Phase, Stream};
use crate::core::tokens::{ClientTokens, Token, TokenChange};
use crate::jid::BareJid;

pub(super) const HANDLER: Handler =
    Handler { name: "fast", spec: "XEP-0484 0.2.0", inline: Some(advertise), ..Handler::EMPTY };

/// A token that is used after this many seconds is exchanged.
const ROTATION_SECONDS: u64 = 24 * 3600;
/// A machine that does not know the time yet gives no tokens, which would have expired when it does: 2025-01-01.
const PLAUSIBLE: UtcTime = UtcTime(1_735_689_600_000);

/// What `<authenticate/>` says about tokens.
#[derive(Default)]
pub(super) struct Request {
    used: Option<Use>,
    /// `<request-token/>`
    wanted: Option<TokenMechanism>,
}

/// `<fast/>`: the client logs in with one.
#[derive(Clone, Copy)]
struct Use {
    count: Result<Option<u64>, SaslError>,
    invalidate: bool,
}

impl Request {
    pub(super) fn parse(root: &Element<'_>) -> Request {
        let used = root.child("fast", ns::FAST).map(|fast| {
            let count = fast.attr("count").map(|count| match count.parse() {
                Ok(count @ 1..) => Ok(count),
                _ => Err(SaslError::MalformedRequest),
            });
            let invalidate = matches!(fast.attr("invalidate"), Some("true" | "1"));
            Use { count: count.transpose(), invalidate }
        });
        let wanted = root.child("request-token", ns::FAST).and_then(|wanted| wanted.attr("mechanism"));
        Request { used, wanted: wanted.and_then(TokenMechanism::from_name) }
    }

    /// Whether the client says that it logs in with a token.
    pub(super) fn uses_token(&self) -> bool {
        self.used.is_some()
    }
}

/// A token that the client gets with its success.
pub(super) struct Issued {
    text: Zeroizing<String>,
    expires: UtcTime,
}

impl Issued {
    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.open("token", ns::FAST).attr("expiry", self.expires).attr("token", &*self.text).close();
    }
}

fn advertise(core: &Core, stream: &Stream, w: &mut Writer<'_>) {
    let mut offered = TokenMechanism::ALL.into_iter().filter(|mechanism| binding(core, stream, *mechanism).is_some());
    let Some(first) = offered.next() else { return };
    w.open("fast", ns::FAST);
    for mechanism in std::iter::once(first).chain(offered) {
        w.text_element("mechanism", mechanism.name());
    }
    w.close();
}

/// What a mechanism binds to on a stream that logs in; `None` where it is not offered.
fn binding(core: &Core, stream: &Stream, mechanism: TokenMechanism) -> Option<Vec<u8>> {
    let Phase::Login(login) = &stream.phase else { return None };
    if core.limits.token_time.is_zero() || !stream.secure {
        return None;
    }
    mechanism.binding(&login.tls.bindings).map(<[u8]>::to_vec)
}

/// A log-in with a token.
struct Attempt {
    user: BareJid,
    client: ClientId,
    mechanism: TokenMechanism,
    binding: Vec<u8>,
    proof: [u8; 32],
    count: Option<u64>,
    invalidate: bool,
    wanted: Option<TokenMechanism>,
    name: String,
}

impl Attempt {
    /// What must be known before the store is asked: the stream's `from`, the client and its `<fast/>` (section 4.1), a mechanism
    /// that is offered, and the one message that there is.
    fn of(core: &Core, conn: ConnId, mechanism: TokenMechanism, data: &[u8]) -> Result<Attempt, SaslError> {
        let stream = core.streams.get(conn).ok_or(SaslError::MalformedRequest)?;
        let Phase::Login(login) = &stream.phase else { return Err(SaslError::MalformedRequest) };
        let binding = binding(core, stream, mechanism).ok_or(SaslError::InvalidMechanism)?;
        let request = login.sasl2.as_deref().ok_or(SaslError::MalformedRequest)?;
        let (Some(used), Some(client), Some(user)) = (request.fast.used, request.client, login.claimed.clone()) else {
            return Err(SaslError::MalformedRequest);
        };
        let message = TokenMessage::parse(data)?;
        let username = auth::localpart(message.authcid, user.domain())?;
        if user.local() != Some(&*username) {
            return Err(SaslError::InvalidAuthzid);
        }
        let (count, wanted, name) = (used.count?, request.fast.wanted, request.name.clone());
        let proof = message.proof();
        Ok(Attempt { user, client, mechanism, binding, proof, count, invalidate: used.invalidate, wanted, name })
    }

    /// The token that the client has proved to have, and its text.
    fn find<'t>(&self, core: &Core, tokens: &'t ClientTokens) -> Option<(&'t Token, Zeroizing<String>)> {
        let mut found = 0u8;
        let known = [tokens.fresh.as_ref(), tokens.current.as_ref()];
        let texts = known.map(|token| {
            token.map(|token| core.token_secret.token(&self.user, &self.client, token.mechanism, &token.salt))
        });
        // All are computed, whichever it is.
        for (at, (token, text)) in known.iter().zip(&texts).enumerate() {
            let (Some(token), Some(text)) = (token, text) else { continue };
            let is_right = auth::is_proof_of(text, &self.binding, &self.proof);
            let is_for_this = Choice::from(u8::from(token.mechanism == self.mechanism));
            found = u8::conditional_select(&found, &(at as u8 + 1), is_right & is_for_this);
        }
        let place = usize::from(found.checked_sub(1)?);
        let text = texts.into_iter().nth(place)??;
        Some((known.get(place).copied()??, text))
    }
}

/// `<authenticate/>` with a mechanism for tokens.
pub(super) fn authenticate(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    mechanism: TokenMechanism,
    data: Result<Option<Vec<u8>>, SaslError>,
    out: &mut Outputs,
) {
    // There is no challenge that would make up for a message that is missing.
    let data = data.and_then(|data| data.ok_or(SaslError::MalformedRequest));
    let attempt = match data.and_then(|data| Attempt::of(core, conn, mechanism, &data)) {
        Ok(_) if !core.store_has_room() => return core.refuse_login(now, conn, SaslError::TemporaryAuthFailure, out),
        Ok(attempt) => attempt,
        Err(error) => return core.refuse_login(now, conn, error, out),
    };
    let (user, client) = (attempt.user.clone(), core.token_secret.place(&attempt.user, &attempt.client));
    if let Some(login) = core.login_mut(conn) {
        login.guessed = Some(user.clone());
    }
    let then =
        Box::new(move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
            Ok(Stored::Tokens(tokens)) => match check(core, now, &attempt, &tokens) {
                Ok(verdict) => settle(core, now, conn, attempt, verdict, out),
                Err(error) => core.refuse_login(now, conn, error, out),
            },
            Ok(_) | Err(_) => core.refuse_login(now, conn, SaslError::TemporaryAuthFailure, out),
        });
    core.ask(StoreRequest::Tokens { user, client }, Waiting::Stream { conn, then }, out);
}

/// A right token: how it is answered, and what has to be stored before.
struct Verdict {
    response: Vec<u8>,
    change: Option<TokenChange>,
    issued: Option<Issued>,
}

fn check(core: &mut Core, now: Now, attempt: &Attempt, tokens: &ClientTokens) -> Result<Verdict, SaslError> {
    let (token, text) = attempt.find(core, tokens).ok_or(SaslError::NotAuthorized)?;
    if token.is_expired(now.utc) {
        return Err(SaslError::CredentialsExpired);
    }
    if attempt.count.is_some_and(|count| count <= token.count) {
        return Err(SaslError::NotAuthorized);
    }
    let is_old = now.utc.seconds_since(token.issued) >= ROTATION_SECONDS;
    let wanted = attempt.wanted.or((is_old && !attempt.invalidate).then_some(token.mechanism));
    let made = wanted.and_then(|mechanism| make(core, now, &attempt.user, &attempt.client, mechanism));
    let (issue, issued) = made.unzip();
    let is_fresh = tokens.fresh.as_ref() == Some(token);
    let is_change = is_fresh || attempt.count.is_some() || attempt.invalidate || issue.is_some();
    let used = Some((token.salt, attempt.count));
    let name = attempt.name.clone();
    let change = is_change.then_some(TokenChange { used, invalidate: attempt.invalidate, issue, name });
    Ok(Verdict { response: auth::token_response(&text, &attempt.binding), change, issued })
}

/// A new token and what is kept of it.
fn make(
    core: &mut Core,
    now: Now,
    user: &BareJid,
    client: &ClientId,
    mechanism: TokenMechanism,
) -> Option<(Token, Issued)> {
    if now.utc < PLAUSIBLE {
        return None;
    }
    let bytes = core.ids.bytes();
    let salt = *bytes.first_chunk()?;
    let expires = UtcTime(now.utc.0.saturating_add(core.limits.token_time.as_millis() as u64));
    let text = core.token_secret.token(user, client, mechanism, &salt);
    Some((Token { mechanism, salt, issued: now.utc, expires, count: 0 }, Issued { text, expires }))
}

/// Stores what the log-in changes, then lets the client in.
fn settle(core: &mut Core, now: Now, conn: ConnId, attempt: Attempt, verdict: Verdict, out: &mut Outputs) {
    let Verdict { response, change, issued } = verdict;
    let Some(change) = change else { return enter(core, now, conn, attempt.user, &response, issued, out) };
    let must_last = attempt.count.is_some() || attempt.invalidate;
    let (user, client) = (attempt.user.clone(), core.token_secret.place(&attempt.user, &attempt.client));
    let then =
        Box::new(move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
            Ok(_) => enter(core, now, conn, attempt.user, &response, issued, out),
            Err(StoreError::NotFound | StoreError::Conflict | StoreError::NoAccount) => {
                core.refuse_login(now, conn, SaslError::NotAuthorized, out);
            }
            Err(_) if must_last => core.refuse_login(now, conn, SaslError::TemporaryAuthFailure, out),
            // With a full disk people can still log in; the token stays as it is.
            Err(_) => enter(core, now, conn, attempt.user, &response, None, out),
        });
    let request = StoreRequest::TokenChange { user, client, at: now.utc, change: Box::new(change) };
    core.ask(request, Waiting::Stream { conn, then }, out);
}

fn enter(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    user: BareJid,
    response: &[u8],
    issued: Option<Issued>,
    out: &mut Outputs,
) {
    let Some(request) = core.login_mut(conn).and_then(|login| login.sasl2.take()) else { return };
    sasl2::enter(core, now, conn, user, *request, response, issued, out);
}

/// A log-in by other means has succeeded in full: the client gets a token, if it has asked for one, and is let in.
pub(super) fn issue(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    user: BareJid,
    request: sasl2::Request,
    data: Vec<u8>,
    out: &mut Outputs,
) {
    let Some(stream) = core.streams.get(conn) else { return };
    let wanted = request.fast.wanted.filter(|mechanism| binding(core, stream, *mechanism).is_some());
    let made = wanted.zip(request.client).filter(|_| core.store_has_room()).and_then(|(mechanism, client)| {
        let (token, issued) = make(core, now, &user, &client, mechanism)?;
        Some((core.token_secret.place(&user, &client), token, issued))
    });
    let Some((client, token, issued)) = made else {
        return sasl2::enter(core, now, conn, user, request, &data, None, out);
    };
    let change = TokenChange { issue: Some(token), name: request.name.clone(), ..TokenChange::default() };
    let store = StoreRequest::TokenChange { user: user.clone(), client, at: now.utc, change: Box::new(change) };
    let then = Box::new(move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        sasl2::enter(core, now, conn, user, request, &data, reply.is_ok().then_some(issued), out);
    });
    core.ask(store, Waiting::Stream { conn, then }, out);
}
