//! XEP-0133: Service Administration, as ad-hoc commands for those whom the configuration names.
//!
//! What a command line on the machine can do, and what concerns who is here. Everything is about accounts of the host that is
//! addressed. Nobody can shut himself out. Passwords are not stored, so nobody can be told one; restarting is for who has
//! started the server.

use std::time::Duration;

use zeroize::Zeroizing;

use super::commands::{Audience, BAD_PAYLOAD, Call, Command, Pages, Question, note};
use super::prelude::*;
use super::{Outcome, register, shared_contacts};
use crate::auth::Prepared;
use crate::core::error::StreamError;
use crate::core::form::{self, Form, Input};
use crate::core::parked::Waiting;
use crate::jid::{BareJid, JidRef};

pub(super) const HANDLER: Handler =
    Handler { name: "administration", spec: "XEP-0133 1.2", features: &[], ..Handler::EMPTY };

/// Accounts that one command may name.
const NAMED_MAX: usize = 100;
/// Items on a page of a list.
const PAGE_MAX: usize = 200;
/// Reports on a page.
const REPORTS_ON_PAGE: usize = 25;
/// Bytes of an announcement.
const ANNOUNCEMENT_BYTES_MAX: usize = 4096;
/// The longest delay before a shutdown.
const DELAY_MAX: u64 = 3600;

const DISABLED: StreamError = StreamError::new("not-authorized", "The account was disabled.");
const ENDED: StreamError = StreamError::new("policy-violation", "An administrator has ended this session.");

/// Commands of the document that nobody may use.
pub(super) const REFUSED: &[&str] = &["http://jabber.org/protocol/admin#get-user-password"];

macro_rules! command {
    ($node:literal, $name:literal, $instructions:literal, $questions:expr, $run:expr) => {
        Command {
            node: concat!("http://jabber.org/protocol/admin#", $node),
            name: $name,
            instructions: $instructions,
            form: ns::ADMIN,
            questions: $questions,
            audience: Audience::Admins,
            run: $run,
        }
    };
}

const fn ask(var: &'static str, label: &'static str, input: Input) -> Question {
    Question { var, label, input, required: true }
}

const ACCOUNT: Question = ask("accountjid", "Address of the account", Input::Jid);
const ACCOUNTS: &[Question] = &[ask("accountjids", "Addresses of the accounts", Input::Jids)];
const PASSWORD: Question = ask("password", "Password", Input::Secret);
const TEXT: Question = ask("announcement", "Announcement", Input::Texts);
const PAGE: &[Question] = &[Question {
    var: "max_items",
    label: "Accounts on one page",
    input: Input::One(&[
        ("25", "25"),
        ("50", "50"),
        ("75", "75"),
        ("100", "100"),
        ("150", "150"),
        ("200", "200"),
        ("none", "All"),
    ]),
    required: false,
}];
const DELAY: Question = Question {
    var: "delay",
    label: "Time before that",
    input: Input::One(&[
        ("30", "30 seconds"),
        ("60", "1 minute"),
        ("120", "2 minutes"),
        ("300", "5 minutes"),
        ("900", "15 minutes"),
    ]),
    required: false,
};

