//! What an operator or the embedding program asks for.

use crate::auth::Prepared;
use crate::core::effects::{Answer, Command, CommandId, StoreReply, StoreRequest, Stored};
use crate::core::error::StreamError;
use crate::core::parked::{CommandContext, Waiting};
use crate::core::stream::Phase;
use crate::core::{ConnId, Core, Now, Outputs};
use crate::handlers;
use crate::handlers::muc::operator::{self, Order};
use crate::jid::{BareJid, JidRef};
use crate::xml::{Writer, ns};

impl Core {
    pub(super) fn on_command(&mut self, now: Now, id: CommandId, command: Command, out: &mut Outputs) {
        match self.start_command(now, id, command, out) {
            Ok(Some(answer)) => out.answers.push((id, answer)),
            Ok(None) => {}
            Err(reason) => out.answers.push((id, Answer::Invalid(reason))),
        }
    }

    fn start_command(
        &mut self,
        now: Now,
        id: CommandId,
        command: Command,
        out: &mut Outputs,
    ) -> Result<Option<Answer>, String> {
        let (request, context) = match command {
            Command::Status => return Ok(Some(Answer::Status(self.status(now, out)))),
            Command::SendMessage { from, to, body } => {
                self.send_message(now, &from, &to, &body, out)?;
                return Ok(Some(Answer::Done));
            }
            Command::RoomList { domain, after, max } => {
                operator::list(self, id, &domain, after, max, out);
                return Ok(None);
            }
            Command::RoomShow { room } => return Ok(self.on_room(now, id, room, Order::Show, out)),
            Command::RoomDestroy { room } => return Ok(self.on_room(now, id, room, Order::Destroy, out)),
            Command::RoomAffiliate { room, user, to } => {
                return Ok(self.on_room(now, id, room, Order::Affiliate(user, to), out));
            }
            Command::UserAdd { user, password } => {
                self.check_local(&user)?;
                Prepared::chosen(&password).map_err(|error| error.to_string())?;
                (
                    StoreRequest::AccountCreate { user: user.clone(), password: password.into(), at: now.utc },
                    CommandContext::Added(user),
                )
            }
            Command::UserPassword { user, password } => {
                self.check_local(&user)?;
                Prepared::chosen(&password).map_err(|error| error.to_string())?;
                (
                    StoreRequest::PasswordSet { user: user.clone(), password: password.into() },
                    CommandContext::PasswordSet(user),
                )
            }
            Command::UserRemove { user } => {
                self.check_local(&user)?;
                (StoreRequest::AccountRemove { user: user.clone() }, CommandContext::Removed(user))
            }
            Command::UserList { domain, after, max } => {
                (StoreRequest::Accounts { domain, after, max }, CommandContext::Answer)
            }
        };
        self.ask(request, Waiting::Command(id, context), out);
        Ok(None)
    }

    fn on_room(&mut self, now: Now, id: CommandId, room: BareJid, order: Order, out: &mut Outputs) -> Option<Answer> {
        operator::carry_out(self, now, id, room, order, out);
        None
    }

