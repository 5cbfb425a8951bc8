//! XEP-0077: In-Band Registration: before log-in where the domain allows it, password change and removal after.
//!
//! The plain fields are used; where a client submits a data form, it counts (section 4). Names are checked more strictly than
//! addresses: a name that mixes scripts looks like somebody else's.

use hashbrown::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use super::prelude::*;
use super::{shared_contacts, subscription};
use crate::auth::Prepared;
use crate::core::effects::{Half, ListenerKind, StoreError};
use crate::core::error::StreamError;
use crate::core::form::{self, Form, Input};
use crate::core::parked::Waiting;
use crate::core::penalties::subscriber;
use crate::core::stream::Stream;
use crate::handlers::StreamPhase;
use crate::jid::BareJid;
use crate::xml::{Frame, Tree};

pub(super) const HANDLER: Handler = Handler {
    name: "register",
    spec: "XEP-0077 2.4",
    routes: &[
        iq_get(Target::Host, ns::REGISTER, "query", get),
        iq_set(Target::Host, ns::REGISTER, "query", set),
        iq_get(Target::Account, ns::REGISTER, "query", get),
        iq_set(Target::Account, ns::REGISTER, "query", set),
    ],
    stream_features: Some(advertise),
    ..Handler::EMPTY
};

/// What a session gets whose password was changed elsewhere: it must log in again.
pub(crate) const PASSWORD_CHANGED: StreamError = StreamError::new("reset", "The password was changed.");
const REMOVED: StreamError = StreamError::new("not-authorized", "The account was removed.");
const FORM_TYPE: &str = ns::REGISTER;
const INSTRUCTIONS: &str = "Choose a user name and a password.";

/// Registrations by address in the last hour; an IPv6 /64 is one.
#[derive(Default)]
pub(crate) struct Recent(HashMap<IpAddr, (u32, Duration)>);

fn advertise(core: &Core, stream: &Stream, phase: StreamPhase, w: &mut Writer<'_>) {
    if matches!(phase, StreamPhase::Login { secure, listener } if open_on(core, stream, secure, listener)) {
        w.empty("register", ns::REGISTER_FEATURE);
    }
}

/// A password is not taken in clear, but where the operator said so.
fn open_on(core: &Core, stream: &Stream, secure: bool, listener: ListenerKind) -> bool {
    let open = stream.host.is_some_and(|host| core.hosts[host].registration_open);
    open && (secure || listener == ListenerKind::Plain)
}

/// A request before log-in. Returns whether it was one of ours.
pub(crate) fn before_login(core: &mut Core, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) -> bool {
    let tree = Tree::of(frame);
    let query = tree.root().only_child().filter(|query| query.is("query", ns::REGISTER));
    let Some(query) = query else { return false };
    let Some(stream) = core.streams.get(conn) else { return false };
    let parked =
        Box::new(ParkedIq { id: frame.id.unwrap_or_default().into(), to: frame.to.map(Into::into), note: None });
    let done = match frame.type_ {
        _ if parked.id.is_empty() => Err(StanzaError::BAD_REQUEST),
        _ if !open_on(core, stream, stream.secure, stream.listener) => {
            Err(StanzaError::SERVICE_UNAVAILABLE.text("Accounts cannot be registered here; ask who runs the server."))
        }
        Some("get") => {
            out.reply(conn, &*parked, write_form);
            return true;
        }
        Some("set") => create(core, now, conn, &query, &parked, out),
        _ => Err(StanzaError::BAD_REQUEST),
    };
    if let Err(error) = done {
        out.reply_error(conn, &*parked, error);
    }
    true
}

fn write_form(w: &mut Writer<'_>) {
    w.open("query", ns::REGISTER);
    w.text_element("instructions", INSTRUCTIONS);
    w.empty("username", ns::REGISTER).empty("password", ns::REGISTER);
    form::open_titled(w, FORM_TYPE, "Registration", INSTRUCTIONS);
    form::required(w, "username", "User name", Input::Text);
    form::required(w, "password", "Password", Input::Secret);
}