/// Every command, in the order of the document.
pub(super) const COMMANDS: &[Command] = &[
    command!(
        "add-user",
        "Add a user",
        "The user can log in at once.",
        &[ACCOUNT, PASSWORD, ask("password-verify", "The password again", Input::Secret)],
        add
    ),
    command!(
        "delete-user",
        "Delete users",
        "All that they have here is deleted too, for good.",
        ACCOUNTS,
        |cx, call, form| { for_each(cx, call, form, Act::Delete) }
    ),
    command!(
        "disable-user",
        "Disable users",
        "They cannot log in any more; what they have is kept.",
        ACCOUNTS,
        |cx, call, form| for_each(cx, call, form, Act::Disable)
    ),
    command!("reenable-user", "Enable users again", "They can log in again.", ACCOUNTS, |cx, call, form| {
        for_each(cx, call, form, Act::Enable)
    }),
    command!(
        "end-user-session",
        "End sessions of users",
        "An address with a resource names one session, one without all of the user.",
        ACCOUNTS,
        end_sessions
    ),
    command!(
        "change-user-password",
        "Change a user's password",
        "The user's sessions end.",
        &[ACCOUNT, PASSWORD],
        change_password
    ),
    command!("user-stats", "Look at a user", "", &[ACCOUNT], stats),
    command!("get-registered-users-num", "Number of users", "", &[], |cx, call, _| count(cx, call, Group::Registered)),
    command!("get-disabled-users-num", "Number of disabled users", "", &[], |cx, call, _| count(
        cx,
        call,
        Group::Disabled
    )),
    command!("get-online-users-num", "Number of users who are online", "", &[], |cx, call, _| count(
        cx,
        call,
        Group::Online
    )),
    command!("get-registered-users-list", "List of users", "", PAGE, |cx, call, form| list(
        cx,
        call,
        form,
        Group::Registered
    )),
    command!("get-disabled-users-list", "List of disabled users", "", PAGE, |cx, call, form| {
        list(cx, call, form, Group::Disabled)
    }),
    command!("get-online-users-list", "List of users who are online", "", PAGE, |cx, call, form| {
        list(cx, call, form, Group::Online)
    }),
    Command {
        node: "urn:whinchat:reports",
        name: "Reports of spam and abuse",
        instructions: "",
        form: ns::ADMIN,
        questions: &[],
        audience: Audience::Admins,
        run: show_reports,
    },
    command!("announce", "Say something to all who are online", "", &[TEXT], announce),
    command!(
        "shutdown",
        "Shut the server down",
        "Somebody has to start it again.",
        &[DELAY, Question { required: false, ..TEXT }],
        shut_down
    ),
];

/// An account of the host, as written into a form.
fn account(call: &Call, text: &str) -> Result<BareJid, StanzaError> {
    let jid = JidRef::parse(text.trim()).map_err(|_| StanzaError::JID_MALFORMED)?;
    if jid.local().is_none() || jid.domain() != call.host {
        return Err(StanzaError::NOT_ALLOWED.text("This is not an account of this domain."));
    }
    Ok(jid.to_bare())
}

/// Nobody saws at the branch he sits on.
fn check_not_own(call: &Call, user: &BareJid) -> Result<(), StanzaError> {
    match call.user.bare() == user.as_str() {
        true => Err(StanzaError::NOT_ALLOWED.text("This is the account that you are using.")),
        false => Ok(()),
    }
}

fn secret(form: &Form, var: &str) -> Zeroizing<String> {
    Zeroizing::new(form.value(var).unwrap_or_default().to_owned())
}

fn check_password(cx: &Cx<'_>, password: &str) -> Result<(), StanzaError> {
    Prepared::chosen(password)
        .map_err(|_| StanzaError::NOT_ACCEPTABLE.text("This password is too short, too long or not allowed."))?;
    match cx.core.hash_has_room(cx.conn) {
        true => Ok(()),
        false => Err(StanzaError::RESOURCE_CONSTRAINT.text("The server is busy.")),
    }
}

fn add(cx: &mut Cx<'_>, call: Call, form: &Form) -> Handled {
    let user = account(&call, form.value("accountjid").unwrap_or_default())?;
    let password = secret(form, "password");
    if password != secret(form, "password-verify") {
        return Err(StanzaError::NOT_ACCEPTABLE.text("The two passwords differ."));
    }
    check_password(cx, &password)?;
    let request = StoreRequest::AccountCreate { user: user.clone(), password: password.into(), at: cx.now.utc };
    let then = move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Ok(_) => {
            log::info!("account {user} was made by {}", call.user.bare());
            call.complete(core, conn, out, |_| {});
            shared_contacts::on_added(core, &user, out);
        }
        Err(error) => call.fail(conn, error.into(), out),
    };
    cx.ask_for_all(request, Box::new(then))
}

fn change_password(cx: &mut Cx<'_>, call: Call, form: &Form) -> Handled {
    let user = account(&call, form.value("accountjid").unwrap_or_default())?;
    let password = secret(form, "password");
    check_password(cx, &password)?;
    let request = StoreRequest::PasswordSet { user: user.clone(), password: password.into() };
    let then = move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Ok(_) => {
            log::info!("password of {user} was changed by {}", call.user.bare());
            call.complete(core, conn, out, |_| {});
            core.on_password_changed(now, &user, None, out);
        }
        Err(error) => call.fail(conn, missing_account(error), out),
    };
    cx.ask_for_all(request, Box::new(then))
}

fn missing_account(error: crate::core::StoreError) -> StanzaError {
    match error {
        crate::core::StoreError::NoAccount => StanzaError::ITEM_NOT_FOUND.text("There is no such account."),
        error => error.into(),
    }
}

