//! XEP-0050: ad-hoc commands of a host.
//!
//! A command is a row of a table: its form's questions, and what is done with the answers. Here is what all of them share: who
//! may, the list (by service discovery), sessions, actions. A session lives from the form that is sent to the one that comes
//! back; ids are random and bound to the full JID that got them, so nobody goes on with another's.

use std::time::Duration;

use hashbrown::HashMap;

use super::prelude::*;
use super::{administration, devices};
use crate::core::form::{self, Form, Input};
use crate::jid::FullJid;

pub(super) const HANDLER: Handler = Handler {
    name: "commands",
    spec: "XEP-0050 1.3",
    features: &[ns::COMMANDS, ns::DATA_FORMS],
    routes: &[iq_set(Target::Host, ns::COMMANDS, "command", execute)],
    ..Handler::EMPTY
};

/// Sessions at once, of all clients and of one; the oldest of the client makes room.
const SESSIONS_MAX: usize = 64;
const SESSIONS_OF_ONE_MAX: usize = 8;
/// How long a form may lie unanswered.
const SESSION_TIME: Duration = Duration::from_secs(600);
/// Pages of a list that one may go back.
const PAGES_MAX: usize = 1000;

/// A command.
pub(super) struct Command {
    pub(super) node: &'static str,
    pub(super) name: &'static str,
    pub(super) instructions: &'static str,
    /// Type of its form.
    pub(super) form: &'static str,
    /// What its form asks; a command that asks nothing is done at once.
    pub(super) questions: &'static [Question],
    /// Who may.
    pub(super) audience: Audience,
    /// What it does. An error leaves the session open for another try.
    pub(super) run: fn(&mut Cx<'_>, Call, &Form) -> Handled,
}

/// For whom a command is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Who may administer the host.
    Admins,
    /// Every user of the host, for himself.
    Users,
}

/// A field of a command's form.
pub(super) struct Question {
    pub(super) var: &'static str,
    pub(super) label: &'static str,
    pub(super) input: Input,
    pub(super) required: bool,
}

/// Commands that are being filled in.
#[derive(Default)]
pub(crate) struct Sessions(HashMap<Box<str>, Session>);

struct Session {
    user: FullJid,
    command: &'static Command,
    until: Duration,
    pages: Option<Pages>,
}

/// Where a long list is.
#[derive(Clone, Default)]
pub(super) struct Pages {
    /// Items on a page.
    pub(super) max: usize,
    /// The last items of the pages before the one that is shown.
    pub(super) behind: Vec<String>,
    /// The last item of the page that is shown, if others follow.
    pub(super) next: Option<String>,
}

/// One step of a command.
pub(super) struct Call {
    pub(super) iq: Box<ParkedIq>,
    /// The host's name.
    pub(super) host: String,
    /// Who asks.
    pub(super) user: FullJid,
    /// The page of a list that is to be shown.
    pub(super) pages: Option<Pages>,
    command: &'static Command,
    session: Box<str>,
}

const NO_VALUES: &[&str] = &[];

const fn with(error: StanzaError, condition: &'static str) -> StanzaError {
    StanzaError { application: Some((condition, ns::COMMANDS)), ..error }
}

const BAD_ACTION: StanzaError = with(StanzaError::BAD_REQUEST, "bad-action");
/// A field is missing or says nothing.
pub(super) const BAD_PAYLOAD: StanzaError = with(StanzaError::BAD_REQUEST, "bad-payload");

