//! XEP-0012: Last Activity.
//!
//! Of the host it is the uptime; of the own account 0, since somebody asks; of another account only for who sees its presence,
//! everybody else gets `forbidden` whether the account exists or not (section 4).

use super::prelude::*;
use crate::handlers::{presence, shared_contacts};

pub(super) const HANDLER: Handler = Handler {
    name: "last",
    spec: "XEP-0012 2.0",
    features: &[ns::LAST],
    account_features: &[ns::LAST],
    routes: &[
        iq_get(Target::Host, ns::LAST, "query", uptime),
        iq_get(Target::Account, ns::LAST, "query", own),
        iq_get(Target::Peer, ns::LAST, "query", peer),
    ],
    ..Handler::EMPTY
};

fn uptime(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    tell(cx.out, cx.conn, iq, cx.now.mono.as_secs(), "");
    Ok(Done)
}

fn own(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    tell(cx.out, cx.conn, iq, 0, "");
    Ok(Done)
}

fn peer(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let asker = cx.account().jid.clone();
    if let Some(account) = cx.core.accounts.find(iq.addressee.as_str())
        && presence::is_available(account)
    {
        if !shared_contacts::is_seen(cx.core, account, asker.as_str())
            || account.per.blocking.blocks_prepared(asker.as_str())
        {
            return Err(StanzaError::FORBIDDEN);
        }
        tell(cx.out, cx.conn, iq, 0, "");
        return Ok(Done);
    }
    cx.ask(StoreRequest::Relation { user: iq.addressee.clone(), peer: asker }, iq.park(), on_relation)
}

fn on_relation(resumed: Resumed<'_>, reply: StoreReply) -> Result<(), StanzaError> {
    let Resumed { now, conn, iq, out, .. } = resumed;
    match reply? {
        Stored::Relation { sees_presence: true, last_seen: Some((at, status)), .. } => {
            tell(out, conn, iq, now.utc.seconds_since(at), &status);
            Ok(())
        }
        // It exists and has never been online since it was made.
        Stored::Relation { sees_presence: true, last_seen: None, .. } => Err(StanzaError::SERVICE_UNAVAILABLE),
        _ => Err(StanzaError::FORBIDDEN),
    }
}

fn tell(out: &mut Outputs, conn: ConnId, iq: &impl crate::core::router::Replied, seconds: u64, status: &str) {
    out.reply(conn, iq, |w| {
        w.open("query", ns::LAST).attr("seconds", seconds).text(status);
    });
}