/// What is done to each of several accounts.
#[derive(Clone, Copy)]
enum Act {
    Delete,
    Disable,
    Enable,
}

impl Act {
    fn request(self, user: BareJid) -> StoreRequest {
        match self {
            Act::Delete => StoreRequest::AccountRemove { user },
            Act::Disable => StoreRequest::AccountDisable { user, disabled: true },
            Act::Enable => StoreRequest::AccountDisable { user, disabled: false },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Act::Delete => "removed",
            Act::Disable => "disabled",
            Act::Enable => "enabled",
        }
    }
}

/// Accounts that are dealt with one after another.
struct Batch {
    call: Call,
    act: Act,
    /// Those to come, last one first.
    left: Vec<BareJid>,
    done: usize,
    failed: Vec<BareJid>,
    error: Option<StanzaError>,
}

fn for_each(cx: &mut Cx<'_>, call: Call, form: &Form, act: Act) -> Handled {
    let named = form.values("accountjids").unwrap_or_default();
    if named.len() > NAMED_MAX {
        return Err(StanzaError::NOT_ACCEPTABLE.text("These are too many accounts at once."));
    }
    let mut left: Vec<BareJid> = named.iter().map(|text| account(&call, text)).collect::<Result<_, _>>()?;
    left.iter().try_for_each(|user| check_not_own(&call, user))?;
    left.reverse();
    let batch = Batch { call, act, left, done: 0, failed: Vec::new(), error: None };
    next(cx.core, cx.conn, batch, cx.out);
    Ok(Outcome::Parked)
}

/// The session that asks may end on the way; what it has asked for is done all the same.
fn next(core: &mut Core, conn: ConnId, mut batch: Batch, out: &mut Outputs) {
    let Some(user) = batch.left.pop() else { return finish(core, conn, &batch, out) };
    let request = batch.act.request(user.clone());
    let then = move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        match reply {
            Ok(stored) => {
                batch.done += 1;
                log::info!("account {user} was {} by {}", batch.act.name(), batch.call.user.bare());
                match (batch.act, stored) {
                    (Act::Delete, Stored::Removed { contacts }) => {
                        register::on_removed(core, now, &user, &contacts, out);
                    }
                    (Act::Disable, _) => core.end_sessions(now, &user, None, DISABLED, out),
                    _ => {}
                }
            }
            Err(error) => {
                batch.failed.push(user);
                batch.error = Some(missing_account(error));
            }
        }
        next(core, conn, batch, out);
    };
    core.ask(request, Waiting::Detached { conn, then: Box::new(then) }, out);
}

fn finish(core: &mut Core, conn: ConnId, batch: &Batch, out: &mut Outputs) {
    match batch.error {
        Some(error) if batch.done == 0 => batch.call.fail(conn, error, out),
        None => batch.call.complete(core, conn, out, |_| {}),
        Some(_) => {
            let failed: Vec<&str> = batch.failed.iter().map(BareJid::as_str).collect();
            let text = format!("Not done for: {}", failed.join(", "));
            batch.call.complete(core, conn, out, |w| note(w, "warn", &text));
        }
    }
}

fn end_sessions(cx: &mut Cx<'_>, call: Call, form: &Form) -> Handled {
    let named = form.values("accountjids").unwrap_or_default();
    if named.len() > NAMED_MAX {
        return Err(StanzaError::NOT_ACCEPTABLE.text("These are too many accounts at once."));
    }
    let mut conns: Vec<ConnId> = Vec::new();
    for text in named {
        let user = account(&call, text)?;
        let jid = JidRef::parse(text.trim()).map_err(|_| StanzaError::JID_MALFORMED)?;
        let resources = cx.core.accounts.find(user.as_str()).map(|account| account.resources.as_slice());
        let meant = resources.unwrap_or_default().iter();
        let meant = meant.filter(|own| jid.resource().is_none_or(|name| own.jid.resource() == name));
        conns.extend(meant.map(|resource| resource.conn));
    }
    if conns.is_empty() {
        return Err(StanzaError::ITEM_NOT_FOUND.text("There is no such session."));
    }
    log::info!("{} sessions were ended by {}", conns.len(), call.user.bare());
    // It may be the very session that asks.
    call.complete(cx.core, cx.conn, cx.out, |_| {});
    for conn in conns {
        cx.core.close_stream(cx.now, conn, Some(ENDED), cx.out);
    }
    Ok(Done)
}

