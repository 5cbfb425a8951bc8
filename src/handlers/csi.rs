//! XEP-0352: Client State Indication.
//!
//! To a client that says it is inactive presence is not sent at once: the last of each sender is kept (`Wire::presence`) and goes
//! out, in order, before the next stanza that matters, or when the client is active again. A message that only says that somebody
//! types is not sent to it at all.

use super::prelude::*;
use crate::core::error::StreamError;
use crate::core::stream::{Phase, Stream};
use crate::handlers::StreamPhase;
use crate::xml::{Frame, Tree};

pub(super) const HANDLER: Handler = Handler {
    name: "csi",
    spec: "XEP-0352 1.0.0",
    stream_features: Some(advertise),
    bind2_feature: Some(ns::CSI),
    ..Handler::EMPTY
};

fn advertise(_: &Core, _: &Stream, phase: StreamPhase, w: &mut Writer<'_>) {
    if phase.is_authed() {
        w.empty("csi", ns::CSI);
    }
}

/// `<active/>` or `<inactive/>` of a bound session.
pub(crate) fn on_element(core: &mut Core, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
    let bound = core.streams.get(conn).is_some_and(|stream| matches!(stream.phase, Phase::Bound(_)));
    match frame.local {
        "inactive" if bound => out.wire.set_active(conn, false),
        "active" if bound => out.wire.set_active(conn, true),
        _ => {
            let error = StreamError::new("unsupported-stanza-type", "This element is not known here.");
            core.close_stream(now, conn, Some(error), out);
        }
    }
}

/// Whether a message says no more than that somebody types or has stopped to.
pub(super) fn is_typing_only(frame: &Frame<'_>) -> bool {
    if frame.children == 0 || !frame.xml.contains(ns::CHAT_STATES) {
        return false;
    }
    let quiet =
        |child: Element<'_>| matches!(child.ns(), ns::CHAT_STATES | ns::HINTS) || child.is("thread", ns::CLIENT);
    Tree::of(frame).root().children().all(quiet)
}
