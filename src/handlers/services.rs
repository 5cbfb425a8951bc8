//! XEP-0215: STUN and TURN servers that the operator has named, with credentials that hold for a while.
//!
//! A TURN server that shares a secret with us (coturn's `use-auth-secret`) takes as user name when the credentials end and whose
//! they are, and as password an HMAC of that: nothing is stored on either side, and one who has left cannot use it for long.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::prelude::*;
use crate::config::ExternalService;
use crate::core::UtcTime;

pub(super) const HANDLER: Handler = Handler {
    name: "services",
    spec: "XEP-0215 1.0",
    features: &[ns::EXTERNAL_SERVICES],
    routes: &[
        iq_get(Target::Host, ns::EXTERNAL_SERVICES, "services", services),
        iq_get(Target::Host, ns::EXTERNAL_SERVICES, "credentials", credentials),
    ],
    ..Handler::EMPTY
};

/// What a host has, and what makes credentials for it.
#[derive(Default)]
pub(crate) struct External {
    pub(crate) services: Vec<ExternalService>,
    pub(crate) secret: String,
    /// How long credentials hold, in seconds.
    pub(crate) seconds: u64,
}

struct Credentials {
    username: String,
    password: String,
    expires: UtcTime,
}

impl External {
    /// For one user, from now on; `None` if the services need none.
    fn credentials(&self, user: &str, now: UtcTime) -> Option<Credentials> {
        if self.secret.is_empty() {
            return None;
        }
        let seconds = now.0 / 1000 + self.seconds;
        let username = format!("{seconds}:{user}");
        let mut mac = Hmac::<Sha1>::new_from_slice(self.secret.as_bytes()).ok()?;
        mac.update(username.as_bytes());
        let password = STANDARD.encode(mac.finalize().into_bytes());
        Some(Credentials { username, password, expires: UtcTime(seconds * 1000) })
    }
}

fn write(service: &ExternalService, credentials: Option<&Credentials>, w: &mut Writer<'_>) {
    w.open("service", ns::EXTERNAL_SERVICES).attr("type", service.kind).attr("host", &service.host);
    w.attr("port", service.port).attr("transport", service.transport);
    // Only relays ask who is there.
    if service.kind.starts_with("turn")
        && let Some(credentials) = credentials
    {
        w.attr("restricted", "1").attr("username", &credentials.username).attr("password", &credentials.password);
        w.attr("expires", credentials.expires);
    }
    w.close();
}

/// All, or those of a type.
fn services(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let wanted = iq.payload.attr("type");
    answer(cx, iq, "services", wanted, |service| wanted.is_none_or(|kind| kind == service.kind))
}

/// Those at one host; without a port all of them.
fn credentials(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let asked = iq.payload.child("service", ns::EXTERNAL_SERVICES).ok_or(StanzaError::BAD_REQUEST)?;
    let (host, kind) = (asked.attr("host").ok_or(StanzaError::BAD_REQUEST)?, asked.attr("type"));
    let kind = kind.ok_or(StanzaError::BAD_REQUEST)?;
    let port = asked.attr("port").map(str::parse::<u16>).transpose().map_err(|_| StanzaError::BAD_REQUEST)?;
    let meant = |service: &ExternalService| {
        service.host == host && service.kind == kind && port.is_none_or(|port| port == service.port)
    };
    let external = cx.core.hosts.iter().find(|own| own.name == iq.addressee.as_str()).map(|own| &own.external);
    if !external.is_some_and(|external| external.services.iter().any(meant)) {
        return Err(StanzaError::ITEM_NOT_FOUND);
    }
    answer(cx, iq, "credentials", None, meant)
}

/// To the host's own users only: others have their own host's services.
fn answer(
    cx: &mut Cx<'_>,
    iq: &Iq<'_>,
    name: &'static str,
    kind: Option<&str>,
    meant: impl Fn(&ExternalService) -> bool,
) -> Handled {
    let user = cx.account().jid.clone();
    if user.domain() != iq.addressee.as_str() {
        return Err(StanzaError::FORBIDDEN);
    }
    let now = cx.now.utc;
    let Cx { core, out, conn, .. } = cx;
    let Some(host) = core.hosts.iter().find(|host| host.name == iq.addressee.as_str()) else {
        return Err(StanzaError::ITEM_NOT_FOUND);
    };
    let credentials = host.external.credentials(user.as_str(), now);
    out.reply(*conn, iq, |w| {
        w.open(name, ns::EXTERNAL_SERVICES).attr_opt("type", kind);
        for service in host.external.services.iter().filter(|service| meant(service)) {
            write(service, credentials.as_ref(), w);
        }
    });
    Ok(Done)
}