fn stats(cx: &mut Cx<'_>, call: Call, form: &Form) -> Handled {
    let user = account(&call, form.value("accountjid").unwrap_or_default())?;
    let request = StoreRequest::Activate { user: user.clone() };
    let then = move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Ok(Stored::Account(record)) => {
            let resources = core.accounts.find(user.as_str()).map(|account| account.resources.as_slice());
            let resources = resources.unwrap_or_default();
            let mut peers: Vec<String> = resources
                .iter()
                .filter_map(|resource| core.streams.get(resource.conn).map(|stream| stream.peer.to_string()))
                .collect();
            peers.sort_unstable();
            peers.dedup();
            let names: Vec<String> = resources.iter().map(|resource| resource.jid.resource().to_owned()).collect();
            call.complete(core, conn, out, |w| {
                form::open(w, "result", ns::ADMIN);
                form::told(w, "ipaddresses", &peers);
                form::told(w, "rostersize", &[record.roster.items.len()]);
                form::told(w, "onlineresources", &names);
            });
        }
        Ok(_) => call.fail(conn, StanzaError::INTERNAL_SERVER_ERROR, out),
        Err(error) => call.fail(conn, missing_account(error), out),
    };
    cx.ask_for_all(request, Box::new(then))
}

/// Some of a host's accounts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Registered,
    Disabled,
    /// Those with a session.
    Online,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Group::Registered => "registered",
            Group::Disabled => "disabled",
            Group::Online => "online",
        }
    }
}

/// Accounts of a host that have a session, in order.
fn online<'c>(core: &'c Core, host: &str) -> Vec<&'c BareJid> {
    let accounts = core.accounts.iter().map(|(_, account)| &account.jid);
    let mut accounts: Vec<&BareJid> = accounts.filter(|jid| jid.domain() == host).collect();
    accounts.sort_unstable();
    accounts
}

fn count(cx: &mut Cx<'_>, call: Call, group: Group) -> Handled {
    if group == Group::Online {
        let number = online(cx.core, &call.host).len() as u64;
        tell_count(cx.core, cx.conn, &call, group, number, cx.out);
        return Ok(Done);
    }
    let request = StoreRequest::Census { domain: call.host.clone() };
    let then = move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Ok(Stored::Census { accounts, disabled }) => {
            let number = if group == Group::Disabled { disabled } else { accounts };
            tell_count(core, conn, &call, group, number, out);
        }
        Ok(_) => call.fail(conn, StanzaError::INTERNAL_SERVER_ERROR, out),
        Err(error) => call.fail(conn, error.into(), out),
    };
    cx.ask_for_all(request, Box::new(then))
}

fn tell_count(core: &mut Core, conn: ConnId, call: &Call, group: Group, number: u64, out: &mut Outputs) {
    call.complete(core, conn, out, |w| {
        form::open(w, "result", ns::ADMIN);
        form::told(w, &format!("{}usersnum", group.name()), &[number]);
    });
}

fn list(cx: &mut Cx<'_>, mut call: Call, form: &Form, group: Group) -> Handled {
    let pages = match call.pages.take() {
        Some(pages) => pages,
        None => Pages { max: page_max(form)?, ..Pages::default() },
    };
    let after = pages.behind.last().map(|last| BareJid::from_prepared(last));
    // One more than is shown tells whether there are more.
    let (domain, max) = (call.host.clone(), pages.max + 1);
    let request = match group {
        Group::Registered => StoreRequest::Accounts { domain, after, max },
        Group::Disabled => StoreRequest::DisabledAccounts { domain, after, max },
        Group::Online => {
            let behind = |jid: &&BareJid| after.as_ref().is_none_or(|after| *jid > after);
            let found = online(cx.core, &domain).into_iter().filter(behind).take(max).cloned().collect();
            show(cx.core, cx.conn, &call, group, pages, found, cx.out);
            return Ok(Done);
        }
    };
    let then = move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Ok(Stored::Accounts(found)) => show(core, conn, &call, group, pages, found, out),
        Ok(_) => call.fail(conn, StanzaError::INTERNAL_SERVER_ERROR, out),
        Err(error) => call.fail(conn, error.into(), out),
    };
    cx.ask_for_all(request, Box::new(then))
}

