//! XEP-0388: Extensible SASL Profile: another syntax for the exchanges of `auth`, in which a client asks for all it needs at once
//! and gets it with `<success/>`, without a new stream. What both syntaxes share is in `core::login`.
//!
//! Between `<authenticate/>` and its outcome the client may send what belongs to the exchange and nothing else, not even white
//! space (section 2.4). What base64 there is may be broken into lines (section 2.2: it only should not).

use super::prelude::*;
use super::{HANDLERS, bind2, fast, sm, upgrade};
use crate::auth::{self, ClientId, Mechanism, SaslError, TokenMechanism};
use crate::core::error::StreamError;
use crate::core::stream::{Phase, Stream};
use crate::handlers::StreamPhase;
use crate::jid::BareJid;
use crate::xml::{Frame, Tree};

pub(super) const HANDLER: Handler = Handler {
    name: "sasl2",
    spec: "XEP-0388 1.0.4, XEP-0440 1.0.0, XEP-0474 0.5.0",
    stream_features: Some(advertise),
    ..Handler::EMPTY
};

/// What `<authenticate/>` asks for beside the exchange. None of it has an effect unless the exchange succeeds (section 2.6.2).
pub(crate) struct Request {
    pub(super) client: Option<ClientId>,
    /// What it calls itself, for its owner; may be empty.
    pub(super) name: String,
    pub(super) fast: fast::Request,
    resume: Option<sm::Resume>,
    bind: Option<bind2::Request>,
    upgrade: bool,
    /// What the client has to do before it is let in.
    pub(super) task: Option<upgrade::Task>,
}

impl Request {
    fn parse(root: &Element<'_>) -> Request {
        let agent = root.child("user-agent", ns::SASL2);
        Request {
            client: agent.and_then(|agent| agent.attr("id")).and_then(ClientId::parse),
            name: agent.map(|agent| name_of(&agent)).unwrap_or_default(),
            fast: fast::Request::parse(root),
            resume: root.child("resume", ns::SM).map(|resume| sm::Resume::parse(&resume)),
            bind: root.child("bind", ns::BIND2).map(|bind| bind2::Request::parse(&bind)),
            upgrade: upgrade::is_wanted(root),
            task: None,
        }
    }
}

/// Software and device of a client, in one line.
fn name_of(agent: &Element<'_>) -> String {
    const NAME_CHARS_MAX: usize = 100;
    let part = |name| agent.child(name, ns::SASL2).map(|child| child.text().trim().to_owned()).unwrap_or_default();
    let name = match (part("software"), part("device")) {
        (software, device) if device.is_empty() => software,
        (software, device) if software.is_empty() => device,
        (software, device) => format!("{software}, {device}"),
    };
    name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect()
}

/// A log-in that has succeeded, whose client is told when the rest of what it has asked for is done.
#[derive(Default)]
pub(crate) struct Completion {
    pub(super) client: Option<ClientId>,
    bind: Option<bind2::Request>,
    /// The mechanism's last word.
    data: Vec<u8>,
    /// What has become of the rest: whole elements.
    results: Vec<u8>,
}

impl Completion {
    /// Adds to what the client is told.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut Writer<'_>)) {
        write(&mut Writer::new(&mut self.results));
    }

    /// Tells the client who it is.
    pub(super) fn write_success(&self, conn: ConnId, jid: &str, out: &mut Outputs) {
        out.wire.write(conn, |buf| {
            let mut w = Writer::new(buf);
            w.open("success", ns::SASL2);
            if !self.data.is_empty() {
                w.text_element("additional-data", auth::encode(&self.data));
            }
            w.text_element("authorization-identifier", jid).raw(&self.results);
        });
    }
}

fn advertise(core: &Core, stream: &Stream, _: StreamPhase, w: &mut Writer<'_>) {
    let Phase::Login(login) = &stream.phase else { return };
    let Some(offer) = login.offer.filter(|offer| stream.secure && offer.mechanisms().next().is_some()) else { return };
    w.open("authentication", ns::SASL2);
    for mechanism in offer.mechanisms() {
        w.text_element("mechanism", mechanism.name());
    }
    w.open("inline", ns::SASL2);
    for write in HANDLERS.iter().filter_map(|handler| handler.inline) {
        write(core, stream, w);
    }
    w.close();
    if offer.offers(Mechanism::ScramSha256) {
        upgrade::advertise(w);
    }
    w.close();
}