/// A field of the request: from the data form if there is one, else from the plain child.
fn field(query: &Element<'_>, name: &str) -> Option<String> {
    match Form::inside(query) {
        Ok(Some(form)) => form.value(name).map(str::to_owned),
        Ok(None) => Some(query.child(name, ns::REGISTER)?.text().into_owned()),
        Err(_) => None,
    }
}

fn create(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    query: &Element<'_>,
    parked: &ParkedIq,
    out: &mut Outputs,
) -> Result<(), StanzaError> {
    let incomplete = StanzaError::NOT_ACCEPTABLE.text("A user name and a password are needed.");
    let username = field(query, "username").filter(|name| !name.is_empty()).ok_or(incomplete)?;
    let password = Zeroizing::new(field(query, "password").ok_or(incomplete)?);
    let user = BareJid::from_parts(&username, core.host_name(conn)).map_err(|_| {
        StanzaError::NOT_ACCEPTABLE.text("This user name holds characters that an address cannot have.")
    })?;
    if mixes_scripts(user.local().unwrap_or_default()) {
        return Err(StanzaError::NOT_ACCEPTABLE.text("This user name mixes alphabets."));
    }
    Prepared::chosen(&password)
        .map_err(|_| StanzaError::NOT_ACCEPTABLE.text("This password is too short, too long or not allowed."))?;
    let peer = core.streams.get(conn).map(|stream| stream.peer);
    if let Some(peer) = peer
        && core.limits.rates
        && !core.shared.register.allows(peer, now.mono, core.limits.registrations_per_hour)
    {
        return Err(StanzaError::RESOURCE_CONSTRAINT.text("Too many accounts were registered from this address."));
    }
    if !core.hash_has_room(conn) {
        return Err(StanzaError::RESOURCE_CONSTRAINT.text("The server is busy."));
    }
    let parked = ParkedIq { id: parked.id.clone(), to: parked.to.clone(), note: None };
    let then =
        Box::new(move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
            Ok(_) => {
                log::info!("account {user} was registered");
                out.reply_empty(conn, &parked);
                shared_contacts::on_added(core, &user, out);
            }
            Err(error) => {
                // A name that is taken counts: the answers would tell which accounts there are as fast as somebody asks.
                if let Some(peer) = core.streams.get(conn).map(|stream| stream.peer)
                    && error != StoreError::Conflict
                {
                    core.shared.register.undo(peer);
                }
                out.reply_error(conn, &parked, error.into());
            }
        });
    let user = BareJid::from_parts(&username, core.host_name(conn)).map_err(|_| StanzaError::NOT_ACCEPTABLE)?;
    let request = StoreRequest::AccountCreate { user, password: password.into(), at: now.utc };
    core.ask(request, Waiting::Stream { conn, then }, out);
    Ok(())
}

/// Letters of more than one of the alphabets whose letters look alike (JI-10).
fn mixes_scripts(name: &str) -> bool {
    let script = |c: char| match c {
        'a'..='z' | '\u{DF}'..='\u{24F}' => 1,
        '\u{370}'..='\u{3FF}' | '\u{1F00}'..='\u{1FFF}' => 2,
        '\u{400}'..='\u{52F}' => 3,
        '\u{530}'..='\u{58F}' => 4,
        '\u{13A0}'..='\u{13FF}' | '\u{AB70}'..='\u{ABBF}' => 5,
        _ => 0,
    };
    let mut seen = name.chars().map(script).filter(|script| *script > 0);
    seen.next().is_some_and(|first| seen.any(|other| other != first))
}

impl Recent {
    fn allows(&mut self, peer: IpAddr, now: Duration, max: u32) -> bool {
        const HOUR: Duration = Duration::from_secs(3600);
        const ADDRESSES_MAX: usize = 4096;
        if self.0.len() >= ADDRESSES_MAX {
            self.0.retain(|_, (_, since)| now.saturating_sub(*since) < HOUR);
        }
        if self.0.len() >= ADDRESSES_MAX {
            return false;
        }
        let (count, since) = self.0.entry(subscriber(peer)).or_insert((0, now));
        if now.saturating_sub(*since) >= HOUR {
            (*count, *since) = (0, now);
        }
        *count = count.saturating_add(1);
        *count <= max
    }