fn page_max(form: &Form) -> Result<usize, StanzaError> {
    match form.value("max_items") {
        None | Some("" | "none") => Ok(PAGE_MAX),
        Some(number) => match number.parse::<usize>() {
            Ok(number) if number > 0 => Ok(number.min(PAGE_MAX)),
            _ => Err(BAD_PAYLOAD),
        },
    }
}

fn show(
    core: &mut Core,
    conn: ConnId,
    call: &Call,
    group: Group,
    mut pages: Pages,
    mut found: Vec<BareJid>,
    out: &mut Outputs,
) {
    let more = found.len() > pages.max;
    found.truncate(pages.max);
    pages.next = found.last().filter(|_| more).map(|last| last.as_str().to_owned());
    call.show_page(core, conn, pages, out, |w| {
        form::open(w, "result", ns::ADMIN);
        form::told(w, &format!("{}userjids", group.name()), &found);
    });
}

/// The latest first; a page of them is told by the number of its last.
fn show_reports(cx: &mut Cx<'_>, mut call: Call, _: &Form) -> Handled {
    let mut pages = call.pages.take().unwrap_or(Pages { max: REPORTS_ON_PAGE, ..Pages::default() });
    let before = pages.behind.last().and_then(|number| number.parse().ok());
    // One more than is shown tells whether there are more.
    let request = StoreRequest::Reports { domain: call.host.clone(), before, max: pages.max + 1 };
    let then = move |core: &mut Core, _: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Ok(Stored::Reports(mut found)) => {
            let more = found.len() > pages.max;
            found.truncate(pages.max);
            pages.next = found.last().filter(|_| more).map(|(number, _)| number.to_string());
            let lines: Vec<String> = found.iter().map(|(_, report)| report.to_string()).collect();
            call.show_page(core, conn, pages, out, |w| {
                form::open(w, "result", ns::ADMIN);
                form::told(w, "reports", &lines);
            });
        }
        Ok(_) => call.fail(conn, StanzaError::INTERNAL_SERVER_ERROR, out),
        Err(error) => call.fail(conn, error.into(), out),
    };
    cx.ask_for_all(request, Box::new(then))
}

/// Lines of a form as one text; `None` if there are none.
fn announcement(form: &Form) -> Result<Option<String>, StanzaError> {
    let text = form.values(TEXT.var).unwrap_or_default().join("\n");
    match text.len() {
        0 => Ok(None),
        1..=ANNOUNCEMENT_BYTES_MAX => Ok(Some(text)),
        _ => Err(StanzaError::NOT_ACCEPTABLE.text("The announcement is too long.")),
    }
}

/// To every available session of the host's accounts; those who are away do not hear of what will be past.
fn tell_all(core: &Core, host: &str, text: &str, out: &mut Outputs) {
    let accounts = core.accounts.iter().filter(|(_, account)| account.jid.domain() == host);
    for resource in accounts.flat_map(|(_, account)| &account.resources) {
        if resource.per.presence.is_available() {
            out.wire.stanza(resource.conn, |buf| {
                let mut w = Writer::new(buf);
                w.open("message", ns::CLIENT).attr("type", "headline").attr("from", host);
                w.attr("to", resource.jid.as_str()).text_element("subject", "Announcement").text_element("body", text);
            });
        }
    }
}

fn announce(cx: &mut Cx<'_>, call: Call, form: &Form) -> Handled {
    let text = announcement(form)?.ok_or(BAD_PAYLOAD)?;
    tell_all(cx.core, &call.host, &text, cx.out);
    call.complete(cx.core, cx.conn, cx.out, |_| {});
    Ok(Done)
}

fn shut_down(cx: &mut Cx<'_>, call: Call, form: &Form) -> Handled {
    let delay = match form.value(DELAY.var) {
        None | Some("") => 0,
        Some(seconds) => seconds.parse::<u64>().ok().filter(|seconds| *seconds <= DELAY_MAX).ok_or(BAD_PAYLOAD)?,
    };
    if let Some(text) = announcement(form)? {
        // The server ends for everybody.
        for host in cx.core.hosts.iter().map(|host| host.name.as_str()) {
            tell_all(cx.core, host, &text, cx.out);
        }
    }
    log::warn!("{} shuts the server down in {delay} s", call.user.bare());
    cx.core.stops_at = Some(cx.now.mono + Duration::from_secs(delay));
    call.complete(cx.core, cx.conn, cx.out, |_| {});
    Ok(Done)
}
