//! XEP-0388: Extensible SASL Profile: another syntax for the exchanges of `auth`, in which a client asks for all it needs at once
//! and gets it with `<success/>`, without a new stream. What both syntaxes share is in `core::login`.
//!
//! Between `<authenticate/>` and its outcome the client may send what belongs to the exchange and nothing else, not even white
//! space (section 2.4). What base64 there is may be broken into lines (section 2.2: it only should not).

use super::prelude::*;
use crate::auth::{self, SaslError};
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
pub(crate) struct Request {}

fn advertise(_: &Core, stream: &Stream, _: StreamPhase, w: &mut Writer<'_>) {
    let Phase::Login(login) = &stream.phase else { return };
    let Some(offer) = login.offer.filter(|offer| stream.secure && offer.mechanisms().next().is_some()) else { return };
    w.open("authentication", ns::SASL2);
    for mechanism in offer.mechanisms() {
        w.text_element("mechanism", mechanism.name());
    }
    w.close();
}

/// A first-level element before log-in that is in our namespace, or came during an exchange.
pub(crate) fn on_element(core: &mut Core, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
    let Some(login) = core.login_mut(conn) else { return };
    let name = if *frame.ns == *ns::SASL2 { frame.local } else { "" };
    match (name, login.sasl2.is_some()) {
        ("authenticate", false) => authenticate(core, now, conn, frame, out),
        ("response", true) => {
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
    login.sasl2 = Some(Box::new(Request {}));
    if !is_secure {
        return core.fail_login(now, conn, SaslError::EncryptionRequired, out);
    }
    let initial = root.child("initial-response", ns::SASL2);
    let data = initial.map(|initial| decode(&initial.text())).transpose();
    core.begin_exchange(now, conn, root.attr("mechanism").unwrap_or_default(), data, out);
}

/// The octets of an element; none where it is empty (section 2.2).
fn decode(content: &str) -> Result<Vec<u8>, SaslError> {
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
    let content: std::borrow::Cow<'_, str> =
        if content.contains(is_space) { content.replace(is_space, "").into() } else { content.into() };
    match &*content {
        // What means none in the other syntax is no base64.
        "=" => Err(SaslError::IncorrectEncoding),
        content => auth::decode(content).map(Option::unwrap_or_default),
    }
}

/// The exchange has succeeded: the client is this account, and gets what it has asked for.
pub(crate) fn on_authenticated(
    core: &mut Core,
    _: Now,
    conn: ConnId,
    user: BareJid,
    _: Box<Request>,
    data: &[u8],
    out: &mut Outputs,
) {
    out.wire.write(conn, |buf| {
        let mut w = Writer::new(buf);
        w.open("success", ns::SASL2);
        if !data.is_empty() {
            w.text_element("additional-data", auth::encode(data));
        }
        w.text_element("authorization-identifier", &user);
    });
    core.admit(conn, user);
    core.send_features(conn, out);
}