    fn undo(&mut self, peer: IpAddr) {
        if let Some((count, _)) = self.0.get_mut(&subscriber(peer)) {
            *count = count.saturating_sub(1);
        }
    }
}

fn get(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let user = cx.account().jid.clone();
    cx.out.reply(cx.conn, iq, |w| {
        w.open("query", ns::REGISTER).empty("registered", ns::REGISTER);
        w.text_element("username", user.local().unwrap_or_default()).empty("password", ns::REGISTER);
    });
    Ok(Done)
}

fn set(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let user = cx.account().jid.clone();
    if *iq.addressee != user && iq.addressee.as_str() != user.domain() {
        return Err(StanzaError::FORBIDDEN);
    }
    if iq.payload.child("remove", ns::REGISTER).is_some() {
        if iq.payload.only_child().is_none() {
            return Err(StanzaError::BAD_REQUEST);
        }
        let mut parked = iq.park();
        parked.note = Some(user.as_str().into());
        return cx.ask(StoreRequest::AccountRemove { user }, parked, on_remove_stored);
    }
    let username = field(&iq.payload, "username").unwrap_or_default();
    if !BareJid::from_parts(&username, user.domain()).is_ok_and(|named| named == user) {
        return Err(StanzaError::BAD_REQUEST.text("The user name is not the one that is logged in."));
    }
    let password = Zeroizing::new(field(&iq.payload, "password").unwrap_or_default());
    if password.is_empty() {
        // Nothing to change (section 3.3).
        cx.out.reply_empty(cx.conn, iq);
        return Ok(Done);
    }
    Prepared::chosen(&password)
        .map_err(|_| StanzaError::NOT_ACCEPTABLE.text("This password is too short, too long or not allowed."))?;
    if !cx.core.hash_has_room(cx.conn) {
        return Err(StanzaError::RESOURCE_CONSTRAINT.text("The server is busy."));
    }
    let mut parked = iq.park();
    parked.note = Some(user.as_str().into());
    cx.ask(StoreRequest::PasswordSet { user, password: password.into() }, parked, on_password_stored)
}

fn on_password_stored(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { core, now, conn, iq, out } = resumed;
    reply?;
    out.reply_empty(conn, iq);
    if let Some(user) = iq.note.as_deref().map(BareJid::from_prepared) {
        log::info!("password of {user} was changed");
        core.on_password_changed(now, &user, Some(conn), out);
    }
    Ok(())
}

fn on_remove_stored(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { core, now, conn, iq, out } = resumed;
    let Stored::Removed { contacts } = reply? else { return Err(StanzaError::INTERNAL_SERVER_ERROR) };
    out.reply_empty(conn, iq);
    if let Some(user) = iq.note.as_deref().map(BareJid::from_prepared) {
        on_removed(core, now, &user, &contacts, out);
    }
    Ok(())
}

/// The account is gone from the store: its sessions end, its contacts see that.
pub(crate) fn on_removed(core: &mut Core, now: Now, user: &BareJid, contacts: &[Half], out: &mut Outputs) {
    log::info!("account {user} was removed");
    core.end_sessions(now, user, None, REMOVED, out);
    for half in contacts {
        subscription::settle_contact(core, half, out);
    }
    shared_contacts::on_removed(core, user, out);
}

#[cfg(test)]
mod tests {
    use super::mixes_scripts;

    #[test]
    fn names_in_one_alphabet() {
        for name in ["juliet", "juliet42", "zoë", "джульетта", "ιουλιέτα", "j.o-h_n", "李42", "李wei"]
        {
            assert!(!mixes_scripts(name), "{name}");
        }
        for name in ["julіet", "аdmin", "οlga"] {
            assert!(mixes_scripts(name), "{name}");
        }
    }
}