    fn check_local(&self, user: &BareJid) -> Result<(), String> {
        match user.local() {
            None => Err(format!("{user} is not an account; write user@domain")),
            Some(_) if !self.serves(user.domain()) => Err(format!("the domain {} is not served here", user.domain())),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn on_command_stored(
        &mut self,
        now: Now,
        id: CommandId,
        context: CommandContext,
        reply: StoreReply,
        out: &mut Outputs,
    ) {
        let answer = match (reply, context) {
            (Err(error), _) => Answer::Refused(error),
            (Ok(Stored::Accounts(users)), _) => Answer::Users(users),
            (Ok(_), CommandContext::PasswordSet(user)) => {
                self.on_password_changed(now, &user, None, out);
                Answer::Done
            }
            (Ok(_), CommandContext::Added(user)) => {
                handlers::shared_contacts::on_added(self, &user, out);
                Answer::Done
            }
            (Ok(Stored::Removed { contacts }), CommandContext::Removed(user)) => {
                handlers::register::on_removed(self, now, &user, &contacts, out);
                Answer::Done
            }
            (Ok(_), _) => Answer::Done,
        };
        out.answers.push((id, answer));
    }

    /// Nobody stays who has logged in with the old password, but for `spared`, nor comes back with a token that it has brought.
    pub(crate) fn on_password_changed(&mut self, now: Now, user: &BareJid, spared: Option<ConnId>, out: &mut Outputs) {
        // The store has forgotten the tokens with the password; one may have been on its way into it meanwhile.
        self.ask(StoreRequest::TokensForget { user: user.clone() }, Waiting::Nobody, out);
        self.end_sessions(now, user, spared, handlers::register::PASSWORD_CHANGED, out);
    }

    /// Ends an account's sessions, all but `spared`, and its streams that log in or have logged in and not bound yet.
    pub(crate) fn end_sessions(
        &mut self,
        now: Now,
        user: &BareJid,
        spared: Option<ConnId>,
        error: StreamError,
        out: &mut Outputs,
    ) {
        let conns: Vec<_> =
            self.accounts.find(user.as_str()).into_iter().flat_map(|account| &account.resources).collect();
        let conns: Vec<_> =
            conns.into_iter().map(|resource| resource.conn).filter(|conn| Some(*conn) != spared).collect();
        for conn in conns {
            self.close_stream(now, conn, Some(error), out);
        }
        self.end_unbound(now, user, error, out);
    }

    /// Ends an account's streams that log in or have logged in and not bound yet.
    pub(crate) fn end_unbound(&mut self, now: Now, user: &BareJid, error: StreamError, out: &mut Outputs) {
        let unbound = |conn: &ConnId| match self.streams.get(*conn).map(|stream| &stream.phase) {
            Some(Phase::Authed(authed)) => authed.user == *user,
            Some(Phase::Login(login)) => login.guessed.as_ref() == Some(user),
            _ => false,
        };
        let unbound: Vec<_> = self.streams.conns().into_iter().filter(unbound).collect();
        for conn in unbound {
            self.close_stream(now, conn, Some(error), out);
        }
    }

    fn send_message(&mut self, now: Now, from: &str, to: &str, body: &str, out: &mut Outputs) -> Result<(), String> {
        let sender = JidRef::parse(from).map_err(|error| format!("'{from}' is no address: {error}"))?;
        if !self.serves(sender.domain()) {
            return Err(format!("the domain {} is not served here", sender.domain()));
        }
        let to = JidRef::parse(to).map_err(|error| format!("'{to}' is no address: {error}"))?;
        if to.local().is_none() || !self.serves(to.domain()) {
            return Err(format!("{to} is not an account here"));
        }
        let id = self.ids.next_id();
        let mut stanza = Vec::with_capacity(128 + body.len());
        let mut w = Writer::new(&mut stanza);
        w.open("message", ns::CLIENT).attr("from", &sender).attr("to", &to).attr("type", "chat").attr("id", &id);
        w.text_element("body", body);
        drop(w);
        handlers::message::deliver_own(self, now, sender.to_owned_jid(), &to, &stanza, out);
        Ok(())
    }

    fn status(&self, now: Now, out: &Outputs) -> Vec<(&'static str, u64)> {
        let counters = &self.counters;
        vec![
            ("uptime_seconds", now.mono.as_secs()),
            ("connections", self.streams.len() as u64),
            ("sessions", self.accounts.session_count() as u64),
            ("connections_total", counters.connections),
            ("logins_total", counters.logins),
            ("login_failures_total", counters.login_failures),
            ("tls_failures_total", counters.tls_failures),
            ("stream_errors_total", counters.stream_errors),
            ("stanzas_total", counters.stanzas),
            ("delivered_total", counters.delivered),
            ("stored_offline_total", counters.stored_offline),
            ("sessions_dropped_full_total", counters.overflowed),
            ("sessions_dropped_memory_total", counters.shed),
            ("store_requests_waiting", self.parked.len() as u64),
            ("store_failures_total", self.parked.failures()),
            ("store_failing", u64::from(self.parked.is_failing(now.mono))),
            ("output_bytes_waiting", out.wire.held() as u64),
            ("memory_held_bytes", self.memory_held(out) as u64),
            ("memory_max_bytes", self.limits.memory_max as u64),
        ]
    }
}