/// A first-level element before log-in that is in our namespace, or came during an exchange.
pub(crate) fn on_element(core: &mut Core, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
    let Some(login) = core.login_mut(conn) else { return };
    let name = if *frame.ns == *ns::SASL2 { frame.local } else { "" };
    let has_task = login.sasl2.as_ref().is_some_and(|request| request.task.is_some());
    match (name, login.sasl2.is_some()) {
        ("authenticate", false) => authenticate(core, now, conn, frame, out),
        ("next" | "task-data", true) if has_task => upgrade::on_element(core, now, conn, frame, out),
        ("response", true) if !has_task => {
            let data = decode(&Tree::of(frame).root().text());
            core.continue_exchange(now, conn, data, out);
        }
        ("abort", true) => core.fail_login(now, conn, SaslError::Aborted, out),
        (_, true) => disturbed(core, now, conn, out),
        ("response" | "abort" | "next" | "task-data", false) => {
            let error = StreamError::new("policy-violation", "No authentication is in progress.");
            core.close_stream(now, conn, Some(error), out);
        }
        (_, false) => {
            let error = StreamError::new("unsupported-stanza-type", "This element is not known here.");
            core.close_stream(now, conn, Some(error), out);
        }
    }
}

/// Something else came during an exchange (section 2.4).
pub(crate) fn disturbed(core: &mut Core, now: Now, conn: ConnId, out: &mut Outputs) {
    let error = StreamError::new("policy-violation", "Only the authentication may go on now.");
    core.close_stream(now, conn, Some(error), out);
}

fn authenticate(core: &mut Core, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
    let tree = Tree::of(frame);
    let root = tree.root();
    let is_secure = core.streams.get(conn).is_some_and(|stream| stream.secure);
    let Some(login) = core.login_mut(conn) else { return };
    // An exchange in the other syntax is dropped. From here on a failure is told in ours.
    login.exchange = None;
    let request = Request::parse(&root);
    let uses_token = request.fast.uses_token();
    login.sasl2 = Some(Box::new(request));
    if !is_secure {
        return core.fail_login(now, conn, SaslError::EncryptionRequired, out);
    }
    let initial = root.child("initial-response", ns::SASL2);
    let data = initial.map(|initial| decode(&initial.text())).transpose();
    let mechanism = root.attr("mechanism").unwrap_or_default();
    match (TokenMechanism::from_name(mechanism), uses_token) {
        (Some(mechanism), _) => fast::authenticate(core, now, conn, mechanism, data, out),
        // A token and a password at once; who wants to be rid of the token must hear that he is not.
        (None, true) => core.refuse_login(now, conn, SaslError::MalformedRequest, out),
        (None, false) => core.begin_exchange(now, conn, mechanism, data, out),
    }
}

/// The octets of an element; none where it is empty (section 2.2).
pub(super) fn decode(content: &str) -> Result<Vec<u8>, SaslError> {
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
    let content: std::borrow::Cow<'_, str> =
        if content.contains(is_space) { content.replace(is_space, "").into() } else { content.into() };
    match &*content {
        // What means none in the other syntax is no base64.
        "=" => Err(SaslError::IncorrectEncoding),
        content => auth::decode(content).map(Option::unwrap_or_default),
    }
}

/// The exchange has succeeded: the client is this account.
pub(crate) fn on_authenticated(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    user: BareJid,
    request: Request,
    data: &[u8],
    out: &mut Outputs,
) {
    match request.upgrade {
        true => upgrade::start(core, now, conn, user, request, data.to_vec(), out),
        false => fast::issue(core, now, conn, user, request, data.to_vec(), out),
    }
}

/// The client is let in, and gets what it has asked for.
#[expect(clippy::too_many_arguments, reason = "all that a log-in comes to")]
pub(super) fn enter(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    user: BareJid,
    request: Request,
    data: &[u8],
    issued: Option<fast::Issued>,
    out: &mut Outputs,
) {
    let Request { client, resume, bind, .. } = request;
    core.admit(conn, user);
    if let Some(Stream { phase: Phase::Authed(authed), .. }) = core.streams.get_mut(conn) {
        let mut completion = Completion { client, bind, data: data.to_vec(), results: Vec::new() };
        if let Some(issued) = issued {
            completion.add(|w| issued.write(w));
        }
        authed.completion = Some(Box::new(completion));
    }
    // Resumption comes before all else, and leaves nothing to do if it succeeds (XEP-0198 section 9.2).
    match resume {
        Some(resume) => sm::resume(core, now, conn, &resume, out),
        None => proceed(core, now, conn, out),
    }
}

/// What waits to be told to a stream that is about to hear of its success.
pub(super) fn completion(core: &mut Core, conn: ConnId) -> Option<&mut Completion> {
    match &mut core.streams.get_mut(conn)?.phase {
        Phase::Authed(authed) => authed.completion.as_deref_mut(),
        _ => None,
    }
}

/// The stream has no session: it gets one if it has asked for that, and hears of its success.
pub(super) fn proceed(core: &mut Core, now: Now, conn: ConnId, out: &mut Outputs) {
    if let Some(bind) = completion(core, conn).and_then(|completion| completion.bind.take()) {
        return bind2::start(core, now, conn, bind, out);
    }
    let Some(Stream { phase: Phase::Authed(authed), .. }) = core.streams.get_mut(conn) else { return };
    if let Some(completion) = authed.completion.take() {
        completion.write_success(conn, authed.user.as_str(), out);
        core.send_features(conn, out);
    }
}
