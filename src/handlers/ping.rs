//! XEP-0199: XMPP Ping.
//!
//! Answers pings to the host and to the sender's own account. A ping to another user's full JID is ordinary traffic that the
//! router forwards; to another user's bare JID it gets `service-unavailable` like any unknown request, so that a ping cannot
//! tell whether an account exists (RFC 6121 section 8.5.1). Finding dead clients is not done here: see `core::stream`.

use super::prelude::*;

pub(super) const HANDLER: Handler = Handler {
    name: "ping",
    spec: "XEP-0199 2.0.1",
    features: &[ns::PING],
    account_features: &[ns::PING],
    routes: &[iq_get(Target::Host, ns::PING, "ping", pong), iq_get(Target::Account, ns::PING, "ping", pong)],
    ..Handler::EMPTY
};

fn pong(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    cx.out.pong(cx.conn, iq);
    Ok(Done)
}