impl Call {
    /// It is done.
    pub(super) fn complete(&self, core: &mut Core, conn: ConnId, out: &mut Outputs, say: impl FnOnce(&mut Writer<'_>)) {
        core.shared.commands.0.remove(&self.session);
        self.reply(conn, "completed", out, say);
    }

    /// A page of a list, with more before it or behind it.
    pub(super) fn show_page(
        &self,
        core: &mut Core,
        conn: ConnId,
        pages: Pages,
        out: &mut Outputs,
        say: impl FnOnce(&mut Writer<'_>),
    ) {
        if pages.next.is_none() && pages.behind.is_empty() {
            return self.complete(core, conn, out, say);
        }
        let (prev, next) = (!pages.behind.is_empty(), pages.next.is_some());
        if let Some(session) = core.shared.commands.0.get_mut(&self.session) {
            session.pages = Some(pages);
        }
        self.reply(conn, "executing", out, |w| {
            w.open("actions", ns::COMMANDS).attr("execute", if next { "next" } else { "complete" });
            for (name, there) in [("prev", prev), ("next", next), ("complete", true)] {
                if there {
                    w.empty(name, ns::COMMANDS);
                }
            }
            w.close();
            say(w);
        });
    }

    /// A form that the command itself makes; what it is filled in with comes back to the command.
    pub(super) fn ask(&self, conn: ConnId, out: &mut Outputs, write: impl FnOnce(&mut Writer<'_>)) {
        self.reply(conn, "executing", out, |w| {
            w.open("actions", ns::COMMANDS).attr("execute", "complete").empty("complete", ns::COMMANDS).close();
            write(w);
        });
    }

    fn reply(&self, conn: ConnId, status: &str, out: &mut Outputs, say: impl FnOnce(&mut Writer<'_>)) {
        out.reply(conn, &*self.iq, |w| {
            w.open("command", ns::COMMANDS).attr("node", self.command.node).attr("sessionid", &self.session);
            w.attr("status", status);
            say(w);
        });
    }

    /// It cannot be done.
    pub(super) fn fail(&self, conn: ConnId, error: StanzaError, out: &mut Outputs) {
        out.reply_error(conn, &*self.iq, error);
    }
}

/// A sentence for who has asked.
pub(super) fn note(w: &mut Writer<'_>, kind: &str, text: &str) {
    w.open("note", ns::COMMANDS).attr("type", kind).text(text).close();
}

fn all() -> impl Iterator<Item = &'static Command> {
    administration::COMMANDS.iter().chain(devices::COMMANDS)
}

/// Who may administer a host, may all that is for admins.
fn is_admin(cx: &Cx<'_>, iq: &Iq<'_>) -> bool {
    let host = cx.core.hosts.iter().find(|host| host.name == iq.addressee.as_str());
    host.is_some_and(|host| host.admins.contains(&cx.account().jid))
}

fn may(cx: &Cx<'_>, iq: &Iq<'_>, command: &Command) -> bool {
    match command.audience {
        Audience::Admins => is_admin(cx, iq),
        Audience::Users => cx.account().jid.domain() == iq.addressee.as_str(),
    }
}

/// Whether a node of service discovery is the list of commands or one of them.
pub(super) fn is_node(node: &str) -> bool {
    node == ns::COMMANDS || all().any(|command| command.node == node)
}

/// disco#items of the list (section 2.2).
pub(super) fn list(cx: &mut Cx<'_>, iq: &Iq<'_>, node: &str) -> Handled {
    if !is_node(node) {
        return Err(StanzaError::ITEM_NOT_FOUND);
    }
    let shown: Vec<&Command> = all().filter(|command| node == ns::COMMANDS && may(cx, iq, command)).collect();
    cx.out.reply(cx.conn, iq, |w| {
        w.open("query", ns::DISCO_ITEMS).attr("node", node);
        for command in shown {
            w.open("item", ns::DISCO_ITEMS).attr("jid", iq.addressee).attr("node", command.node);
            w.attr("name", command.name).close();
        }
    });
    Ok(Done)
}

/// disco#info of the list or of a command (section 2.3).
pub(super) fn describe(cx: &mut Cx<'_>, iq: &Iq<'_>, node: &str) -> Handled {
    let command = all().find(|command| command.node == node);
    if command.is_some_and(|command| !may(cx, iq, command)) {
        return Err(StanzaError::ITEM_NOT_FOUND);
    }
    cx.out.reply(cx.conn, iq, |w| {
        w.open("query", ns::DISCO_INFO).attr("node", node);
        w.open("identity", ns::DISCO_INFO).attr("category", "automation");
        w.attr("type", if command.is_some() { "command-node" } else { "command-list" });
        w.attr_opt("name", command.map(|command| command.name)).close();
        for feature in [ns::COMMANDS, ns::DATA_FORMS] {
            w.open("feature", ns::DISCO_INFO).attr("var", feature).close();
        }
    });
    Ok(Done)
}

fn execute(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let node = iq.payload.attr("node").ok_or(StanzaError::BAD_REQUEST)?;
    let command = all().find(|command| command.node == node);
    // What there is besides is nobody else's business.
    if !command.map_or_else(|| is_admin(cx, iq), |command| may(cx, iq, command)) {
        return Err(StanzaError::FORBIDDEN);
    }
    if administration::REFUSED.contains(&node) {
        return Err(StanzaError::NOT_ALLOWED.text("Passwords are not stored here, so nobody can be told one."));
    }
    let command = command.ok_or(StanzaError::ITEM_NOT_FOUND)?;
    let action = iq.payload.attr("action").unwrap_or("execute");
    if !matches!(action, "execute" | "next" | "prev" | "complete" | "cancel") {
        return Err(with(StanzaError::BAD_REQUEST, "malformed-action"));
    }
    let user = cx.resource_mut().jid.clone();
    let form = Form::inside(&iq.payload)?;
    let Some(id) = iq.payload.attr("sessionid") else {
        return begin(cx, iq, command, user, action, form);
    };
    let now = cx.now.mono;
    cx.core.shared.commands.0.retain(|_, session| session.until > now);
    let session = cx
        .core
        .shared
        .commands
        .0
        .get(id)
        .filter(|session| session.user == user && std::ptr::eq(session.command.node, command.node));
    let Some(pages) = session.map(|session| session.pages.clone()) else {
        return Err(if is_id(id) {
            with(StanzaError::NOT_ALLOWED, "session-expired")
        } else {
            with(StanzaError::BAD_REQUEST, "bad-sessionid")
        });
    };
    let host = iq.addressee.as_str().to_owned();
    let mut call = Call { iq: iq.park(), host, user, pages: None, command, session: id.into() };
    if action == "cancel" || form.as_ref().is_some_and(|form| form.cancelled) {
        cx.core.shared.commands.0.remove(id);
        call.reply(cx.conn, "canceled", cx.out, |_| {});
        return Ok(Done);
    }
    match (action, pages) {
        ("complete", Some(_)) => {
            call.complete(cx.core, cx.conn, cx.out, |_| {});
            Ok(Done)
        }
        (_, Some(pages)) => {
            call.pages = Some(turn(pages, action)?);
            (command.run)(cx, call, &Form::default())
        }
        ("next" | "prev", None) => Err(BAD_ACTION),
        (_, None) => run(cx, call, form),
    }
}

/// Whether it looks like an id of ours.
fn is_id(id: &str) -> bool {
    id.len() == 20 && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The page before or behind.
fn turn(mut pages: Pages, action: &str) -> Result<Pages, StanzaError> {
    match action {
        "prev" => {
            pages.behind.pop().ok_or(BAD_ACTION)?;
        }
        _ => {
            let last = pages.next.take().ok_or(BAD_ACTION)?;
            if pages.behind.len() >= PAGES_MAX {
                return Err(StanzaError::RESOURCE_CONSTRAINT);
            }
            pages.behind.push(last);
        }
    }
    Ok(pages)
}

/// The first step: the form is sent, or what came filled in at once is done.
fn begin(
    cx: &mut Cx<'_>,
    iq: &Iq<'_>,
    command: &'static Command,
    user: FullJid,
    action: &str,
    form: Option<Form>,
) -> Handled {
    if !matches!(action, "execute" | "complete" | "next") {
        return Err(BAD_ACTION);
    }
    let id: Box<str> = cx.core.ids.next_id().into();
    let until = cx.now.mono + SESSION_TIME;
    cx.core.shared.commands.add(
        id.clone(),
        Session { user: user.clone(), command, until, pages: None },
        cx.now.mono,
    )?;
    let host = iq.addressee.as_str().to_owned();
    let call = Call { iq: iq.park(), host, user, pages: None, command, session: id };
    if command.questions.is_empty() || form.is_some() {
        let id = call.session.clone();
        let handled = run(cx, call, form);
        if handled.is_err() {
            cx.core.shared.commands.0.remove(&id);
        }
        return handled;
    }
    call.ask(cx.conn, cx.out, |w| {
        form::open_titled(w, command.form, command.name, command.instructions);
        for question in command.questions {
            match question.required {
                true => form::required(w, question.var, question.label, question.input),
                false => form::field(w, question.var, question.label, question.input, NO_VALUES),
            }
        }
    });
    Ok(Done)
}

fn run(cx: &mut Cx<'_>, call: Call, form: Option<Form>) -> Handled {
    let form = match form {
        Some(form) => form,
        None if call.command.questions.is_empty() => Form::default(),
        None => return Err(BAD_PAYLOAD),
    };
    let missing = |question: &&Question| {
        question.required && form.values(question.var).is_none_or(|values| values.iter().all(|value| value.is_empty()))
    };
    if call.command.questions.iter().any(|question| missing(&question)) {
        return Err(BAD_PAYLOAD);
    }
    (call.command.run)(cx, call, &form)
}

impl Sessions {
    fn add(&mut self, id: Box<str>, session: Session, now: Duration) -> Result<(), StanzaError> {
        self.0.retain(|_, session| session.until > now);
        let own = self.0.iter().filter(|(_, other)| other.user == session.user);
        if own.clone().count() >= SESSIONS_OF_ONE_MAX
            && let Some(oldest) = own.min_by_key(|(_, other)| other.until).map(|(id, _)| id.clone())
        {
            self.0.remove(&oldest);
        }
        if self.0.len() >= SESSIONS_MAX {
            return Err(StanzaError::RESOURCE_CONSTRAINT.text("Too many commands are being filled in."));
        }
        self.0.insert(id, session);
        Ok(())
    }
}
